//! What stands at the beginning of a stream of records. Frames follow it, laid out as in a segment.

use super::{Fault, Lsn, StoreId, bytes_at, u32_at, u64_at};

const MAGIC: usize = 0;
const CRC: usize = MAGIC + size_of::<u64>();
const VERSION: usize = CRC + size_of::<u32>();
const STORE_ID: usize = VERSION + size_of::<u32>();
const FROM: usize = STORE_ID + size_of::<StoreId>();
/// Bytes of a stream before its first frame.
pub(crate) const STREAM_HEADER_LEN: usize = FROM + size_of::<u64>();
const _: () = assert!(STREAM_HEADER_LEN == 40);
const MAGIC_BYTES: &[u8; 8] = b"IFKV-STR";
const STREAM_VERSION: u32 = 1;

/// The number that frames of a stream have in place of a segment's. No segment has it.
pub(crate) const STREAM_SEGMENT: u64 = 0;

/// The header of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    /// The store whose records these are.
    pub store_id: StoreId,
    /// The first record that was asked for, or the first number after it that was not left out.
    pub from: Lsn,
}

impl StreamHeader {
    pub(crate) fn encode(&self) -> [u8; STREAM_HEADER_LEN] {
        let mut bytes = [0u8; STREAM_HEADER_LEN];
        bytes[MAGIC..CRC].copy_from_slice(MAGIC_BYTES);
        bytes[VERSION..STORE_ID].copy_from_slice(&STREAM_VERSION.to_le_bytes());
        bytes[STORE_ID..FROM].copy_from_slice(&self.store_id);
        bytes[FROM..].copy_from_slice(&self.from.get().to_le_bytes());
        let crc = crc32fast::hash(&bytes[VERSION..]);
        bytes[CRC..VERSION].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; STREAM_HEADER_LEN]) -> Result<StreamHeader, Fault> {
        if &bytes[MAGIC..CRC] != MAGIC_BYTES {
            return Err(Fault::Magic {
                what: "stream of records",
                found: u64_at(bytes, MAGIC),
            });
        }
        let (found, computed) = (u32_at(bytes, CRC), crc32fast::hash(&bytes[VERSION..]));
        if found != computed {
            return Err(Fault::Checksum {
                what: "the stream's header",
                found,
                computed,
            });
        }
        if u32_at(bytes, VERSION) != STREAM_VERSION {
            return Err(Fault::Unknown {
                what: "stream version",
                found: u64::from(u32_at(bytes, VERSION)),
            });
        }
        Ok(StreamHeader {
            store_id: bytes_at(bytes, STORE_ID),
            from: Lsn::new(u64_at(bytes, FROM)),
        })
    }
}
