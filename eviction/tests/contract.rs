//! One suite for every policy: what the trait promises, against a plain map of what is held.

use inflightkv_eviction::{Facts, Policy, PolicyKind};
use std::collections::HashMap;

fn facts(key: u64, weight: u32) -> Facts {
    Facts {
        hash: key.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        weight,
        expires_at: None,
    }
}

fn every(check: impl Fn(PolicyKind, Box<dyn Policy>)) {
    for kind in PolicyKind::ALL {
        check(kind, kind.build(7));
    }
}

/// Everything that goes in comes out once: as a victim, or because it left by itself.
#[test]
fn random_histories_agree_with_a_map() {
    every(|kind, mut policy| {
        let seed = fastrand::u64(..);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut model: HashMap<u32, Facts> = HashMap::new();
        let slots = rng.u32(1..300);
        for step in 0..30_000_u64 {
            let slot = rng.u32(0..slots);
            let told = Facts {
                hash: u64::from(slot) << 20,
                weight: rng.u32(0..2_000),
                expires_at: rng.bool().then(|| rng.u64(..)),
            };
            let held = model.contains_key(&slot);
            match rng.u32(0..10) {
                0..4 if !held => {
                    policy.insert(slot, told, step);
                    model.insert(slot, told);
                }
                0..4 => {
                    policy.update(slot, told, step);
                    model.insert(slot, told);
                }
                4..7 => policy.access(slot, step),
                7 => assert_eq!(
                    policy.remove(slot),
                    model.remove(&slot).is_some(),
                    "{kind} seed {seed}"
                ),
                8 => {
                    let urgent = policy.urgency(step);
                    assert!(urgent.is_none() || !model.is_empty(), "{kind} seed {seed}");
                    match policy.evict() {
                        Some(victim) => assert!(
                            model.remove(&victim).is_some(),
                            "{kind} seed {seed}: {victim} is not held"
                        ),
                        None => assert!(model.is_empty(), "{kind} seed {seed}"),
                    }
                }
                _ => policy.update(if held { slot } else { slots + slot }, told, step),
            }
            assert_eq!(policy.len(), model.len(), "{kind} seed {seed}");
            assert_eq!(policy.contains(slot), model.contains_key(&slot));
        }
        while let Some(victim) = policy.evict() {
            assert!(model.remove(&victim).is_some(), "{kind} seed {seed}");
        }
        assert!(model.is_empty() && policy.is_empty(), "{kind} seed {seed}");
    });
}

#[test]
fn an_empty_policy_holds_no_memory_and_a_full_one_little() {
    every(|kind, mut policy| {
        assert_eq!(policy.kind(), kind);
        assert_eq!(policy.bytes(), 0, "{kind}");
        for slot in 0..10_000 {
            policy.insert(slot, facts(u64::from(slot), 100), 0);
            policy.access(slot, 0);
        }
        let a_slot = policy.bytes() / 10_000;
        assert!((8..=44).contains(&a_slot), "{kind}: {a_slot} bytes a slot");
        while policy.evict().is_some() {}
        assert_eq!(policy.bytes(), 0, "{kind} after the last one left");
        assert_eq!(policy.urgency(0), None);
    });
}

/// Slots are given again to other keys as soon as they are free.
#[test]
fn a_slot_that_left_can_come_back_as_another_key() {
    every(|kind, mut policy| {
        for round in 0..100_u64 {
            policy.insert(3, facts(round, 10), round);
            assert_eq!(policy.evict(), Some(3), "{kind}");
            policy.insert(3, facts(round + 1_000, 10), round);
            assert!(policy.remove(3), "{kind}");
            assert!(!policy.remove(3) && policy.evict().is_none(), "{kind}");
        }
    });
}

/// What a policy does not hold it does not touch.
#[test]
fn calls_for_unknown_slots_do_nothing() {
    every(|kind, mut policy| {
        for slot in [0, 5, 1 << 20, u32::MAX] {
            policy.access(slot, 1);
            policy.update(slot, facts(1, 1), 1);
            assert!(!policy.remove(slot) && !policy.contains(slot), "{kind}");
        }
        assert_eq!((policy.len(), policy.bytes()), (0, 0), "{kind}");
    });
}

/// A loop through 200 keys of which 100 fit while 20 others are asked for between: all but random and those that only look at
/// the order of arrival or of use keep the 20.
#[test]
fn what_is_asked_for_often_stays_where_a_policy_says_so() {
    for kind in [
        PolicyKind::Lfu,
        PolicyKind::Size,
        PolicyKind::S3Fifo,
        PolicyKind::TinyLfu,
    ] {
        let mut cache = Cache::new(kind, 100);
        let mut hits = 0;
        for round in 0..3_000_u64 {
            cache.ask(1_000 + round % 200);
            let hot = cache.ask(round % 20);
            hits += u64::from(hot && round >= 1_000);
        }
        assert!(hits > 1_960, "{kind}: {hits} of 2000 for the hot keys");
    }
}

