//! Where one message ends and the next begins: whoever disagrees with a proxy about that executes somebody else's request.

use super::support::{Client, Server};
use super::{all_answers, statuses, still_serves};

/// A request that must never be executed when it lies inside another one's body or behind a broken one.
const SMUGGLED: &str = "DELETE /v1/kv/victim HTTP/1.1\r\nHost: test\r\n\r\n";

fn with_victim() -> Server {
    let server = Server::start(&["--threads", "1"]);
    assert_eq!(server.ask("PUT /v1/kv/victim", "\"alive\"").status, 201);
    server
}

fn lives(server: &Server, what: &str) {
    assert_eq!(
        server.ask("GET /v1/kv/victim", "").text(),
        "\"alive\"",
        "{what}"
    );
}

/// Fields that tell a length in two ways, or in none that one can rely on. Each is refused, and what follows is not read.
#[test]
fn lengths_that_can_be_read_in_two_ways_are_refused() {
    let server = with_victim();
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "content-length: 5\r\ntransfer-encoding: CHUNKED",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 5 5",
        "Content-Length: 0x5",
        "Content-Length: 5.0",
        "Content-Length: five",
        "Content-Length:",
        "Content-Length: 99999999999999999999999",
        "Content-Length: 18446744073709551615",
        "Content-Length : 5",
        "Content-Length: 5\r\n folded: 6",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chun\u{0}ked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "X: y\rTransfer-Encoding: chunked",
    ] {
        for lead in ["", "GET /v1/kv/victim HTTP/1.1\r\nHost: test\r\n\r\n"] {
            let bytes = format!(
                "{lead}PUT /v1/kv/a HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n0\r\n\r\n{SMUGGLED}"
            );
            let answers = all_answers(&server, &bytes);
            let mut after = statuses(&answers);
            if !lead.is_empty() {
                assert_eq!(after.first(), Some(&200), "{fields:?}: {answers:?}");
                after.remove(0);
            }
            // Refused, or not answered at all, and nothing behind it.
            assert!(
                matches!(after[..], [] | [400 | 413 | 431]),
                "{fields:?} after {lead:?}: {after:?}"
            );
            lives(&server, fields);
            assert_eq!(server.ask("GET /v1/kv/a", "").status, 404, "{fields:?}");
        }
    }
    still_serves(&server);
}

/// Chunks that are none.
#[test]
fn bad_chunking_is_refused_and_nothing_behind_it_is_read() {
    let server = with_victim();
    for body in [
        "zz\r\n1\r\n0\r\n\r\n",
        "-1\r\n1\r\n0\r\n\r\n",
        "+1\r\n1\r\n0\r\n\r\n",
        "0x1\r\n1\r\n0\r\n\r\n",
        " 1\r\n1\r\n0\r\n\r\n",
        "\r\n1\r\n0\r\n\r\n",
        "1\r\n1X0\r\n\r\n",
        "1\r\n12\r\n0\r\n\r\n",
        "1\n1\n0\n\n",
        "ffffffffffffffff\r\n1",
        "10000000000000000\r\n1",
        "ffffffffffffffffffffffffffffffff1\r\n1\r\n0\r\n\r\n",
        "1;\rx\r\n1\r\n0\r\n\r\n",
        "1\r\n1\r\n0\r\nbad trailer\r\n\r\n",
    ] {
        let bytes = format!(
            "PUT /v1/kv/a HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{body}{SMUGGLED}"
        );
        let answers = all_answers(&server, &bytes);
        assert!(
            matches!(statuses(&answers)[..], [] | [400] | [413]),
            "{body:?}: {answers:?}"
        );
        lives(&server, body);
        assert_eq!(server.ask("GET /v1/kv/a", "").status, 404, "{body:?}");
    }
    still_serves(&server);
}

/// Extensions and trailers are allowed, and cost nothing however long they are.
#[test]
fn chunk_extensions_and_trailers_are_bounded() {
    let server = with_victim();
    let head = "PUT /v1/kv/a HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answers = all_answers(
        &server,
        format!("{head}1;name=\"value\"\r\n1\r\n0\r\nTrailer-Field: x\r\n\r\n"),
    );
    assert_eq!(statuses(&answers), [201]);
    let before = server.resident_bytes();
    for endless in ["1;x=", "1\r\n1\r\n0\r\nX: "] {
        let mut client = server.connect();
        client
            .send(format!("{head}{endless}"))
            .expect("it is taken");
        let more = vec![b'x'; 1 << 20];
        // Taken by nobody for long.
        let taken = (0..64).take_while(|_| client.send(&more).is_ok()).count();
        assert!(taken < 64, "{endless:?} goes on for ever");
    }
    assert!(server.resident_bytes() < before + (32 << 20));
    lives(&server, "endless extensions");
    still_serves(&server);
}

