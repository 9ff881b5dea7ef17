//! Administration: figures, snapshots on demand, what is on disk.

use super::answer::{Answer, fail, respond};
use super::body::Body;
use super::context::Context as LoopState;
use super::fault::Fault;
use super::query::{self, Mode, Unknown};
use super::traffic::{DURATION_BOUNDS_US, PlaceTotals, Surface, Totals};
use crate::engine::{
    CheckpointError, EvictState, Eviction, Readiness, SnapshotKind, SnapshotReport,
};
use crate::observe::process::Process;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::oneshot;

/// `GET /v1/admin/stats`
pub(crate) fn stats(state: &Rc<LoopState>, parts: &Parts) -> Result<Answer, Fault> {
    query::parse(parts.uri.query(), &[], Unknown::Refuse)?;
    refuse_while_recovering(state)?;
    let mut document = super::stats::document(&state.lane.engine().stats());
    let (unauthorized, forbidden) = state.settings.access.refusals();
    document["access"] = json!({ "unauthorized": unauthorized, "forbidden": forbidden });
    document["following"] = state
        .lane
        .engine()
        .following()
        .map(|following| super::stats::following(&following))
        .into();
    document["http"] = traffic(&state.settings.traffic.totals());
    document["loops"] = loops(state);
    document["process"] = process(state);
    document["http"]["uploadBytes"] = state.settings.uploads.bytes().into();
    Ok(Answer::now(shown(StatusCode::OK, &document)))
}

fn traffic(totals: &Totals) -> Value {
    let requests: serde_json::Map<String, Value> = Surface::ALL
        .into_iter()
        .map(|surface| (surface.name().to_owned(), totals.requests(surface).into()))
        .collect();
    let answers: serde_json::Map<String, Value> = (1..=5)
        .map(|class| (format!("{class}xx"), totals.class(class).into()))
        .collect();
    json!({
        "connectionsOpen": totals.open,
        "connectionsAccepted": totals.accepted,
        "connectionsRefused": totals.refused,
        "connectionsBlocked": totals.blocked,
        "requests": requests,
        "answers": answers,
        "durationBoundsMicros": DURATION_BOUNDS_US,
        "routes": totals.places.iter().map(route).collect::<Vec<_>>(),
    })
}

fn route(totals: &PlaceTotals) -> Value {
    let statuses: serde_json::Map<String, Value> = totals
        .statuses
        .iter()
        .map(|(status, count)| (status.to_string(), (*count).into()))
        .collect();
    json!({
        "route": totals.place.route(),
        "method": totals.place.method(),
        "statuses": statuses,
        "durations": totals.durations,
        "durationNanosSum": totals.nanos,
        "bytesIn": totals.bytes_in,
        "bytesOut": totals.bytes_out,
    })
}

/// Each event loop; its busy share is over its whole life.
fn loops(state: &LoopState) -> Value {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let uptime = state.settings.started.elapsed().as_secs_f64();
    let all = state.settings.loops.figures();
    all.into_iter()
        .map(|figures| {
            json!({
                "loop": figures.index,
                "busyMicros": micros(figures.busy),
                "busyShare": figures.busy.as_secs_f64() / uptime,
                "turnMaxMicros": micros(figures.longest_turn),
                "sliceMaxMicros": micros(figures.longest_slice),
                "stalls": figures.stalls,
            })
        })
        .collect()
}

fn process(state: &LoopState) -> Value {
    let process = Process::read(state.settings.started);
    json!({
        "residentBytes": process.resident_bytes,
        "cpuSeconds": process.cpu.as_secs_f64(),
        "openFiles": process.open_files,
        "uptimeSeconds": process.uptime.as_secs_f64(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// `POST /v1/admin/snapshot`
pub(crate) fn snapshot(state: &Rc<LoopState>, parts: &Parts) -> Result<Answer, Fault> {
    let parameters = query::parse(parts.uri.query(), &["mode", "wait"], Unknown::Refuse)?;
    let kind = match parameters.mode {
        None => SnapshotKind::Auto,
        Some(Mode::Full) => SnapshotKind::Full,
        Some(Mode::Incremental) => SnapshotKind::Incremental,
        Some(Mode::Replace | Mode::Merge) => {
            return Err(query::bad("mode", "must be full or incremental"));
        }
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

/// `POST /v1/admin/evict?bytes=N`: a slice at a time, between the loop's other requests.
pub(crate) fn evict(state: &Rc<LoopState>, parts: &Parts) -> Result<Answer, Fault> {
    let parameters = query::parse(parts.uri.query(), &["bytes"], Unknown::Refuse)?;
    let Some(wanted) = parameters.bytes else {
        return Err(Fault::Parameter {
            name: "bytes",
            reason: "is missing; expected how many bytes to evict at least".into(),
        });
    };
    state.lane.admit().map_err(Fault::Refused)?;
    let lane = state.lane.clone();
    Ok(Answer::later(async move {
        let mut eviction = Eviction {
            wanted,
            ..Eviction::default()
        };
        while lane.evict(&mut eviction) == EvictState::More {
            tokio::task::yield_now().await;
        }
        let report = json!({ "entries": eviction.entries, "bytes": eviction.bytes });
        shown(StatusCode::OK, &report)
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
    let read = move || engine.disk_listing();
    Ok(on_a_thread("disk-listing", read, |listing| match listing {
        Ok(listing) => shown(
            StatusCode::OK,
            &super::stats::listing(&listing.unwrap_or_default()),
        ),
        Err(reason) => fail(
            Surface::V1,
            &Fault::Internal {
                reason: reason.to_string(),
            },
        ),
    }))
}

/// Does `work` on a thread of its own, because an event loop must wait for nothing, and answers with what came of it.
pub(crate) fn on_a_thread<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
    answer: impl FnOnce(T) -> Response<Body> + 'static,
) -> Answer {
    let (sender, receiver) = oneshot::channel();
    let spawned = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // The client may have left meanwhile.
            let _ = sender.send(work());
        });
    Answer::later(async move {
        let failed = |reason: String| fail(Surface::V1, &Fault::Internal { reason });
        if let Err(error) = spawned {
            return failed(format!("no thread for {name}: {error}"));
        }
        match receiver.await {
            Ok(done) => answer(done),
            Err(_) => failed(format!("the thread for {name} did not end well")),
        }
    })
}

/// `POST /v1/admin/verify`. On a thread of its own: everything there is is read.
pub(crate) fn verify(state: &Rc<LoopState>, parts: &Parts) -> Result<Answer, Fault> {
    query::parse(parts.uri.query(), &[], Unknown::Refuse)?;
    refuse_while_recovering(state)?;
    let engine = state.lane.engine();
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("verify".to_owned())
        .spawn(move || {
            // The client may have left meanwhile.
            let _ = sender.send(engine.verify());
        })
        .map_err(|error| Fault::Internal {
            reason: format!("no thread to verify with: {error}"),
        })?;
    Ok(Answer::later(async move {
        match receiver.await {
            Ok(report) => shown(
                StatusCode::OK,
                &json!({
                    "sound": report.is_sound(),
                    "memory": { "entries": report.entries, "valueBytes": report.value_bytes },
                    "snapshots": { "count": report.snapshots, "bytes": report.snapshot_bytes },
                    "log": { "segments": report.segments, "records": report.records },
                    "damaged": report.damaged,
                    "damage": report.damage,
                    "durationMs": report.duration_ms,
                }),
            ),
            Err(_) => fail(
                Surface::V1,
                &Fault::Internal {
                    reason: "reading everything back did not end well".to_owned(),
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
