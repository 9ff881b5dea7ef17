//! The program: which subcommand was asked for, and what its end means to the shell.
//!
//! Exit codes: 0 success, 1 failure or damage, 2 wrong usage or configuration. An error is one line on standard error.

mod access;
mod arguments;
mod backup;
mod bulk;
mod client;
mod connection;
mod data_dir;
mod follow;
mod inspect;
mod logging;
mod manual;
mod notify;
mod progress;
mod repair;
mod restore;
mod rules;
mod serve;
#[cfg(feature = "otel")]
mod traces;
mod usage;
mod watch;
mod wire;

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::ArgMatches;

use crate::config::{Config, ConfigError, Effective};

/// How a subcommand ended when it did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not do what it was asked to; the message is one line.
    Failed(String),
    /// Damage was found; the report has been printed.
    Damaged,
    /// It was asked wrongly.
    Usage(String),
}

impl Failure {
    /// A failure from an error and its sources.
    pub(crate) fn from_error(error: &dyn Error) -> Self {
        Failure::Failed(with_sources(error))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::Usage(error.to_string())
    }
}

impl From<io::Error> for Failure {
    /// Of an output that nobody reads any more nothing is left to say.
    fn from(error: io::Error) -> Self {
        Failure::Failed(format!("the output could not be written: {error}"))
    }
}

/// Runs the program with the arguments and the environment of the process.
pub fn main() -> ExitCode {
    let matches = match arguments::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return usage::answer(&error),
    };
    match dispatch(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Damaged) => ExitCode::from(1),
        Err(Failure::Failed(message)) => {
            complain(&message);
            ExitCode::from(1)
        }
        Err(Failure::Usage(message)) => {
            complain(&message);
            ExitCode::from(2)
        }
    }
}

fn dispatch(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        None => serve::run(matches),
        Some(("serve", matches)) => serve::run(matches),
        Some(("config", matches)) => configuration(matches),
        Some(("check", matches)) => data_dir::check(matches),
        Some(("repair", matches)) => repair::run(matches),
        Some(("inspect", matches)) => inspect::run(matches),
        Some(("token", matches)) => match matches.subcommand() {
            Some((_, matches)) => access::new_token(matches),
            None => unreachable!("a subcommand is required"),
        },
        Some(("audit", matches)) => match matches.subcommand() {
            Some((_, matches)) => access::verify_audit(matches),
            None => unreachable!("a subcommand is required"),
        },
        Some(("check-rules", matches)) => rules::check_rules(matches),
        Some(("backup", matches)) => backup::run(matches),
        Some(("restore", matches)) => restore::run(matches),
        Some(("get", matches)) => client::get(matches),
        Some(("put", matches)) => client::put(matches),
        Some(("patch", matches)) => client::patch(matches),
        Some(("del", matches)) => client::del(matches),
        Some(("keys", matches)) => client::keys(matches),
        Some(("watch", matches)) => watch::run(matches),
        Some(("completions", matches)) => manual::completions(matches),
        Some(("man", _)) => manual::man(),
        Some((name, _)) => unreachable!("{name} is not a subcommand of the command line"),
    }
}

/// `inflightkv config`: what holds, and why.
fn configuration(matches: &ArgMatches) -> Result<(), Failure> {
    if matches.get_flag("default") {
        return print(crate::config::default_file().as_bytes());
    }
    let (effective, _) = load(matches)?;
    print(effective.print().as_bytes())
}

/// The configuration from the flags given, the environment and the file that one of them names.
fn load(matches: &ArgMatches) -> Result<(Effective, Config), Failure> {
    let effective = Effective::load(arguments::given_settings(matches), env::vars_os())?;
    let config = Config::new(&effective)?;
    Ok((effective, config))
}

/// Writes to standard output. A reader that has gone away (`inflightkv keys | head`) is no failure.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    unless_broken(output.write_all(bytes).and_then(|()| output.flush()))
}

fn unless_broken(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Failure::from),
    }
}

/// Says on standard error why the program ends. Nothing is left to do when that fails too.
fn complain(message: &str) {
    let line = message.replace('\n', " ");
    let _ = writeln!(io::stderr(), "error: {line}");
}

/// The sentence of an error and of everything below it that says more.
fn with_sources(error: &dyn Error) -> String {
    let mut sentence = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        let words = below.to_string();
        // Some errors print their source already.
        if !sentence.contains(&words) {
            write!(sentence, ": {words}").expect("a string takes whatever is written");
        }
        source = below.source();
    }
    sentence
}
