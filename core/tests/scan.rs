//! A scan meets a lasting key exactly once, whatever is written meanwhile.

mod support;

use inflightkv_core::Slot;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use support::{Table, delete, hash, key_of, slot_of, table, write};

const NOW: u64 = 1_000;
/// Keys below this number are there from start to end; the others come and go.
const LASTING: usize = 40;

#[derive(Clone, Debug)]
enum Step {
    /// Gives a lasting key another value, also a larger one.
    Overwrite { key: usize, len: usize },
    /// Deletes a passing key, or creates it.
    Toggle { key: usize },
    /// Creates that many keys, so that the table grows.
    Grow { keys: usize },
    /// Makes room below the cursor: a removed and re-created key may land there.
    Clear { from: usize },
    /// Goes on with the scan.
    Scan { examine: usize, stop_after: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..LASTING, 0..3_000_usize).prop_map(|(key, len)| Step::Overwrite { key, len }),
        6 => (LASTING..120).prop_map(|key| Step::Toggle { key }),
        1 => (1..60_usize).prop_map(|keys| Step::Grow { keys }),
        1 => (LASTING..120).prop_map(|from| Step::Clear { from }),
        4 => (1..20_usize, 1..20_usize).prop_map(|(examine, stop_after)| Step::Scan { examine, stop_after }),
    ]
}

struct Scanned {
    table: Table,
    sequence: u64,
    cursor: Option<Slot>,
    met: BTreeMap<String, usize>,
    /// Passing keys that were there for some of the scan.
    passing: BTreeSet<String>,
}

fn name(key: usize) -> String {
    format!(
        "{}/{key}",
        if key < LASTING { "lasting" } else { "passing" }
    )
}

impl Scanned {
    /// Lasting keys between passing ones, some of which leave free slots behind.
    fn new(created: &[usize]) -> Self {
        let (cursor, met) = (Some(Slot::new(0)), BTreeMap::new());
        let mut scanned = Self {
            table: table(),
            sequence: 0,
            cursor,
            met,
            passing: BTreeSet::new(),
        };
        for key in created {
            scanned.write(&name(*key), 1);
        }
        scanned
    }

    fn write(&mut self, key: &str, len: usize) {
        self.sequence += 1;
        // The number makes every value another one.
        let value = format!("\"{}{}\"", self.sequence, "x".repeat(len));
        write(
            &mut self.table,
            self.sequence,
            key,
            value.as_bytes(),
            None,
            NOW,
        );
        if key.starts_with("passing") {
            self.passing.insert(key.to_owned());
        }
    }

    fn delete(&mut self, key: &str) {
        self.sequence += 1;
        delete(&mut self.table, self.sequence, key, NOW);
    }

    fn has(&self, key: &str) -> bool {
        self.table.get(key, hash(key), NOW).is_some()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Overwrite { key, len } => {
                let before = slot_of(&self.table, &name(key));
                self.write(&name(key), len);
                assert_eq!(
                    slot_of(&self.table, &name(key)),
                    before,
                    "a key keeps its slot"
                );
            }
            Step::Toggle { key } if self.has(&name(key)) => self.delete(&name(key)),
            Step::Toggle { key } => self.write(&name(key), 1),
            Step::Grow { keys } => {
                for _ in 0..keys {
                    self.write(&format!("passing/grown/{}", self.sequence), 1);
                }
            }
            Step::Clear { from } => {
                for key in (from..120).map(name) {
                    if self.has(&key) {
                        self.delete(&key);
                    }
                }
            }
            Step::Scan {
                examine,
                stop_after,
            } => self.scan(examine, stop_after),
        }
    }

    fn scan(&mut self, examine: usize, stop_after: usize) {
        let Some(from) = self.cursor else { return };
        let (mut items, met) = (0, &mut self.met);
        self.cursor = self.table.scan(from, examine, "", NOW, |entry| {
            items += 1;
            *met.entry(key_of(entry)).or_default() += 1;
            if items == stop_after {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert!(items <= examine.min(stop_after));
        assert!(
            self.cursor.is_none_or(|next| next > from),
            "a scan advances"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_lasting_key_is_met_exactly_once(
        created in Just((0..80).collect::<Vec<usize>>()).prop_shuffle(),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut scanned = Scanned::new(&created);
        for step in &steps {
            scanned.step(step);
        }
        while scanned.cursor.is_some() {
            scanned.scan(7, 5);
        }
        for key in (0..LASTING).map(name) {
            prop_assert_eq!(scanned.met.get(&key), Some(&1), "{} is there from start to end", key);
        }
        for key in scanned.met.keys() {
            prop_assert!(key.starts_with("lasting") || scanned.passing.contains(key), "{} never was there", key);
        }
    }
}

#[test]
fn a_scan_shows_only_its_prefix_and_what_is_visible() {
    let mut table = table();
    for (number, (key, expires_at)) in [
        ("a", None),
        ("a/1", None),
        ("a/2", Some(NOW + 1)),
        ("b/1", None),
        ("a/3", Some(NOW + 2)),
    ]
    .into_iter()
    .enumerate()
    {
        write(&mut table, number as u64 + 1, key, b"1", expires_at, NOW);
    }
    let scan = |prefix, now| {
        let mut keys = Vec::new();
        table.scan(Slot::new(0), usize::MAX, prefix, now, |entry| {
            keys.push(key_of(entry));
            ControlFlow::Continue(())
        });
        keys.sort();
        keys
    };
    assert_eq!(scan("", NOW), ["a", "a/1", "a/2", "a/3", "b/1"]);
    assert_eq!(scan("a/", NOW), ["a/1", "a/2", "a/3"]);
    assert_eq!(scan("a/", NOW + 1), ["a/1", "a/3"]);
    assert_eq!(scan("a/", NOW + 2), ["a/1"]);
    assert_eq!(scan("c", NOW), [] as [&str; 0]);
}

/// Cursors come back from clients: one beyond the end is the end, and no more slots are looked at than allowed.
#[test]
fn a_scan_is_bounded_and_ends_at_the_end() {
    let mut table = table();
    for number in 1..=10 {
        write(&mut table, number, &format!("k{number}"), b"1", None, NOW);
    }
    let count = |from, examine_max, prefix: &str| {
        let mut count = 0;
        let next = table.scan(Slot::new(from), examine_max, prefix, NOW, |_| {
            count += 1;
            ControlFlow::Continue(())
        });
        (count, next.map(Slot::get))
    };
    assert_eq!(count(0, 10, ""), (10, None));
    assert_eq!(count(0, 4, ""), (4, Some(4)));
    assert_eq!(count(0, 4, "no key has this"), (0, Some(4)));
    assert_eq!(count(0, 9, ""), (9, Some(9)));
    assert_eq!(count(8, 4, ""), (2, None));
    assert_eq!(count(10, 4, ""), (0, None));
    assert_eq!(count(u32::MAX, usize::MAX, ""), (0, None));
}
