//! Event loops over locked partitions beside threads with queues: the same work, behind HTTP and without it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use inflightkv_server::engine::{
    Change, Conditions, Durability, Engine, Lane, Options, PutTtl, Value, Write,
};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;

use crate::cli::{Arrivals, Peers, Persistence, ServerName};
use crate::compare::{median, temporary_folder};
use crate::environment::{self, Environment};
use crate::error::Error;
use crate::load::{self, Pace, Plan, Report, Stop};
use crate::queues::Store;
use crate::report::chart::{Axis, Chart};
use crate::report::unit::Unit;
use crate::report::{Better, Document, FORMAT, Section, output};
use crate::servers::{Launcher, Server};
use crate::usage;
use crate::workload::mix::Mix;
use crate::workload::{Values, key};

const NAMES: [ServerName; 2] = [ServerName::Inflightkv, ServerName::Queues];
const WARMUP: Duration = Duration::from_millis(300);
/// Requests a second for latency: far below what either can do.
const RATE: f64 = 3_000.0;
/// Callers at the same time, where there is no HTTP.
const TASKS: u64 = 50;

pub(crate) fn run(options: &Peers) -> Result<(), Error> {
    let folder = temporary_folder(options.subjects.temp.as_deref())?;
    let environment = Environment::read();
    let baseline = output::baseline(&options.output, "loops", &environment)?;
    let started_at = environment::now();
    let start = Instant::now();
    let launcher = Launcher::new(&options.subjects, folder.path())?;
    let style = ProgressStyle::with_template("{elapsed} {wide_bar} {pos}/{len} {msg}");
    let progress = ProgressBar::new(u64::from(options.rounds) * 12)
        .with_style(style.expect("the template is constant"));
    let mut sections = Vec::new();
    for (name, title, mix) in [
        ("get", "GET over HTTP", Mix::Get),
        ("put", "PUT over HTTP", Mix::Put),
    ] {
        sections.push(over_http(options, &launcher, name, title, mix, &progress)?);
    }
    sections.push(in_process(options, &progress)?);
    progress.finish_and_clear();
    let document = Document {
        format: FORMAT,
        title: "Event loops beside queues".to_owned(),
        environment,
        settings: vec![
            (
                "rounds".to_owned(),
                format!("{} of {:?}", options.rounds, options.round),
            ),
            (
                "keys".to_owned(),
                format!("{} of 16 bytes", options.data.keys),
            ),
            (
                "values".to_owned(),
                format!("{} bytes of JSON", options.data.value_bytes),
            ),
        ],
        started_at,
        seconds: start.elapsed().as_secs_f64(),
        sections,
    };
    output::publish(
        &document,
        "loops",
        &options.output,
        baseline.as_ref(),
        options.subjects.json,
    )
}

