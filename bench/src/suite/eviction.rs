//! Hit ratio and latency while the store gives keys up for memory.

use crate::error::Error;
use crate::load::Plan;
use crate::report::chart::{Axis, Chart};
use crate::report::unit::Unit;
use crate::report::{Better, Section};
use crate::suite::{Context, cpu, latencies, number, stats};
use crate::workload::mix::Mix;

const POLICIES: [&str; 7] = ["lru", "lfu", "s3-fifo", "tiny-lfu", "ttl", "size", "random"];
const KEYS: u64 = 200_000;
const VALUE_BYTES: usize = 400;

pub(super) fn run(context: &Context<'_>) -> Result<Section, Error> {
    let mut section = Section::new(
        "eviction",
        "Eviction",
        "A cache in front of something slower: keys by Zipf's law (0.99) are read, and written when they are missing, \
         with memory for a quarter of them. Shown is what share of the reads found its key, after a warm-up.",
    );
    let data = context.data(KEYS, VALUE_BYTES);
    let limit = limit(context)?;
    let limit = limit.as_str();
    let mut curves = Chart::lines("Latency at the ceiling", Axis::quantiles(), Axis::latency());
    let (mut names, mut hits, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for policy in POLICIES {
        let arguments = ["--max-memory", limit, "--eviction", policy];
        if !context.launcher.takes(&arguments) {
            continue;
        }
        context.progress.tell(format!("eviction: {policy}"));
        let server = context.launcher.inflightkv(None, &arguments)?;
        let plan = context.plan(&server, &data, Mix::Through, 1.5);
        // Until the memory is full and the policy knows its keys.
        context.load(&Plan {
            checks_length: false,
            ..context.plan(&server, &data, Mix::Through, 2.0)
        })?;
        let report = context.load(&plan)?;
        server.stop()?;
        let ratio = 100.0 * (1.0 - report.misses as f64 / report.requests.max(1) as f64);
        section.figure(
            format!("{policy}: hits"),
            ratio,
            Unit::Percent,
            Better::Higher,
        );
        section.figure(
            format!("{policy}: operations"),
            report.throughput,
            Unit::PerSecond,
            Better::Higher,
        );
        cpu(&mut section, policy, &report);
        latencies(&mut section, policy, &report);
        if matches!(policy, "lru" | "s3-fifo") {
            section.headline(
                format!("hits with {policy}"),
                ratio,
                Unit::Percent,
                Better::Higher,
            );
        }
        names.push(policy.to_owned());
        hits.push(ratio);
        rates.push(report.throughput);
        curves.add(policy, report.distribution_us);
    }
    if names.is_empty() {
        section.note("This build of the server does not evict.");
        return Ok(section);
    }
    let mut ratio = Chart::bars("Hits", Unit::Percent, names.clone());
    ratio.add_bars("hits", &hits);
    let mut throughput = Chart::bars("Operations a second", Unit::PerSecond, names);
    throughput.add_bars("closed loop", &rates);
    section.charts = vec![ratio, throughput, curves];
    Ok(section)
}

/// A quarter of what the store counts for all keys.
fn limit(context: &Context<'_>) -> Result<String, Error> {
    let data = context.data(KEYS, VALUE_BYTES);
    let server = context.filled(&data)?;
    let told = stats(&mut server.connect()?)?;
    server.stop()?;
    let bytes = number(&told, "/total/entryBytes") + number(&told, "/total/tableBytes");
    Ok(format!("{:.0}", bytes / 4.0))
}
