//! Following another store: its entries loaded, its records applied as they come, and one day its place taken.
//!
//! The caller brings what comes over the network ([`Follower`]); nothing here knows how. A store that follows serves
//! reads and refuses writes. What it holds has the other store's sequences, so entity tags stay valid when it takes over,
//! and it goes on above all of them. It keeps nothing on disk until then: the one it follows does.

use super::adapters::{lsn, wal_codec, wal_codecs};
use super::checkpoint::CheckpointError;
use super::recover::{Loader, new_store_id};
use super::restore::{self, MARKER_KEY};
use super::rules::{self, OnLoad};
use super::sequencer::first_of_run;
use super::{Engine, RecoverError, Refusal, Shared, start_log};
use inflightkv_core::{Cause, LoadedEntry, Logged, Sequence};
use inflightkv_snapshot::chain;
use inflightkv_validation::Violation;
use inflightkv_wal::{self as wal, Op, Record, WaitError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

/// How long handing over waits for the disk.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);

/// How a store that follows stands to the one it follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Following {
    /// Where that one is, as it was given.
    pub source: String,
    /// Whether there is a connection.
    pub connected: bool,
    /// The last change taken over.
    pub applied: u64,
    /// The last change that is durable there, as far as is known.
    pub source_sequence: u64,
    /// By how many sequence numbers this store is behind.
    pub behind: u64,
    /// How old the news is, in milliseconds: since everything that was known to be there was here.
    pub behind_ms: u64,
    /// Entries and changes taken over that break a rule in force.
    pub unfit: u64,
    /// What went wrong last, if that was after the last success.
    pub error: Option<String>,
}

/// What became of a change of the other store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenOver {
    /// It is here.
    Yes,
    /// It is one that a log cannot bring along: a backup replaced everything, and what is here has to be loaded anew.
    Replaced,
}

/// How taking over was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOver {
    /// After the other store has stopped taking writes, and all of them are here.
    InOrder,
    /// Now, with what is here: the other store is lost.
    Now,
}

/// Why a store did not take over or was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoleError {
    /// It takes writes already, or it follows another one, whichever was not expected.
    #[error("{0}")]
    NotNow(&'static str),
    /// The other store could not be asked to stop, or not everything came from it.
    #[error("the server that is followed did not hand over: {reason}")]
    NotHandedOver {
        /// What went wrong.
        reason: String,
    },
    /// The disk failed.
    #[error("{reason}")]
    Disk {
        /// What went wrong.
        reason: String,
    },
}

#[derive(Default)]
pub(crate) struct FollowState {
    status: Option<Following>,
    /// On this store's clock: when it last had everything that was known to be there.
    level_at: u64,
    wish: Option<TakeOver>,
    outcome: Option<Result<Sequence, RoleError>>,
    waiting: Vec<Waker>,
}

/// Takes over what comes from the other store. There is one, and one thread uses it.
pub struct Follower {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes a store that was not recovered yet one that follows `source`. [`recover`](Self::recover) then loads nothing.
    pub fn follow(&self, source: &str) -> Follower {
        let shared = &self.shared;
        let status = Following {
            source: source.to_owned(),
            ..Following::default()
        };
        *shared.follow.lock() = FollowState {
            status: Some(status),
            level_at: shared.options.clock.now(),
            ..FollowState::default()
        };
        shared.role.follow(format!("it follows {source}"));
        Follower {
            shared: Arc::clone(shared),
        }
    }

    /// How this store stands to the one it follows; `None` if it follows none.
    pub fn following(&self) -> Option<Following> {
        let state = self.shared.follow.lock();
        let mut status = state.status.clone()?;
        status.behind = status.source_sequence.saturating_sub(status.applied);
        if status.behind > 0 || !status.connected {
            let now = self.shared.options.clock.now();
            status.behind_ms = now.saturating_sub(state.level_at);
        }
        Some(status)
    }

