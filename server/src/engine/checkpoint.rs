//! Snapshots: a cut through the sequence, a walk of every partition by its home lane, files, then log segments retired.
//!
//! No barrier and no fork. [`Sequencer::cut`](super::sequencer::Sequencer::cut) begins a new epoch in one atomic step.
//! Whoever first touches a partition under the new epoch, a writer before its change or the walker, freezes it as it
//! is, which is as it was at the cut; from then on the partition keeps what a write replaces until it was walked. Home
//! lanes walk in slices and hand blocks over a short queue to the checkpointer, which compresses and writes them. When
//! the disk is slow the queue is full and the walk rests; when too much was overwritten meanwhile, or nothing moves for a
//! minute, the snapshot is given up, and every partition is thawed by the same walk.
//!
//! The manifest is written only when the log is durable up to the cut: so the log always reaches beyond the newest
//! snapshot, and one that turns out damaged later cannot hide a change that the log has not.

use super::adapters::{lsn, snapshot_codec, snapshot_codecs};
use super::partitions::Table;
use super::sequencer::Epoch;
use super::{Engine, Persistence, Readiness, Shared};
use bytes::Bytes;
use inflightkv_core::{Entry, FrozenItem, Sequence, WalkState};
use inflightkv_snapshot::{
    self as snapshot, BlockBuilder, EntryRef, Kind, Manifest, Parent, PartWriter, Plan, RawBlock,
    SnapshotWriter, StoreId, chain,
};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

/// Entries walked under one hold of a partition's lock: about five microseconds of small ones.
const WALK_BATCH: usize = 64;
/// Blocks waiting to be written, for each lane that walks.
const BLOCKS_WAITING: usize = 4;
/// A walk that hands over nothing for so long is given up.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// What a snapshot may keep alive of overwritten values: this, and a twentieth of the data.
const PRE_IMAGE_BYTES_MAX: u64 = 64 << 20;
const PRE_IMAGE_CHECK: Duration = Duration::from_millis(250);
/// An automatic snapshot that failed is tried again after this long.
const RETRY_AFTER_MS: u64 = 10_000;
/// How often a store that changes looks whether a snapshot is due. One that does not change never looks.
const DUE_CHECK: Duration = Duration::from_secs(1);
const SYNC_CHECK: Duration = Duration::from_millis(10);
/// Outcomes remembered for those who ask by id.
const OUTCOMES_KEPT: usize = 16;
/// `since` of a full snapshot.
const FULL: u64 = u64::MAX;

/// What kind of snapshot to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotKind {
    /// Every entry.
    Full,
    /// What changed since the last snapshot of this run; a full one if there is none.
    Incremental,
    /// Incremental until the chain is long or heavy, then full.
    Auto,
}

/// A snapshot that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotReport {
    /// Its number.
    pub id: u64,
    /// Whether it holds every entry.
    pub full: bool,
    /// The snapshot an incremental one builds on.
    pub parent: Option<u64>,
    /// It holds every change up to this one and none above.
    pub cut: u64,
    /// Entries in it.
    pub entries: u64,
    /// Removals in it.
    pub tombstones: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Segments of the log that it retired.
    pub segments_retired: u64,
}

/// Why there is no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The store keeps nothing on disk.
    #[error("the store keeps nothing on disk")]
    PersistenceOff,
    /// The store does not serve, or its log failed.
    #[error("the store cannot take a snapshot now: {readiness:?}")]
    NotReady {
        /// What it does instead.
        readiness: Readiness,
    },
    /// It was given up; the store and its older snapshots are as they were.
    #[error("the snapshot was given up: {reason}")]
    Aborted {
        /// Why.
        reason: String,
    },
    /// A file could not be written or did not read back; the older snapshots are as they were.
    #[error("the snapshot could not be written: {reason}")]
    Failed {
        /// What went wrong.
        reason: String,
    },
}

/// What the checkpointer's thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Again,
    Wait(Option<Duration>),
}

