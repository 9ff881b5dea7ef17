//! The native surface `/v1/kv`: requests to commands, outcomes to status and headers. Its status codes are chosen
//! here, also those of batch results.

use super::answer::{
    Answer, Applied, Then, fault_of, fault_of_error, read_fault, recycle, refuse_early, respond,
    when_admitted,
};
use super::body::{Body, Upload, UploadLimits};
use super::context::Context as LoopState;
use super::digest::{self, Algorithm};
use super::etag::{self, Comparison, Tags};
use super::fault::Fault;
use super::media::{self, Kind, PatchType};
use super::query::{self, Parameters, Unknown};
use super::target::Key;
use super::traffic::Surface;
use super::ttl::Ttl;
use super::value;
use crate::engine::{
    Change, Conditions, Document, Durability, FailedCondition, Outcome, PatchKind, PatchTtl,
    PutTtl, Stored, VersionCondition, Write,
};
use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH,
    IF_NONE_MATCH, VARY,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use std::rc::Rc;

pub(crate) use super::problems::{failure, last_words, problem};

const VERSION: HeaderName = HeaderName::from_static("version");
const TTL_MS: HeaderName = HeaderName::from_static("ttl-ms");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const REPRESENTATION: HeaderValue = HeaderValue::from_static("return=representation");

const PUT_PARAMETERS: &[&str] = &["ifVersion", "ttl", "keepTtl", "pin", "durability"];
const PATCH_PARAMETERS: &[&str] = &["ifVersion", "ttl", "pin", "durability"];
const DELETE_PARAMETERS: &[&str] = &["ifVersion", "durability"];

/// A PUT or PATCH whose body is on its way.
#[derive(Debug)]
pub(crate) struct Store {
    key: Key,
    asked: Asked,
    what: What,
    durability: Durability,
    returning: bool,
    pin: Option<bool>,
    headers: HeaderMap,
}

/// What the body is to become.
#[derive(Debug)]
enum What {
    Put(Kind, PutTtl),
    Patch(PatchKind, PatchTtl),
}

/// The conditions of a request.
#[derive(Debug, Default)]
struct Asked {
    version: Option<VersionCondition>,
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

impl Asked {
    fn new(headers: &HeaderMap, version: Option<VersionCondition>) -> Result<Self, Fault> {
        // What cannot be read matches nothing, so If-Match fails. If-None-Match would hold, and a write meant to be
        // conditional would be none.
        let if_match = etag::parse(headers, IF_MATCH, Comparison::Strong)
            .unwrap_or(Some(Tags::List(Vec::new())));
        let if_none_match =
            etag::parse(headers, IF_NONE_MATCH, Comparison::Weak).map_err(|_| Fault::Header {
                name: "If-None-Match",
                reason: "is neither * nor a list of entity tags",
            })?;
        Ok(Self {
            version,
            if_match,
            if_none_match,
        })
    }

    fn conditions(&self) -> Conditions<'_> {
        Conditions {
            version: self.version,
            if_match: self.if_match.as_ref().map(Tags::condition),
            if_none_match: self.if_none_match.as_ref().map(Tags::condition),
        }
    }
}

/// `/v1/kv/{key}`
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
    let known = match method {
        Method::PUT => PUT_PARAMETERS,
        Method::PATCH => PATCH_PARAMETERS,
        Method::DELETE => DELETE_PARAMETERS,
        _ => &[],
    };
    let parameters = query::parse(uri.query(), known, Unknown::Refuse)?;
    let key = Key::in_path(uri, start, &state.key_limits)?;
    if method == Method::GET || method == Method::HEAD {
        return get(state, &key, headers);
    }
    let asked = Asked::new(&headers, parameters.if_version)?;
    if method == Method::DELETE {
        let durability = parameters.durability;
        return Ok(when_admitted(state, Surface::V1, 0, move |state| {
            delete(state, &key, &asked, durability)
        }));
    }
    let what = if method == Method::PUT {
        What::Put(media::value(&headers)?, put_ttl(&parameters)?)
    } else {
        What::Patch(patch_kind(media::patch(&headers)?), patch_ttl(&parameters))
    };
    media::refuse_coded(&headers)?;
    refuse_early(state)?;
    let limits = UploadLimits {
        what: "value",
        bytes_max: state.settings.value_bytes_max,
        timeout: state.settings.body_timeout,
    };
    let upload = Upload::new(body, &headers, limits)?;
    let returning = prefers_representation(&headers);
    let store = Store {
        key,
        asked,
        what,
        durability: parameters.durability,
        returning,
        pin: parameters.pin,
        headers,
    };
    Ok(Answer::Upload(upload, Some(Then::V1(store))))
}

