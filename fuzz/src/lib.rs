//! What the targets share: folders in memory, and checksums made right again after a mutation, so that more than the
//! checksums is tried. Places of fields are those of `wal/FORMAT.md` and `snapshot/FORMAT.md`.

#![cfg(feature = "formats")]

use inflightkv_compression::{Codec, Lz4, Snappy, Zstd};
use inflightkv_snapshot as snapshot;
use inflightkv_wal as wal;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// A codec as the formats know it; the server's own way of saying so would bring the server along.
struct Block<C>(C);

impl<C: Codec> snapshot::BlockCodec for Block<C> {
    fn id(&self) -> u8 {
        self.0.id().number()
    }

    fn compress(&self, raw: &[u8], out: &mut Vec<u8>) {
        self.0.compress(raw, out);
    }

    fn decompress(
        &self,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), snapshot::CodecError> {
        let done = self.0.decompress(stored, raw_len, out);
        done.map_err(snapshot::CodecError::new)
    }
}

impl<C: Codec> wal::SegmentCodec for Block<C> {
    fn id(&self) -> u8 {
        self.0.id().number()
    }

    fn compress(&self, raw: &[u8], out: &mut Vec<u8>) {
        self.0.compress(raw, out);
    }

    fn decompress(
        &self,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), wal::CodecError> {
        let done = self.0.decompress(stored, raw_len, out);
        done.map_err(wal::CodecError::new)
    }
}

/// Every codec that a snapshot may have been written with.
#[must_use]
pub fn snapshot_codecs() -> [&'static dyn snapshot::BlockCodec; 3] {
    static LZ4: Block<Lz4> = Block(Lz4);
    static SNAPPY: Block<Snappy> = Block(Snappy);
    static ZSTD: Block<Zstd> = Block(Zstd::DEFAULT);
    [&LZ4, &SNAPPY, &ZSTD]
}

/// Every codec that segments of a log may have been rewritten with.
#[must_use]
pub fn wal_codecs() -> wal::Codecs {
    let (lz4, zstd): (Arc<dyn wal::SegmentCodec>, Arc<dyn wal::SegmentCodec>) =
        (Arc::new(Block(Lz4)), Arc::new(Block(Zstd::DEFAULT)));
    wal::Codecs::new([lz4, zstd])
}

/// A folder with one file, which can only be read.
pub struct OneFile {
    name: String,
    bytes: Arc<[u8]>,
}

impl OneFile {
    /// A folder with the file `name`.
    #[must_use]
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        Self {
            name: name.to_owned(),
            bytes: bytes.into(),
        }
    }

    fn bytes_of(&self, name: &str) -> io::Result<Arc<[u8]>> {
        if name == self.name {
            Ok(Arc::clone(&self.bytes))
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

struct Bytes(Arc<[u8]>);

impl Bytes {
    fn fill(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(buffer.len())?));
        let found = range.and_then(|range| self.0.get(range));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::PermissionDenied.into())
}

impl wal::Storage for OneFile {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(vec![self.name.clone()])
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn wal::SegmentFile>> {
        refused()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn wal::SegmentFile>> {
        Ok(Box::new(Bytes(self.bytes_of(name)?)))
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self) -> io::Result<()> {
        refused()
    }
}

impl wal::SegmentFile for Bytes {
    fn allocate(&mut self, _: u64) -> io::Result<()> {
        refused()
    }

    fn write_at(&mut self, _: u64, _: &[IoSlice<'_>]) -> io::Result<()> {
        refused()
    }

    fn sync_data(&mut self) -> io::Result<()> {
        refused()
    }

    fn set_len(&mut self, _: u64) -> io::Result<()> {
        refused()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.fill(offset, buffer)
    }
}

impl snapshot::Storage for OneFile {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(vec![self.name.clone()])
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn snapshot::File>> {
        refused()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn snapshot::File>> {
        Ok(Box::new(Bytes(self.bytes_of(name)?)))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self) -> io::Result<()> {
        refused()
    }
}

impl snapshot::File for Bytes {
    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        refused()
    }

