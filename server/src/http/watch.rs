//! `GET /v1/watch`: changes as server-sent events.
//!
//! Each watch has a thread that reads the changes ([`engine::Watch`](crate::engine::Watch)), and hands a few pieces at a
//! time to its connection. A client that takes none holds those pieces, and nobody up.

use super::answer::{Answer, fail, respond};
use super::body::{Body, Cut, Source};
use super::context::Context as LoopState;
use super::etag;
use super::fault::Fault;
use super::guard::Caller;
use super::json::{push_number, push_string};
use super::keys::push_value;
use super::query::{self, Unknown};
use super::traffic::{Surface, Traffic};
use crate::engine::{Record, Sequence, Shown, Watch, WatchError, WatchStep};
use crate::runtime::Shutdown;
use crate::trust::{Access, Identity, Scope};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use inflightkv_wal::{Cause, Op};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

const PARAMETERS: &[&str] = &["prefix", "from", "values"];
/// Pieces that wait for a client.
const PIECES_WAITING: usize = 4;
/// Small events share a piece up to this.
const PIECE_BYTES: usize = 32 << 10;
/// Watches at a time: each has a thread, and may have an open file.
const WATCHES_MAX: usize = 64;
/// How often a watch looks whether its client is still there and still allowed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a watch with nothing to tell says where it is.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// Changes are gathered for so long after some were sent: a busy store does not wake its watchers for each.
const GATHER: Duration = Duration::from_millis(1);
/// A client that left while a piece waited so long for it was too slow.
const STALLED: Duration = Duration::from_secs(1);

/// What is counted about watches, over all event loops.
#[derive(Debug, Default)]
pub(crate) struct Watching {
    open: AtomicUsize,
    changes: AtomicU64,
    gaps: AtomicU64,
    dropped: [AtomicU64; 2],
}

/// Why a watch was ended though its client wanted more.
#[derive(Clone, Copy, Debug)]
enum Slow {
    /// What came next for it is kept no longer.
    Behind,
    /// It took nothing at all.
    Stalled,
}

/// [`Watching`] at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WatchFigures {
    pub(crate) open: usize,
    pub(crate) changes: u64,
    pub(crate) gaps: u64,
    /// By reason.
    pub(crate) dropped: [(&'static str, u64); 2],
}

impl Watching {
    pub(crate) fn figures(&self) -> WatchFigures {
        let dropped = |why: Slow| self.dropped[why as usize].load(Ordering::Relaxed);
        WatchFigures {
            open: self.open.load(Ordering::Relaxed),
            changes: self.changes.load(Ordering::Relaxed),
            gaps: self.gaps.load(Ordering::Relaxed),
            dropped: [
                ("behind", dropped(Slow::Behind)),
                ("stalled", dropped(Slow::Stalled)),
            ],
        }
    }
}

/// One of the watches that there may be.
struct Seat(Arc<Traffic>);

impl Seat {
    fn take(traffic: &Arc<Traffic>) -> Result<Seat, Fault> {
        traffic
            .watching
            .open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| {
                (open < WATCHES_MAX).then_some(open + 1)
            })
            .map(|_| Seat(traffic.clone()))
            .map_err(|_| Fault::TooManyWatches { max: WATCHES_MAX })
    }

    fn counters(&self) -> &Watching {
        &self.0.watching
    }

    fn drop_slow(&self, why: Slow, next: u64) {
        self.counters().dropped[why as usize].fetch_add(1, Ordering::Relaxed);
        let reason = match why {
            Slow::Behind => "what came next for it is kept no longer",
            Slow::Stalled => "it took nothing of what was sent",
        };
        tracing::warn!(next, reason, "a watcher was too slow and was dropped");
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.counters().open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// `/v1/watch`
pub(crate) fn get(state: &Rc<LoopState>, parts: &Parts, caller: &Caller) -> Result<Answer, Fault> {
    let parameters = query::parse(parts.uri.query(), PARAMETERS, Unknown::Refuse)?;
    // A browser that reconnects asks for the same target again, and says in a field how far it has come.
    let from = match last_event_id(&parts.headers)? {
        Some(seen) => Some(seen.saturating_add(1)),
        None => parameters.from,
    };
    let seat = Seat::take(&state.settings.traffic)?;
    let engine = state.lane.engine();
    let (opened, open) = oneshot::channel();
    let (sender, receiver) = mpsc::channel(PIECES_WAITING);
    let telling = Telling {
        prefix: parameters.prefix.unwrap_or_default(),
        values: parameters.values,
        scope: caller.scope(),
        identity: caller.identity(),
        access: state.settings.access.clone(),
        seat,
        piece: Vec::new(),
        to: sender,
    };
    let lane = state.lane.clone();
    thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || match engine.watch(from) {
            Ok(watch) => {
                // The client may have left meanwhile.
                let _ = opened.send(Ok(()));
                telling.run(watch, &|| lane.now());
            }
            Err(error) => {
                let _ = opened.send(Err(fault_of(error)));
            }
        })
        .map_err(|error| Fault::Internal {
            reason: format!("no thread to watch with: {error}"),
        })?;
    let shutdown = state.shutdown.clone();
    Ok(Answer::later(async move {
        let unexpected = || Fault::Internal {
            reason: "finding the place to watch from did not end well".to_owned(),
        };
        match open.await.unwrap_or_else(|_| Err(unexpected())) {
            Ok(()) => {
                let mut headers = HeaderMap::new();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                let stream = EventStream::new(receiver, shutdown);
                respond(StatusCode::OK, headers, Body::Stream(Box::new(stream)))
            }
            Err(fault) => fail(Surface::V1, &fault),
        }
    }))
}

fn fault_of(error: WatchError) -> Fault {
    match error {
        WatchError::Ahead { from, last } => Fault::WatchAhead { from, last },
        other => Fault::Internal {
            reason: other.to_string(),
        },
    }
}

/// The sequence in `Last-Event-ID`, if there is one.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or("?");
    if text.is_empty() {
        // What a browser sends that has seen no event.
        return Ok(None);
    }
    match text.parse() {
        Ok(seen) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Some(seen)),
        _ => Err(Fault::Header {
            name: "Last-Event-ID",
            reason: "must be the number of an event of this stream",
        }),
    }
}

