//! Persistence turned on and off under writers, and the process killed at every moment of it.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use support::{Server, eventually};

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn put(server: &Server, key: &str, value: &str) -> u16 {
    server.ask(&format!("PUT /v1/kv/{key}"), value).status
}

fn get(server: &Server, key: &str) -> Option<String> {
    let answer = server.ask(&format!("GET /v1/kv/{key}"), "");
    (answer.status == 200).then(|| answer.text().to_owned())
}

fn switch(server: &Server, state: &str) -> serde_json::Value {
    let answer = server.ask(&format!("POST /v1/admin/persistence?state={state}"), "");
    assert_eq!(answer.status, 200, "{answer:?}");
    let report = answer.json();
    assert_eq!(report["state"], state);
    report
}

fn is_sound(data: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_inflightkv"))
        .args(["check", text(data)])
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn on_and_off_and_on_again_under_writers_loses_nothing_that_was_promised() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let off = [
        "--threads",
        "2",
        "--persistence",
        "off",
        "--data-dir",
        text(&data),
    ];
    let server = Server::start(&off);
    assert_eq!(put(&server, "first", "1"), 201);
    let refused = server.ask("PUT /v1/kv/x?durability=sync", "1");
    assert_eq!(
        (refused.status, refused.json()["code"].as_str()),
        (409, Some("NOT_DURABLE"))
    );
    assert_eq!(server.ask("POST /v1/admin/snapshot", "").status, 409);
    assert_eq!(switch(&server, "off")["durableSequence"], 0);

    let stop = AtomicBool::new(false);
    let counts: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(0)).collect();
    let up_to = std::thread::scope(|scope| {
        for (writer, count) in counts.iter().enumerate() {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || {
                let mut client = server.connect();
                while !stop.load(Ordering::Relaxed) {
                    let n = count.load(Ordering::Relaxed) + 1;
                    let put = client.ask(&format!("PUT /v1/kv/w{writer}"), n.to_string());
                    assert!(matches!(put.status, 201 | 204), "{put:?}");
                    count.store(n, Ordering::Relaxed);
                }
            });
        }
        let written = |more: u64| {
            let goal: Vec<u64> = counts
                .iter()
                .map(|n| n.load(Ordering::Relaxed) + more)
                .collect();
            eventually("writes", || {
                counts
                    .iter()
                    .zip(&goal)
                    .all(|(n, goal)| n.load(Ordering::Relaxed) >= *goal)
            });
        };
        written(20);
        let on = switch(&server, "on")["durableSequence"]
            .as_u64()
            .expect("a number");
        assert!(on > 0);
        let synced = server.ask("PUT /v1/kv/synced?durability=sync", "1");
        assert_eq!(synced.status, 201, "{synced:?}");
        written(20);
        let durable = switch(&server, "off")["durableSequence"]
            .as_u64()
            .expect("a number");
        assert!(durable > on);
        assert_eq!(server.ask("PUT /v1/kv/x?durability=sync", "1").status, 409);
        written(20);
        let on = switch(&server, "on")["durableSequence"]
            .as_u64()
            .expect("a number");
        assert!(on > durable);
        assert!(
            switch(&server, "on")["durableSequence"]
                .as_u64()
                .expect("a number")
                >= on
        );
        written(20);
        stop.store(true, Ordering::Relaxed);
        on
    });
    assert!(up_to > 0);
    assert_eq!(
        server.ask("PUT /v1/kv/last?durability=sync", "1").status,
        201
    );
    drop(server);
    is_sound(&data);
    let server = Server::start(&["--data-dir", text(&data)]);
    for (writer, count) in counts.iter().enumerate() {
        let found = get(&server, &format!("w{writer}"));
        assert_eq!(found, Some(count.load(Ordering::Relaxed).to_string()));
    }
    for key in ["first", "synced", "last"] {
        assert_eq!(get(&server, key).as_deref(), Some("1"), "{key}");
    }
    // Off: what is on disk is the store of that moment.
    switch(&server, "off");
    assert_eq!(put(&server, "memory", "1"), 201);
    drop(server);
    is_sound(&data);
    let server = Server::start(&["--data-dir", text(&data)]);
    assert_eq!(
        (get(&server, "memory"), get(&server, "last").is_some()),
        (None, true)
    );
    assert!(server.terminate());
}

#[test]
fn killed_while_it_is_turned_on_the_store_is_what_it_was_before_or_all_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut seen = [0, 0];
    for round in 0..8_u64 {
        let data = folder.path().join(format!("data{round}"));
        let server = Server::start(&["--data-dir", text(&data)]);
        for n in 0..50 {
            put(&server, &format!("kept/{n}"), "1");
        }
        switch(&server, "off");
        for n in 0..300 {
            put(
                &server,
                &format!("memory/{n}"),
                "\"some value that takes a little room\"",
            );
        }
        let mut client = server.connect();
        client.request("POST /v1/admin/persistence?state=on", "");
        if round == 7 {
            assert_eq!(client.answer(false).expect("an answer").status, 200);
        } else {
            std::thread::sleep(Duration::from_millis(round * 3));
        }
        drop(server);
        let server = Server::start(&["--data-dir", text(&data)]);
        assert_eq!(get(&server, "kept/49").as_deref(), Some("1"));
        let listed = server.ask("GET /v1/keys\nAccept: application/x-ndjson", "");
        let memory = listed
            .text()
            .lines()
            .filter(|line| line.contains("memory/"))
            .count();
        assert!(matches!(memory, 0 | 300), "{memory}");
        seen[usize::from(memory > 0)] += 1;
        assert!(round < 7 || memory == 300, "it was answered");
        assert!(!data.join("snapshots/PENDING").exists());
        assert_eq!(
            server.ask("PUT /v1/kv/goes/on?durability=sync", "1").status,
            201
        );
        assert!(server.terminate());
        is_sound(&data);
    }
    assert!(seen[1] > 0);
}

#[test]
fn what_cannot_be_turned_on_says_why() {
    let server = Server::start(&[]);
    let answer = server.ask("POST /v1/admin/persistence?state=on", "");
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (409, Some("NO_DATA_DIR"))
    );
    switch(&server, "off");
    for query in ["", "?state=x", "?state=on&state=off", "?state=on&x=1"] {
        let answer = server.ask(&format!("POST /v1/admin/persistence{query}"), "");
        assert_eq!(answer.status, 400, "{query}");
    }
    // A directory that holds another store is not written over.
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let owner = Server::start(&["--data-dir", text(&data)]);
    assert_eq!(
        owner.ask("PUT /v1/kv/precious?durability=sync", "1").status,
        201
    );
    assert!(owner.terminate());
    let before = fs::read_dir(data.join("wal")).expect("the log").count();
    let server = Server::start(&["--persistence=off", "--data-dir", text(&data)]);
    assert_eq!(get(&server, "precious"), None);
    let answer = server.ask("POST /v1/admin/persistence?state=on", "");
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (409, Some("FOREIGN_DATA_DIR"))
    );
    assert!(server.terminate());
    assert_eq!(
        fs::read_dir(data.join("wal")).expect("the log").count(),
        before
    );
}
