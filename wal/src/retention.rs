//! Which segments there are, and letting go of those below a checkpoint.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::RetireError;
use crate::format::{Lsn, PLAIN};
use crate::names;
use crate::storage::Storage;

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub number: u64,
    /// LSN its first record has, or would have.
    pub first_lsn: Lsn,
    /// LSN of its last record; `follows` if it has none.
    pub last_lsn: Lsn,
    /// LSN of the last record before it.
    pub follows: Lsn,
    /// Bytes of header and frames, without reserved room.
    pub bytes: u64,
    /// When it was begun, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// What it was rewritten with; 0 for frames as they were written.
    pub codec: u8,
}

/// What [`crate::Wal::retire_below`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retired {
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The segments on disk, oldest first.
pub(crate) struct Catalogue {
    keep: Duration,
    listed: Mutex<Listed>,
    /// Held while files are removed or exchanged, so that two callers do not do it to the same, and none comes back.
    changing: Mutex<()>,
    /// Something may be due that was not.
    news: Mutex<bool>,
    told: Condvar,
    stopping: AtomicBool,
}

#[derive(Default)]
struct Listed {
    sealed: VecDeque<SegmentInfo>,
    active: Option<SegmentInfo>,
    /// What is only kept for its time to be over: segments with no record above this.
    retired_to: Lsn,
    /// Segments that are not rewritten.
    as_they_are: BTreeSet<u64>,
    /// No attempt at anything before this.
    retry_at_ms: u64,
}

impl Listed {
    /// When the time of the oldest segment is over, if it was retired. The last one stays even if nothing is active: a log
    /// that was there must not look as if there never was one.
    fn oldest_retired(&self, keep: Duration) -> Option<(SegmentInfo, u64)> {
        let oldest = self.sealed.front()?;
        let next = self.sealed.get(1).or(self.active.as_ref())?;
        // Also one without any records is there until something was retired: it may be all that says that there is a log.
        if oldest.last_lsn > self.retired_to || self.retired_to == Lsn::ZERO {
            return None;
        }
        let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        let until_ms = match keep_ms {
            0 => 0,
            _ => next.created_at_ms.saturating_add(keep_ms),
        };
        Some((*oldest, until_ms))
    }
}

impl Catalogue {
    pub(crate) fn new(sealed: Vec<SegmentInfo>, keep: Duration) -> Catalogue {
        Catalogue {
            keep,
            listed: Mutex::new(Listed {
                sealed: sealed.into(),
                ..Listed::default()
            }),
            changing: Mutex::new(()),
            news: Mutex::new(false),
            told: Condvar::new(),
            stopping: AtomicBool::new(false),
        }
    }

    pub(crate) fn set_active(&self, active: Option<SegmentInfo>) {
        lock(&self.listed).active = active;
    }

    /// The active segment takes nothing more.
    pub(crate) fn seal(&self, info: SegmentInfo) {
        let mut listed = lock(&self.listed);
        listed.active = None;
        listed.sealed.push_back(info);
        drop(listed);
        self.tell();
    }

    pub(crate) fn segments(&self) -> Vec<SegmentInfo> {
        let listed = lock(&self.listed);
        listed
            .sealed
            .iter()
            .chain(&listed.active)
            .copied()
            .collect()
    }

    /// Segments with no record above this are only kept for their time to be over.
    pub(crate) fn retired_to(&self) -> Lsn {
        lock(&self.listed).retired_to
    }

    /// Removes the active segment `number`, which has no records, unless it may be the only one. False if it stays.
    pub(crate) fn remove_active(&self, storage: &dyn Storage, number: u64) -> io::Result<bool> {
        // Not while the others are being retired: a log that was there must not look as if there never was one.
        let _alone = lock(&self.changing);
        // The oldest may be gone already, when its removal failed half-way: it does not count.
        if lock(&self.listed).sealed.len() < 2 {
            return Ok(false);
        }
        storage.remove(&names::segment(number))?;
        storage.sync_dir()?;
        lock(&self.listed).active = None;
        Ok(true)
    }

    /// Every record up to `lsn` may go. Removes segments, oldest first, unless they are kept for a time.
    pub(crate) fn retire(&self, storage: &dyn Storage, lsn: Lsn) -> Result<Retired, RetireError> {
        {
            let mut listed = lock(&self.listed);
            listed.retired_to = listed.retired_to.max(lsn);
        }
        let retired = self.remove_retired(storage, 0);
        self.tell();
        retired
    }

