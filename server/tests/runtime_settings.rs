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

/// Switched on, values that are there are compressed; switched off, they are whole again; clients see neither.
#[test]
fn compression_is_switched_while_the_server_runs() {
    let server = Server::start(&[]);
    let text = format!("[{}0]", "\"again and again\",".repeat(300));
    for number in 0..20 {
        let answer = server.ask(&format!("PUT /v1/kv/k{number}"), &text);
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let compressed = |server: &Server| {
        let stats = server.ask("GET /v1/admin/stats", "").json();
        stats["compression"]["codecs"]["zstd"]["entries"].as_u64()
    };
    assert_eq!(compressed(&server), Some(0));
    for (mode, wanted) in [("adaptive", 20), ("off", 0)] {
        let answer = change(
            &server,
            &format!(r#"{{"compression":"{mode}","compression-cpu":50}}"#),
        );
        assert_eq!(answer.status, 200, "{answer:?}");
        eventually("what was switched", || compressed(&server) == Some(wanted));
        let answer = server.ask("GET /v1/kv/k7", "");
        assert_eq!((answer.status, answer.text()), (200, &text[..]));
        if mode == "adaptive" {
            who_accepts_zstd_gets_what_is_stored(&server, &text);
        }
    }
    let answer = change(&server, r#"{"compression":"brotli"}"#);
    assert_eq!(answer.status, 400);
}

/// A frame of Zstandard is another representation: it has its own tag, says what it is, and its digest is of the frame.
fn who_accepts_zstd_gets_what_is_stored(server: &Server, text: &str) {
    let plain = server.ask("GET /v1/kv/k3", "");
    assert_eq!(plain.field("content-encoding"), None);
    assert_eq!(plain.field("vary"), Some("accept-encoding"));
    let tag = plain.field("etag").expect("a tag").to_owned();
    let frame = server.ask(
        "GET /v1/kv/k3\nAccept-Encoding: gzip, zstd\nWant-Content-Digest: sha-256=1",
        "",
    );
    assert_eq!(frame.field("content-encoding"), Some("zstd"), "{frame:?}");
    assert_eq!(frame.field("content-type"), Some("application/json"));
    assert!(frame.body.len() * 4 < text.len());
    let mut value = Vec::new();
    inflightkv_compression::codec(inflightkv_compression::CodecId::Zstd)
        .decompress(&frame.body, text.len(), &mut value)
        .expect("a sound frame");
    assert_eq!(value, text.as_bytes());
    let digest = frame
        .field("content-digest")
        .expect("it was wanted")
        .to_owned();
    let of_value = server.ask("GET /v1/kv/k3\nWant-Content-Digest: sha-256=1", "");
    assert_ne!(of_value.field("content-digest"), Some(&digest[..]));
    let frame_tag = frame.field("etag").expect("a tag").to_owned();
    assert_eq!(frame_tag, format!("\"{}-zstd\"", tag.trim_matches('"')));
    for known in [&tag, &frame_tag] {
        let ask = format!("GET /v1/kv/k3\nAccept-Encoding: zstd\nIf-None-Match: {known}");
        let answer = server.ask(&ask, "");
        assert_eq!(answer.status, 304);
        assert_eq!(answer.field("etag"), Some(&known[..]));
    }
    // Either names the value in a condition on a write.
    let ask = format!("PUT /v1/kv/k3\nIf-Match: {frame_tag}");
    assert_eq!(server.ask(&ask, text).status, 204);
    let refused = server.ask("GET /v1/kv/k3\nAccept-Encoding: zstd;q=0, gzip", "");
    assert_eq!(refused.field("content-encoding"), None);
}
