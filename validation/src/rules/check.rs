//! One setting of a rule, compiled, and what it decides about a key or a value.

use super::charset::Charset;
use super::filter::Filter;
use super::media::{self, MediaRange};
use super::schema::Schema;
use super::walk::{self, Event};
use crate::{Breach, Kind};
use regex::Regex;
use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::ControlFlow;

/// The largest integer that every reader of JSON keeps exactly (RFC 7493, section 2.2).
const EXACT_MAX: u64 = (1 << 53) - 1;
/// Significant digits that a double keeps.
const EXACT_DIGITS: usize = 17;

/// A value that rules are asked about.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The bytes. With JSON, text that [`check`](crate::check) has accepted: of other text it is unspecified what is decided.
    pub bytes: &'a [u8],
    /// The media type; `None` for JSON.
    pub media_type: Option<&'a str>,
}

impl<'a> Candidate<'a> {
    /// A JSON document.
    #[must_use]
    pub fn json(document: &'a [u8]) -> Self {
        Self {
            bytes: document,
            media_type: None,
        }
    }
}

/// A setting of keys.
#[derive(Debug)]
pub(crate) enum KeyCheck {
    LengthMin(usize),
    LengthMax(usize),
    Charset(Charset),
    Pattern(Regex),
    Reserved(Vec<Reserved>),
}

/// A word that is taken, or the beginning of words that are.
#[derive(Debug)]
pub(crate) enum Reserved {
    Word(String),
    Prefix(String),
}

/// A setting of values.
#[derive(Debug)]
pub(crate) enum ValueCheck {
    SizeMax(usize),
    Types(Vec<MediaRange>),
    JsonType(Vec<Kind>),
    DepthMax(u32),
    MembersMax(usize),
    /// Whether duplicates are denied.
    Duplicates(bool),
    /// Whether numbers have to be what every reader keeps.
    Numbers(bool),
    Forbidden(Vec<String>),
    Require(Vec<Filter>),
    Deny(Vec<Filter>),
    Schema(Box<Schema>),
}

impl KeyCheck {
    /// Its name in a rule file.
    pub(crate) fn setting(&self) -> &'static str {
        match self {
            Self::LengthMin(_) => "key-min-length",
            Self::LengthMax(_) => "key-max-length",
            Self::Charset(_) => "key-charset",
            Self::Pattern(_) => "key-pattern",
            Self::Reserved(_) => "reserved",
        }
    }

    /// A bit of its own, so that the narrowest rule that has a setting is found.
    pub(crate) fn bit(&self) -> u32 {
        1 << match self {
            Self::LengthMin(_) => 0,
            Self::LengthMax(_) => 1,
            Self::Charset(_) => 2,
            Self::Pattern(_) => 3,
            Self::Reserved(_) => 4,
        }
    }

    pub(crate) fn check(&self, key: &str) -> Result<(), Breach> {
        match self {
            Self::LengthMin(min) if key.len() < *min => Err(Breach::new(
                format!("a key of {} bytes", key.len()),
                format!("a key of at least {min} bytes"),
            )),
            Self::LengthMax(max) if key.len() > *max => Err(Breach::new(
                format!("a key of {} bytes", key.len()),
                format!("a key of at most {max} bytes"),
            )),
            Self::Charset(set) => match set.stranger(key) {
                Some(character) => Err(Breach::new(
                    format!("the character {}", shown(character)),
                    format!("a key of the characters {}", set.written()),
                )),
                None => Ok(()),
            },
            Self::Pattern(pattern) if !pattern.is_match(key) => Err(Breach::new(
                "a key that does not match",
                format!("a key that matches `{}`", pattern.as_str()),
            )),
            Self::Reserved(words) => {
                let taken = words.iter().find_map(|reserved| match reserved {
                    Reserved::Word(word) => (key == word).then(|| format!("`{word}`")),
                    Reserved::Prefix(prefix) => key
                        .starts_with(prefix.as_str())
                        .then(|| format!("`{prefix}*`")),
                });
                match taken {
                    Some(word) => Err(Breach::new(
                        format!("a key that {word} reserves"),
                        "a key that is not reserved",
                    )),
                    None => Ok(()),
                }
            }
            Self::LengthMin(_) | Self::LengthMax(_) | Self::Pattern(_) => Ok(()),
        }
    }
}

