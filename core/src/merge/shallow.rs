//! Shallow merge: the outermost members of the patch replace or join the stored ones.

use super::PatchError;
use super::output::Output;
use super::overlay::{Null, Overlay};
use super::text::is_object;

pub(super) fn write(
    out: &mut Output,
    stored: Option<&[u8]>,
    patch: &[u8],
) -> Result<(), PatchError> {
    match stored {
        Some(stored) if is_object(stored) && is_object(patch) => {
            Overlay::read(patch)?.write(out, stored, Null::Stored, |out, _, value| {
                out.push(value);
                Ok(())
            })
        }
        _ => {
            out.push(patch);
            Ok(())
        }
    }
}
