//! One part file: blocks compressed and written one behind the other, then index, table and tail.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::codec::{BlockCodec, Plain};
use crate::entry::RawBlock;
use crate::error::WriteError;
use crate::format::entry::{Tally, walk};
use crate::format::part::{
    BLOCK_HEADER, BLOCK_RAW_MAX, BlockHeader, HEADER, INDEX, IndexSlot, PartHeader, Section,
    encode_table,
};
use crate::manifest::{Part, StoreId};
use crate::storage::{File, Storage};

/// A buffer that one large block blew up beyond this is not kept for the small ones after it.
const BUFFER_KEPT_MAX: usize = 1 << 20;

/// Writes one part of a snapshot, on whatever thread it is moved to.
pub struct PartWriter {
    file: Box<dyn File>,
    codec: Arc<dyn BlockCodec>,
    header: PartHeader,
    state: State,
    /// Where the next byte goes, and the checksum of all before it.
    offset: u64,
    crc: crc32fast::Hasher,
    index: Vec<u8>,
    /// What the manifest will say; complete once sealed.
    part: Part,
    buffer: Vec<u8>,
}

/// Nothing is written to a file that failed: what it holds is not known any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Sealed,
    Failed,
}

impl PartWriter {
    pub(crate) fn create(
        storage: &dyn Storage,
        name: String,
        header: PartHeader,
        codec: Arc<dyn BlockCodec>,
    ) -> Result<Self, WriteError> {
        let file = match storage.create(&name) {
            Ok(file) => file,
            Err(source) => return Err(WriteError::Io { file: name, source }),
        };
        let mut writer = Self {
            file,
            codec,
            header,
            state: State::Open,
            offset: 0,
            crc: crc32fast::Hasher::new(),
            index: Vec::new(),
            part: Part {
                name,
                bytes: 0,
                raw_bytes: 0,
                blocks: 0,
                block_raw_max: 0,
                entries: 0,
                tombstones: 0,
                crc: 0,
                digest: 0,
            },
            buffer: Vec::new(),
        };
        writer.append(&header.encode())?;
        debug_assert_eq!(writer.offset, HEADER as u64);
        Ok(writer)
    }

    /// The part's number in its snapshot.
    #[must_use]
    pub fn number(&self) -> usize {
        self.header.number as usize
    }

