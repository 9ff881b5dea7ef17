//! Snapshots side by side: how long one takes, what it makes of memory and of the latency of reads meanwhile, how large it is,
//! and how soon a server is ready again with it, or with its log.
//!
//! Each server holds the same keys and logs once a second. While it is read on a schedule it saves a full snapshot, and
//! another one when that stands, for the whole of a round: so every read of the round meets a snapshot. Memory is what
//! the server's processes have in proportion (`Pss`), so a fork that shares its pages is not counted twice.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::{Arrivals, Data, Saving, ServerName};
use crate::compare::table::Table;
use crate::compare::{median, temporary_folder};
use crate::documents::{Copies, originals_of};
use crate::environment::Environment;
use crate::error::Error;
use crate::load::{self, Pace, Plan, Stop};
use crate::protocol::resp;
use crate::servers::{self, Launcher, Server};
use crate::workload::key;
use crate::workload::mix::Mix;
use crate::{fill, interrupt, suite, usage};

/// After loading, for what a server does in the background.
const SETTLE: Duration = Duration::from_secs(1);
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
const ASK_EVERY: Duration = Duration::from_millis(5);
/// No snapshot but those that are asked for.
const NO_OTHERS: [&str; 4] = ["--snapshot-after", "1TiB", "--snapshot-interval", "365d"];

#[derive(Debug, Serialize)]
struct Outcome {
    environment: Environment,
    keys: u64,
    value_bytes: u64,
    servers: Vec<ServerOutcome>,
}

#[derive(Debug, Serialize)]
struct ServerOutcome {
    server: &'static str,
    snapshots: usize,
    save_seconds: f64,
    file_bytes: u64,
    memory_bytes: u64,
    memory_grows_by_bytes: u64,
    quiet: Reads,
    saving: Reads,
    ready_from_log_seconds: f64,
    ready_from_snapshot_seconds: f64,
}

/// GETs on a schedule; microseconds from when each was due.
#[derive(Debug, Serialize)]
struct Reads {
    p50: f64,
    p99: f64,
    max: f64,
}

/// What the servers hold.
struct Content<'a> {
    options: &'a Saving,
    documents: Option<Vec<String>>,
}

pub(crate) fn run(options: &Saving) -> Result<(), Error> {
    let knows = [ServerName::Inflightkv, ServerName::Redis];
    if options.servers.iter().any(|name| !knows.contains(name)) {
        return Err(Error::Usage(
            "compare saving knows inflightkv and redis".to_owned(),
        ));
    }
    let environment = Environment::read();
    let folder = temporary_folder(options.subjects.temp.as_deref())?;
    let launcher = Launcher::new(&options.subjects, folder.path())?;
    let documents = match &options.data {
        Some(folder) => {
            let files = originals_of(folder)?;
            Some(files.into_iter().flat_map(|(_, texts)| texts).collect())
        }
        None => None,
    };
    let content = Content { options, documents };
    let (mut keys, mut value_bytes) = (0, 0);
    let mut outcomes = Vec::new();
    for name in servers::available(&options.servers)? {
        let data = folder.path().join(name.as_str());
        let outcome;
        (outcome, keys, value_bytes) = measure(&content, &launcher, name, &data)?;
        outcomes.push(outcome);
        fs::remove_dir_all(&data).map_err(Error::io("removing a data directory"))?;
    }
    let outcome = Outcome {
        environment,
        keys,
        value_bytes,
        servers: outcomes,
    };
    if options.subjects.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&outcome).expect("an outcome is plain data")
        );
    } else {
        print(&outcome);
    }
    Ok(())
}

fn start(
    launcher: &Launcher<'_>,
    name: ServerName,
    data: &Path,
    log: bool,
) -> Result<Server, Error> {
    match (name, log) {
        (ServerName::Redis, true) => {
            launcher.redis(data, &["--appendonly", "yes", "--appendfsync", "everysec"])
        }
        (ServerName::Redis, false) => launcher.redis(data, &[]),
        _ => launcher.inflightkv(Some(data), &NO_OTHERS),
    }
}

