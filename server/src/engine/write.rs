//! One change, in order: decide, number, log, apply, and what the answer waits for.

use super::adapters::lsn;
use super::coded::Seen;
use super::damage::FoundBy;
use super::partitions::{Place, Table};
use super::read::Document;
use super::{Lane, Refusal, Reply, Shared, rules};
use bytes::Bytes;
use inflightkv_core::{
    self as core, Applied, Cause, Command, Compared, Conditions, Current, Decision, Draft,
    DraftError, DraftValue, Entry, EntryView, FailedCondition, Mutation, Operation, PatchError,
    PatchExpiry, PatchKind, Prepared, PutExpiry, Sequence, Slot, Version, VersionCondition, merge,
};
use inflightkv_validation::{Candidate, Violation};
use inflightkv_wal::{self as wal, RecordHead};
use std::sync::atomic::Ordering;

/// Stored value and patch together, up to which a patch is computed while its partition is locked; about ten
/// microseconds. A larger one is computed outside and committed if the entry is still the one it was computed from.
pub(crate) const INLINE_PATCH_MAX: usize = 4 << 10;
/// How often a large patch is computed again because the entry changed meanwhile, before the lock is held for it.
const PATCH_ATTEMPTS: u32 = 8;
/// The same for a patch that rules have to be asked about, which never happens under the lock.
const VALIDATED_ATTEMPTS: u32 = 64;

/// A write of one key.
#[derive(Clone, Debug)]
pub struct Write<'a> {
    /// The key: not empty, at most [`inflightkv_core::KEY_BYTES_MAX`] bytes.
    pub key: &'a str,
    /// What must hold for it.
    pub conditions: Conditions<'a>,
    /// What is to be done.
    pub change: Change,
    /// What the answer waits for.
    pub durability: Durability,
    /// Whether the outcome brings the document along.
    pub returning: bool,
    /// Whether the key is exempt from eviction from now on; `None` leaves that as it is. A delete forgets it.
    pub pin: Option<bool>,
}

/// What is to be done with a key.
#[derive(Clone, Debug)]
pub enum Change {
    /// Set its value.
    Put {
        /// The value.
        value: Value,
        /// What becomes of the expiry.
        ttl: PutTtl,
    },
    /// Change a part of it.
    Patch {
        /// How the patch is meant.
        kind: PatchKind,
        /// The patch document: minified, valid JSON.
        patch: Bytes,
        /// What becomes of the expiry.
        ttl: PatchTtl,
    },
    /// Remove it.
    Delete,
}

impl Change {
    /// About how many bytes it may add.
    pub fn len(&self) -> usize {
        match self {
            Self::Put { value, .. } => value.bytes.len(),
            Self::Patch { patch, .. } => patch.len(),
            Self::Delete => 0,
        }
    }

    /// Whether it adds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A value as it is to be stored.
#[derive(Clone, Debug)]
pub struct Value {
    /// Minified JSON, or any bytes with a media type.
    pub bytes: Bytes,
    /// `None` for JSON; at most [`inflightkv_core::MEDIA_TYPE_BYTES_MAX`] bytes.
    pub media_type: Option<String>,
}

/// The time to live that a put gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutTtl {
    /// None: the key stays.
    Clear,
    /// What the key has.
    Keep,
    /// So many milliseconds from now, at least 1.
    For(u64),
    /// Until this instant, in milliseconds since the Unix epoch.
    At(u64),
}

/// What a patch does to the time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchTtl {
    /// Nothing.
    Keep,
    /// The key stays from now on.
    Clear,
    /// So many milliseconds from now, at least 1.
    For(u64),
}

/// What the answer to a write waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// What the store is set to.
    #[default]
    Default,
    /// Stable storage.
    Sync,
    /// Nothing but the change itself.
    Async,
}

/// A key after a write, or the one removed.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its version.
    pub version: Version,
    /// Its last change.
    pub sequence: Sequence,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_at: Option<u64>,
    /// The document, when it was asked for.
    pub document: Option<Document>,
}

