//! What patches make of values, as properties: against the json-patch crate, a map, and a model of texts.

use inflightkv_core::merge::{PatchKind, PatchLimits, patched};
use proptest::prelude::*;
use serde_json::{Value, json};

const LIMITS: PatchLimits = PatchLimits {
    value_bytes_max: 1 << 20,
    depth_max: 128,
    inline_max: usize::MAX,
};

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "a", "b", "c", "0", "1", "", "a/b", "m~n", "é", "q\"", "\n", "😀",
    ])
    .prop_map(String::from)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        2 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        2 => (-3_i64..100).prop_map(Value::from),
        2 => name().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            3 => prop::collection::btree_map(name(), inner.clone(), 0..5)
                .prop_map(Value::from_iter),
            1 => prop::collection::vec(inner, 0..4).prop_map(Value::from),
        ]
    })
}

/// One of the many texts of a value: members in any order, characters as escapes or as they are.
fn spelt(value: &Value, random: &mut fastrand::Rng) -> String {
    let list = |items: Vec<String>| items.join(",");
    match value {
        Value::Array(elements) => {
            format!(
                "[{}]",
                list(
                    elements
                        .iter()
                        .map(|element| spelt(element, random))
                        .collect()
                )
            )
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            random.shuffle(&mut members);
            let member = |(name, value): (&String, &Value), random: &mut fastrand::Rng| {
                format!("{}:{}", spelt_string(name, random), spelt(value, random))
            };
            format!(
                "{{{}}}",
                list(
                    members
                        .into_iter()
                        .map(|pair| member(pair, random))
                        .collect()
                )
            )
        }
        Value::String(string) => spelt_string(string, random),
        _ => value.to_string(),
    }
}

fn spelt_string(string: &str, random: &mut fastrand::Rng) -> String {
    let mut text = String::from("\"");
    for character in string.chars() {
        if random.u8(..4) == 0 {
            for unit in character.encode_utf16(&mut [0; 2]) {
                text += &format!("\\u{unit:04X}");
            }
        } else {
            let written = Value::from(character.to_string()).to_string();
            text += &written[1..written.len() - 1];
        }
    }
    text + "\""
}

fn pointer() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        6 => name().prop_map(|name| name.replace('~', "~0").replace('/', "~1")),
        1 => prop::sample::select(vec!["-", "2", "01", "a~1b"]).prop_map(String::from),
    ];
    prop::collection::vec(token, 0..4)
        .prop_map(|tokens| tokens.iter().map(|token| format!("/{token}")).collect())
}

fn operation() -> impl Strategy<Value = Value> {
    let with_value = prop::sample::select(vec!["add", "add", "replace", "test"]);
    let with_from = prop::sample::select(vec!["move", "copy"]);
    prop_oneof![
        4 => (with_value, pointer(), value())
            .prop_map(|(op, path, value)| json!({"op": op, "path": path, "value": value})),
        1 => pointer().prop_map(|path| json!({"op": "remove", "path": path})),
        2 => (with_from, pointer(), pointer())
            .prop_map(|(op, from, path)| json!({"op": op, "from": from, "path": path})),
    ]
}

/// A member of an object that is kept as text.
type Pair = (&'static str, &'static str);

fn pairs(values: Vec<&'static str>, count: usize) -> impl Strategy<Value = Vec<Pair>> {
    // Two spellings of each name.
    let names = prop::sample::select(vec![
        "a", r"\u0061", "b", r"\u0062", "é", r"\u00E9", r"\/", "/",
    ]);
    prop::collection::vec((names, prop::sample::select(values)), 0..count)
}

fn unescaped(name: &str) -> &str {
    match name {
        r"\u0061" => "a",
        r"\u0062" => "b",
        r"\u00E9" => "é",
        r"\/" => "/",
        name => name,
    }
}

