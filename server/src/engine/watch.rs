//! Changes as they happen: every one, in order, from a sequence on.
//!
//! A store with a log is watched by reading the log beside its writer, so a watcher sees what is durable and nothing
//! that a crash could take back. A store in memory has a *feed* while somebody watches: changes go through a bounded
//! memory of the recent ones, from which each watcher reads at its own pace. A watcher that is overtaken by the log's
//! retention, or by the feed, is told so and ends; no writer ever waits for one. While nobody watches, a change costs
//! one look at a flag.

use super::Shared;
use super::restore::{self, MARKER_KEY, Met};
use inflightkv_core::{Cause, Logged, Sequence};
use inflightkv_wal::{self as wal, Lsn, Record, Tail, TailError, TailStep};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a watcher that finds its place retired looks for where the log begins now.
const PLACES_TRIED: usize = 8;
/// The feed keeps so many chunks, each of at most so many changes and about so many bytes.
const CHUNKS_MAX: usize = 16;
const CHUNK_CHANGES: usize = 1024;
const CHUNK_BYTES: usize = 1 << 20;
/// Text that a chunk has room for from the beginning.
const CHUNK_TEXT: usize = 64 << 10;
/// What a watcher takes out of the feed at a time, while writers wait for it: a few microseconds. One value may be more.
const STEP_CHANGES: usize = 64;
const STEP_BYTES: usize = 32 << 10;
/// How long the feed goes on after its last watcher, so that one that reconnects misses nothing.
const GRACE_MS: u64 = 60_000;

/// Why there is nothing to watch, or nothing more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The store has not changed so often yet.
    #[error("the last change has the sequence {last}, so there is nothing to come at {from} next")]
    Ahead {
        /// What was asked for.
        from: u64,
        /// The last change.
        last: u64,
    },
    /// The watcher was too slow: what comes next for it is kept no longer.
    #[error("the watcher is too slow: the changes from {next} on are kept no longer")]
    Behind {
        /// Where it was.
        next: u64,
    },
    /// The log was ended, or the store has been filled anew.
    #[error("{0}")]
    Over(&'static str),
    /// The log cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

/// What [`Watch::next`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchStep {
    /// Changes were shown.
    Changes,
    /// There was none within the time.
    Idle,
}

/// What a watcher is shown.
#[derive(Clone, Debug)]
pub enum Shown<'a> {
    /// One change.
    Change(&'a Record<'a>),
    /// What changed under these sequences is not told: a backup replaced everything.
    Gap(Range<u64>),
}

/// A place among the changes that moves on. It blocks its thread: not for an event loop.
pub struct Watch {
    shared: Arc<Shared>,
    gap: Option<Range<u64>>,
    source: Source,
    scratch: Vec<u8>,
}

enum Source {
    Log(Tail),
    Feed(Place),
}

/// A place in the feed.
struct Place {
    /// Of the feed that it is in; there is a new one when the store has been filled anew.
    generation: u64,
    /// The next change has this sequence or a larger one.
    next: u64,
    chunk: u64,
    at: usize,
    /// What is being shown.
    taken: Chunk,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("gap", &self.gap)
            .finish_non_exhaustive()
    }
}

impl super::Engine {
    /// Watches the changes from the sequence `from` on, or, without one, those that are still to come. Reads files, and looks
    /// into every partition: not for an event loop.
    ///
    /// # Errors
    /// There is no such place, or the log cannot be read.
    pub fn watch(&self, from: Option<u64>) -> Result<Watch, WatchError> {
        let shared = &self.shared;
        let last = shared.sequencer.last().get();
        let from = from.unwrap_or(last + 1);
        if from > last + 1 {
            return Err(WatchError::Ahead { from, last });
        }
        let from = from.max(1);
        let feeds = shared.feed.covers(from);
        let (source, next) = match shared.wal.get() {
            Some(log) if !feeds => {
                let (tail, next) = tail(log, from)?;
                (Source::Log(tail), next)
            }
            _ => {
                let place = shared.feed.enter(shared, from);
                let next = place.next;
                (Source::Feed(place), next)
            }
        };
        Ok(Watch {
            shared: Arc::clone(shared),
            gap: (next > from).then_some(from..next),
            source,
            scratch: Vec::new(),
        })
    }
}

