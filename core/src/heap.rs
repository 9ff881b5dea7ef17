//! Where small entries lie: blocks of few sizes in segments, counted to the byte.
//!
//! A general allocator rounds a block of 130 bytes up to 160 and cannot move it. Here sizes are two to sixteen bytes apart; a
//! freed block waits for the next one of its size; and when too much is free, the emptiest segments are evacuated and given
//! back, whatever mix of sizes comes (the idea of log-structured memory, Rumble et al., FAST 2014, with free lists so that
//! nothing moves while sizes stay alike). Who moves a block knows all addresses; the heap knows none.

/// Segments are as large as this, but for the first ones of a small heap. Allocators have a class of this size.
const SEGMENT_MAX: usize = 14 << 10;
const SEGMENT_MIN: usize = 1 << 10;
/// An address is in units of two bytes: a segment's number and the offset in it.
const UNIT: usize = 2;
const OFFSET_BITS: u32 = 13;
const _: () = assert!(SEGMENT_MAX / UNIT < 1 << OFFSET_BITS);
/// Addresses keep the highest bit clear.
const SEGMENTS_MAX: usize = 1 << (31 - OFFSET_BITS);
/// No address.
const NONE: u32 = u32::MAX;
/// A heap may have this part of it free, and a little, before it is made dense.
const SLACK_SHARE: usize = 16;
const SLACK_MIN: usize = 2 << 10;
/// What a pass may move, at least; of a large heap an eighth.
const EVACUATE_MIN: usize = SEGMENT_MAX;

/// The length of the block that holds `len` bytes, at least 8 and at most 1024.
pub(crate) const fn block_len(len: usize) -> usize {
    let step = match len {
        0..=128 => 2,
        129..=256 => 4,
        257..=512 => 8,
        _ => 16,
    };
    let len = if len < 8 { 8 } else { len };
    len.next_multiple_of(step)
}

/// The number of a block's length among all there are.
const fn class(block_len: usize) -> usize {
    match block_len {
        0..=128 => block_len / 2 - 1,
        129..=256 => 64 + (block_len - 129) / 4,
        257..=512 => 96 + (block_len - 257) / 8,
        _ => 128 + (block_len - 513) / 16,
    }
}
const _: () = assert!(class(1024) == 159 && class(130 + 2) == 64 && class(264) == 96);

/// Where a block is.
pub(crate) type Address = u32;

#[derive(Default)]
struct Segment {
    /// Empty for a number that is not in use.
    bytes: Box<[u8]>,
    live: u32,
    /// Its blocks are being moved away.
    is_leaving: bool,
}

/// How far the lists of free blocks were looked through.
#[derive(Clone, Copy)]
struct Pass {
    /// The next list.
    class: usize,
    /// What is left of the one before it.
    unseen: Address,
}

#[derive(Default)]
pub(crate) struct Heap {
    segments: Vec<Segment>,
    /// Numbers of segments that are not in use.
    unused: Vec<u32>,
    /// By class: the first free block; each begins with the address of the next.
    free: Vec<Address>,
    /// The segment that is being filled, and how far it is.
    filling: usize,
    filled: usize,
    allocated: usize,
    live: usize,
    /// What making it dense did not gain is tried again only when there is more of it.
    tolerated: usize,
    /// Segments are being evacuated.
    pass: Option<Pass>,
}

const fn split(address: Address) -> (usize, usize) {
    let segment = address >> OFFSET_BITS;
    let offset = address & ((1 << OFFSET_BITS) - 1);
    (segment as usize, offset as usize * UNIT)
}

const fn join(segment: usize, offset: usize) -> Address {
    // `SEGMENTS_MAX` and `SEGMENT_MAX` fit.
    ((segment as u32) << OFFSET_BITS) | (offset / UNIT) as u32
}

impl Heap {
    /// Bytes of all blocks that are in use.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// Bytes of segments that hold nothing.
    pub(crate) fn slack(&self) -> usize {
        self.allocated - self.live
    }

    /// Bytes of what is kept about segments and free blocks.
    pub(crate) fn table_bytes(&self) -> usize {
        self.segments.capacity() * size_of::<Segment>()
            + (self.unused.capacity() + self.free.capacity()) * size_of::<u32>()
    }

    /// A block of `block_len(len)` bytes; `None` when the heap has as many segments as it can have.
    pub(crate) fn allocate(&mut self, len: usize) -> Option<Address> {
        let len = block_len(len);
        let address = match self.take_free(len) {
            Some(address) => address,
            None => self.fill(len)?,
        };
        self.live += len;
        self.segments[split(address).0].live += len as u32;
        Some(address)
    }

    fn take_free(&mut self, len: usize) -> Option<Address> {
        let class = class(len);
        loop {
            let address = *self.free.get(class).filter(|first| **first != NONE)?;
            self.free[class] = self.next_of(address);
            // One that is leaving is out of its list for good.
            if !self.is_leaving(address) {
                return Some(address);
            }
        }
    }

