//! Requests put together at random, and broken at random: none of them is answered with 500, none of them is left without an end,
//! and the server goes on. `HOSTILE_SEED=N` repeats a run, `HOSTILE_ROUNDS=N` makes it longer.

use super::still_serves;
use super::support::Server;
use fastrand::Rng;

const ROUNDS: u64 = 400;
const PATHS: [&str; 16] = [
    "/v1/kv/",
    "/kv/",
    "/v1/kv/",
    "/kv/",
    "/v1/batch",
    "/v1/keys",
    "/kv",
    "/v1/admin/stats",
    "/v1/admin/config",
    "/v1/admin/snapshot?wait=true",
    "/metrics",
    "/health/ready",
    "/api/cluster/route/",
    "/v1/keys?limit=2&values=true",
    "/v1/keys?prefix=a&cursor=00",
    "/nowhere",
];
const KEYS: [&str; 16] = [
    "a",
    "b",
    "user/1",
    "%41",
    "%zz",
    "__x",
    "%C3%BC",
    "",
    "a%2Fb",
    "a?ifVersion=0",
    "a?ttl=1ms",
    "a?ttl=90s",
    "a?keepTtl=true",
    "a?durability=sync",
    "a?ifVersion=-1",
    "a?ifVersion=99999999999999999999",
];
const METHODS: [&str; 8] = [
    "GET", "PUT", "PUT", "PATCH", "DELETE", "POST", "HEAD", "OPTIONS",
];
const FIELDS: [&str; 18] = [
    "Content-Type: application/json",
    "Content-Type: application/merge-patch+json",
    "Content-Type: application/json-patch+json",
    "Content-Type: text/plain",
    "Content-Type: application/x-ndjson",
    "Content-Type: ;",
    "If-Match: *",
    "If-None-Match: *",
    "If-Match: \"1\"",
    "If-None-Match: \"zz\", W/\"1\"",
    "Prefer: return=representation",
    "Want-Content-Digest: sha-256=1",
    "Content-Digest: sha-256=:AAAA:",
    "Accept: application/x-ndjson",
    "Expect: 100-continue",
    "Connection: close",
    "Content-Encoding: gzip",
    "X: y",
];
const BODIES: [&str; 14] = [
    "{}",
    "{\"x\":1}",
    "[1,2,3]",
    "null",
    "\"s\"",
    "{\"a\":{\"b\":[1,{\"c\":null}]}}",
    "[{\"op\":\"add\",\"path\":\"/x\",\"value\":1}]",
    "[{\"op\":\"move\",\"from\":\"/a\",\"path\":\"/a/b\"}]",
    "[{\"op\":\"copy\",\"from\":\"\",\"path\":\"/-\"}]",
    "[{\"op\":\"test\",\"path\":\"\",\"value\":{}}]",
    "{\"ops\":[{\"op\":\"put\",\"key\":\"a\",\"value\":1},{\"op\":\"get\",\"key\":\"a\"}]}",
    "{\"op\":\"put\",\"key\":\"z\",\"value\":{\"q\":1},\"ttl\":\"5ms\"}\n{\"op\":\"patch\",\"key\":\"z\",\"value\":{\"w\":2}}\n{\"op\":\"delete\",\"key\":\"z\",\"ifMatch\":\"*\"}",
    "{\"a\":1e999,\"b\":-0.0,\"c\":\"\\ud83d\\ude00\"}",
    "[[[[[[[[[[[[",
];

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

/// Changes some bytes, preferably into ones that mean something.
fn broken(rng: &mut Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..rng.usize(1..4) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.usize(..bytes.len());
        bytes[at] = match rng.u8(..8) {
            0 => b'\r',
            1 => b'\n',
            2 => b' ',
            3 => b':',
            4 => 0,
            5 => 0xff,
            _ => rng.u8(..),
        };
    }
    bytes
}

fn request(rng: &mut Rng) -> Vec<u8> {
    let method = pick(rng, &METHODS);
    let mut target = pick(rng, &PATHS).to_owned();
    if target.ends_with('/') {
        target.push_str(pick(rng, &KEYS));
    }
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
    for _ in 0..rng.usize(..4) {
        head += pick(rng, &FIELDS);
        head += "\r\n";
    }
    let has_body = matches!(method, "PUT" | "PATCH" | "POST") || rng.u8(..10) == 0;
    let mut body = if has_body {
        pick(rng, &BODIES).as_bytes().to_vec()
    } else {
        Vec::new()
    };
    if rng.u8(..4) == 0 {
        body = broken(rng, body);
    }
    if rng.u8(..6) == 0 {
        head += "Transfer-Encoding: chunked\r\n";
        let mut chunked = Vec::new();
        for chunk in body.chunks(rng.usize(1..50)) {
            chunked.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            chunked.extend(chunk);
            chunked.extend(b"\r\n");
        }
        chunked.extend(b"0\r\n\r\n");
        body = chunked;
    } else if has_body {
        // Now and then one byte more than there is, or one less.
        let len = match rng.u8(..20) {
            0 => body.len() + 1,
            1 => body.len().saturating_sub(1),
            _ => body.len(),
        };
        head += &format!("Content-Length: {len}\r\n");
    }
    let mut bytes = head.into_bytes();
    bytes.extend(b"\r\n");
    bytes.extend(body);
    if rng.u8(..10) == 0 {
        bytes = broken(rng, bytes);
    }
    bytes
}

#[test]
fn requests_at_random_are_answered_or_closed() {
    let number = |variable: &str| -> Option<u64> { std::env::var(variable).ok()?.parse().ok() };
    let seed = number("HOSTILE_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("HOSTILE_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let directory = tempfile::tempdir().expect("a folder");
    let (server, _logs) = Server::start_logging(&[
        "--data-dir",
        directory.path().to_str().expect("UTF-8"),
        "--wal-segment-size",
        "64KiB",
    ]);
    let before = server.resident_bytes();
    for _ in 0..number("HOSTILE_ROUNDS").unwrap_or(ROUNDS) {
        let mut client = server.connect();
        let bytes: Vec<u8> = (0..rng.usize(1..8))
            .flat_map(|_| request(&mut rng))
            .collect();
        // It may be closed before all of it was sent.
        let _ = client.send(&bytes);
        client.end();
        let said = client.rest();
        let mut rest = said.as_slice();
        while let Some(at) = rest.windows(9).position(|window| window == b"HTTP/1.1 ") {
            let status = &rest[at + 9..rest.len().min(at + 12)];
            assert_ne!(
                status,
                b"500",
                "{}\n\n{}",
                String::from_utf8_lossy(&bytes),
                String::from_utf8_lossy(&said)
            );
            rest = &rest[at + 9..];
        }
    }
    let used = server.resident_bytes().saturating_sub(before);
    assert!(used < 64 << 20, "{used} bytes");
    still_serves(&server);
    assert!(server.terminate(), "exit code 0");
}
