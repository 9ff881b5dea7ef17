//! Watching changes, on a server with a log and on one in memory.
#![cfg(feature = "cli")]

mod support;

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};
use support::{Client, PATIENCE, Server, binary, eventually};

/// What a watch told.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    name: String,
    id: Option<u64>,
    data: Value,
}

/// A watch that is open. HTTP/1.0 has no chunks, so what comes is the events as they are.
struct Watch {
    client: Client,
    /// The last number seen, also one without an event.
    seen: Option<u64>,
}

impl Watch {
    fn open(server: &Server, query: &str, fields: &str) -> Watch {
        let mut client = server.connect();
        let request = format!("GET /v1/watch{query} HTTP/1.0\r\nHost: test\r\n{fields}\r\n");
        client.send(request).expect("sent");
        let mut head = String::new();
        // The head ends with an empty line too, and the place where the watch begins comes with it.
        while !head.ends_with("\r\n\r\n") {
            head.push(char::from(client.bytes_of(1)[0]));
        }
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        assert!(
            head.to_lowercase()
                .contains("content-type: text/event-stream"),
            "{head}"
        );
        Watch { client, seen: None }
    }

    /// The next event; `None` when the stream ended.
    fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.client.next_block()?;
            let mut event = Event {
                name: String::new(),
                id: None,
                data: Value::Null,
            };
            for line in block.lines() {
                match line.split_once(": ") {
                    Some(("id", id)) => event.id = Some(id.parse().expect("a number")),
                    Some(("event", name)) => event.name = name.to_owned(),
                    Some(("data", data)) => event.data = data.parse().expect("a document"),
                    _ => assert!(line.is_empty(), "{block:?}"),
                }
            }
            self.seen = event.id.or(self.seen);
            if !event.name.is_empty() {
                return Some(event);
            }
        }
    }

    fn change(&mut self) -> Event {
        let event = self.next().expect("the watch goes on");
        assert!(matches!(&*event.name, "put" | "delete"), "{event:?}");
        assert_eq!(event.data["sequence"].as_u64(), event.id);
        event
    }
}

fn put(server: &Server, key: &str, value: &str) -> u64 {
    sequence(server.ask(&format!("PUT /v1/kv/{key}"), value).etag())
}

fn sequence(etag: &str) -> u64 {
    u64::from_str_radix(etag.trim_matches('"'), 16).expect("a sequence")
}

struct Place {
    _folder: tempfile::TempDir,
    flags: Vec<String>,
}

/// A server with a log that is synced all the time, and one in memory.
fn places() -> [Place; 2] {
    [true, false].map(|has_log| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("UTF-8").to_owned();
        let flags = match has_log {
            true => ["--data-dir", &path, "--wal-sync-interval", "10ms"]
                .map(str::to_owned)
                .to_vec(),
            false => Vec::new(),
        };
        Place {
            _folder: folder,
            flags,
        }
    })
}

impl Place {
    fn start(&self, more: &[&str]) -> Server {
        let mut flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        flags.extend(["--slow-op", "1h"]);
        flags.extend(more);
        Server::start(&flags)
    }
}

#[test]
fn every_change_is_told_in_order_with_what_it_did() {
    for place in places() {
        let server = place.start(&[]);
        put(&server, "before", "1");
        let mut watch = Watch::open(&server, "?values=true", "");
        let first = put(&server, "user/1", "{\"a\": 1}");
        server.ask("PUT /v1/kv/user/1?ttl=90s", "[2]");
        // The same once more is no change.
        server.ask("PUT /v1/kv/user/1?keepTtl=true", "[2]");
        server.ask("PUT /v1/kv/blob\nContent-Type: image/png", "\u{1}");
        server.ask("PATCH /v1/kv/user/1", "{\"b\":null,\"c\":\"\\n\"}");
        server.ask("DELETE /v1/kv/user/1", "");

        let event = watch.change();
        assert_eq!((event.name.as_str(), event.id), ("put", Some(first)));
        assert_eq!(
            event.data,
            serde_json::json!({"key": "user/1", "sequence": first, "version": 0, "etag": format!("\"{first:x}\""),
                "value": {"a": 1}})
        );
        let event = watch.change();
        assert_eq!(event.data["version"], 1);
        assert!(event.data["expiresAtMs"].as_u64() > Some(1_700_000_000_000));
        let event = watch.change();
        assert_eq!(event.data["valueBase64"], "AQ==");
        assert_eq!(event.data["mediaType"], "image/png");
        let event = watch.change();
        assert_eq!(event.data["value"], serde_json::json!({"c": "\n"}));
        let event = watch.change();
        assert_eq!(event.name, "delete");
        assert_eq!(event.data["key"], "user/1");
        assert_eq!(event.data["cause"], "client");
        assert!(event.data.get("value").is_none());
    }
}

