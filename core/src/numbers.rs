//! The numbers of the store: sequences, versions, slots.

use std::fmt;

/// The number of one change, store-wide and never reused: what the log is ordered by and entity tags are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u64);

impl Sequence {
    /// Before the first change.
    pub const ZERO: Self = Self(0);
    /// The largest: entries keep it in seven bytes. A million changes a second reach it after two thousand years.
    pub const MAX: Self = Self((1 << 56) - 1);

    /// `raw` as a sequence; `None` above [`Sequence::MAX`].
    pub const fn new(raw: u64) -> Option<Self> {
        if raw <= Self::MAX.0 {
            Some(Self(raw))
        } else {
            None
        }
    }

    /// `raw` as a sequence, at most [`Sequence::MAX`].
    pub const fn from_raw(raw: u64) -> Self {
        if raw <= Self::MAX.0 {
            Self(raw)
        } else {
            Self::MAX
        }
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How often a key was changed since it was created: 0 for its first value. Restarts when the key is deleted, so
/// nothing internal relies on it.
pub type Version = u64;

/// The largest version; a key changed more often stays at it. Entries keep it in six bytes.
pub const VERSION_MAX: Version = (1 << 48) - 1;

/// A place in a partition's table. A key keeps its slot for its life; a freed slot is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u32);

impl Slot {
    /// Slot `number`.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The plain number.
    pub const fn get(self) -> u32 {
        self.0
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}
