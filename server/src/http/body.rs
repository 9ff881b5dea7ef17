//! Bodies both ways: reading a request's within its limits, and what an answer carries.

use super::fault::Fault;
use super::settings::Settings;
use super::uploads::Hold;
use crate::engine::Lane;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// What a body is given at once on a length that its sender only claims.
const CLAIMED_BYTES_MAX: usize = 64 * 1024;
/// So many times what has come is given on a claim after that: few copies, and no more at the end than was claimed.
const CLAIMED_GROWTH: usize = 4;

/// The content of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    Empty,
    Full(Bytes),
    /// Made while it is sent.
    Stream(Box<dyn Source>),
}

/// Makes the content of an answer piece by piece, as fast as the client takes it.
pub(crate) trait Source: std::fmt::Debug {
    /// The next piece, never an empty one; `None` at the end. An error cuts the answer off.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>>;
}

/// An answer had to be cut off, so that its end is not taken for the end of what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut off: {0}")]
pub(crate) struct Cut(pub(crate) String);

impl From<Vec<u8>> for Body {
    fn from(content: Vec<u8>) -> Self {
        Self::Full(content.into())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            this @ Self::Full(_) => match std::mem::replace(this, Self::Empty) {
                Self::Full(content) if !content.is_empty() => {
                    Poll::Ready(Some(Ok(Frame::data(content))))
                }
                _ => Poll::Ready(None),
            },
            Self::Stream(source) => source
                .poll_piece(context)
                .map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(content) => content.is_empty(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(content) => SizeHint::with_exact(content.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// A request's body on its way in.
#[derive(Debug)]
pub(crate) struct Upload {
    incoming: Incoming,
    /// The only chunk so far, in the usual case the whole body: it is taken as it is.
    first: Bytes,
    /// All chunks, once there are two.
    joined: Vec<u8>,
    limits: UploadLimits,
    /// What is held of the memory for all bodies; nothing while the body is there when it is asked for.
    hold: Hold,
    /// Set only when the body was not there already: most requests never touch a timer.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Set like the deadline.
    charge: Option<Charge>,
}

/// Bytes of a body on its way that the store's bound on memory knows of.
#[derive(Debug)]
struct Charge {
    lane: Lane,
    bytes: usize,
}

impl Charge {
    fn set(&mut self, bytes: usize) {
        if bytes != self.bytes {
            self.lane.note_body(bytes as i64 - self.bytes as i64);
            self.bytes = bytes;
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// What a body may be and take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UploadLimits {
    /// What is being sent, for the sentence that refuses it.
    pub(crate) what: &'static str,
    pub(crate) bytes_max: usize,
    pub(crate) timeout: Duration,
}

impl Upload {
    /// Begins to read. A length above the limit is refused here, before anything is read or asked for by
    /// `100 Continue`.
    pub(crate) fn new(
        incoming: Incoming,
        headers: &HeaderMap,
        limits: UploadLimits,
    ) -> Result<Self, Fault> {
        let known = incoming.size_hint().exact();
        // The field is looked at too, because HTTP/2 only compares it with the body at the end.
        let claimed = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let max = limits.bytes_max as u64;
        if known.is_some_and(|len| len > max) || claimed.is_some_and(|len| len > max) {
            return Err(limits.exceeded());
        }
        Ok(Self {
            incoming,
            first: Bytes::new(),
            joined: Vec::new(),
            limits,
            hold: Hold::default(),
            deadline: None,
            charge: None,
        })
    }

    /// The whole body.
    pub(crate) fn poll(
        &mut self,
        lane: &Lane,
        settings: &Settings,
        context: &mut Context<'_>,
    ) -> Poll<Result<Bytes, Fault>> {
        while !self.incoming.is_end_stream() {
            match Pin::new(&mut self.incoming).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are read past.
                    if let Ok(chunk) = frame.into_data()
                        && let Err(fault) = self.take(chunk)
                    {
                        return Poll::Ready(Err(fault));
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Fault::BodyBroken)),
                Poll::Ready(None) => break,
                Poll::Pending => {
                    // Only what waits is counted: what is there at once is gone again at once.
                    let have = self.first.len().max(self.joined.capacity());
                    let charge = self.charge.get_or_insert_with(|| Charge {
                        lane: lane.clone(),
                        bytes: 0,
                    });
                    charge.set(have);
                    let max = settings.fairness.upload_bytes_max;
                    if self.hold.grow_to(have, &settings.uploads, max).is_err() {
                        return Poll::Ready(Err(Fault::UploadsExhausted));
                    }
                    let timeout = self.limits.timeout;
                    let deadline = self
                        .deadline
                        .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                    return deadline.as_mut().poll(context).map(|()| {
                        Err(Fault::BodyTimeout {
                            seconds: timeout.as_secs(),
                        })
                    });
                }
            }
        }
        Poll::Ready(Ok(if self.joined.is_empty() {
            std::mem::take(&mut self.first)
        } else {
            std::mem::take(&mut self.joined).into()
        }))
    }

    fn take(&mut self, chunk: Bytes) -> Result<(), Fault> {
        let so_far = if self.joined.is_empty() {
            self.first.len()
        } else {
            self.joined.len()
        };
        if chunk.len() > self.limits.bytes_max - so_far {
            return Err(self.limits.exceeded());
        }
        if so_far == 0 {
            self.first = chunk;
            return Ok(());
        }
        let have = so_far + chunk.len();
        if have > self.joined.capacity() {
            let rest = usize::try_from(self.incoming.size_hint().lower()).unwrap_or(usize::MAX);
            let ahead = (have * CLAIMED_GROWTH).max(CLAIMED_BYTES_MAX);
            // Nothing is known of what is still to come of a body in chunks: it grows as any vector does.
            let room = if rest == 0 {
                have.max(2 * self.joined.capacity())
            } else {
                have.saturating_add(rest).min(ahead)
            };
            self.joined.reserve_exact(room - self.joined.len());
        }
        if self.joined.is_empty() {
            self.joined
                .extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&chunk);
        Ok(())
    }
}

impl UploadLimits {
    fn exceeded(&self) -> Fault {
        Fault::TooLarge {
            what: self.what,
            max: self.bytes_max,
        }
    }
}
