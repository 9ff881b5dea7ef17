//! The log as somebody else reads it while it is written: every durable record once, in order, from wherever they were.

mod support;

use std::sync::Arc;
use std::time::Duration;

use inflightkv_wal::{
    Lsn, Options, RecoveryMode, Start, StreamError, StreamReader, SyncMode, TailError, TailStep,
    Upkeep, Wal,
};
use support::{Change, Disk, STORE, fresh, recover, resume, rewriting, small};

const NOW: Duration = Duration::ZERO;

fn some_changes(count: u64) -> Vec<Change> {
    let mut rng = fastrand::Rng::with_seed(21);
    (1..=count).map(|lsn| Change::some(lsn, &mut rng)).collect()
}

/// Everything that is durable from `from` on, as bytes of a stream.
fn streamed(wal: &Wal, from: u64) -> Result<Vec<u8>, TailError> {
    let mut tail = wal.tail(Lsn::new(from))?;
    let mut bytes = tail.header();
    while tail.next(&mut bytes, NOW)? == TailStep::Records {}
    Ok(bytes)
}

fn read(bytes: &[u8]) -> Result<Vec<Change>, StreamError> {
    let mut reader = StreamReader::begin(bytes)?;
    assert_eq!(reader.header().store_id, STORE);
    let mut changes = Vec::new();
    while let Some(frame) = reader.next_frame()? {
        changes.extend(frame.records().map(Change::of));
    }
    Ok(changes)
}

#[test]
fn every_durable_record_comes_from_whatever_segment_it_is_in() {
    let disk = Disk::new();
    let options = Options {
        segment_bytes: 16 << 10,
        ..small()
    };
    let (wal, mut writer) = fresh(&disk, options);
    let wal = rewriting(wal);
    let changes = some_changes(90);
    for group in changes.chunks(3) {
        group.iter().for_each(|change| change.append(&wal, 0));
        writer.round(group[0].lsn);
        if group[0].lsn == 70 {
            while wal.upkeep(0).unwrap() == Upkeep::Again {}
            assert!(
                wal.status().rewritten > 0,
                "some are compressed, some are not"
            );
        }
    }
    for from in 0..=91 {
        let expected = &changes[from.max(1) - 1..];
        let bytes = streamed(&wal, from as u64).unwrap();
        assert_eq!(read(&bytes).unwrap(), expected, "from {from}");
    }
}

/// Reading goes on where the writer writes: nothing before it is durable, everything after.
#[test]
fn a_tail_follows_the_writer_and_sees_only_what_is_durable() {
    let options = Options {
        sync: SyncMode::Interval(Duration::from_millis(50)),
        ..small()
    };
    let disk = Disk::new();
    let (wal, mut writer) = fresh(&disk, options);
    let wal = rewriting(wal);
    let mut rng = fastrand::Rng::with_seed(8);
    let changes = some_changes(400);
    let mut tail = wal.tail(Lsn::ZERO).unwrap();
    let mut bytes = tail.header();
    let mut now = 0;
    for change in &changes {
        change.append(&wal, rng.usize(0..2));
        now += rng.u64(0..20);
        match rng.u8(0..10) {
            0 => wal.roll(),
            1 => _ = wal.upkeep(now).unwrap(),
            _ => {}
        }
        if rng.bool() {
            writer.round(now);
        }
        if rng.u8(0..4) == 0 {
            while tail.next(&mut bytes, NOW).unwrap() == TailStep::Records {}
            let so_far = read(&bytes).unwrap();
            let durable = wal.high_watermark().get() as usize;
            assert_eq!(so_far, changes[..durable]);
        }
        if rng.u8(0..50) == 0 {
            tail.mark(&mut bytes);
        }
    }
    writer.finish(now).unwrap();
    while tail.next(&mut bytes, NOW).unwrap() == TailStep::Records {}
    assert_eq!(tail.next(&mut bytes, NOW).unwrap(), TailStep::Ended);
    assert_eq!(read(&bytes).unwrap(), changes);
}

#[test]
fn a_tail_waits_on_its_own_thread_and_is_woken_by_the_sync() {
    let disk = Disk::new();
    let wal = Wal::open(disk.storage(), small(), Start::fresh(STORE, 1), 1).unwrap();
    let wal = Arc::new(wal);
    wal.spawn_writer().unwrap();
    let mut tail = wal.tail(Lsn::new(1)).unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = tail.header();
        while tail.next(&mut bytes, Duration::from_secs(60)).unwrap() != TailStep::Ended {}
        bytes
    });
    let changes = some_changes(300);
    for change in &changes {
        change.append(&wal, 0);
        if change.lsn % 7 == 0 {
            wal.wait_durable(Lsn::new(change.lsn), Duration::from_secs(60))
                .unwrap();
        }
    }
    wal.shutdown().unwrap();
    assert_eq!(read(&reader.join().unwrap()).unwrap(), changes);
}

