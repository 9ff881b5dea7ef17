//! Query parameters: each name known to an endpoint has one place to be read, and is read at most once.

use super::fault::Fault;
use super::target::decode;
use super::ttl::{self, Ttl};
use crate::engine::{Durability, OnLoad, VersionCondition};
use std::borrow::Cow;

/// What is done about names that an endpoint does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// `/v1`: a misspelt `ifversion` must not become an unconditional write.
    Refuse,
    /// `/kv`: as always.
    Ignore,
}

/// Every parameter there is, as found; an endpoint names those it knows.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    pub(crate) if_version: Option<VersionCondition>,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) keep_ttl: bool,
    pub(crate) pin: Option<bool>,
    pub(crate) durability: Durability,
    pub(crate) prefix: Option<String>,
    pub(crate) limit: Option<usize>,
    pub(crate) cursor: Option<String>,
    pub(crate) values: bool,
    pub(crate) mode: Option<Mode>,
    /// What becomes of entries of a backup that break a rule.
    pub(crate) rules: Option<OnLoad>,
    pub(crate) wait: bool,
    /// On or off.
    pub(crate) state: Option<bool>,
    pub(crate) details: bool,
    pub(crate) from: Option<u64>,
    pub(crate) force: bool,
    pub(crate) bytes: Option<u64>,
}

/// What kind of snapshot or restore is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Full,
    Incremental,
    Replace,
    Merge,
}

/// Most keys on a page of `/v1/keys`.
pub(crate) const PAGE_KEYS_MAX: usize = 10_000;

/// Reads the query of a request to an endpoint that knows the names in `known`.
pub(crate) fn parse(
    raw: Option<&str>,
    known: &'static [&'static str],
    policy: Unknown,
) -> Result<Parameters, Fault> {
    let mut parameters = Parameters::default();
    let Some(raw) = raw else {
        return Ok(parameters);
    };
    let mut seen: Vec<&'static str> = Vec::new();
    let mut unknown: Vec<String> = Vec::new();
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = match decode(name) {
            Ok(name) => name,
            Err(_) if policy == Unknown::Ignore => continue,
            Err(_) => return Err(Fault::QueryEncoding),
        };
        let Some(&name) = known.iter().find(|known| **known == name) else {
            if policy == Unknown::Refuse && unknown.len() < 10 {
                unknown.push(name.chars().take(64).collect());
            }
            continue;
        };
        if seen.contains(&name) {
            return Err(bad(name, "is given twice"));
        }
        seen.push(name);
        let value = decode(value).map_err(|_| Fault::QueryEncoding)?;
        parameters.set(name, value)?;
    }
    if unknown.is_empty() {
        Ok(parameters)
    } else {
        Err(Fault::UnknownParameters {
            names: unknown,
            known,
        })
    }
}

