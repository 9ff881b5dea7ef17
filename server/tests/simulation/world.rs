//! One history, run: the store on the disk of a machine, its clients, its background work by hand, and what must hold
//! after every step.
//!
//! What must hold: every answer is the model's; a change that was said to be durable is there after every crash; what
//! is there after a crash is the state after one change, whole, and nothing else; a number is never given out twice; an
//! answer that waits for stable storage waits for everything that it shows; an expired key is not seen; the store says
//! that it is ready when it is and only then; what was asked for ends.

use super::disk::Disk;
use super::faults::Survival;
use super::history::{
    Condition, Durability, Edit, End, History, How, KEYS, Operation, Setup, SnapshotKind, Step,
    Sync, Trouble, Write, key_name,
};
use super::model::{DEPTH_MAX, Effect, Entry, Expected, Model, VALUE_BYTES_MAX};
use inflightkv_server::engine::{
    self as engine, BatchKind, BatchOperation, BatchResult, Change, Disk as Storage, Durable,
    Engine, Lane, ManualClock, Options, Outcome, Persistence, Readiness, Refusal, Reply, Scan,
    Sequence, SyncMode, WriteError, drive,
};
use inflightkv_wal as wal;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

const START_MS: u64 = 1_700_000_000_000;
/// Rounds after which work that has to end is taken for stuck. A snapshot here has a few dozen steps.
const ROUNDS_MAX: u32 = 5_000;

/// What does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) what: String,
    pub(crate) expected: String,
    pub(crate) found: String,
}

fn wrong(what: impl Into<String>, expected: impl Debug, found: impl Debug) -> Wrong {
    Wrong {
        what: what.into(),
        expected: format!("{expected:?}"),
        found: format!("{found:?}"),
    }
}

/// What a history came to, for whoever wants to know that something was tried at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) kills: u64,
    pub(crate) power_cuts: u64,
    /// Of both, those in the middle of a recovery.
    pub(crate) in_recovery: u64,
    pub(crate) closed: u64,
    pub(crate) changes: u64,
    /// Changes that were said to be durable and of which it was seen after a crash that they are.
    pub(crate) kept: u64,
    /// Changes that a crash took, as it may.
    pub(crate) taken: u64,
    pub(crate) full_snapshots: u64,
    pub(crate) increments: u64,
    pub(crate) snapshots_failed: u64,
    pub(crate) segments_retired: u64,
    pub(crate) errors: u64,
    pub(crate) refused_read_only: u64,
    pub(crate) refused_disk_full: u64,
    pub(crate) refused_backlog: u64,
    pub(crate) held: u64,
    pub(crate) expired_hidden: u64,
}

impl Tally {
    pub(crate) fn crashes(&self) -> u64 {
        self.kills + self.power_cuts
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        let sums = [
            (&mut self.kills, other.kills),
            (&mut self.power_cuts, other.power_cuts),
            (&mut self.in_recovery, other.in_recovery),
            (&mut self.closed, other.closed),
            (&mut self.changes, other.changes),
            (&mut self.kept, other.kept),
            (&mut self.taken, other.taken),
            (&mut self.full_snapshots, other.full_snapshots),
            (&mut self.increments, other.increments),
            (&mut self.snapshots_failed, other.snapshots_failed),
            (&mut self.segments_retired, other.segments_retired),
            (&mut self.errors, other.errors),
            (&mut self.refused_read_only, other.refused_read_only),
            (&mut self.refused_disk_full, other.refused_disk_full),
            (&mut self.refused_backlog, other.refused_backlog),
            (&mut self.held, other.held),
            (&mut self.expired_hidden, other.expired_hidden),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
    }
}

/// The machine, what runs on it, and what it has to be.
pub(crate) struct World {
    disk: Disk,
    clock: Arc<ManualClock>,
    model: Model,
    run: Option<Run>,
    /// What comes when the machine stops at a call.
    armed: Option<End>,
    /// The last change that was handed to the system: a killed process does not take it along.
    handed: u64,
    /// Where the run before had come. A snapshot of a store that nobody wrote to is cut above the last change.
    reached: u64,
    pub(crate) tally: Tally,
}

/// The store from one start to its end.
struct Run {
    engine: Engine,
    driver: drive::Driver,
    lanes: Vec<Lane>,
    sync: Sync,
    /// Changes that answers wait for.
    held: Vec<Sequence>,
}

impl World {
    pub(crate) fn new(history: &History) -> Result<Self, Wrong> {
        let mut world = Self {
            disk: Disk::new(history.disk),
            clock: Arc::new(ManualClock::new(START_MS)),
            model: Model::default(),
            run: None,
            armed: None,
            handed: 0,
            reached: 0,
            tally: Tally::default(),
        };
        world.start(&history.first, None)?;
        Ok(world)
    }

