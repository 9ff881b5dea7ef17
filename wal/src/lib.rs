//! Write-ahead log: an append-only sequence of checksummed, numbered records with group commit.
//!
//! The caller gives each change its [`Lsn`] and hands the record over with [`Wal::append`], which neither fails nor
//! does any I/O. One writer puts the records of all lanes in order and writes the part without a gap; [`Wal::wait_durable`], or
//! a waker left with [`Wal::on_progress`], tells when a record is on stable storage. Everybody who waits shares one sync.
//!
//! Sealed segments can be rewritten with a codec ([`SegmentCodec`] is the plug) and kept for a time after they are superfluous.
//!
//! It is not a queue and not a database: nothing is indexed, and only whole segments below a checkpoint are ever removed.
//!
//! # Promises
//! - A record is replayed whole or not at all, in order, and a missing one is always noticed.
//! - What the high watermark covers is there after a power cut.
//! - After a failed write or sync the log takes nothing more; reopening is the only way on. A full disk is told apart: the
//!   log waits, and resumes by itself on a fresh segment.
//! - A torn tail is cut, damage is refused: `FORMAT.md` has the table, and every byte.
//! - No work happens behind the caller's back: all of it is in [`Writer::round`] and [`Wal::upkeep`], driven by the threads that
//!   [`Wal::spawn_writer`] and [`Wal::spawn_upkeep`] start, or by hand.
//!
//! # Reading order
//! `format` (bytes), `lanes` (hand-over), `frames` (order), `segment` (one file), `writer`, `group_commit`; then back: `reader`,
//! `recovery`, `tail`; and what is done when there is time: `rewrite`, `upkeep`, `retention`.
#![forbid(unsafe_code)]

mod codec;
mod error;
mod format;
mod frames;
mod group_commit;
mod lanes;
mod names;
mod options;
#[cfg(test)]
mod properties;
mod reader;
pub mod recovery;
mod retention;
mod rewrite;
mod segment;
mod status;
mod storage;
mod stream;
mod tail;
pub mod tools;
mod upkeep;
mod wal;
mod writer;

pub use codec::{CodecError, Codecs, SegmentCodec};
pub use error::{
    OpenError, RecoveryError, Refusal, RetireError, RewriteError, ShutdownError, StreamError,
    TailError, UpkeepError, WaitError,
};
pub use format::{
    Cause, FORMAT_VERSION, Fault, FrameHeader, KEY_BYTES_MAX, Lsn, MEDIA_TYPE_BYTES_MAX, Op,
    Record, RecordHead, SegmentHeader, StoreId, StreamHeader, VALUE_BYTES_MAX,
};
pub use lanes::Value;
pub use options::{OptionError, Options, SyncMode};
pub use recovery::{Cut, Damage, Lost, Outcome, RecoveryMode, Scan, replay, scan};
pub use retention::{Retired, SegmentInfo};
pub use status::{SYNC_TIME_BOUNDS_US, State, Status, SyncTime};
pub use storage::{Directory, SegmentFile, Storage};
pub use stream::{StreamFrame, StreamReader, Tail, TailStep};
pub use upkeep::Upkeep;
pub use wal::{Start, Wal};
pub use writer::{Rest, Round, Writer};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
