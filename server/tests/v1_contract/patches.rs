//! Patches: RFC 7396 and RFC 6902, and what they answer.

use super::support::Server;
use super::{JSON_PATCH, MERGE, ask, check_problem, check_stored, check_value};
use serde_json::json;

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
