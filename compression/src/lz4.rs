//! LZ4 block format (lz4/lz4, `doc/lz4_Block_format.md`), by the safe build of `lz4_flex`.

use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

use crate::codec::{Codec, CodecId};
use crate::error::DecodeError;

/// No byte of the block format stands for more than 255 raw bytes: a length byte adds at most 255
/// to a match, a literal is one byte, and a token with its offset is three bytes for at most 19.
const RAW_PER_STORED_MAX: usize = 255;

/// LZ4 blocks without a length in front: whoever stores them keeps the length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lz4;

impl Codec for Lz4 {
    fn id(&self) -> CodecId {
        CodecId::Lz4
    }

    fn compress(&self, raw: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + get_maximum_output_size(raw.len()), 0);
        let written = compress_into(raw, &mut out[start..])
            .expect("the output has the maximum size that any input of this length can need");
        out.truncate(start + written);
    }

    fn decompress(
        &self,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let most = stored.len().saturating_mul(RAW_PER_STORED_MAX);
        if raw_len > most {
            return Err(DecodeError::LengthImpossible {
                codec: CodecId::Lz4,
                stored: stored.len(),
                raw_len,
                most,
            });
        }
        let start = out.len();
        out.resize(start + raw_len, 0);
        let result = match decompress_into(stored, &mut out[start..]) {
            Ok(written) if written == raw_len => return Ok(()),
            Ok(found) => DecodeError::LengthDiffers {
                codec: CodecId::Lz4,
                expected: raw_len,
                found,
            },
            Err(error) => DecodeError::Damaged {
                codec: CodecId::Lz4,
                reason: error.to_string(),
            },
        };
        out.truncate(start);
        Err(result)
    }
}
