//! A log that was there must not look as if there never was one: beside a snapshot that would mean that changes are lost.

mod support;

use inflightkv_wal::{Lsn, RecoveryMode, Refusal, scan};
use support::{Change, Disk, STORE, codecs, fresh, recover, resume, small};

fn is_there(disk: &Disk) -> bool {
    !scan(
        &disk.storage(),
        &codecs(),
        RecoveryMode::Strict,
        Some(STORE),
    )
    .expect("nothing is damaged")
    .is_empty()
}

#[test]
fn an_only_segment_without_records_stays_through_recoveries() {
    let disk = Disk::new();
    drop(fresh(&disk, small()));
    for _ in 0..3 {
        // The machine stops when the recovery is done and nothing is begun yet.
        let (_, outcome) = recover(&disk, RecoveryMode::Strict, 0).unwrap();
        assert!(is_there(
            &disk.after_power_cut(&mut fastrand::Rng::with_seed(1), 0)
        ));
        let (wal, writer) = resume(&disk, &outcome, small(), 10).unwrap();
        assert!(disk.segments().len() <= 2, "{:?}", disk.segments());
        drop((wal, writer));
    }
}

#[test]
fn an_only_segment_without_records_stays_on_a_full_disk() {
    let disk = Disk::new();
    let (wal, mut writer) = fresh(&disk, small());
    for lsn in 1..4 {
        Change::put(lsn, "a", b"1").append(&wal, 0);
        writer.round(lsn);
    }
    // What a snapshot does: it begins a segment, and covers all before it.
    wal.roll();
    writer.round(4);
    assert_eq!(wal.retire_below(Lsn::new(3)).unwrap().segments, 1);
    assert_eq!(disk.segments().len(), 1);

    disk.set_capacity(Some(disk.used()));
    Change::put(4, "large", &[7; 20_000]).append(&wal, 0);
    for now in 5..9 {
        writer.round(now * 1000);
        assert_eq!(wal.admit(), Err(Refusal::DiskFull));
        let mut rng = fastrand::Rng::with_seed(now);
        assert!(is_there(&disk.after_power_cut(&mut rng, 50)), "round {now}");
        assert!(disk.segments().len() <= 3, "attempts leave no more behind");
    }
    disk.set_capacity(None);
    writer.round(10_000);
    writer.round(10_001);
    assert_eq!(wal.high_watermark(), Lsn::new(4));
    let (changes, _) = recover(&disk, RecoveryMode::Strict, 3).unwrap();
    assert_eq!(changes.len(), 1);
}
