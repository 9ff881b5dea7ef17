//! The log and the snapshot: written and read back in a temporary folder.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;

use inflightkv_snapshot as snapshot;
use inflightkv_snapshot::{EntryRef, Found, Plain, Plan, SnapshotWriter, chain, load_part};
use inflightkv_wal as wal;
use inflightkv_wal::{Cause, Lsn, Op, RecordHead, RecoveryMode, Start, SyncMode, Wal};
use tempfile::TempDir;

use crate::scenarios::{NOW, Scenario, Work, key, value};

pub(super) const LIST: &[Scenario] = &[
    Scenario::new("wal/encode", 4_096, encode),
    Scenario::new("wal/append-64", 200, append),
    Scenario::new("wal/replay-2000", 10, replay),
    Scenario::new("snapshot/write-2000", 10, write),
    Scenario::new("snapshot/load-2000", 10, load),
];

const STORE: [u8; 16] = *b"sixteen of them!";
const ENTRIES: usize = 2_000;
/// Records of one frame.
const FRAME: usize = 64;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// A log whose writer is driven by hand, so that all of its work is done by the thread that is looked at.
struct Log {
    // Before its folder, so that it is closed before that is removed.
    wal: Wal,
    writer: wal::Writer,
    storage: Arc<dyn wal::Storage>,
    next: u64,
    keys: Vec<String>,
    values: Vec<String>,
    folder: TempDir,
}

impl Log {
    fn new() -> Self {
        let folder = folder();
        let storage: Arc<dyn wal::Storage> =
            Arc::new(wal::Directory::open(folder.path()).expect("the folder is there"));
        let options = wal::Options {
            sync: SyncMode::Os,
            ..wal::Options::default()
        };
        let start = Start::fresh(STORE, NOW);
        let wal = Wal::open(Arc::clone(&storage), options, start, 1).expect("a fresh log opens");
        let writer = wal.take_writer().expect("nobody has taken it");
        Self {
            wal,
            writer,
            storage,
            next: 1,
            keys: (0..ENTRIES).map(key).collect(),
            values: (0..ENTRIES).map(value).collect(),
            folder,
        }
    }

    fn append(&mut self, records: usize) {
        self.hand_over(records);
        black_box(self.writer.round(NOW));
    }

    fn hand_over(&mut self, records: usize) {
        for _ in 0..records {
            let number = self.next as usize % ENTRIES;
            let value = self.values[number].as_bytes();
            let head = RecordHead {
                pinned: false,
                lsn: Lsn::new(self.next),
                version: 0,
                expires_at: None,
                value_crc: crc32fast::hash(value),
                op: Op::Put,
                cause: Cause::Client,
                media_type: None,
                key: &self.keys[number],
            };
            self.wal.append(0, &head, wal::Value::Inline(value));
            self.next += 1;
        }
    }
}

/// One record into the buffer of its lane; the writer empties that now and then, or it would grow for ever.
fn encode() -> Work {
    let mut log = Log::new();
    let mut count = 0_usize;
    Box::new(move || {
        log.hand_over(1);
        count += 1;
        if count.is_multiple_of(1_024) {
            black_box(log.writer.round(NOW));
        }
    })
}

fn append() -> Work {
    let mut log = Log::new();
    Box::new(move || log.append(FRAME))
}

fn replay() -> Work {
    let mut log = Log::new();
    for _ in 0..ENTRIES / 50 {
        log.append(50);
    }
    log.writer.finish(NOW).expect("the log ends in good order");
    let Log {
        storage, folder, ..
    } = log;
    Box::new(move || {
        let _folder = &folder;
        let found = wal::scan(
            &storage,
            &wal::Codecs::none(),
            RecoveryMode::Strict,
            Some(STORE),
        )
        .expect("it is sound");
        let mut bytes = 0;
        found
            .replay(Lsn::ZERO, |record| {
                bytes += record.value.len();
                ControlFlow::Continue(())
            })
            .expect("it is sound");
        assert_eq!(bytes, 100 * ENTRIES);
    })
}

fn save(disk: &snapshot::Directory, id: u64, keys: &[String], values: &[String]) {
    let plan = Plan {
        store_id: STORE,
        id,
        parent: None,
        cut: ENTRIES as u64,
        created_at_ms: NOW,
        partitions: 1,
        parts: 1,
    };
    let storage = Arc::new(disk.clone());
    let options = snapshot::Options::default();
    let mut writer = SnapshotWriter::begin(storage, plan, Arc::new(Plain), options)
        .expect("nothing is in its way");
    let mut part = writer.part(0).expect("a file can be made");
    let mut block = writer.block_builder();
    for ((number, key), value) in (1..).zip(keys).zip(values) {
        let full = block.push(EntryRef {
            pinned: false,
            sequence: number,
            version: 0,
            expires_at: None,
            value_crc: crc32fast::hash(value.as_bytes()),
            tombstone: false,
            media_type: None,
            key,
            value: value.as_bytes(),
        });
        if full.expect("a small entry") {
            part.write(block.take()).expect("the disk takes it");
        }
    }
    if !block.is_empty() {
        part.write(block.take()).expect("the disk takes it");
    }
    writer.finish(vec![part]).expect("the disk takes it");
}

fn entries() -> (Vec<String>, Vec<String>) {
    (
        (0..ENTRIES).map(key).collect(),
        (0..ENTRIES).map(value).collect(),
    )
}

fn write() -> Work {
    let folder = folder();
    let disk = snapshot::Directory::create(folder.path().join("snapshots")).expect("a folder");
    let (keys, values) = entries();
    let mut id = 0;
    Box::new(move || {
        let _folder = &folder;
        id += 1;
        save(&disk, id, &keys, &values);
    })
}

fn load() -> Work {
    let folder = folder();
    let disk = snapshot::Directory::create(folder.path().join("snapshots")).expect("a folder");
    let (keys, values) = entries();
    save(&disk, 1, &keys, &values);
    Box::new(move || {
        let _folder = &folder;
        let Ok(Found::Chain(chain)) = chain::newest(&disk, Some(STORE)) else {
            panic!("it was just written")
        };
        let mut bytes = 0;
        let manifest = chain.tip();
        load_part(&disk, manifest, 0, &[], |entry| {
            bytes += entry.value.len();
            ControlFlow::Continue(())
        })
        .expect("it is sound");
        assert_eq!(bytes, 100 * ENTRIES);
    })
}
