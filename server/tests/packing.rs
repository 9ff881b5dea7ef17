//! Cold small values packed together, and keys by their shared prefixes: whatever is written, read, evicted, expires or is
//! switched meanwhile, every key and value comes back byte for byte, and what is counted is what is there.

use inflightkv_server::engine::drive::Driver;
use inflightkv_server::engine::{
    Change, Compression, CompressionMode, CompressionStats, Conditions, Disk, Durability, Engine,
    EvictState, Eviction, Lane, ManualClock, Memory, Options, Outcome, PatchKind, PatchTtl,
    Persistence, PolicyKind, PutTtl, Scan, SnapshotKind, Value, Write,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const MODES: [CompressionMode; 5] = [
    CompressionMode::Off,
    CompressionMode::Lz4,
    CompressionMode::Snappy,
    CompressionMode::Zstd,
    CompressionMode::Adaptive,
];
const COLD_MS: u64 = 30_000;

fn packing(mode: CompressionMode) -> Compression {
    Compression {
        mode,
        batches: true,
        cold_after_ms: COLD_MS,
        ..Compression::default()
    }
}

/// A store driven by hand, beside what it has to hold: value, media type and expiry by key.
struct Store {
    engine: Engine,
    lane: Lane,
    driver: Driver,
    clock: Arc<ManualClock>,
    model: BTreeMap<String, Held>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    value: Vec<u8>,
    media_type: Option<String>,
    expires_at: Option<u64>,
}

impl Store {
    fn open(
        compression: Compression,
        partitions: usize,
        folder: Option<&Path>,
        clock: &Arc<ManualClock>,
    ) -> Self {
        let engine = Engine::open(Options {
            partitions,
            compression,
            persistence: folder
                .map(|folder| Persistence::on(Disk::open(folder).expect("the folder opens"))),
            clock: Arc::clone(clock) as _,
            ..Options::default()
        })
        .expect("sound options");
        engine.recover().expect("what is on disk loads");
        Self {
            driver: Driver::new(&engine).expect("nobody else drives it"),
            lane: engine.lane(0),
            engine,
            clock: Arc::clone(clock),
            model: BTreeMap::new(),
        }
    }

    fn in_memory(mode: CompressionMode) -> Self {
        let clock = Arc::new(ManualClock::new(1_000_000));
        Self::open(packing(mode), 2, None, &clock)
    }

    fn now(&self) -> u64 {
        use inflightkv_server::engine::Clock;
        self.clock.now()
    }

    fn write(&self, key: &str, change: Change) -> Outcome {
        let write = Write {
            pin: None,
            key,
            conditions: Conditions::default(),
            change,
            durability: Durability::Default,
            returning: true,
        };
        self.lane
            .write(write)
            .expect("the store takes writes")
            .value
    }

    fn put(&mut self, key: &str, value: &[u8], media_type: Option<&str>, ttl: Option<u64>) {
        let held = Held {
            value: value.to_vec(),
            media_type: media_type.map(str::to_owned),
            expires_at: ttl.map(|ttl| self.now() + ttl),
        };
        let value = Value {
            bytes: value.to_vec().into(),
            media_type: held.media_type.clone(),
        };
        let ttl = ttl.map_or(PutTtl::Clear, PutTtl::For);
        self.write(key, Change::Put { value, ttl });
        self.model.insert(key.to_owned(), held);
    }

    /// What is visible of the model.
    fn forget_expired(&mut self) {
        let now = self.now();
        self.model
            .retain(|_, held| held.expires_at.is_none_or(|at| at > now));
    }

    fn check(&mut self, key: &str) {
        self.forget_expired();
        let document = self.lane.get(key).expect("it serves").value;
        let found = document.map(|document| Held {
            value: document.value.to_vec(),
            media_type: document.media_type,
            expires_at: document.expires_at,
        });
        assert_eq!(found.as_ref(), self.model.get(key), "{key}");
    }

    fn listed(&self, prefix: &str) -> BTreeMap<String, Held> {
        let mut found = BTreeMap::new();
        let scan = Scan {
            prefix,
            from: None,
            examine_max: usize::MAX,
            values: true,
        };
        let end = self.lane.scan(&scan, &mut |row| {
            assert!(row.is_sound(), "{}", row.key);
            let held = Held {
                value: row.value.to_vec(),
                media_type: row.media_type.map(str::to_owned),
                expires_at: row.expires_at,
            };
            assert!(found.insert(row.key.to_owned(), held).is_none());
            ControlFlow::Continue(())
        });
        assert!(end.expect("it serves").is_none());
        found
    }

    fn check_all(&mut self) {
        self.forget_expired();
        assert_eq!(self.listed(""), self.model);
        self.driver.check_accounts().expect("it adds up");
    }

    /// Everything is read back, on disk as well: not for every step.
    fn verify(&self) {
        let report = self.engine.verify();
        assert!(report.is_sound(), "{report:?}");
        assert!(report.entries >= self.model.len() as u64);
    }

    /// What the store let go for memory goes from the model as well.
    fn after_eviction(&mut self, evicted: u64) {
        self.forget_expired();
        let there = self.listed("");
        let before = self.model.len();
        self.model.retain(|key, _| there.contains_key(key));
        assert!((before - self.model.len()) as u64 <= evicted);
        self.check_all();
    }

    fn stats(&self) -> CompressionStats {
        self.engine.stats().compression
    }

    /// Passes until nothing changes any more.
    fn settle(&self) {
        for _ in 0..20 {
            if !self.driver.compress() {
                return;
            }
        }
        panic!("compression does not come to an end");
    }

    /// Everything that is there becomes cold, and is packed.
    fn cool(&self) {
        self.settle();
        self.clock.advance(COLD_MS);
        self.settle();
    }

    fn set(&self, compression: Compression) {
        self.engine
            .set_compression(compression)
            .expect("no thread is needed");
    }

    fn turn(&mut self) {
        self.driver.write_log();
        self.driver.checkpoint();
        self.driver.turn_homes();
    }

    fn snapshot(&mut self, kind: SnapshotKind) {
        let id = self.engine.request_snapshot(kind).expect("it is durable");
        for _ in 0..100_000 {
            self.turn();
            if let Some(outcome) = self.engine.snapshot_outcome(id) {
                outcome.expect("it stands");
                return;
            }
        }
        panic!("the snapshot does not come to an end");
    }
}

fn job(random: &mut fastrand::Rng, number: usize) -> String {
    format!(
        r#"{{"name":"Job-{number}","url":"https://builds.example.org/job/Job-{number}/","color":"{}"}}"#,
        ["blue", "red", "disabled", "notbuilt"][random.usize(..4)]
    )
}

fn filled(mode: CompressionMode, count: usize) -> Store {
    let mut store = Store::in_memory(mode);
    let mut random = fastrand::Rng::with_seed(1);
    for number in 0..count {
        let value = job(&mut random, number);
        store.put(&format!("job/{number}"), value.as_bytes(), None, None);
    }
    store
}

#[test]
fn cold_values_take_less_together_than_alone() {
    for mode in MODES {
        let mut store = filled(mode, 1500);
        store.settle();
        assert_eq!(store.stats().blocks.values, 0, "nothing is cold yet");
        let alone = store.engine.stats().memory.used;
        store.cool();
        let stats = store.stats();
        if mode == CompressionMode::Off {
            assert_eq!(stats.blocks.blocks, 0);
            continue;
        }
        assert!(stats.blocks.values > 1300, "{mode:?}: {stats:?}");
        assert_eq!(stats.blocks.holes, 0);
        assert!(stats.batches_saved_bytes() > 0, "{mode:?}: {stats:?}");
        let together = store.engine.stats().memory.used;
        assert!(together < alone, "{mode:?}: {alone} before, {together} now");
        store.check_all();
        for number in 0..1500 {
            store.check(&format!("job/{number}"));
        }
        // Once read, they stay.
        store.settle();
        assert_eq!(store.stats().unpacked, 0);
        store.check_all();
    }
}

#[test]
fn what_is_read_twice_is_taken_out_and_packed_again_when_it_is_cold() {
    let mut store = filled(CompressionMode::Adaptive, 1500);
    store.cool();
    let packed = store.stats().blocks.values;
    for number in (0..1500).step_by(100) {
        store.check(&format!("job/{number}"));
        store.check(&format!("job/{number}"));
    }
    store.driver.compress();
    let stats = store.stats();
    assert!((1..=15).contains(&stats.unpacked), "{stats:?}");
    assert_eq!(stats.blocks.values + stats.unpacked as usize, packed);
    assert_eq!(stats.blocks.holes as u64, stats.unpacked);
    store.check_all();
    // Written ones leave holes as well, at once.
    let mut random = fastrand::Rng::with_seed(2);
    for number in (1..1500).step_by(100) {
        let value = job(&mut random, number + 1_000_000);
        store.put(&format!("job/{number}"), value.as_bytes(), None, None);
    }
    assert!(store.stats().blocks.holes > stats.blocks.holes);
    store.check_all();
}

/// Most of what was packed goes: the rest moves together, and the memory comes back.
#[test]
fn holes_are_compacted_and_empty_blocks_go() {
    let mut store = filled(CompressionMode::Adaptive, 3000);
    store.cool();
    let before = store.stats().blocks;
    for number in 0..3000 {
        if number % 4 > 0 {
            let key = format!("job/{number}");
            assert!(matches!(
                store.write(&key, Change::Delete),
                Outcome::Deleted(_)
            ));
            store.model.remove(&key);
        }
    }
    assert!(store.stats().blocks.sparse > 0);
    store.check_all();
    store.settle();
    let after = store.stats().blocks;
    assert_eq!(after.sparse, 0);
    assert!(
        after.block_bytes * 3 < before.block_bytes,
        "{before:?} {after:?}"
    );
    store.check_all();
    // And what is less than a block is stored alone again.
    for number in (0..3000).step_by(4).skip(8) {
        let key = format!("job/{number}");
        store.write(&key, Change::Delete);
        store.model.remove(&key);
    }
    store.cool();
    assert_eq!(store.stats().blocks, Default::default());
    store.check_all();
}

#[test]
fn switched_off_everything_leaves_its_block() {
    let mut store = filled(CompressionMode::Adaptive, 1500);
    store.cool();
    store.set(Compression {
        batches: false,
        ..packing(CompressionMode::Adaptive)
    });
    store.settle();
    let stats = store.stats();
    assert_eq!(stats.blocks, Default::default());
    let alone: usize = stats.codecs.iter().map(|(_, share)| share.entries).sum();
    assert_eq!(alone, 1500, "each is compressed alone again");
    store.check_all();
    store.set(packing(CompressionMode::Adaptive));
    store.cool();
    assert!(store.stats().blocks.values > 1300);
    store.set(packing(CompressionMode::Off));
    store.settle();
    assert_eq!(store.stats().blocks, Default::default());
    store.check_all();
}

fn keys_only() -> Compression {
    Compression {
        keys: true,
        ..Compression::default()
    }
}

/// Keys lose what they share, and are found, listed, changed, removed and told of by their text.
#[test]
fn keys_that_share_prefixes_take_less() {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let mut store = Store::open(keys_only(), 2, None, &clock);
    for number in 0..3000 {
        store.put(&key(number), b"{}", None, None);
    }
    let long = format!("user:{}", "x".repeat(1000));
    store.put(&long, b"1", None, None);
    let before = store.engine.stats();
    store.settle();
    let after = store.engine.stats();
    let keys = after.compression.keys;
    assert_eq!(after.sequence, before.sequence, "no change of any key");
    assert_eq!(
        keys.keys, 2400,
        "all but those without a prefix, and the very long one"
    );
    assert_eq!(keys.partitions, 2);
    // user: is 5 bytes and so on.
    assert_eq!(keys.saved_bytes, 600 * (4 + 10 + 17 + 8));
    // Entries are laid out in steps of a few bytes.
    let gained = before.total.entry_bytes - after.total.entry_bytes;
    assert!(
        gained * 10 > keys.saved_bytes * 9,
        "{gained} of {}",
        keys.saved_bytes
    );
    let less = before.memory.used.saturating_sub(after.memory.used) as usize;
    assert!(less + keys.bytes > gained / 2, "{less} of {gained}");
    store.check_all();
    store.verify();
    for number in 0..3000 {
        store.check(&key(number));
    }
    for prefix in [
        "u",
        "user:",
        "user:1",
        "user:admin:2",
        "gsoc/2018/pro",
        "клю",
        "ключ/3",
        "x",
    ] {
        let mut wanted = store.model.clone();
        wanted.retain(|key, _| key.starts_with(prefix));
        assert_eq!(store.listed(prefix), wanted, "{prefix:?}");
    }
    for number in (0..3000).step_by(7) {
        let key = key(number);
        if number % 2 == 0 {
            assert!(matches!(
                store.write(&key, Change::Delete),
                Outcome::Deleted(_)
            ));
            store.model.remove(&key);
        } else {
            store.put(&key, b"[2]", None, None);
        }
    }
    store.check_all();
    store.settle();
    store.check_all();
    store.set(Compression::default());
    store.settle();
    assert_eq!(store.stats().keys, Default::default());
    store.check_all();
}

/// Other keys come: their prefixes are learned as well, and take the codes of those that are gone.
#[test]
fn prefixes_come_and_go() {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let mut store = Store::open(keys_only(), 1, None, &clock);
    let mut before: Vec<String> = Vec::new();
    for generation in 0..12 {
        let mut keys = Vec::new();
        for number in 0..640 {
            // Sixteen prefixes in each generation: more than there are codes in all.
            let key = format!("generation-{generation}/{:02}/{number}", number % 16);
            store.put(&key, b"{}", None, None);
            keys.push(key);
        }
        store.settle();
        assert!(store.stats().keys.keys > 600, "{:?}", store.stats().keys);
        assert!(store.stats().keys.prefixes <= 64);
        store.check_all();
        for key in std::mem::replace(&mut before, keys) {
            store.write(&key, Change::Delete);
            store.model.remove(&key);
        }
        store.check_all();
    }
}

/// Values that get no smaller together are left, and not tried again and again.
#[test]
fn noise_is_not_packed() {
    let mut store = Store::in_memory(CompressionMode::Zstd);
    let mut random = fastrand::Rng::with_seed(1);
    for number in 0..500 {
        let noise: Vec<u8> = (0..100).map(|_| random.u8(..)).collect();
        let media_type = Some("application/octet-stream");
        store.put(&format!("noise/{number}"), &noise, media_type, None);
    }
    store.cool();
    let stats = store.stats();
    assert_eq!((stats.blocks.blocks, stats.packed), (0, 0));
    assert!(stats.failed > 400, "{stats:?}");
    store.put("another", b"1", None, None);
    store.cool();
    assert_eq!(store.stats().failed, stats.failed, "once is enough");
    store.check_all();
}

/// A snapshot holds blocks alive as long as it has yet to meet a value in them, given up or not.
#[test]
fn a_walk_meets_packed_values_that_are_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Arc::new(ManualClock::new(1_000_000));
    let mut store = Store::open(
        packing(CompressionMode::Adaptive),
        1,
        Some(folder.path()),
        &clock,
    );
    let mut random = fastrand::Rng::with_seed(1);
    for number in 0..2000 {
        let value = job(&mut random, number);
        store.put(&format!("job/{number}"), value.as_bytes(), None, None);
    }
    store.cool();
    let before = store.stats().blocks;
    assert!(before.values > 1500);
    let kept = store.model.clone();
    let id = store
        .engine
        .request_snapshot(SnapshotKind::Full)
        .expect("it is durable");
    let mut went = false;
    for _ in 0..100_000 {
        store.turn();
        if !went && store.engine.stats().total.frozen_bytes > 0 {
            went = true;
            for key in kept.keys() {
                store.write(key, Change::Delete);
            }
            store.model.clear();
            let blocks = store.stats().blocks;
            assert!(blocks.values > 0, "the walk needs them: {blocks:?}");
        }
        if store.engine.snapshot_outcome(id).is_some() {
            break;
        }
    }
    assert!(went);
    let outcome = store.engine.snapshot_outcome(id).expect("it ends");
    assert_eq!(outcome.expect("it stands").entries, 2000);
    assert_eq!(store.stats().blocks, Default::default());
    store.check_all();
    store.driver.write_log();
    store.driver.close().expect("the log is completed");
}

