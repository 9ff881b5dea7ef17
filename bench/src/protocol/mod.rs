//! The bytes of requests and answers; no sockets.

pub(crate) mod http;
pub(crate) mod memcached;
pub(crate) mod resp;

use crate::workload::mix::{Ask, Questions};
use crate::workload::{Values, key};

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
    /// There is nothing under the key.
    Missing { closes: bool },
    /// Anything else, under the name by which failures are counted.
    Failure { kind: String, closes: bool },
}

/// One message to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Get,
    Put,
    Patch,
    Delete,
    List,
    Scan,
    BatchGet,
    BatchPut,
}

impl Ask {
    /// What is sent first.
    pub(crate) fn request(self) -> Request {
        match self {
            Self::Get | Self::Modify | Self::Through => Request::Get,
            Self::Put | Self::Insert => Request::Put,
            Self::Patch => Request::Patch,
            Self::Delete => Request::Delete,
            Self::List => Request::List,
            Self::Scan => Request::Scan,
            Self::BatchGet => Request::BatchGet,
            Self::BatchPut => Request::BatchPut,
        }
    }

    /// What is sent once the first request was answered; a miss or not.
    pub(crate) fn then(self, missed: bool) -> Option<Request> {
        match self {
            Self::Modify => Some(Request::Put),
            Self::Through if missed => Some(Request::Put),
            _ => None,
        }
    }
}

/// What requests are made of besides their key.
#[derive(Debug)]
pub(crate) struct Material<'a> {
    pub(crate) values: &'a Values,
    /// Operations of a batch.
    pub(crate) batch: usize,
    /// Keys of a page.
    pub(crate) page: u32,
}

/// How a server is spoken to.
#[derive(Clone, Debug)]
pub(crate) enum Protocol {
    Http(http::Requests),
    Redis,
    Memcached,
}

impl Protocol {
    /// Whether the body of a GET is the value as it was written.
    pub(crate) fn echoes(&self) -> bool {
        match self {
            Self::Http(requests) => requests.echoes(),
            Self::Redis | Self::Memcached => true,
        }
    }

    pub(crate) fn can(&self, request: Request) -> bool {
        match self {
            Self::Http(requests) => requests.can(request),
            Self::Redis | Self::Memcached => {
                matches!(request, Request::Get | Request::Put | Request::Delete)
            }
        }
    }

    /// Appends a request for the key with this number. Batches take the keys that `questions` has next.
    pub(crate) fn append(
        &self,
        request: Request,
        number: u64,
        material: &Material<'_>,
        questions: &mut Questions,
        out: &mut Vec<u8>,
    ) {
        let key = &key(number);
        match self {
            Self::Http(requests) => requests.append(request, number, material, questions, out),
            Self::Redis => match request {
                Request::Put => {
                    resp::append_set_head(key, material.values.bytes(number), out);
                    material.values.append(number, questions.random(), out);
                    out.extend_from_slice(b"\r\n");
                }
                Request::Delete => resp::append_command(&[b"DEL", key], out),
                _ => resp::append_command(&[b"GET", key], out),
            },
            Self::Memcached => match request {
                Request::Put => {
                    memcached::append_set_head(key, material.values.bytes(number), out);
                    material.values.append(number, questions.random(), out);
                    out.extend_from_slice(b"\r\n");
                }
                Request::Delete => memcached::append_delete(key, out),
                _ => memcached::append_get(key, out),
            },
        }
    }

    /// The answer at the front of `input`, to this request. `body_bytes` is what a GET has to bring, `batch` the
    /// number of results of a batch.
    pub(crate) fn parse(
        &self,
        input: &[u8],
        request: Request,
        body_bytes: Option<usize>,
        batch: usize,
    ) -> Parsed {
        let mut parsed = match self {
            Self::Http(_) => http::parse(input),
            Self::Redis => resp::parse(input),
            Self::Memcached => memcached::parse(input),
        };
        if let Parsed::Whole { used, answer } = &mut parsed
            && let Answer::Success {
                body_bytes: found,
                closes,
            } = *answer
        {
            let wrong = match (request, body_bytes) {
                (Request::Get, Some(expected)) if found != expected => Some("wrong length"),
                (Request::BatchGet | Request::BatchPut, _)
                    if http::results_of_batch(&input[..*used]) != batch =>
                {
                    Some("failed in a batch")
                }
                _ => None,
            };
            if let Some(wrong) = wrong {
                *answer = Answer::Failure {
                    kind: wrong.to_owned(),
                    closes,
                };
            }
        }
        parsed
    }
}
