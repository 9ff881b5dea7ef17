//! Content filters: what a value must or must not have, by pointer, regular expression or both.

use super::walk::{self, Event, Pointer, Relation};
use crate::Breach;
use regex::{Regex, RegexBuilder};
use std::ops::ControlFlow;

/// Longest regular expression, in bytes.
pub(crate) const PATTERN_BYTES_MAX: usize = 4096;
/// What one may compile to, in bytes; bounds the memory of its search as well.
const PATTERN_COMPILED_MAX: usize = 1 << 20;

/// Compiles a regular expression that is searched for in linear time.
///
/// # Errors
/// What was found instead of one, as a phrase.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("a regular expression of {} bytes", pattern.len()));
    }
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_COMPILED_MAX)
        .dfa_size_limit(PATTERN_COMPILED_MAX)
        .build()
        .map_err(|error| {
            // A syntax error is drawn over several lines; its last says what is wrong.
            let words = error.to_string();
            let last = words.lines().last().unwrap_or_default();
            let reason = last.trim_start_matches("error: ");
            format!("a regular expression that cannot be used ({reason})")
        })
}

/// A scalar that the value at a pointer is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
}

impl Scalar {
    fn equals(&self, written: &[u8]) -> bool {
        let number = || std::str::from_utf8(written).ok();
        match self {
            Self::Text(text) => {
                written.first() == Some(&b'"') && walk::scalar_text(written) == text.as_str()
            }
            Self::Boolean(on) => written == if *on { &b"true"[..] } else { b"false" },
            Self::Integer(integer) => match number().map(str::parse::<i64>) {
                Some(Ok(found)) => found == *integer,
                // `1.0` and `1e0` are the number 1 as well.
                _ => Self::Float(*integer as f64).equals(written),
            },
            Self::Float(float) => {
                matches!(written.first(), Some(b'-' | b'0'..=b'9'))
                    && number().and_then(|text| text.parse().ok()) == Some(*float)
            }
        }
    }
}

/// One filter: at least one of its parts is there.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    pub(crate) pointer: Option<Pointer>,
    pub(crate) regex: Option<Regex>,
    pub(crate) equals: Option<Scalar>,
}

impl Filter {
    /// Refuses a value that has what the filter describes.
    pub(crate) fn deny(&self, value: &[u8], json: bool) -> Result<(), Breach> {
        let allowed = || format!("a value without {}", self.describe());
        if !json {
            let there = self.pointer.is_none() && self.searches_bytes(value);
            return if there {
                Err(Breach::new(self.describe(), allowed()))
            } else {
                Ok(())
            };
        }
        let mut breach = None;
        self.each(value, |pointer, fits| {
            if fits {
                breach = Some(Breach::new(self.describe(), allowed()).at(pointer()));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        breach.map_or(Ok(()), Err)
    }

    /// Refuses a value that has not what the filter describes.
    pub(crate) fn require(&self, value: &[u8], json: bool) -> Result<(), Breach> {
        let allowed = || format!("a value with {}", self.describe());
        if !json {
            let there = self.pointer.is_none() && self.searches_bytes(value);
            return if there {
                Ok(())
            } else {
                Err(Breach::new("a value without that", allowed()))
            };
        }
        let mut there = false;
        let mut misfit = None;
        self.each(value, |pointer, fits| {
            there |= fits;
            // Of members with one name every reader picks its own, so each of them has to fit.
            if !fits && self.pointer.is_some() && misfit.is_none() {
                misfit = Some(pointer());
            }
            ControlFlow::Continue(())
        });
        let names_place = self.regex.is_none() || self.equals.is_some();
        match misfit {
            Some(pointer) if !there || names_place => {
                Err(Breach::new("another value", allowed()).at(pointer))
            }
            _ if there => Ok(()),
            _ => {
                let breach = Breach::new("nothing", allowed());
                Err(match &self.pointer {
                    Some(pointer) => breach.at(pointer.written()),
                    None => breach,
                })
            }
        }
    }

    /// Shows `visit` every part of the value that the filter is about, and whether it fits.
    fn each(
        &self,
        value: &[u8],
        mut visit: impl FnMut(&dyn Fn() -> String, bool) -> ControlFlow<()>,
    ) {
        walk::walk(value, |event, path| {
            let relation = match &self.pointer {
                Some(pointer) => path.relation(pointer),
                None => Relation::Within,
            };
            let pointer = || path.pointer();
            match (relation, event) {
                (Relation::Elsewhere, _) | (_, Event::Close) => ControlFlow::Continue(()),
                (Relation::There, Event::Scalar(written)) => {
                    let fits = self.fits(&walk::scalar_text(written))
                        && self
                            .equals
                            .as_ref()
                            .is_none_or(|equals| equals.equals(written));
                    visit(&pointer, fits)
                }
                // What has only to be there is there; what is compared is no scalar, so it differs.
                (Relation::There, Event::Open { .. }) if self.regex.is_none() => {
                    visit(&pointer, self.equals.is_none())
                }
                (Relation::Within, Event::Scalar(written)) if self.looks_inside() => {
                    visit(&pointer, self.fits(&walk::scalar_text(written)))
                }
                (Relation::Within, Event::Member(name)) if self.looks_inside() => {
                    visit(&pointer, self.fits(&walk::text(name)))
                }
                _ => ControlFlow::Continue(()),
            }
        });
    }

    fn looks_inside(&self) -> bool {
        self.regex.is_some() && self.equals.is_none()
    }

    fn fits(&self, text: &str) -> bool {
        self.regex.as_ref().is_none_or(|regex| regex.is_match(text))
    }

    fn searches_bytes(&self, value: &[u8]) -> bool {
        // Other media types are searched as far as they are text.
        value
            .utf8_chunks()
            .any(|chunk| !chunk.valid().is_empty() && self.fits(chunk.valid()))
    }

    fn describe(&self) -> String {
        let mut out = match &self.pointer {
            Some(pointer) => format!("something at `{}`", pointer.written()),
            None => "text".to_owned(),
        };
        if let Some(regex) = &self.regex {
            out.push_str(&format!(" that `{}` is found in", regex.as_str()));
        }
        match &self.equals {
            Some(Scalar::Text(text)) => out.push_str(&format!(" that is \"{text}\"")),
            Some(Scalar::Integer(number)) => out.push_str(&format!(" that is {number}")),
            Some(Scalar::Float(number)) => out.push_str(&format!(" that is {number}")),
            Some(Scalar::Boolean(on)) => out.push_str(&format!(" that is {on}")),
            None => {}
        }
        out
    }
}
