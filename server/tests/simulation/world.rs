//! One history, run: the store on the disk of a machine, its clients, its background work by hand, and what must hold
//! after every step.
//!
//! What must hold: every answer is the model's; a change that was said to be durable is there after every crash; what
//! is there after a crash is the state after one change, whole, and nothing else; a number is never given out twice; an
//! answer that waits for stable storage waits for everything that it shows; an expired key is not seen; the store says
//! that it is ready when it is and only then; what was asked for ends.

use super::backups::Saved;
use super::disk::Disk;
use super::faults::Survival;
use super::following::Followed;
use super::history::{End, History, How, Setup, SnapshotKind, Step, Sync};
use super::model::Model;
use super::tally::{Tally, Wrong, wrong};
use inflightkv_server::engine::{
    self as engine, CheckpointError, Durable, Engine, Lane, ManualClock, Readiness, Sequence, drive,
};
use std::sync::Arc;

const START_MS: u64 = 1_700_000_000_000;
/// Rounds after which work that has to end is taken for stuck. A snapshot here has a few dozen steps.
pub(crate) const ROUNDS_MAX: u32 = 5_000;

/// The machine, what runs on it, and what it has to be.
pub(crate) struct World {
    pub(crate) disk: Disk,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) model: Model,
    pub(crate) run: Option<Run>,
    /// What comes when the machine stops at a call.
    pub(crate) armed: Option<End>,
    /// The last change that was handed to the system: a killed process does not take it along.
    pub(crate) handed: u64,
    /// Where the run before had come. A snapshot of a store that nobody wrote to is cut above the last change.
    pub(crate) reached: u64,
    /// The last change that can be on disk, while persistence is off.
    pub(crate) off_at: Option<u64>,
    /// It was to be turned on since and could not be.
    pub(crate) off_in_vain: bool,
    pub(crate) backups: Vec<Saved>,
    pub(crate) followed: Option<Followed>,
    pub(crate) tally: Tally,
}

/// The store from one start to its end.
pub(crate) struct Run {
    pub(crate) engine: Engine,
    pub(crate) driver: drive::Driver,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) sync: Sync,
    /// Changes that answers wait for.
    pub(crate) held: Vec<Sequence>,
    /// A backup on its way, and what came of it so far.
    pub(crate) backup: Option<(engine::Backup, Vec<u8>)>,
    /// Persistence on its way on, or off.
    pub(crate) switching: Option<(bool, engine::Switching)>,
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
            off_at: None,
            off_in_vain: false,
            backups: Vec::new(),
            followed: None,
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
            compress: false,
            keep_ms: 0,
        };
        let end = End {
            how: How::PowerCut(*last),
            away: 1,
            trouble: None,
            next,
        };
        self.stop(&end)
    }

    pub(crate) fn now(&self) -> u64 {
        engine::Clock::now(&*self.clock)
    }

    pub(crate) fn run(&self) -> &Run {
        self.run.as_ref().expect("a run follows every end")
    }

    pub(crate) fn run_mut(&mut self) -> &mut Run {
        self.run.as_mut().expect("a run follows every end")
    }

    pub(crate) fn lane(&self, lane: u8) -> &Lane {
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
            Step::KeepLog(steps) => {
                for _ in 0..*steps {
                    if !self.keep_log()? {
                        break;
                    }
                }
            }
            Step::Backup => self.begin_backup()?,
            Step::Restore(restore) => self.restore(restore)?,
            Step::Store(coding) => {
                let set = self.run().engine.set_compression((*coding).into());
                set.map_err(|error| wrong("another form of storing", "set", error))?;
            }
            Step::Compress => {
                let driver = &self.run().driver;
                let recoded = driver.compress();
                driver.check_accounts().map_err(|what| {
                    wrong("what is counted of packed values", "what is there", what)
                })?;
                self.tally.recoded += u64::from(recoded);
            }
            Step::Switch { on } => self.begin_switch(*on)?,
            Step::Follow(frames) => self.follow(*frames)?,
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
        self.read_backup()?;
        self.go_on_switching()?;
        if self.disk.is_dead()
            && let Some(end) = self.armed.take()
        {
            return self.stop(&end);
        }
        Ok(())
    }

    /// What the store says of itself is true, and what it says is durable has to stay.
    pub(crate) fn look(&mut self) -> Result<(), Wrong> {
        let run = self.run.as_mut().expect("a run follows every end");
        let lane = &run.lanes[0];
        // Behind a log that takes no more nothing is waited for, and nothing is durable; nor is it in one that is begun.
        let most = match (&run.switching, self.off_at) {
            (Some((true, _)), _) => 0,
            (_, off_at) => off_at.unwrap_or(u64::MAX),
        };
        let durable = self
            .model
            .unacknowledged()
            .filter(|sequence| *sequence <= most)
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
    pub(crate) fn write_log(&mut self) -> bool {
        let more = self.run_mut().driver.write_log();
        let sound = self.disk.delivered().log_is_whole() && !self.disk.is_dead();
        if sound && self.is_persistent() && self.run().engine.readiness() == Readiness::Ready {
            self.handed = self.model.last();
        }
        more
    }

    pub(crate) fn ask_for_snapshot(&mut self, kind: SnapshotKind) -> Result<Option<u64>, Wrong> {
        let engine = &self.run().engine;
        let asked = engine.request_snapshot(kind.into());
        match (asked, engine.readiness()) {
            (Ok(id), Readiness::Ready | Readiness::DiskFull) => Ok(Some(id)),
            (Err(_), Readiness::ReadOnly { .. }) => Ok(None),
            (Err(CheckpointError::PersistenceOff), _) if !self.is_persistent() => Ok(None),
            (asked, readiness) => Err(wrong(
                "whether a snapshot is taken on",
                format!("as the readiness says: {readiness:?}"),
                asked,
            )),
        }
    }

    pub(crate) fn snapshot(&mut self, kind: SnapshotKind) -> Result<(), Wrong> {
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
                Some(Err(_)) if self.disk.delivered().any() || !self.is_persistent() => {
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

    pub(crate) fn snapshot_taken(&mut self, report: &engine::SnapshotReport) -> Result<(), Wrong> {
        self.look()?;
        if self.is_persistent() && report.cut.min(self.model.last()) > self.model.acknowledged {
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
    pub(crate) fn settle(&mut self) -> Result<(), Wrong> {
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
        if self.disk.is_troubled() || self.disk.delivered().wal > 0 || !self.is_persistent() {
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
    pub(crate) fn drive(&mut self) -> Result<(), Wrong> {
        let mut more = (true, true, true, true);
        for round in 0..ROUNDS_MAX {
            let log = self.write_log();
            let kept = self.keep_log()?;
            let run = self.run();
            more = (log, kept, run.driver.turn_homes(), run.driver.checkpoint());
            self.read_backup()?;
            self.go_on_switching()?;
            // On a full disk that waits for as long as anything may.
            let switches = self.run().switching.is_some() && !self.disk.is_troubled();
            if self.disk.is_dead()
                || (more == (false, false, false, false) && round > 1 && !switches)
            {
                return Ok(());
            }
        }
        Err(wrong(
            format!(
                "whether log, upkeep, homes and checkpointer have more to do after {ROUNDS_MAX} rounds"
            ),
            (false, false, false, false),
            more,
        ))
    }
}
