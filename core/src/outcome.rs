//! What came of a command.

use crate::entry::Entry;
use crate::merge::PatchError;
use crate::mutation::Mutation;
use crate::numbers::{Sequence, Version};

/// What [`Partition::decide`](crate::Partition::decide) found.
#[derive(Debug)]
pub struct Decision {
    /// The answer.
    pub outcome: Outcome,
    /// What is to be logged and applied; `None` when nothing changes.
    pub mutation: Option<Mutation>,
    /// The change whose durability the answer depends on when nothing is changed: the entry's, or the partition's last
    /// removal when the key is not there.
    pub observed: Sequence,
    /// A draft that was not used, for the caller to release outside the lock.
    pub spent: Option<Entry>,
}

/// What came of a command. Losing a race is an answer the caller asked for, not a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The key was not there.
    Created {
        /// Always 0.
        version: Version,
    },
    /// The key has a new value or expiry.
    Changed {
        /// The version it has now.
        version: Version,
    },
    /// The key has this value, media type and expiry already.
    Unchanged {
        /// The version it keeps.
        version: Version,
        /// Its last change.
        sequence: Sequence,
        /// When it expires.
        expires_at: Option<u64>,
    },
    /// The key was removed.
    Deleted {
        /// The version it had.
        version: Version,
    },
    /// The key to delete, or to patch with JSON Patch, is not there.
    Missing,
    /// A condition did not hold.
    Conflict {
        /// Which.
        failed: FailedCondition,
        /// What is there; `None` when the key is not.
        current: Option<Current>,
    },
    /// The patch cannot be applied to what is there.
    PatchFailed(PatchError),
    /// What there is to do takes too long for the partition's lock, and what was prepared outside is missing or out of
    /// date: prepare it against the entry as it is now and come back. For a patch that is the [result], when the merge
    /// is large or the value is stored coded; for a put it is the [comparison] with a coded value of the same length and
    /// checksum, and the draft is handed back as spent.
    ///
    /// [result]: crate::Prepared
    /// [comparison]: crate::Compared
    Retry,
}

/// The condition that did not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedCondition {
    /// `If-Match`.
    Match,
    /// `ifVersion`.
    Version,
    /// `If-None-Match`.
    NoneMatch,
}

/// What a key has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// Its version.
    pub version: Version,
    /// The sequence of its last change.
    pub sequence: Sequence,
}
