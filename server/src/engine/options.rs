//! What a store is opened with, checked once.

use super::clock::{Clock, SystemClock};
use super::compress::Compression;
use super::damage::OnDamage;
use super::rules::OnLoad;
use super::scrub::Scrub;
use inflightkv_core::PatchLimits;
use inflightkv_eviction::PolicyKind;
use inflightkv_snapshot as snapshot;
use inflightkv_validation::Rules;
use inflightkv_wal as wal;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The largest number of partitions.
pub const PARTITIONS_MAX: usize = 65_536;

/// How a store is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of partitions, a power of two from 1 to [`PARTITIONS_MAX`]; default 128. More spread the lock and
    /// shorten each background slice; each costs about 300 bytes. It may change between runs.
    pub partitions: usize,
    /// Event loops or threads that work on the store, each through a [`Lane`](super::Lane) of its own; default 1.
    pub lanes: usize,
    /// The longest value, in bytes; default 1 MiB, at most [`wal::VALUE_BYTES_MAX`].
    pub value_bytes_max: usize,
    /// The deepest nesting a patch may produce; default 128.
    pub depth_max: u32,
    /// How much memory the data may take, and what goes when it is full; may change while the store runs.
    pub memory: Memory,
    /// Verify a value's checksum whenever it is read from memory; default true.
    pub verify_reads: bool,
    /// Told of everything damaged that is met; nobody by default.
    pub on_damage: Option<OnDamage>,
    /// What keys and values are held against; none by default. Replaced by [`Engine::set_rules`](super::Engine::set_rules).
    pub rules: Arc<Rules>,
    /// What becomes of what is restored or taken over and breaks a rule; may change while the store runs.
    pub rules_on_load: OnLoad,
    /// How values in memory are compressed; may change while the store runs.
    pub compression: Compression,
    /// How everything is read back in the background; may change while the store runs.
    pub scrub: Scrub,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Durability; `None` keeps the store in memory only.
    pub persistence: Option<Persistence>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            partitions: 128,
            lanes: 1,
            value_bytes_max: 1 << 20,
            depth_max: 128,
            memory: Memory::default(),
            verify_reads: true,
            on_damage: None,
            rules: Arc::default(),
            rules_on_load: OnLoad::Report,
            compression: Compression::default(),
            scrub: Scrub::default(),
            clock: Arc::new(SystemClock::new()),
            persistence: None,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let invalid = |name, found: usize, allowed| {
            Err(OpenError::Option {
                name,
                found,
                allowed,
            })
        };
        if !self.partitions.is_power_of_two() || self.partitions > PARTITIONS_MAX {
            return invalid(
                "partitions",
                self.partitions,
                "a power of two from 1 to 65536",
            );
        }
        if self.lanes == 0 || self.lanes > 1024 {
            return invalid("lanes", self.lanes, "1 to 1024");
        }
        if self.value_bytes_max == 0 || self.value_bytes_max > wal::VALUE_BYTES_MAX {
            return invalid("value_bytes_max", self.value_bytes_max, "1 to 1 GiB");
        }
        if let Some(persistence) = &self.persistence {
            persistence.wal.check()?;
            if persistence.snapshot_parts == 0 || persistence.snapshot_parts > 4096 {
                return invalid("snapshot_parts", persistence.snapshot_parts, "1 to 4096");
            }
        }
        Ok(())
    }

    pub(crate) fn patch_limits(&self) -> PatchLimits {
        PatchLimits {
            value_bytes_max: self.value_bytes_max,
            depth_max: self.depth_max,
            inline_max: super::write::INLINE_PATCH_MAX,
        }
    }
}

/// The bound on the data's memory. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that keys, values and everything kept for them may take; `None` for no limit.
    pub bytes_max: Option<u64>,
    /// What goes when they are taken; with `None` nothing does, and writes are refused.
    pub policy: Option<PolicyKind>,
}

