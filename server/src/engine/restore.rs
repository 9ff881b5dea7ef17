//! A backup loaded into a store that runs: staged in full and proven first, then swapped in at once (replace), or laid
//! over what is there key by key (merge).
//!
//! # Replace
//! Entries are staged in tables of their own, in a durable store also as a file beside the snapshots. When the trailer
//! has proven the whole, every partition's lock is held for the moment it takes to exchange the tables: no reader and no
//! writer sees some of it. Two numbers are drawn. The first, at the beginning, is what every restored entry carries: so no
//! entity tag of before the restore is ever valid again, and none is given twice. The second, at the swap, is the swap
//! itself: a log record under a reserved key that names the file. Where that record is durable the restore has happened,
//! where it is not it has not; a recovery that meets it starts over from the file. Changes with numbers below it
//! were made to what was replaced, those above to what was restored. A full snapshot then makes the file superfluous.
//!
//! # Merge
//! Entries are staged, and when the whole is proven made as ordinary changes, each logged under a number of its own. An entry
//! of the backup counts when its key is not there (never was, was deleted, or has expired), or, in a backup of this very
//! store, when its number is above that of what is there. Nothing is deleted. A change made meanwhile by somebody else is
//! newer than any backup and stays.

use super::adapters::{lsn, snapshot_codecs};
use super::checkpoint::CheckpointError;
use super::options::Persistence;
use super::partitions::Partitions;
use super::rules::{self, OnLoad, Unfit};
use super::write::{Change, Judged, Outcome, PutTtl, Value};
use super::{Engine, Lane, Refusal, Shared, WriteError};
use bytes::Bytes;
use inflightkv_core::{Conditions, EtagCondition, LoadedEntry, Sequence, Slot, VersionCondition};
use inflightkv_snapshot::{
    self as snapshot, BackupDecoder, BackupReport, EntryRef, LoadError, Wanted,
};
use inflightkv_validation::{Rules, Violation};
use inflightkv_wal::{self as wal, Op, RecordHead};
use parking_lot::Mutex;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The key of the log records that speak of restores; clients cannot use it, nor anything else that begins like it.
pub(crate) const MARKER_KEY: &str = "__inflightkv/restore";
/// What staged backups in a snapshots' folder are called, behind twenty digits.
const SUFFIX: &str = ".restore";
/// Changes of a merge made in one step.
const MERGE_BATCH: usize = 64;

/// How a backup is laid over what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreMode {
    /// It takes the place of everything, all or nothing.
    Replace,
    /// What is missing or older is taken from it, where the key begins with the prefix.
    Merge {
        /// Empty for all keys.
        prefix: String,
    },
}

/// What a restore did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// The sequence the backup is of.
    pub cut: u64,
    /// Entries in the backup.
    pub entries: u64,
    /// Entries that are there now because of it.
    pub restored: u64,
    /// Entries that something newer stayed in place of.
    pub kept: u64,
    /// Entries that had expired, or whose key was not asked for.
    pub skipped: u64,
    /// Entries among those wanted that break rules in force; they are there like the others.
    pub unfit: u64,
    /// The number of the restore; every restored entry has this one (replace) or a smaller one above all before (merge).
    pub sequence: u64,
}

/// Why a backup was not restored. Unless it says otherwise, the store is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The stream is no backup, damaged or cut off.
    #[error("the backup cannot be restored: {0}")]
    Backup(#[from] LoadError),
    /// Another one is going on, or persistence is being turned on or off.
    #[error(
        "another restore, or turning persistence on or off, is going on: try again when it has ended"
    )]
    Running,
    /// The store takes no writes.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An entry is one that this store cannot hold.
    #[error("the backup has an entry that this store cannot hold: {reason}")]
    Entry {
        /// What about it.
        reason: String,
    },
    /// An entry breaks a rule in force, and that was not to be.
    #[error("the backup has an entry that breaks a rule: {violation}")]
    Invalid {
        /// Its key.
        key: String,
        /// Which, and how.
        violation: Box<Violation>,
    },
    /// Its entries take more memory than the store may.
    #[error("the backup takes more than the {limit} bytes that the data may")]
    MemoryFull {
        /// What is allowed.
        limit: u64,
    },
    /// Whoever sent it went away.
    #[error("the backup did not arrive to its end")]
    Stopped,
    /// The staged backup could not be written.
    #[error("the backup could not be staged on disk: {0}")]
    Staging(io::Error),
    /// The swap did not take place.
    #[error("the backup was not restored: {0}")]
    NotSwapped(CheckpointError),
    /// It was swapped in, and the log failed before that was durable.
    #[error("the backup was swapped in and is visible, but could not be made durable: {reason}")]
    NotDurable {
        /// What went wrong.
        reason: String,
    },
}

