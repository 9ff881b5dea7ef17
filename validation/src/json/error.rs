//! Why a text is refused, and where.

use std::fmt;

/// The first fault of a text that is not acceptable JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}{}", Place(self))]
pub struct JsonError {
    kind: JsonErrorKind,
    offset: usize,
}

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonErrorKind {
    /// No byte, or white space only.
    #[error("expected a JSON document, found nothing")]
    Empty,
    /// The text was refused by its length alone.
    #[error("the document has {len} bytes, at most {max} are allowed")]
    TooLarge {
        /// Bytes of the text.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// One more object or array inside the others than allowed.
    #[error("expected at most {max} levels of nesting, found another")]
    TooDeep {
        /// Levels allowed.
        max: u32,
    },
    /// RFC 8259, section 8.1, lets a reader refuse it; kept, it would break every reader that does.
    #[error("expected a JSON document, found a byte order mark")]
    ByteOrderMark,
    /// The bytes are no UTF-8; the offset is that of the first such byte.
    #[error("expected UTF-8, found other bytes")]
    NotUtf8,
    /// The grammar wants something else here.
    #[error("expected {expected}, found {}", Found(*found))]
    Unexpected {
        /// The character that is there; none when the text ends.
        found: Option<char>,
        /// What could be there, as a phrase.
        expected: &'static str,
    },
    /// A control character in a string that is not written as an escape.
    #[error("expected an escape for a control character, found U+{found:04X}")]
    ControlCharacter {
        /// The character, U+0000 to U+001F.
        found: u8,
    },
    /// An escape for half of a surrogate pair without the other half.
    #[error("expected a pair of surrogate escapes, found only \\u{found:04x}")]
    LoneSurrogate {
        /// The half that is there.
        found: u16,
    },
}

impl JsonError {
    #[cold]
    pub(super) fn new(kind: JsonErrorKind, offset: usize) -> Self {
        Self { kind, offset }
    }

    /// Something else than `expected` stands at `offset`, which is not inside a character.
    #[cold]
    pub(super) fn unexpected(text: &[u8], offset: usize, expected: &'static str) -> Self {
        // Four bytes hold any character.
        let rest = &text[offset..text.len().min(offset + 4)];
        let found = rest.utf8_chunks().next().map(|chunk| chunk.valid());
        let kind = match found.map(|valid| valid.chars().next()) {
            Some(None) => JsonErrorKind::NotUtf8,
            Some(found) => JsonErrorKind::Unexpected { found, expected },
            None => JsonErrorKind::Unexpected {
                found: None,
                expected,
            },
        };
        Self { kind, offset }
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> &JsonErrorKind {
        &self.kind
    }

    /// Bytes of the text before the fault.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Line and column of the fault in `text`, the text that was refused; both count from 1.
    ///
    /// Lines end with a line feed, columns are characters. Where the text is not UTF-8, every
    /// byte that can't continue a character counts as one.
    #[must_use]
    pub fn line_and_column(&self, text: &[u8]) -> (usize, usize) {
        let before = &text[..self.offset.min(text.len())];
        let lines = before.iter().filter(|&&byte| byte == b'\n').count();
        let line_start = before.iter().rposition(|&byte| byte == b'\n');
        let line = &before[line_start.map_or(0, |feed| feed + 1)..];
        let continues = |byte: u8| byte & 0b1100_0000 == 0b1000_0000;
        let columns = line.iter().filter(|&&byte| !continues(byte)).count();
        (lines + 1, columns + 1)
    }
}

/// ` at byte 17`, where the place says more than the kind does.
struct Place<'a>(&'a JsonError);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.kind {
            JsonErrorKind::Empty | JsonErrorKind::TooLarge { .. } => Ok(()),
            _ => write!(f, " at byte {}", self.0.offset),
        }
    }
}

/// A character as a reader can see it: control characters and the like by their number.
struct Found(Option<char>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("the end of the text"),
            Some(found) if found.is_ascii_graphic() || found.is_alphanumeric() => {
                write!(f, "`{found}`")
            }
            Some(found) => write!(f, "U+{:04X}", u32::from(found)),
        }
    }
}
