//! The handle that everybody holds: append, ask, wait, end.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::codec::{Codecs, SegmentCodec};
use crate::error::{OpenError, Refusal, RetireError, ShutdownError, UpkeepError, WaitError};
use crate::format::{Lsn, RecordHead, StoreId};
use crate::group_commit::{Progress, Sleep};
use crate::lanes::{Lanes, Value};
use crate::options::Options;
use crate::retention::{Catalogue, Retired, SegmentInfo};
use crate::rewrite;
use crate::status::{Counters, Status};
use crate::storage::Storage;
use crate::upkeep::{Keeper, Upkeep};
use crate::writer::{Rest, Writer};

/// Where a log goes on. [`crate::Outcome::start`] makes it after a recovery, [`Start::fresh`] for a new store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The store the log belongs to.
    pub store_id: StoreId,
    /// Number of the first segment of this run.
    pub segment: u64,
    /// The last record in the log so far.
    pub follows: Lsn,
    /// Records above `follows` up to here are in a snapshot and not in the log.
    pub floor: Lsn,
    /// Number of the next record.
    pub next_lsn: Lsn,
    /// Segments on disk, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

impl Start {
    /// The beginning of a new store: segment 1, record 1.
    #[must_use]
    pub fn fresh(store_id: StoreId, now_ms: u64) -> Start {
        Start {
            store_id,
            segment: 1,
            follows: Lsn::ZERO,
            floor: Lsn::ZERO,
            next_lsn: Lsn::new(1),
            segments: Vec::new(),
            now_ms,
        }
    }
}

/// What handle and writer share.
pub(crate) struct Shared {
    pub(crate) lanes: Lanes,
    pub(crate) progress: Progress,
    pub(crate) sleep: Sleep,
    pub(crate) catalogue: Catalogue,
    pub(crate) counters: Counters,
}

/// A write-ahead log.
pub struct Wal {
    pub(crate) shared: Arc<Shared>,
    pub(crate) keeper: Keeper,
    pub(crate) store_id: StoreId,
    queue_bytes_max: u64,
    gather_bytes: u64,
    driver: Mutex<Driver>,
    upkeep: Mutex<Option<JoinHandle<()>>>,
}

/// Who calls `round`.
enum Driver {
    Nobody(Box<Writer>),
    Thread(JoinHandle<Result<(), ShutdownError>>),
    Caller,
    Ended(Result<(), ShutdownError>),
}

impl Wal {
    /// Opens a log with `lanes` hand-over buffers and makes its first segment, which is durable when this returns. It
    /// starts no thread: [`Wal::spawn_writer`] does, or the writer is driven by hand.
    pub fn open(
        storage: Arc<dyn Storage>,
        options: Options,
        start: Start,
        lanes: usize,
    ) -> Result<Wal, OpenError> {
        options.check()?;
        if lanes == 0 {
            return Err(OpenError::Lanes { found: lanes });
        }
        let taken = start.follows.max(start.floor);
        if start.next_lsn <= taken {
            return Err(OpenError::TakenLsn {
                next_lsn: start.next_lsn,
                taken,
            });
        }
        // What a killed process left half-way. A failure shows again where it matters.
        let _ = rewrite::discard(&*storage);
        let shared = Arc::new(Shared {
            lanes: Lanes::new(lanes, options.queue_bytes_max),
            progress: Progress::new(start.next_lsn.previous(), lanes),
            sleep: Sleep::default(),
            catalogue: Catalogue::new(start.segments.clone(), options.keep),
            counters: Counters::default(),
        });
        let (queue_bytes_max, gather_bytes) = (options.queue_bytes_max, options.gather_bytes);
        let writer = Writer::new(Arc::clone(&shared), Arc::clone(&storage), options, &start)
            .map_err(|source| OpenError::Io {
                segment: start.segment,
                source,
            })?;
        Ok(Wal {
            keeper: Keeper {
                shared: Arc::clone(&shared),
                storage,
                codecs: Codecs::none(),
                compress: None,
            },
            shared,
            store_id: start.store_id,
            queue_bytes_max,
            gather_bytes,
            driver: Mutex::new(Driver::Nobody(Box::new(writer))),
            upkeep: Mutex::new(None),
        })
    }

    /// The same log, which knows `codecs` and has its upkeep rewrite sealed segments with `compress`, which has to be one of them.
    #[must_use]
    pub fn with_codecs(mut self, codecs: Codecs, compress: Option<Arc<dyn SegmentCodec>>) -> Wal {
        self.keeper.codecs = codecs;
        self.keeper.compress = compress;
        self
    }

