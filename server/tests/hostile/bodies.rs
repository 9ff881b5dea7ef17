//! Bodies: not JSON, too deep, too large, too slow, cut off.

use super::support::{Server, eventually};
use super::{all_answers, statuses, still_serves};
use std::time::{Duration, Instant};

/// Bodies that are no JSON, with what they try.
fn no_json() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "",
        " ",
        "{",
        "}",
        "[",
        "[1,]",
        "{\"a\":1,}",
        "{\"a\"}",
        "{a:1}",
        "{'a':1}",
        "tru",
        "nul",
        "NaN",
        "Infinity",
        "-",
        "01",
        "1.",
        ".5",
        "1e",
        "+1",
        "0x10",
        "\"",
        "\"\t\"",
        "\"\n\"",
        "\"\\x41\"",
        "\"\\u12\"",
        "\"\\u{41}\"",
        "1 2",
        "{}{}",
        "[1 2]",
        "// c\n1",
        "/* c */1",
        "\u{feff}1",
        "\\u0031",
        "\"a\" \0",
        // Lone surrogates, in values and in names.
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\ud800\ud800""#,
        r#""\ud800x""#,
        r#"{"\udfff":1}"#,
    ]
    .into_iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    for bytes in [
        &b"\"\x80\""[..],
        b"\"\xc3\"",
        b"\"\xc0\xaf\"",
        b"\"\xed\xa0\x80\"",
        b"\"\xf4\x90\x80\x80\"",
        b"\"\xff\"",
        b"\xff\xfe1\0",
        b"{\"\xe2\x28\xa1\":1}",
        b"\x00",
        b"1\x00",
        b"\x1f\x8b\x08\x00",
    ] {
        all.push(bytes.to_vec());
    }
    all
}

#[test]
fn what_is_no_json_is_400_everywhere_and_changes_nothing() {
    let server = Server::start(&[]);
    assert_eq!(server.ask("PUT /v1/kv/a", "{\"kept\":1}").status, 201);
    let mut client = server.connect();
    for body in no_json() {
        let shown = String::from_utf8_lossy(&body).into_owned();
        for request in [
            "PUT /v1/kv/a",
            "PUT /v1/kv/new",
            "PATCH /v1/kv/a",
            "PATCH /v1/kv/new",
            "PATCH /v1/kv/a\nContent-Type: application/json-patch+json",
            "PUT /v1/kv/a\nContent-Type: application/vnd.api+json",
            "PUT /kv/a",
            "PUT /kv/new",
            "PATCH /kv/a",
            "PATCH /kv/new",
            "PUT /kv/a\nContent-Type: image/png",
            "POST /v1/batch",
        ] {
            let answer = client.ask(request, &body);
            assert_eq!(answer.status, 400, "{request} {shown:?}: {answer:?}");
            let document = answer.json();
            let code = if request.contains(" /kv/") {
                &document["error"]["errorCode"]
            } else {
                &document["code"]
            };
            let expected = match request {
                request if request.contains(" /kv/") => "WRONG_DATA_TYPE",
                "POST /v1/batch" => "INVALID_BATCH",
                _ => "INVALID_JSON",
            };
            assert_eq!(code, expected, "{request} {shown:?}");
        }
        // Inside a batch it is the operation that is wrong, and the one before it is not done.
        if !body.trim_ascii().is_empty() && !body.contains(&b'\n') {
            let mut lines =
                b"{\"op\":\"put\",\"key\":\"new\",\"value\":1}\n{\"op\":\"put\",\"key\":\"a\",\"value\":".to_vec();
            lines.extend(&body);
            lines.extend(b"}\n");
            let answer = client.ask("POST /v1/batch\nContent-Type: application/x-ndjson", lines);
            assert_eq!(answer.status, 400, "{shown:?}: {answer:?}");
            assert_eq!(answer.json()["index"], 1, "{shown:?}: {answer:?}");
        }
    }
    // The connection served all of that, and still does.
    assert_eq!(client.ask("GET /v1/kv/a", "").text(), "{\"kept\":1}");
    assert_eq!(client.ask("GET /v1/kv/a", "").field("version"), Some("0"));
    assert_eq!(client.ask("GET /v1/kv/new", "").status, 404);
    still_serves(&server);
}

