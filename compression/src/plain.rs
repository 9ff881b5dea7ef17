//! The codec that changes nothing, so that "not compressed" needs no special case.

use crate::codec::{Codec, CodecId};
use crate::error::DecodeError;

/// Stores the bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Codec for Plain {
    fn id(&self) -> CodecId {
        CodecId::Plain
    }

    fn compress(&self, raw: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(raw);
    }

    fn decompress(
        &self,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        if stored.len() != raw_len {
            return Err(DecodeError::LengthDiffers {
                codec: CodecId::Plain,
                expected: raw_len,
                found: stored.len(),
            });
        }
        out.extend_from_slice(stored);
        Ok(())
    }
}
