//! How a run ends and the next begins: kills, power cuts, recoveries that are cut short, and what has to be there after.

use super::faults::Survival;
use super::history::{End, How, Setup, Sync, Trouble};
use super::model::{DEPTH_MAX, VALUE_BYTES_MAX};
use super::tally::{Wrong, wrong};
use super::world::{Run, World};
use inflightkv_server::engine::{
    Disk as Storage, Engine, Options, Persistence, Readiness, SyncMode, WalCompression, drive,
};
use inflightkv_wal as wal;
use std::time::Duration;

impl World {
    /// Ends the run as `end` says, and begins the next.
    pub(crate) fn stop(&mut self, end: &End) -> Result<(), Wrong> {
        self.armed = None;
        let run = self.run.take().expect("a run follows every end");
        self.reached = run.engine.stats().sequence.get();
        let dead = self.disk.is_dead();
        self.tally.errors += u64::from(self.disk.delivered().total());
        let floor = match &end.how {
            How::Close if !dead => {
                self.tally.closed += 1;
                match run.driver.close() {
                    Ok(()) if run.switching.is_none() && self.off_at.is_none() => {
                        self.model.acknowledge(self.model.last());
                    }
                    Ok(()) => {}
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
        self.disconnect();
        let settling = matches!(run.switching, Some((true, _))) || self.off_in_vain;
        if let Some(off_at) = self.off_at.take_if(|_| !settling) {
            // What was changed in memory only is gone, all of it.
            self.reached = off_at;
        }
        (self.off_at, self.off_in_vain) = (None, false);
        drop((run.engine, run.lanes, run.switching));
        self.handed = floor;
        self.clock.advance(end.away.into());
        self.start(&end.next, end.trouble.as_ref())
    }

    /// What has to be there after the process is gone.
    pub(crate) fn after_kill(&mut self) -> u64 {
        // What failed to be written is not handed over, and what failed to be synced may be gone from memory as well.
        let sound = self.disk.delivered().log_is_whole();
        self.disk.kill();
        match sound {
            true => self.handed.max(self.model.acknowledged),
            false => self.model.acknowledged,
        }
    }

    pub(crate) fn after_power_cut(&mut self, survival: &Survival) -> u64 {
        self.disk.lose_power(survival);
        self.model.acknowledged
    }

    /// Begins a run: recovers, through whatever happens meanwhile, and looks at what is there.
    pub(crate) fn start(&mut self, setup: &Setup, trouble: Option<&Trouble>) -> Result<(), Wrong> {
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

    pub(crate) fn options(&self, setup: &Setup) -> Options {
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
            keep: Duration::from_millis(setup.keep_ms.into()),
            queue_bytes_max: u64::from(setup.queue_kib) << 10,
            ..wal::Options::default()
        };
        persistence.wal_compress = setup.compress.then_some(WalCompression::Lz4);
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
    pub(crate) fn began(&mut self, setup: &Setup, engine: Engine) -> Result<(), Wrong> {
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
            backup: None,
            switching: None,
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
