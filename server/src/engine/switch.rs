//! Persistence turned on and off while the store serves: no write is lost, none is refused, and none waits longer than every
//! partition's lock takes to be held once.
//!
//! # On
//! The log first: it is opened with a first number well above everything given out so far. In one moment, under every
//! partition's lock, numbers leap there and the log is in use: so it has every change from its first number on, without
//! a gap. Then a full snapshot; when that stands, everything is on disk, and the store is durable from the snapshot's
//! cut on. Until then a mark in the snapshots' folder says that the new log counts for nothing: a recovery that finds the mark
//! and no snapshot that reaches the log's beginning removes the log's segments, and goes on with what was there before.
//!
//! # Off
//! In one moment the log gets no more changes. What it has is synced, then it is shut down. What is on disk is the store as of
//! that moment, and is what a restart would find. A log that has failed is left as it is: turning persistence off makes the
//! store take writes again.

use super::adapters::{lsn, wal_codec, wal_codecs};
use super::checkpoint::{CheckpointError, SnapshotKind};
use super::options::Persistence;
use super::restore::is_staged;
use super::sequencer::first_of_run;
use super::{Engine, Readiness, RecoverError, Shared};
use inflightkv_core::Sequence;
use inflightkv_snapshot::{self as snapshot, chain};
use inflightkv_wal::{self as wal, Lsn, Wal};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The mark of a log that does not count yet, in the snapshots' folder.
const MARK: &str = "PENDING";
/// How far numbers leap, so that none is given out below the log's first while it is opened.
const LEAP: u64 = 1 << 18;
/// How long, in milliseconds, it is waited for the clock to be ahead of such a leap.
const LEAP_WAIT_MS: u64 = 10_000;

/// What came of turning persistence on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchReport {
    /// Whether it is on now.
    pub on: bool,
    /// On: everything up to this change is on stable storage, and what follows as the log's sync mode says. Off: what is on
    /// stable storage is the store up to this change.
    pub sequence: u64,
}

/// Why persistence is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SwitchError {
    /// There is nowhere to persist to.
    #[error("the store was started without a data directory, so persistence cannot be turned on")]
    NoDirectory,
    /// It is being turned on or off.
    #[error("persistence is being turned on or off already: try again when that has ended")]
    Running,
    /// A backup is being restored.
    #[error("a backup is being restored: try again when that has ended")]
    Restoring,
    /// It follows another store, and persists when it takes over.
    #[error("this server follows another one, and persists when it is promoted")]
    Follows,
    /// The directory has a store in it that this one did not come from.
    #[error(
        "the data directory holds a store that was not loaded: move it away, or restart with persistence on"
    )]
    Foreign,
    /// It was turned on as often as a process may.
    #[error(
        "persistence was turned on {found} times since the start, at most so often it may be: restart the server"
    )]
    TooOften {
        /// How often.
        found: usize,
    },
    /// The store does not serve.
    #[error("the store does not serve: {readiness:?}")]
    NotServing {
        /// What it does instead.
        readiness: Readiness,
    },
    /// The disk failed, or the snapshot did not come to be; the store is in memory only, as before.
    #[error("persistence could not be turned on: {reason}")]
    Failed {
        /// What went wrong.
        reason: String,
    },
}

/// Persistence being turned on or off.
#[derive(Debug)]
pub struct Switching {
    claim: Claim,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Since this instant.
    TurnOn(u64),
    /// Until this snapshot stands.
    Snapshot(u64),
    /// Back to memory only, for this reason, because the snapshot did not come to be: until no walk goes on.
    Undo(String),
    TurnOff,
    /// Until the log is durable up to here.
    Drain(Sequence),
    /// Until no walk goes on.
    Settle,
    Done(SwitchReport),
}

/// What is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchStep {
    /// Call again in a little while.
    Wait,
    /// It is done.
    Done(SwitchReport),
}

/// One switch at a time.
struct Claim(Arc<Shared>);

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Claim")
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.switching.store(false, Ordering::Release);
    }
}

