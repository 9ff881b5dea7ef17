//! One sync serves everybody who waited, and nobody is woken for nothing.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::thread;
use std::time::Duration;

use inflightkv_wal::{Lsn, Options, Refusal, Rest, Start, SyncMode, WaitError, Wal};
use support::{Change, Disk, STORE, fresh, small};

const LONG: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn interval() -> Options {
    Options {
        sync: SyncMode::Interval(Duration::from_secs(1)),
        gather: Duration::from_millis(5),
        ..small()
    }
}

#[test]
fn one_sync_answers_every_record_of_a_round() {
    let disk = Disk::new();
    let options = Options {
        segment_bytes: 64 << 10,
        ..small()
    };
    let (wal, mut writer) = fresh(&disk, options);
    for lsn in 1..=30 {
        Change::put(lsn, "k", b"1").append(&wal, lsn as usize % 2);
    }
    let before = disk.ops();
    let round = writer.round(5);
    assert_eq!((round.records, round.synced), (30, true));
    assert_eq!(wal.high_watermark(), Lsn::new(30));
    assert_eq!(wal.status().syncs, 1);
    assert_eq!(wal.status().frames, 1);
    assert_eq!(disk.ops() - before, 2, "one write, one sync");
    assert_eq!(round.rest, Rest::Again);
    assert_eq!(writer.round(5).rest, Rest::Idle { until_ms: None });
    assert_eq!(disk.ops() - before, 2, "nothing to do costs nothing");
}

/// Threads that wait while a sync runs share the next one: far fewer syncs than waiters.
#[test]
fn many_waiting_threads_share_syncs() {
    let disk = Disk::new();
    let start = Start::fresh(STORE, 1);
    let wal = Arc::new(Wal::open(disk.storage(), small(), start, 1).unwrap());
    let mut writer = wal.take_writer().unwrap();
    for lsn in 1..=16 {
        Change::put(lsn, "k", b"1").append(&wal, 0);
    }
    let waiters: Vec<_> = (1..=16)
        .map(|lsn| {
            let wal = Arc::clone(&wal);
            thread::spawn(move || wal.wait_durable(Lsn::new(lsn), LONG))
        })
        .collect();
    writer.round(1);
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), Ok(()));
    }
    assert_eq!(wal.status().syncs, 1);
    let error = wal.wait_durable(Lsn::new(17), Duration::from_millis(1));
    let expected = WaitError::Timeout {
        lsn: Lsn::new(17),
        high_watermark: Lsn::new(16),
    };
    assert_eq!(error, Err(expected));
}

#[test]
fn the_writers_thread_serves_every_lane() {
    const EACH: u64 = 100;
    let disk = Disk::new();
    let wal = Arc::new(Wal::open(disk.storage(), small(), Start::fresh(STORE, 1), 4).unwrap());
    wal.spawn_writer().unwrap();
    wal.spawn_writer().expect("a second time does nothing");
    let next = Arc::new(std::sync::Mutex::new(0));
    let lanes: Vec<_> = (0..4)
        .map(|lane| {
            let (wal, next) = (Arc::clone(&wal), Arc::clone(&next));
            thread::spawn(move || {
                for _ in 0..EACH {
                    let lsn = {
                        let mut next = next.lock().unwrap();
                        *next += 1;
                        Change::put(*next, "k", b"1").append(&wal, lane);
                        *next
                    };
                    wal.wait_durable(Lsn::new(lsn), LONG).unwrap();
                }
            })
        })
        .collect();
    lanes.into_iter().for_each(|lane| lane.join().unwrap());
    let status = wal.status();
    assert_eq!(status.high_watermark, Lsn::new(4 * EACH));
    assert_eq!((status.appends, status.queue_bytes), (4 * EACH, 0));
    wal.shutdown().unwrap();
    wal.shutdown().expect("the first one's answer");
}

#[test]
fn under_an_interval_a_sync_comes_when_the_oldest_write_is_old_enough() {
    let (wal, mut writer) = fresh(&Disk::new(), interval());
    Change::put(1, "k", b"1").append(&wal, 0);
    let round = writer.round(100);
    assert_eq!((round.records, round.synced), (1, false));
    assert_eq!(round.rest, Rest::Gather { until_ms: 105 });
    assert_eq!(
        (wal.written(), wal.high_watermark()),
        (Lsn::new(1), Lsn::ZERO)
    );
    assert_eq!(
        writer.round(105).rest,
        Rest::Idle {
            until_ms: Some(1100)
        }
    );
    Change::put(2, "k", b"2").append(&wal, 0);
    assert!(!writer.round(1099).synced);
    assert!(writer.round(1100).synced);
    assert_eq!(wal.high_watermark(), Lsn::new(2));
    assert_eq!(wal.status().syncs, 1);
    assert_eq!(writer.round(1100).rest, Rest::Idle { until_ms: None });
    // A clock that goes back puts nothing off.
    Change::put(3, "k", b"3").append(&wal, 0);
    writer.round(50);
    assert!(writer.round(2100).synced);
}