pub(crate) struct Checkpointer {
    control: Mutex<Control>,
    poked: Condvar,
    /// Held by the driver alone.
    stage: Mutex<Option<Running>>,
    walk: Mutex<Option<Arc<Walk>>>,
    /// Whether `walk` is set, for lanes that look often.
    walking: AtomicBool,
    /// What the walk in progress builds on, for writers that freeze a partition; [`FULL`] for nothing. Set before the
    /// cut, and seen by whoever sees the cut's epoch.
    since: AtomicU64,
    /// Nothing changed since the last snapshot, and the driver sleeps until something does.
    quiet: AtomicBool,
    stopping: AtomicBool,
    /// Whether removals are remembered for incremental snapshots.
    increments: AtomicBool,
}

#[derive(Default)]
struct Control {
    poked: bool,
    store_id: StoreId,
    next_id: u64,
    requested: Option<(u64, SnapshotKind)>,
    /// The snapshots of this run that the next incremental one builds on: a full one first.
    chain: Vec<Link>,
    last_cut: Sequence,
    /// Log appended when the last snapshot was cut, and what was in the log before this run.
    log_bytes_at_cut: u64,
    log_bytes_carried: u64,
    changed_since_ms: Option<u64>,
    retry_at_ms: u64,
    outcomes: VecDeque<(u64, Result<SnapshotReport, CheckpointError>)>,
    waiting: Vec<(u64, Waker)>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    id: u64,
    cut: u64,
    bytes: u64,
}

/// One walk over all partitions, shared by the lanes and the checkpointer.
pub(crate) struct Walk {
    epoch: Epoch,
    cut: Sequence,
    parts: usize,
    blocks: Mutex<VecDeque<(usize, RawBlock)>>,
    blocks_max: usize,
    lanes_left: AtomicUsize,
    /// Given up: partitions are thawed and nothing more is handed over.
    stop: AtomicBool,
    failure: Mutex<Option<String>>,
}

/// A snapshot in the making.
struct Running {
    id: u64,
    walk: Arc<Walk>,
    parent: Option<Parent>,
    /// `None` when the files could not be begun; then `abort` says why.
    files: Option<(SnapshotWriter, Vec<PartWriter>)>,
    abort: Option<CheckpointError>,
    started: Instant,
    last_block: Instant,
    last_check: Instant,
    log_bytes: u64,
}

/// One lane's way through its partitions.
pub(crate) struct Walker {
    walk: Arc<Walk>,
    builder: BlockBuilder,
    part: usize,
    next: usize,
    end: usize,
    done: bool,
    spent: Vec<Entry>,
    large: Vec<Large>,
}

/// An entry whose value is shared: encoded outside the lock.
struct Large {
    key: String,
    media_type: Option<String>,
    value: Bytes,
    sequence: u64,
    version: u64,
    expires_at: Option<u64>,
    crc: u32,
}

impl Engine {
    /// Asks for a snapshot and says under which number it will be known. Asking again before it has begun gives the
    /// same number.
    ///
    /// # Errors
    /// The store keeps nothing on disk or does not serve.
    pub fn request_snapshot(&self, kind: SnapshotKind) -> Result<u64, CheckpointError> {
        let shared = &*self.shared;
        if shared.options.persistence.is_none() {
            return Err(CheckpointError::PersistenceOff);
        }
        match shared.readiness() {
            Readiness::Ready | Readiness::DiskFull => {}
            readiness => return Err(CheckpointError::NotReady { readiness }),
        }
        let checkpointer = &shared.checkpointer;
        let mut control = checkpointer.control.lock();
        let id = match control.requested {
            Some((id, asked)) => {
                let kind = if asked == SnapshotKind::Full {
                    asked
                } else {
                    kind
                };
                control.requested = Some((id, kind));
                id
            }
            None => {
                let id = control.next_id;
                control.next_id += 1;
                control.requested = Some((id, kind));
                id
            }
        };
        drop(control);
        checkpointer.poke();
        Ok(id)
    }

    /// How the snapshot `id` ended; `None` while it has not, or when that was long ago.
    pub fn snapshot_outcome(&self, id: u64) -> Option<Result<SnapshotReport, CheckpointError>> {
        let control = self.shared.checkpointer.control.lock();
        control
            .outcomes
            .iter()
            .find(|(known, _)| *known == id)
            .map(|(_, outcome)| outcome.clone())
    }

