//! What a client asks, and on what condition, as data.

use crate::entry::Entry;
use crate::merge::{PatchError, PatchKind, PatchLimits};
use crate::numbers::{Sequence, Version};

/// One request to one partition.
#[derive(Debug)]
pub struct Command<'a> {
    /// The key.
    pub key: &'a str,
    /// Its hash, by [`hash_key`](crate::hash_key) with the partition's hasher.
    pub hash: u64,
    /// What must hold for it to be done.
    pub conditions: Conditions<'a>,
    /// What is to be done.
    pub operation: Operation<'a>,
}

/// What must hold for a command to be done; the default holds always.
///
/// They are evaluated in the order of RFC 9110, section 13.2.2: `if_match`, `version`, `if_none_match`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions<'a> {
    /// `If-Match`.
    pub if_match: Option<EtagCondition<'a>>,
    /// `ifVersion`.
    pub version: Option<VersionCondition>,
    /// `If-None-Match`.
    pub if_none_match: Option<EtagCondition<'a>>,
}

/// A condition on the user's counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionCondition {
    /// The key does not exist (`ifVersion=-1`).
    Absent,
    /// The key exists with this version.
    Is(Version),
}

/// A condition on the sequence of the key's last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtagCondition<'a> {
    /// `*`: the key exists.
    Any,
    /// One of these; an empty list matches nothing.
    OneOf(&'a [Sequence]),
}

/// What is to be done with the key.
#[derive(Debug)]
pub enum Operation<'a> {
    /// Set its value.
    Put {
        /// The value, media type, checksum and, with [`PutExpiry::Set`], the expiry. With [`PutExpiry::Keep`] it
        /// reserves room for one.
        draft: Entry,
        /// What becomes of the expiry.
        expiry: PutExpiry,
        /// How the draft compares with a coded value that is there, found out beforehand.
        compared: Option<Compared>,
    },
    /// Change a part of its value.
    Patch(Patch<'a>),
    /// Remove it.
    Delete,
}

/// What a put does to the expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutExpiry {
    /// Exactly what the draft says, also none.
    Set,
    /// What the key has now.
    Keep,
}

/// What a patch does to the expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchExpiry {
    /// What the key has now.
    Keep,
    /// None from now on.
    Clear,
    /// This instant, in milliseconds since the Unix epoch.
    At(u64),
}

/// A change to a part of a JSON value.
#[derive(Debug)]
pub struct Patch<'a> {
    /// How `document` is meant.
    pub kind: PatchKind,
    /// The patch document: minified, valid JSON.
    pub document: &'a [u8],
    /// What becomes of the expiry.
    pub expiry: PatchExpiry,
    /// Whether the key is exempt from eviction from now on; `None` leaves that as it is.
    pub pin: Option<bool>,
    /// Bounds on the result, and on what is computed while the partition is locked.
    pub limits: PatchLimits,
    /// The result, computed beforehand.
    pub prepared: Option<Prepared>,
}

/// A comparison with a value that is stored coded, made outside the partition's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The sequence of the entry compared with. The comparison is used only if this still holds.
    pub base: Sequence,
    /// Whether its value is byte for byte the new one.
    pub same: bool,
}

/// The result of a patch, computed outside the partition's lock against the entry that was there.
#[derive(Debug)]
pub struct Prepared {
    /// The sequence of that entry; `None` when there was none. It is used only if this still holds.
    pub base: Option<Sequence>,
    /// The result, with the expiry it is to have, or why there is none.
    pub result: Result<Entry, PatchError>,
    /// Whether the result's value is byte for byte that of the entry.
    pub same: bool,
}