/// A restore that is being staged.
pub struct Restore {
    shared: Arc<Shared>,
    _claim: Claim,
    mode: RestoreMode,
    decoder: BackupDecoder,
    staged: Partitions,
    /// What replaced entries carry.
    sequence: Sequence,
    now: u64,
    staged_entries: u64,
    staged_bytes: u64,
    skipped: u64,
    /// What its entries are held against; the rules of when it began.
    rules: Option<Arc<Rules>>,
    on_load: OnLoad,
    unfit: Unfit,
    file: Option<StagedFile>,
}

impl std::fmt::Debug for Restore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restore")
            .field("mode", &self.mode)
            .field("staged", &self.staged_entries)
            .finish_non_exhaustive()
    }
}

/// One restore at a time: staging takes memory, and the lane of threads that are none is one.
struct Claim(Arc<Shared>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.restoring.store(false, Ordering::Release);
    }
}

struct StagedFile {
    disk: Arc<dyn snapshot::Storage>,
    name: String,
    file: Box<dyn snapshot::File>,
    len: u64,
    /// It is the log's: a record names it.
    kept: bool,
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.kept {
            // The next start removes what cannot be removed now.
            let _ = self.disk.remove(&self.name);
        }
    }
}

/// A restore that is staged and proven, and being done.
#[derive(Debug)]
pub struct Restoring {
    restore: Restore,
    report: BackupReport,
    step: Doing,
    done: RestoreReport,
}

#[derive(Debug)]
enum Doing {
    Swap,
    Swapping(Arc<Swap>),
    Merge { partition: usize, from: Slot },
}

/// What is next.
#[derive(Debug)]
pub enum RestoreStep {
    /// Call again.
    More,
    /// Call again in a little while: the log or a walk of the store is in the way.
    Wait,
    /// It is done, and durable as far as this store is.
    Done(RestoreReport),
}

/// Tables on their way into the store, and back out.
pub(super) struct Swap {
    state: Mutex<SwapState>,
    over: AtomicBool,
}

struct SwapState {
    staged: Option<Partitions>,
    /// What the log will name; `None` in memory. Removed with this, if it was not named.
    file: Option<StagedFile>,
    /// What the entries carry.
    sequence: Sequence,
    outcome: Option<Result<Sequence, CheckpointError>>,
}

impl std::fmt::Debug for Swap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Swap").finish_non_exhaustive()
    }
}

/// The value of the log record that is a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    /// The staged backup, a name in the snapshots' folder.
    file: String,
    /// What its entries carry.
    sequence: u64,
}

impl Marker {
    fn encode(&self) -> String {
        format!(
            "{{\"file\":\"{}\",\"sequence\":{}}}",
            self.file, self.sequence
        )
    }

    /// Reads back what [`encode`](Self::encode) wrote; `None` for anything else.
    fn decode(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (file, rest) = text.strip_prefix("{\"file\":\"")?.split_once('"')?;
        let sequence = rest.strip_prefix(",\"sequence\":")?.strip_suffix('}')?;
        is_staged(file).then_some(())?;
        Some(Self {
            file: file.to_owned(),
            sequence: sequence.parse().ok()?,
        })
    }
}

/// Whether a file of a snapshots' folder is a staged backup.
pub(crate) fn is_staged(name: &str) -> bool {
    name.strip_suffix(SUFFIX)
        .is_some_and(|id| id.len() == 20 && id.bytes().all(|byte| byte.is_ascii_digit()))
}

