//! The configuration: checked, typed, complete.
//!
//! `Effective::load` lays file, environment and flags over the defaults of the one table in `settings` and keeps where each
//! value came from; `Config::new` makes of that what the program works with. Nothing is corrected silently: what
//! is unknown, of the wrong type, out of range or contradictory is a `ConfigError` that names the place.

mod live;
mod memory;
mod print;
mod raw;
pub(crate) mod settings;
mod units;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

pub(crate) use live::Live;
pub(crate) use print::default_file;
pub(crate) use units::parse_duration;

use crate::observe::{Keys, Sampling};
use raw::Place;
use settings::{SETTINGS, Section, Setting, Value, WHOLE};

/// Why a configuration cannot be used: one line naming the place, the key, what was found and what would be right.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub(crate) struct ConfigError {
    place: String,
    problem: String,
}

impl ConfigError {
    fn new(place: &Place, problem: String) -> Self {
        ConfigError {
            place: place.to_string(),
            problem,
        }
    }
}

/// Every setting of the table with its value and where that came from.
#[derive(Clone, Debug)]
pub(crate) struct Effective {
    /// In the order of the table.
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    setting: &'static Setting,
    value: Option<Value>,
    place: Place,
}

impl Effective {
    /// Lays the file, the environment and the flags over the defaults; later wins.
    ///
    /// A wrong value is an error also where a later layer overrides it.
    pub(crate) fn load(
        flags: impl IntoIterator<Item = (&'static str, OsString)>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Effective, ConfigError> {
        let mut effective = Effective::defaults();
        for raw in raw::layers(flags, environment)? {
            let value = raw.read()?;
            effective.row_mut(raw.setting).set(value, raw.place);
        }
        Ok(effective)
    }

    fn defaults() -> Effective {
        let row = |setting: &'static Setting| Row {
            setting,
            value: setting.default_value(),
            place: Place::Default,
        };
        let mut effective = Effective {
            rows: SETTINGS.iter().map(row).collect(),
        };
        let cores =
            thread::available_parallelism().map_or(1, |cores| cores.get().min(1_024) as u64);
        let threads = settings::find("threads").expect("threads is in the table");
        effective.row_mut(threads).value = Some(Value::Count(cores));
        effective
    }

    fn row_mut(&mut self, setting: &'static Setting) -> &mut Row {
        self.rows
            .iter_mut()
            .find(|row| row.setting.name == setting.name)
            .expect("there is a row for every setting of the table")
    }

    fn row(&self, name: &str) -> &Row {
        self.rows
            .iter()
            .find(|row| row.setting.name == name)
            .expect("callers name settings of the table")
    }
}

impl Row {
    fn set(&mut self, value: Value, place: Place) {
        self.value = Some(value);
        self.place = place;
    }
}

/// What the server is to do, with nothing left to check.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) threads: usize,
    pub(crate) partitions: usize,
    pub(crate) node_id: String,
    /// The server to follow.
    pub(crate) follow: Option<String>,
    /// Authorities that are trusted to name it.
    pub(crate) tls_ca: Option<PathBuf>,
    pub(crate) shutdown_timeout: Duration,
    /// `None`: the store is in memory only.
    pub(crate) persistence: Option<Persistence>,
    pub(crate) memory: Memory,
    /// A file of rules about keys and values.
    pub(crate) validation: Option<PathBuf>,
    /// A file of tokens; `None`: everybody may do everything.
    pub(crate) auth: Option<PathBuf>,
    pub(crate) audit_log: Option<PathBuf>,
    /// `None`: connections are not encrypted.
    pub(crate) tls: Option<TlsFiles>,
    /// What is loaded and breaks a rule is refused.
    pub(crate) refuse_on_load: bool,
    /// Values are verified whenever they are read from memory.
    pub(crate) verify_reads: bool,
    /// How long after a scrub the next one begins; `None` for never.
    pub(crate) scrub_interval: Option<Duration>,
    pub(crate) scrub_rate: u64,
    pub(crate) compression: Compression,
    pub(crate) limits: Limits,
    /// `None`: pretty on a terminal, else JSON.
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) log_level: LogLevel,
    pub(crate) log_requests: Sampling,
    pub(crate) log_keys: Keys,
    /// Requests that take longer have a line; `None` for no such line.
    pub(crate) slow_op: Option<Duration>,
    /// The collector that traces are sent to.
    pub(crate) otlp_endpoint: Option<String>,
    pub(crate) trace_requests: Sampling,
    /// The caller wanted this check only.
    pub(crate) check_only: bool,
    /// Settings that are valid and have no effect as things stand, for the log.
    pub(crate) notices: Vec<String>,
}

fn sampling(rate: u32) -> Sampling {
    match rate {
        0 => Sampling::Off,
        WHOLE => Sampling::All,
        share => Sampling::Share(f64::from(share) / f64::from(WHOLE)),
    }
}

