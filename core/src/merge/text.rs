//! A scanner over minified JSON that finds where values end, without recursion and without building anything.
//!
//! It trusts the text to be valid and checks only what it needs to find its way: quotes, brackets, colons and commas.

/// The text is not one minified JSON value.
#[derive(Debug)]
pub(super) struct Broken;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

pub(super) fn is_object(text: &[u8]) -> bool {
    text.first() == Some(&b'{')
}

pub(super) fn is_array(text: &[u8]) -> bool {
    text.first() == Some(&b'[')
}

/// Levels of objects and arrays in a text that is one value: 0 for a scalar, 1 for `{}`.
pub(super) fn depth(text: &[u8]) -> Result<u32, Broken> {
    let value = span(text, 0)?;
    if value.end == text.len() {
        Ok(value.depth)
    } else {
        Err(Broken)
    }
}

struct Span {
    end: usize,
    depth: u32,
}

/// The value that begins at `start`.
fn span(text: &[u8], start: usize) -> Result<Span, Broken> {
    match text.get(start).ok_or(Broken)? {
        b'"' => Ok(Span {
            end: string_end(text, start)?,
            depth: 0,
        }),
        b'{' | b'[' => container(text, start),
        _ => {
            let rest = &text[start..];
            let len = rest
                .iter()
                .position(|byte| !is_scalar(*byte))
                .unwrap_or(rest.len());
            if len == 0 {
                Err(Broken)
            } else {
                Ok(Span {
                    end: start + len,
                    depth: 0,
                })
            }
        }
    }
}

/// Whether numbers, `true`, `false` and `null` may have this byte.
fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

fn container(text: &[u8], start: usize) -> Result<Span, Broken> {
    let mut at = start;
    let mut level = 0_u32;
    let mut depth = 0;
    loop {
        match text.get(at).ok_or(Broken)? {
            b'"' => {
                at = string_end(text, at)?;
                continue;
            }
            b'{' | b'[' => {
                level = level.saturating_add(1);
                depth = depth.max(level);
            }
            b'}' | b']' => {
                level -= 1;
                if level == 0 {
                    return Ok(Span { end: at + 1, depth });
                }
            }
            // White space, so not minified.
            0..=b' ' => return Err(Broken),
            _ => {}
        }
        at += 1;
    }
}

/// One past the closing quote of the string whose opening quote is at `open`.
fn string_end(text: &[u8], open: usize) -> Result<usize, Broken> {
    let mut at = open + 1;
    loop {
        at += plain_prefix(text.get(at..).ok_or(Broken)?);
        match text.get(at).ok_or(Broken)? {
            b'"' => return Ok(at + 1),
            _ => at += 2,
        }
    }
}

/// Bytes before the first quote or backslash, eight at a time ("Determine if a word has a zero byte", Bit Twiddling
/// Hacks by Sean Eron Anderson; its lowest hit is exact).
fn plain_prefix(text: &[u8]) -> usize {
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let hits = zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\')));
        if hits != 0 {
            return index * 8 + (hits.trailing_zeros() / 8) as usize;
        }
    }
    let tail = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
    words.len() * 8 + tail.unwrap_or(rest.len())
}

/// A member of an object, or an element of an array with an empty name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'a> {
    /// The name as written, in its quotes.
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    /// Where name and value stand in the text.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The members of an object or the elements of an array, in order. After an error there is nothing more.
pub(super) struct Items<'a> {
    text: &'a [u8],
    named: bool,
    /// Where the next item begins; the text's length after the last one.
    at: usize,
}

impl<'a> Items<'a> {
    pub(super) fn of(text: &'a [u8]) -> Result<Self, Broken> {
        let named = match text {
            [b'{', .., b'}'] => true,
            [b'[', .., b']'] => false,
            _ => return Err(Broken),
        };
        let at = if text.len() == 2 { 2 } else { 1 };
        Ok(Self { text, named, at })
    }

    fn item(&mut self) -> Result<Item<'a>, Broken> {
        let (text, start) = (self.text, self.at);
        let (name, value) = if self.named {
            if text.get(start) != Some(&b'"') {
                return Err(Broken);
            }
            let end = string_end(text, start)?;
            if text.get(end) != Some(&b':') {
                return Err(Broken);
            }
            (start..end, end + 1)
        } else {
            (start..start, start)
        };
        let end = span(text, value)?.end;
        match text.get(end) {
            Some(b',') => self.at = end + 1,
            Some(b'}' | b']') if end + 1 == text.len() => self.at = text.len(),
            _ => return Err(Broken),
        }
        Ok(Item {
            name: &text[name],
            value: &text[value..end],
            start,
            end,
        })
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.text.len() {
            return None;
        }
        let item = self.item();
        if item.is_err() {
            self.at = self.text.len();
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Option<Vec<(String, String)>> {
        let owned = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("cut at characters");
        Items::of(text.as_bytes())
            .ok()?
            .map(|item| item.ok().map(|item| (owned(item.name), owned(item.value))))
            .collect()
    }

    #[test]
    fn depth_counts_levels() {
        for (text, expected) in [
            ("1", 0),
            ("\"[[[\"", 0),
            ("{}", 1),
            ("[[],[[]]]", 3),
            (r#"{"a":"\"[","b":{"c":1}}"#, 2),
        ] {
            assert_eq!(depth(text.as_bytes()).ok(), Some(expected), "{text}");
        }
    }

    #[test]
    fn members_and_elements_come_in_order_whole() {
        let pairs = |pairs: &[(&str, &str)]| {
            Some(
                pairs
                    .iter()
                    .map(|(name, value)| ((*name).into(), (*value).into()))
                    .collect(),
            )
        };
        assert_eq!(items("{}"), pairs(&[]));
        assert_eq!(items("[]"), pairs(&[]));
        assert_eq!(
            items(r#"[1,"a,b",[2,3]]"#),
            pairs(&[("", "1"), ("", r#""a,b""#), ("", "[2,3]")])
        );
        assert_eq!(
            items(r#"{"a\"}":{"b":[]},"c":-1.5e+3}"#),
            pairs(&[(r#""a\"}""#, r#"{"b":[]}"#), (r#""c""#, "-1.5e+3")])
        );
    }

    /// Quotes and backslashes at every offset of the eight bytes that are looked at together.
    #[test]
    fn a_string_ends_at_its_own_quote() {
        for before in 0..20 {
            for after in 0..20 {
                for middle in [
                    "",
                    r"\\",
                    r#"\""#,
                    r#"\\\""#,
                    r"\u00e9",
                    "\u{e9}\u{1f600}",
                    "!#[]",
                ] {
                    let string = format!("\"{}{middle}{}\"", "x".repeat(before), "y".repeat(after));
                    let text = format!("[{string},1]");
                    let found = items(&text).expect("a valid array");
                    assert_eq!(found[0].1, string);
                }
            }
        }
    }

    #[test]
    fn broken_text_is_noticed() {
        for text in [
            "",
            "{",
            "}",
            "[1",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "[1]]",
            "[1}",
            "[\"]",
            "[\"\\\"]",
            "[1 ,2]",
            "{\"a\" :1}",
            "{\"a\":1}x}",
            "[ ]",
        ] {
            assert_eq!(items(text), None, "{text}");
        }
        for text in [
            "", "[", "[]]", "\"", "\"\\\"", "1 ", " 1", "{}{}", "[[1, 2]]", "[\"]",
        ] {
            assert!(depth(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn deep_text_needs_no_stack() {
        let text = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        assert_eq!(depth(text.as_bytes()).ok(), Some(1_000_000));
    }
}
