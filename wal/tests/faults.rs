//! Every operation on the disk fails once, and the power goes at any moment.

mod support;

use std::time::Duration;

use inflightkv_wal::{
    Lsn, Options, Outcome, RecoveryMode, Refusal, Rest, ShutdownError, State, SyncMode, Wal, Writer,
};
use support::{Change, Disk, fresh, recover, resume, small};

/// Some rounds with everything in them: several records a round, rotation, a roll, retirement.
fn work(wal: &Wal, writer: &mut Writer, changes: &[Change]) {
    let mut now = 1;
    for group in changes.chunks(3) {
        for change in group {
            change.append(wal, change.lsn as usize % 2);
        }
        now += 7;
        writer.round(now);
        match group[0].lsn {
            31 => wal.roll(),
            // What a checkpoint at 20 would do, had it got that far.
            61 if wal.high_watermark() >= Lsn::new(20) => {
                let _ = wal.retire_below(Lsn::new(20));
            }
            _ => {}
        }
    }
}

fn some_changes(count: u64) -> Vec<Change> {
    let mut rng = fastrand::Rng::with_seed(11);
    (1..=count).map(|lsn| Change::some(lsn, &mut rng)).collect()
}

/// What is there is what was written, from the beginning (or what was retired) to somewhere at or above `durable`.
fn check_survives(disk: &Disk, changes: &[Change], durable: Lsn, what: &str) -> Outcome {
    let (found, outcome) = recover(disk, RecoveryMode::Strict, 0)
        .or_else(|_| recover(disk, RecoveryMode::Strict, 20))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let first = found.first().map_or(0, |first| first.lsn as usize - 1);
    assert_eq!(found, changes[first..first + found.len()], "{what}");
    let last = outcome
        .last_lsn
        .max(found.last().map_or(Lsn::ZERO, |last| Lsn::new(last.lsn)));
    assert!(
        last >= durable,
        "{what}: {durable} was durable, {last} is there"
    );
    outcome
}

#[test]
fn nothing_acknowledged_is_lost_whichever_operation_fails() {
    let changes = some_changes(90);
    let whole = Disk::new();
    let (wal, mut writer) = fresh(&whole, small());
    let opening = whole.ops();
    work(&wal, &mut writer, &changes);
    assert_eq!(wal.high_watermark(), Lsn::new(90));
    assert!(
        wal.status().rotations > 3,
        "the history has rotations in it"
    );
    let mut closed = 0;
    for op in opening..whole.ops() {
        let disk = Disk::new();
        let (wal, mut writer) = fresh(&disk, small());
        disk.fail_once_at(op);
        work(&wal, &mut writer, &changes);
        let durable = wal.high_watermark();
        if let Err(refusal) = wal.admit() {
            closed += 1;
            assert!(matches!(refusal, Refusal::Closed { .. }), "{refusal}");
            let ops = disk.ops();
            assert_eq!(writer.round(10_000).rest, Rest::Closed);
            assert!(matches!(
                writer.finish(10_000),
                Err(ShutdownError::Closed { .. })
            ));
            assert_eq!(
                disk.ops(),
                ops,
                "operation {op}: nothing is touched after the failure"
            );
        } else {
            assert_eq!(durable, Lsn::new(90), "operation {op} did not matter");
        }
        for keep in [0, 50, 100] {
            let mut rng = fastrand::Rng::with_seed(op);
            let after = disk.after_power_cut(&mut rng, keep);
            let what = format!("operation {op} failed, {keep} % kept");
            check_survives(&after, &changes, durable, &what);
        }
    }
    assert!(closed > 60, "most failures close the log, {closed} did");
}

#[test]
fn opening_says_so_if_the_first_segment_cannot_be_made() {
    for op in 0..6 {
        let disk = Disk::new();
        disk.fail_once_at(op);
        let start = inflightkv_wal::Start::fresh(support::STORE, 1);
        let opened = Wal::open(disk.storage(), small(), start, 1);
        assert!(opened.is_err(), "operation {op}");
        let after = disk.after_power_cut(&mut fastrand::Rng::with_seed(op), 50);
        recover(&after, RecoveryMode::Strict, 0).unwrap();
    }
}

