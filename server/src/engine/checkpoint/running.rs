//! A snapshot in the making: begun, fed with blocks, watched, ended.

use super::publish::{open_files, publish, retire};
use super::walk::Walk;
use super::{CheckpointError, Checkpointer, FULL, SnapshotKind, SnapshotReport};
use crate::engine::{Persistence, Shared};
use inflightkv_snapshot::{Kind, Parent, PartWriter, Plan, SnapshotWriter};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A walk that hands over nothing for so long is given up.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// What a snapshot may keep alive of overwritten values: this, and a twentieth of the data.
const PRE_IMAGE_BYTES_MAX: u64 = 64 << 20;
pub(super) const PRE_IMAGE_CHECK: Duration = Duration::from_millis(250);

/// A snapshot in the making.
pub(super) struct Running {
    pub(super) id: u64,
    pub(super) walk: Arc<Walk>,
    pub(super) parent: Option<Parent>,
    /// `None` when the files could not be begun; then `abort` says why.
    pub(super) files: Option<(SnapshotWriter, Vec<PartWriter>)>,
    pub(super) abort: Option<CheckpointError>,
    pub(super) started: Instant,
    pub(super) last_block: Instant,
    pub(super) last_check: Instant,
    pub(super) log_bytes: u64,
}

impl Checkpointer {
    /// Cuts the sequence, opens the files and lets the lanes walk.
    pub(super) fn begin(
        &self,
        shared: &Shared,
        persistence: &Persistence,
        log: &inflightkv_wal::Wal,
        id: u64,
        kind: SnapshotKind,
        now: u64,
    ) -> Running {
        let control = self.control.lock();
        let parent = control.parent(kind, persistence.snapshot_full_every);
        let store_id = control.store_id;
        drop(control);
        self.since.store(
            parent.as_ref().map_or(FULL, |parent| parent.cut),
            Ordering::Release,
        );
        // So that what the snapshot covers is whole segments, as nearly as may be.
        log.roll();
        let log_bytes = log.status().appended_bytes;
        let ticket = shared.sequencer.cut();
        let parts = persistence.snapshot_parts.min(shared.partitions.count());
        let plan = Plan {
            store_id,
            id,
            parent,
            cut: ticket.sequence.get(),
            created_at_ms: now,
            partitions: u32::try_from(shared.partitions.count()).unwrap_or(u32::MAX),
            parts,
        };
        let (files, abort) = match open_files(persistence, plan) {
            Ok(files) => (Some(files), None),
            Err(error) => (
                None,
                Some(CheckpointError::Failed {
                    reason: error.to_string(),
                }),
            ),
        };
        let walk = Arc::new(Walk::new(
            ticket.epoch,
            ticket.sequence,
            parts,
            shared.homes.len(),
            abort.is_some(),
        ));
        *self.walk.lock() = Some(Arc::clone(&walk));
        self.walking.store(true, Ordering::Release);
        for home in &shared.homes {
            home.signal();
        }
        let started = Instant::now();
        Running {
            id,
            walk,
            parent,
            files,
            abort,
            started,
            last_block: started,
            last_check: started,
            log_bytes,
        }
    }

    /// Every lane is through: publish the snapshot, or clean up after one that was given up.
    pub(super) fn end(
        &self,
        shared: &Shared,
        persistence: &Persistence,
        log: &inflightkv_wal::Wal,
        running: Running,
    ) {
        self.walking.store(false, Ordering::Release);
        *self.walk.lock() = None;
        let Running {
            id,
            walk,
            parent,
            files,
            mut abort,
            started,
            log_bytes,
            ..
        } = running;
        if abort.is_none() {
            abort = walk
                .failure
                .lock()
                .take()
                .map(|reason| CheckpointError::Failed { reason });
        }
        let written = match (files, abort) {
            (Some((writer, parts)), None) => publish(persistence, writer, parts),
            (Some((writer, parts)), Some(error)) => {
                drop(parts);
                if let Err(leftover) = writer.abort() {
                    tracing::warn!(snapshot = id, error = %leftover, "files of the snapshot were left behind: they are removed at the next start");
                }
                Err(error)
            }
            (None, abort) => Err(abort.unwrap_or_else(|| CheckpointError::Failed {
                reason: "no files".to_owned(),
            })),
        };
        let outcome = written.map(|manifest| {
            for partition in 0..shared.partitions.count() {
                shared.partitions.with(partition, |table| {
                    table.partition.forget_tombstones(walk.cut);
                });
            }
            let segments_retired = retire(persistence, log, &manifest);
            SnapshotReport {
                id,
                full: manifest.kind() == Kind::Full,
                parent: parent.map(|parent| parent.id),
                cut: manifest.cut,
                entries: manifest.totals.entries,
                tombstones: manifest.totals.tombstones,
                bytes: manifest.totals.bytes,
                duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                segments_retired,
            }
        });
        match &outcome {
            Ok(report) => tracing::info!(
                snapshot = id,
                full = report.full,
                cut = report.cut,
                entries = report.entries,
                bytes = report.bytes,
                duration_ms = report.duration_ms,
                "snapshot taken"
            ),
            Err(error) => tracing::warn!(snapshot = id, %error, "no snapshot"),
        }
        self.record(outcome, id, log_bytes, shared.options.clock.now());
    }
}

impl Running {
    /// Writes what waits; true if there was anything.
    pub(super) fn write_blocks(&mut self) -> bool {
        let mut any = false;
        loop {
            let Some((part, block)) = self.walk.blocks.lock().pop_front() else {
                return any;
            };
            any = true;
            self.last_block = Instant::now();
            if self.abort.is_some() {
                continue;
            }
            let Some((_, parts)) = &mut self.files else {
                continue;
            };
            if let Err(error) = parts[part].write(block) {
                self.give_up(CheckpointError::Failed {
                    reason: error.to_string(),
                });
            }
        }
    }

    pub(super) fn give_up(&mut self, error: CheckpointError) {
        self.abort.get_or_insert(error);
        self.walk.stop.store(true, Ordering::Release);
    }

    /// Gives a snapshot up that stalls or keeps too much alive.
    pub(super) fn watch(&mut self, shared: &Shared) {
        if self.abort.is_some() || self.last_check.elapsed() < PRE_IMAGE_CHECK {
            return;
        }
        self.last_check = Instant::now();
        if self.last_block.elapsed() >= STALLED_AFTER {
            let reason = format!("nothing moved for {} s", STALLED_AFTER.as_secs());
            self.give_up(CheckpointError::Aborted { reason });
        }
        let (mut kept, mut data) = (0, 0);
        for partition in 0..shared.partitions.count() {
            let stats = shared
                .partitions
                .with(partition, |table| table.partition.stats());
            kept += stats.frozen_bytes as u64;
            data += stats.entry_bytes as u64;
        }
        let max = PRE_IMAGE_BYTES_MAX + data / 20;
        if kept > max {
            let reason = format!(
                "writes outran the disk: {kept} bytes of overwritten values are kept, at most {max} may be"
            );
            self.give_up(CheckpointError::Aborted { reason });
        }
        if self.abort.is_some() {
            for home in &shared.homes {
                home.signal();
            }
        }
    }
}
