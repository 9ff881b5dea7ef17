//! Key to entry: slots that a key keeps for its life, an index over them, and every byte counted.
//!
//! Beside its entry a key costs a slot and a cell of the index, of four bytes each. Small entries lie packed in the
//! [heap](crate::heap), others whole in allocations of their own.

use crate::entry::{CODING_NUMBER_MAX, Coding, Entry};
use crate::heap::{Address, Heap};
use crate::index::Index;
use crate::keys::{self, KeyCode, Keys};
use crate::numbers::{Sequence, Slot};
use crate::view::{EntryView, Packing};
use std::hash::BuildHasher;
use std::sync::Arc;

/// The hash by which [`Partition`](crate::Partition) finds `key`. The caller computes it before it locks anything.
pub fn hash_key<S: BuildHasher>(hasher: &S, key: &str) -> u64 {
    hasher.hash_one(key.as_bytes())
}

/// What stands in a slot: an address in the heap, or a place among the whole entries.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Handle(u32);

impl Handle {
    const VACANT: Self = Self(u32::MAX);
    const WHOLE: u32 = 1 << 31;

    const fn whole(number: u32) -> Self {
        Self(number | Self::WHOLE)
    }
}

enum Place {
    Nowhere,
    Packed(Address),
    Whole(usize),
}

impl From<Handle> for Place {
    #[inline]
    fn from(handle: Handle) -> Self {
        if handle == Handle::VACANT {
            Self::Nowhere
        } else if handle.0 & Handle::WHOLE == 0 {
            Self::Packed(handle.0)
        } else {
            Self::Whole((handle.0 & !Handle::WHOLE) as usize)
        }
    }
}

/// What a change leaves to be released outside the lock: the allocation of the entry that was there, and of the one that
/// was packed.
pub(crate) type Spent = [Option<Entry>; 2];

/// Index and slots grow by copying themselves. A partition is a small share of the store, so this is short: at a million
/// keys in 128 partitions 40 KiB each.
pub(crate) struct Memtable<S> {
    index: Index,
    slots: Vec<Handle>,
    free: Vec<u32>,
    heap: Heap,
    /// What sequences in the heap are told from; chosen when it is empty.
    base: u64,
    wholes: Vec<Entry>,
    free_wholes: Vec<u32>,
    /// While the heap is evacuated: the slots below this were looked at.
    tidied: usize,
    /// Sum of the footprints of all entries.
    bytes: usize,
    /// What of them is coded.
    coded: Coded,
    /// How keys are stored.
    keys: Keys,
    hasher: S,
}

/// Slots and free blocks that a change looks at while the heap is evacuated, and bytes that it moves, about.
const TIDY_SLOTS: usize = 64;
const TIDY_BYTES: usize = 4 << 10;

/// The base of a heap is so far below its first entry: entries that were loaded later, and are older, are near too.
const BASE_BELOW: u64 = 1 << 39;

/// Entries whose values are stored coded, and what that saves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coded {
    /// Entries by the number of their codec.
    pub by_codec: [CodedShare; CODING_NUMBER_MAX as usize + 1],
    /// Entries by the number of their dictionary; those without one are at 0.
    pub by_dictionary: [usize; CODING_NUMBER_MAX as usize + 1],
}

/// The entries of one codec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodedShare {
    /// How many there are.
    pub entries: usize,
    /// Bytes of their values before coding.
    pub raw_bytes: usize,
    /// Bytes of their values as stored.
    pub stored_bytes: usize,
}

impl Coded {
    /// Adds what another partition has.
    pub fn add(&mut self, other: &Self) {
        for (share, more) in self.by_codec.iter_mut().zip(&other.by_codec) {
            share.entries += more.entries;
            share.raw_bytes += more.raw_bytes;
            share.stored_bytes += more.stored_bytes;
        }
        for (entries, more) in self.by_dictionary.iter_mut().zip(&other.by_dictionary) {
            *entries += more;
        }
    }

    fn count(&mut self, coding: Coding, stored: usize) {
        let share = &mut self.by_codec[usize::from(coding.codec)];
        share.entries += 1;
        share.raw_bytes += coding.raw_len as usize;
        share.stored_bytes += stored;
        self.by_dictionary[usize::from(coding.dictionary)] += 1;
    }

