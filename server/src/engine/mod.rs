//! The store: partitions, log, snapshots and timers composed, with no HTTP and no async runtime in it.
//!
//! An [`Engine`] is a handle to one store; a [`Lane`] is how one event loop or thread works on it. A request runs to its
//! end on the thread that parsed it: decide, number, log, apply, all under the one short lock of its partition. What is
//! left for later is an answer's wait for durability, which the caller holds, and background work, which the lane's
//! driver does in slices ([`Lane::home_turn`]).
//!
//! Threads of the engine, started by [`Engine::start_threads`]: with persistence the log's writer and its upkeep, with
//! compression the compressor, and always the monitor of memory, the checkpointer and the scrubber (unless it is off). A store without threads can be
//! driven by hand ([`drive`]).

mod adapters;
mod advisor;
mod batch;
mod checkpoint;
mod clock;
mod coded;
mod compress;
mod damage;
pub mod drive;
mod evict;
mod follow;
mod home;
mod lag;
mod logs;
mod memory;
mod options;
mod partitions;
mod read;
mod recover;
mod restore;
mod role;
mod rules;
mod scrub;
mod sequencer;
mod stats;
mod switch;
#[cfg(test)]
mod testing;
mod verify;
mod watch;
mod write;

#[cfg(feature = "cli")]
pub(crate) use adapters::snapshot_codec;
pub use adapters::{loaded, snapshot_codecs, wal_codecs};
pub use advisor::{Advice, AdviceReport};
pub use batch::{BatchKind, BatchOperation, BatchResult, OwnedConditions, OwnedEtagCondition};
pub use checkpoint::{Backup, CheckpointError, SnapshotFigures, SnapshotKind, SnapshotReport};
pub use clock::{Clock, ManualClock, SystemClock};
pub use compress::{Compression, CompressionMode, KeyTotals, LiveDictionary};
pub use damage::{Damaged, FoundBy, OnDamage};
pub use evict::{EvictState, Eviction, Room};
pub use follow::{Follower, Following, RoleError, TakeOver, TakenOver};
pub use home::HomeTurn;
pub use inflightkv_core::LoadedEntry;
pub use inflightkv_core::{
    Conditions, Current, Cursor, CursorError, EtagCondition, FailedCondition, PatchError,
    PatchKind, Sequence, Version, VersionCondition,
};
pub use inflightkv_eviction::PolicyKind;
pub use inflightkv_validation::{RuleFileError, RuleHits, Rules, Violation};
pub use inflightkv_wal::{Record, RecoveryMode, StreamReader, SyncMode, Tail, TailError, TailStep};
pub use lag::{LAG_BOUNDS_MS, Lags};
pub use options::{Disk, Memory, OpenError, Options, PARTITIONS_MAX, Persistence, WalCompression};
pub use read::{Document, ReadError, Row, Scan, ScanError};
#[cfg(feature = "cli")]
pub(crate) use recover::new_store_id;
pub use recover::{Progress, RecoverError, RecoveryReport};
#[cfg(feature = "cli")]
pub(crate) use restore::{MARKER_KEY, is_staged};
pub use restore::{Restore, RestoreError, RestoreMode, RestoreReport, RestoreStep, Restoring};
#[cfg(feature = "cli")]
pub(crate) use rules::judge;
pub use rules::{OnLoad, Unfit};
pub use scrub::{Scrub, ScrubStats};
pub use stats::{
    CompressionStats, DiskListing, EvictedStats, MemoryStats, PartitionReport, SegmentListing,
    SnapshotListing, Stats, WalStats,
};
#[cfg(feature = "cli")]
pub(crate) use switch::read_mark as read_switch_mark;
pub use switch::{SwitchError, SwitchReport, SwitchStep, Switching};
pub use verify::VerifyReport;
pub use watch::{Shown, Watch, WatchError, WatchStep};
pub use write::{Change, Durability, Outcome, PatchTtl, PutTtl, Stored, Value, Write, WriteError};

