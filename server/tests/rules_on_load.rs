//! Restoring and following under rules: what breaks one is told of, and refused if that is asked for.
#![cfg(feature = "cli")]

mod support;

use std::fs;
use std::process::{Command, Output};
use support::{Server, eventually};

const RULES: &str =
    "[[rule]]\nname = \"users\"\nprefix = \"user/\"\nvalue-json-type = \"object\"\n";

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_inflightkv"))
        .args(arguments)
        .env_remove("INFLIGHTKV_TOKEN")
        .output()
        .expect("the program runs")
}

/// A folder with the rules, and a store without rules that has two entries which break them.
fn unruled(more: &[&str]) -> (tempfile::TempDir, String, Server) {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = folder.path().join("rules.toml");
    fs::write(&rules, RULES).expect("a file");
    let server = Server::start(more);
    for (key, value) in [
        ("user/1", "{}"),
        ("user/2", "[\"not-to-be-logged\"]"),
        ("user/3", "3"),
        ("other", "4"),
    ] {
        let answer = server.ask(&format!("PUT /v1/kv/{key}"), value);
        assert_eq!(answer.status, 201);
    }
    (folder, rules.display().to_string(), server)
}

fn keys(server: &Server) -> usize {
    let answer = server.ask("GET /v1/keys", "");
    answer.json()["keys"].as_array().expect("keys").len()
}

#[test]
fn a_restore_into_a_running_store_reports_or_refuses() {
    let (_folder, rules, source) = unruled(&[]);
    let backup = source.ask("GET /v1/admin/backup", "").body;
    for mode in ["replace", "merge"] {
        let server = Server::start(&["--validation", &rules]);
        assert_eq!(server.ask("PUT /v1/kv/before", "1").status, 201);
        let path = format!("POST /v1/admin/restore?mode={mode}");
        let refused = server.ask(&format!("{path}&rules=refuse"), &backup);
        assert_eq!(refused.status, 422, "{refused:?}");
        let problem = refused.json();
        assert_eq!(problem["code"], "VALIDATION_FAILED");
        assert_eq!(problem["rule"], "users");
        assert_eq!(problem["setting"], "value-json-type");
        let key = problem["key"].as_str().expect("a key");
        assert!(key == "user/2" || key == "user/3", "{key}");
        assert_eq!(keys(&server), 1, "nothing was restored");
        let done = server.ask(&path, &backup);
        assert_eq!(done.status, 200, "{done:?}");
        let report = done.json();
        assert_eq!(
            (&report["restored"], &report["unfit"]),
            (&4.into(), &2.into())
        );
        let mut first: Vec<&str> = report["firstUnfit"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|unfit| {
                assert_eq!(unfit["rule"], "users");
                unfit["key"].as_str().expect("a key")
            })
            .collect();
        first.sort_unstable();
        assert_eq!(first, ["user/2", "user/3"]);
        assert_eq!(keys(&server), if mode == "merge" { 5 } else { 4 });
        // What was refused, and what was taken, is counted.
        let hits = &server.ask("GET /v1/admin/stats", "").json()["rules"][0]["hits"];
        assert_eq!(hits.as_u64(), Some(3));
        // The setting is what a request does not say.
        let change = r#"{"rules-on-load":"refuse"}"#;
        assert_eq!(server.ask("PATCH /v1/admin/config", change).status, 200);
        assert_eq!(server.ask(&path, &backup).status, 422);
        assert_eq!(
            server.ask(&format!("{path}&rules=report"), &backup).status,
            200
        );
        assert_eq!(
            server.ask(&format!("{path}&rules=maybe"), &backup).status,
            400
        );
    }
}

#[test]
fn a_restore_into_a_directory_reports_or_refuses() {
    let (folder, rules, source) = unruled(&[]);
    let backup = folder.path().join("of.backup");
    fs::write(&backup, source.ask("GET /v1/admin/backup", "").body).expect("a file");
    let backup = backup.display().to_string();
    let data = folder.path().join("data");
    let at = data.display().to_string();
    let restore = |more: &[&str]| {
        let arguments = [
            "restore",
            "--data-dir",
            &at,
            &backup,
            "--validation",
            &rules,
        ];
        program(&[&arguments[..], more].concat())
    };
    let refused = restore(&["--rules-on-load", "refuse"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        words.contains("2 entries break a rule") && words.contains("user/3"),
        "{words}"
    );
    assert!(!words.contains("not-to-be-logged"));
    assert!(!data.exists(), "nothing was made");
    let done = restore(&[]);
    assert!(done.status.success(), "{done:?}");
    let words = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        words.contains("2 entries break a rule") && words.contains("restored: 4 entries"),
        "{words}"
    );
    assert_eq!(keys(&Server::start(&["--data-dir", &at])), 4);
}

#[test]
fn a_server_that_follows_reports_or_stops() {
    let data = tempfile::tempdir().expect("a folder");
    let at = data.path().display().to_string();
    let (_folder, rules, source) = unruled(&["--data-dir", &at]);
    let url = format!("http://{}", source.address);
    let flags = ["--follow", &url, "--validation", &rules];
    let following =
        |server: &Server| server.ask("GET /health/ready", "").json()["following"].clone();
    let reports = Server::start(&flags);
    eventually("it has loaded", || {
        reports.ask("GET /v1/kv/user/3", "").status == 200
    });
    assert_eq!(source.ask("PUT /v1/kv/user/4", "4").status, 201);
    assert_eq!(source.ask("PUT /v1/kv/user/5", "{}").status, 201);
    eventually("the changes are here", || {
        reports.ask("GET /v1/kv/user/5", "").status == 200
    });
    assert_eq!(reports.ask("GET /v1/kv/user/4", "").text(), "4");
    assert_eq!(following(&reports)["unfit"], 3);

    let (refuses, logs) =
        Server::start_logging(&[&flags[..], &["--rules-on-load", "refuse"]].concat());
    eventually("it says why it does not go on", || {
        following(&refuses)["error"]
            .as_str()
            .is_some_and(|error| error.contains("breaks the rule users"))
    });
    assert_eq!(refuses.ask("GET /health/ready", "").status, 503);
    // As soon as nothing breaks a rule any more it is there.
    for key in ["user/2", "user/3", "user/4"] {
        assert_eq!(source.ask(&format!("DELETE /v1/kv/{key}"), "").status, 204);
    }
    eventually("it has loaded", || {
        refuses.ask("GET /v1/kv/user/5", "").status == 200
    });
    let before = following(&refuses)["appliedSequence"].clone();
    assert_eq!(source.ask("PUT /v1/kv/user/6", "6").status, 201);
    eventually("it stops at the change", || {
        following(&refuses)["error"]
            .as_str()
            .is_some_and(|error| error.contains("breaks the rule users"))
    });
    assert_eq!(refuses.ask("GET /v1/kv/user/6", "").status, 404);
    assert!(following(&refuses)["appliedSequence"].as_u64() >= before.as_u64());
    assert!(refuses.terminate());
    let text = logs.read();
    assert!(
        text.contains("users") && !text.contains("not-to-be-logged"),
        "{text}"
    );
}
