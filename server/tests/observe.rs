//! What a running server shows of itself: metrics, request lines, slow operations and slow clients.

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use support::{PATIENCE, Server};

fn scrape(server: &Server, accept: &str) -> String {
    let answer = server.ask(&format!("GET /metrics\nAccept: {accept}"), "");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text().to_owned()
}

/// The value of the sample that is spelt so, labels included.
fn sample(text: &str, name: &str) -> f64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no {name} in\n{text}"))
        .parse()
        .expect("a number")
}

#[test]
fn requests_are_counted_by_route_method_and_status() {
    let server = Server::start(&[]);
    for (request, body) in [
        ("PUT /v1/kv/a", "{}"),
        ("PUT /v1/kv/a", "{\"b\":1}"),
        ("GET /v1/kv/a", ""),
        ("GET /v1/kv/missing", ""),
        ("GET /kv/a", ""),
        ("GET /nowhere", ""),
    ] {
        server.ask(request, body);
    }
    let text = scrape(&server, "*/*");
    let count = |labels: &str| {
        sample(
            &text,
            &format!("inflightkv_http_requests_total{{{labels}}}"),
        )
    };
    assert_eq!(
        count(r#"route="/v1/kv/{key}",method="PUT",status="201""#),
        1.0
    );
    assert_eq!(
        count(r#"route="/v1/kv/{key}",method="PUT",status="204""#),
        1.0
    );
    assert_eq!(
        count(r#"route="/v1/kv/{key}",method="GET",status="200""#),
        1.0
    );
    assert_eq!(
        count(r#"route="/v1/kv/{key}",method="GET",status="404""#),
        1.0
    );
    assert_eq!(count(r#"route="/kv/{key}",method="GET",status="200""#), 1.0);
    assert_eq!(count(r#"route="unknown",method="GET",status="404""#), 1.0);
    let of_get = r#"route="/v1/kv/{key}",method="GET""#;
    let durations = "inflightkv_http_request_duration_seconds";
    assert_eq!(
        sample(&text, &format!("{durations}_count{{{of_get}}}")),
        2.0
    );
    let last_bucket = text
        .lines()
        .find(|line| {
            line.starts_with(&format!("{durations}_bucket"))
                && line.contains(of_get)
                && line.contains("le=\"+Inf\"")
        })
        .expect("a bucket without bound");
    assert!(last_bucket.ends_with(" 2"), "{last_bucket}");
    assert_eq!(sample(&text, "inflightkv_keys"), 1.0);
    assert!(sample(&text, "inflightkv_process_resident_memory_bytes") > 1e6);
    assert!(text.ends_with("# EOF\n"));
}

/// Every family has a help text and a type, and every sample belongs to one.
#[test]
fn the_exposition_is_well_formed_in_both_formats() {
    let server = Server::start(&[]);
    server.ask("PUT /v1/kv/a", "{}");
    for accept in ["application/openmetrics-text", "text/plain"] {
        let text = scrape(&server, accept);
        let mut families: BTreeMap<&str, &str> = BTreeMap::new();
        let mut helped = "";
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "HELP", name, help] => {
                    assert!(!help.is_empty(), "{line}");
                    helped = name;
                }
                ["#", "TYPE", name, kind] => {
                    assert_eq!(helped, name, "a type follows its help");
                    assert!(
                        families.insert(name, kind).is_none(),
                        "{name} is there twice"
                    );
                }
                ["#", ..] => {}
                _ => {
                    let name = line.split(['{', ' ']).next().expect("a name");
                    let known = ["", "_total", "_sum", "_count", "_bucket", "_info"]
                        .iter()
                        .filter_map(|suffix| name.strip_suffix(suffix))
                        .any(|family| families.contains_key(family));
                    assert!(known, "{line}");
                }
            }
        }
        let counters_end_so = families
            .iter()
            .filter(|(_, kind)| **kind == "counter")
            .all(|(name, _)| name.ends_with("_total"));
        assert_eq!(counters_end_so, accept == "text/plain", "{accept}");
    }
}

/// Types of the fields that lines may have, by the Elastic Common Schema 8.11; our own stand under `inflightkv.`.
const ECS: [(&str, &str); 16] = [
    ("@timestamp", "date"),
    ("client.ip", "ip"),
    ("client.port", "long"),
    ("ecs.version", "keyword"),
    ("error.message", "text"),
    ("event.dataset", "keyword"),
    ("event.duration", "long"),
    ("http.request.body.bytes", "long"),
    ("http.request.method", "keyword"),
    ("http.response.body.bytes", "long"),
    ("http.response.status_code", "long"),
    ("log.level", "keyword"),
    ("message", "text"),
    ("service.name", "keyword"),
    ("span.id", "keyword"),
    ("trace.id", "keyword"),
];

#[test]
fn request_lines_follow_the_schema_and_hold_no_value_and_no_query() {
    let (server, logs) = Server::start_logging(&[
        "--log-format",
        "ecs",
        "--log-requests",
        "on",
        // Lines name the trace that a request belongs to, whether or not anybody takes it.
        "--otlp-endpoint",
        "http://127.0.0.1:9",
    ]);
    server.ask("PUT /v1/kv/some-key?ttl=77s", r#"{"secret":"hidden"}"#);
    server.ask("GET /v1/kv/some-key", "");
    server.ask("GET /v1/kv/some-key?sneaky=parameter", "");
    assert!(server.terminate());
    let text = logs.read();
    for hidden in ["secret", "hidden", "77s", "sneaky", "some-key"] {
        assert!(!text.contains(hidden), "{hidden} in\n{text}");
    }
    let mut requests = 0;
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("a JSON object a line");
        for (name, value) in line.as_object().expect("an object") {
            if name.starts_with("inflightkv.") {
                continue;
            }
            let (_, kind) = ECS
                .iter()
                .find(|(known, _)| known == name)
                .unwrap_or_else(|| panic!("{name} is not in the schema"));
            match *kind {
                "long" => assert!(value.is_u64(), "{name}: {value}"),
                "ip" => assert!(
                    value
                        .as_str()
                        .is_some_and(|ip| ip.parse::<std::net::IpAddr>().is_ok())
                ),
                "date" => assert!(value.as_str().is_some_and(|date| date.ends_with('Z'))),
                _ => assert!(value.is_string(), "{name}: {value}"),
            }
        }
        if line["event.dataset"] == "inflightkv.request" {
            requests += 1;
            assert_eq!(line["inflightkv.route"], "/v1/kv/{key}");
            assert!(
                line["inflightkv.keyHash"]
                    .as_str()
                    .is_some_and(|hash| hash.len() == 16)
            );
            assert!(line["inflightkv.partition"].is_u64());
            assert!(line["trace.id"].as_str().is_some_and(|id| id.len() == 32));
            let nanos = line["event.duration"].as_u64().expect("a duration");
            let parts: u64 = ["queue", "receive", "execute", "walWait", "write"]
                .iter()
                .filter_map(|part| line[format!("inflightkv.{part}Micros")].as_u64())
                .sum();
            assert!(parts <= nanos / 1_000, "{line}");
        }
    }
    assert_eq!(requests, 3);
}

#[test]
fn slow_operations_are_told_with_the_part_that_was_slow() {
    let (server, logs) = Server::start_logging(&["--slow-op", "100ms", "--log-keys", "plain"]);
    server.ask("PUT /v1/kv/quick", "{}");
    // The client is slow with its body.
    let mut client = server.connect();
    client
        .send("PUT /v1/kv/slow HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{")
        .expect("it is taken");
    std::thread::sleep(Duration::from_millis(150));
    client.send("}").expect("it is taken");
    assert_eq!(client.answer(false).expect("an answer").status, 201);
    drop(client);
    assert!(server.terminate());
    let text = logs.read();
    let slow: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &Value| line["message"] == "slow operation")
        .collect();
    let [slow] = &slow[..] else {
        panic!("one slow operation in\n{text}");
    };
    assert_eq!(slow["key"], "slow");
    assert!(slow["receiveMicros"].as_u64() >= Some(100_000), "{slow}");
    assert!(slow["executeMicros"].as_u64() < Some(100_000), "{slow}");
}

/// A client that does not read shows while it blocks, and in the log when it goes on.
#[test]
fn a_slow_client_is_seen() {
    let (server, logs) = Server::start_logging(&["--max-value-size", "16MiB", "--threads", "1"]);
    let large = format!("\"{}\"", "x".repeat(12 << 20));
    assert_eq!(server.ask("PUT /v1/kv/large", &large).status, 201);
    let mut lazy = server.connect();
    lazy.send("GET /v1/kv/large HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("it is taken");
    let begun = Instant::now();
    while sample(&scrape(&server, "*/*"), "inflightkv_connections_blocked") < 1.0 {
        assert!(begun.elapsed() < PATIENCE, "it never shows");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(
        lazy.answer(false).expect("an answer").body.len(),
        large.len()
    );
    let begun = Instant::now();
    while sample(&scrape(&server, "*/*"), "inflightkv_connections_blocked") > 0.0 {
        assert!(begun.elapsed() < PATIENCE, "it never ends");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(
        sample(
            &scrape(&server, "*/*"),
            "inflightkv_connections_blocked_seconds_total"
        ) > 0.5
    );
    drop(lazy);
    assert!(server.terminate());
    assert!(logs.read().contains("a client took its answers slowly"));
}

#[test]
fn hot_and_big_keys_are_found() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for number in 0..40 {
        client.ask(&format!("PUT /v1/kv/key-{number}"), "{}");
    }
    client.ask("PUT /v1/kv/big%20one", format!("\"{}\"", "x".repeat(5_000)));
    // Two clients that take turns: what is looked at must not be one of them alone.
    for number in 0..600 {
        client.ask("GET /v1/kv/hot%2Fkey", "");
        client.ask(&format!("GET /v1/kv/key-{}", number % 40), "");
    }
    let hot = server.ask("GET /v1/admin/hotkeys?limit=3", "").json();
    assert_eq!(hot["keys"][0]["key"], "hot/key", "{hot}");
    assert!(hot["keys"][0]["share"].as_f64() > Some(0.3), "{hot}");
    let big = server.ask("GET /v1/admin/bigkeys?limit=2", "").json();
    assert_eq!(big["lookedAt"], 41);
    assert_eq!(
        big["keys"][0],
        serde_json::json!({ "key": "big one", "bytes": 7 + 5_002 })
    );
    assert_eq!(big["keys"].as_array().map(Vec::len), Some(2));
    assert_eq!(server.ask("GET /v1/admin/hotkeys?limit=0", "").status, 400);
}

/// A page under a policy that names its own script and nothing else.
#[test]
fn the_page_is_whole_in_itself() {
    let server = Server::start(&[]);
    let page = server.ask("GET /ui", "");
    assert_eq!(page.status, 200);
    let policy = page.field("content-security-policy").expect("a policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    let stats = server.ask("GET /v1/admin/stats", "").json();
    for pointer in [
        "/http/routes/0/durations",
        "/http/durationBoundsMicros",
        "/loops/0/busyMicros",
        "/process/residentBytes",
        "/total/entries",
    ] {
        assert!(stats.pointer(pointer).is_some(), "{pointer} in {stats}");
    }
}
