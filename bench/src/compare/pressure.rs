//! Reads while the store gives keys up: for memory, and because very many of them expire in one second.
//!
//! Both are set beside the same reads without it, in turns of the same length: a server without a limit that takes the same
//! writes, and the same server before the storm.

use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::{Arrivals, Data, Pressure};
use crate::compare::table::Table;
use crate::compare::{median, temporary_folder};
use crate::environment::Environment;
use crate::error::Error;
use crate::fill::{self, Range};
use crate::interrupt;
use crate::load::{self, Pace, Plan, Stop};
use crate::servers::{Launcher, Server};
use crate::suite::{joined, number, stats};
use crate::workload::key;
use crate::workload::mix::Mix;

const READ_KEYS: u64 = 20_000;
const VALUE_BYTES: usize = 400;
/// Numbers of keys that are written meanwhile, and of those that expire; far from those that are read.
const FILLED_FROM: u64 = 500_000_000;
const WRITTEN_FROM: u64 = 1_000_000_000;
const EXPIRING_FROM: u64 = 2_000_000_000;
/// Room for the keys that are read, which are pinned, and for about as many more: every write has something go.
const LIMIT: &str = "20MiB";

#[derive(Debug, Serialize)]
struct Outcome {
    environment: Environment,
    rounds: Vec<Round>,
    evicted_per_second: f64,
    expired: f64,
    expiry_lag_p99_ms: f64,
    expiry_lag_max_ms: f64,
}

/// p99 of the reads, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    writing: f64,
    evicting: f64,
    quiet: f64,
    expiring: f64,
}

pub(crate) fn run(options: &Pressure) -> Result<(), Error> {
    let environment = Environment::read();
    let folder = temporary_folder(options.subjects.temp.as_deref())?;
    let launcher = Launcher::new(&options.subjects, folder.path())?;
    let free = launcher.inflightkv(None, &[])?;
    let limited = launcher.inflightkv(None, &["--max-memory", LIMIT, "--eviction", "s3-fifo"])?;
    let data = Data::new(READ_KEYS, VALUE_BYTES, 1);
    for server in [&free, &limited] {
        pin(server)?;
    }
    // Until the limited one is full.
    let mut next = [0, 0];
    let range = Range {
        first: FILLED_FROM,
        expire_at: None,
    };
    fill::run(&limited, &Data::new(60_000, VALUE_BYTES, 1), range, |_| {})?;
    let evicted_before = evicted(&limited)?;
    let (mut rounds, mut evicting_for) = (Vec::new(), Duration::ZERO);
    for round in 0..options.rounds {
        interrupt::check()?;
        let mut p99 = [0.0; 2];
        let order = if round.is_multiple_of(2) {
            [0, 1]
        } else {
            [1, 0]
        };
        for which in order {
            let server = [&free, &limited][which];
            let begun = Instant::now();
            p99[which] = thread::scope(|scope| {
                let next = &mut next[which];
                let writer =
                    scope.spawn(move || write(server, next, options.writes, options.round));
                let report = read(options, server, &data);
                joined(writer)?;
                report
            })?;
            evicting_for += if which == 1 {
                begun.elapsed()
            } else {
                Duration::ZERO
            };
        }
        let [quiet, expiring] = storm(options, &free, &data)?;
        rounds.push(Round {
            writing: p99[0],
            evicting: p99[1],
            quiet,
            expiring,
        });
    }
    let told = stats(&mut free.connect()?)?;
    let outcome = Outcome {
        environment,
        rounds,
        evicted_per_second: (evicted(&limited)? - evicted_before) / evicting_for.as_secs_f64(),
        expired: number(&told, "/expired"),
        expiry_lag_p99_ms: number(&told, "/expiryLag/p99Ms"),
        expiry_lag_max_ms: number(&told, "/expiryLagMaxMs"),
    };
    free.stop()?;
    limited.stop()?;
    if options.subjects.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&outcome).expect("an outcome is plain data")
        );
    } else {
        print(options, &outcome);
    }
    Ok(())
}

