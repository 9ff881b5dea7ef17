//! A server follows another one over real sockets, and takes its place without anybody losing anything.
#![cfg(feature = "cli")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use inflightkv_server::engine::StreamReader;
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_inflightkv"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("INFLIGHTKV_") {
                command.env_remove(name);
            }
        }
        command.args(["serve", "--threads", "2"]).args(arguments);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", ":0"]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe"))
            .read_line(&mut line)
            .expect("a line");
        let address = line
            .trim_end()
            .strip_prefix("listening on http://")
            .expect("where it listens")
            .to_owned();
        let server = Server { child, address };
        // A follower has loaded what there was by then.
        let deadline = Instant::now() + PATIENCE;
        while server.ask("GET", "/health/startup", "").status != 200 {
            assert!(Instant::now() < deadline, "it does not start");
            thread::sleep(Duration::from_millis(10));
        }
        server
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn ask(&self, method: &str, target: &str, body: &str) -> Answer {
        Client::new(&self.address).ask(method, target, body)
    }

    fn health(&self) -> Value {
        self.ask("GET", "/health/ready", "").json()
    }

    /// Waits until the server has everything that is on the other one's disk, and has had something from it.
    fn catches_up(&self, sequence: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let health = self.health();
            let following = &health["following"];
            let applied = following["appliedSequence"].as_u64();
            if following["connected"] == true && applied >= Some(sequence) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "it does not catch up with {sequence}: {health}"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Answer {
    status: u16,
    etag: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON document")
    }
}

/// A connection that is kept.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn new(address: &str) -> Client {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Client {
            stream: BufReader::new(stream),
        }
    }

    fn ask(&mut self, method: &str, target: &str, body: &str) -> Answer {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream
            .get_mut()
            .write_all(head.as_bytes())
            .expect("sent");
        let (status, headers) = self.head();
        let length = headers
            .get("content-length")
            .map_or(0, |length| length.parse().expect("a length"));
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("the body");
        Answer {
            status,
            etag: headers.get("etag").cloned(),
            body,
        }
    }

    fn head(&mut self) -> (u16, BTreeMap<String, String>) {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a status line");
        let status = line
            .split(' ')
            .nth(1)
            .expect("a status")
            .parse()
            .expect("a number");
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).expect("a header");
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                return (status, headers);
            };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
    }
}

fn with_dir<'a>(directory: &'a TempDir, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec![
        "--data-dir",
        directory.path().to_str().expect("a path of text"),
    ];
    arguments.extend(["--wal-sync", "always"]);
    arguments.extend(more);
    arguments
}

fn sequence(server: &Server) -> u64 {
    let stats = server.ask("GET", "/v1/admin/stats", "").json();
    stats["sequence"].as_u64().expect("a sequence")
}

