//! The log's background work in a whole store: disk space under steady overwrites, compressed segments through every
//! tool, retired ones kept.

use inflightkv_server::engine::drive::Driver;
use inflightkv_server::engine::{
    Change, Conditions, Disk, Durability, Engine, ManualClock, Options, Persistence, PutTtl,
    SnapshotKind, SyncMode, Value, WalCompression, Write,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const SEGMENT: u64 = 256 << 10;

struct Store {
    engine: Engine,
    driver: Driver,
    clock: Arc<ManualClock>,
}

fn open(folder: &Path, change: impl FnOnce(&mut Persistence)) -> Store {
    let mut persistence = Persistence::on(Disk::open(folder).expect("a directory"));
    persistence.wal.sync = SyncMode::Os;
    persistence.wal.segment_bytes = SEGMENT;
    persistence.snapshot_parts = 2;
    change(&mut persistence);
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let engine = Engine::open(Options {
        partitions: 8,
        persistence: Some(persistence),
        clock: clock.clone(),
        ..Options::default()
    })
    .expect("the options make sense");
    engine.recover().expect("it recovers");
    let driver = Driver::new(&engine).expect("nobody drives it yet");
    Store {
        engine,
        driver,
        clock,
    }
}

impl Store {
    fn put(&self, key: &str, value: Vec<u8>) {
        let write = Write {
            key,
            conditions: Conditions::default(),
            change: Change::Put {
                value: Value {
                    bytes: value.into(),
                    media_type: None,
                },
                ttl: PutTtl::Clear,
            },
            durability: Durability::Default,
            returning: false,
            pin: None,
        };
        self.engine.lane(0).write(write).expect("it is taken");
    }

    /// Everything in the background, a step each.
    fn turn(&mut self) -> bool {
        self.clock.advance(1);
        let mut more = self.driver.write_log();
        more |= self.driver.turn_homes();
        more |= self.driver.checkpoint();
        more | self.driver.keep_log().expect("the log is kept")
    }

    fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.turn() {
                return;
            }
        }
        panic!("the background work does not end");
    }

    fn snapshot(&mut self) {
        let id = self
            .engine
            .request_snapshot(SnapshotKind::Full)
            .expect("asked for");
        for _ in 0..100_000 {
            self.turn();
            if let Some(outcome) = self.engine.snapshot_outcome(id) {
                outcome.expect("it is taken");
                return;
            }
        }
        panic!("the snapshot does not end");
    }
}

/// Bytes of all files, reserved room included.
fn disk_use(folder: &Path) -> u64 {
    std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| {
            let entry = entry.expect("an entry");
            // A file may go between being listed and being looked at.
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => disk_use(&entry.path()),
                Ok(metadata) => metadata.len(),
                Err(_) => 0,
            }
        })
        .sum()
}

/// A document as services write them.
fn document(rng: &mut fastrand::Rng, id: usize) -> Vec<u8> {
    let words = [
        "order", "paid", "shipped", "London", "returned", "gift", "express", "Ada",
    ];
    let mut text = format!("{{\"id\":{id},\"total\":{},\"events\":[", rng.u32(..));
    for event in 0..12 {
        let word = words[rng.usize(..words.len())];
        let comma = if event == 0 { "" } else { "," };
        text.push_str(&format!(
            "{comma}{{\"kind\":\"{word}\",\"at\":{},\"by\":\"{:08x}\"}}",
            1_700_000_000 + rng.u32(..1_000_000),
            rng.u32(..)
        ));
    }
    text.push_str("]}");
    text.into_bytes()
}