/// Everything at once, from one seed, against a plain map; over restarts with other numbers of partitions.
#[test]
fn every_history_is_that_of_a_plain_map() {
    for seed in 0..3 {
        println!("seed {seed}");
        history(seed);
    }
}

fn history(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Arc::new(ManualClock::new(1_000_000));
    let folder = seed.is_multiple_of(2).then_some(folder.path());
    let mut model = BTreeMap::new();
    let (mut packed, mut coded) = (0, 0);
    for _ in 0..if folder.is_some() { 3 } else { 1 } {
        let partitions = 1 << random.u8(..4);
        let mut store = Store::open(settings(&mut random), partitions, folder, &clock);
        store.model = std::mem::take(&mut model);
        store.check_all();
        let policy = random.choice([None, Some(PolicyKind::Lru), Some(PolicyKind::S3Fifo)]);
        store.engine.set_memory(Memory {
            bytes_max: None,
            policy: policy.flatten(),
        });
        for _ in 0..800 {
            step(&mut store, &mut random, folder.is_some());
        }
        store.check_all();
        store.cool();
        store.check_all();
        store.verify();
        packed += store.stats().packed;
        coded += store.stats().rekeyed;
        store.set(packing(CompressionMode::Off));
        // What has expired and was not reclaimed yet is nobody's to look at.
        while store.driver.turn_homes() {}
        store.settle();
        let stats = store.stats();
        assert_eq!(stats.blocks, Default::default());
        assert_eq!(stats.keys, Default::default());
        store.check_all();
        store.verify();
        model = store.model;
        store.driver.write_log();
        store.driver.close().expect("the log is completed");
    }
    assert!(packed > 100, "{packed} values were packed");
    assert!(coded > 100, "{coded} keys were coded");
}

