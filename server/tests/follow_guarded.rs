//! A server follows one that wants a token and speaks TLS, and says what is wrong when it is given neither.
#![cfg(all(feature = "cli", feature = "tls"))]

mod support;

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::{Server, eventually};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inflightkv"));
    command
        .env_remove("INFLIGHTKV_TOKEN")
        .env_remove("INFLIGHTKV_URL");
    command
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tls")
        .join(name)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A server with a directory, of TLS, that asks for tokens.
struct Guarded {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
    admin: String,
    reader: String,
}

impl Guarded {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut tables = String::new();
        let mut token = |role: &str| {
            let output = program()
                .args(["token", "new", "--name", role, "--role", role])
                .output()
                .expect("the program runs");
            let text = String::from_utf8(output.stdout).expect("UTF-8");
            tables.push_str(&text);
            let line = text.lines().find_map(|line| line.strip_prefix("# ikv_"));
            format!("ikv_{}", line.expect("the token is shown"))
        };
        let (admin, reader) = (token("admin"), token("read"));
        let auth = folder.path().join("auth.toml");
        fs::write(&auth, tables).expect("a file");
        let mut child = program()
            .args(["serve", "--listen", ":0", "--log-level", "off"])
            .args(["--data-dir", &text(&folder.path().join("data"))])
            .args(["--auth", &text(&auth)])
            .args(["--tls-cert", &text(&fixture("server.pem"))])
            .args(["--tls-key", &text(&fixture("server.key"))])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe"))
            .read_line(&mut line)
            .expect("it announces itself");
        let address = line.trim().strip_prefix("listening on https://");
        let (_, port) = address
            .and_then(|address| address.rsplit_once(':'))
            .expect("where it listens");
        Self {
            url: format!("https://localhost:{port}"),
            child,
            _folder: folder,
            admin,
            reader,
        }
    }

    /// A client command as the administrator.
    fn run(&self, arguments: &[&str]) {
        let ca = text(&fixture("ca.pem"));
        let output = program()
            .args(arguments)
            .args(["--url", &self.url, "--tls-ca", &ca])
            .env("INFLIGHTKV_TOKEN", &self.admin)
            .output()
            .expect("the program runs");
        assert!(output.status.success(), "{output:?}");
    }

    /// A server that follows this one with `token`, trusting the authorities of `ca`.
    fn followed_by(&self, token: Option<&str>, ca: &str) -> Server {
        let mut command = program();
        if let Some(token) = token {
            command.env("INFLIGHTKV_TOKEN", token);
        }
        let ca = text(&fixture(ca));
        let flags = ["--follow", &self.url, "--tls-ca", &ca, "--log-level", "off"];
        Server::spawn(command, &flags)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn following(server: &Server) -> Value {
    server.ask("GET /health/ready", "").json()["following"].clone()
}

#[test]
fn a_server_of_tls_and_tokens_is_followed_and_hands_over() {
    let old = Guarded::start();
    for id in 0..3 {
        old.run(&["put", &format!("before/{id}"), "{\"a\":1}"]);
    }
    let new = old.followed_by(Some(&old.admin), "ca.pem");
    eventually("it is connected", || following(&new)["connected"] == true);
    old.run(&["put", "after", "{\"b\":2}"]);
    eventually("what comes later is there", || {
        new.ask("GET /v1/kv/after", "").status == 200
    });
    assert_eq!(new.ask("GET /v1/kv/before/2", "").status, 200);
    // How far it is behind is told.
    let health = following(&new);
    assert!(health["behind"].is_u64() && health["behindMs"].is_u64());
    let metrics = new.ask("GET /metrics", "");
    let metrics = String::from_utf8(metrics.body).expect("text");
    for line in [
        "inflightkv_follow_connected 1",
        "inflightkv_follow_behind ",
        "inflightkv_follow_lag_seconds ",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    // Asking the other server to take no more writes goes the same way.
    let promoted = new.ask("POST /v1/admin/promote", "");
    assert_eq!(promoted.status, 200);
    assert_eq!(new.ask("PUT /v1/kv/mine", "3").status, 201);
    let metrics = new.ask("GET /metrics", "");
    let metrics = String::from_utf8(metrics.body).expect("text");
    assert!(!metrics.contains("inflightkv_follow_"), "{metrics}");
}

#[test]
fn who_may_not_follow_is_told_why() {
    let old = Guarded::start();
    for (token, ca, words) in [
        (None, "ca.pem", "401"),
        (Some(old.reader.as_str()), "ca.pem", "403"),
        // A certificate that signed nothing there.
        (Some(old.admin.as_str()), "server.pem", "certificate"),
    ] {
        let new = old.followed_by(token, ca);
        eventually("it says why", || {
            let health = following(&new);
            let error = health["error"].as_str().unwrap_or_default().to_owned();
            assert!(!error.contains("ikv_"), "no token is shown: {error}");
            health["connected"] == false && error.contains(words)
        });
    }
}

#[test]
fn what_following_by_tls_takes_is_said_at_start() {
    let fails = |flags: &[&str]| {
        let mut child = program()
            .args(["serve", "--listen", ":0", "--follow", "https://localhost:1"])
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let status = child.wait().expect("it ends");
        let mut message = String::new();
        let mut errors = child.stderr.take().expect("a pipe");
        errors.read_to_string(&mut message).expect("text");
        assert_eq!(status.code(), Some(2), "{message}");
        message
    };
    let message = fails(&[]);
    assert!(
        message.contains("follow") && message.contains("--tls-ca"),
        "{message}"
    );
    let message = fails(&["--tls-ca", "/nowhere/ca.pem"]);
    assert!(message.contains("/nowhere/ca.pem"), "{message}");
}
