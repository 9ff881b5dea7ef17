//! Mistakes that the system before this one made, each with the test that would have shown it.
//!
//! Malformed JSON answered with 500 is in `bodies`, a tag from before a delete in the contract of `/v1`.

use super::support::Server;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Two PATCHes at a time: one was lost.
#[test]
fn concurrent_patches_are_all_there() {
    let server = Server::start(&["--threads", "4"]);
    for prefix in ["/kv/shared", "/v1/kv/native"] {
        assert!(matches!(
            server.ask(&format!("PUT {prefix}"), "{}").status,
            200 | 201
        ));
        thread::scope(|scope| {
            for client in 0..8 {
                let server = &server;
                scope.spawn(move || {
                    let mut connection = server.connect();
                    for number in 0..50 {
                        let answer = connection.ask(
                            &format!("PATCH {prefix}"),
                            format!("{{\"{client}-{number}\":{number}}}"),
                        );
                        assert!(matches!(answer.status, 200 | 204), "{answer:?}");
                    }
                });
            }
        });
        let name = prefix.rsplit('/').next().expect("a name");
        let answer = server.ask(&format!("GET /v1/kv/{name}"), "");
        assert_eq!(
            answer.json().as_object().map(serde_json::Map::len),
            Some(400),
            "{prefix}"
        );
        assert_eq!(answer.field("version"), Some("400"), "{prefix}");
    }
}

/// Compare and set by version and by tag: exactly one of those who saw the same value wins.
#[test]
fn concurrent_conditional_writes_have_one_winner() {
    let server = Server::start(&["--threads", "4"]);
    assert_eq!(server.ask("PUT /v1/kv/a", "0").status, 201);
    thread::scope(|scope| {
        for client in 0..6 {
            let server = &server;
            scope.spawn(move || {
                let mut connection = server.connect();
                let mut won = 0;
                while won < 30 {
                    let seen = connection.ask("GET /v1/kv/a", "");
                    let count: u64 = seen.text().parse().expect("a number");
                    let condition = if client % 2 == 0 {
                        format!(
                            "PUT /v1/kv/a?ifVersion={}",
                            seen.field("version").expect("a version")
                        )
                    } else {
                        format!("PUT /v1/kv/a\nIf-Match: {}", seen.etag())
                    };
                    match connection.ask(&condition, (count + 1).to_string()).status {
                        204 => won += 1,
                        412 => {}
                        other => panic!("{other}"),
                    }
                }
            });
        }
    });
    let last = server.ask("GET /v1/kv/a", "");
    assert_eq!((last.text(), last.field("version")), ("180", Some("180")));
}

/// A conditional write whose key vanished meanwhile became an insert.
#[test]
fn conditional_writes_never_create_what_was_deleted() {
    let server = Server::start(&["--threads", "4"]);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (server, over) = (&server, &over);
        let deleter = scope.spawn(move || {
            let mut connection = server.connect();
            for _ in 0..300 {
                assert_eq!(connection.ask("PUT /v1/kv/a", "\"made\"").status / 100, 2);
                assert_eq!(connection.ask("DELETE /v1/kv/a", "").status, 204);
                // Nobody else may make it: it stays away until the next round.
                assert_eq!(connection.ask("GET /v1/kv/a", "").status, 404);
                assert_eq!(connection.ask("GET /kv/a", "").status, 404);
            }
            over.store(true, Ordering::Relaxed);
        });
        for request in [
            "PUT /v1/kv/a\nIf-Match: *",
            "PATCH /v1/kv/a\nIf-Match: *",
            "PUT /v1/kv/a?ifVersion=0",
            "PUT /kv/a?ifVersion=0",
            "PATCH /kv/a?ifVersion=0",
        ] {
            scope.spawn(move || {
                let mut connection = server.connect();
                while !over.load(Ordering::Relaxed) {
                    let answer = connection.ask(request, "{\"b\":1}");
                    assert!(
                        matches!(answer.status, 200 | 204 | 409 | 412),
                        "{request}: {answer:?}"
                    );
                    if request.contains(" /kv/") && answer.status == 409 {
                        assert_eq!(
                            answer.json()["error"]["errorCode"],
                            "CONFLICT",
                            "a conflict says what it is"
                        );
                    }
                }
            });
        }
        deleter.join().expect("the deleter's checks hold");
    });
}

