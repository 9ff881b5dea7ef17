//! The store's clock: wall-clock milliseconds that neither jump nor run backwards while a process lives.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where the store takes the time from, in milliseconds since the Unix epoch.
///
/// Expiry instants are kept on disk in this measure, so it has to be close to wall-clock time; within one
/// process it must not go backwards.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> u64;
}

/// Wall-clock time read once, carried on by the monotonic clock.
///
/// A jump of the wall clock (an operator, a bad time server) therefore neither expires a key early nor keeps one
/// alive; a new process starts from the wall clock again.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
    origin_ms: u64,
}

impl SystemClock {
    /// A clock that agrees with the wall clock now.
    pub fn new() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            origin: Instant::now(),
            origin_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(0),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> u64 {
        let elapsed = self.origin.elapsed();
        self.origin_ms + elapsed.as_secs() * 1000 + u64::from(elapsed.subsec_millis())
    }
}

/// A clock that moves only when told to, for tests and simulations.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that stands at `now` milliseconds since the Unix epoch.
    pub fn new(now: u64) -> Self {
        Self(AtomicU64::new(now))
    }

    /// Sets the clock, also back.
    pub fn set(&self, now: u64) {
        self.0.store(now, Ordering::Relaxed);
    }

    /// Moves the clock on by `ms` milliseconds.
    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