    pub(crate) fn end(&mut self, last: &Survival) -> Result<(), Wrong> {
        // With the defaults of a small store: what is there must not depend on how it is looked at.
        let next = Setup {
            partitions_log2: 2,
            lanes: 1,
            sync: Sync::Always,
            segment_kib: 64,
            segment_age_ms: 3_600_000,
            queue_kib: 64,
            parts: 2,
            full_every: 8,
            snapshot_after_kib: 255,
            snapshot_interval_ms: 900_000,
        };
        let end = End {
            how: How::PowerCut(*last),
            away: 1,
            trouble: None,
            next,
        };
        self.stop(&end)
    }

    fn now(&self) -> u64 {
        engine::Clock::now(&*self.clock)
    }

    fn run(&self) -> &Run {
        self.run.as_ref().expect("a run follows every end")
    }

    fn run_mut(&mut self) -> &mut Run {
        self.run.as_mut().expect("a run follows every end")
    }

    fn lane(&self, lane: u8) -> &Lane {
        let lanes = &self.run().lanes;
        &lanes[usize::from(lane) % lanes.len()]
    }

    pub(crate) fn step(&mut self, step: &Step) -> Result<(), Wrong> {
        match step {
            Step::Write(write) => self.write(write)?,
            Step::Batch {
                lane,
                operations,
                durability,
            } => self.batch(*lane, operations, *durability)?,
            Step::Get { lane, key } => self.get(*lane, *key)?,
            Step::Scan { lane, slice } => self.scan(*lane, *slice)?,
            Step::WriteLog(rounds) => {
                for _ in 0..*rounds {
                    if !self.write_log() {
                        break;
                    }
                }
            }
            Step::Homes(turns) => {
                for _ in 0..*turns {
                    if !self.run().driver.turn_homes() {
                        break;
                    }
                }
            }
            Step::Home(lane) => {
                let run = self.run();
                run.driver.turn_home(usize::from(*lane) % run.lanes.len());
            }
            Step::Checkpoint(turns) => {
                for _ in 0..*turns {
                    if !self.run().driver.checkpoint() {
                        break;
                    }
                }
            }
            Step::AskForSnapshot(kind) => {
                self.ask_for_snapshot(*kind)?;
            }
            Step::Snapshot(kind) => self.snapshot(*kind)?,
            Step::Settle => self.settle()?,
            Step::Pass(ms) => self.clock.advance((*ms).into()),
            Step::Fault(fault) => self.disk.add_fault(*fault),
            Step::FillUp(left) => self.disk.fill_up((*left).into()),
            Step::MakeRoom => self.disk.make_room(),
            Step::StopAt { calls, end } => {
                if self.armed.is_none() {
                    self.disk.arm(*calls);
                    self.armed = Some(end.clone());
                }
            }
            Step::Stop(end) => return self.stop(end),
        }
        self.look()?;
        if self.disk.is_dead()
            && let Some(end) = self.armed.take()
        {
            return self.stop(&end);
        }
        Ok(())
    }

