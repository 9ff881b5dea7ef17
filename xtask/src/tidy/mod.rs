//! Reads the tree and finds what reviewers should not have to look for.

mod formats;
mod layers;
mod manifest;
mod sources;
mod tree;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::shell::Failure;

/// Something that has to be mended, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    file: PathBuf,
    line: Option<usize>,
    what: String,
}

impl Finding {
    fn new(file: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: None,
            what: what.into(),
        }
    }

    fn at(file: impl Into<PathBuf>, line: usize, what: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: Some(line),
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(out, ":{line}")?;
        }
        write!(out, ": {}", self.what)
    }
}

pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    let unreadable = |error| Failure(format!("the tree could not be read: {error}"));
    let files = tree::read(root).map_err(unreadable)?;
    let manifests = manifest::read_all(&files).map_err(|finding| Failure(finding.to_string()))?;
    let mut findings = layers::check(&manifests, &files);
    findings.extend(formats::check(&files));
    findings.extend(sources::check(&manifests, &files));
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => Err(Failure("1 thing to mend".to_owned())),
        count => Err(Failure(format!("{count} things to mend"))),
    }
}
