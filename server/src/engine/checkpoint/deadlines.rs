//! Deadlines of a walk, passed by a clock of the test's own; the next snapshot is as if nothing had been.

use super::super::drive::{self, Driver};
use super::super::testing::put;
use super::super::*;
use super::running::{STALLED_AFTER_MS, SYNC_WITHIN_MS, THAW_WITHIN_MS};
use std::path::Path;

const LANES: usize = 2;

struct Store {
    engine: Engine,
    driver: Driver,
    clock: Arc<ManualClock>,
    folder: tempfile::TempDir,
    keys: usize,
}

fn open(folder: &Path, clock: &Arc<ManualClock>) -> (Engine, Driver) {
    let mut persistence = Persistence::on(Disk::open(folder).expect("a directory"));
    persistence.snapshot_parts = 2;
    let engine = Engine::open(Options {
        partitions: 8,
        lanes: LANES,
        value_bytes_max: 4 << 20,
        memory: Memory {
            bytes_max: Some(96 << 20),
            policy: None,
        },
        persistence: Some(persistence),
        clock: clock.clone(),
        ..Options::default()
    })
    .expect("a store");
    drive::recover(&engine).expect("it recovers");
    let driver = Driver::new(&engine).expect("nobody drives it");
    (engine, driver)
}

impl Store {
    fn new(keys: usize, value: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        let (engine, driver) = open(folder.path(), &clock);
        let mut store = Self {
            engine,
            driver,
            clock,
            folder,
            keys,
        };
        store.write_all(value);
        while store.driver.write_log() {}
        store
    }

    /// Other bytes each time.
    fn write_all(&self, value: usize) {
        let mut rng = fastrand::Rng::with_seed(self.engine.stats().sequence.get());
        for id in 0..self.keys {
            let mut bytes = vec![0; value];
            // Nothing makes it smaller on its way out.
            rng.fill(&mut bytes);
            put(&self.engine, &format!("key/{id}"), bytes);
        }
    }

    /// A snapshot that has been cut.
    fn begin(&self) -> u64 {
        let id = self.engine.request_snapshot(SnapshotKind::Full);
        assert!(self.driver.checkpoint(), "it begins");
        assert!(self.engine.shared.checkpointer.is_walking());
        id.expect("asked for")
    }

    /// Turns the checkpointer as long as it has something to do at once.
    fn checkpoint(&self) {
        while self.driver.checkpoint() {}
    }

    fn is_frozen(&self) -> bool {
        let partitions = &self.engine.shared.partitions;
        (0..partitions.count())
            .any(|index| partitions.with(index, |table| table.partition.is_frozen()))
    }

    /// The snapshot was given up for a reason with `words` in it; nothing of it is left, and the next one is as it should
    /// be, also for a restart.
    fn ends_given_up(mut self, id: u64, words: &str) {
        let outcome = self.engine.snapshot_outcome(id).expect("it has ended");
        let Err(CheckpointError::Aborted { reason }) = outcome else {
            panic!("it was to be given up: {outcome:?}");
        };
        assert!(reason.contains(words), "{reason}");
        assert!(!self.engine.shared.checkpointer.is_walking());
        // Lanes that come late find nothing to do.
        while self.driver.turn_homes() {}
        assert!(!self.is_frozen(), "every partition is thawed");
        assert_eq!(self.engine.stats().total.frozen_bytes, 0);
        let files = std::fs::read_dir(self.folder.path().join(Disk::SNAPSHOTS)).expect("a folder");
        assert_eq!(files.count(), 0, "nothing of it is left");

        put(&self.engine, "later", b"2".to_vec());
        let next = self.engine.request_snapshot(SnapshotKind::Auto);
        let next = next.expect("asked for");
        for _ in 0..1_000_000 {
            self.clock.advance(1);
            self.driver.write_log();
            self.driver.turn_homes();
            self.driver.checkpoint();
            if self.engine.snapshot_outcome(next).is_some() {
                break;
            }
        }
        let report = self.engine.snapshot_outcome(next).expect("it ends");
        let report = report.expect("it stands");
        assert!(report.full && next > id);
        assert_eq!(report.entries, self.keys as u64 + 1);
        assert!(self.engine.verify().is_sound());
        let Self {
            engine,
            driver,
            clock,
            folder,
            keys,
        } = self;
        driver.close().expect("it ends");
        drop(engine);
        let (engine, driver) = open(folder.path(), &clock);
        let recovery = engine.stats().recovery.expect("a report");
        assert_eq!(
            (recovery.snapshot, recovery.entries),
            (Some(next), keys as u64 + 1)
        );
        driver.close().expect("it ends");
    }
}

