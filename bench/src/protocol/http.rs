//! HTTP/1.1 as far as a load generator needs it: requests from prepared pieces, answers framed by
//! `Content-Length` (RFC 9112).

use std::net::SocketAddr;

use crate::protocol::{Answer, BODY_BYTES_MAX, Parsed};
use crate::workload::Key;

/// A server that sends more than this before the empty line is not worth waiting for.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The pieces between which only key and value change.
#[derive(Debug)]
pub(crate) struct Requests {
    get: Vec<u8>,
    put: Vec<u8>,
    after_get: Vec<u8>,
    after_put: Vec<u8>,
}

impl Requests {
    pub(crate) fn new(path: &str, address: SocketAddr, value_bytes: usize) -> Self {
        Self {
            get: format!("GET {path}").into_bytes(),
            put: format!("PUT {path}").into_bytes(),
            after_get: format!(" HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes(),
            after_put: format!(
                " HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {value_bytes}\r\n\r\n"
            )
            .into_bytes(),
        }
    }

    pub(crate) fn append_get(&self, key: &Key, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.get);
        out.extend_from_slice(key);
        out.extend_from_slice(&self.after_get);
    }

    /// Everything before the body.
    pub(crate) fn append_put_head(&self, key: &Key, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.put);
        out.extend_from_slice(key);
        out.extend_from_slice(&self.after_put);
    }
}

/// What the lines before the body say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Bytes up to and with the empty line.
    pub(crate) bytes: usize,
    pub(crate) body_bytes: usize,
    /// The server closes the connection after this answer.
    pub(crate) closes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParsedHead {
    Incomplete,
    Whole(Head),
    Malformed(&'static str),
}

/// Reads status line and header fields of an answer to anything but HEAD.
pub(crate) fn parse_head(input: &[u8]) -> ParsedHead {
    use ParsedHead::{Incomplete, Malformed};
    let Some((line, mut at)) = line(input, 0) else {
        return if input.len() > HEAD_BYTES_MAX {
            Malformed("endless status line")
        } else {
            Incomplete
        };
    };
    let Some(status) = status(line) else {
        return Malformed("status line");
    };
    let mut body_bytes = None;
    let mut closes = false;
    loop {
        let Some((field, next)) = self::line(input, at) else {
            return if input.len() > HEAD_BYTES_MAX {
                Malformed("endless header")
            } else {
                Incomplete
            };
        };
        at = next;
        if at > HEAD_BYTES_MAX {
            return Malformed("endless header");
        }
        if field.is_empty() {
            break;
        }
        // The length of the name tells nearly all fields apart before a byte is compared.
        match field.iter().position(|&byte| byte == b':') {
            Some(10) if field[..10].eq_ignore_ascii_case(b"connection") => {
                closes |= value(field, 10).eq_ignore_ascii_case(b"close");
            }
            Some(14) if field[..14].eq_ignore_ascii_case(b"content-length") => {
                match length(value(field, 14)) {
                    Some(found) if body_bytes.is_none_or(|known| known == found) => {
                        body_bytes = Some(found);
                    }
                    _ => return Malformed("content-length"),
                }
            }
            Some(17) if field[..17].eq_ignore_ascii_case(b"transfer-encoding") => {
                return Malformed("transfer-encoding");
            }
            Some(_) => {}
            None => return Malformed("header field"),
        }
    }
    let body_bytes = match (status, body_bytes) {
        (100..=199 | 204 | 304, _) => 0,
        (_, Some(bytes)) => bytes,
        (_, None) => return Malformed("no content-length"),
    };
    ParsedHead::Whole(Head {
        status,
        bytes: at,
        body_bytes,
        closes,
    })
}

/// One whole answer at the front of `input`.
pub(crate) fn parse(input: &[u8]) -> Parsed {
    let head = match parse_head(input) {
        ParsedHead::Incomplete => return Parsed::Incomplete,
        ParsedHead::Malformed(what) => return Parsed::Malformed(what),
        ParsedHead::Whole(head) => head,
    };
    let used = head.bytes + head.body_bytes;
    if input.len() < used {
        return Parsed::Incomplete;
    }
    let closes = head.closes;
    let answer = match head.status {
        200..=299 => Answer::Success {
            body_bytes: head.body_bytes,
            closes,
        },
        status => Answer::Failure {
            kind: format!("status {status}"),
            closes,
        },
    };
    Parsed::Whole { used, answer }
}

/// The line that starts at `from`, without its end, and where the next one starts.
fn line(input: &[u8], from: usize) -> Option<(&[u8], usize)> {
    let rest = input.get(from..)?;
    let end = rest.iter().position(|&byte| byte == b'\n')?;
    let line = &rest[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), from + end + 1))
}

/// `HTTP/1.1 200 OK`; the reason may be missing.
fn status(line: &[u8]) -> Option<u16> {
    let rest = line
        .strip_prefix(b"HTTP/1.1 ")
        .or_else(|| line.strip_prefix(b"HTTP/1.0 "))?;
    let (code, rest) = rest.split_at_checked(3)?;
    if !code.iter().all(u8::is_ascii_digit) || rest.first().is_some_and(|&byte| byte != b' ') {
        return None;
    }
    Some(
        code.iter()
            .fold(0, |number, digit| number * 10 + u16::from(digit - b'0')),
    )
}

/// What follows the colon at `colon`, trimmed.
fn value(field: &[u8], colon: usize) -> &[u8] {
    field[colon + 1..].trim_ascii()
}

fn length(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 12 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length = digits
        .iter()
        .fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    usize::try_from(length)
        .ok()
        .filter(|&length| length <= BODY_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nEtag: \"1\"\r\ncontent-length: 5\r\n\r\nhello";

    fn success(body_bytes: usize) -> Answer {
        Answer::Success {
            body_bytes,
            closes: false,
        }
    }

    /// Bytes arrive in any pieces: cut the answer at every byte, nothing is taken before it is whole.
    #[test]
    fn an_answer_is_taken_only_when_it_is_whole() {
        for cut in 0..ANSWER.len() {
            assert_eq!(parse(&ANSWER[..cut]), Parsed::Incomplete, "cut at {cut}");
        }
        assert_eq!(
            parse(ANSWER),
            Parsed::Whole {
                used: ANSWER.len(),
                answer: success(5)
            }
        );
    }

    #[test]
    fn the_next_answer_stays_in_the_input() {
        let two = [ANSWER, b"HTTP/1.1 204 No Content\r\n\r\n"].concat();
        assert_eq!(
            parse(&two),
            Parsed::Whole {
                used: ANSWER.len(),
                answer: success(5)
            }
        );
        let rest = &two[ANSWER.len()..];
        assert_eq!(
            parse(rest),
            Parsed::Whole {
                used: rest.len(),
                answer: success(0)
            }
        );
    }

    #[test]
    fn a_refusal_is_counted_by_its_status() {
        let answer =
            b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let expected = Answer::Failure {
            kind: "status 503".to_owned(),
            closes: true,
        };
        assert_eq!(
            parse(answer),
            Parsed::Whole {
                used: answer.len(),
                answer: expected
            }
        );
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for wrong in [
            "+PONG\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 20\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(
                matches!(parse(wrong.as_bytes()), Parsed::Malformed(_)),
                "{wrong:?} was taken"
            );
        }
        let endless = [&b"HTTP/1.1 200 OK\r\n"[..], &b"a: b\r\n".repeat(20_000)].concat();
        assert!(matches!(parse(&endless), Parsed::Malformed(_)));
        assert!(matches!(
            parse(&[b'x'; HEAD_BYTES_MAX + 1]),
            Parsed::Malformed(_)
        ));
    }
}
