//! Sends requests by a plan and reports what came back, how fast, and what it cost.

pub(crate) mod command;
mod connection;
pub(crate) mod knee;
mod report;
mod schedule;
mod tally;
mod watch;
mod worker;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::{Arrivals, Data};
use crate::error::Error;
use crate::load::connection::Connection;
use crate::load::tally::Tally;
use crate::load::watch::Watch;
use crate::load::worker::Worker;
use crate::protocol::{Material, Protocol};
use crate::workload::Values;
use crate::workload::mix::{Ask, Mix, Order, Place, Popularity, Questions};
use crate::{environment, interrupt, usage};

pub(crate) use crate::load::report::{Report, Window};

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

#[derive(Clone, Debug)]
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
    /// Whether the body of a successful GET has to be as long as the value.
    pub(crate) checks_length: bool,
    /// Processes to account for.
    pub(crate) pids: Vec<u32>,
    /// Keep latencies apart by when they were due, in windows of this length.
    pub(crate) window: Option<Duration>,
    /// Show a bar on a terminal.
    pub(crate) bar: bool,
}

impl Plan {
    /// A closed loop over one connection for each of these; everything else can be changed afterwards.
    pub(crate) fn new(address: SocketAddr, protocol: Protocol, data: Data, mix: Mix) -> Self {
        Self {
            address,
            checks_length: protocol.echoes(),
            protocol,
            connections: 50,
            threads: environment::load_threads(),
            pipeline: 1,
            pace: Pace::Closed,
            stop: Stop::After(Duration::from_secs(1)),
            warmup: Duration::ZERO,
            timeout: Duration::from_secs(10),
            mix,
            reads_percent: 50,
            data,
            sequential: false,
            pids: Vec::new(),
            window: None,
            bar: false,
        }
    }

    /// The run that writes every key of this plan once.
    pub(crate) fn fill(self) -> Self {
        Self {
            pace: Pace::Closed,
            stop: Stop::Requests(self.data.keys),
            warmup: Duration::ZERO,
            mix: Mix::Put,
            sequential: true,
            pids: Vec::new(),
            window: None,
            ..self
        }
    }

    pub(crate) fn shares(&self) -> Vec<(Ask, u8)> {
        self.mix.shares(self.reads_percent)
    }

    /// An error if the server does not know an operation of the mix.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (ask, _) in self.shares() {
            if !self.protocol.can(ask.request()) {
                return Err(Error::Usage(format!(
                    "--mix {} asks for what this protocol does not have ({:?}); it can do get, put and mixed",
                    self.mix.name(),
                    ask
                )));
            }
        }
        Ok(())
    }

    fn material<'a>(&self, values: &'a Values) -> Material<'a> {
        Material {
            values,
            batch: self.data.batch,
            page: self.data.page,
        }
    }
}

/// One reading of the clocks that costs are taken from.
pub(crate) struct Costs {
    server: Option<Duration>,
    client: Duration,
    /// Answers received so far, by all workers.
    answers: u64,
    machine: usage::Machine,
}

impl Costs {
    fn read(pids: &[u32], answered: &[Answered]) -> Result<Self, Error> {
        Ok(Self {
            server: usage::cpu_time_of(pids)?,
            client: usage::own_cpu_time(),
            answers: answered.iter().map(Answered::count).sum(),
            machine: usage::Machine::read(),
        })
    }
}

/// Answers that one worker has received, on a cache line of its own: it is written at each of them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Answered(AtomicU64);

impl Answered {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, count: u64) {
        // One writer, so that no locked instruction is needed.
        self.0
            .store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }
}

/// Runs the plan. Answers that are wrong or missing are counted, not an error.
pub(crate) fn run(plan: &Plan) -> Result<Report, Error> {
    plan.check()?;
    let threads = plan.threads.clamp(1, plan.connections.max(1));
    let values = Values::new(&plan.data);
    let answered: Vec<Answered> = (0..threads).map(|_| Answered::default()).collect();
    let mut connections = Vec::with_capacity(threads);
    for worker in 0..threads {
        let share = share(plan.connections as u64, worker, threads);
        let opened: Result<Vec<_>, _> =
            (0..share).map(|_| Connection::open(plan.address)).collect();
        connections.push(opened?);
    }
    let mut before = Costs::read(&plan.pids, &answered)?;
    let start = Instant::now();
    let measure_from = start + plan.warmup;
    let stop_at = match plan.stop {
        Stop::After(duration) => Some(measure_from + duration),
        Stop::Requests(_) => None,
    };
    let done = AtomicBool::new(false);
    let watch = Watch {
        pids: &plan.pids,
        answered: &answered,
        measure_from,
        stop: plan.stop,
        bar: plan.bar,
        done: &done,
    };
    let (tallies, memory) = thread::scope(|scope| {
        let watch = scope.spawn(|| watch.run());
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
        let warm = if plan.warmup.is_zero() {
            Ok(())
        } else {
            interrupt::sleep_until(measure_from)
                .and_then(|()| Costs::read(&plan.pids, &answered))
                .map(|costs| before = costs)
        };
        let tallies: Result<Vec<Tally>, Error> = workers.into_iter().map(joined).collect();
        done.store(true, Ordering::Release);
        watch.thread().unpark();
        (warm.and(tallies), joined(watch))
    });
    let after = Costs::read(&plan.pids, &answered);
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
        memory,
    ))
}

/// What a thread came to; its panic goes on here.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The part of `total` that falls to worker `index` of `workers`.
fn share(total: u64, index: usize, workers: usize) -> u64 {
    let (index, workers) = (index as u64, workers as u64);
    total / workers + u64::from(index < total % workers)
}

impl Plan {
    fn questions(&self, worker: usize, workers: usize, seed: u64) -> Questions {
        let place = Place {
            index: worker as u64,
            workers: workers as u64,
        };
        let order = if self.sequential {
            Order::Every {
                first: place.index,
                step: place.workers,
            }
        } else {
            match self.data.popularity.unwrap_or(self.mix.popularity()) {
                Popularity::Uniform => Order::Uniform,
                Popularity::Zipf => Order::Zipf(self.data.zipf),
                Popularity::Latest => Order::Latest(self.data.zipf),
            }
        };
        Questions::new(seed, self.data.keys, order, self.shares(), place)
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
