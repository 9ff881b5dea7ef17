//! Cold small values packed together, so that they share what they have in common.
//!
//! A [`Packer`] gathers values until there are [`BLOCK_RAW_MIN`] to [`BLOCK_RAW_MAX`] bytes of them and makes a [`Block`]: one
//! compressed piece with an index inside. A value is found by its [`Place`], the block's number and its own in there. Reading one
//! decompresses its block, so this is for values that are hardly ever read; one that becomes warm is taken out and leaves a
//! hole. A [`BlockStore`] keeps blocks by number, counts their holes, lets empty blocks go, and says which are worth
//! packing anew. A block never changes and is shared: who reads it may do so after its store has let it go.
//!
//! ```text
//! block, before compression, integers little-endian
//!  off size field
//!    0    2 count    values, 1 to 1,024
//!    2  2*n lengths  of each value, in their order
//!    .    . values   one behind the other
//! ```

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::codec::{Codec, CodecId, codec};
use crate::dictionary::Dictionary;
use crate::error::{BlockError, DecodeError};

/// A block that holds so many bytes of values is worth making.
pub const BLOCK_RAW_MIN: usize = 4 << 10;
/// From so many bytes of values on a block is full: larger ones were measured to save little more and to take longer to read.
pub const BLOCK_RAW_FULL: usize = 8 << 10;
/// A value that would make a block larger is not packed into it.
pub const BLOCK_RAW_MAX: usize = 16 << 10;
/// Values in one block, at most.
pub const BLOCK_VALUES_MAX: usize = 1024;
/// A block of which fewer percent of the bytes are live is worth packing anew.
const SPARSE_PERCENT: usize = 50;
const COUNT: usize = size_of::<u16>();
const LENGTH: usize = size_of::<u16>();
/// No block is larger before compression, its index included.
const RAW_LEN_MAX: usize = COUNT + LENGTH * BLOCK_VALUES_MAX + BLOCK_RAW_MAX;

/// Where a packed value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The block's number in its store.
    pub block: u32,
    /// The value's number in the block.
    pub index: u16,
}

impl Place {
    /// The place in six bytes, to be kept in the value's stead.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 6] {
        let [a, b, c, d] = self.block.to_le_bytes();
        let [e, f] = self.index.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// The place that [`to_bytes`](Self::to_bytes) made `bytes` of.
    #[must_use]
    pub const fn from_bytes([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self {
            block: u32::from_le_bytes([a, b, c, d]),
            index: u16::from_le_bytes([e, f]),
        }
    }
}

/// Gathers values for a block.
#[derive(Clone, Debug, Default)]
pub struct Packer {
    lens: Vec<u16>,
    values: Vec<u8>,
}

impl Packer {
    /// An empty packer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value and says which it is in the block to be; `None` when it does not fit any more (then the block is to be
    /// [made](Self::pack) first) or is larger than any block.
    pub fn push(&mut self, value: &[u8]) -> Option<u16> {
        let index = u16::try_from(self.lens.len())
            .ok()
            .filter(|index| usize::from(*index) < BLOCK_VALUES_MAX)?;
        if self.values.len() + value.len() > BLOCK_RAW_MAX {
            return None;
        }
        self.lens.push(u16::try_from(value.len()).ok()?);
        self.values.extend_from_slice(value);
        Some(index)
    }

    /// Bytes of the values added since the last block.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.values.len()
    }

