//! What was decided: logged, applied and replayed alike.

use crate::entry::Entry;
use crate::numbers::{Sequence, Slot, Version};
use bytes::Bytes;

/// Why a key is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A client asked.
    Client,
    /// For memory. Logged like a delete: otherwise a replay would bring the victim back.
    Evicted,
}

/// A decided change, to be applied to the partition that decided it before anything else is.
#[derive(Debug)]
pub struct Mutation {
    pub(crate) hash: u64,
    /// Where the key is already, expired or not.
    pub(crate) slot: Option<Slot>,
    pub(crate) change: Change,
}

impl Mutation {
    /// The key's hash in the partition's table; 0 for an eviction, which needs none.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

#[derive(Debug)]
pub(crate) enum Change {
    Put(Entry),
    Delete(Cause),
}

/// What the log keeps of a mutation, by [`Partition::logged`](crate::Partition::logged).
#[derive(Clone, Copy, Debug)]
pub struct Logged<'a> {
    /// The key.
    pub key: &'a str,
    /// `None` for a put.
    pub removed: Option<Cause>,
    /// The value; empty for a removal.
    pub value: &'a [u8],
    /// The value by reference, when it is large.
    pub shared_value: Option<&'a Bytes>,
    /// `None` for JSON.
    pub media_type: Option<&'a str>,
    /// CRC-32 (IEEE) of the value; 0 for a removal.
    pub crc: u32,
    /// The version the key gets, or had when it is removed.
    pub version: Version,
    /// When the key expires, in milliseconds since the Unix epoch.
    pub expires_at: Option<u64>,
    /// Whether the key is exempt from eviction.
    pub pinned: bool,
}

/// What applying a mutation did.
#[derive(Debug)]
pub struct Applied {
    /// Where the key is, or was.
    pub slot: Slot,
    /// Whether something was there that nobody needs any more: not so when a snapshot keeps it.
    pub released: bool,
    /// What is to be released outside the lock.
    pub spent: [Option<Entry>; 2],
    /// When the key expires now; `None` for never and for a removal.
    pub expires_at: Option<u64>,
}

/// An expired entry that was reclaimed.
#[derive(Debug)]
pub struct Reclaimed {
    /// When it expired, in milliseconds since the Unix epoch.
    pub expired_at: u64,
    /// Whether nobody needs it any more: not so when a snapshot keeps it.
    pub released: bool,
    /// What is to be released outside the lock.
    pub spent: Option<Entry>,
}

/// An entry as it was read back from disk.
#[derive(Clone, Copy, Debug)]
pub struct LoadedEntry<'a> {
    /// The key.
    pub key: &'a str,
    /// The value.
    pub value: &'a [u8],
    /// `None` for JSON.
    pub media_type: Option<&'a str>,
    /// CRC-32 (IEEE) of the value, verified by the reader.
    pub crc: u32,
    /// Its version.
    pub version: Version,
    /// Its last change.
    pub sequence: Sequence,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_at: Option<u64>,
    /// Whether it is exempt from eviction.
    pub pinned: bool,
}
