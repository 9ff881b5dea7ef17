//! Every condition against every state and every operation, the outcomes written out.

mod support;

use inflightkv_core::{
    CodedShare, Coding, Compared, Conditions, Current, Decision, Draft, DraftValue, Entry,
    EntryView, EtagCondition, FailedCondition, LoadedEntry, Operation, Outcome, Patch, PatchError,
    PatchExpiry, PatchKind, PatchLimits, Prepared, PutExpiry, Sequence, Slot, VERSION_MAX,
    VersionCondition,
};
use std::ops::ControlFlow;
use support::{
    Table, WIDE, decide, delete, draft, draft_as, hash, patch, put, sequence, table, write,
};

const NOW: u64 = 1_000;
const STORED: &[u8] = br#"{"a":1}"#;

const STATES: [&str; 6] = [
    "missing",
    "deleted",
    "expired",
    "v0 @10",
    "v3 @13",
    "v0 @20, again",
];
const OPERATIONS: [&str; 5] = ["put", "put the same", "merge", "JSON Patch", "delete"];

/// A table whose key `k` is in the state of that name.
fn in_state(state: &str) -> Table {
    let mut table = table();
    match state {
        "missing" => {}
        "deleted" => {
            write(&mut table, 10, "k", STORED, None, NOW);
            delete(&mut table, 11, "k", NOW);
        }
        "expired" => {
            write(&mut table, 10, "k", STORED, Some(NOW), NOW - 1);
        }
        "v0 @10" => {
            write(&mut table, 10, "k", STORED, None, NOW);
        }
        "v3 @13" => {
            for number in 10..13 {
                write(
                    &mut table,
                    number,
                    "k",
                    number.to_string().as_bytes(),
                    None,
                    NOW,
                );
            }
            write(&mut table, 13, "k", STORED, None, NOW);
        }
        "v0 @20, again" => {
            write(&mut table, 10, "k", STORED, None, NOW);
            delete(&mut table, 19, "k", NOW);
            write(&mut table, 20, "k", STORED, None, NOW);
        }
        _ => unreachable!("{state}"),
    }
    table
}

