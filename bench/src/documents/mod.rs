//! Real documents as live keys of a real server: what compression saves of resident memory, and what it costs.
//!
//! Two servers run side by side, one with compression and one without, with the same keys and values; every measurement is
//! taken in turns, and ratios are the medians over those turns.

mod changed;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::{Arrivals, Data, Subjects, bytes_in, duration, rate};
use crate::compare::table::Table;
use crate::compare::{median, temporary_folder};
use crate::environment::Environment;
use crate::error::Error;
use crate::load::{self, Pace, Plan, Stop};
use crate::servers::{Launcher, Server};
use crate::suite::{number, stats};
use crate::workload::key;
use crate::workload::mix::Mix;
use crate::{interrupt, usage};
use changed::changed;

/// Bytes of one batch while loading.
const BATCH_BYTES: usize = 1 << 20;
/// How long the compressor may take to have looked at everything.
const SETTLE_MAX: Duration = Duration::from_secs(300);
/// It has when none of these figures changes for so long: a dictionary takes a while to train on a small share of a core.
const QUIET: Duration = Duration::from_secs(15);
const PROGRESS: [&str; 5] = [
    "/total/entryBytes",
    "/compression/compressed",
    "/compression/failed",
    "/compression/sweeps",
    "/compression/trainings",
];
/// Clients that write side by side.
const WRITERS: usize = 4;
/// Letters and digits at random, of which a codec saves a fifth at most: a letter has six bits.
const RANDOM: &str = "random-text";

/// What `compression` is asked.
#[derive(Debug, Args)]
pub(crate) struct Compression {
    #[command(flatten)]
    subjects: Subjects,
    /// Folder with documents: NDJSON files of lines `{"key":…,"value":…}`
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Only files whose name contains this; `random-text` is a set of documents made of random letters
    #[arg(long, default_value = "")]
    only: String,
    /// What the compressing server is told
    #[arg(long, default_value = "adaptive")]
    codec: String,
    /// Documents of each file are repeated, with other values, to so many mebibytes
    #[arg(long, default_value_t = 200, value_parser = bytes_in::<1, 100_000>)]
    mib: usize,
    /// Turns of each measurement
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Length of a turn for each server and operation
    #[arg(long, default_value = "1s", value_parser = duration)]
    round: Duration,
    /// GETs a second while latency is measured
    #[arg(long, default_value = "2000", value_parser = rate)]
    rate: f64,
    /// The same seed makes the same documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    environment: Environment,
    files: Vec<FileOutcome>,
}

#[derive(Debug, Serialize)]
struct FileOutcome {
    file: String,
    documents: usize,
    value_bytes: u64,
    resident_off_bytes: u64,
    resident_on_bytes: u64,
    /// Of what is resident above an empty server, in percent.
    saved_percent: f64,
    settle_seconds: f64,
    put: Paired,
    get: Paired,
    get_p99: Paired,
}

/// Medians in microseconds, and the median of the ratios.
#[derive(Debug, Serialize)]
struct Paired {
    off_us: f64,
    on_us: f64,
    ratio: f64,
}

impl Paired {
    fn of(pairs: &[(f64, f64)]) -> Self {
        Self {
            off_us: median(pairs.iter().map(|(off, _)| *off).collect()),
            on_us: median(pairs.iter().map(|(_, on)| *on).collect()),
            ratio: median(pairs.iter().map(|(off, on)| on / off).collect()),
        }
    }

    fn cells(&self) -> [String; 3] {
        [
            format!("{:.1}", self.off_us),
            format!("{:.1}", self.on_us),
            format!("{:+.1}", (self.ratio - 1.0) * 100.0),
        ]
    }
}

