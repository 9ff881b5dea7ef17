//! Key to entry: slots that a key keeps for its life, an index over them, and every byte counted.

use crate::entry::{CODING_NUMBER_MAX, Entry};
use crate::numbers::Slot;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// The hash by which [`Partition`](crate::Partition) finds `key`. The caller computes it before it locks anything.
pub fn hash_key<S: BuildHasher>(hasher: &S, key: &str) -> u64 {
    hasher.hash_one(key.as_bytes())
}

/// Both tables grow by copying themselves. A partition is a small share of the store, so this is short: at a million
/// keys in 128 partitions the index copied is 80 KiB.
pub(crate) struct Memtable<S> {
    index: HashTable<u32>,
    slots: Vec<Entry>,
    free: Vec<u32>,
    /// Sum of the footprints of all entries.
    bytes: usize,
    /// What of them is coded.
    coded: Coded,
    hasher: S,
}

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

    fn count(&mut self, entry: &Entry) {
        if let Some(coding) = entry.coding() {
            let share = &mut self.by_codec[usize::from(coding.codec)];
            share.entries += 1;
            share.raw_bytes += coding.raw_len as usize;
            share.stored_bytes += entry.stored().len();
            self.by_dictionary[usize::from(coding.dictionary)] += 1;
        }
    }

    fn uncount(&mut self, entry: &Entry) {
        if let Some(coding) = entry.coding() {
            let share = &mut self.by_codec[usize::from(coding.codec)];
            share.entries -= 1;
            share.raw_bytes -= coding.raw_len as usize;
            share.stored_bytes -= entry.stored().len();
            self.by_dictionary[usize::from(coding.dictionary)] -= 1;
        }
    }
}

impl<S: BuildHasher> Memtable<S> {
    pub(crate) fn new(hasher: S) -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            bytes: 0,
            coded: Coded::default(),
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

    /// Heap bytes of the index, the slots and the free list.
    pub(crate) fn table_bytes(&self) -> usize {
        self.index.allocation_size()
            + self.slots.capacity() * size_of::<Entry>()
            + self.free.capacity() * size_of::<u32>()
    }

    /// One past the highest slot ever used.
    pub(crate) fn slot_end(&self) -> u32 {
        // `insert` stops at u32::MAX slots.
        self.slots.len() as u32
    }

    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        let slots = &self.slots;
        self.index
            .find(hash, |slot| slots[*slot as usize].key_bytes() == key)
            .map(|slot| Slot::new(*slot))
    }

    pub(crate) fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.slots
            .get(slot.index())
            .filter(|entry| !entry.is_vacant())
    }

    /// The marks of an entry may be changed through this, its layout may not: that is counted.
    pub(crate) fn entry_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.slots
            .get_mut(slot.index())
            .filter(|entry| !entry.is_vacant())
    }

    pub(crate) fn hash_at(&self, slot: Slot) -> Option<u64> {
        self.entry(slot)
            .map(|entry| self.hasher.hash_one(entry.key_bytes()))
    }

    /// Adds an entry whose key is not there.
    pub(crate) fn insert(&mut self, hash: u64, entry: Entry) -> Slot {
        self.bytes += entry.footprint();
        self.coded.count(&entry);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = entry;
                slot
            }
            None => {
                if self.slots.len() == self.slots.capacity() {
                    // A quarter at a time: a doubled table would stand half empty in every partition.
                    self.slots.reserve_exact((self.slots.len() / 4).max(8));
                }
                let slot =
                    u32::try_from(self.slots.len()).expect("a partition has fewer than 2^32 slots");
                self.slots.push(entry);
                slot
            }
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, slot, |slot| {
            hasher.hash_one(slots[*slot as usize].key_bytes())
        });
        Slot::new(slot)
    }

    /// Puts `entry` in the place of another of the same key.
    pub(crate) fn replace(&mut self, slot: Slot, entry: Entry) -> Entry {
        self.bytes += entry.footprint();
        self.coded.count(&entry);
        let old = std::mem::replace(&mut self.slots[slot.index()], entry);
        self.bytes -= old.footprint();
        self.coded.uncount(&old);
        old
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Entry {
        let old = std::mem::replace(&mut self.slots[slot.index()], Entry::vacant());
        let hash = self.hasher.hash_one(old.key_bytes());
        if let Ok(found) = self
            .index
            .find_entry(hash, |candidate| *candidate == slot.get())
        {
            found.remove();
        }
        self.free.push(slot.get());
        self.bytes -= old.footprint();
        self.coded.uncount(&old);
        old
    }
}
