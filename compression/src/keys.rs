//! Keys by their shared prefixes: `user:`, `gsoc/2018/project/` become one byte.
//!
//! A [`KeyLearner`] counts where keys share what stands before a separator, and names the prefixes that save most; a
//! [`KeyDictionary`] codes keys by them. A coded key is one byte that no UTF-8 text begins with, and the rest of the key; a
//! key that begins with none of the prefixes is its own code, so nothing has to be escaped.
//!
//! A dictionary never changes, and a key is coded by the longest of its prefixes: so equal keys have equal codes, and a
//! look-up codes the key it looks for once and compares bytes, or asks [`KeyDictionary::matches`] and codes nothing. One that
//! [extends](KeyDictionary::extended) another reads what that coded, and a look-up that asks finds it.

use std::collections::HashMap;

use crate::error::KeyError;

/// Prefixes of one dictionary, at most.
pub const PREFIXES_MAX: usize = 64;
/// Bytes of one prefix, at most.
pub const PREFIX_BYTES_MAX: usize = 255;
/// Codes are the continuation bytes of UTF-8, with which no text begins.
const FIRST_CODE: u8 = 0x80;
/// What a prefix costs beside its bytes: its place in the dictionary.
const PREFIX_COST: usize = 16;
/// Prefixes counted at a time.
const COUNTED_MAX: usize = 4096;
/// Separators of one key that are looked at.
const DEPTH_MAX: usize = 12;

/// Prefixes, and the codes that stand for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyDictionary {
    /// By code.
    prefixes: Vec<Box<str>>,
    /// Codes, the longest prefix first.
    by_length: Vec<u8>,
}

impl KeyDictionary {
    /// A dictionary of these prefixes.
    ///
    /// # Errors
    /// There are more than [`PREFIXES_MAX`], or one is empty, longer than [`PREFIX_BYTES_MAX`] or there twice.
    pub fn new<S: AsRef<str>>(prefixes: &[S]) -> Result<Self, KeyError> {
        if prefixes.len() > PREFIXES_MAX {
            return Err(KeyError::TooManyPrefixes {
                found: prefixes.len(),
            });
        }
        let mut taken: Vec<Box<str>> = Vec::with_capacity(prefixes.len());
        for prefix in prefixes {
            let prefix = prefix.as_ref();
            if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX {
                return Err(KeyError::PrefixLength { len: prefix.len() });
            }
            if taken.iter().any(|known| **known == *prefix) {
                return Err(KeyError::PrefixTwice {
                    prefix: prefix.to_owned(),
                });
            }
            taken.push(prefix.into());
        }
        // There are at most 64.
        let mut by_length: Vec<u8> = (0..taken.len() as u8).collect();
        by_length.sort_by_key(|code| std::cmp::Reverse(taken[usize::from(*code)].len()));
        Ok(Self {
            prefixes: taken,
            by_length,
        })
    }

    /// A dictionary that codes by `more` prefixes as well, as long as there are codes, without changing what the codes of
    /// this one stand for; but those that `is_free` names may be given to another prefix when there are no others. Prefixes
    /// that are there already, or that no dictionary takes, are passed over.
    #[must_use]
    pub fn extended<'a>(
        &self,
        more: impl IntoIterator<Item = &'a str>,
        is_free: impl Fn(u8) -> bool,
    ) -> Self {
        let mut prefixes = self.prefixes.clone();
        // There are at most 64.
        let mut free = (0..prefixes.len() as u8).filter(|code| is_free(*code));
        for prefix in more {
            let fits = (1..=PREFIX_BYTES_MAX).contains(&prefix.len());
            if !fits || prefixes.iter().any(|known| **known == *prefix) {
                continue;
            }
            if prefixes.len() < PREFIXES_MAX {
                prefixes.push(prefix.into());
            } else if let Some(code) = free.next() {
                prefixes[usize::from(code)] = prefix.into();
            } else {
                break;
            }
        }
        Self::new(&prefixes).expect("different prefixes within the limits")
    }

    /// The prefix that `code`, from 0 on, stands for; empty if it stands for none.
    #[must_use]
    pub fn prefix(&self, code: u8) -> &str {
        self.prefixes
            .get(usize::from(code))
            .map_or("", |prefix| prefix)
    }

    /// Whether a code makes `key` shorter.
    #[must_use]
    pub fn shortens(&self, key: &str) -> bool {
        self.longest(key)
            .is_some_and(|code| self.prefixes[usize::from(code)].len() > 1)
    }

    fn longest(&self, key: &str) -> Option<u8> {
        self.by_length
            .iter()
            .copied()
            .find(|code| key.starts_with(&*self.prefixes[usize::from(*code)]))
    }

    /// The prefixes, in the order of their codes.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.prefixes.iter().map(|prefix| &**prefix)
    }

    /// Heap bytes it takes.
    #[must_use]
    pub fn footprint(&self) -> usize {
        let bytes: usize = self.prefixes.iter().map(|prefix| prefix.len()).sum();
        bytes + self.prefixes.capacity() * size_of::<Box<str>>() + self.by_length.capacity()
    }

    /// Appends the code of `key` to `out`.
    pub fn encode(&self, key: &str, out: &mut Vec<u8>) {
        match self.longest(key) {
            Some(code) => {
                out.push(FIRST_CODE + code);
                let prefix = &self.prefixes[usize::from(code)];
                out.extend_from_slice(&key.as_bytes()[prefix.len()..]);
            }
            None => out.extend_from_slice(key.as_bytes()),
        }
    }

    /// Appends the key that `coded` stands for to `out`, or leaves `out` as it was and fails.
    ///
    /// # Errors
    /// `coded` begins with the code of no prefix, or does not come to valid UTF-8.
    pub fn decode(&self, coded: &[u8], out: &mut String) -> Result<(), KeyError> {
        let (prefix, rest) = self.parts(coded)?;
        let rest = std::str::from_utf8(rest).map_err(|_| KeyError::NotText)?;
        out.push_str(prefix);
        out.push_str(rest);
        Ok(())
    }

    /// Whether `coded` stands for `key`, without decoding either.
    #[must_use]
    pub fn matches(&self, coded: &[u8], key: &str) -> bool {
        self.parts(coded).is_ok_and(|(prefix, rest)| {
            key.as_bytes()
                .strip_prefix(prefix.as_bytes())
                .is_some_and(|behind| behind == rest)
        })
    }

    fn parts<'a>(&'a self, coded: &'a [u8]) -> Result<(&'a str, &'a [u8]), KeyError> {
        match coded {
            [code @ 0x80..=0xbf, rest @ ..] => {
                let prefix = self.prefixes.get(usize::from(code - FIRST_CODE));
                let prefix = prefix.ok_or(KeyError::UnknownCode { code: *code })?;
                Ok((prefix, rest))
            }
            whole => Ok(("", whole)),
        }
    }
}