    /// Wakes `waker` when the snapshot `id` has ended. Register first, then ask [`snapshot_outcome`](Self::snapshot_outcome).
    pub fn on_snapshot(&self, id: u64, waker: Waker) {
        let waiting = &mut self.shared.checkpointer.control.lock().waiting;
        if !waiting
            .iter()
            .any(|(known, other)| *known == id && other.will_wake(&waker))
        {
            waiting.push((id, waker));
        }
    }
}

/// Drives the checkpointer on its own thread until the store is closed.
pub(crate) fn run(shared: &Shared) {
    let checkpointer = &shared.checkpointer;
    while !checkpointer.stopping.load(Ordering::SeqCst) {
        let Turn::Wait(timeout) = checkpointer.turn(shared) else {
            continue;
        };
        let mut control = checkpointer.control.lock();
        if !control.poked {
            match timeout {
                Some(timeout) => _ = checkpointer.poked.wait_for(&mut control, timeout),
                None => checkpointer.poked.wait(&mut control),
            }
        }
        control.poked = false;
    }
}

impl Checkpointer {
    pub(crate) fn new() -> Self {
        Self {
            control: Mutex::default(),
            poked: Condvar::new(),
            stage: Mutex::default(),
            walk: Mutex::default(),
            walking: AtomicBool::new(false),
            since: AtomicU64::new(FULL),
            quiet: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            increments: AtomicBool::new(false),
        }
    }

    /// Goes on where recovery ended. The first snapshot of a run is a full one: removals replayed from the log left no
    /// tombstones for an increment.
    pub(crate) fn begin_with(
        &self,
        store_id: StoreId,
        next_id: u64,
        last_cut: Sequence,
        log_bytes: u64,
        full_every: u32,
    ) {
        let mut control = self.control.lock();
        control.store_id = store_id;
        control.next_id = next_id;
        control.last_cut = last_cut;
        control.log_bytes_carried = log_bytes;
        self.increments.store(full_every > 0, Ordering::Relaxed);
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.poke();
    }

    fn poke(&self) {
        self.control.lock().poked = true;
        self.poked.notify_one();
    }

    /// A change was made: wakes a checkpointer that has nothing to look for otherwise. One relaxed load in the usual case.
    pub(crate) fn note_change(&self) {
        if self.quiet.load(Ordering::Relaxed) && self.quiet.swap(false, Ordering::SeqCst) {
            self.poke();
        }
    }

    /// Freezes a partition that is touched for the first time since a cut. `cut` is at or above the true one and below
    /// the change that is about to be made, which comes to the same.
    pub(crate) fn freeze(&self, table: &mut Table, epoch: Epoch, cut: Sequence) {
        let since = match self.since.load(Ordering::Acquire) {
            FULL => None,
            since => Some(Sequence::from_raw(since)),
        };
        table.epoch = epoch;
        table.partition.freeze(cut, since);
        if self.increments.load(Ordering::Relaxed) {
            // From this cut on removals matter to the increment that may follow.
            table.partition.keep_tombstones(true);
        }
    }

    /// Walks a slice of the lane's partitions, until `over`; true when there is more to do at once.
    pub(crate) fn walk(
        &self,
        shared: &Shared,
        lane: usize,
        walker: &mut Option<Walker>,
        over: impl Fn() -> bool,
    ) -> bool {
        if !self.walking.load(Ordering::Acquire) {
            *walker = None;
            return false;
        }
        let Some(walk) = self.walk.lock().clone() else {
            return false;
        };
        if walker
            .as_ref()
            .is_none_or(|walker| !Arc::ptr_eq(&walker.walk, &walk))
        {
            *walker = Some(Walker::new(shared, lane, walk));
        }
        walker
            .as_mut()
            .is_some_and(|walker| walker.advance(shared, over))
    }

