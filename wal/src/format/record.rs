//! One change as bytes: a fixed head, then media type, key and value.

use crc32fast::Hasher;

use super::{
    Fault, KEY_BYTES_MAX, Lsn, MEDIA_TYPE_BYTES_MAX, RECORD_BYTES_MAX, VALUE_BYTES_MAX, u16_at,
    u32_at, u64_at,
};

const CRC: usize = 0;
const LEN: usize = CRC + size_of::<u32>();
const LSN: usize = LEN + size_of::<u32>();
const VERSION: usize = LSN + size_of::<u64>();
const EXPIRES_AT: usize = VERSION + size_of::<u64>();
const VALUE_CRC: usize = EXPIRES_AT + size_of::<u64>();
const OP: usize = VALUE_CRC + size_of::<u32>();
const CAUSE: usize = OP + 1;
const FLAGS: usize = CAUSE + 1;
const MEDIA_LEN: usize = FLAGS + 1;
const KEY_LEN: usize = MEDIA_LEN + 1;
const RESERVED: usize = KEY_LEN + size_of::<u16>();
/// Bytes before media type and key.
pub(crate) const RECORD_HEAD_LEN: usize = RESERVED + size_of::<u16>();
const _: () = assert!(RECORD_HEAD_LEN == 44);

/// What a record does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// The key has this value now.
    Put,
    /// The key is gone.
    Delete,
}

/// Why a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A client asked.
    Client,
    /// Memory was needed. Logged like a delete: otherwise replay would bring the victim back.
    Evicted,
}

/// Everything of a record but its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead<'a> {
    /// Number of the change.
    pub lsn: Lsn,
    /// The user's counter of the key.
    pub version: u64,
    /// Milliseconds since 1970. An expiry at 0 is stored as 1, because 0 stands for none.
    pub expires_at: Option<u64>,
    /// The key is exempt from eviction; false for a delete.
    pub pinned: bool,
    /// CRC-32 of the value, computed when the value arrived.
    pub value_crc: u32,
    /// What it does.
    pub op: Op,
    /// Why.
    pub cause: Cause,
    /// Media type of the value, none for JSON; at most [`MEDIA_TYPE_BYTES_MAX`] bytes.
    pub media_type: Option<&'a str>,
    /// The key, at most [`KEY_BYTES_MAX`] bytes.
    pub key: &'a str,
}

/// A record as it was read. Every checksum held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Number of the change.
    pub lsn: Lsn,
    /// The user's counter of the key.
    pub version: u64,
    /// Milliseconds since 1970.
    pub expires_at: Option<u64>,
    /// When its frame was written, in milliseconds since 1970: shortly after the change was made.
    pub written_at_ms: u64,
    /// The key is exempt from eviction.
    pub pinned: bool,
    /// CRC-32 of the value.
    pub value_crc: u32,
    /// What it does.
    pub op: Op,
    /// Why.
    pub cause: Cause,
    /// Media type of the value, none for JSON.
    pub media_type: Option<&'a str>,
    /// The key.
    pub key: &'a str,
    /// The value; empty for a delete.
    pub value: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record without its value, as [`crate::Wal::append`] takes it.
    #[must_use]
    pub fn head(&self) -> RecordHead<'a> {
        RecordHead {
            lsn: self.lsn,
            version: self.version,
            expires_at: self.expires_at,
            pinned: self.pinned,
            value_crc: self.value_crc,
            op: self.op,
            cause: self.cause,
            media_type: self.media_type,
            key: self.key,
        }
    }

    /// Bytes the record takes in the log.
    #[must_use]
    pub fn encoded_len(&self) -> u64 {
        let media = self.media_type.map_or(0, str::len);
        (RECORD_HEAD_LEN + media + self.key.len() + self.value.len()) as u64
    }
}

/// A part of a record is longer than the format can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {what} of record {lsn} has {found} bytes, allowed are {max}")]
pub(crate) struct TooLarge {
    lsn: Lsn,
    what: &'static str,
    found: usize,
    max: usize,
}

/// The fixed head of a record, its checksum included. Media type, key and value follow it.
#[inline]
pub(crate) fn encode_head(
    head: &RecordHead<'_>,
    value_len: usize,
) -> Result<[u8; RECORD_HEAD_LEN], TooLarge> {
    let media = head.media_type.unwrap_or("");
    let key = head.key;
    if media.len() > MEDIA_TYPE_BYTES_MAX
        || key.len() > KEY_BYTES_MAX
        || value_len > VALUE_BYTES_MAX
    {
        return Err(too_large(head.lsn, media.len(), key.len(), value_len));
    }
    let len = RECORD_HEAD_LEN + media.len() + key.len() + value_len;
    let mut bytes = [0u8; RECORD_HEAD_LEN];
    bytes[LEN..LSN].copy_from_slice(&(len as u32).to_le_bytes());
    bytes[LSN..VERSION].copy_from_slice(&head.lsn.get().to_le_bytes());
    bytes[VERSION..EXPIRES_AT].copy_from_slice(&head.version.to_le_bytes());
    let expires_at = head.expires_at.map_or(0, |at| at.max(1));
    bytes[EXPIRES_AT..VALUE_CRC].copy_from_slice(&expires_at.to_le_bytes());
    bytes[VALUE_CRC..OP].copy_from_slice(&head.value_crc.to_le_bytes());
    bytes[OP] = match head.op {
        Op::Put => 1,
        Op::Delete => 2,
    };
    bytes[CAUSE] = match head.cause {
        Cause::Client => 0,
        Cause::Evicted => 1,
    };
    bytes[FLAGS] = u8::from(head.pinned);
    bytes[MEDIA_LEN] = media.len() as u8;
    bytes[KEY_LEN..RESERVED].copy_from_slice(&(key.len() as u16).to_le_bytes());
    let mut crc = Hasher::new();
    crc.update(&bytes[LEN..]);
    crc.update(media.as_bytes());
    crc.update(key.as_bytes());
    bytes[CRC..LEN].copy_from_slice(&crc.finalize().to_le_bytes());
    Ok(bytes)
}