/// Many writers at once: what a watch tells has every change once, in the order of sequences.
#[test]
fn nothing_is_missing_and_nothing_is_out_of_order() {
    const WRITERS: usize = 4;
    const WRITES: usize = 300;
    for place in places() {
        let server = place.start(&["--threads", "2"]);
        let mut all = Watch::open(&server, "", "");
        let mut some = Watch::open(&server, "?prefix=w1/&values=true", "");
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let mut client = server.connect();
                scope.spawn(move || {
                    for n in 0..WRITES {
                        // Large ones go by reference, small ones by copy.
                        let pad = "x".repeat(if n % 50 == 0 { 5_000 } else { n % 40 });
                        let answer = client.ask(
                            &format!("PUT /v1/kv/w{writer}/{}", n % 7),
                            format!("[{n},\"{pad}\"]"),
                        );
                        assert!(answer.status < 300, "{answer:?}");
                    }
                });
            }
            let mut last = 0;
            for _ in 0..WRITERS * WRITES {
                let id = all.change().id.expect("a number");
                assert!(last == 0 || id == last + 1, "{id} after {last}");
                last = id;
            }
            for n in 0..WRITES {
                assert_eq!(some.change().data["value"][0], n);
            }
        });
    }
}

#[test]
fn a_watch_goes_on_where_another_one_ended() {
    for place in places() {
        let server = place.start(&[]);
        let mut watch = Watch::open(&server, "?prefix=a", "");
        let first = put(&server, "a1", "1");
        assert_eq!(watch.change().id, Some(first));
        drop(watch);
        let last = put(&server, "a2", "2");
        // By parameter, by the field of browsers, which is later than what their address says.
        for (query, fields) in [
            (format!("?from={}", first + 1), String::new()),
            ("?from=1".to_owned(), format!("Last-Event-ID: {first}\r\n")),
        ] {
            let mut watch = Watch::open(&server, &query, &fields);
            assert_eq!(watch.change().id, Some(last), "{query}");
        }
        let ahead = server.ask(&format!("GET /v1/watch?from={}", last + 2), "");
        assert_eq!(ahead.status, 400);
        assert_eq!(ahead.json()["code"], "SEQUENCE_AHEAD");
        assert_eq!(ahead.json()["lastSequence"], last);
        let mut level = Watch::open(&server, &format!("?from={}", last + 1), "");
        let next = put(&server, "a3", "3");
        assert_eq!(level.change().id, Some(next));
        let wrong = server.ask("GET /v1/watch\nLast-Event-ID: -1", "");
        assert_eq!(wrong.status, 400);
    }
}

/// Over a restart too, with a log: from the beginning of everything, without a gap.
#[test]
fn the_log_is_gone_back_to_after_a_kill() {
    let [place, _] = places();
    let server = place.start(&[]);
    let written: Vec<u64> = (0..20)
        .map(|n| put(&server, &format!("k{n}"), "0"))
        .collect();
    let last = sequence(server.ask("PUT /v1/kv/last?durability=sync", "1").etag());
    server.kill();
    let server = place.start(&[]);
    let mut watch = Watch::open(&server, "?from=0", "");
    for id in written.into_iter().chain([last]) {
        assert_eq!(watch.change().id, Some(id));
    }
    let next = put(&server, "after", "1");
    assert_eq!(watch.change().id, Some(next));
}

#[test]
fn a_gap_is_said_out_loud() {
    let [with_log, in_memory] = places();
    // What a snapshot covers is retired.
    let server = with_log.start(&["--wal-keep", "0s"]);
    let first = put(&server, "a", "1");
    eventually("the old log is gone", || {
        put(&server, "other", &fastrand::u32(..).to_string());
        let taken = server.ask("POST /v1/admin/snapshot?wait=true", "");
        assert_eq!(taken.status, 200, "{taken:?}");
        let disk = server.ask("GET /v1/admin/snapshots", "").json();
        disk["segments"][0]["firstSequence"].as_u64() > Some(first)
    });
    check_gap(&server, first);
    // Nobody watched, so nothing was kept.
    let server = in_memory.start(&[]);
    let first = put(&server, "a", "1");
    check_gap(&server, first);
}

