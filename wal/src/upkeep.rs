//! What is done about sealed segments while nobody waits for it: rewriting, and letting go of those whose time is over.
//!
//! One step at a time on the caller's clock: a thread of its own in production, by hand in simulations.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::codec::{Codecs, SegmentCodec};
use crate::error::UpkeepError;
use crate::rewrite::{Rewrite, Rewritten};
use crate::status::Counters;
use crate::storage::Storage;
use crate::wal::{Shared, wall_clock_ms};

/// After a failed attempt the next one is made this much later.
const RETRY_MS: u64 = 60_000;
/// The thread rests as long as it has worked, but no longer than this at a time.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What a step of the upkeep did, and when the next is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// Something: there may be more.
    Again,
    /// Nothing: there is nothing to do until a segment is sealed or retired, or until that time.
    Idle {
        /// On the clock that the step was called with.
        until_ms: Option<u64>,
    },
}

/// Does the upkeep of one log.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub(crate) shared: Arc<Shared>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) codecs: Codecs,
    /// What sealed segments are rewritten with.
    pub(crate) compress: Option<Arc<dyn SegmentCodec>>,
}

impl Keeper {
    /// Removes what was retired and kept long enough, or rewrites one sealed segment. `pause` is called after each piece of
    /// work with the time it took, and says whether to give up.
    pub(crate) fn step(
        &self,
        now_ms: u64,
        pause: &dyn Fn(Duration) -> bool,
    ) -> Result<Upkeep, UpkeepError> {
        let catalogue = &self.shared.catalogue;
        let counters = &self.shared.counters;
        let retry_at = now_ms.saturating_add(RETRY_MS);
        let retired = catalogue
            .retire_due(&*self.storage, now_ms)
            .inspect_err(|_| catalogue.retry_after(retry_at))?;
        if retired.segments > 0 {
            Counters::add(&counters.retired, retired.segments);
            return Ok(Upkeep::Again);
        }
        let next = self
            .compress
            .as_ref()
            .zip(catalogue.next_to_rewrite(now_ms));
        let Some((codec, info)) = next else {
            return Ok(Upkeep::Idle {
                until_ms: catalogue.upkeep_due(now_ms, self.compress.is_some()),
            });
        };
        let rewrite = Rewrite {
            storage: &*self.storage,
            catalogue,
            codecs: &self.codecs,
            codec,
            pause,
        };
        match rewrite.run(&info) {
            Ok(Rewritten::Smaller { before, after }) => {
                Counters::add(&counters.rewritten, 1);
                let saved = before.saturating_sub(after);
                counters.rewritten_saved.fetch_add(saved, Ordering::Relaxed);
            }
            Ok(Rewritten::NotWorth) => catalogue.leave_as_it_is(info.number),
            Ok(Rewritten::Dropped) => {}
            Err(error) => {
                if error.is_damage() {
                    // What is damaged stays as evidence until it is retired.
                    catalogue.leave_as_it_is(info.number);
                } else {
                    catalogue.retry_after(retry_at);
                }
                return Err(error.into());
            }
        }
        Ok(Upkeep::Again)
    }

    /// The thread's work, until the log ends.
    pub(crate) fn run(&self, failed: &dyn Fn(&UpkeepError)) {
        let catalogue = &self.shared.catalogue;
        // Half of one core at most: whoever serves requests comes first.
        let pause = |took: Duration| {
            thread::sleep(took.min(PAUSE_MAX));
            catalogue.is_stopping()
        };
        while !catalogue.is_stopping() {
            let now_ms = wall_clock_ms();
            let until_ms = match self.step(now_ms, &pause) {
                Ok(Upkeep::Again) => continue,
                Ok(Upkeep::Idle { until_ms }) => until_ms,
                Err(error) => {
                    failed(&error);
                    continue;
                }
            };
            let limit = until_ms.map(|at| Duration::from_millis(at.saturating_sub(now_ms).max(1)));
            catalogue.wait_for_news(limit);
        }
    }
}