use advisor::Advisor;
use checkpoint::Checkpointer;
use compress::Compressor;
use home::Home;
use inflightkv_wal::{self as wal, Wal};
use logs::Logs;
use memory::Meter;
use parking_lot::Mutex;
use partitions::Partitions;
use recover::Recovery;
use rules::RuleBook;
use scrub::Scrubber;
use sequencer::Sequencer;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::task::{Wake, Waker};
use std::thread;
use std::time::Duration;

/// Whether the store serves, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// What is on disk is being loaded.
    Recovering(Progress),
    /// Reads and writes are served.
    Ready,
    /// Reads are served; a failed log takes no more writes until the store is opened anew.
    ReadOnly {
        /// What failed.
        reason: String,
    },
    /// Reads are served; writes are again as soon as the disk has room.
    DiskFull,
    /// The store is ending.
    Stopping,
    /// What is on disk could not be loaded.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A request met a store that does not serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store does not serve: {readiness:?}")]
pub struct NotServing {
    /// What it does instead.
    pub readiness: Readiness,
}

/// Why a write is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The store does not serve at all.
    #[error("the store is not ready")]
    NotServing(Readiness),
    /// The log failed; see [`Readiness::ReadOnly`].
    #[error("the store is read-only: {reason}")]
    ReadOnly {
        /// What failed.
        reason: String,
    },
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull,
    /// Writes come faster than the disk takes them.
    #[error("too many changes wait for the disk")]
    Backlog,
}

/// What a lane answers, and what the answer has to wait for.
#[derive(Clone, Debug)]
pub struct Reply<T> {
    /// The answer.
    pub value: T,
    /// Hold the answer until this change is durable ([`Lane::durable`]).
    pub wait_for: Option<Sequence>,
}

/// Whether a change is on stable storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durable {
    /// It is, or the store keeps nothing on disk.
    Yes,
    /// It will be.
    NotYet,
    /// The log failed, or its disk is full and the change has not been written.
    Never {
        /// What went wrong.
        reason: String,
        /// Whether the change may become durable yet, when the disk has room.
        disk_full: bool,
    },
}

/// A handle to one store. Clones are handles to the same one.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

/// How one event loop or thread works on the store. Each lane belongs to one thread at a time.
#[derive(Clone)]
pub struct Lane {
    shared: Arc<Shared>,
    index: usize,
}

/// Why a change is not on disk and will not be.
const LEFT: &str = "persistence was turned off before it was on disk";

const RECOVERING: u8 = 0;
const SERVING: u8 = 1;
const FAILED: u8 = 2;
const STOPPING: u8 = 3;

pub(crate) struct Shared {
    options: Options,
    partitions: Partitions,
    meter: Meter,
    advisor: Advisor,
    /// Counts changes of the eviction policy.
    policy_generation: AtomicU64,
    /// Bytes of request bodies that are not complete yet.
    bodies: AtomicI64,
    /// Where random choices begin; another in every process.
    seed: u64,
    sequencer: Sequencer,
    phase: AtomicU8,
    failure: Mutex<String>,
    /// In use once recovery has opened one, or persistence was turned on.
    wal: Logs,
    /// The last change that is for the log: all, unless persistence is being turned off.
    log_until: AtomicU64,
    /// What was on stable storage when persistence was turned off.
    durable_until: AtomicU64,
    /// The last change that the log was to have then; 0 while it is on.
    off_at: AtomicU64,
    /// There is a log that does not count yet, because its snapshot does not stand.
    settling: AtomicBool,
    switching: AtomicBool,
    /// What is in the data directory is this store's.
    own_directory: AtomicBool,
    homes: Box<[Home]>,
    checkpointer: Checkpointer,
    compressor: Compressor,
    scrubber: Scrubber,
    /// The first sequence of this run: tells its scan cursors from those of other runs.
    incarnation: AtomicU64,
    role: role::Role,
    follow: follow::Follow,
    feed: watch::Feed,
    /// What readers are shown is durable only when this number is: the last restore that replaced everything, or 0.
    shown_floor: AtomicU64,
    /// A restore is being staged or done.
    restoring: AtomicBool,
    recovery: Recovery,
    recovery_report: Mutex<Option<RecoveryReport>>,
    rules: RuleBook,
    verify_reads: AtomicBool,
    counters: Counters,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    /// Not driven by hand: what needs a thread starts one.
    threads_started: AtomicBool,
    stopping: AtomicBool,
}