/// Generations of a log, each ended by a power cut at a random moment, also in the middle of a recovery.
#[test]
fn power_cuts_at_any_moment_lose_nothing_durable_and_invent_nothing() {
    for seed in 0..250 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut disk = Disk::new();
        let mut history: Vec<Change> = Vec::new();
        // What the store's snapshot has; the log below may be gone.
        let mut snapshot = 0;
        let mut durable = Lsn::ZERO;
        for generation in 0..4 {
            let what = format!("seed {seed}, generation {generation}");
            let keep = [0, 30, 50, 90, 100][rng.usize(0..5)];
            if rng.u8(0..3) == 0 {
                disk.power_off_at(disk.ops() + rng.u64(0..8));
                let _ = recover(&disk, RecoveryMode::Strict, snapshot);
                if rng.bool() {
                    disk.restart_process();
                } else {
                    disk = disk.after_power_cut(&mut rng, keep);
                }
            }
            let (found, outcome) = recover(&disk, RecoveryMode::Strict, snapshot)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            history.retain(|change| change.lsn <= outcome.last_lsn.get().max(snapshot));
            let above: Vec<Change> = history
                .iter()
                .filter(|change| change.lsn > snapshot)
                .cloned()
                .collect();
            assert_eq!(found, above, "{what}");
            let last = outcome.last_lsn.get().max(snapshot);
            assert!(
                last >= durable.get(),
                "{what}: {durable} was durable, {last} is there"
            );

            let options = Options {
                sync: [
                    SyncMode::Always,
                    SyncMode::Interval(Duration::from_millis(30)),
                    SyncMode::Os,
                ][rng.usize(0..3)],
                ..small()
            };
            let jump = rng.u64(0..3) * 1000;
            disk.power_off_at(disk.ops() + rng.u64(0..150));
            let next = outcome.seen_lsn.get() + 1 + jump;
            if let Ok((wal, mut writer)) = resume(&disk, &outcome, options, jump) {
                // What was replayed is served, so it counts as durable from now on.
                durable = Lsn::new(last);
                let mut now = 1;
                for (step, lsn) in (0..rng.u64(0..200)).zip(next..) {
                    let change = Change::some(lsn, &mut rng);
                    change.append(&wal, rng.usize(0..2));
                    history.push(change);
                    now += rng.u64(0..9);
                    match rng.u8(0..20) {
                        0..8 => drop(writer.round(now)),
                        8 => wal.roll(),
                        9 => wal.request_sync(Lsn::new(lsn)),
                        10 if step > 20 && wal.high_watermark().get() >= next => {
                            snapshot = snapshot.max(wal.high_watermark().get() - rng.u64(0..3));
                            let _ = wal.retire_below(Lsn::new(snapshot));
                        }
                        _ => {}
                    }
                }
                if rng.u8(0..4) == 0 {
                    let _ = writer.finish(now);
                }
                if wal.high_watermark().get() >= next {
                    durable = wal.high_watermark();
                }
            }
            // A killed process leaves everything to the next one, which must not take it for durable.
            if rng.u8(0..3) == 0 {
                disk.restart_process();
            } else {
                disk = disk.after_power_cut(&mut rng, keep);
            }
        }
    }
}

/// What a killed process wrote is in the page cache. Once it was replayed it is served, so it has to be durable.
#[test]
fn what_a_killed_process_left_is_durable_once_it_was_replayed() {
    let disk = Disk::new();
    let options = Options {
        sync: SyncMode::Os,
        ..small()
    };
    let (wal, mut writer) = fresh(&disk, options);
    Change::put(1, "a", b"1").append(&wal, 0);
    writer.round(1);
    assert_eq!(recover(&disk, RecoveryMode::Strict, 0).unwrap().0.len(), 1);
    let after = disk.after_power_cut(&mut fastrand::Rng::with_seed(1), 0);
    assert_eq!(recover(&after, RecoveryMode::Strict, 0).unwrap().0.len(), 1);
}

