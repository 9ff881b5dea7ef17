//! The engine's bounds on memory and time, driven by hand: every step is the same on every machine.

use bytes::Bytes;
use inflightkv_server::engine::drive::Driver;
use inflightkv_server::engine::{
    Change, Clock, Conditions, Durability, Engine, Lane, ManualClock, Memory, Options, Outcome,
    PolicyKind, PutTtl, Room, Value, Write, WriteError,
};
use std::sync::Arc;

const START: u64 = 1_700_000_000_000;

struct Store {
    clock: Arc<ManualClock>,
    engine: Engine,
    driver: Driver,
    lane: Lane,
}

impl Store {
    fn new(memory: Memory, partitions: usize) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let engine = Engine::open(Options {
            partitions,
            clock: clock.clone(),
            memory,
            ..Options::default()
        })
        .expect("sound options");
        engine.recover().expect("nothing to load");
        let driver = Driver::new(&engine).expect("the only driver");
        let lane = engine.lane(0);
        Self {
            clock,
            engine,
            driver,
            lane,
        }
    }

    fn put(&self, key: &str, bytes: usize, ttl: PutTtl) -> Result<Outcome, WriteError> {
        let value = Value {
            bytes: Bytes::from(vec![b'x'; bytes]),
            media_type: Some("text/plain".to_owned()),
        };
        let reply = self.lane.write(Write {
            key,
            conditions: Conditions::default(),
            change: Change::Put { value, ttl },
            durability: Durability::Default,
            returning: false,
            pin: None,
        })?;
        Ok(reply.value)
    }

    fn has(&self, key: &str) -> bool {
        self.lane.get(key).expect("it serves").value.is_some()
    }

    /// All background work there is.
    fn settle(&self) {
        loop {
            let watched = self.driver.watch_memory();
            let mut turned = false;
            while self.driver.turn_homes() {
                turned = true;
            }
            if !watched && !turned {
                return;
            }
        }
    }

    fn used(&self) -> u64 {
        self.engine.stats().memory.used
    }
}

fn memory(bytes_max: u64, policy: PolicyKind) -> Memory {
    Memory {
        bytes_max: Some(bytes_max),
        policy: Some(policy),
    }
}

/// What is accounted is what is held: after everything has gone, nothing is.
#[test]
fn every_byte_is_given_back() {
    for policy in PolicyKind::ALL {
        let store = Store::new(memory(1 << 20, policy), 16);
        for round in 0..3 {
            for number in 0..2_000 {
                let ttl = if number % 3 == 0 {
                    PutTtl::For(1_000)
                } else {
                    PutTtl::Clear
                };
                store
                    .put(&format!("{round}/{number}"), number % 700, ttl)
                    .expect("there is room or it is made");
                store.has(&format!("{round}/{}", number / 2));
            }
            store.clock.advance(2_000);
            store.settle();
        }
        let stats = store.engine.stats();
        assert!(
            stats.memory.used <= stats.memory.high.expect("a limit"),
            "{policy}"
        );
        store.engine.set_memory(Memory {
            bytes_max: Some(1),
            policy: Some(policy),
        });
        store.settle();
        let stats = store.engine.stats();
        assert_eq!(stats.total.entries, 0, "{policy}");
        assert_eq!(stats.total.entry_bytes, 0, "{policy}");
        assert_eq!(stats.memory.policies, 0, "{policy}");
        assert_eq!(stats.timer_bytes, 0, "{policy}");
    }
}

/// The order of the whole store, not of single partitions: with one victim at a time out of few partitions, LRU is exact.
#[test]
fn partitions_are_compared_by_what_wants_to_go_most() {
    let store = Store::new(memory(1 << 20, PolicyKind::Lru), 4);
    for number in 0..80 {
        store.clock.advance(10);
        store
            .put(&format!("key{number}"), 10_000, PutTtl::Clear)
            .expect("there is room");
    }
    store.settle();
    store.clock.advance(10);
    for number in (0..80).step_by(2) {
        store.clock.advance(1);
        assert!(store.has(&format!("key{number}")));
    }
    store.engine.set_memory(memory(440_000, PolicyKind::Lru));
    store.settle();
    let even = (0..80).step_by(2).filter(|n| store.has(&format!("key{n}")));
    let even = even.count();
    let odd = (1..80).step_by(2).filter(|n| store.has(&format!("key{n}")));
    let odd = odd.count();
    assert!(
        even >= 29 && odd <= 10,
        "{even} that were read, {odd} that were not"
    );
}

