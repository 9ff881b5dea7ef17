//! Scans as answers: a page of `/v1/keys`, and streams of lines that are made while the client reads them.

use super::answer::{Answer, fail, respond};
use super::body::{Body, Cut, Source};
use super::context::Context as LoopState;
use super::etag;
use super::fault::Fault;
use super::json::{push_number, push_string};
use super::media;
use super::query::{self, Unknown};
use super::traffic::Surface;
use crate::engine::{Cursor, Row, Scan, ScanError};
use crate::runtime::NotDurable;
use crate::trust::Scope;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

const PARAMETERS: &[&str] = &["prefix", "limit", "cursor", "values"];
const PAGE_KEYS: usize = 100;
/// Entries examined before the loop may do something else.
const SLICE_ENTRIES: usize = 256;
/// Slices without anything to show before the loop is let go on.
const SLICES_MAX: usize = 8;
/// A piece of a stream is sent once it has this many bytes.
const PIECE_BYTES: usize = 16 * 1024;

/// `/v1/keys`
pub(crate) fn page(
    state: &Rc<LoopState>,
    parts: &Parts,
    scope: Option<Scope>,
) -> Result<Answer, Fault> {
    let parameters = query::parse(parts.uri.query(), PARAMETERS, Unknown::Refuse)?;
    let cursor = match &parameters.cursor {
        Some(text) => Some(text.parse::<Cursor>().map_err(|_| Fault::Cursor)?),
        None => None,
    };
    let prefix = parameters.prefix.unwrap_or_default();
    let values = parameters.values;
    let now = state.lane.now();
    if media::accepts_lines(&parts.headers) {
        let stream = KeyStream::new(
            state.clone(),
            prefix,
            cursor,
            parameters.limit,
            scope,
            values,
            move |row, out| {
                push_row(out, row, values, now);
                out.push(b'\n');
            },
        );
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-ndjson"),
        );
        return Ok(Answer::now(respond(
            StatusCode::OK,
            headers,
            Body::Stream(Box::new(stream.start()?)),
        )));
    }
    let limit = parameters.limit.unwrap_or(PAGE_KEYS);
    let state = state.clone();
    Ok(Answer::later(async move {
        match collect(&state, &prefix, cursor, limit, values, scope.as_ref()).await {
            Ok(response) => response,
            Err(fault) => fail(Surface::V1, &fault),
        }
    }))
}