#[test]
fn depth_bombs_are_400_and_cost_nothing() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    };
    for (open, close) in [
        ("[", "]"),
        ("{\"a\":", "}"),
        ("[[", "]]"),
        ("{\"a\":[", "]}"),
    ] {
        for depth in [200, 10_000, 100_000] {
            for request in ["PUT /v1/kv/a", "PATCH /v1/kv/a", "PUT /kv/a", "PATCH /kv/a"] {
                let answer = client.ask(request, nested(open, close, depth));
                assert_eq!(answer.status, 400, "{request} {open} {depth}");
            }
            let operation = format!(
                "{{\"op\":\"put\",\"key\":\"a\",\"value\":{}}}",
                nested(open, close, depth)
            );
            assert_eq!(
                client
                    .ask("POST /v1/batch", format!("{{\"ops\":[{operation}]}}"))
                    .status,
                400
            );
            // Never closed, and closed without being opened.
            assert_eq!(client.ask("PUT /v1/kv/a", open.repeat(depth)).status, 400);
            assert_eq!(client.ask("PUT /v1/kv/a", close.repeat(depth)).status, 400);
        }
    }
    // What 128 levels allow, a patch must not go beyond either.
    assert_eq!(
        client.ask("PUT /v1/kv/deep", nested("[", "]", 128)).status,
        201
    );
    let pointer = "/0".repeat(128);
    let patch = format!("[{{\"op\":\"replace\",\"path\":\"{pointer}\",\"value\":[1]}}]");
    let answer = client.ask(
        "PATCH /v1/kv/deep\nContent-Type: application/json-patch+json",
        patch,
    );
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (400, Some("INVALID_JSON")),
        "{answer:?}"
    );
    assert_eq!(
        client.ask("GET /v1/kv/deep", "").field("version"),
        Some("0")
    );
    still_serves(&server);
}

/// A patch that copies a value into itself again and again doubles it each time.
#[test]
fn patches_that_grow_without_end_are_refused() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    assert_eq!(client.ask("PUT /v1/kv/a", "[\"0123456789\"]").status, 201);
    let copies: Vec<String> = (0..10_000)
        .map(|_| r#"{"op":"copy","from":"","path":"/-"}"#.to_owned())
        .collect();
    let before = server.resident_bytes();
    let answer = client.ask(
        "PATCH /v1/kv/a\nContent-Type: application/json-patch+json",
        format!("[{}]", copies.join(",")),
    );
    assert!(matches!(answer.status, 400 | 413), "{answer:?}");
    assert!(server.resident_bytes() < before + (64 << 20));
    assert_eq!(client.ask("GET /v1/kv/a", "").field("version"), Some("0"));
    still_serves(&server);
}

