//! What is the same at every path: parameters, methods, health, and the contract itself.

use super::support::Server;
use super::{ask, check_problem};
use serde_json::{Value, json};

#[test]
fn unknown_parameters_are_named() {
    let server = Server::start(&[]);
    for request in [
        "GET /v1/kv/a?ifversion=1",
        "GET /v1/kv/a?ifVersion=1",
        "PUT /v1/kv/a?ifversion=1",
        "PATCH /v1/kv/a?keepTtl=true",
        "DELETE /v1/kv/a?ttl=1",
        "GET /v1/admin/stats?x=1",
        "GET /v1/admin/snapshots?x",
        "POST /v1/batch?sync=1",
    ] {
        let name = request.split(['?', '=']).nth(1).expect("a name");
        let refused = check_problem(&server, request, "1", 400, "UNKNOWN_PARAMETER").json();
        assert_eq!(refused["parameters"], json!([name]));
        assert!(
            refused["detail"]
                .as_str()
                .expect("a sentence")
                .contains(name)
        );
    }
    check_problem(&server, "GET /v1/kv/a", "", 404, "NOT_FOUND");
}

#[test]
fn wrong_methods_and_unknown_paths() {
    let server = Server::start(&[]);
    for (path, allow) in [
        ("/v1/kv/a", "GET, HEAD, PUT, PATCH, DELETE"),
        ("/v1/keys", "GET, HEAD"),
        ("/v1/batch", "POST"),
        ("/v1/admin/stats", "GET, HEAD"),
        ("/v1/admin/snapshot", "POST"),
        ("/v1/admin/snapshots", "GET, HEAD"),
        ("/health/live", "GET, HEAD"),
        ("/health/ready", "GET, HEAD"),
        ("/health/startup", "GET, HEAD"),
        ("/actuator/health", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
    ] {
        for method in ["TRACE", "OPTIONS", "BREW"] {
            let refused = check_problem(
                &server,
                &format!("{method} {path}"),
                "",
                405,
                "METHOD_NOT_ALLOWED",
            );
            assert_eq!(refused.field("allow"), Some(allow), "{path}");
        }
    }
    for path in [
        "/",
        "/v1",
        "/v1/kv",
        "/v2/kv/a",
        "/metricsx",
        "/health",
        "/v1/keys/",
        "/openapi.json/",
    ] {
        check_problem(&server, &format!("GET {path}"), "", 404, "UNKNOWN_PATH");
    }
}

#[test]
fn health_figures_and_the_contract_itself() {
    let server = Server::start(&[]);
    for path in ["/health/live", "/health/ready", "/health/startup"] {
        assert_eq!(
            ask(&server, &format!("GET {path}"), "", 200).text(),
            r#"{"status":"UP"}"#
        );
    }
    let document = ask(&server, "GET /openapi.json", "", 200);
    assert_eq!(document.json()["openapi"], "3.1.0");
    ask(&server, "PUT /v1/kv/a", "1", 201);
    let stats = ask(&server, "GET /v1/admin/stats", "", 200).json();
    assert_eq!(
        (&stats["readiness"]["state"], &stats["total"]["entries"]),
        (&json!("ready"), &json!(1))
    );
    assert_eq!(stats["partitions"].as_array().map(Vec::len), Some(128));
    assert!(
        stats["http"]["requests"]["v1"]
            .as_u64()
            .is_some_and(|count| count >= 1)
    );
    let listing = ask(&server, "GET /v1/admin/snapshots", "", 200)
        .text()
        .to_owned();
    assert_eq!(
        serde_json::from_str::<Value>(&listing).expect("JSON"),
        json!({"snapshots": [], "segments": []})
    );
}
