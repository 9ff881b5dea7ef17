//! The command line: three subcommands and the units of their values.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::workload::VALUE_BYTES_MIN;
use crate::workload::mix::{Mix, Popularity};

/// Load generation and comparisons for InFlightKv.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a hyper server that answers a constant: the limit that the real server is compared with
    Bare(Bare),
    /// Run partitions on threads with queues behind HTTP: the design that the real server is compared with
    Queues(Queues),
    /// Load one server and report throughput, latency and CPU time
    Load(Load),
    /// Have many clients increment one number, each by compare-and-set, and check that none got lost
    Counter(Counter),
    /// Measure everything about the server, and write a report with charts
    Suite(Suite),
    /// Compare InFlightKv with the bare server and redis-server, in interleaved rounds
    Compare(Compare),
    /// Replay recorded traces against every eviction policy, and other caches beside
    Traces(crate::traces::Traces),
    /// Load documents into a server with compression and one without: what is saved, and what it costs
    Compression(crate::documents::Compression),
}

#[derive(Debug, Args)]
pub(crate) struct Bare {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Event loops [default: one per core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Body bytes of the constant answer
    #[arg(long, default_value_t = 100, value_parser = bytes_in::<2, { 64 << 20 }>)]
    pub(crate) bytes: usize,
    /// Flush pipelined answers together (no bound on memory against clients that don't read)
    #[arg(long)]
    pub(crate) pipeline_flush: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Queues {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Event loops in front of the 32 partitions [default: one per core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProtocolName {
    Http,
    Redis,
    Memcached,
    /// HTTP in front of Redis
    Webdis,
    /// The HTTP gateway of etcd
    Etcd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrivals {
    /// Evenly spaced
    Constant,
    /// Independent of each other, as from many users
    Poisson,
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Server to load
    #[arg(long, value_parser = address, value_name = "ADDRESS")]
    pub(crate) address: SocketAddr,
    /// What the server speaks
    #[arg(long, value_enum, default_value = "http")]
    pub(crate) protocol: ProtocolName,
    /// What precedes the key in the path of a request; bodies are checked for their length below /v1/kv/ only
    #[arg(long, default_value = "/v1/kv/", value_parser = path)]
    pub(crate) path: String,
    /// Connections
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) connections: u32,
    /// Threads of the generator [default: half of the cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) pipeline: u32,
    /// How long to send
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Send so many requests instead of sending for a time
    #[arg(long, conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) requests: Option<u64>,
    /// Send for so long before measuring
    #[arg(long, default_value = "0s", value_parser = duration, conflicts_with = "requests")]
    pub(crate) warmup: Duration,
    /// Requests per second on a schedule, whatever the server does (open loop); without it each
    /// connection sends when it has been answered (closed loop, finds the ceiling)
    #[arg(long, value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// How the schedule of --rate and --knee is spaced
    #[arg(long, value_enum, default_value = "constant")]
    pub(crate) arrivals: Arrivals,
    /// What is asked
    #[arg(long, value_enum, default_value = "get")]
    pub(crate) mix: Mix,
    /// Find the highest rate at which p99 stays below --p99-below; each step takes --duration
    #[arg(long, conflicts_with_all = ["rate", "requests"])]
    pub(crate) knee: bool,
    /// What p99 has to stay below for --knee
    #[arg(long, default_value = "5ms", value_parser = duration, requires = "knee")]
    pub(crate) p99_below: Duration,
    /// Report latencies over time as well, in windows of this length (with --json)
    #[arg(long, value_parser = duration, value_name = "LENGTH")]
    pub(crate) windows: Option<Duration>,
    /// Percentage of GETs in `--mix mixed`
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) reads: u8,
    /// Write every key once before measuring, so that each GET finds one
    #[arg(long)]
    pub(crate) fill: bool,
    #[command(flatten)]
    pub(crate) data: Data,
    /// Process whose CPU time and memory are reported
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// A request not answered in this time has failed
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Counter {
    /// Server to load
    #[arg(long, value_parser = address, value_name = "ADDRESS")]
    pub(crate) address: SocketAddr,
    /// Clients, each on a connection and a thread of its own
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) clients: u16,
    /// Increments that each client has to bring about
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) increments: u64,
    /// The key that they share
    #[arg(long, default_value = "counter", value_parser = plain_key)]
    pub(crate) key: String,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Suite {
    /// Benchmarks to run [default: all; see --list]
    #[arg(value_name = "BENCHMARK")]
    pub(crate) names: Vec<String>,
    /// List the benchmarks and what each does
    #[arg(long)]
    pub(crate) list: bool,
    /// A tenth of the time and of the keys: whether it works, not how fast it is
    #[arg(long)]
    pub(crate) quick: bool,
    #[command(flatten)]
    pub(crate) subjects: Subjects,
    /// The same seed asks the same in the same order
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Where a report goes, and what it is set beside.
#[derive(Clone, Debug, Args)]
pub(crate) struct Output {
    /// Folder for the report
    #[arg(long, default_value = "target/bench", value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// An earlier report to compare with [default: baseline-NAME.json in the folder, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// Keep this report as the baseline of later ones
    #[arg(long)]
    pub(crate) save_baseline: bool,
}

/// Which keys and values are used.
#[derive(Clone, Debug, Args)]
pub(crate) struct Data {
    /// Number of different keys, of 16 bytes each
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub(crate) keys: u64,
    /// Size of a value, JSON
    #[arg(long, default_value_t = 100, value_parser = bytes_in::<VALUE_BYTES_MIN, { 64 << 20 }>)]
    pub(crate) value_bytes: usize,
    /// What values are made of
    #[arg(long, value_enum, default_value = "random")]
    pub(crate) content: Content,
    /// Size of the values of --large-percent of the keys
    #[arg(long, default_value_t = 65_536, value_parser = bytes_in::<VALUE_BYTES_MIN, { 64 << 20 }>)]
    pub(crate) large_bytes: usize,
    /// Percentage of keys with a large value
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) large_percent: u8,
    /// Which keys are asked for how often [default: uniform; zipf or latest in the mixes of YCSB]
    #[arg(long, value_enum)]
    pub(crate) popularity: Option<Popularity>,
    /// The exponent of Zipf's law
    #[arg(long, default_value_t = ZIPF, value_parser = exponent)]
    pub(crate) zipf: f64,
    /// Operations of a batch
    #[arg(long, default_value_t = 100, value_parser = bytes_in::<1, 10_000>)]
    pub(crate) batch: usize,
    /// Keys of a page of a listing
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) page: u32,
    /// The same seed asks the same in the same order
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

const ZIPF: f64 = 0.99;

/// What is in a value besides its revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Content {
    /// Letters and digits, which no codec makes much smaller
    Random,
    /// English words, drawn at random
    Words,
}

impl Data {
    /// Values of one size; everything else as it is by default.
    pub(crate) fn new(keys: u64, value_bytes: usize, seed: u64) -> Self {
        Self {
            keys,
            value_bytes,
            content: Content::Random,
            large_bytes: value_bytes,
            large_percent: 0,
            popularity: None,
            zipf: ZIPF,
            batch: 100,
            page: 100,
            seed,
        }
    }
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Compare {
    #[command(flatten)]
    pub(crate) speed: Speed,
    #[command(subcommand)]
    pub(crate) what: Option<Comparison>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Comparison {
    /// Memory per key, and restart times with these keys
    Memory(Memory),
    /// Snapshots: time, size, and what they make of memory, of the latency of reads and of a restart
    Saving(Saving),
    /// Latency of reads while keys are evicted, and while very many expire at once
    Pressure(Pressure),
    /// The same work on every server that is installed, as a report with charts
    Peers(Peers),
    /// Event loops with locked partitions beside threads with queues, behind HTTP and in process
    Loops(Peers),
    /// Two builds of the server in turn: the ratio of their CPU time, with its interval
    Builds(Builds),
}

#[derive(Debug, Args)]
pub(crate) struct Peers {
    #[command(flatten)]
    pub(crate) subjects: Subjects,
    /// Who is compared
    #[arg(long, value_enum, value_delimiter = ',',
        default_values = ["inflightkv", "bare", "redis", "memcached", "webdis", "etcd"])]
    pub(crate) servers: Vec<ServerName>,
    /// Rounds; figures are medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Length of a round for each server and operation
    #[arg(long, default_value = "1500ms", value_parser = duration)]
    pub(crate) round: Duration,
    /// Threads of the generator [default: half of the cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) load_threads: Option<u16>,
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Builds {
    /// The program that is to be judged
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) new: PathBuf,
    /// The program that it is compared with
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) old: PathBuf,
    /// Pairs of rounds, at least
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(5..=1000))]
    pub(crate) pairs: u32,
    /// Pairs of rounds, at most; more than --pairs are measured while the interval has the limit in it
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(5..=1000))]
    pub(crate) pairs_max: u32,
    /// Length of a round for each build and operation
    #[arg(long, default_value = "500ms", value_parser = duration)]
    pub(crate) round: Duration,
    /// How much more CPU time the new build may use, in percent
    #[arg(long, default_value_t = 5.0)]
    pub(crate) limit_percent: f64,
    #[command(flatten)]
    pub(crate) data: Data,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServerName {
    Inflightkv,
    /// hyper answering a constant: the limit
    Bare,
    /// Partitions on threads with queues
    Queues,
    Redis,
    Memcached,
    /// HTTP in front of Redis
    Webdis,
    /// The HTTP gateway of etcd
    Etcd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Persistence {
    /// In memory only
    Off,
    /// A log, synced once a second
    Interval,
    /// A log, synced before each answer
    Always,
}

/// Where the servers come from; the same for every comparison.
#[derive(Default, Debug, Args)]
pub(crate) struct Subjects {
    /// The inflightkv program [default: the one beside this program]
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
    /// A further argument for `inflightkv serve`; may be repeated
    #[arg(long = "server-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) server_args: Vec<String>,
    /// Event loops of inflightkv and of the bare server [default: one per core]
    #[arg(long = "threads", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) server_threads: Option<u16>,
    /// Where data directories are made [default: the system's folder for temporary files]
    #[arg(long)]
    pub(crate) temp: Option<PathBuf>,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Speed {
    #[command(flatten)]
    pub(crate) subjects: Subjects,
    /// Who is compared
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["inflightkv", "bare", "redis"])]
    pub(crate) servers: Vec<ServerName>,
    /// Whether the servers keep a log (the bare one never does)
    #[arg(long, value_enum, default_value = "off")]
    pub(crate) persistence: Persistence,
    /// Connections
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) connections: u32,
    /// Threads of the generator [default: half of the cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) load_threads: Option<u16>,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) pipeline: u32,
    /// Rounds; the table shows medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Length of a round for each server and operation
    #[arg(long, default_value = "3s", value_parser = duration)]
    pub(crate) round: Duration,
    #[command(flatten)]
    pub(crate) data: Data,
}

