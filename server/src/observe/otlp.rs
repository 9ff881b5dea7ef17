//! Traced requests as an OTLP message: `ExportTraceServiceRequest` of opentelemetry-proto 1.x in the protocol-buffers
//! encoding, written by hand because it is five small messages of one direction.
//!
//! Field numbers are those of `opentelemetry/proto/{collector/trace,trace,resource,common}/v1/*.proto`; attribute names those
//! of the stable semantic conventions for HTTP servers. What the parts of a request took is told as spans one behind the
//! other under the request's own: a part that came in pieces, between which the request waited, is one piece here.

use super::trace::Traced;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where the attribute names come from.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";
const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
const ERROR: u64 = 2;

/// Who sends.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) version: &'static str,
    pub(crate) instance: String,
}

/// The message for `batch`.
pub(crate) fn encode(resource: &Resource, batch: &[Traced]) -> Vec<u8> {
    let mut out = Vec::with_capacity(batch.len() * 1024);
    // ExportTraceServiceRequest.resource_spans
    message(&mut out, 1, |out| {
        // ResourceSpans.resource
        message(out, 1, |out| {
            text_attribute(out, 1, "service.name", "inflightkv");
            text_attribute(out, 1, "service.version", resource.version);
            text_attribute(out, 1, "service.instance.id", &resource.instance);
        });
        // ResourceSpans.scope_spans
        message(out, 2, |out| {
            // ScopeSpans.scope
            message(out, 1, |out| {
                bytes(out, 1, b"inflightkv");
                bytes(out, 2, resource.version.as_bytes());
            });
            for traced in batch {
                spans(out, traced);
            }
        });
        bytes(out, 3, SCHEMA.as_bytes());
    });
    out
}

/// The spans of one request, each a `ScopeSpans.spans`.
fn spans(out: &mut Vec<u8>, traced: &Traced) {
    let begun = traced.ended - traced.took();
    message(out, 2, |out| {
        head(out, traced, traced.context.span, traced.context.parent);
        bytes(
            out,
            5,
            format!("{} {}", traced.method, traced.route).as_bytes(),
        );
        number(out, 6, SERVER);
        fixed64(out, 7, nanos(begun));
        fixed64(out, 8, nanos(traced.ended));
        text_attribute(out, 9, "http.request.method", traced.method);
        text_attribute(out, 9, "http.route", traced.route);
        text_attribute(out, 9, "url.path", &traced.path);
        text_attribute(out, 9, "url.scheme", traced.scheme);
        int_attribute(out, 9, "http.response.status_code", traced.status.into());
        int_attribute(out, 9, "http.request.body.size", traced.bytes_in);
        int_attribute(out, 9, "http.response.body.size", traced.bytes_out);
        if let Some(peer) = traced.peer {
            text_attribute(out, 9, "client.address", &peer.ip().to_string());
            int_attribute(out, 9, "client.port", peer.port().into());
        }
        if let Some(hash) = traced.key_hash {
            text_attribute(out, 9, "inflightkv.key.hash", &format!("{hash:016x}"));
        }
        if let Some(partition) = traced.partition {
            int_attribute(out, 9, "inflightkv.partition", partition as u64);
        }
        if traced.status >= 500 {
            text_attribute(out, 9, "error.type", &traced.status.to_string());
            // Span.status
            message(out, 15, |out| number(out, 3, ERROR));
        }
    });
    let stages = traced.stages;
    let parts = [
        ("queue", stages.queue),
        ("receive", stages.receive),
        ("execute", stages.execute),
        ("wal wait", stages.wait),
        ("write", traced.write.unwrap_or_default()),
    ];
    let mut at = begun;
    for (index, (name, took)) in (1..).zip(parts) {
        let from = at;
        at += took;
        // What did not happen is not told; executing always does.
        if took.is_zero() && name != "execute" {
            continue;
        }
        let mut span = traced.context.span;
        // As good as drawn: the request's own number was.
        span[7] = span[7].wrapping_add(index);
        message(out, 2, |out| {
            head(out, traced, span, Some(traced.context.span));
            bytes(out, 5, name.as_bytes());
            number(out, 6, INTERNAL);
            fixed64(out, 7, nanos(from));
            fixed64(out, 8, nanos(at));
        });
    }
}

/// Identity of a span: `trace_id`, `span_id`, `trace_state`, `parent_span_id`.
fn head(out: &mut Vec<u8>, traced: &Traced, span: [u8; 8], parent: Option<[u8; 8]>) {
    bytes(out, 1, &traced.context.trace);
    bytes(out, 2, &span);
    if let Some(state) = &traced.context.state {
        bytes(out, 3, state.as_bytes());
    }
    if let Some(parent) = parent {
        bytes(out, 4, &parent);
    }
}

fn nanos(at: SystemTime) -> u64 {
    let since: Duration = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A `KeyValue` with a string.
fn text_attribute(out: &mut Vec<u8>, field: u64, name: &str, value: &str) {
    message(out, field, |out| {
        bytes(out, 1, name.as_bytes());
        message(out, 2, |out| bytes(out, 1, value.as_bytes()));
    });
}

/// A `KeyValue` with an integer.
fn int_attribute(out: &mut Vec<u8>, field: u64, name: &str, value: u64) {
    message(out, field, |out| {
        bytes(out, 1, name.as_bytes());
        message(out, 2, |out| number(out, 3, value));
    });
}

// The encoding: https://protobuf.dev/programming-guides/encoding/

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(out, field << 3 | wire_type);
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    tag(out, field, 0);
    varint(out, value);
}

fn fixed64(out: &mut Vec<u8>, field: u64, value: u64) {
    tag(out, field, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    tag(out, field, 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A message within a message: its length stands in front of it, and is known behind it.
fn message(out: &mut Vec<u8>, field: u64, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    fill(out);
    let content = out.split_off(start);
    bytes(out, field, &content);
}
