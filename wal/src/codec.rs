//! The plug for compression: what sealed segments are rewritten with, and everything they may have been rewritten with.

use std::fmt;
use std::sync::Arc;

/// Compresses records of sealed segments, and gets them back.
pub trait SegmentCodec: Send + Sync {
    /// Its number on disk: never 0, and never another codec's in any later version.
    fn id(&self) -> u8;
    /// Appends `raw` to `out`, compressed. The result may be longer than `raw`; then it is not used.
    fn compress(&self, raw: &[u8], out: &mut Vec<u8>);
    /// Appends exactly `raw_len` bytes to `out`, or fails. `stored` may be anything: no panic, and no memory for a
    /// `raw_len` that `stored` cannot fill.
    fn decompress(
        &self,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError>;
}

/// Bytes that a codec cannot get back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(String);

impl CodecError {
    /// With the codec's own words.
    pub fn new(reason: impl fmt::Display) -> CodecError {
        CodecError(reason.to_string())
    }
}

/// The codecs that a reader knows. Plain frames need none.
#[derive(Clone, Default)]
pub struct Codecs(Arc<[Arc<dyn SegmentCodec>]>);

impl Codecs {
    /// For a log that was never rewritten.
    #[must_use]
    pub fn none() -> Codecs {
        Codecs::default()
    }

    /// These.
    pub fn new(codecs: impl IntoIterator<Item = Arc<dyn SegmentCodec>>) -> Codecs {
        Codecs(codecs.into_iter().collect())
    }

    pub(crate) fn get(&self, id: u8) -> Option<&Arc<dyn SegmentCodec>> {
        self.0.iter().find(|codec| codec.id() == id)
    }
}

impl fmt::Debug for Codecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|codec| codec.id()))
            .finish()
    }
}
