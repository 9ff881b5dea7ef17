//! Sealed segments compressed: read, put together into larger frames, written beside, proven, and swapped in one step.
//!
//! A crash at any moment leaves the old file or the new one under the segment's name, each complete and synced, with the
//! same records. Whoever has the old file open reads on in it.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crc32fast::Hasher;

use crate::codec::{Codecs, SegmentCodec};
use crate::error::RewriteError;
use crate::format::{
    FRAME_HEADER_LEN, Fault, FrameHeader, HEADER_LEN, HeaderError, Lsn, PACK_HEAD_LEN, PLAIN,
    SegmentHeader, StoreId, pack_head, padded,
};
use crate::names;
use crate::reader::{Next, SegmentReader, read_header};
use crate::retention::{Catalogue, SegmentInfo};
use crate::storage::{CheckedFile, Storage};

/// Frames are put together until they have this many bytes of records: more finds little more that repeats, and costs readers memory.
const PACK_BYTES: usize = 1 << 20;
/// Frames further apart than this stay apart, because a frame has one time only.
const PACK_SPAN_MS: u64 = 1000;
/// A record larger than this stays as it is: compressing it would take twice its memory.
const PACK_RECORD_MAX: usize = 16 << 20;
/// Not worth the exchange unless the file gets smaller by this fraction of itself.
const WORTH: u64 = 20;

/// What became of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rewritten {
    /// Swapped: it had, and has, so many bytes.
    Smaller { before: u64, after: u64 },
    /// It would not have become smaller by much.
    NotWorth,
    /// It went away meanwhile, or the log ends.
    Dropped,
}

/// What a segment is rewritten with and through.
pub(crate) struct Rewrite<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) codecs: &'a Codecs,
    pub(crate) codec: &'a Arc<dyn SegmentCodec>,
    /// Called after each piece of work with the time it took; `true` gives up.
    pub(crate) pause: &'a dyn Fn(Duration) -> bool,
}