    /// Whether there is enough for a block.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.values.len() >= BLOCK_RAW_FULL || self.lens.len() >= BLOCK_VALUES_MAX
    }

    /// Whether nothing was added since the last block.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    /// Forgets what was added since the last block.
    pub fn clear(&mut self) {
        self.lens.clear();
        self.values.clear();
    }

    /// Makes a block of what was added, compressed by `codec`, or by Zstandard with `dictionary` if there is one, and
    /// begins anew. `None` when nothing was.
    pub fn pack(
        &mut self,
        codec_id: CodecId,
        dictionary: Option<&Arc<Dictionary>>,
    ) -> Option<Block> {
        if self.lens.is_empty() {
            return None;
        }
        let mut raw = Vec::with_capacity(COUNT + LENGTH * self.lens.len() + self.values.len());
        // `push` stops at 1,024.
        raw.extend_from_slice(&(self.lens.len() as u16).to_le_bytes());
        for len in &self.lens {
            raw.extend_from_slice(&len.to_le_bytes());
        }
        raw.extend_from_slice(&self.values);
        let mut stored = Vec::new();
        match dictionary {
            Some(dictionary) => dictionary.compress(&raw, &mut stored),
            None => codec(codec_id).compress(&raw, &mut stored),
        }
        static MADE: AtomicU64 = AtomicU64::new(1);
        let block = Block {
            id: MADE.fetch_add(1, Ordering::Relaxed),
            codec: codec_id,
            dictionary: dictionary.cloned(),
            stored: stored.into_boxed_slice(),
            // At most `RAW_LEN_MAX`.
            raw_len: raw.len() as u32,
            count: self.lens.len() as u16,
            value_bytes: self.values.len() as u32,
        };
        self.clear();
        Some(block)
    }
}

/// Values compressed together. It holds the dictionary that it takes to read it.
#[derive(Clone, Debug)]
pub struct Block {
    /// Another in every block of this process.
    id: u64,
    codec: CodecId,
    dictionary: Option<Arc<Dictionary>>,
    stored: Box<[u8]>,
    raw_len: u32,
    count: u16,
    value_bytes: u32,
}

impl Block {
    /// The compressed bytes.
    #[must_use]
    pub fn stored(&self) -> &[u8] {
        &self.stored
    }

    /// The length before compression, index included.
    #[must_use]
    pub const fn raw_len(&self) -> usize {
        self.raw_len as usize
    }

    /// Values in it, those included that nobody needs any more.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Never: a block without values is not made.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of its values before compression.
    #[must_use]
    pub const fn value_bytes(&self) -> usize {
        self.value_bytes as usize
    }

    /// Heap bytes that a shared block takes, its dictionary not included.
    #[must_use]
    pub const fn footprint(&self) -> usize {
        // The two counts of an `Arc`.
        2 * size_of::<usize>() + size_of::<Self>() + self.stored.len()
    }

    /// Appends the value `index` to `out`. What was decompressed for it is kept by the thread, some 18 KiB at most: the
    /// next value is often of the same block.
    ///
    /// # Errors
    /// There is no such value, or memory was overwritten.
    pub fn get(&self, index: u16, out: &mut Vec<u8>) -> Result<(), BlockError> {
        thread_local!(static LAST: RefCell<(u64, Vec<u8>)> = const { RefCell::new((0, Vec::new())) });
        LAST.with_borrow_mut(|(id, raw)| {
            if *id != self.id {
                *id = 0;
                raw.clear();
                match &self.dictionary {
                    Some(dictionary) => dictionary.decompress(&self.stored, self.raw_len(), raw),
                    None => codec(self.codec).decompress(&self.stored, self.raw_len(), raw),
                }
                .map_err(BlockError::Codec)?;
                *id = self.id;
            }
            out.extend_from_slice(value_of(raw, index)?);
            Ok(())
        })
    }
}

/// Appends the value `index` of a block's stored bytes to `out`, or leaves it as it was and fails.
///
/// # Errors
/// `stored` is not what [`Packer::pack`] makes of `raw_len` bytes by `codec`, or there is no such value.
pub fn unpack_one(
    stored: &[u8],
    raw_len: usize,
    index: u16,
    codec: &dyn Codec,
    out: &mut Vec<u8>,
) -> Result<(), BlockError> {
    let raw = decompressed(stored, raw_len, codec)?;
    out.extend_from_slice(value_of(&raw, index)?);
    Ok(())
}

