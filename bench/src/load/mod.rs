//! Sends requests by a plan and reports what came back, how fast, and what it cost.

pub(crate) mod command;
mod connection;
mod report;
mod schedule;
mod tally;
mod worker;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::{Arrivals, Data, Mix};
use crate::error::Error;
use crate::load::connection::Connection;
use crate::load::tally::Tally;
use crate::load::worker::Worker;
use crate::protocol::Protocol;
use crate::workload::{Order, Questions, Values};
use crate::{interrupt, usage};

pub(crate) use crate::load::report::Report;

/// How requests are timed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// Each connection sends when it has been answered: the load follows the server.
    Closed,
    /// A schedule of so many requests a second: the load is what it is.
    Open { rate: f64, arrivals: Arrivals },
}

/// When sending ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stop {
    After(Duration),
    Requests(u64),
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) pipeline: usize,
    pub(crate) pace: Pace,
    pub(crate) stop: Stop,
    pub(crate) warmup: Duration,
    pub(crate) timeout: Duration,
    pub(crate) mix: Mix,
    pub(crate) reads_percent: u8,
    pub(crate) data: Data,
    /// Each key once, in order, instead of by chance.
    pub(crate) sequential: bool,
    /// What the body of a successful GET has to measure.
    pub(crate) body_bytes: Option<usize>,
    /// Process to account for.
    pub(crate) pid: Option<u32>,
}

impl Plan {
    /// The run that writes every key of this plan once.
    pub(crate) fn fill(self) -> Self {
        Self {
            pace: Pace::Closed,
            stop: Stop::Requests(self.data.keys),
            warmup: Duration::ZERO,
            mix: Mix::Put,
            sequential: true,
            pid: None,
            ..self
        }
    }
}

/// One reading of the clocks that costs are taken from.
pub(crate) struct Costs {
    server: Option<Duration>,
    client: Duration,
    /// Answers received so far, by all workers.
    answers: u64,
}

impl Costs {
    fn read(pid: Option<u32>, answered: &[Answered]) -> Result<Self, Error> {
        Ok(Self {
            server: pid.map(usage::cpu_time).transpose()?,
            client: usage::own_cpu_time(),
            answers: answered
                .iter()
                .map(|worker| worker.0.load(Ordering::Relaxed))
                .sum(),
        })
    }
}

/// Answers that one worker has received, on a cache line of its own: it is written at each of them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Answered(AtomicU64);

impl Answered {
    fn add(&self, count: u64) {
        // One writer, so that no locked instruction is needed.
        self.0
            .store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }
}

/// Runs the plan. Answers that are wrong or missing are counted, not an error.
pub(crate) fn run(plan: &Plan) -> Result<Report, Error> {
    let threads = plan.threads.clamp(1, plan.connections.max(1));
    let values = Values::new(plan.data.value_bytes, plan.data.seed);
    let answered: Vec<Answered> = (0..threads).map(|_| Answered::default()).collect();
    let mut connections = Vec::with_capacity(threads);
    for worker in 0..threads {
        let share = share(plan.connections as u64, worker, threads);
        let opened: Result<Vec<_>, _> =
            (0..share).map(|_| Connection::open(plan.address)).collect();
        connections.push(opened?);
    }
    let mut before = Costs::read(plan.pid, &answered)?;
    let start = Instant::now();
    let measure_from = start + plan.warmup;
    let stop_at = match plan.stop {
        Stop::After(duration) => Some(measure_from + duration),
        Stop::Requests(_) => None,
    };
    let tallies: Result<Vec<Tally>, Error> = thread::scope(|scope| {
        let workers: Vec<_> = connections
            .into_iter()
            .enumerate()
            .map(|(index, connections)| {
                let worker = Worker {
                    plan,
                    values: &values,
                    answered: &answered[index],
                    start,
                    measure_from,
                    stop_at,
                    // A worker's number tells its sequence from the others'; the multiplier spreads small numbers.
                    seed: plan.data.seed ^ (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                    budget: match plan.stop {
                        Stop::After(_) => u64::MAX,
                        Stop::Requests(requests) => share(requests, index, threads),
                    },
                    index,
                    workers: threads,
                };
                scope.spawn(move || worker.run(connections))
            })
            .collect();
        if !plan.warmup.is_zero() {
            interrupt::sleep_until(measure_from)?;
            before = Costs::read(plan.pid, &answered)?;
        }
        workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    let after = Costs::read(plan.pid, &answered);
    let resident_bytes = plan.pid.map(usage::resident_bytes).transpose();
    let tally = tallies?
        .into_iter()
        .reduce(Tally::merge)
        .expect("there is at least one worker");
    Ok(Report::new(
        plan,
        threads,
        measure_from,
        &tally,
        &before,
        &after?,
        resident_bytes?,
    ))
}

/// The part of `total` that falls to worker `index` of `workers`.
fn share(total: u64, index: usize, workers: usize) -> u64 {
    let (index, workers) = (index as u64, workers as u64);
    total / workers + u64::from(index < total % workers)
}

impl Plan {
    fn questions(&self, worker: usize, workers: usize, seed: u64) -> Questions {
        let order = if self.sequential {
            Order::Every {
                first: worker as u64,
                step: workers as u64,
            }
        } else {
            Order::Uniform
        };
        Questions::new(seed, self.data.keys, order, self.mix, self.reads_percent)
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_add_up_and_differ_by_at_most_one() {
        for (total, workers) in [(50, 3), (1, 4), (0, 2), (1_000_003, 7)] {
            let shares: Vec<u64> = (0..workers)
                .map(|index| share(total, index, workers))
                .collect();
            assert_eq!(shares.iter().sum::<u64>(), total);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }
}
