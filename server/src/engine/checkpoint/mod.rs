//! Snapshots: a cut through the sequence, a walk of every partition by its home lane, files, then log segments retired.
//!
//! No barrier and no fork. [`Sequencer::cut`](super::sequencer::Sequencer::cut) begins a new epoch in one atomic step.
//! Whoever first touches a partition under the new epoch, a writer before its change or the walker, freezes it as it
//! is, which is as it was at the cut; from then on the partition keeps what a write replaces until it was walked. Home
//! lanes walk in slices and hand blocks over a short queue to the checkpointer, which compresses and writes them: into
//! the files of a snapshot, or into the stream of a backup ([`Backup`]). When the disk or the reader is slow the queue is
//! full and the walk rests.
//!
//! No state can wedge. A walk is given up when too much was overwritten meanwhile, when nothing moves for a minute, when it
//! is slower than a mebibyte a second (after ten minutes), or when the log is not durable up to the cut a minute after
//! the walk. Then every partition is thawed by the same walk, or, where a lane does not come within ten seconds, by the
//! checkpointer. What is left is writing the manifest and reading back, while no partition is frozen any more.
//!
//! The manifest is written only when the log is durable up to the cut: so the log always reaches beyond the newest
//! snapshot, and one that turns out damaged later cannot hide a change that the log has not.

#[cfg(test)]
mod deadlines;
mod publish;
mod running;
mod schedule;
mod stream;
mod walk;

use super::restore::Swap;
use super::{Engine, Readiness, Shared};
use inflightkv_core::Sequence;
use inflightkv_snapshot::StoreId;
use parking_lot::{Condvar, Mutex};
use running::{Running, Wrote};
use schedule::{Control, Job};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;
use walk::Walk;

pub use stream::Backup;
pub(crate) use walk::Walker;

/// How often a walk in progress is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(250);
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

/// Snapshots of this run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotFigures {
    /// Whether one, or a backup, is being made.
    pub running: bool,
    /// Those that stand.
    pub taken: u64,
    /// Those that came to nothing.
    pub failed: u64,
    /// The last one that stands, and when it was cut, in milliseconds since the Unix epoch.
    pub last: Option<(SnapshotReport, u64)>,
    /// Why the last one came to nothing, if no other stands since.
    pub error: Option<String>,
}

impl SnapshotFigures {
    fn ended(&mut self, outcome: &Result<SnapshotReport, CheckpointError>, now: u64) {
        match outcome {
            Ok(report) => {
                self.taken += 1;
                self.last = Some((report.clone(), now.saturating_sub(report.duration_ms)));
                self.error = None;
            }
            Err(error) => {
                self.failed += 1;
                self.error = Some(error.to_string());
            }
        }
    }
}

/// Why there is no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The store keeps nothing on disk.
    #[error("the store keeps nothing on disk")]
    PersistenceOff,
    /// As many backups as may are being made or wait.
    #[error(
        "{found} backups are being made or wait, at most {found} may: try again when one has ended"
    )]
    TooManyBackups {
        /// How many there are.
        found: usize,
    },
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
    /// A value in memory is damaged. Nothing was made of it; older snapshots are as they were.
    #[error(
        "given up: a value in memory does not have the checksum that it was stored with, and is not written down as good; write or delete its key"
    )]
    Damaged,
    /// A file could not be written or did not read back; the older snapshots are as they were.
    #[error("the snapshot could not be written: {reason}")]
    Failed {
        /// What went wrong.
        reason: String,
    },
}

impl CheckpointError {
    /// The failure that `error` is.
    fn of(error: &dyn std::error::Error) -> Self {
        Self::Failed {
            reason: error.to_string(),
        }
    }
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

impl Engine {
    /// Asks for a snapshot and says under which number it will be known. Asking again before it has begun gives the
    /// same number.
    ///
    /// # Errors
    /// The store keeps nothing on disk or does not serve.
    pub fn request_snapshot(&self, kind: SnapshotKind) -> Result<u64, CheckpointError> {
        let shared = &*self.shared;
        if shared.options.persistence.is_none() || shared.log().is_none() {
            return Err(CheckpointError::PersistenceOff);
        }
        match shared.readiness() {
            Readiness::Ready | Readiness::DiskFull => {}
            readiness => return Err(CheckpointError::NotReady { readiness }),
        }
        Ok(self.begin_snapshot(kind))
    }