impl Engine {
    /// Begins a restore: feed it the backup, then finish it. Until then nothing is seen of it. It takes the memory of what
    /// it stages, and on disk the room of the backup.
    ///
    /// # Errors
    /// The store takes no writes, or another restore is going on.
    pub fn begin_restore(&self, mode: RestoreMode) -> Result<Restore, RestoreError> {
        let shared = &self.shared;
        shared.admit()?;
        // Each of the two says what it begins before it looks at the other: so one of them sees the other.
        if shared.restoring.swap(true, Ordering::SeqCst) {
            return Err(RestoreError::Running);
        }
        let claim = Claim(Arc::clone(shared));
        // A log that comes or goes meanwhile would not know what to make of it.
        if shared.switching.load(Ordering::SeqCst) {
            return Err(RestoreError::Running);
        }
        let (mut file, mut sequence) = (None, Sequence::ZERO);
        if mode == RestoreMode::Replace {
            if let (Some(persistence), true) = (&shared.options.persistence, shared.log().is_some())
            {
                file = Some(StagedFile::create(shared, persistence)?);
            }
            let _writing = shared.role.begin_write(shared.options.lanes)?;
            sequence = shared.burn();
        }
        Ok(Restore {
            _claim: claim,
            mode,
            decoder: BackupDecoder::new("the backup"),
            staged: shared.partitions.empty(),
            sequence,
            now: shared.options.clock.now(),
            staged_entries: 0,
            staged_bytes: 0,
            skipped: 0,
            rules: shared.rules.current(),
            on_load: self.rules_on_load(),
            unfit: Unfit::default(),
            file,
            shared: Arc::clone(shared),
        })
    }
}

impl StagedFile {
    fn create(shared: &Shared, persistence: &Persistence) -> Result<Self, RestoreError> {
        let disk = Arc::clone(&persistence.disk.snapshots);
        let name = format!("{:020}{SUFFIX}", shared.checkpointer.next_id());
        let file = disk.create(&name).map_err(RestoreError::Staging)?;
        Ok(Self {
            disk,
            name,
            file,
            len: 0,
            kept: false,
        })
    }
}

impl Restore {
    /// Does `on_load` with entries that break a rule, instead of what the store is set to.
    #[must_use]
    pub fn with_rules(mut self, on_load: OnLoad) -> Self {
        self.on_load = on_load;
        self
    }

