//! HTTP/2 with prior knowledge, frame by frame: what it promises, and what is done with it to bring servers down.
#![expect(
    clippy::big_endian_bytes,
    reason = "the numbers of HTTP/2 are written so"
)]

use super::still_serves;
use super::support::{PATIENCE, Server, eventually};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Fields, each spelt out: no table, no Huffman code.
fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        if text.len() < 127 {
            out.push(text.len() as u8);
        } else {
            out.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                out.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            out.push(rest as u8);
        }
        out.extend(text.as_bytes());
    }
    let mut out = Vec::new();
    for (name, value) in list {
        out.push(0);
        text(&mut out, name);
        text(&mut out, value);
    }
    out
}

fn request(method: &str, path: &str) -> Vec<u8> {
    fields(&[
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
    ])
}

/// A connection that has shaken hands.
struct Connection {
    stream: TcpStream,
    next: u32,
}

#[derive(Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Connection {
    fn new(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).expect("it accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let mut connection = Self { stream, next: 1 };
        connection.send(PREFACE).expect("it is taken");
        connection
            .send(&frame(SETTINGS, 0, 0, &[]))
            .expect("it is taken");
        connection
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Begins a request; its stream.
    fn ask(&mut self, block: &[u8], ends: bool) -> u32 {
        let stream = self.next;
        self.next += 2;
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.send(&frame(HEADERS, flags, stream, block))
            .expect("it is taken");
        stream
    }

    /// The next frame; `None` when the connection has ended. Settings are acknowledged on the way.
    fn frame(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).ok()?;
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; len as usize];
            self.stream.read_exact(&mut payload).ok()?;
            let frame_read = Frame {
                kind: head[3],
                flags: head[4],
                stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
                payload,
            };
            if frame_read.kind == SETTINGS {
                if frame_read.flags & ACK == 0 {
                    let _ = self.send(&frame(SETTINGS, ACK, 0, &[]));
                }
                continue;
            }
            return Some(frame_read);
        }
    }

    /// Status and content of the answer on a stream. An error: what ended the stream or the connection instead.
    fn answer(&mut self, stream: u32) -> Result<(u16, Vec<u8>), Option<Frame>> {
        let (mut answered, mut content) = (None, Vec::new());
        loop {
            let frame_read = self.frame().ok_or(None)?;
            if frame_read.kind == GOAWAY {
                return Err(Some(frame_read));
            }
            if frame_read.stream != stream {
                continue;
            }
            match frame_read.kind {
                HEADERS => answered = Some(status(&frame_read.payload)),
                DATA => {
                    content.extend(&frame_read.payload);
                    let credit = (frame_read.payload.len() as u32).to_be_bytes();
                    if frame_read.flags & END_STREAM == 0 && !frame_read.payload.is_empty() {
                        let _ = self.send(&frame(WINDOW_UPDATE, 0, stream, &credit));
                        let _ = self.send(&frame(WINDOW_UPDATE, 0, 0, &credit));
                    }
                }
                RST_STREAM => return Err(Some(frame_read)),
                _ => continue,
            }
            if frame_read.flags & END_STREAM != 0 {
                return Ok((answered.expect("a status"), content));
            }
        }
    }

    /// Whether the server ends the connection, whatever it says before.
    fn ends(&mut self) -> bool {
        while let Some(frame_read) = self.frame() {
            if frame_read.kind == GOAWAY {
                return true;
            }
        }
        true
    }
}

/// The status that a block of fields begins with: by its number in the static table, or spelt in Huffman's code.
fn status(block: &[u8]) -> u16 {
    match block[0] {
        0x88 => return 200,
        0x89 => return 204,
        0x8b => return 304,
        0x8c => return 400,
        0x8d => return 404,
        0x8e => return 500,
        _ => {}
    }
    assert!(
        matches!(block[0], 0x48 | 0x08 | 0x18),
        "the status comes first, and is new: {block:x?}"
    );
    let len = usize::from(block[1] & 0x7f);
    let text = &block[2..2 + len];
    if block[1] & 0x80 == 0 {
        return std::str::from_utf8(text)
            .expect("digits")
            .parse()
            .expect("a status");
    }
    let bits: String = text.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut rest, mut found) = (bits.as_str(), 0);
    for _ in 0..3 {
        let (digit, used) = match &rest[..5] {
            "00000" => (0, 5),
            "00001" => (1, 5),
            "00010" => (2, 5),
            _ => (
                u16::from_str_radix(&rest[..6], 2).expect("bits") - 0b01_1001 + 3,
                6,
            ),
        };
        found = found * 10 + digit;
        rest = &rest[used..];
    }
    found
}

