//! What the store has to be: every change that was applied, by its number, and what the next one must come to.

use super::history::{Condition, Edit, KEYS, key_name};
use super::tally::{Wrong, wrong};
use bytes::Bytes;
use inflightkv_core::{PatchLimits, merge};
use inflightkv_server::engine::{Current, FailedCondition, PatchKind, Sequence, VersionCondition};
use std::collections::BTreeMap;

/// The longest value the simulated stores take.
pub(crate) const VALUE_BYTES_MAX: usize = 16 << 10;
pub(crate) const DEPTH_MAX: u32 = 32;

/// A key as it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) value: Bytes,
    pub(crate) media_type: Option<String>,
    pub(crate) version: u64,
    pub(crate) sequence: u64,
    pub(crate) expires_at: Option<u64>,
}

impl Entry {
    pub(crate) fn is_visible(&self, now: u64) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }
}

/// One applied change.
#[derive(Clone, Debug)]
struct Change {
    sequence: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Set(u8, Entry),
    Remove(u8),
    /// Everything is this, from now on.
    Replace(BTreeMap<u8, Entry>),
}

/// What has to come of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Created,
    Changed {
        version: u64,
    },
    Unchanged {
        version: u64,
        sequence: u64,
    },
    Deleted {
        version: u64,
    },
    Missing,
    Conflict {
        failed: FailedCondition,
        current: Option<Current>,
    },
    PatchFailed,
}

/// What a write does if it is applied.
pub(crate) enum Effect {
    Nothing,
    Set(Entry),
    Remove,
}

#[derive(Default)]
pub(crate) struct Model {
    /// What is there, expired entries included.
    state: BTreeMap<u8, Entry>,
    /// The last change of each key, its removal included.
    touched: BTreeMap<u8, u64>,
    changes: Vec<Change>,
    /// The largest number that was ever given out, also to a change that a crash took.
    pub(crate) given_out: u64,
    /// Everything up to here was said to be on stable storage.
    pub(crate) acknowledged: u64,
    /// Acknowledged changes that later recoveries were checked for.
    pub(crate) checked: u64,
    checked_to: u64,
}

impl Model {
    pub(crate) fn visible(&self, key: u8, now: u64) -> Option<&Entry> {
        self.state.get(&key).filter(|entry| entry.is_visible(now))
    }

    /// All that is visible.
    pub(crate) fn all(&self, now: u64) -> impl Iterator<Item = (u8, &Entry)> {
        self.state
            .iter()
            .filter(move |(_, entry)| entry.is_visible(now))
            .map(|(key, entry)| (*key, entry))
    }

    /// The change that an answer about `key` shows, also when the answer is that it is not there.
    pub(crate) fn shown(&self, key: u8) -> u64 {
        self.touched.get(&key).copied().unwrap_or(0)
    }

    /// The last change that is there.
    pub(crate) fn last(&self) -> u64 {
        self.changes.last().map_or(0, |change| change.sequence)
    }

    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Changes that nobody was told are durable, the newest first.
    pub(crate) fn unacknowledged(&self) -> impl Iterator<Item = u64> {
        self.changes
            .iter()
            .rev()
            .map(|change| change.sequence)
            .take_while(|sequence| *sequence > self.acknowledged)
    }

    /// Whether the key is there and no longer visible.
    pub(crate) fn is_expired(&self, key: u8, now: u64) -> bool {
        self.state
            .get(&key)
            .is_some_and(|entry| !entry.is_visible(now))
    }

    /// The entry of a key, visible or not.
    pub(crate) fn there(&self, key: u8) -> Option<&Entry> {
        self.state.get(&key)
    }

    /// Keys that are there, visible or not.
    pub(crate) fn entries(&self) -> u64 {
        self.state.len() as u64
    }

