//! Sends traces to a collector: OTLP over HTTP, on a thread of its own that sleeps while there is nothing to send.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Failure;
use super::connection::{Connection, Request, Url};
use super::wire::Security;
use crate::config::Config;
use crate::observe::otlp::{self, Resource};
use crate::observe::{Tracer, Traces};

/// Where collectors take traces, behind the endpoint.
const PATH: &str = "/v1/traces";
/// Requests sent at once.
const BATCH: usize = 512;
/// How long others are waited for after the first.
const GATHER: Duration = Duration::from_secs(1);
/// How long a collector may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of the server waits for what was not sent yet.
const FAREWELL: Duration = Duration::from_secs(3);

/// Traces on their way.
pub(crate) struct Exporter {
    pub(crate) tracer: Arc<Tracer>,
    thread: JoinHandle<()>,
}

/// Begins to send to the endpoint of the configuration, if there is one.
pub(crate) fn start(config: &Config) -> Result<Option<Exporter>, Failure> {
    let Some(text) = &config.otlp_endpoint else {
        return Ok(None);
    };
    let wrong = |expected: &str| {
        Failure::Usage(format!(
            "otlp-endpoint: found {text:?}; expected {expected}"
        ))
    };
    // The path may be there already.
    let base = text.trim_end_matches('/');
    let url = Url::parse(base.strip_suffix(PATH).unwrap_or(base)).map_err(wrong)?;
    if url.is_tls() {
        return Err(wrong(
            "http://HOST:PORT of a collector nearby, traces are not encrypted",
        ));
    }
    let (tracer, traces) = Tracer::new(config.trace_requests, config.log_keys);
    let resource = Resource {
        version: env!("CARGO_PKG_VERSION"),
        instance: config.node_id.clone(),
    };
    let thread = thread::Builder::new()
        .name("traces".to_owned())
        .spawn(move || send(&traces, &resource, url))
        .map_err(|error| Failure::Failed(format!("no thread to send traces with: {error}")))?;
    Ok(Some(Exporter {
        tracer: Arc::new(tracer),
        thread,
    }))
}

fn send(traces: &Traces, resource: &Resource, url: Url) {
    let name = url.text();
    let mut connection = Connection::new(url, TIMEOUT, None, Security::Plain);
    let mut failing = false;
    while let Some(batch) = traces.next(BATCH, GATHER) {
        let sent = post(&mut connection, &otlp::encode(resource, &batch));
        traces.count(batch.len(), sent.is_ok());
        // A collector that is away is told of once, and once when it is back.
        match sent {
            Err(error) if !failing => {
                tracing::warn!(
                    collector = name,
                    error,
                    "traces are lost: the collector did not take them"
                );
                failing = true;
            }
            Ok(()) if failing => {
                tracing::info!(collector = name, "the collector takes traces again");
                failing = false;
            }
            _ => {}
        }
    }
}

fn post(connection: &mut Connection, body: &[u8]) -> Result<(), String> {
    let request = Request {
        method: "POST",
        target: PATH,
        headers: &[("Content-Type", "application/x-protobuf".to_owned())],
        body: Some(body),
    };
    let response = connection
        .send(request)
        .map_err(|error| error.to_string())?;
    let status = response.status;
    response.into_bytes().map_err(|error| error.to_string())?;
    match status {
        200..300 => Ok(()),
        _ => Err(format!("it answered {status}")),
    }
}

impl Exporter {
    /// Waits until everything was sent, or for as long as it is worth it.
    pub(crate) fn finish(self) {
        let until = Instant::now() + FAREWELL;
        self.tracer.close();
        while !self.thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }
}
