//! Request lines and header blocks: nonsense, other protocols, too large, too slow; methods and targets of every form.

use super::support::{Server, eventually};
use super::{all_answers, statuses, still_serves};
use std::time::{Duration, Instant};

#[test]
fn nonsense_is_400_or_closed() {
    let server = Server::start(&[]);
    for bytes in [
        &b"\0\0\0\0\0\0\0\0\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / http/1.1\r\n\r\n",
        b"GET  /v1/kv/a  HTTP/1.1\r\n\r\n",
        b"G\x00T /v1/kv/a HTTP/1.1\r\n\r\n",
        b"GET /v1/kv/\x00 HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /v1/kv/\xff\xfe HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /v1/kv/a b HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET v1/kv/a HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /v1/kv/a HTTP/1.1\r\nNo colon here\r\n\r\n",
        b"GET /v1/kv/a HTTP/1.1\r\n: no name\r\n\r\n",
        b"GET /v1/kv/a HTTP/1.1\r\nBad Name: x\r\n\r\n",
        b"GET /v1/kv/a HTTP/1.1\r\nX: \x00\r\n\r\n",
        b"GET /v1/kv/a HTTP/1.1\r\nX: a\r\n folded\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.0\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n",
    ] {
        let shown = String::from_utf8_lossy(bytes).into_owned();
        let answers = all_answers(&server, bytes);
        assert!(
            matches!(statuses(&answers)[..], [] | [400] | [404] | [505]),
            "{shown:?}: {answers:?}"
        );
    }
    still_serves(&server);
}

/// 431 past the limit of the header block, 414 past what a target may be; neither costs more than the limit.
#[test]
fn heads_too_large_are_refused() {
    let server = Server::start(&["--max-header-size", "8KiB"]);
    let before = server.resident_bytes();
    let long = "x".repeat(20_000);
    let many: String = (0..2_000).map(|n| format!("X-{n}: y\r\n")).collect();
    for fields in [format!("X: {long}\r\n"), format!("{long}: x\r\n"), many] {
        let answers = all_answers(
            &server,
            format!("GET /v1/kv/a HTTP/1.1\r\nHost: test\r\n{fields}\r\n"),
        );
        assert_eq!(statuses(&answers), [431], "{}", &fields[..20]);
    }
    for target in [
        format!("/v1/kv/{long}"),
        format!("/v1/keys?prefix={long}"),
        format!("/{long}"),
    ] {
        let answers = all_answers(
            &server,
            format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"),
        );
        assert_eq!(statuses(&answers), [414], "{}", &target[..20]);
    }
    // Without an end.
    for lead in [
        "GET /v1/kv/",
        "GET /v1/kv/a HTTP/1.1\r\nX: ",
        "GET /v1/kv/a HTTP/1.1\r\n",
    ] {
        let mut client = server.connect();
        client.send(lead).expect("it is taken");
        let more = if lead.ends_with("\r\n") {
            "X: y\r\n".repeat(200_000)
        } else {
            "x".repeat(1 << 20)
        };
        let taken = (0..64).take_while(|_| client.send(&more).is_ok()).count();
        assert!(taken < 64, "{lead:?} goes on for ever");
    }
    assert!(server.resident_bytes() < before + (32 << 20));
    // Within the limit everything is fine.
    let answers = all_answers(
        &server,
        format!(
            "GET /v1/kv/a HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n",
            "x".repeat(7_000)
        ),
    );
    assert_eq!(statuses(&answers), [404]);
    still_serves(&server);
}

/// A head that keeps coming, too slowly, on a new connection and behind a served request.
#[test]
fn heads_slower_than_the_timeout_are_408() {
    let server = Server::start(&["--header-timeout", "300ms"]);
    for lead in ["", "GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n"] {
        let mut client = server.connect();
        if !lead.is_empty() {
            client.send(lead).expect("it is taken");
            assert_eq!(client.answer(false).expect("an answer").status, 200);
        }
        let began = Instant::now();
        client
            .send("GET /v1/kv/a HTTP/1.1\r\nX: ")
            .expect("it is taken");
        while began.elapsed() < Duration::from_millis(900) && client.send("x").is_ok() {
            std::thread::sleep(Duration::from_millis(30));
        }
        let answer = client.answer(false).expect("an answer");
        assert_eq!(answer.status, 408, "{answer:?}");
        assert_eq!(answer.field("connection"), Some("close"));
        assert!(began.elapsed() >= Duration::from_millis(300));
    }
    still_serves(&server);
}

