//! Hash to slot, in four bytes a cell: the slot and as much of the hash as fits beside it.
//!
//! Cells stand in groups of sixteen, one cache line; a key is looked for from its group on until one has an empty cell. The
//! table is filled to seven eighths and grows by an eighth, so that little of it stands empty (buckets of a cache line with
//! part of the hash in each cell are the idea of MemC3, Fan et al., NSDI 2013, and of Abseil's Swiss tables).

const GROUP: usize = 16;
const EMPTY: u32 = u32::MAX;
const REMOVED: u32 = u32::MAX - 1;
/// A cell keeps so many bits for the slot at least; those left are of the hash.
const SLOT_BITS_MIN: u32 = 16;
const SLOT_BITS_STEP: u32 = 4;

pub(crate) struct Index {
    cells: Box<[u32]>,
    /// Cells with a slot.
    len: usize,
    /// Cells that had one, and that a search does not stop at.
    removed: usize,
    slot_bits: u32,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            cells: Box::default(),
            len: 0,
            removed: 0,
            slot_bits: SLOT_BITS_MIN,
        }
    }
}

impl Index {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.cells)
    }

    fn groups(&self) -> usize {
        self.cells.len() / GROUP
    }

    fn home(&self, hash: u64) -> usize {
        // The high half, scaled to the number of groups; below 2^32 groups it fits.
        (((hash >> 32) * self.groups() as u64) >> 32) as usize
    }

    fn cell(&self, hash: u64, slot: u32) -> u32 {
        // Without a tag, the shift would be by all bits.
        let tag = (hash as u32).checked_shl(self.slot_bits).unwrap_or(0);
        tag | slot
    }

    fn slot_of(&self, cell: u32) -> u32 {
        cell & u32::MAX
            .checked_shl(self.slot_bits)
            .map_or(u32::MAX, |tag| !tag)
    }

    /// The number of the cell of a slot for which `is` holds, of those that may have this hash.
    #[inline]
    fn position(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<usize> {
        if self.cells.is_empty() {
            return None;
        }
        let tag = self.cell(hash, 0);
        let slots = self.slot_of(u32::MAX);
        let mut group = self.home(hash);
        for _ in 0..self.groups() {
            let start = group * GROUP;
            let cells = &self.cells[start..start + GROUP];
            let (mut alike, mut empty) = (0_u32, false);
            for (number, cell) in cells.iter().enumerate() {
                alike |= u32::from(cell & !slots == tag) << number;
                empty |= *cell == EMPTY;
            }
            while alike != 0 {
                let number = alike.trailing_zeros() as usize;
                let cell = cells[number];
                if cell < REMOVED && is(cell & slots) {
                    return Some(start + number);
                }
                alike &= alike - 1;
            }
            if empty {
                return None;
            }
            group += 1;
            if group == self.groups() {
                group = 0;
            }
        }
        None
    }

    /// The slot for which `is` holds, of those that may have this hash.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is: impl FnMut(u32) -> bool) -> Option<u32> {
        self.position(hash, is)
            .map(|position| self.slot_of(self.cells[position]))
    }

    /// Adds a slot that is not there. `hash_of` says the hash of every other slot that is.
    pub(crate) fn insert(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        if (self.len + self.removed + 1) * 8 > self.cells.len() * 7 || !self.holds(slot) {
            self.rebuild(slot, hash_of);
        }
        self.put(hash, slot);
    }

    /// Whether a cell has room for this number.
    fn holds(&self, slot: u32) -> bool {
        // All ones and all but one stand for cells without a slot.
        slot < self.slot_of(u32::MAX) - 1
    }

    fn put(&mut self, hash: u64, slot: u32) {
        let cell = self.cell(hash, slot);
        let mut group = self.home(hash);
        loop {
            let start = group * GROUP;
            let cells = &mut self.cells[start..start + GROUP];
            if let Some(free) = cells.iter_mut().find(|cell| **cell >= REMOVED) {
                self.removed -= usize::from(*free == REMOVED);
                self.len += 1;
                *free = cell;
                return;
            }
            group += 1;
            if group == self.groups() {
                group = 0;
            }
        }
    }

    /// Lays everything out anew, with room for an eighth more and for numbers up to `slot`.
    fn rebuild(&mut self, slot: u32, hash_of: impl Fn(u32) -> u64) {
        let wanted = ((self.len + 1) * 9 / 7).next_multiple_of(GROUP);
        let mut slots: Vec<u32> = self
            .cells
            .iter()
            .filter(|cell| **cell < REMOVED)
            .map(|cell| self.slot_of(*cell))
            .collect();
        // In their order entries lie one after the other, mostly.
        slots.sort_unstable();
        let mut larger = Self {
            cells: vec![EMPTY; wanted].into_boxed_slice(),
            slot_bits: self.slot_bits,
            ..Self::default()
        };
        while !larger.holds(slot) && larger.slot_bits < u32::BITS {
            larger.slot_bits += SLOT_BITS_STEP;
        }
        for slot in slots {
            larger.put(hash_of(slot), slot);
        }
        *self = larger;
    }

    /// Takes a slot out that was added under this hash.
    pub(crate) fn remove(&mut self, hash: u64, slot: u32) {
        let Some(position) = self.position(hash, |candidate| candidate == slot) else {
            debug_assert!(false, "slot {slot} is in the index");
            return;
        };
        let start = position / GROUP * GROUP;
        // A search that comes here stops here already: nothing behind this group counts on the cell.
        let stops = self.cells[start..start + GROUP].contains(&EMPTY);
        self.cells[position] = if stops { EMPTY } else { REMOVED };
        self.removed += usize::from(!stops);
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        }
    }

    /// Gives memory back when most of it stands empty.
    pub(crate) fn shrink(&mut self, hash_of: impl Fn(u32) -> u64) {
        if self.cells.len() > 4 * GROUP && self.len * 4 < self.cells.len() {
            let highest = self.cells.iter().filter(|cell| **cell < REMOVED);
            let highest = highest.map(|cell| self.slot_of(*cell)).max().unwrap_or(0);
            self.rebuild(highest, hash_of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Against a map, with hashes that collide in part or wholly, and with slot numbers of every width.
    #[test]
    fn it_finds_what_is_there_and_nothing_else() {
        let seed = fastrand::u64(..);
        let mut rng = fastrand::Rng::with_seed(seed);
        for (mask, top) in [(u64::MAX, 3_000), (0xff00_0000_0000_00ff, 3_000), (0, 200)] {
            for offset in [0, 65_000, (1 << 24) - 1_500, u32::MAX - 4_000] {
                let mut index = Index::default();
                let mut there: HashMap<u32, u64> = HashMap::new();
                for _ in 0..20_000 {
                    let slot = offset + rng.u32(..top);
                    match there.remove(&slot) {
                        Some(hash) => index.remove(hash, slot),
                        None => {
                            let hash = rng.u64(..) & mask;
                            index.insert(hash, slot, |other| there[&other]);
                            there.insert(slot, hash);
                        }
                    }
                    assert_eq!(index.len(), there.len());
                    if rng.u32(..1_000) == 0 {
                        index.shrink(|other| there[&other]);
                    }
                }
                for slot in offset..offset + top {
                    let known = there.get(&slot);
                    let hash = known.copied().unwrap_or_else(|| rng.u64(..) & mask);
                    let found = index.find(hash, |candidate| candidate == slot);
                    assert_eq!(found, known.map(|_| slot), "seed {seed}, slot {slot}");
                }
                for (slot, hash) in there {
                    index.remove(hash, slot);
                }
                assert_eq!((index.len(), index.bytes()), (0, 0));
            }
        }
    }

    #[test]
    fn little_of_it_stands_empty_while_it_grows() {
        let mut index = Index::default();
        let hash_of = |slot: u32| u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for slot in 0..20_000 {
            index.insert(hash_of(slot), slot, hash_of);
            let entries = index.len();
            assert!(
                entries < 500 || index.bytes() * 10 <= entries * 53,
                "{} bytes for {entries}",
                index.bytes()
            );
        }
    }
}
