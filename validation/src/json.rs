//! Well-formed, depth and size in one pass, no tree: RFC 8259 as a loop over bytes.

mod error;
pub(crate) mod scan;

use std::borrow::Cow;

pub use error::{JsonError, JsonErrorKind};

/// How large and how deep a document may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most objects and arrays inside one another. 0 accepts scalars only; the default is 128,
    /// where readers that recurse still have stack to spare.
    pub depth_max: u32,
    /// Most bytes of the text as sent, white space included. The default is 1 MiB. A longer text
    /// is refused unread.
    pub bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth_max: 128,
            bytes_max: 1 << 20,
        }
    }
}

/// What the outermost value of a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the six kinds of RFC 8259 explain themselves")]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

/// What was seen of an accepted document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The outermost value.
    pub kind: Kind,
    /// Deepest nesting: 0 for a scalar, 1 for `{}`, 2 for `[[]]`.
    pub depth: u32,
    /// Object members at all levels together, duplicates counted each.
    pub members: usize,
    /// Bytes without the white space outside strings.
    pub minified_len: usize,
    /// There is no white space outside strings.
    pub already_minified: bool,
}

/// Decides whether `text` is one JSON document within `limits`.
///
/// # Errors
/// The first fault in the text, with its offset.
pub fn check(text: &[u8], limits: &Limits) -> Result<Summary, JsonError> {
    Checker::new(text, limits, Discard)?.document()
}

/// Appends the document to `out` without the white space outside strings, every other byte as sent.
///
/// # Errors
/// The first fault in the text, as [`check`] finds it; `out` is then as it was before the call.
pub fn minify(text: &[u8], limits: &Limits, out: &mut Vec<u8>) -> Result<Summary, JsonError> {
    let before = out.len();
    let summary = Checker::new(text, limits, Append(out))?.document();
    if summary.is_err() {
        out.truncate(before);
    }
    summary
}

/// The document without the white space outside strings, borrowed from `text` when it has none,
/// or has it before and after the document only (a last line feed, as many tools send it).
///
/// # Errors
/// The first fault in the text, as [`check`] finds it.
pub fn minified<'a>(
    text: &'a [u8],
    limits: &Limits,
) -> Result<(Cow<'a, [u8]>, Summary), JsonError> {
    let mut borrow = Borrow {
        only: &[],
        joined: Vec::new(),
        len_max: text.len(),
    };
    let summary = Checker::new(text, limits, &mut borrow)?.document()?;
    let document = if borrow.joined.is_empty() {
        Cow::Borrowed(borrow.only)
    } else {
        Cow::Owned(borrow.joined)
    };
    Ok((document, summary))
}

/// Takes the runs of text that stay, in order. None is empty.
trait Sink<'a> {
    fn keep(&mut self, run: &'a [u8]);
}

struct Discard;

impl Sink<'_> for Discard {
    #[inline(always)]
    fn keep(&mut self, _run: &[u8]) {}
}

struct Append<'o>(&'o mut Vec<u8>);

impl Sink<'_> for Append<'_> {
    #[inline(always)]
    fn keep(&mut self, run: &[u8]) {
        self.0.extend_from_slice(run);
    }
}

/// Copies nothing until a second run proves that the first alone is not the document.
struct Borrow<'a> {
    only: &'a [u8],
    joined: Vec<u8>,
    /// The text's length, which was held against its limit before anything was read.
    len_max: usize,
}

impl<'a> Sink<'a> for &mut Borrow<'a> {
    #[inline(always)]
    fn keep(&mut self, run: &'a [u8]) {
        if self.only.is_empty() {
            self.only = run;
            return;
        }
        if self.joined.is_empty() {
            self.joined.reserve(self.len_max);
            self.joined.extend_from_slice(self.only);
        }
        self.joined.extend_from_slice(run);
    }
}

/// The state of one pass.
struct Checker<'a, S> {
    text: &'a [u8],
    /// The byte looked at; everything before it is accepted.
    at: usize,
    /// Start of the run that stays and has not gone to the sink.
    run: usize,
    /// Bytes that went to the sink.
    kept: usize,
    sink: S,
    members: usize,
    depth: u32,
    deepest: u32,
    depth_max: u32,
    /// One bit a level, the innermost lowest: set for an object. Only the lowest
    /// `depth % 64` bits (64 when that is 0) mean something.
    levels: u64,
    /// Full words of outer levels, so a bit a level however deep.
    outer_levels: Vec<u64>,
}

