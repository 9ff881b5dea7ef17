//! How busy the event loops are, and whether anything keeps one of them from its other work.

use super::hot::{HotKey, HotKeys};
use super::metrics::LoopFigures;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::RuntimeMetrics;

/// Whatever keeps a loop for so long keeps everybody else on it waiting.
const STALL: Duration = Duration::from_millis(5);
/// A stall of a loop is told of once in this time, with the number of those in between.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The event loops of a server, as they see themselves.
#[derive(Debug, Default)]
pub struct Loops {
    all: Mutex<Vec<Arc<LoopWatch>>>,
}

/// One event loop. Only that loop writes; anybody may read.
#[derive(Debug)]
pub struct LoopWatch {
    index: usize,
    runtime: RuntimeMetrics,
    turn_max_nanos: AtomicU64,
    slice_max_nanos: AtomicU64,
    stalls: AtomicU64,
    pub(crate) hot: HotKeys,
    /// Stalls that were told of, and when the last one was.
    told: Mutex<(u64, Option<Instant>)>,
}

impl Loops {
    /// The place where the loop `index`, which `runtime` tells of, keeps its figures.
    pub fn join(&self, index: usize, runtime: RuntimeMetrics) -> Arc<LoopWatch> {
        let watch = Arc::new(LoopWatch {
            index,
            runtime,
            turn_max_nanos: AtomicU64::new(0),
            slice_max_nanos: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            hot: HotKeys::default(),
            told: Mutex::default(),
        });
        self.all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(watch.clone());
        watch
    }

    /// The `limit` hottest keys, and how many requests they are out of.
    pub(crate) fn hottest(&self, limit: usize) -> (Vec<HotKey>, u64) {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        HotKeys::hottest(all.iter().map(|watch| &watch.hot), limit)
    }

    pub(crate) fn figures(&self) -> Vec<LoopFigures> {
        let mut figures: Vec<LoopFigures> = self
            .all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|watch| watch.figures())
            .collect();
        figures.sort_unstable_by_key(|figures| figures.index);
        figures
    }
}

impl LoopWatch {
    fn figures(&self) -> LoopFigures {
        let time = |nanos: &AtomicU64| Duration::from_nanos(nanos.load(Ordering::Relaxed));
        LoopFigures {
            index: self.index,
            // A loop is a runtime with one worker.
            busy: self.runtime.worker_total_busy_duration(0),
            longest_turn: time(&self.turn_max_nanos),
            longest_slice: time(&self.slice_max_nanos),
            stalls: self.stalls.load(Ordering::Relaxed),
        }
    }

    /// A connection's turn ended.
    pub fn turned(&self, took: Duration) {
        self.note(&self.turn_max_nanos, took, "requests of one connection");
    }

    /// A slice of background work ended.
    pub fn sliced(&self, took: Duration) {
        self.note(&self.slice_max_nanos, took, "background work");
    }

    fn note(&self, longest: &AtomicU64, took: Duration, what: &str) {
        let took_nanos = nanos(took);
        // One writer: no need for an atomic maximum, and usually nothing to write.
        if took_nanos > longest.load(Ordering::Relaxed) {
            longest.store(took_nanos, Ordering::Relaxed);
        }
        if took >= STALL {
            self.stalled(took, what);
        }
    }

    #[cold]
    fn stalled(&self, took: Duration, what: &str) {
        let stalls = self.stalls.load(Ordering::Relaxed) + 1;
        self.stalls.store(stalls, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.1.is_some_and(|last| last.elapsed() < TELL_EVERY) {
            return;
        }
        let since_last = stalls - told.0;
        *told = (stalls, Some(Instant::now()));
        drop(told);
        tracing::warn!(
            event_loop = self.index,
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            stalls = since_last,
            "{what} kept an event loop from everybody else on it"
        );
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_kept_and_stalls_are_counted() {
        let loops = Loops::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .metrics();
        let (second, first) = (loops.join(1, runtime.clone()), loops.join(0, runtime));
        first.turned(Duration::from_micros(30));
        first.turned(Duration::from_micros(20));
        second.sliced(STALL);
        second.sliced(STALL / 2);
        second.turned(STALL * 2);
        let [first, second] = loops.figures()[..] else {
            panic!("two loops");
        };
        assert_eq!(first.longest_turn, Duration::from_micros(30));
        assert_eq!((first.stalls, second.stalls), (0, 2));
        assert_eq!(second.longest_slice, STALL);
        assert_eq!(second.longest_turn, STALL * 2);
    }
}
