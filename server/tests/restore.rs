//! Restores, into an empty directory and into a server that runs: all or nothing, also when it is killed meanwhile.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{Answer, Server, eventually};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_inflightkv"))
        .args(arguments)
        .output()
        .expect("the program runs")
}

fn ok(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(words.lines().count(), 1, "{words}");
    words
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn put(server: &Server, key: &str, value: &str) -> Answer {
    let answer = server.ask(&format!("PUT /v1/kv/{key}"), value);
    assert!(matches!(answer.status, 201 | 204), "{answer:?}");
    answer
}

fn get(server: &Server, key: &str) -> Option<String> {
    let answer = server.ask(&format!("GET /v1/kv/{key}"), "");
    match answer.status {
        200 => Some(answer.text().to_owned()),
        404 => None,
        _ => panic!("{answer:?}"),
    }
}

fn backup(server: &Server) -> Vec<u8> {
    let answer = server.ask("GET /v1/admin/backup", "");
    assert_eq!(answer.status, 200);
    answer.body
}

fn keys(server: &Server) -> usize {
    let answer = server.ask("GET /v1/keys\nAccept: application/x-ndjson", "");
    answer.text().lines().count()
}

#[test]
fn an_empty_directory_becomes_the_store_of_the_backup() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("of.backup");
    let server = Server::start(&[]);
    for n in 0..300 {
        put(&server, &format!("a/{n}"), &format!("{{\"n\":{n}}}"));
    }
    put(&server, "b/1", "\"other\"");
    assert_eq!(
        server
            .ask("PUT /v1/kv/opaque\nContent-Type: image/png", "\u{1}")
            .status,
        201
    );
    put(&server, "gone?ttl=30ms", "1");
    put(&server, "a/0", "\"changed\"");
    let etag = server.ask("GET /v1/kv/a/0", "").etag().to_owned();
    fs::write(&file, backup(&server)).expect("written");
    drop(server);
    std::thread::sleep(Duration::from_millis(40));

    let whole = folder.path().join("whole");
    let said = ok(&run(&["restore", "--data-dir", text(&whole), text(&file)]));
    assert!(said.starts_with("restored: 303 entries"), "{said}");
    assert!(!whole.join("RESTORING").exists());
    ok(&run(&["check", text(&whole)]));
    for _ in 0..2 {
        let server = Server::start(&["--data-dir", text(&whole)]);
        assert_eq!(keys(&server), 302);
        assert_eq!(get(&server, "a/0").as_deref(), Some("\"changed\""));
        assert_eq!(server.ask("GET /v1/kv/a/0", "").etag(), etag);
        let opaque = server.ask("GET /v1/kv/opaque", "");
        assert_eq!(opaque.field("content-type"), Some("image/png"));
        assert!(server.terminate());
    }

    let part = folder.path().join("part");
    ok(&run(&[
        "restore",
        "--data-dir",
        text(&part),
        text(&file),
        "--prefix",
        "b/",
    ]));
    let server = Server::start(&["--data-dir", text(&part)]);
    assert_eq!((keys(&server), get(&server, "b/1").is_some()), (1, true));
    drop(server);

    let words = refused(&run(&["restore", "--data-dir", text(&part), text(&file)]));
    assert!(words.contains("is not empty"), "{words}");
    let none = folder.path().join("none");
    let bytes = fs::read(&file).expect("the backup");
    let mut flipped = bytes.clone();
    flipped[500] ^= 1;
    for (harmed, reason) in [
        (&bytes[..bytes.len() / 2], "cut off"),
        (&flipped[..], "damaged at offset"),
        (b"{}", "a backup, which begins with"),
        (b"", "cut off"),
    ] {
        fs::write(&file, harmed).expect("written");
        let words = refused(&run(&["restore", "--data-dir", text(&none), text(&file)]));
        assert!(
            words.contains("nothing was restored") && words.contains(reason),
            "{words}"
        );
        assert!(!none.exists());
    }
    // A restore that was interrupted is not served.
    let unfinished = folder.path().join("unfinished");
    fs::create_dir(&unfinished).expect("a folder");
    fs::write(unfinished.join("RESTORING"), "").expect("a mark");
    let words = refused(&run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        text(&unfinished),
    ]));
    assert!(words.contains("did not finish"), "{words}");
}

