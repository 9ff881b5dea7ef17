//! What a refused input broke: rule, JSON pointer, found, allowed.

use std::borrow::Cow;
use std::sync::Arc;

/// A rule that an input breaks, in words that a client can act on.
///
/// It never carries the key or a value. The pointer is made of member names, which whoever sent them may see; whoever
/// logs a violation leaves it out.
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

/// What is wrong with a key or value, before it is known whose rule says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// RFC 6901 pointer to the offending part of the value; none when it is about the key or the value as a whole.
    pub pointer: Option<String>,
    /// What is there, as a phrase without the key or value themselves.
    pub found: Cow<'static, str>,
    /// What could be there, as a phrase.
    pub allowed: Cow<'static, str>,
}

impl Breach {
    /// A breach by the key, or by the value as a whole.
    pub fn new(found: impl Into<Cow<'static, str>>, allowed: impl Into<Cow<'static, str>>) -> Self {
        Self {
            pointer: None,
            found: found.into(),
            allowed: allowed.into(),
        }
    }

    /// The same at a place of the value.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// The violation that it is of `rule`.
    pub(crate) fn of(self, rule: Rule) -> Violation {
        Violation {
            rule,
            pointer: self.pointer,
            found: self.found,
            allowed: self.allowed,
        }
    }
}

/// Which rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A key has at least one byte.
    KeyEmpty,
    /// A key has at most [`KeyLimits::bytes_max`](crate::KeyLimits::bytes_max) bytes.
    KeyTooLong,
    /// A key does not begin with [`RESERVED_PREFIX`](crate::RESERVED_PREFIX).
    KeyReserved,
    /// A rule of [`Rules`](crate::Rules).
    Named {
        /// Its name.
        name: Arc<str>,
        /// The setting of it that is broken, such as `key-max-length`.
        setting: Cow<'static, str>,
    },
}

impl Rule {
    /// The rule's kind for programs. It never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::KeyEmpty => "EMPTY_KEY",
            Self::KeyTooLong => "KEY_TOO_LONG",
            Self::KeyReserved => "RESERVED_KEY",
            Self::Named { .. } => "VALIDATION_FAILED",
        }
    }

    /// What people call it: the name that a rule was given, the code of any other.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Named { name, .. } => name,
            other => other.code(),
        }
    }

    /// The setting that is broken, for a rule that was given a name.
    #[must_use]
    pub fn setting(&self) -> Option<&str> {
        match self {
            Self::Named { setting, .. } => Some(setting),
            _ => None,
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
        assert_eq!(rules.map(|rule| rule.code()), codes);
    }
}
