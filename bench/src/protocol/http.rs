//! HTTP/1.1 as far as a load generator needs it: requests from prepared pieces, answers framed by
//! `Content-Length` or in chunks (RFC 9112).

use std::io::Write as _;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::protocol::{Answer, BODY_BYTES_MAX, Material, Parsed, Request};
use crate::workload::mix::Questions;
use crate::workload::{PATCH_BYTES, Values, append_patch, key};

/// A server that sends more than this before the empty line is not worth waiting for.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// In whose manner keys and values are put into HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// A path and the key behind it; what the server of this project speaks below `/v1/kv/`.
    Path(String),
    /// Redis commands as paths (webdis).
    Webdis,
    /// JSON with Base64 in it (the gateway of etcd).
    Etcd,
}

/// Below it a GET answers the value as it was written, and the other operations are known.
pub(crate) const NATIVE_PATH: &str = "/v1/kv/";

/// The pieces between which only key and value change.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    dialect: Dialect,
    get: String,
    put: String,
    /// Ends the header of a request without a body.
    end: String,
    /// Up to the length of a body.
    length: String,
    host: SocketAddr,
}

impl Requests {
    pub(crate) fn new(dialect: Dialect, host: SocketAddr) -> Self {
        let (get, put) = match &dialect {
            Dialect::Path(path) => (format!("GET {path}"), format!("PUT {path}")),
            Dialect::Webdis => ("GET /GET/".to_owned(), "PUT /SET/".to_owned()),
            Dialect::Etcd => ("POST /v3/kv/range".to_owned(), "POST /v3/kv/put".to_owned()),
        };
        Self {
            get,
            put,
            end: format!(" HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            length: format!(
                " HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: "
            ),
            dialect,
            host,
        }
    }

    /// Whether the body of a GET is the value as it was written.
    pub(crate) fn echoes(&self) -> bool {
        match &self.dialect {
            Dialect::Path(path) => path == NATIVE_PATH,
            Dialect::Webdis => true,
            Dialect::Etcd => false,
        }
    }

    pub(crate) fn can(&self, request: Request) -> bool {
        match &self.dialect {
            Dialect::Path(path) if path == NATIVE_PATH => true,
            Dialect::Path(_) => {
                matches!(
                    request,
                    Request::Get | Request::Put | Request::Patch | Request::Delete
                )
            }
            Dialect::Webdis | Dialect::Etcd => matches!(request, Request::Get | Request::Put),
        }
    }

    pub(crate) fn append(
        &self,
        request: Request,
        number: u64,
        material: &Material<'_>,
        questions: &mut Questions,
        out: &mut Vec<u8>,
    ) {
        if self.dialect == Dialect::Etcd {
            return self.append_etcd(request, number, material.values, questions, out);
        }
        let key = &key(number);
        match request {
            Request::Get => {
                out.extend_from_slice(self.get.as_bytes());
                out.extend_from_slice(key);
                if self.dialect == Dialect::Webdis {
                    out.extend_from_slice(b".txt");
                }
                out.extend_from_slice(self.end.as_bytes());
            }
            Request::Put => {
                out.extend_from_slice(self.put.as_bytes());
                out.extend_from_slice(key);
                self.append_length(material.values.bytes(number), out);
                material.values.append(number, questions.random(), out);
            }
            Request::Patch => {
                out.extend_from_slice(b"PATCH ");
                out.extend_from_slice(&self.put.as_bytes()["PUT ".len()..]);
                out.extend_from_slice(key);
                self.append_length(PATCH_BYTES, out);
                append_patch(questions.random(), out);
            }
            Request::Delete => {
                out.extend_from_slice(b"DELETE ");
                out.extend_from_slice(&self.put.as_bytes()["PUT ".len()..]);
                out.extend_from_slice(key);
                out.extend_from_slice(self.end.as_bytes());
            }
            Request::List | Request::Scan => {
                let values = if request == Request::Scan {
                    "&values=true"
                } else {
                    ""
                };
                write!(
                    out,
                    "GET /v1/keys?limit={}{values}{}",
                    material.page, self.end
                )
                .expect("writing to memory does not fail");
            }
            Request::BatchGet | Request::BatchPut => {
                let mut body = Vec::new();
                let mut number = number;
                for operation in 0..material.batch {
                    if operation > 0 {
                        number = questions.number();
                    }
                    append_operation(request, number, material.values, questions, &mut body);
                }
                write!(
                    out,
                    "POST /v1/batch HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-ndjson\r\n\
                     Content-Length: {}\r\n\r\n",
                    self.host,
                    body.len()
                )
                .expect("writing to memory does not fail");
                out.extend_from_slice(&body);
            }
        }
    }

