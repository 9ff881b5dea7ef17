//! Values: stored as sent, told by media type, refused with their place, read with conditions and digests.

use super::support::Server;
use super::{ask, check_problem, check_stored, check_value};

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
