//! Partitions of a versioned JSON key-value store, as deterministic plain data.
//!
//! A [`Partition`] is a table from keys to entries. [`Partition::decide`] looks at a [`Command`] and says what comes of
//! it, changing nothing; [`Partition::apply`] makes the [`Mutation`] so decided true under a [`Sequence`] that the
//! caller draws in between. What was decided can be logged, applied and replayed alike.
//!
//! It is not a store: there is no lock, no clock, no disk, no thread and no randomness in it. Time, hashes and sequences
//! are arguments, so the same calls give the same table on every machine.
//!
//! # Promises
//! - A mutation records the result, not the operation: replaying it twice, or after a newer one, changes nothing.
//! - A key keeps its slot for its life, so a scan by slot meets a lasting key exactly once.
//! - A frozen partition walks out exactly the entries of one moment, whatever is written meanwhile.
//! - The bytes it says it holds are the bytes it holds.
//!
//! # Work that happens later
//! What is written is stored as it is. A caller that can code values (compress them) meets candidates with
//! [`Partition::survey`] and puts them back in another layout with [`Partition::recode`]; what their bytes mean is never
//! asked here. Values may also lie elsewhere, several together ([`CODEC_ELSEWHERE`]): whoever keeps them learns from
//! [`Partition::take_left`] which are no longer needed. Expired entries are invisible at once and reclaimed when the caller
//! calls [`Partition::expire`]. Tombstones are kept until [`Partition::forget_tombstones`].
//!
//! # Reading order
//! `entry`, `view`, `memtable` (over `heap` and `index`), `command`, `partition`; then `merge`, `frozen`.
#![forbid(unsafe_code)]

mod command;
mod cursor;
mod decide;
mod dirty;
mod entry;
mod frozen;
mod heap;
mod index;
mod keys;
mod memtable;
pub mod merge;
mod mutation;
mod numbers;
mod outcome;
mod partition;
pub mod routing;
mod view;

pub use command::{
    Command, Compared, Conditions, EtagCondition, Operation, Patch, PatchExpiry, Prepared,
    PutExpiry, VersionCondition,
};
pub use cursor::{Cursor, CursorError};
pub use entry::{
    CODEC_ELSEWHERE, CODING_NUMBER_MAX, Coding, Draft, DraftError, DraftValue, Entry, HEAT_MAX,
    INLINE_MAX, KEY_BYTES_MAX, MEDIA_TYPE_BYTES_MAX, PLACE_BYTES, Sameness,
};
pub use frozen::{FrozenItem, WalkState};
pub use keys::{CODED_KEY_BYTES_MAX, KEY_CODE_FIRST, KEY_CODES, KeyCode};
pub use memtable::{Coded, CodedShare, hash_key};
pub use merge::{PatchError, PatchKind, PatchLimits};
pub use mutation::{Applied, Cause, LoadedEntry, Logged, Mutation, Reclaimed};
pub use numbers::{Sequence, Slot, VERSION_MAX, Version};
pub use outcome::{Current, Decision, FailedCondition, Outcome};
pub use partition::{Left, Partition, PartitionStats, Tombstones};
pub use view::EntryView;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
