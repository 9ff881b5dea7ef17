//! Values that are stored coded: taken along under a partition's lock, decoded outside it.

use super::adapters::Prefixes;
use super::partitions::Table;
use super::read::Document;
use bytes::Bytes;
use inflightkv_compression::batch::{Block, BlockStore, BlockTotals, Place};
use inflightkv_compression::{BlockError, CodecId, DecodeError, Dictionary, DictionarySet, codec};
use inflightkv_core::{CODEC_ELSEWHERE, Coding, EntryView, KEY_CODE_FIRST, KEY_CODES, Left, Slot};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What it takes to read the coded values of one partition.
#[derive(Debug)]
pub(crate) struct Codings {
    /// Of this very table: another one may be put in its place, in which numbers and places mean something else.
    pub(crate) table: u64,
    /// Those that values are coded with, by the numbers in their entries.
    pub(crate) dictionaries: DictionarySet,
    /// Those that cold values lie in, by the places in their entries.
    pub(crate) blocks: BlockStore,
    /// Those that keys are coded by.
    pub(crate) keys: Option<Arc<Prefixes>>,
    /// How many keys were stored whole when it was last learned what they share.
    pub(crate) keys_whole: usize,
}

impl Default for Codings {
    fn default() -> Self {
        static TABLES: AtomicU64 = AtomicU64::new(1);
        Self {
            table: TABLES.fetch_add(1, Ordering::Relaxed),
            dictionaries: DictionarySet::default(),
            blocks: BlockStore::default(),
            keys: None,
            keys_whole: 0,
        }
    }
}

impl Codings {
    /// Heap bytes, without the dictionaries, which partitions share.
    pub(crate) fn footprint(&self) -> usize {
        self.blocks.footprint() + self.key_bytes()
    }

    /// Heap bytes of the prefixes of keys.
    pub(crate) fn key_bytes(&self) -> usize {
        self.keys.as_ref().map_or(0, |keys| {
            // The two counts of an `Arc`.
            2 * size_of::<usize>() + size_of::<Prefixes>() + keys.0.footprint()
        })
    }

    /// The key of an entry, written into `buffer` if it is stored coded.
    pub(crate) fn key_of<'a>(&self, entry: EntryView<'a>, buffer: &'a mut String) -> &'a str {
        match &self.keys {
            Some(keys) if is_coded(entry.key_bytes()) => {
                buffer.clear();
                let decoded = keys.0.decode(entry.key_bytes(), buffer);
                decoded.expect("a prefix stays while a key needs it");
                buffer
            }
            _ => entry
                .whole_key()
                .expect("keys are coded by the prefixes of their partition"),
        }
    }

    /// Notes which packed values are no longer needed. Blocks that are empty now are handed out, to be released outside
    /// the lock.
    pub(crate) fn take_out(&mut self, left: impl Iterator<Item = Left>) -> Vec<Arc<Block>> {
        left.filter_map(|left| {
            let place = Place::from_bytes(left.place);
            self.blocks.take_out(place, left.raw_len)
        })
        .collect()
    }
}

impl Table {
    /// Holds what is counted of packed values against the entries themselves.
    pub(crate) fn check_blocks(&self) -> Result<(), String> {
        if self.partition.is_frozen() {
            return Ok(());
        }
        let blocks = &self.codings.blocks;
        let mut wanted = BlockTotals::default();
        let mut met = BTreeSet::new();
        for slot in 0..self.partition.slot_end().get() {
            let entry = self.partition.entry_at(Slot::new(slot));
            let Some((entry, place)) = entry.and_then(|entry| Some((entry, entry.place()?))) else {
                continue;
            };
            let place = Place::from_bytes(place);
            let block = blocks
                .get(place.block)
                .ok_or_else(|| format!("{place:?} is of no block"))?;
            wanted.values += 1;
            wanted.value_bytes += entry.raw_len();
            if met.insert(place.block) {
                wanted.blocks += 1;
                wanted.block_bytes += block.footprint();
                wanted.holes += block.len();
                wanted.hole_bytes += block.value_bytes();
                wanted.sparse += usize::from(blocks.is_sparse(place.block));
            }
        }
        wanted.holes -= wanted.values;
        wanted.hole_bytes -= wanted.value_bytes;
        if *blocks.totals() == wanted {
            Ok(())
        } else {
            Err(format!("{:?} counted, {wanted:?} there", blocks.totals()))
        }
    }
}

/// Whether a key is stored coded.
pub(crate) fn is_coded(key: &[u8]) -> bool {
    key.first()
        .is_some_and(|first| (KEY_CODE_FIRST..KEY_CODE_FIRST + KEY_CODES as u8).contains(first))
}