fn measure(
    content: &Content<'_>,
    launcher: &Launcher<'_>,
    name: ServerName,
    data: &Path,
) -> Result<(ServerOutcome, u64, u64), Error> {
    eprintln!("{}: loading", name.as_str());
    let server = start(launcher, name, data, true)?;
    let (keys, value_bytes) = content.fill(&server)?;
    server.stop()?;
    let server = start(launcher, name, data, true)?;
    let ready_from_log_seconds = server.ready_after.as_secs_f64();
    interrupt::sleep_until(Instant::now() + SETTLE)?;

    eprintln!("{}: reading", name.as_str());
    let quiet = content.read(&server, keys)?;
    let memory_bytes = proportional_bytes(server.pid())?;
    eprintln!("{}: reading while it saves", name.as_str());
    let over = AtomicBool::new(false);
    let (saving, saves, peak) = thread::scope(|scope| {
        let saver = scope.spawn(|| save_again_and_again(&server, &over));
        let watcher = scope.spawn(|| peak_bytes(server.pid(), &over));
        let reads = content.read(&server, keys);
        over.store(true, Ordering::Relaxed);
        let saves = suite::joined(saver);
        let peak = suite::joined(watcher);
        Ok::<_, Error>((reads?, saves?, peak?))
    })?;
    let file_bytes = match name {
        ServerName::Redis => length(&data.join("dump.rdb"))?,
        _ => newest_snapshot_bytes(&server)?,
    };
    server.stop()?;
    let server = start(launcher, name, data, false)?;
    let ready_from_snapshot_seconds = server.ready_after.as_secs_f64();
    content.read_back(&server, keys)?;
    server.stop()?;
    let outcome = ServerOutcome {
        server: name.as_str(),
        snapshots: saves.len(),
        save_seconds: median(saves),
        file_bytes,
        memory_bytes,
        memory_grows_by_bytes: peak.saturating_sub(memory_bytes),
        quiet,
        saving,
        ready_from_log_seconds,
        ready_from_snapshot_seconds,
    };
    Ok((outcome, keys, value_bytes))
}

impl Content<'_> {
    /// Writes everything; how many keys, and how many bytes their values have.
    fn fill(&self, server: &Server) -> Result<(u64, u64), Error> {
        let Saving {
            keys,
            value_bytes,
            seed,
            mib,
            ..
        } = *self.options;
        let Some(originals) = &self.documents else {
            let data = Data::new(keys, value_bytes, seed);
            fill::run(server, &data, fill::Range::default(), |_| ())?;
            return Ok((keys, keys * value_bytes as u64));
        };
        let copies = Copies::new(originals, seed);
        let (mut number, mut bytes) = (0, 0);
        let mut batch = fill::Batch::new(server)?;
        while bytes < (mib << 20) as u64 {
            let document = copies.document(number, 0);
            bytes += document.len() as u64;
            batch.put(&key(number as u64), document.as_bytes())?;
            number += 1;
        }
        batch.end()?;
        Ok((number as u64, bytes))
    }

    fn plan(&self, server: &Server, keys: u64) -> Plan {
        let data = Data::new(keys, self.options.value_bytes, self.options.seed);
        let protocol = server.name.protocol(server.address);
        Plan {
            checks_length: false,
            ..Plan::new(server.address, protocol, data, Mix::Get)
        }
    }

    fn read(&self, server: &Server, keys: u64) -> Result<Reads, Error> {
        let report = load::run(&Plan {
            pace: Pace::Open {
                rate: self.options.rate,
                arrivals: Arrivals::Constant,
            },
            stop: Stop::After(self.options.round),
            ..self.plan(server, keys)
        })?;
        report.demand_success()?;
        Ok(Reads {
            p50: report.latency_us.p50,
            p99: report.latency_us.p99,
            max: report.latency_us.max,
        })
    }

    /// Makes sure that random keys are there.
    fn read_back(&self, server: &Server, keys: u64) -> Result<(), Error> {
        let report = load::run(&Plan {
            stop: Stop::Requests(5_000),
            ..self.plan(server, keys)
        })?;
        report.demand_success()
    }
}

