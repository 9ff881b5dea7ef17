//! How often a key was asked for lately, estimated in a few bits a key.
//!
//! Source: the count-min sketch of G. Cormode and S. Muthukrishnan (Journal of Algorithms 55, 2005) with four counters of four
//! bits a key and halving, as in G. Einziger, R. Friedman and B. Manes, "TinyLFU: a highly efficient cache admission policy",
//! ACM Transactions on Storage 13 (2017). The counters of a key lie in one 64-byte block, so that it costs one cache miss.

/// Words of one block.
const BLOCK: usize = 8;
const COUNT_MAX: u64 = 15;
/// Halving: every counter's lowest bit is lost.
const LOW_BITS_GONE: u64 = 0x7777_7777_7777_7777;

/// 8 bytes a key, up to 16 just after it has grown.
#[derive(Debug, Default)]
pub(crate) struct Sketch {
    /// Sixteen counters each; a power of two of them, at least a block, or none.
    words: Vec<u64>,
    added: usize,
}

impl Sketch {
    /// Makes room for the counts of so many keys. What was counted is kept: a sketch of twice the size is the old one
    /// twice, because a key's place in it has one more bit.
    pub(crate) fn fit(&mut self, keys: usize) {
        let wanted = keys.next_power_of_two().max(BLOCK);
        if self.words.is_empty() {
            self.words = vec![0; wanted];
        }
        while self.words.len() < wanted {
            let mut grown = Vec::with_capacity(self.words.len() * 2);
            grown.extend_from_slice(&self.words);
            grown.extend_from_slice(&self.words);
            self.words = grown;
        }
    }

    /// Forgets everything and holds no memory.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The words of a key's four counters, and the bit at which each begins.
    fn counters(&self, fingerprint: u32) -> [(usize, u32); 4] {
        let mixed = u64::from(fingerprint).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let blocks = self.words.len() / BLOCK;
        let block = (mixed >> 32) as usize & (blocks - 1);
        let mut bits = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        std::array::from_fn(|row| {
            let word = block * BLOCK + row * 2 + (bits & 1) as usize;
            let counter = (bits >> 1 & 15) as u32;
            bits >>= 5;
            (word, counter * 4)
        })
    }

    /// Counts one more use.
    pub(crate) fn add(&mut self, fingerprint: u32) {
        if self.words.is_empty() {
            return;
        }
        let mut counted = false;
        for (word, bit) in self.counters(fingerprint) {
            if self.words[word] >> bit & COUNT_MAX < COUNT_MAX {
                self.words[word] += 1 << bit;
                counted = true;
            }
        }
        if counted {
            self.added += 1;
            if self.added >= self.words.len() * 10 {
                self.halve();
            }
        }
    }

    fn halve(&mut self) {
        for word in &mut self.words {
            *word = *word >> 1 & LOW_BITS_GONE;
        }
        self.added /= 2;
    }

    /// About how often the key was used, never less than since it was last halved, at most 15.
    pub(crate) fn estimate(&self, fingerprint: u32) -> u64 {
        if self.words.is_empty() {
            return 0;
        }
        let counts = self.counters(fingerprint);
        let counts = counts.map(|(word, bit)| self.words[word] >> bit & COUNT_MAX);
        counts.into_iter().min().unwrap_or(0)
    }

    /// Heap bytes held, exactly.
    pub(crate) fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ghost::fingerprint;

    #[test]
    fn it_never_counts_too_little_and_seldom_too_much() {
        let mut sketch = Sketch::default();
        sketch.fit(1_000);
        for key in 0..1_000_u64 {
            for _ in 0..key % 5 {
                sketch.add(fingerprint(key));
            }
        }
        let off: u64 = (0..1_000_u64)
            .map(|key| {
                let estimate = sketch.estimate(fingerprint(key));
                assert!(estimate >= key % 5);
                estimate - key % 5
            })
            .sum();
        assert!(off < 100, "{off} too many in a thousand");
    }

    #[test]
    fn growing_keeps_the_counts_and_halving_halves_them() {
        let mut sketch = Sketch::default();
        sketch.fit(8);
        for _ in 0..8 {
            sketch.add(7);
        }
        sketch.fit(4_096);
        assert_eq!(sketch.estimate(7), 8);
        sketch.halve();
        assert_eq!(sketch.estimate(7), 4);
        assert_eq!(sketch.bytes(), 4_096 * 8);
    }
}