#[test]
fn bodies_over_the_limit_are_413_before_they_are_read() {
    let server = Server::start(&["--max-value-size", "1KiB", "--max-batch-size", "2KiB"]);
    let chunked = |len: usize| {
        let mut bytes = Vec::new();
        for _ in 0..len / 100 {
            bytes.extend_from_slice(b"64\r\n");
            bytes.extend_from_slice(&[b' '; 100]);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"1\r\n1\r\n0\r\n\r\n");
        bytes
    };
    for (request, limit) in [
        ("PUT /v1/kv/a", 1024),
        ("PATCH /v1/kv/a", 1024),
        ("PUT /kv/a", 1024),
        ("PATCH /kv/a", 1024),
        ("PUT /v1/kv/a HTTP/1.1\r\nContent-Type: image/png", 1024),
        ("POST /v1/batch", 2048),
    ] {
        let (request, fields) = request
            .split_once(" HTTP/1.1\r\n")
            .unwrap_or((request, "X: y"));
        let head = format!("{request} HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
        // A length that is only claimed is refused at once, also to who waits to be asked for the body.
        for expect in ["", "Expect: 100-continue\r\n"] {
            for claimed in [limit + 1, 1 << 40, u64::MAX >> 2] {
                let mut client = server.connect();
                client
                    .send(format!("{head}{expect}Content-Length: {claimed}\r\n\r\n"))
                    .expect("it is taken");
                let answer = client.any_answer(false).expect("an answer");
                assert_eq!(answer.status, 413, "{request} {claimed}: {answer:?}");
                assert_eq!(answer.field("connection"), Some("close"), "{answer:?}");
                if !request.contains(" /kv/") {
                    assert_eq!(answer.json()["limit"], limit, "{answer:?}");
                }
                assert!(client.is_closed(), "{request}");
            }
        }
        // A length that nobody told.
        let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        bytes.extend(chunked(4_000));
        bytes.extend_from_slice(b"GET /v1/kv/bystander HTTP/1.1\r\nHost: test\r\n\r\n");
        let answers = all_answers(&server, bytes);
        assert_eq!(statuses(&answers), [413], "{request}");
    }
    assert_eq!(server.ask("GET /v1/kv/a", "").status, 404);
    // Within the limit it is the same body.
    let mut bytes =
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    bytes.extend(chunked(1_000));
    assert_eq!(statuses(&all_answers(&server, bytes)), [201]);
    still_serves(&server);
}

/// A body that keeps coming, too slowly: 408 after the timeout as a whole, not after a pause.
#[test]
fn bodies_slower_than_the_timeout_are_408() {
    let server = Server::start(&["--request-timeout", "300ms"]);
    std::thread::scope(|scope| {
        for request in ["PUT /v1/kv/a", "PATCH /kv/a", "POST /v1/batch"] {
            for (framing, piece) in [
                ("Content-Length: 100000", " "),
                ("Transfer-Encoding: chunked", "1\r\n \r\n"),
            ] {
                let mut client = server.connect();
                scope.spawn(move || {
                    let head = format!("{request} HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n");
                    client.send(head).expect("it is taken");
                    let began = Instant::now();
                    while began.elapsed() < Duration::from_millis(900) && client.send(piece).is_ok()
                    {
                        std::thread::sleep(Duration::from_millis(30));
                    }
                    let answer = client.answer(false).expect("an answer");
                    assert_eq!(answer.status, 408, "{request} {framing}: {answer:?}");
                    assert_eq!(answer.field("connection"), Some("close"));
                    assert!(began.elapsed() >= Duration::from_millis(300));
                });
            }
        }
    });
    assert_eq!(server.ask("GET /v1/kv/a", "").status, 404);
    still_serves(&server);
}

/// A client that leaves in the middle of a body has asked for nothing.
#[test]
fn bodies_cut_off_apply_nothing() {
    let server = Server::start(&[]);
    for (framing, body) in [
        ("Content-Length: 10", "[1,2]"),
        ("Transfer-Encoding: chunked", "5\r\n[1,2]\r\n"),
        ("Transfer-Encoding: chunked", "5\r\n[1,2]\r\n0\r\n"),
        ("Transfer-Encoding: chunked", "a\r\n[1,2]"),
    ] {
        for target in ["/v1/kv/a", "/kv/a"] {
            let bytes = format!("PUT {target} HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n{body}");
            let answers = all_answers(&server, &bytes);
            assert!(
                answers.iter().all(|answer| answer.status == 400),
                "{bytes}: {answers:?}"
            );
            // And without a word.
            let mut client = server.connect();
            client.send(&bytes).expect("it is taken");
        }
    }
    eventually("everybody is gone", || {
        server.ask("GET /v1/admin/stats", "").json()["http"]["connectionsOpen"] == 1
    });
    assert_eq!(server.ask("GET /v1/kv/a", "").status, 404);
    still_serves(&server);
}

/// `Expect: 100-continue`: asked for the body only when it will be read.
#[test]
fn expectations_are_met_or_refused() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("PUT /v1/kv/a HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n").expect("it is taken");
    assert_eq!(
        client.any_answer(false).expect("an interim answer").status,
        100
    );
    client.send("1").expect("it is taken");
    assert_eq!(client.any_answer(false).expect("an answer").status, 201);
    // What is refused for another reason is refused without asking.
    for request in [
        "PUT /v1/kv/__a",
        "PUT /v1/kv/a?nonsense=1",
        "PUT /nowhere",
        "POST /v1/kv/a",
    ] {
        let mut client = server.connect();
        client
            .send(format!("{request} HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"))
            .expect("it is taken");
        let answer = client.any_answer(false).expect("an answer");
        assert!(
            matches!(answer.status, 400 | 404 | 405),
            "{request}: {answer:?}"
        );
    }
    still_serves(&server);
}
