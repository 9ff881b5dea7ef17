//! One socket under hyper: reads through the loop's scratch memory, writes gathered until the end of a turn.
//!
//! A *turn* is one poll of the connection's task. Everything that hyper flushes within a turn goes out together at its
//! end, so pipelined requests cost one system call for many answers; what a socket does not take stays here, up to
//! [`OUT_BYTES_MAX`], and past that hyper is made to wait and reads no further request. An idle connection holds no
//! buffer of this module: both directions borrow the loop's.
//!
//! The socket is shared, so that a last answer can still be written after hyper gave up on a connection.

use super::context::Context as LoopState;
use super::guard::Peer;
use super::wire::Wire;
use crate::observe::Record;
use bytes::Bytes;
use hyper::rt::ReadBufCursor;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

/// Bytes that may wait for a socket that takes none.
pub(crate) const OUT_BYTES_MAX: usize = 64 * 1024;
/// How long a closing connection waits for its client to take the last answer and stop sending.
const LINGER: Duration = Duration::from_secs(2);
/// How much of what a client goes on sending is thrown away in that time.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A client that made its answers wait for so long is told of in the log.
const SLOW_CLIENT: Duration = Duration::from_millis(500);

/// Where a connection stands between requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing of a next request has arrived.
    Idle,
    /// Some of a request's head has arrived, and hyper has not handed it over yet.
    Head,
    /// A request is being served, or the protocol has no such phases (HTTP/2).
    Busy,
}

/// One accepted connection.
pub(crate) struct Link {
    pub(crate) id: u64,
    pub(crate) state: Rc<LoopState>,
    socket: RefCell<Socket>,
    phase: Cell<Phase>,
    /// Requests handed over so far, wrapping; tells whether anything happened between two looks.
    requests: Cell<u32>,
    /// Bytes sent so far, wrapping.
    sent: Cell<u32>,
    target_too_long: Cell<bool>,
    peer: Option<SocketAddr>,
    certificate: Option<[u8; 32]>,
    /// When the last read brought the beginning of a request.
    arrived: Cell<Option<Instant>>,
    /// Since when the client does not take what is waiting for it.
    blocked_since: Cell<Option<Instant>>,
    /// Requests to be told of when their answers are sent, and when those stood.
    untold: RefCell<Vec<(Record, Instant)>>,
    waker: RefCell<Option<Waker>>,
}

struct Socket {
    stream: Wire,
    /// Something may be left in the stream that the socket has not taken, as under TLS.
    unflushed: bool,
    /// Read while the protocol was being told, not yet seen by hyper.
    replay: Bytes,
    out: Vec<u8>,
    /// How much of `out` the socket has taken.
    out_sent: usize,
    /// hyper waits for the socket, or for room in `out`.
    writer_waits: bool,
    end_of_input: bool,
    head: Head,
}

/// What is known of a request head that is still arriving.
#[derive(Default)]
struct Head {
    bytes: usize,
    line_ended: bool,
    /// Bytes of a head that came in several reads.
    kept: Vec<u8>,
    /// Length of the last read, whose bytes are still in the scratch memory if nobody else has read since.
    last: usize,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("id", &self.id)
            .field("phase", &self.phase.get())
            .finish_non_exhaustive()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.note_blocked(false);
        // The client left before it had taken these answers.
        for (record, _) in self.untold.get_mut().drain(..) {
            self.state.tell(&record);
        }
    }
}

impl Link {
    pub(crate) fn new(
        id: u64,
        stream: Wire,
        peer: Option<SocketAddr>,
        state: Rc<LoopState>,
    ) -> Rc<Self> {
        let certificate = stream.certificate();
        let socket = Socket {
            stream,
            unflushed: false,
            replay: Bytes::new(),
            out: Vec::new(),
            out_sent: 0,
            writer_waits: false,
            end_of_input: false,
            head: Head::default(),
        };
        Rc::new(Self {
            id,
            state,
            socket: RefCell::new(socket),
            phase: Cell::new(Phase::Idle),
            requests: Cell::new(0),
            sent: Cell::new(0),
            target_too_long: Cell::new(false),
            peer,
            certificate,
            arrived: Cell::new(None),
            blocked_since: Cell::new(None),
            untold: RefCell::default(),
            waker: RefCell::new(None),
        })
    }