#[test]
fn a_walk_in_which_nothing_moves_ends_given_up() {
    let store = Store::new(100, 100);
    let id = store.begin();
    store.driver.turn_home(0);
    store.checkpoint();
    store.clock.advance(STALLED_AFTER_MS - 1);
    store.checkpoint();
    // The last step was seen only now: it is movement.
    assert_eq!(store.engine.snapshot_outcome(id), None);
    store.clock.advance(STALLED_AFTER_MS);
    store.checkpoint();
    assert_eq!(store.engine.snapshot_outcome(id), None, "it is to thaw");
    // The lanes come, and thaw.
    while store.driver.turn_homes() {}
    store.checkpoint();
    store.ends_given_up(id, "nothing moved for 60 s");
}

#[test]
fn lanes_that_do_not_thaw_are_not_waited_for() {
    let store = Store::new(100, 100);
    let id = store.begin();
    // What is frozen by a write stays frozen until somebody thaws it.
    store.write_all(100);
    assert!(store.is_frozen());
    store.clock.advance(STALLED_AFTER_MS);
    store.checkpoint();
    // One lane comes, the other does not.
    while store.driver.turn_home(0) {}
    store.clock.advance(THAW_WITHIN_MS - 1);
    store.checkpoint();
    assert_eq!(store.engine.snapshot_outcome(id), None);
    assert!(store.is_frozen());
    store.clock.advance(1);
    store.checkpoint();
    assert!(!store.is_frozen(), "done in the lane's place");
    store.ends_given_up(id, "nothing moved for 60 s");
}

#[test]
fn a_walk_that_writes_outrun_ends_given_up() {
    let store = Store::new(20, 1 << 20);
    let id = store.begin();
    store.write_all(1 << 20);
    store.clock.advance(1_000);
    store.checkpoint();
    while store.driver.turn_homes() {}
    store.checkpoint();
    store.ends_given_up(id, "writes outran it");
}

#[test]
fn a_log_that_does_not_become_durable_is_not_waited_for() {
    let store = Store::new(100, 100);
    // In the cut, and not on disk.
    put(&store.engine, "late", b"1".to_vec());
    let id = store.begin();
    for _ in 0..1_000 {
        store.driver.turn_homes();
        store.checkpoint();
    }
    assert_eq!(store.engine.snapshot_outcome(id), None);
    store.clock.advance(SYNC_WITHIN_MS - 1);
    store.checkpoint();
    assert_eq!(store.engine.snapshot_outcome(id), None);
    store.clock.advance(1);
    store.checkpoint();
    let store = Store {
        keys: store.keys + 1,
        ..store
    };
    store.ends_given_up(id, "the log was not durable up to its cut within 60 s");
}

/// A backup is a walk like any other: one that nobody takes is given up, and snapshots go on.
#[test]
fn a_backup_that_nobody_takes_ends_given_up() {
    let store = Store::new(20, 1 << 20);
    let backup = store.engine.begin_backup().expect("asked for");
    for _ in 0..1_000 {
        store.driver.turn_homes();
        store.driver.checkpoint();
    }
    assert!(store.engine.shared.checkpointer.is_walking(), "it is full");
    store.clock.advance(STALLED_AFTER_MS + 250);
    store.driver.checkpoint();
    store.clock.advance(STALLED_AFTER_MS + 250);
    store.driver.checkpoint();
    for _ in 0..1_000 {
        store.driver.turn_homes();
        store.driver.checkpoint();
    }
    assert!(!store.engine.shared.checkpointer.is_walking());
    drop(backup);
    let id = store.begin();
    store.clock.advance(STALLED_AFTER_MS);
    store.checkpoint();
    store.clock.advance(THAW_WITHIN_MS);
    store.checkpoint();
    store.ends_given_up(id, "nothing moved for 60 s");
}