#[cold]
fn too_large(lsn: Lsn, media: usize, key: usize, value: usize) -> TooLarge {
    let (what, found, max) = if media > MEDIA_TYPE_BYTES_MAX {
        ("media type", media, MEDIA_TYPE_BYTES_MAX)
    } else if key > KEY_BYTES_MAX {
        ("key", key, KEY_BYTES_MAX)
    } else {
        ("value", value, VALUE_BYTES_MAX)
    };
    TooLarge {
        lsn,
        what,
        found,
        max,
    }
}

/// The record at the beginning of `bytes`, and how many bytes it takes. The time is its frame's to tell, and 0 here.
pub(crate) fn decode_record(bytes: &[u8]) -> Result<(Record<'_>, usize), Fault> {
    decode::<true>(bytes)
}

/// The same for bytes whose checksums are known to hold, because [`decode_record`] was here before.
pub(crate) fn decode_record_again(bytes: &[u8]) -> Result<(Record<'_>, usize), Fault> {
    decode::<false>(bytes)
}

fn decode<const CHECKED: bool>(bytes: &[u8]) -> Result<(Record<'_>, usize), Fault> {
    if bytes.len() < RECORD_HEAD_LEN {
        return Err(Fault::Short {
            what: "a record's head",
            needed: RECORD_HEAD_LEN as u64,
            left: bytes.len() as u64,
        });
    }
    let (media_len, key_len) = (
        usize::from(bytes[MEDIA_LEN]),
        usize::from(u16_at(bytes, KEY_LEN)),
    );
    let len = u32_at(bytes, LEN) as usize;
    let value_at = RECORD_HEAD_LEN + media_len + key_len;
    if len < value_at || len > RECORD_BYTES_MAX {
        return Err(Fault::Range {
            what: "a record's length",
            found: len as u64,
            min: value_at as u64,
            max: RECORD_BYTES_MAX as u64,
        });
    }
    if len > bytes.len() {
        return Err(Fault::Short {
            what: "a record",
            needed: len as u64,
            left: bytes.len() as u64,
        });
    }
    if CHECKED {
        check("a record's head", u32_at(bytes, CRC), &bytes[LEN..value_at])?;
    }
    // From here on the head is what somebody wrote: an unknown code is a newer program's, not rot.
    let op = match bytes[OP] {
        1 => Op::Put,
        2 => Op::Delete,
        found => return Err(unknown("operation", found)),
    };
    let cause = match bytes[CAUSE] {
        0 => Cause::Client,
        1 => Cause::Evicted,
        found => return Err(unknown("cause", found)),
    };
    let pinned = match (bytes[FLAGS], op) {
        (0, _) => false,
        (1, Op::Put) => true,
        (found, _) => return Err(unknown("record flag", found)),
    };
    if u16_at(bytes, RESERVED) != 0 {
        return Err(Fault::Unknown {
            what: "reserved field of a record",
            found: u64::from(u16_at(bytes, RESERVED)),
        });
    }
    let value = &bytes[value_at..len];
    let value_crc = u32_at(bytes, VALUE_CRC);
    if CHECKED {
        check("a value", value_crc, value)?;
    }
    let media_type = match media_len {
        0 => None,
        _ => Some(text(
            "a media type",
            &bytes[RECORD_HEAD_LEN..RECORD_HEAD_LEN + media_len],
        )?),
    };
    let record = Record {
        lsn: Lsn::new(u64_at(bytes, LSN)),
        version: u64_at(bytes, VERSION),
        expires_at: Some(u64_at(bytes, EXPIRES_AT)).filter(|at| *at != 0),
        written_at_ms: 0,
        pinned,
        value_crc,
        op,
        cause,
        media_type,
        key: text("a key", &bytes[RECORD_HEAD_LEN + media_len..value_at])?,
        value,
    };
    Ok((record, len))
}

fn check(what: &'static str, found: u32, bytes: &[u8]) -> Result<(), Fault> {
    let computed = crc32fast::hash(bytes);
    if computed == found {
        Ok(())
    } else {
        Err(Fault::Checksum {
            what,
            found,
            computed,
        })
    }
}

fn text<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Fault::Text { what })
}

fn unknown(what: &'static str, found: u8) -> Fault {
    Fault::Unknown {
        what,
        found: u64::from(found),
    }
}
