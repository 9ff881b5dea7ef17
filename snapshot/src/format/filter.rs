//! The filter of a block: which keys and prefixes are surely not in it (`FORMAT.md`, "Filter").
//!
//! A Bloom filter (Bloom, CACM 1970) with two hashes for all probes, by enhanced double hashing (Dillinger and Manolios,
//! *Bloom filters in probabilistic verification*, FMCAD 2004).

use twox_hash::XxHash3_64;

/// Bits for each key or prefix, and probes: about one in a hundred answers "perhaps" where it should say "no".
const BITS: usize = 10;
const PROBES: u64 = 7;
/// The shortest filter.
pub(crate) const FILTER_MIN: usize = 8;
/// Prefixes of one key that are noted.
const BOUNDARIES: usize = 4;
const KEY_SEED: u64 = 0;
const PREFIX_SEED: u64 = 1;

/// Lengths of the prefixes of `key` that are noted: up to and with each of the first separators.
fn boundaries(key: &str) -> impl DoubleEndedIterator<Item = usize> + Clone {
    let mut found = [0; BOUNDARIES];
    let mut count = 0;
    for (at, byte) in key.bytes().enumerate() {
        if matches!(byte, b'/' | b':' | b'.') {
            found[count] = at + 1;
            count += 1;
            if count == BOUNDARIES {
                break;
            }
        }
    }
    found.into_iter().take(count)
}

fn key_hash(key: &str) -> u64 {
    XxHash3_64::oneshot_with_seed(KEY_SEED, key.as_bytes())
}

fn prefix_hash(prefix: &str) -> u64 {
    XxHash3_64::oneshot_with_seed(PREFIX_SEED, prefix.as_bytes())
}

/// Gathers what a block holds.
#[derive(Debug, Default)]
pub(crate) struct FilterBuilder {
    hashes: Vec<u64>,
}

impl FilterBuilder {
    pub(crate) fn add(&mut self, key: &str) {
        self.hashes.push(key_hash(key));
        for len in boundaries(key) {
            self.hashes.push(prefix_hash(&key[..len]));
        }
    }

    /// The filter of everything added since the last one.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.hashes.sort_unstable();
        self.hashes.dedup();
        let len = (self.hashes.len() * BITS).div_ceil(8).max(FILTER_MIN);
        let mut filter = vec![0; len];
        for hash in self.hashes.drain(..) {
            for bit in probes(hash, len) {
                filter[bit / 8] |= 1 << (bit % 8);
            }
        }
        filter
    }
}

fn probes(hash: u64, len: usize) -> impl Iterator<Item = usize> {
    let bits = len as u64 * 8;
    let (first, step) = (hash & 0xffff_ffff, hash >> 32);
    (0..PROBES).map(move |i| ((first + i * step + (i * i * i - i) / 6) % bits) as usize)
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// This key alone.
    Key(&'a str),
    /// Every key that begins with this.
    Prefix(&'a str),
}

impl Wanted<'_> {
    /// Whether `key` is wanted.
    #[must_use]
    pub fn wants(self, key: &str) -> bool {
        match self {
            Self::Key(wanted) => key == wanted,
            Self::Prefix(prefix) => key.starts_with(prefix),
        }
    }

    /// What a filter is asked for; `None` when no filter can tell.
    pub(crate) fn probe(self) -> Option<u64> {
        match self {
            Self::Key(key) => Some(key_hash(key)),
            Self::Prefix(prefix) => {
                let longest = boundaries(prefix).next_back()?;
                Some(prefix_hash(&prefix[..longest]))
            }
        }
    }
}

/// False when a block with this filter surely has nothing of what `probe` stands for.
pub(crate) fn may_hold(filter: &[u8], probe: u64) -> bool {
    filter.is_empty()
        || probes(probe, filter.len()).all(|bit| filter[bit / 8] & 1 << (bit % 8) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_never_denied_and_what_was_not_seldom_affirmed() {
        let mut builder = FilterBuilder::default();
        let key = |n: u32| format!("tenant{}/user:{n}/profile", n % 7);
        (0..400).for_each(|n| builder.add(&key(n)));
        let filter = builder.take();
        for n in 0..400 {
            let key = key(n);
            let holds =
                |wanted: Wanted<'_>| wanted.probe().is_none_or(|probe| may_hold(&filter, probe));
            assert!(holds(Wanted::Key(&key)));
            for len in 0..=key.len() {
                assert!(holds(Wanted::Prefix(&key[..len])), "{}", &key[..len]);
            }
        }
        let wrong = (400..10_400)
            .filter(|&n| {
                may_hold(
                    &filter,
                    Wanted::Key(&key(n)).probe().expect("a key's probe"),
                )
            })
            .count();
        assert!(wrong < 300, "{wrong} of 10000 keys that are not there");
        let absent = Wanted::Prefix("tenant9/").probe().expect("a boundary");
        assert!(!may_hold(&filter, absent));
    }

    #[test]
    fn the_filter_is_the_one_of_the_document() {
        let document = include_str!("../../FORMAT.md");
        let (_, hex) = document.split_once("```hex filter\n").expect("the example");
        let (hex, _) = hex.split_once("```").expect("its end");
        let written: Vec<u8> = hex
            .split_whitespace()
            .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
            .collect();
        let mut builder = FilterBuilder::default();
        builder.add("a");
        assert_eq!(builder.take(), written);
    }
}
