//! One sync for many: the high watermark, who waits for it, and whether the log takes records at all.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::error::{Refusal, WaitError};
use crate::format::Lsn;
use crate::status::State;

const OPEN: u8 = 0;
const DISK_FULL: u8 = 1;
const CLOSED: u8 = 2;

/// What the writer tells, and what it is asked for.
pub(crate) struct Progress {
    /// One of the three above. Once closed it stays closed.
    gate: AtomicU8,
    /// Why the log is closed; set before the gate says so.
    reason: OnceLock<Arc<str>>,
    written: AtomicU64,
    high_watermark: AtomicU64,
    sync_wanted: AtomicU64,
    roll: AtomicBool,
    stop: AtomicBool,
    wakers: Vec<Mutex<Option<Waker>>>,
    /// Threads in `wait_durable`. Nobody is signalled while there are none: a signal is a system call.
    waiters: Mutex<usize>,
    moved: Condvar,
}

impl Progress {
    /// Everything up to `durable` is on stable storage.
    pub(crate) fn new(durable: Lsn, lanes: usize) -> Progress {
        Progress {
            gate: AtomicU8::new(OPEN),
            reason: OnceLock::new(),
            written: AtomicU64::new(durable.get()),
            high_watermark: AtomicU64::new(durable.get()),
            sync_wanted: AtomicU64::new(0),
            roll: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            wakers: (0..lanes).map(|_| Mutex::new(None)).collect(),
            waiters: Mutex::new(0),
            moved: Condvar::new(),
        }
    }

    #[inline]
    pub(crate) fn admit(&self) -> Result<(), Refusal> {
        match self.gate.load(Ordering::Acquire) {
            OPEN => Ok(()),
            DISK_FULL => Err(Refusal::DiskFull),
            _ => Err(Refusal::Closed {
                reason: self.reason(),
            }),
        }
    }

