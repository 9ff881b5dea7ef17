//! A frozen partition walks out as it was at the cut, and lets go of everything it kept.

mod support;

use inflightkv_core::{Entry, FrozenItem, Sequence, Slot, WalkState};
use std::ops::ControlFlow;
use support::{Table, delete, key_of, sequence, slot_of, table, write};

const NOW: u64 = 1_000;

/// Ten keys, `k0` to `k9`, with sequences from 1; `k5` expires one millisecond from now.
fn ten() -> Table {
    let mut table = table();
    for number in 0..10 {
        let expires_at = (number == 5).then_some(NOW + 1);
        write(
            &mut table,
            number + 1,
            &format!("k{number}"),
            b"1",
            expires_at,
            NOW,
        );
    }
    table
}

fn evict(table: &mut Table, number: u64, key: &str) -> bool {
    let slot = slot_of(table, key).expect("it is there");
    let mutation = table.evict(slot).expect("it is there");
    table.apply(mutation, sequence(number)).released
}

fn expire(table: &mut Table, key: &str, now: u64) -> bool {
    let slot = slot_of(table, key).expect("it is there");
    table
        .expire(slot, now)
        .is_some_and(|reclaimed| reclaimed.released)
}

/// What is left of a walk, sorted: entries as `key=value@sequence`, removals as `key-@sequence`.
fn rest(table: &mut Table) -> Vec<String> {
    let (mut items, mut spent) = (Vec::new(), Vec::new());
    while slice(table, 3, &mut items, &mut spent) == WalkState::More {}
    items.sort();
    items
}

fn slice(
    table: &mut Table,
    budget: usize,
    items: &mut Vec<String>,
    spent: &mut Vec<Entry>,
) -> WalkState {
    table.walk(budget, spent, |item| {
        items.push(match item {
            FrozenItem::Entry(entry) => {
                let value = String::from_utf8_lossy(entry.stored());
                format!("{}={value}@{}", key_of(entry), entry.sequence())
            }
            FrozenItem::Tombstone { key, sequence } => format!("{key}-@{sequence}"),
        });
        ControlFlow::Continue(())
    })
}

/// Every way out of the table, before the walk came by and after it.
#[test]
fn what_leaves_during_a_walk_is_met_once_as_it_was() {
    let at_the_cut: Vec<_> = (0..10)
        .map(|number| format!("k{number}=1@{}", number + 1))
        .collect();
    type Leave = fn(&mut Table, &str) -> bool;
    let ways: [(&str, Leave); 5] = [
        ("replaced", |table, key| {
            write(table, 11, key, b"2", None, NOW)
        }),
        ("deleted", |table, key| delete(table, 11, key, NOW)),
        ("evicted", |table, key| evict(table, 11, key)),
        ("expired", |table, key| expire(table, key, NOW + 1)),
        ("replaced when expired", |table, key| {
            write(table, 11, key, b"2", None, NOW + 1)
        }),
    ];
    for (way, leave) in ways {
        for walked in 0..=10 {
            let mut table = ten();
            table.freeze(sequence(10), None);
            let (mut items, mut spent) = (Vec::new(), Vec::new());
            slice(&mut table, walked, &mut items, &mut spent);
            assert_eq!(items.len(), walked);

            let released = leave(&mut table, "k5");
            let is_walked = walked > 5;
            assert_eq!(
                released, is_walked,
                "{way} after {walked}: released or kept"
            );
            // Whatever takes its place is not of the cut.
            write(&mut table, 12, "k5", b"3", None, NOW);
            write(&mut table, 13, "new", b"4", None, NOW);
            while slice(&mut table, 1, &mut items, &mut spent) == WalkState::More {}
            items.sort();
            assert_eq!(items, at_the_cut, "{way} after {walked}");
            assert_eq!(
                spent.len(),
                usize::from(!is_walked),
                "{way} after {walked}: what was kept is given out"
            );
        }
    }
}

