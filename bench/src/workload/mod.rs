//! What is asked of a server: keys, values and operations, all from one seed.

pub(crate) mod mix;
mod zipf;

use crate::cli::{Content, Data};
use crate::workload::mix::spread;

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

/// Text that values take their content from, and how much each takes.
#[derive(Debug)]
pub(crate) struct Values {
    pool: Vec<u8>,
    bytes: usize,
    large_bytes: usize,
    large_percent: u8,
}

impl Values {
    pub(crate) fn new(data: &Data) -> Self {
        let mut random = fastrand::Rng::with_seed(data.seed);
        let bytes = data.value_bytes.max(VALUE_BYTES_MIN);
        let large_bytes = data.large_bytes.max(VALUE_BYTES_MIN);
        let largest = match data.large_percent {
            0 => bytes,
            _ => bytes.max(large_bytes),
        };
        let pool = pool(
            data.content,
            POOL_BYTES + largest - VALUE_BYTES_MIN,
            &mut random,
        );
        Self {
            pool,
            bytes,
            large_bytes,
            large_percent: data.large_percent,
        }
    }

    /// The size of the value of the key with this number; it is always the same.
    pub(crate) fn bytes(&self, number: u64) -> usize {
        if self.large_percent > 0 && spread(number) % 100 < u64::from(self.large_percent) {
            self.large_bytes
        } else {
            self.bytes
        }
    }

    /// Appends a JSON document with a random revision, so that no write repeats what is stored: writing the
    /// same bytes again would measure a no-op.
    pub(crate) fn append(&self, number: u64, random: &mut fastrand::Rng, out: &mut Vec<u8>) {
        out.extend_from_slice(HEAD);
        append_revision(random, out);
        out.extend_from_slice(MIDDLE);
        let start = random.usize(..POOL_BYTES);
        let content = self.bytes(number) - VALUE_BYTES_MIN;
        out.extend_from_slice(&self.pool[start..start + content]);
        out.extend_from_slice(TAIL);
    }
}

/// Words that are common in English and need no escape in JSON.
const WORDS: &str = "the of and to in is you that it he was for on are as with his they at be this have from or one had by \
    word but not what all were we when your can said there use each which she do how their if will up other about out many \
    then them these so some her would make like him into time has look two more write go see number no way could people";

fn pool(content: Content, bytes: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    match content {
        Content::Random => (0..bytes).map(|_| random.alphanumeric() as u8).collect(),
        Content::Words => {
            let words: Vec<&str> = WORDS.split_whitespace().collect();
            let mut pool = Vec::with_capacity(bytes + 16);
            while pool.len() < bytes {
                pool.extend_from_slice(words[random.usize(..words.len())].as_bytes());
                pool.push(b' ');
            }
            pool.truncate(bytes);
            pool
        }
    }
}

/// Bytes of the document that [`append_patch`] appends.
pub(crate) const PATCH_BYTES: usize = HEAD.len() + REVISION_BYTES + TAIL.len();

/// Appends a merge patch that gives the value another revision, of the same length.
pub(crate) fn append_patch(random: &mut fastrand::Rng, out: &mut Vec<u8>) {
    out.extend_from_slice(HEAD);
    append_revision(random, out);
    out.extend_from_slice(TAIL);
}

fn append_revision(random: &mut fastrand::Rng, out: &mut Vec<u8>) {
    let revision = random.u64(..);
    for shift in (0..REVISION_BYTES).rev() {
        out.push(b"0123456789abcdef"[(revision >> (4 * shift)) as usize & 15]);
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
        for (bytes, content) in [
            (VALUE_BYTES_MIN, Content::Random),
            (100, Content::Random),
            (400, Content::Words),
            (5000, Content::Words),
        ] {
            let values = Values::new(&Data {
                content,
                ..Data::new(10, bytes, 7)
            });
            let mut random = fastrand::Rng::with_seed(7);
            let mut seen = HashSet::new();
            for _ in 0..200 {
                let mut value = Vec::new();
                values.append(1, &mut random, &mut value);
                assert_eq!(value.len(), bytes);
                serde_json::from_slice::<serde_json::Value>(&value).expect("a value is JSON");
                assert!(seen.insert(value), "a value repeated itself");
            }
        }
    }

    #[test]
    fn some_values_are_large_and_always_the_same_ones() {
        let data = Data {
            large_bytes: 3_000,
            large_percent: 10,
            ..Data::new(10_000, 100, 7)
        };
        let values = Values::new(&data);
        let large = (0..10_000)
            .filter(|&number| values.bytes(number) == 3_000)
            .count();
        assert!((800..1_200).contains(&large), "{large} of 10000");
        let mut random = fastrand::Rng::with_seed(7);
        for number in 0..100 {
            let mut value = Vec::new();
            values.append(number, &mut random, &mut value);
            assert_eq!(value.len(), values.bytes(number));
        }
    }

    #[test]
    fn a_patch_changes_the_revision_and_not_the_length() {
        let (mut random, mut out) = (fastrand::Rng::with_seed(7), Vec::new());
        append_patch(&mut random, &mut out);
        assert_eq!(out.len(), PATCH_BYTES);
        let patch: serde_json::Value = serde_json::from_slice(&out).expect("a patch is JSON");
        assert_eq!(patch["rev"].as_str().map(str::len), Some(REVISION_BYTES));
    }
}
