//! Mistakes in a file of tokens, named by line and key.

use std::fmt;
use std::ops::Range;

/// A file that cannot be used. One line, which names the place; it never shows a token or a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// The line, from 1.
    pub line: usize,
    /// The key that it is about; empty when the text is not TOML.
    pub key: String,
    /// What stands there, as a phrase.
    pub found: String,
    /// What could stand there, as a phrase.
    pub allowed: String,
}

impl FileError {
    pub(super) fn new(
        text: &str,
        span: Range<usize>,
        key: &str,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        let before = &text.as_bytes()[..span.start.min(text.len())];
        Self {
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            key: key.to_owned(),
            found: found.into(),
            allowed: allowed.into(),
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "found {}; expected {}", self.found, self.allowed)
    }
}

impl std::error::Error for FileError {}
