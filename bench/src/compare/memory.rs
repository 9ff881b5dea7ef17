//! Memory per key, and how long a server takes until it is ready again with these keys.

use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::{Data, Memory, ServerName};
use crate::compare::table::Table;
use crate::compare::temporary_folder;
use crate::environment::Environment;
use crate::error::Error;
use crate::fill::Range;
use crate::load::{self, Plan, Stop};
use crate::protocol::resp;
use crate::servers::{self, Launcher, Server};
use crate::suite::{number, stats};
use crate::workload::KEY_BYTES;
use crate::workload::mix::Mix;
use crate::{fill, interrupt, usage};

/// After loading, for what a server does in the background.
const SETTLE: Duration = Duration::from_secs(1);
/// Keys that are read back after a restart.
const SAMPLE: u64 = 20_000;

#[derive(Debug, Serialize)]
struct Outcome {
    environment: Environment,
    keys: u64,
    value_bytes: usize,
    payload_bytes_per_key: usize,
    servers: Vec<ServerOutcome>,
}

#[derive(Debug, Serialize)]
struct ServerOutcome {
    server: &'static str,
    resident_empty_bytes: u64,
    resident_loaded_bytes: u64,
    resident_bytes_per_key: f64,
    /// What the store itself counts for each key, where it says so.
    counted_bytes_per_key: Option<f64>,
    load_seconds: f64,
    restarts: Vec<Restart>,
}

#[derive(Debug, Serialize)]
struct Restart {
    /// What the keys are read from.
    from: &'static str,
    /// From the start of the process to its being ready.
    ready_seconds: f64,
    resident_bytes: u64,
    /// Saving the snapshot, where there was one to save.
    save_seconds: Option<f64>,
    stop_seconds: f64,
}

pub(crate) fn run(options: &Memory) -> Result<(), Error> {
    let knows = [
        ServerName::Inflightkv,
        ServerName::Redis,
        ServerName::Memcached,
    ];
    if options.servers.iter().any(|name| !knows.contains(name)) {
        return Err(Error::Usage(
            "compare memory knows inflightkv, redis and memcached".to_owned(),
        ));
    }
    let environment = Environment::read();
    let folder = temporary_folder(options.subjects.temp.as_deref())?;
    let bench = Bench {
        options,
        launcher: Launcher::new(&options.subjects, folder.path())?,
        folder: folder.path(),
    };
    let servers = servers::available(&options.servers)?
        .into_iter()
        .map(|name| match name {
            ServerName::Redis => bench.redis(),
            // It keeps nothing over a restart.
            ServerName::Memcached => bench.loaded(bench.launcher.memcached()?),
            _ => bench.inflightkv(),
        })
        .collect::<Result<_, _>>()?;
    let payload_bytes_per_key = KEY_BYTES + options.value_bytes;
    let outcome = Outcome {
        environment,
        keys: options.keys,
        value_bytes: options.value_bytes,
        payload_bytes_per_key,
        servers,
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

struct Bench<'a> {
    options: &'a Memory,
    launcher: Launcher<'a>,
    folder: &'a Path,
}

impl Bench<'_> {
    fn inflightkv(&self) -> Result<ServerOutcome, Error> {
        let outcome = self.loaded(self.launcher.inflightkv(None, &[])?)?;
        let data = self.folder.join("inflightkv");
        let start = || self.launcher.inflightkv(Some(&data), &[]);

        let server = start()?;
        self.load(&server)?;
        let stop_seconds = server.stop()?.as_secs_f64();
        let server = start()?;
        let from_log = self.restarted(&server, "log", None, stop_seconds)?;

        let saving = Instant::now();
        server.connect()?.http_success(
            "POST",
            "/v1/admin/snapshot?wait=true",
            "application/json",
            b"",
        )?;
        let save_seconds = Some(saving.elapsed().as_secs_f64());
        let stop_seconds = server.stop()?.as_secs_f64();
        let server = start()?;
        let from_snapshot = self.restarted(&server, "snapshot", save_seconds, stop_seconds)?;
        server.stop()?;
        Ok(ServerOutcome {
            restarts: vec![from_log, from_snapshot],
            ..outcome
        })
    }

    fn redis(&self) -> Result<ServerOutcome, Error> {
        let outcome = self.loaded(self.launcher.redis(&self.folder.join("redis"), &[])?)?;

        let log = self.folder.join("redis-log");
        let start = || {
            self.launcher
                .redis(&log, &["--appendonly", "yes", "--appendfsync", "everysec"])
        };
        let server = start()?;
        self.load(&server)?;
        let stop_seconds = server.stop()?.as_secs_f64();
        let server = start()?;
        let from_log = self.restarted(&server, "log", None, stop_seconds)?;
        server.stop()?;

        let snapshot = self.folder.join("redis-snapshot");
        let start = || self.launcher.redis(&snapshot, &[]);
        let server = start()?;
        self.load(&server)?;
        let mut save = Vec::new();
        resp::append_command(&[b"SAVE"], &mut save);
        let saving = Instant::now();
        server.connect()?.redis(&save, 1)?;
        let save_seconds = Some(saving.elapsed().as_secs_f64());
        let stop_seconds = server.stop()?.as_secs_f64();
        let server = start()?;
        let from_snapshot = self.restarted(&server, "snapshot", save_seconds, stop_seconds)?;
        server.stop()?;
        Ok(ServerOutcome {
            restarts: vec![from_log, from_snapshot],
            ..outcome
        })
    }

    /// Memory of a server without persistence, before and after loading.
    fn loaded(&self, server: Server) -> Result<ServerOutcome, Error> {
        let resident_empty_bytes = usage::resident_bytes(server.pid())?;
        let load_seconds = self.load(&server)?.as_secs_f64();
        let resident_loaded_bytes = usage::resident_bytes(server.pid())?;
        let counted_bytes_per_key = (server.name == ServerName::Inflightkv)
            .then(|| {
                let told = stats(&mut server.connect()?)?;
                let counted = [
                    "/total/entryBytes",
                    "/total/tableBytes",
                    "/total/slackBytes",
                ];
                let bytes: f64 = counted.iter().map(|name| number(&told, name)).sum();
                Ok::<_, Error>(bytes / self.options.keys as f64)
            })
            .transpose()?;
        let name = server.name.as_str();
        server.stop()?;
        Ok(ServerOutcome {
            server: name,
            resident_empty_bytes,
            resident_loaded_bytes,
            resident_bytes_per_key: resident_loaded_bytes.saturating_sub(resident_empty_bytes)
                as f64
                / self.options.keys as f64,
            counted_bytes_per_key,
            load_seconds,
            restarts: Vec::new(),
        })
    }

    /// Measures a server that has just restarted, and makes sure that it has the keys.
    fn restarted(
        &self,
        server: &Server,
        from: &'static str,
        save_seconds: Option<f64>,
        stop_seconds: f64,
    ) -> Result<Restart, Error> {
        let resident_bytes = usage::resident_bytes(server.pid())?;
        load::run(&self.sample(server))?.demand_success()?;
        Ok(Restart {
            from,
            ready_seconds: server.ready_after.as_secs_f64(),
            resident_bytes,
            save_seconds,
            stop_seconds,
        })
    }

    /// Reads of random keys, each of which has to be there with a value of the right length.
    fn sample(&self, server: &Server) -> Plan {
        let Memory {
            keys,
            value_bytes,
            seed,
            ..
        } = *self.options;
        let data = Data::new(keys, value_bytes, seed);
        let protocol = server.name.protocol(server.address);
        Plan {
            connections: 10,
            stop: Stop::Requests(SAMPLE),
            ..Plan::new(server.address, protocol, data, Mix::Get)
        }
    }

    /// Writes every key, and lets the server settle; how long the writing took.
    fn load(&self, server: &Server) -> Result<Duration, Error> {
        let Memory {
            keys,
            value_bytes,
            seed,
            ..
        } = *self.options;
        let progress = progress(keys, server.name.as_str());
        let data = Data::new(keys, value_bytes, seed);
        let took = fill::run(server, &data, Range::default(), |count| progress.inc(count))?;
        progress.finish_and_clear();
        interrupt::sleep_until(Instant::now() + SETTLE)?;
        Ok(took)
    }
}