impl<'a, S: Sink<'a>> Checker<'a, S> {
    fn new(text: &'a [u8], limits: &Limits, sink: S) -> Result<Self, JsonError> {
        if text.len() > limits.bytes_max {
            let kind = JsonErrorKind::TooLarge {
                len: text.len(),
                max: limits.bytes_max,
            };
            return Err(JsonError::new(kind, limits.bytes_max));
        }
        if text.starts_with(b"\xEF\xBB\xBF") {
            return Err(JsonError::new(JsonErrorKind::ByteOrderMark, 0));
        }
        Ok(Self {
            text,
            at: 0,
            run: 0,
            kept: 0,
            sink,
            members: 0,
            depth: 0,
            deepest: 0,
            depth_max: limits.depth_max,
            levels: 0,
            outer_levels: Vec::new(),
        })
    }

    fn document(mut self) -> Result<Summary, JsonError> {
        let Some(first) = self.peek() else {
            return Err(JsonError::new(JsonErrorKind::Empty, 0));
        };
        self.values(first)?;
        if self.peek().is_some() {
            return Err(self.unexpected("the end of the document"));
        }
        self.flush();
        Ok(Summary {
            kind: kind_of(first),
            depth: self.deepest,
            members: self.members,
            minified_len: self.kept,
            already_minified: self.kept == self.text.len(),
        })
    }

    /// From the first byte of the outermost value to just past its last.
    fn values(&mut self, first: u8) -> Result<(), JsonError> {
        let mut byte = first;
        loop {
            match byte {
                b'"' => self.at = scan::string_end(self.text, self.at)?,
                b'{' => {
                    self.open(true)?;
                    match self.peek() {
                        Some(b'}') => self.close(),
                        Some(b'"') => {
                            byte = self.name()?;
                            continue;
                        }
                        _ => return Err(self.unexpected("a member name or `}`")),
                    }
                }
                b'[' => {
                    self.open(false)?;
                    match self.peek() {
                        Some(b']') => self.close(),
                        Some(next) => {
                            byte = next;
                            continue;
                        }
                        None => return Err(self.unexpected("a value or `]`")),
                    }
                }
                b'-' | b'0'..=b'9' => self.at = scan::number_end(self.text, self.at)?,
                b't' => self.at = scan::literal_end(self.text, self.at, "true", "`true`")?,
                b'f' => self.at = scan::literal_end(self.text, self.at, "false", "`false`")?,
                b'n' => self.at = scan::literal_end(self.text, self.at, "null", "`null`")?,
                _ => return Err(self.unexpected("a value")),
            }
            // A value has ended; so may the objects and arrays that it is the last of.
            byte = loop {
                if self.depth == 0 {
                    return Ok(());
                }
                let object = self.levels & 1 == 1;
                match self.peek() {
                    Some(b',') if object => {
                        self.at += 1;
                        match self.peek() {
                            Some(b'"') => break self.name()?,
                            _ => return Err(self.unexpected("a member name")),
                        }
                    }
                    Some(b',') => {
                        self.at += 1;
                        match self.peek() {
                            Some(next) => break next,
                            None => return Err(self.unexpected("a value")),
                        }
                    }
                    Some(b'}') if object => self.close(),
                    Some(b']') if !object => self.close(),
                    _ if object => return Err(self.unexpected("`,` or `}`")),
                    _ => return Err(self.unexpected("`,` or `]`")),
                }
            };
        }
    }

    /// From a member name's opening quote to the first byte of its value, which is returned.
    #[inline(always)]
    fn name(&mut self) -> Result<u8, JsonError> {
        self.members += 1;
        self.at = scan::string_end(self.text, self.at)?;
        if self.peek() != Some(b':') {
            return Err(self.unexpected("`:`"));
        }
        self.at += 1;
        self.peek().ok_or_else(|| self.unexpected("a value"))
    }

    #[inline(always)]
    fn open(&mut self, object: bool) -> Result<(), JsonError> {
        if self.depth == self.depth_max {
            let max = self.depth_max;
            return Err(JsonError::new(JsonErrorKind::TooDeep { max }, self.at));
        }
        if self.depth != 0 && self.depth.is_multiple_of(u64::BITS) {
            self.outer_levels.push(self.levels);
        }
        self.levels = self.levels << 1 | u64::from(object);
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        self.at += 1;
        Ok(())
    }

    #[inline(always)]
    fn close(&mut self) {
        self.levels >>= 1;
        self.depth -= 1;
        if self.depth.is_multiple_of(u64::BITS)
            && let Some(levels) = self.outer_levels.pop()
        {
            self.levels = levels;
        }
        self.at += 1;
    }

    /// The next byte that is not white space, left where it is.
    #[inline(always)]
    fn peek(&mut self) -> Option<u8> {
        match self.text.get(self.at) {
            Some(&byte) if byte > b' ' => Some(byte),
            Some(_) => self.drop_white_space(),
            None => None,
        }
    }

    /// As [`Self::peek`], from a byte that may be white space.
    fn drop_white_space(&mut self) -> Option<u8> {
        let end = scan::white_space_end(self.text, self.at);
        if end != self.at {
            self.flush();
            self.at = end;
            self.run = end;
        }
        self.text.get(end).copied()
    }

    #[inline(always)]
    fn flush(&mut self) {
        let run = &self.text[self.run..self.at];
        if !run.is_empty() {
            self.kept += run.len();
            self.sink.keep(run);
        }
    }

    #[cold]
    fn unexpected(&self, expected: &'static str) -> JsonError {
        JsonError::unexpected(self.text, self.at, expected)
    }
}

/// The kind of an accepted value from its first byte.
pub(crate) fn kind_of(first: u8) -> Kind {
    match first {
        b'{' => Kind::Object,
        b'[' => Kind::Array,
        b'"' => Kind::String,
        b't' | b'f' => Kind::Boolean,
        b'n' => Kind::Null,
        _ => Kind::Number,
    }
}
