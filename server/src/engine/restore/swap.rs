//! The moment at which a staged backup becomes the store's content.

use super::marker::{MARKER_KEY, Marker, StagedFile};
use crate::engine::Shared;
use crate::engine::adapters::lsn;
use crate::engine::checkpoint::CheckpointError;
use crate::engine::partitions::Partitions;
use inflightkv_core::Sequence;
use inflightkv_wal::{self as wal, Op, RecordHead};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tables on their way into the store, and back out.
pub(in crate::engine) struct Swap {
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

impl Swap {
    /// `sequence` is what the staged entries carry.
    pub(super) fn new(staged: Partitions, file: Option<StagedFile>, sequence: Sequence) -> Self {
        let state = SwapState {
            staged: Some(staged),
            file,
            sequence,
            outcome: None,
        };
        Self {
            state: Mutex::new(state),
            over: AtomicBool::new(false),
        }
    }

    /// Nobody wants it any more: it does not take place, unless it is doing so.
    pub(super) fn withdraw(&self) {
        let withdrawn = self.state.lock().staged.take();
        if withdrawn.is_some() {
            self.refuse(CheckpointError::Aborted {
                reason: "whoever asked for it has left".to_owned(),
            });
        }
    }

    /// How it ended; `None` as long as it has not.
    pub(super) fn outcome(&self) -> Option<Result<Sequence, CheckpointError>> {
        let over = self.over.load(Ordering::Acquire);
        over.then(|| self.state.lock().outcome.clone())?
    }

    fn end(&self, outcome: Result<Sequence, CheckpointError>) {
        self.state.lock().outcome.get_or_insert(outcome);
        self.over.store(true, Ordering::Release);
    }

    /// It will not take place.
    pub(in crate::engine) fn refuse(&self, error: CheckpointError) {
        self.end(Err(error));
    }
}

impl Shared {
    /// Draws a number that belongs to no key, and says so to the log.
    pub(super) fn burn(&self) -> Sequence {
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
    pub(in crate::engine) fn swap_in(&self, swap: &Swap) {
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
