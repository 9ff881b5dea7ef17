//! Single reads and writes, batches, pipelines and sizes of values.

use crate::cli::{Arrivals, Data};
use crate::error::Error;
use crate::load::{Pace, Plan};
use crate::report::chart::{Axis, Chart, Scale};
use crate::report::unit::Unit;
use crate::report::{Better, Section};
use crate::suite::{Context, cpu, latencies};
use crate::workload::mix::Mix;

const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 100;

pub(super) fn single(context: &Context<'_>) -> Result<Section, Error> {
    let mut section = Section::new(
        "operations",
        "Single operations",
        "50 connections, 16-byte keys, 100-byte JSON values, uniformly chosen. First a closed loop for the ceiling, \
         then a schedule at half of it for latency, counted from when each request was due.",
    );
    let data = context.data(KEYS, VALUE_BYTES);
    let server = context.filled(&data)?;
    let operations = [
        ("GET", Mix::Get),
        ("PUT", Mix::Put),
        ("PATCH", Mix::Patch),
        ("list", Mix::List),
    ];
    let mut curves = Chart::lines(
        "Latency at half the ceiling",
        Axis::quantiles(),
        Axis::latency(),
    );
    let (mut ceilings, mut server_cpu, mut client_cpu) = (Vec::new(), Vec::new(), Vec::new());
    for (name, mix) in operations {
        context.progress.tell(format!("operations: {name}"));
        let plan = context.plan(&server, &data, mix, 2.0);
        let closed = context.load(&plan)?;
        section.headline(name, closed.throughput, Unit::PerSecond, Better::Higher);
        cpu(&mut section, name, &closed);
        ceilings.push(closed.throughput);
        server_cpu.push(
            closed
                .server
                .map_or(0.0, |server| server.cpu_us_per_request),
        );
        client_cpu.push(closed.client.cpu_us_per_request);
        let open = context.load(&Plan {
            pace: Pace::Open {
                rate: (closed.throughput / 2.0).max(1.0),
                arrivals: Arrivals::Poisson,
            },
            ..context.plan(&server, &data, mix, 3.0)
        })?;
        latencies(&mut section, name, &open);
        curves.add(name, open.distribution_us);
    }
    server.stop()?;
    let names: Vec<String> = operations
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let mut throughput = Chart::bars("Ceiling", Unit::PerSecond, names.clone());
    throughput.add_bars("closed loop", &ceilings);
    let mut cost = Chart::bars("CPU time per operation", Unit::Microseconds, names);
    cost.add_bars("server", &server_cpu);
    cost.add_bars("load generator", &client_cpu);
    section.charts = vec![throughput, cost, curves];
    section.note(
        "Server and generator share the cores; where their CPU times are alike, half of the machine measures the other half.",
    );
    section.note("list asks for pages of 100 keys.");
    Ok(section)
}

pub(super) fn batch(context: &Context<'_>) -> Result<Section, Error> {
    let mut section = Section::new(
        "batch",
        "Batches",
        "POST /v1/batch as NDJSON on 8 connections: operations a second, by how many are in a request.",
    );
    let data = context.data(KEYS, VALUE_BYTES);
    let server = context.filled(&data)?;
    let mut throughput = Chart::lines(
        "Operations a second",
        Axis::new("operations in a request", Unit::Count, Scale::Log),
        Axis::new("operations", Unit::PerSecond, Scale::Log),
    );
    let mut cost = Chart::lines(
        "Server CPU time per operation",
        Axis::new("operations in a request", Unit::Count, Scale::Log),
        Axis::new("CPU time", Unit::Microseconds, Scale::Log),
    );
    for (name, mix) in [("GET", Mix::BatchGet), ("PUT", Mix::BatchPut)] {
        let (mut operations, mut costs) = (Vec::new(), Vec::new());
        for batch in [1, 10, 100, 1000] {
            context.progress.tell(format!("batch: {batch} {name}s"));
            let data = Data {
                batch,
                ..data.clone()
            };
            let report = context.load(&Plan {
                connections: 8,
                ..context.plan(&server, &data, mix, 1.5)
            })?;
            let size = batch as f64;
            let each = report.throughput * size;
            let micros = report
                .server
                .map_or(0.0, |server| server.cpu_us_per_request / size);
            operations.push((size, each));
            costs.push((size, micros));
            section.figure(
                format!("{name}, {batch} in a request"),
                each,
                Unit::PerSecond,
                Better::Higher,
            );
            section.figure(
                format!("{name}, {batch} in a request: server CPU"),
                micros,
                Unit::Microseconds,
                Better::Lower,
            );
            section.figure(
                format!("{name}, {batch} in a request: generator CPU"),
                report.client.cpu_us_per_request / size,
                Unit::Microseconds,
                Better::Neither,
            );
            if batch == 100 {
                section.headline(
                    format!("{name} in batches of 100"),
                    each,
                    Unit::PerSecond,
                    Better::Higher,
                );
            }
        }
        throughput.add(name, operations);
        cost.add(name, costs);
    }
    server.stop()?;
    section.charts = vec![throughput, cost];
    Ok(section)
}

