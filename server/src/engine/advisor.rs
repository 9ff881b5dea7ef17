//! What another policy, or another limit, would bring: shadow simulations of all policies on a sample of live requests.
//!
//! Source: miniature simulations, C. Waldspurger, T. Saemundson, I. Ahmad and N. Park, "Cache modeling and optimization using
//! miniature simulations" (USENIX ATC 2017). Keys are sampled by their hash, so that all requests for a key are in the sample
//! or none is, and the limit is scaled like the sample. Only metadata is kept: a hash and a weight a key. Every key is sampled
//! as long as requests are few; the sample is halved when it becomes too large, or too many requests fall into it.
//!
//! A very hot key is in the sample with all its requests or not at all, and either would falsify every ratio. As many reads as
//! the sample has too few or too many are counted as hits or taken out of them, for it is hot keys that they are of, and those
//! hit at any size (`SHARDS_adj`: C. Waldspurger, N. Park, A. Garthwaite and I. Ahmad, "Efficient MRC construction with SHARDS",
//! FAST 2015).

use super::evict::SLOT_BYTES;
use foldhash::quality::RandomState;
use inflightkv_eviction::{Facts, Policy, PolicyKind};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shares of the limit that are simulated, in percent.
const SIZES: [u64; 3] = [50, 100, 200];
/// Keys known at most.
const KEYS_MAX: usize = 4096;
/// Requests looked at a second, on average, at most: at about two microseconds each, a hundredth of one core.
const REQUESTS_MAX: u32 = 4096;
const WINDOW: Duration = Duration::from_secs(1);

/// The hit ratios one policy would have, as shares of 1; `None` before there was a read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Advice {
    /// The policy.
    pub policy: PolicyKind,
    /// At half of the limit.
    pub half: Option<f64>,
    /// At the limit.
    pub current: Option<f64>,
    /// At twice the limit.
    pub double: Option<f64>,
}

/// All policies on the same sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdviceReport {
    /// One of so many keys is in the sample; 0 when nothing is simulated because there is no limit.
    pub one_of: u64,
    /// Reads that the ratios are of.
    pub reads: u64,
    /// Each policy.
    pub policies: Vec<Advice>,
    /// Bytes of the simulations.
    pub bytes: u64,
}

#[derive(Default)]
pub(crate) struct Advisor {
    /// A key is in the sample if its mixed hash is below; 0 without a limit.
    below: AtomicU64,
    shadow: Mutex<Option<Shadow>>,
    /// Reads in the sample that found the simulations busy.
    lost: AtomicU64,
}

fn mixed(hash: u64) -> u64 {
    hash.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 1
}

/// Every key is in the sample: the largest mixed hash and one more.
const ALL: u64 = 1 << 63;

impl Advisor {
    /// Begins anew for a limit, or ends without one. `reads` is how many there were so far in all.
    pub(crate) fn begin(&self, limit: Option<u64>, reads: u64) {
        let mut shadow = self.shadow.lock();
        *shadow = limit.map(|limit| Shadow::new(limit, reads));
        self.lost.store(0, Ordering::Relaxed);
        self.below
            .store(limit.map_or(0, |_| ALL), Ordering::Relaxed);
    }

    #[inline]
    fn sampled(&self, hash: u64) -> bool {
        mixed(hash) < self.below.load(Ordering::Relaxed)
    }

