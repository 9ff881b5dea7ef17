//! The trait that every codec fills, and the ids that name codecs on disk.

use crate::error::{DecodeError, UnknownCodec};
use crate::lz4::Lz4;
use crate::plain::Plain;
use crate::snappy::Snappy;
use crate::zstd::Zstd;

/// Names a codec in a file or in an entry's head. A number is given once and never again.
///
/// | number | codec |
/// | --- | --- |
/// | 0 | stored as it is |
/// | 1 | LZ4, block format |
/// | 2 | Snappy, raw format |
/// | 3 | Zstandard, one frame |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum CodecId {
    /// The bytes as they are.
    Plain = 0,
    /// LZ4 block format: fast both ways, moderate savings.
    Lz4 = 1,
    /// Snappy: about as fast as LZ4, for those who know it.
    Snappy = 2,
    /// Zstandard: slower to make, much smaller, still fast to read.
    Zstd = 3,
}

impl CodecId {
    /// Every codec of this build, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Lz4, Self::Snappy, Self::Zstd];

    /// The number on disk.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The name for people: in settings, metrics and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Lz4 => "lz4",
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
        }
    }
}

impl std::fmt::Display for CodecId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<u8> for CodecId {
    type Error = UnknownCodec;

    fn try_from(number: u8) -> Result<Self, UnknownCodec> {
        Self::ALL
            .into_iter()
            .find(|id| id.number() == number)
            .ok_or(UnknownCodec { number })
    }
}

/// Compresses and decompresses whole buffers. One value serves every thread.
pub trait Codec: Send + Sync {
    /// Which codec this is.
    fn id(&self) -> CodecId;

    /// Appends `raw`, compressed, to `out`. The result may be longer than `raw`: a caller that
    /// finds it so stores `raw` itself, as [`CodecId::Plain`].
    ///
    /// # Panics
    /// `raw` has 4 GiB or more, which not every format can say.
    fn compress(&self, raw: &[u8], out: &mut Vec<u8>);

    /// Appends exactly `raw_len` bytes to `out`, or leaves `out` as it was and fails.
    ///
    /// `raw_len` comes from beside the stored bytes. The caller bounds it by what it is ready to
    /// spend; a length that `stored` cannot fill is refused here before any memory is.
    ///
    /// # Errors
    /// When `stored` is not what [`compress`](Codec::compress) makes of `raw_len` bytes.
    fn decompress(
        &self,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError>;
}

/// The codec of an id.
#[must_use]
pub fn codec(id: CodecId) -> &'static dyn Codec {
    match id {
        CodecId::Plain => &Plain,
        CodecId::Lz4 => &Lz4,
        CodecId::Snappy => &Snappy,
        CodecId::Zstd => &Zstd::DEFAULT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files written by every version depend on these numbers.
    #[test]
    fn numbers_on_disk_are_fixed() {
        assert_eq!(CodecId::Plain.number(), 0);
        assert_eq!(CodecId::Lz4.number(), 1);
        assert_eq!(CodecId::Snappy.number(), 2);
        assert_eq!(CodecId::Zstd.number(), 3);
    }

    #[test]
    fn every_number_is_a_codec_of_that_number_or_refused() {
        for number in 0..=u8::MAX {
            match CodecId::try_from(number) {
                Ok(id) => assert_eq!(codec(id).id().number(), number),
                Err(unknown) => {
                    assert!(number > 3, "codec {number} is missing");
                    assert_eq!(unknown, UnknownCodec { number });
                }
            }
        }
    }
}