fn object(pairs: &[Pair]) -> String {
    let members: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// Members of the patch laid over the stored ones, in the most pedestrian way.
fn laid_over(stored: &[Pair], patch: &[Pair], null_removes: bool) -> Vec<Pair> {
    let mut result = stored.to_vec();
    let mut done: Vec<&str> = Vec::new();
    for (name, _) in patch {
        let plain = unescaped(name);
        if done.contains(&plain) {
            continue;
        }
        done.push(plain);
        let named = |pair: &&Pair| unescaped(pair.0) == plain;
        let value = patch.iter().rev().find(named).expect("it is one of them").1;
        let first = result.iter().position(|pair| unescaped(pair.0) == plain);
        let spelling = first.map_or(*name, |first| result[first].0);
        let at = first.unwrap_or(result.len());
        result.retain(|pair| unescaped(pair.0) != plain);
        if !(null_removes && value == "null") {
            result.insert(at, (spelling, value));
        }
    }
    result
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn merge_patch_agrees_with_json_patch(stored in value(), patch in value(), seed: u64) {
        let random = &mut fastrand::Rng::with_seed(seed);
        let (stored_text, patch_text) = (spelt(&stored, random), spelt(&patch, random));
        let mut expected = stored;
        json_patch::merge(&mut expected, &patch);
        let found = patched(PatchKind::Merge, Some(stored_text.as_bytes()), patch_text.as_bytes(), &LIMITS);
        let found: Value = serde_json::from_slice(&found.expect("small")).expect("valid");
        prop_assert_eq!(&found, &expected);

        let mut expected = Value::Null;
        json_patch::merge(&mut expected, &patch);
        let found = patched(PatchKind::Merge, None, patch_text.as_bytes(), &LIMITS);
        let found: Value = serde_json::from_slice(&found.expect("small")).expect("valid");
        prop_assert_eq!(&found, &expected);
    }

    #[test]
    fn a_shallow_merge_is_an_extended_map(stored in value(), patch in value(), seed: u64) {
        let random = &mut fastrand::Rng::with_seed(seed);
        let (stored_text, patch_text) = (spelt(&stored, random), spelt(&patch, random));
        let expected = match (stored, patch) {
            (Value::Object(mut stored), Value::Object(patch)) => {
                stored.extend(patch);
                Value::Object(stored)
            }
            (_, patch) => patch,
        };
        let found = patched(PatchKind::Shallow, Some(stored_text.as_bytes()), patch_text.as_bytes(), &LIMITS);
        let found: Value = serde_json::from_slice(&found.expect("small")).expect("valid");
        prop_assert_eq!(found, expected);
    }

    /// One operation after the other, where those that fail leave no trace; then all that did not fail at once.
    #[test]
    fn json_patch_agrees_with_json_patch(
        stored in value(),
        operations in prop::collection::vec(operation(), 1..12),
        seed: u64,
    ) {
        let random = &mut fastrand::Rng::with_seed(seed);
        let stored_text = spelt(&stored, random);
        let (mut value, mut text) = (stored, stored_text.clone());
        let mut applied = Vec::new();
        for operation in operations {
            if operation["op"] == "move" && operation["from"] == "" && operation["path"] == "" {
                // Allowed here and refused there.
                continue;
            }
            let operation_text = spelt(&operation, random);
            let patch: json_patch::Patch =
                serde_json::from_value(json!([operation])).expect("a well-formed operation");
            let mut next = value.clone();
            let expected = json_patch::patch_unsafe(&mut next, &patch);
            let patch_text = format!("[{operation_text}]");
            let found = patched(PatchKind::Json, Some(text.as_bytes()), patch_text.as_bytes(), &LIMITS);
            prop_assert_eq!(found.is_ok(), expected.is_ok(), "{} {}: {:?}", text, patch_text, found);
            if let Ok(found) = found {
                let found_value: Value = serde_json::from_slice(&found).expect("valid");
                prop_assert_eq!(&found_value, &next, "{} {}", text, patch_text);
                text = String::from_utf8(found).expect("cut at characters");
                value = next;
                applied.push(operation_text);
            }
        }
        let patch = format!("[{}]", applied.join(","));
        let found = patched(PatchKind::Json, Some(stored_text.as_bytes()), patch.as_bytes(), &LIMITS);
        let found = String::from_utf8(found.expect("each succeeded alone")).expect("cut at characters");
        prop_assert_eq!(found, text, "{}", patch);
    }

    #[test]
    fn untouched_text_stays_byte_for_byte(
        stored in pairs(vec!["1.50", "1E5", "null", r#""\u00e9\/""#, "[1.0,{}]", r#"{"b":-0}"#], 8),
        patch in pairs(vec!["2.0", "null", r#""\u0041""#, "[null]"], 6),
    ) {
        for (kind, null_removes) in [(PatchKind::Shallow, false), (PatchKind::Merge, true)] {
            let found = patched(kind, Some(object(&stored).as_bytes()), object(&patch).as_bytes(), &LIMITS);
            let found = String::from_utf8(found.expect("small")).expect("cut at characters");
            prop_assert_eq!(found, object(&laid_over(&stored, &patch, null_removes)));
        }
        // The same as operations, which name each member once.
        let mut operations = Vec::new();
        let mut expected = stored.clone();
        for (name, value) in &patch {
            let there = expected.iter().any(|pair| unescaped(pair.0) == unescaped(name));
            if *value != "null" {
                let name = unescaped(name).replace('/', "~1");
                operations.push(format!(r#"{{"op":"add","path":"/{name}","value":{value}}}"#));
            } else if there {
                let name = unescaped(name).replace('/', "~1");
                operations.push(format!(r#"{{"op":"remove","path":"/{name}"}}"#));
            }
            // A name that a pointer makes has its shortest spelling.
            let name = if there { name } else { unescaped(name) };
            let name: &'static str = name;
            expected = laid_over(&expected, &[(name, value)], true);
        }
        let patch = format!("[{}]", operations.join(","));
        let found = patched(PatchKind::Json, Some(object(&stored).as_bytes()), patch.as_bytes(), &LIMITS);
        let found = String::from_utf8(found.expect("small")).expect("cut at characters");
        prop_assert_eq!(found, object(&expected), "{}", patch);
    }

    /// Not valid, not even JSON: an answer all the same.
    #[test]
    fn any_bytes_are_survived(
        stored in prop::collection::vec(prop::sample::select(br#"{}[]",:\ua01-e. n/"#.to_vec()), 0..40),
        patch in prop::collection::vec(prop::sample::select(br#"{}[]",:\ua01-e. n/"#.to_vec()), 0..40),
        depth_max in 0_u32..4,
        value_bytes_max in 0_usize..40,
    ) {
        let limits = PatchLimits { value_bytes_max, depth_max, inline_max: 0 };
        let paths = ["", "/", "/a", "/0", "/a/-"];
        let operations = paths.map(|path| {
            let value = String::from_utf8_lossy(&patch);
            format!(r#"[{{"op":"add","path":"{path}","value":{value}}},{{"op":"copy","from":"{path}","path":"/a"}}]"#)
        });
        for stored in [None, Some(&stored[..])] {
            let mut results = vec![
                patched(PatchKind::Shallow, stored, &patch, &limits),
                patched(PatchKind::Merge, stored, &patch, &limits),
                patched(PatchKind::Json, stored, &patch, &limits),
            ];
            for operation in &operations {
                results.push(patched(PatchKind::Json, stored, operation.as_bytes(), &limits));
            }
            for result in results.into_iter().flatten() {
                prop_assert!(result.len() <= value_bytes_max);
            }
        }
    }
}
