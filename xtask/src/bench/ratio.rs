//! CPU time per operation beside the bare server of the same run, held against recorded limits.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::shell::{self, Failure};

const BASELINE: &str = "bench/baseline.toml";

pub(super) fn check_recorded(root: &Path, program: &Path) -> Result<(), Failure> {
    let baseline = Baseline::read(&root.join(BASELINE))?;
    check(&baseline, || measure(program, &baseline))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Baseline {
    /// Where and how the limits were found; for people.
    #[expect(
        dead_code,
        reason = "it has to be there, so that nobody writes limits without it"
    )]
    machine: String,
    #[expect(
        dead_code,
        reason = "it has to be there, so that nobody writes limits without it"
    )]
    command: String,
    rounds: u32,
    round: String,
    attempts: u32,
    limits: Limits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Limits {
    get_cpu_to_bare: f64,
    put_cpu_to_bare: f64,
}

impl Baseline {
    fn read(path: &Path) -> Result<Self, Failure> {
        let text =
            fs::read_to_string(path).map_err(|error| Failure(format!("{BASELINE}: {error}")))?;
        toml::from_str(&text).map_err(|error| Failure(format!("{BASELINE}: {error}")))
    }
}

/// The figures of one attempt, as multiples of the bare server's.
#[derive(Clone, Copy, Debug)]
struct Ratios {
    get: f64,
    put: f64,
}

/// Measures until each figure has been within its limit once, or the attempts are used up: other programs on the
/// machine disturb single attempts, but a slower server is slower in all of them.
fn check(
    baseline: &Baseline,
    mut measure: impl FnMut() -> Result<Ratios, Failure>,
) -> Result<(), Failure> {
    let limits = [
        ("GET", baseline.limits.get_cpu_to_bare),
        ("PUT", baseline.limits.put_cpu_to_bare),
    ];
    let mut best = [f64::INFINITY; 2];
    for attempt in 1..=baseline.attempts.max(1) {
        let Ratios { get, put } = measure()?;
        best = [best[0].min(get), best[1].min(put)];
        println!("attempt {attempt}: CPU per operation to bare: GET {get:.2}, PUT {put:.2}");
        if limits
            .iter()
            .zip(best)
            .all(|((_, limit), best)| best <= *limit)
        {
            return Ok(());
        }
    }
    let over: Vec<String> = limits
        .iter()
        .zip(best)
        .filter(|((_, limit), best)| best > limit)
        .map(|((operation, limit), best)| {
            format!("{operation} uses {best:.2} times the CPU time of the bare server, the limit is {limit:.2}")
        })
        .collect();
    Err(Failure(format!(
        "{} ({BASELINE}, best of {} attempts)",
        over.join("; "),
        baseline.attempts.max(1)
    )))
}

fn measure(program: &Path, baseline: &Baseline) -> Result<Ratios, Failure> {
    let mut command = Command::new(program);
    command.args(["compare", "--servers", "inflightkv,bare", "--json"]);
    command.args([
        "--rounds",
        &baseline.rounds.to_string(),
        "--round",
        &baseline.round,
    ]);
    ratios(&shell::output(&mut command)?)
}

#[derive(Deserialize)]
struct Outcome {
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
struct Operation {
    operation: String,
    servers: Vec<Server>,
}

#[derive(Deserialize)]
struct Server {
    server: String,
    cpu_to_bare: Option<f64>,
}

fn ratios(json: &[u8]) -> Result<Ratios, Failure> {
    let outcome: Outcome = serde_json::from_slice(json)
        .map_err(|error| Failure(format!("the comparison's JSON is not as expected: {error}")))?;
    let find = |name: &str| {
        let operation = outcome
            .operations
            .iter()
            .find(|operation| operation.operation == name)?;
        let server = operation
            .servers
            .iter()
            .find(|server| server.server == "inflightkv")?;
        // No server does anything for nothing; a zero is a measurement that did not take place.
        server.cpu_to_bare.filter(|&ratio| ratio > 0.0)
    };
    match (find("GET"), find("PUT")) {
        (Some(get), Some(put)) => Ok(Ratios { get, put }),
        _ => Err(Failure(
            "the comparison has no CPU time of GET and PUT".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline() -> Baseline {
        let text = include_str!("../../../bench/baseline.toml");
        let mut baseline: Baseline = toml::from_str(text).expect("the recorded baseline is sound");
        baseline.limits = Limits {
            get_cpu_to_bare: 1.5,
            put_cpu_to_bare: 1.5,
        };
        baseline.attempts = 3;
        baseline
    }

    fn check_all(figures: &[(f64, f64)]) -> (Result<(), Failure>, usize) {
        let mut used = 0;
        let result = check(&baseline(), || {
            let (get, put) = figures[used];
            used += 1;
            Ok(Ratios { get, put })
        });
        (result, used)
    }

    #[test]
    fn one_good_attempt_is_enough() {
        assert!(matches!(check_all(&[(1.1, 1.2)]), (Ok(()), 1)));
    }

    #[test]
    fn a_disturbed_attempt_is_repeated() {
        assert!(matches!(check_all(&[(1.1, 2.0), (1.9, 1.2)]), (Ok(()), 2)));
    }

    #[test]
    fn what_is_too_slow_in_every_attempt_fails_with_figure_and_limit() {
        let (result, used) = check_all(&[(1.1, 2.0), (1.1, 1.8), (1.1, 1.9)]);
        let error = result.expect_err("PUT is over its limit").to_string();
        assert_eq!(used, 3);
        assert!(error.starts_with("PUT uses 1.80 times"), "{error}");
        assert!(
            error.contains("limit is 1.50") && !error.contains("GET"),
            "{error}"
        );
    }

    #[test]
    fn figures_are_found_in_the_comparison() {
        let servers = |ratio| {
            format!(
                r#"[{{"server":"bare hyper","cpu_to_bare":1}},{{"server":"inflightkv","cpu_to_bare":{ratio}}}]"#
            )
        };
        let outcome = |get, put| {
            format!(
                r#"{{"operations":[{{"operation":"GET","servers":{}}},{{"operation":"PUT","servers":{}}}]}}"#,
                servers(get),
                servers(put)
            )
        };
        let found = ratios(outcome("1.25", "1.5").as_bytes()).expect("both are there");
        assert_eq!((found.get, found.put), (1.25, 1.5));
        assert!(ratios(outcome("1.25", "null").as_bytes()).is_err());
        assert!(ratios(outcome("0.0", "1.5").as_bytes()).is_err());
        assert!(ratios(b"{}").is_err());
    }
}
