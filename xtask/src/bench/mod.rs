//! Runs the benchmarks, and as a gate holds counts and ratios against what is recorded.

mod against;
mod counts;
mod ratio;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{self, Failure};

const PACKAGES: [&str; 2] = ["inflightkv-server", "inflightkv-bench"];

/// What `inflightkv-bench` runs besides its suite; anything else is taken for a benchmark of the suite.
const PARTS: [&str; 5] = ["compare", "load", "counter", "traces", "compression"];
/// Comparisons that are asked for by their own name.
const COMPARISONS: [&str; 5] = ["peers", "memory", "saving", "pressure", "loops"];

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Check instructions and allocations of the hot paths, and CPU time beside the bare server
    #[arg(long, conflicts_with_all = ["what", "update_baseline"])]
    check: bool,
    /// With --check: only what is the same on every machine, instructions and allocations
    #[arg(long, requires = "check")]
    counts: bool,
    /// With --check: also take turns with the server of this commit, and fail if this one is slower for sure
    #[arg(long, value_name = "REV", requires = "check")]
    against: Option<String>,
    /// Record the counts of today, with the reason why they may be what they are
    #[arg(long, requires = "reason", conflicts_with = "what")]
    update_baseline: bool,
    /// Why the counts change; it is written into the baseline
    #[arg(long, value_parser = reason)]
    reason: Option<String>,
    /// Benchmarks of the suite [default: all of them], or one of peers, loops, memory, saving, pressure, compare, load, counter,
    /// traces, compression
    #[arg(value_name = "WHAT")]
    what: Vec<String>,
    /// For traces and compression: the folder that has traces, or documents
    #[arg(long, value_name = "DIR", conflicts_with_all = ["check", "update_baseline"])]
    data: Option<PathBuf>,
    /// Arguments for `inflightkv-bench`; `-- --help` lists them
    #[arg(last = true, conflicts_with_all = ["check", "update_baseline"])]
    arguments: Vec<OsString>,
}

fn reason(text: &str) -> Result<String, String> {
    if text.split_whitespace().count() < 3 {
        Err("say it in a sentence".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<(), Failure> {
    if options.update_baseline {
        return counts::update(root, options.reason.as_deref().unwrap_or_default());
    }
    if options.check {
        return check(root, options);
    }
    let program = shell::release_program(root, &PACKAGES, "inflightkv-bench")?;
    let mut command = Command::new(program);
    command.current_dir(root);
    match options.what.first().map(String::as_str) {
        Some(first) if COMPARISONS.contains(&first) => {
            command.arg("compare");
        }
        Some(first) if PARTS.contains(&first) => {}
        _ => {
            command.arg("suite");
        }
    }
    command.args(&options.what);
    if let Some(data) = &options.data {
        // Relative to where it was typed, not to the root.
        let data = std::path::absolute(data)
            .map_err(|error| Failure(format!("{}: {error}", data.display())))?;
        command.arg("--data").arg(data);
    }
    // Its own sentence about what went wrong has been read by then.
    shell::run(command.args(&options.arguments))
}

fn check(root: &Path, options: &Options) -> Result<(), Failure> {
    // A commit that is not there is known before anything is built.
    let revision = options.against.as_deref();
    let commit = revision
        .map(|revision| against::commit(root, revision))
        .transpose()?;
    counts::check(root)?;
    if let Some(commit) = &commit {
        against::check(root, commit)?;
    }
    if options.counts {
        return Ok(());
    }
    let program = shell::release_program(root, &PACKAGES, "inflightkv-bench")?;
    ratio::check_recorded(root, &program)
}
