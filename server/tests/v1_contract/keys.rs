//! Keys: how they are spelt and checked, and how they are listed.

use super::support::Server;
use super::{ask, check_problem, check_stored, check_value};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

#[test]
fn keys_are_checked() {
    let server = Server::start(&[]);
    check_stored(&server, "PUT /v1/kv/user/42", "1", 201, 0);
    check_value(&server, "GET /v1/kv/user%2F42", "1", 0);
    for (key, status, code) in [
        ("", 400, "INVALID_KEY"),
        ("%", 400, "INVALID_KEY"),
        ("%zz", 400, "INVALID_KEY"),
        ("%ff", 400, "INVALID_KEY"),
        ("__sys", 400, "RESERVED_KEY"),
        ("%5F_sys", 400, "RESERVED_KEY"),
        (&"k".repeat(1025), 414, "KEY_TOO_LONG"),
    ] {
        for method in ["GET", "PUT", "PATCH", "DELETE"] {
            check_problem(
                &server,
                &format!("{method} /v1/kv/{key}"),
                "{}",
                status,
                code,
            );
        }
    }
}

#[test]
fn pages_and_their_cursors() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    assert_eq!(
        ask(&server, "GET /v1/keys", "", 200).text(),
        r#"{"keys":[],"cursor":null}"#
    );
    for number in 0..257 {
        client.ask(
            &format!("PUT /v1/kv/user/{number}"),
            format!("{{\"n\":{number}}}"),
        );
    }
    for number in 0..2000 {
        client.ask(&format!("PUT /v1/kv/other/{number}?ttl=1h"), "1");
    }
    let collect = |query: &str| {
        let (mut keys, mut pages, mut cursor) = (Vec::new(), 0, None::<String>);
        loop {
            let at = cursor
                .map(|cursor| format!("&cursor={cursor}"))
                .unwrap_or_default();
            let page = server.ask(&format!("GET /v1/keys?{query}{at}"), "").json();
            let found = page["keys"].as_array().expect("keys");
            keys.extend(found.iter().cloned());
            pages += 1;
            match &page["cursor"] {
                Value::Null => return (keys, pages),
                Value::String(next) => {
                    assert!(!found.is_empty(), "an empty page with a cursor");
                    cursor = Some(next.clone());
                }
                other => panic!("{other}"),
            }
        }
    };
    let (keys, pages) = collect("prefix=user%2F&limit=50");
    let names: BTreeSet<&str> = keys
        .iter()
        .map(|key| key["key"].as_str().expect("a key"))
        .collect();
    assert_eq!((keys.len(), names.len()), (257, 257));
    assert!((6..=7).contains(&pages), "{pages} pages");
    assert!(
        keys.iter().all(|key| key["version"] == 0
            && key["etag"].is_string()
            && key.get("value").is_none())
    );
    let one = keys
        .iter()
        .find(|key| key["key"] == "user/7")
        .expect("it is there");
    assert_eq!(
        one["etag"],
        ask(&server, "GET /v1/kv/user/7", "", 200).etag()
    );
    assert_eq!(collect("limit=10000").0.len(), 2257);
    assert_eq!(
        server.ask("GET /v1/keys", "").json()["keys"]
            .as_array()
            .map(Vec::len),
        Some(100)
    );
    let (keys, _) = collect("prefix=other/1&values=true");
    assert!(keys.iter().all(|key| key["value"] == 1 && key["ttlMs"].as_u64().is_some_and(|ms| ms <= 3_600_000)));
    assert_eq!(keys.len(), 1111);

    server.ask("PUT /v1/kv/zz/o\nContent-Type: text/plain", "hi");
    let (keys, _) = collect("prefix=zz/&values=true");
    assert_eq!(
        (&keys[0]["valueBase64"], &keys[0]["mediaType"]),
        (&json!("aGk="), &json!("text/plain"))
    );

    let lines = server.ask(
        "GET /v1/keys?prefix=user/&values=true\nAccept: application/x-ndjson",
        "",
    );
    assert_eq!(
        (lines.status, lines.field("content-type")),
        (200, Some("application/x-ndjson"))
    );
    let names: BTreeSet<String> = lines
        .text()
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).expect("JSON")["key"]
                .as_str()
                .expect("a key")
                .to_owned()
        })
        .collect();
    assert_eq!((lines.text().lines().count(), names.len()), (257, 257));

    for bad in ["limit=0", "limit=10001", "limit=x", "limit=", "values=1"] {
        check_problem(
            &server,
            &format!("GET /v1/keys?{bad}"),
            "",
            400,
            "INVALID_PARAMETER",
        );
    }
    check_problem(
        &server,
        "GET /v1/keys?cursor=nonsense",
        "",
        400,
        "INVALID_CURSOR",
    );
    check_problem(
        &server,
        "GET /v1/keys?cursor=nonsense\nAccept: application/x-ndjson",
        "",
        400,
        "INVALID_CURSOR",
    );
    let foreign = server.ask("GET /v1/keys?limit=1", "").json()["cursor"]
        .as_str()
        .expect("a cursor")
        .to_owned();
    std::thread::sleep(Duration::from_millis(5));
    check_problem(
        &Server::start(&[]),
        &format!("GET /v1/keys?cursor={foreign}"),
        "",
        400,
        "INVALID_CURSOR",
    );
    check_problem(
        &server,
        "GET /v1/keys?Limit=1&sort=x",
        "",
        400,
        "UNKNOWN_PARAMETER",
    );
}
