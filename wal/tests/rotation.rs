//! How a log is cut into segments, when they go, and what their files are called.

mod support;

use std::time::Duration;

use inflightkv_wal::{Directory, Lsn, Options, RecoveryMode, Start, Storage, Upkeep, Wal, scan};
use support::{Change, Disk, STORE, codecs, fresh, recover, resume, small};

const HOUR_MS: u64 = 3_600_000;

#[test]
fn a_segment_is_sealed_before_it_would_grow_beyond_its_size() {
    let disk = Disk::new();
    let (wal, mut writer) = fresh(&disk, small());
    for lsn in 1..=40 {
        Change::put(lsn, "k", &[1; 500]).append(&wal, 0);
        writer.round(lsn);
    }
    let segments = wal.segments();
    assert!(segments.len() > 4);
    for segment in &segments {
        assert!(segment.bytes <= 8 << 10, "{segment:?}");
    }
    for pair in segments.windows(2) {
        assert_eq!(pair[1].number, pair[0].number + 1);
        assert_eq!(pair[1].follows, pair[0].last_lsn);
        assert_eq!(pair[1].first_lsn, pair[0].last_lsn.next());
        // One record more would not have had room.
        assert!(pair[0].bytes + 608 > 8 << 10, "{pair:?}");
    }
    assert_eq!(wal.status().rotations, segments.len() as u64 - 1);
    // A record larger than a segment has one of its own.
    Change::put(41, "large", &[2; 30_000]).append(&wal, 0);
    Change::put(42, "small", b"1").append(&wal, 0);
    writer.round(50);
    writer.round(51);
    let tail = &wal.segments()[segments.len()..];
    assert_eq!(tail.len(), 2, "{tail:?}");
    assert!(tail[0].bytes > 30_000 && tail[0].first_lsn == tail[0].last_lsn);
}

#[test]
fn a_segment_is_sealed_at_its_age_if_it_has_records_and_something_happens() {
    let options = Options {
        segment_age: Duration::from_secs(3600),
        segment_bytes: 1 << 20,
        ..small()
    };
    let disk = Disk::new();
    let (wal, mut writer) = fresh(&disk, options);
    writer.round(2 * HOUR_MS);
    assert_eq!(wal.segments().len(), 1, "without records it stays");
    Change::put(1, "k", b"1").append(&wal, 0);
    assert_eq!(writer.round(2 * HOUR_MS).records, 1);
    // The one it went into is as old as the log; the next round finds that out.
    Change::put(2, "k", b"1").append(&wal, 0);
    writer.round(2 * HOUR_MS + 1);
    let segments = wal.segments();
    assert_eq!(segments.len(), 2);
    assert_eq!(segments[1].created_at_ms, 2 * HOUR_MS + 1);
    Change::put(3, "k", b"1").append(&wal, 0);
    writer.round(3 * HOUR_MS);
    assert_eq!(wal.segments().len(), 2, "an hour less a millisecond");
    Change::put(4, "k", b"1").append(&wal, 0);
    let round = writer.round(3 * HOUR_MS + 1);
    assert_eq!(wal.segments().len(), 3);
    assert_eq!(round.rest, inflightkv_wal::Rest::Again);
    assert_eq!(
        writer.round(3 * HOUR_MS + 1).rest,
        inflightkv_wal::Rest::Idle { until_ms: None },
        "an idle log is left alone"
    );
}

#[test]
fn a_roll_begins_a_segment_only_when_there_are_records() {
    let disk = Disk::new();
    let (wal, mut writer) = fresh(&disk, small());
    wal.roll();
    writer.round(1);
    assert_eq!(wal.segments().len(), 1);
    Change::put(1, "k", b"1").append(&wal, 0);
    writer.round(2);
    wal.roll();
    Change::put(2, "k", b"1").append(&wal, 0);
    writer.round(3);
    let segments = wal.segments();
    assert_eq!(segments.len(), 2);
    assert_eq!(
        segments[1].first_lsn,
        Lsn::new(2),
        "asked for before it was appended"
    );
}

