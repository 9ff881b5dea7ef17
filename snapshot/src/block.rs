//! Blocks, between their entries and their bytes: checked, filtered, compressed; and back.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::codec::{BlockCodec, Plain};
use crate::entry::{EntryRef, RawBlock};
use crate::error::{LoadError, WriteError};
use crate::format::entry::{Tally, parse, walk};
use crate::format::filter::FilterBuilder;
use crate::format::part::{BLOCK_HEADER, BLOCK_RAW_MAX, BlockHeader, PartHeader};
use crate::format::{Mismatch, same};
use crate::reader::Place;

/// A buffer that one large block blew up beyond this is not kept for the small ones after it.
pub(crate) const BUFFER_KEPT_MAX: usize = 1 << 20;

/// Makes bytes of blocks.
pub(crate) struct BlockEncoder {
    codec: Arc<dyn BlockCodec>,
    filter: FilterBuilder,
    buffer: Vec<u8>,
    digest: u64,
}

impl BlockEncoder {
    pub(crate) fn new(codec: Arc<dyn BlockCodec>) -> Self {
        Self {
            codec,
            filter: FilterBuilder::default(),
            buffer: Vec::new(),
            digest: 0,
        }
    }

    /// The bytes of block `number`, which is not empty. Every entry is decoded first as a reader would, its value's
    /// checksum included.
    pub(crate) fn encode(
        &mut self,
        block: RawBlock,
        number: u32,
        place: &PartHeader,
    ) -> Result<(BlockHeader, Vec<u8>), WriteError> {
        let tally = self
            .check(&block, number, place)
            .map_err(|mismatch| refusal(&block, place, mismatch))?;
        let raw = block.bytes;
        let filter = self.filter.take();
        let behind = BLOCK_HEADER + filter.len();
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.clear();
        bytes.resize(BLOCK_HEADER, 0);
        bytes.extend_from_slice(&filter);
        let codec = self.fill(&raw, &mut bytes, behind);
        let stored = &bytes[behind..];
        // The casts lose nothing: raw is at most BLOCK_RAW_MAX, stored and filter are no longer.
        let header = BlockHeader {
            number,
            codec,
            raw_len: raw.len() as u32,
            stored_len: stored.len() as u32,
            entries: tally.entries,
            tombstones: tally.tombstones,
            stored_crc: crc32fast::hash(stored),
            filter_len: filter.len() as u32,
            filter_crc: crc32fast::hash(&filter),
        };
        bytes[..BLOCK_HEADER].copy_from_slice(&header.encode());
        self.digest = tally.digest;
        Ok((header, bytes))
    }

    /// Sum of the digests of the block encoded last.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Bytes that are no longer needed serve the next block.
    pub(crate) fn give_back(&mut self, bytes: Vec<u8>) {
        if bytes.capacity() <= BUFFER_KEPT_MAX {
            self.buffer = bytes;
        }
    }

    fn check(
        &mut self,
        block: &RawBlock,
        number: u32,
        place: &PartHeader,
    ) -> Result<Tally, Mismatch> {
        if block.len() > BLOCK_RAW_MAX {
            return Err(Mismatch::new(
                0,
                format_args!("a block of at most {BLOCK_RAW_MAX} bytes"),
                block.len(),
            ));
        }
        if number == u32::MAX {
            return Err(Mismatch::new(
                0,
                format_args!("at most {} blocks", u32::MAX),
                "one more",
            ));
        }
        let filter = &mut self.filter;
        let note = |entry: EntryRef<'_>| -> ControlFlow<Infallible> {
            filter.add(entry.key);
            ControlFlow::Continue(())
        };
        match walk(&block.bytes, place, note) {
            Ok(ControlFlow::Continue(tally)) => Ok(tally),
            Ok(ControlFlow::Break(never)) => match never {},
            Err(mismatch) => {
                // What was noted of a block that is not written does not belong to the next one.
                self.filter.take();
                Err(mismatch)
            }
        }
    }

    /// Appends the stored bytes behind header and filter; says which codec it was.
    fn fill(&self, raw: &[u8], bytes: &mut Vec<u8>, behind: usize) -> u8 {
        let id = self.codec.id();
        if id != Plain::ID {
            self.codec.compress(raw, bytes);
            if bytes.len() - behind < raw.len() && bytes.len() > behind {
                return id;
            }
            bytes.truncate(behind);
        }
        bytes.extend_from_slice(raw);
        Plain::ID
    }
}

/// Why a block is not written: the first value in it that is damaged, or else what `mismatch` says.
#[cold]
fn refusal(block: &RawBlock, place: &PartHeader, mismatch: Mismatch) -> WriteError {
    let mut rest = &block.bytes[..];
    while let Ok((entry, len)) = parse(rest) {
        let found = crc32fast::hash(entry.value);
        if found != entry.value_crc {
            return WriteError::Value {
                key: entry.key.to_owned(),
                expected: entry.value_crc,
                found,
            };
        }
        rest = &rest[len..];
    }
    WriteError::Block {
        part: place.number as usize,
        expected: mismatch.expected,
        found: mismatch.found,
    }
}

/// The entries of a block: the stored bytes themselves, or what its codec makes of them in `raw`.
pub(crate) fn entries_of<'a>(
    place: Place<'_>,
    block: &BlockHeader,
    stored: &'a [u8],
    codecs: &[&dyn BlockCodec],
    raw: &'a mut Vec<u8>,
) -> Result<&'a [u8], LoadError> {
    let raw_len = block.raw_len as usize;
    if block.codec == Plain::ID {
        same(0, "plain bytes:", raw_len, stored.len()).map_err(|found| place.damage(found))?;
        return Ok(stored);
    }
    let Some(codec) = codecs.iter().find(|codec| codec.id() == block.codec) else {
        return Err(LoadError::UnknownCodec {
            file: place.file.to_owned(),
            offset: place.offset,
            id: block.codec,
        });
    };
    raw.clear();
    codec.decompress(stored, raw_len, raw).map_err(|error| {
        let expected = format!("a block that codec {} decompresses", block.codec);
        place.damage(Mismatch::new(0, expected, error))
    })?;
    same(0, "decompressed bytes:", raw_len, raw.len()).map_err(|found| place.damage(found))?;
    Ok(raw)
}

/// Hands out the entries of a block and holds them against its header.
pub(crate) fn visit_entries(
    place: Place<'_>,
    block: &BlockHeader,
    entries: &[u8],
    header: &PartHeader,
    visit: impl FnMut(EntryRef<'_>) -> ControlFlow<()>,
) -> Result<Tally, LoadError> {
    let tally = match walk(entries, header, visit) {
        Ok(ControlFlow::Continue(tally)) => tally,
        Ok(ControlFlow::Break(())) => return Err(LoadError::Stopped),
        Err(mismatch) => {
            let Mismatch {
                offset,
                expected,
                found,
            } = mismatch;
            let expected = format!("{offset} bytes into block {}, {expected}", block.number);
            return Err(place.damage(Mismatch::new(0, expected, found)));
        }
    };
    same(0, "entries:", block.entries, tally.entries).map_err(|found| place.damage(found))?;
    same(0, "tombstones:", block.tombstones, tally.tombstones)
        .map_err(|found| place.damage(found))?;
    Ok(tally)
}
