//! Traces: which requests are traced, under which identity, and what becomes a span.
//!
//! Sampling is decided at the head: a request that comes with a `traceparent` (W3C Trace Context, level 1) is traced if
//! its sender traces it, another one by chance. A request that is not traced costs one look at an absent setting, or one
//! random number. A finished one goes into a bounded queue, which nobody waits for; what finds no room is counted.

use super::request::{Keys, Record, Sampling, Stages};
use crate::engine::Lane;
use http::header::{HeaderMap, HeaderValue};
use inflightkv_core::routing;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

pub(crate) const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// Finished requests that wait to be sent.
const QUEUE: usize = 4096;
/// What is passed on of a `tracestate`, which is the sender's own; the specification asks for 512 at least.
const STATE_BYTES_MAX: usize = 512;

/// The identity of one request in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) trace: [u8; 16],
    /// Of the request here.
    pub(crate) span: [u8; 8],
    /// Of whoever sent it.
    pub(crate) parent: Option<[u8; 8]>,
    pub(crate) state: Option<Box<str>>,
}

/// A request that was traced.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) context: TraceContext,
    pub(crate) route: &'static str,
    pub(crate) method: &'static str,
    /// The path, or the route where paths are not to be told.
    pub(crate) path: String,
    pub(crate) status: u16,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) peer: Option<SocketAddr>,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    pub(crate) key_hash: Option<u64>,
    pub(crate) partition: Option<usize>,
    pub(crate) ended: SystemTime,
    pub(crate) stages: Stages,
    pub(crate) write: Option<Duration>,
}

impl Traced {
    pub(crate) fn took(&self) -> Duration {
        self.stages.total() + self.write.unwrap_or_default()
    }
}

/// What is counted about traces.
#[derive(Debug, Default)]
pub struct TraceCounters {
    /// Traced requests that a collector has taken.
    pub exported: AtomicU64,
    /// Those that found no room in the queue.
    pub dropped: AtomicU64,
    /// Those that no collector took.
    pub failed: AtomicU64,
}

/// Decides what is traced, and takes what was.
#[derive(Debug)]
pub struct Tracer {
    sampling: Sampling,
    keys: Keys,
    queue: SyncSender<Option<Traced>>,
    counters: Arc<TraceCounters>,
}

/// The other end of a [`Tracer`].
#[derive(Debug)]
pub struct Traces {
    queue: Receiver<Option<Traced>>,
    counters: Arc<TraceCounters>,
}