#[test]
fn what_was_retired_is_said_to_be_gone_and_from_where_on_it_goes() {
    let disk = Disk::new();
    let (wal, mut writer) = fresh(&disk, small());
    for lsn in 1..=30 {
        Change::put(lsn, "k", b"1").append(&wal, 0);
        writer.round(lsn);
        if lsn % 10 == 0 {
            wal.roll();
        }
    }
    writer.round(31);
    let mut slow = wal.tail(Lsn::new(1)).unwrap();
    let mut bytes = Vec::new();
    slow.next(&mut bytes, NOW).unwrap();
    wal.retire_below(Lsn::new(20)).unwrap();
    for from in [0, 1, 20] {
        let error = wal.tail(Lsn::new(from)).unwrap_err();
        assert!(
            matches!(error, TailError::TooOld { oldest } if oldest == Lsn::new(21)),
            "{error}"
        );
    }
    assert_eq!(read(&streamed(&wal, 21).unwrap()).unwrap().len(), 10);
    // It reads what it has open to the end, and is then told.
    let error = loop {
        match slow.next(&mut bytes, NOW) {
            Ok(step) => assert_eq!(step, TailStep::Records),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, TailError::TooOld { .. }), "{error}");
}

/// Between two runs numbers are left out. Where a snapshot was ahead of the log, the log cannot be read across.
#[test]
fn a_stream_goes_across_a_restart_but_not_across_a_hole() {
    let disk = Disk::new();
    let (wal, mut writer) = fresh(&disk, small());
    Change::put(1, "a", b"1").append(&wal, 0);
    writer.finish(1).unwrap();
    let (_, outcome) = recover(&disk, RecoveryMode::Strict, 0).unwrap();
    let (wal, mut writer) = resume(&disk, &outcome, small(), 100).unwrap();
    let mut waiting = wal.tail(Lsn::new(2)).unwrap();
    let mut tail = wal.tail(Lsn::new(1)).unwrap();
    let mut bytes = tail.header();
    while tail.next(&mut bytes, NOW).unwrap() == TailStep::Records {}
    Change::put(102, "b", b"2").append(&wal, 0);
    writer.round(2);
    while tail.next(&mut bytes, NOW).unwrap() == TailStep::Records {}
    let found = read(&bytes).unwrap();
    assert_eq!(
        found.iter().map(|one| one.lsn).collect::<Vec<_>>(),
        [1, 102]
    );
    let mut bytes = waiting.header();
    waiting.next(&mut bytes, NOW).unwrap();
    assert_eq!(read(&bytes).unwrap()[0].lsn, 102);
    writer.finish(3).unwrap();

    let (_, outcome) = recover(&disk, RecoveryMode::Strict, 150).unwrap();
    let (wal, mut writer) = resume(&disk, &outcome, small(), 0).unwrap();
    Change::put(151, "c", b"3").append(&wal, 0);
    writer.round(4);
    let error = wal.tail(Lsn::new(103)).unwrap_err();
    assert!(
        matches!(error, TailError::TooOld { oldest } if oldest == Lsn::new(151)),
        "{error}"
    );
    let mut tail = wal.tail(Lsn::new(1)).unwrap();
    let mut bytes = tail.header();
    let error = loop {
        match tail.next(&mut bytes, NOW) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, TailError::TooOld { .. }), "{error}");
    assert_eq!(read(&bytes).unwrap().len(), 2);
    assert_eq!(read(&streamed(&wal, 151).unwrap()).unwrap()[0].lsn, 151);
}

/// Numbers above a run's last that somebody has are a crash's: the next run goes on without them.
#[test]
fn whoever_has_what_a_crash_took_is_told() {
    let disk = Disk::new();
    let (wal, mut writer) = fresh(&disk, small());
    Change::put(1, "a", b"1").append(&wal, 0);
    writer.finish(1).unwrap();
    let (_, outcome) = recover(&disk, RecoveryMode::Strict, 0).unwrap();
    let (wal, mut writer) = resume(&disk, &outcome, small(), 100).unwrap();
    Change::put(102, "b", b"2").append(&wal, 0);
    writer.round(2);
    // With what the log has, and with what is known to be left out.
    for from in [1, 2, 102] {
        assert!(!read(&streamed(&wal, from).unwrap()).unwrap().is_empty());
    }
    for from in [3, 50, 101] {
        let error = wal.tail(Lsn::new(from)).unwrap_err();
        assert!(
            matches!(error, TailError::TooOld { oldest } if oldest == Lsn::new(102)),
            "{error}"
        );
    }
}

/// Any changed byte and any cut is noticed; what was read before it was right.
#[test]
fn a_damaged_or_cut_stream_is_noticed_wherever_that_is() {
    let (wal, mut writer) = fresh(&Disk::new(), small());
    let changes = some_changes(6);
    for change in &changes {
        change.append(&wal, 0);
        writer.round(change.lsn);
    }
    let bytes = streamed(&wal, 1).unwrap();
    let survivors = |bytes: &[u8]| -> (usize, bool) {
        let Ok(mut reader) = StreamReader::begin(bytes) else {
            return (0, true);
        };
        let mut found = Vec::new();
        let noticed = loop {
            match reader.next_frame() {
                Ok(Some(frame)) => found.extend(frame.records().map(Change::of)),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert_eq!(found, changes[..found.len()]);
        (found.len(), noticed)
    };
    assert_eq!(survivors(&bytes), (6, false));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(survivors(&changed).1, "byte {at}");
        let (records, noticed) = survivors(&bytes[..at]);
        assert!(noticed || records < 6, "cut at {at}");
    }
}
