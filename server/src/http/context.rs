//! What the requests of one event loop share: the store, the limits, and memory that is borrowed for a moment.

use super::io::Link;
use super::overload::Overload;
use super::settings::Settings;
use super::target;
use super::timer::{LocalExecutor, LoopTimer};
use super::traffic::LoopTraffic;
use crate::engine::Lane;
use crate::observe::Record;
use crate::observe::hot::ONE_IN;
use crate::observe::loops::LoopWatch;
use crate::observe::trace::TraceContext;
use crate::runtime::{Gate, LoopContext, Shutdown};
use http::header::HeaderMap;
use hyper::server::conn::{http1, http2};
use inflightkv_validation::{KeyLimits, Limits};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes read from a socket at once.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Write buffers kept for the next turn; a turn needs one, more only follow from slow readers.
const SPARE_BUFFERS_MAX: usize = 8;
const SPARE_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// HTTP/2 connections whose client is gone are noticed by a ping, this often and with this much patience.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_PATIENCE: Duration = Duration::from_secs(20);
/// What an HTTP/2 stream may have waiting to be sent.
const STREAM_BYTES_MAX: usize = 64 * 1024;
/// hyper's floor for its buffers.
const HYPER_BUFFER_BYTES_MIN: usize = 8 * 1024;

/// The state of one event loop's HTTP side.
pub(crate) struct Context {
    pub(crate) lane: Lane,
    pub(crate) gate: Gate,
    pub(crate) settings: Rc<Settings>,
    pub(crate) shutdown: Shutdown,
    pub(crate) traffic: Arc<LoopTraffic>,
    pub(crate) key_limits: KeyLimits,
    pub(crate) json_limits: Limits,
    pub(crate) http1: http1::Builder,
    pub(crate) http2: http2::Builder<LocalExecutor>,
    /// The loop ends: connections finish what they are doing.
    pub(crate) stopping: Cell<bool>,
    /// Where every read of this loop lands first.
    pub(crate) scratch: RefCell<Box<[u8]>>,
    /// The connection whose bytes are in `scratch`; 0 for none.
    pub(crate) last_reader: Cell<u64>,
    /// The last reading of the clock, at most a request old while a connection has its turn: reading it costs as much
    /// as hashing a key.
    pub(crate) now: Cell<Instant>,
    pub(crate) watch: Arc<LoopWatch>,
    /// Requests for a key until one is looked at.
    keys_passed_by: Cell<u32>,
    /// For drawing samples.
    rng: RefCell<fastrand::Rng>,
    spare: RefCell<Vec<Vec<u8>>>,
    links: RefCell<HashMap<u64, Rc<Link>>>,
    next_link: Cell<u64>,
    /// Whether this loop is behind with its work.
    pub(crate) overload: Overload,
    /// Told when the last connection is gone.
    pub(crate) drained: Notify,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("connections", &self.links.borrow().len())
            .finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new(context: LoopContext, settings: Rc<Settings>) -> Rc<Self> {
        let header_bytes = settings.header_bytes_max.max(HYPER_BUFFER_BYTES_MIN);
        let mut http1 = http1::Builder::new();
        http1
            .half_close(true)
            .keep_alive(true)
            .max_header_size(header_bytes)
            .max_buf_size(header_bytes);
        let mut http2 = http2::Builder::new(LocalExecutor);
        http2
            .timer(LoopTimer)
            .max_concurrent_streams(settings.streams_max)
            .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
            .max_send_buf_size(STREAM_BYTES_MAX)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_PATIENCE);
        Rc::new(Self {
            traffic: settings.traffic.join(),
            overload: Overload::new(settings.fairness.queue_delay_max),
            key_limits: KeyLimits {
                bytes_max: settings.key_bytes_max,
            },
            json_limits: Limits {
                depth_max: settings.depth_max,
                bytes_max: settings.value_bytes_max,
            },
            http1,
            http2,
            lane: context.lane,
            gate: context.gate,
            shutdown: context.shutdown,
            settings,
            stopping: Cell::new(false),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into()),
            last_reader: Cell::new(0),
            now: Cell::new(Instant::now()),
            watch: context.watch,
            keys_passed_by: Cell::new(0),
            rng: RefCell::new(fastrand::Rng::new()),
            spare: RefCell::default(),
            links: RefCell::default(),
            next_link: Cell::new(1),
            drained: Notify::new(),
        })
    }

    /// From 0 up to 1.
    pub(crate) fn random(&self) -> f64 {
        self.rng.borrow_mut().f64()
    }

    /// Looks at some of the keys asked for, to know the hot ones. `path` is percent-encoded.
    pub(crate) fn note_key(&self, path: &str) {
        let left = self.keys_passed_by.get();
        if left > 0 {
            self.keys_passed_by.set(left - 1);
            return;
        }
        // By chance: a fixed step would see one client's key of two that take turns, and never the other's.
        let passed_by = self.rng.borrow_mut().u32(0..=2 * (ONE_IN as u32 - 1));
        self.keys_passed_by.set(passed_by);
        if let Ok(key) = target::decode(path)
            && !key.is_empty()
        {
            self.watch.hot.note(&key);
        }
    }

    /// Has what there is to tell of a request told.
    pub(crate) fn tell(&self, record: &Record) {
        if let Some(log) = &self.settings.request_log {
            log.tell(record, &self.lane);
        }
        if let Some(tracer) = &self.settings.tracer {
            #[cfg(feature = "tls")]
            let is_encrypted = self.settings.tls.is_some();
            #[cfg(not(feature = "tls"))]
            let is_encrypted = false;
            let scheme = if is_encrypted { "https" } else { "http" };
            tracer.tell(record, &self.lane, scheme);
        }
    }

    /// The identity of a request that is to be traced.
    pub(crate) fn trace(&self, headers: &HeaderMap, is_a_probe: bool) -> Option<Box<TraceContext>> {
        let tracer = self.settings.tracer.as_ref()?;
        let random = || self.rng.borrow_mut().u64(..);
        tracer.begin(headers, is_a_probe, random).map(Box::new)
    }

    /// An empty buffer for a turn.
    pub(crate) fn lend(&self) -> Vec<u8> {
        self.spare
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(HYPER_BUFFER_BYTES_MIN))
    }

    /// Takes an emptied buffer back.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        debug_assert!(buffer.is_empty());
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BUFFER_BYTES_MAX {
            spare.push(buffer);
        }
    }

    pub(crate) fn next_link_id(&self) -> u64 {
        let id = self.next_link.get();
        self.next_link.set(id + 1);
        id
    }

    pub(crate) fn enter(&self, link: &Rc<Link>) {
        self.links.borrow_mut().insert(link.id, link.clone());
    }

    pub(crate) fn leave(&self, link: &Link) {
        let mut links = self.links.borrow_mut();
        links.remove(&link.id);
        self.settings.traffic.leave();
        if links.is_empty() {
            self.drained.notify_one();
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.links.borrow().len()
    }

    /// Tells every connection to end once it has answered what it was asked.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
        for link in self.links.borrow().values() {
            link.wake();
        }
    }
}