#[test]
fn a_write_past_the_limit_evicts_a_few_itself_and_is_refused_when_that_is_not_enough() {
    let store = Store::new(memory(1 << 20, PolicyKind::Lru), 4);
    // Nobody turns the background: writes are on their own, and small ones manage.
    for number in 0..3_000 {
        store
            .put(&format!("key{number}"), 1_000, PutTtl::Clear)
            .expect("a few victims are enough");
    }
    let stats = store.engine.stats().memory;
    assert!(
        stats.used <= (1 << 20) / 64 * 65 && stats.inline.entries > 1_000,
        "{stats:?}"
    );
    assert_eq!(stats.background.entries, 0);
    // A large one is not: eight victims at most, and it says so.
    let before = stats.inline.entries;
    let refused = store.put("large", 200_000, PutTtl::Clear);
    assert_eq!(
        refused.err(),
        Some(WriteError::MemoryFull { limit: 1 << 20 })
    );
    let stats = store.engine.stats().memory;
    assert_eq!((stats.inline.entries - before, stats.refused), (8, 1));
    // Asking for room step by step makes it, and so does the background.
    while store.lane.make_room(200_000) == Room::Later {}
    assert_eq!(store.lane.make_room(200_000), Room::There);
    assert!(store.put("large", 200_000, PutTtl::Clear).is_ok());
    store.settle();
    assert!(store.put("large too", 100_000, PutTtl::Clear).is_ok());
    // What can never fit evicts nothing.
    let before = store.engine.stats().memory.inline.entries;
    assert_eq!(store.lane.make_room(2 << 20), Room::Never);
    assert_eq!(store.engine.stats().memory.inline.entries, before);
}

/// A limit is not needed to follow a policy, and a policy not to have a limit.
#[test]
fn an_idle_monitor_has_nothing_to_do() {
    let store = Store::new(Memory::default(), 4);
    store.put("a", 10, PutTtl::Clear).expect("no limit");
    assert!(!store.driver.watch_memory());
    store.engine.set_memory(memory(1 << 20, PolicyKind::S3Fifo));
    store.settle();
    assert!(!store.driver.watch_memory() && !store.driver.turn_homes());
    assert!(store.engine.stats().memory.policies > 0);
    store.engine.set_memory(Memory {
        policy: None,
        bytes_max: Some(1 << 20),
    });
    store.settle();
    assert_eq!(
        store.engine.stats().memory.policies,
        0,
        "nothing is kept without a policy"
    );
}

/// Many keys due at once: each turn reclaims a bounded number, no key is seen after its instant, none goes before it, and
/// a timer in another partition is not held up until all are through.
#[test]
fn a_storm_of_expiries_is_taken_in_slices_and_in_turns() {
    let store = Store::new(Memory::default(), 8);
    let keys = 20_000;
    for number in 0..keys {
        store
            .put(
                &format!("storm{number}"),
                1,
                PutTtl::For(1_000 + number % 7),
            )
            .expect("no limit");
    }
    store.clock.advance(999);
    store.settle();
    assert_eq!(
        store.engine.stats().total.entries,
        keys as usize,
        "nothing is early"
    );
    store.clock.advance(7);
    for number in 0..keys {
        assert!(!store.has(&format!("storm{number}")), "hidden at once");
    }
    let mut before = store.engine.stats();
    let mut turns = 0;
    while store.driver.turn_homes() {
        let after = store.engine.stats();
        assert!(after.expired - before.expired <= 64, "a turn is bounded");
        // No partition is done while another has not begun.
        let held: Vec<usize> = after.partitions.iter().map(|p| p.stats.entries).collect();
        let (least, most) = (held.iter().min(), held.iter().max());
        assert!(most.unwrap_or(&0) - least.unwrap_or(&0) < 1_000, "{held:?}");
        before = after;
        turns += 1;
    }
    assert!(turns > 200, "{turns}");
    let stats = store.engine.stats();
    assert_eq!((stats.expired, stats.total.entries), (keys, 0));
    assert_eq!(stats.expiry_lag.counts.iter().sum::<u64>(), keys);
    assert!(stats.expiry_lag.max_ms <= 6);
}

/// A clock that was set ahead and back again: nothing that is not due goes, what is due goes, and timers set in between keep
/// their instants.
#[test]
fn clock_jumps_neither_expire_early_nor_keep_alive() {
    let store = Store::new(Memory::default(), 4);
    let hour = 3_600_000;
    store
        .put("minute", 1, PutTtl::For(60_000))
        .expect("no limit");
    store
        .put("day", 1, PutTtl::For(24 * hour))
        .expect("no limit");
    // Ahead by an hour: the minute has passed by this clock, the day has not.
    store.clock.set(START + hour);
    assert!(!store.has("minute") && store.has("day"));
    store.put("later", 1, PutTtl::For(1_000)).expect("no limit");
    store.settle();
    assert_eq!(store.engine.stats().expired, 1);
    // Back to where it was: `later` was given an instant an hour from here, and keeps it.
    store.clock.set(START + 10);
    store.settle();
    assert!(store.has("later") && store.has("day") && !store.has("minute"));
    store.put("soon", 1, PutTtl::For(500)).expect("no limit");
    store.clock.set(START + 509);
    store.settle();
    assert!(store.has("soon"), "not before its instant");
    store.clock.set(START + 510);
    assert!(!store.has("soon"), "hidden at its instant");
    store.settle();
    assert_eq!(store.engine.stats().expired, 2);
    store.clock.set(START + hour + 1_000);
    store.settle();
    assert!(!store.has("later") && store.has("day"));
    // Before the store began, and to the end of time.
    store.clock.set(0);
    store.settle();
    assert!(store.has("day"));
    store.clock.set(u64::MAX);
    store.settle();
    assert!(!store.has("day"));
    assert_eq!(store.engine.stats().total.entries, 0);
    assert_eq!(store.used(), store.engine.stats().total.table_bytes as u64);
    assert_eq!(store.clock.now(), u64::MAX);
}
