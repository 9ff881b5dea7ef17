//! What was durable and cannot be read any more is noticed, wherever it is.

mod support;

use inflightkv_wal::{Lsn, RecoveryError, RecoveryMode, Storage, tools};
use support::{Change, Disk, codecs, fresh, recover, resume, small};

/// Two sealed segments and a last one that was closed in good order, and everything that was written.
fn closed_log() -> (Disk, Vec<Change>) {
    let disk = Disk::new();
    let (wal, mut writer) = fresh(&disk, small());
    let mut rng = fastrand::Rng::with_seed(7);
    let changes: Vec<Change> = (1..=12).map(|lsn| Change::some(lsn, &mut rng)).collect();
    for change in &changes {
        change.append(&wal, change.lsn as usize % 2);
        writer.round(change.lsn);
        if change.lsn % 5 == 0 {
            wal.roll();
        }
    }
    writer.finish(99).unwrap();
    assert_eq!(disk.segments().len(), 3);
    (disk, changes)
}

fn is_prefix(found: &[Change], of: &[Change]) -> bool {
    found.len() <= of.len() && found == &of[..found.len()]
}

/// The last frame of a closed log only vouches for what is before it.
const MARK: usize = 56;

#[test]
fn every_changed_byte_is_noticed_and_point_in_time_keeps_what_is_before_it() {
    let (disk, changes) = closed_log();
    let names = disk.segments();
    for (index, name) in names.iter().enumerate() {
        let bytes = disk.bytes(name);
        let is_last = index + 1 == names.len();
        let end = bytes.len() - if is_last { MARK } else { 0 };
        // One copy for all: refusing changes nothing, which is part of the claim.
        let copy = disk.copy();
        for at in 0..end {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            copy.put_file(name, changed.clone());
            let ops = copy.ops();
            let strict = recover(&copy, RecoveryMode::Strict, 0);
            let Err(RecoveryError::Damaged(damage)) = &strict else {
                panic!("{name} byte {at}: {strict:?}");
            };
            assert_eq!(&damage.file, name, "byte {at}");
            assert!(damage.offset <= at as u64, "{name} byte {at}: {damage}");
            let report = tools::check(&copy.storage(), &codecs()).unwrap();
            assert!(!report.is_sound(), "{name} byte {at}");
            assert_eq!(copy.ops(), ops, "looking changes nothing");
            // All of the frames, and a sample of the header pages, which cost more than they teach.
            if at < 4096 && at % 61 != 0 {
                continue;
            }
            let salvaged = disk.copy();
            salvaged.put_file(name, changed);
            let (found, outcome) = recover(&salvaged, RecoveryMode::PointInTime, 0)
                .unwrap_or_else(|error| panic!("{name} byte {at}: {error}"));
            assert!(is_prefix(&found, &changes), "{name} byte {at}");
            assert_eq!(found.len() as u64, outcome.last_lsn.get());
            assert!(outcome.damage.is_some(), "{name} byte {at}");
            assert_eq!(outcome.seen_lsn, Lsn::new(12), "{name} byte {at}");
        }
    }
}

#[test]
fn what_lies_beyond_a_damage_never_comes_back() {
    let (disk, changes) = closed_log();
    let name = disk.segments()[1].clone();
    let mut bytes = disk.bytes(&name);
    let middle = bytes.len() - 200;
    bytes[middle] ^= 4;
    disk.put_file(&name, bytes);
    let (found, outcome) = recover(&disk, RecoveryMode::PointInTime, 0).unwrap();
    assert!(found.len() < changes.len());
    assert_eq!(outcome.set_aside.len(), 2, "{:?}", outcome.set_aside);
    for file in &outcome.set_aside {
        assert!(
            !disk.bytes(file).is_empty(),
            "{file} keeps what was taken out"
        );
    }
    let (wal, mut writer) = resume(&disk, &outcome, small(), 0).unwrap();
    Change::put(13, "new", b"1").append(&wal, 0);
    writer.finish(1).unwrap();
    let (again, outcome) = recover(&disk, RecoveryMode::Strict, 0).unwrap();
    assert_eq!(again.len(), found.len() + 1);
    assert_eq!(again.last().map(|change| change.lsn), Some(13));
    assert_eq!(outcome.damage, None);
}

