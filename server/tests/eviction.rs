//! Memory bounded: what a server does at its limit, through its sockets and over a restart.
#![cfg(feature = "cli")]

mod support;

use serde_json::Value;
use support::{Client, Server, eventually};

const POLICIES: [&str; 7] = ["lru", "lfu", "ttl", "size", "random", "s3-fifo", "tiny-lfu"];

fn put(client: &mut Client, key: &str, bytes: usize) -> u16 {
    client
        .ask(
            &format!("PUT /v1/kv/{key}\nContent-Type: application/octet-stream"),
            vec![b'x'; bytes],
        )
        .status
}

fn get(client: &mut Client, key: &str) -> u16 {
    client.ask(&format!("GET /v1/kv/{key}"), "").status
}

fn memory(server: &Server) -> Value {
    server.ask("GET /v1/admin/stats", "").json()["memory"].clone()
}

/// Writes ten times what fits, in many sizes: nothing is refused, and what is held stays below the limit.
#[test]
fn ten_times_what_fits_is_written_under_every_policy() {
    let limit = 2 << 20;
    for policy in POLICIES {
        let server = Server::start(&["--max-memory", "2MiB", "--eviction", policy]);
        let mut client = server.connect();
        let mut rng = fastrand::Rng::with_seed(5);
        let mut written = 0;
        let mut number = 0;
        while written < 10 * limit {
            let bytes = 10_usize << rng.u32(0..13);
            let status = put(&mut client, &format!("key{number}"), bytes);
            assert_eq!(status, 201, "{policy}: {number} of {bytes} bytes");
            written += bytes;
            number += 1;
        }
        eventually("eviction down to the mark", || {
            let memory = memory(&server);
            memory["usedBytes"].as_u64() <= memory["highBytes"].as_u64()
        });
        let stats = server.ask("GET /v1/admin/stats", "").json();
        let memory = &stats["memory"];
        let used = memory["usedBytes"].as_u64().expect("a number");
        assert!(used <= limit as u64, "{policy}: {memory}");
        assert!(used >= limit as u64 / 2, "{policy}: {memory}");
        assert_eq!(memory["policy"], policy);
        let evicted = &memory["evicted"];
        let victims: u64 = ["background", "inline", "request"]
            .iter()
            .map(|reason| evicted[reason]["entries"].as_u64().expect("a number"))
            .sum();
        let held = stats["total"]["entries"].as_u64().expect("a number");
        assert_eq!(
            victims + held,
            number,
            "{policy}: every key is there or was evicted"
        );
        assert!(server.terminate());
    }
}