/// What one watch tells, and to whom.
struct Telling {
    prefix: String,
    values: bool,
    /// The keys that may be told of; `None`: all.
    scope: Option<Scope>,
    identity: Option<Arc<Identity>>,
    access: Arc<Access>,
    seat: Seat,
    piece: Vec<u8>,
    to: mpsc::Sender<Bytes>,
}

/// The client is gone.
struct Left;

impl Telling {
    fn run(mut self, mut watch: Watch, now: &dyn Fn() -> u64) {
        // Whatever ends it, the client has left or has been told.
        let _ = self.tell_all(&mut watch, now);
    }

    fn tell_all(&mut self, watch: &mut Watch, now: &dyn Fn() -> u64) -> Result<(), Left> {
        if let Some(gap) = watch.gap() {
            self.seat.counters().gaps.fetch_add(1, Ordering::Relaxed);
            push_gap(&mut self.piece, gap.start, gap.end);
        }
        push_place(&mut self.piece, watch.position());
        self.send(watch.position())?;
        let mut said = Instant::now();
        let mut looked = Instant::now();
        loop {
            let wait = match self.piece.is_empty() {
                true => LOOK_EVERY,
                false => Duration::ZERO,
            };
            let step = self.step(watch, wait);
            let more = matches!(step, Ok(WatchStep::Changes)) && self.piece.len() < PIECE_BYTES;
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                if self.to.is_closed() {
                    return Err(Left);
                }
                if let Some(identity) = &self.identity
                    && !self.access.still_knows(identity, now())
                {
                    push_end(
                        &mut self.piece,
                        "unauthorized",
                        "the token is no longer valid",
                        watch.position(),
                    );
                    return self.send(watch.position());
                }
            }
            if self.piece.is_empty() && said.elapsed() >= SAY_EVERY {
                push_place(&mut self.piece, watch.position());
            }
            if !more && !self.piece.is_empty() {
                self.send(watch.position())?;
                said = Instant::now();
                thread::sleep(GATHER);
            }
            if let Err(error) = step {
                let reason = match &error {
                    WatchError::Behind { next } => {
                        self.seat.drop_slow(Slow::Behind, *next);
                        "behind"
                    }
                    WatchError::Over(_) => "over",
                    _ => "unreadable",
                };
                push_end(
                    &mut self.piece,
                    reason,
                    &error.to_string(),
                    watch.position(),
                );
                return self.send(watch.position());
            }
        }
    }

    /// Adds the events of the next changes to the piece.
    fn step(&mut self, watch: &mut Watch, wait: Duration) -> Result<WatchStep, WatchError> {
        let (mut told, mut gaps) = (0, 0);
        let step = watch.next(wait, |shown| {
            let record = match shown {
                Shown::Change(record) => record,
                Shown::Gap(gap) => {
                    push_gap(&mut self.piece, gap.start, gap.end);
                    gaps += 1;
                    return;
                }
            };
            let is_meant = record.key.starts_with(&self.prefix)
                && self
                    .scope
                    .as_ref()
                    .is_none_or(|scope| scope.covers(record.key));
            if is_meant {
                push_change(&mut self.piece, record, self.values);
                told += 1;
            }
        });
        let counters = self.seat.counters();
        counters.changes.fetch_add(told, Ordering::Relaxed);
        counters.gaps.fetch_add(gaps, Ordering::Relaxed);
        step
    }

    /// Hands the piece over, as soon as the client has taken earlier ones.
    fn send(&mut self, next: u64) -> Result<(), Left> {
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        let begun = Instant::now();
        self.to.blocking_send(piece).map_err(|_| {
            if begun.elapsed() >= STALLED {
                self.seat.drop_slow(Slow::Stalled, next);
            }
            Left
        })
    }
}