    /// Puts the changes from the one at `from` on in the order of their numbers; false if one is there twice. Of a key
    /// they are in order: a batch does one key's operations in the order sent.
    pub(crate) fn order_from(&mut self, from: usize) -> bool {
        let changes = &mut self.changes[from..];
        changes.sort_by_key(|change| change.sequence);
        changes
            .windows(2)
            .all(|pair| pair[0].sequence < pair[1].sequence)
    }

    pub(crate) fn acknowledge(&mut self, sequence: u64) {
        self.acknowledged = self.acknowledged.max(sequence);
    }

    /// Everything up to this number, which need not be a change's, was said to be on stable storage.
    pub(crate) fn acknowledge_to(&mut self, number: u64) {
        let last = self
            .changes
            .iter()
            .rev()
            .find(|change| change.sequence <= number);
        if let Some(sequence) = last.map(|change| change.sequence) {
            self.acknowledge(sequence);
        }
    }

    pub(crate) fn apply(&mut self, key: u8, sequence: u64, effect: Effect) {
        let what = match effect {
            Effect::Nothing => return,
            Effect::Set(entry) => What::Set(key, Entry { sequence, ..entry }),
            Effect::Remove => What::Remove(key),
        };
        self.push(Change { sequence, what });
    }

    /// A backup has taken the place of everything under `sequence`.
    pub(crate) fn replace(&mut self, sequence: u64, state: BTreeMap<u8, Entry>) {
        let what = What::Replace(state);
        self.push(Change { sequence, what });
    }

    fn push(&mut self, change: Change) {
        self.given_out = self.given_out.max(change.sequence);
        self.replay(&change);
        self.changes.push(change);
    }

    fn replay(&mut self, change: &Change) {
        match &change.what {
            What::Set(key, entry) => {
                self.touched.insert(*key, change.sequence);
                self.state.insert(*key, entry.clone());
            }
            What::Remove(key) => {
                self.touched.insert(*key, change.sequence);
                self.state.remove(key);
            }
            What::Replace(state) => {
                // An answer about any key shows it, also that one is not there.
                self.touched
                    .extend((0..KEYS).map(|key| (key, change.sequence)));
                self.state.clone_from(state);
            }
        }
    }

    /// Compares what is visible with what was found.
    pub(crate) fn same(
        &self,
        what: &str,
        found: &BTreeMap<String, Entry>,
        now: u64,
    ) -> Result<(), Wrong> {
        for key in 0..KEYS {
            let name = key_name(key);
            let (expected, found) = (self.visible(key, now), found.get(&name));
            if expected != found {
                return Err(wrong(format!("{name} in {what}"), expected, found));
            }
        }
        let known = (0..KEYS).map(key_name).collect::<Vec<_>>();
        match found.keys().find(|key| !known.contains(key)) {
            Some(key) => Err(wrong(
                format!("a key in {what}"),
                "a key that was written",
                key,
            )),
            None => Ok(()),
        }
    }

    /// A recovery found everything up to `last` and nothing after it.
    pub(crate) fn rewind(&mut self, last: u64) {
        self.changes.retain(|change| change.sequence <= last);
        self.state.clear();
        self.touched.clear();
        let changes = std::mem::take(&mut self.changes);
        for change in &changes {
            self.replay(change);
        }
        let (from, to) = (self.checked_to, self.acknowledged.min(last));
        self.checked += changes
            .iter()
            .filter(|change| (from + 1..=to).contains(&change.sequence))
            .count() as u64;
        self.checked_to = from.max(to);
        self.changes = changes;
    }

    /// The state at `last`, without becoming it.
    pub(crate) fn at(&self, last: u64) -> Model {
        let mut earlier = Model {
            changes: self.changes.clone(),
            acknowledged: self.acknowledged,
            ..Model::default()
        };
        earlier.rewind(last);
        earlier
    }

