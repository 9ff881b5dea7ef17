//! The store as a library, without HTTP: threads with a lane each, on a real folder.

use inflightkv_server::engine::{
    BatchKind, BatchOperation, BatchResult, Change, Conditions, Disk, Durability, Engine,
    EtagCondition, FailedCondition, Lane, Options, Outcome, OwnedConditions, PatchKind, PatchTtl,
    Persistence, PutTtl, Readiness, Reply, Scan, Sequence, SnapshotKind, Stored, SyncMode, Value,
    VersionCondition, Write,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn in_memory(lanes: usize) -> Engine {
    let engine = Engine::open(Options {
        lanes,
        ..Options::default()
    })
    .expect("the options are in their ranges");
    engine.recover().expect("there is nothing to load");
    engine
}

fn on_disk(path: &Path, partitions: usize, lanes: usize, sync: SyncMode) -> Engine {
    let mut persistence = Persistence::on(Disk::open(path).expect("a folder of our own"));
    persistence.wal.sync = sync;
    persistence.wal.segment_bytes = 64 << 10;
    let options = Options {
        partitions,
        lanes,
        persistence: Some(persistence),
        ..Options::default()
    };
    let engine = Engine::open(options).expect("the options are in their ranges");
    engine.recover().expect("what is there is sound");
    engine.start_threads().expect("there are threads");
    engine.start_homes().expect("there are threads");
    engine
}

fn json(text: impl Into<String>) -> Value {
    Value {
        bytes: text.into().into(),
        media_type: None,
    }
}

fn put_if(lane: &Lane, key: &str, text: &str, conditions: Conditions<'_>) -> Reply<Outcome> {
    lane.write(Write {
        key,
        conditions,
        change: Change::Put {
            value: json(text),
            ttl: PutTtl::Clear,
        },
        durability: Durability::Default,
        returning: false,
        pin: None,
    })
    .expect("the store takes writes")
}

fn put(lane: &Lane, key: &str, text: &str) -> Reply<Outcome> {
    put_if(lane, key, text, Conditions::default())
}

fn delete(lane: &Lane, key: &str) -> Outcome {
    let write = Write {
        key,
        conditions: Conditions::default(),
        change: Change::Delete,
        durability: Durability::Default,
        returning: false,
        pin: None,
    };
    lane.write(write).expect("the store takes writes").value
}

fn merge(lane: &Lane, key: &str, patch: String) -> Reply<Outcome> {
    lane.write(Write {
        key,
        conditions: Conditions::default(),
        change: Change::Patch {
            kind: PatchKind::Merge,
            patch: patch.into(),
            ttl: PatchTtl::Keep,
        },
        durability: Durability::Default,
        returning: false,
        pin: None,
    })
    .expect("the store takes writes")
}

fn text(lane: &Lane, key: &str) -> Option<String> {
    let document = lane.get(key).expect("the store serves").value?;
    Some(String::from_utf8(document.value.to_vec()).expect("JSON is text"))
}

fn stored(outcome: &Outcome) -> &Stored {
    match outcome {
        Outcome::Created(stored) | Outcome::Changed(stored) | Outcome::Deleted(stored) => stored,
        other => panic!("nothing was changed: {other:?}"),
    }
}

fn everything(lane: &Lane) -> BTreeMap<String, (String, u64, u64)> {
    let mut found = BTreeMap::new();
    let mut from = None;
    loop {
        let scan = Scan {
            prefix: "",
            from,
            examine_max: 100,
            values: true,
        };
        from = lane
            .scan(&scan, &mut |row| {
                let value = String::from_utf8_lossy(row.value).into_owned();
                let known =
                    found.insert(row.key.to_owned(), (value, row.version, row.sequence.get()));
                assert!(known.is_none(), "{} is listed twice", row.key);
                ControlFlow::Continue(())
            })
            .expect("the cursor is of this run");
        if from.is_none() {
            return found;
        }
    }
}

/// Ends a store for good: its folder is locked while anything of it is held.
fn close(engine: Engine, lane: Lane) {
    drop(lane);
    engine.close().expect("the log is completed");
}

/// Four threads raise one counter and keys of their own; every durable answer is there after a restart that has another
/// number of partitions and of threads.
#[test]
fn threads_share_a_store_and_the_next_run_may_have_other_counts() {
    const THREADS: usize = 4;
    const ROUNDS: u64 = 60;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = on_disk(folder.path(), 64, THREADS, SyncMode::Always);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let lane = engine.lane(thread);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let own = put(&lane, &format!("own/{thread}/{round}"), &round.to_string());
                    raise(&lane, "counter");
                    if let Some(sequence) = own.wait_for {
                        lane.wait_durable(sequence, LONG).expect("the disk works");
                    }
                }
            });
        }
    });
    let lane = engine.lane(0);
    let counted = (THREADS as u64 * ROUNDS).to_string();
    assert_eq!(text(&lane, "counter"), Some(counted.clone()));
    let before = everything(&lane);
    assert_eq!(before.len(), THREADS * ROUNDS as usize + 1);
    close(engine, lane);

    for (partitions, lanes) in [(1, 1), (1024, 3), (2, 5)] {
        let engine = on_disk(folder.path(), partitions, lanes, SyncMode::Always);
        let lane = engine.lane(lanes - 1);
        assert_eq!(engine.readiness(), Readiness::Ready);
        assert_eq!(
            everything(&lane),
            before,
            "{partitions} partitions, {lanes} lanes"
        );
        let id = engine
            .request_snapshot(SnapshotKind::Full)
            .expect("the store is ready");
        let report = loop {
            match engine.snapshot_outcome(id) {
                Some(outcome) => break outcome.expect("the disk works"),
                None => thread::sleep(Duration::from_millis(1)),
            }
        };
        assert_eq!(report.entries, before.len() as u64);
        close(engine, lane);
    }
}

