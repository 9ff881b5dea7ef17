//! A disk without room, real: a small file system in a mount namespace of the server's own.

use super::support::{Server, eventually, without_variables};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A command that runs the binary with a file system of `size` bytes mounted on `directory`, for it alone. `None`, with a
/// notice, where that is not allowed.
fn confined(directory: &Path, size: &str) -> Option<Command> {
    let script = format!("mount -t tmpfs -o size={size} tmpfs \"$0\" && exec \"$@\"");
    for namespaces in [&["--mount"][..], &["--mount", "--user", "--map-root-user"]] {
        let mut command = without_variables(Command::new("unshare"));
        command
            .args(namespaces)
            .args(["sh", "-c", &script])
            .arg(directory);
        let mut trial = without_variables(Command::new("unshare"));
        trial
            .args(namespaces)
            .args(["sh", "-c", &script])
            .arg(directory)
            .arg("true");
        let trial = trial
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if trial.is_ok_and(|status| status.success()) {
            command
                .arg(env!("CARGO_BIN_EXE_inflightkv"))
                .stdin(Stdio::null());
            return Some(command);
        }
    }
    println!("skipped: a small file system cannot be mounted here");
    None
}

#[test]
fn a_directory_without_room_is_refused_in_one_line() {
    let directory = tempfile::tempdir().expect("a folder");
    let Some(mut command) = confined(directory.path(), "4k") else {
        return;
    };
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(directory.path());
    let output = command.output().expect("it runs");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    // Events of the log, which are JSON, may come before it.
    let lines: Vec<&str> = message
        .lines()
        .filter(|line| !line.starts_with('{'))
        .collect();
    assert_eq!(lines.len(), 1, "{message}");
    assert!(lines[0].starts_with("error: "), "{message}");
    assert!(
        message.to_lowercase().contains("no space") || message.contains("full"),
        "{message}"
    );
}

/// A disk that fills up under a running server: 507 on both surfaces, reads go on, what was acknowledged stays; when there is
/// room again the server takes writes by itself, and a kill loses nothing.
#[test]
fn a_disk_that_fills_up_answers_507_until_there_is_room() {
    let directory = tempfile::tempdir().expect("a folder");
    let Some(command) = confined(directory.path(), "2m") else {
        return;
    };
    let server = Server::spawn(
        command,
        &[
            "--data-dir",
            directory.path().to_str().expect("UTF-8"),
            "--wal-sync",
            "always",
            "--wal-segment-size",
            "64KiB",
        ],
    );
    // The file system as the server's process sees it.
    let inside = PathBuf::from(format!("/proc/{}/root", server.id())).join(
        directory
            .path()
            .strip_prefix("/")
            .expect("an absolute path"),
    );
    let mut client = server.connect();
    assert_eq!(client.ask("PUT /v1/kv/first", "1").status, 201);
    if fs::write(inside.join("filler"), [0]).is_err() {
        println!("skipped: the server's file system cannot be reached from here");
        return;
    }
    let value = format!("\"{}\"", "x".repeat(1000));
    let mut stored = 0;
    let refused = loop {
        let filler = fs::read(inside.join("filler")).expect("a filler").len();
        let _ = fs::write(inside.join("filler"), vec![0; filler + (64 << 10)]);
        let answer = client.ask(&format!("PUT /v1/kv/key/{stored}"), &value);
        if answer.status != 201 {
            break answer;
        }
        stored += 1;
        assert!(stored < 4_000, "2 MiB hold no more than that");
    };
    assert_eq!(refused.status, 507, "{refused:?}");
    eventually("writes are refused before they are made", || {
        let answer = client.ask("PUT /v1/kv/other", &value);
        answer.status == 507 && answer.json()["code"] == "INSUFFICIENT_STORAGE"
    });
    let refused = client.ask("PUT /kv/other", &value);
    assert_eq!(refused.status, 507);
    assert_eq!(refused.json()["error"]["errorCode"], "INSUFFICIENT_STORAGE");
    assert!(refused.field("retry-after").is_some());
    assert_eq!(client.ask("GET /health/live", "").status, 200);
    let ready = client.ask("GET /health/ready", "");
    assert_eq!(ready.status, 503);
    assert!(
        ready.json()["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("full")),
        "{ready:?}"
    );
    assert_eq!(client.ask("GET /v1/kv/first", "").text(), "1");

    fs::remove_file(inside.join("filler")).expect("it is ours");
    eventually("there is room again", || {
        client.ask("PUT /v1/kv/again", "2").status < 300
    });
    for number in 0..stored {
        assert_eq!(
            client.ask(&format!("GET /v1/kv/key/{number}"), "").text(),
            value
        );
    }
    assert_eq!(client.ask("GET /health/ready", "").status, 200);
    assert!(server.terminate(), "exit code 0");
}