/// What a data directory brings with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Persistence {
    pub(crate) data_dir: PathBuf,
    /// In memory until persistence is turned on.
    pub(crate) start_off: bool,
    pub(crate) wal_sync: WalSync,
    pub(crate) wal_segment_bytes: u64,
    pub(crate) wal_segment_age: Duration,
    /// `None`: segments stay as they were written.
    pub(crate) wal_compress: Option<WalCompress>,
    pub(crate) wal_keep: Duration,
    pub(crate) snapshot_interval: Duration,
    pub(crate) snapshot_after_bytes: u64,
    pub(crate) snapshot_full_every: u32,
    pub(crate) recovery: Recovery,
}

/// When a write is on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WalSync {
    Always,
    Interval(Duration),
    Os,
}

/// What complete segments are rewritten with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WalCompress {
    Lz4,
    Zstd,
}

/// What a damaged log means at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    Strict,
    PointInTime,
}

/// How much memory the data may take, and what goes when it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// `None`: no limit.
    pub(crate) bytes_max: Option<u64>,
    /// The name of the policy.
    pub(crate) eviction: &'static str,
}

/// How values in memory are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compression {
    /// The name of the codec, or `off` or `adaptive`.
    pub(crate) mode: &'static str,
    pub(crate) value_bytes_min: usize,
    pub(crate) dictionaries: bool,
    pub(crate) batches: bool,
    pub(crate) cold_after: Duration,
    pub(crate) keys: bool,
    pub(crate) cpu_percent: u8,
}

/// What a client may ask for at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) key_bytes_max: usize,
    pub(crate) value_bytes_max: usize,
    pub(crate) batch_operations_max: usize,
    pub(crate) batch_bytes_max: usize,
    pub(crate) header_bytes_max: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) connections_max: usize,
    pub(crate) connections_per_address_max: Option<usize>,
    pub(crate) streams_max: u32,
    pub(crate) requests_per_connection_max: Option<u32>,
    pub(crate) requests_per_address_max: Option<u32>,
    pub(crate) upload_bytes_max: usize,
    pub(crate) queue_delay_max: Duration,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Pretty,
    Json,
    Ecs,
}

/// The least important event that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Config {
    /// Checks the settings against each other and gives them their types.
    pub(crate) fn new(effective: &Effective) -> Result<Config, ConfigError> {
        exposed_without_authentication(effective)?;
        let data_dir = effective.path("data-dir");
        let notices = if data_dir.is_some() {
            Vec::new()
        } else {
            idle_persistence(effective)?
        };
        Ok(Config {
            listen: effective.address("listen"),
            threads: effective.count("threads"),
            partitions: effective.count("partitions"),
            node_id: effective.name("node-id"),
            follow: effective.name_if_any("follow"),
            tls_ca: effective.path("tls-ca"),
            shutdown_timeout: effective.duration("shutdown-timeout"),
            persistence: data_dir.map(|data_dir| Persistence::new(effective, data_dir)),
            memory: Memory::new(effective)?,
            validation: effective.path("validation"),
            auth: effective.path("auth"),
            audit_log: effective.path("audit-log"),
            tls: TlsFiles::new(effective)?,
            refuse_on_load: effective.choice("rules-on-load") == Some("refuse"),
            verify_reads: effective.switch("verify-reads"),
            scrub_interval: Some(effective.duration("scrub-interval"))
                .filter(|interval| !interval.is_zero()),
            scrub_rate: effective.size("scrub-rate"),
            compression: Compression::new(effective),
            limits: Limits::new(effective)?,
            log_format: effective.choice("log-format").map(|format| match format {
                "pretty" => LogFormat::Pretty,
                "ecs" => LogFormat::Ecs,
                _ => LogFormat::Json,
            }),
            log_level: match effective.choice("log-level").unwrap_or_default() {
                "off" => LogLevel::Off,
                "error" => LogLevel::Error,
                "warn" => LogLevel::Warn,
                "debug" => LogLevel::Debug,
                "trace" => LogLevel::Trace,
                _ => LogLevel::Info,
            },
            log_requests: sampling(effective.rate("log-requests")),
            log_keys: match effective.choice("log-keys").unwrap_or_default() {
                "off" => Keys::Hidden,
                "plain" => Keys::Plain,
                _ => Keys::Hashed,
            },
            slow_op: Some(effective.duration("slow-op")).filter(|limit| !limit.is_zero()),
            otlp_endpoint: effective.name_if_any("otlp-endpoint"),
            trace_requests: sampling(effective.rate("trace-requests")),
            check_only: effective.switch("check-config"),
            notices,
        })
    }
}