/// One more, by comparing: retries until nobody was quicker.
fn raise(lane: &Lane, key: &str) {
    loop {
        let (conditions, next) = match lane.get(key).expect("the store serves").value {
            None => (
                Conditions {
                    version: Some(VersionCondition::Absent),
                    ..Conditions::default()
                },
                1,
            ),
            Some(document) => {
                let number = std::str::from_utf8(&document.value).expect("JSON is text");
                let number = number.parse::<u64>().expect("it is a number");
                (
                    Conditions {
                        version: Some(VersionCondition::Is(document.version)),
                        ..Conditions::default()
                    },
                    number + 1,
                )
            }
        };
        match put_if(lane, key, &next.to_string(), conditions).value {
            Outcome::Created(_) | Outcome::Changed(_) => return,
            Outcome::Conflict { .. } => {}
            other => panic!("a conditional put came to {other:?}"),
        }
    }
}

/// Small documents are patched under the lock, large ones outside and by comparison.
#[test]
fn concurrent_patches_lose_nothing() {
    for filler in [0, 20_000] {
        let engine = in_memory(3);
        let lane = engine.lane(2);
        put(
            &lane,
            "shared",
            &format!("{{\"s\":\"{}\"}}", "x".repeat(filler)),
        );
        let start = Barrier::new(2);
        thread::scope(|scope| {
            for (thread, member) in ["a", "b"].into_iter().enumerate() {
                let (lane, start) = (engine.lane(thread), &start);
                scope.spawn(move || {
                    start.wait();
                    for round in 1..=200 {
                        let patched = merge(&lane, "shared", format!("{{\"{member}\":{round}}}"));
                        assert!(matches!(patched.value, Outcome::Changed(_)));
                    }
                });
            }
        });
        let found = lane.get("shared").expect("the store serves").value;
        let found = found.expect("it was put");
        let document: serde_json::Value = serde_json::from_slice(&found.value).expect("it is JSON");
        assert_eq!((&document["a"], &document["b"]), (&200.into(), &200.into()));
        assert_eq!(found.version, 400, "every patch is a change of its own");
    }
}

/// Versions restart with a key; entity tags are never used again, so a stale one never fits.
#[test]
fn a_stale_tag_is_refused_although_the_version_is_the_same_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = on_disk(folder.path(), 8, 1, SyncMode::Os);
    let lane = engine.lane(0);
    let first = stored(&put(&lane, "k", "1").value).sequence;
    assert!(matches!(delete(&lane, "k"), Outcome::Deleted(_)));
    let second = stored(&put(&lane, "k", "1").value).clone();
    assert_eq!(second.version, 0);
    let with = |sequence: &[Sequence], lane: &Lane, text: &str| {
        let conditions = Conditions {
            if_match: Some(EtagCondition::OneOf(sequence)),
            ..Conditions::default()
        };
        put_if(lane, "k", text, conditions).value
    };
    let stale = with(&[first], &lane, "2");
    assert!(
        matches!(&stale, Outcome::Conflict { failed: FailedCondition::Match, current: Some(current) }
            if current.sequence == second.sequence && current.version == 0),
        "{stale:?}"
    );
    close(engine, lane);

    let engine = on_disk(folder.path(), 8, 1, SyncMode::Os);
    let lane = engine.lane(0);
    assert!(matches!(
        with(&[first], &lane, "2"),
        Outcome::Conflict { .. }
    ));
    let third = with(&[second.sequence], &lane, "2");
    assert!(stored(&third).sequence > second.sequence, "{third:?}");
    close(engine, lane);
}

