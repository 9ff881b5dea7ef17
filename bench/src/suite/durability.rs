//! What syncing the log costs, and who pays.

use std::thread;

use crate::cli::{Arrivals, Data};
use crate::error::Error;
use crate::load::{self, Pace, Plan, Report};
use crate::report::chart::{Axis, Chart};
use crate::report::unit::Unit;
use crate::report::{Better, Section};
use crate::servers::Server;
use crate::suite::{Context, cpu, joined, latencies};
use crate::workload::mix::Mix;

/// Readers and writers beside each other, a second.
const RATE: f64 = 2_000.0;

pub(super) fn run(context: &Context<'_>) -> Result<Section, Error> {
    let mut section = Section::new(
        "durability",
        "Durability",
        "PUT in a closed loop without a log and with each way of syncing it, on 50 and 500 connections; then 2000 GETs \
         and 2000 PUTs a second beside each other, to see whether readers wait for the disk.",
    );
    let modes = [
        ("no log", None),
        ("os", Some("os")),
        ("interval", Some("interval")),
        ("always", Some("always")),
    ];
    let names: Vec<String> = modes.iter().map(|(name, _)| (*name).to_owned()).collect();
    let (mut few, mut many, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    let mut writes = Chart::lines(
        "PUT at the ceiling, 50 connections",
        Axis::quantiles(),
        Axis::latency(),
    );
    let mut reads = Chart::lines("GET beside writers", Axis::quantiles(), Axis::latency());
    let data = context.data(100_000, 100);
    for (name, sync) in modes {
        context.progress.tell(format!("durability: {name}"));
        let folder = context.data_dir();
        let server = match sync {
            None => context.launcher.inflightkv(None, &[])?,
            Some(sync) => context
                .launcher
                .inflightkv(Some(&folder), &["--wal-sync", sync])?,
        };
        context.fill(&server, &data)?;
        let report = context.load(&context.plan(&server, &data, Mix::Put, 1.5))?;
        let crowd = context.load(&Plan {
            connections: 500,
            ..context.plan(&server, &data, Mix::Put, 1.5)
        })?;
        let beside = beside_writers(context, &server, &data)?;
        server.stop()?;
        section.figure(name, report.throughput, Unit::PerSecond, Better::Higher);
        section.figure(
            format!("{name}, 500 connections"),
            crowd.throughput,
            Unit::PerSecond,
            Better::Higher,
        );
        cpu(&mut section, name, &report);
        latencies(&mut section, name, &report);
        latencies(
            &mut section,
            &format!("GET beside writers, {name}"),
            &beside,
        );
        if name == "always" {
            section.headline(
                "PUT, sync always",
                report.throughput,
                Unit::PerSecond,
                Better::Higher,
            );
            section.headline(
                "PUT, always, 500 conns",
                crowd.throughput,
                Unit::PerSecond,
                Better::Higher,
            );
        }
        if name == "interval" {
            section.headline(
                "PUT, sync interval",
                report.throughput,
                Unit::PerSecond,
                Better::Higher,
            );
        }
        few.push(report.throughput);
        many.push(crowd.throughput);
        costs.push(
            report
                .server
                .map_or(0.0, |server| server.cpu_us_per_request),
        );
        writes.add(name, report.distribution_us);
        reads.add(name, beside.distribution_us);
    }
    let mut throughput = Chart::bars("PUT a second", Unit::PerSecond, names.clone());
    throughput.add_bars("50 connections", &few);
    throughput.add_bars("500 connections", &many);
    let mut cost = Chart::bars("Server CPU time per PUT", Unit::Microseconds, names);
    cost.add_bars("50 connections", &costs);
    section.charts = vec![throughput, cost, writes, reads];
    Ok(section)
}

/// The report of the readers.
fn beside_writers(context: &Context<'_>, server: &Server, data: &Data) -> Result<Report, Error> {
    let plan = |mix| Plan {
        pace: Pace::Open {
            rate: RATE,
            arrivals: Arrivals::Poisson,
        },
        connections: 25,
        threads: 1,
        ..context.plan(server, data, mix, 2.0)
    };
    let (writing, reading) = (plan(Mix::Put), plan(Mix::Get));
    thread::scope(|scope| {
        let writers = scope.spawn(|| load::run(&writing)?.demand_success());
        let readers = context.load(&reading);
        joined(writers)?;
        readers
    })
}