pub(super) fn pipeline(context: &Context<'_>) -> Result<Section, Error> {
    let mut section = Section::new(
        "pipeline",
        "Pipelining",
        "50 connections, each with several requests in flight.",
    );
    let data = context.data(KEYS, VALUE_BYTES);
    let server = context.filled(&data)?;
    let axis = || Axis::new("in flight on each connection", Unit::Count, Scale::Log);
    let mut throughput = Chart::lines(
        "Requests a second",
        axis(),
        Axis::new("requests", Unit::PerSecond, Scale::Linear),
    );
    let mut cost = Chart::lines(
        "Server CPU time per request",
        axis(),
        Axis::new("CPU time", Unit::Microseconds, Scale::Linear),
    );
    for (name, mix) in [("GET", Mix::Get), ("PUT", Mix::Put)] {
        let (mut requests, mut costs) = (Vec::new(), Vec::new());
        for depth in [1_usize, 4, 16, 64] {
            context.progress.tell(format!("pipeline: {depth} {name}s"));
            let report = context.load(&Plan {
                pipeline: depth,
                ..context.plan(&server, &data, mix, 1.0)
            })?;
            let micros = report
                .server
                .map_or(0.0, |server| server.cpu_us_per_request);
            requests.push((depth as f64, report.throughput));
            costs.push((depth as f64, micros));
            section.figure(
                format!("{name}, {depth} in flight"),
                report.throughput,
                Unit::PerSecond,
                Better::Higher,
            );
            cpu(&mut section, &format!("{name}, {depth} in flight"), &report);
            if depth == 16 {
                section.headline(
                    format!("{name}, 16 pipelined"),
                    report.throughput,
                    Unit::PerSecond,
                    Better::Higher,
                );
            }
        }
        throughput.add(name, requests);
        cost.add(name, costs);
    }
    server.stop()?;
    section.charts = vec![throughput, cost];
    Ok(section)
}

pub(super) fn sizes(context: &Context<'_>) -> Result<Section, Error> {
    let mut section = Section::new(
        "sizes",
        "Sizes of values",
        "Half GET, half PUT on 20 connections, by the size of all values; then 100-byte values, beside which one in \
         a hundred has 256 KiB.",
    );
    let axis = || Axis::new("size of values", Unit::Bytes, Scale::Log);
    let (mut rates, mut volumes) = (Vec::new(), Vec::new());
    for (bytes, keys) in [
        (100, 10_000),
        (1_000, 10_000),
        (10_000, 5_000),
        (100_000, 500),
        (1_000_000, 100),
    ] {
        context.progress.tell(format!("sizes: {bytes} bytes"));
        let data = context.data(keys, bytes);
        let server = context.filled(&data)?;
        let report = context.load(&Plan {
            connections: 20,
            ..context.plan(&server, &data, Mix::Mixed, 1.0)
        })?;
        server.stop()?;
        rates.push((bytes as f64, report.throughput));
        volumes.push((bytes as f64, report.throughput * bytes as f64));
        let name = Unit::Bytes.show(bytes as f64);
        section.figure(
            name.clone(),
            report.throughput,
            Unit::PerSecond,
            Better::Higher,
        );
        cpu(&mut section, &name, &report);
    }
    let mut curves = Chart::lines(
        "Latency at 5000 requests/s",
        Axis::quantiles(),
        Axis::latency(),
    );
    let mixed = Data {
        large_bytes: 256 << 10,
        large_percent: 1,
        ..context.data(5_000, VALUE_BYTES)
    };
    for (name, data) in [
        ("100 bytes", context.data(5_000, VALUE_BYTES)),
        ("with 1 % of 256 KiB", mixed),
    ] {
        context.progress.tell(format!("sizes: {name}"));
        let server = context.filled(&data)?;
        let report = context.load(&Plan {
            pace: Pace::Open {
                rate: 5_000.0,
                arrivals: Arrivals::Poisson,
            },
            ..context.plan(&server, &data, Mix::Mixed, 2.0)
        })?;
        server.stop()?;
        latencies(&mut section, name, &report);
        if name == "with 1 % of 256 KiB" {
            section.headline(
                "p99 beside large values",
                report.latency_us.p99,
                Unit::Microseconds,
                Better::Lower,
            );
        }
        curves.add(name, report.distribution_us);
    }
    section.charts = vec![
        Chart::lines(
            "Requests a second",
            axis(),
            Axis::new("requests", Unit::PerSecond, Scale::Log),
        )
        .with("requests", rates),
        Chart::lines(
            "Bytes of values a second",
            axis(),
            Axis::new("bytes in each second", Unit::Bytes, Scale::Log),
        )
        .with("bytes", volumes),
        curves,
    ];
    Ok(section)
}
