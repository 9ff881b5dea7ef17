//! Rules about keys and values, from a file: compiled once, asked for every write.
//!
//! A rule is about the keys that begin with its `prefix` or match its `pattern`, or about all. For each setting the
//! most specific rule that has it decides: the one with the longest prefix, where a pattern counts with the text
//! that it demands at the key's beginning, before a prefix of that length. Of equals the later one decides.
//!
//! A rule in force is never switched off by one that is only reported: [`Mode::ReportOnly`] settings are tried beside
//! those in force, where they would decide if they were in force themselves.

mod charset;
mod check;
mod error;
mod file;
mod filter;
mod media;
mod schema;
mod walk;

pub use check::Candidate;
pub use error::RuleFileError;

use crate::{Breach, Rule, Violation};
use check::{KeyCheck, ValueCheck};
use regex::Regex;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a rule does to what breaks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Refuses it.
    Enforce,
    /// Counts it.
    ReportOnly,
}

impl Mode {
    /// Its name in a rule file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::ReportOnly => "report-only",
        }
    }
}

/// A rule that is code of an embedder's own. Both questions are asked of every write, while no lock is held; answer
/// them quickly.
pub trait ValidationRule: Send + Sync {
    /// What people call it.
    fn name(&self) -> &str;

    /// Decides about a key.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check_key(&self, key: &str) -> Result<(), Breach> {
        let _ = key;
        Ok(())
    }

    /// Decides about a value that a key is to have.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check_value(&self, key: &str, value: &Candidate<'_>) -> Result<(), Breach> {
        let _ = (key, value);
        Ok(())
    }
}

/// What a rule was broken how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleHits {
    /// The rule.
    pub name: String,
    /// What it does to what breaks it.
    pub mode: Mode,
    /// Keys and values that broke it since it was loaded, or carried over from before.
    pub hits: u64,
}

/// A set of compiled rules.
#[derive(Default)]
pub struct Rules {
    /// The most specific first.
    rules: Vec<Compiled>,
    own: Vec<Own>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.hits()).finish()
    }
}

/// One rule of a file.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) name: Arc<str>,
    pub(crate) mode: Mode,
    pub(crate) scope: Scope,
    pub(crate) key_checks: Vec<KeyCheck>,
    pub(crate) value_checks: Vec<ValueCheck>,
    /// Its place in the file.
    index: usize,
    hits: AtomicU64,
}

/// A rule of an embedder.
struct Own {
    name: Arc<str>,
    mode: Mode,
    rule: Box<dyn ValidationRule>,
    hits: AtomicU64,
}

/// Which keys a rule is about.
#[derive(Debug)]
pub(crate) enum Scope {
    All,
    Prefix(String),
    Pattern {
        regex: Regex,
        /// Bytes of text that it demands at the key's beginning.
        demanded: usize,
    },
}

impl Scope {
    pub(crate) fn pattern(regex: Regex) -> Self {
        Self::Pattern {
            demanded: demanded_text(regex.as_str()),
            regex,
        }
    }

    fn covers(&self, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => key.starts_with(prefix.as_str()),
            Self::Pattern { regex, .. } => regex.is_match(key),
        }
    }

    fn specificity(&self) -> (usize, u8) {
        match self {
            Self::All => (0, 0),
            Self::Prefix(prefix) => (prefix.len(), 1),
            Self::Pattern { demanded, .. } => (*demanded, 2),
        }
    }
}

/// The length of the text that follows `^` up to the first character with a meaning of its own.
fn demanded_text(pattern: &str) -> usize {
    let Some(rest) = pattern.strip_prefix('^') else {
        return 0;
    };
    if rest.contains('|') {
        return 0;
    }
    let meaning = |character: char| "\\.+*?()[]{}^$".contains(character);
    let end = rest.find(meaning).unwrap_or(rest.len());
    let text = &rest[..end];
    match rest[end..].chars().next() {
        // The last character is repeated, and perhaps not there at all.
        Some('*' | '?' | '{') => text.char_indices().next_back().map_or(0, |(at, _)| at),
        _ => text.len(),
    }
}

impl Compiled {
    pub(crate) fn new(index: usize) -> Self {
        Self {
            name: Arc::from(""),
            mode: Mode::Enforce,
            scope: Scope::All,
            key_checks: Vec::new(),
            value_checks: Vec::new(),
            index,
            hits: AtomicU64::new(0),
        }
    }
}

