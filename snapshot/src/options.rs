//! How blocks are cut.

use crate::error::WriteError;
use crate::format::entry::VALUE_BYTES_MAX;

const BLOCK_BYTES_MIN: usize = 4 << 10;
const BLOCK_BYTES_MAX: usize = 16 << 20;

/// How blocks are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A block is full at this many bytes before compression. More compress a little better; less
    /// take less memory per part while loading. Default 64 KiB, from 4 KiB to 16 MiB.
    pub block_bytes: usize,
    /// The largest value. A block is as large as the largest entry in it, and so is the memory that
    /// loading takes per part. Default and most 1 GiB.
    pub value_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            block_bytes: 64 << 10,
            value_bytes_max: VALUE_BYTES_MAX,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), WriteError> {
        if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&self.block_bytes) {
            return Err(WriteError::Setting {
                name: "block_bytes",
                found: self.block_bytes.to_string(),
                expected: format!("from {BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX}"),
            });
        }
        if self.value_bytes_max > VALUE_BYTES_MAX {
            return Err(WriteError::Setting {
                name: "value_bytes_max",
                found: self.value_bytes_max.to_string(),
                expected: format!("at most {VALUE_BYTES_MAX}"),
            });
        }
        Ok(())
    }
}
