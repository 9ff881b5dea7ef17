//! The binary from outside: subcommands, exit codes, a server started on a free port and the client against it.
#![cfg(feature = "cli")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inflightkv"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("INFLIGHTKV_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary runs")
}

fn run_with_input(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input).expect("the binary reads its input");
    drop(stdin);
    child.wait_with_output().expect("the binary ends")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output of a run that succeeds.
fn succeeds(output: &Output) -> String {
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        out(output),
        err(output)
    );
    out(output)
}

/// Standard error of a run that ends with `code`.
fn fails(code: i32, output: &Output) -> String {
    assert_eq!(
        output.status.code(),
        Some(code),
        "{}{}",
        out(output),
        err(output)
    );
    err(output)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// A server on a free port, killed when it is no longer needed.
struct Server {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    url: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Server {
        let mut child = command(&["serve", "--listen", ":0", "--threads", "2"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        if line.is_empty() {
            let mut errors = String::new();
            let mut stderr = child.stderr.take().expect("a pipe");
            stderr.read_to_string(&mut errors).expect("what it said");
            panic!("the server did not start: {errors}");
        }
        let url = line
            .strip_prefix("listening on ")
            .expect("where it listens")
            .trim_end()
            .to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        Server { child, output, url }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let (name, rest) = arguments.split_first().expect("a subcommand");
        run(&[&[*name, "--url", &self.url], rest].concat())
    }

    /// Ends it as an operator would: exit code 0, nothing more on standard output. Returns its log.
    fn stop(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("a signal");
        let mut errors = String::new();
        let mut stderr = self.child.stderr.take().expect("a pipe");
        stderr.read_to_string(&mut errors).expect("what it said");
        let status = self.child.wait().expect("the server ends");
        assert_eq!(status.code(), Some(0), "{errors}");
        let mut rest = String::new();
        self.output
            .read_to_string(&mut rest)
            .expect("the rest of its output");
        assert_eq!(
            rest, "",
            "nothing but the first line goes to standard output"
        );
        errors
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A data directory with three keys in its log, closed.
fn written() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&["--data-dir", text(directory.path()), "--wal-sync", "always"]);
    for key in ["a", "b", "c"] {
        succeeds(&server.run(&["put", key, &format!("{{\"is\":\"{key}\"}}")]));
    }
    server.stop();
    directory
}

/// Segments with records, oldest first.
fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory.join("wal"))
        .expect("a folder of segments")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    files
}

#[test]
fn help_and_version_are_answers() {
    let help = succeeds(&run(&["--help"]));
    for word in [
        "serve",
        "check",
        "repair",
        "inspect",
        "--wal-sync",
        "INFLIGHTKV_",
        "Exit codes",
    ] {
        assert!(help.contains(word), "{word} in\n{help}");
    }
    assert!(succeeds(&run(&["--version"])).starts_with("inflightkv "));
    assert!(succeeds(&run(&["put", "--help"])).contains("--if-match"));
}

#[test]
fn wrong_usage_is_one_line_and_code_2() {
    for arguments in [
        &["frobnicate"][..],
        &["--frobnicate"],
        &["check"],
        &["get"],
        &["put"],
        &["completions", "tcsh"],
        &["get", "a", "--timeout", "soon"],
        &["get", "a", "--url", "https://127.0.0.1"],
        &["put", "a", "1", "--if-version", "-2"],
        &["put", "--ndjson", "-", "--ttl", "1s"],
    ] {
        let message = fails(2, &run(arguments));
        assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
        assert!(message.starts_with("error: "), "{message}");
    }
}

#[test]
fn completions_and_the_manual_know_the_settings() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = succeeds(&run(&["completions", shell]));
        assert!(script.contains("wal-sync-interval"), "{shell}");
    }
    let page = succeeds(&run(&["man"]));
    assert!(page.contains(".TH inflightkv 1"), "{page}");
    for word in [
        "\\-\\-snapshot\\-full\\-every",
        "inflightkv put",
        "EXIT STATUS",
        "INFLIGHTKV_URL",
    ] {
        assert!(page.contains(word), "{word}");
    }
}

#[test]
fn check_tells_nothing_from_something_and_neither_from_a_wrong_path() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    assert!(succeeds(&run(&["check", text(directory.path())])).contains("sound"));
    fails(1, &run(&["check", text(&directory.path().join("missing"))]));
    fs::write(directory.path().join("passwd"), "x").expect("writing a file");
    let message = fails(1, &run(&["check", text(directory.path())]));
    assert!(message.contains("neither wal nor snapshots"), "{message}");
    fails(1, &run(&["repair", text(directory.path())]));
    fails(1, &run(&["inspect", text(directory.path())]));
    fails(
        1,
        &run(&["inspect", text(&directory.path().join("passwd"))]),
    );
}

