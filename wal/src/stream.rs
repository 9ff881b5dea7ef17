//! The log as a stream: what is durable from some record on, then what becomes durable, for as long as somebody reads.
//!
//! [`Tail`] makes it, on a thread of its reader's: it reads segment files beside the writer and never holds it up. What
//! a retired segment had is gone for a reader that is too slow, which is told so. [`StreamReader`] is the other end.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{StreamError, TailError};
use crate::format::{
    FRAME_HEADER_LEN, Fault, FrameHeader, Lsn, PLAIN, Record, STREAM_HEADER_LEN, STREAM_SEGMENT,
    StoreId, StreamHeader, decode_record_again, padded,
};
use crate::names;
use crate::reader::{Frame, Next, SegmentReader, check_records, read_header};
use crate::retention::SegmentInfo;
use crate::upkeep::Keeper;
use crate::wal::{Wal, wall_clock_ms};

/// Bytes of a frame that are read at once: no more memory is spent on a length than has arrived.
const READ_BYTES: usize = 1 << 20;

/// What [`Tail::next`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailStep {
    /// Appended records.
    Records,
    /// Nothing new was durable within the time.
    Idle,
    /// Nothing more will come: the log was ended, and everything in it was given out.
    Ended,
}

/// A place in the log that moves on.
pub struct Tail {
    keeper: Keeper,
    store_id: StoreId,
    /// The next record to give out.
    next: Lsn,
    /// Numbers were left out in front of it, and that is still to be told.
    skipped: bool,
    /// The segment being read.
    open: Option<Open>,
}

struct Open {
    number: u64,
    reader: SegmentReader,
    /// The record that is next there.
    at: Lsn,
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Wal {
    /// The records from `from` on, 0 and 1 being the first there ever was.
    ///
    /// # Errors
    /// The log does not reach back so far, or what came before `from` is not in it: a crash took it.
    pub fn tail(&self, from: Lsn) -> Result<Tail, TailError> {
        let mut tail = Tail {
            keeper: self.keeper.clone(),
            store_id: self.store_id,
            next: from.max(Lsn::new(1)),
            skipped: false,
            open: None,
        };
        if tail.next <= self.high_watermark() {
            // Numbers that were left out here are left out before the stream begins.
            tail.open = Some(tail.begin()?);
            tail.skipped = false;
        } else {
            tail.place()?;
        }
        Ok(tail)
    }
}

impl Tail {
    /// The bytes a stream begins with.
    #[must_use]
    pub fn header(&self) -> Vec<u8> {
        let header = StreamHeader {
            store_id: self.store_id,
            from: self.next,
        };
        header.encode().to_vec()
    }

    /// A frame without records: how far the log is durable, and what time it is here.
    pub fn mark(&self, out: &mut Vec<u8>) {
        self.push(out, self.next, 0, wall_clock_ms(), &[]);
    }

    /// Appends the next durable records to `out` as one frame, or waits for some, for at most `wait`. Blocks for the file system.
    ///
    /// # Errors
    /// The records were retired, or cannot be read. The tail does not go on after that.
    pub fn next(&mut self, out: &mut Vec<u8>, wait: Duration) -> Result<TailStep, TailError> {
        let shared = Arc::clone(&self.keeper.shared);
        let progress = &shared.progress;
        if progress.high_watermark() < self.next {
            // Asked before looking once more: what was durable when the log ended is given out.
            let is_closed = progress.is_closed();
            if !is_closed {
                let _ = progress.wait_durable(self.next, wait);
            }
            if progress.high_watermark() < self.next {
                return Ok(if is_closed {
                    TailStep::Ended
                } else {
                    TailStep::Idle
                });
            }
        }
        // A segment may be sealed or exchanged while it is looked at; what is durable is in one of them.
        let mut fault = None;
        for _ in 0..8 {
            match self.step(out)? {
                Step::Frame => return Ok(TailStep::Records),
                Step::Turn => {}
                Step::Bad(found) => fault = Some(found),
            }
        }
        match fault {
            None => Ok(TailStep::Idle),
            Some((file, offset, fault)) => Err(TailError::Damaged {
                file,
                offset,
                fault,
            }),
        }
    }

    /// Shows the next durable records to `visit`, or waits for some, for at most `wait`; `scratch` is memory to work in.
    /// Blocks for the file system.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn visit(
        &mut self,
        scratch: &mut Vec<u8>,
        wait: Duration,
        mut visit: impl FnMut(&Record<'_>),
    ) -> Result<TailStep, TailError> {
        scratch.clear();
        let step = self.next(scratch, wait)?;
        let mut rest = scratch.get(FRAME_HEADER_LEN..).unwrap_or_default();
        let frame = scratch
            .first_chunk::<FRAME_HEADER_LEN>()
            .and_then(|header| FrameHeader::decode(header, &self.store_id, STREAM_SEGMENT).ok());
        for _ in 0..frame.as_ref().map_or(0, |header| header.count) {
            let Ok((mut record, len)) = decode_record_again(rest) else {
                break;
            };
            record.written_at_ms = frame.as_ref().map_or(0, |header| header.written_at_ms);
            visit(&record);
            rest = &rest[len..];
        }
        Ok(step)
    }

