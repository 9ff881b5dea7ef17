//! What the surfaces are told at start: who this node is, and every limit a client can run into.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::configuration::Configuration;
use super::guests::Guests;
use super::traffic::Traffic;
use super::uploads::Uploads;
use crate::observe::loops::Loops;
use crate::observe::{RequestLog, Tracer};
use crate::trust::Access;

/// Settings of the HTTP surfaces. Clones share the traffic counters, so that a limit over all event loops holds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What `/kv` listings and `/api/cluster/route` call this node.
    pub node_id: String,
    /// The node's name for people.
    pub node_name: String,
    /// The host that clients reach this node by.
    pub external_host: String,
    /// The port that clients reach this node by.
    pub external_port: u16,
    /// Longest key, in bytes; past it 414.
    pub key_bytes_max: usize,
    /// Largest value as sent, in bytes; past it 413.
    pub value_bytes_max: usize,
    /// Deepest nesting of a JSON value; past it 400.
    pub depth_max: u32,
    /// Most operations of a batch; past it 413.
    pub batch_operations_max: usize,
    /// Largest batch body, in bytes; past it 413. Also bounds a page of `/v1/keys?values=true`.
    pub batch_bytes_max: usize,
    /// Largest request line and header fields together, in bytes, at least 8 KiB; past it 431 (414 for the target).
    pub header_bytes_max: usize,
    /// How long a client may take from the first to the last byte of a request's header block; past it 408.
    pub header_timeout: Duration,
    /// How long a client may take to send a request's body; past it 408.
    pub body_timeout: Duration,
    /// How long a connection may stay without a request before it is closed; at most twice this long.
    pub idle_timeout: Duration,
    /// How long a client may take no byte of an answer that is waiting for it before it is cut off.
    pub write_timeout: Duration,
    /// Most connections over all event loops; past it 503 and closed.
    pub connections_max: usize,
    /// Most requests at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// What one client may take at the cost of the others.
    pub fairness: Fairness,
    /// Who is connected, over all event loops.
    pub guests: Arc<Guests>,
    /// What bodies that are still arriving hold, over all event loops.
    pub uploads: Arc<Uploads>,
    /// How long requests in flight may take to finish when the server stops.
    pub shutdown_grace: Duration,
    /// Lines about requests; `None` for none.
    pub request_log: Option<RequestLog>,
    /// Decides which requests are traced, and takes those that were; `None`: none is.
    pub tracer: Option<Arc<Tracer>>,
    /// How busy the event loops are.
    pub loops: Arc<Loops>,
    /// When the process began, near enough.
    pub started: Instant,
    /// What connections are encrypted with; `None`: they are not.
    #[cfg(feature = "tls")]
    pub tls: Option<Arc<crate::trust::Tls>>,
    /// Whose requests are let in, and the audit log.
    pub access: Arc<Access>,
    /// Requests and connections counted, over all event loops.
    pub traffic: Arc<Traffic>,
    /// What `/v1/admin/config` shows and changes, and SIGHUP reads again; `None` for a server that is embedded.
    pub configuration: Option<Arc<dyn Configuration>>,
}

/// Limits that keep one client, or all of them together, from taking what the others need. `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fairness {
    /// Most connections from one address; past it 503 and closed.
    pub connections_per_address_max: Option<usize>,
    /// Most requests in a second on one connection; past it 429.
    pub requests_per_connection_max: Option<u32>,
    /// Most requests in a second from one address; past it 429.
    pub requests_per_address_max: Option<u32>,
    /// Requests are refused, 503, while everything on their event loop waits longer than this for its turn.
    pub queue_delay_max: Duration,
    /// Most bytes of bodies that are still arriving, over all connections; past it 503.
    pub upload_bytes_max: usize,
}

impl Default for Fairness {
    fn default() -> Self {
        Self {
            connections_per_address_max: None,
            requests_per_connection_max: None,
            requests_per_address_max: None,
            queue_delay_max: Duration::from_secs(1),
            upload_bytes_max: 256 * 1024 * 1024,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_id: "node-1".to_owned(),
            node_name: "node-1".to_owned(),
            external_host: "127.0.0.1".to_owned(),
            external_port: 8080,
            key_bytes_max: 1024,
            value_bytes_max: 1024 * 1024,
            depth_max: 128,
            batch_operations_max: 10_000,
            batch_bytes_max: 16 * 1024 * 1024,
            header_bytes_max: 64 * 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            write_timeout: Duration::from_secs(60),
            connections_max: 10_000,
            streams_max: 256,
            fairness: Fairness::default(),
            guests: Arc::default(),
            uploads: Arc::default(),
            shutdown_grace: Duration::from_secs(10),
            request_log: None,
            tracer: None,
            loops: Arc::default(),
            started: Instant::now(),
            #[cfg(feature = "tls")]
            tls: None,
            access: Arc::default(),
            traffic: Arc::default(),
            configuration: None,
        }
    }
}

impl Settings {
    /// The same settings for a server that listens on `address`: what is not said otherwise, clients reach it there.
    #[must_use]
    pub fn listening_on(mut self, address: SocketAddr) -> Self {
        if !address.ip().is_unspecified() {
            self.external_host = address.ip().to_string();
        }
        self.external_port = address.port();
        self
    }
}
