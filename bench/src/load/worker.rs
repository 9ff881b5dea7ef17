//! One thread of the generator: its connections, one poller, and the moment each request is sent.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::error::Error;
use crate::interrupt;
use crate::load::connection::{Connection, Received, Sent};
use crate::load::schedule::Schedule;
use crate::load::tally::Tally;
use crate::load::{Answered, Pace, Plan};
use crate::protocol::{Answer, Request};
use crate::workload::Values;
use crate::workload::mix::{Ask, Questions};

/// The longest wait for an event, so that deadlines, timeouts and interrupts are seen.
const PATIENCE: Duration = Duration::from_millis(100);
/// A request sent this much after it was due counts as late.
const LATE: Duration = Duration::from_millis(1);
const EVENTS_MAX: usize = 1024;
const CONNECT_ATTEMPTS_MAX: u32 = 10;
/// Timers of the generator may be this much off; the system's default of 50 µs would be seen in each latency.
const TIMER_SLACK: NonZeroU64 = NonZeroU64::new(1_000).expect("not zero");

/// What a worker is given.
pub(crate) struct Worker<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) values: &'a Values,
    pub(crate) answered: &'a Answered,
    pub(crate) start: Instant,
    pub(crate) measure_from: Instant,
    pub(crate) stop_at: Option<Instant>,
    pub(crate) seed: u64,
    /// Requests it may send.
    pub(crate) budget: u64,
    pub(crate) index: usize,
    pub(crate) workers: usize,
}

/// How a running worker decides what to send next.
enum Pacer {
    Closed,
    Open {
        schedule: Schedule,
        /// A connection's index for each request it could take; taken in turn, so that all are used alike.
        free: VecDeque<usize>,
    },
}

struct Running<'a> {
    worker: Worker<'a>,
    poller: OwnedFd,
    connections: Vec<Connection>,
    questions: Questions,
    /// Whether everything asked takes one request.
    single: bool,
    pacer: Pacer,
    tally: Tally,
    in_flight: usize,
    /// Failed attempts to connect since the last that succeeded.
    failed_connects: u32,
}

impl Worker<'_> {
    /// Sends and receives until the plan is fulfilled and every request is answered or given up.
    pub(crate) fn run(self, connections: Vec<Connection>) -> Result<Tally, Error> {
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|errno| Error::io("creating a poller")(errno.into()))?;
        // Precision is lost without it, nothing else.
        let _ = rustix::thread::set_current_timer_slack(Some(TIMER_SLACK));
        let pacer = match self.plan.pace {
            Pace::Closed => Pacer::Closed,
            Pace::Open { rate, arrivals } => Pacer::Open {
                schedule: Schedule::new(
                    self.start,
                    rate,
                    arrivals,
                    self.index,
                    self.workers,
                    self.seed,
                ),
                free: (0..self.plan.pipeline)
                    .flat_map(|_| 0..connections.len())
                    .collect(),
            },
        };
        let mut running = Running {
            questions: self.plan.questions(self.index, self.workers, self.seed),
            single: self
                .plan
                .shares()
                .iter()
                .all(|&(ask, _)| ask.then(true).is_none()),
            worker: self,
            poller,
            connections,
            pacer,
            tally: Tally::new(),
            in_flight: 0,
            failed_connects: 0,
        };
        running.run()?;
        Ok(running.tally)
    }
}

