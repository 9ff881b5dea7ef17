//! What can go wrong: bytes that do not decode, and a number that names no codec.

use crate::codec::CodecId;
use crate::dictionary::{DICTIONARY_BYTES_MAX, SAMPLES_MIN};
use crate::keys::{PREFIX_BYTES_MAX, PREFIXES_MAX};

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

/// Bytes that cannot be a dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DictionaryError {
    /// Too few or too many.
    #[error("a dictionary of {len} bytes, expected 8 to {DICTIONARY_BYTES_MAX}")]
    Length {
        /// How many there are.
        len: usize,
    },
    /// They begin like a trained dictionary and break off or contradict themselves.
    #[error("the {len} bytes of the dictionary are damaged")]
    Damaged {
        /// How many there are.
        len: usize,
    },
}

/// Why no dictionary could be trained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// There is too little to learn from.
    #[error("{found} samples, at least {SAMPLES_MIN} are needed")]
    TooFewSamples {
        /// How many there are.
        found: usize,
    },
    /// The library makes nothing of the samples.
    #[error("no dictionary can be made of the samples: {reason}")]
    Library {
        /// In its own words.
        reason: String,
    },
    /// What the library made is none.
    #[error(transparent)]
    Dictionary(#[from] DictionaryError),
}

/// Prefixes that make no dictionary of keys, or a code that stands for no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There are more prefixes than codes.
    #[error("{found} prefixes, expected at most {PREFIXES_MAX}")]
    TooManyPrefixes {
        /// How many there are.
        found: usize,
    },
    /// A prefix is empty or too long.
    #[error("a prefix of {len} bytes, expected 1 to {PREFIX_BYTES_MAX}")]
    PrefixLength {
        /// Its length.
        len: usize,
    },
    /// A prefix is there twice, so that keys would have two codes.
    #[error("the prefix {prefix:?} is there twice")]
    PrefixTwice {
        /// Which.
        prefix: String,
    },
    /// The first byte is the code of no prefix.
    #[error("the code {code:#04x} stands for no prefix")]
    UnknownCode {
        /// The byte.
        code: u8,
    },
    /// What stands behind the code is no UTF-8.
    #[error("the coded key is no text")]
    NotText,
}

/// A block that cannot be read, or a value that is not in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The block has fewer values, or the value was taken out.
    #[error("value {index} is not in the block of {count}")]
    NoSuchValue {
        /// Which was asked for.
        index: u16,
        /// How many the block was made of.
        count: usize,
    },
    /// No block has so many bytes; nothing was allocated.
    #[error("a block of {raw_len} bytes is larger than any")]
    TooLong {
        /// The length that was asked for.
        raw_len: usize,
    },
    /// Its index does not fill it.
    #[error("the index of the block does not fill it")]
    Index,
    /// Its bytes do not decode.
    #[error(transparent)]
    Codec(DecodeError),
}
