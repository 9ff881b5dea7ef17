//! What is wrong with a rule file: line, key, found, allowed.

use std::fmt;

/// A rule file that cannot be used. One line, which names the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFileError {
    /// The line, from 1.
    pub line: usize,
    /// The key that it is about; empty when the text is not TOML.
    pub key: String,
    /// What stands there, as a phrase.
    pub found: String,
    /// What could stand there, as a phrase.
    pub allowed: String,
}

impl fmt::Display for RuleFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "found {}; expected {}", self.found, self.allowed)
    }
}

impl std::error::Error for RuleFileError {}