/// Writers and readers go on while the store moves from one process to another: no read fails, no acknowledged write is lost, and
/// entity tags stay what they were.
#[test]
fn a_loaded_store_moves_between_two_processes_under_load() {
    let directories = [
        TempDir::new().expect("a folder"),
        TempDir::new().expect("a folder"),
    ];
    let old = Server::start(&with_dir(
        &directories[0],
        &["--wal-segment-size", "256KiB"],
    ));
    let mut client = Client::new(&old.address);
    for n in 0..2000 {
        let answer = client.ask(
            "PUT",
            &format!("/v1/kv/loaded/{n}"),
            &format!("{{\"n\":{n}}}"),
        );
        assert_eq!(answer.status, 201);
    }
    assert_eq!(client.ask("DELETE", "/v1/kv/loaded/1999", "").status, 204);
    let tag = client
        .ask("GET", "/v1/kv/loaded/7", "")
        .etag
        .expect("a tag");

    let url = old.url();
    let mut new = Server::start(&with_dir(&directories[1], &["--follow", &url]));
    let addresses = Arc::new(Mutex::new(old.address.clone()));
    let stop = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let (addresses, stop) = (Arc::clone(&addresses), Arc::clone(&stop));
            thread::spawn(move || {
                let mut acknowledged = BTreeMap::new();
                let mut address = addresses.lock().expect("a lock").clone();
                let mut client = Client::new(&address);
                for n in 0_u64.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let key = format!("written/{writer}/{}", n % 50);
                    loop {
                        let answer = client.ask("PUT", &format!("/v1/kv/{key}"), &n.to_string());
                        match answer.status {
                            201 | 204 => break,
                            // It was handed over: the new one takes it, sooner or later.
                            503 => {
                                let now = addresses.lock().expect("a lock").clone();
                                if now != address {
                                    address = now;
                                    client = Client::new(&address);
                                }
                                thread::sleep(Duration::from_millis(2));
                            }
                            other => panic!("{other}: {}", String::from_utf8_lossy(&answer.body)),
                        }
                    }
                    acknowledged.insert(key, n.to_string());
                }
                acknowledged
            })
        })
        .collect();
    let readers: Vec<_> = [old.address.clone(), new.address.clone()]
        .into_iter()
        .enumerate()
        .map(|(index, address)| {
            let (stop, reads) = (Arc::clone(&stop), Arc::clone(&reads));
            // The new one serves reads as soon as it has loaded what there was.
            if index == 1 {
                new.catches_up(1);
            }
            thread::spawn(move || {
                let mut client = Client::new(&address);
                for n in (0..1999).cycle() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let answer = client.ask("GET", &format!("/v1/kv/loaded/{n}"), "");
                    assert_eq!(answer.status, 200, "reading {n} from {address}");
                    assert_eq!(answer.json()["n"], n);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    // Both write and read for a while, and the new one is connected.
    new.catches_up(sequence(&old));
    let health = new.health();
    assert_eq!(health["status"], "DOWN");
    assert_eq!(health["following"]["connected"], true, "{health}");
    assert!(health["following"]["behind"].is_u64(), "{health}");
    let refused = new.ask("PUT", "/v1/kv/mine", "1");
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (503, &"READ_ONLY".into())
    );

    let promoted = new.ask("POST", "/v1/admin/promote", "");
    assert_eq!(
        promoted.status,
        200,
        "{}",
        String::from_utf8_lossy(&promoted.body)
    );
    let first = promoted.json()["sequence"].as_u64().expect("a sequence");
    let last_there = sequence(&old);
    assert!(first > last_there);
    let refused = old.ask("PUT", "/v1/kv/mine", "1");
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (503, &"READ_ONLY".into())
    );
    *addresses.lock().expect("a lock") = new.address.clone();
    thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = BTreeMap::new();
    for writer in writers {
        acknowledged.extend(writer.join().expect("the writer ends"));
    }
    readers
        .into_iter()
        .for_each(|reader| reader.join().expect("no read fails"));
    assert!(reads.load(Ordering::Relaxed) > 100);
    assert!(acknowledged.len() > 50);
    drop(old);

    let check = |server: &Server| {
        let mut client = Client::new(&server.address);
        for (key, value) in &acknowledged {
            let answer = client.ask("GET", &format!("/v1/kv/{key}"), "");
            assert_eq!(answer.status, 200, "{key}");
            assert_eq!(String::from_utf8_lossy(&answer.body), *value, "{key}");
        }
        assert_eq!(client.ask("GET", "/v1/kv/loaded/1999", "").status, 404);
        let same = client.ask("GET", "/v1/kv/loaded/7", "");
        assert_eq!(same.etag.as_ref(), Some(&tag), "entity tags move along");
    };
    assert_eq!(new.health()["status"], "UP");
    check(&new);
    // And it is all on its own disk.
    new.kill();
    let again = Server::start(&with_dir(&directories[1], &[]));
    check(&again);
    assert!(sequence(&again) >= first);
}

/// The connection breaks, the other server restarts: following goes on from where it was. When it is gone for good, its follower
/// takes over on request only.
#[test]
fn following_survives_a_restart_of_the_other_server_and_its_loss() {
    let directory = TempDir::new().expect("a folder");
    let mut old = Server::start(&with_dir(&directory, &[]));
    old.ask("PUT", "/v1/kv/a", "1");
    let port = old.address.rsplit(':').next().expect("a port").to_owned();
    let url = old.url();
    let new = Server::start(&["--follow", &url]);
    new.catches_up(sequence(&old));
    assert_eq!(new.ask("GET", "/v1/kv/a", "").body, b"1");
    old.kill();
    let listen = format!(":{port}");
    let mut old = Server::start(&with_dir(&directory, &["--listen", &listen]));
    old.ask("PUT", "/v1/kv/b", "2");
    new.catches_up(sequence(&old));
    assert_eq!(new.ask("GET", "/v1/kv/b", "").body, b"2");
    let wrong = old.ask("POST", "/v1/admin/promote", "");
    assert_eq!(
        (wrong.status, &wrong.json()["code"]),
        (409, &"WRONG_ROLE".into())
    );

    old.kill();
    let deadline = Instant::now() + PATIENCE;
    while new.health()["following"]["connected"] == true {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(10));
    }
    let refused = new.ask("POST", "/v1/admin/promote", "");
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (409, &"NOT_HANDED_OVER".into())
    );
    assert_eq!(new.ask("PUT", "/v1/kv/c", "3").status, 503);
    assert_eq!(
        new.ask("POST", "/v1/admin/promote?force=true", "").status,
        200
    );
    assert_eq!(new.ask("PUT", "/v1/kv/c", "3").status, 201);
    assert_eq!(new.ask("GET", "/v1/kv/a", "").body, b"1");
}