/// What came of a write.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The key was not there.
    Created(Stored),
    /// The key has a new value or expiry.
    Changed(Stored),
    /// The key was this way already; nothing was logged.
    Unchanged(Stored),
    /// The key was removed: its last version, the sequence of the removal.
    Deleted(Stored),
    /// The key to delete, or to patch with JSON Patch, is not there.
    Missing,
    /// A condition did not hold.
    Conflict {
        /// Which.
        failed: FailedCondition,
        /// What is there; `None` when the key is not.
        current: Option<Current>,
    },
    /// The patch cannot be applied to what is there.
    PatchFailed(PatchError),
}

/// Why a write was not tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The store takes no writes now.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// [`Durability::Sync`] was asked of a store that keeps nothing on disk.
    #[error("the store keeps nothing on disk, so a change cannot be made durable")]
    NotDurable,
    /// The key or media type is longer than an entry can hold.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// There is no room for it, and nothing that may be evicted for it.
    #[error("the data takes all of the {limit} bytes that it may")]
    MemoryFull {
        /// What is allowed.
        limit: u64,
    },
    /// The value is longer than the store takes.
    #[error("the value has {len} bytes, at most {max} are allowed")]
    ValueTooLarge {
        /// Its length.
        len: usize,
        /// What is allowed.
        max: usize,
    },
    /// The key, or the value that it would have, breaks a rule in force.
    #[error("{violation}")]
    Invalid {
        /// Which, and how.
        violation: Box<Violation>,
        /// The operation, in a batch of which then nothing was done.
        index: Option<usize>,
    },
    /// The value in memory does not have the checksum that it was stored with.
    #[error("the value does not have the checksum that it was stored with")]
    Damaged,
    /// The key changed faster than the result of a patch could be held against the rules.
    #[error("the key changes too fast for the result of a patch to be held against the rules")]
    Contended,
}

/// A write that has everything it needs but the lock.
struct Ready<'a> {
    key: &'a str,
    place: Place,
    conditions: Conditions<'a>,
    operation: Operation<'a>,
    returning: bool,
    /// What a delete that shows its value may show.
    shows: Shows,
}

/// Whether a put is held against the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    Now,
    /// It was, or is taken in spite of them.
    Before,
}

/// When a delete may remove a value that it shows; if it may not, it has to be tried again.
#[derive(Clone, Copy, Debug)]
enum Shows {
    /// Its checksum holds, which is found out under the lock if it is stored as it is and not longer than this.
    UpTo(usize),
    /// The change that made it was this one: it was verified outside.
    Verified(Sequence),
    /// Whatever it is, if it is stored as it is.
    Unverified,
}

/// What was done under the lock, and what is to be released after it.
struct Done {
    outcome: core::Outcome,
    /// The change made, or the one that the answer shows.
    sequence: Sequence,
    expires_at: Option<u64>,
    document: Option<Seen>,
    spent: [Option<Entry>; 3],
}

impl Lane {
    /// Does one write and says what came of it. Hold the answer for `wait_for`.
    ///
    /// # Errors
    /// The write was not tried; see [`WriteError`].
    pub fn write(&self, write: Write<'_>) -> Result<Reply<Outcome>, WriteError> {
        let _writing = self.shared.role.begin_write(self.index)?;
        self.shared.admit()?;
        self.shared.check_durability(write.durability)?;
        let (outcome, sequence) = self.write_admitted(
            write.key,
            write.conditions,
            write.change,
            write.returning,
            write.pin,
            Judged::Now,
        )?;
        Ok(Reply {
            wait_for: self.shared.wait_for(sequence, write.durability),
            value: outcome,
        })
    }