/// What was overwritten stays only until it is walked, and is counted as long.
#[test]
fn kept_memory_is_counted_and_given_back() {
    let mut table = table();
    let large = "x".repeat(1_000);
    for number in 0..100 {
        write(
            &mut table,
            number + 1,
            &format!("k{number}"),
            large.as_bytes(),
            None,
            NOW,
        );
    }
    assert_eq!(table.stats().frozen_bytes, 0);
    table.freeze(sequence(100), None);
    let empty = table.stats().frozen_bytes;
    assert!(empty < 256, "a freeze itself costs {empty} bytes");

    for number in 0..60 {
        write(
            &mut table,
            number + 101,
            &format!("k{number}"),
            b"1",
            None,
            NOW,
        );
    }
    let kept = table.stats().frozen_bytes - empty;
    assert!((60 * 1_020..60 * 1_020 + 4_096).contains(&kept), "{kept}");

    // Pre-images first: memory comes down from the first slice on.
    let (mut items, mut spent) = (Vec::new(), Vec::new());
    slice(&mut table, 30, &mut items, &mut spent);
    assert_eq!(spent.len(), 30);
    let kept = table.stats().frozen_bytes - empty;
    assert!((30 * 1_020..30 * 1_020 + 4_096).contains(&kept), "{kept}");
    while slice(&mut table, 30, &mut items, &mut spent) == WalkState::More {}
    assert_eq!((items.len(), spent.len()), (100, 60));
    assert!(table.stats().frozen_bytes - empty < 4_096);
    table.thaw();
    assert_eq!(table.stats().frozen_bytes, 0);
}

#[test]
fn a_walk_does_no_more_than_its_budget_and_stops_where_it_is_told() {
    let mut table = ten();
    for number in (0..10).filter(|number| number % 2 == 0) {
        evict(&mut table, 11 + number, &format!("k{number}"));
    }
    table.freeze(sequence(20), None);
    let (mut items, mut spent) = (Vec::new(), Vec::new());
    assert_eq!(
        slice(&mut table, 0, &mut items, &mut spent),
        WalkState::More
    );
    // Empty slots count: a slice over a sparse table is as short as any.
    assert_eq!(
        slice(&mut table, 4, &mut items, &mut spent),
        WalkState::More
    );
    assert_eq!(items, ["k1=1@2", "k3=1@4"]);

    let mut met = Vec::new();
    let state = table.walk(100, &mut spent, |item| {
        if let FrozenItem::Entry(entry) = item {
            met.push(key_of(entry));
        }
        ControlFlow::Break(())
    });
    assert_eq!((state, met), (WalkState::More, vec!["k5".to_owned()]));
    assert_eq!(rest(&mut table), ["k7=1@8", "k9=1@10"]);
    assert_eq!(
        slice(&mut table, 1, &mut items, &mut spent),
        WalkState::Done,
        "done stays done"
    );
    table.thaw();
    assert_eq!(
        slice(&mut table, 1, &mut items, &mut spent),
        WalkState::Done,
        "not frozen is done"
    );
}

#[test]
fn an_increment_holds_what_changed_and_what_was_removed() {
    let mut table = ten();
    table.keep_tombstones(true);
    table.freeze(sequence(10), None);
    assert_eq!(rest(&mut table).len(), 10);
    table.thaw();
    table.forget_tombstones(sequence(10));

    write(&mut table, 11, "k1", b"2", None, NOW);
    delete(&mut table, 12, "k2", NOW);
    evict(&mut table, 13, "k3");
    delete(&mut table, 14, "k4", NOW);
    write(&mut table, 15, "k4", b"2", None, NOW);
    write(&mut table, 16, "new", b"2", None, NOW);
    table.freeze(sequence(16), Some(sequence(10)));
    // After the cut: none of it belongs to this increment.
    delete(&mut table, 17, "k1", NOW);
    delete(&mut table, 18, "k0", NOW);
    write(&mut table, 19, "new", b"3", None, NOW);
    let increment = rest(&mut table);
    assert_eq!(
        increment,
        [
            "k1=2@11", "k2-@12", "k3-@13", "k4-@14", "k4=2@15", "new=2@16"
        ]
    );
    table.thaw();
    table.forget_tombstones(sequence(16));

    table.freeze(sequence(19), Some(sequence(16)));
    assert_eq!(rest(&mut table), ["k0-@18", "k1-@17", "new=3@19"]);
    table.thaw();

    // A full one needs no removals, though they are remembered.
    table.freeze(sequence(19), None);
    assert!(rest(&mut table).iter().all(|item| !item.contains('-')));
}