    /// Asks a store that follows to take over, or one that was handed over to take writes again. The answer comes in
    /// [`take_over_outcome`](Self::take_over_outcome).
    ///
    /// # Errors
    /// It takes writes already.
    pub fn request_take_over(&self, how: TakeOver) -> Result<(), RoleError> {
        let shared = &*self.shared;
        let mut state = shared.follow.lock();
        if shared.role.leads() {
            return Err(RoleError::NotNow("this server takes writes already"));
        }
        if shared.role.follows() {
            state.wish = Some(how);
            state.outcome = None;
        } else {
            shared.role.lead();
            state.outcome = Some(Ok(shared.sequencer.last()));
        }
        Ok(())
    }

    /// How taking over ended; `None` while it has not. Register a waker first ([`on_take_over`](Self::on_take_over)).
    pub fn take_over_outcome(&self) -> Option<Result<Sequence, RoleError>> {
        self.shared.follow.lock().outcome.clone()
    }

    /// Wakes `waker` when taking over has ended.
    pub fn on_take_over(&self, waker: Waker) {
        let waiting = &mut self.shared.follow.lock().waiting;
        if !waiting.iter().any(|other| other.will_wake(&waker)) {
            waiting.push(waker);
        }
    }

    /// Stops taking writes for good, or until [`request_take_over`](Self::request_take_over), and returns the last change, with
    /// everything up to it on stable storage. Blocks for the disk: not for an event loop.
    ///
    /// # Errors
    /// The store follows another one, does not serve, or its log failed.
    pub fn hand_over(&self) -> Result<Sequence, RoleError> {
        let shared = &*self.shared;
        if shared.role.follows() {
            return Err(RoleError::NotNow("this server follows another one"));
        }
        if !shared.serves() {
            return Err(RoleError::NotNow(
                "this server does not serve yet, or any more",
            ));
        }
        shared
            .role
            .hand_over("it was handed over to another server".to_owned());
        let last = shared.sequencer.last();
        if let Some(log) = shared.wal.get() {
            log.wait_durable(lsn(last), SYNC_TIMEOUT).map_err(|error| {
                // Nobody may take over from a store that cannot say what it holds.
                shared.role.lead();
                RoleError::Disk {
                    reason: match error {
                        WaitError::Timeout { .. } => "the log was not synced in time".to_owned(),
                        other => other.to_string(),
                    },
                }
            })?;
        }
        Ok(last)
    }

    /// The log's durable records from `from` on, 0 and 1 being the first there ever was; `None` for a store in memory. Reads files:
    /// not for an event loop.
    ///
    /// # Errors
    /// The log does not reach back so far.
    pub fn tail_log(&self, from: u64) -> Result<Option<wal::Tail>, wal::TailError> {
        self.shared
            .wal
            .get()
            .map(|log| log.tail(wal::Lsn::new(from)))
            .transpose()
    }
}

impl Follower {
    /// Forgets everything and serves nothing until [`end_load`](Self::end_load).
    pub fn begin_load(&self) {
        self.shared
            .phase
            .store(super::RECOVERING, Ordering::Release);
        self.shared.feed.break_off();
        self.shared.partitions.clear();
    }

    /// Takes one entry of the other store over.
    ///
    /// # Errors
    /// It breaks a rule, and the store is set to refuse that.
    pub fn load(&self, entry: LoadedEntry<'_>) -> Result<(), Violation> {
        self.judge(entry.key, entry.value, entry.media_type)?;
        Loader::new(&self.shared).insert(entry);
        Ok(())
    }

    /// Holds what is taken over against the rules.
    fn judge(&self, key: &str, value: &[u8], media_type: Option<&str>) -> Result<(), Violation> {
        let book = &self.shared.rules;
        let Some(rules) = book.current() else {
            return Ok(());
        };
        let Err(violation) = rules::judge(&rules, key, value, media_type) else {
            return Ok(());
        };
        if book.on_load() == OnLoad::Refuse {
            return Err(violation);
        }
        tracing::warn!(
            rule = violation.rule.name(),
            setting = violation.rule.setting(),
            "a change that is taken over breaks a rule"
        );
        if let Some(status) = &mut self.shared.follow.lock().status {
            status.unfit += 1;
        }
        Ok(())
    }