impl Rewrite<'_> {
    /// Rewrites the sealed segment of `info`. On an error the segment is as it was.
    pub(crate) fn run(&self, info: &SegmentInfo) -> Result<Rewritten, RewriteError> {
        let result = self.attempt(info);
        if !matches!(result, Ok(Rewritten::Smaller { .. })) {
            // What is left over is in nobody's way, and is removed before the next attempt as well.
            let _ = discard(self.storage);
        }
        result
    }

    fn attempt(&self, info: &SegmentInfo) -> Result<Rewritten, RewriteError> {
        let file = names::segment(info.number);
        let io = |source| RewriteError::Io {
            file: file.clone(),
            source,
        };
        let source = match self.storage.open(&file) {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && !self.catalogue.has_sealed(info.number) =>
            {
                return Ok(Rewritten::Dropped);
            }
            other => other.map_err(io)?,
        };
        let (header, before) = read_header(&*source, Some(info.number)).map_err(io)?;
        let header = header.map_err(|error| RewriteError::Damaged {
            file: file.clone(),
            offset: 0,
            fault: match error {
                HeaderError::Bad(fault) => fault,
                HeaderError::Newer { found } => Fault::Unknown {
                    what: "format version",
                    found: u64::from(found),
                },
            },
        })?;
        if header.codec == self.codec.id() {
            // An earlier attempt got as far as the new name, and the sync of the directory failed.
            let is_here = self
                .catalogue
                .swap(info.number, before, header.codec, || {
                    self.storage.sync_dir()
                })
                .map_err(io)?;
            return Ok(match is_here {
                true => Rewritten::Smaller {
                    before: info.bytes,
                    after: before,
                },
                false => Rewritten::Dropped,
            });
        }
        discard(self.storage).map_err(io)?;
        let mut target = Target::begin(self, &header).map_err(io)?;
        let mut reader =
            SegmentReader::new(source, header.store_id, header.number, self.codecs).map_err(io)?;
        let mut expected = header.first_lsn;
        loop {
            let began = Instant::now();
            let frame = match reader.next(expected).map_err(io)? {
                Next::Frame(frame) => frame,
                Next::End if expected.previous() >= info.last_lsn => break,
                // What a log that failed left behind its last record: nobody misses it, and it stays as it is.
                Next::Bad(_) if expected.previous() >= info.last_lsn => {
                    return Ok(Rewritten::NotWorth);
                }
                other => {
                    let fault = match other {
                        Next::Bad(fault) => fault,
                        _ => Fault::EndsEarly {
                            found: expected.previous(),
                            expected: info.last_lsn,
                        },
                    };
                    return Err(RewriteError::Damaged {
                        file: file.clone(),
                        offset: reader.offset(),
                        fault,
                    });
                }
            };
            expected = frame.header.last_lsn().next();
            let flushed = target.take(&frame.header, frame.payload).map_err(io)?;
            if flushed && (self.pause)(began.elapsed()) {
                return Ok(Rewritten::Dropped);
            }
        }
        let proof = target.finish(expected).map_err(io)?;
        if proof.bytes + before / WORTH >= before {
            return Ok(Rewritten::NotWorth);
        }
        if !self.proves(&header, &proof)? {
            return Ok(Rewritten::Dropped);
        }
        let swapped = self
            .catalogue
            .swap(info.number, proof.bytes, self.codec.id(), || {
                self.storage.rename(names::REWRITE, &file)?;
                self.storage.sync_dir()
            })
            .map_err(io)?;
        Ok(if swapped {
            Rewritten::Smaller {
                before,
                after: proof.bytes,
            }
        } else {
            Rewritten::Dropped
        })
    }

    /// Reads the new file back and compares what it says with what went in. `false` if it was told to give up.
    fn proves(&self, header: &SegmentHeader, proof: &Proof) -> Result<bool, RewriteError> {
        let file = || names::REWRITE.to_owned();
        let io = |source| RewriteError::Io {
            file: file(),
            source,
        };
        let source = self.storage.open(names::REWRITE).map_err(io)?;
        let mut reader =
            SegmentReader::new(source, header.store_id, header.number, self.codecs).map_err(io)?;
        let mut expected = header.first_lsn;
        let mut records = Hasher::new();
        loop {
            let began = Instant::now();
            match reader.next(expected).map_err(io)? {
                Next::Frame(frame) => {
                    records.update(frame.payload);
                    expected = frame.header.last_lsn().next();
                }
                Next::End => break,
                Next::Bad(fault) => {
                    return Err(RewriteError::Damaged {
                        file: file(),
                        offset: reader.offset(),
                        fault,
                    });
                }
            }
            if (self.pause)(began.elapsed()) {
                return Ok(false);
            }
        }
        let computed = records.finalize();
        if expected == proof.next_lsn && computed == proof.records_crc {
            return Ok(true);
        }
        Err(RewriteError::Damaged {
            file: file(),
            offset: HEADER_LEN as u64,
            fault: Fault::Checksum {
                what: "all records",
                found: proof.records_crc,
                computed,
            },
        })
    }
}

