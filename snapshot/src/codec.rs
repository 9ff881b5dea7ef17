//! The plug for compression: how the bytes of a block are stored.

/// Compresses and decompresses whole blocks. Its id is written into every block that it made.
pub trait BlockCodec: Send + Sync {
    /// The number on disk, never to be given to another codec. 0 means "as it is": the codec is then
    /// not asked at all.
    fn id(&self) -> u8;

    /// Appends `raw`, compressed, to `out`. A result that is no shorter is dropped, and the block
    /// stored as it is.
    fn compress(&self, raw: &[u8], out: &mut Vec<u8>);

    /// Appends exactly `raw_len` bytes to `out`. The stored bytes have passed their checksum, and
    /// `raw_len` is within the format's limit, but neither need be honest: a codec should refuse a
    /// length that `stored` cannot fill before it spends memory on it.
    ///
    /// # Errors
    /// When `stored` is not what [`compress`](BlockCodec::compress) makes of `raw_len` bytes.
    fn decompress(
        &self,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError>;
}

/// Why a codec could not decompress, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct CodecError {
    reason: String,
}

impl CodecError {
    /// An error with these words.
    #[must_use]
    pub fn new(reason: impl std::fmt::Display) -> Self {
        Self {
            reason: reason.to_string(),
        }
    }
}

/// Stores blocks as they are. Every reader knows it without being told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Plain {
    pub(crate) const ID: u8 = 0;
}

impl BlockCodec for Plain {
    fn id(&self) -> u8 {
        Self::ID
    }

    fn compress(&self, raw: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(raw);
    }

    fn decompress(
        &self,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        if stored.len() != raw_len {
            return Err(CodecError::new(format_args!(
                "{} plain bytes, expected {raw_len}",
                stored.len()
            )));
        }
        out.extend_from_slice(stored);
        Ok(())
    }
}
