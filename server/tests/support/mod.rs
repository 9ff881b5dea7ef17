//! A server in a process of its own, and a client that sees every byte of an answer.
#![allow(dead_code, reason = "each suite uses the part it needs")]

use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a test waits for an answer before it takes the server for hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// What a server wrote to standard error, gathered by a thread until it ended.
pub(crate) struct Logs(std::thread::JoinHandle<String>);

impl Server {
    /// Starts one in memory on a free port, with `flags` added.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::spawn(binary(), flags)
    }

    /// Starts one by `command`, which runs the binary with the arguments behind its own.
    pub(crate) fn spawn(command: Command, flags: &[&str]) -> Self {
        Self::launch(command, flags, Stdio::inherit()).0
    }

    /// The same as [`start`](Self::start), with what it logs.
    pub(crate) fn start_logging(flags: &[&str]) -> (Self, Logs) {
        let (server, stderr) = Self::launch(binary(), flags, Stdio::piped());
        let mut stderr = stderr.expect("standard error is piped");
        let gathering = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).expect("text");
            text
        });
        (server, Logs(gathering))
    }

    fn launch(
        mut command: Command,
        flags: &[&str],
        stderr: Stdio,
    ) -> (Self, Option<std::process::ChildStderr>) {
        let quiet: &[&str] = if flags.contains(&"--log-level") {
            &[]
        } else {
            &["--log-level", "warn"]
        };
        let mut child = command
            .args(["--listen", "127.0.0.1:0"])
            .args(quiet)
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("standard output is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the server announces itself");
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .expect("the announcement names the address");
        let stderr = child.stderr.take();
        let server = Self {
            address: address.parse().expect("an address"),
            child,
        };
        if flags.contains(&"--data-dir") {
            // It is announced before it has recovered when that takes long, as it may on a busy machine.
            eventually("the store is loaded", || {
                server.ask("GET /health/startup", "").status == 200
            });
        }
        (server, stderr)
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// One request on a connection of its own. `request` is a method and a target, and, on further lines, fields.
    pub(crate) fn ask(&self, request: &str, body: impl AsRef<[u8]>) -> Answer {
        self.connect().ask(request, body)
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        self.status_bytes("VmRSS:")
    }

    /// What of it is the process's own, not its program's.
    pub(crate) fn anonymous_bytes(&self) -> usize {
        self.status_bytes("RssAnon:")
    }

    fn status_bytes(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("the process lives");
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .expect("a size");
        line.split_whitespace()
            .nth(1)
            .expect("a number")
            .parse::<usize>()
            .expect("kibibytes")
            * 1024
    }

    /// Asks it to end.
    pub(crate) fn signal(&self) {
        self.send_signal(Signal::TERM);
    }

    /// Asks it to read its configuration again.
    pub(crate) fn hang_up(&self) {
        self.send_signal(Signal::HUP);
    }

    pub(crate) fn send_signal(&self, signal: Signal) {
        let process = Pid::from_child(&self.child);
        kill_process(process, signal).expect("the process lives");
    }

    /// Ends it as a power switch would, as far as a process can tell.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the process lives");
        self.child.wait().expect("the process ends");
    }

    /// Waits until it has ended by itself; whether it ended well.
    pub(crate) fn wait(mut self) -> bool {
        self.child.wait().expect("the server ends").success()
    }

    /// Asks it to end, and waits until it has; whether it ended well.
    pub(crate) fn terminate(mut self) -> bool {
        self.signal();
        self.child.wait().expect("the server ends").success()
    }
}

impl Logs {
    /// Everything, of a server that has ended.
    pub(crate) fn read(self) -> String {
        self.0.join().expect("standard error is read")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary, with none of our variables in its environment.
pub(crate) fn binary() -> Command {
    without_variables(Command::new(env!("CARGO_BIN_EXE_inflightkv")))
}

/// A command that does not see the variables that configure the server.
pub(crate) fn without_variables(mut command: Command) -> Command {
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("INFLIGHTKV_"))
    {
        command.env_remove(name);
    }
    command
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// An answer, byte for byte but for the order of its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of the field `name` (in lower case), if it is there once.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(known, _)| known == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        value
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn etag(&self) -> &str {
        self.field("etag")
            .unwrap_or_else(|| panic!("no ETag: {self:?}"))
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server accepts connections");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        stream.set_nodelay(true).expect("a connected socket");
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Another connection to the same server.
    pub(crate) fn another(&self) -> Self {
        Self::connect(self.stream.peer_addr().expect("a connected socket"))
    }

    /// What has come of an answer without an end, up to and with the next empty line.
    pub(crate) fn next_block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.unread, b"\n\n") {
                let rest = self.unread.split_off(end + 2);
                let block = std::mem::replace(&mut self.unread, rest);
                return Some(String::from_utf8(block).expect("text"));
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Sends bytes as they are; an error when the server has closed the connection.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends what is taken within `time`; how much that was.
    pub(crate) fn send_within(&mut self, bytes: &[u8], time: Duration) -> usize {
        self.stream
            .set_write_timeout(Some(time))
            .expect("a timeout can be set");
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(more) => sent += more,
                Err(_) => break,
            }
        }
        sent
    }