/// Every value of a block's stored bytes.
///
/// # Errors
/// `stored` is not what [`Packer::pack`] makes of `raw_len` bytes by `codec`.
pub fn unpack(
    stored: &[u8],
    raw_len: usize,
    codec: &dyn Codec,
) -> Result<Vec<Vec<u8>>, BlockError> {
    let raw = decompressed(stored, raw_len, codec)?;
    let lens = Lengths::of(&raw)?;
    Ok(lens
        .iter()
        .map(|(at, len)| raw[at..at + len].to_vec())
        .collect())
}

fn decompressed(stored: &[u8], raw_len: usize, codec: &dyn Codec) -> Result<Vec<u8>, BlockError> {
    if raw_len > RAW_LEN_MAX {
        return Err(BlockError::TooLong { raw_len });
    }
    let mut raw = Vec::new();
    codec
        .decompress(stored, raw_len, &mut raw)
        .map_err(|error: DecodeError| BlockError::Codec(error))?;
    Ok(raw)
}

fn value_of(raw: &[u8], index: u16) -> Result<&[u8], BlockError> {
    let lens = Lengths::of(raw)?;
    let (at, len) = lens
        .iter()
        .nth(usize::from(index))
        .ok_or(BlockError::NoSuchValue {
            index,
            count: lens.count,
        })?;
    Ok(&raw[at..at + len])
}

/// The index of a block, checked to fill it exactly.
struct Lengths<'a> {
    count: usize,
    lens: &'a [u8],
}

impl<'a> Lengths<'a> {
    fn of(raw: &'a [u8]) -> Result<Self, BlockError> {
        let (count, rest) = raw.split_first_chunk::<COUNT>().ok_or(BlockError::Index)?;
        let count = usize::from(u16::from_le_bytes(*count));
        let lens = rest.get(..count * LENGTH).ok_or(BlockError::Index)?;
        let found = Self { count, lens };
        let total: usize = found.raw_lens().sum();
        if count == 0 || total != raw.len() - COUNT - lens.len() {
            return Err(BlockError::Index);
        }
        Ok(found)
    }

    fn raw_lens(&self) -> impl Iterator<Item = usize> {
        self.lens
            .as_chunks::<LENGTH>()
            .0
            .iter()
            .map(|len| usize::from(u16::from_le_bytes(*len)))
    }

    /// Where each value is in the raw block, and its length.
    fn iter(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut at = COUNT + self.lens.len();
        self.raw_lens().map(move |len| {
            let start = at;
            at += len;
            (start, len)
        })
    }
}

/// Blocks by number. A number is given again after its block went.
#[derive(Debug, Default)]
pub struct BlockStore {
    slots: Vec<Option<Held>>,
    free: Vec<u32>,
    totals: BlockTotals,
}

#[derive(Debug)]
struct Held {
    block: Arc<Block>,
    live: u16,
    live_bytes: u32,
}

impl Held {
    const fn is_sparse(&self, value_bytes: usize) -> bool {
        self.live_bytes as usize * 100 < value_bytes * SPARSE_PERCENT
    }
}

/// What a store of blocks holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockTotals {
    /// Blocks.
    pub blocks: usize,
    /// Values that are needed.
    pub values: usize,
    /// Bytes of them before compression.
    pub value_bytes: usize,
    /// Values that nobody needs any more, in blocks that hold others.
    pub holes: usize,
    /// Bytes of those before compression.
    pub hole_bytes: usize,
    /// Heap bytes of the blocks.
    pub block_bytes: usize,
    /// Blocks of which most is holes.
    pub sparse: usize,
}

impl BlockTotals {
    /// Adds what another store holds.
    pub const fn add(&mut self, other: &Self) {
        self.blocks += other.blocks;
        self.values += other.values;
        self.value_bytes += other.value_bytes;
        self.holes += other.holes;
        self.hole_bytes += other.hole_bytes;
        self.block_bytes += other.block_bytes;
        self.sparse += other.sparse;
    }
}

