//! JSON Merge Patch, RFC 7396: the algorithm of its section 2 over text.

use super::output::Output;
use super::overlay::{Null, Overlay};
use super::text::is_object;
use super::work::{Stop, Work};
use super::{PatchError, PatchLimits, depth_max};

pub(super) fn write(
    out: &mut Output,
    stored: Option<&[u8]>,
    patch: &[u8],
    limits: &PatchLimits,
) -> Result<(), PatchError> {
    let len = stored.map_or(0, <[u8]>::len).saturating_add(patch.len());
    let mut bounds = Bounds {
        work: Work::new(len),
        depth_max: depth_max(limits),
    };
    merge(out, stored, patch, 0, &mut bounds)
}

struct Bounds {
    work: Work,
    depth_max: u32,
}

/// `level` objects of the result are open around this value. Each object of the patch that is reached is an object of
/// the result, so the limit on the result's depth bounds the recursion too.
fn merge(
    out: &mut Output,
    stored: Option<&[u8]>,
    patch: &[u8],
    level: u32,
    bounds: &mut Bounds,
) -> Result<(), PatchError> {
    if !is_object(patch) {
        out.push(patch);
        return Ok(());
    }
    // What is no object counts as an empty one.
    let stored = stored.filter(|stored| is_object(stored)).unwrap_or(b"{}");
    bounds
        .enter(level, stored.len().saturating_add(patch.len()))
        .map_err(|stop| stop.error(0, bounds.depth_max))?;
    Overlay::read(patch)?.write(out, stored, Null::Removes, |out, stored, value| {
        merge(out, stored, value, level + 1, bounds)
    })
}

impl Bounds {
    /// Before an object of `len` bytes, its stored text included, is scanned.
    fn enter(&mut self, level: u32, len: usize) -> Result<(), Stop> {
        if level == self.depth_max {
            return Err(Stop::Deep);
        }
        self.work.spend(len)
    }
}