#[derive(Debug, Args)]
pub(crate) struct Memory {
    #[command(flatten)]
    pub(crate) subjects: Subjects,
    /// Who is compared
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["inflightkv", "redis", "memcached"])]
    pub(crate) servers: Vec<ServerName>,
    /// Number of keys, of 16 bytes each
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub(crate) keys: u64,
    /// Size of a value, JSON
    #[arg(long, default_value_t = 100, value_parser = bytes_in::<VALUE_BYTES_MIN, { 1 << 20 }>)]
    pub(crate) value_bytes: usize,
    /// The same seed makes the same values
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Saving {
    #[command(flatten)]
    pub(crate) subjects: Subjects,
    /// Who is compared
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["inflightkv", "redis"])]
    pub(crate) servers: Vec<ServerName>,
    /// Number of keys, of 16 bytes each
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) keys: u64,
    /// Size of a value, JSON
    #[arg(long, default_value_t = 100, value_parser = bytes_in::<VALUE_BYTES_MIN, { 1 << 20 }>)]
    pub(crate) value_bytes: usize,
    /// Folder with NDJSON files of lines `{"key":…,"value":…}`, whose documents are the values instead
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Documents are repeated, with other values, to so many mebibytes
    #[arg(long, default_value_t = 1024, value_parser = bytes_in::<1, 100_000>)]
    pub(crate) mib: usize,
    /// GETs a second, over 50 connections
    #[arg(long, default_value = "2000", value_parser = rate)]
    pub(crate) rate: f64,
    /// How long reads are measured, quiet and while snapshots are saved
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) round: Duration,
    /// The same seed makes the same values
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Pressure {
    #[command(flatten)]
    pub(crate) subjects: Subjects,
    /// Rounds; figures are medians
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Length of a round for each state
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub(crate) round: Duration,
    /// GETs a second
    #[arg(long, default_value = "2000", value_parser = rate)]
    pub(crate) rate: f64,
    /// PUTs a second of new keys, each of which has one evicted
    #[arg(long, default_value = "1000", value_parser = rate)]
    pub(crate) writes: f64,
    /// Keys that expire at once
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) expiring: u64,
}

