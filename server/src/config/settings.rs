//! The one table of settings: name, kind, default, range and words.
//!
//! Flags, environment variables, the configuration file, `inflightkv config --default`, the manual and every error
//! message are made from it. To add a setting, add a row here and a field to [`Config`](super::Config).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// All of it, in the measure of [`Value::Rate`].
pub(crate) const WHOLE: u32 = 1_000_000;

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The key in the file. The flag is `--` and the name, the variable `INFLIGHTKV_` and the name in capitals.
    pub(crate) name: &'static str,
    pub(crate) section: Section,
    pub(crate) kind: Kind,
    pub(crate) default: Fallback,
    /// Whether a running server can change it: by `PATCH /v1/admin/config`, and by SIGHUP from the file. What has to
    /// be done then is in `cli::serve::apply`.
    pub(crate) runtime: bool,
    /// What the value is called in the help.
    pub(crate) placeholder: &'static str,
    /// What it does, in one line without a full stop.
    pub(crate) summary: &'static str,
    /// What more and less of it cost, in whole sentences.
    pub(crate) details: &'static str,
}

/// Headings of the help and of the default file, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Server,
    Persistence,
    Memory,
    Limits,
    Trust,
    Logs,
    Configuration,
}

impl Section {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Section::Server => "Server",
            Section::Persistence => "Persistence",
            Section::Memory => "Memory",
            Section::Limits => "Limits",
            Section::Trust => "Trust",
            Section::Logs => "Logs",
            Section::Configuration => "Configuration",
        }
    }
}

/// What holds when a setting is given nowhere.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fallback {
    /// This value, spelt as a user would.
    Value(&'static str),
    /// No value; in words, what that means.
    Nothing(&'static str),
}

/// What a setting accepts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Address,
    Count {
        min: u64,
        max: u64,
    },
    PowerOfTwo {
        min: u64,
        max: u64,
    },
    Duration {
        min: Duration,
        max: Duration,
    },
    Size {
        min: u64,
        max: u64,
    },
    /// A size, or a percentage of the machine's memory.
    Memory {
        min: u64,
        max: u64,
    },
    Choice(&'static [&'static str]),
    Name {
        bytes_max: usize,
    },
    Path,
    Switch,
    /// `on`, `off`, or a part of a whole.
    Rate,
}

/// A value that its [`Kind`] has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Address(SocketAddr),
    Count(u64),
    Duration(Duration),
    Size(u64),
    /// Percent of the machine's memory, 1 to 100.
    Share(u8),
    Choice(&'static str),
    Name(String),
    Path(PathBuf),
    Switch(bool),
    /// In millionths of the whole.
    Rate(u32),
}

/// What was written, before anything is known about its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// A flag's or a variable's text, which has no type of its own.
    Word(String),
    String(String),
    Integer(i128),
    Boolean(bool),
    /// A floating-point number, as it was spelt.
    Real(String),
    /// Something no setting accepts, by the name of its type: `a table`, `an array`, …
    Other(&'static str),
}