    fn append_etcd(
        &self,
        request: Request,
        number: u64,
        values: &Values,
        questions: &mut Questions,
        out: &mut Vec<u8>,
    ) {
        let key = BASE64_STANDARD.encode(key(number));
        let (head, body) = if request == Request::Put {
            let mut value = Vec::new();
            values.append(number, questions.random(), &mut value);
            let value = BASE64_STANDARD.encode(&value);
            (&self.put, format!(r#"{{"key":"{key}","value":"{value}"}}"#))
        } else {
            (&self.get, format!(r#"{{"key":"{key}"}}"#))
        };
        out.extend_from_slice(head.as_bytes());
        self.append_length(body.len(), out);
        out.extend_from_slice(body.as_bytes());
    }

    /// The rest of the header, for a body of so many bytes.
    fn append_length(&self, bytes: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.length.as_bytes());
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = bytes;
        loop {
            at -= 1;
            digits[at] = b"0123456789"[rest % 10];
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        out.extend_from_slice(&digits[at..]);
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// One operation of a batch, as a line.
fn append_operation(
    request: Request,
    number: u64,
    values: &Values,
    questions: &mut Questions,
    out: &mut Vec<u8>,
) {
    let put = request == Request::BatchPut;
    out.extend_from_slice(if put {
        br#"{"op":"put","key":""#
    } else {
        br#"{"op":"get","key":""#
    });
    out.extend_from_slice(&key(number));
    out.push(b'"');
    if put {
        out.extend_from_slice(br#","value":"#);
        values.append(number, questions.random(), out);
    }
    out.extend_from_slice(b"}\n");
}

/// How many operations of a batch succeeded, by the statuses in its answer.
pub(crate) fn results_of_batch(answer: &[u8]) -> usize {
    const SUCCESS: &[u8] = br#""status":20"#;
    let mut found = 0;
    let mut rest = answer;
    // A colon is rarer than any letter, and tells at once where a member of another name ends.
    while let Some(colon) = rest.iter().position(|&byte| byte == b':') {
        let before = &rest[..colon + 1];
        let after = rest.get(colon + 1..colon + 3);
        if before.ends_with(&SUCCESS[..9]) && after == Some(&SUCCESS[9..]) {
            found += 1;
        }
        rest = &rest[colon + 1..];
    }
    found
}

/// What the lines before the body say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Bytes up to and with the empty line.
    pub(crate) bytes: usize,
    pub(crate) framing: Framing,
    /// The server closes the connection after this answer.
    pub(crate) closes: bool,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Bytes(usize),
    Chunked,
}

impl Framing {
    /// Where the body at the front of `input` ends, and how many bytes of content it has; nothing before it is whole.
    pub(crate) fn end(self, input: &[u8]) -> Result<Option<(usize, usize)>, &'static str> {
        match self {
            Self::Bytes(bytes) if input.len() < bytes => Ok(None),
            Self::Bytes(bytes) => Ok(Some((bytes, bytes))),
            Self::Chunked => chunks(input, |_| {}),
        }
    }
}

/// Goes through the chunks at the front of `input`; where they end, and how many bytes they had.
pub(crate) fn chunks(
    input: &[u8],
    mut each: impl FnMut(&[u8]),
) -> Result<Option<(usize, usize)>, &'static str> {
    let (mut at, mut content) = (0, 0);
    loop {
        let Some((size, next)) = line(input, at) else {
            return Ok(None);
        };
        let digits = size.split(|&byte| byte == b';').next().unwrap_or_default();
        let digits = str::from_utf8(digits.trim_ascii()).map_err(|_| "size of a chunk")?;
        let bytes = usize::from_str_radix(digits, 16).map_err(|_| "size of a chunk")?;
        if bytes > BODY_BYTES_MAX || content + bytes > BODY_BYTES_MAX {
            return Err("size of a chunk");
        }
        if bytes == 0 {
            // Trailers up to an empty line.
            let mut at = next;
            loop {
                match line(input, at) {
                    None => return Ok(None),
                    Some(([], end)) => return Ok(Some((end, content))),
                    Some((_, next)) => at = next,
                }
            }
        }
        let Some(chunk) = input.get(next..next + bytes) else {
            return Ok(None);
        };
        match input.get(next + bytes..next + bytes + 2) {
            Some(b"\r\n") => {}
            Some(_) => return Err("end of a chunk"),
            None => return Ok(None),
        }
        each(chunk);
        content += bytes;
        at = next + bytes + 2;
    }
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
    let mut chunked = false;
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
                if !value(field, 17).eq_ignore_ascii_case(b"chunked") {
                    return Malformed("transfer-encoding");
                }
                chunked = true;
            }
            Some(_) => {}
            None => return Malformed("header field"),
        }
    }
    let framing = match (status, chunked, body_bytes) {
        (100..=199 | 204 | 304, ..) => Framing::Bytes(0),
        (_, true, None) => Framing::Chunked,
        (_, false, Some(bytes)) => Framing::Bytes(bytes),
        (_, true, Some(_)) => return Malformed("two lengths"),
        (_, false, None) => return Malformed("no content-length"),
    };
    ParsedHead::Whole(Head {
        status,
        bytes: at,
        framing,
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
    let (used, body_bytes) = match head.framing.end(&input[head.bytes..]) {
        Ok(None) => return Parsed::Incomplete,
        Ok(Some((end, body_bytes))) => (head.bytes + end, body_bytes),
        Err(what) => return Parsed::Malformed(what),
    };
    let closes = head.closes;
    let answer = match head.status {
        200..=299 => Answer::Success { body_bytes, closes },
        404 => Answer::Missing { closes },
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
    fn chunks_are_one_body() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=1\r\n0123456789\r\n0\r\nT: 1\r\n\r\n";
        for cut in 0..answer.len() {
            assert_eq!(parse(&answer[..cut]), Parsed::Incomplete, "cut at {cut}");
        }
        let used = answer.len();
        let expected = Parsed::Whole {
            used,
            answer: success(15),
        };
        assert_eq!(parse(answer), expected);
    }

    #[test]
    fn results_of_a_batch_are_counted_by_their_status() {
        let answer = br#"{"status":201,"version":0}
{"status":404,"code":"NOT_FOUND"}
{"status":200,"value":{"a":"b:c"}}"#;
        assert_eq!(results_of_batch(answer), 2);
        assert_eq!(results_of_batch(b""), 0);
    }

    #[test]
    fn requests_are_whole() {
        let values = Values::new(&crate::cli::Data::new(10, 100, 1));
        let material = Material {
            values: &values,
            batch: 3,
            page: 10,
        };
        let place = crate::workload::mix::Place {
            index: 0,
            workers: 1,
        };
        let order = crate::workload::mix::Order::Uniform;
        let mut questions = Questions::new(1, 10, order, Vec::new(), place);
        let host: SocketAddr = ([127, 0, 0, 1], 8080).into();
        let dialects = [
            Dialect::Path(NATIVE_PATH.to_owned()),
            Dialect::Webdis,
            Dialect::Etcd,
        ];
        for dialect in dialects {
            let requests = Requests::new(dialect.clone(), host);
            for request in [
                Request::Get,
                Request::Put,
                Request::Patch,
                Request::BatchPut,
            ] {
                if !requests.can(request) {
                    continue;
                }
                let mut out = Vec::new();
                requests.append(request, 7, &material, &mut questions, &mut out);
                let text = String::from_utf8(out).expect("a request is text");
                let (head, body) = text.split_once("\r\n\r\n").expect("a head ends");
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("Content-Length: "));
                let length = length.map_or(0, |length| length.parse().expect("a number"));
                assert_eq!(body.len(), length, "{dialect:?} {request:?}: {text}");
                for line in body.lines() {
                    serde_json::from_str::<serde_json::Value>(line).expect("a body is JSON");
                }
            }
        }
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
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
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
