//! `inflightkv serve`: from the configuration to the options of store and surfaces, then run until a signal ends it.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use clap::ArgMatches;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::connection::Url;
use super::logging::{self, Log};
use super::progress::Console;
use super::wire::Security;
use super::{Failure, access, arguments, follow, load, rules};
use crate::config::{self, Config, Live, Persistence, Recovery, WalCompress, WalSync};
use crate::engine::{self, CompressionMode, Damaged, Disk, Engine, OnDamage};
use crate::http;
use crate::observe::RequestLog;
use crate::runtime::server::{self, Observer, Prepare, ServerOptions};
#[cfg(feature = "tls")]
use crate::trust::Tls;
use crate::trust::{Access, Audit, Event, Tokens};

/// Files that the server has open itself, at most: listeners, event loops, log and snapshots.
const FILES_BESIDE: u64 = 128;

/// Runs the server until it has been asked to end.
pub(crate) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    take_small_pages();
    let (effective, config) = load(matches)?;
    let rules = rules(&config).map_err(Failure::Usage)?;
    let tokens = tokens(&config).map_err(Failure::Usage)?;
    let tls = tls(&config).map_err(Failure::Usage)?;
    if config.check_only {
        return Ok(());
    }
    let kept = return_freed_memory(&config);
    let console = Console::new(if config.tls.is_some() {
        "https"
    } else {
        "http"
    });
    let log = logging::install(config.log_format, config.log_level, console.bar())
        .map_err(|error| Failure::from_error(&error))?;
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    if let Some(error) = kept {
        tracing::warn!(%error, "freed memory cannot be given back at once: more than the limit may stay resident");
    }
    raise_the_limit_of_files(config.limits.connections_max);
    let follow = prepare_following(&config)?;
    let traces = traces(&config)?;
    let audit = config.audit_log.as_deref().map(Audit::open).transpose();
    let audit = audit.map_err(|error| Failure::from_error(&error))?;
    let access = Arc::new(Access::new(audit.clone()));
    access.set_tokens(tokens);
    let mut options = options(config, &log)?;
    options.engine.on_damage = audit.clone().map(|audit| {
        OnDamage::new(move |damaged, found_by| match damaged {
            Damaged::Value(key) => audit.damaged(key, found_by.name()),
            Damaged::File(place) => audit.damaged_file(place, found_by.name()),
        })
    });
    options.engine.rules = Arc::new(rules);
    options.prepare = follow;
    options.http.access = Arc::clone(&access);
    let tls = tls.map(Arc::new);
    #[cfg(feature = "tls")]
    {
        options.http.tls.clone_from(&tls);
    }
    #[cfg(feature = "otel")]
    {
        options.http.tracer = traces.as_ref().map(|exporter| exporter.tracer.clone());
    }
    let flags = arguments::given_settings(matches);
    let live = Live::new(
        effective,
        flags,
        Box::new(move |config, engine| apply(config, engine, &access, tls.as_deref())),
    );
    options.http.configuration = Some(Arc::new(live));
    let observer: Arc<dyn Observer> = Arc::new(console);
    let ended = server::run(options, &observer).map_err(|error| Failure::from_error(&error));
    if let Some(audit) = audit {
        audit.close();
    }
    if let Some(traces) = traces {
        traces.finish();
    }
    ended
}

/// The allocator's own variables: after how many milliseconds it gives freed memory back to the system, and whether it lets
/// the system back any of it by huge pages, of which one used byte makes two mebibytes resident.
const ALLOCATOR: [(&str, &str); 2] = [("MIMALLOC_PURGE_DELAY", "0"), ("MIMALLOC_ALLOW_THP", "0")];

/// With a limit of memory, has the allocator give back at once what is freed: what it holds for later would stand beside the
/// limit. It reads how it is to behave before `main`, so the program starts once more in its own place, with the same process
/// id and files, before it has opened anything. Whoever sets one of the variables decides. An error says why that was not
/// possible.
fn return_freed_memory(config: &Config) -> Option<std::io::Error> {
    let told = |(name, _): &(&str, &str)| std::env::var_os(name).is_some();
    if config.memory.bytes_max.is_none() || ALLOCATOR.iter().any(told) {
        return None;
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return Some(error),
    };
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    Some(command.args(arguments).envs(ALLOCATOR).exec())
}

