//! Bytes used against bytes allowed: when to begin evicting, and when to stop.

/// A bound on memory, and the two marks below it. Plain arithmetic: the caller knows what is used.
///
/// Between the marks and the limit is room for writes to land in while the background catches up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    limit: u64,
    high: u64,
    low: u64,
}

impl Budget {
    /// A budget of `limit` bytes. The high mark is a thirty-second part below the limit, the low mark as much again.
    #[must_use]
    pub const fn new(limit: u64) -> Self {
        let step = limit / 32;
        Self {
            limit,
            high: limit - step,
            low: limit - 2 * step,
        }
    }

    /// The same limit with room for `bytes` more below the marks, at most an eighth of the limit: for writes so large that
    /// few of them would fill what is there.
    #[must_use]
    pub fn with_room(self, bytes: u64) -> Self {
        let room = bytes.max(self.limit / 32).min(self.limit / 8);
        Self {
            limit: self.limit,
            high: self.limit - room,
            low: self.limit - room - self.limit / 32,
        }
    }

    /// Bytes allowed. A write that would go above has to make room first.
    #[must_use]
    pub const fn limit(self) -> u64 {
        self.limit
    }

    /// Above this, eviction begins.
    #[must_use]
    pub const fn high(self) -> u64 {
        self.high
    }

    /// Eviction goes on down to this.
    #[must_use]
    pub const fn low(self) -> u64 {
        self.low
    }

    /// Bytes to evict when `used` are: none up to the high mark, else what is above the low one.
    #[must_use]
    pub const fn excess(self, used: u64) -> u64 {
        if used <= self.high {
            0
        } else {
            used - self.low
        }
    }

    /// Whether `more` fits beside `used`.
    #[must_use]
    pub const fn fits(self, used: u64, more: u64) -> bool {
        used.saturating_add(more) <= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_are_in_order_and_below_the_limit() {
        for limit in [0, 1, 31, 32, 1_000, 1 << 20, u64::MAX] {
            for room in [0, 1, limit / 20, limit, u64::MAX] {
                for budget in [Budget::new(limit), Budget::new(limit).with_room(room)] {
                    assert!(budget.low() <= budget.high() && budget.high() <= budget.limit());
                    assert!(budget.low() >= limit / 5 * 4, "{budget:?}");
                    assert_eq!(budget.excess(budget.high()), 0);
                }
            }
        }
    }

    #[test]
    fn eviction_begins_at_the_high_mark_and_ends_at_the_low_one() {
        let budget = Budget::new(3_200);
        assert_eq!((budget.high(), budget.low()), (3_100, 3_000));
        assert_eq!(budget.excess(3_100), 0);
        assert_eq!(budget.excess(3_101), 101);
        assert!(budget.fits(3_100, 100) && !budget.fits(3_100, 101));
        assert!(!budget.fits(u64::MAX, u64::MAX));
    }
}