    fn uncount(&mut self, coding: Coding, stored: usize) {
        let share = &mut self.by_codec[usize::from(coding.codec)];
        share.entries -= 1;
        share.raw_bytes -= coding.raw_len as usize;
        share.stored_bytes -= stored;
        self.by_dictionary[usize::from(coding.dictionary)] -= 1;
    }
}

/// How the value of an entry is coded, and its length so.
fn coding_of(entry: EntryView<'_>) -> Option<(Coding, usize)> {
    entry.coding().map(|coding| (coding, entry.stored().len()))
}

impl<S: BuildHasher> Memtable<S> {
    pub(crate) fn new(hasher: S) -> Self {
        Self {
            index: Index::default(),
            slots: Vec::new(),
            free: Vec::new(),
            heap: Heap::default(),
            base: 0,
            wholes: Vec::new(),
            free_wholes: Vec::new(),
            tidied: 0,
            bytes: 0,
            coded: Coded::default(),
            keys: Keys::default(),
            hasher,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn coded(&self) -> &Coded {
        &self.coded
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(crate) fn set_key_code(
        &mut self,
        code: Option<Arc<dyn KeyCode>>,
    ) -> Option<Arc<dyn KeyCode>> {
        self.keys.set(code)
    }

    /// Heap bytes of the index, the slots and the lists of what is free.
    pub(crate) fn table_bytes(&self) -> usize {
        self.index.bytes()
            + self.slots.capacity() * size_of::<Handle>()
            + (self.free.capacity() + self.free_wholes.capacity()) * size_of::<u32>()
            + self.wholes.capacity() * size_of::<Entry>()
            + self.heap.table_bytes()
            + self.keys.bytes()
    }

    /// Bytes that are allocated for packed entries and hold none.
    pub(crate) fn slack_bytes(&self) -> usize {
        self.heap.slack()
    }

    /// One past the highest slot ever used.
    pub(crate) fn slot_end(&self) -> u32 {
        // `insert` stops at u32::MAX slots.
        self.slots.len() as u32
    }

    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        self.index
            .find(hash, |slot| {
                self.entry(Slot::new(slot))
                    .is_some_and(|entry| self.keys.is(entry.key_bytes(), key))
            })
            .map(Slot::new)
    }

    pub(crate) fn entry(&self, slot: Slot) -> Option<EntryView<'_>> {
        self.view(*self.slots.get(slot.index())?)
    }

    #[inline]
    fn view(&self, handle: Handle) -> Option<EntryView<'_>> {
        match Place::from(handle) {
            Place::Nowhere => None,
            Place::Packed(address) => Some(EntryView::packed(self.heap.bytes(address), self.base)),
            Place::Whole(number) => Some(EntryView::from(&self.wholes[number])),
        }
    }

    /// The flags of an entry, of which those about its layout must stay as they are.
    pub(crate) fn flags_mut(&mut self, slot: Slot) -> Option<&mut u8> {
        match Place::from(*self.slots.get(slot.index())?) {
            Place::Nowhere => None,
            Place::Packed(address) => self.heap.bytes_mut(address).first_mut(),
            Place::Whole(number) => Some(self.wholes[number].flags_mut()),
        }
    }

    pub(crate) fn hash_at(&self, slot: Slot) -> Option<u64> {
        self.entry(slot)
            .map(|entry| self.keys.hash(entry.key_bytes(), &self.hasher))
    }