/// Memory comes in pages of 4 KiB from here on. The allocator asks the kernel for huge ones, of which the first few objects of
/// every thread take one each: that is most of the memory of a server that holds nothing.
fn take_small_pages() {
    // A kernel that does not know the request has no huge pages to give either.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Has the server follow another one, if it is to.
fn prepare_following(config: &Config) -> Result<Option<Prepare>, Failure> {
    let Some(text) = &config.follow else {
        return Ok(None);
    };
    let url = Url::parse(text).map_err(|expected| {
        Failure::Usage(format!("follow: found {text:?}; expected {expected}"))
    })?;
    let security = match &config.tls_ca {
        _ if !url.is_tls() => Security::Plain,
        Some(path) => Security::trusting(path).map_err(Failure::Usage)?,
        None => {
            return Err(Failure::Usage(format!(
                "follow: found {text:?} without tls-ca; expected --tls-ca FILE as well, with the authorities that are trusted"
            )));
        }
    };
    // The one variable that every client of a server reads. No message ever shows it.
    let token = std::env::var("INFLIGHTKV_TOKEN").ok();
    let token = token
        .map(|token| token.trim().to_owned())
        .filter(|token| !token.is_empty());
    if token
        .iter()
        .any(|token| !token.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return Err(Failure::Usage(
            "environment variable INFLIGHTKV_TOKEN: found what is no token; expected one as `inflightkv token new` prints it"
                .to_owned(),
        ));
    }
    Ok(Some(Prepare::new(move |engine| {
        follow::start(engine, &url, token, security)
    })))
}

/// Lets the process have as many files open as the system allows it. Every connection is one, and shells start their
/// programs with a limit far below what may be set.
fn raise_the_limit_of_files(connections_max: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let files = getrlimit(Resource::Nofile).current;
    if let Some(files) = files.filter(|files| *files < connections_max as u64 + FILES_BESIDE) {
        tracing::warn!(
            files,
            connections = connections_max,
            "the limit of open files is below max-connections and the server's own: connections may have to wait"
        );
    }
}

/// Has the running server do what `config` says, as far as its run-time settings go: those of the table with
/// `runtime: true`. Checks come first, so that a configuration is taken whole or not at all.
fn apply(
    config: &Config,
    engine: &Engine,
    access: &Access,
    in_use: Option<&Tls>,
) -> Result<(), String> {
    let taken = take(config, engine, access, in_use);
    if let Some(audit) = access.audit() {
        audit.reopen();
        let certificate = config.tls.as_ref().map(|files| &files.certificate);
        let files = [
            config.validation.as_ref(),
            config.auth.as_ref(),
            certificate,
        ];
        let files = files.into_iter().flatten();
        let files: Vec<String> = files.map(|file| file.display().to_string()).collect();
        let mut details = vec![("files", files.join(", "))];
        if let Err(error) = &taken {
            details.push(("message", error.clone()));
        }
        audit.record(Event {
            action: "reload",
            success: taken.is_ok(),
            details,
            ..Event::default()
        });
    }
    taken
}

fn take(
    config: &Config,
    engine: &Engine,
    access: &Access,
    in_use: Option<&Tls>,
) -> Result<(), String> {
    let memory = memory(config.memory)?;
    let rules = rules(config)?;
    let tokens = tokens(config)?;
    let compression = compression(config.compression);
    match (in_use, tls(config)?) {
        (Some(in_use), Some(tls)) => in_use.replace(&tls),
        (None, None) => {}
        _ => return Err("tls-cert: turning TLS on or off takes a restart".to_owned()),
    }
    if engine.compression() != compression {
        engine
            .set_compression(compression)
            .map_err(|error| format!("compression: {error}"))?;
    }
    if engine.scrub_settings() != scrub(config) {
        engine
            .set_scrub(scrub(config))
            .map_err(|error| format!("scrub-interval: {error}"))?;
    }
    engine.set_memory(memory);
    engine.set_rules(rules);
    engine.set_rules_on_load(on_load(config));
    engine.set_verify_reads(config.verify_reads);
    access.set_tokens(tokens);
    Ok(())
}

#[cfg(feature = "tls")]
fn tls(config: &Config) -> Result<Option<Tls>, String> {
    let Some(files) = &config.tls else {
        return Ok(None);
    };
    let files = crate::trust::TlsFiles {
        certificate: &files.certificate,
        key: &files.key,
        client_ca: files.client_ca.as_ref(),
    };
    Tls::load(&files)
        .map(Some)
        .map_err(|error| error.to_string())
}

/// A build without TLS.
#[cfg(not(feature = "tls"))]
enum Tls {}

#[cfg(not(feature = "tls"))]
impl Tls {
    fn replace(&self, _: &Self) {
        match *self {}
    }
}

#[cfg(not(feature = "tls"))]
fn tls(config: &Config) -> Result<Option<Tls>, String> {
    match config.tls {
        None => Ok(None),
        Some(_) => Err(
            "tls-cert: found in a build without TLS; expected one with the feature `tls`"
                .to_owned(),
        ),
    }
}

#[cfg(feature = "otel")]
use super::traces::start as traces;

/// A build without traces.
#[cfg(not(feature = "otel"))]
enum Exporter {}

#[cfg(not(feature = "otel"))]
impl Exporter {
    fn finish(self) {
        match self {}
    }
}

#[cfg(not(feature = "otel"))]
fn traces(config: &Config) -> Result<Option<Exporter>, Failure> {
    match config.otlp_endpoint {
        None => Ok(None),
        Some(_) => Err(Failure::Usage(
            "otlp-endpoint: found in a build without traces; expected one with the feature `otel`"
                .to_owned(),
        )),
    }
}

fn tokens(config: &Config) -> Result<Option<Tokens>, String> {
    config.auth.as_deref().map(access::read).transpose()
}

fn rules(config: &Config) -> Result<engine::Rules, String> {
    let file = config.validation.as_deref();
    file.map_or_else(|| Ok(engine::Rules::default()), rules::read)
}

fn on_load(config: &Config) -> engine::OnLoad {
    if config.refuse_on_load {
        engine::OnLoad::Refuse
    } else {
        engine::OnLoad::Report
    }
}

fn memory(memory: config::Memory) -> Result<engine::Memory, String> {
    let policy = match memory.eviction {
        "none" => None,
        name => Some(
            name.parse()
                .map_err(|unknown| format!("eviction: {unknown}"))?,
        ),
    };
    Ok(engine::Memory {
        bytes_max: memory.bytes_max,
        policy,
    })
}

fn compression(compression: config::Compression) -> engine::Compression {
    engine::Compression {
        mode: match compression.mode {
            "lz4" => CompressionMode::Lz4,
            "snappy" => CompressionMode::Snappy,
            "zstd" => CompressionMode::Zstd,
            "adaptive" => CompressionMode::Adaptive,
            _ => CompressionMode::Off,
        },
        value_bytes_min: compression.value_bytes_min,
        dictionaries: compression.dictionaries,
        batches: compression.batches,
        keys: compression.keys,
        cold_after_ms: u64::try_from(compression.cold_after.as_millis()).unwrap_or(u64::MAX),
        cpu_percent: compression.cpu_percent,
    }
}

fn scrub(config: &Config) -> engine::Scrub {
    engine::Scrub {
        every: config.scrub_interval,
        bytes_per_second: config.scrub_rate,
    }
}

/// What runtime, engine and surfaces are told. Opens, and so locks, the data directory.
fn options(config: Config, log: &Log) -> Result<ServerOptions, Failure> {
    let limits = config.limits;
    let persistence = config.persistence.as_ref().map(persistence).transpose()?;
    Ok(ServerOptions {
        prepare: None,
        listen: config.listen,
        engine: engine::Options {
            partitions: config.partitions,
            lanes: config.threads,
            rules_on_load: on_load(&config),
            verify_reads: config.verify_reads,
            value_bytes_max: limits.value_bytes_max,
            memory: memory(config.memory).map_err(Failure::Usage)?,
            compression: compression(config.compression),
            scrub: scrub(&config),
            persistence,
            ..engine::Options::default()
        },
        http: http::Settings {
            node_name: config.node_id.clone(),
            node_id: config.node_id,
            key_bytes_max: limits.key_bytes_max,
            value_bytes_max: limits.value_bytes_max,
            batch_operations_max: limits.batch_operations_max,
            batch_bytes_max: limits.batch_bytes_max,
            header_bytes_max: limits.header_bytes_max,
            header_timeout: limits.header_timeout,
            body_timeout: limits.body_timeout,
            connections_max: limits.connections_max,
            streams_max: limits.streams_max,
            fairness: http::Fairness {
                connections_per_address_max: limits.connections_per_address_max,
                requests_per_connection_max: limits.requests_per_connection_max,
                requests_per_address_max: limits.requests_per_address_max,
                queue_delay_max: limits.queue_delay_max,
                upload_bytes_max: limits.upload_bytes_max,
            },
            shutdown_grace: config.shutdown_timeout,
            request_log: Some(RequestLog {
                sink: log.sink.clone(),
                format: log.format,
                sampling: config.log_requests,
                keys: config.log_keys,
                slow_after: config.slow_op,
            }),
            ..http::Settings::default()
        },
    })
}

fn persistence(config: &Persistence) -> Result<engine::Persistence, Failure> {
    let disk = Disk::open(&config.data_dir).map_err(|error| Failure::from_error(&error))?;
    Ok(engine::Persistence {
        start_off: config.start_off,
        wal: inflightkv_wal::Options {
            sync: match config.wal_sync {
                WalSync::Always => inflightkv_wal::SyncMode::Always,
                WalSync::Interval(interval) => inflightkv_wal::SyncMode::Interval(interval),
                WalSync::Os => inflightkv_wal::SyncMode::Os,
            },
            segment_bytes: config.wal_segment_bytes,
            segment_age: config.wal_segment_age,
            keep: config.wal_keep,
            ..inflightkv_wal::Options::default()
        },
        wal_compress: config.wal_compress.map(|compress| match compress {
            WalCompress::Lz4 => engine::WalCompression::Lz4,
            WalCompress::Zstd => engine::WalCompression::Zstd,
        }),
        recovery: match config.recovery {
            Recovery::Strict => inflightkv_wal::RecoveryMode::Strict,
            Recovery::PointInTime => inflightkv_wal::RecoveryMode::PointInTime,
        },
        snapshot_interval: config.snapshot_interval,
        snapshot_after: config.snapshot_after_bytes,
        snapshot_full_every: config.snapshot_full_every,
        ..engine::Persistence::on(disk)
    })
}
