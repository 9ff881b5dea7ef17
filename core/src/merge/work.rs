//! A bound on the work of one patch.
//!
//! A small patch can ask for much: thousands of operations that each search, shift, compare or copy a large document, or
//! a merge at every level of a deep one, each of which is scanned from its start to its end. One unit is about a byte
//! looked at, so the bound is some tenths of a second on any machine, and more only for texts of many megabytes. A patch meets
//! it when it goes through large objects or arrays hundreds or thousands of times.

use super::PatchError;

/// Units that any patch may spend.
const UNITS: u64 = 1 << 28;
/// Units more for each byte of stored value and patch.
const UNITS_PER_BYTE: u64 = 32;

/// Units for comparing a name with one member's.
pub(super) const LOOKUP: usize = 4;
/// Units for shifting one element or member.
pub(super) const SHIFT: usize = 2;
/// Units for making, copying or visiting one part of the tree.
pub(super) const PART: usize = 32;

pub(super) struct Work {
    left: u64,
}

/// Why a step stops the whole patch.
#[derive(Debug)]
pub(super) enum Stop {
    /// The text led through is not JSON.
    Broken,
    /// The bound on the work is reached.
    Costly,
    /// Deeper than the limit.
    Deep,
}

impl Work {
    /// For a stored value and a patch of so many bytes together.
    pub(super) fn new(len: usize) -> Self {
        Self {
            left: (len as u64)
                .saturating_mul(UNITS_PER_BYTE)
                .saturating_add(UNITS),
        }
    }

    pub(super) fn spend(&mut self, units: usize) -> Result<(), Stop> {
        self.left = self.left.checked_sub(units as u64).ok_or(Stop::Costly)?;
        Ok(())
    }
}

impl Stop {
    /// As the caller sees it: what operation `index` met, where `depth_max` is the limit in force.
    pub(super) fn error(self, index: usize, depth_max: u32) -> PatchError {
        match self {
            Stop::Broken => PatchError::NotJson,
            Stop::Costly => PatchError::TooCostly { index },
            Stop::Deep => PatchError::TooDeep { max: depth_max },
        }
    }
}
