//! Fingerprints of what was let go: whether a key was here lately, in 8 bytes a key.
//!
//! A table of small buckets, without links: an entry is old when so many others were put after it, and old ones make room.
//! Two keys with the same fingerprint are taken for one, once in billions.

/// Entries of one bucket, which share a line of the processor's cache.
const BUCKET: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    /// 0 where nothing is remembered.
    fingerprint: u32,
    /// How many had been put before, in its low bits.
    at: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Ghost {
    /// A power of two of them, or none.
    buckets: Vec<[Memory; BUCKET]>,
    put: u32,
    /// How many puts an entry is remembered for.
    span: u32,
}

/// Half of the key's hash, mixed so that neighbours differ in every bit; never 0.
pub(crate) fn fingerprint(hash: u64) -> u32 {
    ((hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32).max(1)
}

impl Ghost {
    fn bucket(&self, fingerprint: u32) -> usize {
        fingerprint as usize & (self.buckets.len() - 1)
    }

    /// How many were put after it; more than any number for a place where nothing is.
    fn age(&self, memory: Memory) -> u64 {
        match memory.fingerprint {
            0 => u64::MAX,
            _ => u64::from(self.put.wrapping_sub(memory.at)),
        }
    }

    fn lasts(&self, memory: Memory) -> bool {
        self.age(memory) <= u64::from(self.span)
    }

    /// Remembers `fingerprint` until `span` others were put.
    pub(crate) fn put(&mut self, fingerprint: u32, span: usize) {
        self.span = u32::try_from(span).unwrap_or(u32::MAX / 2).max(1);
        // A quarter of room, because buckets do not fill evenly.
        let wanted = (span + span / 4)
            .div_ceil(BUCKET)
            .max(1)
            .next_power_of_two();
        if wanted > self.buckets.len() || wanted * 4 < self.buckets.len() {
            self.resize(wanted);
        }
        self.put = self.put.wrapping_add(1);
        let new = Memory {
            fingerprint,
            at: self.put,
        };
        self.store(new);
    }

    fn store(&mut self, new: Memory) {
        let bucket = self.bucket(new.fingerprint);
        let oldest = (0..BUCKET).max_by_key(|&place| self.age(self.buckets[bucket][place]));
        if let Some(place) = oldest {
            self.buckets[bucket][place] = new;
        }
    }

    fn resize(&mut self, buckets: usize) {
        let old = std::mem::replace(
            &mut self.buckets,
            vec![[Memory::default(); BUCKET]; buckets],
        );
        for memory in old.into_iter().flatten() {
            if self.lasts(memory) {
                self.store(memory);
            }
        }
    }

    /// Whether `fingerprint` is remembered; it is forgotten by that.
    pub(crate) fn take(&mut self, fingerprint: u32) -> bool {
        if self.buckets.is_empty() {
            return false;
        }
        let bucket = self.bucket(fingerprint);
        let found = (0..BUCKET).find(|&place| {
            let memory = self.buckets[bucket][place];
            memory.fingerprint == fingerprint && self.lasts(memory)
        });
        if let Some(place) = found {
            self.buckets[bucket][place] = Memory::default();
        }
        found.is_some()
    }

    /// Heap bytes held, exactly.
    pub(crate) fn bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<[Memory; BUCKET]>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_for_about_its_span_and_no_longer() {
        let mut ghost = Ghost::default();
        for key in 0..10_000_u64 {
            ghost.put(fingerprint(key), 1_000);
        }
        let lately = (9_001..10_000).filter(|key| ghost.take(fingerprint(*key)));
        assert!(lately.count() > 950);
        let long_ago = (0..8_999).filter(|key| ghost.take(fingerprint(*key)));
        assert_eq!(long_ago.count(), 0);
        assert!(!ghost.take(fingerprint(9_999)), "taken before");
    }

    #[test]
    fn growing_and_shrinking_forget_nothing_that_lasts() {
        let mut ghost = Ghost::default();
        for key in 0..100_u64 {
            ghost.put(fingerprint(key), 100);
        }
        for key in 100..200_u64 {
            ghost.put(fingerprint(key), 5_000);
        }
        let known = (101..200).filter(|key| ghost.take(fingerprint(*key)));
        assert_eq!(known.count(), 99);
        ghost.put(1, 1);
        assert!(ghost.bytes() <= 16 * 8 * BUCKET);
    }
}
