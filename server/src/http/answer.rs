//! An answer on its way: there at once, after the request's body, or after something else.

use super::batch;
use super::body::{Body, Upload};
use super::configuration;
use super::context::Context as LoopState;
use super::fault::Fault;
use super::kv;
use super::traffic::Surface;
use super::v1;
use crate::engine::{Outcome, ReadError, Refusal, Room, Sequence, WriteError};
use bytes::Bytes;
use http::{HeaderMap, Response};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// How long a write waits for eviction to make room.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);

/// An answer that may still have to wait. Most are there when they are first asked for.
pub(crate) enum Answer {
    Now(Option<Response<Body>>),
    /// The body first, then what is to be done with it.
    Upload(Upload, Option<Then>),
    Later(Pin<Box<dyn Future<Output = Response<Body>>>>),
}

/// What is to be done with a body.
#[derive(Debug)]
pub(crate) enum Then {
    Kv(kv::Store),
    V1(v1::Store),
    Batch(batch::Pending),
    Config(configuration::Change),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now(_) => "Now",
            Self::Upload(..) => "Upload",
            Self::Later(_) => "Later",
        })
    }
}

impl Answer {
    pub(crate) fn now(response: Response<Body>) -> Self {
        Self::Now(Some(response))
    }

    pub(crate) fn later(future: impl Future<Output = Response<Body>> + 'static) -> Self {
        Self::Later(Box::pin(future))
    }

    /// Holds `response` until what it says is durable, when it has to be.
    pub(crate) fn hold(
        state: &Rc<LoopState>,
        surface: Surface,
        wait_for: Option<Sequence>,
        applied: Applied,
        response: Response<Body>,
    ) -> Self {
        let Some(sequence) = wait_for else {
            return Self::now(response);
        };
        let durable = state.gate.durable(sequence);
        Self::later(async move {
            match durable.await {
                Ok(()) => response,
                Err(cause) => {
                    let fault = match applied {
                        Applied::Write => Fault::DurabilityFailed(cause),
                        Applied::Read => Fault::ReadNotDurable(cause),
                    };
                    fail(surface, &fault)
                }
            }
        })
    }

    /// Whether it is the client that is waited for.
    pub(crate) fn waits_for_body(&self) -> bool {
        matches!(self, Self::Upload(..))
    }

    pub(crate) fn poll(
        &mut self,
        state: &Rc<LoopState>,
        context: &mut Context<'_>,
    ) -> Poll<Response<Body>> {
        loop {
            match self {
                Self::Now(response) => {
                    return Poll::Ready(
                        response
                            .take()
                            .expect("an answer is asked for until it is given, and no longer"),
                    );
                }
                Self::Later(future) => return future.as_mut().poll(context),
                Self::Upload(upload, then) => {
                    let body = ready!(upload.poll(&state.lane, &state.settings, context));
                    let then = then.take().expect("a body is complete once");
                    *self = then.go_on(state, body);
                }
            }
        }
    }
}

/// Runs an answer to its end where there is no place to poll it from.
pub(crate) async fn finish(state: Rc<LoopState>, mut answer: Answer) -> Response<Body> {
    std::future::poll_fn(move |context| answer.poll(&state, context)).await
}

/// Whether an answer tells of a change of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    Read,
    Write,
}

impl Then {
    fn go_on(self, state: &Rc<LoopState>, body: Result<Bytes, Fault>) -> Answer {
        match self {
            Self::Kv(store) => store.with_body(state, body),
            Self::V1(store) => store.with_body(state, body),
            Self::Batch(pending) => pending.with_body(state, body),
            Self::Config(change) => change.with_body(state, body),
        }
    }
}

/// Does `write` of about `bytes` now if there is room in the log's hand-over buffers and in memory, or as soon as there is.
pub(crate) fn when_admitted(
    state: &Rc<LoopState>,
    surface: Surface,
    bytes: usize,
    write: impl FnOnce(&Rc<LoopState>) -> Answer + 'static,
) -> Answer {
    match state.lane.admit() {
        Ok(()) => match state.lane.make_room(bytes as u64) {
            Room::There | Room::Never => write(state),
            Room::Later => {
                let state = state.clone();
                Answer::later(async move {
                    room(&state, bytes).await;
                    let answer = write(&state);
                    finish(state, answer).await
                })
            }
        },
        Err(Refusal::Backlog) => {
            let state = state.clone();
            Answer::later(async move {
                match state.gate.room().await {
                    Ok(()) => {
                        let answer = write(&state);
                        finish(state, answer).await
                    }
                    Err(refusal) => fail(surface, &Fault::Refused(refusal)),
                }
            })
        }
        Err(refusal) => Answer::now(fail(surface, &Fault::Refused(refusal))),
    }
}

/// Waits until eviction has made room, or cannot, or takes too long: then the write says so itself.
async fn room(state: &Rc<LoopState>, bytes: usize) {
    let deadline = Instant::now() + ROOM_PATIENCE;
    while state.lane.make_room(bytes as u64) == Room::Later && Instant::now() < deadline {
        // Other requests, and the loop's own eviction, go on in between.
        tokio::task::yield_now().await;
    }
}

/// What refuses every write, found out before a body is read. A backlog may be over by the time it is there.
pub(crate) fn refuse_early(state: &LoopState) -> Result<(), Fault> {
    match state.lane.admit() {
        Ok(()) | Err(Refusal::Backlog) => Ok(()),
        Err(refusal) => Err(Fault::Refused(refusal)),
    }
}

/// An outcome that a write did not hope for.
pub(crate) fn fault_of(outcome: Outcome) -> Fault {
    match outcome {
        Outcome::Missing => Fault::NotFound,
        Outcome::Conflict { failed, current } => Fault::Condition { failed, current },
        Outcome::PatchFailed(error) => Fault::Patch(error),
        Outcome::Created(_) | Outcome::Changed(_) | Outcome::Unchanged(_) | Outcome::Deleted(_) => {
            Fault::Internal {
                reason: "the store answered another question than it was asked".to_owned(),
            }
        }
    }
}

/// A document that is not read.
pub(crate) fn read_fault(error: ReadError) -> Fault {
    match error {
        ReadError::NotServing(refused) => Fault::NotServing(refused.readiness),
        ReadError::Damaged => Fault::Damaged,
    }
}

/// A write that was not done.
pub(crate) fn fault_of_error(error: WriteError) -> Fault {
    match error {
        WriteError::Refused(refusal) => Fault::Refused(refusal),
        WriteError::NotDurable => Fault::PersistenceOff,
        WriteError::MemoryFull { limit } => Fault::MemoryFull { limit },
        WriteError::ValueTooLarge { max, .. } => Fault::TooLarge { what: "value", max },
        WriteError::Invalid { violation, index } => Fault::Invalid { violation, index },
        WriteError::Contended => Fault::Contended,
        WriteError::Damaged => Fault::Damaged,
        error @ WriteError::Draft(_) => Fault::Internal {
            reason: error.to_string(),
        },
    }
}

/// A failure as the surface renders it.
pub(crate) fn fail(surface: Surface, fault: &Fault) -> Response<Body> {
    match surface {
        Surface::Kv => kv::failure(fault),
        Surface::V1 | Surface::Other => v1::failure(fault),
    }
}

/// An answer built on the header map of its request: cleared, its memory serves again.
pub(crate) fn respond(
    status: http::StatusCode,
    headers: HeaderMap,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Empties a request's header map for its answer.
pub(crate) fn recycle(mut headers: HeaderMap) -> HeaderMap {
    headers.clear();
    headers
}