/// Writes the keys that are read, so that they are never evicted.
fn pin(server: &Server) -> Result<(), Error> {
    let mut client = server.connect()?;
    let value = "x".repeat(VALUE_BYTES - 2);
    let mut batch = Vec::new();
    for number in 0..READ_KEYS {
        batch.extend_from_slice(br#"{"op":"put","pin":true,"key":""#);
        batch.extend_from_slice(&key(number));
        batch.extend_from_slice(format!("\",\"value\":\"{value}\"}}\n").as_bytes());
        if (number + 1).is_multiple_of(1_000) {
            client.http_success("POST", "/v1/batch", "application/x-ndjson", &batch)?;
            batch.clear();
        }
    }
    Ok(())
}

/// p99 of reads on a schedule, in microseconds.
fn read(options: &Pressure, server: &Server, data: &Data) -> Result<f64, Error> {
    let protocol = server.name.protocol(server.address);
    let report = load::run(&Plan {
        connections: 16,
        threads: 1,
        checks_length: false,
        pace: Pace::Open {
            rate: options.rate,
            arrivals: Arrivals::Constant,
        },
        stop: Stop::After(options.round),
        ..Plan::new(server.address, protocol, data.clone(), Mix::Get)
    })?;
    report.demand_success()?;
    Ok(report.latency_us.p99)
}

/// Writes new keys on a schedule.
fn write(server: &Server, next: &mut u64, rate: f64, length: Duration) -> Result<(), Error> {
    let mut client = server.connect()?;
    let value = format!("\"{}\"", "x".repeat(VALUE_BYTES - 2));
    let start = Instant::now();
    let mut written = 0;
    while start.elapsed() < length {
        let key = key(WRITTEN_FROM + *next);
        let path = format!("/v1/kv/{}", String::from_utf8_lossy(&key));
        client.http_success("PUT", &path, "application/json", value.as_bytes())?;
        *next += 1;
        written += 1;
        interrupt::sleep_until(start + Duration::from_secs_f64(f64::from(written) / rate))?;
    }
    Ok(())
}

/// p99 of reads before very many keys expire, and from the instant on at which they do.
fn storm(options: &Pressure, server: &Server, data: &Data) -> Result<[f64; 2], Error> {
    let expiring = Data::new(options.expiring, 100, 1);
    // Long enough for writing them and for reading before.
    let probe = Data::new((options.expiring / 20).max(1), 100, 1);
    let took = fill::run(
        server,
        &probe,
        Range {
            first: EXPIRING_FROM,
            expire_at: Some(Instant::now() + Duration::from_secs(1)),
        },
        |_| {},
    )?;
    let due = Instant::now() + took * 30 + options.round + Duration::from_secs(1);
    let range = Range {
        first: EXPIRING_FROM,
        expire_at: Some(due),
    };
    fill::run(server, &expiring, range, |_| {})?;
    let quiet = read(options, server, data)?;
    interrupt::sleep_until(due - Duration::from_millis(20))?;
    Ok([quiet, read(options, server, data)?])
}

fn evicted(server: &Server) -> Result<f64, Error> {
    let told = stats(&mut server.connect()?)?;
    let reasons = ["background", "inline"];
    Ok(reasons
        .iter()
        .map(|reason| number(&told, &format!("/memory/evicted/{reason}/entries")))
        .sum())
}

fn print(options: &Pressure, outcome: &Outcome) {
    println!(
        "{}\n{}",
        outcome.environment.line(),
        outcome.environment.command
    );
    println!(
        "p99 in microseconds of {} GETs a second, medians of {} rounds; beside {} PUTs a second of new keys, and while {} keys \
         expire at once\n",
        options.rate, options.rounds, options.writes, options.expiring
    );
    let mut table = Table::new(&["", "without", "with", "%"]);
    let mut row = |name: &str, with: fn(&Round) -> f64, without: fn(&Round) -> f64| {
        let of = |figure: fn(&Round) -> f64| median(outcome.rounds.iter().map(figure).collect());
        let ratios = outcome
            .rounds
            .iter()
            .map(|round| with(round) / without(round));
        table.push(vec![
            name.to_owned(),
            format!("{:.0}", of(without)),
            format!("{:.0}", of(with)),
            format!("{:+.1}", (median(ratios.collect()) - 1.0) * 100.0),
        ]);
    };
    row("evicting", |round| round.evicting, |round| round.writing);
    row("expiring", |round| round.expiring, |round| round.quiet);
    print!("{table}");
    println!(
        "\n{:.0} keys a second evicted; {:.0} keys expired, reclaimed within {:.0} ms (p99), {:.0} ms at most",
        outcome.evicted_per_second,
        outcome.expired,
        outcome.expiry_lag_p99_ms,
        outcome.expiry_lag_max_ms
    );
}
