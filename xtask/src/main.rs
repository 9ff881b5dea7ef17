//! Development commands: `cargo xtask tidy`, `ci`, `fuzz`, `conformance`, `bench` and `release`. Anyone can run them.
#![forbid(unsafe_code)]

mod bench;
mod conformance;
mod fuzz;
mod release;
mod shell;
mod tidy;

use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

use crate::shell::Failure;

/// Development commands of InFlightKv.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Read the tree: layers, opening words, formats with their documents, leftovers
    Tidy,
    /// Run what every change has to pass (.ci/run)
    Ci,
    /// Simulate crashes and power cuts from generated histories
    Fuzz(fuzz::Options),
    /// Hold a running server against its /openapi.json with schemathesis
    Conformance(conformance::Options),
    /// Measure the server and write a report, or check the recorded limits
    Bench(bench::Options),
    /// Make a release, or rehearse it
    Release(release::Options),
}

fn main() -> ExitCode {
    let root = shell::root();
    let result = match Cli::parse().task {
        Task::Tidy => tidy::run(&root),
        Task::Ci => shell::run(Command::new("bash").arg(".ci/run").current_dir(&root)),
        Task::Fuzz(options) => fuzz::run(&root, &options),
        Task::Conformance(options) => conformance::run(&root, &options),
        Task::Bench(options) => bench::run(&root, &options),
        Task::Release(options) => release::run(&root, &options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(sentence)) => {
            eprintln!("cargo xtask: {sentence}");
            ExitCode::FAILURE
        }
    }
}
