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
    let exposition = everything("");
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

/// What a server shows that does all there is to be shown, and one that follows it.
fn everything(accept: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| {
        let path = folder.path().join(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    };
    let (data, audit, rules) = (place("data"), place("audit.log"), place("rules.toml"));
    fs::write(
        &rules,
        "[[rule]]\nname = \"small\"\nvalue-max-size = \"1KiB\"\n",
    )
    .expect("written");
    let server = Server::start(&[
        "--data-dir",
        &data,
        "--audit-log",
        &audit,
        "--validation",
        &rules,
        "--otlp-endpoint",
        "http://127.0.0.1:9",
        "--max-memory",
        "64MiB",
        "--eviction",
        "lru",
        "--compression",
        "zstd",
    ]);
    let mut client = server.connect();
    for number in 0..400 {
        client.ask(&format!("PUT /v1/kv/{number}"), "{}");
        client.ask(&format!("GET /v1/kv/{number}"), "");
    }
    let large = format!("\"{}\"", "x".repeat(2_000));
    assert_eq!(client.ask("PUT /v1/kv/large", large).status, 422);
    let taken = client.ask("POST /v1/admin/snapshot?wait=true", "");
    assert_eq!(taken.status, 200, "{taken:?}");
    let follower = Server::start(&["--follow", &format!("http://{}", server.address)]);
    let request = match accept {
        "" => "GET /metrics".to_owned(),
        accept => format!("GET /metrics\nAccept: {accept}"),
    };
    let both = [&server, &follower].map(|server| server.ask(&request, ""));
    both.map(|answer| answer.text().to_owned()).concat()
}

/// Prometheus's own opinion, where it is installed.
#[test]
fn prometheus_finds_nothing_wrong() {
    let promtool = |what: &str, input: &str, arguments: &[&Path]| {
        let child = std::process::Command::new("promtool")
            .args(["check", what])
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("skipped: there is no promtool to check {what} with");
            return;
        };
        let mut stdin = child.stdin.take().expect("piped");
        std::io::Write::write_all(&mut stdin, input.as_bytes()).expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.is_empty(), "{what}: {told}");
    };
    promtool("rules", "", &[&deploy().join("prometheus/alerts.yml")]);
    // Two servers' expositions are no one exposition.
    let text = everything("text/plain");
    let second = text
        .match_indices("# HELP inflightkv_access_refusals")
        .nth(1);
    let (first, second) = text.split_at(second.expect("two expositions").0);
    promtool("metrics", first, &[]);
    promtool("metrics", second, &[]);
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
