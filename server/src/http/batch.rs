//! `/v1/batch`: many operations in one request, none applied if one is malformed.

use super::answer::{
    Answer, Applied, Then, fault_of, fault_of_error, recycle, refuse_early, respond, when_admitted,
};
use super::body::{Body, Cut, Source, Upload, UploadLimits};
use super::context::Context as LoopState;
use super::digest;
use super::etag;
use super::fault::Fault;
use super::guard::Caller;
use super::json::push_number;
use super::keys::push_value;
use super::media::{self, BatchType};
use super::operations;
use super::query::{self, Unknown};
use super::traffic::Surface;
use super::v1::{self, failure};
use crate::engine::{BatchOperation, BatchResult, Document, Durability, Outcome};
use crate::trust::Role;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use hyper::body::Incoming;
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll};

const PARAMETERS: &[&str] = &["durability"];
/// Results up to this many bytes are sent with their length; longer ones are made while they are sent.
const PIECE_BYTES: usize = 64 * 1024;

/// A batch whose body is on its way.
#[derive(Debug)]
pub(crate) struct Pending {
    written: BatchType,
    durability: Durability,
    headers: HeaderMap,
    caller: Caller,
}

/// `POST /v1/batch`
pub(crate) fn post(
    state: &Rc<LoopState>,
    parts: Parts,
    body: Incoming,
    caller: Caller,
) -> Result<Answer, Fault> {
    let parameters = query::parse(parts.uri.query(), PARAMETERS, Unknown::Refuse)?;
    let headers = parts.headers;
    let written = media::batch(&headers)?;
    media::refuse_coded(&headers)?;
    let limits = UploadLimits {
        what: "batch",
        bytes_max: state.settings.batch_bytes_max,
        timeout: state.settings.body_timeout,
    };
    let upload = Upload::new(body, &headers, limits)?;
    let pending = Pending {
        written,
        durability: parameters.durability,
        headers,
        caller,
    };
    Ok(Answer::Upload(upload, Some(Then::Batch(pending))))
}

impl Pending {
    /// The body is there, or never will be.
    pub(crate) fn with_body(self, state: &Rc<LoopState>, body: Result<Bytes, Fault>) -> Answer {
        let operations = body.and_then(|body| {
            digest::check(&self.headers, &body)?;
            match self.written {
                BatchType::Json => operations::from_document(&body, state),
                BatchType::Lines => operations::from_lines(&body, state),
            }
        });
        let operations = operations.and_then(|operations| {
            // One that may not be done refuses them all, as one that is malformed does.
            for operation in &operations {
                let role = if operations::only_reads(operation) {
                    Role::Read
                } else {
                    Role::Write
                };
                self.caller.check(state, role, Some(&operation.key))?;
            }
            Ok(operations)
        });
        let operations = match operations {
            Ok(operations) => operations,
            Err(fault) => return Answer::now(failure(&fault)),
        };
        // Reads are served when writes are not.
        if operations.iter().all(operations::only_reads) {
            return self.run(state, operations, Applied::Read);
        }
        if let Err(fault) = refuse_early(state) {
            return Answer::now(failure(&fault));
        }
        let bytes = operations.iter().map(BatchOperation::len).sum();
        when_admitted(state, Surface::V1, bytes, move |state| {
            self.run(state, operations, Applied::Write)
        })
    }

