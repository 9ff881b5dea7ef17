//! The frozen surface `/kv`, byte for byte: every row of the contract, on a socket.
#![cfg(feature = "cli")]

mod support;

use support::{Answer, Server};

/// The body of an envelope that carries `data`.
fn data(json: &str, version: u64) -> String {
    format!(
        "{{\"data\":{},\"version\":{version},\"error\":null}}",
        serde_json::Value::from(json)
    )
}

fn check(server: &Server, request: &str, body: &str, status: u16, expected: &str) -> Answer {
    let answer = server.ask(request, body);
    assert_eq!(
        (answer.status, answer.text()),
        (status, expected),
        "{request} {body}"
    );
    assert_eq!(
        answer.field("content-type"),
        Some("application/json"),
        "{request}"
    );
    answer
}

/// A failure: its status, its code, the shape of the envelope around them, and some sentence.
fn check_failure(
    server: &Server,
    request: &str,
    body: impl AsRef<[u8]>,
    status: u16,
    code: &str,
) -> Answer {
    let answer = server.ask(request, body);
    assert_eq!(answer.status, status, "{request}: {answer:?}");
    assert_eq!(
        answer.field("content-type"),
        Some("application/json"),
        "{request}"
    );
    let prefix =
        format!(r#"{{"data":null,"version":null,"error":{{"errorCode":"{code}","errorMessage":""#);
    assert!(
        answer.text().starts_with(&prefix),
        "{request}: {}",
        answer.text()
    );
    let message = &answer.json()["error"]["errorMessage"];
    assert!(
        message.as_str().is_some_and(|message| !message.is_empty()),
        "{request}"
    );
    answer
}

#[test]
fn put_answers_with_what_is_stored() {
    let server = Server::start(&[]);
    check(
        &server,
        "PUT /kv/a",
        r#" { "a" : [1, 2.50, 1e2] } "#,
        200,
        &data(r#"{"a":[1,2.50,1e2]}"#, 0),
    );
    check(
        &server,
        "PUT /kv/a",
        "{\"b\":\"\\u0041\\n\"}",
        200,
        &data("{\"b\":\"\\u0041\\n\"}", 1),
    );
    // The same bytes again change nothing.
    check(
        &server,
        "PUT /kv/a",
        "{\"b\":\"\\u0041\\n\"}",
        200,
        &data("{\"b\":\"\\u0041\\n\"}", 1),
    );
    for (number, scalar) in ["null", "true", "-0.0", "\"ä😀\"", "[]"]
        .into_iter()
        .enumerate()
    {
        check(
            &server,
            &format!("PUT /kv/scalar-{number}"),
            scalar,
            200,
            &data(scalar, 0),
        );
    }
    // Whatever the media type says, a body is JSON here.
    check(
        &server,
        "PUT /kv/t\nContent-Type: text/plain",
        "[1]",
        200,
        &data("[1]", 0),
    );
    check(
        &server,
        "PUT /kv/f\nContent-Type: application/x-www-form-urlencoded",
        "[1]",
        200,
        &data("[1]", 0),
    );
}

#[test]
fn put_refuses_what_is_not_json() {
    let server = Server::start(&[]);
    check(&server, "PUT /kv/a", "1", 200, &data("1", 0));
    for body in [
        "",
        " ",
        "{",
        "{'a':1}",
        "nope",
        "1 2",
        "[1,]",
        "\"\\ud800\"",
        "{\"a\":1",
    ] {
        check_failure(&server, "PUT /kv/a", body, 400, "WRONG_DATA_TYPE");
        check_failure(&server, "PATCH /kv/a", body, 400, "WRONG_DATA_TYPE");
    }
    check_failure(&server, "PUT /kv/a", b"\"\xff\"", 400, "WRONG_DATA_TYPE");
    check(&server, "GET /kv/a", "", 200, &data("1", 0));
}

#[test]
fn get_and_delete() {
    let server = Server::start(&[]);
    check_failure(&server, "GET /kv/a", "", 404, "NOT_FOUND");
    check_failure(&server, "DELETE /kv/a", "", 404, "NOT_FOUND");
    check(&server, "PUT /kv/a", "{}", 200, &data("{}", 0));
    check(&server, "PUT /kv/a", "[]", 200, &data("[]", 1));
    check(&server, "GET /kv/a", "", 200, &data("[]", 1));
    let head = server.ask("HEAD /kv/a", "");
    assert_eq!(
        (head.status, head.field("content-length")),
        (200, Some(data("[]", 1).len().to_string().as_str()))
    );
    check(&server, "DELETE /kv/a", "", 200, &data("[]", 1));
    check_failure(&server, "GET /kv/a", "", 404, "NOT_FOUND");
    check_failure(&server, "DELETE /kv/a?ifVersion=1", "", 404, "NOT_FOUND");
    // Created anew, it begins anew.
    check(&server, "PUT /kv/a", "3", 200, &data("3", 0));
}

#[test]
fn versions_are_conditions() {
    let server = Server::start(&[]);
    check_failure(&server, "PUT /kv/a?ifVersion=0", "1", 409, "CONFLICT");
    check_failure(&server, "PATCH /kv/a?ifVersion=0", "{}", 409, "CONFLICT");
    check_failure(&server, "GET /kv/a", "", 404, "NOT_FOUND");
    check(&server, "PUT /kv/a?ifVersion=-1", "1", 200, &data("1", 0));
    check_failure(&server, "PUT /kv/a?ifVersion=-1", "2", 409, "CONFLICT");
    check(&server, "PUT /kv/a?ifVersion=0", "2", 200, &data("2", 1));
    let conflict = check_failure(&server, "PUT /kv/a?ifVersion=0", "3", 409, "CONFLICT");
    assert!(
        conflict.text().contains("current version is 1"),
        "{}",
        conflict.text()
    );
    check_failure(&server, "PATCH /kv/a?ifVersion=7", "{}", 409, "CONFLICT");
    check_failure(&server, "DELETE /kv/a?ifVersion=0", "", 409, "CONFLICT");
    for bad in ["abc", "", "-2", "1.0", "+1", "99999999999999999999"] {
        for method in ["PUT", "PATCH", "DELETE"] {
            check_failure(
                &server,
                &format!("{method} /kv/a?ifVersion={bad}"),
                "9",
                400,
                "WRONG_DATA_TYPE",
            );
        }
    }
    check(&server, "PATCH /kv/a?ifVersion=1", "3", 200, &data("3", 2));
    check(&server, "DELETE /kv/a?ifVersion=2", "", 200, &data("3", 2));
}

#[test]
fn patch_is_a_shallow_merge() {
    let server = Server::start(&[]);
    // A missing key is created with the body as it is, nulls and all.
    check(
        &server,
        "PATCH /kv/a",
        r#"{"x": {"y": 1}, "n": null}"#,
        200,
        &data(r#"{"x":{"y":1},"n":null}"#, 0),
    );
    check(
        &server,
        "PATCH /kv/a",
        r#"{"x":{"z":2},"w":1}"#,
        200,
        &data(r#"{"x":{"z":2},"n":null,"w":1}"#, 1),
    );
    check(
        &server,
        "PATCH /kv/a",
        r#"{"w":null}"#,
        200,
        &data(r#"{"x":{"z":2},"n":null,"w":null}"#, 2),
    );
    check(
        &server,
        "PATCH /kv/a",
        "{}",
        200,
        &data(r#"{"x":{"z":2},"n":null,"w":null}"#, 2),
    );
    // Where either side is no object, the body replaces the value.
    check(&server, "PATCH /kv/a", "[1, 2]", 200, &data("[1,2]", 3));
    check(&server, "PATCH /kv/a", "null", 200, &data("null", 4));
    check(
        &server,
        "PATCH /kv/a",
        r#"{"b":1}"#,
        200,
        &data(r#"{"b":1}"#, 5),
    );
    check(
        &server,
        "PATCH /kv/s",
        "\"text\"",
        200,
        &data("\"text\"", 0),
    );
}

#[test]
fn keys_are_everything_behind_the_prefix() {
    let server = Server::start(&[]);
    check(&server, "PUT /kv/user/42", "1", 200, &data("1", 0));
    check(&server, "GET /kv/user%2F42", "", 200, &data("1", 0));
    check(&server, "PUT /kv/a%252Fb", "2", 200, &data("2", 0));
    check_failure(&server, "GET /kv/a%2Fb", "", 404, "NOT_FOUND");
    check(&server, "PUT /kv/a+b", "3", 200, &data("3", 0));
    check_failure(&server, "GET /kv/a%20b", "", 404, "NOT_FOUND");
    check(&server, "GET /kv/a%2Bb", "", 200, &data("3", 0));
    check(&server, "PUT /kv/%C3%A4", "4", 200, &data("4", 0));
    for bad in ["%", "%4", "%zz", "a%", "%C3", "%ff", "%ED%A0%80"] {
        check_failure(
            &server,
            &format!("GET /kv/{bad}"),
            "",
            400,
            "ENCODING_FAILURE",
        );
        check_failure(
            &server,
            &format!("PUT /kv/{bad}"),
            "1",
            400,
            "ENCODING_FAILURE",
        );
    }
    check_failure(&server, "GET /kv/", "", 400, "VALIDATION_FAILED");
    check_failure(
        &server,
        "PUT /kv/?ifVersion=1",
        "1",
        400,
        "VALIDATION_FAILED",
    );
    for reserved in ["__x", "%5f%5fx", "__"] {
        check_failure(
            &server,
            &format!("PUT /kv/{reserved}"),
            "1",
            400,
            "RESERVED_KEY",
        );
        check_failure(
            &server,
            &format!("GET /kv/{reserved}"),
            "",
            400,
            "RESERVED_KEY",
        );
    }
    let longest = "k".repeat(1024);
    check(
        &server,
        &format!("PUT /kv/{longest}"),
        "1",
        200,
        &data("1", 0),
    );
    check_failure(
        &server,
        &format!("PUT /kv/{longest}k"),
        "1",
        414,
        "VALIDATION_FAILED",
    );
}

#[test]
fn a_time_to_live_hides_the_key_when_it_is_over() {
    let server = Server::start(&[]);
    check(&server, "PUT /kv/a?ttl=150ms", "1", 200, &data("1", 0));
    check(&server, "PUT /kv/b?ttl=1h", "1", 200, &data("1", 0));
    for bad in ["0", "-1", "soon", "1.5s", "", "0ms"] {
        check_failure(
            &server,
            &format!("PUT /kv/a?ttl={bad}"),
            "1",
            400,
            "VALIDATION_FAILED",
        );
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    check_failure(&server, "GET /kv/a", "", 404, "NOT_FOUND");
    check(&server, "GET /kv/b", "", 200, &data("1", 0));
    // As if it had never been.
    check_failure(&server, "PUT /kv/a?ifVersion=0", "2", 409, "CONFLICT");
    check(&server, "PUT /kv/a?ifVersion=-1", "2", 200, &data("2", 0));
}

#[test]
fn unknown_parameters_are_ignored() {
    let server = Server::start(&[]);
    check(
        &server,
        "PUT /kv/a?ifversion=5&x=%zz&keepTtl=maybe",
        "1",
        200,
        &data("1", 0),
    );
    check(
        &server,
        "GET /kv/a?ifVersion=77&limit=x",
        "",
        200,
        &data("1", 0),
    );
}

#[test]
fn the_listing_is_a_line_a_key() {
    let server = Server::start(&["--node-id", "node \"7\""]);
    let empty = server.ask("GET /kv", "");
    assert_eq!((empty.status, empty.text()), (200, ""));
    let mut client = server.connect();
    let keys: Vec<String> = (0..3000)
        .map(|number| format!("key-{number}"))
        .chain(["q\"\u{e4}".to_owned()])
        .collect();
    for key in &keys[..3000] {
        client.ask(&format!("PUT /kv/{key}"), "1");
    }
    client.ask("PUT /kv/q%22%C3%A4", "1");
    for target in ["/kv", "/kv?skipOtherNodes=true"] {
        let listing = client.ask(&format!("GET {target}"), "");
        assert_eq!(listing.status, 200);
        assert_eq!(listing.field("content-type"), Some("application/x-ndjson"));
        let mut lines: Vec<&str> = listing.text().lines().collect();
        lines.sort_unstable();
        let mut expected: Vec<String> = keys
            .iter()
            .map(|key| {
                format!(
                    r#"{{"key":{},"node":"node \"7\""}}"#,
                    serde_json::Value::from(key.as_str())
                )
            })
            .collect();
        expected.sort_unstable();
        assert_eq!(lines, expected);
    }
}

#[test]
fn the_route_of_every_key_is_this_node() {
    let server = Server::start(&[]);
    let port = server.address.port();
    check(
        &server,
        "GET /api/cluster/route/some%2Fkey",
        "",
        200,
        &format!(
            r#"{{"nodeId":"node-1","nodeName":"node-1","host":"127.0.0.1","port":{port},"externalUrl":"http://127.0.0.1:{port}","shouldRedirect":false}}"#
        ),
    );
    check_failure(
        &server,
        "GET /api/cluster/route/",
        "",
        400,
        "VALIDATION_FAILED",
    );
}

#[test]
fn health_is_up() {
    let server = Server::start(&[]);
    check(
        &server,
        "GET /actuator/health",
        "",
        200,
        r#"{"status":"UP"}"#,
    );
}

#[test]
fn wrong_methods_and_paths_are_told_in_an_envelope() {
    let server = Server::start(&[]);
    let refused = check_failure(&server, "POST /kv/a", "1", 405, "VALIDATION_FAILED");
    assert_eq!(
        refused.field("allow"),
        Some("GET, HEAD, PUT, PATCH, DELETE")
    );
    let refused = check_failure(&server, "DELETE /kv", "", 405, "VALIDATION_FAILED");
    assert_eq!(refused.field("allow"), Some("GET, HEAD"));
    check_failure(&server, "GET /kvx", "", 404, "NOT_FOUND");
}

#[test]
fn a_value_over_the_limit_is_refused_and_nothing_changes() {
    let server = Server::start(&["--max-value-size", "1KiB"]);
    let longest = format!("\"{}\"", "x".repeat(1022));
    check(&server, "PUT /kv/a", &longest, 200, &data(&longest, 0));
    check_failure(
        &server,
        "PUT /kv/a",
        format!("\"{}\"", "x".repeat(1023)),
        413,
        "PAYLOAD_TOO_LARGE",
    );
    // A merge must not grow past the limit either.
    check(
        &server,
        "PUT /kv/b",
        &format!("{{\"a\":\"{}\"}}", "x".repeat(900)),
        200,
        &data(&format!("{{\"a\":\"{}\"}}", "x".repeat(900)), 0),
    );
    check_failure(
        &server,
        "PATCH /kv/b",
        format!("{{\"b\":\"{}\"}}", "x".repeat(900)),
        413,
        "PAYLOAD_TOO_LARGE",
    );
    check(&server, "GET /kv/a", "", 200, &data(&longest, 0));
}

#[test]
fn values_that_only_v1_can_show() {
    let server = Server::start(&[]);
    server.ask("PUT /v1/kv/t\nContent-Type: text/plain", "hello");
    check_failure(&server, "GET /kv/t", "", 400, "WRONG_DATA_TYPE");
    check_failure(&server, "PATCH /kv/t", "{}", 400, "WRONG_DATA_TYPE");
    check(
        &server,
        "DELETE /kv/t",
        "",
        200,
        r#"{"data":null,"version":0,"error":null}"#,
    );
}
