//! A format and its document change together: the document holds a hash of the code it describes.

use std::path::{Path, PathBuf};

use crate::tidy::Finding;
use crate::tidy::tree::Files;

/// The crates with bytes on disk.
const CRATES: [&str; 2] = ["wal", "snapshot"];
const LABEL: &str = "format.rs as of this document:";

pub(crate) fn check(files: &Files) -> Vec<Finding> {
    CRATES
        .iter()
        .filter_map(|name| check_crate(Path::new(name), files))
        .collect()
}

fn check_crate(folder: &Path, files: &Files) -> Option<Finding> {
    let document = folder.join("FORMAT.md");
    let code: Vec<(&PathBuf, &String)> = code(folder, files).collect();
    if code.is_empty() {
        return Some(Finding::new(
            folder.join("src/format.rs"),
            "is missing, and with it the bytes that FORMAT.md tells",
        ));
    }
    let Some(text) = files.get(&document) else {
        return Some(Finding::new(
            document,
            "is missing; a format is a document first",
        ));
    };
    let hash = code
        .iter()
        .fold(FNV_BASIS, |hash, (_, text)| fnv1a(hash, text.as_bytes()));
    let expected = format!("{LABEL} {hash:016x}");
    let recorded = text
        .lines()
        .enumerate()
        .find(|(_, line)| line.contains(LABEL));
    match recorded {
        Some((_, line)) if line.contains(&expected) => None,
        Some((number, _)) => {
            let what = format!(
                "format.rs has changed; read this document against it, then write `{expected}`"
            );
            Some(Finding::at(document, number + 1, what))
        }
        None => Some(Finding::new(
            document,
            format!("read it against format.rs, then add the line `{expected}`"),
        )),
    }
}

/// `src/format.rs`, and everything in `src/format/` where it was cut into several files, by name.
fn code<'a>(folder: &Path, files: &'a Files) -> impl Iterator<Item = (&'a PathBuf, &'a String)> {
    let (file, parts) = (folder.join("src/format.rs"), folder.join("src/format"));
    files
        .iter()
        .filter(move |(path, _)| **path == file || path.starts_with(&parts))
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits (Fowler, Noll, Vo). It only has to tell that something changed.
fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(document: Option<&str>, code: &str) -> Files {
        let mut files = Files::from([(PathBuf::from("wal/src/format.rs"), code.to_owned())]);
        if let Some(document) = document {
            files.insert("wal/FORMAT.md".into(), document.to_owned());
        }
        files
    }

    fn check_wal(files: &Files) -> Option<Finding> {
        check_crate(Path::new("wal"), files)
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(FNV_BASIS, b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(FNV_BASIS, b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_document_that_knows_the_code_is_fine() {
        let document = "# Format\n\n<!-- format.rs as of this document: 85944171f73967e8 -->\n";
        assert_eq!(check_wal(&files(Some(document), "foobar")), None);
    }

    #[test]
    fn changed_code_has_its_document_read_again() {
        let document = "# Format\n\n<!-- format.rs as of this document: 85944171f73967e8 -->\n";
        let finding = check_wal(&files(Some(document), "foobar2")).expect("the code has changed");
        assert_eq!(finding.line, Some(3));
        assert!(finding.what.contains("has changed"), "{finding}");
    }

    #[test]
    fn code_without_a_document_and_a_document_without_the_line_are_found() {
        assert!(check_wal(&files(None, "foobar")).is_some());
        assert!(check_wal(&files(Some("# Format\n"), "foobar")).is_some());
        assert!(check_wal(&Files::new()).is_some());
    }
}