#[test]
fn a_conditional_write_whose_key_vanished_never_inserts() {
    let engine = in_memory(2);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (lane, over) = (engine.lane(0), &over);
        scope.spawn(move || {
            for round in 0..2_000 {
                put(&lane, "k", &round.to_string());
                delete(&lane, "k");
            }
            over.store(true, Ordering::Relaxed);
        });
        let lane = engine.lane(1);
        let (mut changed, mut refused) = (0, 0);
        while !over.load(Ordering::Relaxed) {
            let Some(document) = lane.get("k").expect("the store serves").value else {
                continue;
            };
            let sequences = [document.sequence];
            let conditions = Conditions {
                if_match: Some(EtagCondition::OneOf(&sequences)),
                ..Conditions::default()
            };
            match put_if(&lane, "k", "\"late\"", conditions).value {
                Outcome::Changed(_) => changed += 1,
                // It was the value of an earlier round of this loop.
                Outcome::Unchanged(_) => {}
                Outcome::Conflict { .. } => refused += 1,
                other => panic!("a condition on a key that was there came to {other:?}"),
            }
        }
        // However the two met: nothing is there, since the last thing done to the key was to delete it.
        assert_eq!(
            text(&lane, "k"),
            None,
            "{changed} changed, {refused} refused"
        );
    });
}

#[test]
fn a_batch_does_every_operation_on_its_own_and_answers_in_order() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = on_disk(
        folder.path(),
        16,
        1,
        SyncMode::Interval(Duration::from_secs(60)),
    );
    let lane = engine.lane(0);
    put(&lane, "there", "1");
    let operation = |key: &str, kind| BatchOperation {
        key: key.to_owned(),
        kind,
        conditions: OwnedConditions::default(),
        pin: None,
    };
    let set = |text: &str| BatchKind::Put {
        value: json(text),
        ttl: PutTtl::Clear,
    };
    let absent = OwnedConditions {
        version: Some(VersionCondition::Absent),
        ..OwnedConditions::default()
    };
    let operations = vec![
        operation("new", set("1")),
        operation("there", BatchKind::Get),
        BatchOperation {
            conditions: absent,
            ..operation("there", set("2"))
        },
        operation("new", set("2")),
        operation("new", BatchKind::Get),
        operation("missing", BatchKind::Delete),
        operation("there", BatchKind::Delete),
        operation("there", BatchKind::Get),
        operation(&"k".repeat(100_000), set("1")),
    ];
    let reply = lane
        .batch(operations, Durability::Sync)
        .expect("the store takes writes");
    let said: Vec<String> = reply
        .value
        .iter()
        .map(|result| match result {
            BatchResult::Got(None) => "nothing".to_owned(),
            BatchResult::Got(Some(document)) => format!("got {:?}", document.value),
            BatchResult::Wrote(Outcome::Created(stored)) => format!("created {}", stored.version),
            BatchResult::Wrote(Outcome::Changed(stored)) => format!("changed {}", stored.version),
            BatchResult::Wrote(Outcome::Deleted(_)) => "deleted".to_owned(),
            BatchResult::Wrote(Outcome::Missing) => "missing".to_owned(),
            BatchResult::Wrote(Outcome::Conflict { .. }) => "conflict".to_owned(),
            BatchResult::Wrote(other) => format!("{other:?}"),
            BatchResult::Failed(_) => "failed".to_owned(),
        })
        .collect();
    assert_eq!(
        said,
        [
            "created 0",
            "got b\"1\"",
            "conflict",
            "changed 1",
            "got b\"2\"",
            "missing",
            "deleted",
            "nothing",
            "failed"
        ]
    );
    // The log would sync in a minute; the batch asked for it.
    let sequence = reply.wait_for.expect("nothing of it is durable yet");
    lane.wait_durable(sequence, LONG).expect("the disk works");
    engine.close().expect("the log is completed");
}

/// Keys that are there all the time are met exactly once, whatever comes and goes around them.
#[test]
fn a_scan_beside_writers_meets_every_lasting_key_exactly_once() {
    const LASTING: usize = 500;
    let engine = in_memory(3);
    let lane = engine.lane(0);
    for number in 0..LASTING {
        put(&lane, &format!("lasting/{number}"), "0");
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 1..3 {
            let (lane, over) = (engine.lane(thread), &over);
            scope.spawn(move || {
                let mut round = 0_usize;
                while !over.load(Ordering::Relaxed) {
                    round += 1;
                    let passing = format!("passing/{thread}/{}", round % 300);
                    put(&lane, &passing, "1");
                    put(
                        &lane,
                        &format!("lasting/{}", round % LASTING),
                        &round.to_string(),
                    );
                    if round.is_multiple_of(2) {
                        delete(&lane, &passing);
                    }
                }
            });
        }
        for listing in 0..20 {
            let found = everything(&lane);
            let lasting = found.keys().filter(|key| key.starts_with("lasting/"));
            assert_eq!(lasting.count(), LASTING, "listing {listing}");
        }
        over.store(true, Ordering::Relaxed);
    });
}