impl Rules {
    /// Compiles the text of a rule file. `read` gives the text of a file that the rules name; it may refuse.
    ///
    /// # Errors
    /// The first mistake, by line and key.
    pub fn parse(
        text: &str,
        read: &dyn Fn(&str) -> io::Result<String>,
    ) -> Result<Self, RuleFileError> {
        let mut rules = file::parse(text, read)?;
        rules.sort_by_key(|rule| Reverse((rule.scope.specificity(), rule.index)));
        Ok(Self {
            rules,
            own: Vec::new(),
        })
    }

    /// Adds a rule that is code. Those are asked after the rules of the file, in the order in which they were added.
    pub fn add(&mut self, mode: Mode, rule: impl ValidationRule + 'static) {
        self.own.push(Own {
            name: rule.name().into(),
            mode,
            rule: Box::new(rule),
            hits: AtomicU64::new(0),
        });
    }

    /// There is nothing to ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.own.is_empty()
    }

    /// Decides about a key.
    ///
    /// # Errors
    /// The first rule in force that it breaks.
    pub fn check_key(&self, key: &str) -> Result<(), Violation> {
        self.ask(
            key,
            |rule| &rule.key_checks,
            KeyCheck::bit,
            KeyCheck::setting,
            |check| check.check(key),
        )?;
        self.ask_own(|rule| rule.check_key(key))
    }

    /// Decides about a value that a key is to have.
    ///
    /// # Errors
    /// The first rule in force that it breaks.
    pub fn check_value(&self, key: &str, value: &Candidate<'_>) -> Result<(), Violation> {
        self.ask(
            key,
            |rule| &rule.value_checks,
            ValueCheck::bit,
            ValueCheck::setting,
            |check| check.check(value),
        )?;
        self.ask_own(|rule| rule.check_value(key, value))
    }

    /// How often each rule was broken, the most specific first.
    #[must_use]
    pub fn hits(&self) -> Vec<RuleHits> {
        let hits = |name: &Arc<str>, mode, hits: &AtomicU64| RuleHits {
            name: name.to_string(),
            mode,
            hits: hits.load(Ordering::Relaxed),
        };
        let of_file = self.rules.iter();
        let of_file = of_file.map(|rule| hits(&rule.name, rule.mode, &rule.hits));
        let own = self.own.iter();
        of_file
            .chain(own.map(|own| hits(&own.name, own.mode, &own.hits)))
            .collect()
    }

    /// Goes on counting where the rules of the same names in `before` are, so that reloading loses no count.
    pub fn carry_over(&self, before: &Self) {
        for hits in before.hits() {
            let named = self.rules.iter().find(|rule| *rule.name == *hits.name);
            if let Some(rule) = named {
                rule.hits.fetch_add(hits.hits, Ordering::Relaxed);
            }
        }
    }

    /// Asks, of each setting, the narrowest rule in force that has it, and the narrowest one that is only reported if
    /// it is narrower still.
    fn ask<C>(
        &self,
        key: &str,
        checks: impl Fn(&Compiled) -> &Vec<C>,
        bit: impl Fn(&C) -> u32,
        setting: impl Fn(&C) -> &'static str,
        decide: impl Fn(&C) -> Result<(), Breach>,
    ) -> Result<(), Violation> {
        let mut enforced = 0;
        let mut reported = 0;
        for rule in &self.rules {
            let checks = checks(rule);
            if checks.is_empty() || !rule.scope.covers(key) {
                continue;
            }
            for check in checks {
                let bit = bit(check);
                let decided = match rule.mode {
                    Mode::Enforce => &mut enforced,
                    Mode::ReportOnly if enforced & bit != 0 => continue,
                    Mode::ReportOnly => &mut reported,
                };
                if *decided & bit != 0 {
                    continue;
                }
                *decided |= bit;
                let Err(breach) = decide(check) else {
                    continue;
                };
                rule.hits.fetch_add(1, Ordering::Relaxed);
                if rule.mode == Mode::Enforce {
                    return Err(breach.of(Rule::Named {
                        name: Arc::clone(&rule.name),
                        setting: Cow::Borrowed(setting(check)),
                    }));
                }
            }
        }
        Ok(())
    }

    fn ask_own(
        &self,
        decide: impl Fn(&dyn ValidationRule) -> Result<(), Breach>,
    ) -> Result<(), Violation> {
        for own in &self.own {
            let Err(breach) = decide(&*own.rule) else {
                continue;
            };
            own.hits.fetch_add(1, Ordering::Relaxed);
            if own.mode == Mode::Enforce {
                return Err(breach.of(Rule::Named {
                    name: Arc::clone(&own.name),
                    setting: Cow::Borrowed("code"),
                }));
            }
        }
        Ok(())
    }
}
