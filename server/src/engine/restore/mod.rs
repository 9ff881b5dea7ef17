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

mod marker;
mod merge;
mod swap;

use super::adapters::{loaded, lsn, snapshot_codecs};
use super::checkpoint::CheckpointError;
use super::partitions::Partitions;
use super::rules::{self, OnLoad, Unfit};
use super::{Engine, Refusal, Shared};
use inflightkv_core::{LoadedEntry, Sequence, Slot};
use inflightkv_snapshot::{BackupDecoder, BackupReport, EntryRef, LoadError, Wanted};
use inflightkv_validation::{Rules, Violation};
use inflightkv_wal as wal;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use marker::StagedFile;
pub(crate) use marker::{MARKER_KEY, is_staged};
pub(in crate::engine) use marker::{Marker, Met, load_staged, meet, next_staged_id, remove_staged};
pub(in crate::engine) use swap::Swap;

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

impl Drop for Restoring {
    fn drop(&mut self) {
        if let Doing::Swapping(swap) = &self.step {
            swap.withdraw();
        }
    }
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
            sequence,
            ..loaded(entry)
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
            Doing::Swapping(swap) => swap.outcome()?.ok(),
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
                let staged = std::mem::replace(&mut restore.staged, empty);
                let swap = Swap::new(staged, restore.file.take(), restore.sequence);
                let swap = Arc::new(swap);
                shared.checkpointer.request_swap(Arc::clone(&swap));
                self.step = Doing::Swapping(swap);
                Ok(RestoreStep::Wait)
            }
            Doing::Swapping(swap) => {
                let sequence = match swap.outcome() {
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
}
