//! The same work on every server that is installed, in interleaved rounds: medians, ratios, and who spent the CPU.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{Peers, Persistence, ServerName};
use crate::compare::{median, temporary_folder};
use crate::environment::{self, Environment};
use crate::error::Error;
use crate::load::{self, Plan, Report, Stop};
use crate::report::chart::{Axis, Chart};
use crate::report::unit::Unit;
use crate::report::{Better, Document, FORMAT, Section, output};
use crate::servers::{self, Launcher, Server};
use crate::workload::mix::Mix;

const WARMUP: Duration = Duration::from_millis(300);

/// One kind of work.
struct Work {
    name: &'static str,
    title: &'static str,
    about: &'static str,
    mix: Mix,
    connections: usize,
    pipeline: usize,
    persistence: Persistence,
}

const WORK: [Work; 6] = [
    Work {
        name: "get",
        title: "GET",
        about: "50 connections, one request in flight on each, in memory.",
        mix: Mix::Get,
        connections: 50,
        pipeline: 1,
        persistence: Persistence::Off,
    },
    Work {
        name: "put",
        title: "PUT, SET",
        about: "50 connections, one request in flight on each, in memory. etcd writes to disk all the same.",
        mix: Mix::Put,
        connections: 50,
        pipeline: 1,
        persistence: Persistence::Off,
    },
    Work {
        name: "get-pipelined",
        title: "GET, pipelined",
        about: "50 connections, 16 requests in flight on each. webdis and etcd do not take part.",
        mix: Mix::Get,
        connections: 50,
        pipeline: 16,
        persistence: Persistence::Off,
    },
    Work {
        name: "put-interval",
        title: "PUT, synced once a second",
        about: "50 connections; the log, or append-only file, is synced once a second. Only servers that keep one.",
        mix: Mix::Put,
        connections: 50,
        pipeline: 1,
        persistence: Persistence::Interval,
    },
    Work {
        name: "put-always",
        title: "PUT, synced before each answer",
        about: "50 connections; nothing is acknowledged before it is on disk. Only servers that can do that.",
        mix: Mix::Put,
        connections: 50,
        pipeline: 1,
        persistence: Persistence::Always,
    },
    Work {
        name: "put-always-500",
        title: "PUT, synced before each answer, 500 connections",
        about: "500 connections; nothing is acknowledged before it is on disk.",
        mix: Mix::Put,
        connections: 500,
        pipeline: 1,
        persistence: Persistence::Always,
    },
];

impl Work {
    fn takes(&self, server: ServerName) -> bool {
        let speaks = match server {
            ServerName::Webdis | ServerName::Etcd => self.pipeline == 1,
            _ => true,
        };
        let keeps = match self.persistence {
            Persistence::Off => true,
            Persistence::Interval => {
                matches!(server, ServerName::Inflightkv | ServerName::Redis)
            }
            Persistence::Always => {
                matches!(
                    server,
                    ServerName::Inflightkv | ServerName::Redis | ServerName::Etcd
                )
            }
        };
        speaks && keeps
    }
}

pub(crate) fn run(options: &Peers) -> Result<(), Error> {
    let names = servers::available(&options.servers)?;
    let folder = temporary_folder(options.subjects.temp.as_deref())?;
    let environment = Environment::read().with_disk(folder.path())?;
    let baseline = output::baseline(&options.output, "peers", &environment)?;
    let started_at = environment::now();
    let start = Instant::now();
    let launcher = Launcher::new(&options.subjects, folder.path())?;
    let style = ProgressStyle::with_template("{elapsed} {wide_bar} {pos}/{len} {msg}");
    let rounds = u64::from(options.rounds);
    let steps = WORK
        .iter()
        .map(|work| names.iter().filter(|&&name| work.takes(name)).count() as u64 * rounds);
    let progress =
        ProgressBar::new(steps.sum()).with_style(style.expect("the template is constant"));
    let mut sections = Vec::new();
    for (number, work) in WORK.iter().enumerate() {
        let names: Vec<ServerName> = names
            .iter()
            .copied()
            .filter(|&name| work.takes(name))
            .collect();
        let servers: Vec<Server> = names
            .iter()
            .map(|&name| {
                let data = folder.path().join(format!("{number}-{}", name.as_str()));
                let bytes = options.data.value_bytes;
                launcher.start(name, &data, work.persistence, bytes, work.pipeline > 1)
            })
            .collect::<Result<_, _>>()?;
        for server in &servers {
            progress.set_message(format!("filling {}", server.name.as_str()));
            load::run(&plan(options, work, server).fill())?.demand_success()?;
        }
        let mut reports = vec![Vec::new(); servers.len()];
        for round in 0..options.rounds as usize {
            for turn in 0..servers.len() {
                // Each server is first in turn, so that none always follows the same other.
                let which = (turn + round) % servers.len();
                progress.set_message(format!("{} {}", work.title, names[which].as_str()));
                let report = load::run(&plan(options, work, &servers[which]))?;
                report.demand_success()?;
                reports[which].push(report);
                progress.inc(1);
            }
        }
        for server in servers {
            server.stop()?;
        }
        sections.push(section(work, &names, &reports));
    }
    progress.finish_and_clear();
    let document = Document {
        format: FORMAT,
        title: "InFlightKv beside its peers".to_owned(),
        environment,
        settings: vec![
            (
                "rounds".to_owned(),
                format!("{} of {:?}", options.rounds, options.round),
            ),
            (
                "keys".to_owned(),
                format!("{} of 16 bytes", options.data.keys),
            ),
            (
                "values".to_owned(),
                format!("{} bytes of JSON", options.data.value_bytes),
            ),
            ("seed".to_owned(), options.data.seed.to_string()),
        ],
        started_at,
        seconds: start.elapsed().as_secs_f64(),
        sections,
    };
    output::publish(
        &document,
        "peers",
        &options.output,
        baseline.as_ref(),
        options.subjects.json,
    )
}