    /// Starts the writer's thread. Does nothing if there is one, or if the writer was taken.
    pub fn spawn_writer(&self) -> io::Result<()> {
        let mut driver = self.driver();
        match std::mem::replace(&mut *driver, Driver::Caller) {
            Driver::Nobody(writer) => {
                // The thread must exist before the writer moves into it, or a failure would lose it.
                let (hand_over, take) = std::sync::mpsc::sync_channel::<Box<Writer>>(1);
                let shared = Arc::clone(&self.shared);
                let spawned =
                    thread::Builder::new()
                        .name("wal-writer".to_owned())
                        .spawn(move || match take.recv() {
                            Ok(writer) => run(*writer, &shared),
                            Err(_) => Ok(()),
                        });
                match spawned {
                    Ok(thread) => {
                        // The receiver waits for exactly this one.
                        let _ = hand_over.send(writer);
                        *driver = Driver::Thread(thread);
                    }
                    Err(error) => {
                        *driver = Driver::Nobody(writer);
                        return Err(error);
                    }
                }
            }
            other => *driver = other,
        }
        Ok(())
    }

    /// Takes the writer to drive it by hand, if nobody has it yet.
    #[must_use]
    pub fn take_writer(&self) -> Option<Writer> {
        let mut driver = self.driver();
        match std::mem::replace(&mut *driver, Driver::Caller) {
            Driver::Nobody(writer) => Some(*writer),
            other => {
                *driver = other;
                None
            }
        }
    }

    /// Starts the thread of the upkeep; `failed` is told what goes wrong there. Does nothing if there is one.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn spawn_upkeep(&self, failed: impl Fn(&UpkeepError) + Send + 'static) -> io::Result<()> {
        let mut thread = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let keeper = self.keeper.clone();
            let spawned = thread::Builder::new()
                .name("wal-upkeep".to_owned())
                .spawn(move || keeper.run(&failed))?;
            *thread = Some(spawned);
        }
        Ok(())
    }

    /// One step of the upkeep by hand: removes what was retired and kept long enough, or rewrites one sealed segment. Blocks for
    /// as long as that takes.
    ///
    /// # Errors
    /// The step failed and is tried again a minute later; the log is as it was.
    pub fn upkeep(&self, now_ms: u64) -> Result<Upkeep, UpkeepError> {
        self.keeper.step(now_ms, &|_| false)
    }

    /// Hands a record over. It cannot fail and does no I/O; [`Wal::admit`] is asked before a change is applied.
    ///
    /// The caller sees to it that every number from the first on is appended exactly once, to any lane, in any order.
    /// A number that is appended twice, or a part of a record beyond the format's limits, closes the log: nothing after
    /// it could be written in order.
    ///
    /// # Panics
    /// If there is no such lane.
    #[inline]
    pub fn append(&self, lane: usize, head: &RecordHead<'_>, value: Value<'_>) {
        match self.shared.lanes.append(lane, head, value) {
            Ok(lane_bytes) => self.shared.sleep.appended(lane_bytes >= self.gather_bytes),
            Err(too_large) => {
                self.shared.progress.close(&too_large.to_string());
                self.shared.sleep.wake();
            }
        }
    }

    /// Whether a write may be applied and appended now. Two loads of rarely written memory.
    #[inline]
    pub fn admit(&self) -> Result<(), Refusal> {
        self.shared.progress.admit()?;
        if self.shared.lanes.queued_about() >= self.queue_bytes_max {
            return Err(Refusal::Backlog);
        }
        Ok(())
    }

    /// About how many bytes were handed over and are not written yet. One load.
    #[inline]
    #[must_use]
    pub fn queued_about(&self) -> u64 {
        self.shared.lanes.queued_about()
    }

    /// The largest number that is on stable storage, with all before it.
    #[inline]
    #[must_use]
    pub fn high_watermark(&self) -> Lsn {
        self.shared.progress.high_watermark()
    }

    /// The largest number handed to the system: it survives the process, not a power cut.
    #[must_use]
    pub fn written(&self) -> Lsn {
        self.shared.progress.written()
    }

    /// Asks for a sync as soon as `lsn` is written, whatever the mode.
    pub fn request_sync(&self, lsn: Lsn) {
        if lsn > self.high_watermark() {
            self.shared.progress.want_sync(lsn);
            self.shared.sleep.wake();
        }
    }

    /// Leaves a waker for a lane, in place of an earlier one. It is used once: when the high watermark moves, or the log gets full, gets
    /// room again or closes. Look at [`Wal::high_watermark`] and [`Wal::admit`] again after leaving it.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn on_progress(&self, lane: usize, waker: Waker) {
        self.shared.progress.on_progress(lane, waker);
    }

    /// Asks for a sync and blocks until `lsn` is on stable storage.
    pub fn wait_durable(&self, lsn: Lsn, timeout: Duration) -> Result<(), WaitError> {
        self.request_sync(lsn);
        self.shared.progress.wait_durable(lsn, timeout)
    }

    /// Asks for a new segment. The writer's next round begins it, if the active one has records.
    pub fn roll(&self) {
        self.shared.progress.want_roll();
        self.shared.sleep.wake();
    }

    /// Sealed segments with no record above `lsn` are not needed any more. Removes them, oldest first, or leaves that to the
    /// upkeep if they are kept for a time ([`Options::keep`]). Blocks for the file system.
    pub fn retire_below(&self, lsn: Lsn) -> Result<Retired, RetireError> {
        let retired = self.shared.catalogue.retire(&*self.keeper.storage, lsn)?;
        Counters::add(&self.shared.counters.retired, retired.segments);
        Ok(retired)
    }

    /// Segments on disk, oldest first; the last is the active one.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.catalogue.segments()
    }

    /// Segments with no record above this are not needed any more, and there only because they are kept for a time.
    #[must_use]
    pub fn retired_to(&self) -> Lsn {
        self.shared.catalogue.retired_to()
    }

    /// What the log counts and shows.
    #[must_use]
    pub fn status(&self) -> Status {
        use std::sync::atomic::{AtomicU64, Ordering};
        let shared = &self.shared;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let segments = self.segments();
        let (queue_bytes, appends, appended_bytes) = shared.lanes.totals();
        Status {
            state: shared.progress.state(),
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            first_lsn: segments
                .first()
                .map_or(shared.progress.written().next(), |first| first.first_lsn),
            segments: segments.len(),
            written: shared.progress.written(),
            high_watermark: shared.progress.high_watermark(),
            queue_bytes,
            appends,
            appended_bytes,
            frames: count(&shared.counters.frames),
            written_bytes: count(&shared.counters.written_bytes),
            syncs: count(&shared.counters.syncs),
            sync_time: shared.counters.sync_time(),
            rotations: count(&shared.counters.rotations),
            retired: count(&shared.counters.retired),
            rewritten: count(&shared.counters.rewritten),
            rewritten_saved: count(&shared.counters.rewritten_saved),
        }
    }

    /// Has upkeep leave the sealed segments that there are as they are: the last of a log that failed cannot be read to its end.
    pub fn leave_sealed(&self) {
        self.shared.catalogue.leave_sealed();
    }

    /// Writes and syncs everything that was appended, seals the segment and ends the writer's thread. Nothing may be
    /// appended afterwards. A second call gives the first one's answer.
    pub fn shutdown(&self) -> Result<(), ShutdownError> {
        self.end_upkeep();
        let mut driver = self.driver();
        let result = match std::mem::replace(&mut *driver, Driver::Caller) {
            Driver::Caller => return Err(ShutdownError::DrivenByHand),
            Driver::Ended(result) => result,
            Driver::Nobody(mut writer) => writer.finish(wall_clock_ms()),
            Driver::Thread(thread) => {
                self.shared.progress.want_stop();
                self.shared.sleep.wake();
                thread.join().unwrap_or_else(|_| {
                    Err(ShutdownError::Closed {
                        reason: self.shared.progress.reason(),
                    })
                })
            }
        };
        *driver = Driver::Ended(result.clone());
        result
    }

    fn end_upkeep(&self) {
        self.shared.catalogue.stop();
        let mut thread = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // It has nothing that anybody waits for.
            let _ = thread.join();
        }
    }

    fn driver(&self) -> std::sync::MutexGuard<'_, Driver> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the thread, if there is one, as [`Wal::shutdown`] does; whoever wants to know how that went calls it.
