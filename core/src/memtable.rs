//! Key to entry: slots that a key keeps for its life, an index over them, and every byte counted.

use crate::entry::Entry;
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
    hasher: S,
}

impl<S: BuildHasher> Memtable<S> {
    pub(crate) fn new(hasher: S) -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            bytes: 0,
            hasher,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
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

    /// Adds an entry whose key is not there.
    pub(crate) fn insert(&mut self, hash: u64, entry: Entry) -> Slot {
        self.bytes += entry.footprint();
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
        let old = std::mem::replace(&mut self.slots[slot.index()], entry);
        self.bytes += self.slots[slot.index()].footprint();
        self.bytes -= old.footprint();
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
        old
    }
}
