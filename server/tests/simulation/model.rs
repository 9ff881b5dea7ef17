//! What the store has to be: every change that was applied, by its number, and what the next one must come to.

use super::history::{Condition, Edit};
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
    key: u8,
    /// `None` for a removal.
    entry: Option<Entry>,
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

    pub(crate) fn apply(&mut self, key: u8, sequence: u64, effect: Effect) {
        let entry = match effect {
            Effect::Nothing => return,
            Effect::Set(entry) => Some(Entry { sequence, ..entry }),
            Effect::Remove => None,
        };
        self.given_out = self.given_out.max(sequence);
        let change = Change {
            sequence,
            key,
            entry,
        };
        self.replay(&change);
        self.changes.push(change);
    }

    fn replay(&mut self, change: &Change) {
        self.touched.insert(change.key, change.sequence);
        match &change.entry {
            Some(entry) => self.state.insert(change.key, entry.clone()),
            None => self.state.remove(&change.key),
        };
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