impl Running<'_> {
    fn run(&mut self) -> Result<(), Error> {
        let mut now = Instant::now();
        for index in 0..self.connections.len() {
            self.fill(index, now);
            self.watch(index)?;
        }
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut next_check = now + PATIENCE;
        loop {
            let wait = self.send_due(now)?;
            if self.in_flight == 0 && !self.may_send(now) {
                break;
            }
            let timeout = Timespec::try_from(wait).unwrap_or(Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            });
            events.clear();
            match epoll::wait(&self.poller, spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::io("waiting for answers")(errno.into())),
            }
            for event in &events {
                let (index, flags) = (event.data.u64(), event.flags);
                let index = usize::try_from(index).expect("an index was registered");
                self.serve(index, flags)?;
            }
            now = Instant::now();
            if now >= next_check {
                next_check = now + PATIENCE;
                interrupt::check()?;
                self.give_up_on_silent(now)?;
            }
        }
        self.count_unsent();
        Ok(())
    }

    fn may_send(&self, now: Instant) -> bool {
        self.worker.budget > 0 && self.worker.stop_at.is_none_or(|stop_at| now < stop_at)
    }

    /// Sends what the schedule has due, and says how long to wait for events.
    fn send_due(&mut self, now: Instant) -> Result<Duration, Error> {
        let until_stop = self
            .worker
            .stop_at
            .map_or(PATIENCE, |stop_at| stop_at.saturating_duration_since(now));
        // After the end there is nothing to send any more, and answers wake the poller.
        let mut wait = if until_stop.is_zero() {
            PATIENCE
        } else {
            PATIENCE.min(until_stop)
        };
        while self.may_send(now) {
            let Pacer::Open { schedule, free } = &mut self.pacer else {
                break;
            };
            let due = schedule.due();
            if due > now {
                wait = wait.min(due - now);
                break;
            }
            // All connections are busy: what is due waits, and its latency grows.
            let Some(index) = free.pop_front() else { break };
            schedule.advance();
            self.ask(index, due, now);
            self.flush(index)?;
        }
        Ok(wait)
    }

    /// In a closed loop, asks as much as the connection can take.
    fn fill(&mut self, index: usize, now: Instant) {
        if matches!(self.pacer, Pacer::Closed) {
            while self.connections[index].waiting.len() < self.worker.plan.pipeline
                && self.may_send(now)
            {
                self.ask(index, now, now);
            }
        }
    }

    /// Writes the first request of what is asked next into the connection's buffer.
    fn ask(&mut self, index: usize, due: Instant, now: Instant) {
        let (ask, number) = self.questions.next();
        self.send(
            index,
            Sent {
                ask,
                request: ask.request(),
                number,
                due,
                sent: now,
            },
        );
        self.in_flight += 1;
        self.worker.budget -= 1;
        if now.saturating_duration_since(due) > LATE && due >= self.worker.measure_from {
            self.tally.late += 1;
        }
    }

    fn send(&mut self, index: usize, sent: Sent) {
        let plan = self.worker.plan;
        let connection = &mut self.connections[index];
        plan.protocol.append(
            sent.request,
            sent.number,
            &plan.material(self.worker.values),
            &mut self.questions,
            &mut connection.output,
        );
        connection.waiting.push_back(sent);
    }

    fn flush(&mut self, index: usize) -> Result<(), Error> {
        let connection = &mut self.connections[index];
        match connection.flush() {
            Ok(done) if done != connection.polls_write => Ok(()),
            Ok(done) => {
                connection.polls_write = !done;
                let mut flags = epoll::EventFlags::IN;
                flags.set(epoll::EventFlags::OUT, !done);
                epoll::modify(
                    &self.poller,
                    connection,
                    epoll::EventData::new_u64(index as u64),
                    flags,
                )
                .map_err(|errno| Error::io("changing what is polled for")(errno.into()))
            }
            Err(error) => self.replace(index, &kind(&error)),
        }
    }

    /// Takes what the socket of this connection has.
    fn serve(&mut self, index: usize, flags: epoll::EventFlags) -> Result<(), Error> {
        if flags == epoll::EventFlags::OUT {
            return self.flush(index);
        }
        match self.connections[index].receive() {
            Ok(Received::Bytes) => {}
            Ok(Received::Nothing) => return Ok(()),
            Ok(Received::End) => return self.replace(index, "closed by the server"),
            Err(error) => return self.replace(index, &kind(&error)),
        }
        let now = Instant::now();
        loop {
            let (plan, values) = (self.worker.plan, self.worker.values);
            let taken = self.connections[index].take_answer(|input, sent| {
                let body_bytes = plan.checks_length.then(|| values.bytes(sent.number));
                plan.protocol
                    .parse(input, sent.request, body_bytes, plan.data.batch)
            });
            match taken {
                Ok(None) => break,
                Ok(Some((sent, answer))) => {
                    if self.record(index, sent, &answer, now) {
                        return self.replace(index, "closed by the server");
                    }
                }
                Err(what) => return self.replace(index, &format!("malformed answer: {what}")),
            }
        }
        self.fill(index, now);
        self.flush(index)
    }

    /// Counts one answer, or goes on with what it was the first half of; whether the connection ends with it.
    fn record(&mut self, index: usize, sent: Sent, answer: &Answer, now: Instant) -> bool {
        let (missed, closes, failure) = match answer {
            Answer::Success { closes, .. } => (false, *closes, None),
            Answer::Missing { closes } if self.worker.plan.mix.misses() => (true, *closes, None),
            Answer::Missing { closes } => (true, *closes, Some("missing")),
            Answer::Failure { kind, closes } => (false, *closes, Some(kind.as_str())),
        };
        let measured = sent.due >= self.worker.measure_from;
        if !self.single
            && failure.is_none()
            && !closes
            && sent.request == Request::Get
            && let Some(request) = sent.ask.then(missed)
        {
            if missed && measured {
                self.tally.misses += 1;
            }
            self.send(
                index,
                Sent {
                    request,
                    sent: now,
                    ..sent
                },
            );
            return false;
        }
        self.in_flight -= 1;
        self.worker.answered.add(1);
        self.release(index, 1);
        if sent.ask == Ask::Insert && failure.is_none() {
            self.questions.inserted(sent.number);
        }
        if measured {
            match failure {
                Some(kind) => self.tally.failure(kind, 1),
                None => {
                    let latency = now.saturating_duration_since(sent.due);
                    self.tally.success(latency, now);
                    self.tally.misses += u64::from(missed);
                    if let Some(window) = self.worker.plan.window {
                        let since = sent.due - self.worker.measure_from;
                        let number = since.as_nanos() / window.as_nanos().max(1);
                        self.tally
                            .in_window(usize::try_from(number).unwrap_or(usize::MAX), latency);
                    }
                }
            }
        }
        closes
    }

    /// In an open loop, a connection can take so many requests more.
    fn release(&mut self, index: usize, count: usize) {
        if let Pacer::Open { free, .. } = &mut self.pacer {
            free.extend(std::iter::repeat_n(index, count));
        }
    }

    /// Gives up a connection with everything that waited on it, and opens another in its place.
    fn replace(&mut self, index: usize, why: &str) -> Result<(), Error> {
        let lost = std::mem::take(&mut self.connections[index].waiting);
        let measured = lost
            .iter()
            .filter(|sent| sent.due >= self.worker.measure_from)
            .count();
        self.tally.failure(why, measured as u64);
        self.in_flight -= lost.len();
        self.release(index, lost.len());
        self.connections[index] = loop {
            match Connection::connect(self.worker.plan.address) {
                Ok(connection) => break connection,
                Err(source) => {
                    interrupt::check()?;
                    self.tally.failure("connecting", 1);
                    self.failed_connects += 1;
                    if self.failed_connects >= CONNECT_ATTEMPTS_MAX {
                        return Err(Error::Unreachable {
                            attempts: self.failed_connects,
                            source,
                        });
                    }
                }
            }
        };
        self.failed_connects = 0;
        self.fill(index, Instant::now());
        self.watch(index)
    }

    /// Has a new connection polled. Its first requests go out when the poller finds it writable, so that a server
    /// which drops every connection is met by this loop and not by a recursion.
    fn watch(&mut self, index: usize) -> Result<(), Error> {
        let connection = &mut self.connections[index];
        connection.polls_write = true;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
        epoll::add(
            &self.poller,
            connection,
            epoll::EventData::new_u64(index as u64),
            flags,
        )
        .map_err(|errno| Error::io("registering a connection")(errno.into()))
    }

    fn give_up_on_silent(&mut self, now: Instant) -> Result<(), Error> {
        for index in 0..self.connections.len() {
            let oldest = self.connections[index].waiting.front();
            if oldest.is_some_and(|sent| {
                now.saturating_duration_since(sent.sent) > self.worker.plan.timeout
            }) {
                self.replace(index, "timeout")?;
            }
        }
        Ok(())
    }

    fn count_unsent(&mut self) {
        if let (Pacer::Open { schedule, .. }, Some(stop_at)) =
            (&mut self.pacer, self.worker.stop_at)
        {
            while schedule.due() < stop_at {
                schedule.advance();
                self.tally.unsent += 1;
            }
        }
    }
}

/// The name under which a failure of the socket is counted.
fn kind(error: &io::Error) -> String {
    error.kind().to_string()
}