fn check_gap(server: &Server, from: u64) {
    let mut watch = Watch::open(server, &format!("?from={from}"), "");
    let gap = watch.next().expect("an event");
    assert_eq!(gap.name, "gap");
    assert_eq!(gap.data["from"], from);
    let next = gap.data["next"].as_u64().expect("a sequence");
    assert!(next > from, "{gap:?}");
    let id = put(server, "b", "2");
    assert!(id >= next);
    // What the log still had of before comes first.
    let told = std::iter::repeat_with(|| watch.change().id).find(|told| *told >= Some(id));
    assert_eq!(told, Some(Some(id)));
    let metrics = server.ask("GET /metrics", "");
    assert!(metrics.text().contains("inflightkv_watch_gaps_total 1\n"));
}

/// A client that does not read holds nobody up, and is told why it gets no more.
#[test]
fn a_slow_watcher_is_dropped_and_told_why() {
    let (server, logs) = Server::start_logging(&["--threads", "1"]);
    let mut slow = Watch::open(&server, "?values=true", "");
    let mut client = server.connect();
    let value = vec![b'v'; 200_000];
    let begun = Instant::now();
    // Far more than the feed, the pieces and the sockets hold together.
    for n in 0..250 {
        let request = format!("PUT /v1/kv/k{n}\nContent-Type: application/octet-stream");
        let answer = client.ask(&request, &value);
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    assert!(begun.elapsed() < PATIENCE, "writes were held up");
    let mut last = 0;
    let end = loop {
        let event = slow.next().expect("it is told before it ends");
        match event.id {
            Some(id) => {
                assert!(last == 0 || id == last + 1);
                last = id;
            }
            None => break event,
        }
    };
    assert_eq!(end.name, "end");
    assert_eq!(end.data["reason"], "behind");
    assert_eq!(end.data["next"], last + 1);
    assert!(slow.next().is_none());
    let metrics = server.ask("GET /metrics", "");
    assert!(
        metrics
            .text()
            .contains("inflightkv_watches_dropped_total{reason=\"behind\"} 1\n"),
        "{}",
        metrics.text()
    );
    server.terminate();
    assert!(
        logs.read()
            .contains("a watcher was too slow and was dropped")
    );
}

/// One that takes nothing at all holds up its own thread and nothing else, and is counted when it is gone.
#[test]
fn a_watcher_that_takes_nothing_is_counted() {
    let server = Server::start(&["--threads", "1"]);
    let silent = Watch::open(&server, "?values=true", "");
    let mut client = server.connect();
    // More than the sockets and the pieces hold.
    for n in 0..150 {
        let value = format!("{n}{}", "v".repeat(100_000));
        let answer = client.ask("PUT /v1/kv/k\nContent-Type: text/plain", value);
        assert!(answer.status < 300, "{answer:?}");
    }
    thread::sleep(Duration::from_millis(1_500));
    drop(silent);
    eventually("the watch is gone", || {
        let metrics = client.ask("GET /metrics", "");
        metrics.text().contains("inflightkv_watches 0\n")
            && metrics
                .text()
                .contains("inflightkv_watches_dropped_total{reason=\"stalled\"} 1\n")
    });
}

#[test]
fn evictions_are_told_as_such() {
    let [place, _] = places();
    for flags in [&place.flags[..], &[]] {
        let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        flags.extend(["--max-memory", "64MiB", "--eviction", "lru"]);
        let server = Server::start(&flags);
        put(&server, "victim", "1");
        let mut watch = Watch::open(&server, "", "");
        assert_eq!(server.ask("POST /v1/admin/evict?bytes=1", "").status, 200);
        let event = watch.change();
        assert_eq!(event.name, "delete");
        assert_eq!(event.data["key"], "victim");
        assert_eq!(event.data["cause"], "evicted");
    }
}

/// A token sees its keys, and only for as long as it is one.
#[test]
fn scopes_hold_and_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("auth.toml");
    let token = |name: &str, role: &str, prefix: &str| {
        let mut command = binary();
        command.args(["token", "new", "--name", name, "--role", role]);
        if !prefix.is_empty() {
            command.args(["--prefix", prefix]);
        }
        let output = command.output().expect("the binary runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let secret = text
            .lines()
            .find_map(|line| {
                line.strip_prefix("# ")
                    .filter(|rest| rest.starts_with("ikv_"))
            })
            .expect("a token")
            .to_owned();
        (text, secret)
    };
    let (writer, writes) = token("writer", "write", "");
    let (reader, reads) = token("reader", "read", "mine:");
    std::fs::write(&file, format!("{writer}\n{reader}")).expect("written");
    let server = Server::start(&["--auth", file.to_str().expect("UTF-8")]);
    assert_eq!(server.ask("GET /v1/watch", "").status, 401);
    let mut watch = Watch::open(
        &server,
        "?values=true",
        &format!("Authorization: Bearer {reads}\r\n"),
    );
    for key in ["yours:1", "mine:1", "yours:2", "mine:2"] {
        let answer = server.ask(
            &format!("PUT /v1/kv/{key}\nAuthorization: Bearer {writes}"),
            "1",
        );
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    assert_eq!(watch.change().data["key"], "mine:1");
    assert_eq!(watch.change().data["key"], "mine:2");
    // Taken away while the watch is open.
    std::fs::write(&file, writer).expect("written");
    server.hang_up();
    let end = watch.next().expect("it is told");
    assert_eq!(
        (end.name.as_str(), &end.data["reason"]),
        ("end", &Value::from("unauthorized"))
    );
    assert!(watch.next().is_none());
}

/// A server that follows is watched like any other.
#[test]
fn a_follower_tells_what_it_takes_over() {
    let [place, _] = places();
    let leader = place.start(&[]);
    put(&leader, "a", "1");
    let follower = Server::start(&["--follow", &format!("http://{}", leader.address)]);
    eventually("it has loaded", || {
        follower.ask("GET /v1/kv/a", "").status == 200
    });
    let mut watch = Watch::open(&follower, "?values=true", "");
    let id = put(&leader, "b", "[2]");
    let event = watch.change();
    assert_eq!(
        (event.id, &event.data["value"]),
        (Some(id), &serde_json::json!([2]))
    );
    let id = sequence(leader.ask("PUT /v1/kv/b", "[3]").etag());
    assert_eq!(watch.change().id, Some(id));
}

#[test]
fn watches_are_counted_and_end_with_the_server() {
    let server = Server::start(&[]);
    let gauge = |server: &Server, n: usize| {
        server
            .ask("GET /metrics", "")
            .text()
            .contains(&format!("inflightkv_watches {n}\n"))
    };
    let first = Watch::open(&server, "", "");
    let mut second = Watch::open(&server, "", "");
    assert!(gauge(&server, 2));
    drop(first);
    eventually("the one that left is noticed", || gauge(&server, 1));
    server.signal();
    assert!(second.next().is_none());
    drop(second);
    assert!(server.wait());
}

#[test]
fn the_client_prints_changes_as_lines() {
    let [place, _] = places();
    let server = place.start(&[]);
    let first = put(&server, "a/1", "{\"n\":1}");
    put(&server, "b/1", "2");
    server.ask("DELETE /v1/kv/a/1", "");
    let url = format!("http://{}", server.address);
    let mut watch = binary()
        .args([
            "watch", "--url", &url, "--prefix", "a/", "--values", "--from", "0", "--limit", "3",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("a line").expect("read");
        line.parse().expect("a document")
    };
    let put_line = next();
    assert_eq!(put_line["op"], "put");
    assert_eq!(put_line["sequence"], first);
    assert_eq!(put_line["value"]["n"], 1);
    assert_eq!(next()["op"], "delete");
    // What comes while it waits.
    let id = put(&server, "a/2", "3");
    assert_eq!(next()["sequence"], id);
    assert!(watch.wait().expect("it ends").success());

    let ahead = binary()
        .args(["watch", "--url", &url, "--from", &(id + 2).to_string()])
        .output()
        .expect("the binary runs");
    assert_eq!(ahead.status.code(), Some(1));
    let told = String::from_utf8(ahead.stderr).expect("text");
    assert!(told.contains("SEQUENCE_AHEAD"), "{told}");
}
