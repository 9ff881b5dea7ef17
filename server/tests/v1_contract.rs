//! The native surface `/v1`, every row of the contract, on a socket.
#![cfg(feature = "cli")]

mod support;

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use support::{Answer, Server};

const MERGE: &str = "Content-Type: application/merge-patch+json";
const JSON_PATCH: &str = "Content-Type: application/json-patch+json";

fn ask(server: &Server, request: &str, body: impl AsRef<[u8]>, status: u16) -> Answer {
    let answer = server.ask(request, body);
    assert_eq!(
        answer.status,
        status,
        "{request}: {answer:?} {}",
        String::from_utf8_lossy(&answer.body)
    );
    answer
}

/// A success without content: its status and the version it tells.
fn check_stored(server: &Server, request: &str, body: &str, status: u16, version: u64) -> Answer {
    let answer = ask(server, request, body, status);
    assert!(answer.body.is_empty(), "{request}: {answer:?}");
    assert_eq!(
        answer.field("version"),
        Some(version.to_string().as_str()),
        "{request}"
    );
    let etag = answer.etag();
    assert!(
        etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'),
        "{request}: {etag}"
    );
    answer
}

fn check_value(server: &Server, request: &str, expected: &str, version: u64) -> Answer {
    let answer = ask(server, request, "", 200);
    assert_eq!(
        (answer.text(), answer.field("version")),
        (expected, Some(version.to_string().as_str())),
        "{request}"
    );
    answer
}

fn check_problem(
    server: &Server,
    request: &str,
    body: impl AsRef<[u8]>,
    status: u16,
    code: &str,
) -> Answer {
    let answer = ask(server, request, body, status);
    assert_problem(&answer, status, code);
    answer
}

fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(
        answer.field("content-type"),
        Some("application/problem+json"),
        "{answer:?}"
    );
    let problem = answer.json();
    assert_eq!(problem["type"], "about:blank");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["code"], code, "{problem}");
    assert!(
        problem["title"]
            .as_str()
            .is_some_and(|title| !title.is_empty())
    );
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|detail| !detail.is_empty())
    );
}