pub(crate) fn run(options: &Compression) -> Result<(), Error> {
    let environment = Environment::read();
    let folder = temporary_folder(options.subjects.temp.as_deref())?;
    let launcher = Launcher::new(&options.subjects, folder.path())?;
    let mut files = Vec::new();
    for (file, originals) in originals(options)? {
        files.push(measure(options, &launcher, file, &originals)?);
    }
    let outcome = Outcome { environment, files };
    if options.subjects.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&outcome).expect("an outcome is plain data")
        );
    } else {
        print(options, &outcome);
    }
    Ok(())
}

/// By file, the documents in it.
fn originals(options: &Compression) -> Result<Vec<(String, Vec<String>)>, Error> {
    let folder = &options.data;
    let mut files = originals_of(folder)?;
    let mut random = fastrand::Rng::with_seed(options.seed);
    let noise = (0..64).map(|_| {
        let text: String = (0..1_000).map(|_| random.alphanumeric()).collect();
        format!("{{\"noise\":\"{text}\"}}")
    });
    files.push((RANDOM.to_owned(), noise.collect()));
    files.retain(|(name, documents)| name.contains(&options.only) && !documents.is_empty());
    if files.is_empty() {
        return Err(Error::Usage(format!(
            "{} has no documents whose file's name contains {:?}; expected NDJSON files",
            folder.display(),
            options.only
        )));
    }
    Ok(files)
}

/// The documents of every NDJSON file of a folder, by file.
pub(crate) fn originals_of(folder: &Path) -> Result<Vec<(String, Vec<String>)>, Error> {
    let failed = |source| Error::Io {
        doing: format!("reading the folder {}", folder.display()),
        source,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "ndjson")
        {
            let name = path.file_stem().unwrap_or_default();
            files.push((name.to_string_lossy().into_owned(), documents(&path)?));
        }
    }
    files.sort();
    if files.iter().all(|(_, documents)| documents.is_empty()) {
        return Err(Error::Usage(format!(
            "{} has no documents; expected NDJSON files",
            folder.display()
        )));
    }
    Ok(files)
}

fn documents(path: &Path) -> Result<Vec<String>, Error> {
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        value: &'a RawValue,
    }
    let text = fs::read_to_string(path).map_err(|source| Error::Io {
        doing: format!("reading {}", path.display()),
        source,
    })?;
    text.lines()
        .enumerate()
        .map(|(at, line)| {
            let line: Line<'_> = serde_json::from_str(line).map_err(|error| {
                Error::Usage(format!(
                    "{} line {}: {error}; expected {{\"key\":…,\"value\":…}}",
                    path.display(),
                    at + 1
                ))
            })?;
            Ok(line.value.get().to_owned())
        })
        .collect()
}

/// What the documents of one file are repeated to: number by number, the same whenever it is asked.
pub(crate) struct Copies<'a> {
    originals: &'a [String],
    noise: bool,
    seed: u64,
}

impl<'a> Copies<'a> {
    pub(crate) fn new(originals: &'a [String], seed: u64) -> Self {
        Self {
            originals,
            noise: false,
            seed,
        }
    }

    /// Document `number`, as it is after so many changes.
    pub(crate) fn document(&self, number: usize, change: u64) -> String {
        let mut random = fastrand::Rng::with_seed(self.seed ^ (number as u64) << 20 ^ change << 50);
        let original = &self.originals[number % self.originals.len()];
        if self.noise {
            let text: String = (0..original.len()).map(|_| random.alphanumeric()).collect();
            return format!("\"{text}\"");
        }
        changed(original, &mut random)
    }
}

