//! The bound on memory: what is used, counted to the byte, and the monitor that decides what has to go.
//!
//! Every partition knows its bytes. With a limit set, it reports changes to one counter in steps, so that writers rarely
//! meet there; the monitor's thread sums the partitions exactly, adds what waits for the disk and the request bodies on
//! their way in, and tells each home lane how many bytes to evict (`evict`). It sleeps until somebody crosses the high
//! mark. What a snapshot in progress keeps alive is shown but not evicted for: evicting more would only keep more.

use super::partitions::Table;
use super::{Engine, Memory, Shared};
use inflightkv_eviction::{Budget, PolicyKind};
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// How often the monitor looks while there is something to evict.
const PRESSED: Duration = Duration::from_millis(10);
/// A partition reports changes of this share of the limit divided by the number of partitions, within bounds.
const GRAIN_SHARE: u64 = 64;
const GRAIN_MIN: u64 = 256;
const GRAIN_MAX: u64 = 64 << 10;
/// Tombstones may take this share of the limit before the next snapshot is made a full one, which needs none.
const TOMBSTONE_SHARE: u64 = 16;
/// Room is kept for so many of the largest values written lately.
const LARGE_WRITES: u64 = 4;

/// What is used, what is allowed, and who is told.
pub(crate) struct Meter {
    settings: Mutex<Memory>,
    /// The limit; [`u64::MAX`] for none.
    limit: AtomicU64,
    high: AtomicU64,
    grain: AtomicU64,
    /// Whether anything can be evicted to make room.
    evicts: AtomicBool,
    /// Sum of what the partitions reported; a little behind.
    used: AtomicI64,
    /// The largest write lately, for the room kept below the limit.
    largest: AtomicU64,
    /// The monitor will look anyway, or was told to.
    asked: AtomicBool,
    poked: Mutex<bool>,
    wake: Condvar,
    stopping: AtomicBool,
    pub(super) figures: Figures,
}

/// What eviction did.
#[derive(Default)]
pub(super) struct Figures {
    /// By [`Reason`].
    pub(super) victims: [AtomicU64; 3],
    pub(super) victim_bytes: [AtomicU64; 3],
    pub(super) refused: AtomicU64,
}

/// Who evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A home lane, because the monitor said so.
    Background,
    /// A write that found no room.
    Inline,
    /// A person.
    Request,
}

impl Figures {
    pub(super) fn count(&self, reason: Reason, bytes: u64) {
        self.victims[reason as usize].fetch_add(1, Ordering::Relaxed);
        self.victim_bytes[reason as usize].fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What the monitor does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Look again after this time.
    Again(Duration),
    /// Sleep until poked.
    Sleep,
}

impl Meter {
    pub(crate) fn new(settings: Memory, partitions: usize) -> Self {
        let meter = Self {
            settings: Mutex::new(Memory::default()),
            limit: AtomicU64::new(u64::MAX),
            high: AtomicU64::new(u64::MAX),
            grain: AtomicU64::new(GRAIN_MAX),
            evicts: AtomicBool::new(false),
            used: AtomicI64::new(0),
            largest: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            poked: Mutex::new(false),
            wake: Condvar::new(),
            stopping: AtomicBool::new(false),
            figures: Figures::default(),
        };
        meter.set(settings, partitions);
        meter
    }