#[test]
fn put_creates_changes_and_leaves_unchanged() {
    let server = Server::start(&[]);
    let created = check_stored(&server, "PUT /v1/kv/a", r#" {"x" : 1.50} "#, 201, 0);
    let changed = check_stored(&server, "PUT /v1/kv/a", "[]", 204, 1);
    assert_ne!(created.etag(), changed.etag());
    let unchanged = check_stored(&server, "PUT /v1/kv/a", " [ ] ", 204, 1);
    assert_eq!(unchanged.etag(), changed.etag());
    let got = check_value(&server, "GET /v1/kv/a", "[]", 1);
    assert_eq!(got.etag(), changed.etag());
    assert_eq!(got.field("content-type"), Some("application/json"));
    assert_eq!(got.field("ttl-ms"), None);
    assert!(got.field("date").is_some());
    assert!(got.field("server").is_none());
}

#[test]
fn numbers_escapes_and_member_order_stay_as_they_were_sent() {
    let server = Server::start(&[]);
    let text =
        r#"{"z":1e400,"a":0.10,"\u0061":"\u00e4\/","a":-0,"big":123456789012345678901234567890}"#;
    check_stored(&server, "PUT /v1/kv/a", text, 201, 0);
    check_value(&server, "GET /v1/kv/a", text, 0);
}

#[test]
fn media_types_decide_what_a_value_is() {
    let server = Server::start(&[]);
    for (number, media_type) in [
        "application/json",
        "Application/JSON;charset=utf-8",
        "application/vnd.x+json",
        "application/x-www-form-urlencoded",
    ]
    .into_iter()
    .enumerate()
    {
        check_stored(
            &server,
            &format!("PUT /v1/kv/j{number}\nContent-Type: {media_type}"),
            "{ }",
            201,
            0,
        );
        let got = check_value(&server, &format!("GET /v1/kv/j{number}"), "{}", 0);
        assert_eq!(got.field("content-type"), Some("application/json"));
        check_problem(
            &server,
            &format!("PUT /v1/kv/j{number}\nContent-Type: {media_type}"),
            "{",
            400,
            "INVALID_JSON",
        );
    }
    let bytes = [0, 255, 10, 13, 32];
    let stored = server.ask(
        "PUT /v1/kv/o\nContent-Type: application/octet-stream",
        bytes,
    );
    assert_eq!(stored.status, 201);
    let got = ask(&server, "GET /v1/kv/o", "", 200);
    assert_eq!(
        (got.body.as_slice(), got.field("content-type")),
        (bytes.as_slice(), Some("application/octet-stream"))
    );
    // The media type is part of the value, with its parameters; so is being empty.
    check_stored(
        &server,
        "PUT /v1/kv/o\nContent-Type: text/plain; charset=latin1",
        "",
        204,
        1,
    );
    let got = check_value(&server, "GET /v1/kv/o", "", 1);
    assert_eq!(
        got.field("content-type"),
        Some("text/plain; charset=latin1")
    );
    check_stored(
        &server,
        "PUT /v1/kv/o\nContent-Type: text/plain",
        "",
        204,
        2,
    );
    for bad in [
        "nonsense",
        "/",
        "text/",
        &format!("text/{}", "x".repeat(300)),
    ] {
        check_problem(
            &server,
            &format!("PUT /v1/kv/o\nContent-Type: {bad}"),
            "1",
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        );
    }
    let coded = check_problem(
        &server,
        "PUT /v1/kv/o\nContent-Encoding: gzip",
        "1",
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    );
    assert_eq!(coded.field("accept-encoding"), Some("identity"));
    check_value(&server, "GET /v1/kv/o", "", 2);
}

#[test]
fn what_is_not_json_is_told_by_its_place() {
    let server = Server::start(&[]);
    for (body, offset) in [
        ("{\"a\":1,}", 7),
        ("[1 2]", 3),
        ("\"\\ud800\"", 1),
        ("{", 1),
        ("tru", 3),
    ] {
        let refused = check_problem(&server, "PUT /v1/kv/a", body, 400, "INVALID_JSON").json();
        assert!(
            refused["detail"]
                .as_str()
                .expect("a sentence")
                .contains("byte"),
            "{refused}"
        );
        assert!(
            refused["offset"]
                .as_u64()
                .is_some_and(|found| found.abs_diff(offset) <= 1),
            "{body}: {refused}"
        );
    }
    check_problem(&server, "PUT /v1/kv/a", "", 400, "INVALID_JSON");
    check_problem(&server, "PUT /v1/kv/a", b"\"\xc3\"", 400, "INVALID_JSON");
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    check_stored(&server, "PUT /v1/kv/deep", &nested(128), 201, 0);
    check_problem(&server, "PUT /v1/kv/a", nested(129), 400, "INVALID_JSON");
    check_problem(
        &server,
        "PUT /v1/kv/a",
        nested(500_000),
        400,
        "INVALID_JSON",
    );
    check_problem(&server, "GET /v1/kv/a", "", 404, "NOT_FOUND");
}

#[test]
fn get_head_and_their_conditions() {
    let server = Server::start(&[]);
    check_problem(&server, "GET /v1/kv/a", "", 404, "NOT_FOUND");
    assert_eq!(server.ask("HEAD /v1/kv/a", "").status, 404);
    let etag = check_stored(&server, "PUT /v1/kv/a", "{\"x\":1}", 201, 0)
        .etag()
        .to_owned();
    let head = server.ask("HEAD /v1/kv/a", "");
    assert_eq!(
        (
            head.status,
            head.field("content-length"),
            head.field("version"),
            head.etag(),
            head.field("content-type")
        ),
        (
            200,
            Some("7"),
            Some("0"),
            etag.as_str(),
            Some("application/json")
        )
    );
    for same in [
        etag.clone(),
        format!("W/{etag}"),
        format!("\"x\", {etag}"),
        "*".to_owned(),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = server.ask(&format!("{method} /v1/kv/a\nIf-None-Match: {same}"), "");
            assert_eq!(
                (answer.status, answer.etag(), answer.field("version")),
                (304, etag.as_str(), Some("0")),
                "{same}"
            );
        }
    }
    for other in ["\"0\"", "\"nonsense\"", "W/\"1\""] {
        check_value(
            &server,
            &format!("GET /v1/kv/a\nIf-None-Match: {other}"),
            "{\"x\":1}",
            0,
        );
        check_problem(
            &server,
            &format!("GET /v1/kv/a\nIf-Match: {other}"),
            "",
            412,
            "PRECONDITION_FAILED",
        );
    }
    check_value(
        &server,
        &format!("GET /v1/kv/a\nIf-Match: {etag}"),
        "{\"x\":1}",
        0,
    );
}

