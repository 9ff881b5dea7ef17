//! The bytes of the log: numbers, limits, and what can be wrong with bytes. No files, no clocks. `FORMAT.md` has every table.

mod frame;
mod header;
mod record;
mod stream;

use std::fmt;

pub use frame::FrameHeader;
pub(crate) use frame::{
    FRAME_ALIGN, FRAME_HEADER_LEN, FRAME_MAGIC, PACK_HEAD_LEN, PLAIN, pack_head, padded,
};
pub use header::SegmentHeader;
pub(crate) use header::{HEADER_LEN, HeaderError};
pub use record::{Cause, Op, Record, RecordHead};
pub(crate) use record::{
    RECORD_HEAD_LEN, TooLarge, decode_record, decode_record_again, encode_head,
};
pub use stream::StreamHeader;
pub(crate) use stream::{STREAM_HEADER_LEN, STREAM_SEGMENT};

/// Identity of a store, made at random when the store is.
pub type StoreId = [u8; 16];

/// Version of the format this crate writes.
pub const FORMAT_VERSION: u32 = 1;
/// Longest key in bytes.
pub const KEY_BYTES_MAX: usize = 65_535;
/// Longest media type in bytes.
pub const MEDIA_TYPE_BYTES_MAX: usize = 255;
/// Longest value in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 30;
/// Most bytes of records in a frame that has more than one of them.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 20;
/// Longest record, and with it the longest payload of a frame.
pub(crate) const RECORD_BYTES_MAX: usize =
    RECORD_HEAD_LEN + MEDIA_TYPE_BYTES_MAX + KEY_BYTES_MAX + VALUE_BYTES_MAX;

/// Log sequence number: the number of one change, store-wide, never used twice. 0 stands before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// Before the first change.
    pub const ZERO: Lsn = Lsn(0);

    /// The number `value`.
    #[must_use]
    pub const fn new(value: u64) -> Lsn {
        Lsn(value)
    }

    /// The number as an integer.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number after this one; the largest stays where it is.
    #[must_use]
    pub const fn next(self) -> Lsn {
        Lsn(self.0.saturating_add(1))
    }

    /// The number before this one; 0 stays where it is.
    #[must_use]
    pub const fn previous(self) -> Lsn {
        Lsn(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is wrong with the bytes at a place of a segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The file ends inside the thing.
    #[error("{what} needs {needed} bytes, the file has {left}")]
    Short {
        /// What was expected here.
        what: &'static str,
        /// Bytes it takes.
        needed: u64,
        /// Bytes there are.
        left: u64,
    },
    /// Not the first bytes that the thing begins with.
    #[error("no {what} begins here, found {found:#x} in place of its magic number")]
    Magic {
        /// What was expected here.
        what: &'static str,
        /// The first bytes as a number.
        found: u64,
    },
    /// A checksum does not hold.
    #[error("checksum of {what} is {found:#010x}, its bytes give {computed:#010x}")]
    Checksum {
        /// What the checksum covers.
        what: &'static str,
        /// As stored.
        found: u32,
        /// As computed.
        computed: u32,
    },
    /// A number that must have one value has another.
    #[error("{what} is {found}, expected {expected}")]
    Mismatch {
        /// Which number.
        what: &'static str,
        /// As stored.
        found: u64,
        /// As it has to be.
        expected: u64,
    },
    /// A number is outside its range.
    #[error("{what} is {found}, allowed are {min} to {max}")]
    Range {
        /// Which number.
        what: &'static str,
        /// As stored.
        found: u64,
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// Text that is not UTF-8 although its checksum holds.
    #[error("{what} is not UTF-8")]
    Text {
        /// Which text.
        what: &'static str,
    },
    /// A code this version does not know, under a checksum that holds: a newer program wrote it.
    #[error("{what} {found} is not known to this version")]
    Unknown {
        /// Which field.
        what: &'static str,
        /// As stored.
        found: u64,
    },
    /// The structured metadata of a segment header cannot be read although its checksum holds.
    #[error("the metadata of the segment header cannot be read")]
    Metadata,
    /// A codec cannot get back what it once compressed although the checksum holds.
    #[error("records cannot be decompressed: {reason}")]
    Compression {
        /// In the codec's words.
        reason: String,
    },
    /// A segment that the next one follows is not there.
    #[error("segment {number} is missing")]
    MissingSegment {
        /// Its number.
        number: u64,
    },
    /// Readable bytes end before the records that a later segment says came before it.
    #[error("records end at {found}, the next segment follows {expected}")]
    EndsEarly {
        /// Last LSN read.
        found: Lsn,
        /// What the next header says.
        expected: Lsn,
    },
}

impl Fault {
    /// Whether the bytes are sound and merely newer than this program, so that they must not be cut.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self, Fault::Unknown { .. })
    }
}

/// Reads `N` bytes at `at`. The caller has checked the length.
pub(crate) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N]
        .try_into()
        .expect("a slice of N bytes is an array of N bytes")
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}