    fn fill(&mut self, len: usize) -> Option<Address> {
        let room = self
            .segments
            .get(self.filling)
            .map_or(0, |segment| segment.bytes.len().saturating_sub(self.filled));
        if room < len {
            self.add_segment(room)?;
        }
        let address = join(self.filling, self.filled);
        self.filled += len;
        Some(address)
    }

    fn add_segment(&mut self, room: usize) -> Option<()> {
        if self.unused.is_empty() && self.segments.len() == SEGMENTS_MAX {
            return None;
        }
        // The end of the segment before is a free block like any other, if it is one.
        if room >= 8 && block_len(room) == room && !self.segments[self.filling].is_leaving {
            self.put_free(join(self.filling, self.filled), room);
        }
        let wanted = (self.allocated / 4).next_multiple_of(SEGMENT_MIN);
        let len = wanted.clamp(SEGMENT_MIN, SEGMENT_MAX);
        let segment = Segment {
            bytes: vec![0; len].into_boxed_slice(),
            ..Segment::default()
        };
        self.allocated += len;
        self.filled = 0;
        self.filling = match self.unused.pop() {
            Some(number) => {
                self.segments[number as usize] = segment;
                number as usize
            }
            None => {
                if self.segments.len() == self.segments.capacity() {
                    self.segments
                        .reserve_exact((self.segments.len() / 4).max(2));
                }
                self.segments.push(segment);
                self.segments.len() - 1
            }
        };
        Some(())
    }

    fn put_free(&mut self, address: Address, len: usize) {
        let class = class(len);
        if self.free.len() <= class {
            self.free.reserve_exact(class + 1 - self.free.len());
            self.free.resize(class + 1, NONE);
        }
        let first = &mut self.free[class];
        let (segment, offset) = split(address);
        self.segments[segment].bytes[offset..offset + size_of::<Address>()]
            .copy_from_slice(&first.to_le_bytes());
        *first = address;
    }

    /// Gives back the block that was allocated for `len` bytes.
    pub(crate) fn release(&mut self, address: Address, len: usize) {
        let len = block_len(len);
        let segment = &mut self.segments[split(address).0];
        segment.live -= len as u32;
        self.live -= len;
        if self.live == 0 {
            *self = Self::default();
        } else if !segment.is_leaving {
            self.put_free(address, len);
        }
    }

    /// From the start of a block on, to the end of its segment.
    #[inline]
    pub(crate) fn bytes(&self, address: Address) -> &[u8] {
        let (segment, offset) = split(address);
        &self.segments[segment].bytes[offset..]
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self, address: Address) -> &mut [u8] {
        let (segment, offset) = split(address);
        &mut self.segments[segment].bytes[offset..]
    }

    /// Whether so much is free that some of it is to be given back.
    pub(crate) fn is_sparse(&self) -> bool {
        let usual = self.allocated / SLACK_SHARE + SLACK_MIN + self.unfilled();
        self.slack() > usual.max(self.tolerated)
    }

    fn unfilled(&self) -> usize {
        self.segments
            .get(self.filling)
            .map_or(0, |segment| segment.bytes.len() - self.filled)
    }

    /// Whether segments are being evacuated.
    #[inline]
    pub(crate) fn is_evacuating(&self) -> bool {
        self.pass.is_some()
    }

    /// Chooses segments that are rather empty, of which no block is given out from now on. Then, in any number of steps with
    /// other work between, the lists of free blocks are [purged](Self::purge) of them, and whoever knows the addresses moves
    /// every block that [is leaving](Self::is_leaving); when both are done, so is [the whole](Self::evacuated).
    pub(crate) fn evacuate(&mut self) {
        let (wanted, moved_max) = (self.slack() / 2, (self.allocated / 8).max(EVACUATE_MIN));
        let (mut gained, mut moving) = (0, 0);
        // The emptier ones first: of each byte that moves more is gained.
        for eighths in [4, 6, 7] {
            for (number, segment) in self.segments.iter_mut().enumerate() {
                let (live, len) = (segment.live as usize, segment.bytes.len());
                if len == 0
                    || segment.is_leaving
                    || number == self.filling
                    || live * 8 > len * eighths
                {
                    continue;
                }
                if gained >= wanted || moving + live > moved_max {
                    break;
                }
                segment.is_leaving = true;
                gained += len - live;
                moving += live;
            }
        }
        self.pass = Some(Pass {
            class: 0,
            unseen: NONE,
        });
    }

