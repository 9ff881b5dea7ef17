//! The `/kv` envelope: `{"data":…,"version":…,"error":…}`, members in this order, always all three.

use super::json::{push_number, push_string};

/// A value's JSON text as a JSON string, with its version.
pub(crate) fn success(data: Option<&[u8]>, version: u64) -> Vec<u8> {
    let len = data.map_or(4, <[u8]>::len);
    // Quotes are the only thing that small JSON has escaped, and there is about one in eight bytes.
    let mut out = Vec::with_capacity(len + len / 4 + 64);
    out.extend_from_slice(br#"{"data":"#);
    match data {
        Some(text) => push_string(&mut out, text),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(br#","version":"#);
    push_number(&mut out, version);
    out.extend_from_slice(br#","error":null}"#);
    out
}

/// A failure with its code and a sentence.
pub(crate) fn failure(code: &str, message: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(96 + message.len());
    out.extend_from_slice(br#"{"data":null,"version":null,"error":{"errorCode":"#);
    push_string(&mut out, code.as_bytes());
    out.extend_from_slice(br#","errorMessage":"#);
    push_string(&mut out, message.as_bytes());
    out.extend_from_slice(b"}}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_and_their_order_never_change() {
        assert_eq!(
            success(Some(br#"{"a":"\n"}"#), 3),
            br#"{"data":"{\"a\":\"\\n\"}","version":3,"error":null}"#
        );
        assert_eq!(
            success(None, 0),
            br#"{"data":null,"version":0,"error":null}"#
        );
        assert_eq!(
            failure("CONFLICT", "no \"x\""),
            br#"{"data":null,"version":null,"error":{"errorCode":"CONFLICT","errorMessage":"no \"x\""}}"#
        );
    }
}
