//! Every metric, in one list.
//!
//! Nothing is registered while the server runs: a scrape takes the figures that loops and engine keep for themselves
//! and renders them at once. Names follow the conventions of Prometheus: base units, `_total` on counters, and no label
//! that a client could fill.

mod compression;
mod disk;

use super::process::Process;
use crate::engine::{
    AdviceReport, Following, LAG_BOUNDS_MS, MemoryStats, Readiness, ScrubStats, Stats,
};
use crate::http::traffic::{DURATION_BOUNDS_US, PlaceTotals, Totals};
use crate::trust::AuditFigures;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::time::Duration;

/// The figures of one scrape.
#[derive(Debug)]
pub(crate) struct Scrape {
    pub(crate) stats: Stats,
    /// How the store stands to the one it follows.
    pub(crate) following: Option<Following>,
    pub(crate) audit: Option<AuditFigures>,
    pub(crate) traffic: Totals,
    pub(crate) loops: Vec<LoopFigures>,
    pub(crate) process: Process,
    /// Log lines taken, and those that found no room.
    pub(crate) log_lines: (u64, u64),
    /// Requests without a token that is known, and those that were not allowed.
    pub(crate) refusals: (u64, u64),
    /// Traced requests that were exported, dropped, and not taken by the collector; `None`: nothing is traced.
    pub(crate) traces: Option<[u64; 3]>,
    pub(crate) version: &'static str,
}

/// What one event loop did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LoopFigures {
    pub(crate) index: usize,
    pub(crate) busy: Duration,
    pub(crate) longest_turn: Duration,
    pub(crate) longest_slice: Duration,
    pub(crate) stalls: u64,
}

impl Scrape {
    /// The exposition in OpenMetrics 1.0 text.
    pub(crate) fn render(self) -> String {
        let mut registry = Registry::with_prefix("inflightkv");
        registry.register_collector(Box::new(self));
        let mut text = String::with_capacity(32 * 1024);
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

/// OpenMetrics text as the older text format of Prometheus (version 0.0.4) has it: a counter's family is called like
/// its sample, and there are neither units nor an end mark.
pub(crate) fn in_classic_text(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), text) => help = Some((name, text.unwrap_or(""))),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", kind),
                    // There is no such type yet: it is a gauge that is always 1.
                    "info" => ("_info", "gauge"),
                    kind => ("", kind),
                };
                if let Some((_, text)) = help.take().filter(|(helped, _)| *helped == name) {
                    out.push_str(&format!("# HELP {name}{suffix} {text}\n"));
                }
                out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
            }
            (Some("#"), ..) => {}
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.encode_requests(&mut out)?;
        self.encode_store(&mut out)?;
        if let Some(wal) = &self.stats.wal {
            disk::encode_wal(&mut out, wal)?;
        }
        if let Some(snapshots) = &self.stats.snapshots {
            disk::encode_snapshots(&mut out, snapshots)?;
        }
        if let Some(following) = &self.following {
            disk::encode_following(&mut out, following)?;
        }
        compression::encode(&mut out, &self.stats.compression)?;
        if let Some(audit) = self.audit {
            encode_audit(&mut out, audit)?;
        }
        self.encode_loops(&mut out)?;
        self.encode_process(&mut out)
    }
}

