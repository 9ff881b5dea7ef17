//! Which slots were changed since a moment: a bit each, so that an incremental snapshot looks at those alone.

use crate::numbers::Sequence;
use std::sync::Arc;

/// A set of slots.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    words: Vec<u64>,
    count: usize,
}

impl Slots {
    pub(crate) fn insert(&mut self, slot: u32) {
        let (word, bit) = (slot as usize / 64, 1 << (slot % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.count += usize::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }

    fn insert_all(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
        self.count = self
            .words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum();
    }

    /// The first slot at or above `from`.
    pub(crate) fn next(&self, from: u32) -> Option<u32> {
        let first = from as usize / 64;
        let mut mask = u64::MAX << (from % 64);
        for (index, word) in self.words.iter().enumerate().skip(first) {
            let found = word & mask;
            if found != 0 {
                return u32::try_from(index * 64)
                    .ok()
                    .map(|base| base + found.trailing_zeros());
            }
            mask = u64::MAX;
        }
        None
    }

    fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}

/// Slots changed since the last snapshot that stands: those changed before the last freeze, and those since.
#[derive(Debug)]
pub(crate) struct Dirty {
    /// Whatever was changed after this is in one of the sets.
    since: Sequence,
    before: Arc<Slots>,
    /// Whatever was changed after this is in `recent`.
    frozen_at: Sequence,
    recent: Slots,
}

impl Dirty {
    /// Nothing was changed after `last`.
    pub(crate) fn since(last: Sequence) -> Self {
        Self {
            since: last,
            before: Arc::default(),
            frozen_at: last,
            recent: Slots::default(),
        }
    }

    pub(crate) fn insert(&mut self, slot: u32) {
        self.recent.insert(slot);
    }

    /// A freeze, with `last` being the last change before it: no cut, because whoever freezes may know only one that is
    /// somewhat above the true one. Gives all slots that were changed after `since`, and perhaps more; `None` when those are not
    /// known.
    pub(crate) fn freeze(&mut self, last: Sequence, since: Option<Sequence>) -> Option<Arc<Slots>> {
        let recent = std::mem::take(&mut self.recent);
        if recent.count > 0 {
            Arc::make_mut(&mut self.before).insert_all(&recent);
        }
        self.frozen_at = last;
        since
            .filter(|&since| self.since <= since)
            .map(|_| Arc::clone(&self.before))
    }

    /// A snapshot with every change up to `cut` stands.
    pub(crate) fn forget(&mut self, cut: Sequence) {
        if self.frozen_at <= cut {
            self.since = self.frozen_at;
            self.before = Arc::default();
        }
    }

    /// Slots changed since the last freeze, and before it since the last snapshot that stands: at most so many.
    pub(crate) fn count(&self) -> usize {
        self.before.count + self.recent.count
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.before.bytes() + self.recent.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_set_of_slots_is_one() {
        let mut random = fastrand::Rng::with_seed(11);
        let (mut slots, mut model) = (Slots::default(), BTreeSet::new());
        for _ in 0..500 {
            let slot = random.u32(..3000);
            slots.insert(slot);
            model.insert(slot);
            assert_eq!(slots.count, model.len());
            let from = random.u32(..3100);
            assert_eq!(slots.next(from), model.range(from..).next().copied());
        }
    }

    #[test]
    fn what_a_snapshot_that_failed_had_is_not_forgotten() {
        let at = Sequence::from_raw;
        let mut dirty = Dirty::since(at(10));
        dirty.insert(1);
        let first = dirty.freeze(at(20), Some(at(10))).expect("known");
        assert_eq!(first.next(0), Some(1));
        dirty.insert(2);
        // That snapshot never stood: the next one is about both.
        let second = dirty.freeze(at(30), Some(at(10))).expect("known");
        assert_eq!((second.next(0), second.next(2)), (Some(1), Some(2)));
        dirty.insert(3);
        dirty.forget(at(30));
        let third = dirty.freeze(at(40), Some(at(30))).expect("known");
        assert_eq!((third.next(0), third.next(4)), (Some(3), None));
        assert!(dirty.freeze(at(50), Some(at(9))).is_none());
        assert!(dirty.freeze(at(50), None).is_none());
    }
}