/// Counts prefixes, and says which of them save most. Bounded: of very many prefixes the rare ones are forgotten
/// (Misra and Gries, "Finding repeated elements", 1982).
#[derive(Clone, Debug, Default)]
pub struct KeyLearner {
    counts: HashMap<Box<str>, u32>,
    seen: u64,
}

impl KeyLearner {
    /// One that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keys shown so far.
    #[must_use]
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// Shows a key.
    pub fn offer(&mut self, key: &str) {
        self.seen += 1;
        let ends = key
            .bytes()
            .enumerate()
            .filter(|(_, byte)| {
                matches!(byte, b':' | b'/' | b'.' | b'-' | b'_' | b'|' | b'#' | b',')
            })
            .map(|(at, _)| at + 1)
            .take_while(|end| *end <= PREFIX_BYTES_MAX)
            .take(DEPTH_MAX);
        for end in ends {
            // A separator is one byte of its own, so what stands before it is text.
            let prefix = &key[..end];
            if let Some(count) = self.counts.get_mut(prefix) {
                *count += 1;
                continue;
            }
            if self.counts.len() >= COUNTED_MAX {
                self.counts.retain(|_, count| {
                    *count -= 1;
                    *count > 0
                });
            }
            if self.counts.len() < COUNTED_MAX {
                self.counts.insert(prefix.into(), 1);
            }
        }
    }

    /// A dictionary of the prefixes that save most on keys like those shown, best first; empty when none saves anything.
    #[must_use]
    pub fn learn(&self) -> KeyDictionary {
        // Ties are broken by the text, so that the same keys give the same dictionary whatever the map's order.
        let mut candidates: Vec<(&str, usize)> = self
            .counts
            .iter()
            .map(|(prefix, count)| (&**prefix, *count as usize))
            .filter(|(prefix, count)| {
                count * prefix.len().saturating_sub(1) > prefix.len() + PREFIX_COST
            })
            .collect();
        candidates.sort_unstable();
        let mut chosen: Vec<(&str, usize)> = Vec::new();
        while chosen.len() < PREFIXES_MAX {
            let best = candidates
                .iter()
                .map(|(prefix, count)| (gain(prefix, *count, &chosen), *prefix, *count))
                .filter(|(gain, prefix, _)| *gain > prefix.len() + PREFIX_COST)
                .max_by_key(|(gain, ..)| *gain);
            let Some((_, prefix, count)) = best else {
                break;
            };
            chosen.push((prefix, count));
            candidates.retain(|(candidate, _)| *candidate != prefix);
        }
        let prefixes: Vec<&str> = chosen.iter().map(|(prefix, _)| *prefix).collect();
        KeyDictionary::new(&prefixes).expect("different prefixes within the limits")
    }
}

/// Bytes that `prefix` saves beyond those that are chosen already: its keys that no longer chosen prefix covers, each by
/// what it is longer than the longest chosen prefix of its own.
fn gain(prefix: &str, count: usize, chosen: &[(&str, usize)]) -> usize {
    let longer =
        |(other, _): &&(&str, usize)| other.len() > prefix.len() && other.starts_with(prefix);
    // Only the shortest of the longer ones: those below them are counted in them.
    let covered: usize = chosen
        .iter()
        .filter(longer)
        .filter(|(other, _)| {
            !chosen.iter().any(|(between, _)| {
                between.len() > prefix.len()
                    && between.len() < other.len()
                    && between.starts_with(prefix)
                    && other.starts_with(between)
            })
        })
        .map(|(_, count)| count)
        .sum();
    let saved_already = chosen
        .iter()
        .filter(|(other, _)| prefix.starts_with(other))
        .map(|(other, _)| other.len() - 1)
        .max()
        .unwrap_or(0);
    count.saturating_sub(covered) * (prefix.len() - 1).saturating_sub(saved_already)
}