/// All settings, by section.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        section: Section::Server,
        kind: Kind::Address,
        default: Fallback::Value("127.0.0.1:8080"),
        runtime: false,
        placeholder: "ADDR",
        summary: "Address and port to accept connections on",
        details: "Without a host (`:8080`) it is 127.0.0.1; port 0 picks a free one, which the line `listening on` \
                  names. An address that is not loopback needs insecure-no-auth.",
    },
    Setting {
        name: "insecure-no-auth",
        section: Section::Server,
        kind: Kind::Switch,
        default: Fallback::Value("false"),
        runtime: false,
        placeholder: "BOOL",
        summary: "Accept an address that is not loopback, although requests are not authenticated",
        details: "Everybody who can reach the address can then read and change all data.",
    },
    Setting {
        name: "threads",
        section: Section::Server,
        kind: Kind::Count { min: 1, max: 1_024 },
        default: Fallback::Nothing("one per core"),
        runtime: false,
        placeholder: "N",
        summary: "Event loops, each a thread that accepts, executes and answers on its own",
        details: "More than there are cores costs context switches; fewer leaves cores to others.",
    },
    Setting {
        name: "partitions",
        section: Section::Server,
        kind: Kind::PowerOfTwo {
            min: 1,
            max: 65_536,
        },
        default: Fallback::Value("128"),
        runtime: false,
        placeholder: "N",
        summary: "Shares that the keys are split into, each behind its own short lock",
        details: "More partitions collide less and cost a little memory each. It may change between runs.",
    },
    Setting {
        name: "node-id",
        section: Section::Server,
        kind: Kind::Name { bytes_max: 128 },
        default: Fallback::Value("node-1"),
        runtime: false,
        placeholder: "NAME",
        summary: "What listings of keys call this node",
        details: "It has no effect on the data.",
    },
    Setting {
        name: "shutdown-timeout",
        section: Section::Server,
        kind: Kind::Duration {
            min: Duration::ZERO,
            max: HOUR,
        },
        default: Fallback::Value("10s"),
        runtime: false,
        placeholder: "D",
        summary: "How long requests in flight may take to finish after SIGTERM or SIGINT",
        details: "What has not finished by then is cut off, and the log is synced all the same.",
    },
    Setting {
        name: "follow",
        section: Section::Server,
        kind: Kind::Name { bytes_max: 2_048 },
        default: Fallback::Nothing("the server takes writes"),
        runtime: false,
        placeholder: "URL",
        summary: "Follow the server at this URL: load what it holds, then take every change over as it becomes durable there",
        details: "Reads are served, writes are refused until `POST /v1/admin/promote`. A token for the other server, with the role \
                  admin there, comes from the variable INFLIGHTKV_TOKEN; https takes tls-ca. The other server needs a data \
                  directory, and this one an empty one or none.",
    },
    Setting {
        name: "tls-ca",
        section: Section::Server,
        kind: Kind::Path,
        default: Fallback::Nothing("a server that is followed is reached by http"),
        runtime: false,
        placeholder: "FILE",
        summary: "Certificates in PEM of the authorities that are trusted to name the server of follow; https takes it",
        details: "Authorities of the system are not asked. A server that shows another certificate is not followed.",
    },
    Setting {
        name: "data-dir",
        section: Section::Persistence,
        kind: Kind::Path,
        default: Fallback::Nothing("the store is in memory only"),
        runtime: false,
        placeholder: "DIR",
        summary: "Directory of the write-ahead log and the snapshots; turns persistence on",
        details: "It is created when missing, and locked while a server runs on it.",
    },
    Setting {
        name: "persistence",
        section: Section::Persistence,
        kind: Kind::Choice(&["on", "off"]),
        default: Fallback::Value("on"),
        runtime: false,
        placeholder: "STATE",
        summary: "Whether a server with a data directory starts with persistence on or off",
        details: "`off`: it starts empty, in memory, and leaves the directory alone until POST /v1/admin/persistence?state=on; \
                  the directory must then be empty.",
    },
    Setting {
        name: "wal-sync",
        section: Section::Persistence,
        kind: Kind::Choice(&["always", "interval", "os"]),
        default: Fallback::Value("interval"),
        runtime: false,
        placeholder: "MODE",
        summary: "When a write is on stable storage: always, interval or os",
        details: "`always`: before it is answered, many writes sharing one sync. `interval`: within wal-sync-interval, so a \
                  power cut may take back that much. `os`: whenever the kernel writes it; only a crash of the machine loses it.",
    },
    Setting {
        name: "wal-sync-interval",
        section: Section::Persistence,
        kind: Kind::Duration {
            min: Duration::from_millis(1),
            max: HOUR,
        },
        default: Fallback::Value("1s"),
        runtime: false,
        placeholder: "D",
        summary: "Longest time between a write and its sync with wal-sync = interval",
        details: "Shorter loses less in a power cut and syncs more often. The other modes do not look at it.",
    },
    Setting {
        name: "wal-segment-size",
        section: Section::Persistence,
        kind: Kind::Size {
            min: 8 * KIB,
            max: 16 * GIB,
        },
        default: Fallback::Value("64MiB"),
        runtime: false,
        placeholder: "SIZE",
        summary: "Size at which the log begins a new segment file",
        details: "Log is deleted by whole segments: smaller ones go sooner and are more files.",
    },
    Setting {
        name: "wal-segment-age",
        section: Section::Persistence,
        kind: Kind::Duration {
            min: SECOND,
            max: YEAR,
        },
        default: Fallback::Value("1h"),
        runtime: false,
        placeholder: "D",
        summary: "Age at which the log begins a new segment file, if there is anything in the current one",
        details: "Shorter lets old log be deleted sooner on a server with few writes.",
    },
    Setting {
        name: "wal-compress",
        section: Section::Persistence,
        kind: Kind::Choice(&["lz4", "zstd", "off"]),
        default: Fallback::Value("zstd"),
        runtime: false,
        placeholder: "CODEC",
        summary: "What complete segment files of the log are rewritten with: lz4, zstd or off",
        details: "It happens in the background, on a thread that rests half of the time. zstd makes smaller files, lz4 costs \
                  less; with off nothing is rewritten. Every one of them is read, whatever is set.",
    },
    Setting {
        name: "wal-keep",
        section: Section::Persistence,
        kind: Kind::Duration {
            min: Duration::ZERO,
            max: YEAR,
        },
        default: Fallback::Value("0"),
        runtime: false,
        placeholder: "D",
        summary: "How long log is kept that a snapshot has made superfluous",
        details: "It makes it possible to go back to a moment up to that long ago, and to follow this server after a pause \
                  of that length. It costs the disk space of that much log.",
    },
    Setting {
        name: "snapshot-interval",
        section: Section::Persistence,
        kind: Kind::Duration {
            min: SECOND,
            max: YEAR,
        },
        default: Fallback::Value("15m"),
        runtime: false,
        placeholder: "D",
        summary: "Time after which a snapshot is due, if anything changed",
        details: "Shorter makes a restart read less log and writes more snapshots.",
    },
    Setting {
        name: "snapshot-after",
        section: Section::Persistence,
        kind: Kind::Size { min: KIB, max: TIB },
        default: Fallback::Value("256MiB"),
        runtime: false,
        placeholder: "SIZE",
        summary: "Amount of log after which a snapshot is due before its time",
        details: "It bounds how much log a restart has to replay.",
    },
    Setting {
        name: "snapshot-full-every",
        section: Section::Persistence,
        kind: Kind::Count { min: 0, max: 1_000 },
        default: Fallback::Value("8"),
        runtime: false,
        placeholder: "N",
        summary: "A full snapshot after at most this many incremental ones",
        details: "More writes less and makes a restart load a longer chain. With 0 every snapshot is full.",
    },
    Setting {
        name: "recovery",
        section: Section::Persistence,
        kind: Kind::Choice(&["strict", "point-in-time"]),
        default: Fallback::Value("strict"),
        runtime: false,
        placeholder: "MODE",
        summary: "What a damaged log means at start: strict or point-in-time",
        details: "`strict`: refuse to start and say what is damaged. `point-in-time`: serve the state just before the \
                  damage; everything after it is lost.",
    },
    Setting {
        name: "max-memory",
        section: Section::Memory,
        kind: Kind::Memory {
            min: 64 * KIB,
            max: 1024 * TIB,
        },
        default: Fallback::Nothing("no limit"),
        runtime: true,
        placeholder: "SIZE|N%",
        summary: "Limit of the data's memory: a size, or a percentage of the machine's memory",
        details: "Keys, values, their tables, timers and what waits for the disk are counted to the byte; connections \
                  and code come on top. What happens at the limit is up to eviction.",
    },
    Setting {
        name: "eviction",
        section: Section::Memory,
        kind: Kind::Choice(&[
            "none", "lru", "lfu", "ttl", "size", "random", "s3-fifo", "tiny-lfu",
        ]),
        default: Fallback::Value("none"),
        runtime: true,
        placeholder: "POLICY",
        summary: "Which keys go when max-memory is reached: none, lru, lfu, ttl, size, random, s3-fifo or tiny-lfu",
        details: "`none`: writes are answered 507. `lru`: the longest unread. `lfu`: the least often read, older reads \
                  counting less. `ttl`: the nearest expiry, then the longest unread. `size`: the largest for how often \
                  they are read. `random`: any. `s3-fifo` and `tiny-lfu` keep what is read again and withstand scans; \
                  they are the ones to try first. Keys written with `?pin=true` never go.",
    },
    Setting {
        name: "compression",
        section: Section::Memory,
        kind: Kind::Choice(&["off", "lz4", "snappy", "zstd", "adaptive"]),
        default: Fallback::Value("off"),
        runtime: true,
        placeholder: "CODEC",
        summary: "What values in memory are compressed with: off, lz4, snappy, zstd or adaptive",
        details: "Done in the background, and only where it saves an eighth. `adaptive` takes what suits the value and \
                  leaves what is read all the time as it is. Values come back byte for byte; files hold them \
                  uncompressed by this, whatever it says. Switched off, values are stored whole again in the background.",
    },
    Setting {
        name: "compression-min-size",
        section: Section::Memory,
        kind: Kind::Size { min: 1, max: GIB },
        default: Fallback::Value("64B"),
        runtime: true,
        placeholder: "SIZE",
        summary: "Smaller values are never compressed",
        details: "Less than 64 bytes pays for nobody and counts as 64.",
    },
    Setting {
        name: "compression-dictionaries",
        section: Section::Memory,
        kind: Kind::Choice(&["on", "off"]),
        default: Fallback::Value("on"),
        runtime: true,
        placeholder: "on|off",
        summary: "Whether small values share dictionaries that are trained of them, with zstd and adaptive",
        details: "Small documents that resemble each other hardly get smaller without one. A dictionary takes some 250 KiB \
                  and half a second of the background's time; off saves both.",
    },
    Setting {
        name: "compression-batches",
        section: Section::Memory,
        kind: Kind::Choice(&["on", "off"]),
        default: Fallback::Value("off"),
        runtime: true,
        placeholder: "on|off",
        summary: "Whether small values that are neither read nor written are packed together into blocks",
        details: "Values up to 2 KiB, with any compression but off. Together they take less than each alone, above all those                   below 200 bytes; reading one decompresses its block of 4 to 16 KiB, and one that is read twice is taken out.",
    },
    Setting {
        name: "compression-cold-after",
        section: Section::Memory,
        kind: Kind::Duration {
            min: Duration::ZERO,
            max: YEAR,
        },
        default: Fallback::Value("30s"),
        runtime: true,
        placeholder: "D",
        summary: "For how long a value was neither read nor written before it is packed with compression-batches",
        details: "Sooner saves sooner, and packs more that is taken out again.",
    },
    Setting {
        name: "key-compression",
        section: Section::Memory,
        kind: Kind::Choice(&["on", "off"]),
        default: Fallback::Value("off"),
        runtime: true,
        placeholder: "on|off",
        summary: "Whether keys that share prefixes, such as user: or shop/2018/, are stored with one byte in their stead",
        details: "Done in the background, whatever compression is set to. It saves as many bytes of each key as the prefix has, \
                  less one; a key that is written again is stored whole until the background comes by.",
    },
    Setting {
        name: "compression-cpu",
        section: Section::Memory,
        kind: Kind::Count { min: 1, max: 100 },
        default: Fallback::Value("10"),
        runtime: true,
        placeholder: "PERCENT",
        summary: "The share of each event loop's processor that compression may take, in percent",
        details: "More compresses sooner what was just written. It is one thread, so at most one processor.",
    },
    Setting {
        name: "max-key-size",
        section: Section::Limits,
        kind: Kind::Size {
            min: 1,
            max: 65_535,
        },
        default: Fallback::Value("1KiB"),
        runtime: false,
        placeholder: "SIZE",
        summary: "Longest key, in bytes of UTF-8",
        details: "A longer one is answered 414, or 400 in a batch.",
    },
    Setting {
        name: "max-value-size",
        section: Section::Limits,
        kind: Kind::Size { min: 1, max: GIB },
        default: Fallback::Value("1MiB"),
        runtime: false,
        placeholder: "SIZE",
        summary: "Largest value, and largest request body of a single write",
        details: "A larger one is answered 413.",
    },
    Setting {
        name: "max-batch-operations",
        section: Section::Limits,
        kind: Kind::Count {
            min: 1,
            max: 1_000_000,
        },
        default: Fallback::Value("10000"),
        runtime: false,
        placeholder: "N",
        summary: "Most operations in one batch",
        details: "A batch is held in memory while it is read.",
    },
    Setting {
        name: "max-batch-size",
        section: Section::Limits,
        kind: Kind::Size { min: KIB, max: GIB },
        default: Fallback::Value("16MiB"),
        runtime: false,
        placeholder: "SIZE",
        summary: "Largest request body of a batch",
        details: "A larger one is answered 413.",
    },
    Setting {
        name: "max-header-size",
        section: Section::Limits,
        kind: Kind::Size {
            min: 8 * KIB,
            max: 16 * MIB,
        },
        default: Fallback::Value("64KiB"),
        runtime: false,
        placeholder: "SIZE",
        summary: "Largest header block of a request",
        details: "A larger one is answered 431.",
    },
    Setting {
        name: "header-timeout",
        section: Section::Limits,
        kind: Kind::Duration {
            min: Duration::from_millis(10),
            max: HOUR,
        },
        default: Fallback::Value("10s"),
        runtime: false,
        placeholder: "D",
        summary: "How long a client may take to send the headers of a request",
        details: "Then it is answered 408 and the connection is closed.",
    },
    Setting {
        name: "request-timeout",
        section: Section::Limits,
        kind: Kind::Duration {
            min: Duration::from_millis(10),
            max: HOUR,
        },
        default: Fallback::Value("30s"),
        runtime: false,
        placeholder: "D",
        summary: "How long a client may take to send the body of a request",
        details: "Then it is answered 408 and the connection is closed.",
    },
    Setting {
        name: "max-connections",
        section: Section::Limits,
        kind: Kind::Count {
            min: 1,
            max: 1_000_000,
        },
        default: Fallback::Value("10000"),
        runtime: false,
        placeholder: "N",
        summary: "Most connections open at a time",
        details: "One more is answered 503 and closed. The server raises its limit of open files as far as the system lets it.",
    },
    Setting {
        name: "max-connections-per-address",
        section: Section::Limits,
        kind: Kind::Count {
            min: 1,
            max: 1_000_000,
        },
        default: Fallback::Nothing("no limit"),
        runtime: false,
        placeholder: "N",
        summary: "Most connections open at a time from one address",
        details: "One more is answered 503 and closed. An IPv6 network of 64 bits counts as one address; behind a proxy \
                  everybody has the proxy's.",
    },
    Setting {
        name: "max-streams",
        section: Section::Limits,
        kind: Kind::Count {
            min: 1,
            max: 65_536,
        },
        default: Fallback::Value("256"),
        runtime: false,
        placeholder: "N",
        summary: "Most requests at a time on one HTTP/2 connection",
        details: "One more is refused in the protocol's way, and may be sent again. HTTP/1.1 has one at a time.",
    },
    Setting {
        name: "max-request-rate",
        section: Section::Limits,
        kind: Kind::Count {
            min: 1,
            max: 1_000_000,
        },
        default: Fallback::Nothing("no limit"),
        runtime: false,
        placeholder: "N",
        summary: "Most requests in a second on one connection",
        details: "One more is answered 429, or 503 on /kv. Health, metrics and administration are not counted.",
    },
    Setting {
        name: "max-request-rate-per-address",
        section: Section::Limits,
        kind: Kind::Count {
            min: 1,
            max: 1_000_000,
        },
        default: Fallback::Nothing("no limit"),
        runtime: false,
        placeholder: "N",
        summary: "Most requests in a second from one address, over all its connections",
        details: "As max-request-rate, and with addresses as for max-connections-per-address.",
    },
    Setting {
        name: "max-upload-memory",
        section: Section::Limits,
        kind: Kind::Size { min: MIB, max: TIB },
        default: Fallback::Nothing("256MiB, or four of the largest bodies allowed"),
        runtime: false,
        placeholder: "SIZE",
        summary: "Most memory for request bodies that are still arriving, over all connections",
        details: "A body that would need more is answered 503. It has to hold at least the largest body allowed.",
    },
    Setting {
        name: "max-queue-delay",
        section: Section::Limits,
        kind: Kind::Duration {
            min: Duration::from_millis(1),
            max: HOUR,
        },
        default: Fallback::Value("1s"),
        runtime: false,
        placeholder: "D",
        summary: "How long requests may wait for their turn before new ones are refused",
        details: "While an event loop stays behind by more than this, it answers 503 at once instead of everything late. \
                  Health, metrics and administration are still served.",
    },
    Setting {
        name: "validation",
        section: Section::Trust,
        kind: Kind::Path,
        default: Fallback::Nothing("keys and values have no rules but the limits"),
        runtime: true,
        placeholder: "FILE",
        summary: "A TOML file of rules about keys and values, read again on SIGHUP",
        details: "A write that breaks one is answered 422 (400 on /kv). A file with a mistake is refused at start; later, the \
                  rules in use stay. `inflightkv check-rules` tries one.",
    },
    Setting {
        name: "auth",
        section: Section::Trust,
        kind: Kind::Path,
        default: Fallback::Nothing("everybody who can connect may do everything"),
        runtime: true,
        placeholder: "FILE",
        summary: "A TOML file of tokens, by their hashes, with roles and key prefixes; read again on SIGHUP",
        details: "Requests then need `Authorization: Bearer TOKEN`; health and /openapi.json stay open. `inflightkv token new` \
                  makes a token and its table.",
    },
    Setting {
        name: "tls-cert",
        section: Section::Trust,
        kind: Kind::Path,
        default: Fallback::Nothing("connections are not encrypted"),
        runtime: true,
        placeholder: "FILE",
        summary: "Certificate in PEM, with those between it and its root; read again on SIGHUP",
        details: "HTTP/1.1 and HTTP/2 are then spoken under TLS alone. It needs tls-key; a pair that does not belong together is refused.",
    },
    Setting {
        name: "tls-key",
        section: Section::Trust,
        kind: Kind::Path,
        default: Fallback::Nothing("connections are not encrypted"),
        runtime: true,
        placeholder: "FILE",
        summary: "Private key of tls-cert in PEM; read again on SIGHUP",
        details: "Whoever can read it can pose as this server.",
    },
    Setting {
        name: "tls-client-ca",
        section: Section::Trust,
        kind: Kind::Path,
        default: Fallback::Nothing("clients are not asked for certificates"),
        runtime: true,
        placeholder: "FILE",
        summary: "Certificates in PEM that sign those of clients; read again on SIGHUP",
        details: "A client that has one may stand in [[certificate]] of the file of auth, by the SHA-256 of its DER, with a role.",
    },
    Setting {
        name: "audit-log",
        section: Section::Trust,
        kind: Kind::Path,
        default: Fallback::Nothing("no audit log is written"),
        runtime: false,
        placeholder: "FILE",
        summary: "File of audit events: a line of JSON each, chained by hashes, never lost",
        details: "While it cannot be written, what would be audited is refused with 503. `inflightkv audit verify` shows \
                  whether a line was changed, taken out or cut off. A file that was moved away is gone on from in a new one \
                  on SIGHUP.",
    },
    Setting {
        name: "rules-on-load",
        section: Section::Trust,
        kind: Kind::Choice(&["report", "refuse"]),
        default: Fallback::Value("report"),
        runtime: true,
        placeholder: "WHAT",
        summary: "What becomes of entries that are restored or followed and break a rule: report or refuse",
        details: "`report`: they are taken, counted and told of. `refuse`: a restore is refused before anything of it is seen, and \
                  following stops there. `?rules=` of a restore overrides it.",
    },
    Setting {
        name: "verify-reads",
        section: Section::Trust,
        kind: Kind::Switch,
        default: Fallback::Value("true"),
        runtime: true,
        placeholder: "BOOL",
        summary: "Verify a value's checksum whenever it is read from memory",
        details: "One that does not have the checksum it was stored with is answered 500 and never served. It costs about \
                  a nanosecond for each dozen bytes.",
    },
    Setting {
        name: "scrub-interval",
        section: Section::Trust,
        kind: Kind::Duration {
            min: Duration::ZERO,
            max: YEAR,
        },
        default: Fallback::Value("24h"),
        runtime: true,
        placeholder: "D",
        summary: "Read every checksum back in the background so long after it was last done; 0 for never",
        details: "Values in memory, snapshots and the log: damage is found before somebody needs what is damaged. A start reads \
                  everything as well. What is found is in the log, the audit log, statistics and metrics.",
    },
    Setting {
        name: "scrub-rate",
        section: Section::Trust,
        kind: Kind::Size { min: KIB, max: TIB },
        default: Fallback::Value("16MiB"),
        runtime: true,
        placeholder: "SIZE",
        summary: "Most bytes that are read back in a second in the background",
        details: "More finds damage sooner and takes more of the disk from others.",
    },
    Setting {
        name: "log-format",
        section: Section::Logs,
        kind: Kind::Choice(&["pretty", "json", "ecs"]),
        default: Fallback::Nothing("pretty on a terminal, else json"),
        runtime: false,
        placeholder: "FORMAT",
        summary: "How log lines look: pretty, json or ecs (JSON in the names of the Elastic Common Schema)",
        details: "Logs go to standard error. Nobody waits for them to be written: when 4 MiB wait, lines are dropped and \
                  counted.",
    },
    Setting {
        name: "log-level",
        section: Section::Logs,
        kind: Kind::Choice(&["off", "error", "warn", "info", "debug", "trace"]),
        default: Fallback::Value("info"),
        runtime: false,
        placeholder: "LEVEL",
        summary: "The least important events logged: off, error, warn, info, debug or trace",
        details: "Values never appear in a log, and keys only where log-keys says so. More than 20 lines of one event \
                  within a second are told as one with their number.",
    },
    Setting {
        name: "log-requests",
        section: Section::Logs,
        kind: Kind::Rate,
        default: Fallback::Value("off"),
        runtime: false,
        placeholder: "RATE",
        summary: "Which requests have a log line: on, off, or a share of them, such as 1% or 0.01",
        details: "A line has method, route, status, bytes, and where the time went. Each costs a few microseconds.",
    },
    Setting {
        name: "log-keys",
        section: Section::Logs,
        kind: Kind::Choice(&["off", "hash", "plain"]),
        default: Fallback::Value("hash"),
        runtime: false,
        placeholder: "HOW",
        summary: "How lines about requests name the key: off, hash (XXH3-64 in hex) or plain",
        details: "With hash lines about one key can be found without the logs holding what clients wrote.",
    },
    Setting {
        name: "slow-op",
        section: Section::Logs,
        kind: Kind::Duration {
            min: Duration::ZERO,
            max: HOUR,
        },
        default: Fallback::Value("10ms"),
        runtime: false,
        placeholder: "D",
        summary: "Requests for data that take at least this long have a log line; 0 for none",
        details: "The line says where the time went: waiting for its turn, for the body, being executed, waiting for the disk, \
                  being sent.",
    },
    Setting {
        name: "otlp-endpoint",
        section: Section::Logs,
        kind: Kind::Name { bytes_max: 2_048 },
        default: Fallback::Nothing("nothing is traced"),
        runtime: false,
        placeholder: "URL",
        summary: "Send traces to the OpenTelemetry collector at this URL, such as http://127.0.0.1:4318",
        details: "OTLP over HTTP, in batches, to /v1/traces there. A collector that is slow or away costs requests nothing: what \
                  does not fit a bounded queue is lost and counted.",
    },
    Setting {
        name: "trace-requests",
        section: Section::Logs,
        kind: Kind::Rate,
        default: Fallback::Value("on"),
        runtime: false,
        placeholder: "RATE",
        summary: "Which requests without a traceparent are traced: on, off, or a share of them, such as 1% or 0.01",
        details: "One with a traceparent is traced if its sender traces it. Each costs a few microseconds.",
    },
    Setting {
        name: CONFIG,
        section: Section::Configuration,
        kind: Kind::Path,
        default: Fallback::Nothing("no file is read"),
        runtime: false,
        placeholder: "FILE",
        summary: "A TOML file of settings; the environment and flags come after it and win",
        details: "`inflightkv config --default` prints one with all of them.",
    },
    Setting {
        name: "check-config",
        section: Section::Configuration,
        kind: Kind::Switch,
        default: Fallback::Value("false"),
        runtime: false,
        placeholder: "BOOL",
        summary: "Check the configuration and exit: 0 when it is valid, 2 when not",
        details: "Nothing is started, and no data directory is touched.",
    },
];

/// The setting that names the file, and so the only one that a file cannot hold.
pub(crate) const CONFIG: &str = "config";

impl Setting {
    pub(crate) fn variable(&self) -> String {
        format!(
            "{}{}",
            super::raw::VARIABLE_PREFIX,
            self.name.to_ascii_uppercase().replace('-', "_")
        )
    }

    /// The default as a value, if there is one.
    pub(crate) fn default_value(&self) -> Option<Value> {
        match self.default {
            Fallback::Value(text) => {
                Some(self.kind.read(&Written::Word(text.to_owned())).expect(
                    "every default of the table is a value of its kind, which a test asserts",
                ))
            }
            Fallback::Nothing(_) => None,
        }
    }
}

mod kinds;
mod names;
mod reading;
mod spelling;

pub(crate) use names::{find, nearest};

#[cfg(test)]
mod tests;
