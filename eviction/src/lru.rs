//! Least recently used, exactly.
//!
//! Source: the stack algorithm of R. L. Mattson et al., "Evaluation techniques for storage hierarchies", IBM Systems
//! Journal 9 (1970). One list in the order of use; a use moves a slot to its head, the tail goes.

use crate::policy::{Facts, Policy, PolicyKind};
use crate::slab::{List, Slab};

/// 12 bytes a slot.
#[derive(Debug, Default)]
pub(crate) struct Lru {
    /// When each slot was last used: the low 32 bits of milliseconds, to compare with other partitions.
    slab: Slab<u32>,
    used: List,
}

/// How long ago `then` was; right for up to 49 days.
pub(crate) fn idle(now: u64, then: u32) -> u64 {
    u64::from((now as u32).wrapping_sub(then))
}

impl Policy for Lru {
    fn kind(&self) -> PolicyKind {
        PolicyKind::Lru
    }

    fn insert(&mut self, slot: u32, _: Facts, now: u64) {
        self.slab.insert(&mut self.used, slot, now as u32);
    }

    fn access(&mut self, slot: u32, now: u64) {
        if let Some(last) = self.slab.get_mut(slot) {
            *last = now as u32;
            self.slab.refresh(&mut self.used, slot);
        }
    }

    fn update(&mut self, slot: u32, _: Facts, now: u64) {
        self.access(slot, now);
    }

    fn remove(&mut self, slot: u32) -> bool {
        let there = self.slab.contains(slot);
        if there {
            self.slab.remove(&mut self.used, slot);
        }
        there
    }

    fn evict(&mut self) -> Option<u32> {
        let slot = self.used.tail()?;
        self.slab.remove(&mut self.used, slot);
        Some(slot)
    }

    fn contains(&self, slot: u32) -> bool {
        self.slab.contains(slot)
    }

    fn urgency(&self, now: u64) -> Option<u64> {
        let last = self.slab.get(self.used.tail()?)?;
        Some(idle(now, *last))
    }

    fn len(&self) -> usize {
        self.slab.len()
    }

    fn bytes(&self) -> usize {
        self.slab.bytes()
    }
}