    /// Does one write of a store that admits it; with the outcome comes what its answer shows.
    pub(super) fn write_admitted(
        &self,
        key: &str,
        conditions: Conditions<'_>,
        change: Change,
        returning: bool,
        pin: Option<bool>,
        judged: Judged,
    ) -> Result<(Outcome, Sequence), WriteError> {
        let place = self.shared.partitions.place(key);
        let now = self.now();
        match change {
            Change::Delete => self.delete(key, place, conditions, returning),
            Change::Put { value, ttl } => {
                let max = self.shared.options.value_bytes_max;
                if value.bytes.len() > max {
                    return Err(WriteError::ValueTooLarge {
                        len: value.bytes.len(),
                        max,
                    });
                }
                if let (Judged::Now, Some(rules)) = (judged, self.shared.rules.current()) {
                    rules::check(&rules, key, &value)?;
                }
                let (expires_at, expiry) = match ttl {
                    PutTtl::Clear => (None, PutExpiry::Set),
                    PutTtl::Keep => (None, PutExpiry::Keep),
                    PutTtl::For(ms) => (Some(now.saturating_add(ms)), PutExpiry::Set),
                    PutTtl::At(instant) => (Some(instant), PutExpiry::Set),
                };
                let draft = Draft {
                    key,
                    value: DraftValue::Shared(&value.bytes),
                    media_type: value.media_type.as_deref(),
                    crc: crc32fast::hash(&value.bytes),
                    expires_at,
                    reserve_expiry: expiry == PutExpiry::Keep,
                };
                let mut draft = Entry::draft(&draft)?;
                if let Some(pinned) = pin {
                    draft.set_pinned(pinned);
                }
                self.shared
                    .make_room(self.index, draft.footprint() as u64, now, || {
                        self.shared.footprint(key, place, now)
                    })?;
                // The body is copied or shared by now: what came from the network is released before the lock.
                drop(value);
                Ok(self.put(key, place, conditions, draft, expiry, returning, now))
            }
            Change::Patch { kind, patch, ttl } => {
                // A patch adds at most about its own length.
                self.shared
                    .make_room(self.index, patch.len() as u64, now, || 0)?;
                self.patch(key, place, conditions, kind, &patch, ttl, returning, pin)
            }
        }
    }

    /// A delete. One that shows what it removes verifies it first: a small value inside the lock, another one outside.
    fn delete(
        &self,
        key: &str,
        place: Place,
        conditions: Conditions<'_>,
        returning: bool,
    ) -> Result<(Outcome, Sequence), WriteError> {
        let shared = &*self.shared;
        let mut shows = if shared.verify_reads.load(Ordering::Relaxed) {
            Shows::UpTo(INLINE_PATCH_MAX)
        } else {
            Shows::Unverified
        };
        loop {
            let now = self.now();
            let ready = Ready {
                key,
                place,
                conditions,
                operation: Operation::Delete,
                returning,
                shows,
            };
            let done = shared.execute(self.index, ready, now);
            if let core::Outcome::Deleted { .. } = done.outcome {
                shared.advisor.removed(place.hash, || shared.reads());
            }
            if done.outcome != core::Outcome::Retry {
                return Ok(shared.answer(done));
            }
            let seen = shared.read(key, place, now);
            let seen = shared
                .verified(key, seen, FoundBy::Delete)
                .map_err(|_| WriteError::Damaged)?;
            if let Some(document) = seen {
                shows = Shows::Verified(document.sequence);
            }
        }
    }

