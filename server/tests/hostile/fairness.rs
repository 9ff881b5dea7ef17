//! Limits that keep one client from taking what the others need, and the server from falling behind.

use super::still_serves;
use super::support::{Answer, Client, Server, eventually};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

fn upload_bytes(server: &Server) -> u64 {
    let stats = server.ask("GET /v1/admin/stats", "").json();
    stats["http"]["uploadBytes"].as_u64().expect("a number")
}

fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    assert_eq!(answer.json()["code"], code, "{answer:?}");
}

#[test]
fn an_address_has_so_many_connections_and_not_more() {
    let server = Server::start(&["--max-connections-per-address", "4"]);
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.ask("GET /health/live", "").status, 200);
    }
    for _ in 0..10 {
        let mut refused = server.connect();
        assert_refused(
            &refused.answer(false).expect("an answer"),
            503,
            "TOO_MANY_CONNECTIONS",
        );
        assert!(refused.is_closed());
    }
    assert_eq!(clients[0].ask("PUT /v1/kv/a", "1").status, 201);
    clients.clear();
    eventually("the places are free again", || {
        let mut client = server.connect();
        client
            .attempt("GET /v1/kv/a", "")
            .is_some_and(|answer| answer.status == 200)
    });
}

#[test]
fn a_connection_asks_so_fast_and_not_faster() {
    let server = Server::start(&["--max-request-rate", "20"]);
    let mut client = server.connect();
    let mut served = 0;
    let refused = loop {
        let answer = client.ask("GET /v1/kv/none", "");
        if answer.status != 404 {
            break answer;
        }
        served += 1;
        assert!(served < 10_000, "nothing is ever refused");
    };
    assert!(
        served >= 20,
        "a second's worth comes at once, {served} came"
    );
    assert_refused(&refused, 429, "TOO_MANY_REQUESTS");
    // The old surface says it in its words.
    for request in ["GET /kv/none", "PUT /kv/none", "GET /kv"] {
        let (mut old, mut tries) = (client.ask(request, "1"), 0);
        while old.status != 503 {
            old = client.ask(request, "1");
            tries += 1;
            assert!(tries < 1_000, "{request} is never refused");
        }
        assert_eq!(old.json()["error"]["errorCode"], "NOT_READY", "{request}");
        assert!(old.field("retry-after").is_some());
    }
    // Operators are not held up, and neither is anybody else.
    for _ in 0..50 {
        assert_eq!(client.ask("GET /health/ready", "").status, 200);
        assert_eq!(client.ask("GET /v1/admin/config", "").status, 200);
    }
    still_serves(&server);
    eventually("waiting helps", || {
        client.ask("GET /v1/kv/none", "").status == 404
    });
}

#[test]
fn an_address_asks_so_fast_and_not_faster_over_all_its_connections() {
    let server = Server::start(&["--max-request-rate-per-address", "30", "--threads", "2"]);
    let statuses: Vec<u16> = (0..2_000)
        .map(|_| server.ask("GET /v1/kv/none", "").status)
        .take_while({
            let mut refused = 0;
            move |status| {
                refused += usize::from(*status == 429);
                refused < 3
            }
        })
        .collect();
    assert!(
        statuses.iter().filter(|status| **status == 404).count() >= 30,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 429).count(),
        2,
        "{statuses:?}"
    );
    assert_eq!(server.ask("GET /health/ready", "").status, 200);
    eventually("waiting helps", || {
        server.ask("GET /v1/kv/none", "").status == 404
    });
}

/// Bodies that are sent and never ended hold a bounded amount of memory, however many clients send them.
#[test]
fn bodies_on_their_way_share_a_bound() {
    let server = Server::start(&[
        "--max-upload-memory",
        "4MiB",
        "--max-batch-size",
        "2MiB",
        "--threads",
        "2",
    ]);
    let part = vec![b' '; 1_000_000];
    let mut clients: Vec<Client> = (0..40)
        .map(|_| {
            let mut client = server.connect();
            client
                .send("PUT /v1/kv/a HTTP/1.1\r\nHost: test\r\nContent-Length: 1048576\r\n\r\n")
                .expect("it is taken");
            // Refused ones are closed while they still send.
            let _ = client.send(&part);
            client
        })
        .collect();
    eventually("some hold what there is", || {
        upload_bytes(&server) > 1 << 20
    });
    assert!(upload_bytes(&server) <= 4 << 20);
    // A small write finds room: what is there at once needs none.
    still_serves(&server);
    // Those that were refused were told; the others can finish.
    let mut stored = 0;
    for client in &mut clients {
        let _ = client.send(vec![b'1'; 48_576]);
        let answer = client.answer(false);
        match answer.as_ref().map(|answer| answer.status) {
            Some(503) => assert_refused(answer.as_ref().expect("an answer"), 503, "OVERLOADED"),
            Some(201 | 204) => stored += 1,
            // The connection was reset while it still sent.
            None => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(
        (1..=4).contains(&stored),
        "{stored} bodies were taken whole"
    );
    drop(clients);
    eventually("everything is given back", || upload_bytes(&server) == 0);
}

/// More work than a loop can do: it says so at once instead of answering everything late, keeps answering operators, and
/// takes work again when the load is over.
#[test]
fn too_much_work_is_refused_at_once_and_operators_are_served() {
    let server = Server::start(&["--threads", "1", "--max-queue-delay", "5ms"]);
    let batch: String = (0..5_000)
        .map(|n| format!("{{\"op\":\"put\",\"key\":\"{n}\",\"value\":{{\"n\":{n}}}}}\n"))
        .collect();
    let (over, refused, served) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = server.connect();
                while !over.load(Ordering::Relaxed) {
                    let answer =
                        client.ask("POST /v1/batch\nContent-Type: application/x-ndjson", &batch);
                    match answer.status {
                        200 => served.fetch_add(1, Ordering::Relaxed),
                        503 => {
                            assert_refused(&answer, 503, "OVERLOADED");
                            // The batch was not read, so the connection is over, as was said.
                            assert_eq!(answer.field("connection"), Some("close"), "{answer:?}");
                            client = server.connect();
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                        _ => panic!("{answer:?}"),
                    };
                }
            });
        }
        let _end = End(&over);
        let mut operator = server.connect();
        eventually("it is too much", || {
            assert_eq!(operator.ask("GET /health/ready", "").status, 200);
            assert_eq!(operator.ask("GET /v1/admin/config", "").status, 200);
            refused.load(Ordering::Relaxed) > 0
        });
    });
    assert!(
        served.load(Ordering::Relaxed) > 0,
        "what can be done is done"
    );
    eventually("it is over", || {
        std::thread::sleep(Duration::from_millis(10));
        server.ask("GET /v1/kv/1", "").status == 200
    });
    still_serves(&server);
}

/// Ends a load, also when a check fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn limits_that_contradict_each_other_are_refused() {
    let output = super::support::binary()
        .args(["serve", "--check-config", "--max-upload-memory", "1MiB"])
        .output()
        .expect("the binary runs");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(
        message.contains("max-upload-memory: found") && message.contains("max-batch-size"),
        "{message}"
    );
}
