//! The configuration of a running server: shown, changed by requests, read again on SIGHUP.
#![cfg(feature = "cli")]

mod support;

use serde_json::{Value, json};
use support::{Answer, Server, eventually};

fn change(server: &Server, body: &str) -> Answer {
    server.ask("PATCH /v1/admin/config", body)
}

fn shown(server: &Server) -> Value {
    let answer = server.ask("GET /v1/admin/config", "");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[test]
fn settings_are_shown_as_they_hold_and_with_where_they_come_from() {
    let server = Server::start(&["--max-memory", "64MiB", "--node-id", "n"]);
    let settings = shown(&server);
    assert_eq!(settings["max-memory"], "64MiB");
    assert_eq!(settings["eviction"], "none");
    assert_eq!(settings["partitions"], 128);
    assert_eq!(settings["data-dir"], Value::Null);
    let details = server.ask("GET /v1/admin/config?details=true", "").json();
    assert_eq!(details["node-id"]["value"], "n");
    assert_eq!(details["node-id"]["from"], "flag --node-id");
    assert_eq!(details["node-id"]["runtime"], false);
    assert_eq!(details["eviction"]["runtime"], true);
}

#[test]
fn a_change_holds_at_once_and_whole() {
    let server = Server::start(&[]);
    let answer = change(&server, r#"{"max-memory":"32MiB","eviction":"s3-fifo"}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["eviction"], "s3-fifo");
    assert_eq!(shown(&server)["max-memory"], "32MiB");
    for (body, code, words) in [
        (
            r#"{"max-memory":"64MiB","eviction":"mru"}"#,
            "INVALID_SETTING",
            "one of none, lru",
        ),
        (r#"{"evict":"lru"}"#, "INVALID_SETTING", "unknown setting"),
        (r#"{"threads":1}"#, "NEEDS_RESTART", "restart"),
        ("[]", "INVALID_SETTING", "not an object"),
        ("{", "INVALID_JSON", ""),
        ("", "INVALID_JSON", ""),
    ] {
        let answer = change(&server, body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert_eq!(answer.json()["code"], code, "{body}");
        assert!(answer.text().contains(words), "{body}: {answer:?}");
        assert_eq!(shown(&server)["max-memory"], "32MiB", "{body}");
    }
    let answer = server.ask(
        "PATCH /v1/admin/config\nContent-Type: application/json-patch+json",
        "[]",
    );
    assert_eq!(answer.status, 415);
    assert_eq!(server.ask("PUT /v1/admin/config", "{}").status, 405);
    assert_eq!(change(&server, r#"{"max-memory":null}"#).status, 200);
    assert_eq!(shown(&server)["max-memory"], Value::Null);
}

#[test]
fn a_hang_up_reads_the_run_time_settings_of_the_file_again() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("inflightkv.toml");
    let write = |text: &str| std::fs::write(&path, text).expect("writing a file");
    write("eviction = 'lru'\nmax-memory = '16MiB'\nnode-id = 'old'\n");
    let file = path.to_str().expect("a path of ours");
    let server = Server::start(&["--config", file, "--max-memory", "8MiB"]);
    assert_eq!(shown(&server)["eviction"], "lru");

    write("eviction = 'lfu'\nmax-memory = '32MiB'\nnode-id = 'new'\n");
    server.hang_up();
    eventually("the new policy", || shown(&server)["eviction"] == "lfu");
    assert_eq!(shown(&server)["max-memory"], "8MiB", "the flag still wins");
    assert_eq!(shown(&server)["node-id"], "old", "it takes a restart");

    // A broken file changes nothing, and the server goes on.
    write("eviction = 'mru'\n");
    server.hang_up();
    assert_eq!(server.ask("PUT /v1/kv/a", "1").status, 201);
    write("eviction = 'random'\n");
    server.hang_up();
    eventually("the sound file", || shown(&server)["eviction"] == "random");
    assert_eq!(
        server.ask("GET /v1/admin/config", "").json()["eviction"],
        json!("random")
    );
    assert!(server.terminate());
}