/// Listing keys raced with writes. Every key that is there from start to end is listed exactly once, by pages and by lines.
#[test]
fn lasting_keys_are_listed_exactly_once_under_writes() {
    let server = Server::start(&["--threads", "2", "--partitions", "8"]);
    let mut client = server.connect();
    let lasting: BTreeSet<String> = (0..3_000).map(|n| format!("lasting/{n}")).collect();
    let lines: String = lasting
        .iter()
        .map(|key| format!("{{\"op\":\"put\",\"key\":\"{key}\",\"value\":0}}\n"))
        .collect();
    assert_eq!(
        client
            .ask("POST /v1/batch\nContent-Type: application/x-ndjson", lines)
            .status,
        200
    );
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (server, over) = (&server, &over);
        for writer in 0..3 {
            scope.spawn(move || {
                let mut connection = server.connect();
                let mut round = 0;
                while !over.load(Ordering::Relaxed) {
                    // Tables grow, slots become free and are taken again, values change their size.
                    let puts: String = (0..300)
                        .map(|n| format!("{{\"op\":\"put\",\"key\":\"passing/{writer}/{round}/{n}\",\"value\":{round}}}\n"))
                        .chain((0..50).map(|n| format!("{{\"op\":\"put\",\"key\":\"lasting/{}\",\"value\":\"{}\"}}\n", n * 7 + writer, "x".repeat(round % 300))))
                        .collect();
                    connection.ask("POST /v1/batch\nContent-Type: application/x-ndjson", puts);
                    let deletes: String = (0..300)
                        .map(|n| format!("{{\"op\":\"delete\",\"key\":\"passing/{writer}/{round}/{n}\"}}\n"))
                        .collect();
                    connection.ask("POST /v1/batch\nContent-Type: application/x-ndjson", deletes);
                    round += 1;
                }
            });
        }
        let check = |listed: Vec<String>, how: &str| {
            let found: BTreeSet<&String> = listed.iter().collect();
            let lasting_found = listed
                .iter()
                .filter(|key| key.starts_with("lasting/"))
                .count();
            assert!(
                lasting.iter().all(|key| found.contains(key)),
                "{how}: one is missing"
            );
            assert_eq!(lasting_found, lasting.len(), "{how}: one is there twice");
        };
        let _end = End(over);
        for limit in [17, 100, 999] {
            let (mut listed, mut cursor) = (Vec::new(), None::<String>);
            loop {
                let at = cursor
                    .map(|cursor| format!("&cursor={cursor}"))
                    .unwrap_or_default();
                let page = client
                    .ask(&format!("GET /v1/keys?limit={limit}{at}"), "")
                    .json();
                listed.extend(
                    page["keys"]
                        .as_array()
                        .expect("keys")
                        .iter()
                        .map(|row| row["key"].as_str().expect("a key").to_owned()),
                );
                match page["cursor"].as_str() {
                    Some(next) => cursor = Some(next.to_owned()),
                    None => break,
                }
            }
            check(listed, &format!("pages of {limit}"));
        }
        for request in [
            "GET /kv",
            "GET /kv?skipOtherNodes=true",
            "GET /v1/keys\nAccept: application/x-ndjson",
        ] {
            let answer = client.ask(request, "");
            let keys = answer.text().lines().map(|line| {
                let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
                row["key"].as_str().expect("a key").to_owned()
            });
            check(keys.collect(), request);
        }
    });
}

/// Stops the writers, also when a check fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Node and partition were chosen by the same hash modulo, so half of the partitions stayed empty.
#[test]
fn every_partition_is_used() {
    for partitions in [2usize, 64, 256] {
        let server = Server::start(&["--partitions", &partitions.to_string()]);
        let lines: String = (0..6_000)
            .map(|n| format!("{{\"op\":\"put\",\"key\":\"user:{n}\",\"value\":{n}}}\n"))
            .collect();
        assert_eq!(
            server
                .ask("POST /v1/batch\nContent-Type: application/x-ndjson", lines)
                .status,
            200
        );
        let stats = server.ask("GET /v1/admin/stats", "").json();
        let entries: Vec<u64> = stats["partitions"]
            .as_array()
            .expect("partitions")
            .iter()
            .map(|partition| partition["entries"].as_u64().expect("a number"))
            .collect();
        assert_eq!(entries.len(), partitions);
        let fair = 6_000 / partitions as u64;
        assert!(
            entries
                .iter()
                .all(|&count| count > fair / 4 && count < fair * 3),
            "{entries:?}"
        );
    }
}