/// Many slow heads at once hold nobody else up, and all come to their end.
#[test]
fn many_slow_clients_disturb_nobody() {
    let server = Server::start(&["--header-timeout", "500ms", "--request-timeout", "500ms"]);
    let mut slow: Vec<_> = (0..200)
        .map(|number| {
            let mut client = server.connect();
            let part = if number % 2 == 0 {
                "GET /v1/kv/a HT"
            } else {
                "PUT /v1/kv/a HTTP/1.1\r\nContent-Length: 9\r\n\r\n["
            };
            client.send(part).expect("it is taken");
            client
        })
        .collect();
    still_serves(&server);
    for client in &mut slow {
        assert_eq!(client.answer(false).expect("an answer").status, 408);
    }
    drop(slow);
    eventually("all are gone", || {
        server.ask("GET /v1/admin/stats", "").json()["http"]["connectionsOpen"] == 1
    });
}

#[test]
fn targets_of_every_form() {
    let server = Server::start(&[]);
    assert_eq!(server.ask("PUT /v1/kv/a", "1").status, 201);
    let ask = |line: &str, host: &str| {
        let answers = all_answers(&server, format!("{line}\r\n{host}\r\n"));
        assert!(answers.len() <= 1, "{line}: {answers:?}");
        answers.into_iter().next()
    };
    let status = |line: &str| ask(line, "Host: test\r\n").map(|answer| answer.status);
    // As a proxy is asked.
    for scheme in ["http", "https", "HTTP"] {
        let answer = ask(
            &format!("GET {scheme}://other:1234/v1/kv/a HTTP/1.1"),
            "Host: test\r\n",
        )
        .expect("an answer");
        assert_eq!((answer.status, answer.text()), (200, "1"), "{scheme}");
    }
    assert_eq!(
        status("GET http://other/v1/kv/a?nonsense=1 HTTP/1.1"),
        Some(400)
    );
    assert_eq!(status("OPTIONS * HTTP/1.1"), Some(404));
    assert_eq!(status("GET * HTTP/1.1"), Some(404));
    assert!(matches!(
        status("CONNECT other:443 HTTP/1.1"),
        None | Some(400 | 404 | 405)
    ));
    assert_eq!(
        status("GET /v1/kv/a#fragment HTTP/1.1"),
        Some(200),
        "what is not a target's is not the key's"
    );
    // An older protocol, with and without being asked to stay.
    assert_eq!(status("GET /v1/kv/a HTTP/1.0"), Some(200));
    // Two hosts are two opinions about whom the request is for.
    assert_eq!(
        ask("GET /v1/kv/a HTTP/1.1", "Host: one\r\nHost: two\r\n").map(|answer| answer.status),
        Some(400)
    );
    still_serves(&server);
}

/// HEAD has GET's status and fields and never a body; what no path knows is 405 with what it does know.
#[test]
fn methods_of_every_sort() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    assert_eq!(client.ask("PUT /v1/kv/a", "{\"x\":1}").status, 201);
    for target in [
        "/v1/kv/a",
        "/v1/kv/none",
        "/kv/a",
        "/kv/none",
        "/v1/keys",
        "/kv",
        "/health/live",
        "/openapi.json",
        "/v1/admin/stats",
        "/nowhere",
        "/v1/kv/a?x=1",
        "/api/cluster/route/a",
    ] {
        let head = client.ask(&format!("HEAD {target}"), "");
        let get = client.ask(&format!("GET {target}"), "");
        assert_eq!(head.status, get.status, "{target}");
        for name in ["content-type", "etag", "version"] {
            assert_eq!(head.field(name), get.field(name), "{target} {name}");
        }
    }
    for method in ["OPTIONS", "TRACE", "POST", "BREW", "get", "PROPFIND", "A"] {
        let answer = client.ask(&format!("{method} /v1/kv/a"), "");
        assert_eq!(answer.status, 405, "{method}: {answer:?}");
        assert_eq!(answer.field("allow"), Some("GET, HEAD, PUT, PATCH, DELETE"));
        let answer = client.ask(&format!("{method} /kv/a"), "");
        assert_eq!(answer.status, 405, "{method}: {answer:?}");
        assert_eq!(answer.field("allow"), Some("GET, HEAD, PUT, PATCH, DELETE"));
    }
    let long = "M".repeat(5_000);
    let answers = all_answers(
        &server,
        format!("{long} /v1/kv/a HTTP/1.1\r\nHost: test\r\n\r\n"),
    );
    assert!(
        matches!(statuses(&answers)[..], [] | [400 | 405]),
        "{answers:?}"
    );
    assert_eq!(client.ask("GET /v1/kv/a", "").text(), "{\"x\":1}");
}
