//! A restart: which segments there are, whether one follows the other, where the log ends, and what a bad place means.

use std::collections::VecDeque;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::codec::Codecs;
use crate::error::RecoveryError;
use crate::format::{
    FORMAT_VERSION, Fault, HEADER_LEN, HeaderError, Lsn, Record, SegmentHeader, StoreId,
};
use crate::names;
use crate::reader::{Next, SegmentReader, Survey, read_header};
use crate::retention::SegmentInfo;
use crate::storage::Storage;
use crate::tail::{Ending, TailPlan};
use crate::wal::Start;

/// What replay does about records that had been durable and cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryMode {
    /// Refuses, names the place, changes nothing.
    Strict,
    /// Keeps everything before the place and sets the rest aside.
    PointInTime,
}

/// Where a bad place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    LastSegment,
    EarlierSegment,
}

/// What the rest of the log says about a bad place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing: the file ends, or has only zeros.
    Nothing,
    /// Bytes, none of which says that the missing record had been durable.
    Unproven,
    /// A later frame says that the missing record had been durable.
    Durable,
    /// The next segment says that the last record read was the last one.
    Continues,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The segment ends here, as it should.
    End,
    /// Torn: never acknowledged as durable. Goes.
    Cut,
    Refuse,
    StopHere,
}

/// What replay does at the first place it cannot read. `FORMAT.md` argues each row.
fn verdict(at: Position, rest: Rest, mode: RecoveryMode) -> Verdict {
    match (at, rest, mode) {
        (_, Rest::Continues, _) | (Position::LastSegment, Rest::Nothing, _) => Verdict::End,
        (Position::LastSegment, Rest::Unproven, _) => Verdict::Cut,
        (_, _, RecoveryMode::Strict) => Verdict::Refuse,
        (_, _, RecoveryMode::PointInTime) => Verdict::StopHere,
    }
}

/// Records that had been durable and cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The first of them.
    pub first: Lsn,
    /// The last of them, if something after it can be read.
    pub last: Option<Lsn>,
}

/// A place where records are lost that had been durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Name of the file.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What is lost.
    pub lost: Lost,
    /// What is wrong there.
    pub fault: Fault,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at offset {}: {}; ",
            self.file, self.offset, self.fault
        )?;
        match self.lost.last {
            Some(last) if last == self.lost.first => write!(f, "record {last} is lost"),
            Some(last) => write!(f, "records {} to {last} are lost", self.lost.first),
            None => write!(f, "records from {} on are lost", self.lost.first),
        }
    }
}

/// A torn tail: bytes that were never acknowledged as durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Name of the file.
    pub file: String,
    /// Where the log ends now.
    pub offset: u64,
    /// How many bytes went.
    pub bytes: u64,
    /// What was wrong there.
    pub fault: Fault,
}

/// A segment whose header is sound.
#[derive(Clone, Debug)]
pub(crate) struct Sound {
    pub(crate) file: String,
    pub(crate) header: SegmentHeader,
    pub(crate) len: u64,
}

/// What the directory and the segment headers say.
pub struct Scan {
    storage: Arc<dyn Storage>,
    codecs: Codecs,
    mode: RecoveryMode,
    store_id: Option<StoreId>,
    /// Segments with sound headers and consecutive numbers.
    sound: Vec<Sound>,
    infos: Vec<SegmentInfo>,
    /// Why the list ends there, if it does not end where the files end.
    broken: Option<Damage>,
    /// Segments after that.
    beyond: Vec<u64>,
    /// A last segment that never got its header, and has nothing else.
    headless: Option<u64>,
}

/// Reads the directory and the header of each segment. Changes nothing. `codecs` are what segments may have been
/// rewritten with.
pub fn scan(
    storage: &Arc<dyn Storage>,
    codecs: &Codecs,
    mode: RecoveryMode,
    expect: Option<StoreId>,
) -> Result<Scan, RecoveryError> {
    let mut scan = Scan {
        storage: Arc::clone(storage),
        codecs: codecs.clone(),
        mode,
        store_id: expect,
        sound: Vec::new(),
        infos: Vec::new(),
        broken: None,
        beyond: Vec::new(),
        headless: None,
    };
    let numbers = list_segments(&**storage)?;
    for (index, &number) in numbers.iter().enumerate() {
        let is_last = index + 1 == numbers.len();
        let expected = scan.sound.last().map(|last| last.header.number + 1);
        if let Some(missing) = expected.filter(|expected| *expected != number) {
            let fault = Fault::MissingSegment { number: missing };
            scan.break_at(missing, fault, &numbers[index..])?;
            break;
        }
        match read_segment_header(&**storage, number, scan.store_id)? {
            Ok(sound) => {
                scan.store_id = Some(sound.header.store_id);
                scan.sound.push(sound);
            }
            Err(_) if is_last && has_only_a_header(&**storage, number)? => {
                scan.headless = Some(number);
            }
            Err(fault) => {
                scan.break_at(number, fault, &numbers[index..])?;
                break;
            }
        }
    }
    scan.infos = infos(&scan.sound);
    Ok(scan)
}

