//! The walk over all partitions: each by its home lane, in slices, in blocks over a short queue.

use super::{CheckpointError, Checkpointer, FULL};
use crate::engine::Shared;
use crate::engine::coded::{Codings, StoredValue};
use crate::engine::damage::FoundBy;
use crate::engine::partitions::Table;
use crate::engine::sequencer::Epoch;
use inflightkv_core::{Entry, EntryView, FrozenItem, Sequence, WalkState};
use inflightkv_snapshot::{self as snapshot, BlockBuilder, EntryRef, RawBlock};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Entries walked under one hold of a partition's lock: about five microseconds of small ones.
const WALK_BATCH: usize = 64;
/// Blocks waiting to be written, for each lane that walks.
const BLOCKS_WAITING: usize = 4;

/// One walk over all partitions, shared by the lanes and the checkpointer.
pub(crate) struct Walk {
    pub(super) epoch: Epoch,
    pub(super) cut: Sequence,
    pub(super) parts: usize,
    pub(super) blocks: Mutex<VecDeque<(usize, RawBlock)>>,
    pub(super) blocks_max: usize,
    pub(super) lanes_left: AtomicUsize,
    /// Given up: partitions are thawed and nothing more is handed over.
    pub(super) stop: AtomicBool,
    pub(super) failure: Mutex<Option<CheckpointError>>,
    /// Steps taken by all lanes: a walk that is not stuck counts on.
    pub(super) steps: AtomicU64,
    /// Whose walk it is, to whoever meets a damaged value.
    pub(super) found_by: FoundBy,
    /// Over, whether or not every lane came: a lane that comes later does nothing. Looked at under a partition's lock.
    ended: AtomicBool,
}

/// One lane's way through its partitions.
pub(crate) struct Walker {
    walk: Arc<Walk>,
    builder: BlockBuilder,
    part: usize,
    next: usize,
    end: usize,
    done: bool,
    spent: Vec<Entry>,
    aside: Vec<Aside>,
    /// Where a key is written that is stored coded.
    key: String,
}

/// An entry that is encoded outside the lock: its value is large and shared, or coded.
struct Aside {
    key: String,
    media_type: Option<String>,
    value: StoredValue,
    sequence: u64,
    version: u64,
    expires_at: Option<u64>,
    pinned: bool,
    crc: u32,
}

