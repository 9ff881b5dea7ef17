//! The whole process beside its limit: resident bytes while ten times the limit is written, in sizes from 10 bytes to 1 MiB.
//!
//! What is resident is more than what is accounted by the program itself and by what the allocator rounds up and keeps: at
//! most a tenth of the limit and 32 MiB. And the process that holds nothing.
//!
//! `cargo test --release -p inflightkv-server --test resident -- --nocapture` prints the curve; with
//! `INFLIGHT_RESIDENT_MIB=256` in the environment for another limit.
#![cfg(feature = "cli")]

mod support;

use support::Server;

/// Huge pages would make 12 MiB of what is 2: one for the first objects of every thread.
#[test]
fn a_server_that_holds_nothing_takes_little() {
    let server = Server::start(&["--threads", "2"]);
    server.ask("PUT /v1/kv/a", "{}");
    let bytes = server.anonymous_bytes();
    assert!(bytes < 8 << 20, "{bytes} bytes beside the program");
    assert!(server.terminate());
}

#[test]
fn the_process_stays_near_its_limit() {
    let limit_mib: usize = std::env::var("INFLIGHT_RESIDENT_MIB")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(24);
    let limit = limit_mib << 20;
    let flag = format!("{limit_mib}MiB");
    let server = Server::start(&["--max-memory", &flag, "--eviction", "s3-fifo"]);
    let mut client = server.connect();
    let mut rng = fastrand::Rng::with_seed(11);
    let allowed = limit + limit / 10 + (32 << 20);
    let (mut written, mut shown, mut peak) = (0, 0, 0);
    let mut number = 0_u64;
    println!(
        "limit {limit_mib} MiB, allowed {} MiB resident",
        allowed >> 20
    );
    println!(
        "{:>12} {:>14} {:>14}",
        "written MiB", "accounted MiB", "resident MiB"
    );
    while written < 10 * limit {
        // As many values of each order of magnitude.
        let bytes = (10.0 * (1_048_576.0_f64 / 10.0).powf(rng.f64())) as usize;
        let answer = client.ask(
            &format!("PUT /v1/kv/key{number}\nContent-Type: application/octet-stream"),
            vec![b'x'; bytes],
        );
        assert_eq!(answer.status, 201, "{number} of {bytes} bytes: {answer:?}");
        written += bytes;
        number += 1;
        let resident = server.resident_bytes();
        peak = peak.max(resident);
        assert!(
            resident <= allowed,
            "{resident} bytes after {written} written"
        );
        if written >= shown {
            let stats = server.ask("GET /v1/admin/stats", "").json();
            let used = stats["memory"]["usedBytes"].as_u64().expect("a number");
            assert!(
                used as usize <= limit + limit / 32,
                "{used} bytes accounted"
            );
            println!(
                "{:>12} {:>14.1} {:>14.1}",
                written >> 20,
                used as f64 / 1_048_576.0,
                resident as f64 / 1_048_576.0
            );
            shown += limit / 2;
        }
    }
    println!("peak {:.1} MiB resident", peak as f64 / 1_048_576.0);
    assert!(server.terminate());
}