/// Where and how a store is kept on disk.
#[derive(Clone, Debug)]
pub struct Persistence {
    /// Start in memory and leave the disk alone, until persistence is turned on.
    pub start_off: bool,
    /// The directory, or what stands for it.
    pub disk: Disk,
    /// The log's rotation, sync mode and bounds.
    pub wal: wal::Options,
    /// What sealed segments of the log are rewritten with in the background; default Zstandard.
    pub wal_compress: Option<WalCompression>,
    /// What a damaged log means at start.
    pub recovery: wal::RecoveryMode,
    /// A snapshot is due after this time, if anything changed; default 15 minutes.
    pub snapshot_interval: Duration,
    /// A snapshot is due after this much log, in bytes; default 256 MiB.
    pub snapshot_after: u64,
    /// A full snapshot is taken after at most this many incremental ones; default 8, 0 makes every one full.
    pub snapshot_full_every: u32,
    /// Files of a snapshot, saved and loaded side by side; default 8.
    pub snapshot_parts: usize,
}

/// What sealed segments of the log are rewritten with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalCompression {
    /// Cheaper.
    Lz4,
    /// Smaller.
    Zstd,
}

impl Persistence {
    /// The defaults on `disk`.
    pub fn on(disk: Disk) -> Self {
        Self {
            start_off: false,
            disk,
            wal: wal::Options::default(),
            wal_compress: Some(WalCompression::Zstd),
            recovery: wal::RecoveryMode::Strict,
            snapshot_interval: Duration::from_secs(15 * 60),
            snapshot_after: 256 << 20,
            snapshot_full_every: 8,
            snapshot_parts: 8,
        }
    }
}

/// The two plugs for storage, and the lock that keeps a second store away from them.
#[derive(Clone)]
pub struct Disk {
    pub(crate) wal: Arc<dyn wal::Storage>,
    pub(crate) snapshots: Arc<dyn snapshot::Storage>,
    /// Held for the life of the store; the system releases it with the process.
    _lock: Option<Arc<File>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}

impl Disk {
    /// The name of the lock file in a data directory.
    pub const LOCK: &str = "LOCK";
    /// The file that marks a data directory into which a backup is being restored.
    pub const RESTORING: &str = "RESTORING";
    /// The folder of log segments in a data directory.
    pub const WAL: &str = "wal";
    /// The folder of snapshots in a data directory.
    pub const SNAPSHOTS: &str = "snapshots";

    /// Opens a data directory, making it if it is missing, and locks it.
    ///
    /// # Errors
    /// It is in use by another store, or cannot be made, read or locked.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::DataDir {
            path: path.display().to_string(),
            source,
        };
        if path.join(Self::RESTORING).exists() {
            return Err(OpenError::Unfinished {
                path: path.display().to_string(),
            });
        }
        std::fs::create_dir_all(path).map_err(failed)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(Self::LOCK))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse {
                    path: path.display().to_string(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let wal = wal::Directory::open(path.join(Self::WAL)).map_err(failed)?;
        let snapshots = snapshot::Directory::create(path.join(Self::SNAPSHOTS)).map_err(failed)?;
        // The two folders' own names must survive a power cut before anything in them counts.
        File::open(path)
            .and_then(|directory| directory.sync_all())
            .map_err(failed)?;
        if let Some(parent) = path.canonicalize().map_err(failed)?.parent() {
            File::open(parent)
                .and_then(|directory| directory.sync_all())
                .map_err(failed)?;
        }
        Ok(Self {
            wal: Arc::new(wal),
            snapshots: Arc::new(snapshots),
            _lock: Some(Arc::new(lock)),
        })
    }

    /// Storage of the caller's own, for tests and embedders. Nothing is locked.
    pub fn custom(wal: Arc<dyn wal::Storage>, snapshots: Arc<dyn snapshot::Storage>) -> Self {
        Self {
            wal,
            snapshots,
            _lock: None,
        }
    }
}

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// An option is out of its range.
    #[error("option {name} is {found}: allowed is {allowed}")]
    Option {
        /// The field.
        name: &'static str,
        /// What it was set to.
        found: usize,
        /// What it may be.
        allowed: &'static str,
    },
    /// An option of the log is out of its range.
    #[error(transparent)]
    Wal(#[from] wal::OptionError),
    /// Another store holds the directory.
    #[error("data directory {path} is in use by another server")]
    InUse {
        /// The directory.
        path: String,
    },
    /// A backup was being restored into the directory, and not to its end.
    #[error(
        "data directory {path} is one into which a restore did not finish: remove it and restore again"
    )]
    Unfinished {
        /// The directory.
        path: String,
    },
    /// The directory cannot be used.
    #[error("data directory {path} cannot be opened: {source}")]
    DataDir {
        /// The directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}
