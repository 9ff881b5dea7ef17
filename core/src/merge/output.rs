//! The result as it grows: kept up to the limit, then only counted.

use super::PatchError;

pub(super) struct Output {
    bytes: Vec<u8>,
    len: usize,
    max: usize,
}

impl Output {
    /// Room for `expected` bytes at first, of which no more than `max` are ever kept.
    pub(super) fn new(expected: usize, max: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(expected.min(max)),
            len: 0,
            max,
        }
    }

    pub(super) fn push(&mut self, text: &[u8]) {
        self.len = self.len.saturating_add(text.len());
        if self.len <= self.max {
            self.bytes.extend_from_slice(text);
        } else {
            self.bytes = Vec::new();
        }
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, PatchError> {
        if self.len <= self.max {
            Ok(self.bytes)
        } else {
            Err(PatchError::TooLarge {
                len: self.len,
                max: self.max,
            })
        }
    }
}
