//! Many connections, the knee, and many clients on one key.

use std::time::Duration;

use crate::cli::{Arrivals, Counter};
use crate::counter;
use crate::error::Error;
use crate::load::{Plan, knee as search};
use crate::report::chart::{Axis, Chart, Scale};
use crate::report::unit::Unit;
use crate::report::{Better, Section};
use crate::suite::{Context, cpu};
use crate::workload::mix::Mix;

const CLIENTS: u16 = 16;

pub(super) fn connections(context: &Context<'_>) -> Result<Section, Error> {
    let mut section = Section::new(
        "connections",
        "Connections",
        "A closed loop over 1 to 1000 connections; then 16 clients increment one number, each reading it, writing the \
         next on the condition that nobody was faster, and trying again if somebody was.",
    );
    let data = context.data(100_000, 100);
    let server = context.filled(&data)?;
    let axis = || Axis::new("connections", Unit::Count, Scale::Log);
    let mut throughput = Chart::lines(
        "Throughput",
        axis(),
        Axis::new("requests", Unit::PerSecond, Scale::Linear),
    );
    let mut latency = Chart::lines("p99 at the ceiling", axis(), Axis::latency());
    let mut cost = Chart::lines(
        "Server CPU time per request",
        axis(),
        Axis::new("CPU time", Unit::Microseconds, Scale::Linear),
    );
    for (name, mix) in [("GET", Mix::Get), ("half GET, half PUT", Mix::Mixed)] {
        let (mut rates, mut p99s, mut costs) = (Vec::new(), Vec::new(), Vec::new());
        for connections in [1_usize, 10, 50, 100, 300, 1000] {
            context
                .progress
                .tell(format!("connections: {connections}, {name}"));
            let report = context.load(&Plan {
                connections,
                ..context.plan(&server, &data, mix, 1.2)
            })?;
            let at = connections as f64;
            rates.push((at, report.throughput));
            p99s.push((at, report.latency_us.p99));
            costs.push((
                at,
                report
                    .server
                    .map_or(0.0, |server| server.cpu_us_per_request),
            ));
            let name = format!("{name}, {connections} connections");
            section.figure(
                name.clone(),
                report.throughput,
                Unit::PerSecond,
                Better::Higher,
            );
            section.figure(
                format!("{name}: p99"),
                report.latency_us.p99,
                Unit::Microseconds,
                Better::Lower,
            );
            cpu(&mut section, &name, &report);
            if connections == 1000 && mix == Mix::Get {
                section.headline(
                    "GET on 1000 connections",
                    report.throughput,
                    Unit::PerSecond,
                    Better::Higher,
                );
            }
        }
        throughput.add(name, rates);
        latency.add(name, p99s);
        cost.add(name, costs);
    }
    context.progress.tell("connections: counting together");
    let outcome = counter::run(&Counter {
        address: server.address,
        clients: CLIENTS,
        increments: context.keys(1_000),
        key: "counter".to_owned(),
        json: false,
    })?;
    outcome.demand_exactness()?;
    server.stop()?;
    section.headline(
        "increments of one key",
        outcome.increments_per_second,
        Unit::PerSecond,
        Better::Higher,
    );
    section.figure(
        "conflicts per increment",
        outcome.conflicts as f64 / outcome.successes as f64,
        Unit::Ratio,
        Better::Lower,
    );
    section.note(format!(
        "{} increments by {CLIENTS} clients ended in the number {}: none got lost.",
        outcome.successes, outcome.final_value
    ));
    section.charts = vec![throughput, latency, cost];
    Ok(section)
}

pub(super) fn knee(context: &Context<'_>) -> Result<Section, Error> {
    let mut section = Section::new(
        "knee",
        "The knee",
        "Half GET, half PUT on 50 connections at growing rates, arrivals independent of each other: the highest rate \
         that is kept up with p99 below 5 ms.",
    );
    let data = context.data(100_000, 100);
    let server = context.filled(&data)?;
    let plan = context.plan(&server, &data, Mix::Mixed, 1.5);
    let found = search::find(
        &plan,
        Duration::from_millis(5),
        context.time(1.5),
        Arrivals::Poisson,
    )?;
    server.stop()?;
    let points = |figure: fn(&search::Step) -> f64| {
        let steps = found.steps.iter();
        steps
            .map(|step| (step.rate, figure(step)))
            .collect::<Vec<_>>()
    };
    let axis = || Axis::new("requests due", Unit::PerSecond, Scale::Linear);
    section.charts = vec![
        Chart::lines("Latency by rate", axis(), Axis::latency())
            .with("p50", points(|step| step.p50_us))
            .with("p99", points(|step| step.p99_us)),
        Chart::lines(
            "Achieved by asked",
            axis(),
            Axis::new("achieved", Unit::PerSecond, Scale::Linear),
        )
        .with("achieved", points(|step| step.throughput)),
    ];
    section.figure(
        "ceiling of the closed loop",
        found.ceiling,
        Unit::PerSecond,
        Better::Higher,
    );
    match found.knee {
        Some(knee) => {
            section.headline(
                "knee (p99 below 5 ms)",
                knee,
                Unit::PerSecond,
                Better::Higher,
            );
            section.figure(
                "knee of the ceiling",
                100.0 * knee / found.ceiling,
                Unit::Percent,
                Better::Higher,
            );
        }
        None => section.note("No rate that was tried kept p99 below 5 ms."),
    }
    Ok(section)
}