/// The most that is on disk at any moment while everything is overwritten again and again, beside the bytes of data.
fn overwritten(values: impl Fn(&mut fastrand::Rng, usize) -> Vec<u8>) -> (u64, u64, u64) {
    const KEYS: usize = 4000;
    let folder = TempDir::new().expect("a folder");
    let mut store = open(folder.path(), |_| {});
    let mut rng = fastrand::Rng::with_seed(4);
    for id in 0..KEYS {
        store.put(&format!("document/{id}"), values(&mut rng, id));
        store.turn();
    }
    store.settle();
    let (mut peak, mut between) = (0, 0);
    for round in 0..24_000 {
        let id = rng.usize(..KEYS);
        store.put(&format!("document/{id}"), values(&mut rng, id));
        store.turn();
        if round % 16 == 0 {
            peak = peak.max(disk_use(folder.path()));
        }
        if round % 2500 == 0 {
            store.settle();
            between = between.max(disk_use(folder.path()));
        }
    }
    let data = store.engine.stats().total.entry_bytes as u64;
    let (snapshots, log) = {
        let listing = store
            .engine
            .disk_listing()
            .expect("listed")
            .expect("persistent");
        (
            listing.snapshots.len(),
            store.engine.stats().wal.expect("a log"),
        )
    };
    assert!(snapshots > 0 && log.retired > 40, "{log:?}");
    store.driver.close().expect("closed");
    println!("data {data}, at most {peak}, between snapshots {between}");
    (data, peak, between)
}

#[test]
fn disk_use_stays_within_twice_the_data_and_a_segment_under_steady_overwrites() {
    let (data, peak, between) = overwritten(document);
    assert!(data > 2 << 20);
    assert!(
        peak <= 2 * data + SEGMENT,
        "{peak} for {data}, {between} between snapshots"
    );
}

/// What no codec makes smaller: the same while nothing but the log grows; while a full snapshot is written, its bytes come on top.
#[test]
fn disk_use_of_random_bytes_is_bounded_as_well() {
    let noise = |rng: &mut fastrand::Rng, _: usize| {
        let mut text = b"\"".to_vec();
        text.extend(std::iter::repeat_with(|| rng.alphanumeric() as u8).take(900));
        text.push(b'"');
        text
    };
    let (data, peak, between) = overwritten(noise);
    assert!(between <= 2 * data + 2 * SEGMENT, "{between} for {data}");
    assert!(peak <= 3 * data + 2 * SEGMENT, "{peak} for {data}");
}

#[test]
fn retired_segments_are_kept_listed_and_not_replayed() {
    let folder = TempDir::new().expect("a folder");
    let mut rng = fastrand::Rng::with_seed(1);
    let keep = |persistence: &mut Persistence| {
        persistence.wal.keep = Duration::from_secs(3600);
        persistence.wal_compress = Some(WalCompression::Lz4);
    };
    let mut store = open(folder.path(), keep);
    for id in 0..2000 {
        store.put(&format!("document/{id}"), document(&mut rng, id));
        store.turn();
    }
    store.snapshot();
    store.settle();
    store.put("after", b"1".to_vec());
    store.settle();
    let listing = store
        .engine
        .disk_listing()
        .expect("listed")
        .expect("persistent");
    let (active, sealed) = listing.segments.split_last().expect("segments");
    assert!(sealed.len() > 3);
    assert!(
        sealed
            .iter()
            .all(|segment| segment.retired && segment.compressed),
        "{sealed:?}"
    );
    assert!(!active.retired && !active.sealed);
    assert_eq!(store.engine.stats().wal.expect("a log").retired, 0);
    store.driver.close().expect("closed");
    drop(store.engine);

    let mut store = open(folder.path(), keep);
    let recovery = store.engine.stats().recovery.expect("a report");
    assert_eq!((recovery.entries, recovery.records), (2000, 1));
    store.clock.advance(3_599_000);
    store.settle();
    let kept = store.engine.stats().wal.expect("a log").segments;
    assert!(kept > 4, "{kept}");
    store.clock.advance(3_600_000);
    store.settle();
    let left = store.engine.stats().wal.expect("a log");
    assert!(left.segments <= 2 && left.retired >= 4, "{left:?}");
    store.driver.close().expect("closed");
}
