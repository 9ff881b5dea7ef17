//! The suite as a person would run it, in its quick form: a report is written, and wrong names are told.

mod support;

use std::process::{Command, Output};

use serde_json::Value;
use support::BENCH;

fn suite(folder: &std::path::Path, arguments: &[&str]) -> Output {
    Command::new(BENCH)
        .args(["suite", "--quick", "--threads", "1", "--server"])
        .arg(support::server_program())
        .arg("--out")
        .arg(folder)
        .args(arguments)
        .output()
        .expect("the program was built for this test")
}

/// In the order of the suite.
const NAMES: [&str; 5] = [
    "operations",
    "connections",
    "snapshot",
    "recovery",
    "expiry",
];

fn document(folder: &std::path::Path) -> Value {
    let text = std::fs::read(folder.join("suite.json")).expect("a report was written");
    serde_json::from_slice(&text).expect("it is JSON")
}

/// Some benchmarks once, among them those that check what they measure (none lost after SIGKILL, no increment lost):
/// they fail here when the server does.
#[test]
fn a_quick_run_measures_and_writes_a_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = suite(folder.path(), &[&["--save-baseline"], &NAMES[..]].concat());
    assert!(output.status.success(), "{output:?}");
    let report = document(folder.path());
    assert_eq!(report["format"], 1);
    assert!(
        report["environment"]["disk"]["sync_p50_us"].as_f64() > Some(0.0),
        "{report}"
    );
    let sections = report["sections"].as_array().expect("a list");
    let names: Vec<&str> = sections
        .iter()
        .filter_map(|section| section["name"].as_str())
        .collect();
    assert_eq!(names, NAMES);
    for section in sections {
        let figures = section["figures"].as_array().expect("a list");
        let notes = section["notes"].as_array().expect("a list");
        assert!(!figures.is_empty() || !notes.is_empty(), "{section}");
        let mut seen = std::collections::HashSet::new();
        for figure in figures {
            assert!(
                figure["value"].as_f64().is_some_and(f64::is_finite),
                "{figure}"
            );
            assert!(
                seen.insert(figure["name"].to_string()),
                "{figure} twice in {}",
                section["name"]
            );
        }
    }
    let page =
        std::fs::read_to_string(folder.path().join("suite.html")).expect("a page was written");
    assert!(
        page.contains("<svg") && !page.contains("{{"),
        "the page is not whole"
    );
    let summary = String::from_utf8_lossy(&output.stdout);
    assert!(
        summary.lines().count() <= 45,
        "more than a screen:\n{summary}"
    );

    // One of another machine is refused before anything is measured.
    let mut foreign = report;
    foreign["environment"]["processor"] = "Difference Engine No. 2".into();
    let foreign_path = folder.path().join("foreign.json");
    std::fs::write(&foreign_path, foreign.to_string()).expect("a file");
    let path = foreign_path.to_str().expect("text");
    let output = suite(folder.path(), &["--baseline", path]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("of another machine (Difference Engine No. 2"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");

    // A second run is set beside the first.
    let output = suite(folder.path(), &["expiry"]);
    assert!(output.status.success(), "{output:?}");
    let page =
        std::fs::read_to_string(folder.path().join("suite.html")).expect("a page was written");
    assert!(page.contains("the baseline"), "nothing was compared");
}

#[test]
fn what_is_wrong_is_one_line_that_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = |arguments: &[&str]| {
        let output = suite(folder.path(), arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    let unknown = error(&["nothing"]);
    assert!(
        unknown.contains("there is no benchmark \"nothing\"; there are operations"),
        "{unknown}"
    );
    assert_eq!(unknown.lines().count(), 1, "{unknown}");
    let old = folder.path().join("old.json");
    std::fs::write(&old, r#"{"format":0}"#).expect("a file");
    let old = error(&["--baseline", old.to_str().expect("text")]);
    assert!(old.contains("has format 0, this program reads 1"), "{old}");
    let missing = error(&["--baseline", "/nowhere/at-all.json"]);
    assert!(
        missing.contains("reading /nowhere/at-all.json"),
        "{missing}"
    );
}