impl Parameters {
    fn set(&mut self, name: &'static str, value: Cow<'_, str>) -> Result<(), Fault> {
        match name {
            "ifVersion" => {
                self.if_version = Some(
                    version(&value).ok_or_else(|| bad(name, "must be an integer, -1 or more"))?,
                );
            }
            "ttl" => self.ttl = Some(ttl::parse(&value).map_err(Fault::ttl)?),
            "pin" => self.pin = Some(boolean(name, &value)?),
            "bytes" => {
                let bytes = digits(&value).filter(|bytes| *bytes > 0);
                self.bytes =
                    Some(bytes.ok_or_else(|| bad(name, "must be a whole number, 1 or more"))?);
            }
            "keepTtl" => self.keep_ttl = boolean(name, &value)?,
            "durability" => {
                self.durability = match &*value {
                    "sync" => Durability::Sync,
                    "async" => Durability::Async,
                    _ => return Err(bad(name, "must be sync or async")),
                }
            }
            "prefix" => self.prefix = Some(value.into_owned()),
            "limit" => {
                let limit = digits(&value).and_then(|limit| usize::try_from(limit).ok());
                let limit = limit.filter(|limit| (1..=PAGE_KEYS_MAX).contains(limit));
                self.limit =
                    Some(limit.ok_or_else(|| bad(name, "must be an integer from 1 to 10000"))?);
            }
            "cursor" => self.cursor = Some(value.into_owned()),
            "values" => self.values = boolean(name, &value)?,
            "mode" => {
                self.mode = Some(match &*value {
                    "full" => Mode::Full,
                    "incremental" => Mode::Incremental,
                    "replace" => Mode::Replace,
                    "merge" => Mode::Merge,
                    _ => {
                        return Err(bad(
                            name,
                            "must be one that the endpoint knows: full, incremental, replace or merge",
                        ));
                    }
                });
            }
            "rules" => {
                self.rules = Some(match &*value {
                    "report" => OnLoad::Report,
                    "refuse" => OnLoad::Refuse,
                    _ => return Err(bad(name, "must be report or refuse")),
                });
            }
            "wait" => self.wait = boolean(name, &value)?,
            "force" => self.force = boolean(name, &value)?,
            "from" => {
                let from = digits(&value);
                self.from = Some(
                    from.ok_or_else(|| bad(name, "must be a sequence, an integer of 0 or more"))?,
                );
            }
            "state" => {
                self.state = Some(match &*value {
                    "on" => true,
                    "off" => false,
                    _ => return Err(bad(name, "must be on or off")),
                });
            }
            "details" => self.details = boolean(name, &value)?,
            _ => debug_assert!(
                false,
                "an endpoint claims to know `{name}`, which is read nowhere"
            ),
        }
        Ok(())
    }
}

pub(crate) fn bad(name: &'static str, reason: &'static str) -> Fault {
    Fault::Parameter {
        name,
        reason: reason.into(),
    }
}

fn boolean(name: &'static str, value: &str) -> Result<bool, Fault> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(bad(name, "must be true or false")),
    }
}

/// Decimal digits only: `str::parse` would take a sign.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// `-1`: the key must not exist; a version: it must have that one.
fn version(text: &str) -> Option<VersionCondition> {
    if text == "-1" {
        Some(VersionCondition::Absent)
    } else {
        digits(text).map(VersionCondition::Is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["ifVersion", "ttl", "limit"];

    fn refused(raw: &str) -> String {
        parse(Some(raw), KNOWN, Unknown::Refuse)
            .expect_err(raw)
            .to_string()
    }

    #[test]
    fn versions_are_integers_from_minus_one() {
        for (text, expected) in [
            ("-1", Some(VersionCondition::Absent)),
            ("0", Some(VersionCondition::Is(0))),
            ("17", Some(VersionCondition::Is(17))),
        ] {
            assert_eq!(version(text), expected);
        }
        for text in [
            "",
            "abc",
            "-2",
            "+1",
            "1.0",
            " 1",
            "0x1",
            "99999999999999999999",
        ] {
            assert_eq!(version(text), None, "{text}");
        }
    }

    #[test]
    fn unknown_names_are_named_or_ignored() {
        assert!(refused("ifversion=1&limit=5&x").contains("ifversion, x"));
        let ignored = parse(
            Some("ifversion=1&%zz=1&ifVersion=2"),
            KNOWN,
            Unknown::Ignore,
        )
        .expect("ignored");
        assert_eq!(ignored.if_version, Some(VersionCondition::Is(2)));
    }

    #[test]
    fn nothing_is_read_twice_or_guessed() {
        assert!(refused("ifVersion=1&ifVersion=1").contains("twice"));
        assert!(refused("ifVersion").contains("integer"));
        assert!(refused("limit=0").contains("1 to 10000"));
        assert!(refused("limit=10001").contains("1 to 10000"));
        assert!(refused("ttl=soon").contains("units"));
        assert!(refused("ttl=%zz").contains("percent"));
        assert!(parse(Some("&&"), KNOWN, Unknown::Refuse).is_ok());
    }
}
