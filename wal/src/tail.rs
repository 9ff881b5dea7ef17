//! The end of the log made fit for a new segment to follow: cut, set aside, removed, and all of it durable.

use std::io::{self, IoSlice};

use crate::error::RecoveryError;
use crate::format::HEADER_LEN;
use crate::names;
use crate::recovery::Outcome;
use crate::retention::SegmentInfo;
use crate::storage::Storage;

/// Copied at once when bytes are set aside.
const COPY_BYTES: usize = 1 << 20;

/// How the last segment that is kept ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    #[default]
    Clean,
    Torn,
    Damaged,
}

/// What is to be done about files. Every step leaves a log that a repeated recovery reads the same way, so a crash
/// between any two of them is no different from one before the first.
#[derive(Default)]
pub(crate) struct TailPlan {
    /// Segments that are kept, with the length of their files; the last one ends where its info says.
    pub(crate) kept: Vec<(SegmentInfo, u64)>,
    pub(crate) ending: Ending,
    /// The first frame of the last of them of which nothing proves that it reached the disk.
    pub(crate) doubtful_from: Option<u64>,
    /// Segments that must not be read again, oldest first.
    pub(crate) beyond: Vec<u64>,
    /// A last segment that never got its header.
    pub(crate) headless: Option<u64>,
    /// Number of the first file there was.
    pub(crate) first_number: Option<u64>,
}

impl TailPlan {
    /// Does it, and completes `outcome`.
    pub(crate) fn execute(
        mut self,
        storage: &dyn Storage,
        outcome: &mut Outcome,
        keep_torn: bool,
    ) -> Result<(), RecoveryError> {
        if let Some(number) = self.headless {
            remove(storage, number)?;
        }
        // Last one first: at any moment the files that are left have consecutive numbers.
        for &number in self.beyond.iter().rev() {
            let aside = names::damaged(number, &list(storage)?);
            storage
                .rename(&names::segment(number), &aside)
                .and_then(|()| storage.sync_dir())
                .map_err(|error| RecoveryError::io("renaming", &names::segment(number), error))?;
            outcome.set_aside.push(aside);
        }
        if let Some((info, len)) = self.kept.last() {
            let is_worth_keeping = match self.ending {
                Ending::Clean => false,
                Ending::Torn => keep_torn,
                Ending::Damaged => info.bytes < *len,
            };
            if is_worth_keeping {
                let aside = names::cut(info.number, info.bytes, &list(storage)?);
                copy_aside(storage, info, *len, &aside)
                    .map_err(|error| RecoveryError::io("writing", &aside, error))?;
                outcome.set_aside.push(aside);
            }
        }
        let mut next_segment = None;
        while let Some((info, _)) = self.kept.last().copied() {
            // The only one stays even without records: a log that was there must not look as if there never was one.
            if info.last_lsn > info.follows || self.kept.len() == 1 {
                end_at(storage, &info, self.doubtful_from)?;
                next_segment = Some(info.number + 1);
                break;
            }
            remove(storage, info.number)?;
            next_segment = Some(info.number);
            self.kept.pop();
            // The one before was complete and durable before this one was begun.
            self.doubtful_from = None;
        }
        outcome.next_segment = next_segment.or(self.first_number).unwrap_or(1);
        outcome.segments = self.kept.into_iter().map(|(info, _)| info).collect();
        outcome.last_lsn = outcome
            .segments
            .last()
            .map(|last| last.last_lsn)
            .unwrap_or_default();
        Ok(())
    }
}

fn list(storage: &dyn Storage) -> Result<Vec<String>, RecoveryError> {
    storage
        .list()
        .map_err(|error| RecoveryError::io("listing", "the log's directory", error))
}

fn remove(storage: &dyn Storage, number: u64) -> Result<(), RecoveryError> {
    let file = names::segment(number);
    storage
        .remove(&file)
        .and_then(|()| storage.sync_dir())
        .map_err(|error| RecoveryError::io("removing", &file, error))
}

/// Cuts the file and syncs it, also when there is nothing to cut: what a killed process wrote may be in the page cache
/// only, and from now on it counts as durable. The directory too, for the same reason.
///
/// What nothing proves to have reached the disk is written once more: after a sync that failed, the system may take for
/// written what it only has in memory (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020), and a
/// sync alone would leave it there. The bytes are the same, so a crash in between changes nothing.
fn end_at(
    storage: &dyn Storage,
    info: &SegmentInfo,
    doubtful_from: Option<u64>,
) -> Result<(), RecoveryError> {
    let file = names::segment(info.number);
    let end = || {
        let mut opened = storage.open(&file)?;
        if opened.len()? != info.bytes {
            opened.set_len(info.bytes)?;
        }
        let mut buf = Vec::new();
        let mut offset = doubtful_from.unwrap_or(info.bytes);
        while offset < info.bytes {
            buf.resize(COPY_BYTES.min((info.bytes - offset) as usize), 0);
            opened.read_at(offset, &mut buf)?;
            opened.write_at(offset, &[IoSlice::new(&buf)])?;
            offset += buf.len() as u64;
        }
        opened.sync_data()?;
        storage.sync_dir()
    };
    end().map_err(|error| RecoveryError::io("cutting", &file, error))
}

fn copy_aside(storage: &dyn Storage, info: &SegmentInfo, len: u64, aside: &str) -> io::Result<()> {
    let from = storage.open(&names::segment(info.number))?;
    let mut to = storage.create(aside)?;
    let mut buf = Vec::new();
    let mut offset = info.bytes.max(HEADER_LEN as u64);
    let start = offset;
    while offset < len {
        buf.resize(COPY_BYTES.min((len - offset) as usize), 0);
        from.read_at(offset, &mut buf)?;
        to.write_at(offset - start, &[IoSlice::new(&buf)])?;
        offset += buf.len() as u64;
    }
    to.sync_data()?;
    storage.sync_dir()
}
