//! `GET /metrics`: OpenMetrics, or the older text format for a client that asks for that.

use super::admin::on_a_thread;
use super::answer::{Answer, respond};
use super::context::Context as LoopState;
use crate::observe::metrics::{Scrape, in_classic_text};
use crate::observe::process::Process;
use crate::trust::Audit;
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use std::rc::Rc;
use std::sync::atomic::Ordering;

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const CLASSIC: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// `/metrics`. Rendered on a thread of its own: a loop has requests to answer.
pub(crate) fn get(state: &Rc<LoopState>, parts: &Parts) -> Answer {
    let classic = wants_classic_text(&parts.headers);
    let engine = state.lane.engine();
    let settings = &state.settings;
    let (traffic, loops) = (settings.traffic.clone(), settings.loops.clone());
    let started = settings.started;
    let access = settings.access.clone();
    let tracer = settings.tracer.clone();
    let sink = settings.request_log.as_ref().map(|log| log.sink.clone());
    let scrape = move || {
        let scrape = Scrape {
            stats: engine.stats(),
            following: engine.following(),
            audit: access.audit().map(Audit::figures),
            traffic: traffic.totals(),
            loops: loops.figures(),
            process: Process::read(started),
            log_lines: sink.map_or((0, 0), |sink| (sink.lines(), sink.dropped())),
            refusals: access.refusals(),
            traces: tracer.map(|tracer| {
                let counters = tracer.counters();
                [&counters.exported, &counters.dropped, &counters.failed]
                    .map(|counter| counter.load(Ordering::Relaxed))
            }),
            version: env!("CARGO_PKG_VERSION"),
        };
        let text = scrape.render();
        if classic {
            in_classic_text(&text)
        } else {
            text
        }
    };
    on_a_thread("metrics", scrape, move |text| {
        let mut headers = HeaderMap::new();
        let kind = if classic { CLASSIC } else { OPEN_METRICS };
        headers.insert(CONTENT_TYPE, kind);
        respond(StatusCode::OK, headers, text.into_bytes())
    })
}

/// Whether `text/plain` is accepted and OpenMetrics is not.
fn wants_classic_text(headers: &HeaderMap) -> bool {
    let mut plain = false;
    for value in headers.get_all(ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            match range.split(';').next().unwrap_or_default().trim() {
                "application/openmetrics-text" => return false,
                "text/plain" => plain = true,
                _ => {}
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_that_knows_both_gets_open_metrics() {
        for (accept, classic) in [
            ("", false),
            ("*/*", false),
            ("text/plain", true),
            ("text/plain;version=0.0.4;q=0.3, */*;q=0.1", true),
            (
                "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
                false,
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(wants_classic_text(&headers), classic, "{accept}");
        }
    }
}
