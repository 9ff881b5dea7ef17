//! TLS with a real client: protocols, certificates of both ends, reloading, and what is refused.
#![cfg(feature = "tls")]

mod support;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use support::{PATIENCE, eventually};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tls")
        .join(name)
}

fn certificate(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(fixture(name)).expect("a certificate")
}

/// A server of TLS in a process of its own, on copies of the fixtures that a test may change.
struct Secured {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Secured {
    fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["server.pem", "server.key"] {
            fs::copy(fixture(name), folder.path().join(name)).expect("a copy");
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_inflightkv"))
            .args(["--listen", "127.0.0.1:0", "--log-level", "warn"])
            .args(flags)
            .arg("--tls-cert")
            .arg(folder.path().join("server.pem"))
            .arg("--tls-key")
            .arg(folder.path().join("server.key"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("standard output is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the server announces itself");
        let address = line
            .trim()
            .strip_prefix("listening on https://")
            .expect("the announcement names scheme and address");
        Self {
            address: address.parse().expect("an address"),
            child,
            folder,
        }
    }

    fn socket(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).expect("the server accepts");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    }

    fn connect(&self, config: ClientConfig) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        StreamOwned::new(connection, self.socket())
    }

    /// One request and the whole answer, on a connection of its own.
    fn ask(&self, config: ClientConfig, request: &str, body: &str) -> std::io::Result<String> {
        let mut stream = self.connect(config);
        let text = format!(
            "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(text.as_bytes())?;
        let mut answer = String::new();
        match stream.read_to_string(&mut answer) {
            Err(error) if answer.is_empty() => Err(error),
            _ => Ok(answer),
        }
    }

    fn hang_up(&self) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::HUP).expect("it lives");
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that trusts the test authority, with a certificate of its own if `client` names one.
fn client(certified: Option<&str>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.pem")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocols")
        .with_root_certificates(roots);
    match certified {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = vec![certificate(&format!("{name}.pem"))];
            let key = PrivateKeyDer::from_pem_file(fixture(&format!("{name}.key"))).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
    }
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or_default()
}

#[test]
fn values_of_any_size_come_back_under_tls() {
    let server = Secured::start(&[]);
    for len in [1, 3_000, 100_000, 900_000] {
        let value = format!("\"{}\"", "x".repeat(len));
        let put = server
            .ask(client(None), "PUT /v1/kv/a", &value)
            .expect("an answer");
        assert!(matches!(status(&put), "201" | "204"), "{put}");
        let get = server
            .ask(client(None), "GET /v1/kv/a", "")
            .expect("an answer");
        assert!(get.ends_with(&value), "{len} bytes");
    }
    // Many on one connection, pipelined, read late.
    let mut stream = server.connect(client(None));
    let one = "GET /v1/kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(one.repeat(20).as_bytes()).expect("taken");
    stream.flush().expect("sent");
    std::thread::sleep(Duration::from_millis(50));
    let mut left: usize = 20 * 900_000;
    let mut buffer = vec![0; 65_536];
    while left > 0 {
        let read = stream.read(&mut buffer).expect("more");
        assert!(read > 0, "the answers end early");
        left = left.saturating_sub(read);
    }
}

#[test]
fn http2_is_agreed_on() {
    let server = Secured::start(&[]);
    for (offered, agreed) in [
        (vec![b"h2".to_vec(), b"http/1.1".to_vec()], Some(&b"h2"[..])),
        (vec![b"http/1.1".to_vec()], Some(&b"http/1.1"[..])),
        (vec![], None),
    ] {
        let mut config = client(None);
        config.alpn_protocols = offered;
        let mut stream = server.connect(config);
        while stream.conn.is_handshaking() {
            stream
                .conn
                .complete_io(&mut stream.sock)
                .expect("a handshake");
        }
        assert_eq!(stream.conn.alpn_protocol(), agreed);
        if agreed == Some(b"h2") {
            // The preface and empty settings; the server's own settings come back.
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            stream.write_all(preface).expect("taken");
            let mut frame = [0; 9];
            stream.read_exact(&mut frame).expect("a frame");
            assert_eq!(frame[3], 4, "settings");
        }
    }
}

#[test]
fn a_certificate_is_a_role() {
    use std::fmt::Write as _;
    let folder = tempfile::tempdir().expect("a folder");
    let auth = folder.path().join("auth.toml");
    let hash = inflightkv_server::trust::digest(&certificate("client.pem"));
    let mut text = String::new();
    writeln!(
        text,
        "[[certificate]]\nname = \"job\"\nsha256 = \"{hash}\"\nrole = \"read\""
    )
    .expect("a string");
    fs::write(&auth, text).expect("a file");
    let ca = fixture("ca.pem").display().to_string();
    let auth = auth.display().to_string();
    let audit = folder.path().join("audit.log");
    let log = audit.display().to_string();
    let server = Secured::start(&["--auth", &auth, "--tls-client-ca", &ca, "--audit-log", &log]);
    let ask = |certified, request| {
        let answer = server
            .ask(client(certified), request, "1")
            .expect("an answer");
        status(&answer).to_owned()
    };
    assert_eq!(ask(Some("client"), "GET /v1/kv/a"), "404");
    assert_eq!(ask(Some("client"), "PUT /v1/kv/a"), "403");
    assert_eq!(ask(None, "GET /v1/kv/a"), "401");
    // One that is signed, though not for clients, is refused before anything is asked.
    assert!(
        server
            .ask(client(Some("other")), "GET /v1/kv/a", "")
            .is_err()
    );
    eventually("the refusal is in the audit log", || {
        let text = fs::read_to_string(&audit).unwrap_or_default();
        text.contains("no authority signed for clients") && text.contains("\"source.ip\"")
    });
}

#[test]
fn a_new_pair_is_used_and_a_bad_one_is_not() {
    let server = Secured::start(&[]);
    let shown = || {
        let mut stream = server.connect(client(None));
        while stream.conn.is_handshaking() {
            stream
                .conn
                .complete_io(&mut stream.sock)
                .expect("a handshake");
        }
        stream.conn.peer_certificates().expect("a chain")[0].clone()
    };
    assert_eq!(shown(), certificate("server.pem"));
    // The certificate without its key: the pair in use stays.
    fs::copy(
        fixture("other.pem"),
        server.folder.path().join("server.pem"),
    )
    .expect("a copy");
    server.hang_up();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(shown(), certificate("server.pem"));
    fs::copy(
        fixture("other.key"),
        server.folder.path().join("server.key"),
    )
    .expect("a copy");
    server.hang_up();
    eventually("the new pair is used", || {
        shown() == certificate("other.pem")
    });
}

#[test]
fn who_never_gets_through_the_beginning_is_let_go() {
    let server = Secured::start(&["--header-timeout", "200ms"]);
    let mut silent = server.socket();
    let mut half = server.socket();
    half.write_all(&[22, 3, 1, 2, 0, 1]).expect("taken");
    let mut plain = server.socket();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("taken");
    for socket in [&mut silent, &mut half, &mut plain] {
        let mut rest = Vec::new();
        // An alert may come before the end.
        let _ = socket.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    }
    let answer = server
        .ask(client(None), "GET /health/live", "")
        .expect("an answer");
    assert_eq!(status(&answer), "200");
}

#[test]
fn a_bad_pair_is_refused_at_start() {
    let path = |name: &str| fixture(name).display().to_string();
    let cases = [
        (
            vec!["--tls-cert".to_owned(), path("server.pem")],
            "expected tls-key as well",
        ),
        (
            vec![
                "--tls-cert".to_owned(),
                path("server.pem"),
                "--tls-key".to_owned(),
                path("other.key"),
            ],
            "a certificate and its own key",
        ),
        (
            vec![
                "--tls-cert".to_owned(),
                path("server.key"),
                "--tls-key".to_owned(),
                path("server.key"),
            ],
            "tls-cert: found",
        ),
        (
            vec![
                "--tls-cert".to_owned(),
                path("nowhere.pem"),
                "--tls-key".to_owned(),
                path("server.key"),
            ],
            "nowhere.pem",
        ),
    ];
    for (flags, words) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_inflightkv"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(flags)
            .output()
            .expect("the program runs");
        assert_eq!(output.status.code(), Some(2));
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn the_client_speaks_tls() {
    let server = Secured::start(&[]);
    let url = format!("https://localhost:{}", server.address.port());
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_inflightkv"))
            .args(arguments)
            .args(["--url", &url])
            .output()
            .expect("the program runs")
    };
    let ca = fixture("ca.pem").display().to_string();
    let put = run(&["put", "a", "{\"b\":1}", "--tls-ca", &ca]);
    assert!(put.status.success(), "{put:?}");
    let get = run(&["get", "a", "--tls-ca", &ca]);
    assert_eq!(get.stdout.trim_ascii(), b"{\"b\":1}");
    // Without an authority, and with one that signed nothing here.
    assert_eq!(run(&["get", "a"]).status.code(), Some(2));
    let wrong = fixture("server.pem").display().to_string();
    assert_eq!(
        run(&["get", "a", "--tls-ca", &wrong]).status.code(),
        Some(1)
    );
}
