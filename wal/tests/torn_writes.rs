//! A crash can tear the last write anywhere.

mod support;

use inflightkv_wal::{Lsn, RecoveryMode, tools};
use support::{Change, Disk, codecs, fresh, keys, recover, resume, small};

/// A log of "a" and "b", both known to be durable, and "c", whose sync never came; and where "c" begins.
fn written() -> (Disk, String, usize) {
    let disk = Disk::new();
    let (wal, mut writer) = fresh(&disk, small());
    for (lsn, key) in [(1, "a"), (2, "b"), (3, "c")] {
        Change::put(lsn, key, br#"{"some":"value"}"#).append(&wal, 0);
        writer.round(lsn);
    }
    let name = disk.segments()[0].clone();
    let bytes = disk.bytes(&name);
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let frame = (56 + 44 + 1 + 16_usize).next_multiple_of(8);
    let start = end.next_multiple_of(8) - frame;
    (disk, name, start)
}

fn check_recovers_and_goes_on(disk: &Disk, expected: &[&str], what: &str) {
    let report = tools::check(&disk.storage(), &codecs()).unwrap();
    assert!(report.is_sound(), "{what}: {report:?}");
    let (changes, outcome) =
        recover(disk, RecoveryMode::Strict, 0).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(keys(&changes), expected, "{what}");
    assert_eq!(outcome.last_lsn, Lsn::new(expected.len() as u64), "{what}");
    let (wal, mut writer) = resume(disk, &outcome, small(), 10).unwrap();
    Change::put(outcome.seen_lsn.get() + 11, "d", b"4").append(&wal, 1);
    writer.round(9);
    let (changes, outcome) = recover(disk, RecoveryMode::Strict, 0).unwrap();
    let expected: Vec<&str> = expected.iter().copied().chain(["d"]).collect();
    assert_eq!(keys(&changes), expected, "{what}");
    assert_eq!(outcome.cut, None, "{what}: cut once, and for good");
}

/// Cut it at every byte: what came before is there, the cut record is gone whole, and the log takes new appends.
#[test]
fn a_record_cut_at_any_byte_is_dropped_whole() {
    let (disk, name, start) = written();
    let bytes = disk.bytes(&name);
    let end = start + 120;
    for cut in start..end {
        let torn = disk.copy();
        torn.put_file(&name, bytes[..cut].to_vec());
        check_recovers_and_goes_on(&torn, &["a", "b"], &format!("cut at {cut}"));
    }
    check_recovers_and_goes_on(&disk.copy(), &["a", "b", "c"], "not cut");
}

/// Where room was reserved the file keeps its length, and zeros stand where the rest should be.
#[test]
fn a_record_that_turns_into_zeros_at_any_byte_is_dropped_whole() {
    let (disk, name, start) = written();
    let bytes = disk.bytes(&name);
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    for cut in start..=last {
        let mut torn_bytes = bytes.clone();
        torn_bytes[cut..].fill(0);
        let torn = disk.copy();
        torn.put_file(&name, torn_bytes);
        check_recovers_and_goes_on(&torn, &["a", "b"], &format!("zeros from {cut}"));
    }
}

/// The head of a write may be missing while its end is there.
#[test]
fn a_record_whose_beginning_is_lost_is_dropped_whole() {
    let (disk, name, start) = written();
    for lost in 1..=120 {
        let mut bytes = disk.bytes(&name);
        bytes[start..start + lost].fill(0);
        let torn = disk.copy();
        torn.put_file(&name, bytes);
        check_recovers_and_goes_on(&torn, &["a", "b"], &format!("{lost} bytes lost"));
    }
}

/// Later frames of an unsynced stretch may be on disk while an earlier one is not. None of them says that the
/// earlier one had been durable, so all of them go.
#[test]
fn sound_frames_behind_a_torn_one_are_dropped_with_it() {
    let disk = Disk::new();
    let options = inflightkv_wal::Options {
        sync: inflightkv_wal::SyncMode::Os,
        ..small()
    };
    let (wal, mut writer) = fresh(&disk, options);
    let mut offsets = Vec::new();
    for (lsn, key) in [(1, "a"), (2, "b"), (3, "c")] {
        Change::put(lsn, key, b"true").append(&wal, 0);
        writer.round(lsn);
        offsets.push(wal.segments()[0].bytes as usize);
    }
    let name = disk.segments()[0].clone();
    let mut bytes = disk.bytes(&name);
    bytes[offsets[0] + 20] ^= 1;
    disk.put_file(&name, bytes);
    let seen = recover(&disk.copy(), RecoveryMode::Strict, 0)
        .unwrap()
        .1
        .seen_lsn;
    assert_eq!(
        seen,
        Lsn::new(3),
        "numbers that were cut are not given again"
    );
    check_recovers_and_goes_on(&disk, &["a"], "b torn");
}

/// A crash between making a segment and using it.
#[test]
fn a_last_segment_without_records_is_removed() {
    for bytes in [Vec::new(), vec![0; 100], vec![0; 8192]] {
        let (disk, _, _) = written();
        disk.put_file("wal-00000000000000000002.log", bytes);
        check_recovers_and_goes_on(&disk, &["a", "b", "c"], "headless");
    }
    let (disk, _, _) = written();
    let (_, outcome) = recover(&disk, RecoveryMode::Strict, 0).unwrap();
    drop(resume(&disk, &outcome, small(), 500).unwrap());
    let (_, again) = recover(&disk, RecoveryMode::Strict, 0).unwrap();
    assert_eq!(again.next_segment, 2);
    assert_eq!(
        again.seen_lsn,
        Lsn::new(503),
        "numbers it declared are not given again"
    );
}
