//! Two builds of the server in turn, and whether the new one uses more CPU time than it may.
//!
//! The builds take turns in pairs of short rounds, ABBA, so that whatever else the machine does falls on both. From
//! the ratios of the pairs the bootstrap (B. Efron, "Bootstrap methods: another look at the jackknife", Annals of
//! Statistics 7(1), 1979) gives an interval for their median; only an interval wholly above the limit is a verdict. While the
//! limit lies inside of it, more pairs are measured, up to a bound: on a busy machine the first ones are too far apart.

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::{Builds, Subjects};
use crate::compare::{median, temporary_folder};
use crate::environment::Environment;
use crate::error::Error;
use crate::load::{self, Plan, Report, Stop};
use crate::servers::{Launcher, Server};
use crate::workload::mix::Mix;

const WARMUP: Duration = Duration::from_millis(50);
const RESAMPLES: usize = 4_000;
/// Of all resamples, this share lies outside of the interval on either side.
const TAIL: f64 = 0.005;

#[derive(Debug, Serialize)]
struct Outcome {
    environment: Environment,
    limit_percent: f64,
    operations: Vec<Operation>,
}

#[derive(Debug, Serialize)]
struct Operation {
    operation: &'static str,
    /// CPU time of the new build per request, as a multiple of the old one's, in each pair.
    ratios: Vec<f64>,
    median: f64,
    low: f64,
    high: f64,
    over: bool,
}

pub(crate) fn run(options: &Builds) -> Result<(), Error> {
    let environment = Environment::read();
    let folder = temporary_folder(None)?;
    let subjects = |program: &Path| Subjects {
        server: Some(program.to_owned()),
        server_args: Vec::new(),
        server_threads: None,
        temp: None,
        json: false,
    };
    let (new, old) = (subjects(&options.new), subjects(&options.old));
    let start = |subjects: &Subjects, name: &str| {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder)
            .map_err(Error::io(format!("creating {}", folder.display())))?;
        Launcher::new(subjects, &folder)?.inflightkv(None, &[])
    };
    let servers = [start(&new, "new")?, start(&old, "old")?];
    for server in &servers {
        load::run(&plan(options, server, Mix::Put).fill())?.demand_success()?;
    }
    let style = ProgressStyle::with_template("{elapsed} {wide_bar} {pos}/{len} {msg}");
    let progress = ProgressBar::new(2 * u64::from(options.pairs))
        .with_style(style.expect("the template is constant"));
    let limit = 1.0 + options.limit_percent / 100.0;
    let mut operations = Vec::new();
    for (operation, mix) in [("GET", Mix::Get), ("PUT", Mix::Put)] {
        progress.set_message(operation);
        let mut ratios = Vec::new();
        let (low, high) = loop {
            for pair in 0..options.pairs {
                let measure = |which: usize| cost(options, &servers[which], mix);
                let (new, old) = if pair % 2 == 0 {
                    let new = measure(0)?;
                    (new, measure(1)?)
                } else {
                    let old = measure(1)?;
                    (measure(0)?, old)
                };
                ratios.push(new / old);
                progress.inc(1);
            }
            let (low, high) = interval(&ratios, options.data.seed);
            let more = ratios.len() + options.pairs as usize;
            if low > limit || high <= limit || more > options.pairs_max as usize {
                break (low, high);
            }
            progress.inc_length(u64::from(options.pairs));
        };
        operations.push(Operation {
            operation,
            median: median(ratios.clone()),
            low,
            high,
            over: low > limit,
            ratios,
        });
    }
    progress.finish_and_clear();
    let outcome = Outcome {
        environment,
        limit_percent: options.limit_percent,
        operations,
    };
    if options.json {
        let text = serde_json::to_string_pretty(&outcome).expect("an outcome is plain data");
        println!("{text}");
    } else {
        for one in &outcome.operations {
            println!(
                "{}: CPU per request {:.3} times that of the old build, 99 % interval {:.3} to {:.3}",
                one.operation, one.median, one.low, one.high
            );
        }
    }
    let over: Vec<String> = outcome
        .operations
        .iter()
        .filter(|one| one.over)
        .map(|one| {
            format!(
                "{} uses {:.1} % more CPU time (at least {:.1} %)",
                one.operation,
                100.0 * (one.median - 1.0),
                100.0 * (one.low - 1.0)
            )
        })
        .collect();
    if over.is_empty() {
        Ok(())
    } else {
        Err(Error::Usage(format!(
            "slower than the old build: {}; the limit is {} %",
            over.join(", "),
            options.limit_percent
        )))
    }
}

fn plan(options: &Builds, server: &Server, mix: Mix) -> Plan {
    let protocol = server.name.protocol(server.address);
    Plan {
        stop: Stop::After(options.round),
        warmup: WARMUP,
        pids: server.pids(),
        ..Plan::new(server.address, protocol, options.data.clone(), mix)
    }
}

fn cost(options: &Builds, server: &Server, mix: Mix) -> Result<f64, Error> {
    let report: Report = load::run(&plan(options, server, mix))?;
    report.demand_success()?;
    let cost = report
        .server
        .map_or(0.0, |server| server.cpu_us_per_request);
    if cost > 0.0 {
        Ok(cost)
    } else {
        // No server does anything for nothing; a zero is a measurement that did not take place.
        Err(Error::Usage(
            "the kernel gave no CPU time for the server; a longer --round may help".to_owned(),
        ))
    }
}

/// The interval of the median by resampling the ratios with replacement.
fn interval(ratios: &[f64], seed: u64) -> (f64, f64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            median(
                (0..ratios.len())
                    .map(|_| ratios[random.usize(..ratios.len())])
                    .collect(),
            )
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let at = |share: f64| medians[((medians.len() - 1) as f64 * share).round() as usize];
    (at(TAIL), at(1.0 - TAIL))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noisy(middle: f64, seed: u64) -> Vec<f64> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..15)
            .map(|_| middle * (1.0 + 0.06 * (random.f64() - 0.5)))
            .collect()
    }

    #[test]
    fn the_interval_holds_the_truth_and_excludes_what_is_far() {
        let mut held = 0;
        for seed in 0..50 {
            let (low, high) = interval(&noisy(1.0, seed), seed);
            held += u32::from(low <= 1.0 && 1.0 <= high);
            assert!(low <= 1.05, "no change was called a slowdown, seed {seed}");
            let (low, _) = interval(&noisy(1.10, seed), seed);
            assert!(low > 1.05, "ten percent were not seen, seed {seed}: {low}");
        }
        assert!(held >= 45, "the interval held the truth {held} times of 50");
    }

    #[test]
    fn an_outlier_is_no_verdict() {
        let mut ratios = noisy(1.0, 3);
        ratios[4] = 9.0;
        ratios[9] = 7.0;
        assert!(interval(&ratios, 3).0 < 1.05);
    }
}
