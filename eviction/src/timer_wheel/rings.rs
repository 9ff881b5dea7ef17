//! Timers in one dense array, in doubly linked lists by index, one a bucket.
//!
//! A list is a ring: the first timer's `prev` is the last timer, and the last timer's `next` is
//! the bucket's name. So a bucket keeps one number, a timer is unlinked without knowing its bucket,
//! and a whole list moves to another bucket by changing its ends.

use std::array;

/// Bits of one digit of an instant.
pub(super) const DIGIT_BITS: u32 = 6;
const DIGITS: usize = 1 << DIGIT_BITS;
/// Enough digits for 64 bits.
const LEVELS: usize = u64::BITS.div_ceil(DIGIT_BITS) as usize;
/// Links at or above this name a bucket, those below it a timer.
const BUCKETS: u32 = u32::MAX - (1 << 10) + 1;
const _: () = assert!(LEVELS * DIGITS <= 1 << 10);

/// A bucket: instants that differ from the base first on `level` and have `digit` there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) level: u32,
    pub(super) digit: u32,
}

impl Bucket {
    /// Where `due` belongs while the base is `base`.
    pub(super) fn of(base: u64, due: u64) -> Self {
        let highest = (base ^ due).checked_ilog2().unwrap_or(0);
        Self::at(highest / DIGIT_BITS, due)
    }

    /// The bucket of an instant on a given level.
    pub(super) fn at(level: u32, instant: u64) -> Self {
        let digit = (instant >> (level * DIGIT_BITS)) as u32 % DIGITS as u32;
        Self { level, digit }
    }

    /// All bits that instants in this bucket may differ in.
    pub(super) fn below(self) -> u64 {
        (1 << (self.level * DIGIT_BITS)) - 1
    }

    fn name(self) -> u32 {
        BUCKETS | self.level << DIGIT_BITS | self.digit
    }

    fn named(link: u32) -> Option<Self> {
        let name = link.checked_sub(BUCKETS)?;
        let (level, digit) = (name >> DIGIT_BITS, name % DIGITS as u32);
        Some(Self { level, digit })
    }
}

/// One timer.
pub(super) struct Timer {
    // Bytes, because aligned like a u64 it would take 24 bytes instead of 20.
    due: [u8; 8],
    slot: u32,
    next: u32,
    prev: u32,
}

const _: () = assert!(size_of::<Timer>() == 20);

impl Timer {
    pub(super) fn new(slot: u32, due: u64) -> Self {
        Self {
            due: due.to_le_bytes(),
            slot,
            next: BUCKETS,
            prev: BUCKETS,
        }
    }

    pub(super) fn due(&self) -> u64 {
        u64::from_le_bytes(self.due)
    }

    pub(super) fn set_due(&mut self, due: u64) {
        self.due = due.to_le_bytes();
    }

    pub(super) fn slot(&self) -> u32 {
        self.slot
    }
}

/// Every timer, and every bucket's ring of them.
pub(super) struct Rings {
    timers: Vec<Timer>,
    /// A level's first timers, which mean something where its bits in `occupied` say so.
    levels: [Option<Box<[u32; DIGITS]>>; LEVELS],
    /// A bit a bucket that is not empty.
    occupied: [u64; LEVELS],
    /// A bit a level with such a bucket.
    occupied_levels: u16,
}

impl Default for Rings {
    fn default() -> Self {
        Self {
            timers: Vec::new(),
            levels: array::from_fn(|_| None),
            occupied: [0; LEVELS],
            occupied_levels: 0,
        }
    }
}

impl Rings {
    pub(super) fn len(&self) -> usize {
        self.timers.len()
    }

    /// Heap bytes held.
    pub(super) fn bytes(&self) -> usize {
        let levels = self.levels.iter().flatten().count();
        self.timers.capacity() * size_of::<Timer>() + levels * size_of::<[u32; DIGITS]>()
    }

    pub(super) fn timer(&self, index: u32) -> &Timer {
        &self.timers[index as usize]
    }

    pub(super) fn timer_mut(&mut self, index: u32) -> &mut Timer {
        &mut self.timers[index as usize]
    }

    /// The first bucket of the lowest level that has a timer.
    pub(super) fn lowest(&self) -> Option<Bucket> {
        let level = self.occupied_levels.trailing_zeros();
        let occupied = self.occupied.get(level as usize)?;
        let digit = occupied.trailing_zeros();
        Some(Bucket { level, digit })
    }

    /// The first timer of a bucket.
    pub(super) fn first(&self, bucket: Bucket) -> Option<u32> {
        let occupied = self.occupied[bucket.level as usize] >> bucket.digit & 1 == 1;
        let firsts = self.levels[bucket.level as usize].as_ref()?;
        occupied.then(|| firsts[bucket.digit as usize])
    }

    /// Adds a timer to memory and to a bucket, and returns its index.
    pub(super) fn insert(&mut self, timer: Timer, bucket: Bucket) -> u32 {
        let index = u32::try_from(self.timers.len()).ok();
        let index = index
            .filter(|&index| index < BUCKETS)
            .expect("a partition has fewer timers than there are indices");
        self.timers.push(timer);
        self.link(index, bucket);
        index
    }

