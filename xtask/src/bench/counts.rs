//! Instructions and allocations of the hot paths, held against what is recorded in `bench/counts.toml`.
//!
//! Both are the same from run to run, however busy the machine is. Instructions are counted by valgrind's callgrind,
//! twice with different numbers of repetitions, so that their difference knows nothing of start and preparation. They
//! belong to a compiler; for another one, or without valgrind, only allocations are checked, and that is said.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde::{Deserialize, Serialize};

use crate::bench::PACKAGES;
use crate::shell::{self, Failure};

const FILE: &str = "bench/counts.toml";
const FORMAT: u32 = 1;
const PROGRAM: &str = "inflightkv-hot-paths";
/// What a change may add without a reason being given.
const LIMIT: f64 = 0.03;
/// Below this share a change is not worth a line.
const SHOWN: f64 = 0.01;
/// Allocations are whole numbers, but what grows now and then makes fractions of them.
const ALLOCATION: f64 = 0.02;
const UPDATE: &str = "cargo xtask bench --update-baseline --reason \"...\"";

/// A count for each scenario.
type Map = BTreeMap<String, f64>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counts {
    format: u32,
    /// Why they may be what they are.
    reason: String,
    /// What the instructions belong to.
    compiler: String,
    /// Of one repetition, by scenario.
    instructions: Map,
    allocations: Map,
    bytes: Map,
}

pub(super) fn check(root: &Path) -> Result<(), Failure> {
    let recorded = read(root)?;
    let program = build(root)?;
    let compiler = compiler()?;
    let instructions = if !has_valgrind() {
        println!(
            "instructions were not counted: valgrind is not installed (`apt-get install valgrind`); allocations are checked"
        );
        None
    } else if compiler != recorded.compiler {
        println!(
            "instructions were not compared: {FILE} is of {}, this is {compiler}; to record those of this compiler: {UPDATE}",
            recorded.compiler
        );
        None
    } else {
        Some(count_instructions(&program)?)
    };
    let (allocations, bytes) = count_allocations(&program)?;
    let mut over = Vec::new();
    if let Some(found) = &instructions {
        over.extend(compare("instructions", &recorded.instructions, found, 0.0));
    }
    over.extend(compare(
        "allocations",
        &recorded.allocations,
        &allocations,
        ALLOCATION,
    ));
    over.extend(compare("allocated bytes", &recorded.bytes, &bytes, 1.0));
    if over.is_empty() {
        println!(
            "hot paths: {} of {} paths within {:.0} % of {FILE}",
            if instructions.is_some() {
                "instructions and allocations"
            } else {
                "allocations"
            },
            allocations.len(),
            100.0 * LIMIT
        );
        return Ok(());
    }
    Err(Failure(format!(
        "{}; if that is how it has to be: {UPDATE}",
        over.join("; ")
    )))
}

pub(super) fn update(root: &Path, reason: &str) -> Result<(), Failure> {
    if !has_valgrind() {
        return Err(Failure(
            "a baseline has instructions in it, and valgrind, which counts them, is not installed; `apt-get install valgrind`"
                .to_owned(),
        ));
    }
    let before = read(root).ok();
    let program = build(root)?;
    let (allocations, bytes) = count_allocations(&program)?;
    let counts = Counts {
        format: FORMAT,
        reason: reason.to_owned(),
        compiler: compiler()?,
        instructions: count_instructions(&program)?,
        allocations,
        bytes,
    };
    if let Some(before) = before {
        compare(
            "instructions",
            &before.instructions,
            &counts.instructions,
            0.0,
        );
    }
    let text = toml::to_string(&counts).map_err(|error| Failure(format!("{FILE}: {error}")))?;
    let head = format!(
        "# Instructions, allocations and allocated bytes of one repetition of each hot path, for `cargo xtask bench --check`.\n\
         # Written by `{UPDATE}`.\n\n"
    );
    fs::write(root.join(FILE), head + &text)
        .map_err(|error| Failure(format!("{FILE}: {error}")))?;
    println!("{FILE} has {} hot paths", counts.instructions.len());
    Ok(())
}

