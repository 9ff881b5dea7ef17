//! Conditional requests: entity tags, versions, and what makes them hold.

use super::support::Server;
use super::{ask, check_problem, check_stored, check_value};
use serde_json::json;

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
