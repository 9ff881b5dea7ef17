//! Batches: documents and lines, results in order, and all or nothing when one is malformed.

use super::support::Server;
use super::{ask, check_problem, check_value};
use serde_json::{Value, json};

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