/// Prints what has changed, and gives back a sentence for each count that is over its limit.
fn compare(what: &str, recorded: &Map, found: &Map, slack: f64) -> Vec<String> {
    let mut over = Vec::new();
    for (name, &now) in found {
        let Some(&before) = recorded.get(name) else {
            over.push(format!("{name} has no recorded {what}"));
            continue;
        };
        let change = now / before.max(f64::MIN_POSITIVE) - 1.0;
        let counts = now > before + slack || now < before - slack;
        if counts && change.abs() > SHOWN {
            println!(
                "{name}: {before:.2} to {now:.2} {what} ({:+.1} %)",
                100.0 * change
            );
        }
        if now > before * (1.0 + LIMIT) + slack {
            over.push(format!(
                "{name} takes {now:.2} {what}, {before:.2} are recorded"
            ));
        }
    }
    for name in recorded.keys().filter(|name| !found.contains_key(*name)) {
        over.push(format!("{name} is recorded and does not exist"));
    }
    over
}

fn read(root: &Path) -> Result<Counts, Failure> {
    let text = fs::read_to_string(root.join(FILE))
        .map_err(|error| Failure(format!("{FILE}: {error}; to write it: {UPDATE}")))?;
    parse(&text)
}

fn parse(text: &str) -> Result<Counts, Failure> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let unreadable = |error: toml::de::Error| {
        Failure(format!(
            "{FILE} cannot be read ({}); to write it anew: {UPDATE}",
            error.message()
        ))
    };
    let head: Head = toml::from_str(text).map_err(unreadable)?;
    if head.format != FORMAT {
        return Err(Failure(format!(
            "{FILE} has format {}, this program knows {FORMAT}; to write it anew: {UPDATE}",
            head.format
        )));
    }
    toml::from_str(text).map_err(unreadable)
}

fn build(root: &Path) -> Result<PathBuf, Failure> {
    // Both, so that the crates are built with the same features as for everything else.
    shell::release_program(root, &PACKAGES, PROGRAM)
}

/// `rustc 1.95.0 for x86_64-unknown-linux-gnu`
fn compiler() -> Result<String, Failure> {
    let text = shell::asked("rustc", &["--version", "--verbose"]);
    let text = text.ok_or_else(|| Failure("rustc does not say which version it is".to_owned()))?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    match (field("release: "), field("host: ")) {
        (Some(release), Some(host)) => Ok(format!("rustc {release} for {host}")),
        _ => Err(Failure("rustc does not say which version it is".to_owned())),
    }
}

fn has_valgrind() -> bool {
    shell::asked("valgrind", &["--version"]).is_some()
}

fn count_allocations(program: &Path) -> Result<(Map, Map), Failure> {
    #[derive(Deserialize)]
    struct Each {
        allocations: f64,
        bytes: f64,
    }
    let json = shell::output(Command::new(program).arg("allocations"))?;
    let counts: BTreeMap<String, Each> = serde_json::from_slice(&json).map_err(|error| {
        Failure(format!(
            "the counts of allocations are not as expected: {error}"
        ))
    })?;
    let of = |figure: fn(&Each) -> f64| {
        let counts = counts.iter();
        counts
            .map(|(name, each)| (name.clone(), rounded(figure(each))))
            .collect()
    };
    Ok((of(|each| each.allocations), of(|each| each.bytes)))
}

/// Hundredths are enough, and read better.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn count_instructions(program: &Path) -> Result<Map, Failure> {
    let list = shell::output(Command::new(program).arg("list"))?;
    let list = String::from_utf8_lossy(&list);
    let scenarios: Vec<(&str, u64)> = list
        .lines()
        .filter_map(|line| {
            let (name, repetitions) = line.split_once(' ')?;
            Some((name, repetitions.parse().ok()?))
        })
        .collect();
    println!("counting the instructions of {} hot paths", scenarios.len());
    let counts = Mutex::new(BTreeMap::new());
    let failed = Mutex::new(None);
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(&(name, repetitions)) =
                    scenarios.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    match instructions(program, name, repetitions) {
                        Ok(each) => {
                            counts
                                .lock()
                                .expect("no worker panics")
                                .insert(name.to_owned(), each);
                        }
                        Err(failure) => *failed.lock().expect("no worker panics") = Some(failure),
                    }
                }
            });
        }
    });
    match failed.into_inner().expect("no worker panics") {
        Some(failure) => Err(failure),
        None => Ok(counts.into_inner().expect("no worker panics")),
    }
}

