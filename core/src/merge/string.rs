//! JSON strings: the characters a spelling stands for, and back.
//!
//! Plain strings are bytes. A lone surrogate becomes the three bytes that UTF-8 would give it (WTF-8, Simon Sapin), so
//! two of them stay different, and it is written as an escape again.

use std::borrow::Cow;

/// The characters of a string in quotes. Unknown escapes stand for themselves.
pub(super) fn plain(quoted: &[u8]) -> Cow<'_, [u8]> {
    let inner = quoted
        .get(1..quoted.len().saturating_sub(1))
        .unwrap_or_default();
    let Some(first) = inner.iter().position(|byte| *byte == b'\\') else {
        return Cow::Borrowed(inner);
    };
    let mut plain = Vec::with_capacity(inner.len());
    plain.extend_from_slice(&inner[..first]);
    let mut rest = &inner[first..];
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        let Some((&escape, tail)) = rest.split_first() else {
            plain.push(byte);
            continue;
        };
        rest = tail;
        match escape {
            b'b' => plain.push(8),
            b'f' => plain.push(12),
            b'n' => plain.push(b'\n'),
            b'r' => plain.push(b'\r'),
            b't' => plain.push(b'\t'),
            b'u' => match code_point(rest) {
                Some((code, tail)) => {
                    push_code_point(&mut plain, code);
                    rest = tail;
                }
                None => plain.extend_from_slice(br"\u"),
            },
            b'"' | b'\\' | b'/' => plain.push(escape),
            _ => plain.extend_from_slice(&[byte, escape]),
        }
    }
    Cow::Owned(plain)
}

/// The code point after `\u`, made of two escapes where they are a pair, and what follows.
fn code_point(text: &[u8]) -> Option<(u32, &[u8])> {
    let (high, rest) = code_unit(text)?;
    if let 0xd800..0xdc00 = high
        && let Some(second) = rest.strip_prefix(br"\u")
        && let Some((low @ 0xdc00..0xe000, rest)) = code_unit(second)
    {
        return Some((0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00), rest));
    }
    Some((high, rest))
}

fn code_unit(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<4>()?;
    let mut unit = 0;
    for digit in digits {
        unit = unit << 4 | char::from(*digit).to_digit(16)?;
    }
    Some((unit, rest))
}

fn push_code_point(plain: &mut Vec<u8>, code: u32) {
    match char::from_u32(code) {
        Some(character) => plain.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        None => {
            let continuation = |shift: u32| 0x80 | (code >> shift & 0x3f) as u8;
            plain.extend_from_slice(&[0xe0 | (code >> 12) as u8, continuation(6), continuation(0)]);
        }
    }
}

/// The shortest spelling of a string, in quotes.
pub(super) fn quoted(plain: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(plain.len() + 2);
    quoted.push(b'"');
    let mut rest = plain;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'"' | b'\\' => quoted.extend_from_slice(&[b'\\', byte]),
            8 => quoted.extend_from_slice(br"\b"),
            12 => quoted.extend_from_slice(br"\f"),
            b'\n' => quoted.extend_from_slice(br"\n"),
            b'\r' => quoted.extend_from_slice(br"\r"),
            b'\t' => quoted.extend_from_slice(br"\t"),
            0..0x20 => push_escape(&mut quoted, u16::from(byte)),
            0xed => match *tail {
                // UTF-8 never has these: they are a lone surrogate.
                [second @ 0xa0..=0xbf, third @ 0x80..=0xbf, ref after @ ..] => {
                    let unit = 0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f);
                    push_escape(&mut quoted, unit);
                    rest = after;
                }
                _ => quoted.push(byte),
            },
            _ => quoted.push(byte),
        }
    }
    quoted.push(b'"');
    quoted
}

fn push_escape(quoted: &mut Vec<u8>, unit: u16) {
    quoted.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_stands_for_the_same_characters() {
        for (spelling, characters) in [
            (r#""""#, ""),
            (r#""abc""#, "abc"),
            (r#""\u0061b\u0063""#, "abc"),
            (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r#""\u00e9\u00E9""#, "\u{e9}\u{e9}"),
            (r#""\ud83d\ude00!""#, "\u{1f600}!"),
            (r#""\u0000""#, "\0"),
        ] {
            assert_eq!(
                *plain(spelling.as_bytes()),
                *characters.as_bytes(),
                "{spelling}"
            );
        }
    }

    #[test]
    fn lone_surrogates_differ_and_are_written_as_escapes() {
        let spellings = [
            r#""\ud83d""#,
            r#""\ude00""#,
            r#""\ude00\ud83d""#,
            r#""\ud83dx\ude00""#,
        ];
        for spelling in spellings {
            assert_eq!(quoted(&plain(spelling.as_bytes())), spelling.as_bytes());
        }
    }

    #[test]
    fn wrong_escapes_stand_for_themselves() {
        for spelling in [r#""\x""#, r#""\u12""#, r#""\u12g4""#, r#""a\""#] {
            let inner = &spelling.as_bytes()[1..spelling.len() - 1];
            assert_eq!(*plain(spelling.as_bytes()), *inner, "{spelling}");
        }
        assert_eq!(*plain(b"\""), *b"");
        assert_eq!(*plain(b""), *b"");
    }

    #[test]
    fn what_is_written_reads_back() {
        for code in (0..0x1_1000).filter_map(char::from_u32) {
            let text = format!("a{code}z");
            let written = quoted(text.as_bytes());
            assert_eq!(*plain(&written), *text.as_bytes());
            let parsed: String = serde_json::from_slice(&written).expect("valid JSON");
            assert_eq!(parsed, text);
        }
    }
}
