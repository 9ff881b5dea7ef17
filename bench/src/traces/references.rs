//! What policies are measured against: exact LRU and LFU, sampling as Redis does it, and Belady's optimum. Written for
//! plainness, not for speed, and independently of the policies.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::caches::Cache;
use super::trace::Trace;

/// Least recently used, by time stamps in a sorted map.
pub(crate) struct ExactLru {
    last: HashMap<u32, (usize, u32)>,
    by_age: BTreeMap<usize, u32>,
    used: u64,
    capacity: u64,
}

impl ExactLru {
    pub(crate) fn new(capacity: u64) -> Self {
        Self {
            last: HashMap::new(),
            by_age: BTreeMap::new(),
            used: 0,
            capacity,
        }
    }
}

impl Cache for ExactLru {
    fn ask(&mut self, at: usize, key: u32, weight: u32) -> bool {
        if let Some((last, _)) = self.last.get_mut(&key) {
            self.by_age.remove(last);
            *last = at;
            self.by_age.insert(at, key);
            return true;
        }
        if u64::from(weight) > self.capacity {
            return false;
        }
        while self.used + u64::from(weight) > self.capacity {
            let Some((_, victim)) = self.by_age.pop_first() else {
                break;
            };
            let gone = self.last.remove(&victim);
            self.used -= gone.map_or(0, |(_, weight)| u64::from(weight));
        }
        self.used += u64::from(weight);
        self.last.insert(key, (at, weight));
        self.by_age.insert(at, key);
        false
    }
}

/// Least frequently used, the longest unused among equals; a key's count is lost when it goes, and nothing decays.
pub(crate) struct ExactLfu {
    held: HashMap<u32, (u64, usize, u32)>,
    order: BTreeSet<(u64, usize, u32)>,
    used: u64,
    capacity: u64,
}

impl ExactLfu {
    pub(crate) fn new(capacity: u64) -> Self {
        Self {
            held: HashMap::new(),
            order: BTreeSet::new(),
            used: 0,
            capacity,
        }
    }
}

impl Cache for ExactLfu {
    fn ask(&mut self, at: usize, key: u32, weight: u32) -> bool {
        if let Some((count, last, _)) = self.held.get_mut(&key) {
            self.order.remove(&(*count, *last, key));
            *count += 1;
            *last = at;
            self.order.insert((*count, at, key));
            return true;
        }
        if u64::from(weight) > self.capacity {
            return false;
        }
        while self.used + u64::from(weight) > self.capacity {
            let Some((_, _, victim)) = self.order.pop_first() else {
                break;
            };
            let gone = self.held.remove(&victim);
            self.used -= gone.map_or(0, |(_, _, weight)| u64::from(weight));
        }
        self.used += u64::from(weight);
        self.held.insert(key, (1, at, weight));
        self.order.insert((1, at, key));
        false
    }
}

/// The next use of each key is known, and the farthest goes: no policy has more hits with keys of one size. With sizes it is
/// a good guess and not the optimum.
pub(crate) struct Belady {
    /// For each request, the next one for the same key.
    next: Vec<usize>,
    held: HashMap<u32, (usize, u32)>,
    by_next: BTreeSet<(usize, u32)>,
    used: u64,
    capacity: u64,
}

impl Belady {
    pub(crate) fn new(capacity: u64, trace: &Trace) -> Self {
        let mut next = vec![usize::MAX; trace.requests.len()];
        let mut coming = vec![usize::MAX; trace.sizes.len()];
        for (at, &key) in trace.requests.iter().enumerate().rev() {
            next[at] = std::mem::replace(&mut coming[key as usize], at);
        }
        Self {
            next,
            held: HashMap::new(),
            by_next: BTreeSet::new(),
            used: 0,
            capacity,
        }
    }
}

impl Cache for Belady {
    fn ask(&mut self, at: usize, key: u32, weight: u32) -> bool {
        let next = self.next[at];
        let hit = self.held.remove(&key);
        if let Some((known, weight)) = hit {
            self.by_next.remove(&(known, key));
            self.used -= u64::from(weight);
        }
        if u64::from(weight) > self.capacity || next == usize::MAX {
            return hit.is_some();
        }
        self.held.insert(key, (next, weight));
        self.by_next.insert((next, key));
        self.used += u64::from(weight);
        while self.used > self.capacity {
            let Some((_, victim)) = self.by_next.pop_last() else {
                break;
            };
            let gone = self.held.remove(&victim);
            self.used -= gone.map_or(0, |(_, weight)| u64::from(weight));
        }
        hit.is_some()
    }
}

/// Samples for each victim.
const SAMPLES: usize = 5;
/// The best candidates of earlier samples that are remembered.
const POOL: usize = 16;
/// What a new key's counter begins at, and how slowly it rises.
const COUNTER_FIRST: u8 = 5;
const COUNTER_FACTOR: f64 = 10.0;