#[test]
fn without_a_policy_the_limit_is_507_and_what_is_there_stays() {
    let server = Server::start(&["--max-memory", "1MiB"]);
    let mut client = server.connect();
    let mut stored = 0;
    while put(&mut client, &format!("key{stored}"), 10_000) == 201 {
        stored += 1;
        assert!(stored < 200, "the limit holds");
    }
    assert!(stored > 80, "{stored} of about a hundred");
    let refused = client.ask(
        "PUT /v1/kv/more\nContent-Type: application/octet-stream",
        vec![b'x'; 20_000],
    );
    assert_eq!(refused.status, 507);
    assert_eq!(refused.json()["code"], "INSUFFICIENT_STORAGE");
    assert_eq!(refused.json()["limit"], 1 << 20);
    let refused = client.ask("PUT /kv/more", format!("\"{}\"", "x".repeat(20_000)));
    assert_eq!(refused.status, 507);
    assert_eq!(refused.json()["error"]["errorCode"], "INSUFFICIENT_STORAGE");
    for number in 0..stored {
        assert_eq!(get(&mut client, &format!("key{number}")), 200);
    }
    // What needs no more than it gives back is still taken, and room that is made can be used.
    assert_eq!(put(&mut client, "key0", 9_000), 204);
    assert_eq!(client.ask("DELETE /v1/kv/key1", "").status, 204);
    assert_eq!(client.ask("DELETE /v1/kv/key2", "").status, 204);
    assert_eq!(put(&mut client, "new", 9_000), 201);
    // A batch is answered operation by operation.
    let value = "x".repeat(60_000);
    let batch = format!(
        r#"{{"ops":[{{"op":"get","key":"key0"}},{{"op":"put","key":"big","value":"{value}"}}]}}"#
    );
    let answer = client.ask("POST /v1/batch", batch).json();
    assert_eq!(answer["results"][1]["status"], 507, "{answer}");
    assert_eq!(answer["results"][0]["status"], 200);
    // The limit can be lifted while the server runs.
    assert_eq!(
        client
            .ask("PATCH /v1/admin/config", r#"{"max-memory":"2MiB"}"#)
            .status,
        200
    );
    assert_eq!(put(&mut client, "more", 20_000), 201);
}

/// Keys that are read all the time stay; those that nobody reads go.
#[test]
fn what_is_read_stays() {
    for policy in ["lru", "lfu", "s3-fifo", "tiny-lfu", "size"] {
        let server = Server::start(&["--max-memory", "2MiB", "--eviction", policy]);
        let mut client = server.connect();
        for hot in 0..10 {
            assert_eq!(put(&mut client, &format!("hot{hot}"), 1_000), 201);
        }
        for cold in 0..6_000 {
            assert_eq!(put(&mut client, &format!("cold{cold}"), 1_000), 201);
            let hot = format!("hot{}", cold % 10);
            // Read through: what is gone is put back, as a cache's client does.
            if get(&mut client, &hot) == 404 {
                put(&mut client, &hot, 1_000);
            }
        }
        let there = (0..10)
            .filter(|hot| get(&mut client, &format!("hot{hot}")) == 200)
            .count();
        assert!(there >= 9, "{policy}: {there} of 10 hot keys");
        let advice = server.ask("GET /v1/admin/stats", "").json()["advice"].clone();
        let ratios = &advice["hitRatios"][policy];
        let ratio = |limit: &str| ratios[limit].as_f64().expect("there were reads");
        assert!(
            ratio("limit") > 0.5 && ratio("doubleLimit") >= ratio("halfLimit") - 0.1,
            "{advice}"
        );
        assert_eq!(get(&mut client, "cold0"), 404, "{policy}");
    }
}

#[test]
fn pinned_keys_stay_through_everything() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory
        .path()
        .to_str()
        .expect("a path of ours")
        .to_owned();
    let flags = [
        "--max-memory",
        "2MiB",
        "--eviction",
        "lru",
        "--data-dir",
        &path,
        "--wal-sync",
        "always",
    ];
    let server = Server::start(&flags);
    let mut client = server.connect();
    for number in 0..20 {
        let answer = client.ask(&format!("PUT /v1/kv/pinned{number}?pin=true"), "[1,2,3]");
        assert_eq!(answer.status, 201);
    }
    assert_eq!(client.ask("PUT /v1/kv/was?pin=true", "1").status, 201);
    // Pinning is a change; doing it again is none. A write without it keeps it.
    assert_eq!(
        client.ask("PUT /v1/kv/was?pin=true", "1").field("version"),
        Some("0")
    );
    assert_eq!(
        client
            .ask("PATCH /v1/kv/was?pin=false", "1")
            .field("version"),
        Some("1")
    );
    assert_eq!(client.ask("PUT /v1/kv/pinned0", "[4]").status, 204);
    assert_eq!(client.ask("PATCH /v1/kv/pinned1?ttl=1h", "[5]").status, 204);
    let batch = r#"{"ops":[{"op":"put","key":"batched","value":1,"pin":true}]}"#;
    assert_eq!(client.ask("POST /v1/batch", batch).status, 200);
    for bad in ["pin=maybe", "pin=true&pin=true"] {
        let answer = client.ask(&format!("PUT /v1/kv/x?{bad}"), "1");
        assert_eq!(answer.status, 400, "{bad}");
    }
    assert_eq!(client.ask("GET /v1/kv/x?pin=true", "").status, 400);

    let flood = |client: &mut Client, name: &str| {
        for number in 0..600 {
            assert_eq!(put(client, &format!("{name}{number}"), 10_000), 201);
        }
    };
    let all_there = |client: &mut Client| {
        for number in 0..20 {
            assert_eq!(get(client, &format!("pinned{number}")), 200, "{number}");
        }
        assert_eq!(get(client, "batched"), 200);
        assert_eq!(get(client, "was"), 404);
    };
    flood(&mut client, "a");
    all_there(&mut client);
    // Through a snapshot and a restart, and from the log alone.
    for snapshot in [true, false] {
        let mut client = server.connect();
        if snapshot {
            let answer = client.ask("POST /v1/admin/snapshot?wait=true", "");
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    drop(client);
    assert!(server.terminate());
    let server = Server::start(&flags);
    let mut client = server.connect();
    flood(&mut client, "b");
    all_there(&mut client);
    assert_eq!(
        client.ask("PUT /v1/kv/pinned0?pin=false", "[4]").status,
        204
    );
    drop(client);
    assert!(server.terminate());
    let server = Server::start(&flags);
    let mut client = server.connect();
    flood(&mut client, "c");
    assert_eq!(get(&mut client, "pinned0"), 404, "it was unpinned");
    assert_eq!(get(&mut client, "pinned1"), 200);
}

/// A restart, from the log or from incremental snapshots, brings no victim back.
#[test]
fn victims_stay_gone_over_a_restart() {
    for snapshots in [false, true] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory
            .path()
            .to_str()
            .expect("a path of ours")
            .to_owned();
        let server = Server::start(&[
            "--max-memory",
            "2MiB",
            "--eviction",
            "lru",
            "--data-dir",
            &path,
        ]);
        let mut client = server.connect();
        for number in 0..400 {
            if snapshots && number % 150 == 100 {
                let answer = client.ask("POST /v1/admin/snapshot?wait=true", "");
                assert_eq!(answer.status, 200, "{answer:?}");
            }
            assert_eq!(put(&mut client, &format!("key{number}"), 10_000), 201);
        }
        eventually("eviction down to the mark", || {
            let memory = memory(&server);
            memory["usedBytes"].as_u64() <= memory["highBytes"].as_u64()
        });
        if snapshots {
            let answer = client.ask("POST /v1/admin/snapshot?wait=true", "");
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let there: Vec<bool> = (0..400)
            .map(|number| get(&mut client, &format!("key{number}")) == 200)
            .collect();
        assert!(there.iter().any(|there| !there) && there.iter().any(|there| *there));
        drop(client);
        assert!(server.terminate());
        // With no limit nothing is evicted after the restart: what is there came from disk.
        let server = Server::start(&["--data-dir", &path]);
        let mut client = server.connect();
        let after: Vec<bool> = (0..400)
            .map(|number| get(&mut client, &format!("key{number}")) == 200)
            .collect();
        assert_eq!(after, there, "snapshots: {snapshots}");
    }
}

#[test]
fn a_store_that_is_too_large_for_its_limit_shrinks_after_the_start_and_after_a_change() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory
        .path()
        .to_str()
        .expect("a path of ours")
        .to_owned();
    let server = Server::start(&["--data-dir", &path]);
    let mut client = server.connect();
    for number in 0..500 {
        assert_eq!(put(&mut client, &format!("key{number}"), 10_000), 201);
    }
    drop(client);
    assert!(server.terminate());
    let below = |server: &Server, limit: u64| {
        // Until it is ready it holds less, because it has not loaded all.
        eventually("shrinking", || {
            server.ask("GET /health/ready", "").status == 200
                && memory(server)["usedBytes"]
                    .as_u64()
                    .is_some_and(|used| used <= limit)
        });
        let entries = server.ask("GET /v1/admin/stats", "").json()["total"]["entries"].as_u64();
        assert!(entries > Some(limit / 10_000 / 2), "{entries:?}");
    };
    let flags = [
        "--data-dir",
        &path,
        "--max-memory",
        "3MiB",
        "--eviction",
        "s3-fifo",
    ];
    let server = Server::start(&flags);
    below(&server, 3 << 20);
    let change = r#"{"max-memory":"1MiB","eviction":"lfu"}"#;
    assert_eq!(server.ask("PATCH /v1/admin/config", change).status, 200);
    below(&server, 1 << 20);
    assert_eq!(memory(&server)["policy"], "lfu");
}

/// Every policy takes over from every other while keys are written and read, and goes on from there.
#[test]
fn policies_follow_each_other_on_a_running_store() {
    let server = Server::start(&["--max-memory", "2MiB", "--eviction", "lru"]);
    let mut client = server.connect();
    let mut number = 0;
    for policy in POLICIES.into_iter().chain(["none"]).chain(POLICIES) {
        let change = format!(r#"{{"eviction":"{policy}"}}"#);
        assert_eq!(client.ask("PATCH /v1/admin/config", change).status, 200);
        for _ in 0..60 {
            let status = put(&mut client, &format!("key{number}"), 10_000);
            assert!(status == 201 || policy == "none", "{policy}: {status}");
            number += 1;
            get(&mut client, &format!("key{}", number - 30));
        }
    }
    // A write that has evicted its share may stand a little above the limit for a moment, and not longer.
    eventually("eviction down to the limit", || {
        memory(&server)["usedBytes"].as_u64() <= Some(2 << 20)
    });
}

#[test]
fn a_person_can_evict() {
    for policy in ["none", "lru", "tiny-lfu"] {
        let server = Server::start(&["--eviction", policy]);
        let mut client = server.connect();
        for number in 0..100 {
            assert_eq!(put(&mut client, &format!("key{number}"), 1_000), 201);
        }
        assert_eq!(client.ask("PUT /v1/kv/kept?pin=true", "1").status, 201);
        let answer = client.ask("POST /v1/admin/evict?bytes=50000", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        let report = answer.json();
        let bytes = report["bytes"].as_u64().expect("a number");
        assert!((50_000..60_000).contains(&bytes), "{policy}: {report}");
        let left = (0..100)
            .filter(|number| get(&mut client, &format!("key{number}")) == 200)
            .count() as u64;
        assert_eq!(left + report["entries"].as_u64().expect("a number"), 100);
        // More than there is: everything goes but what is pinned.
        let answer = client.ask("POST /v1/admin/evict?bytes=1000000000", "");
        assert_eq!(answer.json()["entries"].as_u64(), Some(left), "{policy}");
        assert_eq!(get(&mut client, "kept"), 200);
        for bad in ["", "?bytes=0", "?bytes=x", "?byte=1"] {
            let answer = client.ask(&format!("POST /v1/admin/evict{bad}"), "");
            assert_eq!(answer.status, 400, "{bad}");
        }
    }
}