#[test]
fn a_missing_segment_is_noticed_wherever_it_was() {
    let (disk, changes) = closed_log();
    let names = disk.segments();
    let middle = disk.copy();
    middle.remove(&names[1]).unwrap();
    let error = recover(&middle, RecoveryMode::Strict, 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the log is damaged: {} at offset 0: segment 2 is missing; records 6 to 10 are lost",
            names[1]
        )
    );
    let (found, _) = recover(&middle, RecoveryMode::PointInTime, 0).unwrap();
    assert_eq!(found, changes[..5]);

    let first = disk.copy();
    first.remove(&names[0]).unwrap();
    assert!(matches!(
        recover(&first, RecoveryMode::Strict, 0).unwrap_err(),
        RecoveryError::Gap { segment: 2, .. }
    ));
    let (found, _) = recover(&first, RecoveryMode::Strict, 5).unwrap();
    assert_eq!(found, changes[5..], "a snapshot of 5 makes up for it");
}

#[test]
fn a_segment_cut_short_is_noticed_by_the_one_that_follows() {
    let (disk, _) = closed_log();
    let name = disk.segments()[0].clone();
    let bytes = disk.bytes(&name);
    for len in (4096..bytes.len()).step_by(8) {
        disk.put_file(&name, bytes[..len].to_vec());
        let error = recover(&disk, RecoveryMode::Strict, 0).unwrap_err();
        assert!(matches!(error, RecoveryError::Damaged(_)), "{len}: {error}");
    }
}

#[test]
fn repair_cuts_to_what_can_be_proven_and_keeps_the_rest_aside() {
    let (disk, changes) = closed_log();
    let sound = tools::repair(&disk.storage(), &codecs()).unwrap();
    assert!(sound.is_sound() && sound.set_aside.is_empty(), "{sound:?}");
    assert_eq!(sound.records, 12);

    let name = disk.segments()[0].clone();
    let mut bytes = disk.bytes(&name);
    let at = bytes.len() - 30;
    bytes[at] ^= 1;
    disk.put_file(&name, bytes);
    let report = tools::repair(&disk.storage(), &codecs()).unwrap();
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!(report.set_aside.len(), 3, "{report:?}");
    assert_eq!(report.last_lsn, Some(Lsn::new(4)));
    let after = tools::check(&disk.storage(), &codecs()).unwrap();
    assert!(after.is_sound(), "{after:?}");
    assert_eq!(
        recover(&disk, RecoveryMode::Strict, 0).unwrap().0,
        changes[..4]
    );
}

#[test]
fn another_stores_log_and_a_newer_format_are_refused_as_such() {
    let (disk, _) = closed_log();
    let error = inflightkv_wal::scan(
        &disk.storage(),
        &codecs(),
        RecoveryMode::Strict,
        Some([9; 16]),
    )
    .err();
    assert!(matches!(error, Some(RecoveryError::ForeignStore { .. })));

    let name = disk.segments()[0].clone();
    let mut bytes = disk.bytes(&name);
    bytes[8] = 2;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..12]);
    crc.update(&bytes[16..4096]);
    let crc = crc.finalize().to_le_bytes();
    bytes[12..16].copy_from_slice(&crc);
    disk.put_file(&name, bytes);
    for mode in [RecoveryMode::Strict, RecoveryMode::PointInTime] {
        let error = recover(&disk, mode, 0).unwrap_err();
        assert!(
            matches!(error, RecoveryError::NewerFormat { found: 2, .. }),
            "{error}"
        );
    }
}

/// A record whose checksum holds and whose operation is unknown was written by a newer program. Cutting it would lose it.
#[test]
fn an_unknown_operation_under_a_sound_checksum_is_never_cut() {
    let disk = Disk::new();
    let (wal, mut writer) = fresh(&disk, small());
    Change::put(1, "k", b"1").append(&wal, 0);
    writer.round(1);
    let name = disk.segments()[0].clone();
    let mut bytes = disk.bytes(&name);
    let record = 4096 + 56;
    bytes[record + 36] = 9;
    let crc = crc32fast::hash(&bytes[record + 4..record + 45]).to_le_bytes();
    bytes[record..record + 4].copy_from_slice(&crc);
    disk.put_file(&name, bytes);
    for mode in [RecoveryMode::Strict, RecoveryMode::PointInTime] {
        let error = recover(&disk, mode, 0).unwrap_err();
        assert!(
            matches!(error, RecoveryError::Unsupported { .. }),
            "{error}"
        );
    }
}
