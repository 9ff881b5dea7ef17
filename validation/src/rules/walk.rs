//! A document's values one after the other with the path to each, without a tree.
//!
//! The text has been accepted by [`check`](crate::check). Of any other text it is unspecified how far the walk
//! goes; it ends, and does not panic.

use crate::json::scan;
use std::borrow::Cow;
use std::ops::ControlFlow;

/// What the walk comes across.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event<'a> {
    /// An object or array begins; the path leads to it.
    Open {
        /// Objects and arrays that are open, this one included.
        depth: u32,
    },
    /// An object or array has ended; the path leads to it.
    Close,
    /// A member's name without its quotes, as written; the path leads to the member.
    Member(&'a [u8]),
    /// A string, number or literal as written; the path leads to it.
    Scalar(&'a [u8]),
}

/// Where the walk is: an object's member or an array's item a level.
#[derive(Debug, Default)]
pub(crate) struct Path<'a> {
    steps: Vec<Step<'a>>,
}

/// One step of a path.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    /// The name as written, without its quotes.
    Member(&'a [u8]),
    Item(usize),
}

/// An RFC 6901 pointer.
#[derive(Debug, Clone)]
pub(crate) struct Pointer {
    written: String,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone)]
struct Token {
    text: String,
    /// The item that it names in an array.
    index: Option<usize>,
}

impl Pointer {
    /// Reads a pointer.
    pub(crate) fn parse(written: &str) -> Result<Self, &'static str> {
        let mut tokens = Vec::new();
        if !written.is_empty() {
            let Some(rest) = written.strip_prefix('/') else {
                return Err("a pointer that does not begin with `/`");
            };
            for token in rest.split('/') {
                let mut after = token.split('~').skip(1);
                if after.any(|rest| !rest.starts_with(['0', '1'])) {
                    return Err("a pointer with a `~` that neither 0 nor 1 follows");
                }
                let text = token.replace("~1", "/").replace("~0", "~");
                let canonical = text == "0" || !text.starts_with('0');
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                let index = text.parse().ok().filter(|_| canonical && digits);
                tokens.push(Token { text, index });
            }
        }
        Ok(Self {
            written: written.to_owned(),
            tokens,
        })
    }

    pub(crate) fn written(&self) -> &str {
        &self.written
    }
}

impl<'a> Path<'a> {
    /// The path as an RFC 6901 pointer.
    pub(crate) fn pointer(&self) -> String {
        let mut out = String::new();
        for step in &self.steps {
            out.push('/');
            match step {
                Step::Member(name) => {
                    out.push_str(&text(name).replace('~', "~0").replace('/', "~1"));
                }
                Step::Item(index) => out.push_str(&index.to_string()),
            }
        }
        out
    }

    /// How the place relates to what `pointer` names.
    pub(crate) fn relation(&self, pointer: &Pointer) -> Relation {
        if self.steps.len() < pointer.tokens.len() {
            return Relation::Elsewhere;
        }
        let agree = self
            .steps
            .iter()
            .zip(&pointer.tokens)
            .all(|(step, token)| match *step {
                Step::Item(index) => token.index == Some(index),
                Step::Member(name) => text(name) == token.text,
            });
        match (agree, self.steps.len() == pointer.tokens.len()) {
            (false, _) => Relation::Elsewhere,
            (true, true) => Relation::There,
            (true, false) => Relation::Within,
        }
    }

    fn name(&mut self, name: &'a [u8]) {
        if let Some(step) = self.steps.last_mut() {
            *step = Step::Member(name);
        }
    }

    fn next_item(&mut self) {
        if let Some(Step::Item(index)) = self.steps.last_mut() {
            *index += 1;
        }
    }
}

/// A place of a document seen from a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    /// It is the one that the pointer names.
    There,
    /// It is inside of that.
    Within,
    /// Neither.
    Elsewhere,
}

/// Shows `visit` every value and member of `document` in order, until it breaks.
pub(crate) fn walk<'a>(
    document: &'a [u8],
    mut visit: impl FnMut(Event<'a>, &Path<'a>) -> ControlFlow<()>,
) {
    let mut path = Path::default();
    let mut objects: Vec<bool> = Vec::new();
    let mut at = 0;
    // A value is due, rather than what comes after one.
    let mut due = true;
    while let Some(&byte) = document.get(at) {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => at = scan::white_space_end(document, at),
            b'{' | b'[' if due => {
                let object = byte == b'{';
                let depth = objects.len() as u32 + 1;
                if visit(Event::Open { depth }, &path).is_break() {
                    return;
                }
                objects.push(object);
                path.steps.push(if object {
                    Step::Member(b"")
                } else {
                    Step::Item(0)
                });
                at += 1;
                due = !object;
            }
            b'}' | b']' => {
                objects.pop();
                path.steps.pop();
                if visit(Event::Close, &path).is_break() || objects.is_empty() {
                    return;
                }
                at += 1;
                due = false;
            }
            b',' => {
                path.next_item();
                due = objects.last() == Some(&false);
                at += 1;
            }
            b':' => {
                due = true;
                at += 1;
            }
            b'"' if !due => {
                let Ok(end) = scan::string_end(document, at) else {
                    return;
                };
                let name = &document[at + 1..end - 1];
                path.name(name);
                if visit(Event::Member(name), &path).is_break() {
                    return;
                }
                at = end;
            }
            _ => {
                let Some(end) = scalar_end(document, at) else {
                    return;
                };
                if visit(Event::Scalar(&document[at..end]), &path).is_break() || objects.is_empty()
                {
                    return;
                }
                at = end;
                due = false;
            }
        }
    }
}