impl Persistence {
    fn new(effective: &Effective, data_dir: PathBuf) -> Self {
        Persistence {
            data_dir,
            start_off: effective.choice("persistence") == Some("off"),
            wal_sync: match effective.choice("wal-sync").unwrap_or_default() {
                "always" => WalSync::Always,
                "os" => WalSync::Os,
                _ => WalSync::Interval(effective.duration("wal-sync-interval")),
            },
            wal_segment_bytes: effective.size("wal-segment-size"),
            wal_segment_age: effective.duration("wal-segment-age"),
            wal_compress: match effective.choice("wal-compress").unwrap_or_default() {
                "lz4" => Some(WalCompress::Lz4),
                "zstd" => Some(WalCompress::Zstd),
                _ => None,
            },
            wal_keep: effective.duration("wal-keep"),
            snapshot_interval: effective.duration("snapshot-interval"),
            snapshot_after_bytes: effective.size("snapshot-after"),
            snapshot_full_every: u32::try_from(effective.count("snapshot-full-every"))
                .expect("the table's range of snapshot-full-every fits 32 bits"),
            recovery: match effective.choice("recovery").unwrap_or_default() {
                "point-in-time" => Recovery::PointInTime,
                _ => Recovery::Strict,
            },
        }
    }
}

impl Memory {
    fn new(effective: &Effective) -> Result<Self, ConfigError> {
        let row = effective.row("max-memory");
        let bytes_max = match row.value {
            None => None,
            Some(Value::Size(bytes)) => Some(bytes),
            Some(Value::Share(percent)) => match memory::of_the_machine() {
                Some(total) => Some(memory::share(total, percent)),
                None => {
                    return Err(ConfigError::new(
                        &row.place,
                        format!(
                            "max-memory: found {percent}%, and how much memory this machine has cannot be found out; \
                             expected a size such as 512MiB"
                        ),
                    ));
                }
            },
            _ => unreachable!("max-memory is a size or a share by the table"),
        };
        Ok(Memory {
            bytes_max,
            eviction: effective.choice("eviction").unwrap_or("none"),
        })
    }
}

impl Compression {
    fn new(effective: &Effective) -> Self {
        Compression {
            mode: effective.choice("compression").unwrap_or("off"),
            value_bytes_min: effective.bytes("compression-min-size"),
            dictionaries: effective.choice("compression-dictionaries") == Some("on"),
            batches: effective.choice("compression-batches") == Some("on"),
            cold_after: effective.duration("compression-cold-after"),
            keys: effective.choice("key-compression") == Some("on"),
            cpu_percent: u8::try_from(effective.count("compression-cpu"))
                .expect("the table's range of compression-cpu fits 8 bits"),
        }
    }
}

impl Limits {
    fn new(effective: &Effective) -> Result<Self, ConfigError> {
        Ok(Limits {
            key_bytes_max: effective.bytes("max-key-size"),
            value_bytes_max: effective.bytes("max-value-size"),
            batch_operations_max: effective.count("max-batch-operations"),
            batch_bytes_max: effective.bytes("max-batch-size"),
            header_bytes_max: effective.bytes("max-header-size"),
            header_timeout: effective.duration("header-timeout"),
            body_timeout: effective.duration("request-timeout"),
            connections_max: effective.count("max-connections"),
            connections_per_address_max: effective.count_if_any("max-connections-per-address"),
            streams_max: small(effective.count("max-streams")),
            requests_per_connection_max: effective.count_if_any("max-request-rate").map(small),
            requests_per_address_max: effective
                .count_if_any("max-request-rate-per-address")
                .map(small),
            upload_bytes_max: upload_bytes_max(effective)?,
            queue_delay_max: effective.duration("max-queue-delay"),
        })
    }
}

fn small(count: usize) -> u32 {
    u32::try_from(count).expect("the table's counts are small")
}

/// Memory for bodies on their way: as set, if the largest body fits.
fn upload_bytes_max(effective: &Effective) -> Result<usize, ConfigError> {
    let name = ["max-value-size", "max-batch-size"]
        .into_iter()
        .max_by_key(|name| effective.size(name))
        .expect("there are two");
    let bytes = effective.bytes(name);
    let row = effective.row("max-upload-memory");
    match &row.value {
        None => Ok((256 << 20).max(bytes.saturating_mul(4))),
        Some(Value::Size(found)) if *found >= bytes as u64 => {
            Ok(usize::try_from(*found).unwrap_or(usize::MAX))
        }
        Some(found) => Err(ConfigError::new(
            &row.place,
            format!(
                "max-upload-memory: found {found}, which is below {name} of {bytes} bytes; expected at least that much"
            ),
        )),
    }
}

