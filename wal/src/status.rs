//! What the log counts and shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::format::Lsn;

/// Whether the log takes records.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It does.
    Open,
    /// Not until there is room again.
    DiskFull,
    /// Not any more.
    Closed {
        /// Why.
        reason: Arc<str>,
    },
}

/// The log at one moment. Counters start with the process.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether it takes records.
    pub state: State,
    /// Segments on disk, the active one included.
    pub segments: usize,
    /// Bytes of headers and frames in them, without reserved room.
    pub bytes: u64,
    /// The oldest record on disk, or the next one if there is none.
    pub first_lsn: Lsn,
    /// The last record handed to the system.
    pub written: Lsn,
    /// The last record on stable storage, with all before it.
    pub high_watermark: Lsn,
    /// Bytes appended and not yet written.
    pub queue_bytes: u64,
    /// Records appended.
    pub appends: u64,
    /// Their bytes.
    pub appended_bytes: u64,
    /// Frames written.
    pub frames: u64,
    /// Bytes written: frames and segment headers.
    pub written_bytes: u64,
    /// Syncs of segments.
    pub syncs: u64,
    /// How long they took.
    pub sync_time: SyncTime,
    /// Segments sealed.
    pub rotations: u64,
    /// Segments removed because they were no longer needed.
    pub retired: u64,
    /// Sealed segments rewritten with a codec.
    pub rewritten: u64,
    /// Bytes that this gave back.
    pub rewritten_saved: u64,
}

/// Upper bounds of the buckets of [`SyncTime`] in microseconds; the last bucket has none.
pub const SYNC_TIME_BOUNDS_US: [u64; 15] = [
    50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 409_600,
    1_638_400, 6_553_600,
];

/// How long syncs took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncTime {
    /// All together.
    pub sum: Duration,
    /// The longest.
    pub max: Duration,
    /// Syncs that took at most the bound of the same index, and more than the one before; the last has the rest.
    pub buckets: [u64; SYNC_TIME_BOUNDS_US.len() + 1],
}

/// Written by the writer alone, read by anybody.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) frames: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) rotations: AtomicU64,
    pub(crate) retired: AtomicU64,
    pub(crate) rewritten: AtomicU64,
    pub(crate) rewritten_saved: AtomicU64,
    sync_us: AtomicU64,
    sync_us_max: AtomicU64,
    sync_buckets: [AtomicU64; SYNC_TIME_BOUNDS_US.len() + 1],
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn synced(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        Counters::add(&self.syncs, 1);
        Counters::add(&self.sync_us, us);
        self.sync_us_max.fetch_max(us, Ordering::Relaxed);
        let bucket = SYNC_TIME_BOUNDS_US.partition_point(|bound| *bound < us);
        Counters::add(&self.sync_buckets[bucket], 1);
    }

    pub(crate) fn sync_time(&self) -> SyncTime {
        SyncTime {
            sum: Duration::from_micros(self.sync_us.load(Ordering::Relaxed)),
            max: Duration::from_micros(self.sync_us_max.load(Ordering::Relaxed)),
            buckets: std::array::from_fn(|i| self.sync_buckets[i].load(Ordering::Relaxed)),
        }
    }
}
