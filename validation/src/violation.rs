//! What a refused input broke: rule, JSON pointer, found, allowed.

use std::borrow::Cow;

/// A rule that an input breaks, in words that a client can act on.
///
/// It never carries the key or the value themselves, so it may be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {allowed}, found {found}{}", place(self.pointer.as_deref()))]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// RFC 6901 pointer to the offending part of the value; none when it is about the key.
    pub pointer: Option<String>,
    /// What is there, as a phrase.
    pub found: Cow<'static, str>,
    /// What could be there, as a phrase.
    pub allowed: Cow<'static, str>,
}

/// Which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A key has at least one byte.
    KeyEmpty,
    /// A key has at most [`KeyLimits::bytes_max`](crate::KeyLimits::bytes_max) bytes.
    KeyTooLong,
    /// A key does not begin with [`RESERVED_PREFIX`](crate::RESERVED_PREFIX).
    KeyReserved,
}

impl Rule {
    /// The rule's name for programs. It never changes its meaning.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::KeyEmpty => "EMPTY_KEY",
            Self::KeyTooLong => "KEY_TOO_LONG",
            Self::KeyReserved => "RESERVED_KEY",
        }
    }
}

fn place(pointer: Option<&str>) -> String {
    pointer.map_or_else(String::new, |pointer| format!(" at `{pointer}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_reads_as_one_sentence() {
        let mut violation = Violation {
            rule: Rule::KeyReserved,
            pointer: None,
            found: "this".into(),
            allowed: "that".into(),
        };
        assert_eq!(violation.to_string(), "expected that, found this");
        violation.pointer = Some("/a/0".to_owned());
        assert_eq!(violation.to_string(), "expected that, found this at `/a/0`");
    }

    #[test]
    fn codes_are_the_ones_clients_know() {
        let rules = [Rule::KeyEmpty, Rule::KeyTooLong, Rule::KeyReserved];
        let codes = ["EMPTY_KEY", "KEY_TOO_LONG", "RESERVED_KEY"];
        assert_eq!(rules.map(Rule::code), codes);
    }
}