    fn set(&self, settings: Memory, partitions: usize) {
        *self.settings.lock() = settings;
        let limit = settings.bytes_max.unwrap_or(u64::MAX);
        let grain = limit / GRAIN_SHARE / partitions as u64;
        self.grain
            .store(grain.clamp(GRAIN_MIN, GRAIN_MAX), Ordering::Relaxed);
        self.evicts
            .store(settings.policy.is_some(), Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
        self.high.store(self.budget().high(), Ordering::Relaxed);
    }

    pub(crate) fn settings(&self) -> Memory {
        *self.settings.lock()
    }

    /// The policy that partitions are to have. Kept without a limit too: whoever sets one later finds it informed.
    pub(crate) fn policy(&self) -> Option<PolicyKind> {
        self.settings.lock().policy
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.limit() != u64::MAX
    }

    pub(crate) fn budget(&self) -> Budget {
        let largest = self.largest.load(Ordering::Relaxed);
        Budget::new(self.limit()).with_room(largest.saturating_mul(LARGE_WRITES))
    }

    /// Takes note of a write of so many bytes.
    pub(crate) fn note_write(&self, bytes: u64) {
        if bytes > self.largest.load(Ordering::Relaxed) {
            self.largest.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    /// Takes note of what a partition holds, under its lock. With `at_once` the last byte is reported.
    pub(crate) fn account(&self, table: &mut Table, at_once: bool) {
        if !self.is_limited() {
            return;
        }
        let bytes = table.bytes() as u64;
        let change = bytes.wrapping_sub(table.reported) as i64;
        let pressed = self.used_about() > self.high.load(Ordering::Relaxed);
        let grain = if at_once || pressed {
            1
        } else {
            self.grain.load(Ordering::Relaxed)
        };
        if change.unsigned_abs() < grain {
            return;
        }
        table.reported = bytes;
        let used = self.used.fetch_add(change, Ordering::Relaxed) + change;
        if change > 0 && used.max(0) as u64 > self.high.load(Ordering::Relaxed) {
            self.ask();
        }
    }

    /// About what the partitions hold.
    pub(crate) fn used_about(&self) -> u64 {
        self.used.load(Ordering::Relaxed).max(0) as u64
    }

    /// Wakes the monitor, unless it will look anyway.
    pub(crate) fn ask(&self) {
        if self.evicts.load(Ordering::Relaxed) && !self.asked.swap(true, Ordering::SeqCst) {
            self.poke();
        }
    }

    fn poke(&self) {
        *self.poked.lock() = true;
        self.wake.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.poke();
    }

    /// Drives the monitor on its own thread until the store is closed.
    pub(crate) fn run(shared: &Shared) {
        let meter = &shared.meter;
        while !meter.stopping.load(Ordering::SeqCst) {
            let watch = meter.turn(shared);
            let mut poked = meter.poked.lock();
            if !*poked {
                match watch {
                    Watch::Again(after) => _ = meter.wake.wait_for(&mut poked, after),
                    Watch::Sleep => meter.wake.wait(&mut poked),
                }
            }
            *poked = false;
        }
    }

    /// Sums up, and has the home lanes evict what is too much.
    pub(crate) fn turn(&self, shared: &Shared) -> Watch {
        // Cleared before the sum: who crosses the mark after it pokes.
        self.asked.store(false, Ordering::SeqCst);
        if !self.is_limited() || !shared.serves() {
            return Watch::Sleep;
        }
        let lanes = shared.homes.len();
        let mut by_lane = vec![0_u64; lanes];
        let mut tombstones = 0;
        for partition in 0..shared.partitions.count() {
            let (bytes, removed) = shared.partitions.with(partition, |table| {
                self.account(table, true);
                (table.reported, table.partition.stats().tombstone_bytes)
            });
            by_lane[shared.partitions.home_of(partition)] += bytes;
            tombstones += removed as u64;
        }
        let budget = self.budget();
        self.high.store(budget.high(), Ordering::Relaxed);
        let held: u64 = by_lane.iter().sum();
        let used = held + shared.transient_bytes();
        let excess = budget.excess(used);
        if tombstones > budget.limit() / TOMBSTONE_SHARE {
            shared.checkpointer.forgo_increments(shared);
        }
        if excess == 0 || !self.evicts.load(Ordering::Relaxed) {
            // A burst of large values is over at some time.
            let largest = self.largest.load(Ordering::Relaxed);
            self.largest.store(largest / 8 * 7, Ordering::Relaxed);
            return Watch::Sleep;
        }
        let mut able = false;
        for (lane, bytes) in by_lane.into_iter().enumerate() {
            let share = u128::from(excess) * u128::from(bytes) / u128::from(held.max(1));
            able |= shared.homes[lane].owe(share as u64);
        }
        if !able {
            // Nothing is left that may go: the next write that finds no room will say so.
            return Watch::Sleep;
        }
        self.asked.store(true, Ordering::SeqCst);
        Watch::Again(PRESSED)
    }
}

impl Shared {
    /// Reads so far.
    pub(super) fn reads(&self) -> u64 {
        let reads = self.homes.iter().map(super::home::Home::reads);
        reads.map(|(found, missed)| found + missed).sum()
    }

    /// Bytes that are not in partitions: what waits for the disk, request bodies on their way in, and dictionaries.
    pub(super) fn transient_bytes(&self) -> u64 {
        let queued = self.wal.get().map_or(0, inflightkv_wal::Wal::queued_about);
        let bodies = self.bodies.load(Ordering::Relaxed).max(0) as u64;
        queued + bodies + self.compressor.dictionary_bytes.load(Ordering::Relaxed)
    }
}

impl Engine {
    /// The bound on the data's memory.
    pub fn memory(&self) -> Memory {
        self.shared.meter.settings()
    }

    /// Changes the bound on the data's memory, or what goes when it is reached. A new policy starts with what is there, taken
    /// over in slices by the home lanes; what is too much goes in the background.
    pub fn set_memory(&self, memory: Memory) {
        let shared = &*self.shared;
        let before = shared.meter.settings();
        shared.meter.set(memory, shared.partitions.count());
        if before.bytes_max != memory.bytes_max {
            shared.advisor.begin(memory.bytes_max, shared.reads());
        }
        shared.adopt_policy();
        shared.meter.poke();
    }
}

impl super::Lane {
    /// Says that so many bytes more (or fewer, below 0) of request bodies are held that are not complete yet.
    pub fn note_body(&self, change: i64) {
        self.shared.bodies.fetch_add(change, Ordering::Relaxed);
    }
}
