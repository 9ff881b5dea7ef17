//! The header in front of what one round of the writer took.

use crc32fast::Hasher;

use super::{
    FRAME_BYTES_MAX, Fault, Lsn, RECORD_BYTES_MAX, RECORD_HEAD_LEN, StoreId, u32_at, u64_at,
};

const MAGIC: usize = 0;
const CRC: usize = MAGIC + size_of::<u32>();
const SEGMENT: usize = CRC + size_of::<u32>();
const FIRST_LSN: usize = SEGMENT + size_of::<u64>();
const DURABLE_LSN: usize = FIRST_LSN + size_of::<u64>();
const WRITTEN_AT: usize = DURABLE_LSN + size_of::<u64>();
const COUNT: usize = WRITTEN_AT + size_of::<u64>();
const LEN: usize = COUNT + size_of::<u32>();
const CODEC: usize = LEN + size_of::<u32>();
const RESERVED: usize = CODEC + 1;
/// Bytes of a frame before its records.
pub(crate) const FRAME_HEADER_LEN: usize = RESERVED + 7;
const _: () = assert!(FRAME_HEADER_LEN == 56);

/// Frames begin at multiples of this.
pub(crate) const FRAME_ALIGN: usize = 8;
/// What a frame begins with.
pub(crate) const FRAME_MAGIC: u32 = 0x4D46_5746;

/// Records as they are.
pub(crate) const PLAIN: u8 = 0;
/// Bytes in front of compressed records: their length before compression, and a checksum.
pub(crate) const PACK_HEAD_LEN: usize = 2 * size_of::<u32>();

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Number of the segment the frame was written for.
    pub segment: u64,
    /// LSN of its first record; of the next record, when it has none.
    pub first_lsn: Lsn,
    /// Every record up to this one was on stable storage when the frame was written.
    pub durable_lsn: Lsn,
    /// When it was written, in milliseconds since 1970.
    pub written_at_ms: u64,
    /// Records in the frame.
    pub count: u32,
    /// Bytes of the records as they are stored.
    pub len: u32,
    /// 0 for records as they are, otherwise what they are compressed with.
    pub codec: u8,
}

impl FrameHeader {
    /// The largest LSN the frame speaks of.
    pub(crate) fn last_lsn(&self) -> Lsn {
        Lsn::new(
            self.first_lsn
                .previous()
                .get()
                .saturating_add(u64::from(self.count)),
        )
    }

    /// Bytes from the beginning of this frame to the beginning of the next.
    pub(crate) fn stride(&self) -> u64 {
        padded(FRAME_HEADER_LEN as u64 + u64::from(self.len))
    }

