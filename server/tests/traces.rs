//! Traces as a collector gets them: a receiver here decodes the messages, and knows nothing of how they were made.
#![cfg(feature = "otel")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use support::{PATIENCE, Server, eventually};

/// A field of a protocol-buffers message, as the wire has it.
#[derive(Debug, Clone)]
enum Wire {
    Number(u64),
    Fixed64(u64),
    Bytes(Vec<u8>),
}

/// The fields of a message in their order. Anything malformed fails the test.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Wire)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first().expect("a whole number");
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
        }
        panic!("a number of more than ten bytes");
    }
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let wire = match tag & 7 {
            0 => Wire::Number(varint(&mut bytes)),
            1 => {
                let (value, rest) = bytes.split_first_chunk::<8>().expect("eight bytes");
                bytes = rest;
                Wire::Fixed64(u64::from_le_bytes(*value))
            }
            2 => {
                let len = usize::try_from(varint(&mut bytes)).expect("a length");
                let (value, rest) = bytes.split_at(len);
                bytes = rest;
                Wire::Bytes(value.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        all.push((tag >> 3, wire));
    }
    all
}

fn messages(bytes: &[u8], field: u64) -> Vec<Vec<u8>> {
    fields(bytes)
        .into_iter()
        .filter(|(number, _)| *number == field)
        .map(|(_, wire)| match wire {
            Wire::Bytes(bytes) => bytes,
            other => panic!("field {field} is {other:?}"),
        })
        .collect()
}

fn text(bytes: &[u8], field: u64) -> String {
    String::from_utf8(messages(bytes, field).concat()).expect("text")
}

fn attributes(bytes: &[u8], field: u64) -> BTreeMap<String, String> {
    messages(bytes, field)
        .iter()
        .map(|pair| {
            let value = &messages(pair, 2)[0];
            let value = match &fields(value)[..] {
                [(1, Wire::Bytes(text))] => String::from_utf8(text.clone()).expect("text"),
                [(3, Wire::Number(number))] => number.to_string(),
                other => panic!("a value of another kind: {other:?}"),
            };
            (text(pair, 1), value)
        })
        .collect()
}

#[derive(Debug, Clone)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    state: String,
    name: String,
    kind: u64,
    start: u64,
    end: u64,
    attributes: BTreeMap<String, String>,
    error: bool,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn span(bytes: &[u8]) -> Span {
    let number = |field| {
        let found = fields(bytes)
            .into_iter()
            .find(|(number, _)| *number == field);
        match found {
            Some((_, Wire::Number(value) | Wire::Fixed64(value))) => value,
            other => panic!("field {field} is {other:?}"),
        }
    };
    let id = |field| hex(&messages(bytes, field).concat());
    Span {
        trace: id(1),
        id: id(2),
        state: text(bytes, 3),
        parent: id(4),
        name: text(bytes, 5),
        kind: number(6),
        start: number(7),
        end: number(8),
        attributes: attributes(bytes, 9),
        error: messages(bytes, 15)
            .iter()
            .any(|status| matches!(fields(status)[..], [(3, Wire::Number(2))])),
    }
}

/// Takes what is exported, until the test ends.
struct Collector {
    address: String,
    spans: Receiver<Span>,
}

impl Collector {
    fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (sender, spans) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let sender = sender.clone();
                thread::spawn(move || serve(stream.expect("a connection"), &sender));
            }
        });
        Collector { address, spans }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A request's own span, and those below it by their names.
    fn request(&self, name: &str) -> (Span, BTreeMap<String, Span>) {
        let mut below = Vec::new();
        let mut root: Option<Span> = None;
        loop {
            let span = self.spans.recv_timeout(PATIENCE).expect("a span");
            match &root {
                None if span.name == name => root = Some(span),
                None => {}
                Some(root) if span.parent == root.id => {
                    let last = span.end == root.end;
                    below.push(span);
                    if last {
                        let below = below.into_iter().map(|span| (span.name.clone(), span));
                        return (root.clone(), below.collect());
                    }
                }
                Some(root) => {
                    panic!("{root:?} does not end where its parts do: {below:?} {span:?}")
                }
            }
        }
    }
}