    /// Appends an unlinked timer to a bucket.
    pub(super) fn link(&mut self, index: u32, bucket: Bucket) {
        let last = if let Some(first) = self.first(bucket) {
            let last = self.timer(first).prev;
            self.timer_mut(first).prev = index;
            self.timer_mut(last).next = index;
            last
        } else {
            self.set_first(bucket, index);
            index
        };
        let timer = self.timer_mut(index);
        timer.prev = last;
        timer.next = bucket.name();
    }

    /// Takes a timer out of its bucket. It stays in memory, to be linked again or discarded.
    pub(super) fn unlink(&mut self, index: u32) {
        let &Timer { prev, next, .. } = self.timer(index);
        if prev == index {
            self.vacate(next);
            return;
        }
        self.redirect_forward(prev, next);
        self.redirect_back(next, prev);
    }

    /// Frees the memory of an unlinked timer. The last one takes its place: its slot is returned.
    pub(super) fn discard(&mut self, index: u32) -> Option<u32> {
        self.timers.swap_remove(index as usize);
        let moved_from = self.timers.len() as u32;
        if self.timers.len() < self.timers.capacity() / 4 {
            // To twice of what is needed, so that the next shrinking or growing is far.
            self.timers.shrink_to(self.timers.capacity() / 2);
        }
        if index == moved_from {
            return None;
        }
        let &Timer { prev, next, .. } = self.timer(index);
        if prev == moved_from {
            // Alone in its ring.
            self.timer_mut(index).prev = index;
            if let Some(bucket) = Bucket::named(next) {
                self.set_first(bucket, index);
            }
        } else {
            self.redirect_forward(prev, index);
            self.redirect_back(next, index);
        }
        Some(self.timer(index).slot)
    }

    /// Moves all timers of one bucket to the end of another.
    pub(super) fn join(&mut self, from: Bucket, to: Bucket) {
        let Some(first) = self.first(from) else {
            return;
        };
        let last = self.timer(first).prev;
        if let Some(head) = self.first(to) {
            let tail = self.timer(head).prev;
            self.timer_mut(tail).next = first;
            self.timer_mut(first).prev = tail;
            self.timer_mut(head).prev = last;
        } else {
            self.set_first(to, first);
        }
        self.timer_mut(last).next = to.name();
        self.vacate(from.name());
    }

    /// Makes whatever leads from `prev` into the ring lead to `target`: its `next`, or the
    /// bucket's first timer when `prev` is the last. `target` may itself be the bucket's name.
    fn redirect_forward(&mut self, prev: u32, target: u32) {
        match Bucket::named(self.timer(prev).next) {
            Some(bucket) => self.set_first(bucket, target),
            None => self.timer_mut(prev).next = target,
        }
    }

    /// Makes whatever leads from `next` back lead to `target`: its `prev`, or that of the bucket's
    /// first timer when `next` is the bucket's name.
    fn redirect_back(&mut self, next: u32, target: u32) {
        let next = match Bucket::named(next) {
            Some(bucket) => self.first(bucket),
            None => Some(next),
        };
        if let Some(next) = next {
            self.timer_mut(next).prev = target;
        }
    }

    fn set_first(&mut self, bucket: Bucket, index: u32) {
        let level = bucket.level as usize;
        let firsts = self.levels[level].get_or_insert_with(|| Box::new([0; DIGITS]));
        firsts[bucket.digit as usize] = index;
        self.occupied[level] |= 1 << bucket.digit;
        self.occupied_levels |= 1 << level;
    }

    /// Marks the bucket of that name as empty.
    fn vacate(&mut self, name: u32) {
        if let Some(Bucket { level, digit }) = Bucket::named(name) {
            let occupied = &mut self.occupied[level as usize];
            *occupied &= !(1 << digit);
            if *occupied == 0 {
                self.occupied_levels &= !(1 << level);
            }
        }
    }
}

#[cfg(test)]
impl Rings {
    /// Walks every ring and returns each timer's bucket by index, after holding every link, every
    /// bit and every count against the others.
    pub(super) fn walk(&self) -> Vec<Bucket> {
        let mut buckets = vec![None; self.len()];
        for level in 0..LEVELS as u32 {
            let occupied = self.occupied[level as usize];
            assert_eq!(self.occupied_levels >> level & 1 == 1, occupied != 0);
            for digit in (0..DIGITS as u32).filter(|digit| occupied >> digit & 1 == 1) {
                let bucket = Bucket { level, digit };
                let first = self.first(bucket).expect("an occupied bucket has a timer");
                let (mut index, mut before) = (first, self.timer(first).prev);
                loop {
                    assert_eq!(self.timer(index).prev, before);
                    assert_eq!(
                        buckets[index as usize].replace(bucket),
                        None,
                        "in one ring once"
                    );
                    (before, index) = (index, self.timer(index).next);
                    if let Some(end) = Bucket::named(index) {
                        assert_eq!(end, bucket);
                        break;
                    }
                }
                assert_eq!(
                    self.timer(first).prev,
                    before,
                    "the first leads back to the last"
                );
            }
        }
        let buckets = buckets.into_iter();
        buckets
            .map(|bucket| bucket.expect("every timer is in a ring"))
            .collect()
    }
}