#[test]
fn a_backup_and_the_log_show_the_store_at_any_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let file = folder.path().join("of.backup");
    let server = Server::start(&["--data-dir", text(&data)]);
    put(&server, "stays", "1");
    put(&server, "goes", "1");
    put(&server, "grows", "0");
    fs::write(&file, backup(&server)).expect("written");
    assert_eq!(server.ask("DELETE /v1/kv/goes", "").status, 204);
    for n in 1..=20 {
        put(&server, "grows", &n.to_string());
    }
    put(&server, "last?durability=sync", "1");
    let wal = data.join("wal");
    let lines: Vec<(u64, String)> = fs::read_dir(&wal)
        .expect("the log")
        .flat_map(|entry| {
            let path = entry.expect("a segment").path();
            if path.extension().is_none_or(|extension| extension != "log") {
                return Vec::new();
            }
            let shown = ok(&run(&["inspect", text(&path), "--key", "grows"]));
            shown.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line).expect("a record");
            (
                line["sequence"].as_u64().expect("a number"),
                line["value"].to_string(),
            )
        })
        .collect();
    assert_eq!(lines.len(), 21);
    let restore = |name: &str, more: &[&str]| {
        let target = folder.path().join(name);
        let mut arguments = vec!["restore", "--data-dir", text(&target), text(&file)];
        arguments.extend(["--wal", text(&wal)]);
        arguments.extend(more);
        let output = run(&arguments);
        (target, output)
    };
    for (round, (sequence, value)) in lines.iter().enumerate().skip(1).step_by(6) {
        let sequence = sequence.to_string();
        let (target, output) = restore(&format!("at{round}"), &["--until", &sequence]);
        let said = ok(&output);
        assert!(
            said.contains(&format!("up to sequence {sequence}")),
            "{said}"
        );
        let server = Server::start(&["--data-dir", text(&target)]);
        assert_eq!(get(&server, "grows").as_ref(), Some(value));
        assert_eq!(get(&server, "goes"), None);
        assert_eq!(get(&server, "stays").as_deref(), Some("1"));
        assert_eq!(get(&server, "last"), None);
    }
    for (name, until) in [("end", None), ("far", Some("2100-01-01T00:00:00Z"))] {
        let more: Vec<&str> = until.iter().flat_map(|until| ["--until", until]).collect();
        let (target, output) = restore(name, &more);
        ok(&output);
        let server = Server::start(&["--data-dir", text(&target)]);
        assert_eq!(get(&server, "grows").as_deref(), Some("20"));
        assert_eq!(get(&server, "last").as_deref(), Some("1"));
    }
    for (until, reason) in [
        ("1", "expected an older backup"),
        ("2001-01-01T00:00:00Z", "expected an older backup"),
        ("99999999999999999", "the log ends with change"),
    ] {
        let (target, output) = restore("none", &["--until", until]);
        let words = refused(&output);
        assert!(words.contains(reason), "{words}");
        assert!(!target.exists());
    }
    // The log of another store.
    let other = folder.path().join("other");
    let stranger = Server::start(&["--data-dir", text(&other)]);
    put(&stranger, "x?durability=sync", "1");
    let output = run(&[
        "restore",
        "--data-dir",
        text(&folder.path().join("none")),
        text(&file),
        "--wal",
        text(&other.join("wal")),
    ]);
    let words = refused(&output);
    assert!(words.contains("belongs to store"), "{words}");
    assert!(server.terminate());
}