/// `?durability=sync` under `interval` or `os`: one record is wanted sooner, and the others before it come along.
#[test]
fn a_sync_on_request_does_not_wait_for_the_interval() {
    for sync in [SyncMode::Interval(Duration::from_secs(1)), SyncMode::Os] {
        let (wal, mut writer) = fresh(&Disk::new(), Options { sync, ..small() });
        for lsn in 1..=3 {
            Change::put(lsn, "k", b"1").append(&wal, 0);
        }
        assert!(!writer.round(1).synced);
        wal.request_sync(Lsn::new(2));
        assert!(writer.round(2).synced);
        assert_eq!(wal.high_watermark(), Lsn::new(3));
        wal.request_sync(Lsn::new(3));
        assert!(!writer.round(3).synced, "what is durable needs no sync");
        // Asked for before it is written: the write takes it along.
        wal.request_sync(Lsn::new(4));
        assert!(!writer.round(4).synced);
        Change::put(4, "k", b"1").append(&wal, 1);
        assert!(writer.round(5).synced);
        assert_eq!(wal.status().syncs, 2, "{sync:?}");
    }
}

#[test]
fn a_waker_is_used_once_and_only_for_progress() {
    let disk = Disk::new();
    let (wal, mut writer) = fresh(&disk, interval());
    let woken: [Arc<Woken>; 2] = std::array::from_fn(|_| Arc::default());
    let leave = |lane: usize| wal.on_progress(lane, Waker::from(Arc::clone(&woken[lane])));
    let times = || [woken[0].times(), woken[1].times()];
    leave(0);
    leave(1);
    leave(0);
    Change::put(1, "k", b"1").append(&wal, 0);
    writer.round(1);
    assert_eq!(times(), [0, 0], "written is not durable");
    writer.round(1001);
    assert_eq!(times(), [1, 1], "each once, the replaced one not at all");
    Change::put(2, "k", b"1").append(&wal, 0);
    writer.round(1002);
    writer.round(2002);
    assert_eq!(times(), [1, 1], "used up");
    leave(0);
    disk.fail_once_at(disk.ops());
    Change::put(3, "k", b"1").append(&wal, 0);
    writer.round(2003);
    assert_eq!(times(), [2, 1], "told that the log closed");
    assert!(matches!(wal.admit(), Err(Refusal::Closed { .. })));
    let waited = wal.wait_durable(Lsn::new(3), LONG);
    assert!(
        matches!(waited, Err(WaitError::Closed { .. })),
        "{waited:?}"
    );
}

#[test]
fn what_waits_for_the_writer_is_bounded() {
    let options = Options {
        queue_bytes_max: 64 << 10,
        ..small()
    };
    let (wal, mut writer) = fresh(&Disk::new(), options);
    let mut lsn = 0;
    while wal.admit().is_ok() {
        lsn += 1;
        Change::put(lsn, "k", &[7; 3000]).append(&wal, lsn as usize % 2);
        assert!(lsn < 1000, "admitted without end");
    }
    assert_eq!(wal.admit(), Err(Refusal::Backlog));
    let queued = wal.status().queue_bytes;
    // The lanes report in steps, so the bound is met within one step of each.
    assert!((64 << 10..96 << 10).contains(&queued), "{queued}");
    writer.round(1);
    assert_eq!(wal.admit(), Ok(()));
    assert_eq!(wal.status().queue_bytes, 0);
    assert_eq!(wal.high_watermark(), Lsn::new(lsn));
}

/// A number given twice, or never, would leave the log out of order: it says so, and loses nothing silently.
#[test]
fn numbers_out_of_order_are_put_in_order_and_wrong_ones_close_the_log() {
    let disk = Disk::new();
    let (wal, mut writer) = fresh(&disk, small());
    for lsn in [3, 1, 5, 2] {
        Change::put(lsn, &format!("key {lsn}"), b"1").append(&wal, lsn as usize % 2);
    }
    assert_eq!(writer.round(1).records, 3, "5 waits for 4");
    assert_eq!(wal.high_watermark(), Lsn::new(3));
    Change::put(4, "key 4", b"1").append(&wal, 0);
    assert_eq!(writer.round(2).records, 2);
    Change::put(5, "again", b"1").append(&wal, 0);
    assert_eq!(writer.round(3).rest, Rest::Closed);
    let Err(Refusal::Closed { reason }) = wal.admit() else {
        panic!("the log is closed");
    };
    assert_eq!(&*reason, "record 5 was appended while 6 was the next");

    let (wal, mut writer) = fresh(&Disk::new(), small());
    Change::put(2, "k", b"1").append(&wal, 0);
    let error = writer.finish(1).unwrap_err().to_string();
    assert_eq!(
        error,
        "record 1 was never appended, 1 records after it are lost"
    );
    assert!(wal.admit().is_err());
}
