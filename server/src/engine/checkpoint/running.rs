//! A walk's other end: files or a stream begun, fed with blocks, watched, ended.

use super::publish::{open_files, publish, retire};
use super::schedule::Content;
use super::stream::Stream;
use super::walk::Walk;
use super::{CheckpointError, Checkpointer, FULL, SnapshotKind, SnapshotReport};
use crate::engine::adapters::{lsn, snapshot_codec};
use crate::engine::damage::FoundBy;
use crate::engine::restore::remove_staged;
use crate::engine::{Persistence, Shared};
use inflightkv_core::Sequence;
use inflightkv_snapshot::{
    BackupEncoder, BackupHeader, Kind, Manifest, Parent, PartWriter, Plan, SnapshotWriter,
    WriteError,
};
use inflightkv_wal::{Refusal, Wal};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A walk in which nothing moves for so long is given up.
pub(super) const STALLED_AFTER_MS: u64 = 60_000;
/// A walk may take this long, and a millisecond more for each of so many bytes of the data.
const WALK_MS: u64 = 600_000;
const WALK_BYTES_PER_MS: u64 = 1 << 10;
/// How long the log may take to become durable up to the cut.
pub(super) const SYNC_WITHIN_MS: u64 = 60_000;
const SYNC_CHECK: Duration = Duration::from_millis(10);
/// How long lanes may take to thaw their partitions before that is done for them.
pub(super) const THAW_WITHIN_MS: u64 = 10_000;
/// What a walk may keep alive of overwritten values: this, and a twentieth of the data.
const PRE_IMAGE_BYTES_MAX: u64 = 64 << 20;
/// Changed entries for which an increment gets another file.
const CHANGES_PER_PART: usize = 100_000;
const CHECK_EVERY_MS: u64 = 250;
/// And this at least, however small the limit of the memory is.
const PRE_IMAGE_BYTES_MIN: u64 = 8 << 20;

/// A walk in progress, and what becomes of its blocks.
pub(super) struct Running {
    pub(super) walk: Arc<Walk>,
    to: Target,
    abort: Option<CheckpointError>,
    /// Instants of the store's clock, in milliseconds.
    started: u64,
    moved: u64,
    steps_seen: u64,
    checked: u64,
    given_up: u64,
    sync_asked: Option<u64>,
}

enum Target {
    Snapshot {
        id: u64,
        parent: Option<Parent>,
        log_bytes: u64,
        /// `None` when the files could not be begun; then `abort` says why.
        files: Option<(SnapshotWriter, Vec<PartWriter>)>,
    },
    Backup {
        stream: Arc<Stream>,
        encoder: BackupEncoder,
    },
}

/// What came of looking for blocks to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrote {
    Something,
    Nothing,
    /// The reader of a backup has to take something first.
    Full,
}

impl Checkpointer {
    /// Cuts the sequence, opens the files and lets the lanes walk.
    pub(super) fn begin(
        &self,
        shared: &Shared,
        persistence: &Persistence,
        log: &Wal,
        id: u64,
        kind: SnapshotKind,
        now: u64,
    ) -> Running {
        let content = Content::of(shared);
        let control = self.control.lock();
        let parent = control.parent(kind, persistence.snapshot_full_every, content);
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
        // Each file costs a sync, and is loaded by itself.
        let worth = 1 + content.changed / CHANGES_PER_PART;
        let parts = parent.map_or(parts, |_| parts.min(worth));
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
        let walk = Walk::new(
            ticket.epoch,
            ticket.sequence,
            parts,
            shared.homes.len(),
            abort.is_some(),
            FoundBy::Snapshot,
        );
        let to = Target::Snapshot {
            id,
            parent,
            log_bytes,
            files,
        };
        self.set_out(shared, walk, to, abort, now)
    }

    /// Cuts the sequence and lets the lanes walk for a backup.
    pub(super) fn begin_backup(&self, shared: &Shared, stream: Arc<Stream>, now: u64) -> Running {
        let store_id = self.control.lock().store_id;
        self.since.store(FULL, Ordering::Release);
        let ticket = shared.sequencer.cut();
        let header = BackupHeader {
            store_id,
            cut: ticket.sequence.get(),
            created_at_ms: now,
            partitions: u32::try_from(shared.partitions.count()).unwrap_or(u32::MAX),
        };
        let (encoder, bytes) = BackupEncoder::begin(header, snapshot_codec());
        stream.push(bytes);
        let walk = Walk::new(
            ticket.epoch,
            ticket.sequence,
            1,
            shared.homes.len(),
            false,
            FoundBy::Backup,
        );
        self.set_out(shared, walk, Target::Backup { stream, encoder }, None, now)
    }

