//! One part file: blocks compressed and written one behind the other, then index, table and tail.

use std::io;
use std::sync::Arc;

use crate::block::BlockEncoder;
use crate::codec::BlockCodec;
use crate::entry::RawBlock;
use crate::error::WriteError;
use crate::format::part::{HEADER, INDEX, IndexSlot, PartHeader, Section, encode_table};
use crate::manifest::{Part, StoreId};
use crate::storage::{File, Storage};

/// Writes one part of a snapshot, on whatever thread it is moved to.
pub struct PartWriter {
    file: Box<dyn File>,
    encoder: BlockEncoder,
    header: PartHeader,
    state: State,
    /// Where the next byte goes, and the checksum of all before it.
    offset: u64,
    crc: crc32fast::Hasher,
    index: Vec<u8>,
    /// What the manifest will say; complete once sealed.
    part: Part,
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
            encoder: BlockEncoder::new(codec),
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
        let (header, bytes) = self.encoder.encode(block, self.part.blocks, &self.header)?;
        let slot = IndexSlot {
            offset: self.offset,
            raw_len: header.raw_len,
            stored_len: header.stored_len,
            entries: header.entries,
            tombstones: header.tombstones,
            filter_len: header.filter_len,
        };
        let digest = self.encoder.digest();
        self.append(&bytes)?;
        self.encoder.give_back(bytes);
        slot.encode(&mut self.index);
        let part = &mut self.part;
        part.blocks += 1;
        part.block_raw_max = part.block_raw_max.max(header.raw_len);
        part.raw_bytes += u64::from(header.raw_len);
        part.entries += u64::from(header.entries);
        part.tombstones += u64::from(header.tombstones);
        part.digest = part.digest.wrapping_add(digest);
        Ok(())
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
