//! Many clients increment one number by compare-and-set; not one increment may get lost.
//!
//! Each client reads the number with its version, writes the next number on the condition that the version is still
//! that, and begins anew when it is not. In the end the number has to be the sum of the successes.

use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use serde::Serialize;

use crate::cli::Counter;
use crate::client::Client;
use crate::error::Error;
use crate::interrupt;

const NAME: &str = "the server";
const JSON: &str = "application/json";

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) clients: u16,
    pub(crate) successes: u64,
    /// Writes refused because another client was faster.
    pub(crate) conflicts: u64,
    pub(crate) final_value: u64,
    pub(crate) seconds: f64,
    pub(crate) increments_per_second: f64,
}

pub(crate) fn command(options: &Counter) -> Result<(), Error> {
    let outcome = run(options)?;
    if options.json {
        let text = serde_json::to_string_pretty(&outcome).expect("an outcome is plain data");
        println!("{text}");
    } else {
        println!("{outcome}");
    }
    outcome.demand_exactness()
}

pub(crate) fn run(options: &Counter) -> Result<Outcome, Error> {
    let path = format!("/v1/kv/{}", options.key);
    let mut first = Client::connect(NAME, options.address)?;
    first.http_success("PUT", &path, JSON, b"0")?;
    let start = Instant::now();
    let counts: Vec<u64> = thread::scope(|scope| {
        let clients: Vec<_> = (0..options.clients)
            .map(|_| scope.spawn(|| increment(options.address, &path, options.increments)))
            .collect();
        clients
            .into_iter()
            .map(|client| {
                client
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect::<Result<_, _>>()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let (final_value, _) = read(&mut first, &path)?;
    let successes = u64::from(options.clients) * options.increments;
    Ok(Outcome {
        clients: options.clients,
        successes,
        conflicts: counts.iter().sum(),
        final_value,
        seconds,
        increments_per_second: successes as f64 / seconds,
    })
}

/// Brings about so many increments; how many writes were refused on the way.
fn increment(address: SocketAddr, path: &str, increments: u64) -> Result<u64, Error> {
    let mut client = Client::connect(NAME, address)?;
    let mut conflicts = 0;
    for _ in 0..increments {
        loop {
            interrupt::check()?;
            let (value, version) = read(&mut client, path)?;
            let conditional = format!("{path}?ifVersion={version}");
            let next = (value + 1).to_string();
            match client.http("PUT", &conditional, JSON, next.as_bytes())? {
                (200..=299, _) => break,
                (412, _) => conflicts += 1,
                (status, body) => return Err(unexpected("PUT", status, &body)),
            }
        }
    }
    Ok(conflicts)
}

/// The number and its version.
fn read(client: &mut Client, path: &str) -> Result<(u64, u64), Error> {
    let answer = client.exchange("GET", path, JSON, b"")?;
    let number = |text: &str| text.parse::<u64>().ok();
    let value = str::from_utf8(&answer.body).ok().and_then(number);
    let version = answer.header("version").and_then(number);
    match (answer.status, value, version) {
        (200, Some(value), Some(version)) => Ok((value, version)),
        (status, ..) => Err(unexpected("GET", status, &answer.body)),
    }
}

fn unexpected(what: &str, status: u16, body: &[u8]) -> Error {
    let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
    Error::Answer {
        name: NAME.to_owned(),
        what: what.to_owned(),
        found: format!("status {status} {text}"),
        expected: "a number with its version".to_owned(),
    }
}

impl Outcome {
    /// An error if an increment got lost, or was invented.
    pub(crate) fn demand_exactness(&self) -> Result<(), Error> {
        if self.final_value == self.successes {
            return Ok(());
        }
        Err(Error::Answer {
            name: NAME.to_owned(),
            what: format!("{} successful increments", self.successes),
            found: format!("a final value of {}", self.final_value),
            expected: self.successes.to_string(),
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "increments   {} by {} clients, {:.0} a second",
            self.successes, self.clients, self.increments_per_second
        )?;
        writeln!(
            out,
            "conflicts    {} writes refused and repeated",
            self.conflicts
        )?;
        write!(out, "final value  {}", self.final_value)
    }
}
