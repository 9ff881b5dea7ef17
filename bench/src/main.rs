//! Load generation and comparisons for InFlightKv: an HTTP and RESP load generator, the bare server that
//! marks the limit, and side-by-side runs that put both into ratios.
//!
//! It is not a micro benchmark suite and gives no absolute verdicts: on another machine, or on the same one an hour
//! later, only the ratios between servers measured in the same interleaved rounds can be compared.
//!
//! # Promises
//! - The generator reads every answer whole and counts what is wrong with it; nothing fails silently into a figure.
//! - With `--rate`, latency counts from the moment a request was due, not from when it could be sent.
//! - Every process that a comparison starts is ended by its own id, also after an error or a signal.
//!
//! # Reading order
//! `workload` (what is asked), `protocol` (its bytes), `load` (when, and how long it took), `usage` (what it cost);
//! `counter` (whether concurrent increments survive); then `process` and `servers` (who is measured) and `compare` (side by side).
#![forbid(unsafe_code)]

mod bare;
mod cli;
mod client;
mod compare;
mod counter;
mod documents;
mod environment;
mod error;
mod fill;
mod interrupt;
mod load;
mod process;
mod protocol;
mod queues;
mod report;
mod servers;
mod suite;
mod traces;
mod usage;
mod workload;

use std::error::Error as _;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command, Comparison};

/// What shells report for a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        // Without a handler of its own, so that a signal ends it at once.
        Command::Bare(options) => bare::run(&options),
        Command::Queues(options) => queues::run(&options),
        Command::Traces(options) => traces::run(&options),
        Command::Compression(options) => {
            interrupt::install().and_then(|()| documents::run(&options))
        }
        Command::Load(options) => interrupt::install().and_then(|()| load::command::run(&options)),
        Command::Counter(options) => interrupt::install().and_then(|()| counter::command(&options)),
        Command::Suite(options) => interrupt::install().and_then(|()| suite::run(&options)),
        Command::Compare(arguments) => interrupt::install().and_then(|()| match &arguments.what {
            Some(Comparison::Memory(options)) => compare::memory::run(options),
            Some(Comparison::Saving(options)) => compare::saving::run(options),
            Some(Comparison::Pressure(options)) => compare::pressure::run(options),
            Some(Comparison::Peers(options)) => compare::peers::run(options),
            Some(Comparison::Loops(options)) => compare::loops::run(options),
            Some(Comparison::Builds(options)) => compare::builds::run(options),
            None => compare::speed::run(&arguments.speed),
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // A signal ends the children first, so that what fails may be a connection to one of them.
        Err(_) if interrupt::check().is_err() => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprint!("inflightkv-bench: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprint!(": {cause}");
                source = cause.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}
