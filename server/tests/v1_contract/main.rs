//! The native surface `/v1`, every row of the contract, on a socket.
#![cfg(feature = "cli")]

#[path = "../support/mod.rs"]
mod support;

mod batches;
mod conditions;
mod durability;
mod expiry;
mod keys;
mod patches;
mod surface;
mod values;

use support::{Answer, Server};

const MERGE: &str = "Content-Type: application/merge-patch+json";
const JSON_PATCH: &str = "Content-Type: application/json-patch+json";

fn ask(server: &Server, request: &str, body: impl AsRef<[u8]>, status: u16) -> Answer {
    let answer = server.ask(request, body);
    assert_eq!(
        answer.status,
        status,
        "{request}: {answer:?} {}",
        String::from_utf8_lossy(&answer.body)
    );
    answer
}

/// A success without content: its status and the version it tells.
fn check_stored(server: &Server, request: &str, body: &str, status: u16, version: u64) -> Answer {
    let answer = ask(server, request, body, status);
    assert!(answer.body.is_empty(), "{request}: {answer:?}");
    assert_eq!(
        answer.field("version"),
        Some(version.to_string().as_str()),
        "{request}"
    );
    let etag = answer.etag();
    assert!(
        etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'),
        "{request}: {etag}"
    );
    answer
}

fn check_value(server: &Server, request: &str, expected: &str, version: u64) -> Answer {
    let answer = ask(server, request, "", 200);
    assert_eq!(
        (answer.text(), answer.field("version")),
        (expected, Some(version.to_string().as_str())),
        "{request}"
    );
    answer
}

fn check_problem(
    server: &Server,
    request: &str,
    body: impl AsRef<[u8]>,
    status: u16,
    code: &str,
) -> Answer {
    let answer = ask(server, request, body, status);
    assert_problem(&answer, status, code);
    answer
}

fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(
        answer.field("content-type"),
        Some("application/problem+json"),
        "{answer:?}"
    );
    let problem = answer.json();
    assert_eq!(problem["type"], "about:blank");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["code"], code, "{problem}");
    assert!(
        problem["title"]
            .as_str()
            .is_some_and(|title| !title.is_empty())
    );
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|detail| !detail.is_empty())
    );
}