    /// What was loaded is what the other store held at `cut`: reads are served.
    pub fn end_load(&self, cut: Sequence) {
        let shared = &*self.shared;
        shared.sequencer.advance_to(cut);
        shared.incarnation.store(cut.get() + 1, Ordering::Relaxed);
        {
            let mut state = shared.follow.lock();
            if let Some(status) = &mut state.status {
                status.applied = cut.get();
                status.source_sequence = status.source_sequence.max(cut.get());
            }
        }
        shared.serve();
    }

    /// Takes one change over. They come in order.
    ///
    /// # Errors
    /// It breaks a rule, and the store is set to refuse that; nothing was done.
    pub fn apply(&self, record: &Record<'_>) -> Result<TakenOver, Violation> {
        let shared = &*self.shared;
        if record.key == MARKER_KEY {
            match restore::meet(record.value) {
                restore::Met::Restore(_) => return Ok(TakenOver::Replaced),
                restore::Met::Nothing => return Ok(TakenOver::Yes),
                restore::Met::Unknown => {}
            }
        }
        if record.op == Op::Put {
            self.judge(record.key, record.value, record.media_type)?;
        }
        let sequence = Sequence::from_raw(record.lsn.get());
        let place = shared.partitions.place(record.key);
        let now = shared.options.clock.now();
        let applied = shared.partitions.with(place.partition, |table| {
            let telling = shared.feed.begin();
            let epoch = shared.sequencer.advance_to(sequence);
            if let Some(telling) = telling {
                telling.tell(sequence, &logged(record), now);
            }
            if table.epoch != epoch {
                let before = Sequence::from_raw(sequence.get() - 1);
                shared.checkpointer.freeze(table, epoch, before);
            }
            let applied = match record.op {
                Op::Delete => table.partition.unload(place.hash, record.key, sequence)?,
                Op::Put => table.partition.load(
                    place.hash,
                    &LoadedEntry {
                        key: record.key,
                        value: record.value,
                        media_type: record.media_type,
                        crc: record.value_crc,
                        version: record.version,
                        sequence,
                        expires_at: record.expires_at,
                        pinned: record.pinned,
                    },
                )?,
            };
            if table.schedule(applied.slot, applied.expires_at, now) {
                shared.partitions.publish_due(place.partition, table);
            }
            table.rank(&applied, place.hash, now);
            shared.meter.account(table, false);
            Some(applied)
        });
        if let Some(due) = applied.as_ref().and_then(|applied| applied.expires_at) {
            shared.homes[shared.partitions.home_of(place.partition)].timer_set(due);
        }
        drop(applied);
        shared.feed.settle();
        Ok(TakenOver::Yes)
    }

    /// Everything up to `applied` is here, and the other store has everything up to `source` on its disk.
    pub fn note(&self, applied: Sequence, source: Sequence) {
        self.shared.sequencer.advance_to(applied);
        let now = self.shared.options.clock.now();
        let mut state = self.shared.follow.lock();
        if applied >= source {
            state.level_at = now;
        }
        if let Some(status) = &mut state.status {
            status.connected = true;
            status.error = None;
            status.applied = applied.get();
            status.source_sequence = source.get();
        }
    }

    /// There is no connection, and why.
    pub fn disconnected(&self, error: String) {
        if let Some(status) = &mut self.shared.follow.lock().status {
            status.connected = false;
            status.error = Some(error);
        }
    }

    /// Whether this store is asked to take over.
    pub fn wish(&self) -> Option<TakeOver> {
        self.shared.follow.lock().wish
    }