    /// A key was read; with its bytes beside the entry's overhead if it was there. `reads` says how many reads there were in
    /// all, this one included, and is seldom asked.
    #[inline]
    pub(crate) fn read(&self, hash: u64, bytes: Option<usize>, reads: impl Fn() -> u64) {
        if self.sampled(hash)
            && !self.simulate(hash, reads, |shadow| shadow.read(hash, bytes.map(weight)))
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A key was written.
    #[inline]
    pub(crate) fn wrote(&self, hash: u64, bytes: usize, reads: impl Fn() -> u64) {
        if self.sampled(hash) {
            self.simulate(hash, reads, |shadow| shadow.wrote(hash, weight(bytes)));
        }
    }

    /// A key was removed by a client.
    #[inline]
    pub(crate) fn removed(&self, hash: u64, reads: impl Fn() -> u64) {
        if self.sampled(hash) {
            self.simulate(hash, reads, |shadow| shadow.removed(hash));
        }
    }

    /// False when another loop is at it: nobody waits for figures.
    fn simulate(&self, hash: u64, reads: impl Fn() -> u64, step: impl FnOnce(&mut Shadow)) -> bool {
        let Some(mut guard) = self.shadow.try_lock() else {
            return false;
        };
        // The sample may have been halved since.
        let Some(shadow) = guard.as_mut().filter(|shadow| mixed(hash) < shadow.below) else {
            return true;
        };
        step(shadow);
        if shadow.watch() {
            shadow.expect(reads(), self.lost.swap(0, Ordering::Relaxed));
            shadow.halve();
        }
        self.below.store(shadow.below, Ordering::Relaxed);
        true
    }

    /// `reads` is how many there were so far in all.
    pub(crate) fn report(&self, reads: u64) -> AdviceReport {
        match &mut *self.shadow.lock() {
            Some(shadow) => {
                shadow.expect(reads, self.lost.swap(0, Ordering::Relaxed));
                shadow.report()
            }
            None => AdviceReport::default(),
        }
    }
}

fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes + SLOT_BYTES).unwrap_or(u32::MAX)
}

#[derive(Clone, Copy)]
struct Key {
    hash: u64,
    weight: u32,
    /// Simulations that hold it.
    holders: u8,
}

struct Simulation {
    policy: Box<dyn Policy>,
    percent: u64,
    used: u64,
    hits: u64,
    reads: u64,
}

struct Shadow {
    limit: u64,
    below: u64,
    /// Where in `keys` each one is; that is its slot in every policy.
    slots: HashMap<u64, u32, RandomState>,
    keys: Vec<Key>,
    free: Vec<u32>,
    simulations: Vec<Simulation>,
    steps: u64,
    requests: u32,
    window: Instant,
    /// Reads that were to be in the sample, and those there had been in all when that was last worked out.
    expected: f64,
    reads_before: u64,
}

impl Shadow {
    fn new(limit: u64, reads: u64) -> Self {
        let simulations = PolicyKind::ALL.into_iter().flat_map(|kind| {
            SIZES.map(|percent| Simulation {
                policy: kind.build(percent),
                percent,
                used: 0,
                hits: 0,
                reads: 0,
            })
        });
        Self {
            limit,
            below: ALL,
            slots: HashMap::default(),
            keys: Vec::new(),
            free: Vec::new(),
            simulations: simulations.collect(),
            steps: 0,
            requests: 0,
            window: Instant::now(),
            expected: 0.0,
            reads_before: reads,
        }
    }

    /// Works out how many reads were to be in the sample, when there were so many in all, and so many of them were lost to it.
    fn expect(&mut self, reads: u64, lost: u64) {
        let more = reads.saturating_sub(self.reads_before);
        self.reads_before = reads;
        self.expected += more as f64 * (self.below as f64 / ALL as f64) - lost as f64;
    }

    fn capacity(&self, percent: u64) -> u64 {
        let scaled = u128::from(self.limit) * u128::from(self.below) / u128::from(ALL);
        (scaled * u128::from(percent) / 100) as u64
    }

    fn read(&mut self, hash: u64, weight: Option<u32>) {
        let slot = self.slots.get(&hash).copied();
        for simulation in &mut self.simulations {
            simulation.reads += 1;
            if let Some(slot) = slot
                && simulation.policy.contains(slot)
            {
                simulation.hits += 1;
                simulation.policy.access(slot, self.steps);
            }
        }
        // Where it was missed it is put in, as a client that reads through does.
        if let Some(weight) = weight {
            self.put(hash, weight, false);
        }
    }

    fn wrote(&mut self, hash: u64, weight: u32) {
        self.put(hash, weight, true);
    }

