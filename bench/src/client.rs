//! A blocking client for everything that is not measured: readiness, bulk loading, administration.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::Error;
use crate::protocol::http::{Framing, Head, ParsedHead, chunks, parse_head};
use crate::protocol::resp;
use crate::protocol::{Answer, Parsed};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Saving a large store takes a while, and the answer comes after it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
const CHUNK_BYTES: usize = 64 << 10;

/// A connection and what was received on it and not yet taken.
#[derive(Debug)]
pub(crate) struct Client {
    name: String,
    address: SocketAddr,
    stream: TcpStream,
    input: Vec<u8>,
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    head: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl HttpAnswer {
    /// The header field with this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let head = str::from_utf8(&self.head).ok()?;
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

impl Client {
    pub(crate) fn connect(name: &str, address: SocketAddr) -> Result<Self, Error> {
        let connect = || {
            let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
            Ok(stream)
        };
        let stream = connect().map_err(|source| Error::Connect { address, source })?;
        Ok(Self {
            name: name.to_owned(),
            address,
            stream,
            input: Vec::new(),
        })
    }

    /// One HTTP request; status and body of its answer.
    pub(crate) fn http(
        &mut self,
        method: &str,
        path: &str,
        media_type: &str,
        body: &[u8],
    ) -> Result<(u16, Vec<u8>), Error> {
        let answer = self.exchange(method, path, media_type, body)?;
        Ok((answer.status, answer.body))
    }

    /// One HTTP request, and its whole answer.
    pub(crate) fn exchange(
        &mut self,
        method: &str,
        path: &str,
        media_type: &str,
        body: &[u8],
    ) -> Result<HttpAnswer, Error> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat())?;
        let Head {
            bytes,
            framing,
            status,
            ..
        } = loop {
            match parse_head(&self.input) {
                ParsedHead::Incomplete => self.receive()?,
                ParsedHead::Malformed(what) => return Err(self.wrong(path, what, "HTTP/1.1")),
                ParsedHead::Whole(head) => break head,
            }
        };
        let end = loop {
            match framing.end(&self.input[bytes..]) {
                Ok(Some((end, _))) => break bytes + end,
                Ok(None) => self.receive()?,
                Err(what) => return Err(self.wrong(path, what, "HTTP/1.1")),
            }
        };
        let rest = self.input.split_off(end);
        let mut head = std::mem::replace(&mut self.input, rest);
        let mut body = head.split_off(bytes);
        if framing == Framing::Chunked {
            let mut content = Vec::new();
            let whole = chunks(&body, |chunk| content.extend_from_slice(chunk));
            debug_assert!(matches!(whole, Ok(Some(_))), "its end was found above");
            body = content;
        }
        Ok(HttpAnswer { status, head, body })
    }

    /// An HTTP request that must succeed; the body of its answer.
    pub(crate) fn http_success(
        &mut self,
        method: &str,
        path: &str,
        media_type: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, Error> {
        match self.http(method, path, media_type, body)? {
            (200..=299, body) => Ok(body),
            (status, body) => {
                let text: String = String::from_utf8_lossy(&body).chars().take(300).collect();
                Err(self.wrong(path, &format!("status {status} {text}"), "success"))
            }
        }
    }

    /// Sends commands to memcached, each of which it has to answer with `STORED`.
    pub(crate) fn memcached(&mut self, commands: &[u8], replies: usize) -> Result<(), Error> {
        const STORED: &[u8] = b"STORED\r\n";
        self.send(commands)?;
        for _ in 0..replies {
            while self.input.len() < STORED.len() {
                self.receive()?;
            }
            if !self.input.starts_with(STORED) {
                let found = String::from_utf8_lossy(&self.input[..self.input.len().min(100)]);
                return Err(self.wrong("a command", &found, "STORED"));
            }
            self.input.drain(..STORED.len());
        }
        Ok(())
    }

    /// Sends prepared Redis commands and takes so many replies, all of which must be successes.
    pub(crate) fn redis(&mut self, commands: &[u8], replies: usize) -> Result<(), Error> {
        let mut missing = false;
        self.redis_each(commands, replies, |reply| {
            missing |= reply.starts_with(b"$-1");
        })?;
        if missing {
            return Err(self.wrong("a command", "nothing", "success"));
        }
        Ok(())
    }

    /// The same, and `each` is shown every reply as it came. Nothing is a success too here.
    pub(crate) fn redis_each(
        &mut self,
        commands: &[u8],
        replies: usize,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        self.send(commands)?;
        for _ in 0..replies {
            loop {
                match resp::parse(&self.input) {
                    Parsed::Incomplete => self.receive()?,
                    Parsed::Malformed(what) => return Err(self.wrong("a command", what, "RESP")),
                    Parsed::Whole { used, answer } => {
                        if let Answer::Failure { kind, .. } = answer {
                            return Err(self.wrong("a command", &kind, "success"));
                        }
                        each(&self.input[..used]);
                        self.input.drain(..used);
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.stream
            .write_all(bytes)
            .map_err(Error::io(format!("sending to {}", self.name)))
    }

    fn receive(&mut self) -> Result<(), Error> {
        let doing = || Error::io(format!("receiving from {}", self.name));
        let mut chunk = [0; CHUNK_BYTES];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(doing()(ErrorKind::UnexpectedEof.into())),
            Ok(bytes) => {
                self.input.extend_from_slice(&chunk[..bytes]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(doing()(error)),
        }
    }

    fn wrong(&self, what: &str, found: &str, expected: &str) -> Error {
        Error::Answer {
            name: self.name.clone(),
            what: what.to_owned(),
            found: found.to_owned(),
            expected: expected.to_owned(),
        }
    }
}
