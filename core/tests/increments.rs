//! An increment looks at what was changed and at little else, and still misses nothing.

use inflightkv_core::{FrozenItem, Partition, Sequence, WalkState};
use std::collections::{BTreeMap, HashMap};
use std::hash::RandomState;
use std::ops::ControlFlow;

type Store = Partition<RandomState>;

struct Model {
    store: Store,
    hasher: RandomState,
    last: u64,
}

impl Model {
    fn new() -> Self {
        let hasher = RandomState::new();
        Self {
            store: Partition::new(hasher.clone()),
            hasher,
            last: 0,
        }
    }

    fn put(&mut self, key: &str) {
        self.last += 1;
        let value = self.last.to_string();
        let loaded = inflightkv_core::LoadedEntry {
            key,
            value: value.as_bytes(),
            media_type: None,
            crc: crc32fast::hash(value.as_bytes()),
            version: 0,
            sequence: Sequence::from_raw(self.last),
            expires_at: None,
            pinned: false,
        };
        let hash = inflightkv_core::hash_key(&self.hasher, key);
        self.store.load(hash, &loaded).expect("a newer entry");
    }

    /// Everything a snapshot above `since` holds, and how many steps that took.
    fn snapshot(&mut self, since: Option<u64>) -> (BTreeMap<String, u64>, usize) {
        let cut = Sequence::from_raw(self.last);
        self.store.freeze(cut, since.map(Sequence::from_raw));
        self.store.keep_tombstones(true);
        let (mut found, mut steps, mut spent) = (BTreeMap::new(), 0, Vec::new());
        loop {
            steps += 1;
            let state = self.store.walk(1, &mut spent, |item| {
                match item {
                    FrozenItem::Entry(entry) => {
                        let key = entry.whole_key().expect("no key is coded here");
                        found.insert(key.to_owned(), entry.sequence().get());
                    }
                    FrozenItem::Tombstone { .. } => panic!("nothing was removed"),
                }
                ControlFlow::Continue(())
            });
            if state == WalkState::Done {
                break;
            }
        }
        self.store.thaw();
        (found, steps)
    }
}

#[test]
fn one_percent_changed_is_three_percent_of_the_walk_at_most() {
    let mut model = Model::new();
    for n in 0..20_000 {
        model.put(&format!("key{n}"));
    }
    let (all, full) = model.snapshot(None);
    assert_eq!((all.len(), full), (20_000, 20_001));
    let base = model.last;
    model.store.forget_tombstones(Sequence::from_raw(base));
    for n in (0..20_000).step_by(100) {
        model.put(&format!("key{n}"));
    }
    assert_eq!(model.store.changed(), Some(200));
    let (changed, steps) = model.snapshot(Some(base));
    assert_eq!(changed.len(), 200);
    assert!(steps * 100 <= full * 3, "{steps} steps, {full} for all");
}

/// Full and incremental snapshots that stand or fail, in any order, over changes: each increment holds exactly what was
/// changed after the last that stands.
#[test]
fn increments_miss_nothing_whether_or_not_the_ones_before_stand() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut model = Model::new();
        let mut last: HashMap<String, u64> = HashMap::new();
        let mut base = None;
        for _ in 0..30 {
            for _ in 0..random.usize(..60) {
                let key = format!("key{}", random.u32(..300));
                model.put(&key);
                last.insert(key, model.last);
            }
            let since = base.filter(|_| random.u32(..4) > 0);
            let (found, _) = model.snapshot(since);
            let expected: BTreeMap<String, u64> = last
                .iter()
                .filter(|(_, sequence)| since.is_none_or(|since| **sequence > since))
                .map(|(key, sequence)| (key.clone(), *sequence))
                .collect();
            assert_eq!(found, expected, "seed {seed}");
            if random.bool() {
                base = Some(model.last);
                model
                    .store
                    .forget_tombstones(Sequence::from_raw(model.last));
            }
        }
    }
}