#[test]
fn requests_and_answers_share_a_connection() {
    let server = Server::start(&[]);
    let mut connection = Connection::new(&server);
    let put = connection.ask(&request("PUT", "/v1/kv/a"), false);
    connection
        .send(&frame(DATA, END_STREAM, put, b"{ \"x\": 1 }"))
        .expect("it is taken");
    assert_eq!(connection.answer(put), Ok((201, vec![])));
    let get = connection.ask(&request("GET", "/v1/kv/a"), true);
    assert_eq!(connection.answer(get), Ok((200, b"{\"x\":1}".to_vec())));
    let get = connection.ask(&request("GET", "/kv/a"), true);
    assert_eq!(
        connection.answer(get),
        Ok((
            200,
            br#"{"data":"{\"x\":1}","version":0,"error":null}"#.to_vec()
        ))
    );
    for (method, path, expected) in [
        ("GET", "/v1/kv/none", 404),
        ("GET", "/nowhere", 404),
        ("HEAD", "/v1/kv/a", 200),
        ("DELETE", "/v1/kv/a", 204),
        ("GET", "/v1/kv/%zz", 400),
        ("GET", "/v1/keys", 200),
        ("GET", "/kv", 200),
        ("GET", "/health/ready", 200),
    ] {
        let stream = connection.ask(&request(method, path), true);
        let (found, _) = connection.answer(stream).expect("an answer");
        assert_eq!(found, expected, "{method} {path}");
    }
    // Many at once, answered each on its own stream.
    let streams: Vec<u32> = (0..100)
        .map(|_| connection.ask(&request("GET", "/v1/kv/none"), true))
        .collect();
    let mut ended = 0;
    while ended < streams.len() {
        let frame_read = connection.frame().expect("an answer");
        ended += usize::from(
            frame_read.flags & END_STREAM != 0 && matches!(frame_read.kind, HEADERS | DATA),
        );
    }
}

/// The preface in single bytes is the preface.
#[test]
fn the_preface_may_come_in_pieces() {
    let server = Server::start(&[]);
    let mut stream = TcpStream::connect(server.address).expect("it accepts");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    for byte in PREFACE {
        stream.write_all(&[*byte]).expect("it is taken");
    }
    stream
        .write_all(&frame(SETTINGS, 0, 0, &[]))
        .expect("it is taken");
    let mut connection = Connection { stream, next: 1 };
    let get = connection.ask(&request("GET", "/health/live"), true);
    assert_eq!(connection.answer(get).expect("an answer").0, 200);
}

/// Requests that are taken back as soon as they are asked (CVE-2023-44487): the connection is ended, or they are done and cost
/// nothing that stays.
#[test]
fn rapid_resets_are_bounded() {
    let server = Server::start(&["--threads", "1"]);
    let value = format!("\"{}\"", "x".repeat(100_000));
    assert_eq!(server.ask("PUT /v1/kv/large", value).status, 201);
    let before = server.resident_bytes();
    for _ in 0..3 {
        let mut connection = Connection::new(&server);
        let block = request("GET", "/v1/kv/large");
        for burst in 0..100u32 {
            let mut bytes = Vec::new();
            for number in 0..100u32 {
                let stream = 1 + 2 * (burst * 100 + number);
                bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
                bytes.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
            }
            if connection.send(&bytes).is_err() {
                break;
            }
        }
    }
    still_serves(&server);
    let used = server.resident_bytes().saturating_sub(before);
    assert!(used < 32 << 20, "{used} bytes");
    eventually("all are gone", || {
        server.ask("GET /v1/admin/stats", "").json()["http"]["connectionsOpen"] == 1
    });
}

/// More requests at a time than a connection may have: the rest is refused, so that it can be sent again.
#[test]
fn streams_past_the_limit_are_refused() {
    let server = Server::start(&["--threads", "1"]);
    let before = server.resident_bytes();
    let mut connection = Connection::new(&server);
    let block = request("PUT", "/v1/kv/a");
    for number in 0..2_000 {
        let stream = 1 + 2 * number;
        // Without an end: each would wait for its body.
        if connection
            .send(&frame(HEADERS, END_HEADERS, stream, &block))
            .is_err()
        {
            break;
        }
    }
    let refused = std::iter::from_fn(|| connection.frame())
        .find(|frame_read| matches!(frame_read.kind, RST_STREAM | GOAWAY));
    assert!(refused.is_some(), "all two thousand were taken");
    still_serves(&server);
    let used = server.resident_bytes().saturating_sub(before);
    assert!(used < 32 << 20, "{used} bytes");
    drop(connection);
    assert_eq!(server.ask("GET /v1/kv/a", "").status, 404);
}

