//! What expires next, on the caller's clock: a hierarchical timing wheel.
//!
//! Source: G. Varghese and T. Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987), scheme 7.
//! An instant is read as eleven digits of six bits, and the wheel has a level for each. A timer
//! is on the level of the highest digit in which its instant differs from the wheel's base, in
//! the bucket of that digit. So every u64 has a place, the first bucket of the lowest occupied
//! level is always the earliest, and a bucket whose time comes is spread over the levels below it.
//!
//! The base follows the clock but is never above a timer. A timer that is set below it (the clock went
//! back, or the timer is overdue) takes it back by undoing that spreading: whole buckets are
//! joined, no timer is touched one by one.

mod rings;
mod slots;
#[cfg(test)]
mod tests;

use std::fmt;

use rings::{Bucket, DIGIT_BITS, Rings, Timer};
use slots::Slots;

/// Timers of one partition, at most one a slot.
///
/// Instants are milliseconds since the Unix epoch, given by the caller; any `u64` will do.
///
/// Setting or clearing a timer takes constant time, averaged over the growing and shrinking of one
/// array. On its way to its firing a timer is moved at most ten times, once for each level it is
/// from the lowest, and again after a timer was set to an instant that the clock had passed.
///
/// A timer takes 20 bytes and, for finding it by its slot, 4, with spare room in the array on
/// top. Slots should be dense: one without a timer takes 4 bytes if one of the 64 around it
/// has a timer, and an eighth of a byte or two if not. The whole is one pointer wide and holds no
/// heap memory without timers.
///
/// Fewer than 4,294,966,272 timers fit, which is 96 GiB of them.
#[derive(Default)]
pub struct TimerWheel {
    /// Absent exactly when there is no timer.
    wheel: Option<Box<Wheel>>,
}

impl TimerWheel {
    /// A wheel without timers.
    #[must_use]
    pub const fn new() -> Self {
        Self { wheel: None }
    }

    /// Sets the timer of `slot` to `due`, in place of the one it may have had, and returns whether it
    /// had one.
    ///
    /// `due` may lie before `now`: the timer then fires at the next [`expire`](Self::expire).
    pub fn set(&mut self, slot: u32, due: u64, now: u64) -> bool {
        self.wheel
            .get_or_insert_with(|| Box::new(Wheel::new(due.min(now))))
            .set(slot, due, now)
    }

    /// Removes the timer of `slot`; false when it had none.
    pub fn clear(&mut self, slot: u32) -> bool {
        let Some(wheel) = &mut self.wheel else {
            return false;
        };
        let Some(index) = wheel.slots.get(slot) else {
            return false;
        };
        wheel.remove(index);
        self.release_if_empty();
        true
    }

    /// When the timer of `slot` is due, if it has one.
    #[must_use]
    pub fn due(&self, slot: u32) -> Option<u64> {
        let wheel = self.wheel.as_ref()?;
        Some(wheel.rings.timer(wheel.slots.get(slot)?).due())
    }

    /// When to call [`expire`](Self::expire) next; none when there is no timer.
    ///
    /// Never later than the earliest timer. It is exact for a timer that is due within the wheel's
    /// current 64 ms; of one further away it is the instant at which the wheel must look closer,
    /// at most ten times on the way to the timer. It can lie in the past although nothing is due
    /// yet; after `expire` has returned false it is above the instant that was given.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        let wheel = self.wheel.as_ref()?;
        wheel.next().map(|bucket| wheel.start(bucket))
    }

    /// Calls `fire` for slots whose timer is due at or before `now`, in no particular order. A
    /// timer is gone before its call.
    ///
    /// `budget` bounds the work: each call of `fire` costs 1, and so does each timer that is looked
    /// at more closely without being fired. True means that the budget ran out: call again, with the
    /// same or a later `now`. False means that nothing that is due is left.
    pub fn expire(&mut self, now: u64, budget: usize, fire: impl FnMut(u32)) -> bool {
        let Some(wheel) = &mut self.wheel else {
            return false;
        };
        let more = wheel.expire(now, budget, fire);
        self.release_if_empty();
        more
    }

    /// Number of timers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.wheel.as_ref().map_or(0, |wheel| wheel.rings.len())
    }

    /// Whether there is no timer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Heap bytes held, exactly, as they were asked of the allocator.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.wheel.as_ref().map_or(0, |wheel| {
            size_of::<Wheel>() + wheel.rings.bytes() + wheel.slots.bytes()
        })
    }

    /// A store can have 65,536 partitions of which few have timers at a time.
    fn release_if_empty(&mut self) {
        if self.is_empty() {
            self.wheel = None;
        }
    }
}