/// A GET with a body is a request with a body, not two requests.
#[test]
fn bodies_where_none_is_expected_are_not_read_as_requests() {
    let server = with_victim();
    for request in [
        "GET /v1/kv/victim",
        "HEAD /v1/kv/victim",
        "GET /kv",
        "DELETE /v1/kv/none",
        "OPTIONS /v1/kv/victim",
        "GET /nowhere",
    ] {
        for framing in [
            format!("Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
            format!(
                "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n",
                SMUGGLED.len()
            ),
        ] {
            let mut client = server.connect();
            client
                .send(format!("{request} HTTP/1.1\r\nHost: test\r\n{framing}"))
                .expect("it is taken");
            let answer = client
                .answer(request.starts_with("HEAD"))
                .expect("an answer");
            assert!(
                matches!(answer.status, 200 | 404 | 405),
                "{request}: {answer:?}"
            );
            client.end();
            assert_eq!(client.answer(false), None, "{request} {framing:?}");
            lives(&server, request);
        }
    }
}

/// A body that was refused unread is not taken for the next request.
#[test]
fn refused_bodies_are_not_read_as_requests() {
    let server = with_victim();
    for request in [
        "PUT /v1/kv/__reserved",
        "PUT /v1/kv/a?nonsense=1",
        "PUT /v1/kv/%zz",
        "POST /v1/kv/a",
        "PUT /nowhere",
        "PATCH /v1/kv/a\r\nContent-Type: text/plain",
    ] {
        let (line, fields) = request.split_once("\r\n").unwrap_or((request, "X: y"));
        let bytes = format!(
            "{line} HTTP/1.1\r\nHost: test\r\n{fields}\r\nContent-Length: {}\r\n\r\n{SMUGGLED}",
            SMUGGLED.len()
        );
        let answers = all_answers(&server, bytes);
        assert_eq!(answers.len(), 1, "{request}: {answers:?}");
        assert!(
            matches!(answers[0].status, 400 | 404 | 405 | 415),
            "{request}: {answers:?}"
        );
        lives(&server, request);
    }
}

/// A body that nobody wants: a small one is read past, and after a large one the connection ends, with a word about it.
#[test]
fn refused_bodies_are_skipped_or_end_the_connection_with_a_word() {
    let server = with_victim();
    for request in [
        "PUT /v1/kv/__reserved",
        "PUT /v1/kv/a?nonsense=1",
        "POST /v1/kv/a",
        "PUT /nowhere",
        "DELETE /v1/kv/none",
        "GET /v1/kv/victim",
    ] {
        let small = format!("{request}\nContent-Length: 100");
        let (small, large) = (small, format!("{request}\nContent-Length: 900000"));
        let with = |request: &str, len: usize| {
            let head = request.replace('\n', " HTTP/1.1\r\nHost: test\r\n");
            let mut bytes = format!("{head}\r\n\r\n").into_bytes();
            bytes.extend(vec![b' '; len]);
            bytes
        };
        let mut client = server.connect();
        for _ in 0..2 {
            client.send(with(&small, 100)).expect("it is taken");
            let answer = client.answer(false).expect("an answer");
            assert_eq!(answer.field("connection"), None, "{request}: {answer:?}");
        }
        client.send(with(&large, 900_000)).expect("it is taken");
        let answer = client.answer(false).expect("an answer");
        assert_eq!(
            answer.field("connection"),
            Some("close"),
            "{request}: {answer:?}"
        );
        assert!(client.is_closed(), "{request}");
        lives(&server, request);
    }
}

/// Requests that begin in the middle of a packet, byte by byte: the same answers.
#[test]
fn requests_in_single_bytes_are_requests() {
    let server = with_victim();
    let bytes = "\r\nPUT /v1/kv/a HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n1GET /v1/kv/a HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut client = Client::connect(server.address);
    for byte in bytes.as_bytes() {
        client.send([*byte]).expect("it is taken");
    }
    assert_eq!(client.answer(false).expect("an answer").status, 201);
    assert_eq!(client.answer(false).expect("an answer").text(), "1");
}