impl Scrape {
    fn encode_requests(&self, out: &mut Out<'_>) -> fmt::Result {
        let traffic = &self.traffic;
        let (unauthorized, forbidden) = self.refusals;
        let mut family = out.family(
            "access_refusals",
            "Requests of nobody known, and requests that their senders may not make.",
            None,
            MetricType::Counter,
        )?;
        for (reason, count) in [("unauthorized", unauthorized), ("forbidden", forbidden)] {
            family
                .encode_family(&[("reason", reason)])?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        let mut family = out.family(
            "http_refusals",
            "Requests refused for the state of the server or for what their sender had taken already, by the code of the answer.",
            None,
            MetricType::Counter,
        )?;
        for (code, count) in &traffic.refusals {
            family
                .encode_family(&[("code", *code)])?
                .encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
        let mut family = out.family(
            "http_requests",
            "Requests answered.",
            None,
            MetricType::Counter,
        )?;
        for totals in &traffic.places {
            for (status, count) in &totals.statuses {
                let status = match status {
                    0 => "other".to_owned(),
                    status => status.to_string(),
                };
                let labels = [
                    ("route", totals.place.route()),
                    ("method", totals.place.method()),
                    ("status", &status),
                ];
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        let mut family = out.family(
            "http_request_duration",
            "From a request's turn to its answer, without sending it.",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for totals in &traffic.places {
            family
                .encode_family(&place_labels(totals))?
                .encode_histogram::<NoLabelSet>(
                    totals.nanos as f64 / 1e9,
                    totals.durations.iter().sum(),
                    &buckets(&DURATION_BOUNDS_US, &totals.durations),
                    None,
                )?;
        }
        let mut family = out.family(
            "http_request_body",
            "Content announced by requests.",
            Some(&Unit::Bytes),
            MetricType::Counter,
        )?;
        for totals in &traffic.places {
            family
                .encode_family(&place_labels(totals))?
                .encode_counter::<NoLabelSet, _, u64>(&totals.bytes_in, None)?;
        }
        let mut family = out.family(
            "http_response_body",
            "Content of answers whose length was known.",
            Some(&Unit::Bytes),
            MetricType::Counter,
        )?;
        for totals in &traffic.places {
            family
                .encode_family(&place_labels(totals))?
                .encode_counter::<NoLabelSet, _, u64>(&totals.bytes_out, None)?;
        }
        out.gauge("connections", "Open connections.", None, traffic.open)?;
        out.gauge(
            "connections_blocked",
            "Connections whose client does not take the answer that waits for it.",
            None,
            traffic.blocked,
        )?;
        out.counter(
            "connections_blocked",
            "How long clients did not take answers that waited for them.",
            Some(&Unit::Seconds),
            traffic.blocked_nanos as f64 / 1e9,
        )?;
        out.counter(
            "connections_accepted",
            "Connections accepted.",
            None,
            traffic.accepted,
        )?;
        out.counter(
            "connections_refused",
            "Connections refused because too many were open.",
            None,
            traffic.refused,
        )?;
        let watching = traffic.watching;
        out.gauge("watches", "Watches that are open.", None, watching.open)?;
        out.counter(
            "watch_changes",
            "Changes told to watches.",
            None,
            watching.changes,
        )?;
        out.counter(
            "watch_gaps",
            "Watches that began where changes were kept no longer, and were told so.",
            None,
            watching.gaps,
        )?;
        let mut family = out.family(
            "watches_dropped",
            "Watches ended because their client was too slow.",
            None,
            MetricType::Counter,
        )?;
        for (reason, count) in watching.dropped {
            family
                .encode_family(&[("reason", reason)])?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn encode_store(&self, out: &mut Out<'_>) -> fmt::Result {
        let stats = &self.stats;
        let ready = stats.readiness == Readiness::Ready;
        out.gauge(
            "ready",
            "Whether writes are taken (1) or not (0).",
            None,
            u64::from(ready),
        )?;
        out.gauge(
            "keys",
            "Entries, expired ones that were not reclaimed yet included.",
            None,
            stats.total.entries,
        )?;
        out.gauge(
            "keys_expiring",
            "Entries that expire.",
            None,
            stats.total.expiring,
        )?;
        let mut family = out.family(
            "memory",
            "Memory of the store as it accounts for it, by what it is for.",
            Some(&Unit::Bytes),
            MetricType::Gauge,
        )?;
        for (purpose, bytes) in [
            ("entries", stats.total.entry_bytes),
            ("tables", stats.total.table_bytes),
            ("slack", stats.total.slack_bytes),
            ("snapshot", stats.total.frozen_bytes),
            ("tombstones", stats.total.tombstone_bytes),
            ("timers", stats.timer_bytes),
            ("policies", stats.memory.policies as usize),
            ("transient", stats.memory.transient as usize),
        ] {
            family
                .encode_family(&[("purpose", purpose)])?
                .encode_gauge(&bytes)?;
        }
        out.counter(
            "expired_keys",
            "Entries reclaimed because they had expired.",
            None,
            stats.expired,
        )?;
        let lag = &stats.expiry_lag;
        out.gauge(
            "expiry_lag_max",
            "The longest an expired entry waited to be reclaimed; it was invisible meanwhile.",
            Some(&Unit::Seconds),
            lag.max_ms as f64 / 1e3,
        )?;
        out.family(
            "expiry_lag",
            "How long expired entries waited to be reclaimed; they were invisible meanwhile.",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?
        .encode_histogram::<NoLabelSet>(
            lag.sum_ms as f64 / 1e3,
            lag.counts.iter().sum(),
            &buckets(&LAG_BOUNDS_MS.map(|bound| bound * 1000), &lag.counts),
            None,
        )?;
        encode_memory(out, &stats.memory)?;
        encode_advice(out, &stats.advice)?;
        out.counter(
            "patch_retries",
            "Large patches computed again because the entry had changed.",
            None,
            stats.patch_retries,
        )?;
        let mut family = out.family(
            "damaged_values",
            "Values met that did not have the checksum they were stored with; none was passed on.",
            None,
            MetricType::Counter,
        )?;
        for (by, met) in &stats.damaged {
            family
                .encode_family(&[("found_by", by.name())])?
                .encode_counter::<NoLabelSet, _, u64>(met, None)?;
        }
        encode_scrub(out, &stats.scrub)?;
        // Rules are named by whoever runs the server, so there are as many labels as rules.
        let mut family = out.family(
            "rule_hits",
            "Keys and values that broke a validation rule.",
            None,
            MetricType::Counter,
        )?;
        for rule in &stats.rules {
            family
                .encode_family(&[("rule", rule.name.as_str()), ("mode", rule.mode.name())])?
                .encode_counter::<NoLabelSet, _, u64>(&rule.hits, None)?;
        }
        out.gauge(
            "sequence_last",
            "The number of the last change.",
            None,
            stats.sequence.get(),
        )?;
        out.gauge(
            "sequence_durable",
            "The last change on stable storage.",
            None,
            stats.durable_sequence.get(),
        )?;
        out.counter(
            "partition_lock_waits",
            "How often a partition's lock was taken by somebody else.",
            None,
            stats.lock_waits,
        )?;
        out.counter(
            "partition_lock_wait",
            "How long those waited.",
            Some(&Unit::Seconds),
            stats.lock_wait_nanos as f64 / 1e9,
        )?;
        if let Some(recovery) = &stats.recovery {
            out.gauge(
                "recovery_duration",
                "How long the last start loaded what was on disk.",
                Some(&Unit::Seconds),
                recovery.duration_ms as f64 / 1e3,
            )?;
            out.gauge(
                "recovery_records",
                "Log records replayed by the last start.",
                None,
                recovery.records,
            )?;
        }
        Ok(())
    }

    fn encode_loops(&self, out: &mut Out<'_>) -> fmt::Result {
        type Of = fn(&LoopFigures) -> f64;
        let figures: [(&str, &str, Option<&Unit>, MetricType, Of); 4] = [
            (
                "loop_busy",
                "How long an event loop was not waiting for anything.",
                Some(&Unit::Seconds),
                MetricType::Counter,
                |figures| figures.busy.as_secs_f64(),
            ),
            (
                "loop_turn_max",
                "The longest turn of a connection on an event loop.",
                Some(&Unit::Seconds),
                MetricType::Gauge,
                |figures| figures.longest_turn.as_secs_f64(),
            ),
            (
                "loop_slice_max",
                "The longest slice of background work on an event loop.",
                Some(&Unit::Seconds),
                MetricType::Gauge,
                |figures| figures.longest_slice.as_secs_f64(),
            ),
            (
                "loop_stalls",
                "Turns and slices that kept an event loop for 5 ms or longer.",
                None,
                MetricType::Counter,
                |figures| figures.stalls as f64,
            ),
        ];
        for (name, help, unit, kind, of) in figures {
            let mut family = out.family(name, help, unit, kind)?;
            for figures in &self.loops {
                let labels = [("loop", figures.index.to_string())];
                let mut metric = family.encode_family(&labels)?;
                match kind {
                    MetricType::Counter => {
                        metric.encode_counter::<NoLabelSet, _, u64>(&of(figures), None)?;
                    }
                    _ => metric.encode_gauge(&of(figures))?,
                }
            }
        }
        Ok(())
    }

    fn encode_process(&self, out: &mut Out<'_>) -> fmt::Result {
        let process = &self.process;
        out.counter(
            "log_lines",
            "Log lines taken for writing.",
            None,
            self.log_lines.0,
        )?;
        out.counter(
            "log_lines_dropped",
            "Log lines that found no room because standard error was not read.",
            None,
            self.log_lines.1,
        )?;
        if let Some(traces) = self.traces {
            let mut family = out.family(
                "traced_requests",
                "Traced requests, by what became of them on their way to the collector.",
                None,
                MetricType::Counter,
            )?;
            for (outcome, count) in ["exported", "dropped", "failed"].into_iter().zip(traces) {
                family
                    .encode_family(&[("outcome", outcome)])?
                    .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        out.gauge(
            "process_resident_memory",
            "Memory of the process that is resident.",
            Some(&Unit::Bytes),
            process.resident_bytes,
        )?;
        out.counter(
            "process_cpu",
            "Processor time of the process, in user and system mode.",
            Some(&Unit::Seconds),
            process.cpu.as_secs_f64(),
        )?;
        out.gauge(
            "process_open_fds",
            "Open file descriptors.",
            None,
            process.open_files,
        )?;
        out.gauge(
            "process_uptime",
            "How long the process has been running.",
            Some(&Unit::Seconds),
            process.uptime.as_secs_f64(),
        )?;
        out.family("build", "The running version.", None, MetricType::Info)?
            .encode_info(&[("version", self.version)])
    }
}

fn encode_audit(out: &mut Out<'_>, audit: AuditFigures) -> fmt::Result {
    out.counter(
        "audit_events",
        "Events recorded in the audit log.",
        None,
        audit.events,
    )?;
    out.gauge(
        "audit_waiting",
        "Audit events that are not on disk yet.",
        None,
        audit.waiting,
    )?;
    out.gauge(
        "audit_failing",
        "Whether the disk takes no audit events (1): what has to be audited is refused meanwhile.",
        None,
        u64::from(audit.failing),
    )
}

/// What was read back in the background.
fn encode_scrub(out: &mut Out<'_>, scrub: &ScrubStats) -> fmt::Result {
    out.gauge(
        "scrub_running",
        "Whether everything is being read back in the background now (1) or not (0).",
        None,
        u64::from(scrub.running),
    )?;
    out.counter(
        "scrub_passes",
        "How often everything was read back in the background.",
        None,
        scrub.passes,
    )?;
    out.counter(
        "scrub_read",
        "Bytes read back in the background, in memory and on disk.",
        Some(&Unit::Bytes),
        scrub.bytes,
    )?;
    if let Some(at) = scrub.finished_at_ms {
        out.gauge(
            "scrub_finished_time",
            "When everything had last been read back, since the Unix epoch.",
            Some(&Unit::Seconds),
            at as f64 / 1e3,
        )?;
    }
    out.counter(
        "scrub_damaged_values",
        "Values in memory that reading back found damaged.",
        None,
        scrub.damaged_values,
    )?;
    out.counter(
        "scrub_damaged_files",
        "Places in files that reading back found damaged.",
        None,
        scrub.damaged_files,
    )
}

fn place_labels(totals: &PlaceTotals) -> [(&'static str, &'static str); 2] {
    [
        ("route", totals.place.route()),
        ("method", totals.place.method()),
    ]
}

/// Counts with their bounds in seconds; the last has none.
fn buckets(bounds_us: &[u64], counts: &[u64]) -> Vec<(f64, u64)> {
    bounds_us
        .iter()
        .map(|bound| *bound as f64 / 1e6)
        .chain([f64::INFINITY])
        .zip(counts.iter().copied())
        .collect()
}

struct Out<'a>(DescriptorEncoder<'a>);

type Family<'a> = prometheus_client::encoding::MetricEncoder<'a>;

impl Out<'_> {
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<Family<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: impl EncodeGaugeValue,
    ) -> fmt::Result {
        self.family(name, help, unit, MetricType::Gauge)?
            .encode_gauge(&value)
    }

    fn counter(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: impl EncodeCounterValue,
    ) -> fmt::Result {
        self.family(name, help, unit, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }
}

/// What other policies and limits would bring.
fn encode_advice(out: &mut Out<'_>, report: &AdviceReport) -> fmt::Result {
    let mut family = out.family(
        "advised_hit_ratio",
        "The hit ratio that a policy would have at a share of the limit, by simulation of a sample.",
        None,
        MetricType::Gauge,
    )?;
    for advice in &report.policies {
        for (share, ratio) in [
            ("half", advice.half),
            ("whole", advice.current),
            ("double", advice.double),
        ] {
            if let Some(ratio) = ratio {
                family
                    .encode_family(&[("policy", advice.policy.name()), ("limit", share)])?
                    .encode_gauge(&ratio)?;
            }
        }
    }
    Ok(())
}

/// The bound on memory, and eviction.
fn encode_memory(out: &mut Out<'_>, memory: &MemoryStats) -> fmt::Result {
    out.gauge(
        "memory_used",
        "What counts against the limit of the memory.",
        Some(&Unit::Bytes),
        memory.used,
    )?;
    if let Some(limit) = memory.limit {
        out.gauge(
            "memory_limit",
            "The limit of the memory.",
            Some(&Unit::Bytes),
            limit,
        )?;
    }
    let reasons = [
        ("background", memory.background),
        ("inline", memory.inline),
        ("request", memory.request),
    ];
    let policy = memory.policy.map_or("none", |policy| policy.name());
    for (name, help, unit, bytes) in [
        (
            "evicted_keys",
            "Entries evicted, by who evicted them.",
            None,
            false,
        ),
        ("evicted", "What was evicted.", Some(&Unit::Bytes), true),
    ] {
        let mut family = out.family(name, help, unit, MetricType::Counter)?;
        for (reason, evicted) in reasons {
            let value = if bytes {
                evicted.bytes
            } else {
                evicted.entries
            };
            family
                .encode_family(&[("reason", reason), ("policy", policy)])?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
    }
    out.counter(
        "writes_without_room",
        "Writes refused because the memory is full.",
        None,
        memory.refused,
    )?;
    out.counter(
        "key_hits",
        "Reads of a key that was there.",
        None,
        memory.hits,
    )?;
    out.counter(
        "key_misses",
        "Reads of a key that was not there.",
        None,
        memory.misses,
    )
}

#[cfg(test)]
mod tests {
    use super::in_classic_text;

    #[test]
    fn the_classic_format_names_a_counter_like_its_sample() {
        let open = "# HELP a_seconds Time.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
                    a_seconds_total 1\n# HELP b Some.\n# TYPE b gauge\nb{x=\"# y\"} 2\n\
                    # HELP c Which.\n# TYPE c info\nc_info{v=\"1\"} 1\n# EOF\n";
        assert_eq!(
            in_classic_text(open),
            "# HELP a_seconds_total Time.\n# TYPE a_seconds_total counter\na_seconds_total 1\n\
             # HELP b Some.\n# TYPE b gauge\nb{x=\"# y\"} 2\n\
             # HELP c_info Which.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n"
        );
    }
}
