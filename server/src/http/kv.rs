//! The frozen surface `/kv`: requests to commands, outcomes to envelopes. Its status codes are chosen here.

use super::answer::{
    Answer, Applied, Then, fault_of, fault_of_error, read_fault, recycle, refuse_early, respond,
    when_admitted,
};
use super::body::{Body, Upload, UploadLimits};
use super::context::Context as LoopState;
use super::envelope;
use super::fault::Fault;
use super::json::push_string;
use super::keys::KeyStream;
use super::problems::mark_refusal;
use super::query::{self, Unknown};
use super::target::Key;
use super::traffic::Surface;
use super::ttl::Ttl;
use super::value;
use crate::engine::{
    Change, Conditions, Durability, Outcome, PatchError, PatchKind, PatchTtl, PutTtl, Refusal,
    VersionCondition, Write,
};
use crate::trust::Scope;
use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use inflightkv_validation::{JsonErrorKind, Rule};
use std::rc::Rc;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// A PUT or PATCH whose body is on its way.
#[derive(Debug)]
pub(crate) struct Store {
    key: Key,
    version: Option<VersionCondition>,
    ttl: Option<Ttl>,
    patch: bool,
    headers: HeaderMap,
}

/// `/kv/{key}`
pub(crate) fn key(
    state: &Rc<LoopState>,
    parts: Parts,
    body: Incoming,
    start: usize,
) -> Result<Answer, Fault> {
    let Parts {
        method,
        uri,
        headers,
        ..
    } = parts;
    if method == Method::GET || method == Method::HEAD {
        let key = Key::in_path(uri, start, &state.key_limits)?;
        return get(state, &key, headers);
    }
    let known: &[&str] = if method == Method::PUT {
        &["ifVersion", "ttl"]
    } else {
        &["ifVersion"]
    };
    let parameters = query::parse(uri.query(), known, Unknown::Ignore)?;
    let key = Key::in_path(uri, start, &state.key_limits)?;
    let version = parameters.if_version;
    if method == Method::DELETE {
        return Ok(when_admitted(state, Surface::Kv, 0, move |state| {
            delete(state, &key, version)
        }));
    }
    refuse_early(state)?;
    let limits = UploadLimits {
        what: "value",
        bytes_max: state.settings.value_bytes_max,
        timeout: state.settings.body_timeout,
    };
    let upload = Upload::new(body, &headers, limits)?;
    let store = Store {
        key,
        version,
        ttl: parameters.ttl,
        patch: method == Method::PATCH,
        headers,
    };
    Ok(Answer::Upload(upload, Some(Then::Kv(store))))
}

fn get(state: &Rc<LoopState>, key: &Key, headers: HeaderMap) -> Result<Answer, Fault> {
    let reply = state.lane.get(key.as_str()).map_err(read_fault)?;
    let response = match reply.value {
        None => failure(&Fault::NotFound),
        Some(document) => match &document.media_type {
            Some(media_type) => failure(&Fault::NotJson {
                media_type: media_type.to_string(),
            }),
            None => success(recycle(headers), Some(&document.value), document.version),
        },
    };
    Ok(Answer::hold(
        state,
        Surface::Kv,
        reply.wait_for,
        Applied::Read,
        response,
    ))
}

fn delete(state: &Rc<LoopState>, key: &Key, version: Option<VersionCondition>) -> Answer {
    write(
        state,
        key,
        version,
        Change::Delete,
        true,
        |outcome| match outcome {
            Outcome::Deleted(stored) => {
                // The removed value may be one that only `/v1` can show.
                let json = stored
                    .document
                    .as_ref()
                    .filter(|document| document.media_type.is_none());
                Ok(success(
                    HeaderMap::new(),
                    json.map(|document| &*document.value),
                    stored.version,
                ))
            }
            other => Err(other),
        },
    )
}

impl Store {
    /// The body is there, or never will be.
    pub(crate) fn with_body(self, state: &Rc<LoopState>, body: Result<Bytes, Fault>) -> Answer {
        let json = body.and_then(|body| {
            if body.is_empty() {
                return Err(Fault::EmptyBody);
            }
            value::minified(&body, &state.json_limits).map_err(Fault::Json)
        });
        match json {
            Ok(json) => when_admitted(state, Surface::Kv, json.len(), move |state| {
                self.store(state, json)
            }),
            Err(fault) => Answer::now(failure(&fault)),
        }
    }

