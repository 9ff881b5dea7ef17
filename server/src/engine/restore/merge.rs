//! A backup laid over what is there, key by key.

use super::{Doing, Restore, RestoreError, RestoreStep, Restoring};
use crate::engine::write::{Change, Judged, Outcome, PutTtl, Value};
use crate::engine::{Lane, Refusal, WriteError};
use bytes::Bytes;
use inflightkv_core::{Conditions, EtagCondition, Sequence, Slot, VersionCondition};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Changes of a merge made in one step.
const MERGE_BATCH: usize = 64;

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

impl Restoring {
    /// Makes the changes of one batch.
    pub(super) fn merge(&mut self) -> Result<RestoreStep, RestoreError> {
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
            let codings = &table.codings;
            table.partition.scan(*from, MERGE_BATCH, "", now, |entry| {
                batch.push(Candidate {
                    key: codings.key_of(entry, &mut String::new()).to_owned(),
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