fn progress(keys: u64, name: &str) -> ProgressBar {
    let bar = ProgressBar::new(keys);
    let style = ProgressStyle::with_template("loading {msg} {wide_bar} {pos}/{len} {eta}");
    bar.set_style(style.expect("the template is constant"));
    bar.set_message(name.to_owned());
    bar
}

fn print(outcome: &Outcome) {
    println!(
        "{}\n{}",
        outcome.environment.line(),
        outcome.environment.command
    );
    println!(
        "{} keys of {KEY_BYTES} bytes, values of {} bytes\n",
        outcome.keys, outcome.value_bytes
    );
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let redis = outcome
        .servers
        .iter()
        .find(|server| server.server == ServerName::Redis.as_str());
    let mut table = Table::new(&[
        "",
        "empty MiB",
        "loaded MiB",
        "bytes/key",
        "counted",
        "counted beside",
        "to payload",
        "to redis",
        "load s",
        "keys/s",
    ]);
    for server in &outcome.servers {
        let per_key = server.resident_bytes_per_key;
        let counted = |payload: usize| {
            server.counted_bytes_per_key.map_or_else(
                || "-".to_owned(),
                |bytes| format!("{:.1}", bytes - payload as f64),
            )
        };
        table.push(vec![
            server.server.to_owned(),
            mib(server.resident_empty_bytes),
            mib(server.resident_loaded_bytes),
            format!("{per_key:.1}"),
            counted(0),
            counted(outcome.payload_bytes_per_key),
            format!("{:.2}", per_key / outcome.payload_bytes_per_key as f64),
            redis.map_or_else(
                || "-".to_owned(),
                |redis| format!("{:.2}", per_key / redis.resident_bytes_per_key),
            ),
            format!("{:.2}", server.load_seconds),
            format!("{:.0}", outcome.keys as f64 / server.load_seconds),
        ]);
    }
    println!("{table}");
    let mut table = Table::new(&[
        "restart from",
        "ready s",
        "to redis",
        "loaded MiB",
        "save s",
        "stop s",
    ]);
    for server in &outcome.servers {
        for restart in &server.restarts {
            let peer = redis
                .and_then(|redis| redis.restarts.iter().find(|peer| peer.from == restart.from));
            table.push(vec![
                format!("{} {}", server.server, restart.from),
                format!("{:.3}", restart.ready_seconds),
                peer.map_or_else(
                    || "-".to_owned(),
                    |peer| format!("{:.2}", restart.ready_seconds / peer.ready_seconds),
                ),
                mib(restart.resident_bytes),
                restart
                    .save_seconds
                    .map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2}")),
                format!("{:.2}", restart.stop_seconds),
            ]);
        }
    }
    print!("{table}");
}