    /// Bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    pub(crate) fn belongs_to(&self, store_id: &StoreId, snapshot: u64) -> bool {
        self.header.store_id == *store_id && self.header.snapshot == snapshot
    }

    /// Compresses a block and writes it. Every entry is decoded and checked first as a reader would,
    /// its value's checksum included: an entry damaged in memory must stop the snapshot now, while
    /// what could replace it is still there, and not the restart that needs it. An empty block is
    /// ignored.
    ///
    /// # Errors
    /// When an entry does not hold or does not belong between the cuts, nothing of the block is
    /// written. When the disk fails, the part takes nothing more.
    pub fn write(&mut self, block: RawBlock) -> Result<(), WriteError> {
        self.open()?;
        if block.is_empty() {
            return Ok(());
        }
        let tally = self.check(&block)?;
        let raw = block.bytes;
        let codec = self.fill(&raw);
        let stored = &self.buffer[BLOCK_HEADER..];
        // The casts lose nothing: raw is at most BLOCK_RAW_MAX, stored no longer.
        let header = BlockHeader {
            number: self.part.blocks,
            codec,
            raw_len: raw.len() as u32,
            stored_len: stored.len() as u32,
            entries: tally.entries,
            tombstones: tally.tombstones,
            stored_crc: crc32fast::hash(stored),
        };
        let slot = IndexSlot {
            offset: self.offset,
            raw_len: header.raw_len,
            stored_len: header.stored_len,
            entries: header.entries,
            tombstones: header.tombstones,
        };
        self.buffer[..BLOCK_HEADER].copy_from_slice(&header.encode());
        let buffer = std::mem::take(&mut self.buffer);
        self.append(&buffer)?;
        if buffer.capacity() <= BUFFER_KEPT_MAX {
            self.buffer = buffer;
        }
        slot.encode(&mut self.index);
        let part = &mut self.part;
        part.blocks += 1;
        part.block_raw_max = part.block_raw_max.max(header.raw_len);
        part.raw_bytes += u64::from(header.raw_len);
        part.entries += u64::from(tally.entries);
        part.tombstones += u64::from(tally.tombstones);
        part.digest = part.digest.wrapping_add(tally.digest);
        Ok(())
    }

    fn check(&self, block: &RawBlock) -> Result<Tally, WriteError> {
        let refused = |expected: String, found: String| WriteError::Block {
            part: self.number(),
            expected,
            found,
        };
        if block.len() > BLOCK_RAW_MAX {
            return Err(refused(
                format!("a block of at most {BLOCK_RAW_MAX} bytes"),
                block.len().to_string(),
            ));
        }
        if self.part.blocks == u32::MAX {
            return Err(refused(
                format!("at most {} blocks", u32::MAX),
                "one more".to_owned(),
            ));
        }
        let never = |_: crate::EntryRef<'_>| ControlFlow::<std::convert::Infallible>::Continue(());
        match walk(&block.bytes, &self.header, never) {
            Ok(ControlFlow::Continue(tally)) => Ok(tally),
            Ok(ControlFlow::Break(never)) => match never {},
            Err(mismatch) => Err(refused(mismatch.expected, mismatch.found)),
        }
    }

    /// Leaves room for a header and the stored bytes behind it in the buffer; says which codec it was.
    fn fill(&mut self, raw: &[u8]) -> u8 {
        let buffer = &mut self.buffer;
        buffer.clear();
        buffer.resize(BLOCK_HEADER, 0);
        let id = self.codec.id();
        if id != Plain::ID {
            self.codec.compress(raw, buffer);
            if buffer.len() - BLOCK_HEADER < raw.len() && buffer.len() > BLOCK_HEADER {
                return id;
            }
            buffer.truncate(BLOCK_HEADER);
        }
        buffer.extend_from_slice(raw);
        Plain::ID
    }

    /// Writes what follows the blocks, and syncs the file. [`finish`](crate::SnapshotWriter::finish)
    /// does it where it was not done; done on the part's own thread, the syncs run side by side.
    ///
    /// # Errors
    /// When the disk fails or failed before.
    pub fn seal(&mut self) -> Result<(), WriteError> {
        if self.state == State::Sealed {
            return Ok(());
        }
        self.open()?;
        let index = std::mem::take(&mut self.index);
        let section = Section {
            kind: INDEX,
            crc: crc32fast::hash(&index),
            offset: self.offset,
            len: index.len() as u64,
        };
        let mut end = index;
        let table_offset = section.offset + section.len;
        end.extend_from_slice(&encode_table(&[section], table_offset));
        self.append(&end)?;
        if let Err(source) = self.file.sync() {
            return Err(self.fail(source));
        }
        self.part.bytes = self.offset;
        self.part.crc = self.crc.clone().finalize();
        self.state = State::Sealed;
        Ok(())
    }

    pub(crate) fn into_sealed(mut self) -> Result<Part, WriteError> {
        self.seal()?;
        Ok(self.part)
    }

    fn open(&self) -> Result<(), WriteError> {
        match self.state {
            State::Open => Ok(()),
            State::Sealed | State::Failed => Err(WriteError::Closed {
                file: self.part.name.clone(),
            }),
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        if let Err(source) = self.file.write_at(self.offset, bytes) {
            return Err(self.fail(source));
        }
        self.crc.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn fail(&mut self, source: io::Error) -> WriteError {
        self.state = State::Failed;
        WriteError::Io {
            file: self.part.name.clone(),
            source,
        }
    }
}
