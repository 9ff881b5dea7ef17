//! GET and PUT against each server in interleaved rounds; medians, and ratios of what was measured side by side.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::{Persistence, ServerName, Speed};
use crate::compare::table::Table;
use crate::compare::{median, temporary_folder};
use crate::environment::{self, Environment};
use crate::error::Error;
use crate::load::{self, Plan, Report, Stop};
use crate::servers::{self, Launcher, Server};
use crate::workload::mix::Mix;

/// Connections are made and caches warmed before each measurement.
const WARMUP: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize)]
struct Outcome {
    environment: Environment,
    connections: u32,
    pipeline: u32,
    rounds: u32,
    operations: Vec<OperationOutcome>,
}

#[derive(Debug, Serialize)]
struct OperationOutcome {
    operation: &'static str,
    servers: Vec<ServerOutcome>,
}

/// Medians over the rounds. A ratio is taken within each round, and then the median.
#[derive(Debug, Serialize)]
struct ServerOutcome {
    server: &'static str,
    throughput: f64,
    cpu_us: f64,
    cores: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    failed: u64,
    throughput_to_bare: Option<f64>,
    cpu_to_bare: Option<f64>,
    throughput_to_redis: Option<f64>,
    cpu_to_redis: Option<f64>,
    rounds: Vec<Report>,
}

pub(crate) fn run(options: &Speed) -> Result<(), Error> {
    let environment = Environment::read();
    let folder = temporary_folder(options.subjects.temp.as_deref())?;
    let launcher = Launcher::new(&options.subjects, folder.path())?;
    let names = servers::available(&options.servers)?;
    let bytes = options.data.value_bytes;
    let servers: Vec<Server> = names
        .iter()
        .map(|&name| {
            launcher.start(
                name,
                &folder.path().join(name.as_str()),
                options.persistence,
                bytes,
                options.pipeline > 1,
            )
        })
        .collect::<Result<_, _>>()?;
    for server in &servers {
        load::run(&plan(options, server, Mix::Put).fill())?.demand_success()?;
    }
    // reports[operation][server][round]
    let operations = [("GET", Mix::Get), ("PUT", Mix::Put)];
    let mut reports = operations.map(|_| vec![Vec::new(); servers.len()]);
    let steps = u64::from(options.rounds) * (operations.len() * servers.len()) as u64;
    let progress = progress(steps);
    for round in 0..options.rounds as usize {
        for (&(operation, mix), reports) in operations.iter().zip(&mut reports) {
            for turn in 0..servers.len() {
                // Each server is first in turn, so that none always follows the same other.
                let which = (turn + round) % servers.len();
                progress.set_message(format!(
                    "round {}: {operation} {}",
                    round + 1,
                    names[which].as_str()
                ));
                reports[which].push(load::run(&plan(options, &servers[which], mix))?);
                progress.inc(1);
            }
        }
    }
    progress.finish_and_clear();
    for server in servers {
        server.stop()?;
    }
    let operations = operations
        .iter()
        .zip(reports)
        .map(|(&(operation, _), reports)| OperationOutcome {
            operation,
            servers: outcomes(&names, reports),
        })
        .collect();
    let outcome = Outcome {
        environment,
        connections: options.connections,
        pipeline: options.pipeline,
        rounds: options.rounds,
        operations,
    };
    if options.subjects.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&outcome).expect("an outcome is plain data")
        );
    } else {
        print(&outcome, options);
    }
    outcome.demand_success()
}

/// Shown on a terminal only.
fn progress(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}");
    ProgressBar::new(steps).with_style(style.expect("the template is constant"))
}

fn plan(options: &Speed, server: &Server, mix: Mix) -> Plan {
    let protocol = server.name.protocol(server.address);
    Plan {
        connections: options.connections as usize,
        threads: options
            .load_threads
            .map_or_else(environment::load_threads, usize::from),
        pipeline: options.pipeline as usize,
        stop: Stop::After(options.round),
        warmup: WARMUP,
        timeout: TIMEOUT,
        pids: server.pids(),
        ..Plan::new(server.address, protocol, options.data.clone(), mix)
    }
}

