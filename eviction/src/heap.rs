//! A heap of slots by a number, in which a slot's number can be changed: four children a node, because that moves less.

use crate::slab::grow_to;

/// The slot is not in the heap.
const OUT: u32 = u32::MAX;
const CHILDREN: usize = 4;

/// Slots with the smallest number first; among equal numbers in no order. 20 bytes a slot.
#[derive(Debug, Default)]
pub(crate) struct Heap {
    /// The number and the slot.
    nodes: Vec<(u64, u32)>,
    /// Where in `nodes` each slot is.
    places: Vec<u32>,
}

impl Heap {
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Heap bytes held, exactly.
    pub(crate) fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<(u64, u32)>() + self.places.capacity() * size_of::<u32>()
    }

    fn place(&self, slot: u32) -> Option<usize> {
        let place = *self.places.get(slot as usize)?;
        (place != OUT).then_some(place as usize)
    }

    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.place(slot).is_some()
    }

    pub(crate) fn first(&self) -> Option<(u64, u32)> {
        self.nodes.first().copied()
    }

    /// Adds a slot, or changes its number.
    pub(crate) fn set(&mut self, slot: u32, number: u64) {
        let place = match self.place(slot) {
            Some(place) => place,
            None => {
                grow_to(&mut self.places, slot as usize, OUT);
                let place = self.nodes.len();
                grow_to(&mut self.nodes, place, (number, slot));
                self.places[slot as usize] = place as u32;
                place
            }
        };
        self.nodes[place].0 = number;
        self.settle(place);
    }

    pub(crate) fn remove(&mut self, slot: u32) -> bool {
        let Some(place) = self.place(slot) else {
            return false;
        };
        self.nodes.swap_remove(place);
        self.places[slot as usize] = OUT;
        if place < self.nodes.len() {
            self.places[self.nodes[place].1 as usize] = place as u32;
            self.settle(place);
        }
        if self.nodes.is_empty() {
            *self = Self::default();
        }
        true
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, u32)> {
        let first = self.first()?;
        self.remove(first.1);
        Some(first)
    }

    /// Moves a node to where its number belongs.
    fn settle(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / CHILDREN;
            if self.nodes[parent].0 <= self.nodes[place].0 {
                break;
            }
            self.swap(place, parent);
            place = parent;
        }
        loop {
            let first = place * CHILDREN + 1;
            let children = first..(first + CHILDREN).min(self.nodes.len());
            let Some(least) = children.min_by_key(|&child| self.nodes[child].0) else {
                return;
            };
            if self.nodes[place].0 <= self.nodes[least].0 {
                return;
            }
            self.swap(place, least);
            place = least;
        }
    }

    fn swap(&mut self, left: usize, right: usize) {
        self.nodes.swap(left, right);
        for place in [left, right] {
            self.places[self.nodes[place].1 as usize] = place as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_pops_what_a_sorted_map_pops() {
        let seed = fastrand::u64(..);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut heap = Heap::default();
        let mut model: BTreeMap<u32, u64> = BTreeMap::new();
        for _ in 0..20_000 {
            let slot = rng.u32(0..200);
            match rng.u32(0..8) {
                0..5 => {
                    let number = rng.u64(0..1_000);
                    heap.set(slot, number);
                    model.insert(slot, number);
                }
                5 => assert_eq!(
                    heap.remove(slot),
                    model.remove(&slot).is_some(),
                    "seed {seed}"
                ),
                _ => {
                    let popped = heap.pop();
                    let least = model.values().min().copied();
                    assert_eq!(popped.map(|(number, _)| number), least, "seed {seed}");
                    if let Some((number, slot)) = popped {
                        assert_eq!(model.remove(&slot), Some(number), "seed {seed}");
                    }
                }
            }
            assert_eq!(heap.len(), model.len());
            assert_eq!(heap.contains(slot), model.contains_key(&slot));
        }
    }
}
