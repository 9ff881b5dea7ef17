//! One segment read back: frames in order, or the first bad place, and what the bytes after it say.

use std::io;

use crate::codec::Codecs;
use crate::format::{
    FRAME_ALIGN, FRAME_HEADER_LEN, FRAME_MAGIC, Fault, FrameHeader, HEADER_LEN, HeaderError, Lsn,
    PLAIN, Record, SegmentHeader, StoreId, decode_record, decode_record_again, u32_at,
};
use crate::storage::SegmentFile;

/// Read at once; more only for a frame that is longer, and only after its header was found sound.
const WINDOW_BYTES: u64 = 1 << 20;
/// A buffer that one large record needed is given back after it.
const UNPACKED_BYTES_KEPT: usize = 8 << 20;

/// A part of a file in memory.
struct Window {
    file: Box<dyn SegmentFile>,
    file_len: u64,
    bytes: Vec<u8>,
    offset: u64,
}

impl Window {
    /// `len` bytes from `offset` on, which the caller knows to be in the file.
    fn get(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let is_here =
            offset >= self.offset && offset + len as u64 <= self.offset + self.bytes.len() as u64;
        if !is_here {
            let left = self.file_len.saturating_sub(offset);
            let want = WINDOW_BYTES.max(len as u64).min(left);
            self.bytes.resize(want as usize, 0);
            self.offset = offset;
            if let Err(error) = self.file.read_at(offset, &mut self.bytes) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let at = (offset - self.offset) as usize;
        self.bytes
            .get(at..at + len)
            .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"))
    }
}

/// Reads the header of a segment file, and how long the file is.
pub(crate) fn read_header(
    file: &dyn SegmentFile,
    number: Option<u64>,
) -> io::Result<(Result<SegmentHeader, HeaderError>, u64)> {
    let len = file.len()?;
    let mut page = vec![0u8; len.min(HEADER_LEN as u64) as usize];
    file.read_at(0, &mut page)?;
    Ok((SegmentHeader::decode(&page, number), len))
}

/// A frame, every record of which was found sound.
pub(crate) struct Frame<'a> {
    pub(crate) offset: u64,
    pub(crate) header: FrameHeader,
    /// Its records, one after the other.
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Its records, each with its offset in the file; a compressed one has that of its frame.
    pub(crate) fn records(&self) -> impl Iterator<Item = (u64, Record<'a>)> + use<'a> {
        let mut rest = self.payload;
        let FrameHeader {
            codec,
            written_at_ms,
            ..
        } = self.header;
        let frame_at = self.offset;
        let mut offset = frame_at + FRAME_HEADER_LEN as u64;
        std::iter::from_fn(move || {
            let (mut record, len) = decode_record_again(rest).ok()?;
            record.written_at_ms = written_at_ms;
            let at = if codec == PLAIN { offset } else { frame_at };
            rest = &rest[len..];
            offset += len as u64;
            Some((at, record))
        })
    }
}

/// What is at a place.
pub(crate) enum Next<'a> {
    Frame(Frame<'a>),
    /// The file ends here, exactly.
    End,
    Bad(Fault),
}

/// What the bytes after a bad place say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// There is nothing but zeros, the bad place included.
    pub(crate) is_zero: bool,
    /// A later frame says that the missing record had been durable.
    pub(crate) is_durable: bool,
    /// The first later frame, and where it is.
    pub(crate) resume: Option<(u64, FrameHeader)>,
    /// The largest LSN a later frame speaks of.
    pub(crate) seen: Lsn,
}

/// One segment.
pub(crate) struct SegmentReader {
    window: Window,
    store_id: StoreId,
    number: u64,
    offset: u64,
    codecs: Codecs,
    /// The records of a compressed frame.
    unpacked: Vec<u8>,
}