    fn run(
        self,
        state: &Rc<LoopState>,
        operations: Vec<BatchOperation>,
        applied: Applied,
    ) -> Answer {
        let reply = match state.lane.batch(operations, self.durability) {
            Ok(reply) => reply,
            Err(error) => return Answer::now(failure(&fault_of_error(error))),
        };
        let lines = self.written == BatchType::Lines;
        let mut results = Results {
            results: reply.value.into_iter(),
            lines,
            now: state.lane.now(),
            begun: false,
            ended: false,
        };
        let mut headers = recycle(self.headers);
        let media_type = if lines {
            "application/x-ndjson"
        } else {
            "application/json"
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        let first = results.piece();
        let body = if results.ended {
            Body::Full(first.into())
        } else {
            Body::Stream(Box::new(Streamed {
                first: Some(first),
                results,
            }))
        };
        Answer::hold(
            state,
            Surface::V1,
            reply.wait_for,
            applied,
            respond(StatusCode::OK, headers, body),
        )
    }
}

/// Results on their way out. They refer to the values, and become text only as the client takes it.
struct Results {
    results: std::vec::IntoIter<BatchResult>,
    lines: bool,
    now: u64,
    begun: bool,
    ended: bool,
}

impl Results {
    fn piece(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.begun && !self.lines {
            out.extend_from_slice(br#"{"results":["#);
        }
        while out.len() < PIECE_BYTES {
            let Some(result) = self.results.next() else {
                self.ended = true;
                if !self.lines {
                    out.extend_from_slice(b"]}");
                }
                break;
            };
            if self.begun && !self.lines {
                out.push(b',');
            }
            self.begun = true;
            push_result(&mut out, result, self.now);
            if self.lines {
                out.push(b'\n');
            }
        }
        out
    }
}

struct Streamed {
    first: Option<Vec<u8>>,
    results: Results,
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed")
            .field("left", &self.results.results.len())
            .finish()
    }
}

impl Source for Streamed {
    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first.into())));
        }
        if self.results.ended {
            return Poll::Ready(None);
        }
        let piece = self.results.piece();
        // Lines may end exactly where a piece does.
        Poll::Ready((!piece.is_empty()).then(|| Ok(piece.into())))
    }
}

fn push_result(out: &mut Vec<u8>, result: BatchResult, now: u64) {
    match result {
        BatchResult::Got(Some(document)) => push_document(out, &document, now),
        BatchResult::Got(None) => push_fault(out, &Fault::NotFound),
        BatchResult::Failed(error) => push_fault(out, &fault_of_error(error)),
        BatchResult::Wrote(outcome) => {
            let status = v1::batch_status(&outcome);
            match outcome {
                Outcome::Created(stored)
                | Outcome::Changed(stored)
                | Outcome::Unchanged(stored) => {
                    push_head(out, status, stored.version, Some(stored.sequence));
                    push_ttl(out, stored.expires_at, now);
                    out.push(b'}');
                }
                Outcome::Deleted(stored) => {
                    push_head(out, status, stored.version, None);
                    out.push(b'}');
                }
                other => push_fault(out, &fault_of(other)),
            }
        }
    }
}

fn push_document(out: &mut Vec<u8>, document: &Document, now: u64) {
    push_head(
        out,
        StatusCode::OK,
        document.version,
        Some(document.sequence),
    );
    push_ttl(out, document.expires_at, now);
    push_value(out, document.media_type.as_deref(), &document.value);
    out.push(b'}');
}

fn push_head(
    out: &mut Vec<u8>,
    status: StatusCode,
    version: u64,
    sequence: Option<crate::engine::Sequence>,
) {
    out.extend_from_slice(br#"{"status":"#);
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(br#","version":"#);
    push_number(out, version);
    if let Some(sequence) = sequence {
        out.extend_from_slice(br#","etag":"#);
        etag::push_json(out, sequence);
    }
}

fn push_ttl(out: &mut Vec<u8>, expires_at: Option<u64>, now: u64) {
    if let Some(expires_at) = expires_at {
        out.extend_from_slice(br#","ttlMs":"#);
        push_number(out, expires_at.saturating_sub(now));
    }
}

fn push_fault(out: &mut Vec<u8>, fault: &Fault) {
    let problem = v1::problem(fault);
    out.extend_from_slice(br#"{"status":"#);
    out.extend_from_slice(problem.status.as_str().as_bytes());
    out.push(b',');
    problem.push_members(out);
    out.push(b'}');
}