    pub(crate) fn state(&self) -> State {
        match self.gate.load(Ordering::Acquire) {
            OPEN => State::Open,
            DISK_FULL => State::DiskFull,
            _ => State::Closed {
                reason: self.reason(),
            },
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.gate.load(Ordering::Acquire) == CLOSED
    }

    pub(crate) fn reason(&self) -> Arc<str> {
        self.reason
            .get()
            .cloned()
            .unwrap_or_else(|| Arc::from("closed"))
    }

    /// Ends the log. The first reason stays.
    pub(crate) fn close(&self, reason: &str) {
        let _ = self.reason.set(Arc::from(reason));
        self.gate.store(CLOSED, Ordering::Release);
        self.wake_all();
    }

    /// Says whether there is room on the disk; tells everybody if that is news.
    pub(crate) fn set_disk_full(&self, full: bool) {
        let (from, to) = if full {
            (OPEN, DISK_FULL)
        } else {
            (DISK_FULL, OPEN)
        };
        let changed = self
            .gate
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if changed {
            self.wake_all();
        }
    }

    pub(crate) fn written(&self) -> Lsn {
        Lsn::new(self.written.load(Ordering::Acquire))
    }

    pub(crate) fn set_written(&self, lsn: Lsn) {
        self.written.store(lsn.get(), Ordering::Release);
    }

    #[inline]
    pub(crate) fn high_watermark(&self) -> Lsn {
        Lsn::new(self.high_watermark.load(Ordering::Acquire))
    }

    pub(crate) fn set_high_watermark(&self, lsn: Lsn) {
        if lsn > self.high_watermark() {
            self.high_watermark.store(lsn.get(), Ordering::Release);
            self.wake_all();
        }
    }

    /// Leaves a waker that is used once. The caller looks at the state again afterwards: whoever changed it before
    /// the waker was there did not see it, and the lock makes that change visible to the caller.
    pub(crate) fn on_progress(&self, lane: usize, waker: Waker) {
        let old = lock(&self.wakers[lane]).replace(waker);
        drop(old);
    }

    fn wake_all(&self) {
        for slot in &self.wakers {
            let waker = lock(slot).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        // Taking the lock, even to find nobody, orders this after the last look of a thread about to wait.
        if *lock(&self.waiters) > 0 {
            self.moved.notify_all();
        }
    }

    pub(crate) fn wait_durable(&self, lsn: Lsn, timeout: Duration) -> Result<(), WaitError> {
        let deadline = Instant::now().checked_add(timeout);
        let mut waiters = lock(&self.waiters);
        *waiters += 1;
        let result = loop {
            if self.high_watermark() >= lsn {
                break Ok(());
            }
            if self.is_closed() {
                break Err(WaitError::Closed {
                    reason: self.reason(),
                });
            }
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                // Beyond what the clock can say is for ever.
                None => Duration::from_secs(3600),
            };
            if left.is_zero() {
                break Err(WaitError::Timeout {
                    lsn,
                    high_watermark: self.high_watermark(),
                });
            }
            waiters = self
                .moved
                .wait_timeout(waiters, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        };
        *waiters -= 1;
        result
    }

    pub(crate) fn want_sync(&self, lsn: Lsn) {
        self.sync_wanted.fetch_max(lsn.get(), Ordering::SeqCst);
    }

    /// Whether somebody wants more on stable storage than there is.
    pub(crate) fn is_sync_wanted(&self) -> bool {
        self.sync_wanted.load(Ordering::SeqCst) > self.high_watermark().get()
    }

    pub(crate) fn want_roll(&self) {
        self.roll.store(true, Ordering::SeqCst);
    }

    pub(crate) fn take_roll(&self) -> bool {
        self.roll.load(Ordering::SeqCst) && self.roll.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn want_stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_stop_wanted(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Whether the writer was asked for something that it could do now.
    pub(crate) fn has_requests(&self) -> bool {
        self.is_stop_wanted()
            || self.roll.load(Ordering::SeqCst)
            || (self.is_sync_wanted() && self.written() > self.high_watermark())
    }
}

/// How the writer's thread sleeps, and what wakes it. Appenders look at one byte that rarely changes; only the one
/// that finds the writer asleep pays for a system call.
#[derive(Default)]
pub(crate) struct Sleep {
    state: AtomicU8,
    thread: OnceLock<Thread>,
}

const AWAKE: u8 = 0;
/// Woken by a full lane or a request.
const GATHERING: u8 = 1;
/// Woken by any record.
const IDLE: u8 = 2;

impl Sleep {
    /// The calling thread is the writer from now on.
    pub(crate) fn adopt_current_thread(&self) {
        let _ = self.thread.set(std::thread::current());
    }

    /// A record was appended. Called after the lane's lock was released: the writer looks into the lanes after it
    /// said that it sleeps, so either it finds the record or this finds it asleep.
    #[inline]
    pub(crate) fn appended(&self, lane_is_full: bool) {
        match self.state.load(Ordering::Acquire) {
            AWAKE => {}
            GATHERING if !lane_is_full => {}
            _ => self.wake(),
        }
    }

    /// Wakes the writer if it sleeps.
    pub(crate) fn wake(&self) {
        if self.state.swap(AWAKE, Ordering::SeqCst) != AWAKE
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Sleeps until a full lane, a request or `for_at_most`, unless `stay_awake` says so after others can see that it sleeps.
    pub(crate) fn gather(&self, for_at_most: Duration, stay_awake: impl FnOnce() -> bool) {
        self.sleep(GATHERING, Some(for_at_most), stay_awake);
    }

    /// Sleeps until any record, a request or `for_at_most`, unless `stay_awake` says so after others can see that it sleeps.
    pub(crate) fn idle(&self, for_at_most: Option<Duration>, stay_awake: impl FnOnce() -> bool) {
        self.sleep(IDLE, for_at_most, stay_awake);
    }

    fn sleep(&self, depth: u8, limit: Option<Duration>, stay_awake: impl FnOnce() -> bool) {
        self.state.store(depth, Ordering::SeqCst);
        if !stay_awake() {
            // Waking without a reason only costs a round that finds nothing.
            match limit {
                Some(limit) => std::thread::park_timeout(limit),
                None => std::thread::park(),
            }
        }
        self.state.store(AWAKE, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