#[test]
fn a_replace_is_seen_whole_or_not_at_all_and_reuses_no_entity_tag() {
    let folder = tempfile::tempdir().expect("a folder");
    for durable in [false, true] {
        let data = folder.path().join("data");
        let flags = [
            "--threads",
            "2",
            "--wal-sync",
            "always",
            "--data-dir",
            text(&data),
        ];
        let server = Server::start(if durable { &flags } else { &flags[..2] });
        let old = put(&server, "a", "1").etag().to_owned();
        for n in 0..500 {
            put(&server, &format!("old/{n}"), "1");
        }
        let bytes = backup(&server);
        let newer = put(&server, "a", "2").etag().to_owned();
        assert_eq!(server.ask("DELETE /v1/kv/old/7", "").status, 204);
        put(&server, "new", "1");
        // A reader that sees one of the two states in every listing, never a mixture.
        let stop = AtomicBool::new(false);
        let answer = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut client = server.connect();
                let mut swapped = false;
                while !stop.load(Ordering::Relaxed) {
                    let ops = "{\"ops\":[{\"op\":\"get\",\"key\":\"new\"},{\"op\":\"get\",\"key\":\"old/7\"}]}";
                    let both = client.ask("POST /v1/batch", ops).json();
                    let status = |n: usize| both["results"][n]["status"].as_u64().expect("a status");
                    // Between two reads of one batch the swap may come, but nothing goes back.
                    match (status(0), status(1)) {
                        (200, 404) => assert!(!swapped, "it came back"),
                        (404, 200) => swapped = true,
                        (200, 200) => assert!(!std::mem::replace(&mut swapped, true)),
                        other => panic!("{other:?}"),
                    }
                }
                swapped
            });
            let answer = server.ask("POST /v1/admin/restore", &bytes);
            std::thread::sleep(Duration::from_millis(20));
            stop.store(true, Ordering::Relaxed);
            assert!(watcher.join().expect("no mixture"), "the swap was seen");
            answer
        });
        assert_eq!(answer.status, 200, "{answer:?}");
        let report = answer.json();
        assert_eq!(
            (&report["restored"], &report["mode"]),
            (&501.into(), &"replace".into())
        );
        assert_eq!(keys(&server), 501);
        let restored = server.ask("GET /v1/kv/a", "");
        assert_eq!(restored.text(), "1");
        assert!(
            ![old.as_str(), &newer].contains(&restored.etag()),
            "an entity tag is back"
        );
        for etag in [&old, &newer] {
            let stale = server.ask(&format!("PUT /v1/kv/a\nIf-Match: {etag}"), "3");
            assert_eq!(stale.status, 412);
        }
        put(&server, "after", "1");
        if durable {
            drop(server);
            let server = Server::start(&flags);
            assert_eq!(
                (keys(&server), get(&server, "a").as_deref()),
                (502, Some("1"))
            );
            assert_eq!(server.ask("GET /v1/kv/a", "").etag(), restored.etag());
            eventually("the staged backup is removed", || {
                !fs::read_dir(data.join("snapshots"))
                    .expect("the snapshots")
                    .any(|entry| {
                        entry
                            .expect("a file")
                            .file_name()
                            .to_string_lossy()
                            .ends_with(".restore")
                    })
            });
            assert!(server.terminate());
            ok(&run(&["check", text(&data)]));
        }
    }
}

#[test]
fn a_merge_keeps_what_is_newer_and_deletes_nothing() {
    let server = Server::start(&[]);
    for key in ["same", "older", "deleted", "x/other"] {
        put(&server, key, "\"backup\"");
    }
    let bytes = backup(&server);
    put(&server, "older", "\"newer\"");
    assert_eq!(server.ask("DELETE /v1/kv/deleted", "").status, 204);
    assert_eq!(server.ask("DELETE /v1/kv/x/other", "").status, 204);
    put(&server, "added", "1");
    let answer = server.ask("POST /v1/admin/restore?mode=merge&prefix=x/", &bytes);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        (get(&server, "deleted"), get(&server, "x/other").is_some()),
        (None, true)
    );
    let report = server
        .ask("POST /v1/admin/restore?mode=merge", &bytes)
        .json();
    assert_eq!(
        (&report["restored"], &report["kept"]),
        (&1.into(), &3.into()),
        "{report}"
    );
    assert_eq!(get(&server, "older").as_deref(), Some("\"newer\""));
    assert_eq!(get(&server, "deleted").as_deref(), Some("\"backup\""));
    assert_eq!(get(&server, "added").as_deref(), Some("1"));
    // Of another store, only what is missing is taken.
    let stranger = Server::start(&[]);
    put(&stranger, "same", "\"mine\"");
    let report = stranger
        .ask("POST /v1/admin/restore?mode=merge", &bytes)
        .json();
    assert_eq!(
        (&report["restored"], &report["kept"]),
        (&3.into(), &1.into()),
        "{report}"
    );
    assert_eq!(get(&stranger, "same").as_deref(), Some("\"mine\""));
}

