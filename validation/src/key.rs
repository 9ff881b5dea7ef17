//! Length and reserved prefix: what a key must be before it is hashed.

use crate::violation::{Rule, Violation};

/// Keys that begin with this belong to the system.
pub const RESERVED_PREFIX: &str = "__";

/// How long a key may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyLimits {
    /// Most bytes of a key in UTF-8; the default is 1024.
    pub bytes_max: usize,
}

impl Default for KeyLimits {
    fn default() -> Self {
        Self { bytes_max: 1024 }
    }
}

/// Decides whether `key` may name an entry. Nothing is allocated when it may.
///
/// # Errors
/// The first rule that the key breaks: it is empty, too long, or reserved.
pub fn check_key(key: &str, limits: &KeyLimits) -> Result<(), Violation> {
    if key.is_empty() {
        return Err(Violation {
            rule: Rule::KeyEmpty,
            pointer: None,
            found: "an empty key".into(),
            allowed: "a key of at least 1 byte".into(),
        });
    }
    if key.len() > limits.bytes_max {
        return Err(Violation {
            rule: Rule::KeyTooLong,
            pointer: None,
            found: format!("a key of {} bytes", key.len()).into(),
            allowed: format!("a key of at most {} bytes", limits.bytes_max).into(),
        });
    }
    if key.starts_with(RESERVED_PREFIX) {
        return Err(Violation {
            rule: Rule::KeyReserved,
            pointer: None,
            found: "a key that begins with `__`".into(),
            allowed: "a key that does not begin with `__`".into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(key: &str, bytes_max: usize) -> Option<Rule> {
        let verdict = check_key(key, &KeyLimits { bytes_max });
        verdict.err().map(|violation| violation.rule)
    }

    #[test]
    fn a_key_is_refused_by_the_first_rule_it_breaks() {
        let cases = [
            ("", 0, Some(Rule::KeyEmpty)),
            ("", 4, Some(Rule::KeyEmpty)),
            ("a", 0, Some(Rule::KeyTooLong)),
            ("a", 1, None),
            ("abcd", 4, None),
            ("abcde", 4, Some(Rule::KeyTooLong)),
            // Bytes count, not characters.
            ("éé", 4, None),
            ("ééé", 4, Some(Rule::KeyTooLong)),
            ("_", 4, None),
            ("_a_", 4, None),
            ("a__", 4, None),
            ("__", 4, Some(Rule::KeyReserved)),
            ("__a", 4, Some(Rule::KeyReserved)),
            ("__abc", 4, Some(Rule::KeyTooLong)),
            (" __", 4, None),
            ("/", 4, None),
            ("\0", 4, None),
        ];
        for (key, bytes_max, rule) in cases {
            assert_eq!(broken(key, bytes_max), rule, "{key:?} within {bytes_max}");
        }
    }

    #[test]
    fn the_default_limit_is_one_kibibyte() {
        let limits = KeyLimits::default();
        assert_eq!(check_key(&"k".repeat(1024), &limits), Ok(()));
        let violation = check_key(&"k".repeat(1025), &limits).unwrap_err();
        assert_eq!(
            violation.to_string(),
            "expected a key of at most 1024 bytes, found a key of 1025 bytes"
        );
    }
}
