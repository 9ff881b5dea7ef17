//! What `deploy/` names exists: every metric of the alert rules and the dashboard, every flag and path of the manifests.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use support::Server;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn text(file: &str) -> String {
    let path = deploy().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Words of `text` that begin with `prefix`, up to what no metric name has.
fn words<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).map(move |(at, _)| {
        let rest = &text[at..];
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn every_metric_that_is_named_exists() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().to_str().expect("a path in UTF-8");
    let server = Server::start(&["--data-dir", directory, "--wal-sync", "always"]);
    server.ask("PUT /v1/kv/a", "{}");
    let exposition = server.ask("GET /metrics", "").text().to_owned();
    let samples: BTreeSet<&str> = exposition
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let mut named = BTreeSet::new();
    let (alerts, dashboard) = (
        text("prometheus/alerts.yml"),
        text("grafana/inflightkv.json"),
    );
    named.extend(words(&alerts, "inflightkv_"));
    named.extend(words(&dashboard, "inflightkv_"));
    assert!(named.len() > 15, "{named:?}");
    for name in named {
        assert!(samples.contains(name), "{name} is not among\n{samples:?}");
    }
}

/// A misspelt flag in a manifest would be found out by whoever deploys it.
#[test]
fn every_flag_of_the_manifests_is_known() {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_inflightkv"))
        .args(["serve", "--help"])
        .output()
        .expect("the binary runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let mut flags = 0;
    for file in ["kubernetes/cache.yaml", "kubernetes/store.yaml"] {
        for flag in text(file)
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- --"))
        {
            let name = flag.split('=').next().expect("a name");
            assert!(help.contains(&format!("--{name}")), "{file}: --{name}");
            flags += 1;
        }
    }
    assert!(flags > 5);
}

#[test]
fn every_probed_path_exists() {
    let server = Server::start(&[]);
    for file in ["kubernetes/cache.yaml", "kubernetes/store.yaml"] {
        let text = text(file);
        let paths: Vec<&str> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("path: "))
            .collect();
        assert_eq!(paths.len(), 3, "{file}");
        for path in paths {
            assert_eq!(server.ask(&format!("GET {path}"), "").status, 200, "{path}");
        }
    }
}

/// The service manager is told when the store serves, and not before.
#[test]
fn a_service_manager_is_told() {
    use std::os::unix::net::UnixDatagram;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket
        .set_read_timeout(Some(support::PATIENCE))
        .expect("a timeout");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_inflightkv"))
        .args(["serve", "--listen", "127.0.0.1:0", "--log-level", "off"])
        .env("NOTIFY_SOCKET", &path)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the server starts");
    let mut message = [0; 256];
    let told = socket.recv(&mut message);
    child.kill().expect("it lives");
    child.wait().expect("it ends");
    let told = told.expect("the server says that it is ready");
    assert!(message[..told].starts_with(b"READY=1"));
}