/// Room for the segment is there before it is written to, and for the next before it is needed; sealing gives the rest back.
#[test]
fn room_is_reserved_in_advance_and_given_back() {
    let disk = Disk::new();
    let (wal, mut writer) = fresh(&disk, small());
    assert_eq!(disk.used(), 8 << 10, "the whole segment");
    assert!(!disk.names().contains(&"wal-next.tmp".to_owned()));
    for lsn in 1..=3 {
        Change::put(lsn, "k", &[1; 500]).append(&wal, 0);
        writer.round(lsn);
    }
    assert!(
        disk.names().contains(&"wal-next.tmp".to_owned()),
        "at least half is used"
    );
    assert_eq!(disk.used(), 16 << 10);
    wal.roll();
    writer.round(9);
    let first = disk.bytes(&disk.segments()[0]);
    assert_eq!(first.len() as u64, wal.segments()[0].bytes);
    assert!(first.len() < 8 << 10);
    writer.finish(10).unwrap();
    assert!(!disk.names().contains(&"wal-next.tmp".to_owned()));
    assert_eq!(
        disk.used(),
        wal.segments().iter().map(|one| one.bytes).sum()
    );
}

#[test]
fn only_whole_segments_below_a_checkpoint_go_and_never_the_last() {
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
    assert_eq!(wal.segments().len(), 4);
    let retired = |lsn| wal.retire_below(Lsn::new(lsn)).unwrap().segments;
    assert_eq!(retired(9), 0);
    assert_eq!(retired(10), 1);
    assert_eq!(retired(29), 1);
    assert_eq!(wal.retired_to(), Lsn::new(29));
    assert_eq!(disk.segments().len(), 2);
    writer.finish(40).unwrap();
    // The active one went with the log's end; what is left is the proof that there was a log.
    assert_eq!(retired(u64::MAX), 1);
    assert_eq!(retired(u64::MAX), 0);
    assert_eq!(disk.segments().len(), 1);
    let (found, outcome) = recover(&disk, RecoveryMode::Strict, 30).unwrap();
    assert!(found.is_empty() && outcome.found);
}

/// Kept for a time after they were retired, so that one can go back: not replayed, and gone when the time is over.
#[test]
fn retired_segments_are_kept_until_their_time_is_over() {
    let options = Options {
        keep: Duration::from_secs(60),
        ..small()
    };
    let disk = Disk::new();
    let (wal, mut writer) = fresh(&disk, options.clone());
    for lsn in 1..=4 {
        Change::put(lsn, "k", b"1").append(&wal, 0);
        writer.round(lsn * 10_000);
        wal.roll();
    }
    // Segments begin at 1, 20,000, 30,000, 40,000; a fifth is not begun before it is needed.
    writer.round(50_000);
    let begun: Vec<u64> = wal.segments().iter().map(|one| one.created_at_ms).collect();
    assert_eq!(begun, [1, 20_000, 30_000, 40_000, 50_000]);
    assert_eq!(wal.upkeep(50_000).unwrap(), Upkeep::Idle { until_ms: None });
    assert_eq!(wal.retire_below(Lsn::new(3)).unwrap().segments, 0);
    assert_eq!(wal.retired_to(), Lsn::new(3));
    // The first was complete at 20,000, when the second began.
    let due = |at| Upkeep::Idle { until_ms: Some(at) };
    assert_eq!(wal.upkeep(79_999).unwrap(), due(80_000));
    assert_eq!(wal.segments().len(), 5);
    assert_eq!(wal.upkeep(80_000).unwrap(), Upkeep::Again);
    assert_eq!(wal.upkeep(80_000).unwrap(), due(90_000));
    assert_eq!(wal.segments().len(), 4);
    drop(wal);
    drop(writer);

    // A restart reads nothing of what is only kept, and forgets nothing about how long.
    let scanned = scan(
        &disk.storage(),
        &codecs(),
        RecoveryMode::Strict,
        Some(STORE),
    )
    .unwrap();
    assert_eq!(scanned.segments().len(), 4);
    assert!(scanned.bytes_above(Lsn::new(3)) <= 4096 + 168 + (8 << 10));
    let (found, outcome) = recover(&disk, RecoveryMode::Strict, 3).unwrap();
    assert_eq!(found.iter().map(|one| one.lsn).collect::<Vec<_>>(), [4]);
    let (wal, _writer) = resume(&disk, &outcome, options, 0).unwrap();
    wal.retire_below(Lsn::new(3)).unwrap();
    assert_eq!(wal.upkeep(99_999).unwrap(), Upkeep::Again);
    assert_eq!(wal.upkeep(99_999).unwrap(), due(100_000));
    assert_eq!(wal.upkeep(100_000).unwrap(), Upkeep::Again);
    assert_eq!(
        wal.segments()[0].first_lsn,
        Lsn::new(4),
        "not retired, not removed"
    );
    assert_eq!(
        wal.upkeep(u64::MAX).unwrap(),
        Upkeep::Idle { until_ms: None }
    );
}

