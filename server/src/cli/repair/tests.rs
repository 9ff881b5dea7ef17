//! Data directories made by the real log and the real snapshots, damaged in every way that a repair tells apart.

use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use inflightkv_snapshot::{self as snapshot, EntryRef, Plain, Plan, SnapshotWriter};
use inflightkv_wal::{Cause, Op, Options, RecordHead, Start, SyncMode, Value, Wal};
use tempfile::TempDir;

use super::super::data_dir::Finding;
use super::*;

const STORE: [u8; 16] = [7; 16];
const TIMEOUT: Duration = Duration::from_secs(10);

struct Fixture {
    directory: TempDir,
}

impl Fixture {
    /// A log with one segment for each range of sequences, beginning after `follows`.
    fn new(follows: u64, segments: &[RangeInclusive<u64>]) -> Fixture {
        let fixture = Fixture {
            directory: tempfile::tempdir().expect("a temporary directory"),
        };
        fs::create_dir(fixture.path("snapshots")).expect("making a folder");
        let storage = Arc::new(wal::Directory::open(fixture.path("wal")).expect("opening the log"));
        let start = Start {
            follows: Lsn::new(follows),
            floor: Lsn::new(follows),
            next_lsn: Lsn::new(follows + 1),
            ..Start::fresh(STORE, 1)
        };
        let options = Options {
            sync: SyncMode::Always,
            ..Options::default()
        };
        let log = Wal::open(storage, options, start, 1).expect("opening the log");
        log.spawn_writer().expect("a thread");
        for range in segments {
            log.roll();
            for sequence in range.clone() {
                append(&log, sequence);
            }
            log.wait_durable(Lsn::new(*range.end()), TIMEOUT)
                .expect("durable");
        }
        log.shutdown().expect("closing the log");
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A snapshot of everything up to `cut`.
    fn snapshot(&self, id: u64, parent: Option<snapshot::Parent>, cut: u64) {
        let storage =
            Arc::new(snapshot::Directory::open(self.path("snapshots")).expect("a folder"));
        let plan = Plan {
            store_id: STORE,
            id,
            parent,
            cut,
            created_at_ms: 1,
            partitions: 1,
            parts: 1,
        };
        let mut writer =
            SnapshotWriter::begin(storage, plan, Arc::new(Plain), snapshot::Options::default())
                .expect("a plan");
        let mut part = writer.part(0).expect("a part");
        let mut block = writer.block_builder();
        let value = b"\"a value to be found\"";
        block
            .push(EntryRef {
                sequence: cut,
                version: 0,
                expires_at: None,
                pinned: false,
                value_crc: crc32fast::hash(value),
                tombstone: false,
                media_type: None,
                key: "key",
                value,
            })
            .expect("an entry");
        part.write(block.take()).expect("a block");
        writer.finish(vec![part]).expect("a snapshot");
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self
            .files("wal")
            .into_iter()
            .filter(|path| is(path, "log"))
            .collect();
        files.sort();
        files
    }

    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path(folder)).expect("a folder");
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect()
    }

    /// Changes one byte of the last place where `text` stands.
    fn damage(path: &Path, text: &str) {
        let mut bytes = fs::read(path).expect("reading a file");
        let at = bytes
            .windows(text.len())
            .rposition(|window| window == text.as_bytes())
            .unwrap_or_else(|| panic!("no {text} in {}", path.display()));
        bytes[at] ^= 1;
        fs::write(path, bytes).expect("writing a file");
    }

    fn damage_snapshot(&self, id: u64) {
        let part = self.path("snapshots").join(format!("{id:020}-0000.part"));
        Fixture::damage(&part, "value to be found");
    }

    fn survey(&self) -> Survey {
        Survey::take(&self.data_dir()).expect("a survey")
    }

    fn findings(&self) -> Vec<Finding> {
        self.survey().findings()
    }

    fn data_dir(&self) -> DataDir {
        DataDir::at(self.directory.path()).expect("a data directory")
    }

    /// Repairs, and asserts that all is sound then and that every value is still kept somewhere.
    fn repair(&self) -> Survey {
        assert_ne!(self.findings(), [], "the damage is seen");
        let before = self.values();
        let (report, after) = repair(&self.data_dir()).expect("a repair");
        assert_eq!(after.findings(), [], "{report}");
        assert_eq!(self.values(), before, "nothing is thrown away: {report}");
        let (report, _) = repair(&self.data_dir()).expect("a second repair");
        assert!(report.contains("nothing to repair"), "{report}");
        after
    }

    /// How many values there are in all files together, wherever they are kept.
    fn values(&self) -> usize {
        let all = [self.files("wal"), self.files("snapshots")].concat();
        let in_one = |path: &PathBuf| {
            let bytes = fs::read(path).expect("reading a file");
            // Damage is to the first letter.
            bytes
                .windows(5)
                .filter(|window| *window == b"alue ")
                .count()
        };
        all.iter().map(in_one).sum()
    }
}

fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn append(log: &Wal, sequence: u64) {
    let value = format!("\"value {sequence} of the log\"");
    let key = format!("key {sequence}");
    let head = RecordHead {
        lsn: Lsn::new(sequence),
        version: 0,
        expires_at: None,
        pinned: false,
        value_crc: crc32fast::hash(value.as_bytes()),
        op: Op::Put,
        cause: Cause::Client,
        media_type: None,
        key: &key,
    };
    log.append(0, &head, Value::Inline(value.as_bytes()));
}

fn range_of_log(survey: &Survey) -> (Option<u64>, Option<u64>) {
    let log = survey.log.as_ref().expect("a log");
    (log.first_lsn.map(Lsn::get), log.last_lsn.map(Lsn::get))
}

#[test]
fn a_sound_directory_is_left_as_it_is() {
    let fixture = Fixture::new(0, &[1..=3, 4..=6]);
    fixture.snapshot(1, None, 3);
    assert_eq!(fixture.findings(), []);
    let before = fixture.values();
    let (report, _) = repair(&fixture.data_dir()).expect("a repair");
    assert!(report.contains("nothing to repair"), "{report}");
    assert_eq!(fixture.values(), before);
}

#[test]
fn damage_in_the_log_cuts_what_comes_after() {
    let fixture = Fixture::new(0, &[1..=3, 4..=6, 7..=9]);
    Fixture::damage(&fixture.segments()[1], "value 4 of");
    let after = fixture.repair();
    assert_eq!(range_of_log(&after), (Some(1), Some(3)));
}

/// Without looking at the snapshot, everything after the damage would have been cut off: 7 to 9 as well.
#[test]
fn damage_below_a_sound_snapshot_costs_nothing() {
    let fixture = Fixture::new(0, &[1..=3, 4..=6, 7..=9]);
    fixture.snapshot(1, None, 7);
    Fixture::damage(&fixture.segments()[1], "value 5 of");
    let findings = format!("{:?}", fixture.findings());
    assert!(
        findings.contains("nothing is lost: snapshot 1 holds these changes"),
        "{findings}"
    );
    let after = fixture.repair();
    assert_eq!(range_of_log(&after), (Some(7), Some(9)));
}

#[test]
fn a_damaged_header_below_a_sound_snapshot_costs_nothing() {
    let fixture = Fixture::new(0, &[1..=3, 4..=6, 7..=9]);
    fixture.snapshot(1, None, 7);
    let first = &fixture.segments()[0];
    let mut bytes = fs::read(first).expect("reading a segment");
    bytes[..64].fill(0xff);
    fs::write(first, bytes).expect("writing a segment");
    let after = fixture.repair();
    assert_eq!(range_of_log(&after), (Some(4), Some(9)));
}