impl Engine {
    /// Begins to turn persistence on or off; [`Switching::step`] does it. Where it is so already nothing is done.
    ///
    /// # Errors
    /// See [`SwitchError`].
    pub fn switch_persistence(&self, on: bool) -> Result<Switching, SwitchError> {
        let shared = &self.shared;
        if !shared.serves() {
            return Err(SwitchError::NotServing {
                readiness: shared.readiness(),
            });
        }
        if shared.role.follows() {
            return Err(SwitchError::Follows);
        }
        if shared.switching.swap(true, Ordering::SeqCst) {
            return Err(SwitchError::Running);
        }
        let claim = Claim(Arc::clone(shared));
        if shared.restoring.load(Ordering::SeqCst) {
            return Err(SwitchError::Restoring);
        }
        let step = match (on, shared.log()) {
            (true, Some(log)) => Step::Done(SwitchReport {
                on,
                sequence: log.high_watermark().get(),
            }),
            (false, None) => Step::Done(SwitchReport {
                on,
                sequence: shared.durable_until.load(Ordering::Acquire),
            }),
            (true, None) if shared.options.persistence.is_none() => {
                return Err(SwitchError::NoDirectory);
            }
            (true, None) if !shared.wal.has_room() => {
                return Err(SwitchError::TooOften {
                    found: super::logs::LOGS_MAX,
                });
            }
            (true, None) => Step::TurnOn(shared.options.clock.now()),
            (false, Some(_)) => Step::TurnOff,
        };
        Ok(Switching { claim, step })
    }

    /// Whether changes are made durable now.
    pub fn is_persistent(&self) -> bool {
        let shared = &self.shared;
        shared.log().is_some() && !shared.settling.load(Ordering::Acquire)
    }
}

impl Switching {
    /// Does the next step; blocks for the disk. In a store that is driven by hand, its driver has to be turned between.
    ///
    /// # Errors
    /// See [`SwitchError`].
    pub fn step(&mut self) -> Result<SwitchStep, SwitchError> {
        let shared = Arc::clone(&self.claim.0);
        let Some(persistence) = &shared.options.persistence else {
            return match self.step {
                Step::Done(report) => Ok(SwitchStep::Done(report)),
                _ => Err(SwitchError::NoDirectory),
            };
        };
        match &self.step {
            Step::TurnOn(since) => {
                match turn_on(&shared, persistence, *since)? {
                    None => {}
                    Some(Ok(id)) => self.step = Step::Snapshot(id),
                    Some(Err(error)) => self.undo(&shared, &error),
                }
                Ok(SwitchStep::Wait)
            }
            &Step::Snapshot(id) => {
                let engine = Engine {
                    shared: Arc::clone(&shared),
                };
                match engine.snapshot_outcome(id) {
                    None if shared.serves() => Ok(SwitchStep::Wait),
                    None => Err(SwitchError::NotServing {
                        readiness: shared.readiness(),
                    }),
                    Some(Ok(report)) => {
                        if let Err(error) = unmark(persistence) {
                            // It says nothing any more, and the next start removes it.
                            tracing::warn!(%error, "the mark of a log that did not count yet could not be removed");
                        }
                        shared.settling.store(false, Ordering::Release);
                        shared.off_at.store(0, Ordering::Release);
                        shared.own_directory.store(true, Ordering::Release);
                        tracing::info!(sequence = report.cut, "persistence is on");
                        self.step = Step::Done(SwitchReport {
                            on: true,
                            sequence: report.cut,
                        });
                        self.step()
                    }
                    Some(Err(error)) => {
                        self.undo(&shared, &error);
                        Ok(SwitchStep::Wait)
                    }
                }
            }
            Step::Undo(reason) => match stop_log(&shared) {
                false => Ok(SwitchStep::Wait),
                true => Err(SwitchError::Failed {
                    reason: reason.clone(),
                }),
            },
            Step::TurnOff => {
                self.step = Step::Drain(stop_appending(&shared));
                Ok(SwitchStep::Wait)
            }
            &Step::Drain(last) => {
                if let Some(log) = shared.log() {
                    let failed = matches!(
                        log.admit(),
                        Err(wal::Refusal::Closed { .. } | wal::Refusal::DiskFull)
                    );
                    if log.high_watermark() < lsn(last) && !failed {
                        log.request_sync(lsn(last));
                        return Ok(SwitchStep::Wait);
                    }
                    let durable = log.high_watermark().get().min(last.get());
                    shared.durable_until.store(durable, Ordering::Release);
                    shared.off_at.store(last.get(), Ordering::Release);
                }
                self.step = Step::Settle;
                self.step()
            }
            Step::Settle => {
                if !stop_log(&shared) {
                    return Ok(SwitchStep::Wait);
                }
                let sequence = shared.durable_until.load(Ordering::Acquire);
                tracing::info!(sequence, "persistence is off: the store is in memory only");
                self.step = Step::Done(SwitchReport {
                    on: false,
                    sequence,
                });
                self.step()
            }
            Step::Done(report) => Ok(SwitchStep::Done(*report)),
        }
    }