    /// The same for a store that is known to be able to.
    pub(super) fn begin_snapshot(&self, kind: SnapshotKind) -> u64 {
        let checkpointer = &self.shared.checkpointer;
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
        id
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

    pub(crate) fn figures(&self) -> SnapshotFigures {
        SnapshotFigures {
            running: self.walking.load(Ordering::Relaxed),
            ..self.control.lock().figures.clone()
        }
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let mut control = self.control.lock();
        let mut streams = std::mem::take(&mut control.backups);
        streams.extend(control.streaming.take());
        let swaps = std::mem::take(&mut control.swaps);
        drop(control);
        for swap in swaps {
            swap.refuse(CheckpointError::Aborted {
                reason: "the store is stopping".to_owned(),
            });
        }
        for stream in streams {
            stream.end(Err(CheckpointError::Aborted {
                reason: "the store is stopping".to_owned(),
            }));
        }
        self.poke();
    }

    /// The store's number, and an id that no snapshot will have.
    pub(super) fn store_id(&self) -> StoreId {
        self.control.lock().store_id
    }

    pub(super) fn next_id(&self) -> u64 {
        let mut control = self.control.lock();
        let id = control.next_id;
        control.next_id += 1;
        id
    }

    /// Persistence was turned on: the next snapshot is a full one, and the log is counted from its beginning.
    pub(super) fn begin_anew(&self, full_every: u32) {
        let mut control = self.control.lock();
        control.chain.clear();
        control.last_cut = Sequence::ZERO;
        control.log_bytes_at_cut = 0;
        control.log_bytes_carried = 0;
        control.changed_since_ms = None;
        self.increments.store(full_every > 0, Ordering::Relaxed);
    }

    /// Persistence was turned off: nobody needs to know of removals.
    pub(super) fn without_increments(&self) {
        self.increments.store(false, Ordering::Relaxed);
        self.control.lock().chain.clear();
    }

    pub(super) fn is_walking(&self) -> bool {
        self.walking.load(Ordering::Acquire)
    }

    /// Has tables exchanged as soon as no walk is going on.
    pub(super) fn request_swap(&self, swap: Arc<Swap>) {
        let mut control = self.control.lock();
        if self.stopping.load(Ordering::SeqCst) {
            drop(control);
            swap.refuse(CheckpointError::Aborted {
                reason: "the store is stopping".to_owned(),
            });
            return;
        }
        control.swaps.push_back(swap);
        drop(control);
        self.poke();
    }

    /// A staged backup has become the store's content under `sequence`. The next snapshot is a full one, because entries
    /// that are there now carry numbers from before the last, and it comes at once.
    pub(super) fn restored(&self, file: String, sequence: Sequence) {
        let mut control = self.control.lock();
        control.staged.push((file, sequence));
        control.chain.clear();
        control.request_full();
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

    /// One step: begin what is due, write what was walked, finish what is complete.
    pub(crate) fn turn(&self, shared: &Shared) -> Turn {
        let now = shared.options.clock.now();
        let durable = shared.options.persistence.as_ref().zip(shared.wal.get());
        let mut stage = self.stage.lock();
        let Some(running) = stage.as_mut() else {
            if !shared.serves() {
                return Turn::Wait(None);
            }
            let running = match (self.due(shared, durable, now), durable) {
                (Ok(Job::Backup(stream)), _) => self.begin_backup(shared, stream, now),
                (Ok(Job::Swap(swap)), _) => {
                    shared.swap_in(&swap);
                    return Turn::Again;
                }
                (Ok(Job::Snapshot(id, kind)), Some((persistence, log))) => {
                    self.begin(shared, persistence, log, id, kind, now)
                }
                (Ok(Job::Snapshot(..)), None) => return Turn::Wait(None),
                (Err(wait), _) => return Turn::Wait(wait),
            };
            *stage = Some(running);
            return Turn::Again;
        };
        let wrote = running.write_blocks(shared, now);
        if wrote == Wrote::Something {
            for home in &shared.homes {
                home.signal();
            }
            return Turn::Again;
        }
        running.watch(shared, now);
        let walked = running.walk.lanes_left.load(Ordering::Acquire) == 0;
        if !walked && !running.is_overdue(now) {
            return if wrote == Wrote::Nothing && !running.walk.blocks.lock().is_empty() {
                Turn::Again
            } else {
                Turn::Wait(Some(WATCH_EVERY))
            };
        }
        if walked && wrote == Wrote::Full {
            return Turn::Wait(Some(WATCH_EVERY));
        }
        if let Some((_, log)) = durable
            && let Some(wait) = running.until_durable(shared, log, now)
        {
            return Turn::Wait(Some(wait));
        }
        if let Some(running) = stage.take() {
            self.end(shared, durable, running, now);
        }
        Turn::Again
    }
}
