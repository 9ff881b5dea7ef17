//! How long expired entries waited to be reclaimed, as a histogram that many threads count into.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the histogram's ranges, in milliseconds; what took longer is counted in one more.
pub const LAG_BOUNDS_MS: [u64; 12] = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000];

#[derive(Debug, Default)]
pub(crate) struct Histogram {
    counts: [AtomicU64; LAG_BOUNDS_MS.len() + 1],
    sum: AtomicU64,
    max: AtomicU64,
}

impl Histogram {
    pub(crate) fn count(&self, lag_ms: u64) {
        let range = LAG_BOUNDS_MS.partition_point(|bound| *bound < lag_ms);
        self.counts[range].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(lag_ms, Ordering::Relaxed);
        self.max.fetch_max(lag_ms, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Lags {
        Lags {
            counts: std::array::from_fn(|range| self.counts[range].load(Ordering::Relaxed)),
            sum_ms: self.sum.load(Ordering::Relaxed),
            max_ms: self.max.load(Ordering::Relaxed),
        }
    }
}

/// How long expired entries waited to be reclaimed. They were invisible all the while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lags {
    /// Entries by lag: up to each of [`LAG_BOUNDS_MS`] and above the bound before, then those above the last.
    pub counts: [u64; LAG_BOUNDS_MS.len() + 1],
    /// Milliseconds in all.
    pub sum_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

impl Lags {
    /// The bound that `percent` of 100 of the entries stayed within, or the longest lag when that is above the last bound;
    /// 0 without any.
    pub fn percentile(&self, percent: f64) -> u64 {
        let total: u64 = self.counts.iter().sum();
        let rank = (total as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        for (bound, count) in LAG_BOUNDS_MS.iter().zip(self.counts) {
            seen += count;
            if seen >= rank {
                return (*bound).min(self.max_ms);
            }
        }
        self.max_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_bounds_and_never_above_the_longest() {
        let histogram = Histogram::default();
        assert_eq!(histogram.read().percentile(99.0), 0);
        for _ in 0..98 {
            histogram.count(0);
        }
        histogram.count(7);
        histogram.count(9_000);
        let lags = histogram.read();
        assert_eq!(lags.percentile(50.0), 0);
        assert_eq!(lags.percentile(99.0), 10);
        assert_eq!(lags.percentile(100.0), 9_000);
        assert_eq!((lags.sum_ms, lags.max_ms), (9_007, 9_000));
        histogram.count(5_000);
        assert_eq!(histogram.read().counts[11..], [1, 1]);
    }
}