fn measure(
    options: &Compression,
    launcher: &Launcher<'_>,
    file: String,
    originals: &[String],
) -> Result<FileOutcome, Error> {
    eprintln!("{file}: loading");
    let copies = Copies {
        originals,
        noise: file == RANDOM,
        seed: options.seed,
    };
    let off = launcher.inflightkv(None, &["--compression", "off"])?;
    let on = launcher.inflightkv(None, &["--compression", &options.codec])?;
    let empty = [
        usage::resident_bytes(off.pid())?,
        usage::resident_bytes(on.pid())?,
    ];
    let (documents, value_bytes) = fill([&off, &on], &copies, options.mib << 20)?;
    eprintln!("{file}: waiting until {documents} documents were looked at");
    let settle_seconds = settled(&on)?.as_secs_f64();

    eprintln!("{file}: measuring");
    let plan = |server: &Server| Plan {
        connections: 16,
        threads: 1,
        checks_length: false,
        pids: vec![server.pid()],
        stop: Stop::After(options.round),
        ..Plan::new(
            server.address,
            server.name.protocol(server.address),
            Data::new(documents as u64, 100, options.seed),
            Mix::Get,
        )
    };
    let (mut get, mut get_p99, mut put) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds {
        interrupt::check()?;
        get.push(in_turns(round, &off, &on, |server| {
            let report = load::run(&plan(server))?;
            report.demand_success()?;
            Ok(report
                .server
                .map_or(f64::NAN, |server| server.cpu_us_per_request))
        })?);
        get_p99.push(in_turns(round, &off, &on, |server| {
            let report = load::run(&Plan {
                pace: Pace::Open {
                    rate: options.rate,
                    arrivals: Arrivals::Constant,
                },
                ..plan(server)
            })?;
            report.demand_success()?;
            Ok(report.latency_us.p99)
        })?);
    }
    // After the reads: what another thread released is given back by the one that allocated it, when that next has something
    // to do.
    let resident_off_bytes = usage::resident_bytes(off.pid())?;
    let resident_on_bytes = usage::resident_bytes(on.pid())?;
    let saved = 1.0
        - resident_on_bytes.saturating_sub(empty[1]) as f64
            / resident_off_bytes.saturating_sub(empty[0]).max(1) as f64;
    // Last: what is written is another document, and is compressed anew.
    for round in 0..options.rounds {
        interrupt::check()?;
        put.push(in_turns(round, &off, &on, |server| {
            put_cpu(
                server,
                &copies,
                documents,
                u64::from(round) + 1,
                options.round,
            )
        })?);
    }
    off.stop()?;
    on.stop()?;
    Ok(FileOutcome {
        file,
        documents,
        value_bytes,
        resident_off_bytes,
        resident_on_bytes,
        saved_percent: saved * 100.0,
        settle_seconds,
        put: Paired::of(&put),
        get: Paired::of(&get),
        get_p99: Paired::of(&get_p99),
    })
}

/// The same of both servers, the first one being another each time.
fn in_turns(
    round: u32,
    off: &Server,
    on: &Server,
    mut take: impl FnMut(&Server) -> Result<f64, Error>,
) -> Result<(f64, f64), Error> {
    if round.is_multiple_of(2) {
        let first = take(off)?;
        Ok((first, take(on)?))
    } else {
        let first = take(on)?;
        Ok((take(off)?, first))
    }
}