/// The base has a value that lasts. It was overwritten by one that expires, and reclaimed before the next snapshot: the
/// increment names nothing of that key, and a restart brought the old value back.
#[test]
fn a_key_that_expired_between_two_snapshots_does_not_come_back() {
    let mut table = ten();
    table.keep_tombstones(true);
    table.freeze(sequence(10), None);
    assert_eq!(rest(&mut table).len(), 10);
    table.thaw();
    table.forget_tombstones(sequence(10));

    write(&mut table, 11, "k0", b"2", Some(NOW + 1), NOW);
    delete(&mut table, 12, "k1", NOW);
    assert!(!expire(&mut table, "k0", NOW), "not before its instant");
    assert!(expire(&mut table, "k0", NOW + 1));
    // In the base with its expiry, so there is nothing to add.
    assert!(expire(&mut table, "k5", NOW + 1));

    table.freeze(sequence(12), Some(sequence(10)));
    let increment = rest(&mut table);
    let removed = |key: &str| {
        increment
            .iter()
            .filter(|item| item.starts_with(&format!("{key}-@")))
            .count()
    };
    assert_eq!(
        (removed("k0"), removed("k1"), removed("k5")),
        (1, 1, 0),
        "{increment:?}"
    );

    // What is written after it has expired is newer than its removal, so that both may stand in one increment.
    table.thaw();
    write(&mut table, 13, "k0", b"3", None, NOW + 1);
    table.freeze(sequence(13), Some(sequence(10)));
    let increment = rest(&mut table);
    assert!(increment.contains(&"k0=3@13".to_owned()), "{increment:?}");
    assert!(!increment.contains(&"k0-@13".to_owned()), "{increment:?}");
}

#[test]
fn freezing_again_starts_over_with_the_new_cut() {
    let mut table = ten();
    table.freeze(sequence(10), None);
    let (mut items, mut spent) = (Vec::new(), Vec::new());
    slice(&mut table, 4, &mut items, &mut spent);
    delete(&mut table, 11, "k9", NOW);
    write(&mut table, 12, "k0", b"2", None, NOW);
    table.freeze(sequence(12), None);
    let all = rest(&mut table);
    assert_eq!(all.len(), 9);
    assert!(all.contains(&"k0=2@12".to_owned()) && !all.iter().any(|item| item.starts_with("k9")));
}

#[test]
fn tombstones_are_counted_until_they_are_forgotten() {
    let mut table = ten();
    delete(&mut table, 11, "k0", NOW);
    assert_eq!(table.stats().tombstone_bytes, 0, "not kept unless asked");
    table.keep_tombstones(true);
    delete(&mut table, 12, "k1", NOW);
    evict(&mut table, 13, "k2");
    delete(&mut table, 14, "k3", NOW);
    assert_eq!(table.stats().tombstone_bytes, 3 * (24 + 2));
    table.forget_tombstones(sequence(12));
    assert_eq!(table.stats().tombstone_bytes, 2 * (24 + 2));
    table.forget_tombstones(sequence(12));
    assert_eq!(table.stats().tombstone_bytes, 2 * (24 + 2));
    table.freeze(sequence(14), Some(sequence(12)));
    let removed = rest(&mut table)
        .into_iter()
        .filter(|item| item.contains('-'));
    assert_eq!(removed.collect::<Vec<_>>(), ["k2-@13", "k3-@14"]);
    table.thaw();
    // Also before they are forgotten, an increment has only those after its base.
    table.freeze(sequence(14), Some(sequence(13)));
    let removed = rest(&mut table)
        .into_iter()
        .filter(|item| item.contains('-'));
    assert_eq!(removed.collect::<Vec<_>>(), ["k3-@14"]);
    table.thaw();
    table.keep_tombstones(false);
    assert_eq!(table.stats().tombstone_bytes, 0);
}

/// The promise is kept for any sequence, not for those near zero only.
#[test]
fn the_largest_sequence_is_frozen_too() {
    let mut table = table();
    let last = Sequence::MAX.get();
    write(&mut table, last - 1, "a", b"1", None, NOW);
    table.freeze(sequence(last - 1), None);
    write(&mut table, last, "a", b"2", None, NOW);
    write(&mut table, last, "b", b"2", None, NOW);
    assert_eq!(rest(&mut table), [format!("a=1@{}", last - 1)]);
    assert_eq!(table.slot_end(), Slot::new(2));
}