/// Why a stored value does not decode: memory was overwritten.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredError {
    #[error(transparent)]
    Value(#[from] DecodeError),
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// A stored value with everything that reading it takes, also after its partition has moved on.
#[derive(Clone, Debug)]
pub(crate) struct StoredValue {
    bytes: Bytes,
    coded: Option<Coded>,
}

#[derive(Clone, Debug)]
enum Coded {
    Alone {
        codec: CodecId,
        raw_len: usize,
        dictionary: Option<Arc<Dictionary>>,
    },
    Packed {
        block: Arc<Block>,
        index: u16,
        raw_len: usize,
    },
}

impl StoredValue {
    /// Under the partition's lock: a large value and a block are shared, a small value is copied. The partition's own
    /// dictionaries and blocks are asked, so that the one that the value needs cannot be given up in between.
    pub(crate) fn of(entry: EntryView<'_>, codings: &Codings) -> Self {
        let coded = entry
            .coding()
            .map(|coding| Coded::of(entry, coding, codings));
        let bytes = match (entry.shared(), &coded) {
            (_, Some(Coded::Packed { .. })) => Bytes::new(),
            (Some(value), _) => value.clone(),
            (None, _) => Bytes::copy_from_slice(entry.stored()),
        };
        Self { bytes, coded }
    }

    /// The value itself.
    ///
    /// # Errors
    /// The bytes are not those that were coded: memory was overwritten.
    pub(crate) fn decode(&self) -> Result<Bytes, StoredError> {
        let Some(coded) = &self.coded else {
            return Ok(self.bytes.clone());
        };
        let mut raw = Vec::with_capacity(coded.raw_len());
        match coded {
            Coded::Alone {
                codec: id,
                raw_len,
                dictionary,
            } => match dictionary {
                Some(dictionary) => dictionary.decompress(&self.bytes, *raw_len, &mut raw)?,
                None => codec(*id).decompress(&self.bytes, *raw_len, &mut raw)?,
            },
            Coded::Packed { block, index, .. } => block.get(*index, &mut raw)?,
        }
        Ok(Bytes::from(raw))
    }

    /// The bytes as they are stored when they are one frame of Zstandard that needs no dictionary.
    pub(crate) fn zstd_frame(&self) -> Option<&Bytes> {
        match self.coded.as_ref()? {
            Coded::Alone {
                codec: CodecId::Zstd,
                dictionary: None,
                ..
            } => Some(&self.bytes),
            Coded::Alone { .. } | Coded::Packed { .. } => None,
        }
    }
}

impl Coded {
    fn of(entry: EntryView<'_>, coding: Coding, codings: &Codings) -> Self {
        let raw_len = coding.raw_len as usize;
        if coding.codec == CODEC_ELSEWHERE {
            let place = entry.place().map(Place::from_bytes);
            let place = place.expect("a packed value has its place");
            let block = codings.blocks.get(place.block);
            return Self::Packed {
                block: Arc::clone(block.expect("a block stays while an entry needs it")),
                index: place.index,
                raw_len,
            };
        }
        Self::Alone {
            codec: CodecId::try_from(coding.codec).expect("entries are coded by known codecs"),
            raw_len,
            dictionary: (coding.dictionary != 0).then(|| {
                let dictionary = codings.dictionaries.get(coding.dictionary);
                Arc::clone(dictionary.expect("a dictionary stays while an entry needs it"))
            }),
        }
    }

    const fn raw_len(&self) -> usize {
        match self {
            Self::Alone { raw_len, .. } | Self::Packed { raw_len, .. } => *raw_len,
        }
    }
}

/// A document whose value is yet to be decoded.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Without its value.
    document: Document,
    value: StoredValue,
}

impl Seen {
    /// Under the partition's lock.
    pub(crate) fn of(entry: EntryView<'_>, codings: &Codings) -> Self {
        Self {
            document: Document {
                value: Bytes::new(),
                zstd: None,
                undecodable: false,
                media_type: entry.media_type().map(str::to_owned),
                version: entry.version(),
                sequence: entry.sequence(),
                expires_at: entry.expires_at(),
                crc: entry.crc(),
            },
            value: StoredValue::of(entry, codings),
        }
    }

    /// The document whole. One that does not decode is marked so and has no value.
    pub(crate) fn decode(self) -> Document {
        let Self {
            mut document,
            value,
        } = self;
        match value.decode() {
            Ok(raw) => document.value = raw,
            Err(_) => document.undecodable = true,
        }
        document
    }

    /// The same, and the frame of Zstandard beside it if it is stored as one that anybody can read.
    pub(crate) fn decode_with_frame(self) -> Document {
        let zstd = self.value.zstd_frame().cloned();
        Document {
            zstd,
            ..self.decode()
        }
    }
}