/// Of one repetition: what twice as many take more.
fn instructions(program: &Path, name: &str, repetitions: u64) -> Result<f64, Failure> {
    let once = callgrind(program, name, repetitions)?;
    let twice = callgrind(program, name, 2 * repetitions)?;
    Ok(rounded(
        twice.saturating_sub(once) as f64 / repetitions as f64,
    ))
}

fn callgrind(program: &Path, name: &str, repetitions: u64) -> Result<u64, Failure> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command
        .arg(program)
        .args(["run", name, &repetitions.to_string()]);
    let output = command.stdin(Stdio::null()).output();
    let output =
        output.map_err(|error| Failure(format!("valgrind could not be started: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    collected(&said)
        .filter(|_| output.status.success())
        .ok_or_else(|| {
            let last: Vec<&str> = said.lines().rev().take(3).collect();
            Failure(format!(
                "valgrind did not count {name}: {}",
                last.join(" | ")
            ))
        })
}

/// `==123== Collected : 4567890`
fn collected(said: &str) -> Option<u64> {
    let line = said
        .lines()
        .find_map(|line| line.split_once("Collected :"))?;
    line.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, f64)]) -> Map {
        pairs
            .iter()
            .map(|&(name, count)| (name.to_owned(), count))
            .collect()
    }

    #[test]
    fn more_than_three_percent_is_over_and_less_is_not() {
        let before = counts(&[("get", 1_000.0), ("put", 2_000.0)]);
        assert!(
            compare(
                "x",
                &before,
                &counts(&[("get", 1_029.0), ("put", 1_500.0)]),
                0.0
            )
            .is_empty()
        );
        let over = compare(
            "x",
            &before,
            &counts(&[("get", 1_100.0), ("put", 2_000.0)]),
            0.0,
        );
        assert_eq!(over, ["get takes 1100.00 x, 1000.00 are recorded"]);
    }

    #[test]
    fn a_path_that_allocated_nothing_may_not_begin_to() {
        let none = counts(&[("get", 0.0)]);
        assert!(compare("x", &none, &counts(&[("get", 0.01)]), ALLOCATION).is_empty());
        assert_eq!(
            compare("x", &none, &counts(&[("get", 1.0)]), ALLOCATION).len(),
            1
        );
    }

    #[test]
    fn new_and_lost_paths_are_told() {
        let over = compare("x", &counts(&[("old", 1.0)]), &counts(&[("new", 1.0)]), 0.0);
        assert_eq!(
            over,
            [
                "new has no recorded x",
                "old is recorded and does not exist"
            ]
        );
    }

    #[test]
    fn a_baseline_of_another_format_says_what_to_do() {
        let error = parse("format = 7\nwhatever = 1").unwrap_err().to_string();
        assert!(
            error.contains("has format 7, this program knows 1"),
            "{error}"
        );
        let error = parse("= nothing").unwrap_err().to_string();
        assert!(
            error.contains("cannot be read") && error.contains("--update-baseline"),
            "{error}"
        );
        let recorded =
            parse(include_str!("../../../bench/counts.toml")).expect("the recorded one is sound");
        assert!(recorded.instructions.keys().eq(recorded.allocations.keys()));
    }

    #[test]
    fn the_count_is_found_in_what_valgrind_says() {
        let said = "==7== Events    : Ir\n==7== Collected : 1234567\n==7==\n";
        assert_eq!(collected(said), Some(1_234_567));
        assert_eq!(collected("nothing"), None);
    }
}
