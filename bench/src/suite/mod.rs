//! Everything about the server, measured against its real process, in one run of a few minutes.
//!
//! Each benchmark starts its own server, fills it, measures, and gives back a section of the report. What a build of
//! the server does not know (a policy, a codec) is left out and said.

mod concurrency;
mod durability;
mod eviction;
mod expiry;
mod memory;
mod mixes;
mod operations;
mod recovery;
mod snapshot;

use std::cell::Cell;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{Data, Suite};
use crate::client::Client;
use crate::compare::temporary_folder;
use crate::environment::{self, Environment};
use crate::error::Error;
use crate::fill::Range;
use crate::load::{self, Plan, Report, Stop};
use crate::report::unit::Unit;
use crate::report::{Better, Document, FORMAT, Section, output};
use crate::servers::{Launcher, Server};
use crate::workload::mix::Mix;
use crate::{fill, interrupt};

/// One benchmark: its name, what it does, how many seconds it takes on a quiet machine, and how it is run.
struct Benchmark {
    name: &'static str,
    about: &'static str,
    seconds: u64,
    run: fn(&Context<'_>) -> Result<Section, Error>,
}

const BENCHMARKS: [Benchmark; 13] = [
    Benchmark {
        name: "operations",
        about: "single reads and writes: ceiling, CPU, latency at half the ceiling",
        seconds: 26,
        run: operations::single,
    },
    Benchmark {
        name: "batch",
        about: "GETs and PUTs in batches of 1 to 1000",
        seconds: 16,
        run: operations::batch,
    },
    Benchmark {
        name: "pipeline",
        about: "1 to 64 requests in flight on a connection",
        seconds: 10,
        run: operations::pipeline,
    },
    Benchmark {
        name: "mixes",
        about: "the shapes of YCSB A to F, and 30/30/20/15/5 of PUT, GET, PATCH, DELETE, list",
        seconds: 22,
        run: mixes::run,
    },
    Benchmark {
        name: "connections",
        about: "1 to 1000 connections, and many clients incrementing one number",
        seconds: 26,
        run: concurrency::connections,
    },
    Benchmark {
        name: "knee",
        about: "the highest rate with p99 below 5 ms",
        seconds: 18,
        run: concurrency::knee,
    },
    Benchmark {
        name: "sizes",
        about: "values of 100 bytes to 1 MB, and small ones beside large ones",
        seconds: 16,
        run: operations::sizes,
    },
    Benchmark {
        name: "memory",
        about: "bytes per entry, average and peak while loading, by size, codec and policy",
        seconds: 36,
        run: memory::run,
    },
    Benchmark {
        name: "durability",
        about: "PUT and GET with each way of syncing the log",
        seconds: 26,
        run: durability::run,
    },
    Benchmark {
        name: "snapshot",
        about: "latency over time while a snapshot is written",
        seconds: 18,
        run: snapshot::run,
    },
    Benchmark {
        name: "recovery",
        about: "time to ready by size, from log and snapshot, and after SIGKILL",
        seconds: 26,
        run: recovery::run,
    },
    Benchmark {
        name: "expiry",
        about: "latency over time while many keys expire at once",
        seconds: 16,
        run: expiry::run,
    },
    Benchmark {
        name: "eviction",
        about: "hit ratio and latency of each policy with a quarter of the memory, latency over time at the limit",
        seconds: 42,
        run: eviction::run,
    },
];

pub(crate) fn run(options: &Suite) -> Result<(), Error> {
    if options.list {
        for Benchmark { name, about, .. } in &BENCHMARKS {
            println!("{name:<12} {about}");
        }
        return Ok(());
    }
    let benchmarks = chosen(&options.names)?;
    let folder = temporary_folder(options.subjects.temp.as_deref())?;
    let environment = Environment::read().with_disk(folder.path())?;
    let baseline = output::baseline(&options.output, "suite", &environment)?;
    let started_at = environment::now();
    let start = Instant::now();
    let context = Context {
        launcher: Launcher::new(&options.subjects, folder.path())?,
        folder: folder.path(),
        quick: options.quick,
        seed: options.seed,
        folders: Cell::new(0),
        progress: Progress::new(benchmarks.iter().map(|benchmark| benchmark.seconds).sum()),
    };
    let mut sections = Vec::new();
    for benchmark in &benchmarks {
        interrupt::check()?;
        context.progress.begin(benchmark);
        sections.push((benchmark.run)(&context)?);
        context.progress.end(benchmark);
    }
    context.progress.finish();
    let document = Document {
        format: FORMAT,
        title: "InFlightKv, measured".to_owned(),
        environment,
        settings: vec![
            ("seed".to_owned(), options.seed.to_string()),
            ("event loops".to_owned(), threads(options)),
            (
                "server arguments".to_owned(),
                options.subjects.server_args.join(" "),
            ),
            (
                "length".to_owned(),
                if options.quick { "quick" } else { "full" }.to_owned(),
            ),
        ],
        started_at,
        seconds: start.elapsed().as_secs_f64(),
        sections,
    };
    output::publish(
        &document,
        "suite",
        &options.output,
        baseline.as_ref(),
        options.subjects.json,
    )
}

fn threads(options: &Suite) -> String {
    options
        .subjects
        .server_threads
        .map_or_else(|| "one per core".to_owned(), |threads| threads.to_string())
}

/// The benchmarks with these names, in their own order; all of them if there are none.
fn chosen(names: &[String]) -> Result<Vec<&'static Benchmark>, Error> {
    if let Some(unknown) = names
        .iter()
        .find(|name| BENCHMARKS.iter().all(|benchmark| benchmark.name != **name))
    {
        let known: Vec<&str> = BENCHMARKS.iter().map(|benchmark| benchmark.name).collect();
        return Err(Error::Usage(format!(
            "there is no benchmark {unknown:?}; there are {}",
            known.join(", ")
        )));
    }
    let wanted = |benchmark: &&Benchmark| {
        names.is_empty() || names.iter().any(|name| name == benchmark.name)
    };
    Ok(BENCHMARKS.iter().filter(wanted).collect())
}