    /// One step: begin what is due, write what was walked, finish what is complete.
    pub(crate) fn turn(&self, shared: &Shared) -> Turn {
        let (Some(persistence), Some(log)) = (&shared.options.persistence, shared.wal.get()) else {
            return Turn::Wait(None);
        };
        let mut stage = self.stage.lock();
        let Some(running) = stage.as_mut() else {
            let now = shared.options.clock.now();
            return match self.due(shared, persistence, log, now) {
                Ok((id, kind)) => {
                    *stage = Some(self.begin(shared, persistence, log, id, kind, now));
                    Turn::Again
                }
                Err(wait) => Turn::Wait(wait),
            };
        };
        if running.write_blocks() {
            for home in &shared.homes {
                home.signal();
            }
            return Turn::Again;
        }
        if running.walk.lanes_left.load(Ordering::Acquire) > 0 {
            running.watch(shared);
            return if running.walk.blocks.lock().is_empty() {
                Turn::Wait(Some(PRE_IMAGE_CHECK))
            } else {
                Turn::Again
            };
        }
        let cut = running.walk.cut;
        if running.abort.is_none() && !shared.is_durable(cut) {
            if let Err(inflightkv_wal::Refusal::Closed { reason }) = log.admit() {
                running.give_up(CheckpointError::Aborted {
                    reason: format!("the log failed: {reason}"),
                });
            } else {
                log.request_sync(lsn(cut));
                return Turn::Wait(Some(SYNC_CHECK));
            }
        }
        if let Some(running) = stage.take() {
            self.end(shared, persistence, log, running);
        }
        Turn::Again
    }

    /// What to begin now, or how long to wait before looking again.
    fn due(
        &self,
        shared: &Shared,
        persistence: &Persistence,
        log: &inflightkv_wal::Wal,
        now: u64,
    ) -> Result<(u64, SnapshotKind), Option<Duration>> {
        let mut control = self.control.lock();
        if let Some(requested) = control.requested.take() {
            return Ok(requested);
        }
        if shared.sequencer.last() <= control.last_cut {
            control.changed_since_ms = None;
            self.quiet.store(true, Ordering::SeqCst);
            // A change made before the flag stood is seen here, one made after it pokes.
            if shared.sequencer.last() <= control.last_cut {
                return Err(None);
            }
            self.quiet.store(false, Ordering::SeqCst);
        }
        let changed_since = *control.changed_since_ms.get_or_insert(now);
        let log_bytes =
            control.log_bytes_carried + log.status().appended_bytes - control.log_bytes_at_cut;
        let interval_ms =
            u64::try_from(persistence.snapshot_interval.as_millis()).unwrap_or(u64::MAX);
        let is_due = log_bytes >= persistence.snapshot_after
            || now.saturating_sub(changed_since) >= interval_ms;
        if !is_due || now < control.retry_at_ms || log.admit().is_err() {
            return Err(Some(DUE_CHECK));
        }
        let id = control.next_id;
        control.next_id += 1;
        Ok((id, SnapshotKind::Auto))
    }