/// Removes what an attempt left.
pub(crate) fn discard(storage: &dyn Storage) -> io::Result<()> {
    match storage.remove(names::REWRITE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What the new file has to say when it is read back.
struct Proof {
    bytes: u64,
    next_lsn: Lsn,
    records_crc: u32,
}

/// The new file.
struct Target<'a> {
    file: CheckedFile,
    offset: u64,
    codec: &'a Arc<dyn SegmentCodec>,
    store_id: StoreId,
    segment: u64,
    /// Records that wait to be compressed together.
    raw: Vec<u8>,
    first_lsn: Lsn,
    count: u32,
    first_at_ms: u64,
    last_at_ms: u64,
    packed: Vec<u8>,
    records: Hasher,
}

impl<'a> Target<'a> {
    fn begin(rewrite: &Rewrite<'a>, header: &SegmentHeader) -> io::Result<Target<'a>> {
        let mut file = CheckedFile::new(rewrite.storage.create(names::REWRITE)?);
        let page = SegmentHeader {
            codec: rewrite.codec.id(),
            ..*header
        }
        .encode();
        file.write_at(0, &[IoSlice::new(&page)])?;
        Ok(Target {
            file,
            offset: HEADER_LEN as u64,
            codec: rewrite.codec,
            store_id: header.store_id,
            segment: header.number,
            raw: Vec::new(),
            first_lsn: header.first_lsn,
            count: 0,
            first_at_ms: 0,
            last_at_ms: 0,
            packed: Vec::new(),
            records: Hasher::new(),
        })
    }

    /// Takes the records of a frame; says whether it wrote something.
    fn take(&mut self, frame: &FrameHeader, records: &[u8]) -> io::Result<bool> {
        if frame.count == 0 {
            return Ok(false);
        }
        self.records.update(records);
        let mut flushed = false;
        let is_far = frame.written_at_ms.abs_diff(self.first_at_ms) >= PACK_SPAN_MS;
        if self.count > 0 && (is_far || self.raw.len() + records.len() > PACK_BYTES) {
            self.flush()?;
            flushed = true;
        }
        if self.count == 0 {
            self.first_lsn = frame.first_lsn;
            self.first_at_ms = frame.written_at_ms;
        }
        self.last_at_ms = frame.written_at_ms;
        self.count += frame.count;
        self.raw.extend_from_slice(records);
        Ok(flushed)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.packed.clear();
        if self.raw.len() <= PACK_RECORD_MAX {
            self.packed.resize(PACK_HEAD_LEN, 0);
            self.codec.compress(&self.raw, &mut self.packed);
        }
        let is_smaller = self.packed.len() > PACK_HEAD_LEN && self.packed.len() < self.raw.len();
        if is_smaller {
            let head = pack_head(self.raw.len() as u32, &self.packed[PACK_HEAD_LEN..]);
            self.packed[..PACK_HEAD_LEN].copy_from_slice(&head);
        }
        let (codec, payload) = if is_smaller {
            (self.codec.id(), &self.packed)
        } else {
            (PLAIN, &self.raw)
        };
        let header = FrameHeader {
            segment: self.segment,
            first_lsn: self.first_lsn,
            // The whole segment was synced long ago.
            durable_lsn: self.first_lsn.previous(),
            written_at_ms: self.last_at_ms,
            count: self.count,
            len: payload.len() as u32,
            codec,
        };
        write_frame(
            &mut self.file,
            self.offset,
            &self.store_id,
            &header,
            payload,
        )?;
        self.offset += header.stride();
        self.count = 0;
        self.raw.clear();
        if self.raw.capacity() > 2 * PACK_BYTES {
            self.raw = Vec::new();
            self.packed = Vec::new();
        }
        Ok(())
    }

    /// Writes what waits, and a last frame that vouches for all before it; makes the file durable.
    fn finish(mut self, next_lsn: Lsn) -> io::Result<Proof> {
        if self.count > 0 {
            self.flush()?;
        }
        let mark = FrameHeader {
            segment: self.segment,
            first_lsn: next_lsn,
            durable_lsn: next_lsn.previous(),
            written_at_ms: self.last_at_ms,
            count: 0,
            len: 0,
            codec: PLAIN,
        };
        write_frame(&mut self.file, self.offset, &self.store_id, &mark, &[])?;
        self.file.sync()?;
        Ok(Proof {
            bytes: self.offset + mark.stride(),
            next_lsn,
            records_crc: self.records.finalize(),
        })
    }
}

fn write_frame(
    file: &mut CheckedFile,
    at: u64,
    store_id: &StoreId,
    header: &FrameHeader,
    payload: &[u8],
) -> io::Result<()> {
    let bytes = header.encode(store_id);
    let len = (FRAME_HEADER_LEN + payload.len()) as u64;
    let padding = [0u8; 8];
    let padding = &padding[..(padded(len) - len) as usize];
    let parts = [
        IoSlice::new(&bytes),
        IoSlice::new(payload),
        IoSlice::new(padding),
    ];
    file.write_at(at, &parts)
}
