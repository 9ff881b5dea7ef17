//! Persistence turned on and off, on a thread that may wait for the disk.

use super::admin::{refuse_while_recovering, shown};
use super::answer::{Answer, fail};
use super::context::Context as LoopState;
use super::fault::Fault;
use super::query::{self, Unknown};
use super::traffic::Surface;
use crate::engine::{Engine, SwitchError, SwitchReport, SwitchStep};
use http::StatusCode;
use http::request::Parts;
use serde_json::json;
use std::rc::Rc;
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long the thread rests between looks.
const REST: Duration = Duration::from_millis(2);

/// `POST /v1/admin/persistence`
pub(crate) fn post(state: &Rc<LoopState>, parts: &Parts) -> Result<Answer, Fault> {
    let parameters = query::parse(parts.uri.query(), &["state"], Unknown::Refuse)?;
    let on = parameters
        .state
        .ok_or_else(|| query::bad("state", "must be given: on or off"))?;
    refuse_while_recovering(state)?;
    let engine = state.lane.engine();
    let (sender, outcome) = oneshot::channel();
    thread::Builder::new()
        .name("persistence".to_owned())
        .spawn(move || {
            // The client may have left meanwhile; what was begun is brought to its end all the same.
            let _ = sender.send(work(&engine, on));
        })
        .map_err(|error| Fault::Internal {
            reason: format!("no thread to switch with: {error}"),
        })?;
    Ok(Answer::later(async move {
        match outcome.await {
            Ok(Ok(report)) => shown(
                StatusCode::OK,
                &json!({
                    "state": if report.on { "on" } else { "off" },
                    "durableSequence": report.sequence,
                }),
            ),
            Ok(Err(SwitchError::NotServing { readiness })) => {
                fail(Surface::V1, &Fault::NotServing(readiness))
            }
            Ok(Err(error)) => fail(Surface::V1, &Fault::Switch(error)),
            Err(_) => fail(
                Surface::V1,
                &Fault::Internal {
                    reason: "the switch did not end well".to_owned(),
                },
            ),
        }
    }))
}

fn work(engine: &Engine, on: bool) -> Result<SwitchReport, SwitchError> {
    let mut switching = engine.switch_persistence(on)?;
    loop {
        match switching.step()? {
            SwitchStep::Wait => thread::sleep(REST),
            SwitchStep::Done(report) => return Ok(report),
        }
    }
}