    fn begin(
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
        let walk = Arc::new(Walk {
            epoch: ticket.epoch,
            cut: ticket.sequence,
            parts,
            blocks: Mutex::default(),
            blocks_max: BLOCKS_WAITING * shared.homes.len(),
            lanes_left: AtomicUsize::new(shared.homes.len()),
            stop: AtomicBool::new(abort.is_some()),
            failure: Mutex::default(),
        });
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
    fn end(
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

    fn record(
        &self,
        outcome: Result<SnapshotReport, CheckpointError>,
        id: u64,
        log_bytes: u64,
        now: u64,
    ) {
        let mut control = self.control.lock();
        match &outcome {
            Ok(report) => {
                if report.full {
                    control.chain.clear();
                }
                control.chain.push(Link {
                    id,
                    cut: report.cut,
                    bytes: report.bytes,
                });
                control.last_cut = Sequence::from_raw(report.cut);
                control.log_bytes_at_cut = log_bytes;
                control.log_bytes_carried = 0;
                control.changed_since_ms = None;
            }
            Err(_) => control.retry_at_ms = now.saturating_add(RETRY_AFTER_MS),
        }
        control.outcomes.push_back((id, outcome));
        if control.outcomes.len() > OUTCOMES_KEPT {
            control.outcomes.pop_front();
        }
        let (ended, waiting) = std::mem::take(&mut control.waiting)
            .into_iter()
            .partition(|(known, _)| *known <= id);
        control.waiting = waiting;
        drop(control);
        let ended: Vec<(u64, Waker)> = ended;
        for (_, waker) in ended {
            waker.wake();
        }
    }
}

impl Control {
    /// What a snapshot of `kind` builds on; `None` for a full one.
    fn parent(&self, kind: SnapshotKind, full_every: u32) -> Option<Parent> {
        let (base, increments) = self.chain.split_first()?;
        let tip = self.chain.last()?;
        let heavy = increments.iter().map(|link| link.bytes).sum::<u64>() > base.bytes / 2;
        let long = increments.len() >= full_every as usize;
        let incremental = match kind {
            SnapshotKind::Full => false,
            SnapshotKind::Incremental => full_every > 0,
            SnapshotKind::Auto => !heavy && !long,
        };
        incremental.then_some(Parent {
            id: tip.id,
            cut: tip.cut,
        })
    }
}

fn open_files(
    persistence: &Persistence,
    plan: Plan,
) -> Result<(SnapshotWriter, Vec<PartWriter>), snapshot::WriteError> {
    let parts = plan.parts;
    let storage = Arc::clone(&persistence.disk.snapshots);
    let mut writer = SnapshotWriter::begin(
        storage,
        plan,
        snapshot_codec(),
        snapshot::Options::default(),
    )?;
    let parts = (0..parts)
        .map(|part| writer.part(part))
        .collect::<Result<_, _>>()?;
    Ok((writer, parts))
}

/// Writes the manifest, then reads every block back: nothing older is given up for a snapshot that cannot be loaded.
fn publish(
    persistence: &Persistence,
    writer: SnapshotWriter,
    parts: Vec<PartWriter>,
) -> Result<Manifest, CheckpointError> {
    let failed = |reason: String| CheckpointError::Failed { reason };
    let manifest = writer
        .finish(parts)
        .map_err(|error| failed(error.to_string()))?;
    let codecs = snapshot_codecs();
    for part in 0..manifest.parts.len() {
        snapshot::load_part(
            &*persistence.disk.snapshots,
            &manifest,
            part,
            &codecs,
            |_| ControlFlow::Continue(()),
        )
        .map_err(|error| failed(format!("it does not read back: {error}")))?;
    }
    Ok(manifest)
}

/// Removes older chains and the log below the snapshot; what cannot be removed now is removed after the next one.
fn retire(persistence: &Persistence, log: &inflightkv_wal::Wal, manifest: &Manifest) -> u64 {
    if let Err(error) = chain::retain(&*persistence.disk.snapshots, 1) {
        tracing::warn!(%error, "older snapshots could not be removed");
        return 0;
    }
    match log.retire_below(inflightkv_wal::Lsn::new(manifest.cut)) {
        Ok(retired) => retired.segments,
        Err(error) => {
            tracing::warn!(%error, "log segments that the snapshot covers could not be removed");
            0
        }
    }
}

impl Running {
    /// Writes what waits; true if there was anything.
    fn write_blocks(&mut self) -> bool {
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

    fn give_up(&mut self, error: CheckpointError) {
        self.abort.get_or_insert(error);
        self.walk.stop.store(true, Ordering::Release);
    }

    /// Gives a snapshot up that stalls or keeps too much alive.
    fn watch(&mut self, shared: &Shared) {
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

impl Walker {
    fn new(shared: &Shared, lane: usize, walk: Arc<Walk>) -> Self {
        let partitions = shared.partitions.homed_at(lane);
        Self {
            walk,
            builder: BlockBuilder::new(snapshot::Options::default()),
            part: 0,
            next: partitions.start,
            end: partitions.end,
            done: false,
            spent: Vec::with_capacity(WALK_BATCH),
            large: Vec::new(),
        }
    }

    fn advance(&mut self, shared: &Shared, over: impl Fn() -> bool) -> bool {
        while !self.done {
            if self.walk.stop.load(Ordering::Acquire) {
                self.thaw_one(shared);
            } else if self.walk.blocks.lock().len() >= self.walk.blocks_max {
                // The checkpointer signals the lane when there is room.
                return false;
            } else {
                self.walk_one(shared);
            }
            if !self.done && over() {
                return true;
            }
        }
        false
    }

    /// A batch of the current partition, or the step to the next.
    fn walk_one(&mut self, shared: &Shared) {
        if self.next == self.end {
            self.hand_over(shared);
            self.finish(shared);
            return;
        }
        let part = self.next * self.walk.parts / shared.partitions.count();
        if part != self.part {
            self.hand_over(shared);
            self.part = part;
        }
        let (walk, builder, large) = (&self.walk, &mut self.builder, &mut self.large);
        let mut failure = None;
        let state = shared.partitions.with(self.next, |table| {
            if table.epoch != walk.epoch {
                shared.checkpointer.freeze(table, walk.epoch, walk.cut);
            }
            let state = table.partition.walk(WALK_BATCH, &mut self.spent, |item| {
                let pushed = match item {
                    FrozenItem::Entry(entry) => match entry.shared_value() {
                        Some(value) => {
                            large.push(Large::of(entry, value));
                            Ok(false)
                        }
                        None => builder.push(entry_ref(entry)),
                    },
                    FrozenItem::Tombstone { key, sequence } => {
                        builder.push(EntryRef::deleted(key, sequence.get()))
                    }
                };
                match pushed {
                    Ok(false) => ControlFlow::Continue(()),
                    Ok(true) => ControlFlow::Break(()),
                    Err(error) => {
                        failure = Some(error.to_string());
                        ControlFlow::Break(())
                    }
                }
            });
            if state == WalkState::Done {
                table.partition.thaw();
            }
            state
        });
        self.spent.clear();
        let mut full = false;
        for large in self.large.drain(..) {
            match self.builder.push(large.entry_ref()) {
                Ok(now_full) => full |= now_full,
                Err(error) => failure = Some(error.to_string()),
            }
        }
        if let Some(failure) = failure {
            *self.walk.failure.lock() = Some(failure);
            self.walk.stop.store(true, Ordering::Release);
        }
        if full || self.builder.len() >= snapshot::Options::default().block_bytes {
            self.hand_over(shared);
        }
        if state == WalkState::Done {
            self.next += 1;
        }
    }

    /// The current partition's way back to normal when the snapshot is given up.
    fn thaw_one(&mut self, shared: &Shared) {
        if self.next == self.end {
            self.finish(shared);
            return;
        }
        shared.partitions.with(self.next, |table| {
            table.epoch = self.walk.epoch;
            table.partition.thaw();
        });
        self.next += 1;
    }

    fn hand_over(&mut self, shared: &Shared) {
        if !self.builder.is_empty() {
            let block = self.builder.take();
            self.walk.blocks.lock().push_back((self.part, block));
            shared.checkpointer.poke();
        }
    }

    fn finish(&mut self, shared: &Shared) {
        self.done = true;
        self.walk.lanes_left.fetch_sub(1, Ordering::AcqRel);
        shared.checkpointer.poke();
    }
}

fn entry_ref(entry: &Entry) -> EntryRef<'_> {
    EntryRef {
        sequence: entry.sequence().get(),
        version: entry.version(),
        expires_at: entry.expires_at(),
        value_crc: entry.crc(),
        tombstone: false,
        media_type: entry.media_type(),
        key: entry.key(),
        value: entry.value(),
    }
}

impl Large {
    fn of(entry: &Entry, value: &Bytes) -> Self {
        Self {
            key: entry.key().to_owned(),
            media_type: entry.media_type().map(str::to_owned),
            value: value.clone(),
            sequence: entry.sequence().get(),
            version: entry.version(),
            expires_at: entry.expires_at(),
            crc: entry.crc(),
        }
    }

    fn entry_ref(&self) -> EntryRef<'_> {
        EntryRef {
            sequence: self.sequence,
            version: self.version,
            expires_at: self.expires_at,
            value_crc: self.crc,
            tombstone: false,
            media_type: self.media_type.as_deref(),
            key: &self.key,
            value: &self.value,
        }
    }
}
