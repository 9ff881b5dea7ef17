//! Entity tags: the one place that knows how a sequence number is spelt, and how conditions are read.
//!
//! A tag is `"` + the sequence number of the key's last change in lower-case hexadecimal + `"`. It is strong and never
//! used twice. The same value sent as a frame of Zstandard is another representation and has another tag, with `-zstd`
//! behind the number (RFC 9110, section 8.8.3.3); a condition may name the value by either. A tag that is well-formed
//! but not ours matches nothing.

use crate::engine::{EtagCondition, OwnedEtagCondition, Sequence};
use http::header::{HeaderMap, HeaderName, HeaderValue};

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Two quotes and at most sixteen digits.
const TAG_BYTES_MAX: usize = 18;

/// Tags named by a condition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tags {
    /// `*`
    Any,
    /// Those of the list that could be ours; may be none.
    List(Vec<Sequence>),
}

impl Tags {
    pub(crate) fn condition(&self) -> EtagCondition<'_> {
        match self {
            Self::Any => EtagCondition::Any,
            Self::List(list) => EtagCondition::OneOf(list),
        }
    }

    pub(crate) fn into_owned(self) -> OwnedEtagCondition {
        match self {
            Self::Any => OwnedEtagCondition::Any,
            Self::List(list) => OwnedEtagCondition::OneOf(list),
        }
    }

    /// Whether an existing value with this sequence number is meant.
    pub(crate) fn matches(&self, sequence: Sequence) -> bool {
        match self {
            Self::Any => true,
            Self::List(list) => list.contains(&sequence),
        }
    }
}

/// How tags are compared (RFC 9110, section 8.8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// `If-Match`: a weak tag matches nothing.
    Strong,
    /// `If-None-Match`: a weak tag is as good as the strong one.
    Weak,
}

/// A condition that is neither `*` nor a list of tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The tag as a header value.
pub(crate) fn header(sequence: Sequence) -> HeaderValue {
    let mut buffer = [0; TAG_BYTES_MAX];
    HeaderValue::from_bytes(spell(sequence, &mut buffer))
        .expect("quotes and hexadecimal digits are allowed")
}

/// Behind the number in the tag of a value that is sent as a frame of Zstandard.
const ZSTD: &str = "-zstd";

/// The tag of the value sent as a frame of Zstandard.
pub(crate) fn zstd_text(sequence: Sequence) -> String {
    format!("\"{:x}{ZSTD}\"", sequence.get())
}

/// Whether `If-None-Match` names the value by its tag as a frame of Zstandard.
pub(crate) fn names_zstd(headers: &HeaderMap, sequence: Sequence) -> bool {
    let tag = zstd_text(sequence);
    headers
        .get_all(http::header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(&tag))
}

/// Appends the tag as a JSON string; its quotes belong to it and are escaped.
pub(crate) fn push_json(out: &mut Vec<u8>, sequence: Sequence) {
    let mut buffer = [0; TAG_BYTES_MAX];
    super::json::push_string(out, spell(sequence, &mut buffer));
}

/// The tag as text.
pub(crate) fn text(sequence: Sequence) -> String {
    format!("\"{:x}\"", sequence.get())
}