fn over_http(
    options: &Peers,
    launcher: &Launcher<'_>,
    name: &str,
    title: &str,
    mix: Mix,
    progress: &ProgressBar,
) -> Result<Section, Error> {
    let mut section = Section::new(
        name,
        title,
        "50 connections: first a closed loop, then 3000 requests a second on a schedule, for latency and its jitter. \
         Queues: 32 partitions, each on a thread with a queue, every operation a message and a future.",
    );
    let servers: Vec<Server> = NAMES
        .iter()
        .map(|&name| {
            let bytes = options.data.value_bytes;
            launcher.start(name, launcher.folder(), Persistence::Off, bytes, false)
        })
        .collect::<Result<_, _>>()?;
    let plan = |server: &Server, mix, pace| Plan {
        pace,
        threads: options
            .load_threads
            .map_or_else(environment::load_threads, usize::from),
        stop: Stop::After(options.round),
        warmup: WARMUP,
        pids: server.pids(),
        ..Plan::new(
            server.address,
            server.name.protocol(server.address),
            options.data.clone(),
            mix,
        )
    };
    for server in &servers {
        load::run(&plan(server, Mix::Put, Pace::Closed).fill())?.demand_success()?;
    }
    let (mut closed, mut open) = (vec![Vec::new(); 2], vec![Vec::new(); 2]);
    let pace = Pace::Open {
        rate: RATE,
        arrivals: Arrivals::Poisson,
    };
    for round in 0..options.rounds as usize {
        for turn in 0..servers.len() {
            let which = (turn + round) % servers.len();
            progress.set_message(format!("{title}: {}", servers[which].name.as_str()));
            for (pace, reports) in [(Pace::Closed, &mut closed), (pace, &mut open)] {
                let report = load::run(&plan(&servers[which], mix, pace))?;
                report.demand_success()?;
                reports[which].push(report);
                progress.inc(1);
            }
        }
    }
    for server in servers {
        server.stop()?;
    }
    let labels: Vec<String> = NAMES.iter().map(|name| name.as_str().to_owned()).collect();
    let of =
        |rounds: &[Report], figure: fn(&Report) -> f64| median(rounds.iter().map(figure).collect());
    let cpu: fn(&Report) -> f64 = |report| {
        report
            .server
            .map_or(0.0, |server| server.cpu_us_per_request)
    };
    let rate: fn(&Report) -> f64 = |report| report.throughput;
    let both = |reports: &[Vec<Report>], figure| [of(&reports[0], figure), of(&reports[1], figure)];
    let (rates, costs) = (both(&closed, rate), both(&closed, cpu));
    let mut throughput = Chart::bars("Requests a second", Unit::PerSecond, labels.clone());
    throughput.add_bars("closed loop", &rates);
    let mut cost = Chart::bars(
        "Server CPU time per request",
        Unit::Microseconds,
        labels.clone(),
    );
    cost.add_bars("closed loop", &costs);
    cost.add_bars("3000 a second", &both(&open, cpu));
    let mut curves = Chart::lines(
        "Latency at 3000 requests/s",
        Axis::quantiles(),
        Axis::latency(),
    );
    for (number, label) in labels.iter().enumerate() {
        if let Some(first) = open[number].first() {
            curves.add(label, first.distribution_us.clone());
        }
        section.figure(
            label.clone(),
            rates[number],
            Unit::PerSecond,
            Better::Neither,
        );
        section.figure(
            format!("{label}: server CPU"),
            costs[number],
            Unit::Microseconds,
            Better::Neither,
        );
        for (quantile, figure) in [
            (
                "p50",
                (|report| report.latency_us.p50) as fn(&Report) -> f64,
            ),
            ("p99", |report| report.latency_us.p99),
            ("p99.9", |report| report.latency_us.p999),
            ("jitter (p99 less p50)", |report| {
                report.latency_us.p99 - report.latency_us.p50
            }),
        ] {
            let value = of(&open[number], figure);
            section.figure(
                format!("{label}: {quantile}"),
                value,
                Unit::Microseconds,
                Better::Neither,
            );
        }
    }
    section.headline(
        format!("{name}: rate to queues"),
        rates[0] / rates[1],
        Unit::Ratio,
        Better::Higher,
    );
    section.headline(
        format!("{name}: CPU to queues"),
        costs[0] / costs[1],
        Unit::Ratio,
        Better::Lower,
    );
    section.charts = vec![throughput, cost, curves];
    Ok(section)
}

/// What one run without HTTP came to.
struct Run {
    per_second: f64,
    cpu_us: f64,
    latency: Histogram<u64>,
}

fn in_process(options: &Peers, progress: &ProgressBar) -> Result<Section, Error> {
    let mut section = Section::new(
        "in-process",
        "Without HTTP",
        "50 tasks on one event loop, each asking for the next thing when it has been answered, half GET, half PUT: \
         calls into the engine, and messages to threads with futures for their answers.",
    );
    let (mut runs, labels) = ([Vec::new(), Vec::new()], ["inflightkv", "queues"]);
    for _ in 0..options.rounds {
        for (which, runs) in runs.iter_mut().enumerate() {
            progress.set_message(format!("in process: {}", labels[which]));
            runs.push(if which == 0 {
                direct(options)?
            } else {
                queued(options)?
            });
            progress.inc(2);
        }
    }
    let of =
        |which: usize, figure: fn(&Run) -> f64| median(runs[which].iter().map(figure).collect());
    let both = |figure| [of(0, figure), of(1, figure)];
    let (rates, costs) = (both(|run| run.per_second), both(|run| run.cpu_us));
    let names: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
    let mut throughput = Chart::bars("Operations a second", Unit::PerSecond, names.clone());
    throughput.add_bars("one event loop", &rates);
    let mut cost = Chart::bars("CPU time per operation", Unit::Microseconds, names);
    cost.add_bars("all threads", &costs);
    let mut curves = Chart::lines("Latency", Axis::quantiles(), Axis::latency());
    for (which, label) in labels.into_iter().enumerate() {
        section.figure(label, rates[which], Unit::PerSecond, Better::Neither);
        section.figure(
            format!("{label}: CPU"),
            costs[which],
            Unit::Microseconds,
            Better::Neither,
        );
        for (name, figure) in [
            (
                "p50",
                (|run| run.latency.value_at_quantile(0.5) as f64 / 1e3) as fn(&Run) -> f64,
            ),
            ("p99", |run| {
                run.latency.value_at_quantile(0.99) as f64 / 1e3
            }),
            ("p99.9", |run| {
                run.latency.value_at_quantile(0.999) as f64 / 1e3
            }),
        ] {
            section.figure(
                format!("{label}: {name}"),
                of(which, figure),
                Unit::Microseconds,
                Better::Neither,
            );
        }
        if let Some(run) = runs[which].first() {
            let quantiles = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1.0];
            let points = quantiles.map(|at| (at, run.latency.value_at_quantile(at) as f64 / 1e3));
            curves.add(label, points.to_vec());
        }
    }
    section.headline(
        "in process: rate to queues",
        rates[0] / rates[1],
        Unit::Ratio,
        Better::Higher,
    );
    section.headline(
        "in process: CPU to queues",
        costs[0] / costs[1],
        Unit::Ratio,
        Better::Lower,
    );
    section.charts = vec![throughput, cost, curves];
    Ok(section)
}

