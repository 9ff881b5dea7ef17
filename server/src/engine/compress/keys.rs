//! Keys that share prefixes, stored with a code in the prefix's stead.
//!
//! Each partition learns from its own keys, and codes them in the background, as values are: a write lays its key out
//! whole, a sweep puts the same entry with a coded key in its place. Codes are only ever added, or given to another prefix
//! when no key has them any more, so that whatever is coded can be read and found at any time.

use super::Compression;
use super::sweep::{Sweeper, TAKE_BYTES_MAX, kept};
use crate::engine::Shared;
use crate::engine::adapters::Prefixes;
use crate::engine::coded::{Codings, is_coded};
use crate::engine::partitions::Table;
use inflightkv_compression::keys::{KeyDictionary, KeyLearner};
use inflightkv_core::{CODED_KEY_BYTES_MAX, Entry, EntryView, KEY_CODES, KeyCode, Slot};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// Fewer keys say too little about what they share.
const KEYS_MIN: usize = 32;
/// Keys that are learned from, at most: more were found to say the same.
const SAMPLES_MAX: u64 = 1024;
/// Slots looked at for them under one hold of a partition's lock.
const EXAMINE_MAX: usize = 256;

/// What keys of all partitions are coded by, and what it saves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyTotals {
    /// Partitions that have learned prefixes.
    pub partitions: usize,
    /// Prefixes they have, all together.
    pub prefixes: usize,
    /// Keys that are stored coded.
    pub keys: usize,
    /// Bytes that their entries are shorter.
    pub saved_bytes: usize,
    /// Heap bytes of the prefixes and of what counts their uses.
    pub bytes: usize,
}

impl KeyTotals {
    /// Adds what a partition has.
    pub(crate) fn add(&mut self, table: &Table) {
        let Some(keys) = &table.codings.keys else {
            return;
        };
        self.partitions += 1;
        self.prefixes += keys.0.prefixes().count();
        self.bytes += table.codings.key_bytes()
            + size_of::<Arc<dyn KeyCode>>()
            + size_of::<[u32; KEY_CODES]>();
        for (code, count) in (0..).zip(table.partition.coded_keys()) {
            self.keys += count as usize;
            self.saved_bytes += count as usize * keys.0.prefix(code).len().saturating_sub(1);
        }
    }
}

/// Whether the key of an entry is to be stored another way.
pub(super) fn is_misfit(entry: EntryView<'_>, settings: &Compression, codings: &Codings) -> bool {
    let stored = entry.key_bytes();
    match &codings.keys {
        Some(_) if is_coded(stored) => !settings.keys,
        Some(keys) if settings.keys && stored.len() <= CODED_KEY_BYTES_MAX => {
            entry.whole_key().is_some_and(|key| keys.0.shortens(key))
        }
        _ => false,
    }
}

impl Sweeper {
    /// Before a partition is swept: learns what its keys share, if many are stored whole.
    pub(super) fn tend_keys(&mut self, shared: &Shared, partition: usize, settings: &Compression) {
        let is_due = shared.partitions.with(partition, |table| {
            let coded: u32 = table.partition.coded_keys().iter().sum();
            let whole = table.partition.stats().entries - coded as usize;
            let is_due = settings.keys && whole >= KEYS_MIN.max(table.codings.keys_whole * 2);
            if is_due {
                table.codings.keys_whole = whole;
            }
            is_due
        });
        if is_due {
            self.learn_keys(shared, partition);
        }
    }

    fn learn_keys(&mut self, shared: &Shared, partition: usize) {
        let now = shared.options.clock.now();
        let mut learner = KeyLearner::new();
        let mut sampled: Vec<Range<usize>> = Vec::with_capacity(EXAMINE_MAX);
        let mut next = Some(Slot::new(0));
        while let Some(from) = next.filter(|_| learner.seen() < SAMPLES_MAX) {
            self.arena.clear();
            self.arena.reserve(TAKE_BYTES_MAX);
            let arena = &mut self.arena;
            next = shared.partitions.with(partition, |table| {
                let Table {
                    partition, codings, ..
                } = table;
                partition.scan(from, EXAMINE_MAX, "", now, |entry| {
                    let known = codings.keys.as_ref();
                    if let Some(key) = entry.whole_key()
                        && key.len() <= CODED_KEY_BYTES_MAX
                        && !known.is_some_and(|keys| keys.0.shortens(key))
                    {
                        sampled.push(kept(arena, key.as_bytes()));
                    }
                    if arena.len() >= TAKE_BYTES_MAX {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })
            });
            for key in sampled.drain(..) {
                let key = std::str::from_utf8(&self.arena[key]);
                learner.offer(key.expect("a key that is stored whole is text"));
            }
        }
        let (current, uses) = shared.partitions.with(partition, |table| {
            let uses = table.partition.coded_keys();
            let is_frozen = table.partition.is_frozen();
            (table.codings.keys.clone(), (!is_frozen).then_some(uses))
        });
        let learned = learner.learn();
        let none = KeyDictionary::default();
        let current = current.as_ref().map_or(&none, |keys| &keys.0);
        let is_free = |code| uses.is_some_and(|uses| uses[usize::from(code)] == 0);
        let grown = current.extended(learned.prefixes(), is_free);
        if grown == *current {
            return;
        }
        let grown = Arc::new(Prefixes(grown));
        let spent = shared.partitions.with(partition, |table| {
            let before = table.codings.keys.replace(Arc::clone(&grown));
            (before, table.partition.set_key_code(Some(grown)))
        });
        drop(spent);
    }

    /// After a partition was swept: prefixes that nothing needs any more are given up when keys are to be stored whole.
    pub(super) fn end_keys(&mut self, shared: &Shared, partition: usize, settings: &Compression) {
        self.keys = None;
        if settings.keys {
            return;
        }
        let spent = shared.partitions.with(partition, |table| {
            table.codings.keys_whole = 0;
            let is_needed =
                table.partition.is_frozen() || table.partition.coded_keys() != [0; KEY_CODES];
            if is_needed {
                return None;
            }
            let keys = table.codings.keys.take()?;
            Some((keys, table.partition.set_key_code(None)))
        });
        drop(spent);
    }

    /// The head of an entry in the arena with its key stored the other way: coded if it is whole, whole if it is coded.
    pub(super) fn rehead(&mut self, head: &Range<usize>) -> Range<usize> {
        let Some(keys) = &self.keys else {
            return head.clone();
        };
        let bytes = &self.arena[head.clone()];
        let stored = Entry::key_in_head(bytes);
        let mut key = Vec::with_capacity(CODED_KEY_BYTES_MAX);
        match std::str::from_utf8(stored) {
            Ok(whole) => keys.0.encode(whole, &mut key),
            Err(_) => {
                let mut whole = String::with_capacity(CODED_KEY_BYTES_MAX);
                let decoded = keys.0.decode(stored, &mut whole);
                decoded.expect("a prefix stays while a key needs it");
                key = whole.into_bytes();
            }
        }
        let mut changed = Vec::with_capacity(bytes.len() + key.len());
        Entry::head_with_key(bytes, &key, &mut changed);
        kept(&mut self.arena, &changed)
    }
}
