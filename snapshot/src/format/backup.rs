//! A backup around its blocks: header and trailer (`FORMAT.md`, "Backup").

use super::{
    Mismatch, VersionedError, array_at, head, magic, put, same, same_crc, u32_at, u64_at, zero,
};
use crate::manifest::StoreId;

/// What a backup says about itself at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupHeader {
    /// The store that wrote it.
    pub store_id: StoreId,
    /// It holds every change up to this sequence and none above.
    pub cut: u64,
    /// Milliseconds since the epoch.
    pub created_at_ms: u64,
    /// Partitions of the store when it wrote; for people.
    pub partitions: u32,
}

mod header {
    pub(super) const ZERO_A: usize = super::head::BYTES;
    pub(super) const STORE_ID: usize = ZERO_A + size_of::<u16>();
    pub(super) const CUT: usize = STORE_ID + 16;
    pub(super) const CREATED_AT: usize = CUT + size_of::<u64>();
    pub(super) const PARTITIONS: usize = CREATED_AT + size_of::<u64>();
    pub(super) const ZERO_B: usize = PARTITIONS + size_of::<u32>();
    pub(super) const BYTES: usize = ZERO_B + 12;
}
/// Bytes of a backup before its blocks.
pub(crate) const HEADER: usize = header::BYTES;
const _: () = assert!(HEADER == 64);
pub(crate) const HEADER_MAGIC: &[u8; 8] = b"IFKVBKUP";

impl BackupHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        put(&mut bytes, header::STORE_ID, &self.store_id);
        put(&mut bytes, header::CUT, &self.cut.to_le_bytes());
        put(
            &mut bytes,
            header::CREATED_AT,
            &self.created_at_ms.to_le_bytes(),
        );
        put(
            &mut bytes,
            header::PARTITIONS,
            &self.partitions.to_le_bytes(),
        );
        head::put_head(&mut bytes, HEADER_MAGIC);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Result<Self, VersionedError> {
        head::check_head(bytes, HEADER_MAGIC)?;
        zero(header::ZERO_A, &bytes[header::ZERO_A..header::STORE_ID])?;
        zero(header::ZERO_B, &bytes[header::ZERO_B..])?;
        Ok(Self {
            store_id: array_at(bytes, header::STORE_ID),
            cut: u64_at(bytes, header::CUT),
            created_at_ms: u64_at(bytes, header::CREATED_AT),
            partitions: u32_at(bytes, header::PARTITIONS),
        })
    }
}

/// What the end of a backup says of everything before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) blocks: u32,
    pub(crate) bytes: u64,
    pub(crate) raw_bytes: u64,
    pub(crate) entries: u64,
    pub(crate) digest: u64,
    pub(crate) crc: u32,
    pub(crate) cut: u64,
}

mod trailer {
    pub(super) const MAGIC: usize = 0;
    pub(super) const CRC: usize = MAGIC + 8;
    pub(super) const BLOCKS: usize = CRC + size_of::<u32>();
    pub(super) const BYTES_BEFORE: usize = BLOCKS + size_of::<u32>();
    pub(super) const RAW_BYTES: usize = BYTES_BEFORE + size_of::<u64>();
    pub(super) const ENTRIES: usize = RAW_BYTES + size_of::<u64>();
    pub(super) const DIGEST: usize = ENTRIES + size_of::<u64>();
    pub(super) const CUT: usize = DIGEST + size_of::<u64>();
    pub(super) const STREAM_CRC: usize = CUT + size_of::<u64>();
    pub(super) const ZERO: usize = STREAM_CRC + size_of::<u32>();
    pub(super) const BYTES: usize = ZERO + 4;
}
/// Bytes of a backup behind its blocks.
pub(crate) const TRAILER: usize = trailer::BYTES;
const _: () = assert!(TRAILER == 64);
pub(crate) const TRAILER_MAGIC: &[u8; 8] = b"IFKVBEND";

impl Trailer {
    pub(crate) fn encode(&self) -> [u8; TRAILER] {
        let mut bytes = [0; TRAILER];
        put(&mut bytes, trailer::MAGIC, TRAILER_MAGIC);
        put(&mut bytes, trailer::BLOCKS, &self.blocks.to_le_bytes());
        put(&mut bytes, trailer::BYTES_BEFORE, &self.bytes.to_le_bytes());
        put(
            &mut bytes,
            trailer::RAW_BYTES,
            &self.raw_bytes.to_le_bytes(),
        );
        put(&mut bytes, trailer::ENTRIES, &self.entries.to_le_bytes());
        put(&mut bytes, trailer::DIGEST, &self.digest.to_le_bytes());
        put(&mut bytes, trailer::CUT, &self.cut.to_le_bytes());
        put(&mut bytes, trailer::STREAM_CRC, &self.crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[trailer::BLOCKS..]);
        put(&mut bytes, trailer::CRC, &crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; TRAILER]) -> Result<Self, Mismatch> {
        magic(trailer::MAGIC, TRAILER_MAGIC, &bytes[..trailer::CRC])?;
        let crc = u32_at(bytes, trailer::CRC);
        same_crc(trailer::CRC, crc, &bytes[trailer::BLOCKS..])?;
        zero(trailer::ZERO, &bytes[trailer::ZERO..])?;
        Ok(Self {
            blocks: u32_at(bytes, trailer::BLOCKS),
            bytes: u64_at(bytes, trailer::BYTES_BEFORE),
            raw_bytes: u64_at(bytes, trailer::RAW_BYTES),
            entries: u64_at(bytes, trailer::ENTRIES),
            digest: u64_at(bytes, trailer::DIGEST),
            crc: u32_at(bytes, trailer::STREAM_CRC),
            cut: u64_at(bytes, trailer::CUT),
        })
    }

    /// Whether what was read is what this says was written; offsets are in the trailer.
    pub(crate) fn same_as(&self, read: &Self) -> Result<(), Mismatch> {
        same(trailer::BLOCKS, "blocks:", self.blocks, read.blocks)?;
        same(trailer::BYTES_BEFORE, "bytes:", self.bytes, read.bytes)?;
        same(
            trailer::RAW_BYTES,
            "raw bytes:",
            self.raw_bytes,
            read.raw_bytes,
        )?;
        same(trailer::ENTRIES, "entries:", self.entries, read.entries)?;
        same(trailer::DIGEST, "digest:", self.digest, read.digest)?;
        same(trailer::CUT, "cut:", self.cut, read.cut)?;
        same(
            trailer::STREAM_CRC,
            "the crc32 of the stream:",
            self.crc,
            read.crc,
        )
    }
}