impl BlockStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a block; its number. Its values are holes until they are [kept](Self::keep).
    ///
    /// # Panics
    /// There are 2^32 blocks.
    pub fn insert(&mut self, block: Arc<Block>) -> u32 {
        let totals = &mut self.totals;
        totals.blocks += 1;
        totals.holes += block.len();
        totals.hole_bytes += block.value_bytes();
        totals.block_bytes += block.footprint();
        let held = Held {
            block,
            live: 0,
            live_bytes: 0,
        };
        totals.sparse += usize::from(held.is_sparse(held.block.value_bytes()));
        match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = Some(held);
                number
            }
            None => {
                let number = u32::try_from(self.slots.len()).expect("fewer than 2^32 blocks");
                self.slots.push(Some(held));
                number
            }
        }
    }

    fn held(&self, number: u32) -> Option<&Held> {
        self.slots.get(number as usize)?.as_ref()
    }

    /// The block of a number.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<&Arc<Block>> {
        self.held(number).map(|held| &held.block)
    }

    /// What there is.
    #[must_use]
    pub const fn totals(&self) -> &BlockTotals {
        &self.totals
    }

    /// Heap bytes of the blocks, without their dictionaries, and of the store itself.
    #[must_use]
    pub const fn footprint(&self) -> usize {
        self.totals.block_bytes
            + self.slots.capacity() * size_of::<Option<Held>>()
            + self.free.capacity() * size_of::<u32>()
    }

    /// Whether so little of a block is needed that it is worth packing anew.
    #[must_use]
    pub fn is_sparse(&self, number: u32) -> bool {
        self.held(number)
            .is_some_and(|held| held.is_sparse(held.block.value_bytes()))
    }

    /// The value of `raw_len` bytes at `place`, a hole so far, is needed from now on.
    ///
    /// # Panics
    /// There is no such block, or all of it is needed already.
    pub fn keep(&mut self, place: Place, raw_len: usize) {
        self.count(place, |held| {
            held.live += 1;
            // A value has at most 16 KiB.
            held.live_bytes += raw_len as u32;
        });
        self.totals.values += 1;
        self.totals.value_bytes += raw_len;
        self.totals.holes -= 1;
        self.totals.hole_bytes -= raw_len;
    }

    /// The value of `raw_len` bytes at `place` is not needed there any more: it leaves a hole. The block is handed out when that
    /// was its last, to be released where that may take its time.
    ///
    /// # Panics
    /// There is no such block, or nothing of it is needed.
    pub fn take_out(&mut self, place: Place, raw_len: usize) -> Option<Arc<Block>> {
        self.count(place, |held| {
            held.live -= 1;
            held.live_bytes -= raw_len as u32;
        });
        self.totals.values -= 1;
        self.totals.value_bytes -= raw_len;
        self.totals.holes += 1;
        self.totals.hole_bytes += raw_len;
        self.give_up(place.block)
    }

    fn count(&mut self, place: Place, change: impl FnOnce(&mut Held)) {
        let held = self.slots[place.block as usize]
            .as_mut()
            .expect("a block stays while a value of it is needed");
        let value_bytes = held.block.value_bytes();
        let before = held.is_sparse(value_bytes);
        change(held);
        let after = held.is_sparse(value_bytes);
        self.totals.sparse += usize::from(after && !before);
        self.totals.sparse -= usize::from(before && !after);
    }

    /// Lets a block go of which nothing is needed, and hands it out.
    pub fn give_up(&mut self, number: u32) -> Option<Arc<Block>> {
        let held = self
            .slots
            .get_mut(number as usize)?
            .take_if(|held| held.live == 0)?;
        let totals = &mut self.totals;
        totals.blocks -= 1;
        totals.holes -= held.block.len();
        totals.hole_bytes -= held.block.value_bytes();
        totals.block_bytes -= held.block.footprint();
        totals.sparse -= usize::from(held.is_sparse(held.block.value_bytes()));
        self.free.push(number);
        if totals.blocks == 0 {
            // Nothing in use: the numbers begin anew, and the lists cost nothing.
            self.slots = Vec::new();
            self.free = Vec::new();
        }
        Some(held.block)
    }
}