fn plan(options: &Peers, work: &Work, server: &Server) -> Plan {
    let protocol = server.name.protocol(server.address);
    Plan {
        connections: work.connections,
        threads: options
            .load_threads
            .map_or_else(environment::load_threads, usize::from),
        pipeline: work.pipeline,
        stop: Stop::After(options.round),
        warmup: WARMUP,
        pids: server.pids(),
        ..Plan::new(server.address, protocol, options.data.clone(), work.mix)
    }
}

fn section(work: &Work, names: &[ServerName], reports: &[Vec<Report>]) -> Section {
    let mut section = Section::new(work.name, work.title, work.about);
    let of =
        |rounds: &[Report], figure: fn(&Report) -> f64| median(rounds.iter().map(figure).collect());
    let labels: Vec<String> = names.iter().map(|name| name.as_str().to_owned()).collect();
    let throughput: fn(&Report) -> f64 = |report| report.throughput;
    let server_cpu: fn(&Report) -> f64 = |report| {
        report
            .server
            .map_or(0.0, |server| server.cpu_us_per_request)
    };
    let client_cpu: fn(&Report) -> f64 = |report| report.client.cpu_us_per_request;
    let all = |figure| {
        reports
            .iter()
            .map(|rounds| of(rounds, figure))
            .collect::<Vec<f64>>()
    };
    let mut rates = Chart::bars("Requests a second", Unit::PerSecond, labels.clone());
    rates.add_bars("closed loop", &all(throughput));
    let mut cost = Chart::bars("CPU time per request", Unit::Microseconds, labels);
    cost.add_bars("server", &all(server_cpu));
    cost.add_bars("load generator", &all(client_cpu));
    let mut curves = Chart::lines("Latency at the ceiling", Axis::quantiles(), Axis::latency());
    for (name, rounds) in names.iter().zip(reports) {
        let name = name.as_str();
        if let Some(first) = rounds.first() {
            curves.add(name, first.distribution_us.clone());
        }
        section.figure(
            name,
            of(rounds, throughput),
            Unit::PerSecond,
            Better::Neither,
        );
        section.figure(
            format!("{name}: server CPU"),
            of(rounds, server_cpu),
            Unit::Microseconds,
            Better::Neither,
        );
        section.figure(
            format!("{name}: generator CPU"),
            of(rounds, client_cpu),
            Unit::Microseconds,
            Better::Neither,
        );
        section.figure(
            format!("{name}: server cores"),
            of(rounds, |report| {
                report.server.map_or(0.0, |server| server.cores)
            }),
            Unit::Cores,
            Better::Neither,
        );
        for (quantile, figure) in [
            (
                "p50",
                (|report| report.latency_us.p50) as fn(&Report) -> f64,
            ),
            ("p99", |report| report.latency_us.p99),
            ("p99.9", |report| report.latency_us.p999),
        ] {
            section.figure(
                format!("{name}: {quantile}"),
                of(rounds, figure),
                Unit::Microseconds,
                Better::Neither,
            );
        }
    }
    if let Some(own) = names
        .iter()
        .position(|&name| name == ServerName::Inflightkv)
    {
        let own = &reports[own];
        for (name, peer) in names.iter().zip(reports) {
            if *name == ServerName::Inflightkv {
                continue;
            }
            // A ratio within each round, so that what disturbed the machine disturbed both; then the median.
            let ratio = |figure: fn(&Report) -> f64| {
                let pairs = own.iter().zip(peer).filter(|(_, peer)| figure(peer) > 0.0);
                median(
                    pairs
                        .map(|(own, peer)| figure(own) / figure(peer))
                        .collect(),
                )
            };
            let name = name.as_str();
            section.headline(
                format!("{}: rate to {name}", work.name),
                ratio(throughput),
                Unit::Ratio,
                Better::Higher,
            );
            section.headline(
                format!("{}: CPU to {name}", work.name),
                ratio(server_cpu),
                Unit::Ratio,
                Better::Lower,
            );
        }
    }
    if reports
        .iter()
        .flatten()
        .any(|report| report.client.saturated)
    {
        section.note("In some rounds the load generator used all of its threads' time, so that it was the limit (--load-threads).");
    }
    for (name, rounds) in names.iter().zip(reports) {
        let (server, client) = (of(rounds, server_cpu), of(rounds, client_cpu));
        if server + client > 0.0 {
            // What no scheduling can exceed, and what this protocol costs whoever speaks it.
            let bound = environment::cores() as f64 * 1e6 / (server + client);
            section.note(format!(
                "{}: {server:.1} µs of the server and {client:.1} µs of the generator for each request, so that {} cores \
                 which do both end at {} at the latest.",
                name.as_str(),
                environment::cores(),
                Unit::PerSecond.show(bound)
            ));
        }
    }
    section.charts = vec![rates, cost, curves];
    section
}