    /// Whether the store is ending.
    pub fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::SeqCst)
            || self.shared.phase.load(Ordering::Acquire) == super::STOPPING
    }

    /// Tells whoever asked that it does not take over now. It goes on following.
    pub fn refuse(&self, error: RoleError) {
        self.tell(Err(error));
    }

    /// Takes over: goes on above everything that is here, on its own disk if it was given one, which then holds all of it.
    /// Blocks for that. On an error it goes on following.
    ///
    /// # Errors
    /// The disk failed.
    pub fn take_over(&self) -> Result<Sequence, RoleError> {
        let shared = &self.shared;
        let now = shared.options.clock.now();
        let first = first_of_run(shared.sequencer.last(), now);
        let before_first = Sequence::from_raw(first.get() - 1);
        let disk = |reason: String| RoleError::Disk { reason };
        if let Some(persistence) = &shared.options.persistence
            && shared.wal.get().is_none()
        {
            shared.sequencer.advance_to(before_first);
            let store_id = new_store_id();
            let next_id = chain::next_id(&*persistence.disk.snapshots)
                .map_err(|error| disk(error.to_string()))?;
            let last = lsn(before_first);
            let start = wal::Start {
                // What is below is in the snapshot that comes next, and in no log.
                follows: last,
                floor: last,
                next_lsn: lsn(first),
                ..wal::Start::fresh(store_id, now)
            };
            let log = wal::Wal::open(
                persistence.disk.wal.clone(),
                persistence.wal.clone(),
                start,
                shared.options.lanes + 1,
            )
            .map_err(|error| disk(error.to_string()))?
            .with_codecs(wal_codecs(), persistence.wal_compress.map(wal_codec));
            shared.checkpointer.begin_with(
                store_id,
                next_id,
                Sequence::ZERO,
                0,
                persistence.snapshot_full_every,
            );
            let log = shared
                .wal
                .keep(log)
                .expect("a store that follows has turned no log on and off");
            shared.wal.activate(log);
            shared.own_directory.store(true, Ordering::Release);
            if let Some(log) = shared.wal.get() {
                start_log(log).map_err(|error| disk(error.to_string()))?;
            }
        }
        if shared.wal.get().is_some() {
            self.snapshot().map_err(|error| disk(error.to_string()))?;
        } else {
            shared.sequencer.advance_to(before_first);
        }
        shared.follow.lock().status = None;
        shared.role.lead();
        self.tell(Ok(first));
        Ok(first)
    }

    /// Puts everything on disk, which a log that begins here has not.
    fn snapshot(&self) -> Result<(), CheckpointError> {
        let engine = Engine {
            shared: Arc::clone(&self.shared),
        };
        let id = engine.begin_snapshot(super::SnapshotKind::Full);
        loop {
            match engine.snapshot_outcome(id) {
                Some(outcome) => return outcome.map(drop),
                None if self.is_stopping() => {
                    return Err(CheckpointError::Aborted {
                        reason: "the server is stopping".to_owned(),
                    });
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn tell(&self, outcome: Result<Sequence, RoleError>) {
        let mut state = self.shared.follow.lock();
        state.wish = None;
        state.outcome = Some(outcome);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for waker in waiting {
            waker.wake();
        }
    }
}

impl Shared {
    /// Why a store that follows, or was handed over, is not ready for writes.
    pub(super) fn role_reason(&self) -> Option<String> {
        let Some(Refusal::ReadOnly { reason }) = self.role.refusal() else {
            return None;
        };
        Some(reason)
    }
}

/// A change of the other store as one of this.
fn logged<'a>(record: &Record<'a>) -> Logged<'a> {
    Logged {
        key: record.key,
        removed: match (record.op, record.cause) {
            (Op::Put, _) => None,
            (Op::Delete, wal::Cause::Evicted) => Some(Cause::Evicted),
            (Op::Delete, wal::Cause::Client) => Some(Cause::Client),
        },
        value: record.value,
        shared_value: None,
        media_type: record.media_type,
        crc: record.value_crc,
        version: record.version,
        expires_at: record.expires_at,
        pinned: record.pinned,
    }
}

/// A store that follows begins with an empty disk, or without one.
pub(super) fn check_empty(persistence: &super::Persistence) -> Result<(), RecoverError> {
    let scan = wal::scan(
        &persistence.disk.wal,
        &wal_codecs(),
        persistence.recovery,
        None,
    )?;
    let snapshots = chain::list(&*persistence.disk.snapshots)?;
    if scan.is_empty() && snapshots.is_empty() {
        Ok(())
    } else {
        Err(RecoverError::NotEmpty)
    }
}

pub(crate) type Follow = Mutex<FollowState>;