/// What is counted where it happens seldom; request counts are the surfaces' own.
#[derive(Default)]
pub(crate) struct Counters {
    expired: AtomicU64,
    expiry_lag: lag::Histogram,
    patch_retries: AtomicU64,
    damage: damage::Damage,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("readiness", &self.readiness())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn serve(&self) {
        if self.compressor.is_active() {
            // What was loaded is compressed like what is written.
            self.make_uneven();
        }
        // A store asked to stop while it recovered stays stopped.
        let _ =
            self.phase
                .compare_exchange(RECOVERING, SERVING, Ordering::AcqRel, Ordering::Acquire);
        // What was loaded is more than the policy knows of, and may be more than is allowed.
        self.adopt_policy();
        self.meter.ask();
    }

    /// Goes on with `first` as the number of the next change.
    fn begin_run(&self, first: Sequence) {
        self.sequencer
            .start_after(Sequence::from_raw(first.get() - 1));
        self.incarnation.store(first.get(), Ordering::Relaxed);
    }

    fn fail(&self, reason: String) {
        *self.failure.lock() = reason;
        self.phase.store(FAILED, Ordering::Release);
    }

    fn serves(&self) -> bool {
        self.phase.load(Ordering::Acquire) == SERVING
    }

    fn readiness(&self) -> Readiness {
        match self.phase.load(Ordering::Acquire) {
            RECOVERING => Readiness::Recovering(self.recovery.progress()),
            FAILED => Readiness::Failed {
                reason: self.failure.lock().clone(),
            },
            STOPPING => Readiness::Stopping,
            _ if !self.role.leads() => Readiness::ReadOnly {
                reason: self.role_reason().unwrap_or_default(),
            },
            _ => match self.wal.get().map(Wal::admit) {
                None | Some(Ok(()) | Err(wal::Refusal::Backlog)) => Readiness::Ready,
                Some(Err(wal::Refusal::DiskFull)) => Readiness::DiskFull,
                Some(Err(wal::Refusal::Closed { reason })) => Readiness::ReadOnly {
                    reason: reason.to_string(),
                },
                Some(Err(other)) => Readiness::ReadOnly {
                    reason: other.to_string(),
                },
            },
        }
    }

    fn check_serving(&self) -> Result<(), NotServing> {
        if self.serves() {
            Ok(())
        } else {
            Err(NotServing {
                readiness: self.readiness(),
            })
        }
    }

    fn admit(&self) -> Result<(), Refusal> {
        if !self.serves() {
            return Err(Refusal::NotServing(self.readiness()));
        }
        if let Some(refusal) = self.role.refusal() {
            return Err(refusal);
        }
        match self.wal.get().map_or(Ok(()), Wal::admit) {
            Ok(()) => Ok(()),
            Err(wal::Refusal::Backlog) => Err(Refusal::Backlog),
            Err(wal::Refusal::DiskFull) => Err(Refusal::DiskFull),
            Err(wal::Refusal::Closed { reason }) => Err(Refusal::ReadOnly {
                reason: reason.to_string(),
            }),
            Err(other) => Err(Refusal::ReadOnly {
                reason: other.to_string(),
            }),
        }
    }

    /// The log, while there is one.
    fn log(&self) -> Option<&Wal> {
        self.wal.get()
    }