#[test]
fn writes_on_condition() {
    let server = Server::start(&[]);
    // Nothing there: neither a version nor a tag holds, and nothing is inserted.
    for request in [
        "PUT /v1/kv/a?ifVersion=0",
        "PUT /v1/kv/a\nIf-Match: *",
        "PUT /v1/kv/a\nIf-Match: \"1\"",
        "PATCH /v1/kv/a?ifVersion=0",
        "PATCH /v1/kv/a\nIf-Match: *",
        "DELETE /v1/kv/a\nIf-Match: *",
    ] {
        let refused = check_problem(&server, request, "{}", 412, "PRECONDITION_FAILED").json();
        assert!(refused.get("currentVersion").is_none(), "{refused}");
    }
    check_problem(&server, "DELETE /v1/kv/a?ifVersion=0", "", 404, "NOT_FOUND");
    check_problem(&server, "GET /v1/kv/a", "", 404, "NOT_FOUND");

    let first = check_stored(&server, "PUT /v1/kv/a\nIf-None-Match: *", "1", 201, 0);
    let refused = check_problem(
        &server,
        "PUT /v1/kv/a\nIf-None-Match: *",
        "2",
        412,
        "PRECONDITION_FAILED",
    )
    .json();
    assert_eq!(
        (&refused["currentVersion"], &refused["currentEtag"]),
        (&json!(0), &json!(first.etag()))
    );
    check_problem(
        &server,
        "PUT /v1/kv/a?ifVersion=-1",
        "2",
        412,
        "PRECONDITION_FAILED",
    );
    check_problem(
        &server,
        "PUT /v1/kv/a?ifVersion=3",
        "2",
        412,
        "PRECONDITION_FAILED",
    );
    let second = check_stored(
        &server,
        &format!("PUT /v1/kv/a\nIf-Match: {}", first.etag()),
        "2",
        204,
        1,
    );
    for stale in [
        first.etag().to_owned(),
        format!("W/{}", second.etag()),
        "garbage".to_owned(),
        "\"zz\"".to_owned(),
    ] {
        for method in ["PUT", "PATCH", "DELETE"] {
            check_problem(
                &server,
                &format!("{method} /v1/kv/a\nIf-Match: {stale}"),
                "3",
                412,
                "PRECONDITION_FAILED",
            );
        }
    }
    // What cannot be read must not turn a conditional write into an unconditional one.
    check_problem(
        &server,
        "PUT /v1/kv/a\nIf-None-Match: garbage",
        "3",
        400,
        "INVALID_HEADER",
    );
    check_stored(
        &server,
        &format!(
            "PUT /v1/kv/a?ifVersion=1\nIf-Match: \"0\", {}",
            second.etag()
        ),
        "3",
        204,
        2,
    );
    check_problem(
        &server,
        "DELETE /v1/kv/a?ifVersion=1",
        "",
        412,
        "PRECONDITION_FAILED",
    );
    check_stored(&server, "PATCH /v1/kv/a?ifVersion=2", "4", 204, 3);
    assert!(
        ask(&server, "DELETE /v1/kv/a?ifVersion=3", "", 204)
            .body
            .is_empty()
    );
    check_problem(&server, "DELETE /v1/kv/a", "", 404, "NOT_FOUND");
    check_stored(&server, "PUT /v1/kv/a?ifVersion=-1", "5", 201, 0);
    for bad in ["abc", "", "-2", "1.5", "1e3"] {
        let refused = check_problem(
            &server,
            &format!("PUT /v1/kv/a?ifVersion={bad}"),
            "6",
            400,
            "INVALID_PARAMETER",
        );
        assert_eq!(refused.json()["parameter"], "ifVersion");
    }
}

/// Versions restart when a key is created anew; tags never do. A writer that read the old value is refused.
#[test]
fn a_tag_from_before_a_delete_never_matches_again() {
    let server = Server::start(&[]);
    let old = check_stored(&server, "PUT /v1/kv/a", "1", 201, 0)
        .etag()
        .to_owned();
    ask(&server, "DELETE /v1/kv/a", "", 204);
    let new = check_stored(&server, "PUT /v1/kv/a", "1", 201, 0)
        .etag()
        .to_owned();
    assert_ne!(old, new);
    check_problem(
        &server,
        &format!("PUT /v1/kv/a\nIf-Match: {old}"),
        "2",
        412,
        "PRECONDITION_FAILED",
    );
    check_problem(
        &server,
        &format!("DELETE /v1/kv/a\nIf-Match: {old}"),
        "",
        412,
        "PRECONDITION_FAILED",
    );
    check_value(
        &server,
        &format!("GET /v1/kv/a\nIf-None-Match: {old}"),
        "1",
        0,
    );
    check_stored(
        &server,
        &format!("PUT /v1/kv/a\nIf-Match: {new}"),
        "2",
        204,
        1,
    );
}