/// Yesterday's hot keys leave: after the keys that are asked for have changed, the new ones take the room.
#[test]
fn what_was_hot_once_leaves() {
    every(|kind, _| {
        if kind == PolicyKind::Random {
            return;
        }
        let mut cache = Cache::new(kind, 100);
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..50_000 {
            cache.ask(rng.u64(0..100));
        }
        let mut hits = 0;
        for turn in 0..50_000 {
            let hit = cache.ask(1_000 + rng.u64(0..100));
            hits += u64::from(hit && turn >= 40_000);
        }
        assert!(hits > 9_500, "{kind}: {hits} of 10000");
    });
}

#[test]
fn lru_is_exact() {
    let mut policy = PolicyKind::Lru.build(0);
    for slot in 0..5 {
        policy.insert(slot, facts(0, 1), u64::from(slot));
    }
    policy.access(0, 10);
    policy.update(2, facts(0, 1), 11);
    assert_eq!(policy.urgency(21), Some(20));
    let order: Vec<u32> = std::iter::from_fn(|| policy.evict()).collect();
    assert_eq!(order, [1, 3, 4, 0, 2]);
}

#[test]
fn lfu_counts_and_breaks_ties_by_age() {
    let mut policy = PolicyKind::Lfu.build(0);
    for slot in 0..4 {
        policy.insert(slot, facts(0, 1), 0);
    }
    for slot in [2, 2, 0, 3] {
        policy.access(slot, 5);
    }
    let order: Vec<u32> = std::iter::from_fn(|| policy.evict()).collect();
    assert_eq!(order, [1, 0, 3, 2]);
}

#[test]
fn the_nearest_expiry_goes_first_then_the_longest_unused() {
    let mut policy = PolicyKind::Ttl.build(0);
    let expiring = |at| Facts {
        expires_at: Some(at),
        ..facts(0, 1)
    };
    policy.insert(0, facts(0, 1), 0);
    policy.insert(1, expiring(500), 1);
    policy.insert(2, facts(0, 1), 2);
    policy.insert(3, expiring(300), 3);
    policy.insert(4, expiring(400), 4);
    let soon = policy.urgency(10);
    policy.update(3, facts(0, 1), 5);
    policy.update(2, expiring(450), 6);
    policy.access(0, 7);
    assert!(policy.urgency(10) < soon);
    let order: Vec<u32> = std::iter::from_fn(|| policy.evict()).collect();
    assert_eq!(order, [4, 2, 1, 3, 0]);
}

#[test]
fn the_largest_and_coldest_goes_first() {
    let mut policy = PolicyKind::Size.build(0);
    policy.insert(0, facts(0, 1_000), 0);
    policy.insert(1, facts(0, 100_000), 0);
    policy.insert(2, facts(0, 10_000), 0);
    policy.insert(3, facts(0, 9_000), 0);
    for _ in 0..20 {
        policy.access(1, 0);
    }
    policy.access(3, 0);
    let order: Vec<u32> = std::iter::from_fn(|| policy.evict()).collect();
    assert_eq!(order, [2, 1, 3, 0]);
}

#[test]
fn random_takes_each_about_as_often() {
    let mut policy = PolicyKind::Random.build(99);
    let mut taken = [0_u32; 10];
    for _ in 0..10_000 {
        for slot in 0..10 {
            if !policy.contains(slot) {
                policy.insert(slot, facts(0, 1), 0);
            }
        }
        taken[policy.evict().expect("ten are held") as usize] += 1;
    }
    assert!(
        taken.iter().all(|&times| (800..1_200).contains(&times)),
        "{taken:?}"
    );
}

#[test]
fn names_read_back() {
    for kind in PolicyKind::ALL {
        assert_eq!(kind.name().parse(), Ok(kind));
    }
    let error = "mru".parse::<PolicyKind>().expect_err("no policy");
    assert!(error.to_string().contains("expected one of lru, lfu"));
}

/// A cache of so many keys under a policy.
struct Cache {
    policy: Box<dyn Policy>,
    slots: HashMap<u64, u32>,
    keys: Vec<u64>,
    free: Vec<u32>,
    now: u64,
}

impl Cache {
    fn new(kind: PolicyKind, size: u32) -> Self {
        Self {
            policy: kind.build(1),
            slots: HashMap::new(),
            keys: vec![0; size as usize],
            free: (0..size).collect(),
            now: 0,
        }
    }

    /// Asks for a key and puts it in if it was not there; whether it was.
    fn ask(&mut self, key: u64) -> bool {
        self.now += 1;
        if let Some(slot) = self.slots.get(&key) {
            self.policy.access(*slot, self.now);
            return true;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            let victim = self.policy.evict().expect("the cache is full");
            self.slots.remove(&self.keys[victim as usize]);
            victim
        });
        self.keys[slot as usize] = key;
        self.slots.insert(key, slot);
        self.policy.insert(slot, facts(key, 1), self.now);
        false
    }
}