/// Every eviction policy.
const POLICIES: [&str; 7] = ["lru", "lfu", "s3-fifo", "tiny-lfu", "ttl", "size", "random"];

/// What every benchmark works with.
struct Context<'a> {
    launcher: Launcher<'a>,
    folder: &'a Path,
    quick: bool,
    seed: u64,
    folders: Cell<u32>,
    progress: Progress,
}

impl Context<'_> {
    /// So long, or a tenth of it in a quick run.
    fn time(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(if self.quick { seconds / 10.0 } else { seconds })
    }

    /// So many keys, or a tenth of them in a quick run.
    fn keys(&self, keys: u64) -> u64 {
        if self.quick { keys / 10 } else { keys }
    }

    fn data(&self, keys: u64, value_bytes: usize) -> Data {
        Data::new(self.keys(keys), value_bytes, self.seed)
    }

    /// A folder that nobody has used.
    fn data_dir(&self) -> PathBuf {
        self.folders.set(self.folders.get() + 1);
        self.folder.join(format!("data-{}", self.folders.get()))
    }

    /// A server in memory that has every key.
    fn filled(&self, data: &Data) -> Result<Server, Error> {
        let server = self.launcher.inflightkv(None, &[])?;
        self.fill(&server, data)?;
        Ok(server)
    }

    fn fill(&self, server: &Server, data: &Data) -> Result<Duration, Error> {
        fill::run(server, data, Range::default(), |_| {})
    }

    /// A closed loop of so many seconds, after a short time to warm up.
    fn plan(&self, server: &Server, data: &Data, mix: Mix, seconds: f64) -> Plan {
        Plan {
            stop: Stop::After(self.time(seconds)),
            warmup: self.time(0.3),
            pids: server.pids(),
            ..Plan::new(
                server.address,
                server.name.protocol(server.address),
                data.clone(),
                mix,
            )
        }
    }

    /// Runs a plan whose every request has to succeed.
    fn load(&self, plan: &Plan) -> Result<Report, Error> {
        let report = load::run(plan)?;
        report.demand_success()?;
        Ok(report)
    }
}