    fn undo(&mut self, shared: &Shared, error: &CheckpointError) {
        stop_appending(shared);
        self.step = Step::Undo(error.to_string());
    }
}

/// Opens a log and has every change from now on in it; the snapshot that makes it count is asked for. `None`: not yet.
fn turn_on(
    shared: &Arc<Shared>,
    persistence: &Persistence,
    since: u64,
) -> Result<Option<Result<u64, CheckpointError>>, SwitchError> {
    let failed = |reason: String| SwitchError::Failed { reason };
    let now = shared.options.clock.now();
    let last = shared.sequencer.last().get();
    let first = first_of_run(Sequence::from_raw(last.saturating_add(LEAP)), now);
    let by_time = first_of_run(Sequence::ZERO, now);
    if first > by_time && now.saturating_sub(since) < LEAP_WAIT_MS {
        // Numbers ahead of the clock could be given out again, to others, after a crash that takes all of this back.
        return Ok(None);
    }
    let before = shared.wal.last();
    if before.is_some_and(|log| !matches!(log.admit(), Err(wal::Refusal::Closed { .. }))) {
        // Its writer is driven by hand and has yet to end it.
        return Ok(None);
    }
    if !shared.own_directory.load(Ordering::Acquire)
        && !is_empty(persistence).map_err(|error| failed(error.to_string()))?
    {
        return Err(SwitchError::Foreign);
    }
    // What an attempt before this one left does not count, and is not to be taken for what does.
    settle(persistence).map_err(|error| failed(error.to_string()))?;
    let names = persistence
        .disk
        .wal
        .list()
        .map_err(|error| failed(error.to_string()))?;
    let numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| segment_number(name))
        .collect();
    let mut segments = before.map(Wal::segments).unwrap_or_default();
    segments.retain(|segment| numbers.contains(&segment.number));
    let newest = segments.last().map_or(0, |segment| segment.number);
    // One that the log before failed to begin has no records, and would be neither known nor in a row with the next.
    remove_from(&*persistence.disk.wal, newest + 1).map_err(|error| failed(error.to_string()))?;
    let follows = Lsn::new(shared.durable_until.load(Ordering::Acquire));
    let start = wal::Start {
        store_id: shared.checkpointer.store_id(),
        segment: newest + 1,
        follows,
        floor: lsn(first).previous(),
        next_lsn: lsn(first),
        segments,
        now_ms: now,
    };
    mark(persistence, newest + 1, first.get()).map_err(|error| failed(error.to_string()))?;
    let log = Wal::open(
        Arc::clone(&persistence.disk.wal),
        persistence.wal.clone(),
        start,
        shared.options.lanes + 1,
    )
    .map_err(|error| failed(super::in_full(&error)))?
    .with_codecs(wal_codecs(), persistence.wal_compress.map(wal_codec));
    // The next snapshot makes them superfluous.
    log.leave_sealed();
    let Some(number) = shared.wal.keep(log) else {
        return Err(SwitchError::TooOften {
            found: super::logs::LOGS_MAX,
        });
    };
    if let Some(log) = shared.wal.numbered(number)
        && shared.threads_started.load(Ordering::Acquire)
    {
        super::start_log(log).map_err(|error: RecoverError| failed(error.to_string()))?;
    }
    let leapt = shared.partitions.hold_all(|| {
        let leapt = shared.sequencer.leap(first);
        if leapt {
            shared.settling.store(true, Ordering::Release);
            shared.wal.activate(number);
        }
        leapt
    });
    if !leapt {
        return Err(failed(
            "too many changes were made meanwhile: try again".to_owned(),
        ));
    }
    shared
        .checkpointer
        .begin_anew(persistence.snapshot_full_every);
    let engine = Engine {
        shared: Arc::clone(shared),
    };
    Ok(Some(engine.request_snapshot(SnapshotKind::Full)))
}

/// No change after the one that is given back is for the log.
fn stop_appending(shared: &Shared) -> Sequence {
    shared.partitions.hold_all(|| {
        let last = shared.sequencer.last();
        shared.log_until.store(last.get(), Ordering::Release);
        last
    })
}

