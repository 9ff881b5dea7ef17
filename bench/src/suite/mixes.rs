//! Mixes of operations, in the shapes that others measure with.

use crate::error::Error;
use crate::load::Plan;
use crate::report::chart::{Axis, Chart};
use crate::report::unit::Unit;
use crate::report::{Better, Section};
use crate::suite::{Context, cpu, latencies};
use crate::workload::mix::Mix;

pub(super) fn run(context: &Context<'_>) -> Result<Section, Error> {
    let mut section = Section::new(
        "mixes",
        "Mixes",
        "The shapes of YCSB's core workloads with keys by Zipf's law (0.99), and 30 % PUT, 30 % GET, 20 % PATCH, \
         15 % DELETE, 5 % list with uniform keys. Closed loop, 50 connections.",
    );
    let mixes = [
        ("A 50 % update", Mix::YcsbA),
        ("B 5 % update", Mix::YcsbB),
        ("C read only", Mix::YcsbC),
        ("D read latest", Mix::YcsbD),
        ("E scan pages", Mix::YcsbE),
        ("F modify", Mix::YcsbF),
        ("30/30/20/15/5", Mix::Crud),
    ];
    let mut curves = Chart::lines("Latency at the ceiling", Axis::quantiles(), Axis::latency());
    let (mut throughputs, mut costs) = (Vec::new(), Vec::new());
    let data = context.data(100_000, 100);
    for (name, mix) in mixes {
        context.progress.tell(format!("mixes: {name}"));
        let server = context.filled(&data)?;
        let plan = context.plan(&server, &data, mix, 1.5);
        let report = context.load(&Plan {
            checks_length: plan.checks_length && !mix.misses(),
            ..plan
        })?;
        server.stop()?;
        section.figure(name, report.throughput, Unit::PerSecond, Better::Higher);
        cpu(&mut section, name, &report);
        latencies(&mut section, name, &report);
        throughputs.push(report.throughput);
        costs.push(
            report
                .server
                .map_or(0.0, |server| server.cpu_us_per_request),
        );
        curves.add(name, report.distribution_us);
        if matches!(mix, Mix::YcsbA | Mix::Crud) {
            section.headline(
                format!("mix {name}"),
                report.throughput,
                Unit::PerSecond,
                Better::Higher,
            );
        }
    }
    let names: Vec<String> = mixes.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut throughput = Chart::bars("Operations a second", Unit::PerSecond, names.clone());
    throughput.add_bars("closed loop", &throughputs);
    let mut cost = Chart::bars("Server CPU time per operation", Unit::Microseconds, names);
    cost.add_bars("server", &costs);
    section.charts = vec![throughput, cost, curves];
    section.note("The store has no order of keys, so that E reads pages of 100 keys with their values instead of ranges.");
    section.note("An operation of F is a GET and a PUT after it.");
    Ok(section)
}