#[test]
fn a_backup_that_is_none_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let server = Server::start(&["--data-dir", text(&data)]);
    put(&server, "a", "1");
    let bytes = backup(&server);
    put(&server, "a", "2");
    let mut flipped = bytes.clone();
    flipped[90] ^= 4;
    for (harmed, reason) in [
        (&bytes[..bytes.len() - 1], "cut off"),
        (&flipped[..], "damaged at offset"),
        (b"hello", "a backup, which begins with"),
        (b"", "cut off"),
    ] {
        for mode in ["replace", "merge"] {
            let answer = server.ask(&format!("POST /v1/admin/restore?mode={mode}"), harmed);
            assert_eq!(answer.status, 400, "{answer:?}");
            let problem = answer.json();
            assert_eq!(problem["code"], "INVALID_BACKUP");
            let detail = problem["detail"].as_str().expect("words");
            assert!(detail.contains(reason), "{detail}");
        }
    }
    for query in [
        "mode=full",
        "mode=x",
        "prefix=a",
        "mode=replace&prefix=a",
        "y=1",
    ] {
        let answer = server.ask(&format!("POST /v1/admin/restore?{query}"), &bytes);
        assert_eq!(answer.status, 400, "{query}");
    }
    // A client that leaves in the middle.
    let mut client = server.connect();
    let head = format!(
        "POST /v1/admin/restore HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    client
        .send([head.as_bytes(), &bytes[..bytes.len() / 2]].concat())
        .expect("sent");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(
        server.ask("POST /v1/admin/restore", &bytes).json()["code"],
        "RESTORE_RUNNING"
    );
    drop(client);
    eventually("another may begin", || {
        server
            .ask("POST /v1/admin/restore?mode=merge&prefix=none", &bytes)
            .status
            == 200
    });
    assert_eq!(
        (get(&server, "a").as_deref(), keys(&server)),
        (Some("2"), 1)
    );
    let leftover = fs::read_dir(data.join("snapshots"))
        .expect("the snapshots")
        .any(|entry| {
            entry
                .expect("a file")
                .file_name()
                .to_string_lossy()
                .ends_with(".restore")
        });
    assert!(!leftover);
    assert!(server.terminate());
}

/// Killed at any moment of a replace, the store is what it was or what was restored.
#[test]
fn a_server_killed_in_a_replace_has_one_state_or_the_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = Server::start(&[]);
    for n in 0..400 {
        put(&source, &format!("restored/{n}"), "\"restored\"");
    }
    let bytes = backup(&source);
    let mut seen = [0, 0];
    for round in 0..8_u64 {
        let data = folder.path().join(format!("data{round}"));
        let flags = ["--wal-sync", "always", "--data-dir", text(&data)];
        let server = Server::start(&flags);
        for n in 0..50 {
            put(&server, &format!("before/{n}"), "1");
        }
        let mut client = server.connect();
        client.request("POST /v1/admin/restore", &bytes);
        if round == 7 {
            assert_eq!(client.answer(false).expect("an answer").status, 200);
        } else {
            std::thread::sleep(Duration::from_millis(round * 3));
        }
        drop(server);
        let server = Server::start(&flags);
        let found = (
            get(&server, "before/1").is_some(),
            get(&server, "restored/399").is_some(),
        );
        let expected = match found {
            (true, false) => 50,
            (false, true) => 400,
            other => panic!("{other:?}"),
        };
        assert_eq!(keys(&server), expected);
        seen[usize::from(found.1)] += 1;
        assert!(round < 7 || found.1, "it was answered");
        put(&server, "goes/on", "1");
        assert!(server.terminate());
        ok(&run(&["check", text(&data)]));
    }
    assert!(seen[1] > 0);
}

#[test]
fn verifying_reads_everything_back_and_names_what_does_not_hold() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let server = Server::start(&["--data-dir", text(&data)]);
    for n in 0..200 {
        put(&server, &format!("a/{n}"), "{}");
    }
    put(&server, "long", &format!("\"{}\"", "x".repeat(100_000)));
    assert_eq!(
        server.ask("POST /v1/admin/snapshot?wait=true", "").status,
        200
    );
    put(&server, "later?durability=sync", "1");
    let report = server.ask("POST /v1/admin/verify", "").json();
    assert_eq!(
        (&report["sound"], &report["memory"]["entries"]),
        (&true.into(), &202.into()),
        "{report}"
    );
    assert_eq!(report["snapshots"]["count"], 1);
    assert!(
        report["log"]["records"].as_u64().expect("a number") >= 1,
        "{report}"
    );
    assert_eq!(report["damage"], serde_json::json!([]));
    let part = fs::read_dir(data.join("snapshots"))
        .expect("the snapshots")
        .map(|entry| entry.expect("a file").path())
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "part")
        })
        .expect("a part");
    let mut bytes = fs::read(&part).expect("its bytes");
    bytes[70] ^= 1;
    fs::write(&part, bytes).expect("written");
    let report = server.ask("POST /v1/admin/verify", "").json();
    assert_eq!(
        (&report["sound"], &report["damaged"]),
        (&false.into(), &1.into()),
        "{report}"
    );
    let words = report["damage"][0].as_str().expect("words");
    assert!(words.contains(".part is damaged at offset"), "{words}");
    assert_eq!(
        Server::start(&[]).ask("POST /v1/admin/verify", "").json()["sound"],
        true
    );
    assert_eq!(server.ask("POST /v1/admin/verify?x=1", "").status, 400);
}