/// What the store says of itself.
pub(crate) fn stats(client: &mut Client) -> Result<serde_json::Value, Error> {
    let body = client.http_success("GET", "/v1/admin/stats", "application/json", b"")?;
    serde_json::from_slice(&body).map_err(|error| Error::Answer {
        name: "inflightkv".to_owned(),
        what: "/v1/admin/stats".to_owned(),
        found: error.to_string(),
        expected: "JSON".to_owned(),
    })
}

/// A number in there, by its names; zero if there is none.
pub(crate) fn number(document: &serde_json::Value, pointer: &str) -> f64 {
    document
        .pointer(pointer)
        .and_then(serde_json::Value::as_f64)
        .unwrap_or(0.0)
}

/// What a thread of a benchmark came to; its panic goes on here.
pub(crate) fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The CPU time of the server for each request, and of the generator.
fn cpu(section: &mut Section, name: &str, report: &Report) {
    if let Some(server) = report.server {
        section.figure(
            format!("{name}: server CPU"),
            server.cpu_us_per_request,
            Unit::Microseconds,
            Better::Lower,
        );
    }
    section.figure(
        format!("{name}: generator CPU"),
        report.client.cpu_us_per_request,
        Unit::Microseconds,
        Better::Neither,
    );
}

/// The percentiles that a report has to have.
fn latencies(section: &mut Section, name: &str, report: &Report) {
    let latency = report.latency_us;
    for (quantile, value) in [
        ("p50", latency.p50),
        ("p95", latency.p95),
        ("p99", latency.p99),
        ("p99.9", latency.p999),
        ("max", latency.max),
    ] {
        section.figure(
            format!("{name}: {quantile}"),
            value,
            Unit::Microseconds,
            Better::Lower,
        );
    }
}

/// A bar on a terminal, a line for each benchmark elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(seconds: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{elapsed} {wide_bar} {percent} %  {msg}");
            let bar =
                ProgressBar::new(seconds).with_style(style.expect("the template is constant"));
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        Self { bar }
    }

    fn begin(&self, benchmark: &Benchmark) {
        match &self.bar {
            Some(bar) => bar.set_message(benchmark.name),
            None => eprintln!("{}: {}", benchmark.name, benchmark.about),
        }
    }

    /// What the benchmark is at.
    fn tell(&self, what: impl Into<String>) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.into());
        }
    }

    fn end(&self, benchmark: &Benchmark) {
        if let Some(bar) = &self.bar {
            bar.inc(benchmark.seconds);
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn benchmarks_are_chosen_by_name_and_unknown_ones_are_told() {
        assert_eq!(chosen(&[]).unwrap().len(), BENCHMARKS.len());
        let some = chosen(&["knee".to_owned(), "batch".to_owned()]).unwrap();
        let names: Vec<&str> = some.iter().map(|benchmark| benchmark.name).collect();
        assert_eq!(names, ["batch", "knee"]);
        let Err(error) = chosen(&["kneee".to_owned()]) else {
            panic!("an unknown benchmark was taken")
        };
        assert!(
            error
                .to_string()
                .contains("no benchmark \"kneee\"; there are operations, "),
            "{error}"
        );
    }

    #[test]
    fn names_differ_and_all_of_it_takes_less_than_ten_minutes() {
        let mut names: Vec<&str> = BENCHMARKS.iter().map(|benchmark| benchmark.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), BENCHMARKS.len());
        let seconds: u64 = BENCHMARKS.iter().map(|benchmark| benchmark.seconds).sum();
        assert!(seconds < 480, "{seconds} s");
    }
}