fn outcomes(names: &[ServerName], reports: Vec<Vec<Report>>) -> Vec<ServerOutcome> {
    let peer = |name| {
        names
            .iter()
            .position(|&other| other == name)
            .map(|at| reports[at].clone())
    };
    let (bare, redis) = (peer(ServerName::Bare), peer(ServerName::Redis));
    names
        .iter()
        .zip(reports)
        .map(|(name, rounds)| outcome(*name, rounds, bare.as_deref(), redis.as_deref()))
        .collect()
}

fn outcome(
    name: ServerName,
    rounds: Vec<Report>,
    bare: Option<&[Report]>,
    redis: Option<&[Report]>,
) -> ServerOutcome {
    let of = |figure: fn(&Report) -> f64| median(rounds.iter().map(figure).collect());
    let to = |peer: Option<&[Report]>, figure: fn(&Report) -> f64| {
        let ratios = rounds
            .iter()
            .zip(peer?)
            .filter(|(_, peer)| figure(peer) > 0.0);
        Some(median(
            ratios
                .map(|(own, peer)| figure(own) / figure(peer))
                .collect(),
        ))
    };
    ServerOutcome {
        server: name.as_str(),
        throughput: of(throughput),
        cpu_us: of(cpu_us),
        cores: of(|report| report.server.map_or(0.0, |server| server.cores)),
        p50_us: of(|report| report.latency_us.p50),
        p99_us: of(|report| report.latency_us.p99),
        p999_us: of(|report| report.latency_us.p999),
        failed: rounds.iter().map(Report::failed).sum(),
        throughput_to_bare: to(bare, throughput),
        cpu_to_bare: to(bare, cpu_us),
        throughput_to_redis: to(redis, throughput),
        cpu_to_redis: to(redis, cpu_us),
        rounds,
    }
}

fn throughput(report: &Report) -> f64 {
    report.throughput
}

fn cpu_us(report: &Report) -> f64 {
    report
        .server
        .map_or(0.0, |server| server.cpu_us_per_request)
}

impl Outcome {
    fn demand_success(&self) -> Result<(), Error> {
        let rounds = || {
            self.operations
                .iter()
                .flat_map(|operation| &operation.servers)
                .flat_map(|server| &server.rounds)
        };
        rounds().try_for_each(Report::demand_success)
    }
}

fn print(outcome: &Outcome, options: &Speed) {
    println!(
        "{}\n{}",
        outcome.environment.line(),
        outcome.environment.command
    );
    let persistence = match options.persistence {
        Persistence::Off => "no persistence",
        Persistence::Interval => "log synced once a second",
        Persistence::Always => "log synced before each answer",
    };
    println!(
        "{} connections, {} in flight each, {}-byte values, {persistence}; medians of {} rounds of {:?}\n",
        outcome.connections,
        outcome.pipeline,
        options.data.value_bytes,
        outcome.rounds,
        options.round
    );
    let mut table = Table::new(&[
        "",
        "requests/s",
        "CPU µs",
        "p50 µs",
        "p99 µs",
        "/s to bare",
        "CPU to bare",
        "/s to redis",
        "CPU to redis",
        "failed",
    ]);
    let ratio =
        |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    for OperationOutcome { operation, servers } in &outcome.operations {
        for server in servers {
            table.push(vec![
                format!("{operation} {}", server.server),
                format!("{:.0}", server.throughput),
                format!("{:.2}", server.cpu_us),
                format!("{:.0}", server.p50_us),
                format!("{:.0}", server.p99_us),
                ratio(server.throughput_to_bare),
                ratio(server.cpu_to_bare),
                ratio(server.throughput_to_redis),
                ratio(server.cpu_to_redis),
                server.failed.to_string(),
            ]);
        }
    }
    print!("{table}");
    let mut rounds = outcome
        .operations
        .iter()
        .flat_map(|operation| &operation.servers)
        .flat_map(|server| &server.rounds);
    if rounds.any(|report| report.client.saturated) {
        println!("\nin some rounds the generator was the limit (--load-threads)");
    }
}