    /// The number of the next record to be given out; those before it were.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.next
    }

    fn step(&mut self, out: &mut Vec<u8>) -> Result<Step, TailError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        if self.skipped {
            self.skipped = false;
            self.mark(out);
            self.open = Some(open);
            return Ok(Step::Frame);
        }
        let file = names::segment(open.number);
        let io = |source| TailError::Io {
            file: file.clone(),
            source,
        };
        loop {
            let offset = open.reader.offset();
            let found = match open.reader.next(open.at) {
                // The room behind its end was cut off while it was read.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Next::End,
                other => other.map_err(io)?,
            };
            let fault = match found {
                Next::Frame(frame) => {
                    open.at = frame.header.last_lsn().next();
                    if open.at <= self.next {
                        continue;
                    }
                    self.give(&frame, out);
                    self.next = open.at;
                    self.open = Some(open);
                    return Ok(Step::Frame);
                }
                Next::Bad(fault) => Some(fault),
                Next::End => None,
            };
            // What was read ahead may have been written since.
            open.reader.refresh().map_err(io)?;
            let segments = self.keeper.shared.catalogue.segments();
            let is_over = segments
                .iter()
                .find(|segment| segment.number > open.number)
                .is_some_and(|later| later.follows < open.at);
            if is_over {
                return Ok(Step::Turn);
            }
            let fault = fault.unwrap_or(Fault::EndsEarly {
                found: open.at.previous(),
                expected: self.next,
            });
            let is_retired = !segments.iter().any(|segment| segment.number == open.number);
            if !is_retired {
                self.open = Some(open);
            }
            return Ok(Step::Bad((file, offset, fault)));
        }
    }

    /// Opens the segment with the next record.
    fn begin(&mut self) -> Result<Open, TailError> {
        let (segment, next) = self.place()?;
        let file = names::segment(segment.number);
        let io = |source| TailError::Io {
            file: file.clone(),
            source,
        };
        let opened = match self.keeper.storage.open(&file) {
            // Retired since the list was made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.too_old());
            }
            other => other.map_err(io)?,
        };
        let (header, _) = read_header(&*opened, Some(segment.number)).map_err(io)?;
        let header = header.map_err(|_| TailError::Damaged {
            file: file.clone(),
            offset: 0,
            fault: Fault::Metadata,
        })?;
        if header.floor >= self.next {
            // Between the run before and this one there are records that only a snapshot has.
            return Err(TailError::TooOld {
                oldest: header.first_lsn,
            });
        }
        let reader =
            SegmentReader::new(opened, header.store_id, header.number, &self.keeper.codecs)
                .map_err(io)?;
        if next > self.next {
            self.next = next;
            self.skipped = true;
        }
        Ok(Open {
            number: segment.number,
            reader,
            at: header.first_lsn,
        })
    }

    /// The segment with the next record, and the record's number, which is larger where numbers were left out.
    fn place(&self) -> Result<(SegmentInfo, Lsn), TailError> {
        let segments = self.keeper.shared.catalogue.segments();
        let oldest = segments.first().ok_or_else(|| self.too_old())?;
        if oldest.follows >= self.next {
            return Err(TailError::TooOld {
                oldest: oldest.first_lsn,
            });
        }
        // The first segment that reaches up to it; the last one may grow that far yet.
        let segment = segments
            .iter()
            .find(|segment| segment.last_lsn >= self.next)
            .or(segments.last())
            .unwrap_or(oldest);
        if segment.follows.next() < self.next && self.next < segment.first_lsn {
            // Whoever asks has what a crash took from here: it would not notice that it is gone.
            return Err(TailError::TooOld {
                oldest: segment.first_lsn,
            });
        }
        Ok((*segment, self.next.max(segment.first_lsn)))
    }

    fn too_old(&self) -> TailError {
        let segments = self.keeper.shared.catalogue.segments();
        TailError::TooOld {
            oldest: segments
                .first()
                .map_or(self.next.next(), |oldest| oldest.first_lsn),
        }
    }

    /// Appends the records of `frame` from the next one on.
    fn give(&self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let mut records = frame.payload;
        let mut first = frame.header.first_lsn;
        while first < self.next {
            let Ok((_, len)) = decode_record_again(records) else {
                break;
            };
            records = &records[len..];
            first = first.next();
        }
        let count = (frame.header.last_lsn().get() + 1 - first.get()) as u32;
        self.push(out, first, count, frame.header.written_at_ms, records);
    }

    fn push(&self, out: &mut Vec<u8>, first: Lsn, count: u32, at_ms: u64, records: &[u8]) {
        let header = FrameHeader {
            segment: STREAM_SEGMENT,
            first_lsn: first,
            durable_lsn: self.keeper.shared.progress.high_watermark(),
            written_at_ms: at_ms,
            count,
            len: records.len() as u32,
            codec: PLAIN,
        };
        out.extend_from_slice(&header.encode(&self.store_id));
        out.extend_from_slice(records);
        out.resize(
            out.len() + (header.stride() as usize - FRAME_HEADER_LEN - records.len()),
            0,
        );
    }
}

