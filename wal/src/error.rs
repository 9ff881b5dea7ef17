//! Errors, one type per operation, so that a caller meets only what can happen.

use std::io;
use std::sync::Arc;

use crate::format::{Fault, Lsn, StoreId};
use crate::options::OptionError;
use crate::recovery::Damage;

/// Opening a log failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// An option has a value that makes no sense.
    #[error("the log's options do not make sense")]
    Option(#[from] OptionError),
    /// There has to be somewhere to append to.
    #[error("a log needs 1 lane or more, found {found}")]
    Lanes {
        /// What was asked for.
        found: usize,
    },
    /// The first number is one that is used already.
    #[error("the next record would be {next_lsn}, but {taken} is taken already")]
    TakenLsn {
        /// What was asked for.
        next_lsn: Lsn,
        /// The largest number in use.
        taken: Lsn,
    },
    /// The first segment could not be made.
    #[error("segment {segment} cannot be made")]
    Io {
        /// Its number.
        segment: u64,
        /// What the system said.
        source: io::Error,
    },
}

/// Why the log takes no records at the moment, or ever again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// More waits to be written than may; it will pass.
    #[error("more records wait to be written than the queue may hold")]
    Backlog,
    /// There is no room; the log resumes by itself when there is.
    #[error("the disk is full")]
    DiskFull,
    /// An earlier failure, or the end. Reopening is the only way on.
    #[error("the log is closed: {reason}")]
    Closed {
        /// Why.
        reason: Arc<str>,
    },
}

/// Waiting for durability came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The time is up. The record may become durable later.
    #[error("record {lsn} is not durable yet, the high watermark is {high_watermark}")]
    Timeout {
        /// What was waited for.
        lsn: Lsn,
        /// How far it got.
        high_watermark: Lsn,
    },
    /// The log failed before the record was durable. It may be there after a restart, or not.
    #[error("the log is closed: {reason}")]
    Closed {
        /// Why.
        reason: Arc<str>,
    },
}

/// The log ended without everything being on stable storage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// A write or a sync failed, now or earlier.
    #[error("the log did not end in good order: {reason}")]
    Closed {
        /// What failed.
        reason: Arc<str>,
    },
    /// A number was given to a change whose record never came, so what follows it cannot be written.
    #[error("record {missing} was never appended, {waiting} records after it are lost")]
    Missing {
        /// The number.
        missing: Lsn,
        /// Records after it.
        waiting: usize,
    },
    /// There is no room for what still waits.
    #[error("the disk is full, {waiting} records are lost")]
    DiskFull {
        /// Records that wait.
        waiting: usize,
    },
    /// The writer was taken to be driven by hand: [`crate::Writer::finish`] ends it.
    #[error("the writer is driven by hand and has to be finished there")]
    DrivenByHand,
}

/// Removing old segments failed. Those removed before are gone; the log itself goes on.
#[derive(Debug, thiserror::Error)]
#[error("{file} cannot be removed")]
pub struct RetireError {
    /// Name of the file.
    pub file: String,
    /// What the system said.
    pub source: io::Error,
}

/// A sealed segment could not be rewritten. It is as it was, and the log goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewriteError {
    /// Records that had been durable cannot be read.
    #[error("{file} at offset {offset} cannot be read: {fault}")]
    Damaged {
        /// Name of the file.
        file: String,
        /// Where.
        offset: u64,
        /// What is wrong.
        fault: Fault,
    },
    /// The system failed to read or write a file.
    #[error("rewriting {file} failed")]
    Io {
        /// Name of the file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

impl RewriteError {
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, RewriteError::Damaged { .. })
    }
}

/// The log cannot be given out from there on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TailError {
    /// Records were retired, or are in a snapshot only.
    #[error("the log does not reach back so far: its oldest record is {oldest}")]
    TooOld {
        /// From where on it can be read without a gap.
        oldest: Lsn,
    },
    /// Records that had been durable cannot be read.
    #[error("{file} at offset {offset} cannot be read: {fault}")]
    Damaged {
        /// Name of the file.
        file: String,
        /// Where.
        offset: u64,
        /// What is wrong.
        fault: Fault,
    },
    /// The system failed to read a file.
    #[error("reading {file} failed")]
    Io {
        /// Name of the file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A stream of records cannot be read on. It can be asked for again from the record after the last one that was read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// Something else arrived than was sent.
    #[error("the stream is damaged: {0}")]
    Damaged(#[from] Fault),
    /// The connection failed, or ended in the middle of a frame.
    #[error("the stream broke off: {0}")]
    Io(#[from] io::Error),
}

/// A step of the upkeep failed. The log goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpkeepError {
    /// An old segment could not be removed.
    #[error(transparent)]
    Retire(#[from] RetireError),
    /// A sealed segment could not be rewritten.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
}

/// Reading the log back failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// Records that had been durable cannot be read.
    #[error("the log is damaged: {0}")]
    Damaged(Damage),
    /// The log does not reach back to what was asked for.
    #[error("the log goes on at {found} in segment {segment}, record {expected} is needed")]
    Gap {
        /// First record that is needed.
        expected: Lsn,
        /// First record there is.
        found: Lsn,
        /// Where that is.
        segment: u64,
    },
    /// A later version wrote it.
    #[error("{file} has format version {found}, this program reads up to {supported}")]
    NewerFormat {
        /// Name of the file.
        file: String,
        /// Its version.
        found: u32,
        /// The version this crate writes.
        supported: u32,
    },
    /// It belongs to another store.
    #[error("{file} belongs to store {}, expected {}", hex(.found), hex(.expected))]
    ForeignStore {
        /// Name of the file.
        file: String,
        /// Its store.
        found: StoreId,
        /// The one asked for, or that of the first segment.
        expected: StoreId,
    },
    /// Sound bytes that only a later version can read. Nothing was cut.
    #[error("{file} at offset {offset} needs a newer program: {fault}")]
    Unsupported {
        /// Name of the file.
        file: String,
        /// Where.
        offset: u64,
        /// What is not known.
        fault: Fault,
    },
    /// The receiver of the records had enough.
    #[error("replay was stopped at record {lsn}")]
    Stopped {
        /// The record it was given last.
        lsn: Lsn,
    },
    /// The system failed to read or change a file.
    #[error("{action} {file} failed")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Name of the file, or of the directory.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

impl RecoveryError {
    pub(crate) fn io(action: &'static str, file: &str, source: io::Error) -> RecoveryError {
        RecoveryError::Io {
            action,
            file: file.to_owned(),
            source,
        }
    }
}

fn hex(id: &StoreId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
