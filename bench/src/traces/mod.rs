//! Recorded request traces replayed against every eviction policy: hit ratios, and bytes hit where sizes are known, beside
//! references and other caches, as a table and as curves.
//!
//! No server and no clock take part, so the figures are the same on every machine.

mod caches;
mod chart;
mod redis;
mod references;
mod trace;

use std::fs;
use std::path::PathBuf;

use clap::Args;

use crate::error::Error;
use caches::{Cache, Contestant};
use redis::Redis;
use trace::Trace;

/// What `traces` is asked.
#[derive(Debug, Args)]
pub(crate) struct Traces {
    /// Folder with the traces: files of one request a line, `key` or `key size`, plain or gzip (*.gz)
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Sizes of the cache, in percent of the trace's keys, and of their bytes where it has sizes
    #[arg(long, value_delimiter = ',', default_value = "0.5,1,2,5,10,20,40", value_parser = percent)]
    pub(crate) sizes: Vec<f64>,
    /// Folder for the curves, one SVG file a trace and measure
    #[arg(long, default_value = "target/bench/traces", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Only traces whose name contains this
    #[arg(long, default_value = "")]
    pub(crate) only: String,
    /// Replay against a real redis-server too, with memory for as many entries; where keys have no sizes
    #[arg(long)]
    pub(crate) redis: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("expected percentages above 0, up to 100".to_owned()),
    }
}

/// How a cache is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// So many keys, each weighing 1.
    Keys,
    /// So many bytes.
    Bytes,
}

/// What came of one replay, as shares of 1.
#[derive(Clone, Copy, Debug, Default)]
struct Ratios {
    hits: f64,
    bytes: f64,
}

/// Replays every trace in the folder.
pub(crate) fn run(options: &Traces) -> Result<(), Error> {
    let traces = trace::in_folder(&options.data, &options.only)?;
    fs::create_dir_all(&options.out).map_err(|source| Error::Io {
        doing: format!("making the folder {}", options.out.display()),
        source,
    })?;
    let redis = options.redis.then(Redis::start).transpose()?;
    for path in traces {
        let trace = Trace::read(&path)?;
        println!(
            "{}: {} requests, {} keys",
            trace.name,
            trace.requests.len(),
            trace.sizes.len()
        );
        report(options, &trace, Bound::Keys, redis.as_ref())?;
        if trace.has_sizes {
            report(options, &trace, Bound::Bytes, None)?;
        }
    }
    redis.map_or(Ok(()), Redis::stop)
}

/// What Redis calls its policies, and what they are called in the table.
const REDIS: [(&str, &str); 2] = [("allkeys-lru", "redis LRU"), ("allkeys-lfu", "redis LFU")];

fn report(
    options: &Traces,
    trace: &Trace,
    bound: Bound,
    redis: Option<&Redis>,
) -> Result<(), Error> {
    let total: u64 = match bound {
        Bound::Keys => trace.sizes.len() as u64,
        Bound::Bytes => trace.sizes.iter().map(|size| u64::from(*size)).sum(),
    };
    let capacities: Vec<u64> = options
        .sizes
        .iter()
        .map(|percent| ((total as f64 * percent / 100.0) as u64).max(1))
        .collect();
    let mut rows: Vec<(&'static str, Vec<Ratios>)> = Contestant::ALL
        .into_iter()
        .map(|contestant| {
            let ratios = capacities.iter().map(|&capacity| {
                replay(
                    trace,
                    bound,
                    contestant.build(capacity, trace, bound).as_mut(),
                )
            });
            (contestant.name(), ratios.collect())
        })
        .collect();
    if let Some(redis) = redis {
        for (policy, name) in REDIS {
            let mut ratios = Vec::new();
            let mut held = Vec::new();
            for &capacity in &capacities {
                let replay = redis.replay(policy, trace, capacity)?;
                held.push(format!("{} for {capacity}", replay.entries));
                ratios.push(Ratios {
                    hits: replay.hits,
                    bytes: 0.0,
                });
            }
            println!("  {name} held at the end: {}", held.join(", "));
            rows.push((name, ratios));
        }
    }
    let (unit, measures): (_, &[_]) = match bound {
        Bound::Keys => ("keys", &[("hit ratio", false)]),
        Bound::Bytes => ("bytes", &[("hit ratio", false), ("byte hit ratio", true)]),
    };
    for &(measure, by_bytes) in measures {
        let pick = |ratios: &Ratios| if by_bytes { ratios.bytes } else { ratios.hits };
        println!("\n  {measure} in percent, by size in percent of the {unit}");
        print!("  {:<14}", "");
        for percent in &options.sizes {
            print!("{percent:>8}");
        }
        println!();
        for (name, ratios) in &rows {
            print!("  {name:<14}");
            for ratio in ratios {
                print!("{:>8.2}", pick(ratio) * 100.0);
            }
            println!();
        }
        let file = format!("{}-{unit}-{}.svg", trace.name, measure.replace(' ', "-"));
        let curves: Vec<(&str, Vec<f64>)> = rows
            .iter()
            .map(|(name, ratios)| (*name, ratios.iter().map(pick).collect()))
            .collect();
        let title = format!("{}: {measure} by size in percent of the {unit}", trace.name);
        let path = options.out.join(file);
        fs::write(&path, chart::svg(&title, &options.sizes, &curves)).map_err(|source| {
            Error::Io {
                doing: format!("writing {}", path.display()),
                source,
            }
        })?;
    }
    println!("  curves in {}\n", options.out.display());
    Ok(())
}

fn replay(trace: &Trace, bound: Bound, cache: &mut dyn Cache) -> Ratios {
    let (mut hits, mut bytes, mut bytes_hit) = (0_u64, 0_u64, 0_u64);
    for (at, &key) in trace.requests.iter().enumerate() {
        let size = trace.sizes[key as usize];
        let weight = match bound {
            Bound::Keys => 1,
            Bound::Bytes => size,
        };
        bytes += u64::from(size);
        if cache.ask(at, key, weight) {
            hits += 1;
            bytes_hit += u64::from(size);
        }
    }
    Ratios {
        hits: hits as f64 / trace.requests.len().max(1) as f64,
        bytes: bytes_hit as f64 / bytes.max(1) as f64,
    }
}
