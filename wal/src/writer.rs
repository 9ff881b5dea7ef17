//! The one writer: takes what the lanes hold, puts it in order, writes the gapless part as frames, syncs, tells.
//!
//! It is a state machine. Everything it does happens inside [`Writer::round`], on the caller's clock: a thread drives
//! it in production, tests and simulations drive it by hand.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::error::ShutdownError;
use crate::format::{FrameHeader, HEADER_LEN, Lsn, PLAIN, SegmentHeader, StoreId};
use crate::frames::{Assembly, Order};
use crate::lanes::Batch;
use crate::options::{Options, SyncMode};
use crate::segment::{Active, Prepared, discard};
use crate::status::Counters;
use crate::storage::{Storage, is_out_of_space, is_passing};
use crate::wal::{Shared, Start};

/// A frame is closed when it has this many bytes of records: beyond that a header costs nothing, while a reader needs the memory.
const FRAME_BYTES: usize = 1 << 20;
/// How long after a refusal for lack of room the next attempt comes.
const RETRY_MS: u64 = 1000;

/// What a round did, and when the next is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// Records written.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether everything written is on stable storage now, by a sync of this round.
    pub synced: bool,
    /// When to call again.
    pub rest: Rest,
}

/// When to call [`Writer::round`] again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// At once: more may have come meanwhile.
    Again,
    /// At that time; sooner if a lane is full or something was asked for.
    Gather {
        /// On the clock that `round` was called with.
        until_ms: u64,
    },
    /// When a record is appended or something is asked for, and at that time if there is one.
    Idle {
        /// On the clock that `round` was called with.
        until_ms: Option<u64>,
    },
    /// Never: the log was ended in good order.
    Finished,
    /// Never: the log is closed after a failure.
    Closed,
}

/// Why a step could not be done.
enum Trouble {
    /// No room: wait, and try again on a fresh segment.
    Space,
    /// The system is short of something else for the moment: wait. Admission goes on until the queue is full.
    Passing,
    /// The log ends here.
    Fatal(String),
}

impl Trouble {
    fn fatal(what: &str, number: u64, error: &io::Error) -> Trouble {
        Trouble::Fatal(format!("{what} segment {number} failed: {error}"))
    }

    /// For steps that leave nothing behind when they fail.
    fn of_new_file(number: u64, error: &io::Error) -> Trouble {
        if is_out_of_space(error) {
            Trouble::Space
        } else if is_passing(error) {
            Trouble::Passing
        } else {
            Trouble::fatal("making", number, error)
        }
    }
}

/// The writer of one log.
pub struct Writer {
    shared: Arc<Shared>,
    storage: Arc<dyn Storage>,
    options: Options,
    store_id: StoreId,
    floor: Lsn,
    active: Option<Active>,
    /// Room for the segment after the active one.
    prepared: Option<Prepared>,
    /// Number of the next segment.
    next_number: u64,
    /// Last record written, or that of the log before.
    follows: Lsn,
    /// The next record to write.
    next_lsn: Lsn,
    /// What was taken from the lanes; the last one has what was left over by the round before.
    taken: Vec<Batch>,
    order: Order,
    assembly: Assembly,
    frame_bytes: usize,
    /// When the oldest unsynced write was done.
    unsynced_since: Option<u64>,
    /// No attempt at a new segment before this.
    retry_at: Option<u64>,
    /// There was no room the last time.
    is_disk_full: bool,
    /// Somebody asked for a new segment.
    is_roll_wanted: bool,
    now_ms: u64,
    is_finished: bool,
}

impl Writer {
    /// Makes the first segment of this run.
    pub(crate) fn new(
        shared: Arc<Shared>,
        storage: Arc<dyn Storage>,
        options: Options,
        start: &Start,
    ) -> io::Result<Writer> {
        let lanes = shared.lanes.count();
        let payload_room = (options.segment_bytes as usize).saturating_sub(HEADER_LEN) / 2;
        let mut writer = Writer {
            shared,
            storage,
            store_id: start.store_id,
            floor: start.floor.max(start.follows),
            active: None,
            prepared: None,
            next_number: start.segment,
            follows: start.follows,
            next_lsn: start.next_lsn,
            taken: (0..=lanes).map(|_| Batch::default()).collect(),
            order: Order::default(),
            assembly: Assembly::default(),
            frame_bytes: FRAME_BYTES.min(payload_room),
            unsynced_since: None,
            retry_at: None,
            is_disk_full: false,
            is_roll_wanted: false,
            now_ms: start.now_ms,
            is_finished: false,
            options,
        };
        let prepared = Prepared::new(&*writer.storage, writer.options.segment_bytes)?;
        let header = writer.next_header();
        let active =
            Active::begin(&*writer.storage, prepared, header).map_err(|failed| failed.error)?;
        writer.adopt(active);
        Ok(writer)
    }

