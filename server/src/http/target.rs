//! Keys out of request targets: percent-decoded exactly once, as UTF-8; `+` is a plus sign.

use super::fault::{Fault, KeyEncoding};
use http::Uri;
use inflightkv_validation::{KeyLimits, check_key};
use std::borrow::Cow;

/// A checked key. A key without percent-encoding stays where it arrived.
#[derive(Debug)]
pub(crate) enum Key {
    /// The path of this URI from this byte on.
    InPath(Uri, usize),
    /// It had to be decoded.
    Decoded(String),
}

impl Key {
    /// The key behind the first `start` bytes of the URI's path.
    pub(crate) fn in_path(uri: Uri, start: usize, limits: &KeyLimits) -> Result<Self, Fault> {
        let raw = &uri.path()[start..];
        match decode(raw).map_err(Fault::KeyEncoding)? {
            Cow::Borrowed(key) => {
                check_key(key, limits).map_err(Fault::Key)?;
                Ok(Self::InPath(uri, start))
            }
            Cow::Owned(key) => {
                check_key(&key, limits).map_err(Fault::Key)?;
                Ok(Self::Decoded(key))
            }
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::InPath(uri, start) => &uri.path()[*start..],
            Self::Decoded(key) => key,
        }
    }
}

/// Decodes `%xx` once. A `%` without two hexadecimal digits is a mistake, not a percent sign.
pub(crate) fn decode(raw: &str) -> Result<Cow<'_, str>, KeyEncoding> {
    if !raw.as_bytes().contains(&b'%') {
        return Ok(Cow::Borrowed(raw));
    }
    let bytes = raw.as_bytes();
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| byte == b'%') {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => rest = &rest[at + 3..],
            _ => return Err(KeyEncoding::Percent),
        }
    }
    percent_encoding::percent_decode(bytes)
        .decode_utf8()
        .map(|text| Cow::Owned(text.into_owned()))
        .map_err(|_| KeyEncoding::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_happens_once_and_strictly() {
        let cases: [(&str, Result<&str, KeyEncoding>); 12] = [
            ("user/42", Ok("user/42")),
            ("user%2F42", Ok("user/42")),
            ("a%252Fb", Ok("a%2Fb")),
            ("a+b", Ok("a+b")),
            ("a%20b", Ok("a b")),
            ("%C3%A4", Ok("ä")),
            ("%00", Ok("\0")),
            ("%", Err(KeyEncoding::Percent)),
            ("%4", Err(KeyEncoding::Percent)),
            ("%zz", Err(KeyEncoding::Percent)),
            ("%C3", Err(KeyEncoding::NotUtf8)),
            ("%ED%A0%80", Err(KeyEncoding::NotUtf8)),
        ];
        for (raw, expected) in cases {
            assert_eq!(decode(raw).as_deref(), expected.as_deref(), "{raw}");
        }
    }
}
