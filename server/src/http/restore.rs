//! Backups into a running store. Disk and tables are worked on by a thread of the restore's own; the loop passes pieces on.

use super::admin::{refuse_while_recovering, shown};
use super::answer::{Answer, fail, refuse_early};
use super::context::Context as LoopState;
use super::fault::Fault;
use super::query::{self, Mode, Unknown};
use super::traffic::Surface;
use crate::engine::{Engine, OnLoad, RestoreError, RestoreMode, RestoreReport, RestoreStep, Unfit};
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use http_body::Body as _;
use hyper::body::Incoming;
use serde_json::json;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::thread;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Pieces of the body that may wait for the thread.
const PIECES_WAITING: usize = 4;
/// How long the thread rests when the log or a walk is in its way.
const REST: Duration = Duration::from_millis(2);

/// A part of the body, or its end. A channel that closes without the end is a client that went away.
enum Piece {
    Data(Bytes),
    End,
}

/// `POST /v1/admin/restore`
pub(crate) fn post(
    state: &Rc<LoopState>,
    parts: &Parts,
    mut incoming: Incoming,
) -> Result<Answer, Fault> {
    let parameters = query::parse(
        parts.uri.query(),
        &["mode", "prefix", "rules"],
        Unknown::Refuse,
    )?;
    let mode = match (parameters.mode, parameters.prefix) {
        (None | Some(Mode::Replace), None) => RestoreMode::Replace,
        (Some(Mode::Merge), prefix) => RestoreMode::Merge {
            prefix: prefix.unwrap_or_default(),
        },
        (None | Some(Mode::Replace), Some(_)) => {
            return Err(query::bad(
                "prefix",
                "goes with mode=merge; a replace is of the whole store",
            ));
        }
        (Some(_), _) => return Err(query::bad("mode", "must be replace or merge")),
    };
    refuse_while_recovering(state)?;
    refuse_early(state)?;
    let engine = state.lane.engine();
    let timeout = state.settings.body_timeout;
    let merge = mode != RestoreMode::Replace;
    let rules = parameters.rules.unwrap_or(engine.rules_on_load());
    let (pieces, waiting) = mpsc::channel(PIECES_WAITING);
    let (sender, outcome) = oneshot::channel();
    thread::Builder::new()
        .name("restore".to_owned())
        .spawn(move || {
            // The client may have left meanwhile.
            let _ = sender.send(work(&engine, mode, rules, waiting));
        })
        .map_err(|error| Fault::Internal {
            reason: format!("no thread to restore with: {error}"),
        })?;
    Ok(Answer::later(async move {
        let passed = pass_on(&mut incoming, &pieces, timeout).await;
        drop(pieces);
        if let Err(fault) = passed {
            return fail(Surface::V1, &fault);
        }
        match outcome.await {
            Ok(Ok((report, unfit))) => shown(StatusCode::OK, &document(merge, &report, &unfit)),
            Ok(Err(RestoreError::Refused(refusal))) => fail(Surface::V1, &Fault::Refused(refusal)),
            Ok(Err(error)) => fail(Surface::V1, &Fault::Restore(error)),
            Err(_) => fail(
                Surface::V1,
                &Fault::Internal {
                    reason: "the restore did not end well".to_owned(),
                },
            ),
        }
    }))
}

/// Hands the body on, no faster than it is taken. When the thread takes no more it has an answer already.
async fn pass_on(
    incoming: &mut Incoming,
    pieces: &mpsc::Sender<Piece>,
    timeout: Duration,
) -> Result<(), Fault> {
    loop {
        let frame = poll_fn(|context| Pin::new(&mut *incoming).poll_frame(context));
        let piece = match tokio::time::timeout(timeout, frame).await {
            Err(_) => {
                return Err(Fault::BodyTimeout {
                    seconds: timeout.as_secs(),
                });
            }
            Ok(Some(Err(_))) => return Err(Fault::BodyBroken),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Piece::Data(data),
                // Trailers are read past.
                Err(_) => continue,
            },
            Ok(None) => Piece::End,
        };
        let end = matches!(piece, Piece::End);
        if pieces.send(piece).await.is_err() || end {
            return Ok(());
        }
    }
}

fn work(
    engine: &Engine,
    mode: RestoreMode,
    rules: OnLoad,
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<(RestoreReport, Unfit), RestoreError> {
    let mut restore = engine.begin_restore(mode)?.with_rules(rules);
    loop {
        match pieces.blocking_recv() {
            Some(Piece::Data(bytes)) => restore.feed(&bytes)?,
            Some(Piece::End) => break,
            None => return Err(RestoreError::Stopped),
        }
    }
    drop(pieces);
    let mut restoring = restore.finish()?;
    loop {
        match restoring.step()? {
            RestoreStep::More => {}
            RestoreStep::Wait => thread::sleep(REST),
            RestoreStep::Done(report) => return Ok((report, restoring.unfit().clone())),
        }
    }
}

fn document(merge: bool, report: &RestoreReport, unfit: &Unfit) -> serde_json::Value {
    let first = unfit.first.iter().map(|(key, violation)| {
        json!({
            "key": key,
            "rule": violation.rule.name(),
            "setting": violation.rule.setting(),
            "pointer": violation.pointer,
            "found": violation.found,
            "allowed": violation.allowed,
        })
    });
    let first: Vec<_> = first.collect();
    json!({
        "mode": if merge { "merge" } else { "replace" },
        "cut": report.cut,
        "entries": report.entries,
        "restored": report.restored,
        "kept": report.kept,
        "skipped": report.skipped,
        "unfit": report.unfit,
        "firstUnfit": first,
        "sequence": report.sequence,
    })
}
