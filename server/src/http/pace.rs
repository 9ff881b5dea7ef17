//! A rate, kept: as many as a second allows at once, after that one by one.
//!
//! The generic cell rate algorithm (ITU-T recommendation I.371): all there is to remember is the instant at which the next one
//! would be due if they came evenly.

use std::sync::atomic::{AtomicU64, Ordering};

const SECOND: u64 = 1_000_000_000;

/// A rate that several threads may share.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Nanoseconds between two at the allowed rate.
    interval: u64,
    /// Nanoseconds on the caller's clock.
    due: AtomicU64,
}

impl Pace {
    /// `per_second` has to be 1 or more.
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            interval: SECOND / u64::from(per_second.max(1)),
            due: AtomicU64::new(0),
        }
    }

    /// Whether one more may come at `now`, in nanoseconds on a clock that only goes forward. If so it has come.
    pub(crate) fn allows(&self, now: u64) -> bool {
        let step = |due: u64| {
            let due = due.max(now);
            (due - now <= SECOND - self.interval).then_some(due + self.interval)
        };
        self.due
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
            .is_ok()
    }

    /// Whether it is as if none had come yet.
    pub(crate) fn is_rested(&self, now: u64) -> bool {
        self.due.load(Ordering::Relaxed) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(pace: &Pace, now: u64, tries: usize) -> usize {
        (0..tries).filter(|_| pace.allows(now)).count()
    }

    #[test]
    fn a_second_is_allowed_at_once_and_then_the_rate() {
        let pace = Pace::new(10);
        assert_eq!(allowed(&pace, 5, 100), 10);
        assert_eq!(allowed(&pace, 5 + SECOND / 10 - 1, 100), 0);
        assert_eq!(allowed(&pace, 5 + SECOND / 10, 100), 1);
        assert_eq!(allowed(&pace, 5 + SECOND / 2, 100), 4);
        assert!(!pace.is_rested(5 + SECOND / 2));
        // A long rest saves up no more than a second.
        assert!(pace.is_rested(100 * SECOND));
        assert_eq!(allowed(&pace, 100 * SECOND, 100), 10);
    }

    #[test]
    fn the_slowest_and_the_fastest() {
        let pace = Pace::new(1);
        assert_eq!(allowed(&pace, SECOND, 3), 1);
        assert_eq!(allowed(&pace, 2 * SECOND - 1, 3), 0);
        assert_eq!(allowed(&pace, 2 * SECOND, 3), 1);
        assert_eq!(allowed(&Pace::new(1_000_000), 0, 2_000_000), 1_000_000);
    }
}
