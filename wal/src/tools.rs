//! Offline tools: look at a log that nobody writes to, prove it, cut it back to what can be proven.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::codec::Codecs;
use crate::error::RecoveryError;
use crate::format::{
    FORMAT_VERSION, Fault, FrameHeader, HeaderError, Lsn, Record, SegmentHeader, StoreId,
};
use crate::names;
use crate::reader::{Next, SegmentReader, read_header};
use crate::recovery::{
    Cut, Damage, Lost, RecoveryMode, Sound, has_only_a_header, list_segments, read_segment_header,
    scan,
};
use crate::storage::{Storage, open_read_only};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The store the log belongs to.
    pub store_id: Option<StoreId>,
    /// Every segment.
    pub segments: Vec<SegmentReport>,
    /// Sound records.
    pub records: u64,
    /// The first of them.
    pub first_lsn: Option<Lsn>,
    /// The last of them.
    pub last_lsn: Option<Lsn>,
    /// Every place where records are lost that had been durable.
    pub damage: Vec<Damage>,
    /// A tail that a crash left. The next start cuts it; nothing that was acknowledged as durable is in it.
    pub torn: Option<Cut>,
    /// Files that [`repair`] put cut-off bytes into.
    pub set_aside: Vec<String>,
}

impl Report {
    /// Whether nothing is lost. A torn tail is no loss.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// One segment in a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// Name of the file.
    pub file: String,
    /// Its length, reserved room included.
    pub bytes: u64,
    /// What it was rewritten with; 0 for frames as they were written.
    pub codec: u8,
    /// Sound frames.
    pub frames: u64,
    /// Sound records.
    pub records: u64,
    /// The first of them.
    pub first_lsn: Option<Lsn>,
    /// The last of them.
    pub last_lsn: Option<Lsn>,
}

/// Reads every byte of the log and says what is wrong with it. Changes nothing, and goes on after damage.
pub fn check(storage: &Arc<dyn Storage>, codecs: &Codecs) -> Result<Report, RecoveryError> {
    let mut report = Report::default();
    let numbers = list_segments(&**storage)?;
    // What the segment before ended with, if that is known.
    let mut before: Option<Lsn> = None;
    for (index, &number) in numbers.iter().enumerate() {
        let later = &numbers[index + 1..];
        if index > 0 && numbers[index - 1] + 1 != number {
            let missing = numbers[index - 1] + 1;
            let fault = Fault::MissingSegment { number: missing };
            let last = follows_of(&**storage, &numbers[index..], &report)?;
            report.damage.push(damage(missing, 0, before, last, fault));
            before = None;
        }
        before = check_next(storage, codecs, number, later, before, &mut report)?;
    }
    Ok(report)
}

/// Reads every byte of segment `number` of a log that is in use. `next` is the segment after it: what that says it follows is
/// where this one has to end. Without one it is the segment that is written to, and bytes that are on their way may look
/// like damage: what is damaged is so at the same place when it is read again.
pub fn check_one(
    storage: &Arc<dyn Storage>,
    codecs: &Codecs,
    number: u64,
    next: Option<u64>,
) -> Result<Report, RecoveryError> {
    let mut report = Report::default();
    check_next(storage, codecs, number, next.as_slice(), None, &mut report)?;
    Ok(report)
}

/// Cuts the log back to what can be proven. What is cut off or lies beyond a damage is kept in files beside it, named in the report,
/// which is about the log as it is afterwards; `damage` and `torn` say what was done away with.
pub fn repair(storage: &Arc<dyn Storage>, codecs: &Codecs) -> Result<Report, RecoveryError> {
    let before = check(storage, codecs)?;
    let outcome = scan(storage, codecs, RecoveryMode::PointInTime, before.store_id)?.salvage()?;
    let after = check(storage, codecs)?;
    Ok(Report {
        damage: before.damage,
        torn: before.torn,
        set_aside: outcome.set_aside,
        ..after
    })
}

