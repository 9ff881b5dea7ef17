//! Cold small values packed together, so that they share what they have in common.
//!
//! A [`Packer`] gathers values until there are [`BLOCK_RAW_MIN`] to [`BLOCK_RAW_MAX`] bytes of them and makes a [`Block`]: one
//! compressed piece with an index inside. A value is found by its [`Place`], the block's number and its own in there. Reading one
//! decompresses its block, so this is for values that are hardly ever read; one that becomes warm is taken out and leaves a
//! hole. A [`BlockStore`] keeps blocks by number, counts their holes, lets empty blocks go, and names those that are worth
//! packing anew.
//!
//! ```text
//! block, before compression, integers little-endian
//!  off size field
//!    0    2 count    values, 1 to 65,535
//!    2  4*n lengths  of each value, in their order
//!    .    . values   one behind the other
//! ```

use crate::codec::Codec;
use crate::error::{BlockError, DecodeError};

/// A block is made when it holds so many bytes of values.
pub const BLOCK_RAW_MIN: usize = 4 << 10;
/// A value that would make a block larger is not packed into it.
pub const BLOCK_RAW_MAX: usize = 16 << 10;
/// A block of which fewer percent of the bytes are live is worth packing anew.
const SPARSE_PERCENT: usize = 50;
const COUNT: usize = size_of::<u16>();
const LENGTH: usize = size_of::<u32>();

/// Where a packed value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The block's number in its store.
    pub block: u32,
    /// The value's number in the block.
    pub index: u16,
}

/// Gathers values for a block.
#[derive(Clone, Debug, Default)]
pub struct Packer {
    lens: Vec<u32>,
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
            .filter(|index| *index < u16::MAX)?;
        if self.values.len() + value.len() > BLOCK_RAW_MAX {
            return None;
        }
        // At most `BLOCK_RAW_MAX`.
        self.lens.push(value.len() as u32);
        self.values.extend_from_slice(value);
        Some(index)
    }

    /// Whether there is enough for a block.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.values.len() >= BLOCK_RAW_MIN
    }

    /// Whether nothing was added since the last block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    /// Makes a block of what was added, compressed by `codec`, and begins anew. `None` when nothing was.
    pub fn pack(&mut self, codec: &dyn Codec) -> Option<Block> {
        if self.lens.is_empty() {
            return None;
        }
        let mut raw = Vec::with_capacity(COUNT + LENGTH * self.lens.len() + self.values.len());
        // `push` stops below 65,535.
        raw.extend_from_slice(&(self.lens.len() as u16).to_le_bytes());
        for len in &self.lens {
            raw.extend_from_slice(&len.to_le_bytes());
        }
        raw.extend_from_slice(&self.values);
        let mut stored = Vec::new();
        codec.compress(&raw, &mut stored);
        let block = Block {
            stored: stored.into_boxed_slice(),
            raw_len: raw.len(),
            live: vec![true; self.lens.len()].into_boxed_slice(),
            lens: std::mem::take(&mut self.lens).into_boxed_slice(),
            live_bytes: self.values.len(),
            value_bytes: self.values.len(),
        };
        self.values.clear();
        Some(block)
    }
}

/// Values compressed together.
#[derive(Clone, Debug)]
pub struct Block {
    stored: Box<[u8]>,
    raw_len: usize,
    lens: Box<[u32]>,
    live: Box<[bool]>,
    live_bytes: usize,
    value_bytes: usize,
}

impl Block {
    /// The compressed bytes.
    #[must_use]
    pub fn stored(&self) -> &[u8] {
        &self.stored
    }

    /// The length before compression, to be kept beside [`stored`](Self::stored).
    #[must_use]
    pub const fn raw_len(&self) -> usize {
        self.raw_len
    }