    /// Removes retired segments whose time is over.
    pub(crate) fn retire_due(
        &self,
        storage: &dyn Storage,
        now_ms: u64,
    ) -> Result<Retired, RetireError> {
        if lock(&self.listed).retry_at_ms > now_ms {
            return Ok(Retired::default());
        }
        self.remove_retired(storage, now_ms)
    }

    fn remove_retired(&self, storage: &dyn Storage, now_ms: u64) -> Result<Retired, RetireError> {
        let _alone = lock(&self.changing);
        let mut retired = Retired::default();
        loop {
            let oldest = lock(&self.listed).oldest_retired(self.keep);
            let Some((oldest, _)) = oldest.filter(|(_, until_ms)| *until_ms <= now_ms) else {
                return Ok(retired);
            };
            let file = names::segment(oldest.number);
            // A sync after each: a crash must not keep an older segment and lose a younger one.
            remove(storage, &file).map_err(|source| RetireError { file, source })?;
            let mut listed = lock(&self.listed);
            listed.sealed.pop_front();
            listed.as_they_are.remove(&oldest.number);
            retired.segments += 1;
            retired.bytes += oldest.bytes;
        }
    }

    /// The oldest sealed segment that was not rewritten and will be there for a while.
    pub(crate) fn next_to_rewrite(&self, now_ms: u64) -> Option<SegmentInfo> {
        let listed = lock(&self.listed);
        if listed.retry_at_ms > now_ms {
            return None;
        }
        listed.to_rewrite().copied()
    }

    /// Whether sealed segment `number` is there.
    pub(crate) fn has_sealed(&self, number: u64) -> bool {
        let listed = lock(&self.listed);
        listed.sealed.iter().any(|info| info.number == number)
    }

    /// Runs `exchange` of the files of sealed segment `number`, unless that is gone. `false`: it is.
    pub(crate) fn swap(
        &self,
        number: u64,
        bytes: u64,
        codec: u8,
        exchange: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<bool> {
        let _alone = lock(&self.changing);
        if !self.has_sealed(number) {
            return Ok(false);
        }
        exchange()?;
        let mut listed = lock(&self.listed);
        if let Some(info) = listed.sealed.iter_mut().find(|info| info.number == number) {
            info.bytes = bytes;
            info.codec = codec;
        }
        Ok(true)
    }

    /// Segment `number` is not rewritten in this run.
    pub(crate) fn leave_as_it_is(&self, number: u64) {
        lock(&self.listed).as_they_are.insert(number);
    }

    /// No segment that is sealed now is rewritten in this run.
    pub(crate) fn leave_sealed(&self) {
        let mut listed = lock(&self.listed);
        let sealed: Vec<u64> = listed.sealed.iter().map(|info| info.number).collect();
        listed.as_they_are.extend(sealed);
    }

    /// Nothing is tried before that time.
    pub(crate) fn retry_after(&self, at_ms: u64) {
        lock(&self.listed).retry_at_ms = at_ms;
    }

    /// When there is something to do although nothing new happens.
    pub(crate) fn upkeep_due(&self, now_ms: u64, rewrites: bool) -> Option<u64> {
        let listed = lock(&self.listed);
        let retired = listed.oldest_retired(self.keep).map(|(_, until)| until);
        let retry_at = (listed.retry_at_ms > now_ms
            && (retired.is_some() || (rewrites && listed.to_rewrite().is_some())))
        .then_some(listed.retry_at_ms);
        retry_at.or(retired)
    }

    /// The upkeep ends.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.tell();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Wakes the upkeep.
    fn tell(&self) {
        *lock(&self.news) = true;
        self.told.notify_all();
    }

    /// Waits for news, for at most `limit`; takes them.
    pub(crate) fn wait_for_news(&self, limit: Option<Duration>) {
        let mut news = lock(&self.news);
        if !*news {
            news = match limit {
                Some(limit) => {
                    self.told
                        .wait_timeout(news, limit)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self.told.wait(news).unwrap_or_else(PoisonError::into_inner),
            };
        }
        *news = false;
    }
}

impl Listed {
    fn to_rewrite(&self) -> Option<&SegmentInfo> {
        self.sealed
            .iter()
            .find(|segment| segment.codec == PLAIN && !self.as_they_are.contains(&segment.number))
    }
}

fn remove(storage: &dyn Storage, file: &str) -> io::Result<()> {
    match storage.remove(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    storage.sync_dir()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
