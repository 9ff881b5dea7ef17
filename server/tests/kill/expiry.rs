//! Times to live across the end of a process: a deadline is kept, neither forgotten nor begun anew.

use super::support::{Server, eventually};
use std::time::Duration;

#[test]
fn deadlines_outlive_the_process() {
    let directory = tempfile::tempdir().expect("a folder");
    let flags = [
        "--data-dir",
        directory.path().to_str().expect("UTF-8"),
        "--wal-sync",
        "always",
    ];
    let left = |server: &Server, key: &str| -> Option<u64> {
        let answer = server.ask(&format!("GET /v1/kv/{key}"), "");
        assert_eq!(answer.status, 200, "{key}: {answer:?}");
        answer
            .field("ttl-ms")
            .map(|ms| ms.parse().expect("a number"))
    };
    let server = Server::start(&flags);
    for (request, body) in [
        ("PUT /v1/kv/long?ttl=1h", "{}"),
        ("PUT /v1/kv/patched?ttl=1h", "{}"),
        ("PATCH /v1/kv/patched", "{\"x\":1}"),
        ("PUT /v1/kv/cleared?ttl=1h", "{}"),
        ("PATCH /v1/kv/cleared?ttl=none", "{}"),
        ("PUT /v1/kv/kept?ttl=2h", "1"),
        ("PUT /v1/kv/kept?keepTtl=true", "2"),
        ("PUT /v1/kv/short?ttl=400ms", "1"),
        // Expired, and made anew without a deadline.
        ("PUT /v1/kv/anew?ttl=1ms", "1"),
    ] {
        assert!(
            matches!(server.ask(request, body).status, 201 | 204),
            "{request}"
        );
    }
    eventually("it is over", || {
        server.ask("GET /v1/kv/anew", "").status == 404
    });
    assert_eq!(server.ask("PUT /v1/kv/anew", "2").status, 201);
    let before = left(&server, "long").expect("it expires");
    // Half of it from a snapshot, half of it from the log.
    assert_eq!(
        server.ask("POST /v1/admin/snapshot?wait=true", "").status,
        200
    );
    assert_eq!(server.ask("PUT /v1/kv/later?ttl=400ms", "1").status, 201);
    assert_eq!(server.ask("PUT /v1/kv/later-long?ttl=1h", "1").status, 201);
    server.kill();

    std::thread::sleep(Duration::from_millis(450));
    let server = Server::start(&flags);
    for key in ["short", "later"] {
        assert_eq!(
            server.ask(&format!("GET /v1/kv/{key}"), "").status,
            404,
            "{key} is over"
        );
        // Whoever makes it again begins at version 0, and nothing of the old deadline is left.
        let made = server.ask(&format!("PUT /v1/kv/{key}\nIf-None-Match: *"), "2");
        assert_eq!(
            (made.status, made.field("version")),
            (201, Some("0")),
            "{key}"
        );
        assert_eq!(left(&server, key), None, "{key}");
    }
    for (key, max) in [
        ("long", before - 450),
        ("patched", 3_600_000),
        ("kept", 7_200_000),
        ("later-long", 3_600_000),
    ] {
        let ms = left(&server, key).expect("it expires");
        assert!(ms <= max && ms + 60_000 > max, "{key}: {ms}");
    }
    assert_eq!(left(&server, "cleared"), None);
    assert_eq!(left(&server, "anew"), None);
    let listed = server.ask("GET /v1/keys?limit=100", "").json();
    assert_eq!(listed["keys"].as_array().map(Vec::len), Some(8), "{listed}");
    assert!(server.terminate());
}