/// Past a string, number or literal; `None` where there is none.
fn scalar_end(document: &[u8], at: usize) -> Option<usize> {
    if document[at] == b'"' {
        return scan::string_end(document, at).ok();
    }
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let len = document[at..].iter().take_while(|byte| part(byte)).count();
    (len > 0).then_some(at + len)
}

/// What a scalar says: a string's characters, anything else as it is written.
pub(crate) fn scalar_text(scalar: &[u8]) -> Cow<'_, str> {
    match scalar {
        [b'"', inner @ .., b'"'] => text(inner),
        other => String::from_utf8_lossy(other),
    }
}

/// The characters of a string's inside, its escapes resolved.
pub(crate) fn text(inner: &[u8]) -> Cow<'_, str> {
    let written = String::from_utf8_lossy(inner);
    if !inner.contains(&b'\\') {
        return written;
    }
    let mut out = String::with_capacity(written.len());
    let mut rest = &*written;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let (character, len) = match escape.bytes().next() {
            Some(b'b') => ('\u{8}', 1),
            Some(b'f') => ('\u{c}', 1),
            Some(b'n') => ('\n', 1),
            Some(b'r') => ('\r', 1),
            Some(b't') => ('\t', 1),
            Some(b'u') => code_point(escape),
            Some(byte) if byte.is_ascii() => (char::from(byte), 1),
            _ => (char::REPLACEMENT_CHARACTER, 0),
        };
        out.push(character);
        rest = &escape[len..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The character of `u` with four digits, or of a surrogate pair of them, and the bytes it takes.
fn code_point(escape: &str) -> (char, usize) {
    let unit = |at: usize| {
        let digits = escape.get(at..at + 4)?;
        u32::from_str_radix(digits, 16).ok()
    };
    let lost = char::REPLACEMENT_CHARACTER;
    match unit(1) {
        Some(high @ 0xD800..=0xDBFF) => match (escape.get(5..7), unit(7)) {
            (Some("\\u"), Some(low @ 0xDC00..=0xDFFF)) => {
                let point = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                (char::from_u32(point).unwrap_or(lost), 11)
            }
            _ => (lost, 5),
        },
        Some(unit) => (char::from_u32(unit).unwrap_or(lost), 5),
        None => (lost, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(document: &str) -> Vec<String> {
        let mut seen = Vec::new();
        walk(document.as_bytes(), |event, path| {
            let what = match event {
                Event::Open { depth } => format!("open {depth}"),
                Event::Close => "close".to_owned(),
                Event::Member(name) => format!("member {}", text(name)),
                Event::Scalar(scalar) => scalar_text(scalar).into_owned(),
            };
            seen.push(format!("{} {what}", path.pointer()));
            ControlFlow::Continue(())
        });
        seen
    }

    #[test]
    fn every_value_is_met_with_its_path() {
        assert_eq!(
            shown(r#"{"a":[1,{"b/~":"x"},[]], "c" : null}"#),
            [
                " open 1",
                "/a member a",
                "/a open 2",
                "/a/0 1",
                "/a/1 open 3",
                "/a/1/b~1~0 member b/~",
                "/a/1/b~1~0 x",
                "/a/1 close",
                "/a/2 open 3",
                "/a/2 close",
                "/a close",
                "/c member c",
                "/c null",
                " close",
            ]
        );
        assert_eq!(shown("-1.5e3"), [" -1.5e3"]);
        assert_eq!(shown("[]"), [" open 1", " close"]);
    }

    #[test]
    fn escapes_are_resolved() {
        let cases = [
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r"\u00e9\uD834\udd1e", "é𝄞"),
            (r"\ud800x", "\u{fffd}x"),
            ("é", "é"),
        ];
        for (written, meant) in cases {
            assert_eq!(text(written.as_bytes()), meant, "{written}");
        }
    }

    #[test]
    fn a_walk_ends_on_any_bytes() {
        let mut random = fastrand::Rng::with_seed(7);
        let alphabet = br#"{}[]:,"\ abt1-.eu0 "#;
        for _ in 0..20_000 {
            let len = random.usize(..24);
            let bytes: Vec<u8> = (0..len)
                .map(|_| alphabet[random.usize(..alphabet.len())])
                .collect();
            walk(&bytes, |event, path| {
                let _ = path.pointer();
                if let Event::Scalar(scalar) = event {
                    let _ = scalar_text(scalar);
                }
                ControlFlow::Continue(())
            });
        }
    }

    #[test]
    fn pointers_are_read_strictly() {
        for bad in ["a", "/~", "/~2", "/a~"] {
            assert!(Pointer::parse(bad).is_err(), "{bad}");
        }
        for good in ["", "/", "/a/0", "/~0~1", "/m~01"] {
            assert!(Pointer::parse(good).is_ok(), "{good}");
        }
    }
}
