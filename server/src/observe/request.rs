//! What is told of a request: the request log, and the log of slow operations.

use super::line::{Format, Level, Line, Name, Value};
use super::sink::Sink;
use super::trace::{TraceContext, push_hex};
use crate::engine::Lane;
use crate::http::target;
use crate::http::traffic::Place;
use http::{StatusCode, Uri};
use inflightkv_core::routing;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// Which requests have a line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Sampling {
    /// None.
    #[default]
    Off,
    /// This share of them, from 0 to 1, drawn by chance.
    Share(f64),
    /// Each.
    All,
}

/// How a line names a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keys {
    /// Not at all.
    Hidden,
    /// By its stable hash, the one that chooses its partition: lines about the same key can be found.
    #[default]
    Hashed,
    /// As it is. A key is the client's text: log it only where logs may hold that.
    Plain,
}

/// Settings of the request log, and where its lines go.
#[derive(Clone, Debug)]
pub struct RequestLog {
    /// Who writes.
    pub sink: Sink,
    /// How lines look.
    pub format: Format,
    /// Which requests have a line.
    pub sampling: Sampling,
    /// How keys are named.
    pub keys: Keys,
    /// Requests for data that take longer have a line in any case; `None` for no such line.
    pub slow_after: Option<Duration>,
}

/// Where the time of a request went. Together with what its writing took it is all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stages {
    /// From the first byte of its head to its turn.
    pub(crate) queue: Duration,
    /// Waiting for the rest of its body.
    pub(crate) receive: Duration,
    /// Being decided, applied and rendered.
    pub(crate) execute: Duration,
    /// Waiting for stable storage, or for room in the log's buffers.
    pub(crate) wait: Duration,
}

impl Stages {
    pub(crate) fn total(&self) -> Duration {
        self.queue + self.receive + self.execute + self.wait
    }
}

/// A request that is told of.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) place: Place,
    pub(crate) target: Uri,
    /// Where in its path the key begins; the path's end when it has none.
    pub(crate) key_start: usize,
    pub(crate) status: StatusCode,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) stages: Stages,
    /// Until the socket had taken the answer; unknown on HTTP/2, and when the client left.
    pub(crate) write: Option<Duration>,
    pub(crate) peer: Option<SocketAddr>,
    /// Whether it was drawn for the request log; else it is here because it was slow.
    pub(crate) sampled: bool,
    /// Its identity in a trace, when it is traced.
    pub(crate) trace: Option<Box<TraceContext>>,
}

impl Record {
    pub(crate) fn key(&self) -> Option<Cow<'_, str>> {
        let raw = self.target.path().get(self.key_start..)?;
        target::decode(raw).ok().filter(|key| !key.is_empty())
    }
}

impl RequestLog {
    /// Whether a request with this random number is drawn.
    pub(crate) fn draws(&self, random: impl FnOnce() -> f64) -> bool {
        match self.sampling {
            Sampling::Off => false,
            Sampling::All => true,
            Sampling::Share(share) => random() < share,
        }
    }

    /// Whether a request that took so long is told of for that alone. Administration takes its time by nature.
    pub(crate) fn is_slow(&self, place: Place, took: Duration) -> bool {
        place.is_data() && self.slow_after.is_some_and(|limit| took >= limit)
    }

    /// Makes the line of `record` and hands it over.
    pub(crate) fn tell(&self, record: &Record, lane: &Lane) {
        let took = record.stages.total() + record.write.unwrap_or_default();
        let slow = self.is_slow(record.place, took);
        if !slow && !record.sampled {
            return;
        }
        let (level, message) = match slow {
            true => (Level::Warn, "slow operation"),
            false => (Level::Info, "request"),
        };
        let mut line = Line::new(self.format, SystemTime::now(), level, "request", message);
        line.field(
            Name::Known("method", "http.request.method"),
            Value::Text(record.place.method()),
        );
        line.field(Name::Own("route"), Value::Text(record.place.route()));
        line.field(
            Name::Known("status", "http.response.status_code"),
            Value::Count(record.status.as_u16().into()),
        );
        line.field(
            Name::Known("bytesIn", "http.request.body.bytes"),
            Value::Count(record.bytes_in),
        );
        line.field(
            Name::Known("bytesOut", "http.response.body.bytes"),
            Value::Count(record.bytes_out),
        );
        if let Some(peer) = record.peer {
            line.field(
                Name::Known("client", "client.ip"),
                Value::Text(&peer.ip().to_string()),
            );
            line.field(
                Name::Known("clientPort", "client.port"),
                Value::Count(peer.port().into()),
            );
        }
        if let Some(trace) = &record.trace {
            let mut digits = String::with_capacity(32);
            push_hex(&mut digits, &trace.trace);
            line.field(Name::Known("traceId", "trace.id"), Value::Text(&digits));
            digits.clear();
            push_hex(&mut digits, &trace.span);
            line.field(Name::Known("spanId", "span.id"), Value::Text(&digits));
        }
        if let Some(key) = record.key() {
            match self.keys {
                Keys::Hidden => {}
                Keys::Hashed => {
                    let hash = routing::route(key.as_bytes());
                    line.field(Name::Own("keyHash"), Value::Text(&format!("{hash:016x}")));
                }
                Keys::Plain => line.field(Name::Own("key"), Value::Text(&key)),
            }
            line.field(
                Name::Own("partition"),
                Value::Count(lane.route(&key) as u64),
            );
        }
        line.field(
            Name::Known("durationMicros", "event.duration"),
            // The schema counts nanoseconds.
            match self.format {
                Format::Ecs => Value::Count(nanos(took)),
                _ => micros(took),
            },
        );
        let stages = record.stages;
        for (name, time) in [
            ("queueMicros", Some(stages.queue)),
            ("receiveMicros", Some(stages.receive)),
            ("executeMicros", Some(stages.execute)),
            ("walWaitMicros", Some(stages.wait)),
            ("writeMicros", record.write),
        ] {
            if let Some(time) = time {
                line.field(Name::Own(name), micros(time));
            }
        }
        self.sink.push(&line.end());
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> Value<'static> {
    Value::Count(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}