    /// Does everything there is to do at `now_ms`: writes, syncs, rotates, reserves, tells.
    pub fn round(&mut self, now_ms: u64) -> Round {
        let mut round = Round {
            records: 0,
            bytes: 0,
            synced: false,
            rest: Rest::Closed,
        };
        // A clock that goes back must not put a sync off.
        self.now_ms = self.now_ms.max(now_ms);
        if self.is_finished {
            round.rest = Rest::Finished;
        } else if !self.shared.progress.is_closed() {
            match self.work(&mut round) {
                Ok(()) => round.rest = self.rest(&round),
                Err(reason) => self.shared.progress.close(&reason),
            }
        }
        round
    }

    /// Writes and syncs everything, seals the segment, and ends the log in good order.
    pub fn finish(&mut self, now_ms: u64) -> Result<(), ShutdownError> {
        // Twice, because a round that was held up by a lack of room does not look into the lanes.
        for _ in 0..2 {
            self.retry_at = None;
            self.round(now_ms);
        }
        let progress = Arc::clone(&self.shared);
        let progress = &progress.progress;
        if self.is_finished {
            return Ok(());
        }
        if !progress.is_closed() {
            let taken = self.taken.iter().map(Batch::len).sum::<usize>();
            let waiting = taken - self.order.written();
            let reason = if self.order.has_ready() {
                ShutdownError::DiskFull { waiting }
            } else if waiting > 0 {
                ShutdownError::Missing {
                    missing: self.next_lsn,
                    waiting,
                }
            } else {
                match self.end() {
                    Ok(()) => {
                        self.is_finished = true;
                        progress.close("it was shut down");
                        return Ok(());
                    }
                    Err(reason) => ShutdownError::Closed {
                        reason: reason.into(),
                    },
                }
            };
            progress.close(&reason.to_string());
            return Err(reason);
        }
        Err(ShutdownError::Closed {
            reason: progress.reason(),
        })
    }

    fn work(&mut self, round: &mut Round) -> Result<(), String> {
        if !self.order.has_ready() {
            // Before anything is taken, so that what was appended after the request is in the new segment.
            self.roll_if_due()?;
            self.take_lanes()?;
        }
        self.write_ready(round)?;
        if self.is_sync_due() {
            self.sync()?;
            round.synced = true;
        }
        self.reserve_if_due()?;
        let may_write = self.active.is_some() && !self.order.has_ready();
        if may_write && !self.wants_room() {
            self.is_disk_full = false;
        }
        self.shared.progress.set_disk_full(self.is_disk_full);
        self.shared
            .catalogue
            .set_active(self.active.as_ref().map(Active::info));
        Ok(())
    }

    /// Swaps all buffers out and finds the gapless prefix. What comes after a number that is still missing stays for the next round.
    fn take_lanes(&mut self) -> Result<(), String> {
        if let Some((_, batches)) = self.taken.split_last_mut() {
            for (lane, batch) in batches.iter_mut().enumerate() {
                self.shared.lanes.take(lane, batch);
            }
        }
        self.order.arrange(&self.taken, self.next_lsn)
    }

    /// Writes the gapless prefix, frame by frame. Returns without having written all of it if there is no room.
    fn write_ready(&mut self, round: &mut Round) -> Result<(), String> {
        while self.order.has_ready() {
            let count = self
                .assembly
                .gather(&self.taken, self.order.rest(), self.frame_bytes);
            if !self.has_room_for(self.assembly.stride()) && !self.turn()? {
                return Ok(());
            }
            let Some(active) = &mut self.active else {
                return Ok(());
            };
            let header = FrameHeader {
                segment: active.number(),
                first_lsn: self.next_lsn,
                durable_lsn: self.shared.progress.high_watermark(),
                written_at_ms: self.now_ms,
                count: count as u32,
                len: self.assembly.payload_len() as u32,
                codec: PLAIN,
            };
            let last_lsn = header.last_lsn();
            self.assembly.set_header(&header.encode(&self.store_id));
            if let Err(error) = self.assembly.write(&self.taken, active) {
                return self.write_failed(&error);
            }
            active.advance(self.assembly.stride(), last_lsn);
            let payload = self.assembly.payload_len() as u64;
            self.follows = last_lsn;
            self.next_lsn = last_lsn.next();
            self.unsynced_since.get_or_insert(self.now_ms);
            round.records += count as u64;
            round.bytes += payload;
            self.order.advance(count);
            self.shared.lanes.written(payload);
            self.shared.progress.set_written(last_lsn);
            Counters::add(&self.shared.counters.frames, 1);
            Counters::add(&self.shared.counters.written_bytes, self.assembly.stride());
        }
        self.assembly.trim();
        self.order.keep_rest(&mut self.taken);
        Ok(())
    }