impl ValueCheck {
    /// Its name in a rule file.
    pub(crate) fn setting(&self) -> &'static str {
        match self {
            Self::SizeMax(_) => "value-max-size",
            Self::Types(_) => "value-types",
            Self::JsonType(_) => "value-json-type",
            Self::DepthMax(_) => "value-max-depth",
            Self::MembersMax(_) => "value-max-members",
            Self::Duplicates(_) => "value-duplicate-members",
            Self::Numbers(_) => "value-numbers",
            Self::Forbidden(_) => "value-forbidden-members",
            Self::Require(_) => "value-require",
            Self::Deny(_) => "value-deny",
            Self::Schema(_) => "value-schema",
        }
    }

    /// As [`KeyCheck::bit`].
    pub(crate) fn bit(&self) -> u32 {
        1 << match self {
            Self::SizeMax(_) => 0,
            Self::Types(_) => 1,
            Self::JsonType(_) => 2,
            Self::DepthMax(_) => 3,
            Self::MembersMax(_) => 4,
            Self::Duplicates(_) => 5,
            Self::Numbers(_) => 6,
            Self::Forbidden(_) => 7,
            Self::Require(_) => 8,
            Self::Deny(_) => 9,
            Self::Schema(_) => 10,
        }
    }

    pub(crate) fn check(&self, value: &Candidate<'_>) -> Result<(), Breach> {
        let bytes = value.bytes;
        let json = value.media_type.is_none();
        match self {
            Self::SizeMax(max) if bytes.len() > *max => Err(Breach::new(
                format!("a value of {} bytes", bytes.len()),
                format!("a value of at most {max} bytes"),
            )),
            Self::Types(ranges) => {
                let found = value.media_type.unwrap_or(media::JSON);
                if ranges.iter().any(|range| range.contains(found)) {
                    return Ok(());
                }
                let known: Vec<&str> = ranges.iter().map(MediaRange::written).collect();
                Err(Breach::new(
                    format!("a value of media type {found}"),
                    format!("a value of media type {}", known.join(" or ")),
                ))
            }
            Self::JsonType(kinds) => json_type(kinds, value),
            Self::Require(filters) => filters
                .iter()
                .try_for_each(|filter| filter.require(bytes, json)),
            Self::Deny(filters) => filters
                .iter()
                .try_for_each(|filter| filter.deny(bytes, json)),
            Self::Schema(schema) if json => schema.check(bytes),
            Self::Schema(_) => Err(not_json(value, "a JSON document that the schema accepts")),
            // What follows is about JSON alone.
            _ if !json => Ok(()),
            Self::DepthMax(max) => first(bytes, |event, path| match event {
                Event::Open { depth, .. } if depth > *max => Some(
                    Breach::new(
                        format!("nesting of more than {max} levels"),
                        format!("nesting of at most {max} levels"),
                    )
                    .at(path.pointer()),
                ),
                _ => None,
            }),
            Self::MembersMax(max) => {
                let mut members = 0;
                first(bytes, |event, path| {
                    members += usize::from(matches!(event, Event::Member(_)));
                    (members > *max).then(|| {
                        Breach::new(
                            format!("more than {max} members"),
                            format!("at most {max} members, those of nested objects included"),
                        )
                        .at(path.pointer())
                    })
                })
            }
            Self::Duplicates(true) => duplicates(bytes),
            Self::Numbers(true) => first(bytes, |event, path| match event {
                Event::Scalar(number @ [b'-' | b'0'..=b'9', ..]) => {
                    inexact(number).map(|breach| breach.at(path.pointer()))
                }
                _ => None,
            }),
            Self::Forbidden(names) => first(bytes, |event, path| match event {
                Event::Member(name) => {
                    let name = walk::text(name);
                    let forbidden = names.iter().find(|forbidden| **forbidden == name)?;
                    Some(
                        Breach::new(
                            format!("a member `{forbidden}`"),
                            format!("a value without members named `{forbidden}`"),
                        )
                        .at(path.pointer()),
                    )
                }
                _ => None,
            }),
            Self::SizeMax(_) | Self::Duplicates(false) | Self::Numbers(false) => Ok(()),
        }
    }
}

/// The first breach that `find` sees on a walk.
fn first<'a>(
    document: &'a [u8],
    mut find: impl FnMut(Event<'a>, &walk::Path<'a>) -> Option<Breach>,
) -> Result<(), Breach> {
    let mut found = Ok(());
    walk::walk(document, |event, path| match find(event, path) {
        Some(breach) => {
            found = Err(breach);
            ControlFlow::Break(())
        }
        None => ControlFlow::Continue(()),
    });
    found
}