impl SegmentReader {
    /// A reader at the first frame of segment `number`.
    pub(crate) fn new(
        file: Box<dyn SegmentFile>,
        store_id: StoreId,
        number: u64,
        codecs: &Codecs,
    ) -> io::Result<SegmentReader> {
        let file_len = file.len()?;
        Ok(SegmentReader {
            window: Window {
                file,
                file_len,
                bytes: Vec::new(),
                offset: 0,
            },
            store_id,
            number,
            offset: HEADER_LEN as u64,
            codecs: codecs.clone(),
            unpacked: Vec::new(),
        })
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Forgets what was read ahead, and looks anew how long the file is: it is still being written to.
    pub(crate) fn refresh(&mut self) -> io::Result<()> {
        self.window.bytes.clear();
        self.window.file_len = self.window.file.len()?;
        Ok(())
    }

    /// Goes on at another place.
    pub(crate) fn seek(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// The frame here, if it is sound and its first record is `expected`. A bad one is not stepped over.
    pub(crate) fn next(&mut self, expected: Lsn) -> io::Result<Next<'_>> {
        let offset = self.offset;
        let left = self.window.file_len.saturating_sub(offset);
        if left == 0 {
            return Ok(Next::End);
        }
        let header = match self.header_at(offset, expected)? {
            Ok(header) => header,
            Err(fault) => return Ok(Next::Bad(fault)),
        };
        if header.stride() > left {
            return Ok(Next::Bad(Fault::Short {
                what: "a frame",
                needed: header.stride(),
                left,
            }));
        }
        let stride = header.stride() as usize;
        let bytes = self.window.get(offset, stride)?;
        let (payload, padding) = bytes[FRAME_HEADER_LEN..].split_at(header.len as usize);
        if let Some(found) = padding.iter().find(|byte| **byte != 0) {
            return Ok(Next::Bad(Fault::Mismatch {
                what: "the padding of a frame",
                found: u64::from(*found),
                expected: 0,
            }));
        }
        let payload = match unpack(&header, payload, &self.codecs, &mut self.unpacked)
            .and_then(|payload| check_records(&header, payload).map(|()| payload))
        {
            Ok(payload) => payload,
            Err(fault) => return Ok(Next::Bad(fault)),
        };
        self.offset += header.stride();
        Ok(Next::Frame(Frame {
            offset,
            header,
            payload,
        }))
    }

    fn header_at(&mut self, offset: u64, expected: Lsn) -> io::Result<Result<FrameHeader, Fault>> {
        let left = self.window.file_len.saturating_sub(offset);
        if left < FRAME_HEADER_LEN as u64 {
            return Ok(Err(Fault::Short {
                what: "a frame header",
                needed: FRAME_HEADER_LEN as u64,
                left,
            }));
        }
        let bytes = self.window.get(offset, FRAME_HEADER_LEN)?;
        let header = bytes
            .first_chunk()
            .expect("a slice of a header's length has a header's length");
        let header = match FrameHeader::decode(header, &self.store_id, self.number) {
            Ok(header) => header,
            Err(fault) => return Ok(Err(fault)),
        };
        if header.first_lsn != expected {
            return Ok(Err(Fault::Mismatch {
                what: "the first LSN of a frame",
                found: header.first_lsn.get(),
                expected: expected.get(),
            }));
        }
        // A frame cannot know of anything durable that it only brings.
        if header.durable_lsn >= header.first_lsn {
            return Ok(Err(Fault::Range {
                what: "the durable LSN of a frame",
                found: header.durable_lsn.get(),
                min: 0,
                max: header.first_lsn.previous().get(),
            }));
        }
        Ok(Ok(header))
    }

    /// Looks at everything from here on for frames of this segment that come after what should be here: `expected`.
    pub(crate) fn survey(&mut self, expected: Lsn) -> io::Result<Survey> {
        let mut survey = Survey {
            is_zero: true,
            ..Survey::default()
        };
        let end = self.window.file_len;
        // Frames begin at multiples of eight, and so does the header; a bad place is always such an offset.
        let mut from = self.offset;
        while from < end {
            let len = WINDOW_BYTES.min(end - from) as usize;
            let bytes = self.window.get(from, len)?;
            let is_zero = bytes.iter().all(|byte| *byte == 0);
            survey.is_zero &= is_zero;
            let mut at = if is_zero { len } else { 0 };
            while at + FRAME_HEADER_LEN <= len {
                if u32_at(bytes, at) == FRAME_MAGIC
                    && let Some(header) = bytes[at..].first_chunk()
                    && let Ok(header) = FrameHeader::decode(header, &self.store_id, self.number)
                {
                    survey.seen = survey.seen.max(header.last_lsn());
                    if header.first_lsn > expected {
                        survey.is_durable |= header.durable_lsn >= expected;
                        survey.resume.get_or_insert((from + at as u64, header));
                    }
                }
                at += FRAME_ALIGN;
            }
            if from + len as u64 == end {
                break;
            }
            // The next part begins where a header may lie across the edge.
            let overlap = FRAME_HEADER_LEN.next_multiple_of(FRAME_ALIGN) as u64;
            from += len as u64 - overlap;
        }
        Ok(survey)
    }
}

/// The records of a frame as they were before compression.
pub(crate) fn unpack<'a>(
    header: &FrameHeader,
    payload: &'a [u8],
    codecs: &Codecs,
    unpacked: &'a mut Vec<u8>,
) -> Result<&'a [u8], Fault> {
    if header.codec == PLAIN {
        return Ok(payload);
    }
    let Some(codec) = codecs.get(header.codec) else {
        return Err(Fault::Unknown {
            what: "codec",
            found: u64::from(header.codec),
        });
    };
    let (raw_len, stored) = header.unpack(payload)?;
    unpacked.clear();
    if unpacked.capacity() > UNPACKED_BYTES_KEPT && raw_len <= UNPACKED_BYTES_KEPT {
        *unpacked = Vec::new();
    }
    codec
        .decompress(stored, raw_len, unpacked)
        .map_err(|error| Fault::Compression {
            reason: error.to_string(),
        })?;
    if unpacked.len() != raw_len {
        return Err(Fault::Mismatch {
            what: "the length of decompressed records",
            found: unpacked.len() as u64,
            expected: raw_len as u64,
        });
    }
    Ok(unpacked)
}

/// Every record and every number.
pub(crate) fn check_records(header: &FrameHeader, payload: &[u8]) -> Result<(), Fault> {
    let mut rest = payload;
    let mut expected = header.first_lsn;
    let mut count = 0u32;
    while !rest.is_empty() {
        let (record, len) = decode_record(rest)?;
        if record.lsn != expected {
            return Err(Fault::Mismatch {
                what: "the LSN of a record",
                found: record.lsn.get(),
                expected: expected.get(),
            });
        }
        rest = &rest[len..];
        expected = expected.next();
        count = count.saturating_add(1);
    }
    if count != header.count {
        return Err(Fault::Mismatch {
            what: "the number of records in a frame",
            found: u64::from(count),
            expected: u64::from(header.count),
        });
    }
    Ok(())
}