fn serve(stream: TcpStream, spans: &Sender<Span>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        assert!(
            head.contains("Content-Type: application/x-protobuf\r\n"),
            "{head}"
        );
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        stream.read_exact(&mut body).expect("the body");
        for resource in messages(&body, 1) {
            let about = attributes(&messages(&resource, 1).concat(), 1);
            assert_eq!(about["service.name"], "inflightkv");
            assert_eq!(about["service.instance.id"], "node-7");
            for scope in messages(&resource, 2) {
                for bytes in messages(&scope, 2) {
                    // The test may be over.
                    let _ = spans.send(span(&bytes));
                }
            }
        }
        let answer =
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn start(collector: &str, more: &[&str]) -> Server {
    let mut flags = vec![
        "--otlp-endpoint",
        collector,
        "--node-id",
        "node-7",
        "--threads",
        "1",
    ];
    flags.extend(more);
    Server::start(&flags)
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_request_and_its_parts_are_spans() {
    let collector = Collector::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8");
    let server = start(
        &collector.url(),
        &["--data-dir", path, "--wal-sync", "always"],
    );
    let answer = server.ask(
        &format!("PUT /v1/kv/secret%20key\ntraceparent: {PARENT}\ntracestate: vendor=1"),
        "{\"a\":1}",
    );
    assert_eq!(answer.status, 201);
    let (root, parts) = collector.request("PUT /v1/kv/{key}");
    assert_eq!(root.trace, "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(root.parent, "00f067aa0ba902b7");
    assert_eq!(root.state, "vendor=1");
    assert_eq!(root.kind, 2);
    assert!(!root.error);
    // The sender learns which span its request was.
    assert_eq!(
        answer.field("traceparent"),
        Some(&*format!("00-{}-{}-01", root.trace, root.id))
    );
    for (name, value) in [
        ("http.request.method", "PUT"),
        ("http.route", "/v1/kv/{key}"),
        ("url.path", "/v1/kv/{key}"),
        ("url.scheme", "http"),
        ("http.response.status_code", "201"),
        ("http.request.body.size", "7"),
        ("client.address", "127.0.0.1"),
    ] {
        assert_eq!(
            root.attributes.get(name).map(String::as_str),
            Some(value),
            "{name}"
        );
    }
    assert_eq!(root.attributes["inflightkv.key.hash"].len(), 16);
    for name in ["execute", "wal wait", "write"] {
        let part = &parts[name];
        assert_eq!((&part.trace, part.kind), (&root.trace, 1), "{part:?}");
        assert!(root.start <= part.start && part.start <= part.end && part.end <= root.end);
    }
    assert!(parts["execute"].end <= parts["wal wait"].start);
    assert!(parts["wal wait"].end <= parts["write"].start);
    let mut ids: Vec<&String> = parts.values().map(|part| &part.id).collect();
    ids.push(&root.id);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), parts.len() + 1);
    // What nobody may learn from a trace.
    assert!(!format!("{root:?}{parts:?}").contains("secret"));
}

#[test]
fn sampling_is_by_the_sender_then_by_chance() {
    let collector = Collector::start();
    let server = start(&collector.url(), &["--trace-requests", "off"]);
    assert_eq!(server.ask("GET /v1/keys", "").field("traceparent"), None);
    let unsampled = PARENT.replace("-01", "-00");
    let answer = server.ask(&format!("GET /v1/keys\ntraceparent: {unsampled}"), "");
    assert_eq!(answer.field("traceparent"), None);
    let answer = server.ask(&format!("GET /v1/kv/none\ntraceparent: {PARENT}"), "");
    assert_eq!(answer.status, 404);
    let (root, _) = collector.request("GET /v1/kv/{key}");
    assert_eq!(root.attributes["http.response.status_code"], "404");

    let server = start(
        &format!("{}/v1/traces/", collector.url()),
        &["--log-keys", "plain"],
    );
    server.ask("GET /health/ready", "");
    let answer = server.ask("GET /v1/kv/a%20b", "");
    let (root, _) = collector.request("GET /v1/kv/{key}");
    assert_eq!(root.parent, "");
    assert_eq!(root.attributes["url.path"], "/v1/kv/a%20b");
    assert!(
        answer
            .field("traceparent")
            .is_some_and(|field| field.contains(&root.trace))
    );
}

/// What was traced before a server ends is sent before it does.
#[test]
fn the_last_traces_are_sent_at_the_end() {
    let collector = Collector::start();
    let server = start(&collector.url(), &[]);
    server.ask("GET /v1/keys", "");
    assert!(server.terminate());
    collector.request("GET /v1/keys");
}

/// A collector that is not there costs nothing but what it would have got, which is counted.
#[test]
fn a_collector_that_is_away_holds_nobody_up() {
    let away = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    };
    let server = start(&format!("http://{away}"), &[]);
    for _ in 0..20 {
        assert_eq!(server.ask("GET /v1/keys", "").status, 200);
    }
    eventually("the loss is counted", || {
        let metrics = server.ask("GET /metrics", "");
        metrics
            .text()
            .contains("inflightkv_traced_requests_total{outcome=\"failed\"} 20\n")
    });
    // One that takes a connection and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let server = start(&format!("http://{address}"), &[]);
    let mut client = server.connect();
    // More than the queue holds and one batch has.
    for _ in 0..6_000 {
        assert_eq!(client.ask("GET /v1/kv/none", "").status, 404);
    }
    eventually("what found no room is counted", || {
        let metrics = client.ask("GET /metrics", "");
        metrics.text().lines().any(|line| {
            line.strip_prefix("inflightkv_traced_requests_total{outcome=\"dropped\"} ")
                .is_some_and(|count| count.parse::<u64>().expect("a number") > 0)
        })
    });
}

#[test]
fn an_endpoint_that_is_none_is_refused() {
    for endpoint in ["localhost:4318", "https://localhost:4318"] {
        let output = support::binary()
            .args(["--otlp-endpoint", endpoint, "--listen", "127.0.0.1:0"])
            .output()
            .expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{endpoint}");
        let told = String::from_utf8(output.stderr).expect("text");
        assert!(
            told.contains("otlp-endpoint") && told.contains("expected http://"),
            "{told}"
        );
    }
}