/// Checks the segment `number`, which `later` follow and which is to go on after `before`, and returns its last LSN.
fn check_next(
    storage: &Arc<dyn Storage>,
    codecs: &Codecs,
    number: u64,
    later: &[u64],
    before: Option<Lsn>,
    report: &mut Report,
) -> Result<Option<Lsn>, RecoveryError> {
    match read_segment_header(&**storage, number, report.store_id)? {
        Ok(sound) => {
            report.store_id = Some(sound.header.store_id);
            let next = follows_of(&**storage, later, report)?;
            check_segment(&**storage, codecs, &sound, later.is_empty(), next, report)
        }
        Err(_) if later.is_empty() && has_only_a_header(&**storage, number)? => Ok(before),
        Err(fault) => {
            let last = follows_of(&**storage, later, report)?;
            report.damage.push(damage(number, 0, before, last, fault));
            Ok(None)
        }
    }
}

/// What the first readable header of `numbers` follows.
fn follows_of(
    storage: &dyn Storage,
    numbers: &[u64],
    report: &Report,
) -> Result<Option<Lsn>, RecoveryError> {
    match numbers.first() {
        Some(&number) => Ok(read_segment_header(storage, number, report.store_id)?
            .ok()
            .map(|sound| sound.header.follows)),
        None => Ok(None),
    }
}

fn damage(
    number: u64,
    offset: u64,
    before: Option<Lsn>,
    last: Option<Lsn>,
    fault: Fault,
) -> Damage {
    let first = before.unwrap_or_default().next();
    Damage {
        file: names::segment(number),
        offset,
        lost: Lost {
            first,
            last: last.filter(|last| *last >= first),
        },
        fault,
    }
}

/// Checks one segment and returns its last LSN. `follows` is what the next segment says that is.
fn check_segment(
    storage: &dyn Storage,
    codecs: &Codecs,
    segment: &Sound,
    is_last: bool,
    follows: Option<Lsn>,
    report: &mut Report,
) -> Result<Option<Lsn>, RecoveryError> {
    let io = |error| RecoveryError::io("reading", &segment.file, error);
    let header = &segment.header;
    let file = storage.open(&segment.file).map_err(io)?;
    let mut reader =
        SegmentReader::new(file, header.store_id, header.number, codecs).map_err(io)?;
    let mut found = SegmentReport {
        file: segment.file.clone(),
        bytes: segment.len,
        codec: header.codec,
        frames: 0,
        records: 0,
        first_lsn: None,
        last_lsn: None,
    };
    let mut expected = header.first_lsn;
    let mut last_lsn = header.follows;
    loop {
        let fault = match reader.next(expected).map_err(io)? {
            Next::Frame(frame) => {
                found.frames += 1;
                if frame.header.count > 0 {
                    last_lsn = frame.header.last_lsn();
                    expected = last_lsn.next();
                    found.records += u64::from(frame.header.count);
                    found.first_lsn.get_or_insert(frame.header.first_lsn);
                    found.last_lsn = Some(last_lsn);
                }
                continue;
            }
            Next::End => None,
            Next::Bad(fault) => Some(fault),
        };
        let offset = reader.offset();
        let survey = reader.survey(expected).map_err(io)?;
        if follows == Some(last_lsn) || (survey.is_zero && (follows.is_none() || is_last)) {
            break;
        }
        let fault = match (fault, follows) {
            (Some(fault), _) if !survey.is_zero => fault,
            (_, follows) => Fault::EndsEarly {
                found: last_lsn,
                expected: follows.unwrap_or_default(),
            },
        };
        if is_last && !survey.is_durable && !fault.is_unknown() {
            report.torn = Some(Cut {
                file: segment.file.clone(),
                offset,
                bytes: segment.len - offset,
                fault,
            });
            break;
        }
        let resume = survey.resume;
        let last = resume
            .map(|(_, frame)| frame.first_lsn.previous())
            .or(follows);
        let before = Some(expected.previous());
        report
            .damage
            .push(damage(header.number, offset, before, last, fault));
        let Some((at, frame)) = resume else {
            last_lsn = follows.unwrap_or(last_lsn);
            break;
        };
        reader.seek(at);
        expected = frame.first_lsn;
    }
    report.records += found.records;
    report.first_lsn = report.first_lsn.or(found.first_lsn);
    report.last_lsn = found.last_lsn.or(report.last_lsn);
    report.segments.push(found);
    Ok(Some(last_lsn))
}

