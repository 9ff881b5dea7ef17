//! Comparisons as a person would run them: peers, the other design, two builds of the server.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::{BENCH, server_program};

const SHORT: [&str; 8] = [
    "--round",
    "200ms",
    "--keys",
    "200",
    "--seed",
    "3",
    "--value-bytes",
    "100",
];

fn compare(what: &str, folder: &Path, arguments: &[&str]) -> Output {
    Command::new(BENCH)
        .args(["compare", what, "--rounds", "1", "--server"])
        .arg(server_program())
        .arg("--out")
        .arg(folder)
        .args(SHORT)
        .args(arguments)
        .output()
        .expect("the program was built for this test")
}

fn document(folder: &Path, name: &str) -> Value {
    let text =
        std::fs::read(folder.join(name).with_extension("json")).expect("a report was written");
    serde_json::from_slice(&text).expect("it is JSON")
}

fn figures(document: &Value, section: &str) -> Vec<(String, f64)> {
    let sections = document["sections"].as_array().expect("a list");
    let section = sections
        .iter()
        .find(|one| one["name"] == section)
        .expect("the section");
    let figures = section["figures"].as_array().expect("a list").iter();
    figures
        .map(|figure| {
            let name = figure["name"].as_str().expect("a name").to_owned();
            (name, figure["value"].as_f64().expect("a number"))
        })
        .collect()
}

/// Who is installed takes part, who is not is told, and every figure is there for each.
#[test]
fn peers_that_are_installed_are_measured() {
    let folder = tempfile::tempdir().expect("a folder");
    let servers = [
        "--servers",
        "inflightkv,bare,redis,memcached",
        "--threads",
        "1",
    ];
    let output = compare("peers", folder.path(), &servers);
    assert!(output.status.success(), "{output:?}");
    let document = document(folder.path(), "peers");
    let told = String::from_utf8_lossy(&output.stderr);
    for (name, program) in [
        ("inflightkv", None),
        ("redis", Some("redis-server")),
        ("memcached", Some("memcached")),
    ] {
        let there = program.is_none_or(|program| {
            std::env::var_os("PATH").is_some_and(|path| {
                std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
            })
        });
        let get = figures(&document, "get");
        let rate = get.iter().find(|(figure, _)| figure == name);
        assert_eq!(rate.is_some(), there, "{name}: {get:?}");
        if there {
            assert!(rate.is_some_and(|&(_, rate)| rate > 50.0), "{get:?}");
            for cost in ["server CPU", "generator CPU"] {
                let cost = format!("{name}: {cost}");
                assert!(
                    get.iter()
                        .any(|(figure, value)| *figure == cost && *value > 0.0),
                    "{cost} in {get:?}"
                );
            }
        } else {
            assert!(
                told.contains("is not installed, so it is left out; to have it compared:"),
                "{told}"
            );
        }
    }
    assert!(folder.path().join("peers.html").is_file());
}

/// Where no peer is installed each is named with what would install it, and nothing is measured.
#[test]
fn a_comparison_of_nobody_is_refused() {
    let output = Command::new(BENCH)
        .args(["compare", "peers", "--servers", "redis,etcd"])
        .env("PATH", "/nowhere")
        .output()
        .expect("the program was built for this test");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{output:?}");
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 3, "{error}");
    assert!(
        lines[0].contains("redis-server is not installed")
            && lines[0].contains("apt-get install redis-server"),
        "{error}"
    );
    assert!(lines[1].contains("apt-get install etcd-server"), "{error}");
    assert!(
        lines[2].contains("none of the servers that were asked for is installed"),
        "{error}"
    );
}

#[test]
fn the_other_design_does_the_same_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = compare("loops", folder.path(), &[]);
    assert!(output.status.success(), "{output:?}");
    let document = document(folder.path(), "loops");
    for section in ["get", "put", "in-process"] {
        for name in ["inflightkv", "queues"] {
            let figures = figures(&document, section);
            let rate = figures.iter().find(|(figure, _)| figure == name);
            assert!(
                rate.is_some_and(|&(_, rate)| rate > 50.0),
                "{section} {name}: {figures:?}"
            );
        }
    }
}

/// A build beside itself is no slower than a bound that leaves room for a busy machine.
#[test]
fn two_builds_take_turns() {
    let output = Command::new(BENCH)
        .args([
            "compare",
            "builds",
            "--json",
            "--pairs",
            "5",
            "--limit-percent",
            "400",
        ])
        .args(["--round", "100ms", "--keys", "200", "--new"])
        .arg(server_program())
        .arg("--old")
        .arg(server_program())
        .output()
        .expect("the program was built for this test");
    assert!(output.status.success(), "{output:?}");
    let outcome: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for operation in outcome["operations"].as_array().expect("a list") {
        assert_eq!(
            operation["ratios"].as_array().map(Vec::len),
            Some(5),
            "{operation}"
        );
        assert!(
            operation["low"].as_f64() <= operation["median"].as_f64(),
            "{operation}"
        );
        assert!(
            operation["median"].as_f64() <= operation["high"].as_f64(),
            "{operation}"
        );
    }
    let missing = Command::new(BENCH)
        .args([
            "compare",
            "builds",
            "--new",
            "/nowhere/at-all",
            "--old",
            "/nowhere/at-all",
        ])
        .output()
        .expect("the program was built for this test");
    let error = String::from_utf8_lossy(&missing.stderr);
    assert!(
        !missing.status.success() && error.contains("/nowhere/at-all is not there"),
        "{error}"
    );
}
