//! `GET` and `PATCH /v1/admin/config`: the configuration that holds, and changing it while the server runs.
//!
//! Whoever started the server keeps its configuration and is asked through [`Configuration`]; here is only HTTP.

use super::admin::{refuse_while_recovering, shown};
use super::answer::Answer;
use super::body::{Upload, UploadLimits};
use super::context::Context as LoopState;
use super::fault::Fault;
use super::media::{self, PatchType};
use super::query::{self, Unknown};
use super::v1;
use crate::engine::Engine;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode};
use hyper::body::Incoming;
use serde_json::{Map, Value};
use std::fmt;
use std::rc::Rc;
use tokio::sync::oneshot;

/// Most bytes of a change: every setting at once is far below it.
const CHANGE_BYTES_MAX: usize = 64 << 10;

/// The configuration of a running server.
pub trait Configuration: Send + Sync + fmt::Debug {
    /// Every setting by name with its value, null where it has none; with `details` an object of value, place it came
    /// from (`from`), whether it can change at run time (`runtime`) and what is `allowed`.
    fn document(&self, details: bool) -> Value;

    /// Changes settings, all of them or none; null gives a setting its default back.
    ///
    /// # Errors
    /// A name or value is wrong, a setting cannot change at run time, or the server does not take the whole.
    fn change(&self, changes: &Map<String, Value>, engine: &Engine) -> Result<(), SettingError>;

    /// Reads the file and the environment again and takes the run-time settings from there; says which changed.
    ///
    /// # Errors
    /// The sentence that says what is wrong; then nothing has changed.
    fn reload(&self, engine: &Engine) -> Result<Vec<&'static str>, String>;
}

/// Why settings were not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// There is no such setting.
    #[error("found the unknown setting {name:?}; expected {hint}")]
    Unknown {
        /// As it was written.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// The setting is read at start alone.
    #[error("{name} cannot change at run time; it takes a restart")]
    NeedsRestart {
        /// Its name.
        name: &'static str,
    },
    /// The value is not one of the setting's.
    #[error("{name}: {reason}")]
    Invalid {
        /// The setting.
        name: &'static str,
        /// What was found and what would be right.
        reason: String,
    },
    /// Each setting is sound, the whole is not.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
    },
}

/// A PATCH whose body is on its way.
#[derive(Debug)]
pub(crate) struct Change;

/// `/v1/admin/config`
pub(crate) fn config(
    state: &Rc<LoopState>,
    parts: &Parts,
    body: Incoming,
) -> Result<Answer, Fault> {
    if parts.method == Method::PATCH {
        query::parse(parts.uri.query(), &[], Unknown::Refuse)?;
        if media::patch(&parts.headers)? != PatchType::Merge {
            return Err(Fault::MediaType {
                found: "application/json-patch+json".to_owned(),
                accepted: "application/json, application/merge-patch+json",
                patch: false,
            });
        }
        media::refuse_coded(&parts.headers)?;
        refuse_while_recovering(state)?;
        let limits = UploadLimits {
            what: "change",
            bytes_max: CHANGE_BYTES_MAX,
            timeout: state.settings.body_timeout,
        };
        let upload = Upload::new(body, &parts.headers, limits)?;
        return Ok(Answer::Upload(
            upload,
            Some(super::answer::Then::Config(Change)),
        ));
    }
    let parameters = query::parse(parts.uri.query(), &["details"], Unknown::Refuse)?;
    Ok(Answer::now(shown(
        StatusCode::OK,
        &document(state, parameters.details),
    )))
}

fn document(state: &LoopState, details: bool) -> Value {
    match &state.settings.configuration {
        Some(configuration) => configuration.document(details),
        None => Value::Object(Map::new()),
    }
}

impl Change {
    /// The body is there, or never will be.
    pub(crate) fn with_body(self, state: &Rc<LoopState>, body: Result<Bytes, Fault>) -> Answer {
        let changes = match body.and_then(|body| changes(state, &body)) {
            Ok(changes) => changes,
            Err(fault) => return Answer::now(v1::failure(&fault)),
        };
        let Some(configuration) = state.settings.configuration.clone() else {
            return Answer::now(v1::failure(&Fault::Setting(SettingError::Refused {
                reason:
                    "this server was embedded without a configuration; change it where it was started"
                        .to_owned(),
            })));
        };
        // Settings may name files, and a file of rules takes its time to compile: not on a loop.
        let engine = state.lane.engine();
        let (sender, receiver) = oneshot::channel();
        let spawned = std::thread::Builder::new()
            .name("configure".to_owned())
            .spawn(move || {
                // Whoever asked may be gone.
                let _ = sender.send(configuration.change(&changes, &engine));
            });
        if let Err(error) = spawned {
            return Answer::now(v1::failure(&Fault::Internal {
                reason: format!("no thread to change the configuration with: {error}"),
            }));
        }
        let state = state.clone();
        Answer::later(async move {
            match receiver.await {
                Ok(Ok(())) => shown(StatusCode::OK, &document(&state, false)),
                Ok(Err(error)) => v1::failure(&Fault::Setting(error)),
                Err(_) => v1::failure(&Fault::Internal {
                    reason: "the change of the configuration was not finished".to_owned(),
                }),
            }
        })
    }
}

fn changes(state: &LoopState, body: &[u8]) -> Result<Map<String, Value>, Fault> {
    if body.is_empty() {
        return Err(Fault::EmptyBody);
    }
    // The store's own reading of JSON first, for its limits and its words.
    super::value::minified(&Bytes::copy_from_slice(body), &state.json_limits)
        .map_err(Fault::Json)?;
    let Ok(Value::Object(changes)) = serde_json::from_slice(body) else {
        return Err(Fault::Setting(SettingError::Refused {
            reason: "found a body that is not an object; expected settings by name, such as {\"eviction\":\"lru\"}"
                .to_owned(),
        }));
    };
    Ok(changes)
}
