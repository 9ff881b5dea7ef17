//! Partitions: look-ups, writes, patches, pages.

use std::hint::black_box;
use std::ops::ControlFlow;

use foldhash::quality::FixedState;
use inflightkv_core::{
    Command, Conditions, Draft, DraftValue, Entry, Operation, Partition, Patch, PatchExpiry,
    PatchKind, PatchLimits, PutExpiry, Sequence, Slot, hash_key, merge, routing,
};

use crate::scenarios::{KEYS, NOW, Scenario, Work, key, value};

pub(super) const LIST: &[Scenario] = &[
    Scenario::new("core/get", 4_000, get),
    Scenario::new("core/put", 2_000, put),
    Scenario::new("core/patch", 2_000, patch),
    Scenario::new("core/scan-100", 200, scan),
    Scenario::new("core/route", 4_000, route),
    Scenario::new("core/merge-patch", 2_000, merge_patch),
    Scenario::new("core/json-patch", 2_000, json_patch),
];

const LIMITS: PatchLimits = PatchLimits {
    value_bytes_max: 1 << 20,
    depth_max: 128,
    inline_max: 16 << 10,
};

struct Store {
    partition: Partition<FixedState>,
    hasher: FixedState,
    sequence: u64,
}

impl Store {
    fn filled() -> Self {
        let hasher = FixedState::with_seed(1);
        let mut store = Self {
            partition: Partition::new(hasher.clone()),
            hasher,
            sequence: 0,
        };
        for number in 0..KEYS {
            store.put(&key(number), &value(number));
        }
        store
    }

    fn put(&mut self, key: &str, value: &str) {
        let draft = Entry::draft(&Draft {
            key,
            value: DraftValue::Copied(value.as_bytes()),
            media_type: None,
            crc: crc32fast::hash(value.as_bytes()),
            expires_at: None,
            reserve_expiry: false,
        })
        .expect("a small entry");
        let expiry = PutExpiry::Set;
        self.execute(
            key,
            Operation::Put {
                draft,
                expiry,
                compared: None,
            },
        );
    }

    fn execute(&mut self, key: &str, operation: Operation<'_>) {
        let command = Command {
            key,
            hash: hash_key(&self.hasher, key),
            conditions: Conditions::default(),
            operation,
        };
        let decision = self.partition.decide(command, NOW);
        let mutation = decision
            .mutation
            .expect("every write here changes something");
        self.sequence += 1;
        black_box(
            self.partition
                .apply(mutation, Sequence::from_raw(self.sequence)),
        );
    }
}

/// Numbers from 0 to `KEYS`, over and over, neighbours far from each other.
fn numbers() -> impl FnMut() -> usize {
    let mut count = 0_usize;
    move || {
        count += 1;
        count.wrapping_mul(1_031) % KEYS
    }
}

fn get() -> Work {
    let (store, mut number) = (Store::filled(), numbers());
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    Box::new(move || {
        let key = &keys[number()];
        let hash = hash_key(&store.hasher, key);
        let entry = store.partition.get(key, hash, NOW).expect("it was put");
        black_box(entry.stored());
    })
}

fn put() -> Work {
    let (mut store, mut number) = (Store::filled(), numbers());
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let values: Vec<String> = (KEYS..3 * KEYS + 1).map(value).collect();
    let mut count = 0;
    Box::new(move || {
        count += 1;
        store.put(&keys[number()], &values[count % values.len()]);
    })
}

fn patch() -> Work {
    let (mut store, mut number) = (Store::filled(), numbers());
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let documents: Vec<String> = (0..2 * KEYS + 1)
        .map(|number| format!(r#"{{"rev":"{:016x}"}}"#, number + 7 * KEYS))
        .collect();
    let mut count = 0;
    Box::new(move || {
        count += 1;
        let operation = Operation::Patch(Patch {
            pin: None,
            kind: PatchKind::Merge,
            document: documents[count % documents.len()].as_bytes(),
            expiry: PatchExpiry::Keep,
            limits: LIMITS,
            prepared: None,
        });
        store.execute(&keys[number()], operation);
    })
}

fn scan() -> Work {
    let store = Store::filled();
    let mut from = Slot::new(0);
    Box::new(move || {
        let mut seen = 0;
        let next = store.partition.scan(from, 100, "key:", NOW, |entry| {
            black_box(entry.key_bytes());
            seen += 1;
            ControlFlow::Continue(())
        });
        black_box(seen);
        from = next.unwrap_or(Slot::new(0));
    })
}

fn route() -> Work {
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let mut number = numbers();
    Box::new(move || {
        let hash = routing::route(keys[number()].as_bytes());
        black_box(routing::partition_of(hash, 7));
    })
}

fn patched(kind: PatchKind, patch: &'static str) -> Work {
    let stored = br#"{"a":1,"b":{"c":[1,2,3],"d":"text"},"e":"0123456789abcdef","f":null,"g":[{"h":1},{"h":2}]}"#;
    Box::new(move || {
        let result = merge::patched(kind, Some(black_box(stored)), patch.as_bytes(), &LIMITS);
        black_box(result.expect("it fits the document"));
    })
}

fn merge_patch() -> Work {
    patched(
        PatchKind::Merge,
        r#"{"a":2,"b":{"d":null,"x":[4]},"z":"new"}"#,
    )
}

fn json_patch() -> Work {
    patched(
        PatchKind::Json,
        r#"[{"op":"replace","path":"/a","value":2},{"op":"remove","path":"/b/c/1"},{"op":"add","path":"/g/-","value":{"h":3}}]"#,
    )
}
