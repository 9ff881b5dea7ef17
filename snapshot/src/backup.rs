//! A backup: the exact state at one sequence as one self-contained stream, made and checked as it goes by.
//!
//! [`BackupEncoder`] turns blocks into bytes and [`BackupDecoder`] bytes into verified entries; neither does any I/O, so
//! both work on sockets, files and in memory, a block at a time. Only the trailer makes a backup count: a stream
//! that ends before it was cut off, and says so.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::block::{BUFFER_KEPT_MAX, BlockEncoder, entries_of, visit_entries};
use crate::codec::BlockCodec;
use crate::entry::{EntryRef, RawBlock};
use crate::error::{LoadError, WriteError};
use crate::format::backup::{HEADER, HEADER_MAGIC, TRAILER, TRAILER_MAGIC, Trailer};
use crate::format::part::{BLOCK_HEADER, BLOCK_MAGIC, BlockHeader, PartHeader};
use crate::format::{Mismatch, array_at};
use crate::manifest::Kind;
use crate::reader::{Place, failure};

pub use crate::format::backup::BackupHeader;

/// How much is read from a file at once.
const CHUNK: usize = 64 << 10;

impl BackupHeader {
    /// Whether a file that begins with these bytes is, or was, a backup.
    #[must_use]
    pub fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(HEADER_MAGIC)
    }

    /// What may be in its blocks, in the words of a part.
    pub(crate) fn place(&self) -> PartHeader {
        PartHeader {
            store_id: self.store_id,
            snapshot: 0,
            number: 0,
            kind: Kind::Full,
            cut: self.cut,
            parent_cut: 0,
        }
    }
}

/// What was in a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// What it says about itself.
    pub header: BackupHeader,
    /// Length of the stream.
    pub bytes: u64,
    /// Length of its blocks before compression.
    pub raw_bytes: u64,
    /// How many blocks it has.
    pub blocks: u32,
    /// Its entries.
    pub entries: u64,
    /// Sum of the entries' digests.
    pub digest: u64,
}

/// Writes a backup, piece by piece: [`begin`](Self::begin), a [`block`](Self::block) at a time, [`end`](Self::end).
pub struct BackupEncoder {
    header: BackupHeader,
    encoder: BlockEncoder,
    sums: Trailer,
    crc: crc32fast::Hasher,
}

impl std::fmt::Debug for BackupEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupEncoder")
            .field("header", &self.header)
            .field("blocks", &self.sums.blocks)
            .finish_non_exhaustive()
    }
}

impl BackupEncoder {
    /// An encoder, and the bytes that the stream begins with.
    #[must_use]
    pub fn begin(header: BackupHeader, codec: Arc<dyn BlockCodec>) -> (Self, Vec<u8>) {
        let mut encoder = Self {
            header,
            encoder: BlockEncoder::new(codec),
            sums: Trailer {
                cut: header.cut,
                ..Trailer::default()
            },
            crc: crc32fast::Hasher::new(),
        };
        let bytes = header.encode().to_vec();
        encoder.count(&bytes);
        (encoder, bytes)
    }

    /// The bytes of a block; none of an empty one. Every entry is checked first as a reader would.
    ///
    /// # Errors
    /// An entry does not hold or is from above the cut; the backup cannot be completed.
    pub fn block(&mut self, block: RawBlock) -> Result<Vec<u8>, WriteError> {
        if block.is_empty() {
            return Ok(Vec::new());
        }
        let (header, bytes) = self
            .encoder
            .encode(block, self.sums.blocks, &self.header.place())?;
        self.count(&bytes);
        let sums = &mut self.sums;
        sums.blocks += 1;
        sums.raw_bytes += u64::from(header.raw_len);
        sums.entries += u64::from(header.entries);
        sums.digest = sums.digest.wrapping_add(self.encoder.digest());
        Ok(bytes)
    }

