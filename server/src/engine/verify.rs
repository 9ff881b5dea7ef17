//! Everything read back: the checksum of every value in memory, every byte of the snapshots, every record of the log.
//!
//! It runs on the thread that asks, beside a store that serves: memory is looked at a batch at a time under the lock of
//! its partition, and files that a snapshot or the log's upkeep removes meanwhile are no damage.

use super::adapters::{snapshot_codecs, wal_codecs};
use super::coded::StoredValue;
use super::damage::FoundBy;
use super::restore::in_full;
use super::{Engine, Persistence, Shared};
use bytes::Bytes;
use inflightkv_core::Slot;
use inflightkv_snapshot::{self as snapshot, Storage, chain};
use inflightkv_wal::tools;
use std::ops::ControlFlow;

/// Entries checked under one hold of a partition's lock.
const BATCH: usize = 32;
/// Places of damage that are named; the rest are counted.
const NAMED_MAX: usize = 100;

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

    fn found(&mut self, place: String) {
        self.damaged += 1;
        if self.damage.len() < NAMED_MAX {
            self.damage.push(place);
        }
    }
}

impl Engine {
    /// Reads every checksum back, in memory and on disk. Blocks for as long as reading everything takes: not for an
    /// event loop.
    pub fn verify(&self) -> VerifyReport {
        let shared = &*self.shared;
        let started = shared.options.clock.now();
        let mut report = VerifyReport::default();
        memory(shared, &mut report);
        if let (Some(persistence), Some(_)) = (&shared.options.persistence, shared.log()) {
            snapshots(persistence, &mut report);
            log(persistence, &mut report);
        }
        report.duration_ms = shared.options.clock.now().saturating_sub(started);
        if !report.is_sound() {
            // Places in memory are named by their keys, which are not for the log.
            tracing::error!(places = report.damaged, "damage was found");
        }
        report
    }
}

fn memory(shared: &Shared, report: &mut VerifyReport) {
    // Expired entries that are still there are checked as well.
    let now = 0;
    let mut aside = Vec::new();
    let mut bad = Vec::new();
    for partition in 0..shared.partitions.count() {
        let mut from = Some(Slot::new(0));
        while let Some(slot) = from {
            from = shared.partitions.with(partition, |table| {
                let codings = &table.codings;
                table.partition.scan(slot, BATCH, "", now, |entry| {
                    report.entries += 1;
                    if entry.shared().is_some() || entry.coding().is_some() {
                        // Outside the lock: it may be long, or has to be decoded.
                        let value = StoredValue::of(entry, codings);
                        aside.push((entry.key().to_owned(), value, entry.crc()));
                    } else {
                        report.value_bytes += entry.stored().len() as u64;
                        if crc32fast::hash(entry.stored()) != entry.crc() {
                            bad.push(entry.key().to_owned());
                        }
                    }
                    ControlFlow::Continue(())
                })
            });
            for (key, value, crc) in aside.drain(..) {
                let value = value.decode().ok();
                report.value_bytes += value.as_ref().map_or(0, Bytes::len) as u64;
                if value.is_none_or(|value| crc32fast::hash(&value) != crc) {
                    bad.push(key);
                }
            }
            for key in bad.drain(..) {
                shared.note_damage(&key, FoundBy::Verify);
                report.found(in_memory(&key, partition));
            }
        }
    }
}

fn in_memory(key: &str, partition: usize) -> String {
    format!("memory: the value of {key:?} in partition {partition} does not have its checksum")
}

fn snapshots(persistence: &Persistence, report: &mut VerifyReport) {
    let disk = &*persistence.disk.snapshots;
    let codecs = snapshot_codecs();
    let listed = match chain::list(disk) {
        Ok(listed) => listed,
        Err(error) => return report.found(format!("snapshots: {}", in_full(&error))),
    };
    for snapshot in listed {
        let result =
            snapshot.manifest.and_then(|manifest| {
                for part in 0..manifest.parts.len() {
                    snapshot::load_part(disk, &manifest, part, &codecs, |_| {
                        ControlFlow::Continue(())
                    })?;
                }
                Ok(manifest)
            });
        match result {
            Ok(manifest) => {
                report.snapshots += 1;
                report.snapshot_bytes += manifest.totals.bytes;
            }
            // A newer one may have taken its place meanwhile.
            Err(_) if !is_listed(disk, snapshot.id) => {}
            Err(error) => report.found(format!("snapshot {}: {}", snapshot.id, in_full(&error))),
        }
    }
}

fn is_listed(disk: &dyn Storage, id: u64) -> bool {
    chain::list(disk).is_ok_and(|listed| listed.iter().any(|snapshot| snapshot.id == id))
}

fn log(persistence: &Persistence, report: &mut VerifyReport) {
    let check = || tools::check(&persistence.disk.wal, &wal_codecs());
    // A segment that was removed or rewritten while it was read is not there the second time.
    let found = check()
        .ok()
        .filter(tools::Report::is_sound)
        .map_or_else(check, Ok);
    match found {
        Ok(found) => {
            report.segments = found.segments.len() as u64;
            report.records = found.records;
            for damage in &found.damage {
                report.found(format!("log: {damage}"));
            }
        }
        Err(error) => report.found(format!("log: {}", in_full(&error))),
    }
}
