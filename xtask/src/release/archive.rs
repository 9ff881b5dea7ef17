//! Archives whose bytes depend on their contents alone: ustar (POSIX.1-1988) and ar, as Debian packages use it (deb(5)).

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::shell::Failure;

/// A file in an archive; folders above it are made as they are needed.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// From the root of the archive, without a slash in front.
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) bytes: Vec<u8>,
}

const BLOCK: usize = 512;

/// Everything in the order of the paths, owned by root, dated `epoch`.
pub(super) fn tar(items: &[Item], epoch: u64) -> Result<Vec<u8>, Failure> {
    let mut items = items.to_vec();
    items.sort_by(|one, other| one.path.cmp(&other.path));
    let mut out = Vec::new();
    let mut made: Vec<String> = Vec::new();
    for item in &items {
        let folders = Path::new(&item.path)
            .ancestors()
            .skip(1)
            .collect::<Vec<_>>();
        for folder in folders.into_iter().rev() {
            let folder = folder.display().to_string();
            if !folder.is_empty() && !made.contains(&folder) {
                out.extend(header(&format!("./{folder}/"), 0o755, 0, b'5', epoch)?);
                made.push(folder);
            }
        }
        out.extend(header(
            &format!("./{}", item.path),
            item.mode,
            item.bytes.len(),
            b'0',
            epoch,
        )?);
        out.extend(&item.bytes);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks are the end.
    out.resize(out.len() + 2 * BLOCK, 0);
    Ok(out)
}

fn header(
    path: &str,
    mode: u32,
    size: usize,
    kind: u8,
    epoch: u64,
) -> Result<[u8; BLOCK], Failure> {
    if path.len() > 100 {
        return Err(Failure(format!(
            "{path} is longer than the 100 bytes that an archive has for it"
        )));
    }
    let mut block = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, path);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, &format!("{epoch:011o}"));
    // The sum is taken with blanks in its place.
    put(148, "        ");
    put(257, "ustar\u{0}00");
    put(265, "root");
    put(297, "root");
    block[156] = kind;
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// Members one after the other, dated `epoch`.
pub(super) fn ar(members: &[(&str, Vec<u8>)], epoch: u64) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        let head = format!(
            "{name:<16}{epoch:<12}{:<6}{:<6}{:<8}{:<10}`\n",
            0,
            0,
            100_644,
            bytes.len()
        );
        out.extend(head.as_bytes());
        out.extend(bytes);
        if bytes.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

/// By the system's gzip, without a name and a date in it.
pub(super) fn gzip(bytes: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let wrong =
        |error: std::io::Error| Failure(format!("gzip: {error}; it is needed for archives"));
    let mut child = Command::new("gzip")
        .args(["-9", "--no-name", "--stdout"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(wrong)?;
    let mut input = child.stdin.take().expect("it is piped");
    // Written by another thread, so that neither pipe fills up while the other is waited for.
    let writer = thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().map_err(wrong)?;
    writer
        .join()
        .expect("writing does not panic")
        .map_err(wrong)?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(Failure(format!("gzip failed ({})", output.status)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Vec<Item> {
        let item = |path: &str, bytes: &[u8]| Item {
            path: path.to_owned(),
            mode: 0o644,
            bytes: bytes.to_vec(),
        };
        vec![item("usr/bin/x", b"hello"), item("a", &[7; 700])]
    }

    #[test]
    fn an_archive_is_the_same_whatever_the_order_of_its_items() {
        let (mut turned, items) = (items(), items());
        turned.reverse();
        assert_eq!(
            tar(&items, 5).expect("short paths"),
            tar(&turned, 5).expect("short paths")
        );
    }

    /// The system's own program reads what is written here.
    #[test]
    fn tar_can_read_it() {
        let archive =
            gzip(tar(&items(), 1_700_000_000).expect("short paths")).expect("gzip is there");
        let mut child = Command::new("tar")
            .args(["--list", "--gzip", "--verbose", "--numeric-owner", "--utc"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tar is there");
        child
            .stdin
            .take()
            .expect("it is piped")
            .write_all(&archive)
            .expect("tar reads it");
        let output = child.wait_with_output().expect("tar ends");
        assert!(output.status.success());
        let listing = String::from_utf8(output.stdout).expect("text");
        for line in [
            "./usr/bin/\n",
            "0/0               5 2023-11-14 22:13 ./usr/bin/x\n",
            "./a\n",
        ] {
            assert!(listing.contains(line), "{line:?} is not in {listing}");
        }
    }

    #[test]
    fn members_of_an_ar_archive_begin_at_even_places() {
        let archive = ar(&[("one", b"abc".to_vec()), ("two", b"d".to_vec())], 9);
        let second = archive
            .windows(3)
            .position(|bytes| bytes == b"two")
            .expect("it is there");
        assert_eq!(second % 2, 0);
        assert_eq!(&archive[second + 58..second + 61], b"`\nd");
    }
}
