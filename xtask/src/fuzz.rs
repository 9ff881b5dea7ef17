//! Runs the crash simulation of the store over generated histories, on all cores, until something is found or enough was
//! tried.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::shell::{self, Failure};

const CASES: u64 = 10_000;
/// Seeds of two runs by the clock are so far apart for each second between them.
const SEEDS_A_SECOND: u64 = 10_000;
/// Where histories that failed are kept: every run of the tests repeats them.
const REGRESSIONS: &str = "server/tests/simulation/regressions";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Seed of the first case, the next ones follow [default: 1; with --minutes: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Number of cases [default: 10000]
    #[arg(long, group = "amount", value_parser = clap::value_parser!(u64).range(1..))]
    cases: Option<u64>,
    /// Go on until so many kills and power cuts were simulated
    #[arg(long, group = "amount", value_parser = clap::value_parser!(u64).range(1..))]
    crashes: Option<u64>,
    /// Go on for so long
    #[arg(long, group = "amount", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: Option<u64>,
    /// Optimise fully: takes long to build, and pays from some hundred thousand cases on
    #[arg(long)]
    release: bool,
}

impl Options {
    /// What the simulation is told: the first seed, and when to stop.
    fn environment(&self, clock: u64) -> [(&'static str, u64); 2] {
        let (amount, seed) = match (self.crashes, self.minutes) {
            // Whoever gives it time wants to see cases that nobody has seen.
            (_, Some(minutes)) => (
                ("INFLIGHTKV_SIM_SECONDS", minutes * 60),
                clock.wrapping_mul(SEEDS_A_SECOND),
            ),
            // The same cases give the same verdict on the same tree.
            (Some(crashes), None) => (("INFLIGHTKV_SIM_CRASHES", crashes), 1),
            (None, None) => (("INFLIGHTKV_SIM_CASES", self.cases.unwrap_or(CASES)), 1),
        };
        [("INFLIGHTKV_SIM_SEED", self.seed.unwrap_or(seed)), amount]
    }
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<(), Failure> {
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    println!("building the simulation");
    shell::run(simulation(root, options).arg("--no-run"))?;
    let environment = options.environment(clock);
    println!("simulating from seed {}", environment[0].1);
    let mut simulation = simulation(root, options);
    simulation
        .args(["--quiet", "--", "--nocapture", "--exact", TEST])
        .env("INFLIGHTKV_SIM_SAVE", root.join(REGRESSIONS))
        .env("RUST_BACKTRACE", "0")
        .envs(environment.map(|(name, value)| (name, value.to_string())));
    shell::run(&mut simulation)
        .map_err(|_| Failure("a simulated history failed: see above".to_owned()))
}

const TEST: &str = "no_crash_takes_what_was_said_to_be_durable_and_nothing_is_invented";

/// Of the whole workspace, so that what the tests were built with serves here as well.
fn simulation(root: &Path, options: &Options) -> Command {
    let mut command = shell::cargo(root);
    command.args(["test", "--workspace", "--test", "simulation"]);
    if options.release {
        command.arg("--release");
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn environment(arguments: &[&str]) -> Option<[(&'static str, u64); 2]> {
        let arguments = std::iter::once("fuzz").chain(arguments.iter().copied());
        let cli = Cli::try_parse_from(arguments).ok()?;
        Some(cli.options.environment(7))
    }

    #[test]
    fn the_simulation_is_told_what_was_asked_for() {
        let told = |seed, amount, value| Some([("INFLIGHTKV_SIM_SEED", seed), (amount, value)]);
        assert_eq!(environment(&[]), told(1, "INFLIGHTKV_SIM_CASES", 10_000));
        assert_eq!(
            environment(&["--cases", "5", "--seed", "3"]),
            told(3, "INFLIGHTKV_SIM_CASES", 5)
        );
        assert_eq!(
            environment(&["--crashes", "9"]),
            told(1, "INFLIGHTKV_SIM_CRASHES", 9)
        );
        assert_eq!(
            environment(&["--minutes", "2"]),
            told(70_000, "INFLIGHTKV_SIM_SECONDS", 120)
        );
    }

    #[test]
    fn there_is_one_way_to_say_when_to_stop() {
        assert_eq!(environment(&["--cases", "5", "--minutes", "2"]), None);
        assert_eq!(environment(&["--cases", "0"]), None);
    }
}
