//! Largest and coldest first.
//!
//! Source: GreedyDual-Size with frequency, L. Cherkasova, "Improving WWW proxies performance with
//! Greedy-Dual-Size-Frequency caching policy", HP Laboratories report HPL-98-69R1 (1998), with the cost of every miss the
//! same. A slot is worth `L + uses / bytes`, where `L` is the worth of the last victim: what is not used any more is overtaken
//! by what is. It maximises hits, not bytes hit.

use crate::heap::Heap;
use crate::policy::{Facts, Policy, PolicyKind};
use crate::slab::grow_to;

/// Uses above this are not told apart, so that a formerly hot slot is overtaken in bounded time.
const USES_MAX: u16 = 255;
/// Weights are taken for at least this: below, an entry's overhead is what it costs.
const BYTES_MIN: u32 = 64;

#[derive(Clone, Copy, Debug, Default)]
struct Size {
    bytes: u32,
    uses: u16,
}

/// 28 bytes a slot.
#[derive(Debug, Default)]
pub(crate) struct LargestFirst {
    /// By worth. A worth is not negative, so its bits are in the order of the numbers.
    heap: Heap,
    sizes: Vec<Size>,
    /// The worth of the last victim.
    floor: f64,
}

impl LargestFirst {
    fn weigh(&mut self, slot: u32) {
        let Size { bytes, uses } = self.sizes[slot as usize];
        let worth = self.floor + f64::from(uses) / f64::from(bytes.max(BYTES_MIN));
        self.heap.set(slot, worth.to_bits());
    }

    fn release_if_empty(&mut self) {
        if self.heap.len() == 0 {
            self.sizes = Vec::new();
        }
    }
}

impl Policy for LargestFirst {
    fn kind(&self) -> PolicyKind {
        PolicyKind::Size
    }

    fn insert(&mut self, slot: u32, facts: Facts, _: u64) {
        grow_to(&mut self.sizes, slot as usize, Size::default());
        self.sizes[slot as usize] = Size {
            bytes: facts.weight,
            uses: 1,
        };
        self.weigh(slot);
    }

    fn access(&mut self, slot: u32, _: u64) {
        if self.heap.contains(slot) {
            let size = &mut self.sizes[slot as usize];
            size.uses = (size.uses + 1).min(USES_MAX);
            self.weigh(slot);
        }
    }

    fn update(&mut self, slot: u32, facts: Facts, now: u64) {
        if self.heap.contains(slot) {
            self.sizes[slot as usize].bytes = facts.weight;
            self.access(slot, now);
        }
    }

    fn remove(&mut self, slot: u32) -> bool {
        let there = self.heap.remove(slot);
        self.release_if_empty();
        there
    }

    fn evict(&mut self) -> Option<u32> {
        let (worth, slot) = self.heap.pop()?;
        self.floor = f64::from_bits(worth);
        self.release_if_empty();
        Some(slot)
    }

    fn contains(&self, slot: u32) -> bool {
        self.heap.contains(slot)
    }

    fn urgency(&self, _: u64) -> Option<u64> {
        self.heap.first().map(|(worth, _)| u64::MAX - worth)
    }

    fn len(&self) -> usize {
        self.heap.len()
    }

    fn bytes(&self) -> usize {
        self.heap.bytes() + self.sizes.capacity() * size_of::<Size>()
    }
}
