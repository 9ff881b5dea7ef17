//! Opening words, sizes, leftovers, and the files that each crate and the workspace have to have.

use std::path::Path;

use crate::tidy::Finding;
use crate::tidy::manifest::Manifest;
use crate::tidy::tree::Files;

const LINES_MAX: usize = 900;
const AT_ROOT: [&str; 3] = ["README.md", "LICENSE-MIT", "LICENSE-APACHE"];
const FORBID_UNSAFE: &str = "#![forbid(unsafe_code)]";
const README_TESTED: &str = "#[doc = include_str!(\"../README.md\")]";
/// A sentence, not a word.
const OPENING_WORDS_MIN: usize = 3;

// Written in pieces, so that this file does not find itself.
const MARKS: [&str; 5] = [
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("#[ig", "nore]"),
];
/// Where people and machines keep their own things; a path into one works for nobody else.
const PRIVATE_FOLDERS: [&str; 5] = ["work", "farm", "root", "home", "Users"];

pub(crate) fn check(manifests: &[Manifest], files: &Files) -> Vec<Finding> {
    let missing = AT_ROOT
        .iter()
        .filter(|name| !files.contains_key(Path::new(name)));
    let mut findings: Vec<Finding> = missing
        .map(|name| Finding::new(*name, "is missing"))
        .collect();
    for manifest in manifests {
        findings.extend(check_crate(manifest, files));
    }
    for (path, text) in files {
        if path.extension().is_some_and(|extension| extension == "rs") {
            findings.extend(check_rust(path, text));
        }
        findings.extend(check_paths(path, text));
    }
    findings
}

fn check_crate(manifest: &Manifest, files: &Files) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !manifest.inherits_lints() {
        findings.push(Finding::new(
            &manifest.path,
            "needs `[lints] workspace = true`",
        ));
    }
    let readme = manifest.folder.join("README.md");
    if !files.contains_key(&readme) {
        findings.push(Finding::new(readme, "is missing"));
    }
    if manifest.is_published() {
        findings.extend(check_published(manifest, files));
    }
    let roots = ["src/lib.rs", "src/main.rs"].map(|name| manifest.folder.join(name));
    match roots.iter().find_map(|path| Some((path, files.get(path)?))) {
        None => findings.push(Finding::new(
            &manifest.folder,
            "has neither src/lib.rs nor src/main.rs",
        )),
        Some((path, text)) if !text.lines().any(|line| line.trim() == FORBID_UNSAFE) => {
            findings.push(Finding::new(path, format!("needs `{FORBID_UNSAFE}`")));
        }
        Some(_) => {}
    }
    findings
}

/// Whoever finds a crate in a registry reads what it is, and can trust the example in its README.
fn check_published(manifest: &Manifest, files: &Files) -> Vec<Finding> {
    let mut findings: Vec<Finding> = manifest
        .missing_metadata()
        .into_iter()
        .map(|name| Finding::new(&manifest.path, format!("does not say `{name}`")))
        .collect();
    let library = manifest.folder.join("src/lib.rs");
    let tested = |text: &String| text.contains(README_TESTED);
    if !files.get(&library).is_some_and(tested) {
        findings.push(Finding::new(
            library,
            format!("needs `{README_TESTED}`, so that the README's example is tested"),
        ));
    }
    findings
}

fn check_rust(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let opening = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("//! "));
    if opening.is_none_or(|words| words.split_whitespace().count() < OPENING_WORDS_MIN) {
        findings.push(Finding::at(
            path,
            1,
            "has to open with a `//!` sentence that says what is in it",
        ));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        findings.push(Finding::new(
            path,
            format!("has {lines} lines; above {LINES_MAX} it is time to cut it"),
        ));
    }
    for (number, line) in (1..).zip(text.lines()) {
        for mark in MARKS.iter().filter(|&&mark| line.contains(mark)) {
            findings.push(Finding::at(path, number, format!("`{mark}` is left")));
        }
    }
    findings
}

fn check_paths(path: &Path, text: &str) -> Vec<Finding> {
    let lines = (1..).zip(text.lines());
    lines
        .filter_map(|(number, line)| private_path(line).map(|found| (number, found)))
        .map(|(number, found)| {
            Finding::at(path, number, format!("`{found}` is a path of one machine"))
        })
        .collect()
}