    pub(crate) fn encode(&self, store_id: &StoreId) -> [u8; FRAME_HEADER_LEN] {
        let mut bytes = [0u8; FRAME_HEADER_LEN];
        bytes[MAGIC..CRC].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        bytes[SEGMENT..FIRST_LSN].copy_from_slice(&self.segment.to_le_bytes());
        bytes[FIRST_LSN..DURABLE_LSN].copy_from_slice(&self.first_lsn.get().to_le_bytes());
        bytes[DURABLE_LSN..WRITTEN_AT].copy_from_slice(&self.durable_lsn.get().to_le_bytes());
        bytes[WRITTEN_AT..COUNT].copy_from_slice(&self.written_at_ms.to_le_bytes());
        bytes[COUNT..LEN].copy_from_slice(&self.count.to_le_bytes());
        bytes[LEN..CODEC].copy_from_slice(&self.len.to_le_bytes());
        bytes[CODEC] = self.codec;
        let crc = checksum(store_id, &bytes);
        bytes[CRC..SEGMENT].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the beginning of `bytes`, if it is one of this store's segment `segment`.
    pub(crate) fn decode(
        bytes: &[u8; FRAME_HEADER_LEN],
        store_id: &StoreId,
        segment: u64,
    ) -> Result<FrameHeader, Fault> {
        if u32_at(bytes, MAGIC) != FRAME_MAGIC {
            return Err(Fault::Magic {
                what: "frame",
                found: u64::from(u32_at(bytes, MAGIC)),
            });
        }
        let (found, computed) = (u32_at(bytes, CRC), checksum(store_id, bytes));
        if found != computed {
            return Err(Fault::Checksum {
                what: "a frame header",
                found,
                computed,
            });
        }
        if bytes[RESERVED..].iter().any(|byte| *byte != 0) {
            return Err(Fault::Unknown {
                what: "reserved field of a frame",
                found: u64_at(bytes, CODEC) >> 8,
            });
        }
        let header = FrameHeader {
            segment: u64_at(bytes, SEGMENT),
            first_lsn: Lsn::new(u64_at(bytes, FIRST_LSN)),
            durable_lsn: Lsn::new(u64_at(bytes, DURABLE_LSN)),
            written_at_ms: u64_at(bytes, WRITTEN_AT),
            count: u32_at(bytes, COUNT),
            len: u32_at(bytes, LEN),
            codec: bytes[CODEC],
        };
        if header.segment != segment {
            return Err(Fault::Mismatch {
                what: "the segment number of a frame",
                found: header.segment,
                expected: segment,
            });
        }
        header.check_lengths()?;
        Ok(header)
    }

    /// Whether count and length can belong together. What is compressed is never longer than the same records as they are.
    fn check_lengths(&self) -> Result<(), Fault> {
        let (mut min, max) = self.records_len();
        if self.codec != PLAIN && self.count > 0 {
            min = PACK_HEAD_LEN as u64 + 1;
        }
        in_range("the length of a frame", self.len, min, max)
    }

    /// How few and how many bytes that many records have.
    fn records_len(&self) -> (u64, u64) {
        let max = match self.count {
            0 => 0,
            1 => RECORD_BYTES_MAX,
            _ => FRAME_BYTES_MAX,
        };
        (u64::from(self.count) * RECORD_HEAD_LEN as u64, max as u64)
    }

    /// Takes the payload of a compressed frame apart: how long its records are before compression, and what is compressed.
    pub(crate) fn unpack<'a>(&self, payload: &'a [u8]) -> Result<(usize, &'a [u8]), Fault> {
        if payload.len() <= PACK_HEAD_LEN {
            return Err(Fault::Short {
                what: "a compressed frame",
                needed: PACK_HEAD_LEN as u64 + 1,
                left: payload.len() as u64,
            });
        }
        let (raw_len, stored) = (u32_at(payload, PACK_RAW_LEN), &payload[PACK_HEAD_LEN..]);
        let (found, computed) = (u32_at(payload, PACK_CRC), pack_checksum(raw_len, stored));
        if found != computed {
            return Err(Fault::Checksum {
                what: "compressed records",
                found,
                computed,
            });
        }
        let (min, max) = self.records_len();
        in_range(
            "the length of records before compression",
            raw_len,
            min,
            max,
        )?;
        Ok((raw_len as usize, stored))
    }
}

const PACK_RAW_LEN: usize = 0;
const PACK_CRC: usize = PACK_RAW_LEN + size_of::<u32>();
const _: () = assert!(PACK_CRC + size_of::<u32>() == PACK_HEAD_LEN);

/// What stands in front of `stored`, which is `raw_len` bytes of records compressed.
pub(crate) fn pack_head(raw_len: u32, stored: &[u8]) -> [u8; PACK_HEAD_LEN] {
    let mut bytes = [0u8; PACK_HEAD_LEN];
    bytes[PACK_RAW_LEN..PACK_CRC].copy_from_slice(&raw_len.to_le_bytes());
    bytes[PACK_CRC..].copy_from_slice(&pack_checksum(raw_len, stored).to_le_bytes());
    bytes
}

fn pack_checksum(raw_len: u32, stored: &[u8]) -> u32 {
    let mut crc = Hasher::new();
    crc.update(&raw_len.to_le_bytes());
    crc.update(stored);
    crc.finalize()
}

fn in_range(what: &'static str, found: u32, min: u64, max: u64) -> Result<(), Fault> {
    if (min..=max).contains(&u64::from(found)) {
        Ok(())
    } else {
        Err(Fault::Range {
            what,
            found: u64::from(found),
            min,
            max,
        })
    }
}

/// `len` rounded up to where a frame can begin.
pub(crate) fn padded(len: u64) -> u64 {
    len.next_multiple_of(FRAME_ALIGN as u64)
}

/// Begins with the store id, which clients do not know: so no value can pass for a frame.
fn checksum(store_id: &StoreId, bytes: &[u8; FRAME_HEADER_LEN]) -> u32 {
    let mut crc = Hasher::new();
    crc.update(store_id);
    crc.update(&bytes[SEGMENT..]);
    crc.finalize()
}
