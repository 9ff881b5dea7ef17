//! Hit ratio and latency while the store gives keys up for memory.

use std::thread;
use std::time::{Duration, Instant};

use crate::cli::{Arrivals, Data};
use crate::error::Error;
use crate::fill::{self, Range};
use crate::interrupt;
use crate::load::{Pace, Plan, Stop};
use crate::report::chart::{Axis, Chart, Scale};
use crate::report::unit::Unit;
use crate::report::{Better, Section};
use crate::suite::snapshot::over_time;
use crate::suite::{Context, POLICIES, cpu, joined, latencies, number, stats};
use crate::workload::mix::{Mix, Popularity};

const KEYS: u64 = 200_000;
const VALUE_BYTES: usize = 400;
/// There is memory for one key of so many.
const SHARE: f64 = 4.0;
/// The policy that is looked at over time, and how many reads a second.
const OVER_TIME: &str = "s3-fifo";
const RATE: f64 = 4_000.0;

pub(super) fn run(context: &Context<'_>) -> Result<Section, Error> {
    let mut section = Section::new(
        "eviction",
        "Eviction",
        "A cache in front of something slower: keys by Zipf's law (0.99) are read, and written when they are missing, \
         with memory for a quarter of them. Shown is what share of the reads found its key, after a warm-up. Then \
         4000 such reads a second, uniformly over all keys, while the last tenth of the memory fills up.",
    );
    let data = context.data(KEYS, VALUE_BYTES);
    let bytes = all_bytes(context, &data)?;
    let limit = format!("{:.0}", bytes / SHARE);
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
    over_the_limit(context, &data, bytes / SHARE, &mut section)?;
    Ok(section)
}

/// Latency while the memory fills up, and while every newcomer needs the room of somebody else.
fn over_the_limit(
    context: &Context<'_>,
    data: &Data,
    limit: f64,
    section: &mut Section,
) -> Result<(), Error> {
    context.progress.tell("eviction: at the limit");
    let argument = format!("{limit:.0}");
    let arguments = ["--max-memory", argument.as_str(), "--eviction", OVER_TIME];
    if !context.launcher.takes(&arguments) {
        return Ok(());
    }
    let server = context.launcher.inflightkv(None, &arguments)?;
    let most = Data {
        keys: (data.keys as f64 / SHARE * 0.8) as u64,
        ..data.clone()
    };
    fill::run(&server, &most, Range::default(), |_| {})?;
    let uniform = Data {
        popularity: Some(Popularity::Uniform),
        ..data.clone()
    };
    let seconds = context.time(8.0);
    let plan = Plan {
        pace: Pace::Open {
            rate: RATE,
            arrivals: Arrivals::Constant,
        },
        stop: Stop::After(seconds),
        window: Some(Duration::from_millis(100)),
        warmup: Duration::ZERO,
        checks_length: false,
        ..context.plan(&server, &uniform, Mix::Through, 1.0)
    };
    let mut client = server.connect()?;
    let (report, seen) = thread::scope(|scope| {
        let start = Instant::now();
        let watch = scope.spawn(move || {
            let mut seen = Vec::new();
            let mut next = start;
            while start.elapsed() < seconds {
                let told = stats(&mut client)?;
                let evicted: f64 = ["background", "inline"]
                    .map(|who| number(&told, &format!("/memory/evicted/{who}/entries")))
                    .iter()
                    .sum();
                let used = number(&told, "/memory/usedBytes");
                seen.push((start.elapsed().as_secs_f64(), used, evicted));
                next += Duration::from_millis(50);
                interrupt::sleep_until(next)?;
            }
            Ok::<_, Error>(seen)
        });
        let report = context.load(&plan);
        Ok::<_, Error>((report?, joined(watch)?))
    })?;
    server.stop()?;
    let first = seen.iter().find(|&&(_, _, evicted)| evicted > 0.0);
    let mark = first.map(|&(at, ..)| (at, seconds.as_secs_f64(), "evicting"));
    if mark.is_none() {
        section.note("Nothing was evicted while it was watched.");
    }
    section.headline(
        "p99 at the limit",
        report.latency_us.p99,
        Unit::Microseconds,
        Better::Lower,
    );
    latencies(section, "at the limit", &report);
    section.figure(
        "evicted at the limit",
        seen.last().map_or(0.0, |&(_, _, evicted)| evicted),
        Unit::Count,
        Better::Neither,
    );
    section.figure(
        "memory used, of the limit, at most",
        100.0 * seen.iter().map(|&(_, used, _)| used).fold(0.0, f64::max) / limit,
        Unit::Percent,
        Better::Lower,
    );
    let used = seen.iter().map(|&(at, used, _)| (at, used)).collect();
    let line = vec![(0.0, limit), (seconds.as_secs_f64(), limit)];
    section.charts.extend([
        over_time("Latency over time", &report, mark),
        Chart::lines(
            "Memory over time",
            Axis::seconds(),
            Axis::new("bytes", Unit::Bytes, Scale::Linear),
        )
        .with("used", used)
        .with("limit", line),
    ]);
    Ok(())
}

/// What the store counts for all keys.
fn all_bytes(context: &Context<'_>, data: &Data) -> Result<f64, Error> {
    let server = context.filled(data)?;
    let told = stats(&mut server.connect()?)?;
    server.stop()?;
    Ok(number(&told, "/total/entryBytes") + number(&told, "/total/tableBytes"))
}