fn json_type(kinds: &[Kind], value: &Candidate<'_>) -> Result<(), Breach> {
    let names: Vec<&str> = kinds.iter().map(|kind| name_of(*kind)).collect();
    let allowed = format!("JSON of type {}", names.join(" or "));
    if value.media_type.is_some() {
        return Err(not_json(value, &allowed));
    }
    let first = value.bytes.trim_ascii_start().first();
    let kind = crate::json::kind_of(first.copied().unwrap_or_default());
    if kinds.contains(&kind) {
        return Ok(());
    }
    Err(Breach::new(format!("JSON of type {}", name_of(kind)), allowed).at(""))
}

fn not_json(value: &Candidate<'_>, allowed: &str) -> Breach {
    let media_type = value.media_type.unwrap_or(media::JSON);
    Breach::new(
        format!("a value of media type {media_type}"),
        allowed.to_owned(),
    )
}

/// The types of JSON by the names that rule files use.
pub(crate) const KINDS: [(&str, Kind); 6] = [
    ("object", Kind::Object),
    ("array", Kind::Array),
    ("string", Kind::String),
    ("number", Kind::Number),
    ("boolean", Kind::Boolean),
    ("null", Kind::Null),
];

fn name_of(kind: Kind) -> &'static str {
    KINDS
        .iter()
        .find(|(_, known)| *known == kind)
        .map_or("", |(name, _)| name)
}

/// The first member whose object has another of the same name, however either is spelt.
fn duplicates(document: &[u8]) -> Result<(), Breach> {
    // Objects are told apart by when they began.
    let mut seen: HashSet<(usize, Cow<'_, str>)> = HashSet::new();
    let mut objects = Vec::new();
    let mut begun = 0;
    first(document, |event, path| match event {
        Event::Open { .. } => {
            begun += 1;
            objects.push(begun);
            None
        }
        Event::Close => {
            objects.pop();
            None
        }
        Event::Member(name) => {
            let object = objects.last().copied().unwrap_or_default();
            let new = seen.insert((object, walk::text(name)));
            (!new).then(|| {
                Breach::new(
                    "a second member of this name",
                    "objects whose member names differ",
                )
                .at(path.pointer())
            })
        }
        Event::Scalar(_) => None,
    })
}

/// Whether no double is near the number.
pub(crate) fn beyond_a_double(number: &[u8]) -> bool {
    let text = std::str::from_utf8(number).unwrap_or_default();
    !text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// What makes a number one that readers may change (RFC 7493, section 2.2).
fn inexact(number: &[u8]) -> Option<Breach> {
    let allowed = "an integer of at most 9007199254740991 either way, or what a double holds";
    if beyond_a_double(number) {
        return Some(Breach::new("a number that no double holds", allowed));
    }
    let magnitude = number.strip_prefix(b"-").unwrap_or(number);
    let end = magnitude
        .iter()
        .position(|byte| matches!(byte, b'e' | b'E'))
        .unwrap_or(magnitude.len());
    let mantissa = &magnitude[..end];
    if mantissa.iter().all(u8::is_ascii_digit) && end == magnitude.len() {
        let integer = std::str::from_utf8(mantissa).unwrap_or_default();
        let exact = integer.parse::<u64>().is_ok_and(|whole| whole <= EXACT_MAX);
        return (!exact).then(|| Breach::new("an integer beyond 53 bits", allowed));
    }
    let digits: Vec<u8> = mantissa
        .iter()
        .copied()
        .filter(u8::is_ascii_digit)
        .collect();
    let significant = digits.iter().position(|digit| *digit != b'0')?;
    let last = digits.iter().rposition(|digit| *digit != b'0')?;
    if last - significant >= EXACT_DIGITS {
        return Some(Breach::new(
            format!("a number of {} digits", last - significant + 1),
            allowed,
        ));
    }
    let text = std::str::from_utf8(number).unwrap_or_default();
    let vanishes = text.parse::<f64>() == Ok(0.0);
    vanishes.then(|| Breach::new("a number too small for a double", allowed))
}

/// A character as a reader can see it.
fn shown(character: char) -> String {
    if character.is_ascii_graphic() || character.is_alphanumeric() {
        format!("`{character}`")
    } else {
        format!("U+{:04X}", u32::from(character))
    }
}
