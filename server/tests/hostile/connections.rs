//! Connections: too many, half open, silent, gone, and such that ask without ever reading.

use super::still_serves;
use super::support::{Client, Server, eventually, without_variables};
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

fn open(server: &Server) -> u64 {
    let stats = server.ask("GET /v1/admin/stats", "").json();
    stats["http"]["connectionsOpen"].as_u64().expect("a number")
}

#[test]
fn one_connection_too_many_is_told_so_and_a_free_place_is_given_again() {
    let server = Server::start(&["--max-connections", "8"]);
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.ask("GET /health/live", "").status, 200);
    }
    for _ in 0..20 {
        let mut refused = server.connect();
        let answer = refused
            .answer(false)
            .expect("an answer, before anything is asked");
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.json()["code"], "TOO_MANY_CONNECTIONS");
        assert!(answer.field("retry-after").is_some());
        assert!(refused.is_closed());
    }
    // Those who are in are not disturbed.
    for client in &mut clients {
        assert_eq!(client.ask("PUT /v1/kv/a", "1").status / 100, 2);
    }
    clients.pop();
    eventually("the place is free again", || {
        let mut client = server.connect();
        client
            .attempt("GET /v1/kv/a", "")
            .is_some_and(|answer| answer.status == 200)
    });
}

/// Fewer file descriptors than connections allowed: accepting pauses, and goes on when some are closed.
#[test]
fn running_out_of_files_is_survived() {
    let mut command = without_variables(Command::new("sh"));
    command.args([
        "-c",
        "ulimit -n 64 && exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_inflightkv"),
    ]);
    let server = Server::spawn(command, &["--threads", "1"]);
    let mut first = server.connect();
    assert_eq!(first.ask("PUT /v1/kv/a", "1").status, 201);
    let many: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    assert_eq!(first.ask("GET /v1/kv/a", "").text(), "1");
    drop(many);
    still_serves(&server);
}

/// A client that says it has nothing more to say still gets its answers.
#[test]
fn half_closed_connections_get_their_answers() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for number in 0..50 {
        client.request(&format!("PUT /v1/kv/{number}"), "1");
    }
    client.request("GET /kv", "");
    client.end();
    for _ in 0..50 {
        assert_eq!(client.answer(false).expect("an answer").status, 201);
    }
    assert_eq!(
        client
            .answer(false)
            .expect("an answer")
            .text()
            .lines()
            .count(),
        50
    );
    assert!(client.is_closed());
}

/// Silent ones, ones that leave at once, in the middle of a request, and before reading the answer.
#[test]
fn clients_that_leave_at_any_moment_leave_nothing_behind() {
    let server = Server::start(&[]);
    let value = format!("\"{}\"", "x".repeat(500_000));
    assert_eq!(server.ask("PUT /v1/kv/large", &value).status, 201);
    let before = server.resident_bytes();
    for bytes in [
        "",
        "G",
        "GET /v1/kv/large HTTP/1.1\r\n",
        "GET /v1/kv/large HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /kv HTTP/1.1\r\nHost: test\r\n\r\n",
        "PUT /v1/kv/a HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n[",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "PRI * HTTP",
        "PUT /v1/kv/a HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1",
    ] {
        for _ in 0..30 {
            let mut stream = TcpStream::connect(server.address).expect("it accepts");
            // Closing with unread bytes resets the connection.
            let _ = stream.write_all(bytes.as_bytes());
        }
    }
    eventually("all are gone", || open(&server) == 1);
    assert!(server.resident_bytes() < before + (32 << 20));
    assert_eq!(server.ask("GET /v1/kv/a", "").status, 404);
    still_serves(&server);
}

/// Ten thousand requests in a row from a client that never reads: the server stops reading, keeps a bounded amount, and
/// serves everybody else. When the client reads after all, everything is there in order.
#[test]
fn pipelining_without_reading_costs_a_bounded_amount() {
    let server = Server::start(&["--threads", "1"]);
    let value = format!("\"{}\"", "x".repeat(100_000));
    assert_eq!(server.ask("PUT /v1/kv/large", &value).status, 201);
    let before = server.resident_bytes();
    let requests =
        |request: &dyn Fn(usize) -> String| -> String { (0..10_000).map(request).collect() };
    let puts = requests(&|n| {
        format!(
            "PUT /v1/kv/put{} HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n1",
            n % 10
        )
    });
    let gets = requests(&|_| "GET /v1/kv/large HTTP/1.1\r\nHost: test\r\n\r\n".to_owned());
    let listings = requests(&|_| "GET /kv HTTP/1.1\r\nHost: test\r\n\r\n".to_owned());
    let missing = requests(&|n| format!("GET /v1/kv/none{n} HTTP/1.1\r\nHost: test\r\n\r\n"));
    let mut clients = Vec::new();
    for bytes in [&gets, &puts, &listings, &missing] {
        for _ in 0..3 {
            let mut client = server.connect();
            let sent = client.send_within(bytes.as_bytes(), Duration::from_millis(200));
            clients.push((client, bytes, sent));
        }
    }
    still_serves(&server);
    let used = server.resident_bytes().saturating_sub(before);
    assert!(
        used < 32 << 20,
        "{used} bytes for twelve clients that never read"
    );
    let (mut reader, bytes, sent) = clients.swap_remove(0);
    let whole = bytes[..sent].matches("\r\n\r\n").count();
    assert!(whole > 10, "{whole}");
    for _ in 0..whole.min(200) {
        let answer = reader.answer(false).expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (200, value.len()));
    }
    drop((reader, clients));
    eventually("all are gone", || open(&server) == 1);
}

/// A listing of everything to somebody who does not read it holds one piece of it.
#[test]
fn listings_are_made_while_they_are_read() {
    let server = Server::start(&["--threads", "1"]);
    let mut client = server.connect();
    for part in 0..4 {
        let lines: String = (0..10_000)
            .map(|n| format!("{{\"op\":\"put\",\"key\":\"{part}/{n:0200}\",\"value\":{n}}}\n"))
            .collect();
        assert_eq!(
            client
                .ask("POST /v1/batch\nContent-Type: application/x-ndjson", lines)
                .status,
            200
        );
    }
    let before = server.resident_bytes();
    let mut readers: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for (number, reader) in readers.iter_mut().enumerate() {
        let accept = "Accept: application/x-ndjson";
        reader.request(
            if number % 2 == 0 {
                "GET /kv".to_owned()
            } else {
                format!("GET /v1/keys?values=true\n{accept}")
            }
            .as_str(),
            "",
        );
    }
    still_serves(&server);
    // Twenty listings of 9 MB each would be 180 MB.
    let used = server.resident_bytes().saturating_sub(before);
    assert!(
        used < 32 << 20,
        "{used} bytes for twenty listings that nobody reads"
    );
    let listing = readers[0].answer(false).expect("a listing");
    assert!(listing.text().lines().count() >= 40_000);
}

/// The loop is not held by one connection that always has more to ask.
#[test]
fn a_connection_that_never_stops_asking_does_not_keep_others_waiting() {
    let server = Server::start(&["--threads", "1"]);
    assert_eq!(server.ask("PUT /v1/kv/a", "1").status, 201);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = server.connect();
                let burst = "GET /v1/kv/a HTTP/1.1\r\nHost: test\r\n\r\n".repeat(500);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    client.send(&burst).expect("it is taken");
                    for _ in 0..500 {
                        assert_eq!(client.answer(false).expect("an answer").status, 200);
                    }
                }
            });
        }
        for _ in 0..20 {
            still_serves(&server);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