    fn has_room_for(&self, stride: u64) -> bool {
        self.active.as_ref().is_some_and(|active| {
            !active.has_frames() || active.offset() + stride <= self.options.segment_bytes
        })
    }

    /// A write to the active segment failed. For lack of room the segment ends at its last whole frame, and the
    /// records that were to be written wait for the next one.
    fn write_failed(&mut self, error: &io::Error) -> Result<(), String> {
        let Some(mut active) = self.active.take() else {
            return Ok(());
        };
        let number = active.number();
        if !is_out_of_space(error) {
            return Err(format!("writing segment {number} failed: {error}"));
        }
        // An empty one goes, or each attempt on a full disk would leave one behind; the only one there is stays.
        let result = match active.has_frames() {
            true => Ok(false),
            false => self.shared.catalogue.remove_active(&*self.storage, number),
        };
        let result = result.and_then(|is_removed| {
            if is_removed {
                self.next_number = number;
                return Ok(());
            }
            self.seal(&mut active)
        });
        result.map_err(|error| format!("cutting segment {number} failed: {error}"))?;
        self.shared.catalogue.set_active(None);
        self.wait_for(&Trouble::Space);
        Ok(())
    }

    /// Seals the active segment, if any, and begins the next. `false` if that has to wait.
    fn turn(&mut self) -> Result<bool, String> {
        // The order is what recovery relies on: the old segment is complete and durable before the new one exists.
        if let Some(mut active) = self.active.take() {
            let number = active.number();
            self.seal(&mut active)
                .map_err(|error| format!("sealing segment {number} failed: {error}"))?;
            Counters::add(&self.shared.counters.rotations, 1);
        }
        match self.begin() {
            Ok(()) => Ok(true),
            Err(Trouble::Fatal(reason)) => Err(reason),
            Err(trouble) => {
                self.wait_for(&trouble);
                Ok(false)
            }
        }
    }

    fn begin(&mut self) -> Result<(), Trouble> {
        if !self.may_try() {
            return Err(Trouble::Passing);
        }
        let number = self.next_number;
        let prepared = match self.prepared.take() {
            Some(prepared) => prepared,
            None => Prepared::new(&*self.storage, self.options.segment_bytes)
                .map_err(|error| Trouble::of_new_file(number, &error))?,
        };
        match Active::begin(&*self.storage, prepared, self.next_header()) {
            Ok(active) => {
                self.adopt(active);
                Ok(())
            }
            Err(failed) if failed.is_named => Err(Trouble::fatal("naming", number, &failed.error)),
            Err(failed) => {
                let _ = discard(&*self.storage);
                Err(Trouble::of_new_file(number, &failed.error))
            }
        }
    }

    fn adopt(&mut self, active: Active) {
        self.retry_at = None;
        self.next_number = active.number() + 1;
        Counters::add(&self.shared.counters.written_bytes, active.offset());
        self.shared.catalogue.set_active(Some(active.info()));
        self.active = Some(active);
    }

    fn next_header(&self) -> SegmentHeader {
        SegmentHeader {
            store_id: self.store_id,
            number: self.next_number,
            first_lsn: self.next_lsn,
            follows: self.follows,
            floor: self.floor.max(self.follows),
            created_at_ms: self.now_ms,
            codec: PLAIN,
        }
    }

    /// Cuts and syncs a segment, and with that makes everything written durable.
    fn seal(&mut self, active: &mut Active) -> io::Result<()> {
        let began = Instant::now();
        active.seal()?;
        self.shared.counters.synced(began.elapsed());
        self.shared.catalogue.seal(active.info());
        self.all_is_durable();
        Ok(())
    }

    fn is_sync_due(&self) -> bool {
        let Some(since) = self.unsynced_since else {
            return false;
        };
        self.shared.progress.is_sync_wanted()
            || match self.options.sync {
                SyncMode::Always => true,
                SyncMode::Interval(interval) => {
                    u128::from(self.now_ms - since) >= interval.as_millis()
                }
                SyncMode::Os => false,
            }
    }

