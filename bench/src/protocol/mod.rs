//! The bytes of requests and answers; no sockets.

pub(crate) mod http;
pub(crate) mod resp;

use std::net::SocketAddr;

use crate::workload::{Key, Operation, Values};

/// An answer of more bytes than this is refused rather than waited for.
pub(crate) const BODY_BYTES_MAX: usize = 128 << 20;

/// What the first bytes of the input are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// More bytes are needed.
    Incomplete,
    /// One answer, and how many bytes it took.
    Whole { used: usize, answer: Answer },
    /// Not this protocol; the connection is of no further use.
    Malformed(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Success, with so many bytes of body; the server may be about to close the connection.
    Success { body_bytes: usize, closes: bool },
    /// Anything else, under the name by which failures are counted.
    Failure { kind: String, closes: bool },
}

/// How a server is spoken to.
#[derive(Debug)]
pub(crate) enum Protocol {
    Http(http::Requests),
    Redis,
}

impl Protocol {
    pub(crate) fn http(path: &str, address: SocketAddr, value_bytes: usize) -> Self {
        Self::Http(http::Requests::new(path, address, value_bytes))
    }

    pub(crate) fn append_get(&self, key: &Key, out: &mut Vec<u8>) {
        match self {
            Self::Http(requests) => requests.append_get(key, out),
            Self::Redis => resp::append_command(&[b"GET", key], out),
        }
    }

    pub(crate) fn append_put(
        &self,
        key: &Key,
        values: &Values,
        random: &mut fastrand::Rng,
        out: &mut Vec<u8>,
    ) {
        match self {
            Self::Http(requests) => requests.append_put_head(key, out),
            Self::Redis => resp::append_set_head(key, values.bytes(), out),
        }
        values.append(random, out);
        if matches!(self, Self::Redis) {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// The answer at the front of `input`, to this operation. `body_bytes` is what a GET has to bring.
    pub(crate) fn parse(
        &self,
        input: &[u8],
        operation: Operation,
        body_bytes: Option<usize>,
    ) -> Parsed {
        let parsed = match self {
            Self::Http(_) => http::parse(input),
            Self::Redis => resp::parse(input),
        };
        if let (Operation::Get, Some(expected)) = (operation, body_bytes)
            && let Parsed::Whole {
                used,
                answer: Answer::Success { body_bytes, closes },
            } = parsed
            && body_bytes != expected
        {
            let answer = Answer::Failure {
                kind: "wrong length".to_owned(),
                closes,
            };
            return Parsed::Whole { used, answer };
        }
        parsed
    }
}
