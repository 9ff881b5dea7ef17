//! What one worker has seen, and the sum of several.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Latencies above are counted as this much; no request may take nearly as long.
const LATENCY_MAX: Duration = Duration::from_secs(100_000);
const LATENCY_DIGITS: u8 = 3;

#[derive(Debug)]
pub(crate) struct Tally {
    /// Nanoseconds from when a request was due to its successful answer.
    pub(crate) latency: Histogram<u64>,
    pub(crate) failures: BTreeMap<String, u64>,
    /// Sent more than a millisecond after they were due.
    pub(crate) late: u64,
    /// Due before the end, and never sent.
    pub(crate) unsent: u64,
    /// When the last measured answer came.
    pub(crate) last: Option<Instant>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let max =
            u64::try_from(LATENCY_MAX.as_nanos()).expect("the maximum is a constant that fits");
        Self {
            latency: Histogram::new_with_max(max, LATENCY_DIGITS)
                .expect("constant bounds are in range"),
            failures: BTreeMap::new(),
            late: 0,
            unsent: 0,
            last: None,
        }
    }

    pub(crate) fn success(&mut self, latency: Duration, now: Instant) {
        self.latency
            .saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        self.last = Some(now);
    }

    pub(crate) fn failure(&mut self, kind: &str, count: u64) {
        if count > 0 {
            *self.failures.entry(kind.to_owned()).or_default() += count;
        }
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.latency
            .add(&other.latency)
            .expect("both have the same bounds");
        for (kind, count) in other.failures {
            *self.failures.entry(kind).or_default() += count;
        }
        self.late += other.late;
        self.unsent += other.unsent;
        self.last = self.last.max(other.last);
        self
    }
}