    fn failed(&self, condition: &Condition, entry: Option<&Entry>) -> Option<FailedCondition> {
        let matches = |list: &Option<Vec<Sequence>>| match (list, entry) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(list), Some(entry)) => {
                list.iter().any(|sequence| sequence.get() == entry.sequence)
            }
        };
        match condition {
            Condition::None => None,
            Condition::Match(list) => (!matches(list)).then_some(FailedCondition::Match),
            Condition::NoneMatch(list) => matches(list).then_some(FailedCondition::NoneMatch),
            Condition::Version(VersionCondition::Absent) => {
                entry.is_some().then_some(FailedCondition::Version)
            }
            Condition::Version(VersionCondition::Is(version)) => (entry.map(|entry| entry.version)
                != Some(*version))
            .then_some(FailedCondition::Version),
        }
    }

    /// What has to come of `edit` at `now`.
    pub(crate) fn decide(
        &self,
        key: u8,
        condition: &Condition,
        edit: &Edit,
        now: u64,
    ) -> (Expected, Effect) {
        let entry = self.visible(key, now);
        let failed = self.failed(condition, entry);
        if let (Edit::Delete, None) = (edit, entry) {
            return match failed {
                Some(FailedCondition::Match) => {
                    (conflict(FailedCondition::Match, None), Effect::Nothing)
                }
                _ => (Expected::Missing, Effect::Nothing),
            };
        }
        if let Some(failed) = failed {
            return (conflict(failed, entry), Effect::Nothing);
        }
        match (edit, entry) {
            (Edit::Delete, Some(entry)) => (
                Expected::Deleted {
                    version: entry.version,
                },
                Effect::Remove,
            ),
            (Edit::Delete, None) => (Expected::Missing, Effect::Nothing),
            (Edit::Put { document, ttl }, entry) => {
                let value = document.value();
                let expires_at = ttl.expires_at(entry.and_then(|entry| entry.expires_at), now);
                put(entry, value.bytes, value.media_type, expires_at)
            }
            (Edit::Patch { patch, .. }, None) if patch.kind() == PatchKind::Json => {
                (Expected::Missing, Effect::Nothing)
            }
            (Edit::Patch { .. }, Some(entry)) if entry.media_type.is_some() => {
                (Expected::PatchFailed, Effect::Nothing)
            }
            (Edit::Patch { patch, ttl }, entry) => {
                let limits = PatchLimits {
                    value_bytes_max: VALUE_BYTES_MAX,
                    depth_max: DEPTH_MAX,
                    inline_max: usize::MAX,
                };
                let expires_at = ttl.expires_at(entry.and_then(|entry| entry.expires_at), now);
                match merge::patched(
                    patch.kind(),
                    entry.map(|entry| &entry.value[..]),
                    &patch.document(),
                    &limits,
                ) {
                    Ok(value) => put(entry, Bytes::from(value), None, expires_at),
                    Err(_) => (Expected::PatchFailed, Effect::Nothing),
                }
            }
        }
    }
}

fn conflict(failed: FailedCondition, entry: Option<&Entry>) -> Expected {
    let current = entry.map(|entry| Current {
        version: entry.version,
        sequence: Sequence::from_raw(entry.sequence),
    });
    Expected::Conflict { failed, current }
}

fn put(
    entry: Option<&Entry>,
    value: Bytes,
    media_type: Option<String>,
    expires_at: Option<u64>,
) -> (Expected, Effect) {
    let set = |version| {
        Effect::Set(Entry {
            value: value.clone(),
            media_type: media_type.clone(),
            version,
            sequence: 0,
            expires_at,
        })
    };
    match entry {
        None => (Expected::Created, set(0)),
        Some(old)
            if old.value == value
                && old.media_type == media_type
                && old.expires_at == expires_at =>
        {
            (
                Expected::Unchanged {
                    version: old.version,
                    sequence: old.sequence,
                },
                Effect::Nothing,
            )
        }
        Some(old) => (
            Expected::Changed {
                version: old.version + 1,
            },
            set(old.version + 1),
        ),
    }
}