    /// Takes the next bytes of the backup. Blocks for the disk in a durable store.
    ///
    /// # Errors
    /// The backup is damaged, or cannot be staged. The restore is over then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let mut unfit = None;
        let (staged, now, mode) = (&self.staged, self.now, &self.mode);
        let (staged_entries, skipped) = (&mut self.staged_entries, &mut self.skipped);
        let staged_bytes = &mut self.staged_bytes;
        let limit = self.shared.meter.limit();
        let sequence = self.sequence;
        let (rules, on_load, found) = (self.rules.as_deref(), self.on_load, &mut self.unfit);
        let fed = self.decoder.feed(bytes, &snapshot_codecs(), |entry| {
            let wanted = match mode {
                RestoreMode::Replace => true,
                RestoreMode::Merge { prefix } => Wanted::Prefix(prefix).wants(entry.key),
            };
            if !wanted || entry.expires_at.is_some_and(|at| at <= now) {
                *skipped += 1;
                return ControlFlow::Continue(());
            }
            if let Some(rules) = rules
                && let Err(violation) =
                    rules::judge(rules, entry.key, entry.value, entry.media_type)
            {
                if on_load == OnLoad::Refuse {
                    unfit = Some(RestoreError::Invalid {
                        key: entry.key.to_owned(),
                        violation: Box::new(violation),
                    });
                    return ControlFlow::Break(());
                }
                found.note(entry.key, violation);
            }
            let sequence = match mode {
                RestoreMode::Replace => sequence,
                RestoreMode::Merge { .. } => Sequence::from_raw(entry.sequence),
            };
            let Some(bytes) = stage(staged, &entry, sequence, now) else {
                unfit = Some(RestoreError::Entry {
                    reason: format!(
                        "key and media type have {} and {} bytes, or the key is there twice",
                        entry.key.len(),
                        entry.media_type.map_or(0, str::len)
                    ),
                });
                return ControlFlow::Break(());
            };
            *staged_entries += 1;
            *staged_bytes += bytes;
            if *staged_bytes > limit {
                unfit = Some(RestoreError::MemoryFull { limit });
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        if let Some(error) = unfit {
            return Err(error);
        }
        fed?;
        if let Some(staged) = &mut self.file {
            staged
                .file
                .write_at(staged.len, bytes)
                .map_err(RestoreError::Staging)?;
            staged.len += bytes.len() as u64;
        }
        Ok(())
    }

    /// The backup is at its end. Proves it, and makes a staged file durable; the store is still as it was.
    ///
    /// # Errors
    /// It was cut off, or the disk failed.
    pub fn finish(mut self) -> Result<Restoring, RestoreError> {
        let decoder = std::mem::replace(&mut self.decoder, BackupDecoder::new("the backup"));
        let report = decoder.finish()?;
        if let Some(staged) = &mut self.file {
            staged
                .file
                .sync()
                .and_then(|()| staged.disk.sync_dir())
                .map_err(RestoreError::Staging)?;
        }
        let step = match self.mode {
            RestoreMode::Replace => Doing::Swap,
            RestoreMode::Merge { .. } => Doing::Merge {
                partition: 0,
                from: Slot::new(0),
            },
        };
        let done = RestoreReport {
            cut: report.header.cut,
            entries: report.entries,
            restored: 0,
            kept: 0,
            skipped: self.skipped,
            unfit: self.unfit.count,
            sequence: 0,
        };
        Ok(Restoring {
            restore: self,
            report,
            step,
            done,
        })
    }
}

/// Puts an entry into tables that nobody else sees, and says how many bytes it takes; `None` when it cannot be there.
fn stage(staged: &Partitions, entry: &EntryRef<'_>, sequence: Sequence, now: u64) -> Option<u64> {
    let place = staged.place(entry.key);
    staged.with(place.partition, |table| {
        let before = table.bytes();
        let loaded = LoadedEntry {
            key: entry.key,
            value: entry.value,
            media_type: entry.media_type,
            crc: entry.value_crc,
            version: entry.version,
            sequence,
            expires_at: entry.expires_at,
            pinned: entry.pinned,
        };
        let applied = table.partition.load(place.hash, &loaded)?;
        table.schedule(applied.slot, applied.expires_at, now);
        staged.publish_due(place.partition, table);
        (!applied.released).then(|| (table.bytes().saturating_sub(before)) as u64)
    })
}

impl Restoring {
    /// Entries that break rules in force and are taken all the same.
    pub fn unfit(&self) -> &Unfit {
        &self.restore.unfit
    }

    /// The number of a replace, from the moment on at which readers see it; it may not be durable yet.
    pub fn swapped(&self) -> Option<Sequence> {
        match &self.step {
            Doing::Swapping(swap) => swap.state.lock().outcome.clone()?.ok(),
            Doing::Swap | Doing::Merge { .. } => None,
        }
    }

    /// Does the next step of a replace or a merge. In a store that is driven by hand, its driver has to be turned between.
    ///
    /// # Errors
    /// See [`RestoreError`]; a merge may have been done in part, each key whole.
    pub fn step(&mut self) -> Result<RestoreStep, RestoreError> {
        match &mut self.step {
            Doing::Swap => {
                let restore = &mut self.restore;
                let shared = &restore.shared;
                if let Err(refusal) = shared.admit() {
                    return match refusal {
                        Refusal::Backlog => Ok(RestoreStep::Wait),
                        other => Err(other.into()),
                    };
                }
                let empty = Partitions::new(1, 1);
                let swap = Arc::new(Swap {
                    state: Mutex::new(SwapState {
                        staged: Some(std::mem::replace(&mut restore.staged, empty)),
                        file: restore.file.take(),
                        sequence: restore.sequence,
                        outcome: None,
                    }),
                    over: AtomicBool::new(false),
                });
                shared.checkpointer.request_swap(Arc::clone(&swap));
                self.step = Doing::Swapping(swap);
                Ok(RestoreStep::Wait)
            }
            Doing::Swapping(swap) => {
                if !swap.over.load(Ordering::Acquire) {
                    return Ok(RestoreStep::Wait);
                }
                let outcome = swap.state.lock().outcome.clone();
                let sequence = match outcome {
                    Some(Ok(sequence)) => sequence,
                    Some(Err(error)) => return Err(RestoreError::NotSwapped(error)),
                    None => return Ok(RestoreStep::Wait),
                };
                let shared = &self.restore.shared;
                if let Some(log) = shared.log()
                    && !shared.is_durable(sequence)
                {
                    if let Err(wal::Refusal::Closed { reason }) = log.admit() {
                        return Err(RestoreError::NotDurable {
                            reason: reason.to_string(),
                        });
                    }
                    log.request_sync(lsn(sequence));
                    return Ok(RestoreStep::Wait);
                }
                self.done.restored = self.restore.staged_entries;
                self.done.sequence = sequence.get();
                Ok(RestoreStep::Done(self.done))
            }
            Doing::Merge { .. } => self.merge(),
        }
    }

    /// Makes the changes of one batch.
    fn merge(&mut self) -> Result<RestoreStep, RestoreError> {
        let Doing::Merge { partition, from } = &mut self.step else {
            return Ok(RestoreStep::More);
        };
        let Restore { shared, staged, .. } = &self.restore;
        if *partition == staged.count() {
            self.done.sequence = shared.sequencer.last().get();
            return Ok(RestoreStep::Done(self.done));
        }
        match shared.admit() {
            Ok(()) => {}
            Err(Refusal::Backlog) => return Ok(RestoreStep::Wait),
            Err(other) => return Err(other.into()),
        }
        let _writing = shared.role.begin_write(shared.options.lanes)?;
        let now = shared.options.clock.now();
        let mut batch = Vec::new();
        let next = staged.with(*partition, |table| {
            table.partition.scan(*from, MERGE_BATCH, "", now, |entry| {
                batch.push(Candidate {
                    key: entry.key().to_owned(),
                    value: Bytes::copy_from_slice(entry.stored()),
                    media_type: entry.media_type().map(str::to_owned),
                    expires_at: entry.expires_at(),
                    sequence: entry.sequence(),
                    pinned: entry.is_pinned(),
                });
                ControlFlow::Continue(())
            })
        });
        match next {
            Some(next) => *from = next,
            None => {
                *partition += 1;
                *from = Slot::new(0);
            }
        }
        let lane = Lane {
            shared: Arc::clone(shared),
            index: shared.options.lanes,
        };
        let own = self.report.header.store_id == shared.checkpointer.store_id();
        for candidate in batch {
            if candidate.lay_over(&lane, own)? {
                self.done.restored += 1;
            } else {
                self.done.kept += 1;
            }
        }
        Ok(RestoreStep::More)
    }
}

/// An entry of a backup that is being merged.
struct Candidate {
    key: String,
    value: Bytes,
    media_type: Option<String>,
    expires_at: Option<u64>,
    sequence: Sequence,
    pinned: bool,
}

impl Candidate {
    /// Makes the entry what its key has, if it counts; whether it did.
    fn lay_over(self, lane: &Lane, own: bool) -> Result<bool, RestoreError> {
        loop {
            let now = lane.now();
            let place = lane.shared.partitions.place(&self.key);
            let there = lane
                .shared
                .read(&self.key, place, now)
                .map(|document| document.sequence);
            if there.is_some_and(|there| !own || there >= self.sequence) {
                return Ok(false);
            }
            let sequences = there.map(|there| [there]);
            let conditions = Conditions {
                version: there.is_none().then_some(VersionCondition::Absent),
                if_match: sequences
                    .as_ref()
                    .map(|sequences| EtagCondition::OneOf(sequences)),
                if_none_match: None,
            };
            let change = Change::Put {
                value: Value {
                    bytes: self.value.clone(),
                    media_type: self.media_type.clone(),
                },
                ttl: self.expires_at.map_or(PutTtl::Clear, PutTtl::At),
            };
            match lane.write_admitted(
                &self.key,
                conditions,
                change,
                false,
                Some(self.pinned),
                Judged::Before,
            ) {
                // Somebody was faster: what is there now is looked at again.
                Ok((Outcome::Conflict { .. }, _)) => {}
                Ok(_) => return Ok(true),
                Err(WriteError::Refused(refusal)) => return Err(refusal.into()),
                Err(WriteError::MemoryFull { limit }) => {
                    return Err(RestoreError::MemoryFull { limit });
                }
                Err(error) => {
                    return Err(RestoreError::Entry {
                        reason: error.to_string(),
                    });
                }
            }
        }
    }
}

impl Swap {
    fn end(&self, outcome: Result<Sequence, CheckpointError>) {
        self.state.lock().outcome.get_or_insert(outcome);
        self.over.store(true, Ordering::Release);
    }

    /// It will not take place.
    pub(super) fn refuse(&self, error: CheckpointError) {
        self.end(Err(error));
    }
}

impl Shared {
    /// Draws a number that belongs to no key, and says so to the log.
    fn burn(&self) -> Sequence {
        // Under a partition's lock, as every number is drawn: a log that is being turned on or off does not come between.
        self.partitions.with(0, |table| {
            let ticket = self.sequencer.next();
            if table.epoch != ticket.epoch {
                let cut = Sequence::from_raw(ticket.sequence.get() - 1);
                self.checkpointer.freeze(table, ticket.epoch, cut);
            }
            self.mark(ticket.sequence, None);
            ticket.sequence
        })
    }

    /// Logs a number that belongs to a restore and not to a key.
    fn mark(&self, sequence: Sequence, marker: Option<&Marker>) {
        let Some(log) = self.log_for(sequence) else {
            return;
        };
        let value = marker.map_or_else(|| "null".to_owned(), Marker::encode);
        let head = RecordHead {
            lsn: lsn(sequence),
            version: 0,
            expires_at: None,
            value_crc: crc32fast::hash(value.as_bytes()),
            op: Op::Put,
            cause: wal::Cause::Client,
            pinned: false,
            media_type: None,
            key: MARKER_KEY,
        };
        log.append(
            self.options.lanes,
            &head,
            wal::Value::Inline(value.as_bytes()),
        );
    }

    /// Exchanges all tables at once. Nobody walks the store now: the caller is who begins walks.
    pub(super) fn swap_in(&self, swap: &Swap) {
        let (staged, mut file, restored) = {
            let mut state = swap.state.lock();
            (state.staged.take(), state.file.take(), state.sequence)
        };
        let Some(mut staged) = staged else {
            return;
        };
        let marker = file.as_ref().map(|file| Marker {
            file: file.name.clone(),
            sequence: restored.get(),
        });
        let admitted = self.role.begin_write(self.options.lanes + 1);
        let admitted = admitted.and_then(|writing| self.admit().map(|()| writing));
        let writing = match admitted {
            Ok(writing) => writing,
            Err(refusal) => {
                swap.end(Err(CheckpointError::Aborted {
                    reason: refusal.to_string(),
                }));
                return;
            }
        };
        let exchanged = self.partitions.exchange(&mut staged, || {
            // Whoever asked may have left and given its claim up, so a log may have come, or be going.
            let logs = self.log().is_some();
            if marker.is_some() != logs || self.log_ends() {
                return None;
            }
            let ticket = self.sequencer.next();
            self.checkpointer.note_change();
            // What a reader sees from now on is durable when this number is.
            self.shown_floor
                .store(ticket.sequence.get(), Ordering::Release);
            self.mark(ticket.sequence, marker.as_ref());
            // Cursors of before lead into tables that are gone.
            self.incarnation
                .store(ticket.sequence.get(), Ordering::Relaxed);
            Some(ticket)
        });
        drop(writing);
        let Some(sequence) = exchanged else {
            swap.end(Err(CheckpointError::Aborted {
                reason: "persistence was turned on or off while it was staged".to_owned(),
            }));
            return;
        };
        if let Some(file) = &mut file {
            file.kept = true;
            self.checkpointer.restored(file.name.clone(), sequence);
        }
        self.feed.break_off();
        // What is there now is unknown to the policy and as it was sent, and may be more than is to be held.
        if self.compressor.is_active() {
            self.make_uneven();
            self.compressor.note();
        }
        self.adopt_policy();
        self.meter.ask();
        tracing::info!(sequence = %sequence, "a backup replaced the store's content");
        swap.end(Ok(sequence));
        // Released here, on a thread that nobody waits for.
        drop(staged);
    }
}

/// What a recovery does about a record under the reserved key.
pub(super) enum Met {
    /// A number that belongs to no key.
    Nothing,
    /// Everything before is void: go on from this backup.
    Restore(Marker),
    /// None of ours.
    Unknown,
}

/// Looks at a record of the log under the reserved key.
pub(super) fn meet(value: &[u8]) -> Met {
    if value == b"null" {
        return Met::Nothing;
    }
    Marker::decode(value).map_or(Met::Unknown, Met::Restore)
}

/// Loads the staged backup that a record of the log names into empty partitions.
///
/// # Errors
/// It is not there, or damaged: what the log says after it has nothing to stand on.
pub(super) fn load_staged(
    shared: &Shared,
    persistence: &Persistence,
    marker: &Marker,
) -> Result<u64, LoadError> {
    let now = shared.options.clock.now();
    let sequence = Sequence::from_raw(marker.sequence);
    let source = Staged::open(&*persistence.disk.snapshots, &marker.file)?;
    let mut entries = 0;
    snapshot::read_backup(&marker.file, source, &snapshot_codecs(), |entry| {
        if entry.expires_at.is_none_or(|at| at > now) {
            entries += u64::from(stage(&shared.partitions, &entry, sequence, now).is_some());
        }
        shared.recovery.flow()
    })?;
    Ok(entries)
}

impl Marker {
    pub(super) fn file(&self) -> &str {
        &self.file
    }
}

/// A file of the snapshots' folder, read in order.
struct Staged {
    file: Box<dyn snapshot::File>,
    offset: u64,
    len: u64,
}

impl Staged {
    fn open(disk: &dyn snapshot::Storage, name: &str) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Io {
            file: name.to_owned(),
            offset: 0,
            source,
        };
        let file = disk.open(name).map_err(failed)?;
        let len = file.len().map_err(failed)?;
        Ok(Self {
            file,
            offset: 0,
            len,
        })
    }
}

impl io::Read for Staged {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len - self.offset).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        self.file.read_at(self.offset, &mut buffer[..len])?;
        self.offset += len as u64;
        Ok(len)
    }
}

/// Removes the staged backups of which `doomed` says that no record of the log needs them any more.
pub(super) fn remove_staged(disk: &dyn snapshot::Storage, doomed: impl Fn(&str) -> bool) {
    let removed = disk.list().and_then(|names| {
        let mut any = false;
        for name in names {
            if is_staged(&name) && doomed(&name) {
                disk.remove(&name)?;
                any = true;
            }
        }
        if any { disk.sync_dir() } else { Ok(()) }
    });
    if let Err(error) = removed {
        tracing::warn!(%error, "a staged backup that is no longer needed could not be removed");
    }
}

/// An id above those of all staged backups in the folder.
pub(super) fn next_staged_id(disk: &dyn snapshot::Storage) -> io::Result<u64> {
    let ids = disk.list()?.into_iter().filter_map(|name| {
        let id = is_staged(&name).then(|| name.strip_suffix(SUFFIX))??;
        id.parse::<u64>().ok()
    });
    Ok(ids.max().map_or(0, |id| id.saturating_add(1)))
}

/// An error with everything below it that says more.
pub(super) fn in_full(error: &dyn std::error::Error) -> String {
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