/// Writes documents to both servers until they have so many bytes of values; how many, and how many bytes.
fn fill(
    servers: [&Server; 2],
    copies: &Copies<'_>,
    bytes_min: usize,
) -> Result<(usize, u64), Error> {
    let mut clients = [servers[0].connect()?, servers[1].connect()?];
    let (mut documents, mut bytes) = (0, 0);
    while bytes < bytes_min as u64 {
        interrupt::check()?;
        let (mut batch, mut count) = (Vec::new(), 0);
        while batch.len() < BATCH_BYTES && count < 10_000 {
            let document = copies.document(documents, 0);
            batch.extend_from_slice(br#"{"op":"put","key":""#);
            batch.extend_from_slice(&key(documents as u64));
            batch.extend_from_slice(br#"","value":"#);
            batch.extend_from_slice(document.as_bytes());
            batch.extend_from_slice(b"}\n");
            bytes += document.len() as u64;
            documents += 1;
            count += 1;
        }
        for client in &mut clients {
            let answer =
                client.http_success("POST", "/v1/batch", "application/x-ndjson", &batch)?;
            let created = br#""status":201"#;
            let successes = answer
                .windows(created.len())
                .filter(|part| part == created)
                .count();
            if successes != count {
                return Err(Error::Usage(format!(
                    "{successes} of {count} documents of a batch were taken"
                )));
            }
        }
    }
    Ok((documents, bytes))
}

/// Waits until the compressor changes nothing any more; how long that took.
fn settled(server: &Server) -> Result<Duration, Error> {
    let begun = Instant::now();
    let mut client = server.connect()?;
    let mut last = (Vec::new(), Instant::now());
    while begun.elapsed() < SETTLE_MAX {
        interrupt::sleep_until(Instant::now() + Duration::from_millis(200))?;
        let told = stats(&mut client)?;
        let done: Vec<f64> = PROGRESS.map(|figure| number(&told, figure)).to_vec();
        if done != last.0 {
            last = (done, Instant::now());
        } else if last.1.elapsed() > QUIET {
            return Ok(last.1 - begun);
        }
    }
    Ok(begun.elapsed())
}

/// Processor time of a PUT of another document, in microseconds, with what is done in the background meanwhile.
fn put_cpu(
    server: &Server,
    copies: &Copies<'_>,
    documents: usize,
    change: u64,
    length: Duration,
) -> Result<f64, Error> {
    // Made before the clock runs: making one takes longer than writing it.
    let made: Vec<(usize, String)> = (0..2_000)
        .map(|step| {
            let number = (step * 7_919 + change as usize * 104_729) % documents;
            (number, copies.document(number, change))
        })
        .collect();
    let before = usage::cpu_time(server.pid())?;
    let until = Instant::now() + length;
    let written: u64 = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let made = &made;
                scope.spawn(move || {
                    let mut client = server.connect()?;
                    let mut written = 0;
                    for (number, document) in made.iter().skip(writer).step_by(WRITERS) {
                        if Instant::now() >= until {
                            break;
                        }
                        let key = key(*number as u64);
                        let path = format!("/v1/kv/{}", String::from_utf8_lossy(&key));
                        client.http_success(
                            "PUT",
                            &path,
                            "application/json",
                            document.as_bytes(),
                        )?;
                        written += 1;
                    }
                    Ok::<u64, Error>(written)
                })
            })
            .collect();
        let mut sum = 0;
        for writer in writers {
            sum += writer
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok::<u64, Error>(sum)
    })?;
    // What was written is compressed soon after, at the cost of these writes.
    interrupt::sleep_until(until.max(Instant::now()) + Duration::from_millis(300))?;
    let spent = usage::cpu_time(server.pid())?.saturating_sub(before);
    Ok(spent.as_secs_f64() * 1e6 / written.max(1) as f64)
}

fn print(options: &Compression, outcome: &Outcome) {
    println!(
        "{}\n{}",
        outcome.environment.line(),
        outcome.environment.command
    );
    println!(
        "--compression {} beside off; resident above an empty server; CPU in microseconds an operation, of the whole server; p99 \
         in microseconds at {} GETs a second\n",
        options.codec, options.rate
    );
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let mut table = Table::new(&[
        "file",
        "documents",
        "MiB",
        "resident off",
        "on",
        "saved %",
        "settled s",
        "PUT off",
        "on",
        "%",
        "GET off",
        "on",
        "%",
        "p99 off",
        "on",
        "%",
    ]);
    for file in &outcome.files {
        let mut cells = vec![
            file.file.clone(),
            file.documents.to_string(),
            mib(file.value_bytes),
            mib(file.resident_off_bytes),
            mib(file.resident_on_bytes),
            format!("{:.1}", file.saved_percent),
            format!("{:.1}", file.settle_seconds),
        ];
        for paired in [&file.put, &file.get, &file.get_p99] {
            cells.extend(paired.cells());
        }
        table.push(cells);
    }
    print!("{table}");
}