/// The log from `from` on, or from where it begins now, and which of the two.
fn tail(log: &wal::Wal, from: u64) -> Result<(Tail, u64), WatchError> {
    let mut next = Lsn::new(from);
    for _ in 0..PLACES_TRIED {
        match log.tail(next) {
            Ok(tail) => return Ok((tail, next.get())),
            // Retired once more meanwhile, perhaps; never backwards.
            Err(TailError::TooOld { oldest }) => next = oldest.max(next),
            Err(other) => return Err(WatchError::Unreadable(other.to_string())),
        }
    }
    Err(WatchError::Unreadable(
        "the log loses its beginning faster than it can be read".to_owned(),
    ))
}

impl Watch {
    /// The sequences that were asked for and are kept no longer: what changed under them is not told.
    pub fn gap(&self) -> Option<Range<u64>> {
        self.gap.clone()
    }

    /// The sequence to go on from: every change below it has been shown.
    pub fn position(&self) -> u64 {
        match &self.source {
            Source::Log(tail) => tail.position().get(),
            Source::Feed(place) => place.next,
        }
    }

    /// Shows the next changes in order, or waits for some, for at most `wait`.
    ///
    /// # Errors
    /// It is over. Go on with another one from [`position`](Self::position).
    pub fn next(
        &mut self,
        wait: Duration,
        mut show: impl FnMut(Shown<'_>),
    ) -> Result<WatchStep, WatchError> {
        let mut show = |record: &Record<'_>| {
            if record.key != MARKER_KEY {
                return show(Shown::Change(record));
            }
            match restore::meet(record.value) {
                Met::Nothing => {}
                Met::Restore(_) => {
                    let at = record.lsn.get();
                    show(Shown::Gap(at..at + 1));
                }
                Met::Unknown => show(Shown::Change(record)),
            }
        };
        match &mut self.source {
            Source::Feed(place) => self.shared.feed.next(place, wait, show),
            Source::Log(tail) => {
                let next = tail.position().get();
                match tail.visit(&mut self.scratch, wait, &mut show) {
                    Ok(TailStep::Records) => Ok(WatchStep::Changes),
                    Ok(TailStep::Idle) => Ok(WatchStep::Idle),
                    Ok(TailStep::Ended) => Err(WatchError::Over("the log was ended")),
                    Err(TailError::TooOld { .. }) => Err(WatchError::Behind { next }),
                    Err(other) => Err(WatchError::Unreadable(other.to_string())),
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Source::Feed(_) = &self.source {
            self.shared.feed.leave(self.shared.options.clock.now());
        }
    }
}

/// The recent changes of a store that is watched and has no log.
#[derive(Default)]
pub(crate) struct Feed {
    /// Whether changes are to be told of. Set and cleared under the lock below.
    is_on: AtomicBool,
    /// Watchers wait, or a chunk is to be released.
    is_owed: AtomicBool,
    ring: Mutex<Ring>,
    moved: Condvar,
}

#[derive(Default)]
struct Ring {
    is_on: bool,
    generation: u64,
    watchers: usize,
    waiting: bool,
    left_at: u64,
    /// Every change from this sequence on is here; unknown while the feed begins.
    complete_from: Option<u64>,
    /// The number of the first chunk.
    first: u64,
    chunks: VecDeque<Chunk>,
    /// To be released by whoever holds no partition's lock.
    retired: Vec<Chunk>,
}

#[derive(Default)]
struct Chunk {
    changes: Vec<Change>,
    text: Vec<u8>,
    /// Of values by reference.
    shared_bytes: usize,
}

#[derive(Clone)]
struct Change {
    sequence: u64,
    version: u64,
    expires_at: Option<u64>,
    crc: u32,
    op: wal::Op,
    cause: wal::Cause,
    pinned: bool,
    /// Ends in the chunk's text: of the key, of the media type, of the value.
    start: usize,
    key_end: usize,
    media_end: usize,
    end: usize,
    shared_value: Option<Bytes>,
}

impl Chunk {
    fn new() -> Self {
        Self {
            changes: Vec::with_capacity(CHUNK_CHANGES),
            text: Vec::with_capacity(CHUNK_TEXT),
            shared_bytes: 0,
        }
    }

    fn clear(&mut self) {
        self.changes.clear();
        self.text.clear();
        self.shared_bytes = 0;
    }

    /// Takes a copy of a change of another chunk.
    fn copy(&mut self, other: &Chunk, at: usize) {
        let change = &other.changes[at];
        let shift = |end: usize| end - change.start + self.text.len();
        let copy = Change {
            start: shift(change.start),
            key_end: shift(change.key_end),
            media_end: shift(change.media_end),
            end: shift(change.end),
            ..change.clone()
        };
        self.shared_bytes += change.shared_value.as_ref().map_or(0, Bytes::len);
        self.text
            .extend_from_slice(&other.text[change.start..change.end]);
        self.changes.push(copy);
    }

    fn bytes(&self) -> usize {
        self.text.len() + self.shared_bytes
    }

    fn is_full(&self) -> bool {
        self.changes.len() >= CHUNK_CHANGES || self.bytes() >= CHUNK_BYTES
    }

    fn record(&self, at: usize) -> Record<'_> {
        let change = &self.changes[at];
        let text = |range: Range<usize>| {
            std::str::from_utf8(&self.text[range]).expect("what was pushed as text")
        };
        Record {
            lsn: Lsn::new(change.sequence),
            version: change.version,
            expires_at: change.expires_at,
            written_at_ms: 0,
            pinned: change.pinned,
            value_crc: change.crc,
            op: change.op,
            cause: change.cause,
            media_type: (change.media_end > change.key_end)
                .then(|| text(change.key_end..change.media_end)),
            key: text(change.start..change.key_end),
            value: match &change.shared_value {
                Some(value) => value,
                None => &self.text[change.media_end..change.end],
            },
        }
    }
}

/// The feed with its lock held: numbers drawn meanwhile are in order.
pub(crate) struct Telling<'a> {
    feed: &'a Feed,
    ring: MutexGuard<'a, Ring>,
}

impl Telling<'_> {
    /// Tells of a change. Under its partition's lock, so nothing is released here.
    pub(crate) fn tell(mut self, sequence: Sequence, logged: &Logged<'_>, now: u64) {
        let ring = &mut *self.ring;
        if ring.watchers == 0 && now.saturating_sub(ring.left_at) > GRACE_MS {
            ring.end();
            self.feed.is_on.store(false, Ordering::Release);
            self.feed.is_owed.store(true, Ordering::Release);
            return;
        }
        if ring.chunks.back().is_none_or(Chunk::is_full) {
            if ring.chunks.len() == CHUNKS_MAX
                && let Some(oldest) = ring.chunks.pop_front()
            {
                let dropped = oldest.changes.last().map_or(0, |change| change.sequence);
                if let Some(from) = &mut ring.complete_from {
                    *from = (*from).max(dropped + 1);
                }
                ring.retired.push(oldest);
                ring.first += 1;
            }
            ring.chunks.push_back(Chunk::new());
        }
        let chunk = ring.chunks.back_mut().expect("there is one now");
        let start = chunk.text.len();
        chunk.text.extend_from_slice(logged.key.as_bytes());
        let key_end = chunk.text.len();
        chunk
            .text
            .extend_from_slice(logged.media_type.unwrap_or_default().as_bytes());
        let media_end = chunk.text.len();
        match logged.shared_value {
            Some(value) => chunk.shared_bytes += value.len(),
            None => chunk.text.extend_from_slice(logged.value),
        }
        chunk.changes.push(Change {
            sequence: sequence.get(),
            version: logged.version,
            expires_at: logged.expires_at,
            crc: logged.crc,
            op: match logged.removed {
                Some(_) => wal::Op::Delete,
                None => wal::Op::Put,
            },
            cause: match logged.removed {
                Some(Cause::Evicted) => wal::Cause::Evicted,
                Some(Cause::Client) | None => wal::Cause::Client,
            },
            pinned: logged.pinned,
            start,
            key_end,
            media_end,
            end: chunk.text.len(),
            shared_value: logged.shared_value.cloned(),
        });
        if ring.waiting || !ring.retired.is_empty() {
            self.feed.is_owed.store(true, Ordering::Release);
        }
    }
}

