//! Data directories that a server must not touch: one clear line, a code that is not 0, and every file as it was.

use super::support::{Server, binary, without_variables};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A closed directory with a snapshot and a log above it.
fn written() -> TempDir {
    let directory = tempfile::tempdir().expect("a folder");
    let server = Server::start(&["--data-dir", text(directory.path())]);
    for number in 0..50 {
        assert_eq!(
            server
                .ask(&format!("PUT /v1/kv/before/{number}"), "{\"x\":1}")
                .status,
            201
        );
    }
    let report = server.ask("POST /v1/admin/snapshot?wait=true", "");
    assert_eq!(report.status, 200, "{report:?}");
    for number in 0..50 {
        assert_eq!(
            server
                .ask(&format!("PUT /v1/kv/after/{number}"), "{\"x\":2}")
                .status,
            201
        );
    }
    assert!(server.terminate());
    directory
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("a file"));
        }
    }
    found
}

/// Files of a folder in the order of their names, without what is only being prepared.
fn named(directory: &Path, folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = files(&directory.join(folder))
        .into_keys()
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    found.sort();
    found
}

fn serve(mut command: Command, directory: &Path) -> Output {
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(directory)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

/// The one line of a refused start. Events of the log, which are JSON, may come before it.
fn refusal(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty(), "nothing listens: {output:?}");
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with('{')).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].starts_with("error: "), "{said}");
    lines[0].to_owned()
}

/// A start on `directory` is refused with all these words, and touches nothing.
fn check_refused(directory: &Path, words: &[&str]) {
    let before = files(directory);
    let message = refusal(&serve(binary(), directory));
    for word in words {
        assert!(message.contains(word), "`{word}` in {message}");
    }
    let after = files(directory);
    assert!(
        before == after,
        "a refused start changes nothing: {:?} {:?}",
        before.keys(),
        after.keys()
    );
}

#[test]
fn a_directory_in_use() {
    let directory = written();
    let server = Server::start(&["--data-dir", text(directory.path())]);
    let message = refusal(&serve(binary(), directory.path()));
    assert!(message.contains("in use by another server"), "{message}");
    assert!(message.contains(text(directory.path())), "{message}");
    assert_eq!(
        server.ask("PUT /v1/kv/after/1", "3").status,
        204,
        "the first is not disturbed"
    );
    assert!(server.terminate());
}

#[test]
fn a_log_of_a_newer_format() {
    let directory = written();
    let path = named(directory.path(), "wal", "log")
        .pop()
        .expect("a segment");
    let mut bytes = fs::read(&path).expect("a segment");
    bytes[8..12].copy_from_slice(&99u32.to_le_bytes());
    // The checksum covers the first page but for itself.
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..12]);
    crc.update(&bytes[16..4096]);
    bytes[12..16].copy_from_slice(&crc.finalize().to_le_bytes());
    fs::write(&path, bytes).expect("writing");
    let name = path
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    check_refused(directory.path(), &[&name, "format version 99", "up to"]);
}

#[test]
fn a_snapshot_of_a_newer_format() {
    let directory = written();
    let path = named(directory.path(), "snapshots", "manifest")
        .pop()
        .expect("a manifest");
    let mut bytes = fs::read(&path).expect("a manifest");
    bytes[12..14].copy_from_slice(&99u16.to_le_bytes());
    let crc = crc32fast::hash(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, bytes).expect("writing");
    let name = path
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    check_refused(directory.path(), &[&name, "format version 99"]);
}

/// Files of two stores mixed up, by hand or by a careless copy.
#[test]
fn a_log_of_another_store() {
    let (ours, theirs) = (written(), written());
    for path in named(ours.path(), "wal", "log") {
        fs::remove_file(path).expect("removing");
    }
    for path in named(theirs.path(), "wal", "log") {
        fs::copy(
            &path,
            ours.path()
                .join("wal")
                .join(path.file_name().expect("a name")),
        )
        .expect("copying");
    }
    check_refused(ours.path(), &["belongs to store", "expected"]);
}

#[test]
fn a_snapshot_without_its_log() {
    let directory = written();
    for path in named(directory.path(), "wal", "log") {
        fs::remove_file(path).expect("removing");
    }
    check_refused(directory.path(), &["log is gone", "may be lost"]);
}

/// Every sort of file, a byte in its middle turned over: named, refused, left alone. What only a snapshot holds and the log
/// no longer reaches back to is lost with it, and said to be.
#[test]
fn damage_anywhere() {
    let directory = written();
    let mut tried = 0;
    for (path, sound) in files(directory.path()) {
        if sound.is_empty() {
            continue;
        }
        let extension = path
            .extension()
            .map(|found| found.to_string_lossy().into_owned());
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        // Segments are preallocated: what counts in them is at their beginning.
        let place = if extension.as_deref() == Some("log") {
            4_200
        } else {
            sound.len() / 2
        };
        let mut damaged = sound.clone();
        damaged[place] ^= 0x55;
        fs::write(&path, &damaged).expect("writing");
        let output = serve_briefly(directory.path());
        match extension.as_deref() {
            Some("log" | "manifest" | "part") => {
                let message = refusal(&output);
                assert!(message.contains(&name), "{name} in {message}");
                assert!(files(directory.path())[&path] == damaged, "{name}");
                tried += 1;
            }
            _ => panic!("what is {}?", path.display()),
        }
        fs::write(&path, &sound).expect("writing");
    }
    assert!(tried >= 3, "a manifest, a part and a segment at least");
    let server = Server::start(&["--data-dir", text(directory.path())]);
    assert_eq!(
        server.ask("GET /v1/keys?limit=1000", "").json()["keys"]
            .as_array()
            .map(Vec::len),
        Some(100)
    );
}

/// For a start that must be refused but might not be: then it listens, and the test must not wait for it for ever.
fn serve_briefly(directory: &Path) -> Output {
    let mut command = without_variables(Command::new("timeout"));
    command.arg("20").arg(env!("CARGO_BIN_EXE_inflightkv"));
    serve(command, directory)
}

#[test]
fn a_path_that_is_no_directory() {
    let directory = tempfile::tempdir().expect("a folder");
    let file = directory.path().join("file");
    fs::write(&file, "not a directory").expect("writing");
    let message = refusal(&serve(binary(), &file));
    assert!(message.contains(text(&file)), "{message}");
    let message = refusal(&serve(binary(), &file.join("below")));
    assert!(message.contains(text(&file)), "{message}");
    assert_eq!(fs::read(&file).expect("a file"), b"not a directory");
}

#[test]
fn a_directory_without_permission() {
    let directory = written();
    let closed = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    };
    closed(directory.path(), 0o500);
    let before = files(directory.path());
    let root = rustix::process::geteuid().is_root();
    let mut command = binary();
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(directory.path())
        .stdin(Stdio::null());
    if root {
        // Permissions do not bind the superuser; somebody else may start the binary, if its folders let them.
        command.uid(65_534).gid(65_534);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if root => {
            println!("skipped: another user cannot start the binary here: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let message = refusal(&output);
    assert!(message.contains(text(directory.path())), "{message}");
    assert!(
        message.to_lowercase().contains("permission denied"),
        "{message}"
    );
    assert!(before == files(directory.path()));
    closed(directory.path(), 0o700);
}
