//! Nearest expiry first; what never expires goes last, the longest unused first.
//!
//! Source: the idea of Redis's `volatile-ttl` (its documentation of `maxmemory-policy`), made exact with a heap where Redis
//! samples, and carried on to keys without an expiry where Redis gives up.

use crate::heap::Heap;
use crate::lru::Lru;
use crate::policy::{Facts, Policy, PolicyKind};

/// 20 bytes a slot that expires, 12 one that does not.
#[derive(Debug, Default)]
pub(crate) struct Ttl {
    expiring: Heap,
    lasting: Lru,
}

impl Policy for Ttl {
    fn kind(&self) -> PolicyKind {
        PolicyKind::Ttl
    }

    fn insert(&mut self, slot: u32, facts: Facts, now: u64) {
        match facts.expires_at {
            Some(at) => self.expiring.set(slot, at),
            None => self.lasting.insert(slot, facts, now),
        }
    }

    fn access(&mut self, slot: u32, now: u64) {
        self.lasting.access(slot, now);
    }

    fn update(&mut self, slot: u32, facts: Facts, now: u64) {
        if !self.contains(slot) {
            return;
        }
        match facts.expires_at {
            Some(at) => {
                self.lasting.remove(slot);
                self.expiring.set(slot, at);
            }
            None if self.expiring.remove(slot) => self.lasting.insert(slot, facts, now),
            None => self.lasting.access(slot, now),
        }
    }

    fn remove(&mut self, slot: u32) -> bool {
        self.expiring.remove(slot) || self.lasting.remove(slot)
    }

    fn evict(&mut self) -> Option<u32> {
        match self.expiring.pop() {
            Some((_, slot)) => Some(slot),
            None => self.lasting.evict(),
        }
    }

    fn contains(&self, slot: u32) -> bool {
        self.expiring.contains(slot) || self.lasting.contains(slot)
    }

    fn urgency(&self, now: u64) -> Option<u64> {
        match self.expiring.first() {
            // Above every time that something was idle.
            Some((at, _)) => Some(u64::MAX - at.min(u64::MAX - (1 << 33))),
            None => self.lasting.urgency(now),
        }
    }

    fn len(&self) -> usize {
        self.expiring.len() + self.lasting.len()
    }

    fn bytes(&self) -> usize {
        self.expiring.bytes() + self.lasting.bytes()
    }
}