    fn store(self, state: &Rc<LoopState>, json: Bytes) -> Answer {
        let headers = recycle(self.headers);
        if self.patch {
            let change = Change::Patch {
                kind: PatchKind::Shallow,
                patch: json,
                ttl: PatchTtl::Keep,
            };
            return write(
                state,
                &self.key,
                self.version,
                change,
                true,
                |outcome| match outcome {
                    Outcome::Created(stored)
                    | Outcome::Changed(stored)
                    | Outcome::Unchanged(stored) => {
                        let merged = stored.document.as_ref().map(|document| &*document.value);
                        Ok(success(headers, merged, stored.version))
                    }
                    other => Err(other),
                },
            );
        }
        let ttl = match self.ttl {
            Some(Ttl::For(ms)) => PutTtl::For(ms),
            Some(Ttl::Clear) | None => PutTtl::Clear,
        };
        let change = Change::Put {
            value: value::json(&json),
            ttl,
        };
        write(
            state,
            &self.key,
            self.version,
            change,
            false,
            |outcome| match outcome {
                Outcome::Created(stored)
                | Outcome::Changed(stored)
                | Outcome::Unchanged(stored) => Ok(success(headers, Some(&json), stored.version)),
                other => Err(other),
            },
        )
    }
}

/// Has the store decide, and renders what came of it: `done` the outcomes it hopes for, this function the others.
fn write(
    state: &Rc<LoopState>,
    key: &Key,
    version: Option<VersionCondition>,
    change: Change,
    returning: bool,
    done: impl FnOnce(Outcome) -> Result<Response<Body>, Outcome>,
) -> Answer {
    let conditions = Conditions {
        version,
        ..Conditions::default()
    };
    let write = Write {
        key: key.as_str(),
        conditions,
        change,
        durability: Durability::Default,
        returning,
        pin: None,
    };
    match state.lane.write(write) {
        Ok(reply) => {
            let response = done(reply.value).unwrap_or_else(|outcome| failure(&fault_of(outcome)));
            Answer::hold(state, Surface::Kv, reply.wait_for, Applied::Write, response)
        }
        Err(error) => Answer::now(failure(&fault_of_error(error))),
    }
}

/// `/kv`: every key, a line each, as fast as the client reads.
pub(crate) fn keys(state: &Rc<LoopState>, scope: Option<Scope>) -> Result<Answer, Fault> {
    let mut node = br#","node":"#.to_vec();
    push_string(&mut node, state.settings.node_id.as_bytes());
    node.extend_from_slice(b"}\n");
    let stream = KeyStream::new(
        state.clone(),
        String::new(),
        None,
        None,
        scope,
        false,
        move |row, out| {
            out.extend_from_slice(br#"{"key":"#);
            push_string(out, row.key.as_bytes());
            out.extend_from_slice(&node);
        },
    );
    let stream = stream.start()?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, NDJSON);
    Ok(Answer::now(respond(
        StatusCode::OK,
        headers,
        Body::Stream(Box::new(stream)),
    )))
}