impl Drop for Wal {
    fn drop(&mut self) {
        self.end_upkeep();
        if matches!(*self.driver(), Driver::Thread(_)) {
            let _ = self.shutdown();
        }
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("state", &self.shared.progress.state())
            .field("written", &self.written())
            .field("high_watermark", &self.high_watermark())
            .finish_non_exhaustive()
    }
}

/// The writer's thread.
fn run(mut writer: Writer, shared: &Shared) -> Result<(), ShutdownError> {
    let _close = CloseOnPanic(shared);
    shared.sleep.adopt_current_thread();
    // Wall-clock time that never goes back: an adjusted clock must neither hurry nor delay a sync.
    let (wall, began) = (wall_clock_ms(), Instant::now());
    let now_ms = || wall.saturating_add(began.elapsed().as_millis() as u64);
    let until = |at_ms: u64| Duration::from_millis(at_ms.saturating_sub(now_ms()));
    loop {
        if shared.progress.is_stop_wanted() {
            return writer.finish(now_ms());
        }
        match writer.round(now_ms()).rest {
            Rest::Again => {}
            Rest::Gather { until_ms } => shared
                .sleep
                .gather(until(until_ms), || shared.progress.has_requests()),
            Rest::Idle { until_ms } => shared.sleep.idle(until_ms.map(until), || {
                shared.progress.has_requests() || !shared.lanes.are_empty()
            }),
            Rest::Finished => return Ok(()),
            Rest::Closed => {
                return Err(ShutdownError::Closed {
                    reason: shared.progress.reason(),
                });
            }
        }
    }
}

/// Whoever waits for a writer that is gone has to learn it.
struct CloseOnPanic<'a>(&'a Shared);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0
                .progress
                .close("the writer's thread ended unexpectedly");
        }
    }
}

pub(crate) fn wall_clock_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
