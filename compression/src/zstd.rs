//! Zstandard frames (RFC 8878), by the reference library.
//!
//! A frame says its content size and carries no checksum: what is stored around it has one. It is a
//! whole frame with its magic number, so it can be sent as it is to whoever accepts `zstd`.

use std::cell::RefCell;

use zstd::zstd_safe::{CCtx, CDict, DCtx, DDict, compress_bound, get_error_name};

use crate::codec::{Codec, CodecId};
use crate::error::DecodeError;

/// The level that is used unless another is asked for: the library's own default.
pub const ZSTD_LEVEL: i32 = 3;

/// What every frame begins with.
pub(crate) const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A block is at least four bytes (a header of three and one to repeat) and stands for at most
/// 128 KiB.
const BLOCK_STORED_MIN: usize = 4;
const BLOCK_RAW_MAX: usize = 128 << 10;

/// Zstandard at one level.
#[derive(Clone, Copy, Debug)]
pub struct Zstd {
    level: i32,
}

impl Zstd {
    /// Compresses at [`ZSTD_LEVEL`].
    pub const DEFAULT: Self = Self { level: ZSTD_LEVEL };

    /// Compresses at `level`, 1 (fast) to 19 (small); what lies outside is taken as the nearest. Every
    /// level decompresses equally fast, and any instance reads what any other wrote.
    #[must_use]
    pub fn with_level(level: i32) -> Self {
        Self {
            level: level.clamp(1, 19),
        }
    }

    /// The level.
    #[must_use]
    pub const fn level(&self) -> i32 {
        self.level
    }
}

impl Default for Zstd {
    fn default() -> Self {
        Self::DEFAULT
    }
}

// A context is some hundred KiB of tables and costs more to set up than a small value to compress. It
// carries nothing from one call to the next that shows.
thread_local! {
    static COMPRESSION: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
    static DECOMPRESSION: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

impl Codec for Zstd {
    fn id(&self) -> CodecId {
        CodecId::Zstd
    }

    fn compress(&self, raw: &[u8], out: &mut Vec<u8>) {
        compress_with(raw, out, |context, out| {
            context.compress(out, raw, self.level)
        });
    }

    fn decompress(
        &self,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        decompress_with(stored, raw_len, out, |context, out| {
            context.decompress(out, stored)
        })
    }
}

/// Appends one frame made with a dictionary.
pub(crate) fn compress_using(dictionary: &CDict<'_>, raw: &[u8], out: &mut Vec<u8>) {
    compress_with(raw, out, |context, out| {
        context.compress_using_cdict(out, raw, dictionary)
    });
}

/// Decodes one frame made with a dictionary; otherwise as [`Codec::decompress`].
pub(crate) fn decompress_using(
    dictionary: &DDict<'_>,
    stored: &[u8],
    raw_len: usize,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    decompress_with(stored, raw_len, out, |context, out| {
        context.decompress_using_ddict(out, stored, dictionary)
    })
}

fn compress_with(
    raw: &[u8],
    out: &mut Vec<u8>,
    run: impl FnOnce(&mut CCtx<'static>, &mut [u8]) -> Result<usize, usize>,
) {
    let start = out.len();
    out.resize(start + compress_bound(raw.len()), 0);
    let written = COMPRESSION
        .with_borrow_mut(|context| run(context, &mut out[start..]))
        .unwrap_or_else(|code| {
            // The output has the size that any input can need; what is left is the memory of the
            // context, whose want ends a process everywhere else in Rust as well.
            panic!("zstd could not compress: {}", get_error_name(code))
        });
    out.truncate(start + written);
}

fn decompress_with(
    stored: &[u8],
    raw_len: usize,
    out: &mut Vec<u8>,
    run: impl FnOnce(&mut DCtx<'static>, &mut [u8]) -> Result<usize, usize>,
) -> Result<(), DecodeError> {
    let most = (stored.len() / BLOCK_STORED_MIN).saturating_mul(BLOCK_RAW_MAX);
    if raw_len > most {
        return Err(DecodeError::LengthImpossible {
            codec: CodecId::Zstd,
            stored: stored.len(),
            raw_len,
            most,
        });
    }
    if stored.is_empty() {
        // The library takes nothing for the end of a series of frames; here it is a frame that is missing.
        return Err(DecodeError::Damaged {
            codec: CodecId::Zstd,
            reason: "no frame".to_owned(),
        });
    }
    let start = out.len();
    out.resize(start + raw_len, 0);
    let result = match DECOMPRESSION.with_borrow_mut(|context| run(context, &mut out[start..])) {
        Ok(written) if written == raw_len => return Ok(()),
        Ok(found) => DecodeError::LengthDiffers {
            codec: CodecId::Zstd,
            expected: raw_len,
            found,
        },
        Err(code) => DecodeError::Damaged {
            codec: CodecId::Zstd,
            reason: get_error_name(code).to_owned(),
        },
    };
    out.truncate(start);
    Err(result)
}
