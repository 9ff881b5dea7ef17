//! Whether the process lives, the store is up, and writes are taken; and the contract itself.

use super::answer::{Answer, respond};
use super::body::Body;
use super::context::Context as LoopState;
use super::fault::describe_readiness;
use super::json::push_string;
use crate::engine::Readiness;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use serde_json::json;
use std::rc::Rc;

/// The contract as OpenAPI 3.1. A test compares it with the routes.
pub(crate) const OPENAPI: &str = include_str!("openapi.json");

/// `/health/live`: this loop turns, or it would not answer.
pub(crate) fn live() -> Answer {
    up()
}

/// `/health/ready`: writes are taken.
pub(crate) fn ready(state: &Rc<LoopState>) -> Answer {
    match state.lane.engine().readiness() {
        Readiness::Ready if !state.stopping.get() => up(),
        Readiness::Ready => down(&Readiness::Stopping),
        readiness => match state.lane.engine().following() {
            None => down(&readiness),
            Some(following) => {
                let body = json!({
                    "status": "DOWN",
                    "reason": describe_readiness(&readiness),
                    "following": super::stats::following(&following),
                });
                answer(StatusCode::SERVICE_UNAVAILABLE, body.to_string())
            }
        },
    }
}

/// `/health/startup`: what was on disk is loaded.
pub(crate) fn startup(state: &Rc<LoopState>) -> Answer {
    match state.lane.engine().readiness() {
        Readiness::Recovering(progress) => {
            let body = json!({
                "status": "STARTING",
                "phase": progress.phase,
                "doneBytes": progress.done_bytes,
                "totalBytes": progress.total_bytes,
                "entries": progress.entries,
                "remainingMs": progress.remaining_ms,
            });
            answer(StatusCode::SERVICE_UNAVAILABLE, body.to_string())
        }
        readiness @ Readiness::Failed { .. } => down(&readiness),
        _ => up(),
    }
}

/// `/actuator/health`: as `/health/ready`, in the words of the old surface.
pub(crate) fn actuator(state: &Rc<LoopState>) -> Answer {
    match state.lane.engine().readiness() {
        Readiness::Ready if !state.stopping.get() => up(),
        _ => answer(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"DOWN"}"#),
    }
}

/// `/openapi.json`
pub(crate) fn openapi() -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Answer::now(respond(
        StatusCode::OK,
        headers,
        Body::Full(Bytes::from_static(OPENAPI.as_bytes())),
    ))
}

fn up() -> Answer {
    answer(StatusCode::OK, r#"{"status":"UP"}"#)
}

fn down(readiness: &Readiness) -> Answer {
    let mut body = br#"{"status":"DOWN","reason":"#.to_vec();
    push_string(&mut body, describe_readiness(readiness).as_bytes());
    body.push(b'}');
    answer(StatusCode::SERVICE_UNAVAILABLE, body)
}

fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Answer::now(respond(status, headers, Body::Full(body.into())))
}