    /// Values in it, those that were taken out included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.lens.len()
    }

    /// Never: a block without values is not made.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    /// Values that were not taken out.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.iter().filter(|live| **live).count()
    }

    /// Heap bytes it takes.
    #[must_use]
    pub const fn footprint(&self) -> usize {
        self.stored.len() + self.lens.len() * (LENGTH + size_of::<bool>())
    }

    /// Whether so little of it is live that it is worth packing anew.
    #[must_use]
    pub const fn is_sparse(&self) -> bool {
        self.live_bytes * 100 < self.value_bytes * SPARSE_PERCENT
    }

    /// Appends the value `index` to `out`.
    ///
    /// # Errors
    /// There is no such value, or it was taken out; or `codec` is not the one the block was made with.
    pub fn get(&self, index: u16, codec: &dyn Codec, out: &mut Vec<u8>) -> Result<(), BlockError> {
        self.check(index)?;
        unpack_one(&self.stored, self.raw_len, index, codec, out)
    }

    /// Every live value with its number.
    ///
    /// # Errors
    /// `codec` is not the one the block was made with.
    pub fn values(&self, codec: &dyn Codec) -> Result<Vec<(u16, Vec<u8>)>, BlockError> {
        let values = unpack(&self.stored, self.raw_len, codec)?;
        // There are at most 65,535.
        Ok((0..)
            .zip(values)
            .filter(|(index, _)| self.live.get(usize::from(*index)) == Some(&true))
            .collect())
    }

    fn check(&self, index: u16) -> Result<(), BlockError> {
        match self.live.get(usize::from(index)) {
            Some(true) => Ok(()),
            _ => Err(BlockError::NoSuchValue {
                index,
                count: self.lens.len(),
            }),
        }
    }

    fn take_out(&mut self, index: u16) -> Result<(), BlockError> {
        self.check(index)?;
        self.live[usize::from(index)] = false;
        self.live_bytes -= self.lens[usize::from(index)] as usize;
        Ok(())
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
    let lens = Lengths::of(&raw)?;
    let (at, len) = lens
        .iter()
        .nth(usize::from(index))
        .ok_or(BlockError::NoSuchValue {
            index,
            count: lens.count,
        })?;
    out.extend_from_slice(&raw[at..at + len]);
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

/// No block is larger, whatever stands beside it.
const RAW_LEN_MAX: usize = COUNT + LENGTH * u16::MAX as usize + BLOCK_RAW_MAX;

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
        let total: u64 = found.raw_lens().map(u64::from).sum();
        let values = raw.len() - COUNT - lens.len();
        if count == 0 || total != values as u64 {
            return Err(BlockError::Index);
        }
        Ok(found)
    }

    fn raw_lens(&self) -> impl Iterator<Item = u32> {
        self.lens
            .as_chunks::<LENGTH>()
            .0
            .iter()
            .map(|len| u32::from_le_bytes(*len))
    }

    /// Where each value is in the raw block, and its length.
    fn iter(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut at = COUNT + self.lens.len();
        self.raw_lens().map(move |len| {
            let start = at;
            at += len as usize;
            (start, len as usize)
        })
    }
}

/// Blocks by number. A number is given again after its block went.
#[derive(Clone, Debug, Default)]
pub struct BlockStore {
    blocks: Vec<Option<Block>>,
    free: Vec<u32>,
    bytes: usize,
}

impl BlockStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a block; its number.
    ///
    /// # Panics
    /// There are 2^32 blocks.
    pub fn insert(&mut self, block: Block) -> u32 {
        self.bytes += block.footprint();
        match self.free.pop() {
            Some(number) => {
                self.blocks[number as usize] = Some(block);
                number
            }
            None => {
                let number = u32::try_from(self.blocks.len()).expect("fewer than 2^32 blocks");
                self.blocks.push(Some(block));
                number
            }
        }
    }

    /// The block of a number.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<&Block> {
        self.blocks.get(number as usize)?.as_ref()
    }

    /// Blocks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len() - self.free.len()
    }

    /// Whether there is no block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Heap bytes of the blocks and of the store itself.
    #[must_use]
    pub const fn footprint(&self) -> usize {
        self.bytes
            + self.blocks.capacity() * size_of::<Option<Block>>()
            + self.free.capacity() * size_of::<u32>()
    }

    /// The value of `place` is not needed there any more: it leaves a hole. The block is handed out when that was its last.
    ///
    /// # Errors
    /// There is no such value, or it was taken out before.
    pub fn take_out(&mut self, place: Place) -> Result<Option<Block>, BlockError> {
        let slot = self
            .blocks
            .get_mut(place.block as usize)
            .filter(|slot| slot.is_some());
        let Some(slot) = slot else {
            return Err(BlockError::NoSuchBlock { block: place.block });
        };
        if let Some(block) = slot {
            block.take_out(place.index)?;
            if block.live() > 0 {
                return Ok(None);
            }
            self.bytes -= block.footprint();
            self.free.push(place.block);
        }
        Ok(slot.take())
    }

    /// The numbers of blocks that are worth packing anew: most of each is holes.
    pub fn sparse(&self) -> impl Iterator<Item = u32> {
        (0..)
            .zip(&self.blocks)
            .filter(|(_, block)| block.as_ref().is_some_and(Block::is_sparse))
            .map(|(number, _)| number)
    }
}