/// The files of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// All that belong together, or none.
    fn new(effective: &Effective) -> Result<Option<Self>, ConfigError> {
        let client_ca = effective.path("tls-client-ca");
        let missing = |there: &str, missing: &str| {
            Err(ConfigError::new(
                &effective.row(there).place,
                format!("{there}: found without {missing}; expected {missing} as well"),
            ))
        };
        match (effective.path("tls-cert"), effective.path("tls-key")) {
            (Some(certificate), Some(key)) => Ok(Some(Self {
                certificate,
                key,
                client_ca,
            })),
            (Some(_), None) => missing("tls-cert", "tls-key"),
            (None, Some(_)) => missing("tls-key", "tls-cert"),
            (None, None) if client_ca.is_some() => missing("tls-client-ca", "tls-cert"),
            (None, None) => Ok(None),
        }
    }
}

/// Without authentication, an address that others can reach gives them everything; it must be asked for in words.
fn exposed_without_authentication(effective: &Effective) -> Result<(), ConfigError> {
    let address = effective.address("listen");
    // An IPv4 address spelt as an IPv6 one is what it maps to.
    if address.ip().to_canonical().is_loopback()
        || effective.path("auth").is_some()
        || effective.switch("insecure-no-auth")
    {
        return Ok(());
    }
    Err(ConfigError::new(
        &effective.row("listen").place,
        format!(
            "listen: found \"{address}\", which is not loopback, without authentication; expected a loopback address such \
             as 127.0.0.1:{}, or --auth FILE or --insecure-no-auth as well",
            address.port()
        ),
    ))
}

/// Settings of persistence without a data directory.
///
/// A flag is written for this one run, so whoever gives it believes that this run persists: that is an error. A file or an
/// environment is shared between runs, with and without a directory: there it is a notice.
fn idle_persistence(effective: &Effective) -> Result<Vec<String>, ConfigError> {
    let mut notices = Vec::new();
    for row in &effective.rows {
        if row.setting.section != Section::Persistence || row.value.is_none() {
            continue;
        }
        let name = row.setting.name;
        if matches!(row.place, Place::Flag(_)) {
            return Err(ConfigError::new(
                &row.place,
                format!(
                    "{name}: found without data-dir, so nothing would be persisted; expected --data-dir DIR as well, \
                     or no --{name}"
                ),
            ));
        }
        if row.value != row.setting.default_value() {
            notices.push(format!(
                "{}: {name} has no effect without data-dir: the store is in memory only",
                row.place
            ));
        }
    }
    Ok(notices)
}

/// What the table promises about a row's kind; a test reads every setting through these.
impl Effective {
    fn address(&self, name: &str) -> SocketAddr {
        match self.row(name).value {
            Some(Value::Address(address)) => address,
            _ => unreachable!("{name} is an address by the table"),
        }
    }

    fn count(&self, name: &str) -> usize {
        match self.row(name).value {
            Some(Value::Count(count)) => {
                usize::try_from(count).expect("the table's counts are small")
            }
            _ => unreachable!("{name} is a count by the table"),
        }
    }

    fn count_if_any(&self, name: &str) -> Option<usize> {
        self.row(name).value.is_some().then(|| self.count(name))
    }

    fn size(&self, name: &str) -> u64 {
        match self.row(name).value {
            Some(Value::Size(bytes)) => bytes,
            _ => unreachable!("{name} is a size by the table"),
        }
    }

    /// A size of something held in memory.
    fn bytes(&self, name: &str) -> usize {
        usize::try_from(self.size(name)).unwrap_or(usize::MAX)
    }

    fn duration(&self, name: &str) -> Duration {
        match self.row(name).value {
            Some(Value::Duration(duration)) => duration,
            _ => unreachable!("{name} is a duration by the table"),
        }
    }

    fn switch(&self, name: &str) -> bool {
        match self.row(name).value {
            Some(Value::Switch(on)) => on,
            _ => unreachable!("{name} is a switch by the table"),
        }
    }

    fn rate(&self, name: &str) -> u32 {
        match self.row(name).value {
            Some(Value::Rate(rate)) => rate,
            _ => unreachable!("{name} is a rate by the table"),
        }
    }

    fn name(&self, name: &str) -> String {
        match &self.row(name).value {
            Some(Value::Name(text)) => text.clone(),
            _ => unreachable!("{name} is a name by the table"),
        }
    }

    fn name_if_any(&self, name: &str) -> Option<String> {
        match &self.row(name).value {
            Some(Value::Name(text)) => Some(text.clone()),
            None => None,
            _ => unreachable!("{name} is a name by the table"),
        }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        match &self.row(name).value {
            Some(Value::Path(path)) => Some(path.clone()),
            None => None,
            _ => unreachable!("{name} is a path by the table"),
        }
    }

    fn choice(&self, name: &str) -> Option<&'static str> {
        match self.row(name).value {
            Some(Value::Choice(choice)) => Some(choice),
            None => None,
            _ => unreachable!("{name} is a choice by the table"),
        }
    }
}

#[cfg(test)]
mod tests;