fn direct(options: &Peers) -> Result<Run, Error> {
    let wrong = |what: &dyn std::fmt::Display| Error::Usage(format!("the engine: {what}"));
    let engine = Engine::open(Options::default()).map_err(|error| wrong(&error))?;
    engine.recover().map_err(|error| wrong(&error))?;
    let lane = Arc::new(engine.lane(0));
    let values = Values::new(&options.data);
    let mut random = fastrand::Rng::with_seed(options.data.seed);
    for number in 0..options.data.keys {
        put(&lane, number, &values, &mut random);
    }
    measured(options, move |number, values, random| {
        let lane = Arc::clone(&lane);
        if random.bool() {
            std::hint::black_box(lane.get(text(&key(number))).ok());
        } else {
            put(&lane, number, values, random);
        }
        std::future::ready(())
    })
}

fn put(lane: &Lane, number: u64, values: &Values, random: &mut fastrand::Rng) {
    let mut bytes = Vec::with_capacity(values.bytes(number));
    values.append(number, random, &mut bytes);
    let reply = lane.write(Write {
        pin: None,
        key: text(&key(number)),
        conditions: Conditions::default(),
        change: Change::Put {
            value: Value {
                bytes: bytes.into(),
                media_type: None,
            },
            ttl: PutTtl::Clear,
        },
        durability: Durability::Default,
        returning: false,
    });
    std::hint::black_box(reply.is_ok());
}

fn queued(options: &Peers) -> Result<Run, Error> {
    let store = Store::start()?;
    let runtime = Builder::new_current_thread()
        .build()
        .map_err(Error::io("starting an event loop"))?;
    let values = Values::new(&options.data);
    let mut random = fastrand::Rng::with_seed(options.data.seed);
    runtime.block_on(async {
        for number in 0..options.data.keys {
            let mut bytes = Vec::new();
            values.append(number, &mut random, &mut bytes);
            store.put(text(&key(number)).to_owned(), bytes.into()).await;
        }
    });
    measured(options, move |number, values, random| {
        let store = store.clone();
        let value = (!random.bool()).then(|| {
            let mut bytes = Vec::with_capacity(values.bytes(number));
            values.append(number, random, &mut bytes);
            bytes
        });
        async move {
            let key = text(&key(number)).to_owned();
            match value {
                None => drop(std::hint::black_box(store.get(key).await)),
                Some(bytes) => drop(std::hint::black_box(store.put(key, bytes.into()).await)),
            }
        }
    })
}

/// Keys are digits and letters.
fn text(key: &crate::workload::Key) -> &str {
    str::from_utf8(key).unwrap_or_default()
}

/// Fifty tasks on one event loop, for one round.
fn measured<F, A>(options: &Peers, operation: F) -> Result<Run, Error>
where
    F: Fn(u64, &Values, &mut fastrand::Rng) -> A + 'static,
    A: Future<Output = ()> + 'static,
{
    let runtime = Builder::new_current_thread()
        .build_local(LocalOptions::default())
        .map_err(Error::io("starting an event loop"))?;
    let (operation, values) = (
        std::rc::Rc::new(operation),
        std::rc::Rc::new(Values::new(&options.data)),
    );
    let (keys, seed, round) = (options.data.keys, options.data.seed, options.round);
    let before = usage::own_cpu_time();
    let start = Instant::now();
    let latency = runtime.block_on(async {
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (operation, values) =
                    (std::rc::Rc::clone(&operation), std::rc::Rc::clone(&values));
                spawn_local(async move {
                    let mut random = fastrand::Rng::with_seed(seed ^ (task + 1));
                    let mut latency = histogram();
                    while start.elapsed() < round {
                        for _ in 0..16 {
                            let asked = Instant::now();
                            operation(random.u64(..keys), &values, &mut random).await;
                            let took =
                                u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX);
                            latency.saturating_record(took);
                        }
                        tokio::task::yield_now().await;
                    }
                    latency
                })
            })
            .collect();
        let mut all = histogram();
        for task in tasks {
            if let Ok(latency) = task.await {
                all.add(latency).expect("both have the same bounds");
            }
        }
        all
    });
    let seconds = start.elapsed().as_secs_f64();
    let cpu = usage::own_cpu_time().saturating_sub(before).as_secs_f64();
    let operations = latency.len().max(1) as f64;
    Ok(Run {
        per_second: operations / seconds,
        cpu_us: cpu * 1e6 / operations,
        latency,
    })
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(10_000_000_000, 3).expect("constant bounds are in range")
}
