//! Administration: figures, snapshots on demand, what is on disk.

use super::answer::{Answer, fail, respond};
use super::body::Body;
use super::context::Context as LoopState;
use super::fault::Fault;
use super::query::{self, Mode, Unknown};
use super::traffic::{Surface, Totals};
use crate::engine::{CheckpointError, Readiness, SnapshotKind, SnapshotReport};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use tokio::sync::oneshot;

/// `GET /v1/admin/stats`
pub(crate) fn stats(state: &Rc<LoopState>, parts: &Parts) -> Result<Answer, Fault> {
    query::parse(parts.uri.query(), &[], Unknown::Refuse)?;
    refuse_while_recovering(state)?;
    let mut document = super::stats::document(&state.lane.engine().stats());
    document["http"] = traffic(&state.settings.traffic.totals());
    Ok(Answer::now(shown(StatusCode::OK, &document)))
}

fn traffic(totals: &Totals) -> Value {
    let requests: serde_json::Map<String, Value> = Surface::ALL
        .into_iter()
        .map(|surface| {
            (
                surface.name().to_owned(),
                totals.requests[surface as usize].into(),
            )
        })
        .collect();
    let answers: serde_json::Map<String, Value> = totals
        .classes
        .iter()
        .enumerate()
        .skip(1)
        .map(|(class, count)| (format!("{class}xx"), (*count).into()))
        .collect();
    json!({
        "connectionsOpen": totals.open,
        "connectionsAccepted": totals.accepted,
        "connectionsRefused": totals.refused,
        "requests": requests,
        "answers": answers,
    })
}

/// `POST /v1/admin/snapshot`
pub(crate) fn snapshot(state: &Rc<LoopState>, parts: &Parts) -> Result<Answer, Fault> {
    let parameters = query::parse(parts.uri.query(), &["mode", "wait"], Unknown::Refuse)?;
    let kind = match parameters.mode {
        None => SnapshotKind::Auto,
        Some(Mode::Full) => SnapshotKind::Full,
        Some(Mode::Incremental) => SnapshotKind::Incremental,
    };
    refuse_while_recovering(state)?;
    let engine = state.lane.engine();
    let id = engine.request_snapshot(kind).map_err(Fault::Snapshot)?;
    if !parameters.wait {
        return Ok(Answer::now(shown(
            StatusCode::ACCEPTED,
            &json!({ "id": id }),
        )));
    }
    Ok(Answer::later(async move {
        let outcome = poll_fn(|context| {
            engine.on_snapshot(id, context.waker().clone());
            match engine.snapshot_outcome(id) {
                Some(outcome) => Poll::Ready(outcome),
                None if matches!(engine.readiness(), Readiness::Stopping) => {
                    Poll::Ready(Err(CheckpointError::Aborted {
                        reason: "the server is stopping".to_owned(),
                    }))
                }
                None => Poll::Pending,
            }
        })
        .await;
        match outcome {
            Ok(report) => shown(StatusCode::OK, &report_document(&report)),
            Err(error) => fail(Surface::V1, &Fault::Snapshot(error)),
        }
    }))
}

fn report_document(report: &SnapshotReport) -> Value {
    json!({
        "id": report.id,
        "kind": if report.full { "full" } else { "incremental" },
        "parent": report.parent,
        "cut": report.cut,
        "entries": report.entries,
        "tombstones": report.tombstones,
        "bytes": report.bytes,
        "durationMs": report.duration_ms,
        "segmentsRetired": report.segments_retired,
    })
}

/// `GET /v1/admin/snapshots`. Folders are read on a thread of their own: a loop must not wait for a disk.
pub(crate) fn snapshots(state: &Rc<LoopState>, parts: &Parts) -> Result<Answer, Fault> {
    query::parse(parts.uri.query(), &[], Unknown::Refuse)?;
    refuse_while_recovering(state)?;
    let engine = state.lane.engine();
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("disk-listing".to_owned())
        .spawn(move || {
            // The client may have left meanwhile.
            let _ = sender.send(engine.disk_listing());
        })
        .map_err(|error| Fault::Internal {
            reason: format!("no thread to read the disk with: {error}"),
        })?;
    Ok(Answer::later(async move {
        match receiver.await {
            Ok(Ok(listing)) => shown(
                StatusCode::OK,
                &super::stats::listing(&listing.unwrap_or_default()),
            ),
            Ok(Err(reason)) => fail(
                Surface::V1,
                &Fault::Internal {
                    reason: reason.to_string(),
                },
            ),
            Err(_) => fail(
                Surface::V1,
                &Fault::Internal {
                    reason: "reading the disk did not end well".to_owned(),
                },
            ),
        }
    }))
}

pub(crate) fn refuse_while_recovering(state: &LoopState) -> Result<(), Fault> {
    match state.lane.engine().readiness() {
        readiness @ (Readiness::Recovering(_) | Readiness::Failed { .. }) => {
            Err(Fault::NotServing(readiness))
        }
        _ => Ok(()),
    }
}

pub(crate) fn shown(status: StatusCode, document: &Value) -> Response<Body> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    respond(status, headers, document.to_string().into_bytes())
}