    /// A put: inside the lock, unless the value there is coded and looks the same from outside.
    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of one request, taken apart by the only caller"
    )]
    fn put(
        &self,
        key: &str,
        place: Place,
        conditions: Conditions<'_>,
        mut draft: Entry,
        expiry: PutExpiry,
        returning: bool,
        now: u64,
    ) -> (Outcome, Sequence) {
        let shared = &*self.shared;
        let mut compared = None;
        let bytes = draft.footprint();
        loop {
            let operation = Operation::Put {
                draft,
                expiry,
                compared,
            };
            let ready = Ready {
                key,
                place,
                conditions,
                operation,
                returning,
                shows: Shows::Unverified,
            };
            let mut done = shared.execute(self.index, ready, now);
            if let core::Outcome::Created { .. } | core::Outcome::Changed { .. } = done.outcome {
                shared.advisor.wrote(place.hash, bytes, || shared.reads());
            }
            if done.outcome != core::Outcome::Retry {
                return shared.answer(done);
            }
            draft = done.spent[0]
                .take()
                .expect("a draft that is to be compared is handed back");
            // Values are coded long after they were written, so nobody meets this twice in a row by chance.
            compared = shared.read(key, place, now).map(|base| Compared {
                base: base.sequence,
                same: !base.undecodable && base.value == draft.stored(),
            });
        }
    }

    /// A patch: inside the lock when it is small, outside and by comparison when it is not.
    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of one request, taken apart by the only caller"
    )]
    fn patch(
        &self,
        key: &str,
        place: Place,
        conditions: Conditions<'_>,
        kind: PatchKind,
        document: &[u8],
        ttl: PatchTtl,
        returning: bool,
        pin: Option<bool>,
    ) -> Result<(Outcome, Sequence), WriteError> {
        let shared = &*self.shared;
        let mut limits = shared.options.patch_limits();
        let rules = shared.rules.current();
        if let Some(rules) = &rules {
            rules.check_key(key).map_err(rules::invalid)?;
            // Nothing is computed where it could not be asked about.
            limits.inline_max = 0;
        }
        let mut prepared = None;
        let mut attempt = 0;
        loop {
            let now = self.now();
            let expiry = match ttl {
                PatchTtl::Keep => PatchExpiry::Keep,
                PatchTtl::Clear => PatchExpiry::Clear,
                PatchTtl::For(ms) => PatchExpiry::At(now.saturating_add(ms)),
            };
            if attempt == VALIDATED_ATTEMPTS {
                return Err(WriteError::Contended);
            }
            if attempt == PATCH_ATTEMPTS && rules.is_none() {
                // Everybody writes this key: compute under its lock, so that somebody gets through.
                limits.inline_max = usize::MAX;
            }
            let patch = core::Patch {
                kind,
                document,
                expiry,
                pin,
                limits,
                prepared: prepared.take(),
            };
            let operation = Operation::Patch(patch);
            let done = shared.execute(
                self.index,
                Ready {
                    key,
                    place,
                    conditions,
                    operation,
                    returning,
                    shows: Shows::Unverified,
                },
                now,
            );
            if done.outcome == core::Outcome::PatchFailed(PatchError::Damaged) {
                shared.note_damage(key, FoundBy::Patch);
                return Err(WriteError::Damaged);
            }
            if done.outcome != core::Outcome::Retry {
                return Ok(shared.answer(done));
            }
            shared
                .counters
                .patch_retries
                .fetch_add(u64::from(attempt > 0), Ordering::Relaxed);
            attempt += 1;
            let base = shared
                .verified(key, shared.read(key, place, now), FoundBy::Patch)
                .map_err(|_| WriteError::Damaged)?;
            let stored = base.as_ref().map(|base| &base.value[..]);
            let computed = merge::patched(kind, stored, document, &limits);
            if let Some(rules) = &rules {
                // An answer about what was read is right only if the conditions hold for that as well.
                let conditions_hold = match &base {
                    Some(base) => base.sequence == done.sequence,
                    None => {
                        kind != PatchKind::Json
                            && conditions.if_match.is_none()
                            && !matches!(conditions.version, Some(VersionCondition::Is(_)))
                    }
                };
                match &computed {
                    Err(error) if conditions_hold => {
                        return Ok((Outcome::PatchFailed(error.clone()), done.sequence));
                    }
                    Err(_) => continue,
                    Ok(value) => match rules.check_value(key, &Candidate::json(value)) {
                        Ok(()) => {}
                        Err(violation) if conditions_hold => return Err(rules::invalid(violation)),
                        Err(_) => continue,
                    },
                }
            }
            let result = match computed {
                Ok(value) => {
                    let value = Bytes::from(value.into_boxed_slice());
                    let draft = Draft {
                        key,
                        value: DraftValue::Shared(&value),
                        media_type: None,
                        crc: crc32fast::hash(&value),
                        expires_at: match expiry {
                            PatchExpiry::Keep => base.as_ref().and_then(|base| base.expires_at),
                            PatchExpiry::Clear => None,
                            PatchExpiry::At(instant) => Some(instant),
                        },
                        reserve_expiry: false,
                    };
                    let mut draft = Entry::draft(&draft)?;
                    if let Some(pinned) = pin {
                        draft.set_pinned(pinned);
                    }
                    Ok((draft, stored == Some(&value[..])))
                }
                Err(error) => Err(error),
            };
            prepared = Some(Prepared {
                base: base.map(|base| base.sequence),
                same: matches!(result, Ok((_, true))),
                result: result.map(|(draft, _)| draft),
            });
        }
    }
}

