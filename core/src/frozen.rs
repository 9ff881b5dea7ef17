//! A copy-on-write view of one moment, for snapshots.
//!
//! A frozen partition keeps a cursor over its slots. What the cursor has not passed yet and a write replaces or removes
//! is kept until it was walked, a small entry by a copy and a large value by reference; what was written after the cut is recognised by
//! its sequence. So nothing is copied to freeze, and the extra memory is what was overwritten in the meantime. The idea
//! is that of pre-image snapshots (Dragonfly, `docs/shard-serialization.md`), made simple by values that are replaced
//! and never edited.

use crate::dirty::Slots;
use crate::entry::Entry;
use crate::memtable::Memtable;
use crate::numbers::{Sequence, Slot};
use crate::view::EntryView;
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A removal, remembered for the next incremental snapshot.
#[derive(Debug)]
pub(crate) struct Tombstone {
    pub(crate) key: Box<str>,
    pub(crate) sequence: Sequence,
}

impl Tombstone {
    /// Bytes it costs: its place in the list and its key.
    pub(crate) fn footprint(&self) -> usize {
        size_of::<Self>() + self.key.len()
    }
}

/// What a walk meets.
#[derive(Clone, Copy, Debug)]
pub enum FrozenItem<'a> {
    /// An entry as it was at the cut.
    Entry(EntryView<'a>),
    /// A key removed since the base of an incremental snapshot.
    Tombstone {
        /// The key.
        key: &'a str,
        /// The number of its removal.
        sequence: Sequence,
    },
}

/// Whether a walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkState {
    /// Call again.
    More,
    /// Every item was met. The partition may be thawed.
    Done,
}

#[derive(Debug)]
pub(crate) struct Frozen {
    cut: Sequence,
    since: Sequence,
    /// The slots that can hold something to walk; `None` for all.
    guide: Option<Arc<Slots>>,
    /// The next slot to walk.
    next: u32,
    end: u32,
    /// Tombstones walked so far, and how many there were at the freeze.
    tombstones_next: usize,
    tombstones_end: usize,
    pre_images: Vec<Entry>,
    pre_image_bytes: usize,
}

impl Frozen {
    pub(crate) fn new(
        cut: Sequence,
        since: Option<Sequence>,
        guide: Option<Arc<Slots>>,
        slot_end: u32,
        tombstones: usize,
    ) -> Self {
        Self {
            cut,
            since: since.unwrap_or(Sequence::ZERO),
            guide,
            next: 0,
            end: slot_end,
            tombstones_next: 0,
            // A full snapshot needs none: what it does not name is not there.
            tombstones_end: if since.is_some() { tombstones } else { 0 },
            pre_images: Vec::new(),
            pre_image_bytes: 0,
        }
    }

    fn covers(&self, entry: EntryView<'_>) -> bool {
        entry.sequence() <= self.cut && entry.sequence() > self.since
    }

    /// Keeps `old`, which is leaving `slot`, if the walk has yet to meet it, and says whether.
    pub(crate) fn keep(&mut self, slot: Slot, old: EntryView<'_>) -> bool {
        if slot.get() < self.next || slot.get() >= self.end || !self.covers(old) {
            return false;
        }
        let old = old.to_entry();
        self.pre_image_bytes += old.footprint();
        self.pre_images.push(old);
        true
    }

    /// The entries kept alive.
    pub(crate) fn kept(&self) -> &[Entry] {
        &self.pre_images
    }

    /// How many of the entries kept alive are coded with `dictionary`.
    pub(crate) fn coded_with(&self, dictionary: u8) -> usize {
        let with = |entry: &&Entry| {
            entry
                .coding()
                .is_some_and(|coding| coding.dictionary == dictionary)
        };
        self.pre_images.iter().filter(with).count()
    }

    /// The next slot to look at.
    fn next_slot(&self) -> Option<u32> {
        let next = match &self.guide {
            Some(guide) => guide.next(self.next)?,
            None => self.next,
        };
        (next < self.end).then_some(next)
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.pre_image_bytes + self.pre_images.capacity() * size_of::<Entry>()
    }

    pub(crate) fn walk<S: BuildHasher>(
        &mut self,
        table: &Memtable<S>,
        tombstones: &VecDeque<Tombstone>,
        budget: usize,
        spent: &mut Vec<Entry>,
        mut visit: impl FnMut(FrozenItem<'_>) -> ControlFlow<()>,
    ) -> WalkState {
        for _ in 0..budget {
            let flow = if let Some(entry) = self.pre_images.pop() {
                self.pre_image_bytes -= entry.footprint();
                let flow = visit(FrozenItem::Entry(EntryView::from(&entry)));
                spent.push(entry);
                flow
            } else if self.tombstones_next < self.tombstones_end {
                let tombstone = &tombstones[self.tombstones_next];
                self.tombstones_next += 1;
                if tombstone.sequence <= self.since {
                    continue;
                }
                visit(FrozenItem::Tombstone {
                    key: &tombstone.key,
                    sequence: tombstone.sequence,
                })
            } else if let Some(next) = self.next_slot() {
                self.next = next;
                let slot = Slot::new(self.next);
                self.next += 1;
                match table.entry(slot).filter(|entry| self.covers(*entry)) {
                    Some(entry) => visit(FrozenItem::Entry(entry)),
                    None => continue,
                }
            } else {
                return WalkState::Done;
            };
            if flow.is_break() {
                break;
            }
        }
        WalkState::More
    }
}