    /// The log that a change is for.
    fn log_for(&self, sequence: Sequence) -> Option<&Wal> {
        self.log().filter(|_| self.is_for_log(sequence))
    }

    /// Whether a change is one that a log gets, if there is one.
    fn is_for_log(&self, sequence: Sequence) -> bool {
        sequence.get() <= self.log_until.load(Ordering::Relaxed)
    }

    /// Whether the log takes no more: persistence is being turned off.
    fn log_ends(&self) -> bool {
        self.log_until.load(Ordering::Relaxed) != u64::MAX
    }

    /// Whether a change was for a log that was ended, having failed, before it had made it durable.
    fn was_left(&self, sequence: Sequence) -> bool {
        let until = self.durable_until.load(Ordering::Acquire);
        let off_at = self.off_at.load(Ordering::Acquire);
        (until + 1..=off_at).contains(&sequence.get())
    }

    /// Whether answers wait for the disk unless the request says otherwise.
    fn syncs_always(&self) -> bool {
        matches!(&self.options.persistence, Some(persistence) if matches!(persistence.wal.sync, SyncMode::Always))
    }

    fn is_durable(&self, sequence: Sequence) -> bool {
        self.log_for(sequence)
            .is_none_or(|log| log.high_watermark() >= adapters::lsn(sequence))
    }

    /// What an answer that shows `sequence` has to wait for.
    fn wait_for(&self, sequence: Sequence, durability: Durability) -> Option<Sequence> {
        let log = self.wal.get()?;
        match durability {
            Durability::Async => return None,
            Durability::Default if !self.syncs_always() => return None,
            Durability::Default | Durability::Sync => {}
        }
        let floor = Sequence::from_raw(self.shown_floor.load(Ordering::Acquire));
        let sequence = sequence.max(floor);
        if self.is_durable(sequence) {
            return None;
        }
        if durability == Durability::Sync {
            log.request_sync(adapters::lsn(sequence));
        }
        Some(sequence)
    }
}

