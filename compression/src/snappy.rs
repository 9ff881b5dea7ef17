//! Snappy's raw format (google/snappy, `format_description.txt`), by `snap`.

use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use crate::codec::{Codec, CodecId};
use crate::error::DecodeError;

/// A copy element is at least three bytes for at most 64 raw bytes (two bytes for at most eleven), a
/// literal stands for itself: no byte of the format is worth more than 64/3.
const RAW_PER_STORED_MAX: usize = 22;

/// Raw Snappy, without the framing of its stream format.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snappy;

impl Codec for Snappy {
    fn id(&self) -> CodecId {
        CodecId::Snappy
    }

    fn compress(&self, raw: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + max_compress_len(raw.len()), 0);
        let written = Encoder::new()
            .compress(raw, &mut out[start..])
            .expect("the output has the maximum size that any input of this length can need");
        out.truncate(start + written);
    }

    fn decompress(
        &self,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let damaged = |error: snap::Error| DecodeError::Damaged {
            codec: CodecId::Snappy,
            reason: error.to_string(),
        };
        let most = stored.len().saturating_mul(RAW_PER_STORED_MAX);
        if raw_len > most {
            return Err(DecodeError::LengthImpossible {
                codec: CodecId::Snappy,
                stored: stored.len(),
                raw_len,
                most,
            });
        }
        // The format begins with its own idea of the length; both must agree before memory is spent.
        let found = if stored.is_empty() {
            0
        } else {
            decompress_len(stored).map_err(damaged)?
        };
        if found != raw_len || stored.is_empty() {
            return Err(DecodeError::LengthDiffers {
                codec: CodecId::Snappy,
                expected: raw_len,
                found,
            });
        }
        let start = out.len();
        out.resize(start + raw_len, 0);
        match Decoder::new().decompress(stored, &mut out[start..]) {
            Ok(written) if written == raw_len => Ok(()),
            Ok(found) => {
                out.truncate(start);
                Err(DecodeError::LengthDiffers {
                    codec: CodecId::Snappy,
                    expected: raw_len,
                    found,
                })
            }
            Err(error) => {
                out.truncate(start);
                Err(damaged(error))
            }
        }
    }
}