/// Takes the log out of use, unless a walk goes on: true when that is done.
fn stop_log(shared: &Shared) -> bool {
    if shared.checkpointer.is_walking() {
        return false;
    }
    let log = shared.log();
    shared.partitions.hold_all(|| {
        shared.wal.activate(0);
        shared.log_until.store(u64::MAX, Ordering::Release);
        shared.settling.store(false, Ordering::Release);
    });
    shared.checkpointer.without_increments();
    for partition in 0..shared.partitions.count() {
        shared.partitions.with(partition, |table| {
            if !table.partition.is_frozen() {
                table.partition.keep_tombstones(false);
            }
        });
    }
    // One that is driven by hand is completed by its driver, and one that failed has said so.
    if let Some(log) = log
        && let Err(error) = log.shutdown()
    {
        tracing::debug!(%error, "the log was not completed");
    }
    true
}

fn is_empty(persistence: &Persistence) -> io::Result<bool> {
    let snapshots = persistence.disk.snapshots.list()?;
    let ours =
        |name: &String| name.ends_with(".manifest") || name.ends_with(".part") || is_staged(name);
    Ok(!snapshots.iter().any(ours) && newest_segment(&*persistence.disk.wal)? == 0)
}

/// The number in a segment's name.
fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("wal-")?.strip_suffix(".log")?;
    let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

fn newest_segment(disk: &dyn wal::Storage) -> io::Result<u64> {
    let names = disk.list()?;
    let numbers = names.iter().filter_map(|name| segment_number(name));
    Ok(numbers.max().unwrap_or(0))
}

/// Says, durably, that segments from `segment` on count for nothing before a snapshot reaches `first`.
fn mark(persistence: &Persistence, segment: u64, first: u64) -> io::Result<()> {
    let disk = &*persistence.disk.snapshots;
    match disk.remove(MARK) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = disk.create(MARK)?;
    let mut text = format!("{segment} {first} ");
    let crc = crc32fast::hash(text.as_bytes());
    text.push_str(&format!("{crc:08x}\n"));
    file.write_at(0, text.as_bytes())?;
    file.sync()?;
    disk.sync_dir()
}

fn unmark(persistence: &Persistence) -> io::Result<()> {
    let disk = &*persistence.disk.snapshots;
    disk.remove(MARK)?;
    disk.sync_dir()
}

/// What the mark says: `None` when there is none; an unfinished one stands for a log that was never begun.
pub(crate) fn read_mark(disk: &dyn snapshot::Storage) -> io::Result<Option<(u64, u64)>> {
    let file = match disk.open(MARK) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = file.len()?.min(256);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(256)];
    file.read_at(0, &mut bytes)?;
    let parsed = std::str::from_utf8(&bytes).ok().and_then(|text| {
        let (numbers, crc) = text.trim_end().rsplit_once(' ')?;
        let crc = u32::from_str_radix(crc, 16).ok()?;
        (crc == crc32fast::hash(format!("{numbers} ").as_bytes())).then_some(())?;
        let (segment, first) = numbers.split_once(' ')?;
        Some((segment.parse().ok()?, first.parse().ok()?))
    });
    Ok(Some(parsed.unwrap_or((u64::MAX, u64::MAX))))
}

/// Removes the segments from `first` on, the last one first: what is left after a crash in between is without a gap.
fn remove_from(log: &dyn wal::Storage, first: u64) -> io::Result<()> {
    let mut doomed: Vec<(u64, String)> = log
        .list()?
        .into_iter()
        .filter_map(|name| Some((segment_number(&name)?, name)))
        .filter(|(number, _)| *number >= first)
        .collect();
    doomed.sort();
    for (_, name) in doomed.iter().rev() {
        log.remove(name)?;
        log.sync_dir()?;
    }
    Ok(())
}

/// Before a recovery: the log of a switch that did not come to its end is removed.
///
/// # Errors
/// The disk failed.
pub(super) fn settle(persistence: &Persistence) -> Result<(), RecoverError> {
    let disk = &*persistence.disk.snapshots;
    let Some((segment, first)) = read_mark(disk).map_err(RecoverError::Staged)? else {
        return Ok(());
    };
    let cut = match chain::newest(disk, None)? {
        chain::Found::Chain(chain) => chain.cut(),
        chain::Found::None | chain::Found::AllDamaged(_) => 0,
    };
    if cut < first.saturating_sub(1) {
        remove_from(&*persistence.disk.wal, segment).map_err(RecoverError::Staged)?;
        tracing::info!(
            "persistence was being turned on and was not yet: going on with what was there before"
        );
    }
    unmark(persistence).map_err(RecoverError::Staged)
}
