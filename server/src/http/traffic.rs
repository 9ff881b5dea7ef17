//! Requests and connections, counted by each event loop for itself and summed when somebody asks.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The counters of every event loop of a server.
#[derive(Debug, Default)]
pub struct Traffic {
    loops: Mutex<Vec<Arc<LoopTraffic>>>,
    /// Shared by all loops, because the limit is over all of them.
    open: AtomicUsize,
}

/// The counters of one event loop. Only that loop writes them; anybody may read.
#[derive(Debug, Default)]
pub(crate) struct LoopTraffic {
    requests: [AtomicU64; Surface::ALL.len()],
    classes: [AtomicU64; 6],
    accepted: AtomicU64,
    refused: AtomicU64,
}

/// Which of the two contracts a request speaks, for counting and for how a failure is rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    /// `/kv` and what belongs to it: failures are envelopes.
    Kv,
    /// `/v1` and everything else: failures are problem documents.
    V1,
    /// Health, the contract itself, and unknown paths: problem documents too.
    Other,
}

impl Surface {
    pub(crate) const ALL: [Self; 3] = [Self::Kv, Self::V1, Self::Other];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::V1 => "v1",
            Self::Other => "other",
        }
    }
}

/// A sum over all loops.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) requests: [u64; Surface::ALL.len()],
    /// Answers by the first digit of their status; index 0 stays empty.
    pub(crate) classes: [u64; 6],
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) open: usize,
}

impl Traffic {
    /// Counters for one more event loop.
    pub(crate) fn join(&self) -> Arc<LoopTraffic> {
        let counters = Arc::new(LoopTraffic::default());
        self.loops
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(counters.clone());
        counters
    }

    /// Takes a place among the open connections, unless `max` are taken.
    pub(crate) fn enter(&self, max: usize) -> bool {
        if self.open.fetch_add(1, Ordering::Relaxed) < max {
            return true;
        }
        self.leave();
        false
    }

    /// Gives the place back.
    pub(crate) fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals {
            open: self.open.load(Ordering::Relaxed),
            ..Totals::default()
        };
        for counters in self
            .loops
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            for (sum, count) in totals.requests.iter_mut().zip(&counters.requests) {
                *sum += count.load(Ordering::Relaxed);
            }
            for (sum, count) in totals.classes.iter_mut().zip(&counters.classes) {
                *sum += count.load(Ordering::Relaxed);
            }
            totals.accepted += counters.accepted.load(Ordering::Relaxed);
            totals.refused += counters.refused.load(Ordering::Relaxed);
        }
        totals
    }
}

impl LoopTraffic {
    pub(crate) fn answered(&self, surface: Surface, status: http::StatusCode) {
        bump(&self.requests[surface as usize]);
        let class = usize::from(status.as_u16() / 100).min(self.classes.len() - 1);
        bump(&self.classes[class]);
    }

    pub(crate) fn accepted(&self) {
        bump(&self.accepted);
    }

    pub(crate) fn refused(&self) {
        bump(&self.refused);
    }
}

/// One writer: a load and a store are enough, and cost less than a locked addition.
fn bump(counter: &AtomicU64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(1),
        Ordering::Relaxed,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_come_back() {
        let traffic = Traffic::default();
        assert!(traffic.enter(1));
        assert!(!traffic.enter(1));
        traffic.leave();
        assert!(traffic.enter(1));
        assert_eq!(traffic.totals().open, 1);
    }

    #[test]
    fn loops_are_summed() {
        let traffic = Traffic::default();
        let (first, second) = (traffic.join(), traffic.join());
        first.answered(Surface::Kv, http::StatusCode::OK);
        second.answered(Surface::Kv, http::StatusCode::NOT_FOUND);
        let totals = traffic.totals();
        assert_eq!(totals.requests, [2, 0, 0]);
        assert_eq!((totals.classes[2], totals.classes[4]), (1, 1));
    }
}