pub(crate) fn bytes_in<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, String> {
    let found = text.parse::<usize>().map_err(|error| error.to_string())?;
    if (MIN..=MAX).contains(&found) {
        Ok(found)
    } else {
        Err(format!("{found} is not between {MIN} and {MAX}"))
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix("http://").unwrap_or(text);
    bare.trim_end_matches('/')
        .parse()
        .map_err(|_| "expected IP:PORT or http://IP:PORT".to_owned())
}

fn path(text: &str) -> Result<String, String> {
    let sound = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if sound {
        Ok(text.to_owned())
    } else {
        Err("expected a path such as /v1/kv/".to_owned())
    }
}

/// One that needs no escapes in a path.
fn plain_key(text: &str) -> Result<String, String> {
    let sound = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte));
    if sound && !text.starts_with("__") {
        Ok(text.to_owned())
    } else {
        Err("expected letters, digits and -_.:/, and no __ in front".to_owned())
    }
}

fn exponent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(exponent) if (0.01..=5.0).contains(&exponent) => Ok(exponent),
        _ => Err("expected a number from 0.01 to 5".to_owned()),
    }
}

pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("expected requests per second, 0.01 to 10000000".to_owned()),
    }
}

/// Whole seconds, or a number with a unit: `500ms`, `3s`, `2m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("{text:?} is no duration such as 500ms, 3s or 2m");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(wrong()),
    };
    match milliseconds {
        // More than a day is a slip of the pen, and would overflow instants further on.
        Some(milliseconds) if milliseconds <= 86_400_000 => Ok(Duration::from_millis(milliseconds)),
        _ => Err(format!("{text:?} is more than 24h")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_need_a_known_unit_and_stay_within_a_day() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in [
            "",
            "s",
            "-1s",
            "1.5s",
            "3 s",
            "3d",
            "25h",
            "99999999999999999999h",
        ] {
            assert!(duration(wrong).is_err(), "{wrong} was accepted");
        }
    }

    #[test]
    fn addresses_come_with_or_without_a_scheme() {
        let expected: SocketAddr = ([127, 0, 0, 1], 8080).into();
        assert_eq!(address("127.0.0.1:8080"), Ok(expected));
        assert_eq!(address("http://127.0.0.1:8080/"), Ok(expected));
        assert!(address("localhost").is_err());
    }

    #[test]
    fn compare_and_compare_memory_take_their_own_arguments() {
        let speed =
            Cli::try_parse_from(["b", "compare", "--servers", "bare,redis", "--rounds", "5"]);
        let Ok(Cli {
            command: Command::Compare(speed),
        }) = speed
        else {
            panic!("{speed:?}")
        };
        assert_eq!(speed.speed.servers, [ServerName::Bare, ServerName::Redis]);
        assert_eq!(speed.speed.rounds, 5);
        let memory = Cli::try_parse_from(["b", "compare", "memory", "--keys", "1000"]);
        let Ok(Cli {
            command: Command::Compare(memory),
        }) = memory
        else {
            panic!("{memory:?}")
        };
        let Some(Comparison::Memory(memory)) = memory.what else {
            panic!("memory is missing")
        };
        assert_eq!(memory.keys, 1000);
    }
}
