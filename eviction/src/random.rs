//! Any slot, each as likely as the others.
//!
//! Source: random replacement, L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems
//! Journal 5 (1966).

use crate::draw::Draw;
use crate::policy::{Facts, Policy, PolicyKind};
use crate::slab::grow_to;

const OUT: u32 = u32::MAX;

/// 8 bytes a slot.
#[derive(Debug)]
pub(crate) struct Random {
    slots: Vec<u32>,
    /// Where in `slots` each slot is.
    places: Vec<u32>,
    draw: Draw,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            places: Vec::new(),
            draw: Draw::new(seed),
        }
    }
}

impl Policy for Random {
    fn kind(&self) -> PolicyKind {
        PolicyKind::Random
    }

    fn insert(&mut self, slot: u32, _: Facts, _: u64) {
        grow_to(&mut self.places, slot as usize, OUT);
        let place = self.slots.len();
        self.places[slot as usize] = place as u32;
        grow_to(&mut self.slots, place, slot);
    }

    fn access(&mut self, _: u32, _: u64) {}

    fn update(&mut self, _: u32, _: Facts, _: u64) {}

    fn remove(&mut self, slot: u32) -> bool {
        if !self.contains(slot) {
            return false;
        }
        let place = std::mem::replace(&mut self.places[slot as usize], OUT);
        self.slots.swap_remove(place as usize);
        if let Some(&moved) = self.slots.get(place as usize) {
            self.places[moved as usize] = place;
        }
        if self.slots.is_empty() {
            self.slots = Vec::new();
            self.places = Vec::new();
        }
        true
    }

    fn evict(&mut self) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let at = self.draw.below(self.slots.len() as u32);
        let slot = self.slots[at as usize];
        self.remove(slot);
        Some(slot)
    }

    fn contains(&self, slot: u32) -> bool {
        self.places
            .get(slot as usize)
            .is_some_and(|place| *place != OUT)
    }

    fn urgency(&self, _: u64) -> Option<u64> {
        None
    }

    fn len(&self) -> usize {
        self.slots.len()
    }

    fn bytes(&self) -> usize {
        (self.slots.capacity() + self.places.capacity()) * size_of::<u32>()
    }
}
