//! S3-FIFO: most of what comes is never asked for again, and is let go early.
//!
//! Source: J. Yang, Y. Zhang, Z. Qiu, Y. Yue and K. V. Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023.
//!
//! What is new waits in a small queue, a tenth of the bytes. At its end it goes to the main queue if it was used meanwhile,
//! else it is evicted and only its fingerprint is kept, for as long as the main queue takes to turn. What comes back in
//! that time goes to the main queue at once. At the end of the main queue what was used gets another round. A use only
//! counts up to three: nothing is moved on a read.

use crate::ghost::{Ghost, fingerprint};
use crate::policy::{Facts, Policy, PolicyKind};
use crate::slab::{List, Slab};

/// The small queue's share of the weight, in percent.
const SMALL_PERCENT: u64 = 10;
const USES_MAX: u8 = 3;
/// Uses in the small queue after which a slot goes to the main one.
const PROMOTED_AFTER: u8 = 2;

#[derive(Clone, Copy, Debug, Default)]
struct Queued {
    fingerprint: u32,
    weight: u32,
    uses: u8,
    main: bool,
}

/// 20 bytes a slot, and about 8 for each one in the main queue for the fingerprints.
#[derive(Debug, Default)]
pub(crate) struct S3Fifo {
    slab: Slab<Queued>,
    small: List,
    main: List,
    small_weight: u64,
    main_weight: u64,
    main_len: usize,
    ghost: Ghost,
}

impl S3Fifo {
    fn list(&mut self, main: bool) -> (&mut Slab<Queued>, &mut List, &mut u64) {
        if main {
            (&mut self.slab, &mut self.main, &mut self.main_weight)
        } else {
            (&mut self.slab, &mut self.small, &mut self.small_weight)
        }
    }

    fn take(&mut self, slot: u32, queued: Queued) {
        let (slab, list, weight) = self.list(queued.main);
        slab.remove(list, slot);
        *weight -= u64::from(queued.weight);
        self.main_len -= usize::from(queued.main);
        if self.slab.len() == 0 {
            self.ghost = Ghost::default();
        }
    }

    fn promote(&mut self, slot: u32) {
        let Some(queued) = self.slab.get_mut(slot) else {
            return;
        };
        queued.uses = 0;
        queued.main = true;
        let weight = u64::from(queued.weight);
        self.slab.carry(&mut self.small, &mut self.main, slot);
        self.small_weight -= weight;
        self.main_weight += weight;
        self.main_len += 1;
    }
}

impl Policy for S3Fifo {
    fn kind(&self) -> PolicyKind {
        PolicyKind::S3Fifo
    }

    fn insert(&mut self, slot: u32, facts: Facts, _: u64) {
        let fingerprint = fingerprint(facts.hash);
        let main = self.ghost.take(fingerprint);
        let queued = Queued {
            fingerprint,
            weight: facts.weight,
            uses: 0,
            main,
        };
        let (slab, list, weight) = self.list(main);
        slab.insert(list, slot, queued);
        *weight += u64::from(facts.weight);
        self.main_len += usize::from(main);
    }

    fn access(&mut self, slot: u32, _: u64) {
        if let Some(queued) = self.slab.get_mut(slot) {
            queued.uses = (queued.uses + 1).min(USES_MAX);
        }
    }

    fn update(&mut self, slot: u32, facts: Facts, now: u64) {
        let Some(queued) = self.slab.get_mut(slot) else {
            return;
        };
        let (main, old) = (queued.main, queued.weight);
        queued.weight = facts.weight;
        let (_, _, weight) = self.list(main);
        *weight = *weight - u64::from(old) + u64::from(facts.weight);
        self.access(slot, now);
    }

    fn remove(&mut self, slot: u32) -> bool {
        let Some(queued) = self.slab.get(slot).copied() else {
            return false;
        };
        self.take(slot, queued);
        true
    }

    /// Averaged over all calls a slot is looked at as often as it was used, at most three times.
    fn evict(&mut self) -> Option<u32> {
        loop {
            let total = self.small_weight + self.main_weight;
            let from_small = self.main.is_empty()
                || (!self.small.is_empty() && self.small_weight * 100 >= total * SMALL_PERCENT);
            if from_small {
                let slot = self.small.tail()?;
                let queued = *self.slab.get(slot)?;
                if queued.uses >= PROMOTED_AFTER {
                    self.promote(slot);
                    continue;
                }
                self.take(slot, queued);
                if self.slab.len() > 0 {
                    self.ghost.put(queued.fingerprint, self.main_len);
                }
                return Some(slot);
            }
            let slot = self.main.tail()?;
            let queued = self.slab.get_mut(slot)?;
            if queued.uses > 0 {
                queued.uses -= 1;
                self.slab.refresh(&mut self.main, slot);
                continue;
            }
            let queued = *queued;
            self.take(slot, queued);
            return Some(slot);
        }
    }

    fn contains(&self, slot: u32) -> bool {
        self.slab.contains(slot)
    }

    fn urgency(&self, _: u64) -> Option<u64> {
        None
    }

    fn len(&self) -> usize {
        self.slab.len()
    }

    fn bytes(&self) -> usize {
        self.slab.bytes() + self.ghost.bytes()
    }
}
