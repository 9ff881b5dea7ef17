//! Least frequently used, with decay: yesterday's hot keys leave.
//!
//! Source: least frequently used with dynamic ageing, M. Arlitt, L. Cherkasova, J. Dilley, R. Friedrich and T. Jin, "Evaluating
//! content management techniques for web proxy caches", ACM SIGMETRICS Performance Evaluation Review 27 (2000).
//!
//! A slot is worth its count and the age of the policy at its last use; the age is the worth of the last victim. So what is
//! used no more is overtaken by what is, however often it was used, after so many turns of the whole as it had uses. Counts
//! end at a bound, so worths lie in a window that moves upwards: a ring of lists, one for each worth. Among equals the longest
//! unused goes.

use crate::lru::idle;
use crate::policy::{Facts, Policy, PolicyKind};
use crate::slab::{List, Slab};

/// Worths that slots can have at a time, and so the length of the ring.
const WORTHS: usize = 64;
/// Uses above this are not told apart.
const COUNT_MAX: u32 = WORTHS as u32 - 1;

#[derive(Clone, Copy, Debug, Default)]
struct Use {
    count: u32,
    /// The low bits; its list is this modulo the ring.
    worth: u32,
    last: u32,
}

/// 20 bytes a slot.
#[derive(Debug, Default)]
pub(crate) struct Lfu {
    slab: Slab<Use>,
    /// Absent when nothing is held.
    ring: Option<Box<[List; WORTHS]>>,
    /// No slot is worth less.
    age: u32,
}

impl Lfu {
    fn list(&mut self, worth: u32) -> &mut List {
        let ring = self
            .ring
            .get_or_insert_with(|| Box::new([List::default(); WORTHS]));
        &mut ring[worth as usize % WORTHS]
    }

    fn unlink(&mut self, slot: u32) -> bool {
        let Some(of) = self.slab.get(slot).copied() else {
            return false;
        };
        let mut list = *self.list(of.worth);
        self.slab.remove(&mut list, slot);
        *self.list(of.worth) = list;
        if self.slab.len() == 0 {
            self.ring = None;
        }
        true
    }

    /// The least worth of a slot.
    fn least(&self) -> Option<u32> {
        let ring = self.ring.as_ref()?;
        (0..WORTHS as u32)
            .map(|step| self.age.wrapping_add(step))
            .find(|worth| !ring[*worth as usize % WORTHS].is_empty())
    }
}

impl Policy for Lfu {
    fn kind(&self) -> PolicyKind {
        PolicyKind::Lfu
    }

    fn insert(&mut self, slot: u32, _: Facts, now: u64) {
        let of = Use {
            count: 1,
            worth: self.age.wrapping_add(1),
            last: now as u32,
        };
        let mut list = *self.list(of.worth);
        self.slab.insert(&mut list, slot, of);
        *self.list(of.worth) = list;
    }

    fn access(&mut self, slot: u32, now: u64) {
        let Some(before) = self.slab.get(slot).copied() else {
            return;
        };
        let count = (before.count + 1).min(COUNT_MAX);
        let after = Use {
            count,
            worth: self.age.wrapping_add(count),
            last: now as u32,
        };
        let mut from = *self.list(before.worth);
        if before.worth == after.worth {
            self.slab.refresh(&mut from, slot);
        } else {
            let mut to = *self.list(after.worth);
            self.slab.carry(&mut from, &mut to, slot);
            *self.list(after.worth) = to;
        }
        *self.list(before.worth) = from;
        if let Some(of) = self.slab.get_mut(slot) {
            *of = after;
        }
    }

    fn update(&mut self, slot: u32, _: Facts, now: u64) {
        self.access(slot, now);
    }

    fn remove(&mut self, slot: u32) -> bool {
        self.unlink(slot)
    }

    fn evict(&mut self) -> Option<u32> {
        let least = self.least()?;
        let oldest = self.ring.as_ref()?[least as usize % WORTHS].tail()?;
        self.age = least;
        self.unlink(oldest);
        Some(oldest)
    }

    fn contains(&self, slot: u32) -> bool {
        self.slab.contains(slot)
    }

    fn urgency(&self, now: u64) -> Option<u64> {
        let least = self.least()?;
        let oldest = self.ring.as_ref()?[least as usize % WORTHS].tail()?;
        let of = self.slab.get(oldest)?;
        Some(u64::from(COUNT_MAX - of.count) << 32 | idle(now, of.last))
    }

    fn len(&self) -> usize {
        self.slab.len()
    }

    fn bytes(&self) -> usize {
        let ring = self
            .ring
            .as_ref()
            .map_or(0, |_| size_of::<[List; WORTHS]>());
        self.slab.bytes() + ring
    }
}
