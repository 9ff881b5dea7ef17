//! Whether an event loop is behind: how long what is ready to go on waits for its turn.
//!
//! A probe is a task that is woken like any connection and takes its place behind those that are ready; how long it waits is how
//! long they wait. One is sent with a request now and then, never on its own: idle costs nothing. The rule is that of CoDel
//! (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012): a queue that is long for a moment is a burst, one
//! whose shortest delay stays above the target is too much work, and then part of it is better refused at once than late.

use std::cell::Cell;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Probes are sent no closer than this.
const PROBE_EVERY: Duration = Duration::from_millis(5);
/// How long the delay has to stay above its target.
const INTERVAL: Duration = Duration::from_millis(100);
/// What was found out this long ago says nothing any more.
const STALE: Duration = Duration::from_secs(1);

/// One loop's delay. Its [`probe`](Self::probe) has to run as a task of that loop.
#[derive(Debug)]
pub(crate) struct Overload {
    target: Duration,
    /// When the probe on its way was sent.
    sent: Cell<Option<Instant>>,
    wake: Notify,
    judge: Cell<Judge>,
}

/// What the delays so far say.
#[derive(Clone, Copy, Debug, Default)]
struct Judge {
    last: Option<Instant>,
    above_since: Option<Instant>,
    sheds: bool,
}

impl Overload {
    pub(crate) fn new(target: Duration) -> Self {
        Self {
            target,
            sent: Cell::new(None),
            wake: Notify::new(),
            judge: Cell::default(),
        }
    }

    /// A request begins: whether it is better refused.
    pub(crate) fn sheds(&self, now: Instant) -> bool {
        let judge = self.judge.get();
        let since_last = judge.last.map(|last| now.saturating_duration_since(last));
        let waits = self.sent.get().is_some();
        if !waits && since_last.is_none_or(|since| since >= PROBE_EVERY) {
            self.sent.set(Some(now));
            self.wake.notify_one();
        }
        judge.sheds && (waits || since_last.is_some_and(|since| since < STALE))
    }

    /// Measures whenever a probe is sent, for the life of the loop.
    pub(crate) async fn probe(&self) {
        loop {
            self.wake.notified().await;
            if let Some(sent) = self.sent.take() {
                self.judge
                    .set(self.judge.get().with(sent, Instant::now(), self.target));
            }
        }
    }
}

impl Judge {
    /// A probe that was sent at `sent` had its turn at `now`.
    fn with(self, sent: Instant, now: Instant, target: Duration) -> Self {
        // From one probe's turn to the next one's sending: a long delay is no pause between them.
        let fresh = self
            .last
            .is_some_and(|last| sent.saturating_duration_since(last) < STALE);
        let above = now.saturating_duration_since(sent) > target;
        let above_since = match self.above_since {
            _ if !above => None,
            Some(since) if fresh => Some(since),
            _ => Some(now),
        };
        Self {
            last: Some(now),
            above_since,
            sheds: above_since
                .is_some_and(|since| now.saturating_duration_since(since) >= INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(50);

    /// Probes that begin and end at these milliseconds; whether the loop sheds after each.
    fn after(probes: &[(u64, u64)]) -> Vec<bool> {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut judge = Judge::default();
        probes
            .iter()
            .map(|(sent, arrived)| {
                judge = judge.with(at(*sent), at(*arrived), TARGET);
                judge.sheds
            })
            .collect()
    }

    #[test]
    fn only_a_delay_that_stays_is_too_much() {
        assert_eq!(after(&[(0, 1), (5, 6), (10, 60)]), [false; 3]);
        // A burst: above the target, and below again in time.
        assert_eq!(after(&[(0, 60), (60, 130), (130, 140)]), [false; 3]);
        // However long one pause is, it is one.
        assert_eq!(after(&[(0, 900), (900, 901)]), [false; 2]);
        // It stays.
        assert_eq!(
            after(&[(0, 60), (60, 130), (130, 200)]),
            [false, false, true]
        );
        // And is over with the first short one.
        assert_eq!(
            after(&[(0, 60), (60, 130), (130, 200), (200, 201)]),
            [false, false, true, false]
        );
        // However long the delays themselves are.
        assert_eq!(after(&[(0, 3_000), (3_005, 6_000)]), [false, true]);
        // Two pauses far apart are not one long delay.
        assert_eq!(after(&[(0, 60), (5_000, 5_060)]), [false; 2]);
    }

    #[test]
    fn what_was_found_out_long_ago_says_nothing() {
        let overload = Overload::new(TARGET);
        let now = Instant::now();
        overload.judge.set(Judge {
            last: Some(now),
            above_since: Some(now),
            sheds: true,
        });
        assert!(overload.sheds(now));
        assert!(!overload.sheds(now + STALE));
    }
}
