//! The generator against the real server: every mix is answered without a failure, and says what it cost.

mod support;

use std::process::{Command, Output};

use serde_json::Value;
use support::{BENCH, Server};

fn load(server: &Server, arguments: &[&str]) -> Output {
    Command::new(BENCH)
        .args(["load", "--json", "--address", &server.address])
        .args([
            "--pid",
            &server.pid(),
            "--keys",
            "500",
            "--connections",
            "8",
        ])
        .args(arguments)
        .output()
        .expect("the program was built for this test")
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn every_mix_is_answered() {
    let server = Server::start(&[]);
    let mixes = [
        "get",
        "put",
        "patch",
        "list",
        "mixed",
        "crud",
        "ycsb-a",
        "ycsb-b",
        "ycsb-c",
        "ycsb-d",
        "ycsb-e",
        "ycsb-f",
        "through",
        "batch-get",
        "batch-put",
    ];
    for mix in mixes {
        let output = load(&server, &["--fill", "--requests", "400", "--mix", mix]);
        let report = report(&output);
        assert!(output.status.success(), "{mix}: {report}");
        assert_eq!(report["requests"], 400, "{mix}");
        let server = &report["server"];
        assert!(
            server["cpu_us_per_request"].as_f64() > Some(0.0),
            "{mix}: {report}"
        );
        assert!(
            server["resident_peak_bytes"].as_u64() >= server["resident_average_bytes"].as_u64(),
            "{mix}: {report}"
        );
        assert!(
            report["busy_per_core"]
                .as_array()
                .is_some_and(|cores| !cores.is_empty())
        );
    }
}

#[test]
fn misses_are_counted_where_they_are_nothing_wrong() {
    let server = Server::start(&[]);
    // Nothing is there: each key is missed once, then written, then found.
    let output = load(&server, &["--requests", "3000", "--mix", "through"]);
    let through = report(&output);
    assert!(output.status.success(), "{through}");
    let misses = through["misses"].as_u64().expect("a count");
    assert!((50..1_000).contains(&misses), "{through}");
    let again = report(&load(
        &server,
        &[
            "--requests",
            "3000",
            "--mix",
            "through",
            "--popularity",
            "uniform",
        ],
    ));
    assert!(again["misses"].as_u64() < Some(misses + 500), "{again}");

    let empty = Server::start(&[]);
    let output = load(&empty, &["--requests", "10", "--mix", "get"]);
    assert!(!output.status.success());
    assert_eq!(report(&output)["failures"]["missing"], 10);
}

#[test]
fn large_and_small_values_come_back_whole() {
    let server = Server::start(&[]);
    let sizes = [
        "--value-bytes",
        "120",
        "--large-bytes",
        "200000",
        "--large-percent",
        "5",
    ];
    let asked = ["--fill", "--requests", "500", "--mix", "mixed"];
    let output = load(&server, &[&asked[..], &sizes[..]].concat());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report(&output)["requests"], 500);
}

#[test]
fn pipelined_and_many_connections_are_answered() {
    let server = Server::start(&[]);
    let output = load(
        &server,
        &[
            "--fill",
            "--requests",
            "4000",
            "--mix",
            "mixed",
            "--pipeline",
            "16",
        ],
    );
    assert!(output.status.success(), "{output:?}");
    let output = Command::new(BENCH)
        .args(["load", "--json", "--address", &server.address, "--fill"])
        .args([
            "--connections",
            "1000",
            "--requests",
            "5000",
            "--keys",
            "500",
        ])
        .output()
        .expect("the program was built for this test");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report(&output)["connections"], 1000);
}

/// One connection, one thread: the same seed leaves the same values behind, another seed others.
#[test]
fn a_run_is_repeated_by_its_seed() {
    let state = |seed: &str| {
        let server = Server::start(&[]);
        let output = Command::new(BENCH)
            .args([
                "load",
                "--address",
                &server.address,
                "--connections",
                "1",
                "--keys",
                "50",
            ])
            .args(["--requests", "300", "--mix", "crud", "--seed", seed])
            .output()
            .expect("the program was built for this test");
        assert!(output.status.success(), "{output:?}");
        let keys = Command::new(support::server_program())
            .args(["keys", "--url", &server.address, "--values"])
            .output()
            .expect("the program is there");
        assert!(keys.status.success(), "{keys:?}");
        let text = String::from_utf8(keys.stdout).expect("text");
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| {
                let mut entry: Value = serde_json::from_str(line).expect("a line is JSON");
                // It is never used twice, so it cannot be the same.
                entry.as_object_mut().expect("an entry").remove("etag");
                entry.to_string()
            })
            .collect();
        lines.sort();
        assert!(!lines.is_empty());
        lines
    };
    let first = state("7");
    assert_eq!(first, state("7"));
    assert_ne!(first, state("8"));
}

#[test]
fn latencies_are_kept_apart_by_time() {
    let server = Server::start(&[]);
    let asked = [
        "--fill",
        "--rate",
        "500",
        "--duration",
        "1s",
        "--windows",
        "250ms",
    ];
    let report = report(&load(&server, &asked));
    let windows = report["windows"].as_array().expect("a list");
    assert_eq!(windows.len(), 4, "{report}");
    let requests: u64 = windows
        .iter()
        .filter_map(|window| window["requests"].as_u64())
        .sum();
    assert_eq!(Some(requests), report["requests"].as_u64());
}

#[test]
fn the_knee_lies_below_the_ceiling() {
    let server = Server::start(&[]);
    let output = load(
        &server,
        &[
            "--fill",
            "--knee",
            "--p99-below",
            "10s",
            "--duration",
            "200ms",
        ],
    );
    assert!(output.status.success(), "{output:?}");
    let found = report(&output);
    let ceiling = found["ceiling"].as_f64().expect("a number");
    assert!(ceiling > 100.0, "{found}");
    assert!(
        found["steps"]
            .as_array()
            .is_some_and(|steps| !steps.is_empty()),
        "{found}"
    );
    if let Some(knee) = found["knee"].as_f64() {
        assert!(knee <= ceiling, "{found}");
    }
    let never = load(
        &server,
        &["--knee", "--p99-below", "0ms", "--duration", "100ms"],
    );
    assert!(report(&never)["knee"].is_null(), "{never:?}");
}

#[test]
fn what_a_protocol_does_not_have_is_one_sentence() {
    let server = Server::start(&[]);
    let output = load(&server, &["--protocol", "redis", "--mix", "patch"]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("--mix patch asks for what this protocol does not have"),
        "{error}"
    );
}

#[test]
fn no_increment_gets_lost() {
    let server = Server::start(&[]);
    let output = Command::new(BENCH)
        .args(["counter", "--json", "--address", &server.address])
        .args(["--clients", "6", "--increments", "50"])
        .output()
        .expect("the program was built for this test");
    assert!(output.status.success(), "{output:?}");
    let outcome = report(&output);
    assert_eq!(outcome["final_value"], 300, "{outcome}");
    assert_eq!(outcome["successes"], 300, "{outcome}");
}
