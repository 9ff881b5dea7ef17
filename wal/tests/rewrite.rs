//! Sealed segments become smaller while nobody notices: the same records, whatever fails and whenever the power goes.

mod support;

use inflightkv_wal::{Lsn, Options, RecoveryError, RecoveryMode, Upkeep, Wal, Writer, tools};
use support::{Change, Disk, ZeroRuns, codecs, fresh, recover, resume, rewriting, small};

/// Three sealed segments and an active one; nothing rewritten yet.
fn log(disk: &Disk) -> (Wal, Writer, Vec<Change>) {
    let options = Options {
        segment_bytes: 64 << 10,
        ..small()
    };
    let (wal, mut writer) = fresh(disk, options);
    let mut rng = fastrand::Rng::with_seed(5);
    let changes: Vec<Change> = (1..=44)
        .map(|lsn| match lsn % 5 {
            0 => Change::some(lsn, &mut rng),
            _ => Change::put(lsn, &format!("key {lsn}"), &[0; 150]),
        })
        .collect();
    for change in &changes {
        change.append(&wal, change.lsn as usize % 2);
        writer.round(change.lsn * 30);
        if change.lsn % 12 == 0 {
            wal.roll();
        }
    }
    assert_eq!(disk.segments().len(), 4);
    (rewriting(wal), writer, changes)
}

fn rewrite_all(wal: &Wal) {
    while wal.upkeep(0).expect("nothing fails") == Upkeep::Again {}
}

#[test]
fn rewritten_segments_have_the_same_records_in_fewer_bytes() {
    let disk = Disk::new();
    let (wal, mut writer, changes) = log(&disk);
    let before = wal.segments();
    rewrite_all(&wal);
    let after = wal.segments();
    assert_eq!(before.len(), after.len());
    let sealed = before.len() - 1;
    for (before, after) in before[..sealed].iter().zip(&after) {
        assert_eq!((before.codec, after.codec), (0, ZeroRuns::ID));
        assert!(after.bytes < before.bytes, "{before:?} {after:?}");
        let name = &disk.segments()[before.number as usize - 1];
        assert_eq!(disk.bytes(name).len() as u64, after.bytes);
        assert_eq!(
            (before.first_lsn, before.last_lsn),
            (after.first_lsn, after.last_lsn)
        );
    }
    assert_eq!(after[sealed].codec, 0, "the active one is left alone");
    let status = wal.status();
    assert_eq!(status.rewritten, sealed as u64);
    let total = |all: &[inflightkv_wal::SegmentInfo]| all.iter().map(|one| one.bytes).sum::<u64>();
    assert_eq!(status.rewritten_saved, total(&before) - total(&after));
    assert_eq!(wal.upkeep(0).unwrap(), Upkeep::Idle { until_ms: None });

    assert_eq!(
        recover(&disk.copy(), RecoveryMode::Strict, 0).unwrap().0,
        changes
    );
    writer.finish(2000).unwrap();
    let report = tools::check(&disk.storage(), &codecs()).unwrap();
    assert!(report.is_sound() && report.torn.is_none(), "{report:?}");
    assert_eq!(report.records, 44);
    let (found, outcome) = recover(&disk, RecoveryMode::Strict, 20).unwrap();
    assert_eq!(found, changes[20..], "what is below a snapshot is not read");

    // The next run knows what was rewritten.
    let (wal, _writer) = resume(&disk, &outcome, small(), 0).unwrap();
    let wal = rewriting(wal);
    rewrite_all(&wal);
    assert_eq!(wal.status().rewritten, 1, "only what was sealed since");
}