    /// The other end.
    pub(crate) fn peer(&self) -> Peer {
        Peer {
            address: self.peer,
            certificate: self.certificate,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn requests(&self) -> u32 {
        self.requests.get()
    }

    pub(crate) fn sent(&self) -> u32 {
        self.sent.get()
    }

    /// Whether answers are waiting for the socket.
    pub(crate) fn is_blocked(&self) -> bool {
        let socket = self.socket.borrow();
        socket.writer_waits || socket.unflushed || !socket.out.is_empty()
    }

    pub(crate) fn target_is_too_long(&self) -> bool {
        self.target_too_long.get()
    }

    /// When the request being handed over began to arrive; unknown on HTTP/2.
    pub(crate) fn arrived(&self) -> Option<Instant> {
        self.arrived.get()
    }

    /// Has a request's line written when the socket has taken its answer.
    pub(crate) fn tell_when_sent(&self, mut record: Record) {
        record.peer = self.peer;
        self.untold.borrow_mut().push((record, Instant::now()));
    }

    /// The socket has taken everything.
    fn tell_sent(&self) {
        if self.untold.borrow().is_empty() {
            return;
        }
        for (mut record, since) in self.untold.borrow_mut().drain(..) {
            record.write = Some(since.elapsed());
            self.state.tell(&record);
        }
    }

    /// Notes whether the client takes what is waiting for it.
    fn note_blocked(&self, blocked: bool) {
        match (self.blocked_since.get(), blocked) {
            (None, true) => {
                self.blocked_since.set(Some(Instant::now()));
                self.state.traffic.blocked();
            }
            (Some(since), false) => {
                self.blocked_since.set(None);
                let after = since.elapsed();
                self.state.traffic.unblocked(after);
                if after >= SLOW_CLIENT {
                    let peer = self.peer.map(|peer| peer.to_string());
                    tracing::warn!(
                        client = peer.as_deref().unwrap_or("unknown"),
                        blocked_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
                        "a client took its answers slowly"
                    );
                }
            }
            _ => {}
        }
    }

    /// A request has been handed over.
    pub(crate) fn request_began(&self) {
        self.requests.set(self.requests.get().wrapping_add(1));
        self.phase.set(Phase::Busy);
    }

    /// Its answer stands; what arrives from here on belongs to the next one. Not called on HTTP/2.
    pub(crate) fn request_ended(&self) {
        self.phase.set(Phase::Idle);
    }

    /// Remembers whom to wake when the loop ends.
    pub(crate) fn remember(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// The bytes of the head that was just handed over and of what came with it, as far as they are still known:
    /// always, unless the request was pipelined behind another one.
    pub(crate) fn recent_head(&self) -> Vec<u8> {
        let socket = self.socket.borrow();
        let mut recent = socket.head.kept.clone();
        if self.state.last_reader.get() == self.id {
            recent.extend_from_slice(&self.state.scratch.borrow()[..socket.head.last]);
        }
        recent
    }

    /// Waits for the first bytes and tells whether they are HTTP/2's preface. `None`: the client left, or the loop
    /// ends.
    pub(crate) async fn first_bytes(&self) -> Option<FirstBytes> {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let settings = &self.state.settings;
        let mut first = Vec::new();
        loop {
            let patience = if first.is_empty() {
                settings.idle_timeout
            } else {
                settings.header_timeout
            };
            let read = poll_fn(|context| {
                self.remember(context.waker());
                if self.state.stopping.get() {
                    return Poll::Ready(false);
                }
                self.poll_more(context, &mut first)
            });
            match timeout(patience, read).await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(_) if first.is_empty() => return None,
                Err(_) => return Some(FirstBytes::TooSlow),
            }
            let common = first.len().min(PREFACE.len());
            let http2 = first[..common] == PREFACE[..common];
            if http2 && first.len() < PREFACE.len() {
                continue;
            }
            self.socket.borrow_mut().replay = first.into();
            if http2 {
                self.phase.set(Phase::Busy);
            }
            return Some(if http2 {
                FirstBytes::Http2
            } else {
                FirstBytes::Http1
            });
        }
    }

    /// Appends what has arrived; false at the end of input.
    fn poll_more(&self, context: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<bool> {
        let mut scratch = self.state.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        let mut socket = self.socket.borrow_mut();
        let read = ready!(Pin::new(&mut socket.stream).poll_read(context, &mut buffer));
        self.state.last_reader.set(0);
        into.extend_from_slice(buffer.filled());
        let more = read.is_ok() && !buffer.filled().is_empty();
        socket.end_of_input |= !more;
        Poll::Ready(more)
    }

    /// Ends a turn: sends what is gathered, keeps what a slow reader does not take.
    pub(crate) fn end_turn(&self, context: &mut Context<'_>) -> io::Result<()> {
        let mut socket = self.socket.borrow_mut();
        if self.phase.get() == Phase::Head {
            socket.keep_partial_head(self);
        }
        if socket.out.is_empty() && !socket.unflushed {
            // Large answers go out past the buffer.
            if !socket.writer_waits {
                self.note_blocked(false);
                self.tell_sent();
            } else {
                self.note_blocked(true);
            }
            return Ok(());
        }
        let flushed = socket.poll_drain(self, context)?;
        self.note_blocked(flushed.is_pending());
        if flushed.is_ready() {
            self.tell_sent();
        }
        if flushed.is_ready() && std::mem::take(&mut socket.writer_waits) {
            // hyper was told to wait in this very turn, and nothing else would wake it.
            context.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Writes a last answer that hyper knows nothing of, behind whatever it has written.
    pub(crate) fn push_last(&self, answer: &[u8]) {
        self.socket.borrow_mut().out.extend_from_slice(answer);
    }

    /// Ends the connection so that the client gets its last answer: sends what is left, says that nothing follows,
    /// and reads past what still arrives. Closing with unread input would have the kernel reset the connection and
    /// the client lose the answer.
    pub(crate) async fn linger(&self) {
        let drained = poll_fn(|context| {
            let mut socket = self.socket.borrow_mut();
            if let Err(error) = ready!(socket.poll_drain(self, context).transpose_ready()) {
                return Poll::Ready(Err(error));
            }
            Pin::new(&mut socket.stream).poll_shutdown(context)
        });
        if !matches!(timeout(LINGER, drained).await, Ok(Ok(())))
            || self.socket.borrow().end_of_input
        {
            return;
        }
        let mut ignored = 0;
        let rest = poll_fn(|context| {
            while ignored < LINGER_BYTES_MAX {
                let mut scratch = self.state.scratch.borrow_mut();
                let mut buffer = ReadBuf::new(&mut scratch);
                self.state.last_reader.set(0);
                let mut socket = self.socket.borrow_mut();
                match ready!(Pin::new(&mut socket.stream).poll_read(context, &mut buffer)) {
                    Ok(()) if !buffer.filled().is_empty() => ignored += buffer.filled().len(),
                    _ => break,
                }
            }
            Poll::Ready(())
        });
        // Whatever is still coming after that is not waited for.
        let _ = timeout(LINGER, rest).await;
    }
}

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstBytes {
    Http1,
    Http2,
    /// It began, and did not go on in time.
    TooSlow,
}

impl Socket {
    /// Sends what is gathered. Ready when nothing is left.
    fn poll_drain(&mut self, link: &Link, context: &mut Context<'_>) -> io::Result<Poll<()>> {
        while self.out_sent < self.out.len() {
            match Pin::new(&mut self.stream).poll_write(context, &self.out[self.out_sent..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(sent)) => {
                    self.out_sent += sent;
                    // Only whether it moved is looked at.
                    link.sent.set(link.sent.get().wrapping_add(sent as u32));
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.out.drain(..self.out_sent);
                    self.out_sent = 0;
                    return Ok(Poll::Pending);
                }
            }
        }
        self.out_sent = 0;
        if self.out.capacity() > 0 {
            self.out.clear();
            link.state.give_back(std::mem::take(&mut self.out));
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(context)?;
        self.unflushed = flushed.is_pending();
        Ok(flushed)
    }

    /// Notes bytes on their way to hyper. An error: the request target is too long to go on reading.
    fn note(&mut self, link: &Link, bytes: &[u8]) -> io::Result<()> {
        let head = &mut self.head;
        match link.phase.get() {
            Phase::Busy => return Ok(()),
            Phase::Idle => {
                link.phase.set(Phase::Head);
                link.arrived.set(Some(link.state.now.get()));
                head.bytes = 0;
                head.line_ended = false;
                head.kept.clear();
            }
            Phase::Head => {}
        }
        head.last = bytes.len();
        let before = head.bytes;
        head.bytes += bytes.len();
        if head.line_ended {
            return Ok(());
        }
        let end = bytes.iter().position(|&byte| byte == b'\n');
        head.line_ended = end.is_some();
        if before + end.unwrap_or(bytes.len()) >= link.state.settings.header_bytes_max {
            link.target_too_long.set(true);
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }

    /// Saves the last read of an unfinished head before the scratch memory is used for another read.
    fn keep_partial_head(&mut self, link: &Link) {
        let head = &mut self.head;
        let last = std::mem::take(&mut head.last);
        if last > 0
            && link.state.last_reader.get() == link.id
            && head.kept.len() <= link.state.settings.header_bytes_max
        {
            head.kept
                .extend_from_slice(&link.state.scratch.borrow()[..last]);
        }
    }
}

/// `Result<Poll<()>>` the other way round.
trait TransposeReady {
    fn transpose_ready(self) -> Poll<io::Result<()>>;
}

impl TransposeReady for io::Result<Poll<()>> {
    fn transpose_ready(self) -> Poll<io::Result<()>> {
        match self {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

/// What hyper holds of a connection.
#[derive(Debug)]
pub(crate) struct Io(pub(crate) Rc<Link>);

impl hyper::rt::Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let link = &*self.0;
        let mut socket = link.socket.borrow_mut();
        let socket = &mut *socket;
        if link.phase.get() == Phase::Head {
            socket.keep_partial_head(link);
        }
        let mut scratch = link.state.scratch.borrow_mut();
        let room = cursor.remaining().min(scratch.len());
        let read = if socket.replay.is_empty() {
            let mut buffer = ReadBuf::new(&mut scratch[..room]);
            ready!(Pin::new(&mut socket.stream).poll_read(context, &mut buffer))?;
            buffer.filled().len()
        } else {
            let first = socket.replay.split_to(room.min(socket.replay.len()));
            scratch[..first.len()].copy_from_slice(&first);
            first.len()
        };
        link.state.last_reader.set(link.id);
        let bytes = &scratch[..read];
        if bytes.is_empty() {
            socket.end_of_input = true;
        } else {
            socket.note(link, bytes)?;
        }
        cursor.put_slice(bytes);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let link = &*self.0;
        let mut socket = link.socket.borrow_mut();
        let socket = &mut *socket;
        let total = slices.iter().map(|slice| slice.len()).sum::<usize>();
        if total > OUT_BYTES_MAX - socket.out.len().min(OUT_BYTES_MAX) {
            match socket.poll_drain(link, context) {
                Err(error) => return Poll::Ready(Err(error)),
                Ok(Poll::Pending) => {
                    socket.writer_waits = true;
                    return Poll::Pending;
                }
                Ok(Poll::Ready(())) => {}
            }
        }
        socket.writer_waits = false;
        if total > OUT_BYTES_MAX {
            // Large enough to be worth a system call of its own, without a copy.
            socket.writer_waits = true;
            let sent = ready!(Pin::new(&mut socket.stream).poll_write_vectored(context, slices))?;
            socket.writer_waits = false;
            socket.unflushed = true;
            link.sent.set(link.sent.get().wrapping_add(sent as u32));
            return Poll::Ready(Ok(sent));
        }
        if socket.out.capacity() == 0 {
            socket.out = link.state.lend();
        }
        for slice in slices {
            socket.out.extend_from_slice(slice);
        }
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing goes out before the end of the turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let link = &*self.0;
        let mut socket = link.socket.borrow_mut();
        ready!(socket.poll_drain(link, context).transpose_ready())?;
        if link.target_is_too_long() {
            // hyper gives up without a word, and there is one to be said yet.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut socket.stream).poll_shutdown(context)
    }
}