impl Ring {
    /// What is kept is told of to nobody any more.
    fn end(&mut self) {
        self.is_on = false;
        self.generation += 1;
        self.complete_from = None;
        self.first += self.chunks.len() as u64;
        let chunks = std::mem::take(&mut self.chunks);
        self.retired.extend(chunks);
    }

    /// The place of the first change of `from` or above.
    fn place(&self, from: u64) -> Place {
        let next = self.complete_from.unwrap_or(from).max(from);
        let mut place = Place {
            generation: self.generation,
            next,
            chunk: self.first + self.chunks.len() as u64,
            at: 0,
            taken: Chunk::default(),
        };
        for (chunk, number) in self.chunks.iter().zip(self.first..) {
            let at = chunk
                .changes
                .partition_point(|change| change.sequence < next);
            if at < chunk.changes.len() {
                place.chunk = number;
                place.at = at;
                break;
            }
            // Where the next one goes, as far as is known.
            place.chunk = number;
            place.at = at;
        }
        place
    }
}

impl Ring {
    /// Copies the next changes out, and moves the place on.
    fn take(&self, place: &mut Place) {
        while let Some(chunk) = self.chunks.get((place.chunk - self.first) as usize) {
            let taken = &mut place.taken;
            let Some(change) = chunk.changes.get(place.at) else {
                if (place.chunk - self.first) as usize + 1 == self.chunks.len() {
                    // Still being filled.
                    return;
                }
                (place.chunk, place.at) = (place.chunk + 1, 0);
                continue;
            };
            if taken.changes.len() == STEP_CHANGES || taken.bytes() > STEP_BYTES {
                return;
            }
            if change.sequence >= place.next {
                place.next = change.sequence + 1;
                taken.copy(chunk, place.at);
            }
            place.at += 1;
        }
    }
}