#[test]
fn a_damaged_snapshot_goes_aside_when_the_log_holds_its_changes() {
    let fixture = Fixture::new(0, &[1..=3, 4..=6]);
    fixture.snapshot(1, None, 3);
    fixture.snapshot(2, Some(snapshot::Parent { id: 1, cut: 3 }), 5);
    fixture.damage_snapshot(2);
    let findings = format!("{:?}", fixture.findings());
    assert!(findings.contains("snapshot 2"), "{findings}");
    assert!(findings.contains("nothing is lost"), "{findings}");
    let after = fixture.repair();
    assert_eq!(after.newest(), Some((1, 3)));
    assert_eq!(range_of_log(&after), (Some(1), Some(6)));
}

#[test]
fn increments_of_a_damaged_snapshot_go_aside_with_it() {
    let fixture = Fixture::new(0, &[1..=3, 4..=6]);
    fixture.snapshot(1, None, 3);
    fixture.snapshot(2, Some(snapshot::Parent { id: 1, cut: 3 }), 5);
    fixture.damage_snapshot(1);
    let after = fixture.repair();
    assert_eq!(after.newest(), None);
    assert_eq!(range_of_log(&after), (Some(1), Some(6)));
    let left: Vec<PathBuf> = fixture
        .files("snapshots")
        .into_iter()
        .filter(|path| is(path, "part") || is(path, "manifest"))
        .collect();
    assert_eq!(
        left,
        [] as [PathBuf; 0],
        "what a start would sweep away is kept under another name"
    );
}

/// The log was retired under snapshot 2. Without that one, snapshot 1 is all that can be proven.
#[test]
fn a_log_that_does_not_continue_what_is_left_goes_aside() {
    let fixture = Fixture::new(8, &[9..=10]);
    fixture.snapshot(1, None, 3);
    fixture.snapshot(2, None, 9);
    fixture.damage_snapshot(2);
    let findings = format!("{:?}", fixture.findings());
    assert!(findings.contains("lost: changes 4 to 8"), "{findings}");
    let after = fixture.repair();
    assert_eq!(after.newest(), Some((1, 3)));
    assert_eq!(range_of_log(&after), (None, None));
    assert_eq!(after.log_from, Some(Lsn::new(3)));
}

#[test]
fn a_log_that_is_gone_is_damage_and_gets_a_successor() {
    let fixture = Fixture::new(0, &[1..=3]);
    fixture.snapshot(1, None, 3);
    for segment in fixture.segments() {
        fs::remove_file(segment).expect("removing a segment");
    }
    let findings = format!("{:?}", fixture.findings());
    assert!(findings.contains("lost: changes after 3"), "{findings}");
    fixture.repair();
    assert_eq!(fixture.segments().len(), 1);
}

#[test]
fn a_log_of_which_nothing_can_be_read_gives_way_to_a_new_one() {
    let fixture = Fixture::new(0, &[1..=3]);
    fixture.snapshot(1, None, 2);
    let mut bytes = fs::read(&fixture.segments()[0]).expect("reading a segment");
    bytes[..64].fill(0xff);
    fs::write(&fixture.segments()[0], bytes).expect("writing a segment");
    let after = fixture.repair();
    assert_eq!(after.newest(), Some((1, 2)));
    assert_eq!(range_of_log(&after), (None, None));
}

/// An empty store would be the only thing that could be proven: nobody should get that for having asked for a repair.
#[test]
fn nothing_is_changed_where_nothing_can_be_proven() {
    let fixture = Fixture::new(5, &[6..=7]);
    fixture.snapshot(1, None, 5);
    fixture.damage_snapshot(1);
    let before = fixture.values();
    let refused = repair(&fixture.data_dir());
    assert!(matches!(refused, Err(Failure::Failed(_))), "{refused:?}");
    assert_eq!(fixture.values(), before);
    assert_eq!(
        fixture
            .files("snapshots")
            .iter()
            .filter(|path| is(path, "manifest"))
            .count(),
        1
    );
}