impl Engine {
    /// Sets a store up. It serves once [`recover`](Self::recover) has run.
    ///
    /// # Errors
    /// An option is out of its range.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        options.check()?;
        let shared = Shared {
            partitions: Partitions::new(options.partitions, options.lanes),
            meter: Meter::new(options.memory, options.partitions),
            advisor: Advisor::default(),
            policy_generation: AtomicU64::new(1),
            bodies: AtomicI64::new(0),
            seed: std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0),
            sequencer: Sequencer::default(),
            phase: AtomicU8::new(RECOVERING),
            failure: Mutex::default(),
            wal: Logs::new(),
            log_until: AtomicU64::new(u64::MAX),
            durable_until: AtomicU64::new(0),
            off_at: AtomicU64::new(0),
            settling: AtomicBool::new(false),
            switching: AtomicBool::new(false),
            own_directory: AtomicBool::new(false),
            homes: (0..options.lanes).map(|_| Home::new()).collect(),
            checkpointer: Checkpointer::new(),
            compressor: Compressor::new(options.compression, options.clock.now()),
            scrubber: Scrubber::new(options.scrub),
            incarnation: AtomicU64::new(0),
            role: role::Role::new(options.lanes + 2),
            follow: follow::Follow::default(),
            feed: watch::Feed::default(),
            shown_floor: AtomicU64::new(0),
            restoring: AtomicBool::new(false),
            recovery: Recovery::new(),
            recovery_report: Mutex::default(),
            rules: RuleBook::new(Arc::clone(&options.rules), options.rules_on_load),
            verify_reads: AtomicBool::new(options.verify_reads),
            counters: Counters::default(),
            threads: Mutex::default(),
            threads_started: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            options,
        };
        shared.advisor.begin(shared.options.memory.bytes_max, 0);
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The lane of event loop or thread `index`.
    ///
    /// # Panics
    /// There are not as many lanes.
    pub fn lane(&self, index: usize) -> Lane {
        assert!(
            index < self.shared.options.lanes,
            "lane {index} of {}",
            self.shared.options.lanes
        );
        Lane {
            shared: Arc::clone(&self.shared),
            index,
        }
    }

    /// Whether the store serves, and why not.
    pub fn readiness(&self) -> Readiness {
        self.shared.readiness()
    }

    /// What the store was opened with.
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// Verifies a value's checksum whenever it is read from memory, or does not.
    pub fn set_verify_reads(&self, verify: bool) {
        self.shared.verify_reads.store(verify, Ordering::Relaxed);
    }

    /// How values in memory are compressed.
    pub fn compression(&self) -> Compression {
        self.shared.compressor.settings()
    }

    /// Changes how values in memory are compressed. Those there are follow in the background.
    ///
    /// # Errors
    /// It was off, and the system has no more threads; nothing is compressed then.
    pub fn set_compression(&self, compression: Compression) -> Result<(), RecoverError> {
        self.shared.set_compression(compression);
        if self.shared.threads_started.load(Ordering::Acquire) {
            self.start_compressor()?;
        }
        Ok(())
    }

    fn start_compressor(&self) -> Result<(), RecoverError> {
        if !self.shared.needs_compressor() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let compressor = thread::Builder::new()
            .name("compress".to_owned())
            .spawn(move || compress::run(&shared))
            .map_err(|error| {
                self.shared.compressor_failed();
                RecoverError::Thread(error)
            })?;
        self.shared.threads.lock().push(compressor);
        Ok(())
    }

    /// Starts the store's threads: the monitor of its memory, the checkpointer, the writer and the upkeep of a durable
    /// store's log, the compressor if values are compressed, and the scrubber if everything is read back now and then.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start_threads(&self) -> Result<(), RecoverError> {
        self.shared.threads_started.store(true, Ordering::Release);
        self.start_compressor()?;
        self.start_scrubber()?;
        if let Some(log) = self.shared.wal.get() {
            start_log(log)?;
        }
        let shared = Arc::clone(&self.shared);
        let monitor = thread::Builder::new()
            .name("memory".to_owned())
            .spawn(move || Meter::run(&shared))
            .map_err(RecoverError::Thread)?;
        self.shared.threads.lock().push(monitor);
        let shared = Arc::clone(&self.shared);
        let checkpointer = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || checkpoint::run(&shared))
            .map_err(RecoverError::Thread)?;
        self.shared.threads.lock().push(checkpointer);
        Ok(())
    }

    /// Starts a thread a lane for background work, for a store that is embedded without event loops.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start_homes(&self) -> Result<(), RecoverError> {
        for index in 0..self.shared.options.lanes {
            let lane = self.lane(index);
            let home = thread::Builder::new()
                .name(format!("home-{index}"))
                .spawn(move || lane.run_home())
                .map_err(RecoverError::Thread)?;
            self.shared.threads.lock().push(home);
        }
        Ok(())
    }

    /// Ends the store: no more requests, everything handed to the log on stable storage, threads joined. Lanes answer
    /// that the store is stopping. Closing twice does nothing.
    ///
    /// # Errors
    /// The log could not be completed.
    pub fn close(&self) -> Result<(), wal::ShutdownError> {
        let shared = &self.shared;
        if shared.stopping.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        shared.phase.store(STOPPING, Ordering::Release);
        shared.checkpointer.stop();
        shared.compressor.stop();
        shared.scrubber.stop();
        shared.meter.stop();
        for home in &shared.homes {
            home.signal();
        }
        let threads = std::mem::take(&mut *shared.threads.lock());
        for thread in threads {
            // A thread that panicked has said so; the log is completed all the same.
            let _ = thread.join();
        }
        shared.wal.get().map_or(Ok(()), Wal::shutdown)
    }
}