/// Delivers the records of `scan` above `above`: [`Scan::replay`].
pub fn replay(
    scan: &Scan,
    above: Lsn,
    deliver: impl FnMut(Record<'_>) -> ControlFlow<()>,
) -> Result<Outcome, RecoveryError> {
    scan.replay(above, deliver)
}

/// Numbers of all segments, ascending.
pub(crate) fn list_segments(storage: &dyn Storage) -> Result<Vec<u64>, RecoveryError> {
    let names = storage
        .list()
        .map_err(|error| RecoveryError::io("listing", "the log's directory", error))?;
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| names::parse_segment(name))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The segment with that number, or what is wrong with its header. Newer formats and other stores are errors.
pub(crate) fn read_segment_header(
    storage: &dyn Storage,
    number: u64,
    store_id: Option<StoreId>,
) -> Result<Result<Sound, Fault>, RecoveryError> {
    let file = names::segment(number);
    let io = |error| RecoveryError::io("reading", &file, error);
    let opened = storage.open(&file).map_err(io)?;
    let (header, len) = read_header(&*opened, Some(number)).map_err(io)?;
    match header {
        Ok(header) => match store_id.filter(|expected| *expected != header.store_id) {
            Some(expected) => Err(RecoveryError::ForeignStore {
                file,
                found: header.store_id,
                expected,
            }),
            None => Ok(Ok(Sound { file, header, len })),
        },
        Err(HeaderError::Newer { found }) => Err(RecoveryError::NewerFormat {
            file,
            found,
            supported: FORMAT_VERSION,
        }),
        Err(HeaderError::Bad(fault)) => Ok(Err(fault)),
    }
}

/// Whether there can be no record in the file, so that nothing is lost with its header.
pub(crate) fn has_only_a_header(storage: &dyn Storage, number: u64) -> Result<bool, RecoveryError> {
    let file = names::segment(number);
    let io = |error| RecoveryError::io("reading", &file, error);
    let opened = storage.open(&file).map_err(io)?;
    // Without a header no frame can be checked; that is why anything but zeros counts as a record.
    let mut reader =
        SegmentReader::new(opened, StoreId::default(), number, &Codecs::none()).map_err(io)?;
    Ok(reader.survey(Lsn::ZERO).map_err(io)?.is_zero)
}

fn infos(sound: &[Sound]) -> Vec<SegmentInfo> {
    let last_lsns = sound.iter().skip(1).map(|next| Some(next.header.follows));
    sound
        .iter()
        .zip(last_lsns.chain([None]))
        .map(|(segment, last_lsn)| SegmentInfo {
            number: segment.header.number,
            first_lsn: segment.header.first_lsn,
            last_lsn: last_lsn.unwrap_or(segment.header.follows),
            follows: segment.header.follows,
            bytes: segment.len,
            created_at_ms: segment.header.created_at_ms,
            codec: segment.header.codec,
        })
        .collect()
}

impl Scan {
    /// Whether there is no log at all. A log that was found and holds no record is not that.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sound.is_empty() && self.headless.is_none() && self.beyond.is_empty()
    }

    /// The store the log belongs to: what was expected, or what the first segment says.
    #[must_use]
    pub fn store_id(&self) -> Option<StoreId> {
        self.store_id
    }

    /// The log continues a snapshot whose cut is at least this.
    #[must_use]
    pub fn reaches_back_to(&self) -> Option<Lsn> {
        let first = self.sound.first()?.header;
        let hole = self
            .sound
            .iter()
            .map(|segment| segment.header)
            .filter(|header| header.floor > header.follows)
            .map(|header| header.floor)
            .max();
        Some(first.follows.max(hole.unwrap_or_default()))
    }

    /// Segments with sound headers, oldest first. How far the last one reaches is known after replay only.
    #[must_use]
    pub fn segments(&self) -> &[SegmentInfo] {
        &self.infos
    }

    /// Bytes that a replay above `above` reads, reserved room of the last segment included.
    #[must_use]
    pub fn bytes_above(&self, above: Lsn) -> u64 {
        (0..self.sound.len())
            .filter(|index| !self.is_below(*index, above))
            .map(|index| self.sound[index].len)
            .sum()
    }

    /// Verifies and delivers every record above `above`, in order and without a gap. At the end it cuts the tail, makes
    /// what is kept durable and removes last segments without records, all but an only one, so that a new segment can follow.
    ///
    /// A damaged log in strict mode is an error, after which nothing has been changed; the records delivered before are worth nothing.
    pub fn replay(
        &self,
        above: Lsn,
        deliver: impl FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Outcome, RecoveryError> {
        let (mut outcome, plan) = self.read(above, true, deliver)?;
        plan.execute(&*self.storage, &mut outcome, false)?;
        Ok(outcome)
    }

    /// For repairing: reads everything, wherever it begins, and keeps aside whatever is cut off.
    pub(crate) fn salvage(&self) -> Result<Outcome, RecoveryError> {
        let (mut outcome, plan) = self.read(Lsn::ZERO, false, |_| ControlFlow::Continue(()))?;
        plan.execute(&*self.storage, &mut outcome, true)?;
        Ok(outcome)
    }

    /// Whether the segment has nothing above `above`; the last one is always read, to find its end.
    fn is_below(&self, index: usize, above: Lsn) -> bool {
        self.sound
            .get(index + 1)
            .is_some_and(|next| next.header.follows <= above)
    }

    fn read(
        &self,
        above: Lsn,
        must_connect: bool,
        mut deliver: impl FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<(Outcome, TailPlan), RecoveryError> {
        let mut outcome = Outcome {
            found: !self.is_empty(),
            store_id: self.store_id,
            above,
            records: 0,
            bytes: 0,
            last_lsn: Lsn::ZERO,
            seen_lsn: above,
            segments: Vec::new(),
            cut: None,
            damage: None,
            set_aside: Vec::new(),
            next_segment: 1,
        };
        let mut plan = TailPlan {
            headless: self.headless,
            beyond: self.beyond.clone(),
            first_number: self.first_number(),
            ..TailPlan::default()
        };
        // Everything up to here is there: it was delivered, or is in the snapshot.
        let mut have = above;
        for (index, segment) in self.sound.iter().enumerate() {
            let header = &segment.header;
            outcome.seen_lsn = outcome.seen_lsn.max(header.first_lsn.previous());
            let mut info = self.infos[index];
            if must_connect && self.is_below(index, above) {
                plan.kept.push((info, segment.len));
                continue;
            }
            if must_connect && header.floor > have {
                return Err(RecoveryError::Gap {
                    expected: have.next(),
                    found: header.first_lsn,
                    segment: header.number,
                });
            }
            let end = self.read_segment(segment, above, &mut outcome, &mut deliver)?;
            have = have.max(end.last_lsn);
            info.last_lsn = end.last_lsn;
            info.bytes = end.offset;
            outcome.seen_lsn = outcome.seen_lsn.max(end.last_lsn).max(end.survey.seen);
            plan.kept.push((info, segment.len));
            plan.doubtful_from = end.doubtful_from;
            match self.judge(index, &end) {
                Verdict::End => plan.ending = Ending::Clean,
                Verdict::Cut => {
                    plan.ending = Ending::Torn;
                    outcome.cut = Some(Cut {
                        file: segment.file.clone(),
                        offset: end.offset,
                        bytes: segment.len - end.offset,
                        fault: end.into_fault(None),
                    });
                }
                Verdict::Refuse => return Err(RecoveryError::Damaged(self.damage(index, end))),
                Verdict::StopHere => {
                    plan.ending = Ending::Damaged;
                    let later = self.sound[index + 1..].iter();
                    plan.beyond
                        .splice(0..0, later.map(|segment| segment.header.number));
                    plan.beyond.extend(plan.headless.take());
                    outcome.damage = Some(self.damage(index, end));
                    break;
                }
            }
        }
        if outcome.damage.is_none() {
            outcome.damage.clone_from(&self.broken);
        }
        for &number in &plan.beyond {
            let seen = self.last_seen(number)?;
            outcome.seen_lsn = outcome.seen_lsn.max(seen);
        }
        Ok((outcome, plan))
    }

    /// Delivers the records of one segment and says where and how it ends.
    fn read_segment(
        &self,
        segment: &Sound,
        above: Lsn,
        outcome: &mut Outcome,
        deliver: &mut impl FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<End, RecoveryError> {
        let io = |error| RecoveryError::io("reading", &segment.file, error);
        let header = &segment.header;
        let file = self.storage.open(&segment.file).map_err(io)?;
        let mut reader =
            SegmentReader::new(file, header.store_id, header.number, &self.codecs).map_err(io)?;
        let mut expected = header.first_lsn;
        let mut last_lsn = header.follows;
        // The frames that no later one says to be durable: their last records, and where they begin.
        let mut doubtful: VecDeque<(Lsn, u64)> = VecDeque::new();
        loop {
            let offset = reader.offset();
            match reader.next(expected).map_err(io)? {
                Next::Frame(frame) => {
                    let durable = frame.header.durable_lsn;
                    while doubtful
                        .pop_front_if(|(last, _)| *last <= durable)
                        .is_some()
                    {}
                    // What was rewritten was synced before it took the place of the old file.
                    if header.codec == 0 {
                        doubtful.push_back((frame.header.last_lsn(), offset));
                    }
                    for (_, record) in frame.records() {
                        last_lsn = record.lsn;
                        if record.lsn <= above {
                            continue;
                        }
                        outcome.records += 1;
                        outcome.bytes += record.encoded_len();
                        if deliver(record).is_break() {
                            return Err(RecoveryError::Stopped { lsn: last_lsn });
                        }
                    }
                    expected = frame.header.last_lsn().next();
                }
                Next::End => {
                    return Ok(End {
                        offset: reader.offset(),
                        doubtful_from: doubtful.front().map(|(_, offset)| *offset),
                        last_lsn,
                        expected,
                        fault: None,
                        survey: Survey {
                            is_zero: true,
                            ..Survey::default()
                        },
                    });
                }
                Next::Bad(fault) if fault.is_unknown() => {
                    return Err(RecoveryError::Unsupported {
                        file: segment.file.clone(),
                        offset: reader.offset(),
                        fault,
                    });
                }
                Next::Bad(fault) => {
                    return Ok(End {
                        offset: reader.offset(),
                        doubtful_from: doubtful.front().map(|(_, offset)| *offset),
                        last_lsn,
                        expected,
                        fault: Some(fault),
                        survey: reader.survey(expected).map_err(io)?,
                    });
                }
            }
        }
    }

    fn judge(&self, index: usize, end: &End) -> Verdict {
        let next = self.sound.get(index + 1).map(|next| next.header.follows);
        let has_later = next.is_some() || self.headless.is_some() || self.broken.is_some();
        let position = if has_later {
            Position::EarlierSegment
        } else {
            Position::LastSegment
        };
        let rest = match next {
            Some(follows) if follows == end.last_lsn => Rest::Continues,
            // The next header cannot be read. It would have been made only after this segment was complete.
            None if has_later && end.survey.is_zero => Rest::Continues,
            _ if end.survey.is_zero => Rest::Nothing,
            _ if end.survey.is_durable => Rest::Durable,
            _ => Rest::Unproven,
        };
        verdict(position, rest, self.mode)
    }

    fn damage(&self, index: usize, end: End) -> Damage {
        let next = self.sound.get(index + 1).map(|next| next.header.follows);
        let resume = end
            .survey
            .resume
            .map(|(_, header)| header.first_lsn.previous());
        Damage {
            file: self.sound[index].file.clone(),
            offset: end.offset,
            lost: Lost {
                first: end.expected,
                last: resume.or(next.filter(|follows| *follows >= end.expected)),
            },
            fault: end.into_fault(next),
        }
    }

    /// The chain of segments ends before `number`, and not because there are no more files.
    fn break_at(&mut self, number: u64, fault: Fault, beyond: &[u64]) -> Result<(), RecoveryError> {
        let first = match self.sound.last() {
            Some(last) => {
                let mut ignored = Outcome::default();
                let mut skip = |_: Record<'_>| ControlFlow::Continue(());
                self.read_segment(last, Lsn::new(u64::MAX), &mut ignored, &mut skip)?
                    .expected
            }
            None => Lsn::ZERO.next(),
        };
        let mut last = None;
        for &later in beyond {
            if let Ok(sound) = read_segment_header(&*self.storage, later, self.store_id)? {
                last = Some(sound.header.follows);
                break;
            }
        }
        let damage = Damage {
            file: names::segment(number),
            offset: 0,
            lost: Lost {
                first,
                last: last.filter(|last| *last >= first),
            },
            fault,
        };
        if self.mode == RecoveryMode::Strict {
            return Err(RecoveryError::Damaged(damage));
        }
        self.broken = Some(damage);
        self.beyond = beyond.to_vec();
        Ok(())
    }

    /// The largest LSN that a segment which is set aside speaks of. Its frames are found without its header, too.
    fn last_seen(&self, number: u64) -> Result<Lsn, RecoveryError> {
        let file = names::segment(number);
        let io = |error| RecoveryError::io("reading", &file, error);
        let first = read_segment_header(&*self.storage, number, self.store_id)?
            .map_or(Lsn::ZERO, |sound| sound.header.first_lsn.previous());
        let Some(store_id) = self.store_id else {
            return Ok(first);
        };
        let opened = self.storage.open(&file).map_err(io)?;
        let mut reader = SegmentReader::new(opened, store_id, number, &self.codecs).map_err(io)?;
        Ok(first.max(reader.survey(Lsn::ZERO).map_err(io)?.seen))
    }

    fn first_number(&self) -> Option<u64> {
        let sound = self.sound.first().map(|first| first.header.number);
        sound.or(self.headless).or(self.beyond.first().copied())
    }
}

/// Where and how a segment ends.
struct End {
    offset: u64,
    /// The first frame of which nothing proves that it reached the disk.
    doubtful_from: Option<u64>,
    last_lsn: Lsn,
    expected: Lsn,
    fault: Option<Fault>,
    survey: Survey,
}

impl End {
    fn into_fault(self, follows: Option<Lsn>) -> Fault {
        match (self.fault, follows) {
            (Some(fault), _) if !self.survey.is_zero => fault,
            (_, Some(expected)) => Fault::EndsEarly {
                found: self.last_lsn,
                expected,
            },
            (Some(fault), None) => fault,
            (None, None) => Fault::Short {
                what: "a frame header",
                needed: HEADER_LEN as u64,
                left: 0,
            },
        }
    }
}

/// What a recovery found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// `false`: there was no log at all.
    pub found: bool,
    /// The store the log belongs to, if that is known.
    pub store_id: Option<StoreId>,
    /// Records up to here were not asked for.
    pub above: Lsn,
    /// Records delivered.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The last record that the log keeps, 0 for none. May be below `above`: then a snapshot was ahead of the log.
    pub last_lsn: Lsn,
    /// The largest number met anywhere, also in what was cut or set aside, and at least `above`. It and all below are used up.
    pub seen_lsn: Lsn,
    /// Segments kept, oldest first. Each has records.
    pub segments: Vec<SegmentInfo>,
    /// A torn tail that was cut.
    pub cut: Option<Cut>,
    /// The damage that a point-in-time recovery stopped at. All records from its first lost one on are gone.
    pub damage: Option<Damage>,
    /// Files that now hold what was taken out of the log.
    pub set_aside: Vec<String>,
    /// Number of the segment to go on with.
    pub next_segment: u64,
}

impl Outcome {
    /// Where the log goes on. `next_lsn` has to be above `seen_lsn`, and should be well above it: numbers that were
    /// given to changes lost before they were durable may have been seen.
    #[must_use]
    pub fn start(&self, store_id: StoreId, next_lsn: Lsn, now_ms: u64) -> Start {
        let follows = if self.segments.is_empty() {
            self.above
        } else {
            self.last_lsn
        };
        Start {
            store_id,
            segment: self.next_segment,
            follows,
            floor: self.above.max(follows),
            next_lsn,
            segments: self.segments.clone(),
            now_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table, so that a new row or a changed one is a decision.
    #[test]
    fn every_case_has_its_verdict() {
        use Position::{EarlierSegment, LastSegment};
        use RecoveryMode::{PointInTime, Strict};
        let table = [
            (LastSegment, Rest::Nothing, Verdict::End, Verdict::End),
            (LastSegment, Rest::Unproven, Verdict::Cut, Verdict::Cut),
            (
                LastSegment,
                Rest::Durable,
                Verdict::Refuse,
                Verdict::StopHere,
            ),
            (LastSegment, Rest::Continues, Verdict::End, Verdict::End),
            (
                EarlierSegment,
                Rest::Nothing,
                Verdict::Refuse,
                Verdict::StopHere,
            ),
            (
                EarlierSegment,
                Rest::Unproven,
                Verdict::Refuse,
                Verdict::StopHere,
            ),
            (
                EarlierSegment,
                Rest::Durable,
                Verdict::Refuse,
                Verdict::StopHere,
            ),
            (EarlierSegment, Rest::Continues, Verdict::End, Verdict::End),
        ];
        for (at, rest, strict, point_in_time) in table {
            assert_eq!(verdict(at, rest, Strict), strict, "{at:?} {rest:?}");
            assert_eq!(
                verdict(at, rest, PointInTime),
                point_in_time,
                "{at:?} {rest:?}"
            );
        }
    }
}
