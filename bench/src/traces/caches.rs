//! Who takes part in a replay: every policy of ours, the references, and caches that others built.

use inflightkv_eviction::{Facts, Policy, PolicyKind};

use super::Bound;
use super::references::{Belady, ExactLfu, ExactLru, Sampled};
use super::trace::Trace;

/// A cache that is asked for keys and keeps what it was asked for.
pub(crate) trait Cache {
    /// Request number `at`: whether `key` was there; if it was not, it is put in.
    fn ask(&mut self, at: usize, key: u32, weight: u32) -> bool;
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Contestant {
    Ours(PolicyKind),
    ExactLru,
    ExactLfu,
    /// As Redis samples with its defaults.
    SampledLru,
    SampledLfu,
    Belady,
    Moka,
    QuickCache,
}

impl Contestant {
    pub(crate) const ALL: [Self; 14] = [
        Self::Ours(PolicyKind::Lru),
        Self::Ours(PolicyKind::Lfu),
        Self::Ours(PolicyKind::Ttl),
        Self::Ours(PolicyKind::Size),
        Self::Ours(PolicyKind::Random),
        Self::Ours(PolicyKind::S3Fifo),
        Self::Ours(PolicyKind::TinyLfu),
        Self::ExactLru,
        Self::ExactLfu,
        Self::SampledLru,
        Self::SampledLfu,
        Self::Moka,
        Self::QuickCache,
        Self::Belady,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours(kind) => kind.name(),
            Self::ExactLru => "exact LRU",
            Self::ExactLfu => "exact LFU",
            Self::SampledLru => "sampled LRU",
            Self::SampledLfu => "sampled LFU",
            Self::Belady => "Belady",
            Self::Moka => "moka",
            Self::QuickCache => "quick_cache",
        }
    }

    pub(crate) fn build(self, capacity: u64, trace: &Trace, bound: Bound) -> Box<dyn Cache> {
        match self {
            Self::Ours(kind) => Box::new(Ours::new(kind, capacity)),
            Self::ExactLru => Box::new(ExactLru::new(capacity)),
            Self::ExactLfu => Box::new(ExactLfu::new(capacity)),
            Self::SampledLru => Box::new(Sampled::lru(capacity)),
            Self::SampledLfu => Box::new(Sampled::lfu(capacity)),
            Self::Belady => Box::new(Belady::new(capacity, trace)),
            Self::Moka => Box::new(Moka::new(capacity)),
            Self::QuickCache => {
                let keys = trace.sizes.len() as u64;
                let items = match bound {
                    Bound::Keys => capacity,
                    Bound::Bytes => {
                        let bytes: u64 = trace.sizes.iter().map(|size| u64::from(*size)).sum();
                        capacity * keys / bytes.max(1)
                    }
                };
                Box::new(Quick::new(items.max(1), capacity))
            }
        }
    }
}

/// A policy of ours over a table; a key's number is its slot.
struct Ours {
    policy: Box<dyn Policy>,
    weights: Vec<u32>,
    used: u64,
    capacity: u64,
}

impl Ours {
    fn new(kind: PolicyKind, capacity: u64) -> Self {
        Self {
            policy: kind.build(1),
            weights: Vec::new(),
            used: 0,
            capacity,
        }
    }
}

impl Cache for Ours {
    fn ask(&mut self, at: usize, key: u32, weight: u32) -> bool {
        let now = at as u64;
        if self.policy.contains(key) {
            self.policy.access(key, now);
            return true;
        }
        if u64::from(weight) > self.capacity {
            return false;
        }
        let place = key as usize;
        if place >= self.weights.len() {
            self.weights.resize(place + 1, 0);
        }
        self.weights[place] = weight;
        self.used += u64::from(weight);
        let facts = Facts {
            hash: u64::from(key).wrapping_mul(0xff51_afd7_ed55_8ccd),
            weight,
            expires_at: None,
        };
        self.policy.insert(key, facts, now);
        while self.used > self.capacity {
            let Some(victim) = self.policy.evict() else {
                break;
            };
            self.used -= u64::from(self.weights[victim as usize]);
        }
        false
    }
}

struct Moka(moka::sync::Cache<u32, u32>);

impl Moka {
    fn new(capacity: u64) -> Self {
        let builder = moka::sync::Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, weight| *weight);
        Self(builder.build())
    }
}

impl Cache for Moka {
    fn ask(&mut self, _: usize, key: u32, weight: u32) -> bool {
        if self.0.get(&key).is_some() {
            return true;
        }
        self.0.insert(key, weight);
        // Its housekeeping is put off otherwise, and the cache would be larger than it says.
        self.0.run_pending_tasks();
        false
    }
}

#[derive(Clone)]
struct Weigh;

impl quick_cache::Weighter<u32, u32> for Weigh {
    fn weight(&self, _: &u32, weight: &u32) -> u64 {
        u64::from(*weight)
    }
}

struct Quick(quick_cache::unsync::Cache<u32, u32, Weigh>);

impl Quick {
    fn new(items: u64, capacity: u64) -> Self {
        let items = usize::try_from(items).unwrap_or(usize::MAX);
        Self(quick_cache::unsync::Cache::with_weighter(
            items, capacity, Weigh,
        ))
    }
}

impl Cache for Quick {
    fn ask(&mut self, _: usize, key: u32, weight: u32) -> bool {
        if self.0.get(&key).is_some() {
            return true;
        }
        self.0.insert(key, weight);
        false
    }
}