    /// What the store says of itself is true, and what it says is durable has to stay.
    fn look(&mut self) -> Result<(), Wrong> {
        let run = self.run.as_mut().expect("a run follows every end");
        let lane = &run.lanes[0];
        let durable = self
            .model
            .unacknowledged()
            .find(|sequence| lane.durable(Sequence::from_raw(*sequence)) == Durable::Yes);
        if let Some(durable) = durable {
            self.model.acknowledge(durable);
        }
        run.held
            .retain(|sequence| lane.durable(*sequence) == Durable::NotYet);
        let delivered = self.disk.delivered();
        let dead = self.disk.is_dead();
        match run.engine.readiness() {
            Readiness::Ready => Ok(()),
            Readiness::DiskFull if delivered.no_room > 0 => Ok(()),
            Readiness::ReadOnly { .. } if delivered.wal + delivered.no_room > 0 || dead => Ok(()),
            other => Err(wrong(
                "the store's readiness, with what its disk did",
                (Readiness::Ready, delivered),
                other,
            )),
        }
    }

    /// One round of the log's writer.
    fn write_log(&mut self) -> bool {
        let more = self.run_mut().driver.write_log();
        let sound = self.disk.delivered().log_is_whole() && !self.disk.is_dead();
        if sound && self.run().engine.readiness() == Readiness::Ready {
            self.handed = self.model.last();
        }
        more
    }

    fn claims(&self, durability: Durability) -> bool {
        match durability {
            Durability::Sync => true,
            Durability::Async => false,
            Durability::Default => self.run().sync == Sync::Always,
        }
    }

