//! One server following another: the log as a stream, and who of the two takes writes.

use super::admin::shown;
use super::answer::{Answer, fail, respond};
use super::body::{Body, Cut, Source};
use super::context::Context as LoopState;
use super::fault::Fault;
use super::query::{self, Unknown};
use super::traffic::Surface;
use crate::engine::{CheckpointError, Engine, RoleError, Tail, TailError, TailStep, TakeOver};
use crate::runtime::Shutdown;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use serde_json::json;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// The media type of a stream of records.
const MEDIA_TYPE: &str = "application/vnd.inflightkv.log";
/// Pieces that wait for a client; one is a frame of the log, seldom more than 1 MiB.
const PIECES_WAITING: usize = 4;
/// How often a stream with nothing to say says so.
const MARK_EVERY: Duration = Duration::from_secs(1);
/// Small frames share a piece up to this.
const PIECE_BYTES: usize = 64 << 10;
/// Streams at a time: each has a thread and an open file.
const STREAMS_MAX: usize = 16;

static STREAMS: AtomicUsize = AtomicUsize::new(0);

/// One of the streams that there may be.
struct Seat;

impl Seat {
    fn take() -> Option<Seat> {
        STREAMS
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |streams| {
                (streams < STREAMS_MAX).then_some(streams + 1)
            })
            .ok()
            .map(|_| Seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        STREAMS.fetch_sub(1, Ordering::SeqCst);
    }
}

type Piece = Result<Bytes, Cut>;

/// `GET /v1/admin/wal`. Files are read on a thread of the stream's own; a slow client holds a few pieces, and no one up.
pub(crate) fn wal(state: &Rc<LoopState>, parts: &Parts) -> Result<Answer, Fault> {
    let parameters = query::parse(parts.uri.query(), &["from"], Unknown::Refuse)?;
    let from = parameters.from.unwrap_or(0);
    let seat = Seat::take().ok_or(Fault::TooManyStreams { max: STREAMS_MAX })?;
    let engine = state.lane.engine();
    let (opened, open) = oneshot::channel();
    let (sender, receiver) = mpsc::channel(PIECES_WAITING);
    std::thread::Builder::new()
        .name("log-stream".to_owned())
        .spawn(move || {
            let _seat = seat;
            match engine.tail_log(from) {
                Ok(Some(tail)) => {
                    // The client may have left meanwhile.
                    let _ = opened.send(Ok(()));
                    send(tail, &sender);
                }
                Ok(None) => {
                    let _ = opened.send(Err(Fault::Snapshot(CheckpointError::PersistenceOff)));
                }
                Err(error) => {
                    let _ = opened.send(Err(fault_of(error)));
                }
            }
        })
        .map_err(|error| Fault::Internal {
            reason: format!("no thread to read the log with: {error}"),
        })?;
    let shutdown = state.shutdown.clone();
    Ok(Answer::later(async move {
        let unexpected = || Fault::Internal {
            reason: "reading the log did not end well".to_owned(),
        };
        match open.await.unwrap_or_else(|_| Err(unexpected())) {
            Ok(()) => {
                let mut headers = HeaderMap::new();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
                let stream = LogStream::new(receiver, shutdown);
                respond(StatusCode::OK, headers, Body::Stream(Box::new(stream)))
            }
            Err(fault) => fail(Surface::V1, &fault),
        }
    }))
}

fn fault_of(error: TailError) -> Fault {
    match error {
        TailError::TooOld { oldest } => Fault::LogGone {
            oldest: oldest.get(),
        },
        other => Fault::Internal {
            reason: other.to_string(),
        },
    }
}

/// Reads the log and hands it on, until nobody wants it any more.
fn send(mut tail: Tail, to: &mpsc::Sender<Piece>) {
    let mut piece = tail.header();
    let mut marked: Option<Instant> = None;
    loop {
        if marked.is_none_or(|at| at.elapsed() >= MARK_EVERY) {
            tail.mark(&mut piece);
            marked = Some(Instant::now());
        }
        // A client that left is noticed when the next mark is sent.
        let wait = if piece.is_empty() {
            MARK_EVERY
        } else {
            Duration::ZERO
        };
        let step = tail.next(&mut piece, wait);
        let more = matches!(step, Ok(TailStep::Records)) && piece.len() < PIECE_BYTES;
        if !more && !piece.is_empty() {
            let piece = std::mem::take(&mut piece);
            if to.blocking_send(Ok(piece.into())).is_err() {
                return;
            }
        }
        match step {
            Ok(TailStep::Records | TailStep::Idle) => {}
            Ok(TailStep::Ended) => return,
            Err(error) => {
                let _ = to.blocking_send(Err(Cut(error.to_string())));
                return;
            }
        }
    }
}

/// What the thread reads, as it comes. Ends when the server does.
struct LogStream {
    pieces: mpsc::Receiver<Piece>,
    ending: Pin<Box<dyn Future<Output = ()>>>,
}

impl LogStream {
    fn new(pieces: mpsc::Receiver<Piece>, shutdown: Shutdown) -> Self {
        Self {
            pieces,
            ending: Box::pin(async move { shutdown.requested().await }),
        }
    }
}

impl fmt::Debug for LogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStream").finish_non_exhaustive()
    }
}

impl Source for LogStream {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        match self.pieces.poll_recv(context) {
            Poll::Ready(piece) => Poll::Ready(piece),
            Poll::Pending => self.ending.as_mut().poll(context).map(|()| None),
        }
    }
}

/// `POST /v1/admin/demote`
pub(crate) fn demote(state: &Rc<LoopState>, parts: &Parts) -> Result<Answer, Fault> {
    query::parse(parts.uri.query(), &[], Unknown::Refuse)?;
    let engine = state.lane.engine();
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("hand-over".to_owned())
        .spawn(move || {
            // The client may have left meanwhile.
            let _ = sender.send(engine.hand_over());
        })
        .map_err(|error| Fault::Internal {
            reason: format!("no thread to sync the log with: {error}"),
        })?;
    Ok(Answer::later(async move {
        match receiver.await {
            Ok(Ok(last)) => shown(StatusCode::OK, &json!({ "lastSequence": last.get() })),
            Ok(Err(error)) => fail(Surface::V1, &Fault::Role(error)),
            Err(_) => fail(
                Surface::V1,
                &Fault::Internal {
                    reason: "handing over did not end well".to_owned(),
                },
            ),
        }
    }))
}

/// `POST /v1/admin/promote`
pub(crate) fn promote(state: &Rc<LoopState>, parts: &Parts) -> Result<Answer, Fault> {
    let parameters = query::parse(parts.uri.query(), &["force"], Unknown::Refuse)?;
    let how = if parameters.force {
        TakeOver::Now
    } else {
        TakeOver::InOrder
    };
    let engine: Arc<Engine> = Arc::new(state.lane.engine());
    engine.request_take_over(how).map_err(Fault::Role)?;
    let shutdown = state.shutdown.clone();
    Ok(Answer::later(async move {
        let outcome = poll_fn(|context| {
            engine.on_take_over(context.waker().clone());
            match engine.take_over_outcome() {
                Some(outcome) => Poll::Ready(outcome),
                None => Poll::Pending,
            }
        });
        tokio::select! {
            outcome = outcome => match outcome {
                Ok(sequence) => shown(StatusCode::OK, &json!({ "sequence": sequence.get() })),
                Err(error) => fail(Surface::V1, &Fault::Role(error)),
            },
            () = shutdown.requested() => fail(
                Surface::V1,
                &Fault::Role(RoleError::NotNow("this server is stopping")),
            ),
        }
    }))
}
