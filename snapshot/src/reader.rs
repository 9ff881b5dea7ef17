//! Verified entries out: one part at a time, one block in memory.

use std::io;
use std::ops::ControlFlow;

use crate::block::{BUFFER_KEPT_MAX, entries_of, visit_entries};
use crate::codec::BlockCodec;
use crate::entry::EntryRef;
use crate::error::{Damage, LoadError};
use crate::format::part::{
    BLOCK_HEADER, BlockHeader, HEADER, INDEX_SLOT, IndexSlot, PartHeader, SECTION, Section, TAIL,
    decode_index, decode_table, decode_tail,
};
use crate::format::{self, Mismatch, VersionedError};
use crate::manifest::{Manifest, Part};
use crate::names;
use crate::storage::{File, Storage};

/// How much is read at once where nothing is kept.
const CHUNK: usize = 64 << 10;

/// What was in a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartReport {
    /// Length of the file.
    pub bytes: u64,
    /// Length of its blocks before compression.
    pub raw_bytes: u64,
    /// How many blocks it has.
    pub blocks: u32,
    /// Live entries.
    pub entries: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Checksum of the whole file.
    pub crc: u32,
    /// Sum of the entries' digests.
    pub digest: u64,
}

/// Reads one part, verifies everything that can be verified, and hands every entry to `visit`, in no
/// particular order. Parts can be read on different threads.
///
/// The whole is known to be sound only at the end: after an error, what was visited belongs to a
/// snapshot that cannot be trusted, and is to be thrown away.
///
/// Memory: the part's largest block twice (compressed and not), and 28 bytes a block.
///
/// # Errors
/// When anything does not hold, the disk fails, a codec is missing, or `visit` breaks.
pub fn load_part(
    storage: &dyn Storage,
    manifest: &Manifest,
    part: usize,
    codecs: &[&dyn BlockCodec],
    visit: impl FnMut(EntryRef<'_>) -> ControlFlow<()>,
) -> Result<PartReport, LoadError> {
    let (Some(expected), Ok(number)) = (manifest.parts.get(part), u32::try_from(part)) else {
        return Err(LoadError::NoSuchPart {
            part,
            parts: manifest.parts.len(),
        });
    };
    let header = PartHeader {
        store_id: manifest.store_id,
        snapshot: manifest.id,
        number,
        kind: manifest.kind(),
        cut: manifest.cut,
        parent_cut: manifest.parent_cut(),
    };
    let mut source = Source::open(storage, &expected.name)?;
    source.same(0, "a file of bytes:", expected.bytes, source.len)?;
    let found = source.header()?;
    if found.store_id != header.store_id {
        return Err(LoadError::ForeignStore {
            file: expected.name.clone(),
            expected: header.store_id,
            found: found.store_id,
        });
    }
    found
        .same_as(&header)
        .map_err(|mismatch| source.damage(0, mismatch))?;
    let report = source.entries(&header, Some(expected.block_raw_max), codecs, visit)?;
    agrees(&source, expected, &report)?;
    Ok(report)
}

/// Counts and digests, against the manifest's.
fn agrees(source: &Source, expected: &Part, found: &PartReport) -> Result<(), LoadError> {
    source.same(0, "blocks:", expected.blocks, found.blocks)?;
    source.same(0, "raw bytes:", expected.raw_bytes, found.raw_bytes)?;
    source.same(0, "entries:", expected.entries, found.entries)?;
    source.same(0, "tombstones:", expected.tombstones, found.tombstones)?;
    source.same(0, "digest:", expected.digest, found.digest)?;
    source.same(0, "crc32 of the file:", expected.crc, found.crc)
}

/// Reads a part without its manifest: only what it says of itself is verified.
pub(crate) fn read_part(
    storage: &dyn Storage,
    name: &str,
    codecs: &[&dyn BlockCodec],
    visit: impl FnMut(EntryRef<'_>) -> ControlFlow<()>,
) -> Result<(PartHeader, PartReport), LoadError> {
    let mut source = Source::open(storage, name)?;
    let header = source.header()?;
    let report = source.entries(&header, None, codecs, visit)?;
    Ok((header, report))
}

/// Reads and checks the manifest of snapshot `id`, but not its parts.
pub(crate) fn read_manifest(storage: &dyn Storage, id: u64) -> Result<Manifest, LoadError> {
    let source = Source::open(storage, &names::manifest(id))?;
    let max = format::manifest::PREFIX + format::manifest::BODY_MAX;
    if source.len > max as u64 {
        return Err(source.damage(
            0,
            Mismatch::new(0, format_args!("at most {max} bytes"), source.len),
        ));
    }
    let mut bytes = vec![0; source.len as usize];
    source.read(0, &mut bytes)?;
    format::manifest::decode(&bytes, id).map_err(|error| source.versioned(error))
}

/// A file being read, and what has been learnt of it.
pub(crate) struct Source {
    name: String,
    file: Box<dyn File>,
    pub(crate) len: u64,
    /// Of every byte so far, in the order of the file.
    crc: crc32fast::Hasher,
}

impl Source {
    pub(crate) fn open(storage: &dyn Storage, name: &str) -> Result<Self, LoadError> {
        let failed = |source| failure(name, 0, source);
        let file = storage.open(name).map_err(failed)?;
        let len = file.len().map_err(failed)?;
        Ok(Self {
            name: name.to_owned(),
            file,
            len,
            crc: crc32fast::Hasher::new(),
        })
    }

    pub(crate) fn header(&mut self) -> Result<PartHeader, LoadError> {
        if self.len < (HEADER + SECTION + TAIL) as u64 {
            let expected = format!("a part of at least {} bytes", HEADER + SECTION + TAIL);
            return Err(self.damage(0, Mismatch::new(0, expected, self.len)));
        }
        let mut bytes = [0; HEADER];
        self.read(0, &mut bytes)?;
        self.crc.update(&bytes);
        PartHeader::decode(&bytes).map_err(|error| self.versioned(error))
    }

    /// Everything behind the header.
    fn entries(
        &mut self,
        header: &PartHeader,
        block_raw_max: Option<u32>,
        codecs: &[&dyn BlockCodec],
        mut visit: impl FnMut(EntryRef<'_>) -> ControlFlow<()>,
    ) -> Result<PartReport, LoadError> {
        let (table_offset, table, sections) = self.table()?;
        let index = self.index(&sections[0], block_raw_max)?;
        let mut report = PartReport {
            bytes: self.len,
            ..PartReport::default()
        };
        let (mut bytes, mut raw) = (Vec::new(), Vec::new());
        for (number, slot) in (0_u32..).zip(&index) {
            bytes.resize(slot.block_len() as usize, 0);
            self.read(slot.offset, &mut bytes)?;
            self.crc.update(&bytes);
            let place = self.place(slot.offset);
            let block = self.block_header(&bytes, number, slot)?;
            let (_, stored) = block
                .contents(&bytes[BLOCK_HEADER..])
                .map_err(|mismatch| place.damage(mismatch))?;
            let entries = entries_of(place, &block, stored, codecs, &mut raw)?;
            let tally = visit_entries(place, &block, entries, header, &mut visit)?;
            report.blocks += 1;
            report.raw_bytes += u64::from(block.raw_len);
            report.entries += u64::from(tally.entries);
            report.tombstones += u64::from(tally.tombstones);
            report.digest = report.digest.wrapping_add(tally.digest);
            for buffer in [&mut bytes, &mut raw] {
                if buffer.capacity() > BUFFER_KEPT_MAX {
                    *buffer = Vec::new();
                }
            }
        }
        for section in &sections {
            self.section(section)?;
        }
        debug_assert_eq!(table_offset + table.len() as u64, self.len);
        self.crc.update(&table);
        report.crc = self.crc.clone().finalize();
        Ok(report)
    }

    /// The table's offset, the bytes of table and tail, and the sections, of which the first is the index.
    pub(crate) fn table(&self) -> Result<(u64, Vec<u8>, Vec<Section>), LoadError> {
        let mut tail = [0; TAIL];
        let tail_offset = self.len - TAIL as u64;
        self.read(tail_offset, &mut tail)?;
        let table_offset =
            decode_tail(&tail, self.len).map_err(|mismatch| self.damage(tail_offset, mismatch))?;
        // At most 64 sections, as the tail has just been checked to say.
        let mut table = vec![0; (self.len - table_offset) as usize];
        self.read(table_offset, &mut table)?;
        let sections = decode_table(&table, table_offset)
            .map_err(|mismatch| self.damage(table_offset, mismatch))?;
        Ok((table_offset, table, sections))
    }

    pub(crate) fn index(
        &self,
        section: &Section,
        block_raw_max: Option<u32>,
    ) -> Result<Vec<IndexSlot>, LoadError> {
        let damage = |mismatch| self.damage(section.offset, mismatch);
        // Each slot stands for a block in the file, so this much is a fair share of the file's length.
        let blocks_bytes = section.offset - HEADER as u64;
        let most = blocks_bytes / (BLOCK_HEADER as u64 + 1) * INDEX_SLOT as u64;
        if section.len > most {
            let expected = format!("an index of at most {most} bytes");
            return Err(damage(Mismatch::new(0, expected, section.len)));
        }
        let mut bytes = vec![0; section.len as usize];
        self.read(section.offset, &mut bytes)?;
        format::same_crc(0, section.crc, &bytes).map_err(damage)?;
        let index = decode_index(&bytes, section.offset).map_err(damage)?;
        if let Some(max) = block_raw_max
            && let Some(slot) = index.iter().find(|slot| slot.raw_len > max)
        {
            return Err(self.damage(
                slot.offset,
                Mismatch::new(
                    0,
                    format_args!("a raw length of at most {max}"),
                    slot.raw_len,
                ),
            ));
        }
        Ok(index)
    }

    /// The header at the beginning of a block that the index describes as `slot`.
    pub(crate) fn block_header(
        &self,
        block: &[u8],
        number: u32,
        slot: &IndexSlot,
    ) -> Result<BlockHeader, LoadError> {
        let head = format::array_at(block, 0);
        BlockHeader::decode(&head, number)
            .and_then(|header| header.same_as(slot).map(|()| header))
            .map_err(|mismatch| self.damage(slot.offset, mismatch))
    }

    pub(crate) fn place(&self, offset: u64) -> Place<'_> {
        Place {
            file: &self.name,
            offset,
        }
    }

    /// Adds a section to the file's checksum, and holds it against its own.
    fn section(&mut self, section: &Section) -> Result<(), LoadError> {
        let mut crc = crc32fast::Hasher::new();
        let mut chunk = vec![0; CHUNK.min(section.len as usize)];
        let mut done = 0;
        while done < section.len {
            let len = (section.len - done).min(CHUNK as u64) as usize;
            self.read(section.offset + done, &mut chunk[..len])?;
            crc.update(&chunk[..len]);
            self.crc.update(&chunk[..len]);
            done += len as u64;
        }
        self.same(
            section.offset,
            "the crc32 of a section:",
            section.crc,
            crc.finalize(),
        )
    }

    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), LoadError> {
        self.file
            .read_at(offset, buffer)
            .map_err(|source| failure(&self.name, offset, source))
    }

    fn same<T: PartialEq + Copy + std::fmt::Display>(
        &self,
        offset: u64,
        what: &str,
        expected: T,
        found: T,
    ) -> Result<(), LoadError> {
        format::same(0, what, expected, found).map_err(|mismatch| self.damage(offset, mismatch))
    }

    fn damage(&self, piece: u64, mismatch: Mismatch) -> LoadError {
        self.place(piece).damage(mismatch)
    }

    fn versioned(&self, error: VersionedError) -> LoadError {
        self.place(0).versioned(error)
    }
}

/// Where in which file a piece begins.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) file: &'a str,
    pub(crate) offset: u64,
}

