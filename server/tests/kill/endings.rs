//! Asked to end: requests in flight finish, the log is complete, the exit code says so.

use super::support::{Client, Server, eventually};
use rustix::process::Signal;
use std::net::TcpStream;

/// Waits until nobody accepts connections any more.
fn stops_accepting(server: &Server) {
    let address = server.address;
    eventually("the listener is closed", || {
        TcpStream::connect(address).is_err()
    });
}

fn half_sent(server: &Server, key: &str) -> Client {
    let mut client = server.connect();
    let head = format!("PUT /v1/kv/{key} HTTP/1.1\r\nHost: test\r\nContent-Length: 8\r\n\r\n\"hal");
    client.send(head).expect("it is taken");
    // The server has seen it once it has answered somebody who came later on this loop; asking whether it waits for the
    // rest is not possible from outside, so a request on every loop is as near as it gets.
    for _ in 0..8 {
        assert_eq!(server.ask("GET /health/live", "").status, 200);
    }
    client
}

#[test]
fn requests_in_flight_finish_and_nothing_of_them_is_lost() {
    for signal in [Signal::TERM, Signal::INT] {
        let directory = tempfile::tempdir().expect("a folder");
        let flags = [
            "--data-dir",
            directory.path().to_str().expect("UTF-8"),
            "--wal-sync",
            "os",
        ];
        let server = Server::start(&flags);
        let mut idle = server.connect();
        assert_eq!(idle.ask("PUT /v1/kv/early", "1").status, 201);
        let mut slow = half_sent(&server, "late");
        server.send_signal(signal);
        stops_accepting(&server);
        assert!(idle.is_closed(), "an idle connection is closed");
        slow.send("f\"  ").expect("it is still read");
        let answer = slow.answer(false).expect("an answer");
        assert_eq!(answer.status, 201, "{answer:?}");
        assert!(slow.is_closed(), "and then the connection ends");
        assert!(server.wait(), "exit code 0");

        let server = Server::start(&flags);
        assert_eq!(server.ask("GET /v1/kv/early", "").text(), "1");
        assert_eq!(server.ask("GET /v1/kv/late", "").text(), "\"half\"");
        assert!(server.terminate());
    }
}

/// A client that never finishes is waited for only so long.
#[test]
fn what_does_not_finish_in_time_is_cut_off() {
    let directory = tempfile::tempdir().expect("a folder");
    let flags = [
        "--data-dir",
        directory.path().to_str().expect("UTF-8"),
        "--shutdown-timeout",
        "100ms",
    ];
    let server = Server::start(&flags);
    assert_eq!(server.ask("PUT /v1/kv/early", "1").status, 201);
    let mut stuck = half_sent(&server, "late");
    server.signal();
    assert!(server.wait(), "exit code 0");
    assert!(stuck.is_closed());
    let server = Server::start(&flags);
    assert_eq!(server.ask("GET /v1/kv/early", "").text(), "1");
    assert_eq!(
        server.ask("GET /v1/kv/late", "").status,
        404,
        "nothing half applied"
    );
}

/// A listing on its way to a slow reader is a request in flight too.
#[test]
fn a_listing_in_flight_is_sent_to_its_end() {
    let server = Server::start(&["--threads", "1"]);
    let mut client = server.connect();
    let batch: String = (0..10_000)
        .map(|n| format!("{{\"op\":\"put\",\"key\":\"{n:0500}\",\"value\":{n}}}\n"))
        .collect();
    let loaded = client.ask("POST /v1/batch\nContent-Type: application/x-ndjson", batch);
    assert_eq!(loaded.status, 200);
    // More than sockets hold, so that it cannot be over before the end is asked for.
    client.request("GET /kv", "");
    assert_eq!(server.ask("GET /health/live", "").status, 200);
    server.signal();
    stops_accepting(&server);
    let listing = client.answer(false).expect("a listing");
    assert_eq!(listing.text().lines().count(), 10_000);
    assert!(server.wait(), "exit code 0");
}