#[test]
fn the_client_does_what_a_shell_needs() {
    let server = Server::start(&[]);
    let outcome: Value =
        serde_json::from_str(&succeeds(&server.run(&["put", "user/42", r#"{"n":1.0}"#])))
            .expect("JSON");
    assert_eq!(
        (&outcome["created"], &outcome["version"]),
        (&json!(true), &json!(0))
    );
    assert_eq!(succeeds(&server.run(&["get", "user/42"])), "{\"n\":1.0}\n");

    // Conditions: what fails says why, and changes nothing.
    let message = fails(
        1,
        &server.run(&["put", "user/42", "1", "--if-version", "7"]),
    );
    assert!(message.contains("412"), "{message}");
    fails(
        1,
        &server.run(&["put", "user/42", "1", "--if-version", "-1"]),
    );
    fails(
        1,
        &server.run(&["put", "user/42", "1", "--if-none-match", "*"]),
    );
    fails(
        1,
        &server.run(&["put", "user/42", "1", "--if-match", "abc"]),
    );
    let etag = outcome["etag"].as_str().expect("an etag");
    let outcome: Value = serde_json::from_str(&succeeds(&server.run(&[
        "put",
        "user/42",
        r#"{"n":2}"#,
        "--if-match",
        etag,
    ])))
    .expect("JSON");
    assert_eq!(
        (&outcome["created"], &outcome["version"]),
        (&json!(false), &json!(1))
    );

    succeeds(&server.run(&[
        "patch",
        "user/42",
        r#"{"m":null,"k":[1]}"#,
        "--if-version",
        "1",
    ]));
    assert_eq!(
        succeeds(&server.run(&["get", "user/42"])),
        "{\"n\":2,\"k\":[1]}\n"
    );
    succeeds(&server.run(&[
        "patch",
        "user/42",
        r#"[{"op":"remove","path":"/k"}]"#,
        "--json-patch",
    ]));
    assert_eq!(succeeds(&server.run(&["get", "user/42"])), "{\"n\":2}\n");

    // Values from a file and from standard input; other media types byte for byte.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("value");
    fs::write(&file, b"\x00\xff").expect("writing a file");
    succeeds(&server.run(&[
        "put",
        "bytes",
        &format!("@{}", text(&file)),
        "--content-type",
        "image/png",
    ]));
    assert_eq!(server.run(&["get", "bytes"]).stdout, b"\x00\xff");
    succeeds(&run_with_input(
        &["put", "--url", &server.url, "piped key"],
        b" [ 1, 2 ] ",
    ));
    assert_eq!(succeeds(&server.run(&["get", "piped key"])), "[1,2]\n");

    // Expiry.
    succeeds(&server.run(&["put", "brief", "1", "--ttl", "1h"]));
    let shown = server.run(&["get", "brief", "--include"]);
    assert!(err(&shown).contains("TTL-Ms: "), "{}", err(&shown));
    let message = fails(1, &server.run(&["put", "brief", "1", "--ttl", "0"]));
    assert!(message.contains("400"), "{message}");

    let mut keys: Vec<String> = succeeds(&server.run(&["keys"]))
        .lines()
        .map(str::to_owned)
        .collect();
    keys.sort();
    assert_eq!(keys, ["brief", "bytes", "piped key", "user/42"]);
    assert_eq!(
        succeeds(&server.run(&["keys", "--prefix", "user/"])),
        "user/42\n"
    );
    assert_eq!(
        succeeds(&server.run(&["keys", "--limit", "2"]))
            .lines()
            .count(),
        2
    );

    succeeds(&server.run(&["del", "user/42", "--if-version", "3"]));
    let message = fails(1, &server.run(&["get", "user/42"]));
    assert!(message.starts_with("error: 404"), "{message}");
    fails(1, &server.run(&["del", "user/42"]));

    // By the environment.
    let output = command(&["get", "brief"])
        .env("INFLIGHTKV_URL", &server.url)
        .output()
        .expect("the binary runs");
    assert_eq!(succeeds(&output), "1\n");

    let log = server.stop();
    for line in log.lines() {
        let event: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(event["message"].is_string(), "{line}");
    }
    assert!(log.contains("accepting connections"), "{log}");
}

/// `keys --values` of one server is what `put --ndjson` of another takes.
#[test]
fn what_one_server_lists_another_loads() {
    let lines: String = (0..2_500)
        .map(|n| format!("{{\"key\":\"k{n}\",\"value\":{{\"n\":{n}.0}}}}\n"))
        .collect();
    let first = Server::start(&[]);
    let loaded = run_with_input(
        &["put", "--url", &first.url, "--ndjson", "-"],
        lines.as_bytes(),
    );
    succeeds(&loaded);
    assert!(
        err(&loaded).contains("2500 stored, 0 failed"),
        "{}",
        err(&loaded)
    );
    succeeds(&first.run(&["put", "opaque", "x", "--content-type", "text/plain"]));
    succeeds(&first.run(&["put", "null", "null", "--ttl", "1h"]));
    let listed = first.run(&["keys", "--values"]);
    assert_eq!(succeeds(&listed).lines().count(), 2_502);

    let second = Server::start(&[]);
    succeeds(&run_with_input(
        &["put", "--url", &second.url, "--ndjson", "-"],
        &listed.stdout,
    ));
    assert_eq!(succeeds(&second.run(&["get", "k2499"])), "{\"n\":2499.0}\n");
    assert_eq!(succeeds(&second.run(&["get", "opaque"])), "x");
    assert!(err(&second.run(&["get", "-i", "null"])).contains("TTL-Ms"));
    assert_eq!(succeeds(&second.run(&["keys"])).lines().count(), 2_502);
}

#[test]
fn a_line_that_cannot_be_stored_is_named() {
    let server = Server::start(&[]);
    for (lines, expected) in [
        (
            "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\"}\n",
            "line 2: found no value",
        ),
        (
            "{\"key\":\"a\",\"value\":1}\n{\"key\":\"__b\",\"value\":1}\n",
            "line 2: 400",
        ),
        (
            "{\"key\":\"a\",\"value\":1}\n\n{\"key\":\"c\",\"value\":1,\"ttl\":\"0\"}\n",
            "line 3: 400",
        ),
    ] {
        let output = run_with_input(
            &["put", "--url", &server.url, "--ndjson", "-"],
            lines.as_bytes(),
        );
        let message = fails(1, &output);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn nobody_answers_and_a_port_in_use_are_failures_with_their_reason() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let message = fails(1, &run(&["serve", "--listen", &address]));
    assert!(message.contains(&address), "{message}");
    drop(taken);
    let message = fails(
        1,
        &run(&["get", "a", "--url", &format!("http://{address}")]),
    );
    assert!(message.contains("no answer from"), "{message}");
}

#[test]
fn one_directory_has_one_server_and_is_left_alone_meanwhile() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = text(directory.path());
    let server = Server::start(&["--data-dir", path]);
    let message = fails(1, &run(&["serve", "--listen", ":0", "--data-dir", path]));
    assert!(message.contains("in use"), "{message}");
    for subcommand in ["check", "repair"] {
        let message = fails(1, &run(&[subcommand, path]));
        assert!(message.contains("in use"), "{message}");
    }
    server.stop();
    succeeds(&run(&["check", path]));
}

#[test]
fn what_was_written_is_sound_can_be_inspected_and_is_there_again() {
    let directory = written();
    let path = text(directory.path());
    assert!(succeeds(&run(&["check", path])).contains("3 records"));
    assert!(succeeds(&run(&["repair", path])).contains("nothing to repair"));
    let lines: Vec<Value> = segments(directory.path())
        .iter()
        .flat_map(|segment| {
            let text = succeeds(&run(&["inspect", text(segment)]));
            text.lines()
                .map(|line| serde_json::from_str(line).expect("JSON"))
                .collect::<Vec<Value>>()
        })
        .collect();
    assert_eq!(lines.len(), 3, "one record a line: {lines:?}");
    assert_eq!(lines[1]["key"], "b");
    assert_eq!(lines[1]["op"], "put");
    assert_eq!(lines[1]["value"], json!({"is": "b"}));

    let server = Server::start(&["--data-dir", path]);
    assert_eq!(succeeds(&server.run(&["get", "b"])), "{\"is\":\"b\"}\n");
    // A log that goes on in another segment, with a delete and with bytes that are not JSON.
    succeeds(&server.run(&["del", "b"]));
    succeeds(&server.run(&["put", "o", "x", "--content-type", "text/plain"]));
    server.stop();
    let last = segments(directory.path());
    let text_of_last: String = last
        .iter()
        .map(|segment| succeeds(&run(&["inspect", text(segment)])))
        .collect();
    assert!(
        text_of_last.contains("\"op\":\"delete\",\"key\":\"b\""),
        "{text_of_last}"
    );
    assert!(
        text_of_last.contains("\"mediaType\":\"text/plain\",\"valueBase64\":\"eA==\""),
        "{text_of_last}"
    );
    succeeds(&run(&["check", path]));
}

/// A byte in the middle of what was acknowledged changes: check names it, a strict start refuses, repair keeps what
/// comes before and everything that it cuts off, and then all is sound.
#[test]
fn damage_is_named_refused_and_repaired_only_when_asked() {
    let directory = written();
    let path = text(directory.path());
    let segment = segments(directory.path())
        .into_iter()
        .next()
        .expect("a segment");
    let mut bytes = fs::read(&segment).expect("reading a segment");
    let place = bytes
        .windows(10)
        .position(|window| window == b"{\"is\":\"b\"}")
        .expect("the value is in the log");
    bytes[place + 7] = b'X';
    fs::write(&segment, &bytes).expect("writing a segment");

    let report = run(&["check", path]);
    assert_eq!(report.status.code(), Some(1), "{}", err(&report));
    let name = segment
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    for word in [name.as_str(), "offset", "lost", "damaged"] {
        assert!(out(&report).contains(word), "{word} in {}", out(&report));
    }
    assert_eq!(
        fs::read(&segment).expect("reading a segment"),
        bytes,
        "check changes nothing"
    );
    let message = fails(1, &run(&["serve", "--listen", ":0", "--data-dir", path]));
    assert!(message.contains(&name), "{message}");
    assert_eq!(
        fs::read(&segment).expect("reading a segment"),
        bytes,
        "a refused start changes nothing"
    );
    fails(1, &run(&["inspect", text(&segment)]));

    succeeds(&run(&["repair", path]));
    succeeds(&run(&["check", path]));
    let kept: Vec<u8> = fs::read_dir(directory.path().join("wal"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .flat_map(|path| fs::read(path).expect("reading a file"))
        .collect();
    assert!(
        kept.windows(10).any(|window| window == b"{\"is\":\"c\"}"),
        "what was cut off is kept"
    );
    let server = Server::start(&["--data-dir", path]);
    assert_eq!(succeeds(&server.run(&["get", "a"])), "{\"is\":\"a\"}\n");
    fails(1, &server.run(&["get", "b"]));
    server.stop();
}

/// Every tool reads what the background made of the log, and damage in it is found where it is.
#[test]
fn compressed_segments_are_checked_inspected_repaired_and_read() {
    for codec in ["zstd", "lz4"] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data_dir = text(directory.path());
        let options = [
            "--data-dir",
            data_dir,
            "--wal-compress",
            codec,
            "--wal-segment-size",
            "32KiB",
            "--wal-keep",
            "1h",
        ];
        let server = Server::start(&options);
        let lines: String = (0..1000)
            .map(|n| format!("{{\"key\":\"key/{n}\",\"value\":{{\"number\":{n},\"text\":\"the same again and again\"}}}}\n"))
            .collect();
        let file = directory.path().join("documents.ndjson");
        fs::write(&file, lines).expect("a file");
        succeeds(&server.run(&["put", "--ndjson", text(&file)]));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        // Reserved room is taken off when a segment is sealed, so a short file is one that was rewritten.
        let is_small = |path: &PathBuf| fs::metadata(path).expect("a segment").len() < 16 << 10;
        while segments(directory.path())
            .iter()
            .filter(|path| is_small(path))
            .count()
            < 3
        {
            assert!(
                std::time::Instant::now() < deadline,
                "nothing was rewritten"
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        server.stop();
        let sound = succeeds(&run(&["check", data_dir]));
        assert!(sound.contains("1000 records"), "{sound}");
        let files = segments(directory.path());
        let mut keys = std::collections::BTreeSet::new();
        for file in &files {
            for line in succeeds(&run(&["inspect", text(file)])).lines() {
                let line: Value = serde_json::from_str(line).expect("a JSON document a line");
                let number = &line["value"]["number"];
                assert_eq!(line["key"], format!("key/{number}"));
                assert!(line["sequence"].is_u64() && line["version"] == 0, "{line}");
                assert!(
                    line["writtenAtMs"].as_u64() > Some(1_700_000_000_000),
                    "{line}"
                );
                keys.insert(line["key"].to_string());
            }
        }
        assert_eq!(keys.len(), 1000);

        let small = files.iter().position(is_small).expect("a rewritten one");
        let mut bytes = fs::read(&files[small]).expect("its bytes");
        let middle = 4096 + (bytes.len() - 4096) / 2;
        bytes[middle] ^= 1;
        fs::write(&files[small], bytes).expect("changed");
        let damaged = run(&["check", data_dir]);
        assert_eq!(damaged.status.code(), Some(1));
        let report = out(&damaged);
        let name = files[small].file_name().expect("a name").to_string_lossy();
        assert!(
            report.contains(&format!("damaged: wal/{name} at offset 4096")),
            "{report}"
        );
        assert!(report.contains("are lost"), "{report}");
        fails(1, &run(&["inspect", text(&files[small])]));
        fails(
            1,
            &run(&["serve", "--listen", ":0", "--data-dir", data_dir]),
        );
        succeeds(&run(&["repair", data_dir]));
        succeeds(&run(&["check", data_dir]));
    }
}