impl fmt::Debug for TimerWheel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerWheel")
            .field("len", &self.len())
            .field("next_due", &self.next_due())
            .field("bytes", &self.bytes())
            .finish()
    }
}

struct Wheel {
    /// At or before every timer. Each timer is where [`Bucket::of`] this and its instant says,
    /// except for those in the bucket that is being spread.
    base: u64,
    /// The level of the bucket that the base has reached and that is being spread. As long as
    /// there is something in it, it comes before all others and the base stays at its start.
    spreading: Option<u32>,
    rings: Rings,
    slots: Slots,
}

impl Wheel {
    fn new(base: u64) -> Self {
        Self {
            base,
            spreading: None,
            rings: Rings::default(),
            slots: Slots::default(),
        }
    }

    fn set(&mut self, slot: u32, due: u64, now: u64) -> bool {
        let earlier = self.slots.get(slot);
        if let Some(index) = earlier {
            self.rings.unlink(index);
        }
        self.follow(due.min(now));
        if due < self.base {
            self.rewind(due);
        }
        let bucket = Bucket::of(self.base, due);
        if let Some(index) = earlier {
            self.rings.timer_mut(index).set_due(due);
            self.rings.link(index, bucket);
        } else {
            let index = self.rings.insert(Timer::new(slot, due), bucket);
            self.slots.put(slot, index);
        }
        earlier.is_some()
    }

    /// Removes a timer from its ring and from memory, and returns its slot.
    fn remove(&mut self, index: u32) -> u32 {
        self.rings.unlink(index);
        let slot = self.rings.timer(index).slot();
        self.slots.take(slot);
        // The last timer moves into the gap.
        if let Some(moved) = self.rings.discard(index) {
            self.slots.put(moved, index);
        }
        slot
    }

    fn expire(&mut self, now: u64, budget: usize, mut fire: impl FnMut(u32)) -> bool {
        let mut left = budget;
        while let Some(bucket) = self.next() {
            let start = self.start(bucket);
            if start > now {
                break;
            }
            // When the whole bucket is due there is no need to look closer.
            let all_due = start | bucket.below() <= now;
            if !all_due {
                self.base = start;
                self.spreading = Some(bucket.level);
            }
            while let Some(index) = self.rings.first(bucket) {
                if left == 0 {
                    return true;
                }
                left -= 1;
                if all_due {
                    let slot = self.remove(index);
                    fire(slot);
                } else {
                    let due = self.rings.timer(index).due();
                    self.rings.unlink(index);
                    self.rings.link(index, Bucket::of(self.base, due));
                }
            }
        }
        self.follow(now);
        false
    }

    /// The bucket that nothing is due before.
    fn next(&self) -> Option<Bucket> {
        let spreading = self.spreading.map(|level| Bucket::at(level, self.base));
        spreading
            .filter(|&bucket| self.rings.first(bucket).is_some())
            .or_else(|| self.rings.lowest())
    }

    /// The earliest instant that belongs into `bucket`.
    fn start(&self, bucket: Bucket) -> u64 {
        let above = u64::MAX.checked_shl((bucket.level + 1) * DIGIT_BITS);
        self.base & above.unwrap_or(0) | u64::from(bucket.digit) << (bucket.level * DIGIT_BITS)
    }

    /// Moves the base up to `now` unless something comes before. No timer changes its place by
    /// it: the base stays below the start of every bucket, so it still differs from each timer
    /// first in the same digit.
    fn follow(&mut self, now: u64) {
        match self.next() {
            None => self.base = now,
            Some(bucket) if now > self.base && now < self.start(bucket) => self.base = now,
            Some(_) => return,
        }
        self.spreading = None;
    }

    /// Moves the base back to `to`, which is below it.
    ///
    /// With `level` that of the highest digit in which the two differ, timers on lower levels agree
    /// with the old base in that digit, so they go into its bucket there, one ring at a time. Timers
    /// on that level or above have a greater digit than the old base, so also than the new one:
    /// they stay. A bucket that is being spread goes the same way, because the base is at its start
    /// and so `to` differs on its level or above.
    fn rewind(&mut self, to: u64) {
        let level = Bucket::of(self.base, to).level;
        let target = Bucket::at(level, self.base);
        while let Some(lower) = self.rings.lowest()
            && lower.level < level
        {
            self.rings.join(lower, target);
        }
        self.base = to;
        self.spreading = None;
    }
}
