//! A small blocking HTTP/1.1 client over one kept-alive connection, for the client subcommands (RFC 9112).
//!
//! It speaks to this server and to proxies before it: bodies by length, in chunks, or to the end of the connection. No
//! redirects, no cookies. TLS with the authorities of one file, where the build has it.

use super::wire::{Security, Wire};
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Longest line of a response's head, and of a chunk's size.
const LINE_BYTES_MAX: u64 = 64 << 10;
const HEADERS_MAX: usize = 256;
/// Largest body that is kept in memory whole.
const BODY_BYTES_MAX: u64 = 2 << 30;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a server is: `http://host:port` and perhaps a path before every request's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// As it goes into the `Host` header; IPv6 addresses in brackets.
    authority: String,
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl Url {
    /// The parts of a URL, or in words what would be right.
    pub(crate) fn parse(text: &str) -> Result<Url, &'static str> {
        const EXPECTED: &str = "http://HOST:PORT or https://HOST:PORT";
        let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(EXPECTED),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let clean = |byte: u8| byte.is_ascii_graphic() && !b"?#@".contains(&byte);
        if !authority.bytes().all(clean) || !path.bytes().all(clean) {
            return Err(EXPECTED);
        }
        let after_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
        let (host, port) = match authority[after_host..].find(':') {
            Some(colon) => {
                let (host, port) = authority.split_at(after_host + colon);
                (host, port[1..].parse().map_err(|_| EXPECTED)?)
            }
            None if tls => (authority, 443),
            None => (authority, 80),
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if bare.is_empty() {
            return Err(EXPECTED);
        }
        Ok(Url {
            authority: authority.to_owned(),
            tls,
            host: bare.to_owned(),
            port,
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// As it was written, but for trailing slashes.
    pub(crate) fn text(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.path)
    }

    /// Whether it takes TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    /// Path and query, already encoded.
    pub(crate) target: &'a str,
    pub(crate) headers: &'a [(&'static str, String)],
    pub(crate) body: Option<&'a [u8]>,
}

/// A connection, made when it is first needed and again when the server has closed it.
#[derive(Debug)]
pub(crate) struct Connection {
    url: Url,
    timeout: Duration,
    /// Sent with every request.
    token: Option<Token>,
    security: Security,
    stream: Option<BufReader<Wire>>,
}

/// A token, which no message shows.
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// Status and headers of an answer; the body is read from it.
#[derive(Debug)]
pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    body: Body<'a>,
}

impl Connection {
    pub(crate) fn new(
        url: Url,
        timeout: Duration,
        token: Option<String>,
        security: Security,
    ) -> Self {
        Connection {
            url,
            timeout,
            token: token.map(Token),
            security,
            stream: None,
        }
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Sends a request and reads the head of the answer. The body must be read to its end before the next request;
    /// otherwise that one begins on a new connection.
    pub(crate) fn send(&mut self, request: Request<'_>) -> io::Result<Response<'_>> {
        let answered = self.answered(request).map_err(in_words)?;
        Ok(self.response(answered))
    }

    fn answered(&mut self, request: Request<'_>) -> io::Result<Answered> {
        let head = self.head(request);
        if let Some(stream) = self.stream.take() {
            // The server may have closed a connection that was idle; then nothing of the request was looked at.
            match exchange(stream, &head, request) {
                Err(error) if is_closed(&error) => {}
                answered => return answered,
            }
        }
        exchange(self.connect()?, &head, request)
    }

    fn head(&self, request: Request<'_>) -> String {
        let Url {
            authority, path, ..
        } = &self.url;
        let mut head = format!(
            "{} {path}{} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: inflightkv/{}\r\n",
            request.method,
            request.target,
            env!("CARGO_PKG_VERSION")
        );
        if let Some(Token(token)) = &self.token {
            write!(head, "Authorization: Bearer {token}\r\n")
                .expect("a string takes whatever is written");
        }
        for (name, value) in request.headers {
            write!(head, "{name}: {value}\r\n").expect("a string takes whatever is written");
        }
        if let Some(body) = request.body {
            write!(head, "Content-Length: {}\r\n", body.len())
                .expect("a string takes whatever is written");
        }
        head.push_str("\r\n");
        head
    }

    fn connect(&self) -> io::Result<BufReader<Wire>> {
        let addresses = (self.url.host.as_str(), self.url.port).to_socket_addrs()?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT.min(self.timeout)) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(self.timeout))?;
                    stream.set_write_timeout(Some(self.timeout))?;
                    let wire = self.security.begin(stream, &self.url.host)?;
                    return Ok(BufReader::new(wire));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn response(&mut self, answered: Answered) -> Response<'_> {
        let Answered {
            stream,
            head,
            length,
        } = answered;
        let keep = length != Length::ToEnd && !head.closes();
        Response {
            status: head.status,
            headers: head.headers,
            body: Body {
                stream: Some(stream),
                left: length,
                keep: keep.then_some(&mut self.stream),
            }
            .settled(),
        }
    }
}

impl Response<'_> {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The whole body.
    pub(crate) fn into_bytes(mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.body
            .by_ref()
            .take(BODY_BYTES_MAX + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > BODY_BYTES_MAX {
            return Err(invalid("the answer is larger than 2 GiB"));
        }
        Ok(bytes)
    }

    /// The body as it arrives.
    pub(crate) fn into_reader(self) -> impl BufRead {
        BufReader::with_capacity(64 << 10, self.body)
    }
}

/// A request answered as far as its head.
struct Answered {
    stream: BufReader<Wire>,
    head: Head,
    length: Length,
}

struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// How much of a body is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Bytes(u64),
    /// Bytes left of the current chunk; its line end and further chunks follow.
    Chunk {
        left: u64,
        first: bool,
    },
    ToEnd,
    Done,
}