/// An error with everything below it that says more.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        let more = below.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        source = below.source();
    }
    words
}

/// Starts the threads of a log.
fn start_log(log: &Wal) -> Result<(), RecoverError> {
    log.spawn_writer().map_err(RecoverError::Thread)?;
    log.spawn_upkeep(|error| {
        let reason = std::error::Error::source(error).map(tracing::field::display);
        tracing::warn!(%error, reason, "upkeep of the log failed and is tried again; the log goes on");
    })
    .map_err(RecoverError::Thread)
}

impl Lane {
    /// The store.
    pub fn engine(&self) -> Engine {
        Engine {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The store's clock, in milliseconds since the Unix epoch.
    pub fn now(&self) -> u64 {
        self.shared.options.clock.now()
    }

    /// Whether what was on disk has been loaded, so that there is something to say about any key. Cheap.
    ///
    /// # Errors
    /// Why not.
    pub fn check_serving(&self) -> Result<(), NotServing> {
        self.shared.check_serving()
    }

    /// Whether a write would be taken now. Cheap: ask before spending anything on one.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self) -> Result<(), Refusal> {
        self.shared.admit()
    }

    /// Whether values may be stored compressed, so that [`get_zstd`](Self::get_zstd) may have something else to say than
    /// [`get`](Self::get).
    pub fn compresses(&self) -> bool {
        self.shared.compressor.is_active()
    }

    /// The partition of `key`.
    pub fn route(&self, key: &str) -> usize {
        self.shared.partitions.place(key).partition
    }

    /// Whether the change `sequence` is on stable storage.
    pub fn durable(&self, sequence: Sequence) -> Durable {
        let Some(log) = self.shared.wal.get() else {
            return match self.shared.was_left(sequence) {
                false => Durable::Yes,
                true => Durable::Never {
                    reason: LEFT.to_owned(),
                    disk_full: false,
                },
            };
        };
        if self.shared.is_durable(sequence) {
            return Durable::Yes;
        }
        match log.admit() {
            Err(wal::Refusal::Closed { reason }) => Durable::Never {
                reason: reason.to_string(),
                disk_full: false,
            },
            Err(wal::Refusal::DiskFull) if log.written() < adapters::lsn(sequence) => {
                Durable::Never {
                    reason: "the disk is full".to_owned(),
                    disk_full: true,
                }
            }
            _ => Durable::NotYet,
        }
    }

    /// Wakes `waker`, once, when something may have become durable or the log's state changed. Register first, then ask
    /// [`durable`](Self::durable).
    pub fn on_progress(&self, waker: &Waker) {
        if let Some(log) = self.shared.wal.get() {
            log.on_progress(self.index, waker.clone());
        }
    }

    /// Blocks until `sequence` is on stable storage, for callers that are threads.
    ///
    /// # Errors
    /// It was not within `timeout`, or will never be.
    pub fn wait_durable(
        &self,
        sequence: Sequence,
        timeout: Duration,
    ) -> Result<(), wal::WaitError> {
        match self.shared.wal.get() {
            Some(log) => log.wait_durable(adapters::lsn(sequence), timeout),
            None if self.shared.was_left(sequence) => Err(wal::WaitError::Closed {
                reason: LEFT.into(),
            }),
            None => Ok(()),
        }
    }

    /// Drives this lane's background work on a thread of its own until the store is closed.
    fn run_home(&self) {
        struct Unpark(thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = std::task::Context::from_waker(&waker);
        while !self.shared.stopping.load(Ordering::SeqCst) {
            match self.home_turn() {
                HomeTurn::More => thread::yield_now(),
                HomeTurn::Sleep { until } => {
                    if self.poll_home(&mut context).is_ready() {
                        continue;
                    }
                    match until {
                        Some(until) => thread::park_timeout(Duration::from_millis(
                            until.saturating_sub(self.now()),
                        )),
                        None => thread::park(),
                    }
                }
            }
        }
    }
}