fn operation(name: &str) -> Operation<'static> {
    match name {
        "put" => put(draft("k", br#"{"a":2}"#, None)),
        "put the same" => put(draft("k", STORED, None)),
        "merge" => patch(PatchKind::Merge, br#"{"b":1}"#),
        "JSON Patch" => patch(PatchKind::Json, br#"[{"op":"add","path":"/b","value":1}]"#),
        "delete" => Operation::Delete,
        _ => unreachable!("{name}"),
    }
}

/// Written as a client would: `if-match`, `if-version`, `if-none-match`, each with its value.
fn conditions(text: &str) -> (Vec<Sequence>, Vec<Sequence>, Vec<&str>) {
    let (mut matches, mut none_matches) = (Vec::new(), Vec::new());
    let words: Vec<_> = text.split_whitespace().collect();
    for word in &words {
        let (name, value) = word.split_once('=').expect("name=value");
        let tags = match name {
            "if-match" => &mut matches,
            "if-none-match" => &mut none_matches,
            _ => continue,
        };
        tags.extend(
            value
                .split(',')
                .filter_map(|tag| tag.parse().ok())
                .map(sequence),
        );
    }
    (matches, none_matches, words)
}

fn decide_under(table: &Table, text: &str, operation: Operation<'_>) -> Decision {
    let (matches, none_matches, words) = conditions(text);
    let mut conditions = Conditions::default();
    for word in words {
        let (name, value) = word.split_once('=').expect("name=value");
        let etags = |tags| {
            if value == "*" {
                EtagCondition::Any
            } else {
                EtagCondition::OneOf(tags)
            }
        };
        match name {
            "if-match" => conditions.if_match = Some(etags(&matches)),
            "if-none-match" => conditions.if_none_match = Some(etags(&none_matches)),
            "if-version" => {
                conditions.version = Some(match value {
                    "-1" => VersionCondition::Absent,
                    version => VersionCondition::Is(version.parse().expect("a version")),
                });
            }
            _ => unreachable!("{name}"),
        }
    }
    decide(table, "k", conditions, operation, NOW)
}

/// Rows: conditions. Columns: `STATES`. A cell has one letter for each of `OPERATIONS`:
/// `+` created, `~` changed, `=` unchanged, `x` deleted, `0` missing; conflicts: `m` `If-Match`, `v` `ifVersion`,
/// `n` `If-None-Match`.
#[rustfmt::skip]
const TABLE: &[(&str, [&str; 6])] = &[
    //                                           missing  deleted  expired  v0 @10   v3 @13   v0 @20
    ("",                                        ["+++00", "+++00", "+++00", "~=~~x", "~=~~x", "~=~~x"]),

    ("if-version=-1",                           ["+++00", "+++00", "+++00", "vvvvv", "vvvvv", "vvvvv"]),
    ("if-version=0",                            ["vvvv0", "vvvv0", "vvvv0", "~=~~x", "vvvvv", "~=~~x"]),
    ("if-version=3",                            ["vvvv0", "vvvv0", "vvvv0", "vvvvv", "~=~~x", "vvvvv"]),
    ("if-version=4",                            ["vvvv0", "vvvv0", "vvvv0", "vvvvv", "vvvvv", "vvvvv"]),

    ("if-match=*",                              ["mmmmm", "mmmmm", "mmmmm", "~=~~x", "~=~~x", "~=~~x"]),
    ("if-match=10",                             ["mmmmm", "mmmmm", "mmmmm", "~=~~x", "mmmmm", "mmmmm"]),
    ("if-match=11",                             ["mmmmm", "mmmmm", "mmmmm", "mmmmm", "mmmmm", "mmmmm"]),
    ("if-match=13",                             ["mmmmm", "mmmmm", "mmmmm", "mmmmm", "~=~~x", "mmmmm"]),
    ("if-match=20",                             ["mmmmm", "mmmmm", "mmmmm", "mmmmm", "mmmmm", "~=~~x"]),
    ("if-match=13,10",                          ["mmmmm", "mmmmm", "mmmmm", "~=~~x", "~=~~x", "mmmmm"]),
    ("if-match=",                               ["mmmmm", "mmmmm", "mmmmm", "mmmmm", "mmmmm", "mmmmm"]),

    ("if-none-match=*",                         ["+++00", "+++00", "+++00", "nnnnn", "nnnnn", "nnnnn"]),
    ("if-none-match=10",                        ["+++00", "+++00", "+++00", "nnnnn", "~=~~x", "~=~~x"]),
    ("if-none-match=13,10",                     ["+++00", "+++00", "+++00", "nnnnn", "nnnnn", "~=~~x"]),
    ("if-none-match=",                          ["+++00", "+++00", "+++00", "~=~~x", "~=~~x", "~=~~x"]),

    // The first that fails is named: If-Match, then ifVersion, then If-None-Match.
    ("if-match=10 if-version=3",                ["mmmmm", "mmmmm", "mmmmm", "vvvvv", "mmmmm", "mmmmm"]),
    ("if-match=* if-version=-1",                ["mmmmm", "mmmmm", "mmmmm", "vvvvv", "vvvvv", "vvvvv"]),
    ("if-match=* if-none-match=*",              ["mmmmm", "mmmmm", "mmmmm", "nnnnn", "nnnnn", "nnnnn"]),
    ("if-version=-1 if-none-match=*",           ["+++00", "+++00", "+++00", "vvvvv", "vvvvv", "vvvvv"]),
    ("if-version=3 if-none-match=13",           ["vvvv0", "vvvv0", "vvvv0", "vvvvv", "nnnnn", "vvvvv"]),
    ("if-match=10 if-version=0 if-none-match=13", ["mmmmm", "mmmmm", "mmmmm", "~=~~x", "mmmmm", "mmmmm"]),
    ("if-match=20 if-version=0 if-none-match=*",  ["mmmmm", "mmmmm", "mmmmm", "mmmmm", "mmmmm", "nnnnn"]),
];

#[test]
fn every_condition_meets_every_state_and_operation() {
    for (text, row) in TABLE {
        for (state, cell) in STATES.into_iter().zip(row) {
            for (name, expected) in OPERATIONS.into_iter().zip(cell.chars()) {
                check(text, state, name, expected);
            }
        }
    }
}

fn check(text: &str, state: &str, name: &str, expected: char) {
    let case = format!("{name} [{text}] on {state}");
    let table = in_state(state);
    let (current, observed) = match state {
        "missing" => (None, 0),
        "expired" => (None, 10),
        "deleted" => (None, 11),
        "v0 @10" => (Some((0, 10)), 10),
        "v3 @13" => (Some((3, 13)), 13),
        _ => (Some((0, 20)), 20),
    };
    let current = current.map(|(version, number)| Current {
        version,
        sequence: sequence(number),
    });
    let has_draft = name.starts_with("put");
    let Decision {
        outcome,
        mutation,
        observed: seen,
        spent,
    } = decide_under(&table, text, operation(name));

    let conflict = |failed| Outcome::Conflict { failed, current };
    let there = || current.expect("only a key that is there can be changed");
    let version_after = |version: u64| if version == 0 { 1 } else { 4 };
    let wanted = match expected {
        '+' => Outcome::Created { version: 0 },
        '~' => Outcome::Changed {
            version: version_after(there().version),
        },
        '=' => {
            let Current { version, sequence } = there();
            Outcome::Unchanged {
                version,
                sequence,
                expires_at: None,
            }
        }
        'x' => Outcome::Deleted {
            version: there().version,
        },
        '0' => Outcome::Missing,
        'm' => conflict(FailedCondition::Match),
        'v' => conflict(FailedCondition::Version),
        'n' => conflict(FailedCondition::NoneMatch),
        _ => unreachable!("{expected}"),
    };
    assert_eq!(outcome, wanted, "{case}");

    let changes = matches!(expected, '+' | '~' | 'x');
    assert_eq!(mutation.is_some(), changes, "{case}: what is to be applied");
    // An answer that changes nothing says what its truth depends on, and gives the draft back.
    if !changes {
        assert_eq!(seen, sequence(observed), "{case}: observed");
    }
    assert_eq!(spent.is_some(), has_draft && !changes, "{case}: spent");
}

/// Plain versions repeat: after a delete and a new create the stale client's version agrees, its entity tag does not.
#[test]
fn a_stale_etag_is_refused_after_delete_and_create_although_the_version_agrees() {
    let mut table = in_state("v0 @10");
    let before = table
        .get("k", hash("k"), NOW)
        .map(|entry| (entry.version(), entry.sequence()));
    assert_eq!(before, Some((0, sequence(10))));
    delete(&mut table, 11, "k", NOW);
    write(&mut table, 12, "k", STORED, None, NOW);

    let by_tag = decide_under(&table, "if-match=10", operation("put"));
    let current = Some(Current {
        version: 0,
        sequence: sequence(12),
    });
    assert_eq!(
        by_tag.outcome,
        Outcome::Conflict {
            failed: FailedCondition::Match,
            current
        }
    );
    let by_version = decide_under(&table, "if-version=0", operation("put"));
    assert_eq!(by_version.outcome, Outcome::Changed { version: 1 });
}

/// A conditional put that finds nothing must not bring a deleted key back.
#[test]
fn a_conditional_put_whose_key_vanished_is_a_conflict_and_no_insert() {
    for text in ["if-version=0", "if-match=10", "if-match=*"] {
        for vanished in ["deleted", "expired"] {
            let table = in_state(vanished);
            let decision = decide_under(&table, text, operation("put"));
            assert!(
                matches!(decision.outcome, Outcome::Conflict { current: None, .. }),
                "[{text}] on {vanished}: {:?}",
                decision.outcome
            );
            assert!(decision.mutation.is_none());
            assert!(table.get("k", hash("k"), NOW).is_none());
        }
    }
}

/// A put is a no-op only if value, media type and expiry all stay.
#[test]
fn only_the_same_value_media_type_and_expiry_are_no_change() {
    const TEXT: Option<&str> = Some("text/plain");
    let cases = [
        // Value, media type and expiry of the put; whether the key keeps its expiry; whether anything changes.
        (STORED, TEXT, Some(2_000), false, false),
        (STORED, TEXT, None, true, false),
        (STORED, TEXT, None, false, true),
        (STORED, TEXT, Some(2_001), false, true),
        (STORED, None, Some(2_000), false, true),
        (STORED, Some("text/plain;v=1"), Some(2_000), false, true),
        (b"{\"a\":2}", TEXT, Some(2_000), false, true),
        (b"", TEXT, None, true, true),
    ];
    for (value, media_type, expires_at, keep, changes) in cases {
        let mut table = table();
        let stored = put(draft_as("k", STORED, TEXT, Some(2_000), false));
        let decision = decide(&table, "k", Conditions::default(), stored, NOW);
        table.apply(decision.mutation.expect("a create"), sequence(5));

        let draft = draft_as("k", value, media_type, expires_at, keep);
        let expiry = if keep {
            PutExpiry::Keep
        } else {
            PutExpiry::Set
        };
        let decision = decide(
            &table,
            "k",
            Conditions::default(),
            Operation::Put {
                draft,
                expiry,
                compared: None,
            },
            NOW,
        );
        let case = (value, media_type, expires_at, keep);
        let wanted = if changes {
            Outcome::Changed { version: 1 }
        } else {
            Outcome::Unchanged {
                version: 0,
                sequence: sequence(5),
                expires_at: Some(2_000),
            }
        };
        assert_eq!(decision.outcome, wanted, "{case:?}");
        if let Some(mutation) = decision.mutation {
            let applied = table.apply(mutation, sequence(6));
            assert_eq!(
                applied.expires_at,
                if keep { Some(2_000) } else { expires_at },
                "{case:?}"
            );
        }
    }
}

/// Checksums only say that values differ: two values with one checksum are still two values.
#[test]
fn a_value_with_the_same_checksum_is_still_another_value() {
    let forged = |value: &'static [u8]| {
        let value = DraftValue::Copied(value);
        let draft = Draft {
            key: "k",
            value,
            media_type: None,
            crc: 7,
            expires_at: None,
            reserve_expiry: false,
        };
        put(Entry::draft(&draft).expect("it fits"))
    };
    let mut table = table();
    let decision = decide(&table, "k", Conditions::default(), forged(b"1"), NOW);
    table.apply(decision.mutation.expect("a create"), sequence(1));
    let decision = decide(&table, "k", Conditions::default(), forged(b"2"), NOW);
    assert_eq!(decision.outcome, Outcome::Changed { version: 1 });
}

#[test]
fn what_a_write_does_to_the_expiry() {
    let keep = |value| Operation::Put {
        draft: draft_as("k", value, None, None, true),
        expiry: PutExpiry::Keep,
        compared: None,
    };
    let merge = |expiry| {
        let document = b"{}".as_slice();
        Operation::Patch(Patch {
            kind: PatchKind::Merge,
            document,
            expiry,
            pin: None,
            limits: WIDE,
            prepared: None,
        })
    };
    type Make<'a> = Box<dyn Fn() -> Operation<'static> + 'a>;
    let cases: [(&str, Make<'_>, [Option<u64>; 3]); 8] = [
        // The expiry afterwards, where before there was: none, one to come, one that has passed.
        (
            "put",
            Box::new(|| put(draft("k", b"2", None))),
            [None, None, None],
        ),
        (
            "put?ttl",
            Box::new(|| put(draft("k", b"2", Some(3_000)))),
            [Some(3_000); 3],
        ),
        (
            "put?keepTtl",
            Box::new(|| keep(b"2")),
            [None, Some(2_000), None],
        ),
        (
            "put the same",
            Box::new(|| put(draft("k", STORED, None))),
            [None, None, None],
        ),
        (
            "put the same?keepTtl",
            Box::new(|| keep(STORED)),
            [None, Some(2_000), None],
        ),
        (
            "patch",
            Box::new(|| merge(PatchExpiry::Keep)),
            [None, Some(2_000), None],
        ),
        (
            "patch?ttl=none",
            Box::new(|| merge(PatchExpiry::Clear)),
            [None, None, None],
        ),
        (
            "patch?ttl",
            Box::new(|| merge(PatchExpiry::At(3_000))),
            [Some(3_000); 3],
        ),
    ];
    for (name, make, wanted) in cases {
        for (before, wanted) in [None, Some(2_000), Some(NOW)].into_iter().zip(wanted) {
            let mut table = table();
            write(&mut table, 1, "k", STORED, before, NOW - 1);
            let decision = decide(&table, "k", Conditions::default(), make(), NOW);
            if let Some(mutation) = decision.mutation {
                table.apply(mutation, sequence(2));
            }
            let entry = table.get("k", hash("k"), NOW).expect("it was written");
            assert_eq!(entry.expires_at(), wanted, "{name} on {before:?}");
            assert_eq!(
                table.stats().expiring,
                usize::from(wanted.is_some()),
                "{name} on {before:?}"
            );
            // Past its instant the old key was not there: what is written is new.
            assert!(
                before != Some(NOW) || entry.version() == 0,
                "{name} on {before:?}"
            );
        }
    }
}

/// A patch computed outside counts only against the entry it was computed from. Its draft says "prepared", so that the
/// table sees whether it was used.
#[test]
fn a_prepared_patch_is_used_only_while_its_base_is_there() {
    const PREPARED: &[u8] = br#"{"prepared":1}"#;
    for (state, base, large, wanted) in [
        // The base, whether the partition may not compute it itself, what becomes of the key's value.
        ("missing", None, false, Ok(PREPARED)),
        ("missing", None, true, Ok(PREPARED)),
        ("missing", Some(10), false, Ok(br#"{"b":1}"#.as_slice())),
        ("missing", Some(10), true, Err(Outcome::Retry)),
        ("deleted", Some(10), true, Err(Outcome::Retry)),
        ("expired", Some(10), true, Err(Outcome::Retry)),
        ("expired", None, true, Ok(PREPARED)),
        ("v3 @13", Some(13), false, Ok(PREPARED)),
        ("v3 @13", Some(13), true, Ok(PREPARED)),
        ("v3 @13", Some(12), false, Ok(br#"{"a":1,"b":1}"#)),
        ("v3 @13", Some(12), true, Err(Outcome::Retry)),
        ("v3 @13", None, true, Err(Outcome::Retry)),
        ("v0 @20, again", Some(10), true, Err(Outcome::Retry)),
    ] {
        let table = in_state(state);
        let case = format!("{state}, base {base:?}, large {large}");
        let limits = PatchLimits {
            inline_max: if large { 6 } else { 100 },
            ..WIDE
        };
        let prepared = Some(Prepared {
            base: base.map(sequence),
            result: Ok(draft("k", PREPARED, None)),
            same: false,
        });
        let (kind, document, expiry) = (
            PatchKind::Merge,
            br#"{"b":1}"#.as_slice(),
            PatchExpiry::Keep,
        );
        let operation = Operation::Patch(Patch {
            kind,
            document,
            expiry,
            pin: None,
            limits,
            prepared,
        });
        let decision = decide(&table, "k", Conditions::default(), operation, NOW);
        match wanted {
            Ok(value) => {
                let mutation = decision.mutation.as_ref().expect(&case);
                assert_eq!(
                    table.logged(mutation, &mut String::new()).value,
                    value,
                    "{case}"
                );
                assert_eq!(
                    decision.spent.is_some(),
                    value != PREPARED,
                    "{case}: the draft comes back"
                );
            }
            Err(outcome) => {
                assert_eq!(decision.outcome, outcome, "{case}");
                assert!(
                    decision.mutation.is_none() && decision.spent.is_some(),
                    "{case}"
                );
            }
        }
    }
}

#[test]
fn a_patch_that_cannot_be_applied_changes_nothing() {
    let mut table = table();
    let opaque = put(draft_as("k", STORED, Some("text/plain"), None, false));
    let decision = decide(&table, "k", Conditions::default(), opaque, NOW);
    table.apply(decision.mutation.expect("a create"), sequence(1));
    for kind in [PatchKind::Shallow, PatchKind::Merge, PatchKind::Json] {
        let decision = decide(&table, "k", Conditions::default(), patch(kind, b"{}"), NOW);
        assert_eq!(
            decision.outcome,
            Outcome::PatchFailed(PatchError::NotJson),
            "{kind:?}"
        );
        assert_eq!(
            (decision.mutation.is_none(), decision.observed),
            (true, sequence(1))
        );
    }

    write(&mut table, 2, "k", STORED, None, NOW);
    let limits = PatchLimits {
        value_bytes_max: 12,
        ..WIDE
    };
    for (document, fits) in [(br#"{"b":1}"#, false), (br#"{"a":9}"#, true)] {
        let (kind, expiry) = (PatchKind::Merge, PatchExpiry::Keep);
        let operation = Operation::Patch(Patch {
            kind,
            document,
            expiry,
            pin: None,
            limits,
            prepared: None,
        });
        let outcome = decide(&table, "k", Conditions::default(), operation, NOW).outcome;
        match outcome {
            Outcome::PatchFailed(PatchError::TooLarge { max: 12, .. }) => assert!(!fits),
            Outcome::Changed { version: 2 } => assert!(fits),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_largest_version_stays() {
    let mut table = table();
    let loaded = LoadedEntry {
        key: "k",
        value: STORED,
        media_type: None,
        crc: crc32fast::hash(STORED),
        version: VERSION_MAX - 1,
        sequence: sequence(1),
        expires_at: None,
        pinned: false,
    };
    table.load(hash("k"), &loaded);
    for (number, value) in [(2, b"2"), (3, b"3")] {
        let decision = decide(
            &table,
            "k",
            Conditions::default(),
            put(draft("k", value, None)),
            NOW,
        );
        assert_eq!(
            decision.outcome,
            Outcome::Changed {
                version: VERSION_MAX
            }
        );
        table.apply(decision.mutation.expect("a change"), sequence(number));
    }
}

/// A value that is stored coded cannot be compared or merged under the lock: the caller is asked to, and what it found
/// counts only for the very entry it looked at.
#[test]
fn what_meets_a_coded_value_is_found_out_outside() {
    let value = br#"{"a":1}"#.as_slice();
    let coded = || {
        let mut table = table();
        let decision = decide(
            &table,
            "k",
            Conditions::default(),
            put(draft("k", value, None)),
            NOW,
        );
        let applied = table.apply(decision.mutation.expect("a create"), sequence(5));
        let (slot, entry) = table.find("k", hash("k"), NOW).expect("it is there");
        assert_eq!(slot, applied.slot);
        let coding = Coding {
            codec: 1,
            dictionary: 2,
            raw_len: value.len() as u32,
        };
        let entry = Entry::recoded(&entry.head(), Some(coding), DraftValue::Copied(b"zz"));
        table.recode(slot, entry).expect("nobody wrote in between");
        table
    };
    let put_of = |value, compared| Operation::Put {
        draft: draft("k", value, None),
        expiry: PutExpiry::Set,
        compared,
    };
    let compared = |base, same| {
        Some(Compared {
            base: sequence(base),
            same,
        })
    };
    let unchanged = Outcome::Unchanged {
        version: 0,
        sequence: sequence(5),
        expires_at: None,
    };
    let changed = Outcome::Changed { version: 1 };
    for (compared, wanted) in [
        (None, Outcome::Retry),
        (compared(4, true), Outcome::Retry),
        (compared(5, true), unchanged.clone()),
        (compared(5, false), changed.clone()),
    ] {
        let decision = decide(
            &coded(),
            "k",
            Conditions::default(),
            put_of(value, compared),
            NOW,
        );
        assert_eq!(decision.outcome, wanted, "{compared:?}");
        assert_eq!(
            decision.spent.is_some(),
            wanted != changed,
            "{compared:?}: the draft comes back"
        );
    }
    // Another length or checksum tells without a look.
    let decision = decide(
        &coded(),
        "k",
        Conditions::default(),
        put_of(br#"{"a":2}"#, None),
        NOW,
    );
    assert_eq!(decision.outcome, changed);

    let failed = PatchError::TooCostly { index: 3 };
    for (base, result, same, wanted) in [
        (5, None, false, Outcome::Retry),
        (4, Some(Ok(value)), false, Outcome::Retry),
        (
            5,
            Some(Ok(br#"{"a":7}"#.as_slice())),
            false,
            changed.clone(),
        ),
        (5, Some(Ok(value)), true, unchanged.clone()),
        (
            5,
            Some(Err(failed.clone())),
            false,
            Outcome::PatchFailed(failed),
        ),
    ] {
        let prepared = result.map(|result| Prepared {
            base: Some(sequence(base)),
            result: result.map(|value| draft("k", value, None)),
            same,
        });
        let operation = Operation::Patch(Patch {
            pin: None,
            kind: PatchKind::Merge,
            document: b"{}",
            expiry: PatchExpiry::Keep,
            limits: WIDE,
            prepared,
        });
        let decision = decide(&coded(), "k", Conditions::default(), operation, NOW);
        assert_eq!(decision.outcome, wanted);
    }
}

/// Another layout is put in place only of the entry it was made from.
#[test]
fn a_layout_made_of_an_older_value_is_refused() {
    let mut table = in_state("v3 @13");
    let (slot, entry) = table.find("k", hash("k"), NOW).expect("it is there");
    let coding = Coding {
        codec: 1,
        dictionary: 2,
        raw_len: 9,
    };
    let coded = |entry: EntryView<'_>| {
        Entry::recoded(&entry.head(), Some(coding), DraftValue::Copied(b"z"))
    };
    let early = coded(entry);
    let decision = decide(
        &table,
        "k",
        Conditions::default(),
        put(draft("k", b"[]", None)),
        NOW,
    );
    table.apply(decision.mutation.expect("a change"), sequence(30));
    assert!(table.recode(slot, early).is_err());
    assert_eq!(table.coded_with(2), 0);

    let entry = coded(table.find("k", hash("k"), NOW).expect("it is there").1);
    assert!(
        !table.warm(slot) && !table.warm(slot) && !table.warm(slot),
        "only a coded entry asks to be decoded"
    );
    let footprint = |table: &Table| {
        let found = table.find("k", hash("k"), NOW);
        found.expect("it is there").1.footprint()
    };
    let (before, old) = (table.stats().entry_bytes, footprint(&table));
    table.recode(slot, entry).expect("nobody wrote in between");
    assert_eq!(table.stats().entry_bytes + old, before + footprint(&table));
    assert_eq!(table.coded_with(2), 1);
    assert_eq!(table.coded().by_codec[1].raw_bytes, 9);
    table.mark_incompressible(slot, sequence(29));
    assert!(
        !table
            .find("k", hash("k"), NOW)
            .expect("it is there")
            .1
            .is_incompressible()
    );
    table.mark_incompressible(slot, sequence(30));
    assert!(
        table
            .find("k", hash("k"), NOW)
            .expect("it is there")
            .1
            .is_incompressible()
    );

    // Heat outlives the change of layout, and each survey takes one away.
    let mut seen = Vec::new();
    for _ in 0..5 {
        assert_eq!(
            table.survey(Slot::new(0), 100, NOW, false, |_, entry| {
                seen.push(entry.heat());
                ControlFlow::Continue(())
            }),
            None
        );
    }
    assert_eq!(seen, [3, 2, 1, 0, 0]);
    assert!(!table.warm(slot) && !table.warm(slot) && table.warm(slot) && !table.warm(slot));
    let removed = decide(&table, "k", Conditions::default(), Operation::Delete, NOW);
    table.apply(removed.mutation.expect("a removal"), sequence(31));
    assert_eq!(
        (table.coded_with(2), table.coded().by_codec[1]),
        (0, CodedShare::default())
    );
}
