//! A backup holds what was put in, every way of harming it is noticed and named, and one key costs little to find.

mod support;

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use inflightkv_snapshot::{
    BackupDecoder, BackupReport, EntryRef, File, LoadError, Plain, Sought, Storage, Wanted, find,
    read_backup,
};
use support::{CODECS, Disk, Entry, RunLength, backup, plan, save};

fn entries(count: u64) -> Vec<Entry> {
    (1..=count)
        .map(|n| {
            let key = format!("tenant{}/user:{n}", n % 97);
            Entry::new(n, &key, &format!("\"{}\"", "v".repeat(100)))
        })
        .collect()
}

fn read(bytes: &[u8]) -> Result<(BackupReport, Vec<Entry>), LoadError> {
    let mut entries = Vec::new();
    let report = read_backup("b", bytes, CODECS, |entry| {
        entries.push(Entry::of(entry));
        ControlFlow::Continue(())
    })?;
    Ok((report, entries))
}

fn damage(bytes: &[u8]) -> (u64, String) {
    match read(bytes) {
        Err(LoadError::Damaged(damage)) => {
            assert_eq!(damage.file, "b");
            (damage.offset, damage.to_string())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_put_in_comes_out_however_the_bytes_arrive() {
    let put = entries(500);
    for codec in [
        Arc::new(Plain) as Arc<dyn inflightkv_snapshot::BlockCodec>,
        Arc::new(RunLength),
    ] {
        let bytes = backup(500, codec, &put);
        let (report, got) = read(&bytes).expect("it holds");
        assert_eq!(got, put);
        assert_eq!((report.entries, report.header.cut), (500, 500));
        assert_eq!(report.bytes, bytes.len() as u64);
        assert!(report.blocks > 5, "{report:?}");
        for step in [1, 7, 4096] {
            let mut decoder = BackupDecoder::new("b");
            let mut count = 0;
            for piece in bytes.chunks(step) {
                decoder
                    .feed(piece, CODECS, |_| {
                        count += 1;
                        ControlFlow::Continue(())
                    })
                    .expect("it holds");
            }
            assert_eq!(decoder.finish().expect("it is whole"), report);
            assert_eq!(count, 500);
        }
    }
    let (report, got) = read(&backup(0, Arc::new(Plain), &[])).expect("an empty one");
    assert_eq!((report.blocks, got.len()), (0, 0));
}

#[test]
fn every_truncation_is_a_backup_that_was_cut_off() {
    let bytes = backup(40, Arc::new(RunLength), &entries(40));
    for len in 0..bytes.len() {
        let (offset, words) = damage(&bytes[..len]);
        assert_eq!(offset, len as u64, "{words}");
        assert!(words.contains("cut off"), "{words}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(damage(&longer).0, bytes.len() as u64);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = backup(40, Arc::new(RunLength), &entries(40));
    for at in 0..bytes.len() {
        let mut harmed = bytes.clone();
        harmed[at] ^= 1 << (at % 8);
        match read(&harmed) {
            Err(LoadError::Damaged(_)) => {}
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn what_is_no_backup_is_told_so_at_once() {
    for foreign in [&b"{\"keys\":[]}"[..], b"IFKVPART-------", b"I"] {
        let mut decoder = BackupDecoder::new("b");
        let result = decoder.feed(foreign, CODECS, |_| ControlFlow::Continue(()));
        let result = result.and_then(|()| decoder.finish().map(drop));
        let words = result.expect_err("no backup").to_string();
        assert!(words.starts_with("b is damaged at offset"), "{words}");
    }
    // A block that is missing, and two that changed places.
    let bytes = backup(400, Arc::new(Plain), &entries(400));
    let starts: Vec<usize> = (0..bytes.len() - 4)
        .filter(|&at| &bytes[at..at + 4] == b"BLOK")
        .collect();
    let mut without = bytes[..starts[1]].to_vec();
    without.extend(&bytes[starts[2]..]);
    assert_eq!(damage(&without).0, starts[1] as u64 + 8);
}

/// A header that claims a block of a gigabyte costs what has arrived, not what it claims.
#[test]
fn a_claimed_length_is_not_allocated() {
    let mut bytes = backup(1, Arc::new(Plain), &entries(1));
    let claimed = 1_u32 << 30;
    bytes[64 + 16..64 + 20].copy_from_slice(&claimed.to_le_bytes());
    bytes[64 + 20..64 + 24].copy_from_slice(&claimed.to_le_bytes());
    let crc = crc32fast::hash(&bytes[64 + 8..64 + 44]);
    bytes[64 + 4..64 + 8].copy_from_slice(&crc.to_le_bytes());
    let (offset, words) = damage(&bytes);
    assert_eq!(offset, bytes.len() as u64);
    assert!(words.contains("cut off"), "{words}");
}

// ---- finding ----

/// A disk that counts what is read from it.
struct Counting {
    disk: Disk,
    read: Arc<AtomicU64>,
}

struct CountingFile(Box<dyn File>, Arc<AtomicU64>);

impl File for CountingFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.1.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.0.read_at(offset, buffer)
    }
}

impl Storage for Counting {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.disk.create(name)
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = self.disk.open(name)?;
        Ok(Box::new(CountingFile(file, Arc::clone(&self.read))))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

const BACKUP: &str = "of-monday.backup";
const PART: &str = "00000000000000000001-0000.part";
const MANIFEST: &str = "00000000000000000001.manifest";

/// The same entries as a backup and as a snapshot, tenants with few keys each, in no order; their length is given back.
fn both(count: u64) -> (Counting, Vec<Entry>, u64) {
    let mut put: Vec<Entry> = (1..=count)
        .map(|n| {
            let tenant = if n % 1000 == 0 { 7_000_000 + n } else { n % 5 };
            let value = format!("\"{n:0>100}\"");
            Entry::new(n, &format!("tenant{tenant}/user:{n}"), &value)
        })
        .collect();
    fastrand::Rng::with_seed(4).shuffle(&mut put);
    let disk = Disk::default();
    let bytes = backup(count, Arc::new(Plain), &put);
    let len = bytes.len() as u64;
    disk.put(BACKUP, bytes);
    save(&disk, plan(1, None, count, 1), Arc::new(Plain), &put).expect("written");
    let read = Arc::new(AtomicU64::new(0));
    (Counting { disk, read }, put, len)
}

fn search(disk: &Counting, name: &str, wanted: Wanted<'_>) -> (Vec<Entry>, Sought, u64) {
    disk.read.store(0, Ordering::Relaxed);
    let mut found = Vec::new();
    let sought = find(disk, name, CODECS, wanted, |entry: EntryRef<'_>| {
        found.push(Entry::of(entry));
        ControlFlow::Continue(())
    })
    .expect("it holds");
    found.sort_by_key(|entry| entry.sequence);
    (found, sought, disk.read.load(Ordering::Relaxed))
}

#[test]
fn a_key_and_a_rare_prefix_are_found_reading_little_else() {
    let (disk, put, len) = both(20_000);
    for name in [BACKUP, PART, MANIFEST] {
        for entry in put.iter().step_by(1111) {
            let (found, sought, read) = search(&disk, name, Wanted::Key(&entry.key));
            assert_eq!(found, std::slice::from_ref(entry));
            assert!(sought.blocks > 500, "{sought:?}");
            assert!(read < len / 10, "{name}: {read} of {len} bytes, {sought:?}");
        }
        let (found, _, read) = search(&disk, name, Wanted::Key("tenant1/nobody"));
        assert_eq!(found, []);
        assert!(read < len / 10, "{name}: {read} of {len}");

        for prefix in [
            "tenant7003000/",
            "tenant7003000/user:3",
            "tenant7003000/user:",
        ] {
            let (found, _, read) = search(&disk, name, Wanted::Prefix(prefix));
            assert_eq!(found.len(), 1, "{prefix}");
            assert!(read < len / 10, "{name}, {prefix}: {read} of {len}");
        }
        // What is everywhere has to be read everywhere.
        for prefix in ["tenant3/", "tenant3/user:1", "ten", ""] {
            let (found, sought, _) = search(&disk, name, Wanted::Prefix(prefix));
            let mut expected: Vec<Entry> = put
                .iter()
                .filter(|entry| entry.key.starts_with(prefix))
                .cloned()
                .collect();
            expected.sort_by_key(|entry| entry.sequence);
            assert_eq!(found, expected, "{prefix}");
            assert_eq!(sought.entries, expected.len() as u64);
        }
    }
}

#[test]
fn a_search_notices_what_it_reads_and_a_backup_without_its_end() {
    let (disk, put, _) = both(500);
    let bytes = disk.disk.get(BACKUP);
    for len in [0, 3, 64, 200, bytes.len() / 2, bytes.len() - 1] {
        disk.disk.put(BACKUP, bytes[..len].to_vec());
        let result = find(&disk, BACKUP, CODECS, Wanted::Key(&put[0].key), |_| {
            ControlFlow::Continue(())
        });
        assert!(matches!(result, Err(LoadError::Damaged(_))), "{result:?}");
    }
    let mut random = fastrand::Rng::with_seed(7);
    let mut refused = 0;
    for _ in 0..300 {
        let mut harmed = bytes.clone();
        let at = random.usize(..harmed.len());
        harmed[at] ^= 1 << random.u32(..8);
        disk.disk.put(BACKUP, harmed);
        let mut found = Vec::new();
        let result = find(&disk, BACKUP, CODECS, Wanted::Prefix(""), |entry| {
            found.push(Entry::of(entry));
            ControlFlow::Continue(())
        });
        match result {
            Err(LoadError::Damaged(_)) => refused += 1,
            // A filter that was not needed, or the checksum of what was not read whole.
            Ok(sought) => assert_eq!(sought.entries, 500),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 200, "{refused} of 300");
}
