//! The rules that writes are held against, replaced while the store runs.
//!
//! Rules are asked before a partition is locked, about the value as it will be stored. What was stored before a rule
//! came is neither hidden nor removed by it: reads and deletes ask nothing. What is restored or taken over from another
//! store was accepted before: it is held against the rules, and [`OnLoad`] says what becomes of what breaks one.

use super::batch::{BatchKind, BatchOperation};
use super::read::Document;
use super::write::{Value, WriteError};
use super::{Engine, Shared};
use inflightkv_core::merge;
use inflightkv_validation::{Candidate, Rules, Violation};
use parking_lot::RwLock;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What becomes of an entry of a backup, or of a store that is followed, that breaks a rule in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLoad {
    /// It is taken, counted and told of.
    #[default]
    Report,
    /// It is not taken, and so nothing is: the restore is refused, following stops.
    Refuse,
}

/// Entries that are told of singly.
const SHOWN_MAX: usize = 8;

/// Entries that were loaded and break rules in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unfit {
    /// How many.
    pub count: u64,
    /// The first of them, a few: the key, and what is wrong.
    pub first: Vec<(String, Violation)>,
}

impl Unfit {
    /// One more.
    pub(crate) fn note(&mut self, key: &str, violation: Violation) {
        self.count += 1;
        if self.first.len() < SHOWN_MAX {
            self.first.push((key.to_owned(), violation));
        }
    }
}

/// The rules in use.
#[derive(Debug)]
pub(crate) struct RuleBook {
    /// Whether there is anything to ask: most stores have no rules, and a write then looks at this only.
    any: AtomicBool,
    rules: RwLock<Arc<Rules>>,
    refuses_on_load: AtomicBool,
}

impl RuleBook {
    pub(super) fn new(rules: Arc<Rules>, on_load: OnLoad) -> Self {
        Self {
            any: AtomicBool::new(!rules.is_empty()),
            rules: RwLock::new(rules),
            refuses_on_load: AtomicBool::new(on_load == OnLoad::Refuse),
        }
    }

    pub(super) fn on_load(&self) -> OnLoad {
        if self.refuses_on_load.load(Ordering::Relaxed) {
            OnLoad::Refuse
        } else {
            OnLoad::Report
        }
    }

    /// The rules, if there are any.
    pub(super) fn current(&self) -> Option<Arc<Rules>> {
        self.any
            .load(Ordering::Acquire)
            .then(|| Arc::clone(&self.rules.read()))
    }
}

impl Engine {
    /// Holds every write that begins from now on against `rules`. Counts of rules that keep their name go on.
    pub fn set_rules(&self, rules: Rules) {
        let book = &self.shared.rules;
        let mut current = book.rules.write();
        rules.carry_over(&current);
        book.any.store(!rules.is_empty(), Ordering::Release);
        *current = Arc::new(rules);
    }

    /// What becomes of what is loaded and breaks a rule.
    pub fn rules_on_load(&self) -> OnLoad {
        self.shared.rules.on_load()
    }

    /// The same from now on.
    pub fn set_rules_on_load(&self, on_load: OnLoad) {
        let refuses = on_load == OnLoad::Refuse;
        self.shared
            .rules
            .refuses_on_load
            .store(refuses, Ordering::Relaxed);
    }

    /// The rules in use.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.shared.rules.rules.read())
    }
}

/// Holds a key and the value that it is to have against the rules.
pub(super) fn check(rules: &Rules, key: &str, value: &Value) -> Result<(), WriteError> {
    judge(rules, key, &value.bytes, value.media_type.as_deref()).map_err(invalid)
}

/// Holds a key and the value that it has against the rules.
pub(crate) fn judge(
    rules: &Rules,
    key: &str,
    bytes: &[u8],
    media_type: Option<&str>,
) -> Result<(), Violation> {
    let candidate = Candidate { bytes, media_type };
    rules
        .check_key(key)
        .and_then(|()| rules.check_value(key, &candidate))
}

/// The refusal of a single write.
pub(super) fn invalid(violation: Violation) -> WriteError {
    WriteError::Invalid {
        violation: Box::new(violation),
        index: None,
    }
}

impl Shared {
    /// Holds every operation of a batch against the rules before any of them is done.
    ///
    /// A patch is held against them with what is there now, unless an earlier operation of the batch writes its key;
    /// what it makes in the end is asked about once more when its turn comes.
    pub(super) fn check_batch(
        &self,
        rules: &Rules,
        operations: &[BatchOperation],
        now: u64,
    ) -> Result<(), WriteError> {
        let mut written = HashSet::new();
        for (index, operation) in operations.iter().enumerate() {
            let key = operation.key.as_str();
            let checked = match &operation.kind {
                BatchKind::Get => continue,
                BatchKind::Delete => Ok(()),
                BatchKind::Put { value, .. } => check(rules, key, value),
                BatchKind::Patch { .. } if written.contains(key) => {
                    rules.check_key(key).map_err(invalid)
                }
                BatchKind::Patch { kind, patch, .. } => {
                    let stored = self.read(key, self.partitions.place(key), now);
                    let json = stored
                        .as_ref()
                        .is_none_or(|stored| stored.media_type.is_none());
                    let sound = stored.as_ref().is_none_or(Document::is_sound);
                    let stored = stored.as_ref().map(|stored| &stored.value[..]);
                    let limits = self.options.patch_limits();
                    rules
                        .check_key(key)
                        .and_then(|()| match merge::patched(*kind, stored, patch, &limits) {
                            Ok(merged) if json && sound => {
                                rules.check_value(key, &Candidate::json(&merged))
                            }
                            // It fails on its own account when its turn comes.
                            _ => Ok(()),
                        })
                        .map_err(invalid)
                }
            };
            match checked {
                Err(WriteError::Invalid { violation, .. }) => {
                    return Err(WriteError::Invalid {
                        violation,
                        index: Some(index),
                    });
                }
                other => other?,
            }
            written.insert(key);
        }
        Ok(())
    }
}