/// Scans until the page is full or the keys are at their end, with pauses for everybody else.
async fn collect(
    state: &LoopState,
    prefix: &str,
    mut from: Option<Cursor>,
    limit: usize,
    values: bool,
    scope: Option<&Scope>,
) -> Result<Response<Body>, Fault> {
    let now = state.lane.now();
    let mut out = br#"{"keys":["#.to_vec();
    let mut keys = 0;
    let mut damaged = None;
    let next = loop {
        let mut visit = |row: Row<'_>| {
            if scope.is_some_and(|scope| !scope.covers(row.key)) {
                return ControlFlow::Continue(());
            }
            if values && !row.is_sound() {
                damaged = Some(row.key.to_owned());
                return ControlFlow::Break(());
            }
            if keys > 0 {
                out.push(b',');
            }
            push_row(&mut out, &row, values, now);
            keys += 1;
            // A page of large values ends early, so that it fits into memory; there is always one on it.
            if keys == limit || out.len() >= state.settings.batch_bytes_max {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let scan = Scan {
            prefix,
            from,
            examine_max: SLICE_ENTRIES,
            values,
        };
        let next = state.lane.scan(&scan, &mut visit).map_err(scan_fault)?;
        if let Some(key) = damaged {
            state.lane.note_damaged_row(&key);
            return Err(Fault::Damaged);
        }
        if next.is_none() || keys == limit || out.len() >= state.settings.batch_bytes_max {
            break next;
        }
        from = next;
        tokio::task::yield_now().await;
    };
    if let Some(sequence) = state.lane.settled() {
        state
            .gate
            .durable(sequence)
            .await
            .map_err(Fault::ReadNotDurable)?;
    }
    out.extend_from_slice(br#"],"cursor":"#);
    match next {
        Some(cursor) => push_string(&mut out, cursor.to_string().as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(respond(StatusCode::OK, headers, out))
}

fn scan_fault(error: ScanError) -> Fault {
    match error {
        ScanError::NotServing(refused) => Fault::NotServing(refused.readiness),
        _ => Fault::Cursor,
    }
}

fn push_row(out: &mut Vec<u8>, row: &Row<'_>, values: bool, now: u64) {
    out.extend_from_slice(br#"{"key":"#);
    push_string(out, row.key.as_bytes());
    out.extend_from_slice(br#","version":"#);
    push_number(out, row.version);
    out.extend_from_slice(br#","etag":"#);
    etag::push_json(out, row.sequence);
    if let Some(expires_at) = row.expires_at {
        out.extend_from_slice(br#","ttlMs":"#);
        push_number(out, expires_at.saturating_sub(now));
    }
    if values {
        push_value(out, row.media_type, row.value);
    }
    out.push(b'}');
}

/// Appends the members that show a value inside a JSON document.
pub(crate) fn push_value(out: &mut Vec<u8>, media_type: Option<&str>, value: &[u8]) {
    match media_type {
        None => {
            out.extend_from_slice(br#","value":"#);
            out.extend_from_slice(value);
        }
        Some(media_type) => {
            out.extend_from_slice(br#","valueBase64":""#);
            out.extend_from_slice(STANDARD.encode(value).as_bytes());
            out.extend_from_slice(br#"","mediaType":"#);
            push_string(out, media_type.as_bytes());
        }
    }
}

type Durable = Pin<Box<dyn Future<Output = Result<(), NotDurable>>>>;

/// Every key from a place on, rendered by `render`, in pieces. A slow client holds one piece and no lock.
pub(crate) struct KeyStream<F> {
    state: Rc<LoopState>,
    prefix: String,
    from: Option<Cursor>,
    /// Rows that may still be sent.
    left: usize,
    ended: bool,
    /// The keys that may be shown; `None`: all.
    scope: Option<Scope>,
    /// Values are shown, so they have to be sound.
    values: bool,
    damaged: bool,
    render: F,
    piece: Vec<u8>,
    durable: Option<Durable>,
}

impl<F> fmt::Debug for KeyStream<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStream")
            .field("prefix", &self.prefix)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl<F: FnMut(&Row<'_>, &mut Vec<u8>)> KeyStream<F> {
    pub(crate) fn new(
        state: Rc<LoopState>,
        prefix: String,
        from: Option<Cursor>,
        limit: Option<usize>,
        scope: Option<Scope>,
        values: bool,
        render: F,
    ) -> Self {
        let left = limit.unwrap_or(usize::MAX);
        Self {
            state,
            prefix,
            from,
            left,
            ended: false,
            scope,
            values,
            damaged: false,
            render,
            piece: Vec::new(),
            durable: None,
        }
    }

    /// Looks at the first entries, so that what refuses the scan is known before its answer begins.
    pub(crate) fn start(mut self) -> Result<Self, Fault> {
        self.slice().map_err(scan_fault)?;
        if self.damaged {
            return Err(Fault::Damaged);
        }
        Ok(self)
    }

    fn slice(&mut self) -> Result<(), ScanError> {
        let Self {
            render,
            piece,
            left,
            scope,
            values,
            damaged,
            ..
        } = self;
        let mut bad = None;
        let mut visit = |row: Row<'_>| {
            if scope.as_ref().is_some_and(|scope| !scope.covers(row.key)) {
                return ControlFlow::Continue(());
            }
            if *values && !row.is_sound() {
                bad = Some(row.key.to_owned());
                return ControlFlow::Break(());
            }
            render(&row, piece);
            *left -= 1;
            if *left == 0 || piece.len() >= PIECE_BYTES {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let scan = Scan {
            prefix: &self.prefix,
            from: self.from.take(),
            examine_max: SLICE_ENTRIES,
            values: *values,
        };
        self.from = self.state.lane.scan(&scan, &mut visit)?;
        if let Some(key) = bad {
            *damaged = true;
            self.state.lane.note_damaged_row(&key);
        }
        self.ended = self.from.is_none() || self.left == 0;
        Ok(())
    }
}

impl<F: FnMut(&Row<'_>, &mut Vec<u8>)> Source for KeyStream<F> {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        if self.durable.is_none() {
            let mut slices = 0;
            while !self.ended && self.piece.len() < PIECE_BYTES && slices < SLICES_MAX {
                if let Err(error) = self.slice() {
                    return Poll::Ready(Some(Err(Cut(scan_fault(error).to_string()))));
                }
                if self.damaged {
                    return Poll::Ready(Some(Err(Cut(Fault::Damaged.to_string()))));
                }
                slices += 1;
            }
            if self.piece.is_empty() {
                if self.ended {
                    return Poll::Ready(None);
                }
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        if self.durable.is_none()
            && let Some(sequence) = self.state.lane.settled()
        {
            self.durable = Some(Box::pin(self.state.gate.durable(sequence)));
        }
        if let Some(durable) = &mut self.durable {
            let outcome = ready!(durable.as_mut().poll(context));
            self.durable = None;
            if let Err(cause) = outcome {
                return Poll::Ready(Some(Err(Cut(cause.reason))));
            }
        }
        Poll::Ready(Some(Ok(std::mem::take(&mut self.piece).into())))
    }
}
