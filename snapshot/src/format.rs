//! The bytes, as `FORMAT.md` lays them out: encoding and decoding, no files and no clocks.

pub(crate) mod backup;
pub(crate) mod entry;
pub(crate) mod filter;
pub(crate) mod manifest;
pub(crate) mod part;

/// The version that is written, and the newest that is read.
pub(crate) const VERSION: u16 = 1;

/// Something in a decoded piece that is not as it must be. The reader knows which file the piece is
/// from and where it began, and makes it a [`Damage`](crate::Damage).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Where in the piece.
    pub(crate) offset: usize,
    pub(crate) expected: String,
    pub(crate) found: String,
}

impl Mismatch {
    pub(crate) fn new(
        offset: usize,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> Self {
        Self {
            offset,
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}

/// What comes of decoding a piece that carries the format's version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum VersionedError {
    Mismatch(Mismatch),
    /// The checksum holds, so the version is what was written.
    Newer {
        version: u16,
    },
}

impl From<Mismatch> for VersionedError {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch)
    }
}

/// How every piece begins that carries the format's version: its magic, the checksum of everything from the version on,
/// the version.
pub(crate) mod head {
    use super::{
        Mismatch, VERSION as WRITTEN, VersionedError, magic, put, same, same_crc, u16_at, u32_at,
    };

    const MAGIC: usize = 0;
    const CRC: usize = MAGIC + 8;
    const VERSION: usize = CRC + size_of::<u32>();
    /// Where the piece's own fields begin.
    pub(crate) const BYTES: usize = VERSION + size_of::<u16>();

    /// Writes it before everything else, which is complete.
    pub(crate) fn put_head(bytes: &mut [u8], expected: &[u8; 8]) {
        put(bytes, MAGIC, expected);
        put(bytes, VERSION, &WRITTEN.to_le_bytes());
        let crc = crc32fast::hash(&bytes[VERSION..]);
        put(bytes, CRC, &crc.to_le_bytes());
    }

    /// Whether it is there, and the piece what was written; `bytes` are all of it.
    pub(crate) fn check_head(bytes: &[u8], expected: &[u8; 8]) -> Result<(), VersionedError> {
        magic(MAGIC, expected, &bytes[MAGIC..CRC])?;
        same_crc(CRC, u32_at(bytes, CRC), &bytes[VERSION..])?;
        match u16_at(bytes, VERSION) {
            WRITTEN => Ok(()),
            version if version > WRITTEN => Err(VersionedError::Newer { version }),
            older => same(VERSION, "format version", WRITTEN, older).map_err(Mismatch::into),
        }
    }
}

/// `found` must equal `expected`; `what` names it in the message.
pub(crate) fn same<T: PartialEq + Copy + std::fmt::Display>(
    offset: usize,
    what: &str,
    expected: T,
    found: T,
) -> Result<(), Mismatch> {
    if expected == found {
        return Ok(());
    }
    Err(Mismatch::new(
        offset,
        format_args!("{what} {expected}"),
        found,
    ))
}

/// The checksum stored at `offset` must be that of `bytes`.
pub(crate) fn same_crc(offset: usize, stored: u32, bytes: &[u8]) -> Result<(), Mismatch> {
    let computed = crc32fast::hash(bytes);
    if computed == stored {
        return Ok(());
    }
    Err(Mismatch::new(
        offset,
        format_args!("bytes with the crc32 {stored:08x} that is stored"),
        format_args!("bytes with the crc32 {computed:08x}"),
    ))
}

/// Fields that a later version may use are written as zero.
pub(crate) fn zero(offset: usize, bytes: &[u8]) -> Result<(), Mismatch> {
    match bytes.iter().position(|&byte| byte != 0) {
        None => Ok(()),
        Some(at) => Err(Mismatch::new(
            offset + at,
            "a reserved byte of 0",
            bytes[at],
        )),
    }
}

pub(crate) fn magic(offset: usize, expected: &[u8], found: &[u8]) -> Result<(), Mismatch> {
    if expected == found {
        return Ok(());
    }
    Err(Mismatch::new(
        offset,
        format_args!("the magic {:?}", expected.escape_ascii().to_string()),
        format_args!("{:?}", found.escape_ascii().to_string()),
    ))
}

// The readers of fields: their offsets are constants inside pieces whose length is known, so an index
// out of bounds would be a mistake of this crate, found by its first test, not something in a file.

pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}