fn spell(sequence: Sequence, buffer: &mut [u8; TAG_BYTES_MAX]) -> &[u8] {
    let mut rest = sequence.get();
    let mut at = TAG_BYTES_MAX - 1;
    buffer[at] = b'"';
    loop {
        at -= 1;
        buffer[at] = HEX[(rest & 15) as usize];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    at -= 1;
    buffer[at] = b'"';
    &buffer[at..]
}

/// The number behind the text between the quotes, if that text is ours.
fn sequence(opaque: &[u8]) -> Option<Sequence> {
    let opaque = opaque.strip_suffix(ZSTD.as_bytes()).unwrap_or(opaque);
    let canonical = match opaque {
        [] => false,
        [b'0', _, ..] => false,
        digits => {
            digits.len() <= 16
                && digits
                    .iter()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        }
    };
    if !canonical {
        return None;
    }
    let number = opaque.iter().fold(0_u64, |number, &byte| {
        let digit = if byte.is_ascii_digit() {
            byte - b'0'
        } else {
            byte - b'a' + 10
        };
        (number << 4) | u64::from(digit)
    });
    Sequence::new(number)
}

/// Reads all fields of that name as one list.
pub(crate) fn parse(
    headers: &HeaderMap,
    name: HeaderName,
    how: Comparison,
) -> Result<Option<Tags>, Malformed> {
    let mut values = headers.get_all(name).iter().peekable();
    if values.peek().is_none() {
        return Ok(None);
    }
    let mut tags = Tags::List(Vec::new());
    let mut seen = 0_usize;
    for value in values {
        let text = value.as_bytes().trim_ascii();
        if text == b"*" {
            if seen > 0 {
                return Err(Malformed);
            }
            tags = Tags::Any;
            seen += 1;
            continue;
        }
        let Tags::List(list) = &mut tags else {
            return Err(Malformed);
        };
        seen += parse_list(text, how, list)?;
    }
    if seen == 0 {
        Err(Malformed)
    } else {
        Ok(Some(tags))
    }
}

/// Reads one tag as a batch names it: as in a header, or its bare digits.
pub(crate) fn parse_one(text: &str) -> Tags {
    let text = text.trim_ascii().as_bytes();
    match text {
        b"*" => Tags::Any,
        [b'"', opaque @ .., b'"'] => Tags::List(sequence(opaque).into_iter().collect()),
        bare => Tags::List(sequence(bare).into_iter().collect()),
    }
}

/// Appends what is ours; returns how many well-formed tags there were.
fn parse_list(
    mut rest: &[u8],
    how: Comparison,
    list: &mut Vec<Sequence>,
) -> Result<usize, Malformed> {
    let mut seen = 0;
    loop {
        rest = rest.trim_ascii_start();
        // Empty members of a list are allowed (RFC 9110, section 5.6.1.2).
        match rest.first() {
            None => return Ok(seen),
            Some(b',') => {
                rest = &rest[1..];
                continue;
            }
            Some(_) => {}
        }
        let weak = rest.starts_with(b"W/");
        let body = rest[if weak { 2 } else { 0 }..]
            .strip_prefix(b"\"")
            .ok_or(Malformed)?;
        let end = body
            .iter()
            .position(|&byte| byte == b'"')
            .ok_or(Malformed)?;
        let (opaque, after) = (&body[..end], body[end + 1..].trim_ascii_start());
        if opaque.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
            return Err(Malformed);
        }
        if !weak || how == Comparison::Weak {
            list.extend(sequence(opaque));
        }
        seen += 1;
        match after.first() {
            None => return Ok(seen),
            Some(b',') => rest = &after[1..],
            Some(_) => return Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::IF_MATCH;

    fn number(raw: u64) -> Sequence {
        Sequence::new(raw).expect("small")
    }

    fn read(values: &[&str], how: Comparison) -> Result<Option<Tags>, Malformed> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                IF_MATCH,
                HeaderValue::from_str(value).expect("a header value"),
            );
        }
        parse(&headers, IF_MATCH, how)
    }

    #[test]
    fn a_tag_reads_back_as_its_sequence() {
        for raw in [0, 1, 9, 10, 15, 16, 255, 0x00ab_cdef, (1 << 56) - 1] {
            let value = header(number(raw));
            let text = value.to_str().expect("ASCII");
            assert_eq!(text, format!("\"{raw:x}\""));
            assert_eq!(
                read(&[text], Comparison::Strong),
                Ok(Some(Tags::List(vec![number(raw)])))
            );
            assert_eq!(parse_one(text), Tags::List(vec![number(raw)]));
            assert_eq!(
                parse_one(&format!("{raw:x}")),
                Tags::List(vec![number(raw)])
            );
        }
    }

    #[test]
    fn lists_and_foreign_tags() {
        let list = |raw: &[u64]| {
            Ok(Some(Tags::List(
                raw.iter().map(|&raw| number(raw)).collect(),
            )))
        };
        assert_eq!(read(&[], Comparison::Strong), Ok(None));
        assert_eq!(read(&["*"], Comparison::Strong), Ok(Some(Tags::Any)));
        assert_eq!(
            read(&[r#""a", "b""#, r#""c""#], Comparison::Strong),
            list(&[10, 11, 12])
        );
        assert_eq!(
            read(&[r#" ,"a",, "b","#], Comparison::Strong),
            list(&[10, 11])
        );
        assert_eq!(read(&[r#"W/"a", "b""#], Comparison::Strong), list(&[11]));
        assert_eq!(read(&[r#"W/"a", "b""#], Comparison::Weak), list(&[10, 11]));
        assert_eq!(
            read(
                &[r#""x,y", "0a", "A", "", "fffffffffffffffff""#],
                Comparison::Strong
            ),
            list(&[])
        );
        for bad in [
            "a",
            "\"a",
            "\"a\" \"b\"",
            "w/\"a\"",
            "",
            ",",
            "*, \"a\"",
            "\"a b\"",
        ] {
            assert_eq!(read(&[bad], Comparison::Strong), Err(Malformed), "{bad}");
        }
        assert_eq!(read(&["*", "\"a\""], Comparison::Strong), Err(Malformed));
    }
}
