//! What every policy promises, and the list of them.

use std::fmt;
use std::str::FromStr;

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