    fn put(&mut self, hash: u64, weight: u32, written: bool) {
        self.steps += 1;
        let slot = match self.slots.get(&hash) {
            Some(slot) => *slot,
            None => {
                let key = Key {
                    hash,
                    weight,
                    holders: 0,
                };
                let slot = match self.free.pop() {
                    Some(slot) => {
                        self.keys[slot as usize] = key;
                        slot
                    }
                    None => {
                        self.keys.push(key);
                        (self.keys.len() - 1) as u32
                    }
                };
                self.slots.insert(hash, slot);
                slot
            }
        };
        let old = std::mem::replace(&mut self.keys[slot as usize].weight, weight);
        let facts = Facts {
            hash,
            weight,
            expires_at: None,
        };
        for index in 0..self.simulations.len() {
            let capacity = self.capacity(self.simulations[index].percent);
            let simulation = &mut self.simulations[index];
            if simulation.policy.contains(slot) {
                simulation.used = simulation.used - u64::from(old) + u64::from(weight);
                if written {
                    simulation.policy.update(slot, facts, self.steps);
                }
            } else if u64::from(weight) <= capacity {
                simulation.policy.insert(slot, facts, self.steps);
                simulation.used += u64::from(weight);
                self.keys[slot as usize].holders += 1;
            }
            self.shrink(index, capacity);
        }
        self.release(slot);
    }

    fn shrink(&mut self, index: usize, capacity: u64) {
        while self.simulations[index].used > capacity {
            let simulation = &mut self.simulations[index];
            let Some(victim) = simulation.policy.evict() else {
                return;
            };
            let key = &mut self.keys[victim as usize];
            simulation.used -= u64::from(key.weight);
            key.holders -= 1;
            self.release(victim);
        }
    }

    /// Forgets a key that no simulation holds.
    fn release(&mut self, slot: u32) {
        let key = self.keys[slot as usize];
        if key.holders == 0 && self.slots.get(&key.hash) == Some(&slot) {
            self.slots.remove(&key.hash);
            self.free.push(slot);
        }
    }

    fn removed(&mut self, hash: u64) {
        let Some(&slot) = self.slots.get(&hash) else {
            return;
        };
        for simulation in &mut self.simulations {
            if simulation.policy.remove(slot) {
                let key = &mut self.keys[slot as usize];
                simulation.used -= u64::from(key.weight);
                key.holders -= 1;
            }
        }
        self.release(slot);
    }

    /// Whether the sample is to be halved, because it is too large or costs too much.
    fn watch(&mut self) -> bool {
        self.requests += 1;
        let mut too_many = false;
        if self.requests >= REQUESTS_MAX {
            self.requests = 0;
            too_many = self.window.elapsed() < WINDOW;
            self.window = Instant::now();
        }
        too_many || self.slots.len() > KEYS_MAX
    }

    fn halve(&mut self) {
        self.below /= 2;
        // A request stands for twice as many from here on, so those before count half.
        for simulation in &mut self.simulations {
            simulation.hits /= 2;
            simulation.reads /= 2;
        }
        self.expected /= 2.0;
        let leaving = self.slots.keys().filter(|hash| mixed(**hash) >= self.below);
        for hash in leaving.copied().collect::<Vec<_>>() {
            self.removed(hash);
        }
        for index in 0..self.simulations.len() {
            let capacity = self.capacity(self.simulations[index].percent);
            self.shrink(index, capacity);
        }
    }

    fn bytes(&self) -> u64 {
        let policies: usize = self
            .simulations
            .iter()
            .map(|simulation| simulation.policy.bytes())
            .sum();
        let keys = self.keys.capacity() * size_of::<Key>()
            + self.free.capacity() * size_of::<u32>()
            + self.slots.capacity() * (size_of::<(u64, u32)>() + 1);
        (policies + keys) as u64
    }

