//! The chain of an audit log: each line proves the one before it, and a file beside it says where the log ends.
//!
//! A line is one JSON object. Its last member, `chain.hash`, is the SHA-256 of the line without it; the member before,
//! `chain.previous`, is that of the line before, so no line can be changed, taken out or put in without every later
//! one showing it. What an end cut off would hide is kept in `FILE.head`: number and hash of the last line.

use super::tokens::{digest, hex};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// What the first line says the one before it was.
const NONE_BEFORE: [u8; 32] = [0; 32];
/// No line is longer: a key and a few words, escaped.
const LINE_BYTES_MAX: u64 = 4 << 20;

/// Where a chain has got to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    /// The number of the last line, from 1; 0 before the first.
    pub(super) sequence: u64,
    /// Its hash.
    pub(super) hash: [u8; 32],
}

impl Link {
    pub(super) const START: Self = Self {
        sequence: 0,
        hash: NONE_BEFORE,
    };

    /// Completes the line after this one, of which `line` is everything up to where the chain's members go.
    pub(super) fn extend(&mut self, line: &mut String) {
        self.sequence += 1;
        line.push_str(&format!(
            ",\"event.sequence\":{},\"chain.previous\":\"{}\"}}",
            self.sequence,
            hex(&self.hash)
        ));
        self.hash = Sha256::digest(line.as_bytes()).into();
        line.pop();
        line.push_str(&format!("{HASH}{}\"}}\n", hex(&self.hash)));
    }

    /// What the file beside the log says.
    pub(super) fn text(&self) -> String {
        format!("{} {}\n", self.sequence, hex(&self.hash))
    }
}

const HASH: &str = ",\"chain.hash\":\"";

/// The file beside a log that says where it ends.
pub(super) fn head_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".head");
    PathBuf::from(name)
}

/// A log that holds together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChainReport {
    /// Its lines.
    pub lines: u64,
    /// The number of the first one; above 1 if the log began in a file that was not looked at. 0 without lines.
    pub first: u64,
    /// The number of the last one.
    pub last: u64,
}

/// A log that does not hold together, or cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainFault {
    /// The file cannot be read.
    #[error("the log cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A line is not what was written.
    #[error("line {line} was changed: expected {expected}")]
    Changed {
        /// The line, from 1.
        line: u64,
        /// What a line that was written here would have.
        expected: &'static str,
    },
    /// Lines between two were taken out, or put in.
    #[error("between line {before} and the next one lines are missing or were put in")]
    Gap {
        /// The last line of the file that proves itself; 0 for none, so that it does not go on from the file before.
        before: u64,
    },
    /// The last line has no end.
    #[error("line {line} is cut: the log ends within it")]
    Torn {
        /// The line, from 1.
        line: u64,
    },
    /// The log ends before the last line that is known to have been written.
    #[error(
        "the end is missing: the last line is number {found}, and number {written} was written"
    )]
    Cut {
        /// The last line there is.
        found: u64,
        /// The last line that was.
        written: u64,
    },
}

/// Reads a line's own place in the chain, if it proves itself: it, and what it says came before.
pub(super) fn read_line(line: &str) -> Option<(Link, [u8; 32])> {
    let at = line.rfind(HASH)?;
    let rest = &line[at + HASH.len()..];
    let written = rest.strip_suffix("\"}")?;
    let proven = format!("{}}}", &line[..at]);
    if digest(proven.as_bytes()) != written {
        return None;
    }
    let parsed: serde_json::Value = serde_json::from_str(&proven).ok()?;
    let previous = unhex(parsed.get("chain.previous")?.as_str()?)?;
    Some((
        Link {
            sequence: parsed.get("event.sequence")?.as_u64()?,
            hash: unhex(written)?,
        },
        previous,
    ))
}

/// The number and hash of the last line that was written, as the file beside the log has them.
pub(super) fn read_head(path: &Path) -> io::Result<Option<Link>> {
    let text = match fs::read_to_string(head_of(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let mut words = text.split_whitespace();
    let link = words.next().and_then(|sequence| {
        Some(Link {
            sequence: sequence.parse().ok()?,
            hash: unhex(words.next()?)?,
        })
    });
    // Written anew for each batch of lines: after a power cut it may be empty, and then tells nothing.
    Ok(link)
}

/// Verifies a log of one or more files, the oldest first: each has to go on where the one before it ended.
///
/// # Errors
/// The first place where it does not hold together, and in which file.
pub fn verify<P: AsRef<Path>>(files: &[P]) -> Result<ChainReport, (PathBuf, ChainFault)> {
    let mut report = ChainReport::default();
    let mut last = None;
    for file in files {
        let path = file.as_ref();
        verify_file(path, &mut last, &mut report).map_err(|fault| (path.to_owned(), fault))?;
    }
    Ok(report)
}

/// Verifies one file, which goes on after `before` if that is known.
fn verify_file(
    path: &Path,
    before: &mut Option<Link>,
    report: &mut ChainReport,
) -> Result<(), ChainFault> {
    let mut input = BufReader::new(fs::File::open(path)?);
    let mut last = before.unwrap_or(Link::START);
    let mut lines = 0;
    let mut line = Vec::new();
    let head = read_head(path)?;
    let mut head_seen = head.is_none_or(|head| head == last || head.sequence == 0);
    loop {
        line.clear();
        let read = io::Read::take(&mut input, LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        lines += 1;
        if line.pop() != Some(b'\n') {
            return Err(ChainFault::Torn { line: lines });
        }
        let changed = |expected| ChainFault::Changed {
            line: lines,
            expected,
        };
        let text = std::str::from_utf8(&line).map_err(|_| changed("UTF-8"))?;
        let (link, previous) = read_line(text).ok_or_else(|| changed("a line whose hash fits"))?;
        if lines == 1 && before.is_none() && link.sequence > 1 {
            // The log was rotated: it goes on from one that is kept elsewhere.
            last = Link {
                sequence: link.sequence - 1,
                hash: previous,
            };
        }
        if previous != last.hash || link.sequence != last.sequence + 1 {
            return Err(ChainFault::Gap { before: lines - 1 });
        }
        last = link;
        head_seen |= head == Some(link);
        report.lines += 1;
        report.last = link.sequence;
        if report.first == 0 {
            report.first = link.sequence;
        }
    }
    *before = (last != Link::START).then_some(last);
    match head {
        Some(head) if head.sequence > last.sequence => Err(ChainFault::Cut {
            found: last.sequence,
            written: head.sequence,
        }),
        // A chain forged from some line on does not have the line that was known to be written.
        Some(head) if !head_seen => Err(ChainFault::Changed {
            line: lines.saturating_sub(last.sequence - head.sequence),
            expected: "the line that the file beside the log names",
        }),
        _ => Ok(()),
    }
}

pub(super) fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).ok()?;
    }
    Some(bytes)
}