/// `allkeys-lru` and `allkeys-lfu` as Redis's documentation of key eviction describes them, with its defaults: five samples, a
/// pool of sixteen, a logarithmic counter. Its counter decays by minutes, of which a trace has none.
pub(crate) struct Sampled {
    held: HashMap<u32, Sample>,
    keys: Vec<u32>,
    /// Candidates, the best victim last.
    pool: Vec<(u64, u32)>,
    by_count: bool,
    rng: fastrand::Rng,
    used: u64,
    capacity: u64,
}

struct Sample {
    place: usize,
    last: usize,
    counter: u8,
    weight: u32,
}

impl Sampled {
    pub(crate) fn lru(capacity: u64) -> Self {
        Self {
            held: HashMap::new(),
            keys: Vec::new(),
            pool: Vec::new(),
            by_count: false,
            rng: fastrand::Rng::with_seed(1),
            used: 0,
            capacity,
        }
    }

    pub(crate) fn lfu(capacity: u64) -> Self {
        Self {
            by_count: true,
            ..Self::lru(capacity)
        }
    }

    /// The larger, the better a victim.
    fn score(&self, key: u32, at: usize) -> u64 {
        let sample = &self.held[&key];
        if self.by_count {
            255 - u64::from(sample.counter)
        } else {
            (at - sample.last) as u64
        }
    }

    fn evict(&mut self, at: usize) -> bool {
        for _ in 0..SAMPLES.min(self.keys.len()) {
            let key = self.keys[self.rng.usize(0..self.keys.len())];
            let score = self.score(key, at);
            if self.pool.iter().any(|(_, known)| *known == key) {
                continue;
            }
            let place = self.pool.partition_point(|(known, _)| *known < score);
            self.pool.insert(place, (score, key));
            if self.pool.len() > POOL {
                self.pool.remove(0);
            }
        }
        while let Some((_, victim)) = self.pool.pop() {
            let Some(sample) = self.held.remove(&victim) else {
                continue;
            };
            self.keys.swap_remove(sample.place);
            if let Some(moved) = self.keys.get(sample.place)
                && let Some(moved) = self.held.get_mut(moved)
            {
                moved.place = sample.place;
            }
            self.used -= u64::from(sample.weight);
            return true;
        }
        !self.keys.is_empty()
    }
}

impl Cache for Sampled {
    fn ask(&mut self, at: usize, key: u32, weight: u32) -> bool {
        if let Some(sample) = self.held.get_mut(&key) {
            sample.last = at;
            let above = f64::from(sample.counter.saturating_sub(COUNTER_FIRST));
            if sample.counter < u8::MAX && self.rng.f64() < 1.0 / (above * COUNTER_FACTOR + 1.0) {
                sample.counter += 1;
            }
            return true;
        }
        if u64::from(weight) > self.capacity {
            return false;
        }
        while self.used + u64::from(weight) > self.capacity && self.evict(at) {}
        self.used += u64::from(weight);
        let place = self.keys.len();
        self.keys.push(key);
        let sample = Sample {
            place,
            last: at,
            counter: COUNTER_FIRST,
            weight,
        };
        self.held.insert(key, sample);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::caches::Contestant;
    use crate::traces::{Bound, replay};
    use inflightkv_eviction::PolicyKind;

    fn trace(requests: Vec<u32>, keys: usize) -> Trace {
        Trace {
            name: "made".to_owned(),
            requests,
            sizes: vec![1; keys],
            has_sizes: false,
        }
    }

    fn ratio(trace: &Trace, contestant: Contestant, capacity: u64) -> f64 {
        replay(
            trace,
            Bound::Keys,
            contestant.build(capacity, trace, Bound::Keys).as_mut(),
        )
        .hits
    }

    #[test]
    fn our_lru_is_the_exact_one_and_nobody_beats_the_optimum() {
        let mut rng = fastrand::Rng::with_seed(3);
        let requests = (0..20_000)
            .map(|_| (rng.f64().powi(3) * 1_000.0) as u32)
            .collect();
        let trace = trace(requests, 1_000);
        for capacity in [1, 10, 100, 500] {
            let exact = ratio(&trace, Contestant::ExactLru, capacity);
            let ours = ratio(&trace, Contestant::Ours(PolicyKind::Lru), capacity);
            assert!((exact - ours).abs() < 1e-9, "{exact} {ours}");
            let best = ratio(&trace, Contestant::Belady, capacity);
            for contestant in Contestant::ALL {
                let ratio = ratio(&trace, contestant, capacity);
                assert!(ratio <= best + 1e-9, "{} at {capacity}", contestant.name());
            }
        }
    }

    #[test]
    fn everybody_keeps_what_fits() {
        let requests = (0..5_000).map(|at| at % 50).collect();
        let trace = trace(requests, 50);
        for contestant in Contestant::ALL {
            let ratio = ratio(&trace, contestant, 60);
            assert!(ratio > 0.98, "{}: {ratio}", contestant.name());
        }
    }
}
