//! One connection: a non-blocking socket, its buffers, and the requests that wait for an answer.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::protocol::{Answer, Parsed, Request};
use crate::workload::mix::Ask;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Room for the answers that one read usually brings; larger ones let it grow.
const INPUT_BYTES: usize = 8 << 10;

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) ask: Ask,
    pub(crate) request: Request,
    pub(crate) number: u64,
    /// When it should have been sent; latency counts from here.
    pub(crate) due: Instant,
    /// When it was sent; patience counts from here.
    pub(crate) sent: Instant,
}

#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// Bytes of `input` that were received and are not yet taken.
    unread: std::ops::Range<usize>,
    pub(crate) output: Vec<u8>,
    written: usize,
    pub(crate) waiting: VecDeque<Sent>,
    /// Whether the poller was asked to say when the socket takes more.
    pub(crate) polls_write: bool,
}

/// What reading the socket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Bytes,
    Nothing,
    End,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self, Error> {
        Self::connect(address).map_err(|source| Error::Connect { address, source })
    }

    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            input: vec![0; INPUT_BYTES],
            unread: 0..0,
            output: Vec::new(),
            written: 0,
            waiting: VecDeque::new(),
            polls_write: false,
        })
    }

    /// Reads once.
    pub(crate) fn receive(&mut self) -> io::Result<Received> {
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.unread.end == self.input.len() {
            // An answer that does not fit: move it to the front, and make room if it is there already.
            if self.unread.start == 0 {
                self.input.resize(self.input.len() * 2, 0);
            } else {
                self.input.copy_within(self.unread.clone(), 0);
                self.unread = 0..self.unread.len();
            }
        }
        match self.stream.read(&mut self.input[self.unread.end..]) {
            Ok(0) => Ok(Received::End),
            Ok(bytes) => {
                self.unread.end += bytes;
                Ok(Received::Bytes)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(Received::Nothing)
            }
            Err(error) => Err(error),
        }
    }

    /// The next whole answer, with the request it belongs to. `parse` says what is at the front of the input.
    pub(crate) fn take_answer(
        &mut self,
        parse: impl FnOnce(&[u8], &Sent) -> Parsed,
    ) -> Result<Option<(Sent, Answer)>, &'static str> {
        if self.unread.is_empty() {
            return Ok(None);
        }
        let Some(&sent) = self.waiting.front() else {
            return Err("an answer nobody asked for");
        };
        match parse(&self.input[self.unread.clone()], &sent) {
            Parsed::Incomplete => Ok(None),
            Parsed::Malformed(what) => Err(what),
            Parsed::Whole { used, answer } => {
                self.unread.start += used;
                self.waiting.pop_front();
                Ok(Some((sent, answer)))
            }
        }
    }

    /// Writes what the socket takes; whether that was all.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(true)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
