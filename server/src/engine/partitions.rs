//! Key to its partition, and the only lock of the store with its law.
//!
//! The law: a partition's lock is held for one decision and its application, never across an await, a system
//! call, or the allocation or release of a body, and a thread holds one at a time. Access is by closure, so a guard
//! cannot travel; debug builds assert that locks do not nest.

use super::coded::Codings;
use super::evict::Ranking;
use super::sequencer::{Epoch, Ticket};
use foldhash::quality::RandomState;
use inflightkv_compression::batch::Block;
use inflightkv_core::{Partition, Sequence, routing};
use inflightkv_eviction::TimerWheel;
use parking_lot::{Mutex, MutexGuard};
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// No timer is set.
pub(crate) const NEVER: u64 = u64::MAX;

/// What one lock guards.
pub(crate) struct Table {
    pub(crate) partition: Partition<RandomState>,
    /// Expiry timers by slot; every entry that expires has one.
    pub(crate) wheel: TimerWheel,
    /// The last snapshot epoch this partition knows of; see `sequencer`.
    pub(crate) epoch: Epoch,
    /// What it takes to read the values of this partition.
    pub(crate) codings: Codings,
    /// Whether the compressor has something to look at here.
    pub(crate) uneven: bool,
    /// Which entry goes first for memory.
    pub(crate) ranking: Ranking,
    /// What `memory` was last told that this partition holds.
    pub(crate) reported: u64,
}

impl Table {
    fn new(hasher: &RandomState) -> Self {
        Self {
            partition: Partition::new(hasher.clone()),
            wheel: TimerWheel::new(),
            epoch: 0,
            codings: Codings::default(),
            uneven: false,
            ranking: Ranking::default(),
            reported: 0,
        }
    }
}

// A cell has its cache line to itself: neighbours are locked from other cores.
#[repr(align(64))]
struct Cell {
    table: Mutex<Table>,
    /// A lower bound of the earliest timer, readable without the lock.
    next_due: AtomicU64,
}

/// Where a key lives: found before any lock is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) partition: usize,
    /// The key's hash in the partition's table, seeded anew by every process.
    pub(crate) hash: u64,
}

pub(crate) struct Partitions {
    cells: Box<[Cell]>,
    log2: u32,
    lanes: usize,
    hasher: RandomState,
    lock_waits: AtomicU64,
    lock_wait_nanos: AtomicU64,
    /// Most of some block is holes now, and the compressor was not told.
    sparse: AtomicBool,
}

impl Partitions {
    /// `count` partitions, a power of two, spread over `lanes` home loops.
    pub(crate) fn new(count: usize, lanes: usize) -> Self {
        assert!(
            count.is_power_of_two(),
            "the number of partitions, {count}, is a power of two"
        );
        Self::with_hasher(count, lanes, RandomState::default())
    }