/// What [`read_file`] meets, in the order of the file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Item<'a> {
    /// The segment's header.
    Segment(&'a SegmentHeader),
    /// A frame; its records follow.
    Frame {
        /// Where it begins.
        offset: u64,
        /// Its header.
        header: &'a FrameHeader,
    },
    /// A record.
    Record {
        /// Where it begins.
        offset: u64,
        /// The record.
        record: Record<'a>,
    },
    /// Bytes that are no frame. Reading goes on at the next one, if there is any.
    Bad {
        /// Where they begin.
        offset: u64,
        /// What is wrong.
        fault: Fault,
    },
    /// The end of what is written; reserved room may follow.
    End {
        /// Where it is.
        offset: u64,
    },
}

/// A file could not be read as a segment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It is none, or its header is damaged.
    #[error("the file is no segment of a log: {0}")]
    Header(Fault),
    /// A later version wrote it.
    #[error("the segment has format version {found}, this program reads up to {supported}")]
    NewerFormat {
        /// Its version.
        found: u32,
        /// The version this crate writes.
        supported: u32,
    },
    /// The system failed to read it.
    #[error("the file cannot be read")]
    Io(#[from] io::Error),
}

/// Reads one segment file, whatever its name, and shows everything in it to `visit` until that breaks.
pub fn read_file(
    path: &Path,
    codecs: &Codecs,
    mut visit: impl FnMut(Item<'_>) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    let file = open_read_only(path)?;
    let header = match read_header(&*file, None)?.0 {
        Ok(header) => header,
        Err(HeaderError::Bad(fault)) => return Err(ReadError::Header(fault)),
        Err(HeaderError::Newer { found }) => {
            return Err(ReadError::NewerFormat {
                found,
                supported: FORMAT_VERSION,
            });
        }
    };
    let mut reader = SegmentReader::new(file, header.store_id, header.number, codecs)?;
    match show(&header, &mut reader, &mut visit)? {
        ControlFlow::Continue(()) | ControlFlow::Break(()) => Ok(()),
    }
}

fn show(
    header: &SegmentHeader,
    reader: &mut SegmentReader,
    visit: &mut impl FnMut(Item<'_>) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut flow = visit(Item::Segment(header));
    let mut expected = header.first_lsn;
    while flow.is_continue() {
        let fault = match reader.next(expected)? {
            Next::Frame(frame) => {
                expected = frame.header.last_lsn().next();
                flow = visit(Item::Frame {
                    offset: frame.offset,
                    header: &frame.header,
                });
                for (offset, record) in frame.records() {
                    if flow.is_break() {
                        break;
                    }
                    flow = visit(Item::Record { offset, record });
                }
                continue;
            }
            Next::End => None,
            Next::Bad(fault) => Some(fault),
        };
        let offset = reader.offset();
        let survey = reader.survey(expected)?;
        let Some(fault) = fault.filter(|_| !survey.is_zero) else {
            return Ok(visit(Item::End { offset }));
        };
        flow = visit(Item::Bad { offset, fault });
        match survey.resume {
            Some((at, frame)) if flow.is_continue() => {
                reader.seek(at);
                expected = frame.first_lsn;
            }
            _ => return Ok(flow),
        }
    }
    Ok(flow)
}
