//! Expiry: how a time to live is written, kept, cleared and over.

use super::support::Server;
use super::{ask, check_problem, check_stored};
use std::time::Duration;

#[test]
fn expiry() {
    let server = Server::start(&[]);
    let ttl = |key: &str| {
        ask(&server, &format!("GET /v1/kv/{key}"), "", 200)
            .field("ttl-ms")
            .map(|ms| ms.parse::<u64>().expect("a number"))
    };
    for (given, ms) in [
        ("90", 90_000),
        ("1500ms", 1500),
        ("90s", 90_000),
        ("15m", 900_000),
        ("12h", 43_200_000),
        ("7d", 604_800_000),
    ] {
        server.ask(&format!("PUT /v1/kv/{given}?ttl={given}"), "1");
        let left = ttl(given).expect("it expires");
        assert!(left <= ms && left + 1400 > ms, "{given}: {left}");
    }
    for bad in [
        "0",
        "-1",
        "0s",
        "abc",
        "1.5h",
        "",
        "1w",
        "99999999999999999999",
        "40000d",
    ] {
        check_problem(
            &server,
            &format!("PUT /v1/kv/x?ttl={bad}"),
            "1",
            400,
            "INVALID_PARAMETER",
        );
        check_problem(
            &server,
            &format!("PATCH /v1/kv/x?ttl={bad}"),
            "1",
            400,
            "INVALID_PARAMETER",
        );
    }
    // A PUT clears it, unless it is to be kept; a PATCH keeps it, sets it or clears it.
    check_stored(&server, "PUT /v1/kv/a?ttl=1h", "{}", 201, 0);
    check_stored(&server, "PUT /v1/kv/a?keepTtl=true", "{\"x\":1}", 204, 1);
    assert!(ttl("a").is_some());
    check_stored(&server, "PATCH /v1/kv/a", "{\"x\":2}", 204, 2);
    assert!(ttl("a").is_some());
    check_stored(&server, "PATCH /v1/kv/a?ttl=2h", "{}", 204, 3);
    assert!(ttl("a").expect("it expires") > 3_600_000);
    check_stored(&server, "PATCH /v1/kv/a?ttl=none", "{}", 204, 4);
    assert_eq!(ttl("a"), None);
    check_stored(&server, "PATCH /v1/kv/a?ttl=1h", "{}", 204, 5);
    check_stored(&server, "PUT /v1/kv/a", "{\"x\":2}", 204, 6);
    assert_eq!(ttl("a"), None);
    check_problem(
        &server,
        "PUT /v1/kv/a?ttl=1h&keepTtl=true",
        "1",
        400,
        "INVALID_PARAMETER",
    );
    check_problem(
        &server,
        "PUT /v1/kv/a?keepTtl=yes",
        "1",
        400,
        "INVALID_PARAMETER",
    );

    check_stored(&server, "PUT /v1/kv/short?ttl=100ms", "1", 201, 0);
    std::thread::sleep(Duration::from_millis(120));
    check_problem(&server, "GET /v1/kv/short", "", 404, "NOT_FOUND");
    check_problem(
        &server,
        "PUT /v1/kv/short?ifVersion=0",
        "1",
        412,
        "PRECONDITION_FAILED",
    );
    assert!(
        !server
            .ask("GET /v1/keys?limit=1000", "")
            .text()
            .contains("short")
    );
    check_stored(&server, "PUT /v1/kv/short\nIf-None-Match: *", "1", 201, 0);
}
