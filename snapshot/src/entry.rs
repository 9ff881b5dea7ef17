//! An entry as it goes into a snapshot and comes out, and the block that gathers entries. No I/O: both
//! live where the entries are.

use crate::error::EntryError;
use crate::format::entry::{self as format, KEY_BYTES_MAX, MEDIA_BYTES_MAX, VALUE_BYTES_MAX};
use crate::options::Options;

/// One key's state at the cut, borrowed from wherever it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// The change that made it.
    pub sequence: u64,
    /// The client's counter of this key.
    pub version: u64,
    /// In milliseconds since the epoch; never `Some(0)`.
    pub expires_at: Option<u64>,
    /// The key is exempt from eviction.
    pub pinned: bool,
    /// The crc32 (IEEE) of the value, computed when the value entered the store.
    pub value_crc: u32,
    /// A delete since the parent's cut.
    pub tombstone: bool,
    /// None is JSON; never `Some("")`.
    pub media_type: Option<&'a str>,
    /// At most 65,535 bytes.
    pub key: &'a str,
    /// Empty in a tombstone.
    pub value: &'a [u8],
}

impl<'a> EntryRef<'a> {
    /// The delete of `key` by the change `sequence`.
    #[must_use]
    pub fn deleted(key: &'a str, sequence: u64) -> Self {
        Self {
            sequence,
            version: 0,
            expires_at: None,
            pinned: false,
            value_crc: 0,
            tombstone: true,
            media_type: None,
            key,
            value: &[],
        }
    }

    /// What this entry adds (wrapping) to the digests of its part and its snapshot. It stands for
    /// every field, and for the value by its checksum.
    #[must_use]
    pub fn digest(&self) -> u64 {
        format::digest(self)
    }

    /// Whether there is nothing but key, sequence and version.
    pub(crate) fn is_bare(&self) -> bool {
        self.value.is_empty()
            && self.media_type.is_none()
            && self.expires_at.is_none()
            && !self.pinned
    }

    fn check(&self, value_bytes_max: usize) -> Result<(), EntryError> {
        let media_len = self.media_type.map_or(0, str::len);
        if self.key.len() > KEY_BYTES_MAX {
            return Err(EntryError::KeyTooLong {
                found: self.key.len(),
                max: KEY_BYTES_MAX,
            });
        }
        if media_len > MEDIA_BYTES_MAX {
            return Err(EntryError::MediaTypeTooLong {
                found: media_len,
                max: MEDIA_BYTES_MAX,
            });
        }
        if self.value.len() > value_bytes_max {
            return Err(EntryError::ValueTooLong {
                found: self.value.len(),
                max: value_bytes_max,
            });
        }
        if self.media_type == Some("") {
            return Err(EntryError::MediaTypeEmpty);
        }
        if self.expires_at == Some(0) {
            return Err(EntryError::ExpiryZero);
        }
        if self.tombstone && !self.is_bare() {
            return Err(EntryError::TombstoneNotBare);
        }
        Ok(())
    }
}

/// Gathers entries into a block. Pushing copies the entry and does nothing else, so it is cheap enough
/// for an event loop; compressing, checking and writing happen where the block is handed to.
#[derive(Debug)]
pub struct BlockBuilder {
    block_bytes: usize,
    value_bytes_max: usize,
    block: RawBlock,
}

impl BlockBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            block_bytes: options.block_bytes,
            value_bytes_max: options.value_bytes_max.min(VALUE_BYTES_MAX),
            block: RawBlock::default(),
        }
    }

    /// Adds an entry. `true` says that the block is full and is best taken now.
    ///
    /// # Errors
    /// When no block can hold the entry; nothing was added.
    pub fn push(&mut self, entry: EntryRef<'_>) -> Result<bool, EntryError> {
        entry.check(self.value_bytes_max)?;
        let block = &mut self.block;
        if block.bytes.is_empty() {
            // The last entry overshoots a little; one that overshoots much grows the block anyway.
            block
                .bytes
                .reserve(self.block_bytes + self.block_bytes / 16);
        }
        format::encode(&entry, &mut block.bytes);
        if entry.tombstone {
            block.tombstones += 1;
        } else {
            block.entries += 1;
        }
        Ok(block.bytes.len() >= self.block_bytes)
    }

    /// The entries so far, perhaps none, leaving an empty builder.
    #[must_use]
    pub fn take(&mut self) -> RawBlock {
        std::mem::take(&mut self.block)
    }

    /// Whether nothing was pushed since the last take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// Bytes gathered since the last take.
    #[must_use]
    pub fn len(&self) -> usize {
        self.block.bytes.len()
    }
}

/// Encoded entries on their way to a [`PartWriter`](crate::PartWriter).
#[derive(Debug, Default)]
pub struct RawBlock {
    pub(crate) bytes: Vec<u8>,
    pub(crate) entries: u32,
    pub(crate) tombstones: u32,
}

impl RawBlock {
    /// Live entries.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Tombstones.
    #[must_use]
    pub fn tombstones(&self) -> u32 {
        self.tombstones
    }

    /// Length before compression: what it weighs while it waits.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no entry in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
