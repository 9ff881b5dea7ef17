//! What every policy promises, and the list of them.

use crate::lfu::Lfu;
use crate::lru::Lru;
use crate::random::Random;
use crate::s3_fifo::S3Fifo;
use crate::size::LargestFirst;
use crate::tiny_lfu::TinyLfu;
use crate::ttl::Ttl;
use std::fmt;
use std::str::FromStr;

/// What a policy may know of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// A hash of its key, the same whenever the key comes back; how a policy remembers what it let go.
    pub hash: u64,
    /// What evicting it frees, in bytes.
    pub weight: u32,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_at: Option<u64>,
}

/// Which of the slots it was told of goes next. It knows no keys and no clock, and holds no entry.
///
/// The caller tells it of every entry that comes, is used, changes and leaves; an entry that must not be evicted is not
/// told of, or removed again. Slots are numbers below `u32::MAX - 1`, dense if memory matters: state is kept in arrays
/// indexed by slot. `now` is in milliseconds on any clock, and need not rise.
///
/// Every call takes constant time, or logarithmic where a policy says so, averaged over the growing and shrinking of arrays.
/// Calls for a slot that is not held (or, for [`insert`](Self::insert), is) are bugs of the caller; of these `access`, `update`
/// and `remove` do nothing.
pub trait Policy: fmt::Debug + Send {
    /// Which one it is.
    fn kind(&self) -> PolicyKind;

    /// An entry has come: `slot`, which was not held, is.
    fn insert(&mut self, slot: u32, facts: Facts, now: u64);

    /// The entry was read.
    fn access(&mut self, slot: u32, now: u64);

    /// The entry was written; that is a use as well.
    fn update(&mut self, slot: u32, facts: Facts, now: u64);

    /// The entry has left without being evicted; false when it was not held.
    fn remove(&mut self, slot: u32) -> bool;

    /// Chooses a victim, which is not held any more; `None` when nothing is.
    fn evict(&mut self) -> Option<u32>;

    /// Whether the slot is held.
    fn contains(&self, slot: u32) -> bool;

    /// How much the next victim wants to go, to choose between parts of one store under the same policy: the largest
    /// first. `None` for a policy that does not compare; then the part that holds more bytes is as good a choice as any.
    fn urgency(&self, now: u64) -> Option<u64>;

    /// Slots held.
    fn len(&self) -> usize;

    /// Whether no slot is held.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Heap bytes held, exactly, as they were asked of the allocator.
    fn bytes(&self) -> usize;
}

impl PolicyKind {
    /// A policy that holds nothing. `seed` is where its random numbers come from.
    #[must_use]
    pub fn build(self, seed: u64) -> Box<dyn Policy> {
        match self {
            Self::Lru => Box::new(Lru::default()),
            Self::Lfu => Box::new(Lfu::default()),
            Self::Ttl => Box::new(Ttl::default()),
            Self::Size => Box::new(LargestFirst::default()),
            Self::Random => Box::new(Random::new(seed)),
            Self::S3Fifo => Box::new(S3Fifo::default()),
            Self::TinyLfu => Box::new(TinyLfu::new(seed)),
        }
    }
}

/// The policies there are, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// Least recently used, exactly.
    Lru,
    /// Least frequently used, with decay.
    Lfu,
    /// Nearest expiry, then least recently used.
    Ttl,
    /// Largest and coldest.
    Size,
    /// Any.
    Random,
    /// S3-FIFO.
    S3Fifo,
    /// W-TinyLFU.
    TinyLfu,
}

impl PolicyKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Lru,
        Self::Lfu,
        Self::Ttl,
        Self::Size,
        Self::Random,
        Self::S3Fifo,
        Self::TinyLfu,
    ];

    /// The name it has in configurations and figures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Lfu => "lfu",
            Self::Ttl => "ttl",
            Self::Size => "size",
            Self::Random => "random",
            Self::S3Fifo => "s3-fifo",
            Self::TinyLfu => "tiny-lfu",
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text names no policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPolicy {
    /// The text.
    pub found: String,
}

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "found {:?}; expected one of ", self.found)?;
        for (index, kind) in PolicyKind::ALL.into_iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{kind}")?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownPolicy {}

impl FromStr for PolicyKind {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| UnknownPolicy {
                found: text.to_owned(),
            })
    }
}
