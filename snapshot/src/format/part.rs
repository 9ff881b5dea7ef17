//! A part file around its entries: header, block headers, index, table, tail (`FORMAT.md`, "Part").

use super::filter::FILTER_MIN;
use super::{
    Mismatch, VersionedError, array_at, head, magic, put, same, same_crc, u32_at, u64_at, zero,
};
use crate::manifest::{Kind, StoreId};

/// What a part says about itself: where it belongs and what may be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHeader {
    /// The store that wrote it.
    pub store_id: StoreId,
    /// The snapshot that it is a part of.
    pub snapshot: u64,
    /// Its number there, from 0.
    pub number: u32,
    /// Full or incremental.
    pub kind: Kind,
    /// No entry has a sequence above this.
    pub cut: u64,
    /// In an increment, no entry has a sequence up to this; 0 in a full snapshot.
    pub parent_cut: u64,
}

mod header {
    pub(super) const ZERO: usize = super::head::BYTES;
    pub(super) const STORE_ID: usize = ZERO + size_of::<u16>();
    pub(super) const SNAPSHOT: usize = STORE_ID + 16;
    pub(super) const NUMBER: usize = SNAPSHOT + size_of::<u64>();
    pub(super) const KIND: usize = NUMBER + size_of::<u32>();
    pub(super) const CUT: usize = KIND + size_of::<u32>();
    pub(super) const PARENT_CUT: usize = CUT + size_of::<u64>();
    pub(super) const BYTES: usize = PARENT_CUT + size_of::<u64>();
}
/// Bytes of a part before its first block.
pub(crate) const HEADER: usize = header::BYTES;
const _: () = assert!(HEADER == 64);
const HEADER_MAGIC: &[u8; 8] = b"IFKVPART";
const FULL: u32 = 1;
const INCREMENTAL: u32 = 2;

impl PartHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        put(&mut bytes, header::STORE_ID, &self.store_id);
        put(&mut bytes, header::SNAPSHOT, &self.snapshot.to_le_bytes());
        put(&mut bytes, header::NUMBER, &self.number.to_le_bytes());
        let kind = match self.kind {
            Kind::Full => FULL,
            Kind::Incremental => INCREMENTAL,
        };
        put(&mut bytes, header::KIND, &kind.to_le_bytes());
        put(&mut bytes, header::CUT, &self.cut.to_le_bytes());
        put(
            &mut bytes,
            header::PARENT_CUT,
            &self.parent_cut.to_le_bytes(),
        );
        head::put_head(&mut bytes, HEADER_MAGIC);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Result<Self, VersionedError> {
        head::check_head(bytes, HEADER_MAGIC)?;
        zero(header::ZERO, &bytes[header::ZERO..header::STORE_ID])?;
        let kind = match u32_at(bytes, header::KIND) {
            FULL => Kind::Full,
            INCREMENTAL => Kind::Incremental,
            other => return Err(Mismatch::new(header::KIND, "a kind of 1 or 2", other).into()),
        };
        Ok(Self {
            store_id: array_at(bytes, header::STORE_ID),
            snapshot: u64_at(bytes, header::SNAPSHOT),
            number: u32_at(bytes, header::NUMBER),
            kind,
            cut: u64_at(bytes, header::CUT),
            parent_cut: u64_at(bytes, header::PARENT_CUT),
        })
    }

    /// Whether this is the header that `expected` describes; the store is compared before.
    pub(crate) fn same_as(&self, expected: &Self) -> Result<(), Mismatch> {
        same(
            header::SNAPSHOT,
            "a part of snapshot",
            expected.snapshot,
            self.snapshot,
        )?;
        same(header::NUMBER, "part number", expected.number, self.number)?;
        same(header::KIND, "a part that is", expected.kind, self.kind)?;
        same(header::CUT, "the cut", expected.cut, self.cut)?;
        same(
            header::PARENT_CUT,
            "the parent's cut",
            expected.parent_cut,
            self.parent_cut,
        )
    }
}

/// What precedes a block's stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) number: u32,
    pub(crate) codec: u8,
    pub(crate) raw_len: u32,
    pub(crate) stored_len: u32,
    pub(crate) entries: u32,
    pub(crate) tombstones: u32,
    pub(crate) stored_crc: u32,
    pub(crate) filter_len: u32,
    pub(crate) filter_crc: u32,
}

