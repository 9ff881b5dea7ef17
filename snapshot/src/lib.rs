//! Snapshot files: the exact state of a store at one sequence, in checksummed blocks, made visible by a
//! manifest that is written last.
//!
//! A [`SnapshotWriter`] takes blocks of entries, in as many part files as there are threads to write
//! them, and [`finish`](SnapshotWriter::finish) makes them count, all at once. An increment holds what
//! changed since its parent, deletes included. [`chain::newest`] finds what to start from, and
//! [`load_part`] hands out the entries of one part, verified.
//!
//! It is not a database and not a log: a snapshot is never changed, and
//! how the store is walked while writers go on is the store's affair. Nothing here starts a thread, reads
//! a clock or deletes a file unasked: [`chain::retain`] and [`chain::sweep`] run when they are called.
//!
//! # Promises
//! - A snapshot is visible whole or not at all, whenever the process or the power fails.
//! - Every changed, missing, added or exchanged byte of it is noticed when it is loaded, and named by file,
//!   offset, what was expected and what was found.
//! - "There is none", "here it is" and "there are some, all damaged" are three answers ([`chain::Found`]).
//! - No bytes make it panic, and no length is believed before its checksum and its bounds hold.
//! - What is written is first checked as if it were read, so a snapshot that was finished can be loaded.
//!
//! # Reading order
//! `FORMAT.md` (the bytes, and why), `manifest`, `entry`; then `writer` and `part_writer`; then back:
//! `chain`, `reader`, `check`. `storage` and `codec` are the plugs; `format` follows the document.
#![forbid(unsafe_code)]

pub mod backup;
mod block;
pub mod chain;
mod check;
mod codec;
mod entry;
mod error;
pub mod find;
mod format;
mod manifest;
mod names;
mod options;
mod part_writer;
mod reader;
mod storage;
mod writer;

pub use backup::{BackupDecoder, BackupEncoder, BackupHeader, BackupReport, read_backup};
pub use chain::{Chain, Found, Skipped};
pub use check::{Checked, Contents, Report, check, read_file};
pub use codec::{BlockCodec, CodecError, Plain};
pub use entry::{BlockBuilder, EntryRef, RawBlock};
pub use error::{ChainError, Damage, EntryError, LoadError, WriteError};
pub use find::{Sought, Wanted, find};
pub use format::part::PartHeader;
pub use manifest::{Kind, Manifest, PARTS_MAX, Parent, Part, StoreId, Totals};
pub use options::Options;
pub use part_writer::PartWriter;
pub use reader::{PartReport, load_part};
pub use storage::{Directory, File, Storage};
pub use writer::{Plan, SnapshotWriter};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