impl Walk {
    /// A walk of `lanes` lanes; one that was `given_up` before it began only thaws.
    pub(super) fn new(
        epoch: Epoch,
        cut: Sequence,
        parts: usize,
        lanes: usize,
        given_up: bool,
        found_by: FoundBy,
    ) -> Self {
        Self {
            found_by,
            epoch,
            cut,
            parts,
            blocks: Mutex::default(),
            blocks_max: BLOCKS_WAITING * lanes,
            lanes_left: AtomicUsize::new(lanes),
            stop: AtomicBool::new(given_up),
            failure: Mutex::default(),
            steps: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// Thaws every partition in place of lanes that do not come, and ends the walk.
    pub(super) fn end_by_force(&self, shared: &Shared) {
        self.ended.store(true, Ordering::SeqCst);
        for partition in 0..shared.partitions.count() {
            shared.partitions.with(partition, |table| {
                table.epoch = self.epoch;
                table.partition.thaw();
            });
        }
    }
}

impl Checkpointer {
    /// Freezes a partition that is touched for the first time since a cut. `cut` is at or above the true one and below
    /// the change that is about to be made, which comes to the same.
    pub(crate) fn freeze(&self, table: &mut Table, epoch: Epoch, cut: Sequence) {
        let since = match self.since.load(Ordering::Acquire) {
            FULL => None,
            since => Some(Sequence::from_raw(since)),
        };
        table.epoch = epoch;
        table.partition.freeze(cut, since);
        if self.increments.load(Ordering::Relaxed) {
            // From this cut on removals matter to the increment that may follow.
            table.partition.keep_tombstones(true);
        }
    }

    /// Walks a slice of the lane's partitions, until `over`; true when there is more to do at once.
    pub(crate) fn walk(
        &self,
        shared: &Shared,
        lane: usize,
        walker: &mut Option<Walker>,
        over: impl Fn() -> bool,
    ) -> bool {
        if !self.walking.load(Ordering::Acquire) {
            *walker = None;
            return false;
        }
        let Some(walk) = self.walk.lock().clone() else {
            return false;
        };
        if walker
            .as_ref()
            .is_none_or(|walker| !Arc::ptr_eq(&walker.walk, &walk))
        {
            *walker = Some(Walker::new(shared, lane, walk));
        }
        walker
            .as_mut()
            .is_some_and(|walker| walker.advance(shared, over))
    }
}

impl Walker {
    fn new(shared: &Shared, lane: usize, walk: Arc<Walk>) -> Self {
        let partitions = shared.partitions.homed_at(lane);
        Self {
            walk,
            builder: BlockBuilder::new(snapshot::Options::default()),
            part: 0,
            next: partitions.start,
            end: partitions.end,
            done: false,
            spent: Vec::with_capacity(WALK_BATCH),
            aside: Vec::new(),
            key: String::new(),
        }
    }

    fn advance(&mut self, shared: &Shared, over: impl Fn() -> bool) -> bool {
        while !self.done {
            if self.walk.stop.load(Ordering::Acquire) {
                self.thaw_one(shared);
            } else if self.walk.blocks.lock().len() >= self.walk.blocks_max {
                // The checkpointer signals the lane when there is room.
                return false;
            } else {
                self.walk_one(shared);
            }
            if !self.done && over() {
                return true;
            }
        }
        false
    }

    /// A batch of the current partition, or the step to the next.
    fn walk_one(&mut self, shared: &Shared) {
        if self.next == self.end {
            self.hand_over(shared);
            self.finish(shared);
            return;
        }
        let part = self.next * self.walk.parts / shared.partitions.count();
        if part != self.part {
            self.hand_over(shared);
            self.part = part;
        }
        let (walk, builder, aside) = (&self.walk, &mut self.builder, &mut self.aside);
        let mut failure = None;
        walk.steps.fetch_add(1, Ordering::Relaxed);
        let state = shared.partitions.with(self.next, |table| {
            if walk.ended.load(Ordering::SeqCst) {
                return WalkState::Done;
            }
            if table.epoch != walk.epoch {
                shared.checkpointer.freeze(table, walk.epoch, walk.cut);
            }
            let Table {
                partition, codings, ..
            } = table;
            let state = partition.walk(WALK_BATCH, &mut self.spent, |item| {
                let pushed = match item {
                    FrozenItem::Entry(entry)
                        if entry.shared().is_some() || entry.coding().is_some() =>
                    {
                        aside.push(Aside::of(entry, codings));
                        Ok(false)
                    }
                    FrozenItem::Entry(entry) => {
                        let key = codings.key_of(entry, &mut self.key);
                        builder.push(entry_ref(entry, key))
                    }
                    FrozenItem::Tombstone { key, sequence } => {
                        builder.push(EntryRef::deleted(key, sequence.get()))
                    }
                };
                match pushed {
                    Ok(false) => ControlFlow::Continue(()),
                    Ok(true) => ControlFlow::Break(()),
                    Err(error) => {
                        failure = Some(CheckpointError::of(&error));
                        ControlFlow::Break(())
                    }
                }
            });
            if state == WalkState::Done {
                table.partition.thaw();
            }
            state
        });
        self.spent.clear();
        let mut full = false;
        for aside in self.aside.drain(..) {
            let Ok(value) = aside.value.decode() else {
                shared.note_damage(&aside.key, walk.found_by);
                failure = Some(CheckpointError::Damaged);
                break;
            };
            match self.builder.push(aside.entry_ref(&value)) {
                Ok(now_full) => full |= now_full,
                Err(error) => failure = Some(CheckpointError::of(&error)),
            }
        }
        if let Some(failure) = failure {
            *self.walk.failure.lock() = Some(failure);
            self.walk.stop.store(true, Ordering::Release);
        }
        if full || self.builder.len() >= snapshot::Options::default().block_bytes {
            self.hand_over(shared);
        }
        if state == WalkState::Done {
            self.next += 1;
        }
    }

    /// The current partition's way back to normal when the snapshot is given up.
    fn thaw_one(&mut self, shared: &Shared) {
        if self.next == self.end {
            self.finish(shared);
            return;
        }
        shared.partitions.with(self.next, |table| {
            if !self.walk.ended.load(Ordering::SeqCst) {
                table.epoch = self.walk.epoch;
                table.partition.thaw();
            }
        });
        self.next += 1;
    }

    fn hand_over(&mut self, shared: &Shared) {
        if !self.builder.is_empty() {
            let block = self.builder.take();
            self.walk.blocks.lock().push_back((self.part, block));
            shared.checkpointer.poke();
        }
    }

    fn finish(&mut self, shared: &Shared) {
        self.done = true;
        self.walk.lanes_left.fetch_sub(1, Ordering::AcqRel);
        shared.checkpointer.poke();
    }
}

/// Of an entry that is not coded.
fn entry_ref<'a>(entry: EntryView<'a>, key: &'a str) -> EntryRef<'a> {
    EntryRef {
        sequence: entry.sequence().get(),
        version: entry.version(),
        expires_at: entry.expires_at(),
        pinned: entry.is_pinned(),
        value_crc: entry.crc(),
        tombstone: false,
        media_type: entry.media_type(),
        key,
        value: entry.stored(),
    }
}

impl Aside {
    fn of(entry: EntryView<'_>, codings: &Codings) -> Self {
        Self {
            key: codings.key_of(entry, &mut String::new()).to_owned(),
            media_type: entry.media_type().map(str::to_owned),
            value: StoredValue::of(entry, codings),
            sequence: entry.sequence().get(),
            version: entry.version(),
            expires_at: entry.expires_at(),
            pinned: entry.is_pinned(),
            crc: entry.crc(),
        }
    }

    fn entry_ref<'a>(&'a self, value: &'a [u8]) -> EntryRef<'a> {
        EntryRef {
            sequence: self.sequence,
            version: self.version,
            expires_at: self.expires_at,
            pinned: self.pinned,
            value_crc: self.crc,
            tombstone: false,
            media_type: self.media_type.as_deref(),
            key: &self.key,
            value,
        }
    }
}
