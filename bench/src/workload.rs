//! What is asked of a server: keys, values and operations, all from one seed.

use crate::cli::Mix;

/// `key:` and twelve digits.
pub(crate) const KEY_BYTES: usize = 16;
const PREFIX: &[u8; 4] = b"key:";

const HEAD: &[u8] = br#"{"rev":""#;
const MIDDLE: &[u8] = br#"","data":""#;
const TAIL: &[u8] = br#""}"#;
const REVISION_BYTES: usize = 16;
/// The members' names, quotes and the revision have to fit.
pub(crate) const VALUE_BYTES_MIN: usize = HEAD.len() + REVISION_BYTES + MIDDLE.len() + TAIL.len();

/// Enough that neighbouring values rarely share their text, little enough for the processor's cache.
const POOL_BYTES: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    Put,
}

pub(crate) type Key = [u8; KEY_BYTES];

/// The key with this number, `key:000000000042`. Numbers above twelve digits lose their front.
pub(crate) fn key(number: u64) -> Key {
    let mut key = [b'0'; KEY_BYTES];
    key[..PREFIX.len()].copy_from_slice(PREFIX);
    let mut rest = number;
    for digit in key[PREFIX.len()..].iter_mut().rev() {
        *digit += u8::try_from(rest % 10).expect("a remainder of ten is a digit");
        rest /= 10;
    }
    key
}

/// Text that values take their content from.
#[derive(Debug)]
pub(crate) struct Values {
    pool: Vec<u8>,
    bytes: usize,
}

impl Values {
    /// Values of `bytes` bytes (at least [`VALUE_BYTES_MIN`]).
    pub(crate) fn new(bytes: usize, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let content = bytes.saturating_sub(VALUE_BYTES_MIN);
        let pool = (0..POOL_BYTES + content)
            .map(|_| random.alphanumeric() as u8)
            .collect();
        Self {
            pool,
            bytes: VALUE_BYTES_MIN + content,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a JSON document with a random revision, so that no write repeats what is stored: writing the
    /// same bytes again would measure a no-op.
    pub(crate) fn append(&self, random: &mut fastrand::Rng, out: &mut Vec<u8>) {
        let revision = random.u64(..);
        out.extend_from_slice(HEAD);
        for shift in (0..REVISION_BYTES).rev() {
            out.push(b"0123456789abcdef"[(revision >> (4 * shift)) as usize & 15]);
        }
        out.extend_from_slice(MIDDLE);
        let start = random.usize(..POOL_BYTES);
        out.extend_from_slice(&self.pool[start..start + self.bytes - VALUE_BYTES_MIN]);
        out.extend_from_slice(TAIL);
    }
}

/// In which order keys are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Each with the same chance.
    Uniform,
    /// `first`, `first + step`, …: workers with the same step and different firsts meet every key once.
    Every { first: u64, step: u64 },
}

/// One worker's sequence of questions.
#[derive(Debug)]
pub(crate) struct Questions {
    random: fastrand::Rng,
    keys: u64,
    order: Order,
    asked: u64,
    reads_percent: u8,
}

impl Questions {
    pub(crate) fn new(seed: u64, keys: u64, order: Order, mix: Mix, reads_percent: u8) -> Self {
        let reads_percent = match mix {
            Mix::Get => 100,
            Mix::Put => 0,
            Mix::Mixed => reads_percent,
        };
        Self {
            random: fastrand::Rng::with_seed(seed),
            keys,
            order,
            asked: 0,
            reads_percent,
        }
    }

    pub(crate) fn next(&mut self) -> (Operation, Key) {
        let number = match self.order {
            Order::Uniform => self.random.u64(..self.keys),
            Order::Every { first, step } => {
                first.wrapping_add(self.asked.wrapping_mul(step)) % self.keys
            }
        };
        self.asked += 1;
        let operation = match self.reads_percent {
            100 => Operation::Get,
            0 => Operation::Put,
            percent if self.random.u8(..100) < percent => Operation::Get,
            _ => Operation::Put,
        };
        (operation, key(number))
    }

    pub(crate) fn random(&mut self) -> &mut fastrand::Rng {
        &mut self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keys_are_sixteen_bytes_and_differ() {
        assert_eq!(&key(0), b"key:000000000000");
        assert_eq!(&key(42), b"key:000000000042");
        assert_eq!(&key(999_999_999_999), b"key:999999999999");
    }

    #[test]
    fn values_are_json_of_the_size_asked_for_and_never_repeat() {
        for bytes in [VALUE_BYTES_MIN, 100, 5000] {
            let values = Values::new(bytes, 7);
            let mut random = fastrand::Rng::with_seed(7);
            let mut seen = HashSet::new();
            for _ in 0..200 {
                let mut value = Vec::new();
                values.append(&mut random, &mut value);
                assert_eq!(value.len(), bytes);
                serde_json::from_slice::<serde_json::Value>(&value).expect("a value is JSON");
                assert!(seen.insert(value), "a value repeated itself");
            }
        }
    }

    #[test]
    fn workers_that_step_over_each_other_meet_every_key_once() {
        let mut seen = HashSet::new();
        for first in 0..3 {
            let mut questions = Questions::new(1, 10, Order::Every { first, step: 3 }, Mix::Put, 0);
            for _ in (first..10).step_by(3) {
                assert!(seen.insert(questions.next().1));
            }
        }
        assert_eq!(seen.len(), 10);
    }

    #[test]
    fn a_mix_has_about_its_share_of_reads() {
        let mut questions = Questions::new(3, 10, Order::Uniform, Mix::Mixed, 80);
        let reads = (0..10_000)
            .filter(|_| questions.next().0 == Operation::Get)
            .count();
        assert!((7_700..8_300).contains(&reads), "{reads} of 10000, seed 3");
    }
}
