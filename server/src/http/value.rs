//! Bodies to values: JSON minified, and no value that keeps a connection's read buffer alive.

use crate::engine::Value;
use bytes::Bytes;
use inflightkv_core::INLINE_MAX;
use inflightkv_validation::{self as validation, JsonError, Limits};
use std::borrow::Cow;

/// The body as minified JSON; the same bytes when there was nothing to take out.
pub(crate) fn minified(body: &Bytes, limits: &Limits) -> Result<Bytes, JsonError> {
    let (text, _) = validation::minified(body, limits)?;
    Ok(match text {
        Cow::Borrowed(text) => body.slice_ref(text),
        Cow::Owned(text) => Bytes::from(text.into_boxed_slice()),
    })
}

/// A JSON value for the store.
pub(crate) fn json(text: &Bytes) -> Value {
    Value {
        bytes: owned(text),
        media_type: None,
    }
}

/// A value of another media type for the store.
pub(crate) fn opaque(content: &Bytes, media_type: String) -> Value {
    Value {
        bytes: owned(content),
        media_type: Some(media_type),
    }
}

/// The store copies small values into their entries and keeps large ones by reference. What arrived is a slice of a
/// read buffer, and such a reference would keep all of that.
fn owned(content: &Bytes) -> Bytes {
    if content.len() <= INLINE_MAX {
        content.clone()
    } else {
        Bytes::copy_from_slice(content)
    }
}
