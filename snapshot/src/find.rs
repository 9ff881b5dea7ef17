//! One key, or those with a prefix, out of a part or a backup, reading little else: the filters of the blocks say where
//! they cannot be.

use std::ops::ControlFlow;

use crate::backup::BackupHeader;
use crate::block::{entries_of, visit_entries};
use crate::codec::BlockCodec;
use crate::entry::EntryRef;
use crate::error::LoadError;
use crate::format::backup::{HEADER as BACKUP_HEADER, HEADER_MAGIC, TRAILER, Trailer};
use crate::format::filter::may_hold;
use crate::format::part::{BLOCK_HEADER, BlockHeader, PartHeader};
use crate::format::{Mismatch, same, same_crc};
use crate::names::{self, Name};
use crate::reader::{Source, read_manifest};
use crate::storage::Storage;

pub use crate::format::filter::Wanted;

/// What a search cost and gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sought {
    /// Blocks there are.
    pub blocks: u64,
    /// Blocks that were read, because their filter could not rule them out.
    pub blocks_read: u64,
    /// Entries handed out.
    pub entries: u64,
}

/// Hands every entry of a file that `wanted` wants to `visit`: of a part, of all parts that a manifest names, or of a
/// backup, whatever that is called. What is read is verified; what is passed over is not, except that a backup's
/// trailer must be there and agree with the number of its blocks.
///
/// # Errors
/// As [`load_part`](crate::load_part).
pub fn find(
    storage: &dyn Storage,
    name: &str,
    codecs: &[&dyn BlockCodec],
    wanted: Wanted<'_>,
    mut visit: impl FnMut(EntryRef<'_>) -> ControlFlow<()>,
) -> Result<Sought, LoadError> {
    let mut search = Search {
        codecs,
        wanted,
        sought: Sought::default(),
    };
    match names::parse(name) {
        Some(Name::Manifest { id }) => {
            for part in read_manifest(storage, id)?.parts {
                search.part(storage, &part.name, &mut visit)?;
            }
        }
        Some(Name::Part { .. }) => search.part(storage, name, &mut visit)?,
        Some(Name::Temporary { .. }) => {
            return Err(LoadError::NotOurs {
                file: name.to_owned(),
            });
        }
        None => {
            search.backup(storage, name, &mut visit)?;
        }
    }
    Ok(search.sought)
}

/// Reads what a backup says about itself.
///
/// # Errors
/// As [`find`].
pub fn backup_header(storage: &dyn Storage, name: &str) -> Result<BackupHeader, LoadError> {
    header_of(&Source::open(storage, name)?)
}

fn header_of(source: &Source) -> Result<BackupHeader, LoadError> {
    let mut bytes = [0; BACKUP_HEADER];
    let len = source.len.min(HEADER_MAGIC.len() as u64) as usize;
    source.read(0, &mut bytes[..len])?;
    if !BackupHeader::begins(&bytes) {
        let found = bytes[..len].escape_ascii().to_string();
        let expected = "a backup, which begins with \"IFKVBKUP\"";
        return Err(source
            .place(0)
            .damage(Mismatch::new(0, expected, format_args!("{found:?}"))));
    }
    source.read(0, &mut bytes)?;
    BackupHeader::decode(&bytes).map_err(|error| source.place(0).versioned(error))
}

struct Search<'a> {
    codecs: &'a [&'a dyn BlockCodec],
    wanted: Wanted<'a>,
    sought: Sought,
}

impl Search<'_> {
    fn part(
        &mut self,
        storage: &dyn Storage,
        name: &str,
        visit: &mut impl FnMut(EntryRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), LoadError> {
        let mut source = Source::open(storage, name)?;
        let header = source.header()?;
        let (_, _, sections) = source.table()?;
        let index = source.index(&sections[0], None)?;
        for (number, slot) in (0_u32..).zip(&index) {
            let mut head = [0; BLOCK_HEADER];
            source.read(slot.offset, &mut head)?;
            let block = source.block_header(&head, number, slot)?;
            self.block(&source, slot.offset, &block, &header, visit)?;
        }
        Ok(())
    }

    fn backup(
        &mut self,
        storage: &dyn Storage,
        name: &str,
        visit: &mut impl FnMut(EntryRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), LoadError> {
        let source = Source::open(storage, name)?;
        let header = header_of(&source)?;
        let cut_off = |offset| {
            let found = "the end: the backup was cut off";
            source.place(offset).damage(Mismatch::new(
                0,
                "more of the backup, and its trailer",
                found,
            ))
        };
        let end = source
            .len
            .checked_sub(TRAILER as u64)
            .filter(|&end| end >= BACKUP_HEADER as u64)
            .ok_or_else(|| cut_off(source.len))?;
        let mut bytes = [0; TRAILER];
        source.read(end, &mut bytes)?;
        let trailer =
            Trailer::decode(&bytes).map_err(|mismatch| source.place(end).damage(mismatch))?;
        same(0, "a trailer behind bytes:", trailer.bytes, end)
            .map_err(|mismatch| source.place(end).damage(mismatch))?;
        let mut offset = BACKUP_HEADER as u64;
        for number in 0..trailer.blocks {
            if end - offset < BLOCK_HEADER as u64 {
                return Err(cut_off(offset));
            }
            let mut head = [0; BLOCK_HEADER];
            source.read(offset, &mut head)?;
            let block = BlockHeader::decode(&head, number)
                .map_err(|mismatch| source.place(offset).damage(mismatch))?;
            let next = offset + BLOCK_HEADER as u64 + block.behind();
            if next > end {
                return Err(cut_off(offset));
            }
            self.block(&source, offset, &block, &header.place(), visit)?;
            offset = next;
        }
        same(0, "an end of the blocks at", end, offset)
            .map_err(|mismatch| source.place(offset).damage(mismatch))
    }

    /// Reads a block if its filter cannot rule it out.
    fn block(
        &mut self,
        source: &Source,
        offset: u64,
        block: &BlockHeader,
        header: &PartHeader,
        visit: &mut impl FnMut(EntryRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), LoadError> {
        self.sought.blocks += 1;
        let place = source.place(offset);
        if let Some(probe) = self.wanted.probe() {
            let mut filter = vec![0; block.filter_len as usize];
            source.read(offset + BLOCK_HEADER as u64, &mut filter)?;
            same_crc(0, block.filter_crc, &filter).map_err(|mismatch| place.damage(mismatch))?;
            if !may_hold(&filter, probe) {
                return Ok(());
            }
        }
        self.sought.blocks_read += 1;
        let mut behind = vec![0; block.behind() as usize];
        source.read(offset + BLOCK_HEADER as u64, &mut behind)?;
        let (_, stored) = block
            .contents(&behind)
            .map_err(|mismatch| place.damage(mismatch))?;
        let mut raw = Vec::new();
        let entries = entries_of(place, block, stored, self.codecs, &mut raw)?;
        let (wanted, sought) = (self.wanted, &mut self.sought);
        visit_entries(place, block, entries, header, |entry| {
            if wanted.wants(entry.key) {
                sought.entries += 1;
                visit(entry)
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(())
    }
}
