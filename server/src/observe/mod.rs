//! Seeing inside: log lines that never make a loop wait, request records, and every metric.
//!
//! Loops count and record for themselves; whoever scrapes or reads pays for adding up. A line is made in memory and
//! handed to one thread that writes it. No value, token or query string is ever part of a line.
//!
//! # Reading order
//! `sink` (who writes), `line` (what a line looks like), `request` (what is told of a request), `trace`,
//! `metrics`.

pub(crate) mod hot;
mod line;
pub mod loops;
pub(crate) mod metrics;
#[cfg(feature = "otel")]
pub(crate) mod otlp;
pub(crate) mod process;
mod request;
mod sink;
mod time;
pub(crate) mod trace;

pub use line::Format;
pub(crate) use line::{Level, Line, Name, Value};
pub use request::{Keys, RequestLog, Sampling};
pub(crate) use request::{Record, Stages};
pub use sink::Sink;
pub use trace::{TraceCounters, Tracer, Traces};