/// Seconds of each snapshot. The last one begun is waited for.
fn save_again_and_again(server: &Server, over: &AtomicBool) -> Result<Vec<f64>, Error> {
    let mut seconds = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        save(server)?;
        seconds.push(begun.elapsed().as_secs_f64());
    }
    Ok(seconds)
}

fn save(server: &Server) -> Result<(), Error> {
    let mut client = server.connect()?;
    if server.name != ServerName::Redis {
        let path = "/v1/admin/snapshot?mode=full&wait=true";
        client.http_success("POST", path, "application/json", b"")?;
        return Ok(());
    }
    let mut command = Vec::new();
    resp::append_command(&[b"BGSAVE"], &mut command);
    client.redis(&command, 1)?;
    command.clear();
    resp::append_command(&[b"INFO", b"persistence"], &mut command);
    loop {
        let mut saves = false;
        client.redis_each(&command, 1, |reply| {
            let running = b"rdb_bgsave_in_progress:1";
            saves = reply.windows(running.len()).any(|part| part == running);
        })?;
        if !saves {
            return Ok(());
        }
        interrupt::sleep_until(Instant::now() + ASK_EVERY)?;
    }
}

fn newest_snapshot_bytes(server: &Server) -> Result<u64, Error> {
    let mut client = server.connect()?;
    let body = client.http_success("GET", "/v1/admin/snapshots", "application/json", b"")?;
    let listing: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let sizes = listing["snapshots"].as_array().into_iter().flatten();
    let newest = sizes.max_by_key(|one| one["id"].as_u64());
    newest
        .and_then(|one| one["bytes"].as_u64())
        .ok_or_else(|| Error::Answer {
            name: server.name.as_str().to_owned(),
            what: "the list of snapshots".to_owned(),
            found: String::from_utf8_lossy(&body).chars().take(200).collect(),
            expected: "one with its bytes".to_owned(),
        })
}

fn length(path: &Path) -> Result<u64, Error> {
    let found = fs::metadata(path);
    found
        .map(|metadata| metadata.len())
        .map_err(Error::io(format!("looking at {}", path.display())))
}

fn peak_bytes(pid: u32, over: &AtomicBool) -> Result<u64, Error> {
    let mut peak = 0;
    while !over.load(Ordering::Relaxed) {
        peak = peak.max(proportional_bytes(pid)?);
        thread::sleep(SAMPLE_EVERY);
    }
    Ok(peak)
}

/// Of the process and those that it forked.
fn proportional_bytes(pid: u32) -> Result<u64, Error> {
    let forked = usage::children(pid);
    let own = usage::proportional_bytes(pid)?;
    // One that has ended meanwhile has nothing.
    let theirs = forked
        .into_iter()
        .filter_map(|child| usage::proportional_bytes(child).ok());
    Ok(own + theirs.sum::<u64>())
}

fn print(outcome: &Outcome) {
    println!(
        "{}\n{}",
        outcome.environment.line(),
        outcome.environment.command
    );
    println!(
        "{} keys, {:.1} MiB of values\n",
        outcome.keys,
        mib(outcome.value_bytes)
    );
    let mut table = Table::new(&[
        "",
        "snapshots",
        "save s",
        "file MiB",
        "memory MiB",
        "grows MiB",
        "from log s",
        "from snapshot s",
    ]);
    for server in &outcome.servers {
        table.push(vec![
            server.server.to_owned(),
            server.snapshots.to_string(),
            format!("{:.2}", server.save_seconds),
            format!("{:.1}", mib(server.file_bytes)),
            format!("{:.1}", mib(server.memory_bytes)),
            format!("{:.1}", mib(server.memory_grows_by_bytes)),
            format!("{:.2}", server.ready_from_log_seconds),
            format!("{:.2}", server.ready_from_snapshot_seconds),
        ]);
    }
    println!("{table}");
    let mut table = Table::new(&["GET, microseconds", "p50", "p99", "max"]);
    for server in &outcome.servers {
        for (when, reads) in [("quiet", &server.quiet), ("saving", &server.saving)] {
            table.push(vec![
                format!("{} {when}", server.server),
                format!("{:.0}", reads.p50),
                format!("{:.0}", reads.p99),
                format!("{:.0}", reads.max),
            ]);
        }
    }
    print!("{table}");
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