    fn sync(&mut self) -> io::Result<()> {
        refused()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.fill(offset, buffer)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let found = bytes.get(at..at.checked_add(4)?)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*found)).ok()
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(4)) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// Makes the checksum at `at` that of `parts`, where they are there.
fn mend(bytes: &mut [u8], at: usize, parts: &[std::ops::Range<usize>]) {
    let mut crc = crc32fast::Hasher::new();
    for part in parts {
        let Some(part) = bytes.get(part.clone()) else {
            return;
        };
        crc.update(part);
    }
    put(bytes, at, crc.finalize());
}

/// A manifest: its one checksum.
pub fn mend_manifest(bytes: &mut [u8]) {
    let len = bytes.len();
    mend(bytes, 8, &[12..len]);
}

/// A part: header, blocks, sections, table and tail.
pub fn mend_part(bytes: &mut [u8]) {
    mend(bytes, 8, &[12..64]);
    mend_blocks(bytes);
    let Some(tail) = bytes.len().checked_sub(28) else {
        return;
    };
    let (Some(table), Some(sections)) = (u32_at(bytes, tail), u32_at(bytes, tail + 8)) else {
        return;
    };
    for section in 0..sections.min(64) {
        let at = table.saturating_add(section * 24);
        if let (Some(offset), Some(len)) = (u32_at(bytes, at + 8), u32_at(bytes, at + 16)) {
            mend(bytes, at + 4, &[offset..offset.saturating_add(len)]);
        }
    }
    let end = table.saturating_add(sections.min(64) * 24);
    mend(bytes, tail + 16, &[table..end, tail..tail + 16]);
}

/// A backup: header, blocks and trailer.
pub fn mend_backup(bytes: &mut [u8]) {
    mend(bytes, 8, &[12..64]);
    let at = mend_blocks(bytes);
    mend(bytes, at.saturating_add(56), &[0..at]);
    mend(
        bytes,
        at.saturating_add(8),
        &[at.saturating_add(12)..at.saturating_add(64)],
    );
}

/// The blocks behind a header of 64 bytes; where they end.
fn mend_blocks(bytes: &mut [u8]) -> usize {
    let mut at = 64;
    while bytes.get(at..at + 4) == Some(b"BLOK") {
        let (Some(stored), Some(filter)) = (u32_at(bytes, at + 20), u32_at(bytes, at + 36)) else {
            break;
        };
        let begins = (at + 44).saturating_add(filter);
        let ends = begins.saturating_add(stored);
        if bytes.get(at + 12) == Some(&0) {
            mend_entries(bytes, begins, ends);
        }
        mend(bytes, at + 32, &[begins..ends]);
        mend(bytes, at + 40, &[at + 44..begins]);
        mend(bytes, at + 4, &[at + 8..at + 44]);
        at = ends;
    }
    at
}

/// Entries of a block that is stored as it is: the checksums of their values.
fn mend_entries(bytes: &mut [u8], begins: usize, ends: usize) {
    let mut at = begins;
    while at < ends {
        let (Some(len), Some(media), Some(key)) = (
            u32_at(bytes, at),
            bytes.get(at + 34).copied(),
            bytes.get(at + 36..at + 38),
        ) else {
            return;
        };
        let key = usize::from(u16::from_le_bytes([key[0], key[1]]));
        let value = at + 40 + usize::from(media) + key;
        mend(bytes, at + 28, &[value..at.saturating_add(len)]);
        at = at.saturating_add(len.max(1));
    }
}

/// A segment of the log: header, frames, records.
pub fn mend_segment(bytes: &mut [u8]) {
    mend(bytes, 12, &[0..12, 16..4096]);
    mend_frames(bytes, 20..36, 4096);
}

/// A stream of the log: header, frames, records.
pub fn mend_stream(bytes: &mut [u8]) {
    mend(bytes, 8, &[12..40]);
    mend_frames(bytes, 16..32, 40);
}

fn mend_frames(bytes: &mut [u8], store_id: std::ops::Range<usize>, begins: usize) {
    let mut at = begins;
    while bytes.get(at..at + 4) == Some(b"FWFM") {
        let Some(len) = u32_at(bytes, at + 44) else {
            return;
        };
        let ends = (at + 56).saturating_add(len);
        if bytes.get(at + 48) == Some(&0) {
            mend_records(bytes, at + 56, ends);
        } else {
            mend(bytes, at + 60, &[at + 56..at + 60, at + 64..ends]);
        }
        mend(bytes, at + 4, &[store_id.clone(), at + 8..at + 56]);
        at = ends.next_multiple_of(8);
    }
}

fn mend_records(bytes: &mut [u8], begins: usize, ends: usize) {
    let mut at = begins;
    while at < ends {
        let (Some(len), Some(media), Some(key)) = (
            u32_at(bytes, at + 4),
            bytes.get(at + 39).copied(),
            bytes.get(at + 40..at + 42),
        ) else {
            return;
        };
        let key = usize::from(u16::from_le_bytes([key[0], key[1]]));
        let value = at + 44 + usize::from(media) + key;
        mend(bytes, at + 32, &[value..at.saturating_add(len)]);
        mend(bytes, at, &[at + 4..at + 44, at + 44..value]);
        at = at.saturating_add(len.max(1));
    }
}
