//! The public test suite of RFC 6902, case by case.

use std::collections::BTreeMap;
use std::path::Path;

use inflightkv_core::PatchLimits;
use inflightkv_core::merge::{PatchKind, check, patched};
use serde_json::Value;
use serde_json::value::RawValue;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/json-patch");

const LIMITS: PatchLimits = PatchLimits {
    value_bytes_max: 1 << 20,
    depth_max: 128,
    inline_max: usize::MAX,
};

/// Texts stay texts: a parsed document would have lost its duplicate names.
type Case = BTreeMap<String, Box<RawValue>>;

fn suite(file: &str, runs_at_least: usize) {
    let path = Path::new(DIRECTORY).join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: {} is not there", path.display());
        return;
    };
    let cases: Vec<Case> = serde_json::from_str(&text).expect("the suite is JSON");
    let run = cases.iter().filter(|case| run(case)).count();
    assert!(run >= runs_at_least, "only {run} cases of {file} ran");
}

fn run(case: &Case) -> bool {
    let (Some(document), Some(patch)) = (case.get("doc"), case.get("patch")) else {
        return false;
    };
    if case.contains_key("disabled") {
        return false;
    }
    let name = case
        .get("comment")
        .map_or(patch.get(), |comment| comment.get());
    let (document, patch) = (minified(document.get()), minified(patch.get()));
    let found = patched(
        PatchKind::Json,
        Some(document.as_bytes()),
        patch.as_bytes(),
        &LIMITS,
    );
    if case.contains_key("error") {
        let found = found.map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(found.is_err(), "{name}: {found:?} instead of an error");
        return true;
    }
    let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
    let value: Value = serde_json::from_slice(&found).expect(name);
    if let Some(expected) = case.get("expected") {
        let expected: Value = serde_json::from_str(expected.get()).expect(name);
        assert_eq!(value, expected, "{name}");
    }
    assert_eq!(
        found,
        minified(&String::from_utf8_lossy(&found)).as_bytes(),
        "{name}"
    );
    assert_eq!(check(PatchKind::Json, patch.as_bytes()), Ok(()), "{name}");
    true
}

/// White space outside strings goes.
fn minified(text: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    let keep = |character: &char| {
        let kept = inside || !character.is_ascii_whitespace();
        inside ^= *character == '"' && !escaped;
        escaped = *character == '\\' && !escaped;
        kept
    };
    text.chars().filter(keep).collect()
}

#[test]
fn the_examples_of_the_rfc_hold() {
    suite("spec_tests.json", 16);
}

#[test]
fn the_cases_of_the_community_hold() {
    suite("tests.json", 90);
}
