//! The first page of a segment: who it belongs to, and what it follows.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian, legacy};
use crc32fast::Hasher;
use serde::{Deserialize, Serialize};

use super::{FORMAT_VERSION, Fault, Lsn, StoreId, u32_at, u64_at};

const MAGIC: usize = 0;
const VERSION: usize = MAGIC + size_of::<u64>();
const CRC: usize = VERSION + size_of::<u32>();
const LEN: usize = CRC + size_of::<u32>();
const METADATA: usize = LEN + size_of::<u32>();
const _: () = assert!(METADATA == 20);
/// Bytes of a segment before its first frame: a page of its own, so that appending never touches it.
pub(crate) const HEADER_LEN: usize = 4096;
const MAGIC_BYTES: &[u8; 8] = b"IFKV-WAL";
const METADATA_BYTES_MAX: usize = 1024;

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store the segment belongs to.
    pub store_id: StoreId,
    /// Its number, the one in its name.
    pub number: u64,
    /// LSN its first record has, or will have.
    pub first_lsn: Lsn,
    /// LSN of the last record before this segment.
    pub follows: Lsn,
    /// Records above `follows` up to here exist in a snapshot only.
    pub floor: Lsn,
    /// When the segment was begun, in milliseconds since 1970. The one before was complete by then.
    pub created_at_ms: u64,
    /// What it was rewritten with after it was sealed; 0 for frames as they were written.
    pub codec: u8,
}

/// The same as bincode sees it. Private: the layout in `FORMAT.md` is the contract, not this type.
#[derive(Serialize, Deserialize)]
struct Metadata {
    store_id: StoreId,
    number: u64,
    first_lsn: u64,
    follows: u64,
    floor: u64,
    created_at_ms: u64,
    codec: u8,
}

/// Why the first page of a file is not a header this version can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// Torn or damaged.
    Bad(Fault),
    /// Sound, and of a later format version.
    Newer { found: u32 },
}

impl From<Fault> for HeaderError {
    fn from(fault: Fault) -> HeaderError {
        HeaderError::Bad(fault)
    }
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let metadata = Metadata {
            store_id: self.store_id,
            number: self.number,
            first_lsn: self.first_lsn.get(),
            follows: self.follows.get(),
            floor: self.floor.get(),
            created_at_ms: self.created_at_ms,
            codec: self.codec,
        };
        let mut page = vec![0u8; HEADER_LEN];
        page[MAGIC..VERSION].copy_from_slice(MAGIC_BYTES);
        page[VERSION..CRC].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let len =
            bincode::serde::encode_into_slice(&metadata, &mut page[METADATA..], bincode_layout())
                .expect("a few integers fit into a page");
        page[LEN..METADATA].copy_from_slice(&(len as u32).to_le_bytes());
        let crc = checksum(&page);
        page[CRC..LEN].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// The header in `page`, the first [`HEADER_LEN`] bytes of a file; `number` is the one in its name, if that counts.
    pub(crate) fn decode(page: &[u8], number: Option<u64>) -> Result<SegmentHeader, HeaderError> {
        if page.len() < HEADER_LEN {
            return Err(HeaderError::Bad(Fault::Short {
                what: "the segment header",
                needed: HEADER_LEN as u64,
                left: page.len() as u64,
            }));
        }
        let page = &page[..HEADER_LEN];
        if &page[MAGIC..VERSION] != MAGIC_BYTES {
            return Err(HeaderError::Bad(Fault::Magic {
                what: "segment",
                found: u64_at(page, MAGIC),
            }));
        }
        let (found, computed) = (u32_at(page, CRC), checksum(page));
        if found != computed {
            return Err(HeaderError::Bad(Fault::Checksum {
                what: "the segment header",
                found,
                computed,
            }));
        }
        let version = u32_at(page, VERSION);
        if version != FORMAT_VERSION {
            return Err(HeaderError::Newer { found: version });
        }
        let header = SegmentHeader::from_metadata(page)?;
        if let Some(expected) = number.filter(|number| *number != header.number) {
            return Err(HeaderError::Bad(Fault::Mismatch {
                what: "the number in the segment header",
                found: header.number,
                expected,
            }));
        }
        if header.floor < header.follows || header.first_lsn <= header.floor {
            return Err(HeaderError::Bad(Fault::Range {
                what: "the first LSN in the segment header",
                found: header.first_lsn.get(),
                min: header.floor.max(header.follows).next().get(),
                max: u64::MAX,
            }));
        }
        Ok(header)
    }

    fn from_metadata(page: &[u8]) -> Result<SegmentHeader, Fault> {
        let len = u32_at(page, LEN) as usize;
        if len > METADATA_BYTES_MAX {
            return Err(Fault::Range {
                what: "the length of the segment header's metadata",
                found: len as u64,
                min: 0,
                max: METADATA_BYTES_MAX as u64,
            });
        }
        let bytes = &page[METADATA..METADATA + len];
        match bincode::serde::decode_from_slice::<Metadata, _>(bytes, bincode_layout()) {
            Ok((metadata, used)) if used == len => Ok(SegmentHeader {
                store_id: metadata.store_id,
                number: metadata.number,
                first_lsn: Lsn::new(metadata.first_lsn),
                follows: Lsn::new(metadata.follows),
                floor: Lsn::new(metadata.floor),
                created_at_ms: metadata.created_at_ms,
                codec: metadata.codec,
            }),
            Ok(_) | Err(_) => Err(Fault::Metadata),
        }
    }
}

fn bincode_layout() -> Configuration<LittleEndian, Fixint, Limit<METADATA_BYTES_MAX>> {
    legacy().with_limit::<METADATA_BYTES_MAX>()
}

fn checksum(page: &[u8]) -> u32 {
    let mut crc = Hasher::new();
    crc.update(&page[..CRC]);
    crc.update(&page[LEN..HEADER_LEN]);
    crc.finalize()
}
