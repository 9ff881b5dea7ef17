//! Latency while a snapshot is written.

use std::thread;
use std::time::{Duration, Instant};

use crate::cli::Arrivals;
use crate::client::Client;
use crate::error::Error;
use crate::interrupt;
use crate::load::{Pace, Plan, Report, Stop};
use crate::report::chart::{Axis, Chart};
use crate::report::unit::Unit;
use crate::report::{Better, Section};
use crate::suite::{Context, joined, number};
use crate::usage;
use crate::workload::mix::Mix;

const RATE: f64 = 4_000.0;
const WINDOW: Duration = Duration::from_millis(100);

pub(super) fn run(context: &Context<'_>) -> Result<Section, Error> {
    let mut section = Section::new(
        "snapshot",
        "Snapshot",
        "300,000 keys and 4000 requests a second, half GET, half PUT, on a schedule. After a while a full snapshot is \
         taken; then 1 % of the keys change, and an incremental one follows.",
    );
    let data = context.data(300_000, 100);
    let folder = context.data_dir();
    let server = context.launcher.inflightkv(Some(&folder), &[])?;
    context.fill(&server, &data)?;
    let before = usage::resident_bytes(server.pid())?;
    let seconds = context.time(9.0);
    let lead = seconds / 3;
    let plan = Plan {
        pace: Pace::Open {
            rate: RATE,
            arrivals: Arrivals::Constant,
        },
        stop: Stop::After(seconds),
        window: Some(WINDOW),
        ..context.plan(&server, &data, Mix::Mixed, 1.0)
    };
    let warmup = plan.warmup;
    let (report, taken) = thread::scope(|scope| {
        let start = Instant::now() + warmup;
        let mut client = server.connect()?;
        let snapshot = scope.spawn(move || {
            interrupt::sleep_until(start + lead)?;
            let from = start.elapsed();
            take(&mut client)?;
            Ok::<_, Error>((from, start.elapsed()))
        });
        let report = context.load(&plan);
        Ok::<_, Error>((report?, joined(snapshot)?))
    })?;
    let (from, to) = (taken.0.as_secs_f64(), taken.1.as_secs_f64());
    let peak = report.server.map_or(0, |server| server.resident_peak_bytes);
    section.headline(
        "snapshot of the keys",
        to - from,
        Unit::Seconds,
        Better::Lower,
    );
    section.figure(
        "keys a second",
        data.keys as f64 / (to - from),
        Unit::PerSecond,
        Better::Higher,
    );
    let worst = |inside: bool, figure: fn(&crate::load::Window) -> f64| {
        let windows = report.windows.iter().filter(|window| {
            let during = window.at + WINDOW.as_secs_f64() >= from && window.at <= to;
            during == inside
        });
        median(windows.map(figure).collect())
    };
    let (outside, during) = (
        worst(false, |window| window.p99_us),
        worst(true, |window| window.p99_us),
    );
    section.figure("p99 without", outside, Unit::Microseconds, Better::Lower);
    section.headline(
        "p99 while saving",
        during,
        Unit::Microseconds,
        Better::Lower,
    );
    section.figure(
        "p99 while saving, to without",
        during / outside.max(1e-9),
        Unit::Ratio,
        Better::Lower,
    );
    section.figure(
        "slowest request",
        report.latency_us.max,
        Unit::Microseconds,
        Better::Lower,
    );
    section.figure(
        "memory while saving, above before",
        peak.saturating_sub(before) as f64,
        Unit::Bytes,
        Better::Lower,
    );
    section.charts = vec![over_time(
        "Latency over time",
        &report,
        Some((from, to, "snapshot")),
    )];

    context.progress.tell("snapshot: an incremental one");
    let mut client = server.connect()?;
    take(&mut client)?;
    let few = Plan {
        stop: Stop::Requests(data.keys / 100),
        warmup: Duration::ZERO,
        ..context.plan(&server, &data, Mix::Put, 1.0)
    };
    context.load(&few)?;
    let start = Instant::now();
    take(&mut client)?;
    let took = start.elapsed().as_secs_f64();
    let listing = client.http_success("GET", "/v1/admin/snapshots", "application/json", b"")?;
    server.stop()?;
    let listing: serde_json::Value = serde_json::from_slice(&listing).unwrap_or_default();
    let sizes = |kind: &str| {
        let snapshots = listing["snapshots"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let of_kind = snapshots.iter().filter(|one| one["kind"] == kind);
        of_kind
            .map(|one| number(one, "/bytes"))
            .collect::<Vec<f64>>()
    };
    section.figure("incremental of 1 %", took, Unit::Seconds, Better::Lower);
    if let (Some(&full), Some(&last)) = (sizes("full").last(), sizes("incremental").last()) {
        section.figure("bytes of a full one", full, Unit::Bytes, Better::Lower);
        section.figure(
            "bytes of the incremental one",
            last,
            Unit::Bytes,
            Better::Lower,
        );
        section.headline(
            "incremental of 1 %, size",
            100.0 * last / full,
            Unit::Percent,
            Better::Lower,
        );
    }
    Ok(section)
}

fn take(client: &mut Client) -> Result<(), Error> {
    let path = "/v1/admin/snapshot?wait=true";
    client.http_success("POST", path, "application/json", b"")?;
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// p50, p99 and the slowest request of each window.
pub(super) fn over_time(title: &str, report: &Report, mark: Option<(f64, f64, &str)>) -> Chart {
    let points = |figure: fn(&crate::load::Window) -> f64| {
        let windows = report.windows.iter().filter(|window| window.requests > 0);
        windows
            .map(|window| (window.at, figure(window)))
            .collect::<Vec<_>>()
    };
    let mut chart = Chart::lines(title, Axis::seconds(), Axis::latency())
        .with("p50", points(|window| window.p50_us))
        .with("p99", points(|window| window.p99_us))
        .with("slowest", points(|window| window.max_us));
    if let Some((from, to, label)) = mark {
        chart.mark(from, to, label);
    }
    chart
}