mod block {
    pub(super) const MAGIC: usize = 0;
    pub(super) const CRC: usize = MAGIC + 4;
    pub(super) const NUMBER: usize = CRC + size_of::<u32>();
    pub(super) const CODEC: usize = NUMBER + size_of::<u32>();
    pub(super) const ZERO: usize = CODEC + 1;
    pub(super) const RAW_LEN: usize = ZERO + 3;
    pub(super) const STORED_LEN: usize = RAW_LEN + size_of::<u32>();
    pub(super) const ENTRIES: usize = STORED_LEN + size_of::<u32>();
    pub(super) const TOMBSTONES: usize = ENTRIES + size_of::<u32>();
    pub(super) const STORED_CRC: usize = TOMBSTONES + size_of::<u32>();
    pub(super) const FILTER_LEN: usize = STORED_CRC + size_of::<u32>();
    pub(super) const FILTER_CRC: usize = FILTER_LEN + size_of::<u32>();
    pub(super) const BYTES: usize = FILTER_CRC + size_of::<u32>();
}
/// Bytes of a block before its filter and what is stored.
pub(crate) const BLOCK_HEADER: usize = block::BYTES;
const _: () = assert!(BLOCK_HEADER == 44);
pub(crate) const BLOCK_MAGIC: &[u8; 4] = b"BLOK";
/// The largest block before compression: the largest value, behind a block that was not quite full.
pub(crate) const BLOCK_RAW_MAX: usize = (1 << 30) + (17 << 20);

impl BlockHeader {
    pub(crate) fn encode(&self) -> [u8; BLOCK_HEADER] {
        let mut bytes = [0; BLOCK_HEADER];
        put(&mut bytes, block::MAGIC, BLOCK_MAGIC);
        put(&mut bytes, block::NUMBER, &self.number.to_le_bytes());
        bytes[block::CODEC] = self.codec;
        put(&mut bytes, block::RAW_LEN, &self.raw_len.to_le_bytes());
        put(
            &mut bytes,
            block::STORED_LEN,
            &self.stored_len.to_le_bytes(),
        );
        put(&mut bytes, block::ENTRIES, &self.entries.to_le_bytes());
        put(
            &mut bytes,
            block::TOMBSTONES,
            &self.tombstones.to_le_bytes(),
        );
        put(
            &mut bytes,
            block::STORED_CRC,
            &self.stored_crc.to_le_bytes(),
        );
        put(
            &mut bytes,
            block::FILTER_LEN,
            &self.filter_len.to_le_bytes(),
        );
        put(
            &mut bytes,
            block::FILTER_CRC,
            &self.filter_crc.to_le_bytes(),
        );
        let crc = crc32fast::hash(&bytes[block::NUMBER..]);
        put(&mut bytes, block::CRC, &crc.to_le_bytes());
        bytes
    }

    /// A block's header, its lengths within the format's limits.
    pub(crate) fn decode(head: &[u8; BLOCK_HEADER], number: u32) -> Result<Self, Mismatch> {
        magic(block::MAGIC, BLOCK_MAGIC, &head[..block::CRC])?;
        same_crc(block::CRC, u32_at(head, block::CRC), &head[block::NUMBER..])?;
        zero(block::ZERO, &head[block::ZERO..block::RAW_LEN])?;
        let header = Self {
            number: u32_at(head, block::NUMBER),
            codec: head[block::CODEC],
            raw_len: u32_at(head, block::RAW_LEN),
            stored_len: u32_at(head, block::STORED_LEN),
            entries: u32_at(head, block::ENTRIES),
            tombstones: u32_at(head, block::TOMBSTONES),
            stored_crc: u32_at(head, block::STORED_CRC),
            filter_len: u32_at(head, block::FILTER_LEN),
            filter_crc: u32_at(head, block::FILTER_CRC),
        };
        same(block::NUMBER, "block number", number, header.number)?;
        lengths(
            block::RAW_LEN,
            header.raw_len,
            header.stored_len,
            header.filter_len,
        )?;
        Ok(header)
    }

    /// Whether this is the block that the index describes.
    pub(crate) fn same_as(&self, slot: &IndexSlot) -> Result<(), Mismatch> {
        same(
            block::RAW_LEN,
            "the index's raw length",
            slot.raw_len,
            self.raw_len,
        )?;
        same(
            block::STORED_LEN,
            "the index's stored length",
            slot.stored_len,
            self.stored_len,
        )?;
        same(
            block::ENTRIES,
            "the index's count of entries",
            slot.entries,
            self.entries,
        )?;
        same(
            block::TOMBSTONES,
            "the index's count of tombstones",
            slot.tombstones,
            self.tombstones,
        )?;
        same(
            block::FILTER_LEN,
            "the index's length of the filter",
            slot.filter_len,
            self.filter_len,
        )
    }