    /// Entries so far.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.sums.entries
    }

    /// The bytes that the stream ends with, and that make it count.
    #[must_use]
    pub fn end(mut self) -> Vec<u8> {
        self.sums.crc = self.crc.finalize();
        self.sums.encode().to_vec()
    }

    fn count(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.sums.bytes += bytes.len() as u64;
    }
}

/// Reads a backup as its bytes arrive. It keeps what has arrived of one block and that block decompressed, whatever
/// lengths the stream claims.
pub struct BackupDecoder {
    name: String,
    state: State,
    header: Option<BackupHeader>,
    /// What has arrived and was not looked at yet; it begins at `sums.bytes` of the stream.
    pending: Vec<u8>,
    raw: Vec<u8>,
    /// Of everything before `pending`.
    sums: Trailer,
    crc: crc32fast::Hasher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Blocks,
    Done,
    /// An error was given; there is nothing to be had any more.
    Failed,
}

impl std::fmt::Debug for BackupDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupDecoder")
            .field("name", &self.name)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl BackupDecoder {
    /// A decoder of a stream that errors are to call `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: State::Header,
            header: None,
            pending: Vec::new(),
            raw: Vec::new(),
            sums: Trailer::default(),
            crc: crc32fast::Hasher::new(),
        }
    }

    /// What the stream says about itself, once that has arrived and holds.
    #[must_use]
    pub fn header(&self) -> Option<&BackupHeader> {
        self.header.as_ref()
    }

    /// Takes the next bytes of the stream and hands every entry that is complete and holds to `visit`. What was visited
    /// counts only when [`finish`](Self::finish) succeeds.
    ///
    /// # Errors
    /// When anything does not hold, a codec is missing, or `visit` breaks. Nothing more can be fed then.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        codecs: &[&dyn BlockCodec],
        mut visit: impl FnMut(EntryRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), LoadError> {
        self.pending.extend_from_slice(bytes);
        let mut used = 0;
        let result = loop {
            match self.piece(used, codecs, &mut visit) {
                Ok(0) => break Ok(()),
                Ok(len) => used += len,
                Err(error) => {
                    self.state = State::Failed;
                    break Err(error);
                }
            }
        };
        self.pending.drain(..used);
        for buffer in [&mut self.pending, &mut self.raw] {
            if buffer.len() <= BUFFER_KEPT_MAX && buffer.capacity() > 2 * BUFFER_KEPT_MAX {
                buffer.shrink_to(BUFFER_KEPT_MAX);
            }
        }
        result
    }

    /// The stream is at its end.
    ///
    /// # Errors
    /// It was cut off: the trailer has not arrived.
    pub fn finish(self) -> Result<BackupReport, LoadError> {
        match (self.state, self.header) {
            (State::Done, Some(header)) => Ok(BackupReport {
                header,
                bytes: self.sums.bytes + TRAILER as u64,
                raw_bytes: self.sums.raw_bytes,
                blocks: self.sums.blocks,
                entries: self.sums.entries,
                digest: self.sums.digest,
            }),
            _ => {
                let offset = self.sums.bytes + self.pending.len() as u64;
                let place = Place {
                    file: &self.name,
                    offset,
                };
                let found = "the end: the backup was cut off";
                Err(place.damage(Mismatch::new(
                    0,
                    "more of the backup, and its trailer",
                    found,
                )))
            }
        }
    }

    /// Looks at what begins `at` in the pending bytes; says how long it was, 0 if it has not arrived whole.
    fn piece(
        &mut self,
        at: usize,
        codecs: &[&dyn BlockCodec],
        visit: &mut impl FnMut(EntryRef<'_>) -> ControlFlow<()>,
    ) -> Result<usize, LoadError> {
        let bytes = &self.pending[at..];
        if bytes.is_empty() {
            return Ok(0);
        }
        let place = Place {
            file: &self.name,
            offset: self.sums.bytes,
        };
        match (self.state, &self.header) {
            (State::Blocks, Some(header)) if !TRAILER_MAGIC.starts_with(&bytes[..1]) => {
                if bytes.len() < BLOCK_HEADER {
                    // Something else than a block is told from one at its first bytes, not after more of it.
                    let begun = bytes.len().min(BLOCK_MAGIC.len());
                    if bytes[..begun] != BLOCK_MAGIC[..begun] {
                        return Err(place.damage(neither(&bytes[..begun])));
                    }
                    return Ok(0);
                }
                let block = BlockHeader::decode(&array_at(bytes, 0), self.sums.blocks)
                    .map_err(|mismatch| place.damage(mismatch))?;
                let len = BLOCK_HEADER + block.behind() as usize;
                if bytes.len() < len {
                    return Ok(0);
                }
                let (_, stored) = block
                    .contents(&bytes[BLOCK_HEADER..len])
                    .map_err(|mismatch| place.damage(mismatch))?;
                let entries = entries_of(place, &block, stored, codecs, &mut self.raw)?;
                let tally = visit_entries(place, &block, entries, &header.place(), visit)?;
                self.crc.update(&bytes[..len]);
                let sums = &mut self.sums;
                sums.bytes += len as u64;
                sums.blocks += 1;
                sums.raw_bytes += u64::from(block.raw_len);
                sums.entries += u64::from(tally.entries);
                sums.digest = sums.digest.wrapping_add(tally.digest);
                Ok(len)
            }
            (State::Blocks, Some(_)) => {
                if bytes.len() < TRAILER {
                    return Ok(0);
                }
                let trailer = Trailer::decode(&array_at(bytes, 0))
                    .map_err(|mismatch| place.damage(mismatch))?;
                let read = Trailer {
                    crc: self.crc.clone().finalize(),
                    ..self.sums
                };
                trailer
                    .same_as(&read)
                    .map_err(|mismatch| place.damage(mismatch))?;
                self.state = State::Done;
                Ok(TRAILER)
            }
            (State::Header, _) => {
                let begun = bytes.len().min(HEADER_MAGIC.len());
                if bytes[..begun] != HEADER_MAGIC[..begun] {
                    let found = bytes[..begun].escape_ascii().to_string();
                    let expected = "a backup, which begins with \"IFKVBKUP\"";
                    return Err(place.damage(Mismatch::new(
                        0,
                        expected,
                        format_args!("{found:?}"),
                    )));
                }
                if bytes.len() < HEADER {
                    return Ok(0);
                }
                let header = BackupHeader::decode(&array_at(bytes, 0))
                    .map_err(|error| place.versioned(error))?;
                self.crc.update(&bytes[..HEADER]);
                self.sums.bytes = HEADER as u64;
                self.sums.cut = header.cut;
                self.header = Some(header);
                self.state = State::Blocks;
                Ok(HEADER)
            }
            (State::Done, _) => {
                let behind = Place {
                    offset: self.sums.bytes + TRAILER as u64,
                    ..place
                };
                Err(behind.damage(Mismatch::new(0, "the end behind the trailer", "more bytes")))
            }
            (State::Failed | State::Blocks, _) => Err(LoadError::Stopped),
        }
    }
}

fn neither(found: &[u8]) -> Mismatch {
    let found = found.escape_ascii().to_string();
    Mismatch::new(0, "a block or the trailer", format_args!("{found:?}"))
}

/// Reads a backup from its beginning to its end, verifies everything, and hands every entry to `visit`. `name` is what
/// errors call it.
///
/// # Errors
/// As [`BackupDecoder::feed`] and [`BackupDecoder::finish`], and when `source` fails.
pub fn read_backup(
    name: &str,
    mut source: impl Read,
    codecs: &[&dyn BlockCodec],
    mut visit: impl FnMut(EntryRef<'_>) -> ControlFlow<()>,
) -> Result<BackupReport, LoadError> {
    let mut decoder = BackupDecoder::new(name);
    let mut chunk = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        match source.read(&mut chunk) {
            Ok(0) => return decoder.finish(),
            Ok(len) => {
                decoder.feed(&chunk[..len], codecs, &mut visit)?;
                offset += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failure(name, offset, error)),
        }
    }
}
