//! Answers of every shape, whole, cut short and malformed, from a server that says exactly that.

use super::*;
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

/// A server that answers each connection with the given bytes, one connection after the other, and returns what it
/// was sent.
fn serving(answers: Vec<Vec<u8>>) -> (Connection, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let server = thread::spawn(move || {
        answers
            .into_iter()
            .map(|answer| {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut request = vec![0; 4_096];
                let length = stream.read(&mut request).expect("a request");
                stream.write_all(&answer).expect("an answer");
                String::from_utf8_lossy(&request[..length]).into_owned()
            })
            .collect()
    });
    let url = Url::parse(&format!("http://{address}/base/")).expect("a URL");
    (
        Connection::new(url, Duration::from_secs(5), None, Security::Plain),
        server,
    )
}

fn get() -> Request<'static> {
    Request {
        method: "GET",
        target: "/v1/kv/a",
        headers: &[],
        body: None,
    }
}

fn body_of(answer: &[u8]) -> io::Result<(u16, String)> {
    let (mut connection, _server) = serving(vec![answer.to_vec()]);
    let response = connection.send(get())?;
    let status = response.status;
    let body = response.into_bytes()?;
    Ok((status, String::from_utf8(body).expect("text")))
}

#[test]
fn urls_are_taken_apart() {
    for (text, authority, host, port, path) in [
        (
            "http://127.0.0.1:8080",
            "127.0.0.1:8080",
            "127.0.0.1",
            8080,
            "",
        ),
        ("http://kv.example/", "kv.example", "kv.example", 80, ""),
        ("http://[::1]:9/a/b/", "[::1]:9", "::1", 9, "/a/b"),
        ("http://[::1]", "[::1]", "::1", 80, ""),
    ] {
        let url = Url::parse(text).expect(text);
        let parts = (
            url.authority.as_str(),
            url.host.as_str(),
            url.port,
            url.path.as_str(),
        );
        assert_eq!(parts, (authority, host, port, path));
    }
    for text in [
        "",
        "127.0.0.1:8080",
        "https:/a",
        "http://",
        "http://:80",
        "http://a:x",
        "http://a:99999",
        "http://a b",
        "http://a\r\nX: y",
        "http://u:p@a",
        "http://a/?q",
    ] {
        assert!(Url::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn bodies_end_by_length_by_chunks_and_by_the_end_of_the_connection() {
    for (answer, expected) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            (200, "hello"),
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", (204, "")),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nT: 1\r\n\r\n",
            (200, "hello"),
        ),
        ("HTTP/1.0 404 Not Found\r\n\r\ngone", (404, "gone")),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length:0\r\n\r\n",
            (201, ""),
        ),
    ] {
        let (status, body) = body_of(answer.as_bytes()).expect(answer);
        assert_eq!((status, body.as_str()), expected, "{answer}");
    }
}

#[test]
fn an_answer_cut_short_or_malformed_is_an_error_and_never_a_short_body() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "SSH-2.0-x\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    ] {
        assert!(body_of(answer.as_bytes()).is_err(), "{answer:?}");
    }
}

#[test]
fn a_line_without_end_is_refused_early() {
    let mut answer = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
    answer.resize(answer.len() + (1 << 17), b'x');
    assert!(body_of(&answer).is_err());
}

#[test]
fn a_connection_closed_while_idle_is_made_again() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1".to_vec();
    let (mut connection, server) = serving(vec![answer.clone(), answer]);
    for _ in 0..2 {
        let response = connection.send(get()).expect("an answer");
        assert_eq!(response.into_bytes().expect("a body"), b"1");
    }
    let requests = server.join().expect("the server ends");
    assert!(
        requests[1].starts_with("GET /base/v1/kv/a HTTP/1.1\r\nHost: 127.0.0.1:"),
        "{requests:?}"
    );
}

#[test]
fn a_server_that_is_silent_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let url = Url::parse(&format!("http://{address}")).expect("a URL");
    let mut connection = Connection::new(url, Duration::from_millis(50), None, Security::Plain);
    assert!(connection.send(get()).is_err());
}