    fn report(&self) -> AdviceReport {
        let ratio = |kind, percent| {
            let simulation = self.simulations.iter().find(|simulation| {
                simulation.policy.kind() == kind && simulation.percent == percent
            })?;
            let (hits, reads) = (simulation.hits as f64, simulation.reads as f64);
            (reads > 0.0).then(|| {
                let expected = self.expected.max(1.0);
                ((hits + expected - reads) / expected).clamp(0.0, 1.0)
            })
        };
        AdviceReport {
            one_of: ALL / self.below.max(1),
            reads: self.simulations.first().map_or(0, |first| first.reads),
            policies: PolicyKind::ALL
                .into_iter()
                .map(|policy| Advice {
                    policy,
                    half: ratio(policy, SIZES[0]),
                    current: ratio(policy, SIZES[1]),
                    double: ratio(policy, SIZES[2]),
                })
                .collect(),
            bytes: self.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loop over more keys than fit in half of the limit and fewer than fit in all of it.
    #[test]
    fn ratios_tell_what_fits() {
        let advisor = Advisor::default();
        advisor.read(1, Some(10), || 1);
        assert_eq!(advisor.report(1), AdviceReport::default());
        let entry = u64::from(weight(100));
        advisor.begin(Some(100 * entry), 1);
        for round in 0..20_000_u64 {
            let hash = (round % 80).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            advisor.read(hash, Some(100), || round + 2);
        }
        let report = advisor.report(20_001);
        for advice in &report.policies {
            assert!(advice.current > Some(0.97), "{advice:?}");
            assert_eq!(advice.double, advice.current);
            assert!(advice.half < Some(0.7), "{advice:?}");
        }
        let lru = report.policies[0];
        assert_eq!((lru.policy, lru.half), (PolicyKind::Lru, Some(0.0)));
        advisor.begin(None, 0);
        assert_eq!(advisor.report(0).one_of, 0);
    }

    /// However many keys there are, few are known, the figures are those of the whole, and nothing is left behind.
    #[test]
    fn the_sample_is_bounded_and_true() {
        use std::hash::BuildHasher as _;
        let advisor = Advisor::default();
        let entry = u64::from(weight(100));
        advisor.begin(Some(20_000 * entry), 0);
        let mut rng = fastrand::Rng::with_seed(9);
        let hasher = foldhash::quality::FixedState::with_seed(9);
        let mut exact = PolicyKind::Lru.build(0);
        let (mut hits, mut reads) = (0, 0);
        for step in 0..400_000_u64 {
            let key = (rng.f64().powi(2) * 100_000.0) as u32;
            // As the store's hashes are: without a pattern, so that no key is in every sample.
            advisor.read(hasher.hash_one(key), Some(100), || step + 1);
            reads += 1;
            if exact.contains(key) {
                hits += 1;
                exact.access(key, step);
            } else {
                let facts = Facts {
                    hash: u64::from(key),
                    weight: 1,
                    expires_at: None,
                };
                exact.insert(key, facts, step);
                if exact.len() > 20_000 {
                    exact.evict();
                }
            }
        }
        let report = advisor.report(400_000);
        assert!(report.one_of >= 8, "{report:?}");
        assert!(report.bytes < 4 << 20, "{report:?}");
        let truth = f64::from(hits) / f64::from(reads);
        let told = report.policies[0].current.expect("there were reads");
        assert!((truth - told).abs() < 0.08, "{truth} {told}");
        let mut shadow = advisor.shadow.lock();
        let shadow = shadow.as_mut().expect("there is a limit");
        for hash in shadow.slots.keys().copied().collect::<Vec<_>>() {
            shadow.removed(hash);
        }
        assert!(
            shadow
                .simulations
                .iter()
                .all(|simulation| simulation.used == 0)
        );
        assert_eq!(shadow.free.len(), shadow.keys.len());
    }

    /// Half of all reads are of one key: whether it is in the sample makes no difference.
    #[test]
    fn one_very_hot_key_falsifies_nothing() {
        use std::hash::BuildHasher as _;
        let hasher = foldhash::quality::FixedState::with_seed(4);
        // The first number whose hash stays in the sample through some halvings, and the first that leaves at once. One that
        // stayed through all would halve it until hardly any other key is left: it costs too much.
        let hash_where = |is: fn(u64) -> bool| {
            let mut hashes = (1 << 40..).map(|number: u64| hasher.hash_one(number));
            hashes.find(|hash| is(mixed(*hash))).expect("one of many")
        };
        let inside = hash_where(|mixed| (ALL >> 6..ALL >> 5).contains(&mixed));
        let outside = hash_where(|mixed| mixed > ALL / 2);
        for hot in [inside, outside] {
            let advisor = Advisor::default();
            advisor.begin(Some(20_000 * u64::from(weight(100))), 0);
            let mut rng = fastrand::Rng::with_seed(9);
            for step in 0..400_000_u64 {
                let cold = hasher.hash_one(rng.u32(..100_000));
                let hash = if rng.bool() { hot } else { cold };
                advisor.read(hash, Some(100), || step + 1);
            }
            let report = advisor.report(400_000);
            assert!(report.one_of >= 8, "{report:?}");
            // The hot key always, and a fifth of the others; some less while they are met for the first time.
            let told = report.policies[0].current.expect("there were reads");
            assert!((0.5..0.7).contains(&told), "{told}");
        }
    }
}
