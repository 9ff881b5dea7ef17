//! The bytes are what `FORMAT.md` says, files of every released version are read for ever, and today's writer still writes the newest.
//!
//! After a deliberate change of the format: raise its version, and run
//! `UPDATE_FIXTURES=1 cargo test -p inflightkv-wal --test fixtures` to write the files of the new one.

mod support;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use inflightkv_wal::tools::{self, Item};
use inflightkv_wal::{Cause, Lsn, Op, RecoveryMode, Start, Wal, scan};
use support::{Change, Disk, STORE, ZeroRuns, codecs, recover, rewriting, small};

const CURRENT: &str = "v1";
const PLAIN: &str = "wal-00000000000000000001.log";
const REWRITTEN: &str = "wal-00000000000000000002.log";
const LAST: &str = "wal-00000000000000000003.log";

fn folder(version: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", version]
        .iter()
        .collect()
}

/// Every shape that a record can have.
fn shapes() -> Vec<Change> {
    let mut shapes = vec![
        Change::put(1, "greeting", br#""hello""#),
        Change {
            version: u64::MAX,
            expires_at: Some(1_893_456_000_000),
            ..Change::put(2, "expiring", br#"{"n":1}"#)
        },
        Change {
            media_type: Some("image/png".to_owned()),
            ..Change::put(3, "opaque", &[0x89, b'P', b'N', b'G', 0, 0xff])
        },
        Change::put(4, "schlüssel/鍵", r#""wert""#.as_bytes()),
        Change::put(5, "", b"0"),
        Change::put(
            6,
            "by reference",
            format!("\"{}\"", "x".repeat(1500)).as_bytes(),
        ),
        Change {
            media_type: Some("a".repeat(255)),
            ..Change::put(7, "empty", b"")
        },
    ];
    let delete = |lsn, key: &str, cause| Change {
        op: Op::Delete,
        cause,
        ..Change::put(lsn, key, b"")
    };
    shapes.push(delete(8, "greeting", Cause::Client));
    shapes.push(delete(9, "opaque", Cause::Evicted));
    shapes.push(Change {
        expires_at: Some(1),
        ..Change::put(10, "expired long ago", b"null")
    });
    shapes
}

/// Three segments: every shape plain, every shape rewritten, and one that was closed in good order.
fn write_all() -> (Disk, Vec<Change>) {
    let disk = Disk::new();
    let start = Start::fresh(STORE, 1_700_000_000_000);
    let wal = rewriting(Wal::open(disk.storage(), small(), start, 2).expect("a log"));
    let mut writer = wal.take_writer().expect("the writer");
    let mut changes = shapes();
    for round in changes.chunks(3) {
        round.iter().for_each(|change| change.append(&wal, 0));
        writer.round(1_700_000_000_000);
    }
    wal.roll();
    writer.round(1_700_000_000_001);
    let mut again = shapes();
    for change in &mut again {
        change.lsn += 10;
        change.append(&wal, 1);
        writer.round(1_700_000_000_000 + change.lsn * 100);
    }
    changes.extend(again);
    wal.roll();
    writer.round(1_700_000_009_999);
    // The first would not become smaller by much, the second has many frames to put together.
    while wal.upkeep(0).expect("rewritten") == inflightkv_wal::Upkeep::Again {}
    assert_eq!(wal.status().rewritten, 1);
    changes.push(Change::put(21, "last", b"[]"));
    changes[20].append(&wal, 0);
    writer.finish(1_700_000_010_000).expect("closed");
    (disk, changes)
}

fn read(version: &str) -> Disk {
    let disk = Disk::new();
    for name in [PLAIN, REWRITTEN, LAST] {
        disk.put_file(
            name,
            fs::read(folder(version).join(name)).expect("a fixture"),
        );
    }
    disk
}

#[test]
fn todays_writer_writes_the_current_fixtures_byte_for_byte() {
    let (disk, _) = write_all();
    for name in [PLAIN, REWRITTEN, LAST] {
        let path = folder(CURRENT).join(name);
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            fs::create_dir_all(folder(CURRENT)).expect("a folder");
            fs::write(&path, disk.bytes(name)).expect("a fixture");
        }
        let fixture = fs::read(&path).expect("a fixture");
        assert_eq!(disk.bytes(name), fixture, "{name}");
    }
}

#[test]
fn files_of_version_1_are_read() {
    let (_, changes) = write_all();
    let disk = read("v1");
    let (found, outcome) = recover(&disk, RecoveryMode::Strict, 0).expect("sound");
    assert_eq!(found, changes);
    assert_eq!(outcome.last_lsn, Lsn::new(21));
    let report = tools::check(&read("v1").storage(), &codecs()).expect("readable");
    assert!(report.is_sound(), "{report:?}");
    let codecs_of: Vec<u8> = report
        .segments
        .iter()
        .map(|segment| segment.codec)
        .collect();
    assert_eq!(codecs_of, [0, ZeroRuns::ID, 0]);

    // A segment needs its codec. Without it nothing is taken for damage, and nothing is cut.
    let disk = read("v1");
    let none = inflightkv_wal::Codecs::none();
    let refused = scan(
        &disk.storage(),
        &none,
        RecoveryMode::PointInTime,
        Some(STORE),
    )
    .expect("the headers are sound")
    .replay(Lsn::ZERO, |_| ControlFlow::Continue(()))
    .expect_err("the codec is not known");
    assert!(
        matches!(refused, inflightkv_wal::RecoveryError::Unsupported { .. }),
        "{refused}"
    );
    assert_eq!(disk.ops(), 0);
}

#[test]
fn a_file_is_shown_with_every_field_whether_it_was_rewritten_or_not() {
    let mut times = Vec::new();
    for (name, first) in [(PLAIN, 1), (REWRITTEN, 11)] {
        let mut found = Vec::new();
        let mut frames = 0;
        let path = folder(CURRENT).join(name);
        tools::read_file(&path, &codecs(), |item| {
            match item {
                Item::Segment(header) => assert_eq!(header.first_lsn, Lsn::new(first)),
                Item::Frame { .. } => frames += 1,
                Item::Record { record, offset } => {
                    assert!(offset >= 4096);
                    times.push(record.written_at_ms);
                    found.push(Change::of(record));
                }
                Item::Bad { offset, fault } => panic!("{name} at {offset}: {fault}"),
                Item::End { offset } => {
                    assert_eq!(offset, fs::metadata(&path).expect("a file").len());
                }
                _ => {}
            }
            ControlFlow::Continue(())
        })
        .expect("readable");
        let mut expected = shapes();
        expected
            .iter_mut()
            .for_each(|change| change.lsn += first - 1);
        assert_eq!(found, expected, "{name}");
        assert!((2..=4).contains(&frames), "{name}: {frames}");
    }
    assert_eq!(times[..10], [1_700_000_000_000; 10]);
    // Ten frames a tenth of a second apart became one, which has the time of the last.
    assert_eq!(times[10..], [1_700_000_002_000; 10]);
}

/// The hexadecimal example of `FORMAT.md`.
#[test]
fn the_documents_example_is_what_the_writer_writes() {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("FORMAT.md"))
        .expect("the document");
    let (_, rest) = document.split_once("```hex\n").expect("an example in hex");
    let (example, _) = rest.split_once("```").expect("its end");
    let example: Vec<u8> = example
        .split_ascii_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits"))
        .collect();

    let disk = Disk::new();
    let store_id = std::array::from_fn(|index| index as u8);
    let start = Start::fresh(store_id, 1_700_000_000_000);
    let wal = Wal::open(disk.storage(), small(), start, 1).expect("a log");
    let mut writer = wal.take_writer().expect("the writer");
    Change::put(1, "greeting", br#""hello""#).append(&wal, 0);
    writer.round(1_700_000_000_000);
    let bytes = disk.bytes(PLAIN);
    let written = &bytes[4096..4096 + 120];
    let hex: Vec<String> = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, example, "the frame is\n{}", hex.join(" "));
}

/// What bincode writes, read and written by another library.
#[test]
fn the_headers_metadata_is_the_documents_layout() {
    type Metadata = ([u8; 16], u64, u64, u64, u64, u64, u8);
    let page = fs::read(folder(CURRENT).join(REWRITTEN)).expect("a fixture");
    assert_eq!(&page[..8], b"IFKV-WAL");
    let len = u32::from_le_bytes(page[16..20].try_into().expect("four bytes")) as usize;
    assert_eq!(len, 57);
    let bytes = &page[20..20 + len];
    let metadata: Metadata = wincode::deserialize(bytes).expect("the same layout");
    // Store, number, first LSN, what it follows, floor, time, codec.
    let expected: Metadata = (STORE, 2, 11, 10, 10, 1_700_000_000_001, ZeroRuns::ID);
    assert_eq!(metadata, expected);
    assert_eq!(wincode::serialize(&expected).expect("it is written"), bytes);
    assert!(page[20 + len..4096].iter().all(|byte| *byte == 0));
}
