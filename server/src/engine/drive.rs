//! A store without threads of its own: its background work done by hand, one step at a time.
//!
//! For deterministic simulations, and for embedders who schedule everything themselves. A store is either driven or
//! has its threads started, not both.

use super::memory::Watch;
use super::{Engine, HomeTurn, RecoverError, STOPPING, checkpoint, scrub};
use inflightkv_wal::{Rest, ShutdownError, Upkeep, UpkeepError, Writer};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Recovers a store as [`Engine::recover`] does, on this thread alone: the same disk gives the same calls in the same
/// order.
///
/// # Errors
/// See [`RecoverError`].
pub fn recover(engine: &Engine) -> Result<(), RecoverError> {
    engine.recover_with(0)
}

/// The log's writer and the checkpointer of one store.
pub struct Driver {
    engine: Engine,
    writer: Option<Writer>,
    /// Which of the store's logs the writer is of.
    log: usize,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Driver {
    /// Takes the background work of a recovered store over. `None` when its threads run, or when it has a driver.
    pub fn new(engine: &Engine) -> Option<Self> {
        let writer = match engine.shared.wal.get() {
            Some(log) => Some(log.take_writer()?),
            None => None,
        };
        Some(Self {
            engine: engine.clone(),
            log: engine.shared.wal.number(),
            writer,
        })
    }

    /// One round of the log's writer: takes what was handed over, writes it, syncs it if that is due. True when another
    /// round would find work at once.
    pub fn write_log(&mut self) -> bool {
        let now = self.engine.shared.options.clock.now();
        let number = self.engine.shared.wal.number();
        if number != self.log {
            // Persistence was turned on or off.
            if let Some(mut writer) = self.writer.take()
                && let Err(error) = writer.finish(now)
            {
                tracing::debug!(%error, "the log was not completed");
            }
            self.log = number;
            self.writer = self
                .engine
                .shared
                .wal
                .get()
                .and_then(inflightkv_wal::Wal::take_writer);
        }
        self.writer
            .as_mut()
            .is_some_and(|writer| matches!(writer.round(now).rest, Rest::Again))
    }

    /// The smallest step of every lane's background work; true when any has more.
    pub fn turn_homes(&self) -> bool {
        let lanes = self.engine.shared.options.lanes;
        (0..lanes).fold(false, |more, lane| self.turn_home(lane) | more)
    }

    /// The smallest step of one lane's background work, measured by what it does and not by time; true when there is
    /// more.
    pub fn turn_home(&self, lane: usize) -> bool {
        self.engine.lane(lane).home_turn_for(Duration::ZERO) == HomeTurn::More
    }

    /// One look of the memory's monitor; true when it has something evicted.
    pub fn watch_memory(&self) -> bool {
        let shared = &self.engine.shared;
        matches!(shared.meter.turn(shared), Watch::Again(_))
    }

    /// One step of the checkpointer; true when another would find work at once.
    pub fn checkpoint(&self) -> bool {
        matches!(
            self.engine.shared.checkpointer.turn(&self.engine.shared),
            checkpoint::Turn::Again
        )
    }

    /// One step of the log's upkeep: a sealed segment rewritten, or what was kept long enough removed. True when another
    /// would find work at once.
    ///
    /// # Errors
    /// The step failed and is tried again a minute later; the store goes on.
    pub fn keep_log(&self) -> Result<bool, UpkeepError> {
        let shared = &self.engine.shared;
        match shared.wal.get() {
            Some(log) => {
                let step = log.upkeep(shared.options.clock.now())?;
                Ok(matches!(step, Upkeep::Again))
            }
            None => Ok(false),
        }
    }

    /// One pass of the compressor over everything that was written since the last; true when it changed how something is
    /// stored.
    pub fn compress(&self) -> bool {
        let shared = &self.engine.shared;
        let swept = shared.compressor.sweeper.lock().sweep(shared, |_| true);
        swept.changed
    }

    /// Reads everything back once, at the scrub's rate by the store's clock: `wait` is to let the time that it is given pass.
    /// False when the scrub is off or was stopped before its end.
    pub fn scrub(&self, wait: impl Fn(Duration) + Send + Sync + 'static) -> bool {
        scrub::pass(&self.engine.shared, wait)
    }

    /// Holds what is counted of packed values against the entries themselves. A partition that a snapshot is walking may
    /// need more of its blocks than its entries show, and is left out.
    ///
    /// # Errors
    /// What does not add up.
    pub fn check_accounts(&self) -> Result<(), String> {
        let partitions = &self.engine.shared.partitions;
        (0..partitions.count()).try_for_each(|partition| {
            partitions
                .with(partition, |table| table.check_blocks())
                .map_err(|what| format!("partition {partition}: {what}"))
        })
    }

    /// Ends the store as [`Engine::close`] does, which cannot end a log that is driven by hand.
    ///
    /// # Errors
    /// The log could not be completed.
    pub fn close(mut self) -> Result<(), ShutdownError> {
        let shared = &self.engine.shared;
        shared.stopping.store(true, Ordering::SeqCst);
        shared.phase.store(STOPPING, Ordering::Release);
        shared.checkpointer.stop();
        let now = shared.options.clock.now();
        self.writer
            .as_mut()
            .map_or(Ok(()), |writer| writer.finish(now))
    }
}