    /// Filter and stored bytes, taken from what lies behind the header and held against their checksums.
    pub(crate) fn contents<'a>(&self, behind: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Mismatch> {
        let (filter, stored) = behind.split_at(self.filter_len as usize);
        same_crc(block::FILTER_CRC, self.filter_crc, filter)?;
        same_crc(block::STORED_CRC, self.stored_crc, stored)?;
        Ok((filter, stored))
    }

    /// Length of filter and stored bytes: what lies behind the header.
    pub(crate) fn behind(&self) -> u64 {
        u64::from(self.filter_len) + u64::from(self.stored_len)
    }
}

/// The lengths of a block are within their limits; `at` is where the first of them stands.
fn lengths(at: usize, raw_len: u32, stored_len: u32, filter_len: u32) -> Result<(), Mismatch> {
    if raw_len == 0 || raw_len as usize > BLOCK_RAW_MAX {
        return Err(Mismatch::new(
            at,
            format_args!("a raw length from 1 to {BLOCK_RAW_MAX}"),
            raw_len,
        ));
    }
    if stored_len == 0 || stored_len > raw_len {
        return Err(Mismatch::new(
            at + 4,
            format_args!("a stored length from 1 to {raw_len}"),
            stored_len,
        ));
    }
    // An entry has at least 40 bytes and five hashes of ten bits.
    let filter_max = raw_len / 4;
    if (filter_len as usize) < FILTER_MIN || filter_len > filter_max {
        return Err(Mismatch::new(
            at,
            format_args!("a filter of {FILTER_MIN} to {filter_max} bytes"),
            filter_len,
        ));
    }
    Ok(())
}

/// Where a block is, as the index section says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexSlot {
    pub(crate) offset: u64,
    pub(crate) raw_len: u32,
    pub(crate) stored_len: u32,
    pub(crate) entries: u32,
    pub(crate) tombstones: u32,
    pub(crate) filter_len: u32,
}

/// Bytes of one slot.
pub(crate) const INDEX_SLOT: usize = 28;

impl IndexSlot {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.raw_len.to_le_bytes());
        out.extend_from_slice(&self.stored_len.to_le_bytes());
        out.extend_from_slice(&self.entries.to_le_bytes());
        out.extend_from_slice(&self.tombstones.to_le_bytes());
        out.extend_from_slice(&self.filter_len.to_le_bytes());
    }

    /// Length of the block with its header and its filter.
    pub(crate) fn block_len(&self) -> u64 {
        BLOCK_HEADER as u64 + u64::from(self.filter_len) + u64::from(self.stored_len)
    }
}

/// The index of a part whose blocks must fill the file from the header up to `blocks_end`.
pub(crate) fn decode_index(bytes: &[u8], blocks_end: u64) -> Result<Vec<IndexSlot>, Mismatch> {
    if !bytes.len().is_multiple_of(INDEX_SLOT) {
        return Err(Mismatch::new(
            0,
            format_args!("an index of a multiple of {INDEX_SLOT} bytes"),
            bytes.len(),
        ));
    }
    let mut slots = Vec::with_capacity(bytes.len() / INDEX_SLOT);
    let mut next = HEADER as u64;
    for (i, slot) in bytes.chunks_exact(INDEX_SLOT).enumerate() {
        let at = i * INDEX_SLOT;
        let slot = IndexSlot {
            offset: u64_at(slot, 0),
            raw_len: u32_at(slot, 8),
            stored_len: u32_at(slot, 12),
            entries: u32_at(slot, 16),
            tombstones: u32_at(slot, 20),
            filter_len: u32_at(slot, 24),
        };
        same(at, "a block at offset", next, slot.offset)?;
        lengths(at + 8, slot.raw_len, slot.stored_len, slot.filter_len)?;
        // At most one block of 1 GiB per 28 bytes read: far from wrapping.
        next += slot.block_len();
        slots.push(slot);
    }
    same(bytes.len(), "an end of the blocks at", blocks_end, next)?;
    Ok(slots)
}

/// What the table says of one section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) kind: u32,
    pub(crate) crc: u32,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// The kind of the index section.
