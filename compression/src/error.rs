//! What can go wrong: bytes that do not decode, and a number that names no codec.

use crate::codec::CodecId;

/// Stored bytes are not what their codec makes of `raw_len` bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The raw length is more than so few stored bytes can stand for; nothing was allocated.
    #[error(
        "{stored} bytes of {codec} cannot hold {raw_len} raw bytes: the most they can is {most}"
    )]
    LengthImpossible {
        /// The codec that was asked.
        codec: CodecId,
        /// How many stored bytes there are.
        stored: usize,
        /// The raw length that was asked for.
        raw_len: usize,
        /// The largest raw length that `stored` bytes can hold.
        most: usize,
    },
    /// The stored bytes decode, but to another length.
    #[error("{codec} decoded to {found} bytes, expected {expected}")]
    LengthDiffers {
        /// The codec that was asked.
        codec: CodecId,
        /// The raw length that was asked for.
        expected: usize,
        /// The raw length that the bytes decode to.
        found: usize,
    },
    /// The stored bytes break the codec's grammar or do not fit the raw length.
    #[error("damaged {codec} data: {reason}")]
    Damaged {
        /// The codec that was asked.
        codec: CodecId,
        /// What the codec found, in its own words.
        reason: String,
    },
}

/// A number on disk that names no codec of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("codec number {number} is unknown, expected 0 (plain), 1 (lz4), 2 (snappy) or 3 (zstd)")]
pub struct UnknownCodec {
    /// The number found.
    pub number: u8,
}
