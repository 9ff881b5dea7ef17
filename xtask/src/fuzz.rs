//! Runs the crash simulation of the server over generated histories, in chunks, so that its progress is seen.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::shell::{self, Failure};

/// Small enough for a line every few seconds, large enough that starting the test does not count.
const CHUNK: u64 = 2_000;
const CASES: u64 = 10_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Seed of the first case, the next ones follow [default: 1; with --minutes: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Number of cases [default: 10000]
    #[arg(long, conflicts_with = "minutes", value_parser = clap::value_parser!(u64).range(1..))]
    cases: Option<u64>,
    /// Go on for so long instead
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: Option<u64>,
}

/// How much there is to do.
#[derive(Clone, Copy, Debug)]
enum Amount {
    Cases(u64),
    Time(Duration),
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<(), Failure> {
    let amount = match options.minutes {
        Some(minutes) => Amount::Time(Duration::from_secs(minutes * 60)),
        None => Amount::Cases(options.cases.unwrap_or(CASES)),
    };
    let seed = options.seed.unwrap_or_else(|| match amount {
        // The same cases give the same verdict on the same tree.
        Amount::Cases(_) => 1,
        // Whoever gives it time wants to see cases that nobody has seen.
        Amount::Time(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |now| now.as_secs() * CHUNK),
    });
    println!("building the simulation");
    shell::run(simulation(root).arg("--no-run"))?;
    println!("simulating from seed {seed}");
    let start = Instant::now();
    let mut done = 0;
    while let Some(cases) = next_chunk(amount, done, start.elapsed()) {
        let first = seed.wrapping_add(done);
        let mut chunk = simulation(root);
        chunk.args(["--quiet", "--", "--nocapture"]);
        chunk
            .env("INFLIGHTKV_SIM_SEED", first.to_string())
            .env("INFLIGHTKV_SIM_CASES", cases.to_string());
        shell::run(&mut chunk).map_err(|Failure(why)| {
            let again = format!("cargo xtask fuzz --seed {first} --cases {cases}");
            Failure(format!(
                "{why}; a case with a seed from {first} on failed, to be repeated by `{again}`"
            ))
        })?;
        done += cases;
        println!("{}", progress(amount, done, start.elapsed()));
    }
    Ok(())
}

/// The simulation knows neither HTTP nor a command line, so the server is built without them.
fn simulation(root: &Path) -> Command {
    let mut command = shell::cargo(root);
    command.args([
        "test",
        "--release",
        "--package",
        "inflightkv-server",
        "--no-default-features",
    ]);
    command.args(["--test", "simulation"]);
    command
}

fn next_chunk(amount: Amount, done: u64, elapsed: Duration) -> Option<u64> {
    match amount {
        Amount::Cases(cases) if done < cases => Some(CHUNK.min(cases - done)),
        Amount::Time(time) if elapsed < time => Some(CHUNK),
        _ => None,
    }
}

fn progress(amount: Amount, done: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    match amount {
        Amount::Cases(cases) => format!("{done} of {cases} cases passed, {seconds} s"),
        Amount::Time(time) => format!("{done} cases passed, {seconds} of {} s", time.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_add_up_to_the_cases_asked_for() {
        let mut done = 0;
        while let Some(cases) = next_chunk(Amount::Cases(4_500), done, Duration::ZERO) {
            done += cases;
        }
        assert_eq!(done, 4_500);
    }

    #[test]
    fn time_ends_after_the_chunk_in_which_it_is_over() {
        let amount = Amount::Time(Duration::from_secs(60));
        assert!(next_chunk(amount, 0, Duration::from_secs(59)).is_some());
        assert!(next_chunk(amount, 0, Duration::from_secs(60)).is_none());
    }
}