    /// Adds an entry whose key is not there.
    pub(crate) fn insert(&mut self, hash: u64, entry: Entry) -> (Slot, Spent) {
        let (handle, spent) = self.lay(entry);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = handle;
                slot
            }
            None => {
                if self.slots.len() == self.slots.capacity() {
                    // An eighth at a time: a doubled table would stand half empty in every partition.
                    self.slots.reserve_exact((self.slots.len() / 8).max(8));
                }
                let slot =
                    u32::try_from(self.slots.len()).expect("a partition has fewer than 2^32 slots");
                self.slots.push(handle);
                slot
            }
        };
        let mut index = std::mem::take(&mut self.index);
        index.insert(hash, slot, |slot| {
            self.hash_at(Slot::new(slot))
                .expect("the index names entries")
        });
        self.index = index;
        self.tidy();
        (Slot::new(slot), [None, spent])
    }

    /// Puts `entry` in the place of another of the same key.
    pub(crate) fn replace(&mut self, slot: Slot, entry: Entry) -> Spent {
        let old = self.lift(slot);
        let (handle, spent) = self.lay(entry);
        self.slots[slot.index()] = handle;
        self.tidy();
        [old, spent]
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Spent {
        let hash = self.hash_at(slot).expect("the entry to remove is there");
        let mut index = std::mem::take(&mut self.index);
        index.remove(hash, slot.get());
        let old = self.lift(slot);
        index.shrink(|slot| {
            self.hash_at(Slot::new(slot))
                .expect("the index names entries")
        });
        self.index = index;
        self.free.push(slot.get());
        self.tidy();
        [old, None]
    }

    /// Finds a place for an entry and counts it; what was packed is handed back.
    fn lay(&mut self, entry: Entry) -> (Handle, Option<Entry>) {
        if self.heap.live() == 0 {
            let first = entry.sequence().get();
            self.base = first.saturating_sub(BASE_BELOW).min(Sequence::MAX.get());
        }
        let packing = Packing::of(&entry, self.base);
        let packed = packing.and_then(|packing| Some((packing, self.heap.allocate(packing.len)?)));
        let (handle, spent) = match packed {
            Some((packing, address)) => {
                packing.write(&entry, &mut self.heap.bytes_mut(address)[..packing.len]);
                (Handle(address), Some(entry))
            }
            None => {
                let number = match self.free_wholes.pop() {
                    Some(number) => {
                        self.wholes[number as usize] = entry;
                        number
                    }
                    None => {
                        if self.wholes.len() == self.wholes.capacity() {
                            self.wholes.reserve_exact((self.wholes.len() / 8).max(4));
                        }
                        self.wholes.push(entry);
                        self.wholes.len() as u32 - 1
                    }
                };
                (Handle::whole(number), None)
            }
        };
        let view = self.view(handle).expect("it was just laid there");
        let (footprint, coding) = (view.footprint(), coding_of(view));
        let code = keys::code_of(view.key_bytes());
        self.bytes += footprint;
        self.keys.count(code);
        if let Some((coding, stored)) = coding {
            self.coded.count(coding, stored);
        }
        (handle, spent)
    }

    /// Takes the entry out of its place and out of what is counted; one that was whole is handed out.
    fn lift(&mut self, slot: Slot) -> Option<Entry> {
        let handle = std::mem::replace(&mut self.slots[slot.index()], Handle::VACANT);
        let view = self.view(handle)?;
        let (footprint, packed_len) = (view.footprint(), view.packed_len());
        let code = keys::code_of(view.key_bytes());
        if let Some((coding, stored)) = coding_of(view) {
            self.coded.uncount(coding, stored);
        }
        self.bytes -= footprint;
        self.keys.uncount(code);
        match Place::from(handle) {
            Place::Nowhere => None,
            Place::Packed(address) => {
                self.heap.release(address, packed_len.unwrap_or(0));
                None
            }
            Place::Whole(number) => {
                self.free_wholes.push(number as u32);
                Some(std::mem::replace(&mut self.wholes[number], Entry::vacant()))
            }
        }
    }

    /// Moves entries together when too much of the heap stands empty: a few slots further with every change, so that none waits for
    /// all of a large partition.
    fn tidy(&mut self) {
        if !self.heap.is_evacuating() {
            if !self.heap.is_sparse() {
                return;
            }
            self.heap.evacuate();
            self.tidied = 0;
        }
        let (mut budget, mut moved) = (TIDY_SLOTS, 0);
        if !self.heap.purge(&mut budget) {
            return;
        }
        while budget > 0 && moved < TIDY_BYTES && self.tidied < self.slots.len() {
            budget -= 1;
            let number = self.tidied;
            self.tidied += 1;
            if let Place::Packed(address) = Place::from(self.slots[number])
                && self.heap.is_leaving(address)
            {
                let len = EntryView::packed(self.heap.bytes(address), self.base).packed_len();
                moved += len.unwrap_or_default();
                if let Some(moved) = len.and_then(|len| self.heap.relocate(address, len)) {
                    self.slots[number] = Handle(moved);
                }
            }
        }
        if self.tidied >= self.slots.len() {
            self.heap.evacuated();
        }
    }
}