impl Tracer {
    /// A tracer of the requests that `sampling` says, which names keys as `keys` says, and where what it takes comes out.
    #[must_use]
    pub fn new(sampling: Sampling, keys: Keys) -> (Tracer, Traces) {
        let (sender, receiver) = sync_channel(QUEUE);
        let counters = Arc::new(TraceCounters::default());
        let tracer = Tracer {
            sampling,
            keys,
            queue: sender,
            counters: Arc::clone(&counters),
        };
        let traces = Traces {
            queue: receiver,
            counters,
        };
        (tracer, traces)
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &TraceCounters {
        &self.counters
    }

    /// Has the other end finish with what there is. Waits for room in the queue.
    pub fn close(&self) {
        // Nobody at the other end has finished already.
        let _ = self.queue.send(None);
    }

    /// The identity of a request with these fields, if it is to be traced. What probes and scrapers ask for over and over is
    /// traced only for a sender who traces it.
    pub(crate) fn begin(
        &self,
        headers: &HeaderMap,
        is_a_probe: bool,
        random: impl Fn() -> u64,
    ) -> Option<TraceContext> {
        let sent = headers
            .get(TRACEPARENT)
            .and_then(|value| parse(value.as_bytes()));
        let is_traced = match &sent {
            Some(sent) => sent.sampled,
            None if is_a_probe => false,
            None => match self.sampling {
                Sampling::Off => false,
                Sampling::All => true,
                Sampling::Share(share) => (random() as f64 / u64::MAX as f64) < share,
            },
        };
        if !is_traced {
            return None;
        }
        // All zeros are no identity.
        let span = (random() | 1).to_le_bytes();
        Some(match sent {
            Some(sent) => TraceContext {
                trace: sent.trace,
                span,
                parent: Some(sent.parent),
                state: headers
                    .get(TRACESTATE)
                    .and_then(|value| value.to_str().ok())
                    .filter(|state| !state.is_empty() && state.len() <= STATE_BYTES_MAX)
                    .map(Box::from),
            },
            None => {
                let mut trace = [0; 16];
                trace[..8].copy_from_slice(&(random() | 1).to_le_bytes());
                trace[8..].copy_from_slice(&random().to_le_bytes());
                TraceContext {
                    trace,
                    span,
                    parent: None,
                    state: None,
                }
            }
        })
    }

    /// Takes a finished request, which came by `scheme`.
    pub(crate) fn tell(&self, record: &Record, lane: &Lane, scheme: &'static str) {
        let Some(context) = &record.trace else {
            return;
        };
        let route = record.place.route();
        let key = record.key();
        let traced = Traced {
            context: (**context).clone(),
            route,
            method: record.place.method(),
            path: match self.keys {
                Keys::Plain => record.target.path().to_owned(),
                _ => route.to_owned(),
            },
            status: record.status.as_u16(),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            peer: record.peer,
            scheme,
            key_hash: key
                .as_ref()
                .filter(|_| self.keys == Keys::Hashed)
                .map(|key| routing::route(key.as_bytes())),
            partition: key.as_ref().map(|key| lane.route(key)),
            ended: SystemTime::now(),
            stages: record.stages,
            write: record.write,
        };
        if self.queue.try_send(Some(traced)).is_err() {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Traces {
    /// The next traced requests, at least one and at most `max`, gathered for at most `gather` after the first; `None` when
    /// there will be no more. Blocks.
    pub(crate) fn next(&self, max: usize, gather: Duration) -> Option<Vec<Traced>> {
        let mut batch = vec![self.queue.recv().ok()??];
        let until = std::time::Instant::now() + gather;
        while batch.len() < max {
            let left = until.saturating_duration_since(std::time::Instant::now());
            match self.queue.recv_timeout(left) {
                Ok(Some(traced)) => batch.push(traced),
                _ => break,
            }
        }
        Some(batch)
    }

    /// Counts a batch of so many that was taken, or was not.
    pub(crate) fn count(&self, requests: usize, taken: bool) {
        let counter = match taken {
            true => &self.counters.exported,
            false => &self.counters.failed,
        };
        counter.fetch_add(requests as u64, Ordering::Relaxed);
    }
}

impl TraceContext {
    /// The field that names the request here to whoever sent it.
    pub(crate) fn traceparent(&self) -> HeaderValue {
        let mut text = String::with_capacity(55);
        text.push_str("00-");
        push_hex(&mut text, &self.trace);
        text.push('-');
        push_hex(&mut text, &self.span);
        text.push_str("-01");
        HeaderValue::from_str(&text).expect("hexadecimal digits and dashes")
    }
}

/// Appends lower-case hexadecimal digits.
pub(crate) fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        write!(out, "{byte:02x}").expect("a string takes whatever is written");
    }
}

/// A `traceparent`.
struct Sent {
    trace: [u8; 16],
    parent: [u8; 8],
    sampled: bool,
}

/// Reads a `traceparent` as section 3.2.2 of the specification says: a later version may have more behind what this one has.
fn parse(text: &[u8]) -> Option<Sent> {
    let mut parts = text.split(|byte| *byte == b'-');
    let [version] = hex(parts.next()?)?;
    let trace: [u8; 16] = hex(parts.next()?)?;
    let parent: [u8; 8] = hex(parts.next()?)?;
    let [flags] = hex(parts.next()?)?;
    let is_valid = version != 0xff
        && (version > 0 || parts.next().is_none())
        && trace != [0; 16]
        && parent != [0; 8];
    is_valid.then_some(Sent {
        trace,
        parent,
        sampled: flags & 1 == 1,
    })
}

/// Exactly `N` bytes in lower-case hexadecimal digits.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(traceparent: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, traceparent.parse().expect("a field"));
        headers
    }

    fn begin(sampling: Sampling, headers: &HeaderMap) -> Option<TraceContext> {
        Tracer::new(sampling, Keys::Hashed)
            .0
            .begin(headers, false, || 7)
    }

    #[test]
    fn a_sender_is_followed_whatever_chance_says() {
        let mut sent = headers(SENT);
        sent.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
        let context = begin(Sampling::Off, &sent).expect("traced");
        assert_eq!(context.trace[..2], [0x4b, 0xf9]);
        assert_eq!(context.parent.map(|parent| parent[7]), Some(0xb7));
        assert_eq!(context.state.as_deref(), Some("vendor=1"));
        assert_eq!(
            context.traceparent(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0700000000000000-01"
        );
        let (tracer, _traces) = Tracer::new(Sampling::All, Keys::Hashed);
        assert!(tracer.begin(&sent, true, || 7).is_some());
        assert!(tracer.begin(&HeaderMap::new(), true, || 7).is_none());
        let unsampled = SENT.replace("-01", "-00");
        assert_eq!(begin(Sampling::All, &headers(&unsampled)), None);
        // A later version, with more behind it.
        let later = format!("cc{}-more", &SENT[2..]);
        assert!(begin(Sampling::Off, &headers(&later)).is_some());
    }

    #[test]
    fn what_is_no_traceparent_begins_a_trace_of_its_own() {
        let zeros = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let upper = SENT.to_uppercase();
        for text in [
            "",
            "00",
            &zeros,
            &upper,
            &format!("{SENT}-x"),
            &format!("ff{}", &SENT[2..]),
        ] {
            let context = begin(Sampling::All, &headers(text)).expect("traced");
            assert_eq!(context.parent, None, "{text}");
            assert_eq!(begin(Sampling::Off, &headers(text)), None, "{text}");
        }
    }

    #[test]
    fn a_share_is_drawn() {
        let tracer = Tracer::new(Sampling::Share(0.25), Keys::Hashed).0;
        let rng = std::cell::RefCell::new(fastrand::Rng::with_seed(1));
        let drawn = (0..10_000)
            .filter(|_| {
                tracer
                    .begin(&HeaderMap::new(), false, || rng.borrow_mut().u64(..))
                    .is_some()
            })
            .count();
        assert!((2_200..2_800).contains(&drawn), "{drawn}");
    }
}