/// Answers that are never taken, on many streams: what waits is bounded by the window and by the server.
#[test]
fn streams_that_are_never_read_cost_a_bounded_amount() {
    let server = Server::start(&["--threads", "1"]);
    let lines: String = (0..8_000)
        .map(|n| format!("{{\"op\":\"put\",\"key\":\"{n:0300}\",\"value\":{n}}}\n"))
        .collect();
    assert_eq!(
        server
            .ask("POST /v1/batch\nContent-Type: application/x-ndjson", lines)
            .status,
        200
    );
    let before = server.resident_bytes();
    let mut connections: Vec<Connection> = (0..3).map(|_| Connection::new(&server)).collect();
    for connection in &mut connections {
        for _ in 0..100 {
            connection.ask(&request("GET", "/kv"), true);
        }
    }
    still_serves(&server);
    std::thread::sleep(Duration::from_millis(200));
    // Three hundred listings of 2.7 MB each would be 800 MB.
    let used = server.resident_bytes().saturating_sub(before);
    assert!(used < 64 << 20, "{used} bytes");
    still_serves(&server);
}

/// Fields without an end (CVE-2024-27983 and its like).
#[test]
fn endless_fields_end_the_connection() {
    let server = Server::start(&["--threads", "1"]);
    let before = server.resident_bytes();
    let mut connection = Connection::new(&server);
    connection
        .send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/v1/kv/a")))
        .expect("it is taken");
    let more = fields(&[("x-filler", &"y".repeat(16_000))]);
    let taken = (0..4_000)
        .take_while(|_| connection.send(&frame(CONTINUATION, 0, 1, &more)).is_ok())
        .count();
    assert!(taken < 4_000, "64 MB of fields were taken");
    assert!(server.resident_bytes() < before + (32 << 20));
    // A block with an end that is too large is refused and leaves the server alone.
    let mut connection = Connection::new(&server);
    let mut block = request("GET", "/v1/kv/a");
    for number in 0..20 {
        block.extend(fields(&[(&format!("x-{number}"), &"y".repeat(8_000))]));
    }
    connection
        .send(&frame(HEADERS, END_STREAM, 1, &block[..16_000]))
        .expect("it is taken");
    let mut pieces = block[16_000..].chunks(16_000).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() {
            END_HEADERS
        } else {
            0
        };
        if connection
            .send(&frame(CONTINUATION, flags, 1, piece))
            .is_err()
        {
            break;
        }
    }
    match connection.answer(1) {
        Ok((found, _)) => assert_eq!(found, 431),
        Err(instead) => {
            assert!(
                instead.is_none_or(|frame_read| matches!(frame_read.kind, RST_STREAM | GOAWAY))
            );
        }
    }
    still_serves(&server);
}

/// Frames that ask for an answer each, from somebody who does not read any.
#[test]
fn floods_of_pings_and_settings_are_bounded() {
    let server = Server::start(&["--threads", "1"]);
    let before = server.resident_bytes();
    for flood in [
        frame(PING, 0, 0, b"12345678"),
        frame(SETTINGS, 0, 0, &[]),
        frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()),
    ] {
        let mut connection = Connection::new(&server);
        connection
            .stream
            .set_write_timeout(Some(Duration::from_millis(100)))
            .expect("a timeout");
        let bytes = flood.repeat(2_000);
        for _ in 0..200 {
            if connection.send(&bytes).is_err() {
                break;
            }
        }
    }
    still_serves(&server);
    let used = server.resident_bytes().saturating_sub(before);
    assert!(used < 32 << 20, "{used} bytes");
}

