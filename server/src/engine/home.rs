//! Background work of a loop's own partitions, a slice at a time: expiry, and the walk of a snapshot.
//!
//! A lane's driver (a task of its event loop, or a thread in an embedded store) calls [`Lane::home_turn`] until it
//! says to sleep, and again when the instant it named has come or [`Lane::poll_home`] resolves. A lane with nothing to
//! do is never woken.

use super::checkpoint::Walker;
use super::evict::Adoption;
use super::partitions::NEVER;
use super::{Lane, Shared};
use inflightkv_core::{Entry, Slot};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The longest a turn works before it lets requests through.
pub(super) const SLICE: Duration = Duration::from_micros(200);
/// Timers handled under one hold of a partition's lock.
const EXPIRE_BATCH: usize = 64;
/// Timers that fall due within this many milliseconds of each other share a wake-up.
const COALESCE_MS: u64 = 10;

/// What a lane's driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HomeTurn {
    /// Let requests through, then come back.
    More,
    /// Nothing to do before `until` (milliseconds since the epoch), or before being woken.
    Sleep {
        /// When the next timer is due.
        until: Option<u64>,
    },
}

/// One lane's background state. Lanes count on their own, so each has its cache lines to itself.
#[repr(align(128))]
pub(crate) struct Home {
    waker: Mutex<Option<Waker>>,
    signalled: AtomicBool,
    /// When the driver wakes by itself; 0 while it is awake, so that nobody signals a driver that looks anyway.
    planned: AtomicU64,
    /// Held by the driver alone.
    pub(crate) walker: Mutex<Option<Walker>>,
    /// Held by the driver alone.
    adoption: Mutex<Adoption>,
    /// Which of the lane's partitions is the first to expire keys of in the next turn.
    expire_from: AtomicUsize,
    /// Bytes to evict.
    owed: AtomicU64,
    /// Nothing was left to evict when it was last tried.
    poor: AtomicBool,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            waker: Mutex::new(None),
            signalled: AtomicBool::new(false),
            planned: AtomicU64::new(0),
            walker: Mutex::new(None),
            adoption: Mutex::default(),
            expire_from: AtomicUsize::new(0),
            owed: AtomicU64::new(0),
            poor: AtomicBool::new(false),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// A read found something, or did not.
    pub(crate) fn count_read(&self, found: bool) {
        let counter = if found { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads that found something, and those that did not.
    pub(crate) fn reads(&self) -> (u64, u64) {
        (
            self.hits.load(Ordering::Relaxed),
            self.misses.load(Ordering::Relaxed),
        )
    }

    /// Has the lane evict so many bytes, in place of what it was told before; false when it had nothing left when it last
    /// tried, and that is tried again only when it was not asked in a row.
    pub(crate) fn owe(&self, bytes: u64) -> bool {
        self.owed.store(bytes, Ordering::SeqCst);
        let able = !self.poor.swap(false, Ordering::SeqCst);
        if bytes > 0 && able {
            self.signal();
        }
        able && bytes > 0
    }

    pub(crate) fn owes(&self) -> u64 {
        self.owed.load(Ordering::SeqCst)
    }

    pub(crate) fn pay(&self, bytes: u64) {
        let _ = self
            .owed
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |owed| {
                Some(owed.saturating_sub(bytes))
            });
    }

    pub(crate) fn cannot_pay(&self) {
        self.owed.store(0, Ordering::SeqCst);
        self.poor.store(true, Ordering::SeqCst);
    }

    /// Wakes the driver: there is work.
    pub(crate) fn signal(&self) {
        self.signalled.store(true, Ordering::SeqCst);
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A timer was set for `due`: wakes the driver if it would sleep past it.
    pub(crate) fn timer_set(&self, due: u64) {
        if due < self.planned.load(Ordering::SeqCst) {
            self.signal();
        }
    }
}

impl Lane {
    /// Does a slice of this lane's background work. Called by one driver at a time.
    pub fn home_turn(&self) -> HomeTurn {
        self.home_turn_for(SLICE)
    }

    /// A turn that looks up from its work after `slice`: at [`Duration::ZERO`] it takes the smallest steps there are,
    /// the same on every machine.
    pub(super) fn home_turn_for(&self, slice: Duration) -> HomeTurn {
        let shared: &Arc<Shared> = &self.shared;
        let home = &shared.homes[self.index];
        home.planned.store(0, Ordering::SeqCst);
        home.signalled.store(false, Ordering::SeqCst);
        let started = Instant::now();
        let now = self.now();
        if self.expire_due(now, started, slice) {
            return HomeTurn::More;
        }
        let over = || started.elapsed() >= slice;
        if self.evict_owed(now, started, slice) || self.adopt(&mut home.adoption.lock(), now, over)
        {
            return HomeTurn::More;
        }
        if shared
            .checkpointer
            .walk(shared, self.index, &mut home.walker.lock(), || {
                started.elapsed() >= slice
            })
        {
            return HomeTurn::More;
        }
        // Announce the instant first, look second: a timer set in between either sees the plan or is seen here.
        let due = self.earliest_due();
        let wake_at = if due == NEVER {
            NEVER
        } else {
            due.max(now).next_multiple_of(COALESCE_MS)
        };
        home.planned.store(wake_at, Ordering::SeqCst);
        if self.earliest_due() < due || home.signalled.load(Ordering::SeqCst) {
            home.planned.store(0, Ordering::SeqCst);
            return HomeTurn::More;
        }
        HomeTurn::Sleep {
            until: (wake_at != NEVER).then_some(wake_at),
        }
    }

    /// Ready when there is background work for this lane; otherwise wakes `context` when there is.
    pub fn poll_home(&self, context: &mut Context<'_>) -> Poll<()> {
        let home = &self.shared.homes[self.index];
        {
            let mut waker = home.waker.lock();
            if !waker
                .as_ref()
                .is_some_and(|known| known.will_wake(context.waker()))
            {
                *waker = Some(context.waker().clone());
            }
        }
        if home.signalled.load(Ordering::SeqCst) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn earliest_due(&self) -> u64 {
        let partitions = &self.shared.partitions;
        partitions
            .homed_at(self.index)
            .map(|partition| partitions.next_due(partition))
            .min()
            .unwrap_or(NEVER)
    }

    /// Reclaims what has expired; true when the slice ended before the work did. Partitions take turns, so that a storm in
    /// one does not hold up the others.
    fn expire_due(&self, now: u64, started: Instant, slice: Duration) -> bool {
        let partitions = &self.shared.partitions;
        let homed = partitions.homed_at(self.index);
        let first = &self.shared.homes[self.index].expire_from;
        // Released outside the locks, and reused from partition to partition.
        let mut spent: Vec<Entry> = Vec::new();
        loop {
            let mut more = false;
            let begin = first.load(Ordering::Relaxed);
            for step in 0..homed.len() {
                let turn = (begin + step) % homed.len();
                let partition = homed.start + turn;
                let due = partitions.next_due(partition);
                if due > now || due == NEVER {
                    continue;
                }
                more |= self.expire_batch(partition, now, &mut spent);
                if started.elapsed() >= slice {
                    first.store((turn + 1) % homed.len(), Ordering::Relaxed);
                    return true;
                }
            }
            if !more {
                return false;
            }
        }
    }

    /// Reclaims some of what has expired in `partition`; true when more has.
    fn expire_batch(&self, partition: usize, now: u64, spent: &mut Vec<Entry>) -> bool {
        let partitions = &self.shared.partitions;
        let counters = &self.shared.counters;
        let mut expired = 0;
        let more = partitions.with(partition, |table| {
            let (store, wheel) = (&mut table.partition, &mut table.wheel);
            let ranking = &mut table.ranking;
            let more = wheel.expire(now, EXPIRE_BATCH, |slot| {
                let slot = Slot::new(slot);
                if let Some(reclaimed) = store.expire(slot, now) {
                    expired += 1;
                    counters
                        .expiry_lag
                        .count(now.saturating_sub(reclaimed.expired_at));
                    spent.extend(reclaimed.spent);
                    ranking.left(slot);
                }
            });
            partitions.publish_due(partition, table);
            self.shared.meter.account(table, false);
            more
        });
        counters.expired.fetch_add(expired, Ordering::Relaxed);
        spent.clear();
        self.shared.note_sparse();
        more
    }
}
