//! Background work of a loop's own partitions, a slice at a time: expiry, and the walk of a snapshot.
//!
//! A lane's driver (a task of its event loop, or a thread in an embedded store) calls [`Lane::home_turn`] until it
//! says to sleep, and again when the instant it named has come or [`Lane::poll_home`] resolves. A lane with nothing to
//! do is never woken.

use super::checkpoint::Walker;
use super::partitions::NEVER;
use super::{Lane, Shared};
use inflightkv_core::{Entry, Slot};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The longest a turn works before it lets requests through.
const SLICE: Duration = Duration::from_micros(200);
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

/// One lane's background state.
pub(crate) struct Home {
    waker: Mutex<Option<Waker>>,
    signalled: AtomicBool,
    /// When the driver wakes by itself; 0 while it is awake, so that nobody signals a driver that looks anyway.
    planned: AtomicU64,
    /// Held by the driver alone.
    pub(crate) walker: Mutex<Option<Walker>>,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            waker: Mutex::new(None),
            signalled: AtomicBool::new(false),
            planned: AtomicU64::new(0),
            walker: Mutex::new(None),
        }
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

    /// Reclaims what has expired; true when the slice ended before the work did.
    fn expire_due(&self, now: u64, started: Instant, slice: Duration) -> bool {
        let partitions = &self.shared.partitions;
        // Released outside the locks, and reused from partition to partition.
        let mut spent: Vec<Entry> = Vec::new();
        for partition in partitions.homed_at(self.index) {
            while partitions.next_due(partition) <= now {
                let (mut expired, mut lag) = (0, 0);
                let more = partitions.with(partition, |table| {
                    let (store, wheel) = (&mut table.partition, &mut table.wheel);
                    let more = wheel.expire(now, EXPIRE_BATCH, |slot| {
                        if let Some(reclaimed) = store.expire(Slot::new(slot), now) {
                            expired += 1;
                            lag = lag.max(now.saturating_sub(reclaimed.expired_at));
                            spent.extend(reclaimed.spent);
                        }
                    });
                    partitions.publish_due(partition, table);
                    more
                });
                spent.clear();
                let counters = &self.shared.counters;
                counters.expired.fetch_add(expired, Ordering::Relaxed);
                counters.expiry_lag_max_ms.fetch_max(lag, Ordering::Relaxed);
                if started.elapsed() >= slice {
                    return true;
                }
                if !more {
                    break;
                }
            }
        }
        false
    }
}