enum Step {
    Frame,
    /// The segment is over.
    Turn,
    Bad((String, u64, Fault)),
}

/// Reads a stream.
#[derive(Debug)]
pub struct StreamReader<R> {
    from: R,
    header: StreamHeader,
    /// The next record.
    next: Lsn,
    records: Vec<u8>,
}

/// What [`StreamReader::next_frame`] read.
#[derive(Debug)]
pub struct StreamFrame<'a> {
    /// How far the log of the sender was durable when it sent this.
    pub durable_lsn: Lsn,
    /// When the records were written, or, in a frame without any, when it was sent: milliseconds since 1970, by the sender's clock.
    pub at_ms: u64,
    /// The number after the last of the records, which is where to go on.
    pub next_lsn: Lsn,
    records: &'a [u8],
}

impl<'a> StreamFrame<'a> {
    /// Its records, in order.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let mut rest = self.records;
        let at_ms = self.at_ms;
        std::iter::from_fn(move || {
            let (mut record, len) = decode_record_again(rest).ok()?;
            record.written_at_ms = at_ms;
            rest = &rest[len..];
            Some(record)
        })
    }
}

impl<R: Read> StreamReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// It is none, or the connection failed.
    pub fn begin(mut from: R) -> Result<StreamReader<R>, StreamError> {
        let mut header = [0u8; STREAM_HEADER_LEN];
        from.read_exact(&mut header)?;
        let header = StreamHeader::decode(&header)?;
        Ok(StreamReader {
            from,
            next: header.from,
            header,
            records: Vec::new(),
        })
    }

    /// The header.
    pub fn header(&self) -> &StreamHeader {
        &self.header
    }

    /// The next frame, every record of which was found sound and in order; `None` where the stream ends between two frames.
    ///
    /// # Errors
    /// What arrives is not what was sent, or the connection failed, also in the middle of a frame.
    pub fn next_frame(&mut self) -> Result<Option<StreamFrame<'_>>, StreamError> {
        let mut header = [0u8; FRAME_HEADER_LEN];
        loop {
            match self.from.read(&mut header[..1]) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.from.read_exact(&mut header[1..])?;
        let header = FrameHeader::decode(&header, &self.header.store_id, STREAM_SEGMENT)?;
        if header.codec != PLAIN {
            return Err(Fault::Unknown {
                what: "codec",
                found: u64::from(header.codec),
            }
            .into());
        }
        // Numbers may be left out in front of a frame without records only.
        let is_next = match header.count {
            0 => header.first_lsn >= self.next,
            _ => header.first_lsn == self.next,
        };
        if !is_next {
            return Err(Fault::Mismatch {
                what: "the first LSN of a frame",
                found: header.first_lsn.get(),
                expected: self.next.get(),
            }
            .into());
        }
        self.read_records(&header)?;
        check_records(&header, &self.records)?;
        self.next = header.last_lsn().next();
        Ok(Some(StreamFrame {
            durable_lsn: header.durable_lsn,
            at_ms: header.written_at_ms,
            next_lsn: self.next,
            records: &self.records,
        }))
    }

    fn read_records(&mut self, header: &FrameHeader) -> Result<(), StreamError> {
        let (mut left, len) = (header.len as usize, header.len as usize);
        self.records.clear();
        if self.records.capacity() > 8 * READ_BYTES {
            self.records = Vec::new();
        }
        while left > 0 {
            let start = self.records.len();
            self.records.resize(start + left.min(READ_BYTES), 0);
            self.from.read_exact(&mut self.records[start..])?;
            left -= self.records.len() - start;
        }
        let mut padding = [0u8; 8];
        let padding = &mut padding
            [..(padded((FRAME_HEADER_LEN + len) as u64) as usize) - FRAME_HEADER_LEN - len];
        self.from.read_exact(padding)?;
        match padding.iter().find(|byte| **byte != 0) {
            None => Ok(()),
            Some(found) => Err(Fault::Mismatch {
                what: "the padding of a frame",
                found: u64::from(*found),
                expected: 0,
            }
            .into()),
        }
    }
}
