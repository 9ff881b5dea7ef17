//! The outcome of a run, as numbers with their units in their names, and as text.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use serde::Serialize;

use crate::error::Error;
use crate::load::watch::Memory;
use crate::load::{Costs, Pace, Plan, Tally};
use crate::workload::mix::Mix;

/// A generator that used more of its threads' time than this was the limit, not the server.
const SATURATED: f64 = 0.95;

/// Where the curve of latencies is drawn.
const CURVE: [f64; 14] = [
    0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0,
];

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) connections: usize,
    pub(crate) pipeline: usize,
    pub(crate) threads: usize,
    /// Requests per second that were due; absent in a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) seconds: f64,
    /// Successful requests.
    pub(crate) requests: u64,
    pub(crate) failures: BTreeMap<String, u64>,
    /// Successful requests per second.
    pub(crate) throughput: f64,
    pub(crate) late: u64,
    pub(crate) unsent: u64,
    /// Requests that found nothing under their key, where the mix has such.
    pub(crate) misses: u64,
    /// Operations in each request, where they are batches.
    pub(crate) operations_per_request: usize,
    pub(crate) latency_us: Latency,
    /// Quantiles and their latencies in microseconds, for a curve.
    pub(crate) distribution_us: Vec<(f64, f64)>,
    /// Latencies over time, if windows were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) windows: Vec<Window>,
    /// The share of the time in which each core of the machine was busy, whoever used it.
    pub(crate) busy_per_core: Vec<f64>,
    pub(crate) server: Option<Server>,
    pub(crate) client: Client,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// What was due in a short time.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Window {
    /// Seconds since measuring began.
    pub(crate) at: f64,
    pub(crate) requests: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Server {
    pub(crate) cpu_us_per_request: f64,
    /// Cores in use, on average.
    pub(crate) cores: f64,
    /// Requests per second for each core in use.
    pub(crate) throughput_per_core: f64,
    pub(crate) resident_bytes: u64,
    pub(crate) resident_average_bytes: u64,
    pub(crate) resident_peak_bytes: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Client {
    pub(crate) cpu_us_per_request: f64,
    pub(crate) cores: f64,
    pub(crate) throughput_per_core: f64,
    /// The generator had no time left: the server could perhaps do more.
    pub(crate) saturated: bool,
}

impl Report {
    pub(crate) fn new(
        plan: &Plan,
        threads: usize,
        measure_from: Instant,
        tally: &Tally,
        before: &Costs,
        after: &Costs,
        memory: Option<Memory>,
    ) -> Self {
        let seconds = tally.last.map_or(0.0, |last| {
            last.saturating_duration_since(measure_from).as_secs_f64()
        });
        let requests = tally.latency.len();
        let throughput = ratio(requests as f64, seconds);
        let answers = (after.answers - before.answers) as f64;
        let micros = |quantile| tally.latency.value_at_quantile(quantile) as f64 / 1e3;
        let client_seconds = after.client.saturating_sub(before.client).as_secs_f64();
        let client_cores = ratio(client_seconds, seconds);
        let memory = memory.unwrap_or_default();
        let server = before.server.zip(after.server).map(|(before, after)| {
            let server_seconds = after.saturating_sub(before).as_secs_f64();
            Server {
                cpu_us_per_request: ratio(server_seconds * 1e6, answers),
                cores: ratio(server_seconds, seconds),
                throughput_per_core: ratio(answers, server_seconds),
                resident_bytes: memory.last_bytes,
                resident_average_bytes: memory.average_bytes,
                resident_peak_bytes: memory.peak_bytes,
            }
        });
        Self {
            connections: plan.connections,
            pipeline: plan.pipeline,
            threads,
            rate: match plan.pace {
                Pace::Closed => None,
                Pace::Open { rate, .. } => Some(rate),
            },
            seconds,
            requests,
            failures: tally.failures.clone(),
            throughput,
            late: tally.late,
            unsent: tally.unsent,
            misses: tally.misses,
            operations_per_request: match plan.mix {
                Mix::BatchGet | Mix::BatchPut => plan.data.batch,
                _ => 1,
            },
            distribution_us: CURVE
                .iter()
                .map(|&quantile| (quantile, micros(quantile)))
                .collect(),
            windows: windows(plan, tally),
            busy_per_core: after.machine.busy_since(&before.machine),
            latency_us: Latency {
                mean: tally.latency.mean() / 1e3,
                p50: micros(0.50),
                p95: micros(0.95),
                p99: micros(0.99),
                p999: micros(0.999),
                max: tally.latency.max() as f64 / 1e3,
            },
            server,
            client: Client {
                cpu_us_per_request: ratio(client_seconds * 1e6, answers),
                cores: client_cores,
                throughput_per_core: ratio(answers, client_seconds),
                saturated: client_cores > SATURATED * threads as f64,
            },
        }
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// An error that says what failed, if anything did.
    pub(crate) fn demand_success(&self) -> Result<(), Error> {
        match self.failed() {
            0 => Ok(()),
            failed => Err(Error::Failures {
                failed,
                requests: failed + self.requests,
                kinds: self.kinds_of_failures(),
            }),
        }
    }

    /// `3 status 503, 1 timeout`.
    pub(crate) fn kinds_of_failures(&self) -> String {
        let kinds: Vec<_> = self
            .failures
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        kinds.join(", ")
    }
}

/// Tenths of seconds and the like, from what was due in them.
fn windows(plan: &Plan, tally: &Tally) -> Vec<Window> {
    let length = plan.window.map_or(0.0, |window| window.as_secs_f64());
    let windows = tally.windows.iter().enumerate();
    windows
        .map(|(number, window)| Window {
            at: number as f64 * length,
            requests: window.len(),
            p50_us: window.value_at_quantile(0.5) as f64 / 1e3,
            p99_us: window.value_at_quantile(0.99) as f64 / 1e3,
            max_us: window.max() as f64 / 1e3,
        })
        .collect()
}

/// `part / whole`, and zero where there is no whole.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connections,
            pipeline,
            threads,
            ..
        } = self;
        match self.rate {
            Some(rate) => {
                writeln!(
                    out,
                    "open loop, {rate} requests/s due, {connections} connections"
                )?;
                writeln!(
                    out,
                    "late         {} sent over 1 ms after they were due, {} never sent",
                    self.late, self.unsent
                )?;
            }
            None => writeln!(
                out,
                "closed loop, {connections} connections with {pipeline} in flight each"
            )?,
        }
        writeln!(
            out,
            "throughput   {:.0} requests/s ({} in {:.2} s)",
            self.throughput, self.requests, self.seconds
        )?;
        if self.operations_per_request > 1 {
            writeln!(
                out,
                "operations   {:.0} a second, {} in each request",
                self.throughput * self.operations_per_request as f64,
                self.operations_per_request
            )?;
        }
        if self.misses > 0 {
            writeln!(
                out,
                "misses       {} ({:.1} %)",
                self.misses,
                100.0 * ratio(self.misses as f64, self.requests as f64)
            )?;
        }
        let Latency {
            mean,
            p50,
            p95,
            p99,
            p999,
            max,
        } = self.latency_us;
        writeln!(
            out,
            "latency µs   mean {mean:.0}  p50 {p50:.0}  p95 {p95:.0}  p99 {p99:.0}  p99.9 {p999:.0}  max {max:.0}"
        )?;
        if let Some(server) = self.server {
            writeln!(
                out,
                "server       {:.2} µs of CPU per request, {:.2} cores, {:.1} MiB resident on average, {:.1} at the peak",
                server.cpu_us_per_request,
                server.cores,
                server.resident_average_bytes as f64 / f64::from(1 << 20),
                server.resident_peak_bytes as f64 / f64::from(1 << 20)
            )?;
        }
        let limit = if self.client.saturated {
            "  (the generator was the limit)"
        } else {
            ""
        };
        writeln!(
            out,
            "generator    {:.2} µs of CPU per request, {:.2} cores, {threads} threads{limit}",
            self.client.cpu_us_per_request, self.client.cores
        )?;
        let busy: Vec<String> = self
            .busy_per_core
            .iter()
            .map(|share| format!("{:.0} %", 100.0 * share))
            .collect();
        writeln!(out, "machine      cores busy: {}", busy.join(", "))?;
        match self.failed() {
            0 => write!(out, "failures     none"),
            failed => write!(
                out,
                "failures     {failed} ({:.3} %): {}",
                100.0 * ratio(failed as f64, (failed + self.requests) as f64),
                self.kinds_of_failures()
            ),
        }
    }
}