#[test]
fn merge_patches() {
    let server = Server::start(&[]);
    check_stored(
        &server,
        &format!("PATCH /v1/kv/a\n{MERGE}"),
        r#"{"x":{"y":1,"n":null},"gone":null}"#,
        201,
        0,
    );
    check_value(&server, "GET /v1/kv/a", r#"{"x":{"y":1}}"#, 0);
    check_stored(
        &server,
        "PATCH /v1/kv/a",
        r#"{"x": {"z": 2, "y": null}, "w": [1, null]}"#,
        204,
        1,
    );
    check_value(&server, "GET /v1/kv/a", r#"{"x":{"z":2},"w":[1,null]}"#, 1);
    check_stored(
        &server,
        "PATCH /v1/kv/a\nContent-Type: application/json",
        "{}",
        204,
        1,
    );
    let shown = ask(
        &server,
        &format!("PATCH /v1/kv/a\n{MERGE}\nPrefer: return=representation"),
        r#"{"w":1}"#,
        200,
    );
    assert_eq!(
        (shown.text(), shown.field("version")),
        (r#"{"x":{"z":2},"w":1}"#, Some("2"))
    );
    assert_eq!(
        shown.field("preference-applied"),
        Some("return=representation")
    );
    assert_eq!(shown.field("content-type"), Some("application/json"));
    let shown = ask(
        &server,
        "PATCH /v1/kv/new\nPrefer: respond-async, return=representation; x=1",
        r#"{"w":1,"v":null}"#,
        201,
    );
    assert_eq!(shown.text(), r#"{"w":1}"#);
    let shown = ask(
        &server,
        "PUT /v1/kv/new\nPrefer: return=representation",
        " [ 1 ] ",
        200,
    );
    assert_eq!((shown.text(), shown.field("version")), ("[1]", Some("1")));
    // A patch that is no object is the new value.
    check_stored(&server, "PATCH /v1/kv/new", "\"text\"", 204, 2);
    check_problem(&server, "PATCH /v1/kv/new", "{", 400, "INVALID_JSON");
    check_problem(&server, "PATCH /v1/kv/new", "", 400, "INVALID_JSON");
    let refused = check_problem(
        &server,
        "PATCH /v1/kv/new\nContent-Type: text/plain",
        "{}",
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    );
    assert_eq!(
        refused.field("accept-patch"),
        Some("application/merge-patch+json, application/json-patch+json, application/json")
    );
    ask(&server, "PUT /v1/kv/o\nContent-Type: text/plain", "{}", 201);
    check_problem(&server, "PATCH /v1/kv/o", "{}", 409, "CONFLICT");
}

#[test]
fn json_patches_are_all_or_nothing() {
    let server = Server::start(&[]);
    let patch = format!("PATCH /v1/kv/a\n{JSON_PATCH}");
    check_problem(
        &server,
        &patch,
        r#"[{"op":"add","path":"/x","value":1}]"#,
        404,
        "NOT_FOUND",
    );
    check_stored(
        &server,
        "PUT /v1/kv/a",
        r#"{"x":[1,2],"y":{"z":1.0}}"#,
        201,
        0,
    );
    check_stored(
        &server,
        &patch,
        r#"[{"op":"test","path":"/y/z","value":1},{"op":"remove","path":"/x/0"},{"op":"move","from":"/y/z","path":"/x/-"}]"#,
        204,
        1,
    );
    check_value(&server, "GET /v1/kv/a", r#"{"x":[2,1.0],"y":{}}"#, 1);
    let failed = check_problem(
        &server,
        &patch,
        r#"[{"op":"remove","path":"/y"},{"op":"test","path":"/x/0","value":3}]"#,
        409,
        "TEST_FAILED",
    );
    assert_eq!(
        (&failed.json()["operation"], &failed.json()["pointer"]),
        (&json!(1), &json!("/x/0"))
    );
    check_problem(
        &server,
        &patch,
        r#"[{"op":"remove","path":"/nowhere"}]"#,
        409,
        "CONFLICT",
    );
    for malformed in [
        r#"{"op":"add"}"#,
        r#"[{"op":"fly","path":"/x"}]"#,
        r#"[{"op":"add","path":"x","value":1}]"#,
        "[1]",
    ] {
        check_problem(&server, &patch, malformed, 400, "INVALID_PATCH");
    }
    check_value(&server, "GET /v1/kv/a", r#"{"x":[2,1.0],"y":{}}"#, 1);
    ask(&server, "PUT /v1/kv/o\nContent-Type: text/plain", "{}", 201);
    check_problem(
        &server,
        &format!("PATCH /v1/kv/o\n{JSON_PATCH}"),
        "[]",
        409,
        "CONFLICT",
    );
}

#[test]
fn expiry() {
    let server = Server::start(&[]);
    let ttl = |key: &str| {
        ask(&server, &format!("GET /v1/kv/{key}"), "", 200)
            .field("ttl-ms")
            .map(|ms| ms.parse::<u64>().expect("a number"))
    };
    for (given, ms) in [
        ("90", 90_000),
        ("1500ms", 1500),
        ("90s", 90_000),
        ("15m", 900_000),
        ("12h", 43_200_000),
        ("7d", 604_800_000),
    ] {
        server.ask(&format!("PUT /v1/kv/{given}?ttl={given}"), "1");
        let left = ttl(given).expect("it expires");
        assert!(left <= ms && left + 1400 > ms, "{given}: {left}");
    }
    for bad in [
        "0",
        "-1",
        "0s",
        "abc",
        "1.5h",
        "",
        "1w",
        "99999999999999999999",
        "40000d",
    ] {
        check_problem(
            &server,
            &format!("PUT /v1/kv/x?ttl={bad}"),
            "1",
            400,
            "INVALID_PARAMETER",
        );
        check_problem(
            &server,
            &format!("PATCH /v1/kv/x?ttl={bad}"),
            "1",
            400,
            "INVALID_PARAMETER",
        );
    }
    // A PUT clears it, unless it is to be kept; a PATCH keeps it, sets it or clears it.
    check_stored(&server, "PUT /v1/kv/a?ttl=1h", "{}", 201, 0);
    check_stored(&server, "PUT /v1/kv/a?keepTtl=true", "{\"x\":1}", 204, 1);
    assert!(ttl("a").is_some());
    check_stored(&server, "PATCH /v1/kv/a", "{\"x\":2}", 204, 2);
    assert!(ttl("a").is_some());
    check_stored(&server, "PATCH /v1/kv/a?ttl=2h", "{}", 204, 3);
    assert!(ttl("a").expect("it expires") > 3_600_000);
    check_stored(&server, "PATCH /v1/kv/a?ttl=none", "{}", 204, 4);
    assert_eq!(ttl("a"), None);
    check_stored(&server, "PATCH /v1/kv/a?ttl=1h", "{}", 204, 5);
    check_stored(&server, "PUT /v1/kv/a", "{\"x\":2}", 204, 6);
    assert_eq!(ttl("a"), None);
    check_problem(
        &server,
        "PUT /v1/kv/a?ttl=1h&keepTtl=true",
        "1",
        400,
        "INVALID_PARAMETER",
    );
    check_problem(
        &server,
        "PUT /v1/kv/a?keepTtl=yes",
        "1",
        400,
        "INVALID_PARAMETER",
    );

    check_stored(&server, "PUT /v1/kv/short?ttl=100ms", "1", 201, 0);
    std::thread::sleep(Duration::from_millis(120));
    check_problem(&server, "GET /v1/kv/short", "", 404, "NOT_FOUND");
    check_problem(
        &server,
        "PUT /v1/kv/short?ifVersion=0",
        "1",
        412,
        "PRECONDITION_FAILED",
    );
    assert!(
        !server
            .ask("GET /v1/keys?limit=1000", "")
            .text()
            .contains("short")
    );
    check_stored(&server, "PUT /v1/kv/short\nIf-None-Match: *", "1", 201, 0);
}

#[test]
fn digests() {
    let server = Server::start(&[]);
    let good = "sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:";
    check_stored(
        &server,
        &format!("PUT /v1/kv/a\nContent-Digest: {good}"),
        "{}",
        201,
        0,
    );
    check_stored(
        &server,
        &format!("PATCH /v1/kv/a\nContent-Digest: md5=:AA==:, {good}"),
        "{}",
        204,
        0,
    );
    check_problem(
        &server,
        &format!("PUT /v1/kv/a\nContent-Digest: {good}"),
        "[]",
        400,
        "DIGEST_MISMATCH",
    );
    check_problem(
        &server,
        "PUT /v1/kv/a\nContent-Digest: sha-256=nonsense",
        "{}",
        400,
        "INVALID_HEADER",
    );
    check_problem(
        &server,
        &format!("POST /v1/batch\nContent-Digest: {good}"),
        r#"{"ops":[]}"#,
        400,
        "DIGEST_MISMATCH",
    );
    let got = ask(
        &server,
        "GET /v1/kv/a\nWant-Content-Digest: sha-256=10, sha-512=3",
        "",
        200,
    );
    assert_eq!(got.field("content-digest"), Some(good));
    assert_eq!(
        ask(&server, "GET /v1/kv/a", "", 200).field("content-digest"),
        None
    );
    let got = ask(
        &server,
        "GET /v1/kv/a\nWant-Content-Digest: sha-512=1",
        "",
        200,
    );
    assert!(
        got.field("content-digest")
            .is_some_and(|field| field.starts_with("sha-512=:J8dGcK23UHX60FjV")),
        "{got:?}"
    );
}

#[test]
fn durability_needs_persistence() {
    let server = Server::start(&[]);
    check_problem(
        &server,
        "PUT /v1/kv/a?durability=sync",
        "1",
        409,
        "NOT_DURABLE",
    );
    check_problem(
        &server,
        "DELETE /v1/kv/a?durability=sync",
        "",
        409,
        "NOT_DURABLE",
    );
    check_problem(
        &server,
        "POST /v1/batch?durability=sync",
        r#"{"ops":[{"op":"put","key":"a","value":1}]}"#,
        409,
        "NOT_DURABLE",
    );
    check_problem(&server, "GET /v1/kv/a", "", 404, "NOT_FOUND");
    check_problem(
        &server,
        "PUT /v1/kv/a?durability=maybe",
        "1",
        400,
        "INVALID_PARAMETER",
    );
    check_stored(&server, "PUT /v1/kv/a?durability=async", "1", 201, 0);
    check_problem(&server, "POST /v1/admin/snapshot", "", 409, "NOT_DURABLE");
}

#[test]
fn durable_writes_snapshots_and_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().to_str().expect("UTF-8");
    for mode in ["interval", "always"] {
        let flags = ["--data-dir", path, "--wal-sync", mode];
        let server = Server::start(&flags);
        let status = if mode == "interval" { 201 } else { 204 };
        check_stored(
            &server,
            "PUT /v1/kv/a?durability=sync",
            &format!("\"{mode}\""),
            status,
            u64::from(status == 204),
        );
        check_stored(
            &server,
            "PUT /v1/kv/b?durability=async",
            &format!("\"{mode}\""),
            status,
            u64::from(status == 204),
        );
        assert_eq!(
            ask(&server, "PUT /kv/c", format!("\"{mode}\""), 200).json()["error"],
            Value::Null
        );
        ask(&server, "GET /v1/kv/b", "", 200);
        ask(&server, "GET /v1/keys", "", 200);
        assert_eq!(ask(&server, "GET /kv", "", 200).text().lines().count(), 3);
        let batch = ask(
            &server,
            "POST /v1/batch?durability=sync",
            r#"{"ops":[{"op":"put","key":"d","value":1},{"op":"delete","key":"d"}]}"#,
            200,
        );
        assert_eq!(batch.json()["results"][1]["status"], 204);

        let report = ask(
            &server,
            "POST /v1/admin/snapshot?mode=full&wait=true",
            "",
            200,
        )
        .json();
        assert_eq!(
            (&report["kind"], &report["entries"]),
            (&json!("full"), &json!(3))
        );
        let asked = ask(&server, "POST /v1/admin/snapshot?mode=incremental", "", 202).json();
        assert!(
            asked["id"].as_u64() > report["id"].as_u64(),
            "{asked} {report}"
        );
        let listing = ask(&server, "GET /v1/admin/snapshots", "", 200).json();
        assert!(!listing["segments"].as_array().expect("segments").is_empty());
        assert!(
            listing["snapshots"]
                .as_array()
                .expect("snapshots")
                .iter()
                .any(|known| known["id"] == report["id"])
        );
        check_problem(
            &server,
            "POST /v1/admin/snapshot?mode=half",
            "",
            400,
            "INVALID_PARAMETER",
        );
        check_problem(
            &server,
            "POST /v1/admin/snapshot?kind=full",
            "",
            400,
            "UNKNOWN_PARAMETER",
        );

        let etag = ask(&server, "GET /v1/kv/a", "", 200).etag().to_owned();
        assert!(server.terminate(), "it ends well");
        let server = Server::start(&flags);
        let back = check_value(
            &server,
            "GET /v1/kv/a",
            &format!("\"{mode}\""),
            u64::from(status == 204),
        );
        assert_eq!(back.etag(), etag);
        assert!(server.terminate(), "it ends well");
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

#[test]
fn batches_as_documents() {
    let server = Server::start(&[]);
    assert_eq!(
        ask(&server, "POST /v1/batch", r#"{"ops":[]}"#, 200).text(),
        r#"{"results":[]}"#
    );
    ask(
        &server,
        "PUT /v1/kv/text\nContent-Type: text/plain",
        "hi",
        201,
    );
    let answer = ask(
        &server,
        "POST /v1/batch",
        r#" {"ops": [
            {"op":"put","key":"a","value":{"x": 1.50, "n": null},"ttl":"90s"},
            {"op":"put","key":"a","value":{"x": 1.50, "n": null},"ttl":90,"ifVersion":-1},
            {"op":"patch","key":"a","value":{"n":null,"y":[1, 2]},"ifVersion":0},
            {"op":"get","key":"a"},
            {"op":"get","key":"nowhere"},
            {"op":"put","key":"b","value":null},
            {"op":"get","key":"b"},
            {"op":"put","key":"b","value":1,"ifMatch":"\"1\""},
            {"op":"put","key":"b","value":1,"ifMatch":"*"},
            {"op":"delete","key":"b","ifVersion":7},
            {"op":"delete","key":"b"},
            {"op":"delete","key":"b"},
            {"op":"get","key":"text"},
            {"op":"patch","key":"text","value":{}},
            {"op":"put","key":"nowhere","value":1,"ifMatch":"*"},
            {"op":"patch","key":"a","value":{},"ttl":"none"}
        ]} "#,
        200,
    );
    assert_eq!(answer.field("content-type"), Some("application/json"));
    let results = answer.json()["results"]
        .as_array()
        .expect("results")
        .clone();
    let statuses: Vec<u64> = results
        .iter()
        .map(|result| result["status"].as_u64().expect("a status"))
        .collect();
    assert_eq!(
        statuses,
        [
            201, 412, 204, 200, 404, 201, 200, 412, 204, 412, 204, 404, 200, 409, 412, 204
        ]
    );
    assert_eq!(
        (&results[1]["code"], &results[1]["currentVersion"]),
        (&json!("PRECONDITION_FAILED"), &json!(0))
    );
    assert_eq!(results[1]["currentEtag"], results[0]["etag"]);
    assert_eq!(results[3]["value"], json!({"x": 1.5, "y": [1, 2]}));
    assert!(
        answer.text().contains(r#""value":{"x":1.50,"y":[1,2]}}"#),
        "{}",
        answer.text()
    );
    assert_eq!(
        (&results[3]["version"], &results[3]["etag"]),
        (&json!(1), &results[2]["etag"])
    );
    assert!(results[3]["ttlMs"].as_u64().is_some_and(|ms| ms <= 90_000));
    assert_eq!(results[4]["code"], "NOT_FOUND");
    assert!(
        results[6]
            .as_object()
            .is_some_and(|result| result.get("value") == Some(&Value::Null))
    );
    assert_eq!(
        (&results[12]["valueBase64"], &results[12]["mediaType"]),
        (&json!("aGk="), &json!("text/plain"))
    );
    assert_eq!(results[13]["code"], "CONFLICT");
    let got = check_value(&server, "GET /v1/kv/a", r#"{"x":1.50,"y":[1,2]}"#, 2);
    assert_eq!(
        (got.etag(), got.field("ttl-ms")),
        (results[15]["etag"].as_str().expect("a tag"), None)
    );
    check_problem(&server, "GET /v1/kv/b", "", 404, "NOT_FOUND");
}

#[test]
fn batches_as_lines() {
    let server = Server::start(&[]);
    let body = "{\"op\":\"put\",\"key\":\"a\",\"value\":1}\n\n{\"op\":\"get\",\"key\":\"a\"}\r\n{\"op\":\"delete\",\"key\":\"a\"}";
    let answer = ask(
        &server,
        "POST /v1/batch\nContent-Type: application/x-ndjson",
        body,
        200,
    );
    assert_eq!(answer.field("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> = answer
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let statuses: Vec<&Value> = lines.iter().map(|line| &line["status"]).collect();
    assert_eq!(statuses, [201, 200, 204]);
    let refused = check_problem(
        &server,
        "POST /v1/batch\nContent-Type: application/x-ndjson",
        "{\"op\":\"get\",\"key\":\"a\"}\nnope",
        400,
        "INVALID_OPERATION",
    );
    assert_eq!(refused.json()["index"], 1);
    assert_eq!(
        ask(
            &server,
            "POST /v1/batch\nContent-Type: application/x-ndjson",
            "",
            200
        )
        .text(),
        ""
    );
    check_problem(
        &server,
        "POST /v1/batch\nContent-Type: text/csv",
        "a,b",
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    );
}

#[test]
fn large_batches_are_answered_whole() {
    let server = Server::start(&[]);
    let ops = |render: &dyn Fn(usize) -> String| {
        format!(
            "{{\"ops\":[{}]}}",
            (0..10_000).map(render).collect::<Vec<_>>().join(",")
        )
    };
    let put = ask(
        &server,
        "POST /v1/batch",
        ops(&|n| format!(r#"{{"op":"put","key":"k{n}","value":"{n:0100}"}}"#)),
        200,
    );
    assert!(
        put.json()["results"]
            .as_array()
            .is_some_and(|all| all.len() == 10_000 && all.iter().all(|one| one["status"] == 201))
    );
    let got = ask(
        &server,
        "POST /v1/batch",
        ops(&|n| format!(r#"{{"op":"get","key":"k{n}"}}"#)),
        200,
    );
    for (number, result) in got.json()["results"]
        .as_array()
        .expect("results")
        .iter()
        .enumerate()
    {
        assert_eq!(result["value"], format!("{number:0100}"));
    }
    let mut many = ops(&|_| r#"{"op":"get","key":"a"}"#.to_owned());
    many.insert_str(8, r#"{"op":"get","key":"a"},"#);
    let refused = check_problem(&server, "POST /v1/batch", many, 413, "PAYLOAD_TOO_LARGE");
    assert_eq!(refused.json()["limit"], 10_000);
    let lines = "{\"op\":\"get\",\"key\":\"a\"}\n".repeat(10_001);
    check_problem(
        &server,
        "POST /v1/batch\nContent-Type: application/x-ndjson",
        lines,
        413,
        "PAYLOAD_TOO_LARGE",
    );
}

/// The first bad operation is named, and those before it have not been done either.
#[test]
fn a_malformed_operation_refuses_the_batch() {
    let server = Server::start(&[]);
    for bad in [
        r#"{"op":"fly","key":"k"}"#,
        r#"{"op":"get"}"#,
        r#"{"key":"k"}"#,
        r#"{"op":"get","key":""}"#,
        r#"{"op":"put","key":"k"}"#,
        r#"{"op":"put","key":"__k","value":1}"#,
        r#"{"op":"put","key":"k","value":1,"ifversion":1}"#,
        r#"{"op":"put","key":"k","value":1,"ifVersion":-2}"#,
        r#"{"op":"put","key":"k","value":1,"ifVersion":"1"}"#,
        r#"{"op":"put","key":"k","value":1,"ifVersion":1.5}"#,
        r#"{"op":"put","key":"k","value":1,"ifVersion":null}"#,
        r#"{"op":"put","key":"k","value":1,"ttl":0}"#,
        r#"{"op":"put","key":"k","value":1,"ttl":"soon"}"#,
        r#"{"op":"put","key":"k","value":1,"ttl":-5}"#,
        r#"{"op":"put","key":"k","value":1,"ifMatch":5}"#,
        r#"{"op":"put","key":"k","value":"\ud800"}"#,
        r#"{"op":"get","key":"k","value":1}"#,
        r#"{"op":"get","key":"k","ifVersion":1}"#,
        r#"{"op":"delete","key":"k","ttl":1}"#,
        r#"{"op":"put","key":"k","value":{]}"#,
        r#"{"op":"put","key":"\ud800","value":1}"#,
        r#"{"op":"put","op":"get","key":"k","value":1}"#,
        "1",
        "null",
        "[]",
    ] {
        for rest in [r#",{"op":"put","key":"later","value":1}]}"#, "]}"] {
            let body = format!(r#"{{"ops":[{{"op":"put","key":"first","value":1}},{bad}{rest}"#);
            let refused =
                check_problem(&server, "POST /v1/batch", &body, 400, "INVALID_OPERATION").json();
            assert_eq!(refused["index"], 1, "{body}: {refused}");
        }
    }
    let deep = format!(
        r#"{{"op":"put","key":"k","value":{}1{}}}"#,
        "[".repeat(129),
        "]".repeat(129)
    );
    check_problem(
        &server,
        "POST /v1/batch",
        format!(r#"{{"ops":[{deep}]}}"#),
        400,
        "INVALID_OPERATION",
    );
    let long = format!(r#"{{"op":"get","key":"{}"}}"#, "k".repeat(1025));
    check_problem(
        &server,
        "POST /v1/batch",
        format!(r#"{{"ops":[{long}]}}"#),
        400,
        "INVALID_OPERATION",
    );
    for malformed in [
        "",
        "[]",
        "{}",
        r#"{"ops":1}"#,
        r#"{"ops":[]"#,
        r#"{"ops":[]} x"#,
        r#"{"ops":[],"x":1}"#,
        r#"{"ops":[],"ops":[]}"#,
    ] {
        let refused = server.ask("POST /v1/batch", malformed);
        assert_eq!(refused.status, 400, "{malformed}: {refused:?}");
    }
    assert_eq!(
        ask(&server, "GET /v1/keys", "", 200).text(),
        r#"{"keys":[],"cursor":null}"#
    );
}

#[test]
fn unknown_parameters_are_named() {
    let server = Server::start(&[]);
    for request in [
        "GET /v1/kv/a?ifversion=1",
        "GET /v1/kv/a?ifVersion=1",
        "PUT /v1/kv/a?ifversion=1",
        "PATCH /v1/kv/a?keepTtl=true",
        "DELETE /v1/kv/a?ttl=1",
        "GET /v1/admin/stats?x=1",
        "GET /v1/admin/snapshots?x",
        "POST /v1/batch?sync=1",
    ] {
        let name = request.split(['?', '=']).nth(1).expect("a name");
        let refused = check_problem(&server, request, "1", 400, "UNKNOWN_PARAMETER").json();
        assert_eq!(refused["parameters"], json!([name]));
        assert!(
            refused["detail"]
                .as_str()
                .expect("a sentence")
                .contains(name)
        );
    }
    check_problem(&server, "GET /v1/kv/a", "", 404, "NOT_FOUND");
}

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
fn wrong_methods_and_unknown_paths() {
    let server = Server::start(&[]);
    for (path, allow) in [
        ("/v1/kv/a", "GET, HEAD, PUT, PATCH, DELETE"),
        ("/v1/keys", "GET, HEAD"),
        ("/v1/batch", "POST"),
        ("/v1/admin/stats", "GET, HEAD"),
        ("/v1/admin/snapshot", "POST"),
        ("/v1/admin/snapshots", "GET, HEAD"),
        ("/health/live", "GET, HEAD"),
        ("/health/ready", "GET, HEAD"),
        ("/health/startup", "GET, HEAD"),
        ("/actuator/health", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
    ] {
        for method in ["TRACE", "OPTIONS", "BREW"] {
            let refused = check_problem(
                &server,
                &format!("{method} {path}"),
                "",
                405,
                "METHOD_NOT_ALLOWED",
            );
            assert_eq!(refused.field("allow"), Some(allow), "{path}");
        }
    }
    for path in [
        "/",
        "/v1",
        "/v1/kv",
        "/v2/kv/a",
        "/metricsx",
        "/health",
        "/v1/keys/",
        "/openapi.json/",
    ] {
        check_problem(&server, &format!("GET {path}"), "", 404, "UNKNOWN_PATH");
    }
}

#[test]
fn health_figures_and_the_contract_itself() {
    let server = Server::start(&[]);
    for path in ["/health/live", "/health/ready", "/health/startup"] {
        assert_eq!(
            ask(&server, &format!("GET {path}"), "", 200).text(),
            r#"{"status":"UP"}"#
        );
    }
    let document = ask(&server, "GET /openapi.json", "", 200);
    assert_eq!(document.json()["openapi"], "3.1.0");
    ask(&server, "PUT /v1/kv/a", "1", 201);
    let stats = ask(&server, "GET /v1/admin/stats", "", 200).json();
    assert_eq!(
        (&stats["readiness"]["state"], &stats["total"]["entries"]),
        (&json!("ready"), &json!(1))
    );
    assert_eq!(stats["partitions"].as_array().map(Vec::len), Some(128));
    assert!(
        stats["http"]["requests"]["v1"]
            .as_u64()
            .is_some_and(|count| count >= 1)
    );
    let listing = ask(&server, "GET /v1/admin/snapshots", "", 200)
        .text()
        .to_owned();
    assert_eq!(
        serde_json::from_str::<Value>(&listing).expect("JSON"),
        json!({"snapshots": [], "segments": []})
    );
}
