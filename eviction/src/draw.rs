//! Random numbers for choices that need not be unpredictable.
//!
//! Source: xorshift64*, S. Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled" (ACM
//! Transactions on Mathematical Software 42, 2016).

#[derive(Debug)]
pub(crate) struct Draw(u64);

impl Default for Draw {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        // The state must not be 0.
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, or 0 when that is 0.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        (((self.next() >> 32) * u64::from(end)) >> 32) as u32
    }
}
