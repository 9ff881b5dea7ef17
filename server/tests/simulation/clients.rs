//! What clients do, and what every answer has to be.

use super::history::{
    Condition, ConditionKind, Durability, Edit, Operation, Sync, Write, key_name,
};
use super::model::{Effect, Entry, Expected};
use super::tally::{Wrong, wrong};
use super::world::World;
use inflightkv_server::engine::{
    self as engine, BatchKind, BatchOperation, BatchResult, Change, Lane, Outcome, Readiness,
    Refusal, Reply, Scan, Sequence, WriteError,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

impl World {
    pub(crate) fn claims(&self, durability: Durability) -> bool {
        if self.off_at.is_some() {
            return false;
        }
        match durability {
            Durability::Sync => true,
            Durability::Async => false,
            Durability::Default => self.run().sync == Sync::Always,
        }
    }

    /// An answer that shows `shown` waits for it, if it is to wait at all.
    pub(crate) fn answered(
        &mut self,
        what: &str,
        wait_for: Option<Sequence>,
        shown: u64,
        durability: Durability,
    ) -> Result<(), Wrong> {
        if let Some(sequence) = wait_for {
            self.tally.held += 1;
            self.run_mut().held.push(sequence);
        }
        if self.run().switching.is_some() {
            // What comes of the log is not decided yet, and no answer says that a change is durable.
            return Ok(());
        }
        if !self.claims(durability) {
            return match wait_for {
                None => Ok(()),
                Some(sequence) => Err(wrong(
                    format!("what the answer to {what} waits for"),
                    "nothing",
                    sequence,
                )),
            };
        }
        let covered = wait_for.map_or(self.model.acknowledged, Sequence::get);
        if covered < shown {
            return Err(wrong(
                format!("the last change that is durable when {what} is answered"),
                format!("at least {shown}, which the answer shows"),
                covered,
            ));
        }
        Ok(())
    }

    pub(crate) fn refused(&mut self, what: &str, error: &WriteError) -> Result<(), Wrong> {
        let readiness = self.run().engine.readiness();
        let counter = match (error, &readiness) {
            (WriteError::Refused(Refusal::ReadOnly { .. }), Readiness::ReadOnly { .. }) => {
                &mut self.tally.refused_read_only
            }
            (WriteError::Refused(Refusal::DiskFull), Readiness::DiskFull) => {
                &mut self.tally.refused_disk_full
            }
            (WriteError::Refused(Refusal::Backlog), Readiness::Ready) => {
                &mut self.tally.refused_backlog
            }
            (WriteError::NotDurable, _) if !self.is_persistent() => {
                &mut self.tally.refused_not_durable
            }
            _ => {
                return Err(wrong(
                    format!("why {what} is refused"),
                    format!("what the readiness says: {readiness:?}"),
                    error,
                ));
            }
        };
        *counter += 1;
        Ok(())
    }

    pub(crate) fn admitted(&self, what: &str) -> Result<(), Wrong> {
        match self.run().engine.readiness() {
            Readiness::Ready => Ok(()),
            other => Err(wrong(
                format!("whether {what} is taken"),
                format!("refused, since the store says {other:?}"),
                "taken",
            )),
        }
    }

    pub(crate) fn write(&mut self, write: &Write) -> Result<(), Wrong> {
        let now = self.now();
        let what = format!("a write of {}", key_name(write.key));
        let condition = self.condition(write.key, write.condition, now);
        let (expected, effect) = self.model.decide(write.key, &condition, &write.edit, now);
        let shown = self.model.shown(write.key);
        let conditions = condition.owned();
        let answer = self.lane(write.lane).write(engine::Write {
            key: &key_name(write.key),
            conditions: conditions.borrowed(),
            change: change(&write.edit),
            durability: write.durability.into(),
            returning: false,
            pin: None,
        });
        let Reply { value, wait_for } = match answer {
            Ok(reply) => reply,
            Err(error) => return self.refused(&what, &error),
        };
        self.admitted(&what)?;
        let last = self.model.given_out;
        let sequence = self.outcome(&what, write.key, &expected, effect, &value, last)?;
        self.answered(&what, wait_for, sequence.unwrap_or(shown), write.durability)
    }

    pub(crate) fn condition(&self, key: u8, kind: ConditionKind, now: u64) -> Condition {
        let current = self.model.visible(key, now);
        Condition::of(kind, current.map(|entry| (entry.version, entry.sequence)))
    }

    /// Compares what came of a write with what had to, and applies it. Says the number of the change.
    pub(crate) fn outcome(
        &mut self,
        what: &str,
        key: u8,
        expected: &Expected,
        effect: Effect,
        outcome: &Outcome,
        last: u64,
    ) -> Result<Option<u64>, Wrong> {
        let found = match outcome {
            Outcome::Created(stored) if stored.version == 0 => Expected::Created,
            Outcome::Created(stored) | Outcome::Changed(stored) => Expected::Changed {
                version: stored.version,
            },
            Outcome::Unchanged(stored) => Expected::Unchanged {
                version: stored.version,
                sequence: stored.sequence.get(),
            },
            Outcome::Deleted(stored) => Expected::Deleted {
                version: stored.version,
            },
            Outcome::Missing => Expected::Missing,
            Outcome::Conflict { failed, current } => Expected::Conflict {
                failed: *failed,
                current: *current,
            },
            Outcome::PatchFailed(_) => Expected::PatchFailed,
        };
        if found != *expected {
            return Err(wrong(format!("what comes of {what}"), expected, outcome));
        }
        let (Outcome::Created(stored) | Outcome::Changed(stored) | Outcome::Deleted(stored)) =
            outcome
        else {
            return Ok(None);
        };
        let sequence = stored.sequence.get();
        if sequence <= last {
            return Err(wrong(
                format!("the number that {what} gets"),
                format!("one above {last}, the last one given out"),
                sequence,
            ));
        }
        if let Effect::Set(entry) = &effect
            && entry.expires_at != stored.expires_at
        {
            return Err(wrong(
                format!("when what {what} leaves expires"),
                entry.expires_at,
                stored.expires_at,
            ));
        }
        self.tally.changes += 1;
        self.model.apply(key, sequence, effect);
        Ok(Some(sequence))
    }

    pub(crate) fn batch(
        &mut self,
        lane: u8,
        operations: &[Operation],
        durability: Durability,
    ) -> Result<(), Wrong> {
        let now = self.now();
        // Conditions are made of what the client knows before it sends the batch.
        let conditions: Vec<Condition> = operations
            .iter()
            .map(|operation| self.condition(operation.key, operation.condition, now))
            .collect();
        let asked = operations.iter().zip(&conditions);
        let asked = asked
            .map(|(operation, condition)| BatchOperation {
                key: key_name(operation.key),
                kind: match operation.edit.as_ref().map(change) {
                    None => BatchKind::Get,
                    Some(Change::Put { value, ttl }) => BatchKind::Put { value, ttl },
                    Some(Change::Patch { kind, patch, ttl }) => {
                        BatchKind::Patch { kind, patch, ttl }
                    }
                    Some(Change::Delete) => BatchKind::Delete,
                },
                conditions: match operation.edit {
                    Some(_) => condition.clone().owned(),
                    None => engine::OwnedConditions::default(),
                },
                pin: None,
            })
            .collect();
        let writes = operations.iter().any(|operation| operation.edit.is_some());
        let answer = self.lane(lane).batch(asked, durability.into());
        let Reply { value, wait_for } = match answer {
            Ok(reply) => reply,
            Err(error) => return self.refused("a batch", &error),
        };
        if writes {
            self.admitted("a batch")?;
        }
        let (last, before) = (self.model.given_out, self.model.len());
        let mut shown = 0;
        for (number, ((operation, condition), result)) in
            operations.iter().zip(&conditions).zip(&value).enumerate()
        {
            let key = operation.key;
            let what = format!("operation {number} of a batch, on {}", key_name(key));
            let untouched = self.model.shown(key);
            let changed = match (&operation.edit, result) {
                (None, BatchResult::Got(document)) => {
                    self.seen(&what, key, document.as_ref(), now)?;
                    None
                }
                (Some(edit), BatchResult::Wrote(outcome)) => {
                    let (expected, effect) = self.model.decide(key, condition, edit, now);
                    self.outcome(&what, key, &expected, effect, outcome, last)?
                }
                (_, other) => {
                    return Err(wrong(
                        format!("the result of {what}"),
                        &operation.edit,
                        other,
                    ));
                }
            };
            shown = shown.max(changed.unwrap_or(untouched));
        }
        if !self.model.order_from(before) {
            return Err(wrong(
                "the numbers that a batch gets",
                "each once",
                "one of them twice",
            ));
        }
        self.answered("a batch", wait_for, shown, durability)
    }

    pub(crate) fn get(&mut self, lane: u8, key: u8) -> Result<(), Wrong> {
        let now = self.now();
        let what = format!("a read of {}", key_name(key));
        let reply = self
            .lane(lane)
            .get(&key_name(key))
            .map_err(|error| wrong(format!("the answer to {what}"), "an answer", error))?;
        self.seen(&what, key, reply.value.as_ref(), now)?;
        let shown = self.model.shown(key);
        self.answered(&what, reply.wait_for, shown, Durability::Default)
    }

    pub(crate) fn seen(
        &mut self,
        what: &str,
        key: u8,
        document: Option<&engine::Document>,
        now: u64,
    ) -> Result<(), Wrong> {
        let expected = self.model.visible(key, now);
        let found = document.map(|document| Entry {
            value: document.value.clone(),
            media_type: document.media_type.clone(),
            version: document.version,
            sequence: document.sequence.get(),
            expires_at: document.expires_at,
        });
        if found.as_ref() != expected {
            return Err(wrong(format!("what {what} finds"), expected, found));
        }
        if let Some(document) = document
            && document.crc != crc32fast::hash(&document.value)
        {
            return Err(wrong(
                format!("the checksum of what {what} finds"),
                crc32fast::hash(&document.value),
                document.crc,
            ));
        }
        if found.is_none() && self.model.is_expired(key, now) {
            self.tally.expired_hidden += 1;
        }
        Ok(())
    }

    pub(crate) fn scan(&mut self, lane: u8, slice: u8) -> Result<(), Wrong> {
        let found = self.list(lane, slice.into())?;
        self.same_as_model("a listing", &found)?;
        let wait_for = self.lane(lane).settled();
        let last = self.model.last();
        self.answered("a listing", wait_for, last, Durability::Default)
    }

    pub(crate) fn list(&self, lane: u8, slice: usize) -> Result<BTreeMap<String, Entry>, Wrong> {
        Self::listed(self.lane(lane), slice)
    }

    pub(crate) fn listed(lane: &Lane, slice: usize) -> Result<BTreeMap<String, Entry>, Wrong> {
        let mut found = BTreeMap::new();
        let mut twice = None;
        let mut from = None;
        loop {
            let scan = Scan {
                prefix: "",
                from,
                examine_max: slice,
                values: true,
            };
            let next = lane.scan(&scan, &mut |row| {
                let entry = Entry {
                    value: row.value.to_vec().into(),
                    media_type: row.media_type.map(str::to_owned),
                    version: row.version,
                    sequence: row.sequence.get(),
                    expires_at: row.expires_at,
                };
                if found.insert(row.key.to_owned(), entry).is_some() {
                    twice = Some(row.key.to_owned());
                }
                ControlFlow::Continue(())
            });
            from = next.map_err(|error| wrong("the answer to a listing", "an answer", error))?;
            if from.is_none() {
                break;
            }
        }
        match twice {
            Some(key) => Err(wrong(format!("how often a listing shows {key}"), 1, 2)),
            None => Ok(found),
        }
    }

    pub(crate) fn same_as_model(
        &self,
        what: &str,
        found: &BTreeMap<String, Entry>,
    ) -> Result<(), Wrong> {
        self.model.same(what, found, self.now())
    }
}

fn change(edit: &Edit) -> Change {
    match edit {
        Edit::Delete => Change::Delete,
        Edit::Put { document, ttl } => Change::Put {
            value: document.value(),
            ttl: ttl.of_put(),
        },
        Edit::Patch { patch, ttl } => Change::Patch {
            kind: patch.kind(),
            patch: patch.document(),
            ttl: ttl.of_patch(),
        },
    }
}
