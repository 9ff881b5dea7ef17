//! Which segments there are, and letting go of those below a checkpoint.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::RetireError;
use crate::format::Lsn;
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
    /// Milliseconds since 1970.
    pub created_at_ms: u64,
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
#[derive(Default)]
pub(crate) struct Catalogue {
    listed: Mutex<Listed>,
    /// Held while files are removed, so that two callers do not remove the same.
    retiring: Mutex<()>,
}

#[derive(Default)]
struct Listed {
    sealed: VecDeque<SegmentInfo>,
    active: Option<SegmentInfo>,
}

impl Catalogue {
    pub(crate) fn new(sealed: Vec<SegmentInfo>) -> Catalogue {
        Catalogue {
            listed: Mutex::new(Listed {
                sealed: sealed.into(),
                active: None,
            }),
            retiring: Mutex::new(()),
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

    /// Removes sealed segments, oldest first, while every record in them is at most `lsn`.
    pub(crate) fn retire(&self, storage: &dyn Storage, lsn: Lsn) -> Result<Retired, RetireError> {
        let _alone = lock(&self.retiring);
        let mut retired = Retired::default();
        loop {
            // The last one stays even if nothing is active: a log that was there must not look as if there never was one.
            let oldest = {
                let listed = lock(&self.listed);
                let is_last = listed.active.is_none() && listed.sealed.len() == 1;
                listed.sealed.front().filter(|_| !is_last).copied()
            };
            let Some(oldest) = oldest.filter(|oldest| oldest.last_lsn <= lsn) else {
                return Ok(retired);
            };
            let file = names::segment(oldest.number);
            // A sync after each: a crash must not keep an older segment and lose a younger one.
            remove(storage, &file).map_err(|source| RetireError { file, source })?;
            lock(&self.listed).sealed.pop_front();
            retired.segments += 1;
            retired.bytes += oldest.bytes;
        }
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
