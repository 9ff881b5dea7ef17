//! Rounds of load, kill and restart on one directory, in every sync mode.

use super::load::{self, Load};
use super::model::{self, Journal};
use super::support::{Server, binary, eventually};
use fastrand::Rng;
use std::path::Path;

const CLIENTS: usize = 4;
const ROUNDS: usize = 3;

/// `always`: every answer is a promise.
#[test]
fn always_loses_nothing_that_was_answered() {
    rounds("always", Quiet::Never);
}

/// `interval`: what survives is a prefix, with everything that a request had synced for itself.
#[test]
fn interval_keeps_a_prefix_and_what_was_synced_by_request() {
    rounds("interval", Quiet::Never);
}

/// `os`: the same.
#[test]
fn os_keeps_a_prefix_and_what_was_synced_by_request() {
    rounds("os", Quiet::Never);
}

/// What the log's thread has written is the kernel's: the end of the process takes nothing of it.
#[test]
fn what_was_written_outlives_the_process_in_every_mode() {
    rounds("interval", Quiet::BeforeTheKill);
    rounds("os", Quiet::BeforeTheKill);
}

/// Whether the load ends, and the log is written, before the process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quiet {
    Never,
    BeforeTheKill,
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is {text}, expected a number")),
    )
}

fn rounds(mode: &str, quiet: Quiet) {
    let seed = number("KILL_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("KILL_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let rounds = number("KILL_ROUNDS").map_or(ROUNDS, |rounds| rounds as usize);
    let directory = tempfile::tempdir().expect("a folder");
    let mut journals: Vec<Journal> = (0..CLIENTS).map(|_| Journal::default()).collect();
    let mut used = 0;
    for round in 0..=rounds {
        let server = start(directory.path(), mode, &mut rng);
        if round > 0 {
            let found = load::everything(&server, CLIENTS);
            model::check(&mut journals, &found, &mut used);
        }
        if round == rounds {
            assert!(server.terminate(), "it ends well");
            break;
        }
        let load = Load {
            address: server.address,
            durable: mode == "always",
            changes: rng.usize(20..250),
        };
        let seed = rng.u64(..);
        if quiet == Quiet::Never {
            load::run(load, &mut journals, seed, || server.kill());
        } else {
            load::run(load, &mut journals, seed, || {});
            eventually("the log is written", || {
                let stats = server.ask("GET /v1/admin/stats", "").json();
                stats["wal"]["queueBytes"] == 0
            });
            journals.iter_mut().for_each(Journal::promise_all);
            server.kill();
        }
        check_is_sound(directory.path());
    }
}

/// A server on the directory with settings that change from run to run, and files that are over soon.
fn start(directory: &Path, mode: &str, rng: &mut Rng) -> Server {
    let path = directory.to_str().expect("UTF-8");
    let partitions = 1usize << rng.u8(0..=10);
    let (partitions, threads) = (partitions.to_string(), rng.u8(1..=4).to_string());
    let segment = ["8KiB", "64KiB", "1MiB"][rng.usize(..3)];
    let after = ["16KiB", "256KiB", "1GiB"][rng.usize(..3)];
    println!(
        "{mode}: {partitions} partitions, {threads} threads, segments of {segment}, snapshots after {after}"
    );
    Server::start(&[
        "--data-dir",
        path,
        "--wal-sync",
        mode,
        "--partitions",
        &partitions,
        "--threads",
        &threads,
        "--wal-segment-size",
        segment,
        "--snapshot-after",
        after,
        "--snapshot-full-every",
        "2",
    ])
}

/// What a killed process leaves is nothing that `check` complains of.
fn check_is_sound(directory: &Path) {
    let output = binary()
        .arg("check")
        .arg(directory)
        .output()
        .expect("the binary runs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