    /// An answer that shows `shown` waits for it, if it is to wait at all.
    fn answered(
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

    fn refused(&mut self, what: &str, error: &WriteError) -> Result<(), Wrong> {
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

    fn admitted(&self, what: &str) -> Result<(), Wrong> {
        match self.run().engine.readiness() {
            Readiness::Ready => Ok(()),
            other => Err(wrong(
                format!("whether {what} is taken"),
                format!("refused, since the store says {other:?}"),
                "taken",
            )),
        }
    }

    fn write(&mut self, write: &Write) -> Result<(), Wrong> {
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

    fn condition(&self, key: u8, kind: super::history::ConditionKind, now: u64) -> Condition {
        let current = self.model.visible(key, now);
        Condition::of(kind, current.map(|entry| (entry.version, entry.sequence)))
    }

    /// Compares what came of a write with what had to, and applies it. Says the number of the change.
    fn outcome(
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

    fn batch(
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

    fn get(&mut self, lane: u8, key: u8) -> Result<(), Wrong> {
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

    fn seen(
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

    fn scan(&mut self, lane: u8, slice: u8) -> Result<(), Wrong> {
        let found = self.list(lane, slice.into())?;
        self.same_as_model("a listing", &found)?;
        let wait_for = self.lane(lane).settled();
        let last = self.model.last();
        self.answered("a listing", wait_for, last, Durability::Default)
    }

    fn list(&self, lane: u8, slice: usize) -> Result<BTreeMap<String, Entry>, Wrong> {
        let mut found = BTreeMap::new();
        let mut twice = None;
        let mut from = None;
        loop {
            let scan = Scan {
                prefix: "",
                from,
                examine_max: slice,
            };
            let next = self.lane(lane).scan(&scan, &mut |row| {
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

    fn same_as_model(&self, what: &str, found: &BTreeMap<String, Entry>) -> Result<(), Wrong> {
        let now = self.now();
        for key in 0..KEYS {
            let name = key_name(key);
            let (expected, found) = (self.model.visible(key, now), found.get(&name));
            if expected != found {
                return Err(wrong(format!("{name} in {what}"), expected, found));
            }
        }
        let known = (0..KEYS).map(key_name).collect::<Vec<_>>();
        match found.keys().find(|key| !known.contains(key)) {
            Some(key) => Err(wrong(
                format!("a key in {what}"),
                "a key that was written",
                key,
            )),
            None => Ok(()),
        }
    }

    fn ask_for_snapshot(&mut self, kind: SnapshotKind) -> Result<Option<u64>, Wrong> {
        let engine = &self.run().engine;
        let asked = engine.request_snapshot(kind.into());
        match (asked, engine.readiness()) {
            (Ok(id), Readiness::Ready | Readiness::DiskFull) => Ok(Some(id)),
            (Err(_), Readiness::ReadOnly { .. }) => Ok(None),
            (asked, readiness) => Err(wrong(
                "whether a snapshot is taken on",
                format!("as the readiness says: {readiness:?}"),
                asked,
            )),
        }
    }

    fn snapshot(&mut self, kind: SnapshotKind) -> Result<(), Wrong> {
        let Some(id) = self.ask_for_snapshot(kind)? else {
            return Ok(());
        };
        for _ in 0..ROUNDS_MAX {
            self.write_log();
            let run = self.run();
            run.driver.turn_homes();
            run.driver.checkpoint();
            if self.disk.is_dead() {
                return Ok(());
            }
            match self.run().engine.snapshot_outcome(id) {
                None => {}
                Some(Ok(report)) => return self.snapshot_taken(&report),
                Some(Err(_)) if self.disk.delivered().any() => {
                    self.tally.snapshots_failed += 1;
                    return Ok(());
                }
                Some(Err(error)) => {
                    return Err(wrong(
                        "the end of a snapshot on a sound disk",
                        "a snapshot",
                        error,
                    ));
                }
            }
        }
        // Until the disk has room the log cannot become durable up to the cut.
        match self.run().engine.readiness() {
            Readiness::DiskFull => Ok(()),
            readiness => Err(wrong(
                format!("the end of snapshot {id}, after {ROUNDS_MAX} rounds of everything"),
                "an outcome",
                readiness,
            )),
        }
    }

    fn snapshot_taken(&mut self, report: &engine::SnapshotReport) -> Result<(), Wrong> {
        self.look()?;
        if report.cut.min(self.model.last()) > self.model.acknowledged {
            return Err(wrong(
                "what is durable when a snapshot stands",
                format!("everything up to its cut {}", report.cut),
                self.model.acknowledged,
            ));
        }
        let at_cut = self.model.at(report.cut);
        let now = self.now();
        let (visible, there) = (at_cut.all(now).count() as u64, at_cut.entries());
        if report.full {
            self.tally.full_snapshots += 1;
            if !(visible..=there).contains(&report.entries) {
                return Err(wrong(
                    "the entries of a full snapshot",
                    visible..=there,
                    report.entries,
                ));
            }
        } else {
            self.tally.increments += 1;
        }
        self.tally.segments_retired += report.segments_retired;
        Ok(())
    }

    /// Everything in the background until nothing is left; then a store on a sound disk is ready and durable.
    fn settle(&mut self) -> Result<(), Wrong> {
        // Past the next attempt after a lack of room, which may come up here and now; and what was written then, past
        // the longest interval between two syncs.
        for _ in 0..4 {
            self.clock.advance(1_001);
            self.drive()?;
            if self.disk.is_dead() {
                return Ok(());
            }
            let last = Sequence::from_raw(self.model.last());
            let run = self.run();
            let ready = run.engine.readiness() == Readiness::Ready;
            if ready && run.lanes[0].durable(last) == Durable::Yes {
                break;
            }
        }
        self.look()?;
        if self.disk.is_troubled() || self.disk.delivered().wal > 0 {
            return Ok(());
        }
        match self.run().engine.readiness() {
            Readiness::Ready => {}
            // A lack of room that a sync reported.
            Readiness::ReadOnly { .. } if self.disk.delivered().no_room > 0 => return Ok(()),
            other => {
                return Err(wrong(
                    "a store whose disk has room again",
                    Readiness::Ready,
                    other,
                ));
            }
        }
        if self.run().sync != Sync::Os && self.model.acknowledged < self.model.last() {
            return Err(wrong(
                "what is durable when the log has done everything",
                self.model.last(),
                self.model.acknowledged,
            ));
        }
        if !self.run().held.is_empty() {
            let held = &self.run().held;
            return Err(wrong(
                "answers held when the log has done everything",
                0,
                held,
            ));
        }
        Ok(())
    }

    /// Rounds of everything in the background until nobody has more to do.
    fn drive(&mut self) -> Result<(), Wrong> {
        let mut more = (true, true, true);
        for round in 0..ROUNDS_MAX {
            let log = self.write_log();
            let run = self.run();
            more = (log, run.driver.turn_homes(), run.driver.checkpoint());
            if self.disk.is_dead() || (more == (false, false, false) && round > 1) {
                return Ok(());
            }
        }
        Err(wrong(
            format!(
                "whether log, homes and checkpointer have more to do after {ROUNDS_MAX} rounds"
            ),
            (false, false, false),
            more,
        ))
    }

    /// Ends the run as `end` says, and begins the next.
    fn stop(&mut self, end: &End) -> Result<(), Wrong> {
        self.armed = None;
        let run = self.run.take().expect("a run follows every end");
        self.reached = run.engine.stats().sequence.get();
        let dead = self.disk.is_dead();
        self.tally.errors += u64::from(self.disk.delivered().total());
        let floor = match &end.how {
            How::Close if !dead => {
                self.tally.closed += 1;
                match run.driver.close() {
                    Ok(()) => self.model.acknowledge(self.model.last()),
                    Err(_) if self.disk.delivered().any() || self.disk.is_dead() => {}
                    Err(error) => {
                        return Err(wrong("closing a store on a sound disk", "closed", error));
                    }
                }
                self.after_kill()
            }
            How::Close | How::Kill => {
                self.tally.kills += 1;
                drop(run.driver);
                self.after_kill()
            }
            How::PowerCut(survival) => {
                self.tally.power_cuts += 1;
                drop(run.driver);
                self.after_power_cut(survival)
            }
        };
        drop((run.engine, run.lanes));
        self.handed = floor;
        self.clock.advance(end.away.into());
        self.start(&end.next, end.trouble.as_ref())
    }

    /// What has to be there after the process is gone.
    fn after_kill(&mut self) -> u64 {
        // What failed to be written is not handed over, and what failed to be synced may be gone from memory as well.
        let sound = self.disk.delivered().log_is_whole();
        self.disk.kill();
        match sound {
            true => self.handed.max(self.model.acknowledged),
            false => self.model.acknowledged,
        }
    }

    fn after_power_cut(&mut self, survival: &Survival) -> u64 {
        self.disk.lose_power(survival);
        self.model.acknowledged
    }

    /// Begins a run: recovers, through whatever happens meanwhile, and looks at what is there.
    fn start(&mut self, setup: &Setup, trouble: Option<&Trouble>) -> Result<(), Wrong> {
        self.disk.clear_faults();
        let mut trouble = trouble;
        loop {
            match trouble {
                None => {}
                Some(Trouble::KillAt(calls) | Trouble::PowerCutAt(calls, _)) => {
                    self.disk.arm(*calls);
                }
                Some(Trouble::Fault(fault)) => self.disk.add_fault(*fault),
            }
            let engine = Engine::open(self.options(setup))
                .map_err(|error| wrong("the options of a store", "accepted", error))?;
            let recovered = drive::recover(&engine);
            if self.disk.is_dead() {
                drop(engine);
                self.tally.in_recovery += 1;
                self.handed = match trouble {
                    Some(Trouble::PowerCutAt(_, survival)) => {
                        self.tally.power_cuts += 1;
                        self.after_power_cut(survival)
                    }
                    _ => {
                        self.tally.kills += 1;
                        self.after_kill()
                    }
                };
                self.clock.advance(1);
                trouble = None;
                continue;
            }
            self.disk.disarm();
            if let Err(error) = recovered {
                if !self.disk.delivered().any() {
                    return Err(wrong(
                        "the recovery of a store that nothing but crashes happened to",
                        "recovered",
                        error,
                    ));
                }
                self.tally.errors += u64::from(self.disk.delivered().total());
                let _ = engine.close();
                drop(engine);
                self.disk.clear_faults();
                self.handed = self.after_kill();
                self.clock.advance(1);
                trouble = None;
                continue;
            }
            self.disk.clear_faults();
            self.disk.forget_delivered();
            return self.began(setup, engine);
        }
    }

    fn options(&self, setup: &Setup) -> Options {
        let (log, snapshots) = self.disk.storage();
        let mut persistence = Persistence::on(Storage::custom(log, snapshots));
        persistence.wal = wal::Options {
            sync: match setup.sync {
                Sync::Always => SyncMode::Always,
                Sync::Interval(ms) => SyncMode::Interval(Duration::from_millis(ms.into())),
                Sync::Os => SyncMode::Os,
            },
            segment_bytes: u64::from(setup.segment_kib) << 10,
            segment_age: Duration::from_millis(setup.segment_age_ms.into()),
            queue_bytes_max: u64::from(setup.queue_kib) << 10,
            ..wal::Options::default()
        };
        persistence.snapshot_interval = Duration::from_millis(setup.snapshot_interval_ms.into());
        persistence.snapshot_after = u64::from(setup.snapshot_after_kib) << 10;
        persistence.snapshot_full_every = setup.full_every.into();
        persistence.snapshot_parts = setup.parts.into();
        Options {
            partitions: 1 << setup.partitions_log2,
            lanes: setup.lanes.into(),
            value_bytes_max: VALUE_BYTES_MAX,
            depth_max: DEPTH_MAX,
            clock: self.clock.clone(),
            persistence: Some(persistence),
            ..Options::default()
        }
    }

    /// A recovery is over: what is there is what has to be.
    fn began(&mut self, setup: &Setup, engine: Engine) -> Result<(), Wrong> {
        let driver = drive::Driver::new(&engine).expect("nobody else drives the store");
        let lanes = (0..setup.lanes.into())
            .map(|lane| engine.lane(lane))
            .collect();
        let report = engine.stats().recovery.expect("a durable store recovers");
        self.run = Some(Run {
            engine,
            driver,
            lanes,
            sync: setup.sync,
            held: Vec::new(),
        });
        let last = report.last_sequence;
        if last < self.handed {
            return Err(wrong(
                "the last change that is there after a restart",
                format!(
                    "at least {}, {}",
                    self.handed,
                    if self.handed > self.model.acknowledged {
                        "which was handed to the system"
                    } else {
                        "which was said to be durable"
                    }
                ),
                last,
            ));
        }
        if last > self.reached {
            return Err(wrong(
                "the last change that is there after a restart",
                format!("at most {}, the last one made", self.reached),
                last,
            ));
        }
        let before = self.model.len() as u64;
        self.model.rewind(last);
        self.tally.taken += before - self.model.len() as u64;
        self.tally.kept = self.model.checked;
        let found = self.list(0, 1_000)?;
        self.same_as_model(
            &format!("what is there after a restart, up to change {last}"),
            &found,
        )?;
        match self.run().engine.readiness() {
            Readiness::Ready => {}
            other => {
                return Err(wrong(
                    "the readiness after a restart",
                    Readiness::Ready,
                    other,
                ));
            }
        }
        self.look()?;
        if self.model.acknowledged < self.model.last() {
            return Err(wrong(
                "what is durable after a restart",
                format!("everything that is there, up to {}", self.model.last()),
                self.model.acknowledged,
            ));
        }
        self.handed = self.model.last();
        Ok(())
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