/// A crash at any operation of a rewrite, with any part of what was not synced lost: every record is there.
#[test]
fn the_power_may_go_at_any_moment_of_a_rewrite() {
    let whole = Disk::new();
    let (wal, _writer, _) = log(&whole);
    let from = whole.ops();
    rewrite_all(&wal);
    let to = whole.ops();
    assert!(to - from > 15, "{} operations", to - from);
    for op in from..=to {
        for keep in [0, 50, 100] {
            let disk = Disk::new();
            let (wal, _writer, changes) = log(&disk);
            disk.power_off_at(op);
            while matches!(wal.upkeep(0), Ok(Upkeep::Again)) {}
            let mut rng = fastrand::Rng::with_seed(op);
            let after = disk.after_power_cut(&mut rng, keep);
            let what = format!("operation {op}, {keep} % kept");
            let (found, outcome) = recover(&after, RecoveryMode::Strict, 0)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(found, changes, "{what}");
            // The next run begins the rewriting anew.
            let (wal, _writer) = resume(&after, &outcome, small(), 0).unwrap();
            assert!(
                !after.names().iter().any(|name| name.contains("rewrite")),
                "{what}"
            );
            rewrite_all(&rewriting(wal));
            let (found, _) = recover(&after, RecoveryMode::Strict, 0).unwrap();
            assert_eq!(found, changes, "{what}");
        }
    }
}

#[test]
fn a_failure_leaves_the_segment_and_is_tried_again_later() {
    let whole = Disk::new();
    let (wal, _writer, _) = log(&whole);
    let from = whole.ops();
    rewrite_all(&wal);
    for op in from..whole.ops() {
        let disk = Disk::new();
        let (wal, mut writer, changes) = log(&disk);
        disk.fail_once_at(op);
        let mut failures = 0;
        let mut steps = 0;
        while steps < 20 {
            steps += 1;
            match wal.upkeep(0) {
                Ok(Upkeep::Again) => {}
                Ok(Upkeep::Idle { until_ms }) => {
                    assert_eq!(until_ms, (failures > 0).then_some(60_000), "operation {op}");
                    break;
                }
                Err(_) => failures += 1,
            }
        }
        assert!(failures <= 1, "operation {op}: {failures}");
        assert!(wal.admit().is_ok(), "the log goes on");
        while wal.upkeep(60_000).unwrap() == Upkeep::Again {}
        assert!(
            wal.segments()[..3]
                .iter()
                .all(|one| one.codec == ZeroRuns::ID)
        );
        writer.finish(3000).unwrap();
        assert_eq!(recover(&disk, RecoveryMode::Strict, 0).unwrap().0, changes);
    }
}

#[test]
fn every_changed_byte_of_a_rewritten_segment_is_noticed() {
    let disk = Disk::new();
    let (wal, mut writer, changes) = log(&disk);
    rewrite_all(&wal);
    writer.finish(3000).unwrap();
    let names = disk.segments();
    let name = &names[1];
    let bytes = disk.bytes(name);
    for at in (0..bytes.len()).filter(|at| *at >= 4096 || at % 61 == 0) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let copy = disk.copy();
        copy.put_file(name, changed);
        let strict = recover(&copy, RecoveryMode::Strict, 0);
        if at + 56 >= bytes.len() {
            // The last frame only vouches; the next segment says that nothing is missing.
            assert_eq!(strict.expect("no record is touched").0, changes);
            continue;
        }
        let Err(RecoveryError::Damaged(damage)) = &strict else {
            panic!("byte {at}: {strict:?}");
        };
        assert_eq!(&damage.file, name, "byte {at}");
        assert!(damage.offset <= at as u64);
        let report = tools::check(&copy.storage(), &codecs()).unwrap();
        assert!(!report.is_sound(), "byte {at}");
        assert_eq!(report.damage[0].lost.first, damage.lost.first, "byte {at}");
        let (found, _) = recover(&copy, RecoveryMode::PointInTime, 0).unwrap();
        assert_eq!(found, changes[..found.len()], "byte {at}");
        assert!(found.len() >= 12, "what is before is kept");
    }
}