fn put_ttl(parameters: &Parameters) -> Result<PutTtl, Fault> {
    match (parameters.ttl, parameters.keep_ttl) {
        (Some(_), true) => Err(Fault::Parameter {
            name: "keepTtl",
            reason: "and `ttl` cannot both be asked for".into(),
        }),
        (None, true) => Ok(PutTtl::Keep),
        (Some(Ttl::For(ms)), false) => Ok(PutTtl::For(ms)),
        (Some(Ttl::Clear) | None, false) => Ok(PutTtl::Clear),
    }
}

fn patch_ttl(parameters: &Parameters) -> PatchTtl {
    match parameters.ttl {
        None => PatchTtl::Keep,
        Some(Ttl::Clear) => PatchTtl::Clear,
        Some(Ttl::For(ms)) => PatchTtl::For(ms),
    }
}

fn patch_kind(patch: PatchType) -> PatchKind {
    match patch {
        PatchType::Merge => PatchKind::Merge,
        PatchType::Json => PatchKind::Json,
    }
}

/// `Prefer: return=representation` (RFC 7240), among whatever else is preferred.
fn prefers_representation(headers: &HeaderMap) -> bool {
    headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|preference| {
            let preference = preference.split(';').next().unwrap_or_default();
            preference.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("return")
                    && value.trim().trim_matches('"') == "representation"
            })
        })
}

fn get(state: &Rc<LoopState>, key: &Key, headers: HeaderMap) -> Result<Answer, Fault> {
    let reply = if state.lane.compresses() && media::accepts_zstd(&headers) {
        state.lane.get_zstd(key.as_str())
    } else {
        state.lane.get(key.as_str())
    };
    let reply = reply.map_err(read_fault)?;
    let response = match reply.value {
        None => failure(&Fault::NotFound),
        Some(document) => show(state, &document, headers),
    };
    Ok(Answer::hold(
        state,
        Surface::V1,
        reply.wait_for,
        Applied::Read,
        response,
    ))
}

/// A value that is there, as far as the request's conditions let it be seen.
fn show(state: &LoopState, document: &Document, headers: HeaderMap) -> Response<Body> {
    let current = document.sequence;
    let if_match =
        etag::parse(&headers, IF_MATCH, Comparison::Strong).unwrap_or(Some(Tags::List(Vec::new())));
    if if_match.is_some_and(|tags| !tags.matches(current)) {
        let current = crate::engine::Current {
            version: document.version,
            sequence: current,
        };
        return failure(&Fault::Condition {
            failed: FailedCondition::Match,
            current: Some(current),
        });
    }
    // A condition that cannot be read is none: the value is sent.
    let if_none_match = etag::parse(&headers, IF_NONE_MATCH, Comparison::Weak).unwrap_or(None);
    let unchanged = if_none_match.is_some_and(|tags| tags.matches(current));
    let algorithm = digest::wanted(&headers);
    // What the client has stays valid under the tag by which it knows it.
    let zstd = if unchanged {
        etag::names_zstd(&headers, current)
    } else {
        document.zstd.is_some()
    };
    let mut headers = recycle(headers);
    identify(&mut headers, document.version, document.sequence);
    if zstd && let Ok(tag) = HeaderValue::from_str(&etag::zstd_text(current)) {
        headers.insert(ETAG, tag);
    }
    if state.lane.compresses() {
        headers.insert(VARY, const { HeaderValue::from_static("accept-encoding") });
    }
    if unchanged {
        return respond(StatusCode::NOT_MODIFIED, headers, Body::Empty);
    }
    represent(state, document, algorithm, headers, StatusCode::OK)
}

/// The value itself with everything that describes it.
fn represent(
    state: &LoopState,
    document: &Document,
    algorithm: Option<Algorithm>,
    mut headers: HeaderMap,
    status: StatusCode,
) -> Response<Body> {
    let media_type = match &document.media_type {
        None => JSON,
        // It came in a header field, and goes out as one.
        Some(media_type) => HeaderValue::from_str(media_type)
            .unwrap_or(const { HeaderValue::from_static("application/octet-stream") }),
    };
    headers.insert(CONTENT_TYPE, media_type);
    if document.expires_at.is_some()
        && let Some(ms) = document.ttl_ms(state.lane.now())
    {
        headers.insert(TTL_MS, HeaderValue::from(ms));
    }
    let content = match &document.zstd {
        Some(frame) => {
            headers.insert(CONTENT_ENCODING, const { HeaderValue::from_static("zstd") });
            frame
        }
        None => &document.value,
    };
    if let Some(algorithm) = algorithm {
        // Of the content as it is sent (RFC 9530, section 2).
        headers.insert(digest::CONTENT_DIGEST, digest::field(algorithm, content));
    }
    respond(status, headers, Body::Full(content.clone()))
}

