//! Every eviction policy: what it costs to be told of uses, and to say who goes.

use std::hint::black_box;

use inflightkv_eviction::{Facts, PolicyKind};

use crate::scenarios::{KEYS, NOW, Scenario, Work};

pub(super) const LIST: &[Scenario] = &[
    Scenario::new("eviction/lru", 4_000, || work(PolicyKind::Lru)),
    Scenario::new("eviction/lfu", 4_000, || work(PolicyKind::Lfu)),
    Scenario::new("eviction/ttl", 4_000, || work(PolicyKind::Ttl)),
    Scenario::new("eviction/size", 4_000, || work(PolicyKind::Size)),
    Scenario::new("eviction/random", 4_000, || work(PolicyKind::Random)),
    Scenario::new("eviction/s3-fifo", 4_000, || work(PolicyKind::S3Fifo)),
    Scenario::new("eviction/tiny-lfu", 4_000, || work(PolicyKind::TinyLfu)),
];

/// Four uses, one change, one victim and the newcomer that takes its place, among four thousand.
fn work(kind: PolicyKind) -> Work {
    let mut policy = kind.build(1);
    let mut random = fastrand::Rng::with_seed(1);
    let slots = u32::try_from(KEYS).expect("a few thousand");
    let mut now = NOW;
    for slot in 0..slots {
        policy.insert(slot, facts(u64::from(slot), now), now);
    }
    let mut keys = u64::from(slots);
    Box::new(move || {
        now += 1;
        for _ in 0..4 {
            // The smaller of two is the more popular one, so that policies have something to tell apart.
            policy.access(random.u32(..slots).min(random.u32(..slots)), now);
        }
        let slot = random.u32(..slots);
        policy.update(slot, facts(u64::from(slot), now), now);
        let victim = black_box(policy.evict()).expect("thousands are held");
        keys += 1;
        policy.insert(victim, facts(keys, now), now);
    })
}

/// Weights of a hundred bytes to a kilobyte; every other entry expires.
fn facts(key: u64, now: u64) -> Facts {
    let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Facts {
        hash,
        weight: 100 + (hash >> 54) as u32,
        expires_at: key.is_multiple_of(2).then_some(now + 1 + (hash >> 44)),
    }
}