/// `/api/cluster/route/{key}`: every key is here.
pub(crate) fn cluster_route(
    state: &Rc<LoopState>,
    parts: Parts,
    start: usize,
) -> Result<Answer, Fault> {
    Key::in_path(parts.uri, start, &state.key_limits)?;
    let settings = &state.settings;
    let host = &settings.external_host;
    let bracketed = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.clone()
    };
    let url = format!("http://{bracketed}:{}", settings.external_port);
    let mut out = Vec::with_capacity(256);
    for (before, text) in [
        (r#"{"nodeId":"#, settings.node_id.as_str()),
        (r#","nodeName":"#, &settings.node_name),
        (r#","host":"#, host),
    ] {
        out.extend_from_slice(before.as_bytes());
        push_string(&mut out, text.as_bytes());
    }
    out.extend_from_slice(
        format!(r#","port":{},"externalUrl":"#, settings.external_port).as_bytes(),
    );
    push_string(&mut out, url.as_bytes());
    out.extend_from_slice(br#","shouldRedirect":false}"#);
    let mut headers = recycle(parts.headers);
    headers.insert(CONTENT_TYPE, JSON);
    Ok(Answer::now(respond(StatusCode::OK, headers, out)))
}

fn success(mut headers: HeaderMap, data: Option<&[u8]>, version: u64) -> Response<Body> {
    headers.insert(CONTENT_TYPE, JSON);
    respond(StatusCode::OK, headers, envelope::success(data, version))
}

/// The envelope of a failure.
pub(crate) fn failure(fault: &Fault) -> Response<Body> {
    let (status, code) = classify(fault);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, JSON);
    if let Fault::MethodNotAllowed { allow } = fault {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    if let Some(challenge) = fault.challenge() {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if let Some(seconds) = fault.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
    }
    if fault.closes() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let mut response = respond(status, headers, envelope::failure(code, &fault.to_string()));
    mark_refusal(fault, &mut response);
    response
}

/// The status and the `errorCode` of every fault on this surface.
fn classify(fault: &Fault) -> (StatusCode, &'static str) {
    match fault {
        Fault::NotFound | Fault::UnknownPath => (StatusCode::NOT_FOUND, "NOT_FOUND"),
        Fault::Condition { .. } => (StatusCode::CONFLICT, "CONFLICT"),
        Fault::EmptyBody | Fault::NotJson { .. } => (StatusCode::BAD_REQUEST, "WRONG_DATA_TYPE"),
        Fault::Json(error) => match error.kind() {
            JsonErrorKind::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE"),
            _ => (StatusCode::BAD_REQUEST, "WRONG_DATA_TYPE"),
        },
        Fault::Patch(error) => match error {
            PatchError::Damaged => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR"),
            PatchError::TooLarge { .. } | PatchError::TooCostly { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE")
            }
            _ => (StatusCode::BAD_REQUEST, "WRONG_DATA_TYPE"),
        },
        Fault::Parameter {
            name: "ifVersion", ..
        } => (StatusCode::BAD_REQUEST, "WRONG_DATA_TYPE"),
        Fault::KeyEncoding(_) | Fault::QueryEncoding => {
            (StatusCode::BAD_REQUEST, "ENCODING_FAILURE")
        }
        Fault::Key(violation) => match violation.rule {
            Rule::KeyReserved => (StatusCode::BAD_REQUEST, "RESERVED_KEY"),
            Rule::KeyTooLong => (StatusCode::URI_TOO_LONG, "VALIDATION_FAILED"),
            _ => (StatusCode::BAD_REQUEST, "VALIDATION_FAILED"),
        },
        Fault::TargetTooLong { .. } => (StatusCode::URI_TOO_LONG, "VALIDATION_FAILED"),
        Fault::TooLarge { .. } | Fault::TooManyOperations { .. } => {
            (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE")
        }
        Fault::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, "VALIDATION_FAILED"),
        Fault::HeaderTimeout { .. } | Fault::BodyTimeout { .. } => {
            (StatusCode::REQUEST_TIMEOUT, "VALIDATION_FAILED")
        }
        // What its clients know to try again.
        Fault::NotServing(_)
        | Fault::TooManyConnections
        | Fault::Contended
        | Fault::Crowded
        | Fault::TooFast(_)
        | Fault::Overloaded
        | Fault::UploadsExhausted => (StatusCode::SERVICE_UNAVAILABLE, "NOT_READY"),
        Fault::Refused(refusal) => match refusal {
            Refusal::NotServing(_) | Refusal::Backlog => {
                (StatusCode::SERVICE_UNAVAILABLE, "NOT_READY")
            }
            Refusal::ReadOnly { .. } => (StatusCode::SERVICE_UNAVAILABLE, "READ_ONLY"),
            Refusal::DiskFull => (StatusCode::INSUFFICIENT_STORAGE, "INSUFFICIENT_STORAGE"),
        },
        Fault::MemoryFull { .. } => (StatusCode::INSUFFICIENT_STORAGE, "INSUFFICIENT_STORAGE"),
        Fault::DurabilityFailed(cause) | Fault::ReadNotDurable(cause) => {
            if cause.disk_full {
                (StatusCode::INSUFFICIENT_STORAGE, "INSUFFICIENT_STORAGE")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "READ_ONLY")
            }
        }
        Fault::Unauthorized { .. } => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
        Fault::Forbidden => (StatusCode::FORBIDDEN, "FORBIDDEN"),
        Fault::AuditBacklog => (StatusCode::SERVICE_UNAVAILABLE, "NOT_READY"),
        Fault::Snapshot(_)
        | Fault::LogGone { .. }
        | Fault::TooManyStreams { .. }
        | Fault::TooManyWatches { .. }
        | Fault::Role(_)
        | Fault::Restore(_)
        | Fault::Switch(_)
        | Fault::Damaged
        | Fault::Internal { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR"),
        Fault::PersistenceOff
        | Fault::WatchAhead { .. }
        | Fault::Parameter { .. }
        | Fault::UnknownParameters { .. }
        | Fault::Header { .. }
        | Fault::AmbiguousLength
        | Fault::BodyBroken
        | Fault::MediaType { .. }
        | Fault::ContentCoding { .. }
        | Fault::DigestMismatch { .. }
        | Fault::Cursor
        | Fault::Invalid { .. }
        | Fault::Operation { .. }
        | Fault::Batch { .. }
        | Fault::Setting(_) => (StatusCode::BAD_REQUEST, "VALIDATION_FAILED"),
    }
}
