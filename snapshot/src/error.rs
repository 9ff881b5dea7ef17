//! What can go wrong, one type per operation, and how damage is described.

use std::io;

use crate::manifest::StoreId;

/// A place in a file that is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} is damaged at offset {offset}: expected {expected}, found {found}")]
pub struct Damage {
    /// The file's name.
    pub file: String,
    /// Where in the file the piece begins that does not hold.
    pub offset: u64,
    /// What should have been there.
    pub expected: String,
    /// What was.
    pub found: String,
}

/// An entry that no block can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The key is longer than the format can say.
    #[error("key of {found} bytes exceeds the limit of {max}")]
    KeyTooLong {
        /// Its length.
        found: usize,
        /// The longest allowed.
        max: usize,
    },
    /// The media type is longer than the format can say.
    #[error("media type of {found} bytes exceeds the limit of {max}")]
    MediaTypeTooLong {
        /// Its length.
        found: usize,
        /// The longest allowed.
        max: usize,
    },
    /// The value is longer than the options allow.
    #[error("value of {found} bytes exceeds the limit of {max}")]
    ValueTooLong {
        /// Its length.
        found: usize,
        /// The longest allowed.
        max: usize,
    },
    /// An empty media type, which on disk could not be told from none.
    #[error("the media type is empty: expected a media type, or none for JSON")]
    MediaTypeEmpty,
    /// An expiry at 0, which on disk could not be told from none.
    #[error("the expiry is 0: expected a time after the epoch, or none")]
    ExpiryZero,
    /// A tombstone with a value, a media type or an expiry.
    #[error("a tombstone has no value, no media type and no expiry, but this one does")]
    TombstoneNotBare,
}

/// Why a snapshot was not written. Nothing of it is visible unless every byte of it is there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The plan or an option has a value that it cannot have.
    #[error("{name} is {found}, expected {expected}")]
    Setting {
        /// Which one.
        name: &'static str,
        /// Its value.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// The parent named in the plan is not there (any more).
    #[error("the parent, snapshot {parent}, has no manifest")]
    ParentGone {
        /// The id in the plan.
        parent: u64,
    },
    /// A part number that the plan does not have, or one that was asked for twice.
    #[error("part {part} of {parts} does not exist or was already taken")]
    PartTaken {
        /// The number asked for.
        part: usize,
        /// How many parts the plan has.
        parts: usize,
    },
    /// A part is missing, is another snapshot's or is handed in twice when finishing.
    #[error("part {part} is not among the parts handed in exactly once")]
    PartMissing {
        /// The part's number.
        part: usize,
    },
    /// An entry that a reader would refuse, so it is not written.
    #[error("part {part} cannot take a block: expected {expected}, found {found}")]
    Block {
        /// The part's number.
        part: usize,
        /// What should have been there.
        expected: String,
        /// What was.
        found: String,
    },
    /// A value that changed since its checksum was taken, so it is not written down as good.
    #[error(
        "a value does not have the checksum that it was stored with: expected {expected:#010x}, found {found:#010x}"
    )]
    Value {
        /// Its key.
        key: String,
        /// The checksum that it was stored with.
        expected: u32,
        /// The checksum that it has.
        found: u32,
    },
    /// An earlier write or sync of this file failed, or it was sealed: it takes nothing more.
    #[error("{file} takes no more writes: it failed before or is sealed")]
    Closed {
        /// The file's name.
        file: String,
    },
    /// A file of this snapshot is gone, perhaps swept while it was being written.
    #[error("{file} is gone from the folder while the snapshot was being written")]
    FileGone {
        /// The file's name.
        file: String,
    },
    /// The disk failed.
    #[error("writing {file}")]
    Io {
        /// The file's name, or "the folder".
        file: String,
        /// What the disk said.
        source: io::Error,
    },
}

impl WriteError {
    /// Whether space (or a quota) ran out: something that can pass.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ))
    }
}

/// Why a file was not read. Whatever was handed out before belongs to a snapshot that cannot be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Something does not hold.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// Written by a later version of this crate.
    #[error("{file} has format version {found}, expected at most {supported}")]
    NewerFormat {
        /// The file's name.
        file: String,
        /// Its version.
        found: u16,
        /// The newest version that this build reads.
        supported: u16,
    },
    /// Written by another store.
    #[error("{file} belongs to store {}, expected {}", hex(.found), hex(.expected))]
    ForeignStore {
        /// The file's name.
        file: String,
        /// The store asked for.
        expected: StoreId,
        /// The store that wrote it.
        found: StoreId,
    },
    /// A block needs a codec that the reader was not given.
    #[error("{file} has a block at offset {offset} of codec {id}, which is unknown")]
    UnknownCodec {
        /// The file's name.
        file: String,
        /// Where the block begins.
        offset: u64,
        /// The codec's number.
        id: u8,
    },
    /// The manifest has no such part.
    #[error("there is no part {part}: the snapshot has {parts}")]
    NoSuchPart {
        /// The number asked for.
        part: usize,
        /// How many there are.
        parts: usize,
    },
    /// The name is none that a manifest or a part can have.
    #[error("{file} is not the name of a manifest or a part")]
    NotOurs {
        /// The name.
        file: String,
    },
    /// The visitor said that it has had enough.
    #[error("loading was stopped by the one who asked for it")]
    Stopped,
    /// The disk failed in a way that says nothing about the bytes.
    #[error("reading {file} at offset {offset}")]
    Io {
        /// The file's name.
        file: String,
        /// Where.
        offset: u64,
        /// What the disk said.
        source: io::Error,
    },
}

/// Why the snapshots of a folder could not be looked through. Damage is not among the reasons: that
/// is an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// A manifest was written by a later version. Starting on something older would lose what it holds.
    #[error("{file} has format version {found}, expected at most {supported}")]
    NewerFormat {
        /// The file's name.
        file: String,
        /// Its version.
        found: u16,
        /// The newest version that this build reads.
        supported: u16,
    },
    /// A manifest was written by another store.
    #[error("{file} belongs to store {}, expected {}", hex(.found), hex(.expected))]
    ForeignStore {
        /// The file's name.
        file: String,
        /// The store asked for, or that of the newest manifest.
        expected: StoreId,
        /// The store that wrote it.
        found: StoreId,
    },
    /// The disk failed in a way that says nothing about the bytes.
    #[error("going through the snapshots: {file}")]
    Io {
        /// The file's name, or "the folder".
        file: String,
        /// What the disk said.
        source: io::Error,
    },
}

fn hex(id: &StoreId) -> String {
    format!("{:032x}", u128::from_le_bytes(*id).swap_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_ids_are_shown_in_the_order_of_their_bytes() {
        let id = std::array::from_fn(|i| i as u8);
        assert_eq!(hex(&id), "000102030405060708090a0b0c0d0e0f");
    }
}
