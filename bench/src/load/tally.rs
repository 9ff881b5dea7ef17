//! What one worker has seen, and the sum of several.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Latencies above are counted as this much; no request may take nearly as long.
const LATENCY_MAX: Duration = Duration::from_secs(100_000);
const LATENCY_DIGITS: u8 = 3;

/// Of a window: 100 s, and two digits, so that many windows fit into little memory.
const WINDOW_LATENCY_MAX: u64 = 100_000_000_000;
const WINDOW_DIGITS: u8 = 2;
/// More windows than this are not kept.
const WINDOWS_MAX: usize = 100_000;

fn window() -> Histogram<u64> {
    Histogram::new_with_max(WINDOW_LATENCY_MAX, WINDOW_DIGITS)
        .expect("constant bounds are in range")
}

#[derive(Debug)]
pub(crate) struct Tally {
    /// Nanoseconds from when a request was due to its successful answer.
    pub(crate) latency: Histogram<u64>,
    pub(crate) failures: BTreeMap<String, u64>,
    /// Sent more than a millisecond after they were due.
    pub(crate) late: u64,
    /// Due before the end, and never sent.
    pub(crate) unsent: u64,
    /// Successful requests that found nothing under their key, where that is nothing wrong.
    pub(crate) misses: u64,
    /// Latencies by when the requests were due, in windows of the plan's length.
    pub(crate) windows: Vec<Histogram<u64>>,
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
            misses: 0,
            windows: Vec::new(),
            last: None,
        }
    }

    pub(crate) fn success(&mut self, latency: Duration, now: Instant) {
        self.latency
            .saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        self.last = Some(now);
    }

    /// Also counts a success in the window with this number.
    pub(crate) fn in_window(&mut self, number: usize, latency: Duration) {
        if number >= WINDOWS_MAX {
            return;
        }
        while self.windows.len() <= number {
            self.windows.push(window());
        }
        self.windows[number]
            .saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
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
        self.misses += other.misses;
        for (number, window) in other.windows.into_iter().enumerate() {
            match self.windows.get_mut(number) {
                Some(own) => own.add(&window).expect("both have the same bounds"),
                None => self.windows.push(window),
            }
        }
        self.last = self.last.max(other.last);
        self
    }
}