fn settings(random: &mut fastrand::Rng) -> Compression {
    let first = usize::from(random.u8(..4) > 0);
    Compression {
        mode: MODES[random.usize(first..MODES.len())],
        value_bytes_min: random.usize(..150),
        dictionaries: random.bool(),
        batches: random.u8(..4) > 0,
        cold_after_ms: random.u64(..COLD_MS),
        keys: random.bool(),
        cpu_percent: 100,
    }
}

/// Some share long prefixes, some short ones, some none.
fn key(number: usize) -> String {
    let prefix = ["", "user:", "user:admin:", "gsoc/2018/project/", "ключ/"][number % 5];
    format!("{prefix}{number}")
}

fn step(store: &mut Store, random: &mut fastrand::Rng, durable: bool) {
    let number = random.usize(..600);
    let key = key(number);
    match random.u8(..40) {
        0..=14 => {
            let ttl = (random.u8(..6) == 0).then(|| random.u64(1..200_000));
            // Many at a time: there have to be enough for blocks.
            for number in number..number + random.usize(1..20) {
                let value = match random.u8(..12) {
                    0 => random.usize(..1000).to_string(),
                    1 => format!("\"{}\"", "x".repeat(random.usize(..5000))),
                    _ => job(random, number),
                };
                store.put(&self::key(number), value.as_bytes(), None, ttl);
            }
        }
        15 => {
            let noise: Vec<u8> = (0..random.usize(1..3000)).map(|_| random.u8(..)).collect();
            store.put(&key, &noise, Some("application/octet-stream"), None);
        }
        16 => {
            store.write(&key, Change::Delete);
            store.model.remove(&key);
        }
        17 => {
            store.forget_expired();
            if let Some(held) = store.model.get(&key).cloned()
                && held.expires_at.is_none()
            {
                let value = Value {
                    bytes: held.value.clone().into(),
                    media_type: held.media_type.clone(),
                };
                let ttl = PutTtl::Clear;
                let outcome = store.write(&key, Change::Put { value, ttl });
                assert!(matches!(outcome, Outcome::Unchanged(_)), "{outcome:?}");
            }
        }
        18 | 19 => {
            let (kind, patch) = if random.bool() {
                (PatchKind::Merge, r#"{"color":null,"x":[1]}"#.to_owned())
            } else {
                let patch = format!(r#"[{{"op":"add","path":"/n","value":{number}}}]"#);
                (PatchKind::Json, patch)
            };
            let ttl = PatchTtl::Keep;
            let patch = patch.into();
            if let Outcome::Changed(stored) | Outcome::Created(stored) =
                store.write(&key, Change::Patch { kind, patch, ttl })
            {
                let document = stored.document.expect("asked for");
                assert_eq!(crc32fast::hash(&document.value), document.crc);
                let held = Held {
                    value: document.value.to_vec(),
                    media_type: None,
                    expires_at: stored.expires_at,
                };
                store.model.insert(key, held);
            }
        }
        20..=27 => store.check(&key),
        28..=32 => _ = store.driver.compress(),
        33 | 34 => store.clock.advance(random.u64(..COLD_MS)),
        35 => {
            if random.u8(..4) == 0 {
                store.set(settings(random));
            }
        }
        36 => {
            let mut eviction = Eviction {
                wanted: random.u64(..3000),
                ..Eviction::default()
            };
            while store.lane.evict(&mut eviction) == EvictState::More {}
            store.after_eviction(eviction.entries);
        }
        37 => {
            if durable && random.u8(..4) == 0 {
                store.snapshot(if random.bool() {
                    SnapshotKind::Full
                } else {
                    SnapshotKind::Incremental
                });
            }
        }
        38 => store.turn(),
        _ => {
            store.check_all();
            let key = key.get(..random.usize(..key.len())).unwrap_or("");
            let mut wanted = store.model.clone();
            wanted.retain(|other, _| other.starts_with(key));
            assert_eq!(store.listed(key), wanted, "{key:?}");
        }
    }
}