impl Place<'_> {
    pub(crate) fn damage(self, mismatch: Mismatch) -> LoadError {
        LoadError::Damaged(Damage {
            file: self.file.to_owned(),
            offset: self.offset.saturating_add(mismatch.offset as u64),
            expected: mismatch.expected,
            found: mismatch.found,
        })
    }

    pub(crate) fn versioned(self, error: VersionedError) -> LoadError {
        match error {
            VersionedError::Mismatch(mismatch) => self.damage(mismatch),
            VersionedError::Newer { version } => LoadError::NewerFormat {
                file: self.file.to_owned(),
                found: version,
                supported: format::VERSION,
            },
        }
    }
}

/// What a failed read means. A file that is missing or short, or that the medium cannot give back, is
/// damage: an older snapshot may do instead. Anything else (no more file handles, no permission) may
/// pass, and must not make the store start on something older.
pub(crate) fn failure(file: &str, offset: u64, source: io::Error) -> LoadError {
    const EIO: i32 = 5;
    let found = match source.kind() {
        io::ErrorKind::NotFound => "no file".to_owned(),
        io::ErrorKind::UnexpectedEof => "the end of the file".to_owned(),
        _ if source.raw_os_error() == Some(EIO) => source.to_string(),
        _ => {
            return LoadError::Io {
                file: file.to_owned(),
                offset,
                source,
            };
        }
    };
    LoadError::Damaged(Damage {
        file: file.to_owned(),
        offset,
        expected: "bytes that can be read".to_owned(),
        found,
    })
}