    fn with_hasher(count: usize, lanes: usize, hasher: RandomState) -> Self {
        let cells = (0..count)
            .map(|_| Cell {
                table: Mutex::new(Table::new(&hasher)),
                next_due: AtomicU64::new(NEVER),
            })
            .collect();
        Self {
            cells,
            log2: count.trailing_zeros(),
            lanes,
            hasher,
            lock_waits: AtomicU64::new(0),
            lock_wait_nanos: AtomicU64::new(0),
            sparse: AtomicBool::new(false),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.cells.len()
    }

    pub(crate) fn place(&self, key: &str) -> Place {
        Place {
            partition: routing::partition_of(routing::route(key.as_bytes()), self.log2),
            hash: self.hasher.hash_one(key.as_bytes()),
        }
    }

    /// The loop on which the timers and background slices of `partition` run.
    pub(crate) fn home_of(&self, partition: usize) -> usize {
        // The inverse of `homed_at`: the largest lane whose range begins at or below the partition.
        ((partition + 1) * self.lanes - 1) / self.count()
    }

    /// The partitions whose home is `lane`: neighbours, so that a snapshot's parts are written in order.
    pub(crate) fn homed_at(&self, lane: usize) -> Range<usize> {
        (lane * self.count() / self.lanes)..((lane + 1) * self.count() / self.lanes)
    }

    /// Runs `access` under the lock of `partition`. See the law above for what it may do.
    pub(crate) fn with<T>(&self, partition: usize, access: impl FnOnce(&mut Table) -> T) -> T {
        #[cfg(debug_assertions)]
        let _nesting = nesting::enter();
        let table = &self.cells[partition].table;
        let mut guard = match table.try_lock() {
            Some(guard) => guard,
            None => self.wait_for(table),
        };
        let answer = access(&mut guard);
        if guard.partition.has_left() {
            let emptied = self.take_out(&mut guard);
            drop(guard);
            drop(emptied);
        }
        answer
    }

    /// Notes the holes that entries left which this hold of the lock replaced or removed: here, so that nobody who does
    /// so can forget it. Blocks that are empty now are handed out, to be released outside the lock.
    #[cold]
    fn take_out(&self, table: &mut Table) -> Vec<Arc<Block>> {
        let before = table.codings.blocks.totals().sparse;
        let emptied = table.codings.take_out(table.partition.take_left());
        if table.codings.blocks.totals().sparse > before {
            table.uneven = true;
            self.sparse.store(true, Ordering::Release);
        }
        emptied
    }

    /// Whether the compressor is to be told of blocks that are mostly holes now; says so once.
    pub(crate) fn take_sparse(&self) -> bool {
        self.sparse.load(Ordering::Relaxed) && self.sparse.swap(false, Ordering::AcqRel)
    }

    #[cold]
    fn wait_for<'a>(&self, table: &'a Mutex<Table>) -> MutexGuard<'a, Table> {
        let begun = Instant::now();
        let guard = table.lock();
        let waited = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.lock_waits.fetch_add(1, Ordering::Relaxed);
        self.lock_wait_nanos.fetch_add(waited, Ordering::Relaxed);
        guard
    }

    /// How often a partition's lock was taken by somebody else, and for how many nanoseconds that was waited.
    pub(crate) fn lock_waits(&self) -> (u64, u64) {
        (
            self.lock_waits.load(Ordering::Relaxed),
            self.lock_wait_nanos.load(Ordering::Relaxed),
        )
    }

    /// As many empty partitions, in which keys have the same places.
    pub(crate) fn empty(&self) -> Self {
        Self::with_hasher(self.count(), self.lanes, self.hasher.clone())
    }

    /// Runs `moment` while every partition's lock is held, so that nobody is between a change's number and its record.
    /// As short as [`exchange`](Self::exchange), and the other exception from the law.
    pub(crate) fn hold_all<T>(&self, moment: impl FnOnce() -> T) -> T {
        #[cfg(debug_assertions)]
        let _nesting = nesting::enter();
        let mut guards = Vec::with_capacity(self.cells.len());
        guards.extend(self.cells.iter().map(|cell| cell.table.lock()));
        let outcome = moment();
        drop(guards);
        outcome
    }

    /// Exchanges all tables for those of `other`, which [`empty`](Self::empty) made, in one moment: the one exception from
    /// the law that one lock is held at a time. Every lock is held while `cut` draws its number and pointers change places:
    /// some ten microseconds for the usual number of partitions, milliseconds for 65,536. Nobody else holds two locks, so
    /// there is no order to violate. Nothing is exchanged when `cut` draws none.
    pub(crate) fn exchange(
        &self,
        other: &mut Self,
        cut: impl FnOnce() -> Option<Ticket>,
    ) -> Option<Sequence> {
        #[cfg(debug_assertions)]
        let _nesting = nesting::enter();
        let mut guards = Vec::with_capacity(self.cells.len());
        guards.extend(self.cells.iter().map(|cell| cell.table.lock()));
        let ticket = cut()?;
        for ((guard, cell), new) in guards.iter_mut().zip(&self.cells).zip(&mut other.cells) {
            let table = new.table.get_mut();
            table.epoch = ticket.epoch;
            // What was said to be held is corrected when the partition next says what it holds.
            table.reported = guard.reported;
            std::mem::swap(&mut **guard, table);
            cell.next_due
                .store(guard.wheel.next_due().unwrap_or(NEVER), Ordering::SeqCst);
        }
        drop(guards);
        Some(ticket.sequence)
    }

    /// Empties every partition: what was loaded turned out to be damaged.
    pub(crate) fn clear(&self) {
        for (partition, cell) in self.cells.iter().enumerate() {
            let empty = Table::new(&self.hasher);
            let loaded = self.with(partition, |table| {
                let loaded = std::mem::replace(table, empty);
                // What was said to be held is corrected when the partition next says what it holds.
                table.reported = loaded.reported;
                loaded
            });
            cell.next_due.store(NEVER, Ordering::SeqCst);
            drop(loaded);
        }
    }

    /// The earliest timer of `partition`, or [`NEVER`]; may be earlier than the truth, never later.
    pub(crate) fn next_due(&self, partition: usize) -> u64 {
        self.cells[partition].next_due.load(Ordering::SeqCst)
    }

    /// Publishes the wheel's next instant. Called under the partition's lock.
    pub(crate) fn publish_due(&self, partition: usize, table: &Table) {
        self.cells[partition]
            .next_due
            .store(table.wheel.next_due().unwrap_or(NEVER), Ordering::SeqCst);
    }
}

#[cfg(debug_assertions)]
mod nesting {
    use std::cell::Cell;

    thread_local!(static HELD: Cell<bool> = const { Cell::new(false) });

    pub(super) struct Held;

    pub(super) fn enter() -> Held {
        assert!(
            !HELD.replace(true),
            "a thread holds one partition's lock at a time"
        );
        Held
    }

    impl Drop for Held {
        fn drop(&mut self) {
            HELD.set(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_one_home_and_homes_are_ranges() {
        for lanes in 1..=9 {
            for log2 in 0..8 {
                let partitions = Partitions::new(1 << log2, lanes);
                let mut seen = 0;
                for lane in 0..lanes {
                    for partition in partitions.homed_at(lane) {
                        assert_eq!(
                            partitions.home_of(partition),
                            lane,
                            "{lanes} lanes, partition {partition}"
                        );
                        assert_eq!(partition, seen);
                        seen += 1;
                    }
                }
                assert_eq!(seen, partitions.count());
            }
        }
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "one partition's lock at a time")]
    fn nested_locks_are_refused() {
        let partitions = Partitions::new(2, 1);
        partitions.with(0, |_| partitions.with(1, |_| ()));
    }
}