/// The first absolute path into a private folder.
fn private_path(line: &str) -> Option<String> {
    PRIVATE_FOLDERS.iter().find_map(|folder| {
        let folder = format!("/{folder}/");
        let starts_path = |at: usize| {
            let before = line[..at].chars().next_back();
            // `src/work/` and `example.org/home/` are no absolute paths.
            before.is_none_or(|before| !before.is_alphanumeric() && !"._-/}$~".contains(before))
        };
        line.match_indices(&folder)
            .any(|(at, _)| starts_path(at))
            .then_some(folder)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(text: &str) -> Vec<String> {
        check_rust(Path::new("a.rs"), text)
            .into_iter()
            .map(|finding| finding.what)
            .collect()
    }

    #[test]
    fn a_file_opens_with_a_sentence() {
        assert_eq!(rust("//! What this file is about.\n"), [""; 0]);
        assert_eq!(rust("use std::fs;\n").len(), 1);
        assert_eq!(rust("//! Placeholder.\n").len(), 1);
        assert_eq!(rust("").len(), 1);
    }

    #[test]
    fn a_file_has_an_end() {
        let lines = |count| format!("//! What this file is about.\n{}", "\n".repeat(count - 1));
        assert_eq!(rust(&lines(LINES_MAX)), [""; 0]);
        assert_eq!(rust(&lines(LINES_MAX + 1)).len(), 1);
    }

    #[test]
    fn marks_are_found_where_they_are() {
        for mark in MARKS {
            let text = format!("//! What this file is about.\n\n{mark}\n");
            let found = check_rust(Path::new("a.rs"), &text);
            assert_eq!(found.len(), 1, "{mark}");
            assert_eq!(found[0].line, Some(3));
        }
    }

    #[test]
    fn absolute_paths_into_private_folders_are_found() {
        for folder in PRIVATE_FOLDERS {
            for line in [
                format!("/{folder}/x"),
                format!("see \"/{folder}/x\""),
                format!("DIR=/{folder}/x"),
            ] {
                assert!(private_path(&line).is_some(), "{line}");
            }
            for line in [
                format!("src/{folder}/x"),
                format!("https://a.example/{folder}/"),
                format!("/{folder}x"),
            ] {
                assert!(private_path(&line).is_none(), "{line}");
            }
        }
    }

    #[test]
    fn a_crate_needs_a_readme_lints_and_no_unsafe_code() {
        let manifest = Manifest::parse(Path::new("wal"), "[lints]\nworkspace = true\n").unwrap();
        let mut files = Files::from([("wal/README.md".into(), String::new())]);
        files.insert(
            "wal/src/lib.rs".into(),
            format!("//! A log.\n{FORBID_UNSAFE}\n"),
        );
        assert_eq!(check_crate(&manifest, &files), []);

        let bare = Manifest::parse(Path::new("wal"), "").unwrap();
        files.remove(Path::new("wal/README.md"));
        files.insert("wal/src/lib.rs".into(), "//! A log.\n".to_owned());
        assert_eq!(check_crate(&bare, &files).len(), 3);
    }
    #[test]
    fn a_published_crate_says_what_it_is_and_tests_its_readme() {
        let lines: String = ["authors", "categories", "description", "documentation"]
            .iter()
            .chain(&["keywords", "license", "readme", "rust-version"])
            .map(|name| format!("{name}.workspace = true\n"))
            .collect();
        let package = |more: &str| {
            let text = format!("[package]\nname = \"wal\"\n{more}");
            Manifest::parse(Path::new("wal"), &text).unwrap()
        };
        let files = Files::from([("wal/src/lib.rs".into(), README_TESTED.to_owned())]);
        assert_eq!(check_published(&package(&lines), &files), []);
        assert_eq!(check_published(&package(&lines), &Files::new()).len(), 1);
        let short = lines.replace("readme.workspace = true\n", "");
        let found = check_published(&package(&short), &files);
        assert!(
            found[0].to_string().ends_with("does not say `readme`"),
            "{found:?}"
        );
        assert!(package("").is_published() && !package("publish = false\n").is_published());
    }
}