#[test]
fn a_full_disk_refuses_writes_and_the_log_resumes_by_itself() {
    let changes = some_changes(400);
    let mut rng = fastrand::Rng::with_seed(3);
    for (case, reserves) in [(0, true), (1, false)] {
        let disk = Disk::new();
        let options = Options {
            segment_bytes: 32 << 10,
            ..small()
        };
        let (wal, mut writer) = fresh(&disk, options.clone());
        // With room for one segment only, reserving the second fails; with less the write itself does.
        disk.set_capacity(Some(if reserves { 40 << 10 } else { disk.used() }));
        let mut appended = 0;
        while wal.admit().is_ok() {
            changes[appended].append(&wal, 0);
            appended += 1;
            writer.round(10);
        }
        assert_eq!(wal.admit(), Err(Refusal::DiskFull), "case {case}");
        assert_eq!(wal.status().state, State::DiskFull);
        if reserves {
            assert_eq!(
                wal.high_watermark(),
                Lsn::new(appended as u64),
                "noticed in time"
            );
        }
        // What was admitted before the news got round.
        while appended < 300 {
            changes[appended].append(&wal, 1);
            appended += 1;
        }
        for now in 11..900 {
            writer.round(now);
        }
        let held = wal.high_watermark();
        assert!(held < Lsn::new(300), "there was no room for all of it");
        let after = disk.after_power_cut(&mut rng, 50);
        check_survives(&after, &changes, held, "while full");

        let attempts = disk.ops();
        writer.round(1000);
        assert_eq!(disk.ops(), attempts, "no attempt within a second");
        writer.round(1011);
        writer.round(2011);
        assert!(disk.segments().len() <= 2, "attempts leave nothing behind");

        disk.set_capacity(None);
        writer.round(3011);
        writer.round(3012);
        assert_eq!(wal.admit(), Ok(()), "case {case}");
        assert_eq!(wal.high_watermark(), Lsn::new(300), "case {case}");
        let after = disk.after_power_cut(&mut rng, 0);
        check_survives(&after, &changes, Lsn::new(300), "after");
        writer.finish(4000).unwrap();
    }
}

/// Without room reserved in advance the write itself is refused, in the middle of a frame.
#[test]
fn a_write_refused_for_lack_of_room_ends_the_segment_at_its_last_whole_frame() {
    let changes = some_changes(60);
    for first in [0, 30] {
        let disk = Disk::new();
        let (wal, mut writer) = fresh(
            &disk,
            Options {
                segment_bytes: 8 << 10,
                ..small()
            },
        );
        for change in &changes[..first] {
            change.append(&wal, 0);
        }
        writer.round(1);
        // One large value makes the frame grow beyond what was reserved.
        let large = Change::put(first as u64 + 1, "large", &vec![7; 20_000]);
        disk.set_capacity(Some(disk.used() + 9000));
        large.append(&wal, 0);
        writer.round(2);
        assert_eq!(wal.admit(), Err(Refusal::DiskFull));
        assert_eq!(wal.high_watermark(), Lsn::new(first as u64));
        let mut known = changes[..first].to_vec();
        known.push(large);
        let mut rng = fastrand::Rng::with_seed(first as u64);
        for keep in [0, 50, 100] {
            let after = disk.after_power_cut(&mut rng, keep);
            check_survives(&after, &known, Lsn::new(first as u64), "refused");
        }
        disk.set_capacity(None);
        writer.round(5000);
        writer.round(5001);
        assert_eq!(wal.high_watermark(), Lsn::new(first as u64 + 1));
        check_survives(
            &disk.after_power_cut(&mut rng, 0),
            &known,
            wal.high_watermark(),
            "resumed",
        );
    }
}
