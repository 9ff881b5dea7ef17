//! What patches make of values, as tables of texts; and what stops them.

use inflightkv_core::merge::{PatchError, PatchKind, PatchLimits, check, patched};

const LIMITS: PatchLimits = PatchLimits {
    value_bytes_max: 1 << 20,
    depth_max: 128,
    inline_max: usize::MAX,
};

fn text(
    kind: PatchKind,
    stored: impl Into<Option<&'static str>>,
    patch: &str,
) -> Result<String, PatchError> {
    let stored = stored.into().map(str::as_bytes);
    patched(kind, stored, patch.as_bytes(), &LIMITS)
        .map(|text| String::from_utf8(text).expect("cut at characters"))
}

#[track_caller]
fn table(kind: PatchKind, cases: &[(&'static str, &str, &str)]) {
    for (stored, patch, expected) in cases {
        assert_eq!(
            text(kind, *stored, patch).as_deref(),
            Ok(*expected),
            "{stored} with {patch}"
        );
    }
}

#[test]
fn a_shallow_merge_replaces_and_joins_members() {
    table(
        PatchKind::Shallow,
        &[
            (r#"{"a":1,"b":2}"#, r#"{"b":3}"#, r#"{"a":1,"b":3}"#),
            (r#"{"a":1,"b":2}"#, r#"{"a":3}"#, r#"{"a":3,"b":2}"#),
            (
                r#"{"a":1,"b":2,"c":3}"#,
                r#"{"c":6,"a":4}"#,
                r#"{"a":4,"b":2,"c":6}"#,
            ),
            (r#"{"b":1}"#, r#"{"z":1,"a":2}"#, r#"{"b":1,"z":1,"a":2}"#),
            (r#"{"a":{"x":1}}"#, r#"{"a":{"y":2}}"#, r#"{"a":{"y":2}}"#),
            (
                r#"{"a":1}"#,
                r#"{"a":null,"b":null}"#,
                r#"{"a":null,"b":null}"#,
            ),
            (r#"{"a":1}"#, "{}", r#"{"a":1}"#),
            ("{}", r#"{"a":1}"#, r#"{"a":1}"#),
            ("{}", "{}", "{}"),
        ],
    );
}

#[test]
fn a_shallow_merge_of_anything_else_is_the_patch() {
    for (stored, patch) in [
        (Some("[1]"), r#"{"a":null}"#),
        (Some(r#"{"a":1}"#), "[1]"),
        (Some("1"), r#""x""#),
        (Some(r#"{"a":1}"#), "null"),
        (None, r#"{"a":{"b":null},"a":2}"#),
    ] {
        assert_eq!(
            text(PatchKind::Shallow, stored, patch).as_deref(),
            Ok(patch),
            "{stored:?}"
        );
    }
}

/// Appendix A of RFC 7396, to the letter.
#[test]
fn merge_patch_does_what_its_rfc_shows() {
    table(
        PatchKind::Merge,
        &[
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (
                r#"{"a":{"b":"c"}}"#,
                r#"{"a":{"b":"d","c":null}}"#,
                r#"{"a":{"b":"d"}}"#,
            ),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ],
    );
}

#[test]
fn a_merge_patch_on_a_missing_key_is_applied_to_nothing() {
    for (patch, expected) in [
        (
            r#"{"a":null,"b":{"c":null,"d":[null]},"e":1}"#,
            r#"{"b":{"d":[null]},"e":1}"#,
        ),
        (r#"{"a":null}"#, "{}"),
        ("[null]", "[null]"),
        ("null", "null"),
    ] {
        assert_eq!(
            text(PatchKind::Merge, None, patch).as_deref(),
            Ok(expected),
            "{patch}"
        );
    }
}

/// Names compare by character and keep the spelling of the side that was first; so do values nobody touched.
#[test]
fn spelling_survives() {
    let stored = r#"{"n":1.50,"\u0061":1E5,"s":"\/\u00e9é","o":{"\u0062":0.10,"k":[1.0]}}"#;
    assert_eq!(
        text(PatchKind::Shallow, stored, r#"{"a":2.0,"\u0073\u0032":-0}"#).as_deref(),
        Ok(
            r#"{"n":1.50,"\u0061":2.0,"s":"\/\u00e9é","o":{"\u0062":0.10,"k":[1.0]},"\u0073\u0032":-0}"#
        )
    );
    assert_eq!(
        text(
            PatchKind::Merge,
            stored,
            r#"{"a":null,"o":{"b":7,"x":1e0}}"#
        )
        .as_deref(),
        Ok(r#"{"n":1.50,"s":"\/\u00e9é","o":{"\u0062":7,"k":[1.0],"x":1e0}}"#)
    );
    let patch = r#"[{"op":"test","path":"/o/k/0","value":1},{"op":"replace","path":"/o/b","value":2.0},
        {"op":"copy","from":"/s","path":"/quo\"te"},{"op":"move","from":"/a","path":"/o/k/-"}]"#;
    let patch = patch.replace([' ', '\n'], "");
    assert_eq!(
        text(PatchKind::Json, stored, &patch).as_deref(),
        Ok(r#"{"n":1.50,"s":"\/\u00e9é","o":{"\u0062":2.0,"k":[1.0,1E5]},"quo\"te":"\/\u00e9é"}"#)
    );
}

#[test]
fn of_duplicates_the_last_counts_and_stands_first() {
    let stored = r#"{"x":0,"a":1,"x":2,"\u0061":{"b":3},"x":4}"#;
    for (kind, patch, expected) in [
        (
            PatchKind::Shallow,
            r#"{"a":5}"#,
            r#"{"x":0,"a":5,"x":2,"x":4}"#,
        ),
        (
            PatchKind::Shallow,
            r#"{"q":1,"r":2,"q":3}"#,
            r#"{"x":0,"a":1,"x":2,"\u0061":{"b":3},"x":4,"q":3,"r":2}"#,
        ),
        (
            PatchKind::Merge,
            r#"{"a":{"c":5}}"#,
            r#"{"x":0,"a":{"b":3,"c":5},"x":2,"x":4}"#,
        ),
        (
            PatchKind::Merge,
            r#"{"x":null}"#,
            r#"{"a":1,"\u0061":{"b":3}}"#,
        ),
        (
            PatchKind::Merge,
            r#"{"x":null,"x":9}"#,
            r#"{"x":9,"a":1,"\u0061":{"b":3}}"#,
        ),
        (
            PatchKind::Merge,
            r#"{"x":9,"x":null}"#,
            r#"{"a":1,"\u0061":{"b":3}}"#,
        ),
        (
            PatchKind::Json,
            r#"[{"op":"test","path":"/x","value":4}]"#,
            stored,
        ),
        (
            PatchKind::Json,
            r#"[{"op":"add","path":"/a/c","value":5}]"#,
            r#"{"x":0,"a":{"b":3,"c":5},"x":2,"x":4}"#,
        ),
        (
            PatchKind::Json,
            r#"[{"op":"remove","path":"/x"}]"#,
            r#"{"a":1,"\u0061":{"b":3}}"#,
        ),
        (
            PatchKind::Json,
            r#"[{"op":"replace","path":"/x","value":9}]"#,
            r#"{"x":9,"a":1,"\u0061":{"b":3}}"#,
        ),
    ] {
        assert_eq!(
            text(kind, stored, patch).as_deref(),
            Ok(expected),
            "{kind:?} {patch}"
        );
    }
}

#[test]
fn a_json_patch_changes_only_what_it_names() {
    table(
        PatchKind::Json,
        &[
            (r#"{"a":1,"b":2}"#, "[]", r#"{"a":1,"b":2}"#),
            (
                r#"{"a":1,"b":2}"#,
                r#"[{"op":"move","from":"/a","path":"/a"}]"#,
                r#"{"a":1,"b":2}"#,
            ),
            (
                r#"{"a":1,"b":2}"#,
                r#"[{"op":"move","from":"/a","path":"/c"}]"#,
                r#"{"b":2,"c":1}"#,
            ),
            (
                r#"{"a":1,"b":2}"#,
                r#"[{"op":"copy","from":"","path":"/a"}]"#,
                r#"{"a":{"a":1,"b":2},"b":2}"#,
            ),
            (
                r#"{"a":1}"#,
                r#"[{"op":"move","from":"/a","path":""}]"#,
                "1",
            ),
            (
                r#"{"a":1}"#,
                r#"[{"op":"move","from":"","path":""}]"#,
                r#"{"a":1}"#,
            ),
            (
                "1",
                r#"[{"op":"replace","path":"","value":{"a":null}},{"op":"add","path":"/b","value":[]}]"#,
                r#"{"a":null,"b":[]}"#,
            ),
            (
                "[1,2,3]",
                r#"[{"op":"move","from":"/0","path":"/2"},{"op":"add","path":"/-","value":4}]"#,
                "[2,3,1,4]",
            ),
            (
                "[1,2,3]",
                r#"[{"op":"remove","path":"/0"},{"op":"remove","path":"/0"},{"op":"remove","path":"/0"}]"#,
                "[]",
            ),
            (
                r#"{"":{"":1}}"#,
                r#"[{"op":"replace","path":"//","value":2}]"#,
                r#"{"":{"":2}}"#,
            ),
            (
                r#"{"a/b":1,"m~n":2}"#,
                r#"[{"op":"remove","path":"/a~1b"},{"op":"replace","path":"/m~0n","value":3}]"#,
                r#"{"m~n":3}"#,
            ),
            (
                "{}",
                r#"[{"op":"add","path":"/\u0007\ud83d\ude00","value":1}]"#,
                "{\"\\u0007\u{1f600}\":1}",
            ),
            (
                r#"{"a":{"b":1.0}}"#,
                r#"[{"op":"add","path":"/a/c","value":0},{"op":"test","path":"/a","value":{"c":-0,"b":1}}]"#,
                r#"{"a":{"b":1.0,"c":0}}"#,
            ),
        ],
    );
}

#[test]
fn a_json_patch_says_which_operation_failed_and_where() {
    let stored = r#"{"a":[1,2],"b":{"c":"x"}}"#;
    let missing = |path: &str| PatchError::PathMissing {
        index: 1,
        path: path.into(),
    };
    for (operation, expected) in [
        (
            r#"{"op":"test","path":"/b/c","value":"y"}"#,
            PatchError::TestFailed {
                index: 1,
                path: "/b/c".into(),
            },
        ),
        (
            r#"{"op":"test","path":"/b/d","value":"y"}"#,
            missing("/b/d"),
        ),
        (r#"{"op":"test","path":"/a/-","value":2}"#, missing("/a/-")),
        (r#"{"op":"remove","path":"/a/2"}"#, missing("/a/2")),
        (r#"{"op":"remove","path":"/a/00"}"#, missing("/a/00")),
        (r#"{"op":"remove","path":"/b/c/d"}"#, missing("/b/c/d")),
        (
            r#"{"op":"replace","path":"/a/-","value":1}"#,
            missing("/a/-"),
        ),
        (r#"{"op":"replace","path":"/z","value":1}"#, missing("/z")),
        (r#"{"op":"add","path":"/z/y","value":1}"#, missing("/z")),
        (r#"{"op":"add","path":"/a/3","value":1}"#, missing("/a/3")),
        (r#"{"op":"add","path":"/a/x","value":1}"#, missing("/a/x")),
        (
            r#"{"op":"add","path":"/b/c/d","value":1}"#,
            missing("/b/c/d"),
        ),
        (r#"{"op":"move","from":"/z","path":"/b/c"}"#, missing("/z")),
        (
            r#"{"op":"copy","from":"/a/9","path":"/b/c"}"#,
            missing("/a/9"),
        ),
    ] {
        let patch = format!(r#"[{{"op":"add","path":"/q","value":0}},{operation}]"#);
        assert_eq!(
            text(PatchKind::Json, stored, &patch),
            Err(expected),
            "{operation}"
        );
        assert_eq!(
            check(PatchKind::Json, patch.as_bytes()),
            Ok(()),
            "{operation}"
        );
    }
}

/// What is wrong with the patch itself is said before anything that the stored value decides.
#[test]
fn a_malformed_patch_is_refused_whatever_is_stored() {
    let patch = r#"[{"op":"test","path":"/z","value":1},{"op":"spam","path":"/a"}]"#;
    for stored in [None, Some("{}"), Some("1")] {
        let found = text(PatchKind::Json, stored, patch);
        assert!(
            matches!(found, Err(PatchError::Malformed { index: 1, .. })),
            "{found:?}"
        );
    }
    assert!(matches!(
        text(PatchKind::Json, "{}", r#"{"op":"add"}"#),
        Err(PatchError::Unreadable { .. })
    ));
    assert!(matches!(
        text(PatchKind::Json, None, "[]"),
        Err(PatchError::PathMissing { index: 0, .. })
    ));
}

#[test]
fn broken_text_is_an_error_on_the_side_it_comes_from() {
    let operation = r#"[{"op":"add","path":"/b","value":1}]"#;
    for stored in [r#"{"a":1"#, "{", r#"{"a" :1}"#, r#"{"a":1}}"#, r#"{"a":[}"#] {
        assert_eq!(
            text(PatchKind::Shallow, stored, r#"{"b":1}"#),
            Err(PatchError::NotJson),
            "{stored}"
        );
        assert_eq!(
            text(PatchKind::Merge, stored, r#"{"b":1}"#),
            Err(PatchError::NotJson),
            "{stored}"
        );
        assert_eq!(
            text(PatchKind::Json, stored, operation),
            Err(PatchError::NotJson),
            "{stored}"
        );
    }
    for patch in ["", "{", r#"{"a":1"#, r#"{"a": 1}"#, "[1]]", r#""x"#, "1 "] {
        for kind in [PatchKind::Shallow, PatchKind::Merge, PatchKind::Json] {
            for stored in [None, Some("{}"), Some("[]")] {
                let found = text(kind, stored, patch);
                assert!(
                    matches!(found, Err(PatchError::Unreadable { .. })),
                    "{kind:?} {patch}: {found:?}"
                );
            }
            assert!(check(kind, patch.as_bytes()).is_err(), "{kind:?} {patch}");
        }
    }
}

#[test]
fn a_result_may_be_as_large_as_the_limit_and_no_larger() {
    let stored = br#"{"a":"0123456789","b":0}"#;
    for (kind, patch) in [
        (PatchKind::Shallow, &br#"{"b":[1,2,3]}"#[..]),
        (PatchKind::Merge, br#"{"b":[1,2,3]}"#),
        (
            PatchKind::Json,
            br#"[{"op":"add","path":"/b","value":[1,2,3]}]"#,
        ),
    ] {
        let len = stored.len() + 6;
        let at = |max| {
            patched(
                kind,
                Some(stored),
                patch,
                &PatchLimits {
                    value_bytes_max: max,
                    ..LIMITS
                },
            )
        };
        assert_eq!(at(len).map(|text| text.len()), Ok(len), "{kind:?}");
        assert_eq!(
            at(len - 1),
            Err(PatchError::TooLarge { len, max: len - 1 }),
            "{kind:?}"
        );
    }
}

#[test]
fn adding_before_removing_needs_no_more_room_than_the_other_way_round() {
    let stored = format!(r#"{{"a":"{}"}}"#, "x".repeat(100));
    let limits = PatchLimits {
        value_bytes_max: stored.len(),
        ..LIMITS
    };
    let patch = br#"[{"op":"copy","from":"/a","path":"/b"},{"op":"remove","path":"/a"}]"#;
    let found = patched(PatchKind::Json, Some(stored.as_bytes()), patch, &limits);
    assert_eq!(found.map(|text| text.len()), Ok(stored.len()));
}

/// Sixty operations would make two to the power of sixty copies.
#[test]
fn a_patch_that_doubles_the_document_is_stopped() {
    let patch = format!(
        "[{}]",
        [r#"{"op":"copy","from":"","path":"/a"}"#; 60].join(",")
    );
    let limits = PatchLimits {
        depth_max: 512,
        ..LIMITS
    };
    let found = patched(
        PatchKind::Json,
        Some(br#"{"a":1,"b":[0]}"#),
        patch.as_bytes(),
        &limits,
    );
    // Nested as deep as it is repeated: sixty levels of one member each are small.
    assert!(found.is_ok_and(|text| text.len() < 1000));

    let doubling: Vec<String> = (0..60)
        .map(|step| format!(r#"{{"op":"copy","from":"","path":"/{step}"}}"#))
        .collect();
    let patch = format!("[{}]", doubling.join(","));
    let found = patched(
        PatchKind::Json,
        Some(br#"{"a":"0123456789"}"#),
        patch.as_bytes(),
        &limits,
    );
    let Err(PatchError::TooLarge { len, max }) = found else {
        panic!("{found:?}")
    };
    assert!(
        max == limits.value_bytes_max && len > max && len < 5 * max,
        "{len}"
    );
}

/// Each operation is small, and each shifts, searches or copies a whole large document.
#[test]
fn a_patch_that_asks_for_too_much_work_is_stopped() {
    let array = format!("[{}0]", "0,".repeat(250_000));
    let members: Vec<String> = (0..40_000)
        .map(|name| format!(r#""{name:05}":{name}"#))
        .collect();
    let object = format!("{{{}}}", members.join(","));
    let wrapped = format!(r#"{{"a":{array}}}"#);
    for (name, stored, operation) in [
        ("shift", &array, r#"{"op":"add","path":"/0","value":1}"#),
        (
            "search",
            &object,
            r#"{"op":"test","path":"/00000","value":0}"#,
        ),
        (
            "copy",
            &wrapped,
            r#"{"op":"test","path":"/a/0","value":0},{"op":"copy","from":"/a","path":"/b"}"#,
        ),
    ] {
        let patch = format!("[{}]", vec![operation; 10_000].join(","));
        let found = patched(
            PatchKind::Json,
            Some(stored.as_bytes()),
            patch.as_bytes(),
            &LIMITS,
        );
        assert!(
            matches!(found, Err(PatchError::TooCostly { index: 1.. })),
            "{name}: {:?}",
            found.map(|text| text.len())
        );
    }
}

/// Every level of a merge scans all that is inside it.
#[test]
fn a_deep_merge_of_large_values_is_stopped() {
    let nested = |inner: &str| r#"{"a":"#.repeat(500) + inner + &"}".repeat(500);
    let stored = nested(&format!("[{}0]", "0,".repeat(500_000)));
    let limits = PatchLimits {
        value_bytes_max: 4 << 20,
        depth_max: 512,
        ..LIMITS
    };
    let check = |patch: &str| {
        let found = patched(
            PatchKind::Merge,
            Some(stored.as_bytes()),
            patch.as_bytes(),
            &limits,
        );
        found.map(|text| text.len())
    };
    assert_eq!(check(&nested("1")), Err(PatchError::TooCostly { index: 0 }));
    assert_eq!(check(r#"{"b":1}"#), Ok(stored.len() + r#","b":1"#.len()));
}

#[test]
fn a_result_may_be_as_deep_as_the_limit_and_no_deeper() {
    let nested = |levels: usize| r#"{"a":"#.repeat(levels) + "1" + &"}".repeat(levels);
    let operation = |levels: usize| {
        format!(
            r#"[{{"op":"add","path":"/a","value":{}}}]"#,
            nested(levels - 1)
        )
    };
    let check = |kind, stored: &str, patch: &str, max: u32, fits: bool| {
        let limits = PatchLimits {
            depth_max: max,
            ..LIMITS
        };
        let found = patched(kind, Some(stored.as_bytes()), patch.as_bytes(), &limits);
        match found {
            Ok(_) => assert!(fits, "{kind:?} {stored} {patch}"),
            Err(PatchError::TooDeep { max: found }) => {
                assert!(!fits && found == max.min(512), "{kind:?} {found}");
            }
            Err(error) => panic!("{kind:?}: {error}"),
        }
    };
    for max in [1, 2, 128] {
        for (levels, fits) in [(max as usize, true), (max as usize + 1, false)] {
            check(PatchKind::Shallow, "{}", &nested(levels), max, fits);
            check(PatchKind::Shallow, "1", &nested(levels), max, fits);
            check(PatchKind::Merge, "{}", &nested(levels), max, fits);
            check(
                PatchKind::Merge,
                &nested(levels),
                &nested(levels),
                max,
                fits,
            );
            check(PatchKind::Json, "{}", &operation(levels), max, fits);
            check(PatchKind::Json, &nested(levels), "[]", max, fits);
        }
    }
    let test = format!(r#"[{{"op":"test","path":"","value":{}}}]"#, nested(10_000));
    check(
        PatchKind::Json,
        &nested(10_000).replace('1', "2"),
        &test,
        u32::MAX,
        false,
    );
    // No limit of the caller's makes the recursion deep enough for a stack to end.
    let levels = 10_000;
    for kind in [PatchKind::Shallow, PatchKind::Merge] {
        check(kind, &nested(levels), &nested(levels), u32::MAX, false);
    }
    check(PatchKind::Json, "{}", &operation(levels), u32::MAX, false);
    let path = "/a".repeat(levels);
    let replace = format!(r#"[{{"op":"replace","path":"{path}","value":1}}]"#);
    check(PatchKind::Json, &nested(levels), &replace, u32::MAX, false);
}

/// Moves can wrap a split document into one level after the other without making it larger than its patch.
#[test]
fn moves_cannot_nest_without_end() {
    let wrap = r#"{"op":"add","path":"/b","value":{}},{"op":"move","from":"/a","path":"/b/a"},
        {"op":"test","path":"/b/a","value":1},{"op":"move","from":"/b","path":"/a"}"#;
    let wrap = wrap
        .replace([' ', '\n'], "")
        .replace(r#"{"op":"test","path":"/b/a","value":1},"#, "");
    let patch = format!("[{}]", vec![wrap.as_str(); 10_000].join(","));
    for depth_max in [128, u32::MAX] {
        let limits = PatchLimits {
            depth_max,
            ..LIMITS
        };
        let found = patched(
            PatchKind::Json,
            Some(br#"{"a":{}}"#),
            patch.as_bytes(),
            &limits,
        );
        assert_eq!(
            found,
            Err(PatchError::TooDeep {
                max: depth_max.min(512)
            })
        );
    }
}
