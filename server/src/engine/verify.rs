//! Everything read back: the checksum of every value in memory, every byte of the snapshots, every record of the log.
//!
//! It runs beside a store that serves, on the thread that asks or, paced, on the scrubber's: memory is looked at a batch
//! at a time under the lock of its partition, and files that a snapshot or the log's upkeep removes meanwhile are no
//! damage.

use super::adapters::{snapshot_codecs, wal_codecs};
use super::coded::StoredValue;
use super::damage::FoundBy;
use super::in_full;
use super::{Engine, Persistence, Shared};
use bytes::Bytes;
use inflightkv_core::Slot;
use inflightkv_snapshot::{self as snapshot, LoadError, chain};
use inflightkv_wal::{self as wal, RecoveryError, SegmentInfo, Wal, tools};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Entries checked under one hold of a partition's lock.
const BATCH: usize = 32;
/// Places of damage that are named; the rest are counted.
const NAMED_MAX: usize = 100;
/// How long a file that is not where it was said to be may be on its way out.
const LEAVING: Duration = Duration::from_millis(50);

/// What was read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Entries in memory.
    pub entries: u64,
    /// Bytes of their values.
    pub value_bytes: u64,
    /// Snapshots on disk.
    pub snapshots: u64,
    /// Bytes of their files.
    pub snapshot_bytes: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Places that do not hold.
    pub damaged: u64,
    /// The first hundred of them: what it is, where, and what was expected.
    pub damage: Vec<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

impl VerifyReport {
    /// Whether everything holds.
    pub fn is_sound(&self) -> bool {
        self.damaged == 0
    }
}

/// How fast everything is read back, until when, and who is told of what does not hold.
pub(super) trait Pace: Send + Sync {
    /// So many bytes are read: waits until that is paid for.
    fn spend(&self, bytes: u64);
    /// Nothing more is to be read.
    fn is_over(&self) -> bool;
    /// The value of `key` is damaged.
    fn damaged_value(&self, key: &str);
    /// A file is damaged, at a place that is said in words.
    fn damaged_file(&self, place: &str);
}

/// At once, and to the end.
struct AtOnce(Arc<Shared>);

impl Pace for AtOnce {
    fn spend(&self, _: u64) {}

    fn is_over(&self) -> bool {
        false
    }

    fn damaged_value(&self, key: &str) {
        self.0.note_damage(key, FoundBy::Verify);
    }

    fn damaged_file(&self, place: &str) {
        self.0.note_damaged_file(place, FoundBy::Verify);
    }
}

impl Engine {
    /// Reads every checksum back, in memory and on disk. Blocks for as long as reading everything takes: not for an
    /// event loop.
    pub fn verify(&self) -> VerifyReport {
        let report = read_back(&self.shared, Arc::new(AtOnce(Arc::clone(&self.shared))));
        if !report.is_sound() {
            // Places in memory are named by their keys, which are not for the log.
            tracing::error!(places = report.damaged, "damage was found");
        }
        report
    }
}

/// Reads everything back at `pace`.
pub(super) fn read_back(shared: &Shared, pace: Arc<dyn Pace>) -> VerifyReport {
    let started = shared.options.clock.now();
    let mut pass = Pass {
        pace,
        report: VerifyReport::default(),
    };
    pass.memory(shared);
    if let (Some(persistence), Some(log)) = (&shared.options.persistence, shared.log()) {
        pass.snapshots(persistence);
        pass.log(persistence, log);
    }
    pass.report.duration_ms = shared.options.clock.now().saturating_sub(started);
    pass.report
}

struct Pass {
    pace: Arc<dyn Pace>,
    report: VerifyReport,
}

impl Pass {
    fn found(&mut self, place: String) {
        self.report.damaged += 1;
        if self.report.damage.len() < NAMED_MAX {
            self.report.damage.push(place);
        }
    }

    fn found_in_file(&mut self, place: String) {
        self.pace.damaged_file(&place);
        self.found(place);
    }

    fn found_in_memory(&mut self, key: &str, partition: usize) {
        self.pace.damaged_value(key);
        self.found(format!(
            "memory: the value of {key:?} in partition {partition} does not have its checksum"
        ));
    }

    fn memory(&mut self, shared: &Shared) {
        // Expired entries that are still there are checked as well.
        let now = 0;
        let mut aside = Vec::new();
        let mut damaged: Vec<String> = Vec::new();
        for partition in 0..shared.partitions.count() {
            let mut from = Some(Slot::new(0));
            while let Some(slot) = from.filter(|_| !self.pace.is_over()) {
                let mut bytes = 0;
                let report = &mut self.report;
                from = shared.partitions.with(partition, |table| {
                    let codings = &table.codings;
                    let mut buffer = String::new();
                    table.partition.scan(slot, BATCH, "", now, |entry| {
                        report.entries += 1;
                        let key = codings.key_of(entry, &mut buffer);
                        if entry.shared().is_some() || entry.coding().is_some() {
                            // Outside the lock: it may be long, or has to be decoded.
                            let value = StoredValue::of(entry, codings);
                            aside.push((key.to_owned(), value, entry.crc()));
                        } else {
                            bytes += entry.stored().len() as u64;
                            if crc32fast::hash(entry.stored()) != entry.crc() {
                                damaged.push(key.to_owned());
                            }
                        }
                        ControlFlow::Continue(())
                    })
                });
                for (key, value, crc) in aside.drain(..) {
                    let value = value.decode().ok();
                    bytes += value.as_ref().map_or(0, Bytes::len) as u64;
                    if value.is_none_or(|value| crc32fast::hash(&value) != crc) {
                        damaged.push(key);
                    }
                }
                self.report.value_bytes += bytes;
                for key in damaged.drain(..) {
                    self.found_in_memory(&key, partition);
                }
                self.pace.spend(bytes);
            }
        }
    }