impl Shared {
    pub(super) fn check_durability(&self, durability: Durability) -> Result<(), WriteError> {
        let durable =
            !self.log_ends() && !self.settling.load(Ordering::Relaxed) && self.log().is_some();
        if durability == Durability::Sync && !durable {
            return Err(WriteError::NotDurable);
        }
        Ok(())
    }

    /// The heart of the store: one decision and its application, under one lock.
    fn execute(&self, lane: usize, ready: Ready<'_>, now: u64) -> Done {
        let Ready {
            key,
            place,
            conditions,
            operation,
            returning,
            shows,
        } = ready;
        let command = Command {
            key,
            hash: place.hash,
            conditions,
            operation,
        };
        let compresses = self.compressor.is_active();
        let seen = |table: &Table| {
            table
                .partition
                .get(key, place.hash, now)
                .map(|entry| Seen::of(entry, &table.codings))
        };
        let done = self.partitions.with(place.partition, |table| {
            let Decision {
                outcome,
                mutation,
                observed,
                spent,
            } = table.partition.decide(command, now);
            let Some(mutation) = mutation else {
                let document = if returning && matches!(outcome, core::Outcome::Unchanged { .. }) {
                    seen(table)
                } else {
                    None
                };
                return Done {
                    outcome,
                    sequence: observed,
                    expires_at: None,
                    document,
                    spent: [spent, None, None],
                };
            };
            let removed = match &outcome {
                core::Outcome::Deleted { .. } if returning => {
                    let entry = table.partition.get(key, place.hash, now);
                    if let Some(entry) = entry.filter(|entry| !shows.allows(*entry)) {
                        return Done {
                            outcome: core::Outcome::Retry,
                            sequence: entry.sequence(),
                            expires_at: None,
                            document: None,
                            spent: [spent, None, None],
                        };
                    }
                    seen(table)
                }
                _ => None,
            };
            let (applied, sequence) = self.commit(lane, place.partition, table, mutation, now);
            table.uneven |= compresses;
            let document = match &outcome {
                core::Outcome::Deleted { .. } => removed,
                _ if returning => seen(table),
                _ => None,
            };
            let expires_at = applied.expires_at;
            let [old, packed] = applied.spent;
            Done {
                outcome,
                sequence,
                expires_at,
                document,
                spent: [spent, old, packed],
            }
        });
        self.feed.settle();
        if compresses {
            self.compressor.note();
        }
        if let Some(due) = done.expires_at {
            self.homes[self.partitions.home_of(place.partition)].timer_set(due);
        }
        done
    }

