//! A second store in memory that follows: loaded from a backup, then told the log's records as they become durable.
//!
//! It outlives the crashes of the store it follows. What it has is what that one had at the same change, always: where
//! a crash took what it has, the log has to say that it does not go on from there.

use super::tally::{Wrong, wrong};
use super::world::World;
use inflightkv_server::engine::{
    self as engine, Engine, Options, Sequence, StreamReader, Tail, TailStep, TakenOver, drive,
    loaded, snapshot_codecs,
};
use inflightkv_snapshot::read_backup;
use std::ops::ControlFlow;
use std::time::Duration;

pub(crate) struct Followed {
    engine: Engine,
    follower: engine::Follower,
    /// The last record that is there, or what it was loaded with.
    applied: u64,
    /// Of the run that it is connected to.
    tail: Option<Tail>,
}

impl World {
    /// So many records' frames more; begins to follow when nobody does.
    pub(crate) fn follow(&mut self, frames: u8) -> Result<(), Wrong> {
        if self.followed.is_none() && !self.begin_to_follow()? {
            return Ok(());
        }
        for _ in 0..frames {
            if !self.follow_on()? {
                break;
            }
        }
        self.same_as_followed()
    }

    /// The run is over: the connection is lost.
    pub(crate) fn disconnect(&mut self) {
        if let Some(followed) = &mut self.followed {
            followed.tail = None;
        }
    }

    fn begin_to_follow(&mut self) -> Result<bool, Wrong> {
        let Some(saved) = self.backups.iter().rev().find(|saved| saved.durable) else {
            return Ok(false);
        };
        let options = Options {
            partitions: 2,
            lanes: 1,
            clock: self.clock.clone(),
            ..Options::default()
        };
        let engine = Engine::open(options)
            .map_err(|error| wrong("the options of a store that follows", "accepted", error))?;
        let follower = engine.follow("the store");
        drive::recover(&engine)
            .map_err(|error| wrong("the start of a store that follows", "begun", error))?;
        follower.begin_load();
        let read = read_backup(
            "the backup",
            &saved.bytes[..],
            &snapshot_codecs(),
            |entry| {
                let loaded = follower.load(loaded(&entry));
                loaded.expect("there are no rules");
                ControlFlow::Continue(())
            },
        );
        let report =
            read.map_err(|error| wrong("a backup that was read before", "sound", error))?;
        follower.end_load(Sequence::from_raw(report.header.cut));
        self.followed = Some(Followed {
            engine,
            follower,
            applied: report.header.cut,
            tail: None,
        });
        Ok(true)
    }

    /// The next frame; false when there is none now.
    fn follow_on(&mut self) -> Result<bool, Wrong> {
        let Some(followed) = &mut self.followed else {
            return Ok(false);
        };
        let run = self.run.as_ref().expect("a run follows every end");
        let tail = match &mut followed.tail {
            Some(tail) => tail,
            none => match run.engine.tail_log(followed.applied + 1) {
                Ok(Some(tail)) => none.insert(tail),
                // In memory only, for now.
                Ok(None) => return Ok(false),
                Err(_) => {
                    // It does not reach back: everything is loaded anew.
                    self.tally.followers_lost += 1;
                    self.followed = None;
                    return Ok(false);
                }
            },
        };
        let mut bytes = tail.header();
        match tail.next(&mut bytes, Duration::ZERO) {
            Ok(TailStep::Records) => {}
            Ok(TailStep::Idle) => return Ok(false),
            Ok(TailStep::Ended) => {
                followed.tail = None;
                return Ok(false);
            }
            Err(engine::TailError::TooOld { .. }) => {
                self.tally.followers_lost += 1;
                self.followed = None;
                return Ok(false);
            }
            Err(_) if self.disk.delivered().any() || self.disk.is_dead() => {
                followed.tail = None;
                return Ok(false);
            }
            Err(error) => return Err(wrong("the log as a stream", "records", error)),
        }
        let broken = |error: &dyn std::fmt::Debug| wrong("the log as a stream", "a frame", error);
        let mut stream = StreamReader::begin(&bytes[..]).map_err(|error| broken(&error))?;
        let mut replaced = false;
        while let Some(frame) = stream.next_frame().map_err(|error| broken(&error))? {
            for record in frame.records() {
                replaced |= followed.follower.apply(&record) == Ok(TakenOver::Replaced);
                followed.applied = record.lsn.get();
                self.tally.followed += 1;
            }
            followed.follower.note(
                Sequence::from_raw(frame.next_lsn.previous().get()),
                Sequence::from_raw(frame.durable_lsn.get()),
            );
        }
        if replaced {
            // A backup took the place of everything: loaded anew.
            self.tally.followers_lost += 1;
            self.followed = None;
            return Ok(false);
        }
        Ok(true)
    }

    fn same_as_followed(&self) -> Result<(), Wrong> {
        let Some(followed) = &self.followed else {
            return Ok(());
        };
        if followed.tail.is_none() {
            // What it has may be what a crash took: it learns that when it is connected.
            return Ok(());
        }
        let there = World::listed(&followed.engine.lane(0), 1_000)?;
        let expected = self.model.at(followed.applied);
        let what = format!("the store that follows, at change {}", followed.applied);
        expected.same(&what, &there, self.now())
    }
}
