//! Which keys are asked for most: a sketch a loop, over a sample of its requests.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams",
//! ICDT 2005): a fixed number of counters; a key without one takes over the smallest and its count, which is also how
//! much too large the new count may be. Counts are halved now and then, so that yesterday's hot keys leave.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Keys that a loop keeps count of. Any key with more than one in so many of its requests is among them.
const COUNTERS: usize = 128;
/// One request in so many is looked at.
pub(crate) const ONE_IN: u64 = 8;
/// Requests looked at between two halvings: a few seconds of a busy loop.
const HALVE_EVERY: u64 = 1 << 17;

/// The sketch of one loop. That loop writes it; anybody may read.
#[derive(Debug, Default)]
pub(crate) struct HotKeys(Mutex<Sketch>);

#[derive(Debug, Default)]
struct Sketch {
    counters: Vec<Counter>,
    looked_at: u64,
    until_halved: u64,
}

#[derive(Clone, Debug)]
struct Counter {
    key: String,
    count: u64,
    /// How much of the count may be another key's.
    error: u64,
}

/// A key with its count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HotKey {
    pub(crate) key: String,
    /// Requests looked at, at most; decayed.
    pub(crate) count: u64,
    /// By how much that may be too large.
    pub(crate) error: u64,
}

impl HotKeys {
    /// Counts a request for `key`, one of those that are looked at.
    pub(crate) fn note(&self, key: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(key);
    }

    /// The keys with a count, and how many requests they are out of.
    fn read(&self) -> (Vec<Counter>, u64) {
        let sketch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (sketch.counters.clone(), sketch.looked_at)
    }

    /// The `limit` hottest keys of all `loops`, hottest first, and how many requests they are out of.
    pub(crate) fn hottest<'a>(
        loops: impl Iterator<Item = &'a HotKeys>,
        limit: usize,
    ) -> (Vec<HotKey>, u64) {
        let mut sum: HashMap<String, (u64, u64)> = HashMap::new();
        let mut looked_at = 0;
        for (counters, requests) in loops.map(HotKeys::read) {
            looked_at += requests;
            for counter in counters {
                let (count, error) = sum.entry(counter.key).or_default();
                *count += counter.count;
                *error += counter.error;
            }
        }
        let mut keys: Vec<HotKey> = sum
            .into_iter()
            .map(|(key, (count, error))| HotKey { key, count, error })
            .collect();
        // Those that are surely hot first: what a key took over is not its own.
        keys.sort_unstable_by(|a, b| (b.count - b.error, &a.key).cmp(&(a.count - a.error, &b.key)));
        keys.truncate(limit);
        (keys, looked_at)
    }
}

impl Sketch {
    fn note(&mut self, key: &str) {
        self.looked_at += 1;
        self.until_halved += 1;
        if self.until_halved == HALVE_EVERY {
            self.halve();
        }
        // A hundred short comparisons at most, of which nearly all end at the length or the first bytes.
        let (mut smallest, mut least) = (0, u64::MAX);
        for (at, counter) in self.counters.iter_mut().enumerate() {
            if counter.key == key {
                counter.count += 1;
                return;
            }
            if counter.count < least {
                (smallest, least) = (at, counter.count);
            }
        }
        if self.counters.len() < COUNTERS {
            self.counters.push(Counter {
                key: key.to_owned(),
                count: 1,
                error: 0,
            });
            return;
        }
        let counter = &mut self.counters[smallest];
        counter.key.clear();
        counter.key.push_str(key);
        counter.error = counter.count;
        counter.count += 1;
    }

    fn halve(&mut self) {
        self.until_halved = 0;
        self.looked_at /= 2;
        for counter in &mut self.counters {
            counter.count /= 2;
            counter.error /= 2;
        }
        self.counters.retain(|counter| counter.count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hot_key_is_found_among_many_others() {
        let (one, other) = (HotKeys::default(), HotKeys::default());
        let mut rng = fastrand::Rng::with_seed(7);
        for round in 0..60_000 {
            let sketch = if round % 2 == 0 { &one } else { &other };
            match round % 10 {
                0 | 1 => sketch.note("hot"),
                2 => sketch.note("warm"),
                _ => sketch.note(&format!("cold-{}", rng.u32(..))),
            }
        }
        let (keys, looked_at) = HotKeys::hottest([&one, &other].into_iter(), 2);
        assert_eq!(looked_at, 60_000);
        assert_eq!(keys[0].key, "hot");
        assert_eq!(keys[1].key, "warm");
        let surely = keys[0].count - keys[0].error;
        assert!(surely <= 12_000 && keys[0].count >= 12_000, "{keys:?}");
    }

    #[test]
    fn yesterdays_hot_key_leaves() {
        let sketch = HotKeys::default();
        for _ in 0..HALVE_EVERY {
            sketch.note("yesterday");
        }
        for _ in 0..HALVE_EVERY * 2 {
            sketch.note("today");
        }
        let (keys, _) = HotKeys::hottest([&sketch].into_iter(), 10);
        assert_eq!(keys[0].key, "today");
    }

    #[test]
    fn memory_is_bounded() {
        let sketch = HotKeys::default();
        for number in 0..10_000 {
            sketch.note(&number.to_string());
        }
        assert_eq!(sketch.read().0.len(), COUNTERS);
    }
}