    /// Numbers, logs and applies a mutation, under its partition's lock.
    pub(super) fn commit(
        &self,
        lane: usize,
        partition: usize,
        table: &mut Table,
        mutation: Mutation,
        now: u64,
    ) -> (Applied, Sequence) {
        // Only for a key that is removed and stored coded.
        let mut buffer = String::new();
        let telling = self.feed.begin();
        let ticket = self.sequencer.next();
        let sequence = ticket.sequence;
        if let Some(telling) = telling {
            let logged = table.partition.logged(&mutation, &mut buffer);
            telling.tell(sequence, &logged, now);
        }
        self.checkpointer.note_change();
        if table.epoch != ticket.epoch {
            // A snapshot cut the sequence since this partition was last touched: what it holds now is what it held
            // at the cut.
            self.checkpointer
                .freeze(table, ticket.epoch, Sequence::from_raw(sequence.get() - 1));
        }
        if let Some(log) = self.log_for(sequence) {
            let logged = table.partition.logged(&mutation, &mut buffer);
            let head = RecordHead {
                lsn: lsn(sequence),
                version: logged.version,
                expires_at: logged.expires_at,
                pinned: logged.pinned,
                value_crc: logged.crc,
                op: if logged.removed.is_some() {
                    wal::Op::Delete
                } else {
                    wal::Op::Put
                },
                cause: match logged.removed {
                    Some(Cause::Evicted) => wal::Cause::Evicted,
                    Some(Cause::Client) | None => wal::Cause::Client,
                },
                media_type: logged.media_type,
                key: logged.key,
            };
            let value = match logged.shared_value {
                Some(value) => wal::Value::Shared(value.clone()),
                None => wal::Value::Inline(logged.value),
            };
            log.append(lane, &head, value);
        }
        let hash = mutation.hash();
        let applied = table.partition.apply(mutation, sequence);
        if table.schedule(applied.slot, applied.expires_at, now) {
            self.partitions.publish_due(partition, table);
        }
        table.rank(&applied, hash, now);
        self.meter.account(table, false);
        (applied, sequence)
    }

    /// The answer, made after the lock; what was replaced is released here.
    fn answer(&self, done: Done) -> (Outcome, Sequence) {
        let Done {
            outcome,
            sequence,
            expires_at,
            document,
            spent,
        } = done;
        drop(spent);
        let document = document.map(Seen::decode);
        let outcome = match outcome {
            core::Outcome::Created { version } => Outcome::Created(Stored {
                version,
                sequence,
                expires_at,
                document,
            }),
            core::Outcome::Changed { version } => Outcome::Changed(Stored {
                version,
                sequence,
                expires_at,
                document,
            }),
            core::Outcome::Deleted { version } => Outcome::Deleted(Stored {
                version,
                sequence,
                expires_at,
                document,
            }),
            core::Outcome::Unchanged {
                version,
                sequence,
                expires_at,
            } => Outcome::Unchanged(Stored {
                version,
                sequence,
                expires_at,
                document,
            }),
            core::Outcome::Missing => Outcome::Missing,
            core::Outcome::Conflict { failed, current } => Outcome::Conflict { failed, current },
            core::Outcome::PatchFailed(error) => Outcome::PatchFailed(error),
            core::Outcome::Retry => {
                unreachable!("`put`, `patch` and `delete` answer a retry themselves")
            }
        };
        (outcome, sequence)
    }
}

impl Shows {
    /// Under the partition's lock.
    fn allows(self, entry: EntryView<'_>) -> bool {
        match self {
            Self::UpTo(bytes_max) => {
                let stored = entry.stored();
                entry.coding().is_none()
                    && stored.len() <= bytes_max
                    && crc32fast::hash(stored) == entry.crc()
            }
            Self::Verified(sequence) => entry.sequence() == sequence,
            // What is coded has to decode, whatever its checksum.
            Self::Unverified => entry.coding().is_none(),
        }
    }
}

impl Table {
    /// Sets or clears the timer of `slot`; says whether the wheel changed.
    pub(crate) fn schedule(&mut self, slot: Slot, expires_at: Option<u64>, now: u64) -> bool {
        match expires_at {
            Some(due) => {
                self.wheel.set(slot.get(), due, now);
                true
            }
            None => !self.wheel.is_empty() && self.wheel.clear(slot.get()),
        }
    }
}