#[test]
fn bodies_have_the_same_limits() {
    let server = Server::start(&["--max-value-size", "1KiB", "--request-timeout", "300ms"]);
    let mut connection = Connection::new(&server);
    // Claimed, sent without a claim, too slow.
    let mut block = request("PUT", "/v1/kv/a");
    block.extend(fields(&[("content-length", "2000")]));
    let claimed = connection.ask(&block, false);
    assert_eq!(connection.answer(claimed).expect("an answer").0, 413);
    let mut connection = Connection::new(&server);
    let sent = connection.ask(&request("PUT", "/v1/kv/a"), false);
    connection
        .send(&frame(DATA, 0, sent, &[b' '; 2_000]))
        .expect("it is taken");
    assert_eq!(connection.answer(sent).expect("an answer").0, 413);
    let mut connection = Connection::new(&server);
    let slow = connection.ask(&request("PUT", "/v1/kv/a"), false);
    let began = Instant::now();
    connection
        .send(&frame(DATA, 0, slow, b"["))
        .expect("it is taken");
    assert_eq!(connection.answer(slow).expect("an answer").0, 408);
    assert!(began.elapsed() >= Duration::from_millis(300));
    // A body that is not as long as it was said to be.
    let mut connection = Connection::new(&server);
    let mut block = request("PUT", "/v1/kv/a");
    block.extend(fields(&[("content-length", "10")]));
    let short = connection.ask(&block, false);
    connection
        .send(&frame(DATA, END_STREAM, short, b"[1]"))
        .expect("it is taken");
    assert!(!connection.answer(short).is_ok_and(|(found, _)| found < 400));
    // One that is taken back.
    let mut connection = Connection::new(&server);
    let gone = connection.ask(&request("PUT", "/v1/kv/a"), false);
    connection
        .send(&frame(DATA, 0, gone, b"[1]"))
        .expect("it is taken");
    connection
        .send(&frame(RST_STREAM, 0, gone, &8u32.to_be_bytes()))
        .expect("it is taken");
    let later = connection.ask(&request("GET", "/v1/kv/a"), true);
    assert_eq!(connection.answer(later).expect("an answer").0, 404);
    still_serves(&server);
}

/// What no client may send: the stream or the connection ends, and nothing happens.
#[test]
fn what_is_not_http_2_is_ended() {
    let server = Server::start(&[]);
    for (what, bytes) in [
        ("nonsense", vec![0xff; 500]),
        (
            "a frame too large",
            frame(HEADERS, END_HEADERS, 1, &vec![0; 20_000]),
        ),
        ("data on no stream", frame(DATA, 0, 1, b"x")),
        (
            "a continuation of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &[]),
        ),
        (
            "an even stream",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                2,
                &request("GET", "/v1/kv/a"),
            ),
        ),
        (
            "stream 0",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                0,
                &request("GET", "/v1/kv/a"),
            ),
        ),
        (
            "bad compression",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            ),
        ),
        (
            "a window of nothing",
            frame(WINDOW_UPDATE, 0, 0, &0u32.to_be_bytes()),
        ),
        (
            "a setting out of range",
            frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
        ),
        ("a short ping", frame(PING, 0, 0, b"123")),
    ] {
        let mut connection = Connection::new(&server);
        let _ = connection.send(&bytes);
        assert!(connection.ends(), "{what}");
    }
    // Malformed requests end their stream and not more.
    for list in [
        &[
            (":method", "PUT"),
            (":scheme", "http"),
            (":path", "/v1/kv/a"),
            ("connection", "close"),
        ][..],
        &[
            (":method", "PUT"),
            (":scheme", "http"),
            (":path", "/v1/kv/a"),
            ("transfer-encoding", "chunked"),
        ],
        &[
            (":method", "PUT"),
            (":scheme", "http"),
            (":path", "/v1/kv/a"),
            ("UPPER", "case"),
        ],
        &[
            (":method", "PUT"),
            (":scheme", "http"),
            (":scheme", "http"),
            (":path", "/v1/kv/a"),
        ],
        &[(":scheme", "http"), (":path", "/v1/kv/a")],
        &[
            (":method", "PUT"),
            (":path", "/v1/kv/a"),
            ("x", "y"),
            (":scheme", "http"),
        ],
        &[
            (":method", "PUT"),
            (":scheme", "http"),
            (":path", "/v1/kv/a"),
            ("content-length", "1"),
            ("content-length", "2"),
        ],
    ] {
        let mut connection = Connection::new(&server);
        let stream = connection.ask(&fields(list), false);
        let _ = connection.send(&frame(DATA, END_STREAM, stream, b"1"));
        assert!(
            !connection
                .answer(stream)
                .is_ok_and(|(found, _)| found < 400),
            "{list:?}"
        );
    }
    assert_eq!(server.ask("GET /v1/kv/a", "").status, 404);
    still_serves(&server);
}