/// Handed over by mistake: the server takes writes again.
#[test]
fn a_server_that_was_handed_over_takes_writes_again_when_asked() {
    let directory = TempDir::new().expect("a folder");
    let server = Server::start(&with_dir(&directory, &[]));
    server.ask("PUT", "/v1/kv/a", "1");
    let demoted = server.ask("POST", "/v1/admin/demote", "");
    assert_eq!(demoted.json()["lastSequence"], sequence(&server));
    assert_eq!(server.ask("PUT", "/v1/kv/a", "2").status, 503);
    assert_eq!(
        server
            .ask(
                "POST",
                "/v1/batch",
                r#"{"ops":[{"op":"put","key":"a","value":2}]}"#
            )
            .status,
        503
    );
    assert_eq!(server.ask("GET", "/v1/kv/a", "").body, b"1");
    assert_eq!(server.ask("POST", "/v1/admin/promote", "").status, 200);
    assert_eq!(server.ask("PUT", "/v1/kv/a", "2").status, 204);
}

#[test]
fn the_log_is_streamed_from_a_sequence_on_and_says_what_is_gone() {
    let directory = TempDir::new().expect("a folder");
    let server = Server::start(&with_dir(&directory, &["--wal-segment-size", "64KiB"]));
    for n in 0..300 {
        server.ask(
            "PUT",
            &format!("/v1/kv/key/{n}"),
            &format!("\"{}\"", "v".repeat(50)),
        );
    }
    let stats = server.ask("GET", "/v1/admin/snapshots", "").json();
    let first = stats["segments"][0]["firstSequence"]
        .as_u64()
        .expect("a sequence");
    let last = sequence(&server);
    let from = last - 100;
    let mut client = Client::new(&server.address);
    let request = format!("GET /v1/admin/wal?from={from} HTTP/1.1\r\nHost: x\r\n\r\n");
    client
        .stream
        .get_mut()
        .write_all(request.as_bytes())
        .expect("sent");
    let (status, headers) = client.head();
    assert_eq!(
        (status, headers["content-type"].as_str()),
        (200, "application/vnd.inflightkv.log")
    );
    let mut stream = StreamReader::begin(Chunked {
        from: client.stream,
        left: 0,
    })
    .expect("a stream");
    let mut next = from;
    while next <= last {
        let frame = stream.next_frame().expect("sound").expect("not at its end");
        for record in frame.records() {
            assert_eq!(record.lsn.get(), next);
            next += 1;
        }
        assert_eq!(frame.durable_lsn.get(), last);
    }
    // It goes on with what comes.
    server.ask("PUT", "/v1/kv/new", "\"late\"");
    loop {
        let frame = stream.next_frame().expect("sound").expect("not at its end");
        if let Some(record) = frame.records().next() {
            assert_eq!((record.key, record.value), ("new", &b"\"late\""[..]));
            break;
        }
    }
    drop(stream);

    assert_eq!(
        server
            .ask("POST", "/v1/admin/snapshot?wait=true", "")
            .status,
        200
    );
    let gone = server.ask("GET", &format!("/v1/admin/wal?from={first}"), "");
    assert_eq!(gone.status, 410, "{}", String::from_utf8_lossy(&gone.body));
    assert_eq!(gone.json()["code"], "LOG_GONE");
    assert!(gone.json()["oldest"].as_u64() > Some(first));
    assert_eq!(server.ask("GET", "/v1/admin/wal?from=x", "").status, 400);
    assert_eq!(server.ask("GET", "/v1/admin/wal?form=1", "").status, 400);

    let in_memory = Server::start(&[]);
    let off = in_memory.ask("GET", "/v1/admin/wal", "");
    assert_eq!(
        (off.status, &off.json()["code"]),
        (409, &"NOT_DURABLE".into())
    );
}

/// A server with data of its own does not throw them away to follow another one.
#[test]
fn a_server_that_follows_begins_empty() {
    let directory = TempDir::new().expect("a folder");
    let mut server = Server::start(&with_dir(&directory, &[]));
    server.ask("PUT", "/v1/kv/mine", "1");
    server.kill();
    let mut child = Command::new(env!("CARGO_BIN_EXE_inflightkv"))
        .args(["serve", "--listen", ":0", "--follow", "http://127.0.0.1:9"])
        .args(with_dir(&directory, &[]))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let status = child.wait().expect("it ends");
    let mut errors = String::new();
    child
        .stderr
        .take()
        .expect("a pipe")
        .read_to_string(&mut errors)
        .expect("what it said");
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.contains("begins with an empty one"), "{errors}");
    let server = Server::start(&with_dir(&directory, &[]));
    assert_eq!(server.ask("GET", "/v1/kv/mine", "").body, b"1");
}

/// A body in chunks (RFC 9112, section 7.1).
struct Chunked {
    from: BufReader<TcpStream>,
    left: usize,
}

impl Read for Chunked {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            let mut line = String::new();
            while line.trim().is_empty() {
                line.clear();
                if self.from.read_line(&mut line)? == 0 {
                    return Ok(0);
                }
            }
            self.left = usize::from_str_radix(line.trim(), 16).expect("a chunk's length");
            if self.left == 0 {
                return Ok(0);
            }
        }
        let max = buf.len().min(self.left);
        let len = self.from.read(&mut buf[..max])?;
        self.left -= len;
        Ok(len)
    }
}
