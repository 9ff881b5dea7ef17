//! Validation: what a key and a JSON document must be before a store spends memory on them.
//!
//! [`check`] decides whether bytes are one JSON document within [`Limits`], [`minify`] and
//! [`minified`] drop the white space outside strings while they decide, and [`check_key`] does the
//! same for a key. A refusal says where, what was found and what was expected.
//!
//! [`Rules`] holds what an operator writes into a file: limits, patterns, JSON Schema and content filters by key prefix.
//!
//! The checker is not a parser: no tree is built, no number is converted and no string is unescaped. It is
//! not a formatter either: apart from the white space, every byte stays as it was sent.
//!
//! # Promises
//! - What is accepted is RFC 8259 JSON in UTF-8, within the limits, and every surrogate escape has
//!   its pair, so any conforming parser that takes such numbers and that depth can read it.
//! - Every accepted number keeps its digits, however large; duplicate member names are kept too.
//! - Time is linear in the length of the text, and memory beside the output is at most a bit a level of
//!   nesting; nothing recurses, so no document can exhaust the stack.
//! - No input panics. Rules take time linear in the value, but for what a JSON Schema asks for.
//!
//! # Reading order
//! `json` (the grammar), `json::scan` (strings, numbers and white space, eight bytes at a time),
//! `json::error`; then `key` and `violation`; then `rules` (who decides), `rules::check` (what is decided),
//! `rules::file`.
#![forbid(unsafe_code)]

mod json;
mod key;
mod rules;
mod violation;

pub use json::{JsonError, JsonErrorKind, Kind, Limits, Summary, check, minified, minify};
pub use key::{KeyLimits, RESERVED_PREFIX, check_key};
pub use rules::{Candidate, Mode, RuleFileError, RuleHits, Rules, ValidationRule};
pub use violation::{Breach, Rule, Violation};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