    /// Removes staged backups that a full snapshot which stands holds.
    fn forget_staged(&self, persistence: &Persistence, manifest: &Manifest) {
        if manifest.kind() != Kind::Full {
            return;
        }
        let mut control = self.control.lock();
        let (done, needed) = std::mem::take(&mut control.staged)
            .into_iter()
            .partition(|(_, sequence)| sequence.get() <= manifest.cut);
        control.staged = needed;
        drop(control);
        let done: Vec<(String, Sequence)> = done;
        if !done.is_empty() {
            remove_staged(&*persistence.disk.snapshots, |name| {
                done.iter().any(|(file, _)| file == name)
            });
        }
    }

    fn set_out(
        &self,
        shared: &Shared,
        walk: Walk,
        to: Target,
        abort: Option<CheckpointError>,
        now: u64,
    ) -> Running {
        let walk = Arc::new(walk);
        *self.walk.lock() = Some(Arc::clone(&walk));
        self.walking.store(true, Ordering::Release);
        for home in &shared.homes {
            home.signal();
        }
        Running {
            walk,
            to,
            abort,
            started: now,
            moved: now,
            steps_seen: 0,
            checked: now,
            given_up: now,
            sync_asked: None,
        }
    }

    /// Every lane is through, or was not waited for: publish what was written, or clean up after what was given up.
    pub(super) fn end(
        &self,
        shared: &Shared,
        durable: Option<(&Persistence, &Wal)>,
        running: Running,
        now: u64,
    ) {
        self.walking.store(false, Ordering::Release);
        *self.walk.lock() = None;
        let Running {
            walk,
            to,
            mut abort,
            started,
            ..
        } = running;
        if walk.lanes_left.load(Ordering::Acquire) > 0 {
            walk.end_by_force(shared);
        }
        if abort.is_none() {
            abort = walk.failure.lock().take();
        }
        match to {
            Target::Backup { stream, encoder } => {
                self.control.lock().streaming = None;
                let entries = encoder.entries();
                let duration_ms = now.saturating_sub(started);
                match abort {
                    None => {
                        stream.push(encoder.end());
                        stream.end(Ok(()));
                        tracing::info!(cut = %walk.cut, entries, duration_ms, "backup made");
                    }
                    Some(error) => {
                        tracing::warn!(%error, entries, duration_ms, "no backup");
                        stream.end(Err(error));
                    }
                }
            }
            Target::Snapshot {
                id,
                parent,
                log_bytes,
                files,
            } => {
                let written = match (files, abort, durable) {
                    (Some((writer, parts)), None, Some((persistence, log))) => {
                        publish(persistence, writer, parts, || {
                            self.stopping.load(Ordering::Relaxed)
                        })
                        .map(|manifest| {
                            for partition in 0..shared.partitions.count() {
                                shared.partitions.with(partition, |table| {
                                    table.partition.forget_tombstones(walk.cut);
                                });
                            }
                            let segments_retired = retire(persistence, log, &manifest);
                            self.forget_staged(persistence, &manifest);
                            (manifest, segments_retired)
                        })
                    }
                    (Some((writer, parts)), error, _) => {
                        drop(parts);
                        if let Err(leftover) = writer.abort() {
                            tracing::warn!(snapshot = id, error = %leftover, "files of the snapshot were left behind: they are removed at the next start");
                        }
                        Err(error.unwrap_or(CheckpointError::PersistenceOff))
                    }
                    (None, error, _) => Err(error.unwrap_or_else(|| CheckpointError::Failed {
                        reason: "no files".to_owned(),
                    })),
                };
                let outcome = written.map(|(manifest, segments_retired)| SnapshotReport {
                    id,
                    full: manifest.kind() == Kind::Full,
                    parent: parent.map(|parent| parent.id),
                    cut: manifest.cut,
                    entries: manifest.totals.entries,
                    tombstones: manifest.totals.tombstones,
                    bytes: manifest.totals.bytes,
                    duration_ms: shared.options.clock.now().saturating_sub(started),
                    segments_retired,
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
                self.record(outcome, id, log_bytes, now);
            }
        }
    }
}

impl Running {
    /// Writes what waits.
    pub(super) fn write_blocks(&mut self, shared: &Shared, now: u64) -> Wrote {
        let mut wrote = Wrote::Nothing;
        loop {
            if self.abort.is_none()
                && let Target::Backup { stream, .. } = &self.to
                && !stream.has_room()
            {
                // What was taken since the last look is movement, even if a large piece leaves no room yet.
                return if wrote == Wrote::Nothing {
                    Wrote::Full
                } else {
                    wrote
                };
            }
            let Some((part, block)) = self.walk.blocks.lock().pop_front() else {
                return wrote;
            };
            wrote = Wrote::Something;
            self.moved = now;
            if self.abort.is_some() {
                continue;
            }
            let written = match &mut self.to {
                Target::Snapshot {
                    files: Some((_, parts)),
                    ..
                } => parts[part].write(block),
                Target::Snapshot { files: None, .. } => continue,
                Target::Backup { stream, encoder } => {
                    encoder.block(block).map(|bytes| stream.push(bytes))
                }
            };
            if let Err(error) = written {
                let error = match error {
                    WriteError::Value { key, .. } => {
                        shared.note_damage(&key, self.walk.found_by);
                        CheckpointError::Damaged
                    }
                    other => CheckpointError::of(&other),
                };
                self.give_up(error, now);
            }
        }
    }

    fn give_up(&mut self, error: CheckpointError, now: u64) {
        if self.abort.is_none() {
            self.abort = Some(error);
            self.given_up = now;
        }
        self.walk.stop.store(true, Ordering::Release);
    }

    /// A walk that was given up and that its lanes did not thaw in time.
    pub(super) fn is_overdue(&self, now: u64) -> bool {
        self.abort.is_some() && now.saturating_sub(self.given_up) >= THAW_WITHIN_MS
    }

    /// Gives a walk up that stalls, takes too long, keeps too much alive or that nobody wants any more.
    pub(super) fn watch(&mut self, shared: &Shared, now: u64) {
        if self.abort.is_some() {
            return;
        }
        let left = matches!(&self.to, Target::Backup { stream, .. } if stream.is_left());
        let reason = if left {
            Some("its reader went away".to_owned())
        } else {
            self.too_slow(shared, now)
        };
        if let Some(reason) = reason {
            self.give_up(CheckpointError::Aborted { reason }, now);
            for home in &shared.homes {
                home.signal();
            }
        }
    }

    fn too_slow(&mut self, shared: &Shared, now: u64) -> Option<String> {
        if now.saturating_sub(self.checked) < CHECK_EVERY_MS {
            return None;
        }
        self.checked = now;
        let steps = self.walk.steps.load(Ordering::Relaxed);
        if steps != self.steps_seen {
            self.steps_seen = steps;
            self.moved = now;
        }
        if now.saturating_sub(self.moved) >= STALLED_AFTER_MS && self.sync_asked.is_none() {
            let seconds = STALLED_AFTER_MS / 1000;
            return Some(match self.to {
                Target::Snapshot { .. } => format!("nothing moved for {seconds} s"),
                Target::Backup { .. } => {
                    format!("its reader took nothing for {seconds} s")
                }
            });
        }
        let (mut kept, mut data) = (0, 0);
        for partition in 0..shared.partitions.count() {
            let stats = shared
                .partitions
                .with(partition, |table| table.partition.stats());
            kept += stats.frozen_bytes as u64;
            data += stats.entry_bytes as u64;
        }
        // They are not evicted for, so under a limit they are kept to a small part of it.
        let max =
            (PRE_IMAGE_BYTES_MAX + data / 20).min(shared.meter.limit() / 16 + PRE_IMAGE_BYTES_MIN);
        if kept > max {
            return Some(format!(
                "writes outran it: {kept} bytes of overwritten values are kept, at most {max} may be"
            ));
        }
        let deadline = WALK_MS + data / WALK_BYTES_PER_MS;
        (now.saturating_sub(self.started) >= deadline)
            .then(|| format!("it was not done within {} s", deadline / 1000))
    }

    /// How long to wait yet for the log to be durable up to the cut; `None` when it is, or is not waited for.
    ///
    /// A snapshot must not hold what the log may lose. A backup neither, but when the log has failed or its disk is
    /// full, a backup of what is in memory is what the operator needs.
    pub(super) fn until_durable(
        &mut self,
        shared: &Shared,
        log: &Wal,
        now: u64,
    ) -> Option<Duration> {
        let cut = self.walk.cut;
        let backup = matches!(self.to, Target::Backup { .. });
        let in_vain = || shared.log_ends() && log.admit() == Err(Refusal::DiskFull);
        if self.abort.is_none() && !backup && (!shared.is_for_log(cut) || in_vain()) {
            // On disk is what was there when persistence was turned off, and nothing waits for a full disk.
            let reason = "persistence is being turned off".to_owned();
            self.give_up(CheckpointError::Aborted { reason }, now);
        }
        if self.abort.is_some() || shared.is_durable(cut) {
            return None;
        }
        match log.admit() {
            Err(Refusal::Closed { .. } | Refusal::DiskFull) if backup => return None,
            Err(Refusal::Closed { reason }) => {
                let reason = format!("the log failed: {reason}");
                self.give_up(CheckpointError::Aborted { reason }, now);
                return None;
            }
            _ => {}
        }
        let asked = *self.sync_asked.get_or_insert(now);
        if now.saturating_sub(asked) >= SYNC_WITHIN_MS {
            let reason = format!(
                "the log was not durable up to its cut within {} s",
                SYNC_WITHIN_MS / 1000
            );
            self.give_up(CheckpointError::Aborted { reason }, now);
            return None;
        }
        log.request_sync(lsn(cut));
        Some(SYNC_CHECK)
    }
}