#[test]
fn a_damaged_segment_is_not_rewritten_and_keeps_its_evidence() {
    let disk = Disk::new();
    let (wal, _writer, _) = log(&disk);
    let name = disk.segments()[1].clone();
    let mut bytes = disk.bytes(&name);
    bytes[4096 + 56 + 20] ^= 1;
    disk.put_file(&name, bytes.clone());
    assert_eq!(wal.upkeep(0).unwrap(), Upkeep::Again);
    let error = wal.upkeep(0).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{name} at offset 4096")),
        "{error}"
    );
    rewrite_all(&wal);
    assert_eq!(disk.bytes(&name), bytes);
    let codecs_of: Vec<u8> = wal.segments().iter().map(|one| one.codec).collect();
    assert_eq!(codecs_of, [ZeroRuns::ID, 0, ZeroRuns::ID, 0]);
}

/// What is retired while it is rewritten does not come back: an older segment without its successor would be a hole.
#[test]
fn a_segment_retired_meanwhile_stays_away() {
    let disk = Disk::new();
    let (wal, mut writer, changes) = log(&disk);
    let wal = std::sync::Arc::new(wal);
    let keeper = std::sync::Arc::clone(&wal);
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let keeper = std::sync::Arc::clone(&keeper);
            std::thread::spawn(move || while let Ok(Upkeep::Again) = keeper.upkeep(0) {})
        })
        .collect();
    for lsn in [12, 24, 36] {
        wal.retire_below(Lsn::new(lsn)).unwrap();
    }
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    rewrite_all(&wal);
    assert_eq!(disk.segments().len(), 1, "{:?}", disk.names());
    writer.finish(3000).unwrap();
    assert_eq!(
        recover(&disk, RecoveryMode::Strict, 36).unwrap().0,
        changes[36..]
    );
}

#[test]
fn what_does_not_become_smaller_stays_as_it_is() {
    let disk = Disk::new();
    let (wal, mut writer) = fresh(
        &disk,
        Options {
            segment_bytes: 1 << 20,
            ..small()
        },
    );
    let mut rng = fastrand::Rng::with_seed(1);
    let noise: Vec<u8> = std::iter::repeat_with(|| rng.u8(1..))
        .take(200_000)
        .collect();
    Change::put(1, "noise", &noise).append(&wal, 0);
    writer.round(1);
    wal.roll();
    writer.round(2);
    let wal = rewriting(wal);
    let before = wal.segments();
    rewrite_all(&wal);
    assert_eq!(wal.segments(), before);
    assert_eq!(wal.status().rewritten, 0);
    assert_eq!(disk.segments().len(), 2, "{:?}", disk.names());
    assert!(!disk.names().iter().any(|name| name.contains("rewrite")));
}

/// The thread of its own: works by itself, rests when there is nothing to do, ends when the log does.
#[test]
fn the_upkeeps_thread_rewrites_what_is_sealed() {
    let disk = Disk::new();
    let (wal, writer) = fresh(&disk, small());
    drop(writer);
    drop(wal);
    let (_, outcome) = recover(&disk, RecoveryMode::Strict, 0).unwrap();
    let start = outcome.start(support::STORE, outcome.seen_lsn.next(), 1);
    let wal = rewriting(Wal::open(disk.storage(), small(), start, 1).unwrap());
    wal.spawn_writer().unwrap();
    wal.spawn_upkeep(|error| panic!("{error}")).unwrap();
    let first = outcome.seen_lsn.get() + 1;
    for lsn in first..first + 200 {
        Change::put(lsn, "key", &[0; 100]).append(&wal, 0);
        wal.wait_durable(Lsn::new(lsn), std::time::Duration::from_secs(30))
            .unwrap();
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while wal.status().rewritten < 5 {
        assert!(std::time::Instant::now() < deadline, "{:?}", wal.segments());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    wal.shutdown().unwrap();
    assert_eq!(
        recover(&disk, RecoveryMode::Strict, 0).unwrap().0.len(),
        200
    );
}