#[derive(Debug)]
struct Body<'a> {
    /// Given back to the connection when the body has been read to its end.
    stream: Option<BufReader<Wire>>,
    left: Length,
    keep: Option<&'a mut Option<BufReader<Wire>>>,
}

fn exchange(mut stream: BufReader<Wire>, head: &str, request: Request<'_>) -> io::Result<Answered> {
    let written = write_request(stream.get_mut(), head, request);
    let head = match (read_head(&mut stream), written) {
        (Ok(head), _) => head,
        // A server that refuses a body closes before all of it is written; if it has answered, that says more.
        (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
    };
    let length = body_length(request.method, &head)?;
    Ok(Answered {
        stream,
        head,
        length,
    })
}

fn write_request(stream: &mut Wire, head: &str, request: Request<'_>) -> io::Result<()> {
    match request.body {
        // Small ones in one packet.
        Some(body) if body.len() <= 16 << 10 => stream.write_all(&[head.as_bytes(), body].concat()),
        Some(body) => {
            stream.write_all(head.as_bytes())?;
            stream.write_all(body)
        }
        None => stream.write_all(head.as_bytes()),
    }?;
    stream.flush()
}

fn read_head(stream: &mut impl BufRead) -> io::Result<Head> {
    loop {
        let line = read_line(stream)?;
        let status = parse_status(&line).ok_or_else(|| invalid("the answer is not HTTP/1.1"))?;
        let mut headers = Vec::new();
        loop {
            let line = read_line(stream)?;
            if line.is_empty() {
                break;
            }
            if headers.len() == HEADERS_MAX {
                return Err(invalid("the answer has too many headers"));
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| invalid("the answer has a header without a colon"))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        // 1xx are on the way; the answer follows.
        if status >= 200 {
            return Ok(Head { status, headers });
        }
    }
}

fn parse_status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.")?;
    let (_, rest) = rest.split_once(' ')?;
    let code = rest.get(..3)?;
    code.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| code.parse().ok())
        .flatten()
        .filter(|status| (100..600).contains(status))
}

/// RFC 9112, section 6.3.
fn body_length(method: &str, head: &Head) -> io::Result<Length> {
    if method == "HEAD" || matches!(head.status, 204 | 304) {
        return Ok(Length::Done);
    }
    if let Some(coding) = head.header("transfer-encoding") {
        if coding.eq_ignore_ascii_case("chunked") {
            return Ok(Length::Chunk {
                left: 0,
                first: true,
            });
        }
        return Err(invalid(
            "the answer has a transfer coding that is not known",
        ));
    }
    match head.header("content-length") {
        Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let length = length.parse();
            length
                .map(Length::Bytes)
                .map_err(|_| invalid("the answer's content-length is no length"))
        }
        Some(_) => Err(invalid("the answer's content-length is no length")),
        None => Ok(Length::ToEnd),
    }
}

/// One line without its end. Lines that are not UTF-8 are no lines of HTTP that this client has a use for.
fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream
        .by_ref()
        .take(LINE_BYTES_MAX)
        .read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        if line.len() as u64 >= LINE_BYTES_MAX - 1 {
            return Err(invalid("the answer has a line that is too long"));
        }
        return Err(closed());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| invalid("the answer has a line that is not UTF-8"))
}

impl<'a> Body<'a> {
    /// A body of which nothing is left gives its stream back at once.
    fn settled(mut self) -> Body<'a> {
        if matches!(self.left, Length::Done | Length::Bytes(0)) {
            self.end();
        }
        self
    }

    fn end(&mut self) {
        self.left = Length::Done;
        let stream = self.stream.take();
        if let Some(kept) = self.keep.take() {
            *kept = stream;
        }
    }

    /// Bytes that may be read before something else has to be looked at; 0 at the end.
    fn room(&mut self) -> io::Result<u64> {
        let Some(stream) = self.stream.as_mut() else {
            return Ok(0);
        };
        match self.left {
            Length::Done => Ok(0),
            Length::Bytes(left) => Ok(left),
            Length::ToEnd => Ok(u64::MAX),
            Length::Chunk { left, .. } if left > 0 => Ok(left),
            Length::Chunk { first, .. } => {
                if !first && !read_line(stream)?.is_empty() {
                    return Err(invalid("a chunk of the answer is longer than it says"));
                }
                let line = read_line(stream)?;
                let digits = line.split(';').next().unwrap_or_default().trim();
                let left = u64::from_str_radix(digits, 16)
                    .map_err(|_| invalid("a chunk of the answer has no size"))?;
                if left == 0 {
                    // Trailers say nothing that this client wants to know.
                    while !read_line(stream)?.is_empty() {}
                }
                self.left = Length::Chunk { left, first: false };
                Ok(left)
            }
        }
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let room = self.room()?;
        let Some(stream) = self.stream.as_mut().filter(|_| room > 0) else {
            self.end();
            return Ok(0);
        };
        let wanted = usize::try_from(room)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = stream.read(&mut buffer[..wanted]).map_err(in_words)?;
        match &mut self.left {
            Length::Bytes(left) | Length::Chunk { left, .. } => {
                if read == 0 {
                    return Err(closed());
                }
                *left -= read as u64;
                if self.left == Length::Bytes(0) {
                    self.end();
                }
            }
            Length::ToEnd if read == 0 => self.end(),
            Length::ToEnd | Length::Done => {}
        }
        Ok(read)
    }
}

fn find<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers
        .iter()
        .find(|(candidate, _)| candidate.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the connection was closed before the answer was complete",
    )
}

/// What the system says of a time-out is that a resource is unavailable.
fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::new(
            io::ErrorKind::TimedOut,
            "the server was silent for too long",
        ),
        _ => error,
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

#[cfg(test)]
mod tests;