#[test]
fn files_of_others_are_left_alone() {
    let disk = Disk::new();
    let strangers = [
        "notes.txt",
        "wal-1.log",
        "wal-00000000000000000001.log.damaged",
        "wal",
    ];
    for name in strangers {
        disk.put_file(name, b"mine".to_vec());
    }
    disk.put_file("wal-next.tmp", vec![1; 100]);
    disk.put_file("wal-rewrite.tmp", vec![1; 100]);
    let (found, outcome) = recover(&disk, RecoveryMode::Strict, 0).unwrap();
    assert!(found.is_empty() && !outcome.found);
    let (wal, mut writer) = fresh(&disk, small());
    Change::put(1, "k", b"1").append(&wal, 0);
    writer.finish(1).unwrap();
    let mut names = disk.names();
    names.sort();
    let mut expected = vec!["wal-00000000000000000001.log"];
    expected.extend(strangers);
    expected.sort_unstable();
    assert_eq!(names, expected, "half-done work goes, nothing else does");
}

/// The real thing: files, preallocation, a lock, a restart.
#[test]
fn a_directory_of_the_file_system_serves_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some/where");
    let open =
        || -> std::sync::Arc<dyn Storage> { std::sync::Arc::new(Directory::open(&path).unwrap()) };
    let storage = open();
    assert_eq!(
        Directory::open(&path).unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    let options = Options {
        segment_bytes: 64 << 10,
        ..small()
    };
    let wal = Wal::open(
        std::sync::Arc::clone(&storage),
        options,
        Start::fresh(STORE, 1),
        1,
    )
    .unwrap();
    let wal = support::rewriting(wal);
    wal.spawn_writer().unwrap();
    for lsn in 1..=50 {
        Change::put(lsn, "k", &[0; 3000]).append(&wal, 0);
        wal.wait_durable(Lsn::new(lsn), Duration::from_secs(60))
            .unwrap();
    }
    while wal.upkeep(1).unwrap() == Upkeep::Again {}
    assert!(wal.status().rewritten > 0);
    wal.shutdown().unwrap();
    let on_disk: u64 = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(on_disk, wal.status().bytes);
    drop(wal);
    let read_only: std::sync::Arc<dyn Storage> =
        std::sync::Arc::new(Directory::open_read_only(&path).unwrap());
    assert!(read_only.remove("wal-00000000000000000001.log").is_err());
    let report = inflightkv_wal::tools::check(&read_only, &codecs()).unwrap();
    assert!(report.is_sound() && report.records == 50, "{report:?}");
    drop(storage);
    let mut lsns = Vec::new();
    scan(&open(), &codecs(), RecoveryMode::Strict, None)
        .unwrap()
        .replay(Lsn::new(10), |record| {
            lsns.push(record.lsn.get());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(lsns, (11..=50).collect::<Vec<_>>());
}