impl Feed {
    /// The feed, if changes are to be told of; to be held while the change draws its number.
    #[inline]
    pub(crate) fn begin(&self) -> Option<Telling<'_>> {
        if !self.is_on.load(Ordering::Acquire) {
            return None;
        }
        let ring = self.ring.lock();
        ring.is_on.then_some(Telling { feed: self, ring })
    }

    /// What telling of a change left for whoever holds no partition's lock any more.
    #[inline]
    pub(crate) fn settle(&self) {
        if self.is_owed.load(Ordering::Acquire) {
            self.pay();
        }
    }

    #[cold]
    fn pay(&self) {
        self.is_owed.store(false, Ordering::Release);
        let mut ring = self.ring.lock();
        let retired = std::mem::take(&mut ring.retired);
        let waiting = std::mem::take(&mut ring.waiting);
        drop(ring);
        if waiting {
            self.moved.notify_all();
        }
        drop(retired);
    }

    /// The store is filled anew: watchers end, and nothing that was told of is told of again.
    pub(crate) fn break_off(&self) {
        let mut ring = self.ring.lock();
        ring.end();
        self.is_on.store(false, Ordering::Release);
        ring.waiting = true;
        drop(ring);
        self.pay();
    }

    /// Whether every change from `from` on is here.
    fn covers(&self, from: u64) -> bool {
        let ring = self.ring.lock();
        ring.is_on && ring.complete_from.is_some_and(|first| from >= first)
    }

    /// One more watcher, of the changes from `from` on, or of those from where the feed begins.
    fn enter(&self, shared: &Shared, from: u64) -> Place {
        let mut ring = self.ring.lock();
        ring.watchers += 1;
        if !ring.is_on {
            ring.is_on = true;
            self.is_on.store(true, Ordering::Release);
        }
        while ring.complete_from.is_none() {
            let generation = ring.generation;
            drop(ring);
            // Who changes a partition after this has seen the flag above; so every change after all of it is told of.
            for partition in 0..shared.partitions.count() {
                shared.partitions.with(partition, |_| ());
            }
            ring = self.ring.lock();
            if ring.generation == generation {
                let last = shared.sequencer.last().get();
                ring.complete_from.get_or_insert(last + 1);
            } else if !ring.is_on {
                ring.is_on = true;
                self.is_on.store(true, Ordering::Release);
            }
        }
        ring.place(from)
    }

    fn leave(&self, now: u64) {
        let mut ring = self.ring.lock();
        ring.watchers -= 1;
        ring.left_at = now;
    }

    fn next(
        &self,
        place: &mut Place,
        wait: Duration,
        mut show: impl FnMut(&Record<'_>),
    ) -> Result<WatchStep, WatchError> {
        let mut ring = self.ring.lock();
        let mut waited = false;
        // Bodies are released by whoever holds no lock.
        place.taken.clear();
        loop {
            if ring.generation != place.generation {
                return Err(WatchError::Over("the store has been filled anew"));
            }
            if place.chunk < ring.first {
                if ring.complete_from.is_none_or(|from| place.next < from) {
                    return Err(WatchError::Behind { next: place.next });
                }
                // It had read all of what was dropped.
                (place.chunk, place.at) = (ring.first, 0);
            }
            ring.take(place);
            if !place.taken.changes.is_empty() {
                drop(ring);
                for at in 0..place.taken.changes.len() {
                    show(&place.taken.record(at));
                }
                return Ok(WatchStep::Changes);
            }
            if waited {
                return Ok(WatchStep::Idle);
            }
            ring.waiting = true;
            waited = self.moved.wait_for(&mut ring, wait).timed_out();
        }
    }
}