pub(crate) const INDEX: u32 = 1;
/// Bytes of one section in the table.
pub(crate) const SECTION: usize = 24;
const SECTIONS_MAX: u32 = 64;

mod tail {
    pub(super) const TABLE_OFFSET: usize = 0;
    pub(super) const SECTIONS: usize = TABLE_OFFSET + size_of::<u64>();
    pub(super) const ZERO: usize = SECTIONS + size_of::<u32>();
    pub(super) const CRC: usize = ZERO + size_of::<u32>();
    pub(super) const MAGIC: usize = CRC + size_of::<u32>();
    pub(super) const BYTES: usize = MAGIC + 8;
}
/// Bytes at the end of a part, behind the table.
pub(crate) const TAIL: usize = tail::BYTES;
const _: () = assert!(TAIL == 28);
const TAIL_MAGIC: &[u8; 8] = b"IFKVTAIL";

/// Table and tail, for sections that end where the table begins.
pub(crate) fn encode_table(sections: &[Section], table_offset: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(sections.len() * SECTION + TAIL);
    for section in sections {
        bytes.extend_from_slice(&section.kind.to_le_bytes());
        bytes.extend_from_slice(&section.crc.to_le_bytes());
        bytes.extend_from_slice(&section.offset.to_le_bytes());
        bytes.extend_from_slice(&section.len.to_le_bytes());
    }
    bytes.extend_from_slice(&table_offset.to_le_bytes());
    bytes.extend_from_slice(&(sections.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; tail::CRC - tail::ZERO]);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(TAIL_MAGIC);
    bytes
}

/// Where the table of a file of `file_len` bytes begins, by its last bytes. The checksum covers the
/// table as well, so this is only bounded, not yet verified.
pub(crate) fn decode_tail(bytes: &[u8; TAIL], file_len: u64) -> Result<u64, Mismatch> {
    magic(tail::MAGIC, TAIL_MAGIC, &bytes[tail::MAGIC..])?;
    zero(tail::ZERO, &bytes[tail::ZERO..tail::CRC])?;
    let sections = u32_at(bytes, tail::SECTIONS);
    if !(1..=SECTIONS_MAX).contains(&sections) {
        return Err(Mismatch::new(
            tail::SECTIONS,
            format_args!("from 1 to {SECTIONS_MAX} sections"),
            sections,
        ));
    }
    let behind = u64::from(sections) * SECTION as u64 + TAIL as u64;
    let expected = file_len
        .checked_sub(behind)
        .filter(|&at| at >= HEADER as u64);
    let found = u64_at(bytes, tail::TABLE_OFFSET);
    match expected {
        Some(expected) => same(tail::TABLE_OFFSET, "a table at offset", expected, found)?,
        None => {
            return Err(Mismatch::new(
                tail::SECTIONS,
                "sections that fit the file",
                sections,
            ));
        }
    }
    Ok(found)
}

/// The sections of a part, from its table and tail; they fill the file from the end of the blocks to
/// `table_offset`, the index first.
pub(crate) fn decode_table(bytes: &[u8], table_offset: u64) -> Result<Vec<Section>, Mismatch> {
    let (checked, crc) = bytes.split_at(bytes.len() - TAIL + tail::CRC);
    same_crc(checked.len(), u32_at(crc, 0), checked)?;
    let table = &checked[..checked.len() - tail::CRC];
    let sections: Vec<Section> = table
        .chunks_exact(SECTION)
        .map(|section| Section {
            kind: u32_at(section, 0),
            crc: u32_at(section, 4),
            offset: u64_at(section, 8),
            len: u64_at(section, 16),
        })
        .collect();
    let mut next = sections.first().map_or(0, |index| index.offset);
    if next < HEADER as u64 {
        return Err(Mismatch::new(8, "a first section behind the header", next));
    }
    for (i, section) in sections.iter().enumerate() {
        let at = i * SECTION;
        if (section.kind == INDEX) != (i == 0) {
            return Err(Mismatch::new(
                at,
                "the index first, and only once",
                format_args!("a section of kind {} at place {i}", section.kind),
            ));
        }
        same(at + 8, "a section at offset", next, section.offset)?;
        next = next
            .checked_add(section.len)
            .filter(|&end| end <= table_offset)
            .ok_or_else(|| {
                Mismatch::new(at + 16, "a section that ends before the table", section.len)
            })?;
    }
    same(table.len(), "sections that end at", table_offset, next)?;
    Ok(sections)
}