/// `ETag` and `Version`.
fn identify(headers: &mut HeaderMap, version: u64, sequence: crate::engine::Sequence) {
    headers.insert(ETAG, etag::header(sequence));
    let version = match usize::try_from(version) {
        // Most versions are small, and a part of a constant needs no allocation.
        Ok(digit @ 0..=9) => HeaderValue::from_static(&"0123456789"[digit..=digit]),
        _ => HeaderValue::from(version),
    };
    headers.insert(VERSION, version);
}

fn delete(state: &Rc<LoopState>, key: &Key, asked: &Asked, durability: Durability) -> Answer {
    let write = Write {
        key: key.as_str(),
        conditions: asked.conditions(),
        change: Change::Delete,
        durability,
        returning: false,
        pin: None,
    };
    answer(state, write, |outcome| match outcome {
        Outcome::Deleted(_) => Ok(respond(
            StatusCode::NO_CONTENT,
            HeaderMap::new(),
            Body::Empty,
        )),
        other => Err(other),
    })
}

impl Store {
    /// The body is there, or never will be.
    pub(crate) fn with_body(self, state: &Rc<LoopState>, body: Result<Bytes, Fault>) -> Answer {
        match body.and_then(|body| self.change(state, &body)) {
            Ok(change) => when_admitted(state, Surface::V1, change.len(), move |state| {
                self.store(state, change)
            }),
            Err(fault) => Answer::now(failure(&fault)),
        }
    }

    fn change(&self, state: &LoopState, body: &Bytes) -> Result<Change, Fault> {
        digest::check(&self.headers, body)?;
        let json = |body: &Bytes| {
            if body.is_empty() {
                return Err(Fault::EmptyBody);
            }
            value::minified(body, &state.json_limits).map_err(Fault::Json)
        };
        Ok(match &self.what {
            What::Put(Kind::Json, ttl) => Change::Put {
                value: value::json(&json(body)?),
                ttl: *ttl,
            },
            What::Put(Kind::Opaque(media_type), ttl) => Change::Put {
                value: value::opaque(body, media_type.clone()),
                ttl: *ttl,
            },
            What::Patch(kind, ttl) => Change::Patch {
                kind: *kind,
                patch: json(body)?,
                ttl: *ttl,
            },
        })
    }

    fn store(self, state: &Rc<LoopState>, change: Change) -> Answer {
        let Self {
            key,
            asked,
            durability,
            returning,
            pin,
            headers,
            ..
        } = self;
        let write = Write {
            key: key.as_str(),
            conditions: asked.conditions(),
            change,
            durability,
            returning,
            pin,
        };
        answer(state, write, |outcome| {
            let (status, stored) = match outcome {
                Outcome::Created(stored) => (StatusCode::CREATED, stored),
                Outcome::Changed(stored) | Outcome::Unchanged(stored) => (
                    if returning {
                        StatusCode::OK
                    } else {
                        StatusCode::NO_CONTENT
                    },
                    stored,
                ),
                other => return Err(other),
            };
            let algorithm = if returning {
                digest::wanted(&headers)
            } else {
                None
            };
            Ok(stored_response(
                state,
                status,
                &stored,
                returning,
                algorithm,
                recycle(headers),
            ))
        })
    }
}

fn stored_response(
    state: &LoopState,
    status: StatusCode,
    stored: &Stored,
    returning: bool,
    algorithm: Option<Algorithm>,
    mut headers: HeaderMap,
) -> Response<Body> {
    identify(&mut headers, stored.version, stored.sequence);
    match &stored.document {
        Some(document) if returning => {
            headers.insert(PREFERENCE_APPLIED, REPRESENTATION);
            represent(state, document, algorithm, headers, status)
        }
        _ => respond(status, headers, Body::Empty),
    }
}

/// Has the store decide, and renders what came of it: `done` the outcomes it hopes for, this function the others.
fn answer(
    state: &Rc<LoopState>,
    write: Write<'_>,
    done: impl FnOnce(Outcome) -> Result<Response<Body>, Outcome>,
) -> Answer {
    match state.lane.write(write) {
        Ok(reply) => {
            let response = done(reply.value).unwrap_or_else(|outcome| failure(&fault_of(outcome)));
            Answer::hold(state, Surface::V1, reply.wait_for, Applied::Write, response)
        }
        Err(error) => Answer::now(failure(&fault_of_error(error))),
    }
}

/// The status of a batch operation that went well.
pub(crate) fn batch_status(outcome: &Outcome) -> StatusCode {
    match outcome {
        Outcome::Created(_) => StatusCode::CREATED,
        _ => StatusCode::NO_CONTENT,
    }
}
