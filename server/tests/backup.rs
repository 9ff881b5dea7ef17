//! Backups of a running server: of one moment while others write, verified, found in, and visibly cut off when given up.

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use inflightkv_server::engine::snapshot_codecs;
use inflightkv_snapshot::read_backup;
use support::Server;

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

fn values_of(bytes: &[u8]) -> BTreeMap<String, (u64, String)> {
    let mut values = BTreeMap::new();
    read_backup("b", bytes, &snapshot_codecs(), |entry| {
        let value = String::from_utf8(entry.value.to_vec()).expect("JSON");
        values.insert(entry.key.to_owned(), (entry.sequence, value));
        ControlFlow::Continue(())
    })
    .expect("the backup holds");
    values
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Writers count up in two keys, the second after the first: a backup of one moment never has the second ahead, and never
/// the first ahead by more than one.
#[test]
fn a_backup_is_of_one_moment_while_others_write() {
    let folder = tempfile::tempdir().expect("a folder");
    for durable in [false, true] {
        let data = folder.path().join("data");
        let flags = [
            "--partitions",
            "64",
            "--threads",
            "2",
            "--data-dir",
            text(&data),
        ];
        let server = Server::start(if durable { &flags } else { &flags[..4] });
        let mut client = server.connect();
        let ops: Vec<String> = (0..2000)
            .map(|n| format!("{{\"op\":\"put\",\"key\":\"fill/{n}\",\"value\":\"{n:0>200}\"}}"))
            .collect();
        let filled = client.ask("POST /v1/batch", format!("{{\"ops\":[{}]}}", ops.join(",")));
        assert_eq!(filled.status, 200);

        let stop = AtomicBool::new(false);
        let written = AtomicU64::new(0);
        let backups: Vec<Vec<u8>> = std::thread::scope(|scope| {
            for writer in 0..3 {
                let (server, stop, written) = (&server, &stop, &written);
                scope.spawn(move || {
                    let mut client = server.connect();
                    let mut n = 0;
                    while !stop.load(Ordering::Relaxed) {
                        n += 1;
                        for side in ["a", "b"] {
                            let put =
                                client.ask(&format!("PUT /v1/kv/{writer}/{side}"), n.to_string());
                            assert!(matches!(put.status, 201 | 204), "{put:?}");
                        }
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let backups = (0..5)
                .map(|round| {
                    support::eventually("writing", || written.load(Ordering::Relaxed) > round * 20);
                    let answer = server.ask("GET /v1/admin/backup", "");
                    assert_eq!(answer.status, 200);
                    assert_eq!(
                        answer.field("content-type"),
                        Some("application/vnd.inflightkv.backup")
                    );
                    answer.body
                })
                .collect();
            stop.store(true, Ordering::Relaxed);
            backups
        });
        let mut last = 0;
        for bytes in &backups {
            let values = values_of(bytes);
            let numbers = |side: &str| -> Vec<u64> {
                (0..3)
                    .map(|writer| {
                        values
                            .get(&format!("{writer}/{side}"))
                            .map_or(0, |(_, value)| value.parse().expect("a number"))
                    })
                    .collect()
            };
            for (a, b) in numbers("a").into_iter().zip(numbers("b")) {
                assert!(
                    a == b || a == b + 1,
                    "{a} and {b} were never there together"
                );
            }
            let filled = values.keys().filter(|key| key.starts_with("fill/")).count();
            assert_eq!(filled, 2000);
            let sum = numbers("a").into_iter().sum();
            assert!(sum >= last, "a later backup has less: {sum} after {last}");
            last = sum;
        }
        assert!(last > 0);
        assert!(server.terminate());
    }
}

#[test]
fn the_command_line_fetches_checks_and_inspects() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(&[]);
    for (key, value) in [("a/1", "1"), ("a/2", "{\"x\":2}"), ("b/1", "\"three\"")] {
        let put = server.ask(&format!("PUT /v1/kv/{key}"), value);
        assert_eq!(put.status, 201);
    }
    let file = folder.path().join("of.backup");
    let url = format!("http://{}", server.address);
    let said = ok(&run(&["backup", "--url", &url, "--out", text(&file)]));
    assert!(said.contains("3 entries"), "{said}");
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .expect("the folder")
        .map(|entry| entry.expect("a file").file_name())
        .collect();
    assert_eq!(names, ["of.backup"]);
    let again = run(&["backup", "--url", &url, "--out", text(&file)]);
    assert_eq!(again.status.code(), Some(1));

    let said = ok(&run(&["check", text(&file)]));
    assert!(said.ends_with("of.backup: sound\n"), "{said}");
    assert_eq!(ok(&run(&["inspect", text(&file)])).lines().count(), 3);
    let found = ok(&run(&["inspect", text(&file), "--key", "a/2"]));
    let line: serde_json::Value = serde_json::from_str(&found).expect("one line");
    assert_eq!(
        (&line["key"], &line["value"]["x"]),
        (&"a/2".into(), &2.into())
    );
    let found = ok(&run(&["inspect", text(&file), "--prefix", "a/"]));
    assert_eq!(found.lines().count(), 2);

    let bytes = std::fs::read(&file).expect("the backup");
    std::fs::write(&file, &bytes[..bytes.len() - 10]).expect("written");
    let checked = run(&["check", text(&file)]);
    assert_eq!(checked.status.code(), Some(1));
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(said.contains("of.backup is damaged at offset"), "{said}");
    assert!(said.contains("cut off"), "{said}");

    let nobody = run(&[
        "backup",
        "--url",
        "http://127.0.0.1:1",
        "--timeout",
        "5s",
        "--out",
        text(&folder.path().join("none")),
    ]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(!folder.path().join("none").exists());
    assert!(!folder.path().join("none.partial").exists());
}

/// A client that asks for a backup and does not read holds little memory, lets writes through and can be followed by others.
#[test]
fn a_reader_that_does_not_read_costs_little() {
    let server = Server::start(&["--threads", "2"]);
    let mut client = server.connect();
    // Incompressible, or all of it would fit into a few buffers.
    let mut random = fastrand::Rng::with_seed(3);
    let value: String = (0..700_000).map(|_| random.alphanumeric()).collect();
    for n in 0..40 {
        let put = client.ask(&format!("PUT /v1/kv/{n}"), format!("\"{n}{value}\""));
        assert_eq!(put.status, 201);
    }
    let before = server.resident_bytes();
    let mut idle = server.connect();
    idle.request("GET /v1/admin/backup", "");
    for n in 0..200 {
        let put = client.ask(&format!("PUT /v1/kv/small{n}"), "1");
        assert_eq!(put.status, 201);
    }
    std::thread::sleep(Duration::from_millis(300));
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes more");
    // It left: the next one gets its turn.
    drop(idle);
    let answer = server.ask("GET /v1/admin/backup", "");
    assert_eq!(values_of(&answer.body).len(), 240);
    assert!(server.ask("GET /v1/admin/backup?x=1", "").status == 400);
    assert!(server.terminate());
}
