//! Durability by request, snapshots on request, and a restart.

use super::support::Server;
use super::{ask, check_problem, check_stored, check_value};
use serde_json::{Value, json};

#[test]
fn durability_needs_persistence() {
    let server = Server::start(&[]);
    check_problem(
        &server,
        "PUT /v1/kv/a?durability=sync",
        "1",
        409,
        "NOT_DURABLE",
    );
    check_problem(
        &server,
        "DELETE /v1/kv/a?durability=sync",
        "",
        409,
        "NOT_DURABLE",
    );
    check_problem(
        &server,
        "POST /v1/batch?durability=sync",
        r#"{"ops":[{"op":"put","key":"a","value":1}]}"#,
        409,
        "NOT_DURABLE",
    );
    check_problem(&server, "GET /v1/kv/a", "", 404, "NOT_FOUND");
    check_problem(
        &server,
        "PUT /v1/kv/a?durability=maybe",
        "1",
        400,
        "INVALID_PARAMETER",
    );
    check_stored(&server, "PUT /v1/kv/a?durability=async", "1", 201, 0);
    check_problem(&server, "POST /v1/admin/snapshot", "", 409, "NOT_DURABLE");
}

#[test]
fn durable_writes_snapshots_and_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().to_str().expect("UTF-8");
    for mode in ["interval", "always"] {
        let flags = ["--data-dir", path, "--wal-sync", mode];
        let server = Server::start(&flags);
        let status = if mode == "interval" { 201 } else { 204 };
        check_stored(
            &server,
            "PUT /v1/kv/a?durability=sync",
            &format!("\"{mode}\""),
            status,
            u64::from(status == 204),
        );
        check_stored(
            &server,
            "PUT /v1/kv/b?durability=async",
            &format!("\"{mode}\""),
            status,
            u64::from(status == 204),
        );
        assert_eq!(
            ask(&server, "PUT /kv/c", format!("\"{mode}\""), 200).json()["error"],
            Value::Null
        );
        ask(&server, "GET /v1/kv/b", "", 200);
        ask(&server, "GET /v1/keys", "", 200);
        assert_eq!(ask(&server, "GET /kv", "", 200).text().lines().count(), 3);
        let batch = ask(
            &server,
            "POST /v1/batch?durability=sync",
            r#"{"ops":[{"op":"put","key":"d","value":1},{"op":"delete","key":"d"}]}"#,
            200,
        );
        assert_eq!(batch.json()["results"][1]["status"], 204);

        let report = ask(
            &server,
            "POST /v1/admin/snapshot?mode=full&wait=true",
            "",
            200,
        )
        .json();
        assert_eq!(
            (&report["kind"], &report["entries"]),
            (&json!("full"), &json!(3))
        );
        let asked = ask(&server, "POST /v1/admin/snapshot?mode=incremental", "", 202).json();
        assert!(
            asked["id"].as_u64() > report["id"].as_u64(),
            "{asked} {report}"
        );
        let listing = ask(&server, "GET /v1/admin/snapshots", "", 200).json();
        assert!(!listing["segments"].as_array().expect("segments").is_empty());
        assert!(
            listing["snapshots"]
                .as_array()
                .expect("snapshots")
                .iter()
                .any(|known| known["id"] == report["id"])
        );
        check_problem(
            &server,
            "POST /v1/admin/snapshot?mode=half",
            "",
            400,
            "INVALID_PARAMETER",
        );
        check_problem(
            &server,
            "POST /v1/admin/snapshot?kind=full",
            "",
            400,
            "UNKNOWN_PARAMETER",
        );

        let etag = ask(&server, "GET /v1/kv/a", "", 200).etag().to_owned();
        assert!(server.terminate(), "it ends well");
        let server = Server::start(&flags);
        let back = check_value(
            &server,
            "GET /v1/kv/a",
            &format!("\"{mode}\""),
            u64::from(status == 204),
        );
        assert_eq!(back.etag(), etag);
        assert!(server.terminate(), "it ends well");
    }
}
