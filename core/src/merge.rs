//! A patch applied to a stored value: shallow merge, JSON Merge Patch (RFC 7396) and JSON Patch (RFC 6902).
//!
//! All three work on minified text and copy what they do not touch, so untouched members keep their digits, the
//! spelling of their escapes and their order. Nothing is parsed into a document; only JSON Patch splits those objects and
//! arrays into parts that its pointers lead through.
//!
//! Rules that the three share:
//! - Names compare by the characters they stand for: `"\u0061"` is `"a"`.
//! - A member that gets a new value stays where it is and keeps the spelling of its name. New members follow the stored
//!   ones in the order of the patch.
//! - Of members with the same name the last one counts, as in most parsers, and it stands where the first one stood. An
//!   object's other duplicates are left as they are.
//!
//! Both texts ought to be valid minified JSON. Anything else gives an error or a text that is wrong in the same way,
//! never a panic, deep recursion or unbounded memory.
//!
//! # Reading order
//! `text` (where values end), `string` (names and escapes), `output` (the size limit); `overlay`, `shallow`,
//! `merge_patch`; `pointer`, `operation`, `tree`, `equal`, `number`, `json_patch`.

mod equal;
mod json_patch;
mod merge_patch;
mod number;
mod operation;
mod output;
mod overlay;
mod pointer;
mod shallow;
mod string;
mod text;
mod tree;
mod work;

use output::Output;

/// Recursion stops at this depth whatever the limits allow: a loop's stack is small.
const DEPTH_MAX: u32 = 512;

/// How a patch is to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// The members of the patch replace or join the stored ones; `null` is stored. Where either side is no object the
    /// patch replaces the value.
    Shallow,
    /// JSON Merge Patch, RFC 7396: objects merge recursively and `null` removes.
    Merge,
    /// JSON Patch, RFC 6902: a list of operations, all or none.
    Json,
}

/// What a patched value must not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchLimits {
    /// Bytes of the result.
    pub value_bytes_max: usize,
    /// Objects and arrays within each other in the result. Values above 512 count as 512.
    pub depth_max: u32,
    /// Bytes of stored value and patch together up to which a partition computes the result itself.
    pub inline_max: usize,
}

/// Why a patch could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The stored value does not have the checksum that it was stored with.
    #[error("the stored value does not have the checksum that it was stored with")]
    Damaged,
    /// The patch as a whole is not of its kind, whatever it would be applied to.
    #[error("the patch cannot be read: {reason}")]
    Unreadable {
        /// What was expected.
        reason: &'static str,
    },
    /// An operation of a JSON Patch is wrong, whatever it would be applied to.
    #[error("operation {index} of the patch is malformed: {reason}")]
    Malformed {
        /// Position of the operation, from 0.
        index: usize,
        /// What was expected.
        reason: &'static str,
    },
    /// A `test` operation found another value.
    #[error("operation {index} of the patch found another value at \"{path}\" than it tests for")]
    TestFailed {
        /// Position of the operation, from 0.
        index: usize,
        /// The tested location; long ones are cut.
        path: String,
    },
    /// An operation leads to a location that is not there.
    #[error("operation {index} of the patch needs \"{path}\", which is not there")]
    PathMissing {
        /// Position of the operation, from 0.
        index: usize,
        /// The missing location; long ones are cut.
        path: String,
    },
    /// The stored value is not JSON.
    #[error("the stored value is not JSON, so it cannot be patched")]
    NotJson,
    /// The result, or a step on the way to it, is too large.
    #[error("the patched value would have {len} bytes, and the limit is {max}")]
    TooLarge {
        /// Bytes it would have.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The result, or a step on the way to it, is nested too deeply.
    #[error("the patched value would be nested deeper than the limit of {max}")]
    TooDeep {
        /// Levels allowed.
        max: u32,
    },
    /// Applying the patch would search, shift, compare or scan too much; patches with fewer operations, or with less
    /// nesting, are needed.
    #[error("the patch takes too much work to apply; the limit was reached in operation {index}")]
    TooCostly {
        /// Position of the operation that was not done, from 0. A merge is a single operation.
        index: usize,
    },
}

/// The value that `patch` makes of `stored`, which is `None` where the key is missing.
///
/// On a missing key a shallow merge gives the patch itself, RFC 7396 applies it to nothing (so its `null` members
/// vanish), and a JSON Patch has no document to apply to: [`PatchError::PathMissing`].
///
/// # Errors
/// A patch that is not of its kind, a stored value that is not JSON, a failed or impossible operation of a JSON Patch, and
/// a result beyond the limits.
pub fn patched(
    kind: PatchKind,
    stored: Option<&[u8]>,
    patch: &[u8],
    limits: &PatchLimits,
) -> Result<Vec<u8>, PatchError> {
    let room = stored.map_or(0, <[u8]>::len).saturating_add(patch.len());
    let mut out = Output::new(room, limits.value_bytes_max);
    match kind {
        PatchKind::Shallow => shallow::write(&mut out, stored, patch)?,
        PatchKind::Merge => merge_patch::write(&mut out, stored, patch, limits)?,
        PatchKind::Json => json_patch::write(&mut out, stored, patch, limits)?,
    }
    let result = out.finish()?;
    match text::depth(&result) {
        Ok(depth) if depth <= depth_max(limits) => Ok(result),
        Ok(_) => Err(PatchError::TooDeep {
            max: depth_max(limits),
        }),
        // Both sides were copied without being looked into, and one of them is no JSON.
        Err(text::Broken) if text::depth(patch).is_err() => Err(unreadable()),
        Err(text::Broken) => Err(PatchError::NotJson),
    }
}

/// Whether `patch` is of its kind, as far as that can be said without a value to apply it to: a malformed JSON Patch is
/// refused here whether or not its key exists.
///
/// # Errors
/// [`PatchError::Unreadable`] and [`PatchError::Malformed`].
pub fn check(kind: PatchKind, patch: &[u8]) -> Result<(), PatchError> {
    text::depth(patch).map_err(|text::Broken| unreadable())?;
    match kind {
        PatchKind::Shallow | PatchKind::Merge => Ok(()),
        PatchKind::Json => operation::read(patch).map(drop),
    }
}

fn depth_max(limits: &PatchLimits) -> u32 {
    limits.depth_max.min(DEPTH_MAX)
}

fn unreadable() -> PatchError {
    PatchError::Unreadable {
        reason: "expected minified JSON",
    }
}
