//! Compression that nobody notices: whatever is switched when, every value comes back byte for byte, and versions, tags
//! and files are those of a store that never compressed anything.

use inflightkv_server::engine::drive::Driver;
use inflightkv_server::engine::{
    Change, Compression, CompressionMode, CompressionStats, Conditions, Disk, Durability, Engine,
    Lane, Options, Outcome, PatchKind, PatchTtl, Persistence, PutTtl, Scan, SnapshotKind, Value,
    Write,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

const MODES: [CompressionMode; 5] = [
    CompressionMode::Off,
    CompressionMode::Lz4,
    CompressionMode::Snappy,
    CompressionMode::Zstd,
    CompressionMode::Adaptive,
];

fn set_to(mode: CompressionMode) -> Compression {
    Compression {
        mode,
        ..Compression::default()
    }
}

struct Store {
    engine: Engine,
    lane: Lane,
    driver: Driver,
}

impl Store {
    fn open(mode: CompressionMode, persistence: Option<Persistence>) -> Self {
        let engine = Engine::open(Options {
            partitions: 4,
            compression: set_to(mode),
            persistence,
            ..Options::default()
        })
        .expect("sound options");
        engine.recover().expect("what is on disk loads");
        let driver = Driver::new(&engine).expect("nobody else drives it");
        let lane = engine.lane(0);
        Self {
            engine,
            lane,
            driver,
        }
    }

    fn write(&self, key: &str, change: Change, returning: bool) -> Outcome {
        let write = Write {
            pin: None,
            key,
            conditions: Conditions::default(),
            change,
            durability: Durability::Default,
            returning,
        };
        self.lane
            .write(write)
            .expect("the store takes writes")
            .value
    }

    fn put(&self, key: &str, value: &[u8], media_type: Option<&str>) -> Outcome {
        let value = Value {
            bytes: value.to_vec().into(),
            media_type: media_type.map(str::to_owned),
        };
        let ttl = PutTtl::Clear;
        self.write(key, Change::Put { value, ttl }, false)
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let document = self.lane.get(key).expect("it serves").value?;
        assert_eq!(document.crc, crc32fast::hash(&document.value), "{key}");
        Some(document.value.to_vec())
    }

    fn stats(&self) -> CompressionStats {
        self.engine.stats().compression
    }

    /// Until nothing changes any more.
    fn settle(&self) {
        for _ in 0..10 {
            if !self.driver.compress() {
                return;
            }
        }
        panic!("compression does not come to an end");
    }

    fn all(&self) -> BTreeMap<String, (Vec<u8>, Option<String>)> {
        let (mut found, mut from) = (BTreeMap::new(), None);
        loop {
            let scan = Scan {
                prefix: "",
                from,
                examine_max: 7,
                values: true,
            };
            let next = self.lane.scan(&scan, &mut |row| {
                let held = (row.value.to_vec(), row.media_type.map(str::to_owned));
                assert!(
                    found.insert(row.key.to_owned(), held).is_none(),
                    "{} twice",
                    row.key
                );
                if row.key.len() % 3 == 0 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            match next.expect("it serves") {
                Some(next) => from = Some(next),
                None => return found,
            }
        }
    }
}

fn user(random: &mut fastrand::Rng, number: usize) -> String {
    let city = ["Lisbon", "Nairobi", "Quito", "Oslo"][random.usize(..4)];
    format!(
        r#"{{"id":{number},"name":"user {number}","address":{{"city":"{city}","zip":"{}"}},"age":{},"isActive":{}}}"#,
        random.u32(..),
        random.u8(18..90),
        random.bool()
    )
}

/// Small and large, repetitive and not, JSON and opaque.
fn any_value(random: &mut fastrand::Rng) -> (Vec<u8>, Option<&'static str>) {
    let number = random.usize(..1000);
    match random.u8(..8) {
        0 => (number.to_string().into_bytes(), None),
        1 => {
            let users: Vec<String> = (0..random.usize(2..60))
                .map(|_| user(random, number))
                .collect();
            (format!("[{}]", users.join(",")).into_bytes(), None)
        }
        2 => (
            (0..random.usize(1..6000)).map(|_| random.u8(..)).collect(),
            Some("application/octet-stream"),
        ),
        3 => (vec![b'x'; random.usize(..40_000)], Some("text/plain")),
        _ => (user(random, number).into_bytes(), None),
    }
}

#[test]
fn small_documents_take_less_memory_and_nobody_notices() {
    for mode in MODES {
        let store = Store::open(mode, None);
        let mut random = fastrand::Rng::with_seed(1);
        let values: Vec<String> = (0..1000).map(|number| user(&mut random, number)).collect();
        for (number, value) in values.iter().enumerate() {
            store.put(&format!("user/{number}"), value.as_bytes(), None);
        }
        let before = store.engine.stats();
        store.settle();
        let after = store.engine.stats();
        let compressed: usize = after
            .compression
            .codecs
            .iter()
            .map(|(_, share)| share.entries)
            .sum();
        assert_eq!(
            after.sequence, before.sequence,
            "{mode:?}: no change of any key"
        );
        if matches!(mode, CompressionMode::Zstd | CompressionMode::Adaptive) {
            assert_eq!(compressed, 1000, "{mode:?}");
            assert_eq!(after.compression.with_dictionary, 1000, "{mode:?}");
            assert!(
                after.total.entry_bytes * 10 < before.total.entry_bytes * 6,
                "{mode:?}"
            );
        }
        if mode == CompressionMode::Off {
            assert_eq!(compressed, 0);
        }
        for (number, value) in values.iter().enumerate() {
            let key = format!("user/{number}");
            assert_eq!(store.get(&key).as_deref(), Some(value.as_bytes()));
            // The same again is no change, and another value is one.
            let Outcome::Unchanged(stored) = store.put(&key, value.as_bytes(), None) else {
                panic!("{mode:?}: {key} changed");
            };
            assert_eq!(stored.version, 0);
        }
        let patch = Change::Patch {
            kind: PatchKind::Merge,
            patch: r#"{"age":100}"#.into(),
            ttl: PatchTtl::Keep,
        };
        let Outcome::Changed(stored) = store.write("user/7", patch.clone(), true) else {
            panic!("{mode:?}: the patch changes it");
        };
        assert!(
            stored
                .document
                .expect("asked for")
                .value
                .ends_with(br#""age":100,"isActive":true}"#)
                || store
                    .get("user/7")
                    .expect("there")
                    .ends_with(br#""age":100,"isActive":false}"#)
        );
        assert!(matches!(
            store.write("user/7", patch, false),
            Outcome::Unchanged(_)
        ));
        let bad = Change::Patch {
            kind: PatchKind::Json,
            patch: r#"[{"op":"test","path":"/age","value":1}]"#.into(),
            ttl: PatchTtl::Keep,
        };
        assert!(matches!(
            store.write("user/8", bad, false),
            Outcome::PatchFailed(_)
        ));
        let Outcome::Deleted(gone) = store.write("user/9", Change::Delete, true) else {
            panic!("{mode:?}: it was there");
        };
        assert_eq!(
            gone.document.expect("asked for").value,
            values[9].as_bytes()
        );
        assert_eq!(store.all().len(), 999);
    }
}

/// Random writes, reads, passes of the compressor and changes of its settings, against a plain map.
#[test]
fn every_history_is_that_of_a_plain_map() {
    for seed in 0..3 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let store = Store::open(random.choice(MODES).expect("some"), None);
        let mut map: BTreeMap<String, (Vec<u8>, Option<String>)> = BTreeMap::new();
        for _ in 0..2000 {
            let key = format!("k{}", random.usize(..400));
            match random.u8(..20) {
                0..=8 => {
                    let (value, media_type) = any_value(&mut random);
                    store.put(&key, &value, media_type);
                    map.insert(key, (value, media_type.map(str::to_owned)));
                }
                9 => {
                    store.write(&key, Change::Delete, false);
                    map.remove(&key);
                }
                10 => {
                    if let Some((value, media_type)) = map.get(&key) {
                        let outcome = store.put(&key, value, media_type.as_deref());
                        assert!(matches!(outcome, Outcome::Unchanged(_)), "{outcome:?}");
                    }
                }
                11 => {
                    let (kind, patch) = (PatchKind::Merge, r#"{"id":null,"x":[1]}"#.into());
                    let ttl = PatchTtl::Keep;
                    let outcome = store.write(&key, Change::Patch { kind, patch, ttl }, true);
                    if let Outcome::Changed(stored) | Outcome::Created(stored) = outcome {
                        let document = stored.document.expect("asked for");
                        map.insert(key, (document.value.to_vec(), None));
                    }
                }
                12..=17 => {
                    let wanted = map.get(&key).map(|(value, _)| value.clone());
                    assert_eq!(store.get(&key), wanted);
                }
                18 => {
                    store.driver.compress();
                }
                _ if random.u8(..10) == 0 => {
                    store
                        .engine
                        .set_compression(Compression {
                            mode: random.choice(MODES).expect("some"),
                            value_bytes_min: random.usize(..300),
                            dictionaries: random.bool(),
                            cpu_percent: 100,
                            ..Compression::default()
                        })
                        .expect("no thread is needed");
                }
                _ => {}
            }
        }
        assert_eq!(store.all(), map);
        store.settle();
        assert_eq!(store.all(), map);
        store
            .engine
            .set_compression(set_to(CompressionMode::Off))
            .expect("no thread is needed");
        store.settle();
        let coded: usize = store
            .stats()
            .codecs
            .iter()
            .map(|(_, share)| share.entries)
            .sum();
        assert_eq!(coded, 0, "what is switched off is undone");
        assert_eq!(store.all(), map);
    }
}

/// A snapshot taken of compressed values, and the log beside it, hold the values themselves.
#[test]
fn files_know_nothing_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let persistence = || {
        Some(Persistence::on(
            Disk::open(folder.path()).expect("the folder opens"),
        ))
    };
    let mut random = fastrand::Rng::with_seed(3);
    let mut map = BTreeMap::new();
    let mut store = Store::open(CompressionMode::Adaptive, persistence());
    for number in 0..600 {
        let (value, media_type) = any_value(&mut random);
        let key = format!("k{number}");
        store.put(&key, &value, media_type);
        map.insert(key, (value, media_type.map(str::to_owned)));
    }
    store.settle();
    assert!(store.stats().compressed > 100);
    let id = store
        .engine
        .request_snapshot(SnapshotKind::Full)
        .expect("it is durable");
    let mut overwritten = 0;
    for _ in 0..100_000 {
        // While the walk goes on, values that it has yet to meet are overwritten, compressed and stored whole.
        if overwritten < 200 {
            let key = format!("k{}", random.usize(..600));
            let (value, media_type) = any_value(&mut random);
            store.put(&key, &value, media_type);
            map.insert(key, (value, media_type.map(str::to_owned)));
            overwritten += 1;
            let mode = if overwritten % 2 == 0 {
                CompressionMode::Off
            } else {
                CompressionMode::Zstd
            };
            store
                .engine
                .set_compression(set_to(mode))
                .expect("no thread is needed");
            store.driver.compress();
        }
        store.driver.write_log();
        store.driver.checkpoint();
        store.driver.turn_homes();
        if store.engine.snapshot_outcome(id).is_some() {
            break;
        }
    }
    store
        .engine
        .snapshot_outcome(id)
        .expect("it ends")
        .expect("it stands");
    assert_eq!(store.all(), map);
    store.driver.close().expect("the log is completed");
    drop((store.engine, store.lane));

    for mode in [CompressionMode::Off, CompressionMode::Adaptive] {
        let store = Store::open(mode, persistence());
        assert_eq!(store.all(), map);
        store.settle();
        assert_eq!(
            store.stats().compressed > 0,
            mode == CompressionMode::Adaptive,
            "what was loaded is compressed"
        );
        assert_eq!(store.all(), map);
        store.driver.close().expect("the log is completed");
    }
}

/// A value that is read all the time is stored as it is; once nobody reads it, it is compressed again.
#[test]
fn what_is_hot_is_whole() {
    let store = Store::open(CompressionMode::Adaptive, None);
    let value = "[1,2,3]".repeat(500).replace("][", "],[");
    let value = format!("[{value}]");
    store.put("hot", value.as_bytes(), None);
    store.settle();
    assert_eq!(store.stats().compressed, 1);
    for _ in 0..3 {
        assert_eq!(store.get("hot").as_deref(), Some(value.as_bytes()));
    }
    assert!(store.driver.compress());
    assert_eq!(store.stats().decompressed, 1);
    let coded = |store: &Store| {
        store
            .stats()
            .codecs
            .iter()
            .map(|(_, share)| share.entries)
            .sum::<usize>()
    };
    assert_eq!(coded(&store), 0);
    for _ in 0..4 {
        store.driver.compress();
    }
    assert_eq!(coded(&store), 1, "it has cooled");
    assert_eq!(store.get("hot").as_deref(), Some(value.as_bytes()));
}

/// Values change their nature: another dictionary comes, and the one before goes when nothing needs it.
#[test]
fn dictionaries_come_and_go() {
    let store = Store::open(CompressionMode::Adaptive, None);
    let mut random = fastrand::Rng::with_seed(5);
    let mut map = BTreeMap::new();
    for number in 0..800 {
        let (key, value) = (format!("k{number}"), user(&mut random, number));
        store.put(&key, value.as_bytes(), None);
        map.insert(key, (value.into_bytes(), None));
    }
    store.settle();
    let versions = |store: &Store| {
        let dictionaries = store.stats().dictionaries;
        dictionaries
            .iter()
            .map(|live| live.version)
            .collect::<Vec<_>>()
    };
    assert_eq!(versions(&store), [1]);
    assert!(store.stats().bytes > 16 << 10);
    for generation in 2..8 {
        // Each generation shares words that none before had.
        let words: Vec<String> = (0..40)
            .map(|_| (0..12).map(|_| random.lowercase()).collect())
            .collect();
        for number in 0..800 {
            let members: Vec<String> = words[number % 8..]
                .iter()
                .take(24)
                .map(|word| format!(r#""{word}":{}"#, random.u16(..)))
                .collect();
            let (key, value) = (format!("k{number}"), format!("{{{}}}", members.join(",")));
            store.put(&key, value.as_bytes(), None);
            map.insert(key, (value.into_bytes(), None));
        }
        store.settle();
        assert_eq!(versions(&store).last(), Some(&generation));
        assert_eq!(store.all(), map, "generation {generation}");
        // A pass later the numbers that nothing needs are free.
        store.put("one more", b"1", None);
        store
            .engine
            .set_compression(set_to(CompressionMode::Adaptive))
            .expect("no thread is needed");
        store.settle();
        map.insert("one more".to_owned(), (b"1".to_vec(), None));
        assert!(versions(&store).len() <= 2, "{:?}", versions(&store));
    }
}

/// With its thread: compressed in the background, undone when it is switched off, and it ends with the store.
#[test]
fn the_thread_does_it_by_itself() {
    let engine = Engine::open(Options {
        partitions: 4,
        ..Options::default()
    })
    .expect("sound options");
    engine.recover().expect("nothing to load");
    engine.start_threads().expect("nothing to start yet");
    let lane = engine.lane(0);
    let mut random = fastrand::Rng::with_seed(1);
    let values: Vec<String> = (0..500).map(|number| user(&mut random, number)).collect();
    for (number, value) in values.iter().enumerate() {
        let write = Write {
            pin: None,
            key: &format!("user/{number}"),
            conditions: Conditions::default(),
            change: Change::Put {
                value: Value {
                    bytes: value.clone().into(),
                    media_type: None,
                },
                ttl: PutTtl::Clear,
            },
            durability: Durability::Default,
            returning: false,
        };
        lane.write(write).expect("the store takes writes");
    }
    let coded = || -> usize {
        let codecs = engine.stats().compression.codecs;
        codecs.iter().map(|(_, share)| share.entries).sum()
    };
    let wait_for = |wanted: usize| {
        let begun = std::time::Instant::now();
        while coded() != wanted {
            assert!(begun.elapsed().as_secs() < 60, "{} of {wanted}", coded());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    engine
        .set_compression(set_to(CompressionMode::Adaptive))
        .expect("a thread is started");
    wait_for(500);
    for (number, value) in values.iter().enumerate() {
        let document = lane
            .get(&format!("user/{number}"))
            .expect("it serves")
            .value;
        assert_eq!(document.expect("it is there").value, value.as_bytes());
    }
    engine
        .set_compression(set_to(CompressionMode::Off))
        .expect("the thread is there");
    wait_for(0);
    assert!(engine.stats().compression.cpu_us > 0);
    engine.close().expect("nothing to complete");
}
