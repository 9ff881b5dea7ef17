//! The store as a whole, without HTTP: what a request costs once it is understood.

use std::hint::black_box;
use std::sync::Arc;

use inflightkv_server::engine::{
    Change, Conditions, Durability, Engine, Lane, ManualClock, Options, PutTtl, Value, Write,
};

use crate::scenarios::{KEYS, NOW, Scenario, Work, key, value};

pub(super) const LIST: &[Scenario] = &[
    Scenario::new("engine/get", 4_000, get),
    Scenario::new("engine/put", 2_000, put),
];

/// The engine is kept, for its lanes work on it.
fn filled() -> (Engine, Lane) {
    let engine = Engine::open(Options {
        clock: Arc::new(ManualClock::new(NOW)),
        ..Options::default()
    })
    .expect("the options are the default ones");
    engine.recover().expect("there is nothing to recover");
    let lane = engine.lane(0);
    for number in 0..KEYS {
        write(&lane, &key(number), &value(number));
    }
    (engine, lane)
}

fn write(lane: &Lane, key: &str, value: &str) {
    let reply = lane.write(Write {
        pin: None,
        key,
        conditions: Conditions::default(),
        change: Change::Put {
            value: Value {
                bytes: value.to_owned().into(),
                media_type: None,
            },
            ttl: PutTtl::Clear,
        },
        durability: Durability::Default,
        returning: false,
    });
    black_box(reply.expect("the store takes it"));
}

fn get() -> Work {
    let (engine, lane) = filled();
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let mut count = 0_usize;
    Box::new(move || {
        let _engine = &engine;
        count += 1;
        let found = lane.get(&keys[count.wrapping_mul(1_031) % KEYS]);
        black_box(
            found
                .expect("the store is ready")
                .value
                .expect("it was put"),
        );
    })
}

fn put() -> Work {
    let (engine, lane) = filled();
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let mut count = 0_usize;
    Box::new(move || {
        let _engine = &engine;
        count += 1;
        let number = count.wrapping_mul(1_031) % KEYS;
        write(&lane, &keys[number], &value(KEYS + count));
    })
}