/// A change as an event.
fn push_change(out: &mut Vec<u8>, record: &Record<'_>, values: bool) {
    let sequence = record.lsn.get();
    out.extend_from_slice(b"id: ");
    push_number(out, sequence);
    out.extend_from_slice(match record.op {
        Op::Put => b"\nevent: put\ndata: {\"key\":".as_slice(),
        Op::Delete => b"\nevent: delete\ndata: {\"key\":",
    });
    push_string(out, record.key.as_bytes());
    out.extend_from_slice(br#","sequence":"#);
    push_number(out, sequence);
    out.extend_from_slice(br#","version":"#);
    push_number(out, record.version);
    match record.op {
        Op::Put => {
            out.extend_from_slice(br#","etag":"#);
            etag::push_json(out, Sequence::from_raw(sequence));
            if let Some(expires_at) = record.expires_at {
                out.extend_from_slice(br#","expiresAtMs":"#);
                push_number(out, expires_at);
            }
            if values {
                push_value(out, record.media_type, record.value);
            }
        }
        Op::Delete => out.extend_from_slice(match record.cause {
            Cause::Client => br#","cause":"client""#.as_slice(),
            Cause::Evicted => br#","cause":"evicted""#,
        }),
    }
    out.extend_from_slice(b"}\n\n");
}

/// Where the watch is. An event without data is none, but a browser remembers its number to go on from.
fn push_place(out: &mut Vec<u8>, next: u64) {
    out.extend_from_slice(b"id: ");
    push_number(out, next.saturating_sub(1));
    out.extend_from_slice(b"\n\n");
}

/// Changes that were asked for and are kept no longer.
fn push_gap(out: &mut Vec<u8>, from: u64, next: u64) {
    out.extend_from_slice(b"event: gap\ndata: {\"from\":");
    push_number(out, from);
    out.extend_from_slice(br#","next":"#);
    push_number(out, next);
    out.extend_from_slice(b"}\n\n");
}

/// Nothing more comes, and why.
fn push_end(out: &mut Vec<u8>, reason: &str, detail: &str, next: u64) {
    out.extend_from_slice(b"event: end\ndata: {\"reason\":");
    push_string(out, reason.as_bytes());
    out.extend_from_slice(br#","detail":"#);
    push_string(out, detail.as_bytes());
    out.extend_from_slice(br#","next":"#);
    push_number(out, next);
    out.extend_from_slice(b"}\n\n");
}

/// What the thread tells, as it comes. Ends when the server does.
struct EventStream {
    pieces: mpsc::Receiver<Bytes>,
    ending: Pin<Box<dyn Future<Output = ()>>>,
}

impl EventStream {
    fn new(pieces: mpsc::Receiver<Bytes>, shutdown: Shutdown) -> Self {
        Self {
            pieces,
            ending: Box::pin(async move { shutdown.requested().await }),
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

impl Source for EventStream {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        match self.pieces.poll_recv(context) {
            Poll::Ready(piece) => Poll::Ready(piece.map(Ok)),
            Poll::Pending => self.ending.as_mut().poll(context).map(|()| None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inflightkv_wal::Lsn;

    fn record(op: Op) -> Record<'static> {
        Record {
            lsn: Lsn::new(10),
            version: 3,
            expires_at: Some(99),
            written_at_ms: 0,
            pinned: false,
            value_crc: 0,
            op,
            cause: Cause::Evicted,
            media_type: None,
            key: "a\n\"b",
            value: b"{\"x\":\"\\n\"}",
        }
    }

    fn spelt(op: Op, values: bool) -> String {
        let mut out = Vec::new();
        push_change(&mut out, &record(op), values);
        String::from_utf8(out).expect("text")
    }

    /// No key and no value can end a line, and so an event.
    #[test]
    fn an_event_is_three_lines_whatever_is_in_it() {
        assert_eq!(
            spelt(Op::Put, true),
            "id: 10\nevent: put\ndata: {\"key\":\"a\\n\\\"b\",\"sequence\":10,\"version\":3,\
             \"etag\":\"\\\"a\\\"\",\"expiresAtMs\":99,\"value\":{\"x\":\"\\n\"}}\n\n"
        );
        assert_eq!(
            spelt(Op::Delete, true),
            "id: 10\nevent: delete\ndata: {\"key\":\"a\\n\\\"b\",\"sequence\":10,\"version\":3,\
             \"cause\":\"evicted\"}\n\n"
        );
        assert!(!spelt(Op::Put, false).contains("value"));
    }

    #[test]
    fn the_last_event_is_a_number_or_a_mistake() {
        for (text, expected) in [
            ("17", Some(Some(17))),
            ("", Some(None)),
            ("+1", None),
            ("x", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("last-event-id", HeaderValue::from_static(text));
            assert_eq!(last_event_id(&headers).ok(), expected, "{text}");
        }
        assert_eq!(last_event_id(&HeaderMap::new()).ok(), Some(None));
    }
}