    /// Says that no more is coming.
    pub(crate) fn end(&self) {
        // The server may have closed the connection already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Spells a request out and sends it.
    pub(crate) fn request(&mut self, request: &str, body: impl AsRef<[u8]>) {
        let bytes = spelt(request, body.as_ref());
        self.send(&bytes).expect("the request is taken");
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(&mut self, request: &str, body: impl AsRef<[u8]>) -> Answer {
        self.request(request, body);
        self.answer(request.starts_with("HEAD"))
            .unwrap_or_else(|| panic!("closed without an answer to {request}"))
    }

    /// Sends a request and reads its answer; `None` when the server was gone before all of it had come.
    pub(crate) fn attempt(&mut self, request: &str, body: impl AsRef<[u8]>) -> Option<Answer> {
        self.send(spelt(request, body.as_ref())).ok()?;
        self.whole_answer(request.starts_with("HEAD"))
            .unwrap_or_default()
    }

    /// The next answer; `None` when the connection ends instead. Interim answers are passed over.
    pub(crate) fn answer(&mut self, to_head: bool) -> Option<Answer> {
        loop {
            let answer = self.any_answer(to_head)?;
            if answer.status >= 200 {
                return Some(answer);
            }
        }
    }

    /// The next answer, also an interim one.
    pub(crate) fn any_answer(&mut self, to_head: bool) -> Option<Answer> {
        self.whole_answer(to_head).unwrap_or_else(|CutOff| {
            panic!(
                "an answer was cut off: {:?}",
                String::from_utf8_lossy(&self.unread)
            )
        })
    }

    fn whole_answer(&mut self, to_head: bool) -> Result<Option<Answer>, CutOff> {
        let head = loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                break String::from_utf8(self.bytes(end + 4)?).expect("heads are ASCII");
            }
            if !self.more() {
                return if self.unread.is_empty() {
                    Ok(None)
                } else {
                    Err(CutOff)
                };
            }
        };
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1."))
            .and_then(|line| line.split_once(' '))
            .expect("a status line")
            .1;
        let status: u16 = status[..3].parse().expect("three digits");
        let fields: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let field = |name| {
            fields
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
        };
        let body = if to_head || status < 200 || status == 204 || status == 304 {
            Vec::new()
        } else if field("transfer-encoding") == Some("chunked") {
            self.chunks()?
        } else {
            let len = field("content-length")
                .expect("a length")
                .parse()
                .expect("a number");
            self.bytes(len)?
        };
        Ok(Some(Answer {
            status,
            fields,
            body,
        }))
    }

    /// Whether the server closes the connection without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && !self.more()
    }

    /// Everything up to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.unread)
    }

    fn chunks(&mut self) -> Result<Vec<u8>, CutOff> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(end) = find(&self.unread, b"\r\n") {
                    break end;
                }
                if !self.more() {
                    return Err(CutOff);
                }
            };
            let line = self.bytes(end + 2)?;
            let len = usize::from_str_radix(std::str::from_utf8(&line[..end]).expect("ASCII"), 16)
                .expect("a length");
            let chunk = self.bytes(len + 2)?;
            if len == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..len]);
        }
    }

    /// The next `len` bytes.
    pub(crate) fn bytes_of(&mut self, len: usize) -> Vec<u8> {
        self.bytes(len).expect("the connection goes on")
    }

    fn bytes(&mut self, len: usize) -> Result<Vec<u8>, CutOff> {
        while self.unread.len() < len {
            if !self.more() {
                return Err(CutOff);
            }
        }
        let rest = self.unread.split_off(len);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    /// Reads on; false at the end.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        match self.stream.read(&mut buffer) {
            Ok(read) => {
                self.unread.extend_from_slice(&buffer[..read]);
                read > 0
            }
            // A process that is waited for somewhere else in this one.
            Err(error) if error.kind() == ErrorKind::Interrupted => self.more(),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                ) =>
            {
                false
            }
            Err(error) => panic!("no answer within {PATIENCE:?}: {error}"),
        }
    }
}

/// The connection ended in the middle of an answer.
#[derive(Debug)]
struct CutOff;

/// A request as bytes: a method and a target, fields on further lines, and a body with its length.
pub(crate) fn spelt(request: &str, body: &[u8]) -> Vec<u8> {
    let mut lines = request.lines();
    let mut head = format!(
        "{} HTTP/1.1\r\nHost: test\r\n",
        lines.next().expect("a method and a target")
    );
    for line in lines {
        write!(head, "{}\r\n", line.trim()).expect("writing to a string");
    }
    if !body.is_empty() || request.starts_with('P') {
        write!(head, "Content-Length: {}\r\n", body.len()).expect("writing to a string");
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Waits until `done`, or fails.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(
            Instant::now() < deadline,
            "{what} did not happen within {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