    fn snapshots(&mut self, persistence: &Persistence) {
        let disk = &*persistence.disk.snapshots;
        let codecs = snapshot_codecs();
        let listed = match chain::list(disk) {
            Ok(listed) => listed,
            Err(error) => return self.found_in_file(format!("snapshots: {}", in_full(&error))),
        };
        let paced = PacedSnapshots {
            disk,
            pace: &self.pace,
        };
        let load = |manifest: &snapshot::Manifest, part| {
            snapshot::load_part(&paced, manifest, part, &codecs, |_| {
                ControlFlow::Continue(())
            })
        };
        let mut damage = Vec::new();
        for snapshot in listed {
            let result = snapshot.manifest.and_then(|manifest| {
                (0..manifest.parts.len())
                    .try_for_each(|part| load(&manifest, part).map(drop))
                    .map(|()| manifest)
            });
            if self.pace.is_over() {
                return;
            }
            match result {
                Ok(manifest) => {
                    self.report.snapshots += 1;
                    self.report.snapshot_bytes += manifest.totals.bytes;
                }
                // A newer one may have taken its place meanwhile.
                Err(_) if !is_listed(disk, snapshot.id) => {}
                Err(error) => damage.push((snapshot.id, error)),
            }
        }
        for (id, error) in damage {
            self.found_in_file(format!("snapshot {id}: {}", in_full(&error as &LoadError)));
        }
    }

    fn log(&mut self, persistence: &Persistence, log: &Wal) {
        let segments = log.segments();
        for (index, segment) in segments.iter().enumerate() {
            let next = segments.get(index + 1).map(|next| next.number);
            self.segment(persistence, log, segment, next);
            if self.pace.is_over() {
                return;
            }
        }
    }

    /// What is damaged is so whenever it is read: bytes on their way into the active segment are not, and a file that
    /// went, or was rewritten, meanwhile is not either.
    fn segment(
        &mut self,
        persistence: &Persistence,
        log: &Wal,
        segment: &SegmentInfo,
        next: Option<u64>,
    ) {
        let disk: Arc<dyn wal::Storage> = Arc::new(PacedLog {
            disk: Arc::clone(&persistence.disk.wal),
            pace: Arc::clone(&self.pace),
        });
        let check = || tools::check_one(&disk, &wal_codecs(), segment.number, next);
        let mut found = check();
        if let Ok(first) = &found
            && !first.is_sound()
        {
            let damage = first.damage.clone();
            found = check().map(|mut again| {
                again.damage.retain(|place| damage.contains(place));
                again
            });
        }
        if matches!(&found, Err(RecoveryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound)
        {
            thread::sleep(LEAVING);
            found = check();
        }
        if self.pace.is_over() {
            return;
        }
        match found {
            Ok(found) => {
                self.report.segments += 1;
                self.report.records += found.records;
                for damage in &found.damage {
                    self.found_in_file(format!("log: {damage}"));
                }
            }
            Err(_) if is_leaving(log, segment) => {}
            Err(error) => self.found_in_file(format!("log: {}", in_full(&error))),
        }
    }
}

fn is_listed(disk: &dyn snapshot::Storage, id: u64) -> bool {
    chain::list(disk).is_ok_and(|listed| listed.iter().any(|snapshot| snapshot.id == id))
}

/// Whether a segment was retired, and so may be gone.
fn is_leaving(log: &Wal, segment: &SegmentInfo) -> bool {
    let listed = log.segments();
    let still = listed.iter().find(|one| one.number == segment.number);
    still.is_none_or(|one| one.last_lsn <= log.retired_to())
}

/// What both plugs for disks say when nothing more is to be read.
fn over() -> io::Error {
    io::Error::other("reading everything back was stopped")
}

/// The snapshots' folder, for reading at a pace.
struct PacedSnapshots<'a> {
    disk: &'a dyn snapshot::Storage,
    pace: &'a Arc<dyn Pace>,
}

impl snapshot::Storage for PacedSnapshots<'_> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn snapshot::File>> {
        self.disk.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn snapshot::File>> {
        let file = self.disk.open(name)?;
        let pace = Arc::clone(self.pace);
        Ok(Box::new(Paced { file, pace }))
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

/// The log's folder, for reading at a pace.
struct PacedLog {
    disk: Arc<dyn wal::Storage>,
    pace: Arc<dyn Pace>,
}

impl wal::Storage for PacedLog {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn wal::SegmentFile>> {
        self.disk.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn wal::SegmentFile>> {
        let file = self.disk.open(name)?;
        let pace = Arc::clone(&self.pace);
        Ok(Box::new(Paced { file, pace }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

/// A file that is read at a pace.
struct Paced<F: ?Sized> {
    pace: Arc<dyn Pace>,
    file: Box<F>,
}

impl<F: ?Sized> Paced<F> {
    /// Before the bytes are read, so that they are fresh when they are looked at.
    fn pay(&self, bytes: usize) -> io::Result<()> {
        self.pace.spend(bytes as u64);
        if self.pace.is_over() {
            return Err(over());
        }
        Ok(())
    }
}

impl snapshot::File for Paced<dyn snapshot::File> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.pay(buffer.len())?;
        self.file.read_at(offset, buffer)
    }
}

impl wal::SegmentFile for Paced<dyn wal::SegmentFile> {
    fn allocate(&mut self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn write_at(&mut self, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        self.file.write_at(offset, parts)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.pay(buf.len())?;
        self.file.read_at(offset, buf)
    }
}