    fn sync(&mut self) -> Result<(), String> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let began = Instant::now();
        active
            .sync()
            .map_err(|error| format!("syncing segment {} failed: {error}", active.number()))?;
        self.shared.counters.synced(began.elapsed());
        self.all_is_durable();
        Ok(())
    }

    fn all_is_durable(&mut self) {
        self.unsynced_since = None;
        self.shared
            .progress
            .set_high_watermark(self.next_lsn.previous());
    }

    fn roll_if_due(&mut self) -> Result<(), String> {
        self.is_roll_wanted |= self.shared.progress.take_roll();
        let Some(active) = &self.active else {
            return Ok(());
        };
        if !active.has_frames() {
            self.is_roll_wanted = false;
            return Ok(());
        }
        let age = u128::from(self.now_ms.saturating_sub(active.created_at_ms()));
        let is_old = age >= self.options.segment_age.as_millis();
        if (self.is_roll_wanted || is_old) && self.may_try() {
            self.is_roll_wanted = false;
            self.turn()?;
        }
        Ok(())
    }

    /// Reserves the next segment when the active one is half full: a full disk then shows while there is still room for
    /// everything that was admitted.
    fn reserve_if_due(&mut self) -> Result<(), String> {
        if !self.wants_room() || !self.may_try() {
            return Ok(());
        }
        let trouble = if self.active.is_none() {
            // A turn that had to wait: nothing else will begin the segment while nothing is written.
            match self.begin() {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            }
        } else {
            match Prepared::new(&*self.storage, self.options.segment_bytes) {
                Ok(prepared) => {
                    self.prepared = Some(prepared);
                    self.retry_at = None;
                    return Ok(());
                }
                Err(error) => Trouble::of_new_file(self.next_number, &error),
            }
        };
        if let Trouble::Fatal(reason) = trouble {
            return Err(reason);
        }
        self.wait_for(&trouble);
        Ok(())
    }

    fn wants_room(&self) -> bool {
        self.prepared.is_none()
            && self
                .active
                .as_ref()
                .is_none_or(|active| active.offset() >= self.options.segment_bytes / 2)
    }

    fn may_try(&self) -> bool {
        self.retry_at.is_none_or(|at| self.now_ms >= at)
    }

    fn wait_for(&mut self, trouble: &Trouble) {
        if self.may_try() {
            self.retry_at = Some(self.now_ms.saturating_add(RETRY_MS));
        }
        if matches!(trouble, Trouble::Space) {
            self.is_disk_full = true;
        }
    }

    fn rest(&self, round: &Round) -> Rest {
        let gather_ms = self.options.gather.as_millis() as u64;
        if self.order.has_ready() {
            // More records change nothing now, so they need not wake anybody.
            return Rest::Gather {
                until_ms: self.retry_at.unwrap_or(self.now_ms),
            };
        }
        if round.records > 0 {
            return match self.options.sync {
                SyncMode::Interval(_) | SyncMode::Os if gather_ms > 0 => Rest::Gather {
                    until_ms: self.now_ms + gather_ms,
                },
                _ => Rest::Again,
            };
        }
        let sync_at = match (self.options.sync, self.unsynced_since) {
            (SyncMode::Interval(interval), Some(since)) => {
                Some(since.saturating_add(interval.as_millis() as u64))
            }
            _ => None,
        };
        let retry_at = self.retry_at.filter(|_| self.wants_room());
        Rest::Idle {
            until_ms: [sync_at, retry_at].into_iter().flatten().min(),
        }
    }

    /// Leaves the log so that any later change to its bytes is noticed: a last frame says that all before it is durable.
    fn end(&mut self) -> Result<(), String> {
        self.sync()?;
        if let Some(mut active) = self.active.take() {
            let number = active.number();
            if active.has_frames() {
                let mark = FrameHeader {
                    segment: number,
                    first_lsn: self.next_lsn,
                    durable_lsn: self.next_lsn.previous(),
                    written_at_ms: self.now_ms,
                    count: 0,
                    len: 0,
                    codec: PLAIN,
                };
                match active.write(0, &[io::IoSlice::new(&mark.encode(&self.store_id))]) {
                    Ok(()) => active.advance(mark.stride(), self.follows),
                    // It is a service, not a record: no room for it is no loss.
                    Err(error) if is_out_of_space(&error) => {}
                    Err(error) => return Err(format!("writing segment {number} failed: {error}")),
                }
            }
            self.seal(&mut active)
                .map_err(|error| format!("sealing segment {number} failed: {error}"))?;
        }
        self.prepared = None;
        discard(&*self.storage).map_err(|error| format!("tidying up failed: {error}"))
    }
}