    /// Takes the free blocks of segments that are leaving out of the lists; `budget` is how many blocks and lists may be looked at
    /// yet. True when none is left.
    pub(crate) fn purge(&mut self, budget: &mut usize) -> bool {
        let Some(Pass {
            mut class,
            mut unseen,
        }) = self.pass
        else {
            return true;
        };
        let mut done = false;
        while *budget > 0 {
            *budget -= 1;
            if unseen == NONE {
                done = class == self.free.len();
                if done {
                    break;
                }
                unseen = std::mem::replace(&mut self.free[class], NONE);
                class += 1;
                continue;
            }
            let address = unseen;
            unseen = self.next_of(address);
            if !self.is_leaving(address) {
                let first = std::mem::replace(&mut self.free[class - 1], address);
                self.set_next(address, first);
            }
        }
        self.pass = Some(Pass { class, unseen });
        done
    }

    fn next_of(&self, address: Address) -> Address {
        let bytes = &self.bytes(address)[..size_of::<Address>()];
        Address::from_le_bytes(bytes.try_into().expect("four bytes"))
    }

    fn set_next(&mut self, address: Address, next: Address) {
        self.bytes_mut(address)[..size_of::<Address>()].copy_from_slice(&next.to_le_bytes());
    }

    #[inline]
    pub(crate) fn is_leaving(&self, address: Address) -> bool {
        self.segments[split(address).0].is_leaving
    }

    /// Moves a block of `len` bytes; `None` when there is no place for it.
    pub(crate) fn relocate(&mut self, address: Address, len: usize) -> Option<Address> {
        let to = self.allocate(len)?;
        let mut block = [0; super::view::PACKED_MAX];
        block[..len].copy_from_slice(&self.bytes(address)[..len]);
        self.bytes_mut(to)[..len].copy_from_slice(&block[..len]);
        let len = block_len(len);
        self.segments[split(address).0].live -= len as u32;
        self.live -= len;
        Some(to)
    }

    /// Gives back the segments that were evacuated; one that was not, for want of addresses, stays.
    pub(crate) fn evacuated(&mut self) {
        for number in 0..self.segments.len() {
            let segment = &mut self.segments[number];
            if std::mem::take(&mut segment.is_leaving) && segment.live == 0 {
                self.allocated -= segment.bytes.len();
                *segment = Segment::default();
                self.unused.push(number as u32);
            }
        }
        self.pass = None;
        self.tolerated = 0;
        if self.is_sparse() {
            self.tolerated = self.slack() + self.allocated / (2 * SLACK_SHARE) + SEGMENT_MIN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_has_one_class_and_little_is_lost() {
        let mut before = None;
        for len in 8..=1024 {
            let block = block_len(len);
            assert!(
                block >= len && block - len < 16 && (block - len) * 32 <= len.max(64),
                "{len}"
            );
            assert_eq!(block_len(block), block);
            let number = class(block);
            assert!(
                before.is_none_or(|(last, class)| number == class + usize::from(block != last))
            );
            before = Some((block, number));
        }
    }

    /// Blocks of changing sizes come and go at random: none overlaps another, and what is allocated stays close to what is used.
    #[test]
    fn blocks_are_apart_and_the_heap_stays_dense() {
        let seed = fastrand::u64(..);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut heap = Heap::default();
        let mut blocks: Vec<(Address, usize, u8)> = Vec::new();
        for step in 0..60_000_u32 {
            // Sizes drift, as a client's values do.
            let largest = 40 + (step / 80) as usize % 980;
            if blocks.len() < 600 || rng.bool() && blocks.len() < 1_000 {
                let len = rng.usize(8..=largest);
                let address = heap.allocate(len).expect("few blocks");
                let mark = rng.u8(..);
                heap.bytes_mut(address)[..len].fill(mark);
                blocks.push((address, len, mark));
            } else {
                let (address, len, mark) = blocks.swap_remove(rng.usize(..blocks.len()));
                assert!(
                    heap.bytes(address)[..len].iter().all(|byte| *byte == mark),
                    "seed {seed}"
                );
                heap.release(address, len);
            }
            if heap.is_sparse() {
                heap.evacuate();
                assert!(!heap.purge(&mut 1) && heap.purge(&mut usize::MAX.clone()));
                for (address, len, _) in &mut blocks {
                    if heap.is_leaving(*address) {
                        *address = heap.relocate(*address, *len).expect("few blocks");
                    }
                }
                heap.evacuated();
            }
            assert!(
                heap.slack() <= heap.live() / 8 + 3 * SEGMENT_MAX,
                "seed {seed}: {} bytes of slack beside {}",
                heap.slack(),
                heap.live()
            );
        }
        let live: usize = blocks.iter().map(|(_, len, _)| block_len(*len)).sum();
        assert_eq!(heap.live(), live);
        for (address, len, mark) in blocks.drain(..) {
            assert!(
                heap.bytes(address)[..len].iter().all(|byte| *byte == mark),
                "seed {seed}"
            );
            heap.release(address, len);
        }
        assert_eq!((heap.live(), heap.slack(), heap.table_bytes()), (0, 0, 0));
    }
}
