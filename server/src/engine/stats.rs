//! What a store tells of itself, as plain numbers.

use super::adapters::sequence;
use super::advisor::AdviceReport;
use super::compress::PACKED_BESIDE;
use super::lag::Lags;
use super::memory::Reason;
use super::{
    Compression, Engine, FoundBy, KeyTotals, LiveDictionary, Persistence, Readiness,
    RecoveryReport, RuleHits, ScrubStats, Shared, SnapshotFigures,
};
use inflightkv_compression::CodecId;
use inflightkv_compression::batch::BlockTotals;
use inflightkv_core::{Coded, CodedShare, PartitionStats, Sequence};
use inflightkv_eviction::{Budget, PolicyKind};
use inflightkv_snapshot::{ChainError, Kind, chain};
use inflightkv_wal::Wal;
use std::sync::atomic::Ordering;

/// A store at one moment. Partitions are looked at one after the other, so sums are of slightly different moments.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Whether it serves.
    pub readiness: Readiness,
    /// The last change.
    pub sequence: Sequence,
    /// The last change on stable storage; the last change for a store in memory.
    pub durable_sequence: Sequence,
    /// Sums over all partitions.
    pub total: PartitionStats,
    /// Bytes of the expiry timers.
    pub timer_bytes: usize,
    /// Entries reclaimed because they had expired.
    pub expired: u64,
    /// How long expired entries waited to be reclaimed.
    pub expiry_lag: Lags,
    /// Large patches computed again because the entry had changed meanwhile.
    pub patch_retries: u64,
    /// How often a partition's lock was taken by somebody else.
    pub lock_waits: u64,
    /// How long those waited, in nanoseconds.
    pub lock_wait_nanos: u64,
    /// What compression saves and costs.
    pub compression: CompressionStats,
    /// What is used of the memory allowed, and what eviction did.
    pub memory: MemoryStats,
    /// What other policies and limits would bring.
    pub advice: AdviceReport,
    /// Each partition.
    pub partitions: Vec<PartitionReport>,
    /// The log, of a durable store.
    pub wal: Option<WalStats>,
    /// Its snapshots.
    pub snapshots: Option<SnapshotFigures>,
    /// What the last start found, of a durable store.
    pub recovery: Option<RecoveryReport>,
    /// How often values that did not have the checksum they were stored with were met by whom; none was passed on.
    pub damaged: [(FoundBy, u64); FoundBy::ALL.len()],
    /// What was read back in the background.
    pub scrub: ScrubStats,
    /// How often each rule about keys and values was broken.
    pub rules: Vec<RuleHits>,
}

/// What compression of values in memory saves and costs.
#[derive(Clone, Debug)]
pub struct CompressionStats {
    /// What it is set to.
    pub settings: Compression,
    /// What is compressed now, by the name of the codec.
    pub codecs: Vec<(&'static str, CodedShare)>,
    /// Cold values packed together into blocks.
    pub blocks: BlockTotals,
    /// Keys that share prefixes.
    pub keys: KeyTotals,
    /// Keys stored another way than before, in this run.
    pub rekeyed: u64,
    /// Entries of them that are compressed with a dictionary.
    pub with_dictionary: usize,
    /// Dictionaries that values are compressed with or will be.
    pub dictionaries: Vec<LiveDictionary>,
    /// Heap bytes of the dictionaries, samples and buffers.
    pub bytes: usize,
    /// Values compressed in this run.
    pub compressed: u64,
    /// Values stored as they are again, because they were read often or compression was switched off.
    pub decompressed: u64,
    /// Values that compression was found not to pay for.
    pub failed: u64,
    /// Values that were written while they were being compressed.
    pub overtaken: u64,
    /// Values packed together with others in this run.
    pub packed: u64,
    /// Packed values that were taken out again by the compressor.
    pub unpacked: u64,
    /// Blocks made in this run.
    pub blocks_made: u64,
    /// Processor time spent in the background, in microseconds.
    pub cpu_us: u64,
    /// Passes over what was written.
    pub sweeps: u64,
    /// Dictionaries trained.
    pub trainings: u64,
    /// Dictionaries trained that were worth adopting.
    pub dictionaries_adopted: u64,
}

impl CompressionStats {
    /// Bytes that packed values take less than they would whole: what is kept in their entries and all of their blocks
    /// counted. Below 0 when the blocks are mostly holes that were not packed anew yet.
    pub fn batches_saved_bytes(&self) -> i64 {
        let beside = self.blocks.values * PACKED_BESIDE;
        self.blocks.value_bytes as i64 - (self.blocks.block_bytes + beside) as i64
    }

    fn of(shared: &Shared, coded: &Coded, blocks: BlockTotals, keys: KeyTotals) -> Self {
        let compressor = &shared.compressor;
        let held = compressor.held.lock().clone();
        let counters = &compressor.counters;
        let dictionary_bytes: usize = held.dictionaries.iter().map(|live| live.bytes).sum();
        Self {
            settings: compressor.settings(),
            codecs: CodecId::ALL
                .into_iter()
                .filter(|id| *id != CodecId::Plain)
                .map(|id| (id.name(), coded.by_codec[usize::from(id.number())]))
                .collect(),
            blocks,
            keys,
            rekeyed: counters.rekeyed.load(Ordering::Relaxed),
            with_dictionary: coded.by_dictionary[1..].iter().sum(),
            bytes: held.bytes + dictionary_bytes,
            dictionaries: held.dictionaries,
            compressed: counters.compressed.load(Ordering::Relaxed),
            decompressed: counters.decompressed.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
            overtaken: counters.overtaken.load(Ordering::Relaxed),
            packed: counters.packed.load(Ordering::Relaxed),
            unpacked: counters.unpacked.load(Ordering::Relaxed),
            blocks_made: counters.blocks_made.load(Ordering::Relaxed),
            cpu_us: counters.cpu_us.load(Ordering::Relaxed),
            sweeps: counters.sweeps.load(Ordering::Relaxed),
            trainings: counters.trainings.load(Ordering::Relaxed),
            dictionaries_adopted: counters.dictionaries_adopted.load(Ordering::Relaxed),
        }
    }
}

/// The bound on memory, and eviction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Bytes allowed; `None` for no limit.
    pub limit: Option<u64>,
    /// What goes at the limit.
    pub policy: Option<PolicyKind>,
    /// Bytes that count against the limit, exactly: everything but what a snapshot in progress keeps alive.
    pub used: u64,
    /// Of these, bytes of eviction policies.
    pub policies: u64,
    /// Of these, bytes that wait for the disk, and of request bodies on their way in.
    pub transient: u64,
    /// Above this, eviction begins.
    pub high: Option<u64>,
    /// Eviction goes on down to this.
    pub low: Option<u64>,
    /// Evicted in the background.
    pub background: EvictedStats,
    /// Evicted by writes that found no room.
    pub inline: EvictedStats,
    /// Evicted because a person asked.
    pub request: EvictedStats,
    /// Writes refused for want of room.
    pub refused: u64,
    /// Reads of one key that found it.
    pub hits: u64,
    /// Reads of one key that did not.
    pub misses: u64,
}

/// Victims of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvictedStats {
    /// How many.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One partition.
#[derive(Clone, Copy, Debug)]
pub struct PartitionReport {
    /// Its number.
    pub index: usize,
    /// The event loop its background work runs on.
    pub home: usize,
    /// What it holds.
    pub stats: PartitionStats,
}

/// The log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Segments on disk.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Records handed over in this run.
    pub appends: u64,
    /// Bytes of those records.
    pub appended_bytes: u64,
    /// Bytes that wait to be written.
    pub queue_bytes: u64,
    /// Frames written.
    pub frames: u64,
    /// Syncs done.
    pub syncs: u64,
    /// Time spent in them, in microseconds.
    pub sync_us_sum: u64,
    /// The longest of them, in microseconds.
    pub sync_us_max: u64,
    /// Syncs by how long they took, by the bounds of [`inflightkv_wal::SYNC_TIME_BOUNDS_US`]; the last has none.
    pub sync_buckets: [u64; inflightkv_wal::SYNC_TIME_BOUNDS_US.len() + 1],
    /// Segments begun in this run.
    pub rotations: u64,
    /// Segments removed because a snapshot covers them.
    pub retired: u64,
    /// Sealed segments rewritten with a codec.
    pub rewritten: u64,
    /// Bytes that this gave back.
    pub rewritten_saved: u64,
}

/// Snapshots and log segments on disk.
#[derive(Clone, Debug, Default)]
pub struct DiskListing {
    /// Oldest first.
    pub snapshots: Vec<SnapshotListing>,
    /// Oldest first.
    pub segments: Vec<SegmentListing>,
}

/// A snapshot on disk.
#[derive(Clone, Debug)]
pub struct SnapshotListing {
    /// Its number.
    pub id: u64,
    /// Whether it holds every entry.
    pub full: bool,
    /// What an incremental one builds on.
    pub parent: Option<u64>,
    /// The last change in it.
    pub cut: u64,
    /// Entries in it.
    pub entries: u64,
    /// Removals in it.
    pub tombstones: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// When it was taken, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// Why it cannot be loaded, if so; then the other fields are 0.
    pub damage: Option<String>,
}

/// A log segment on disk.
#[derive(Clone, Copy, Debug)]
pub struct SegmentListing {
    /// Its number.
    pub number: u64,
    /// Its first record.
    pub first_sequence: u64,
    /// Its last record so far.
    pub last_sequence: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Whether it is complete.
    pub sealed: bool,
    /// Whether it was rewritten with a codec.
    pub compressed: bool,
    /// Whether a snapshot covers it, so that it is there only because it is kept for a time.
    pub retired: bool,
    /// When it was begun, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

impl Shared {
    /// Bytes of all entries. Takes every partition's lock once, one after the other.
    pub(super) fn entry_bytes(&self) -> u64 {
        (0..self.partitions.count())
            .map(|index| {
                self.partitions
                    .with(index, |table| table.partition.stats().entry_bytes as u64)
            })
            .sum()
    }
}

impl Engine {
    /// The store in numbers. Takes every partition's lock once, one after the other.
    pub fn stats(&self) -> Stats {
        let shared = &*self.shared;
        let mut total = PartitionStats::default();
        let mut timer_bytes = 0;
        let (mut coded, mut blocks) = (Coded::default(), BlockTotals::default());
        let mut keys = KeyTotals::default();
        let (mut held, mut policies) = (0, 0);
        let partitions = (0..shared.partitions.count())
            .map(|index| {
                let (stats, timers) = shared.partitions.with(index, |table| {
                    coded.add(table.partition.coded());
                    blocks.add(table.codings.blocks.totals());
                    keys.add(table);
                    held += table.bytes() as u64;
                    policies += table.ranking.bytes() as u64;
                    (table.partition.stats(), table.wheel.bytes())
                });
                timer_bytes += timers;
                total.entries += stats.entries;
                total.expiring += stats.expiring;
                total.entry_bytes += stats.entry_bytes;
                total.table_bytes += stats.table_bytes;
                total.slack_bytes += stats.slack_bytes;
                total.frozen_bytes += stats.frozen_bytes;
                total.tombstone_bytes += stats.tombstone_bytes;
                PartitionReport {
                    index,
                    home: shared.partitions.home_of(index),
                    stats,
                }
            })
            .collect();
        let last = shared.sequencer.last();
        let memory = memory_stats(shared, held, policies);
        let log = shared.wal.get();
        let (lock_waits, lock_wait_nanos) = shared.partitions.lock_waits();
        Stats {
            readiness: shared.readiness(),
            sequence: last,
            durable_sequence: log.map_or(last, |log| sequence(log.high_watermark())),
            total,
            timer_bytes,
            expired: shared.counters.expired.load(Ordering::Relaxed),
            expiry_lag: shared.counters.expiry_lag.read(),
            lock_waits,
            lock_wait_nanos,
            patch_retries: shared.counters.patch_retries.load(Ordering::Relaxed),
            compression: CompressionStats::of(shared, &coded, blocks, keys),
            memory,
            advice: shared.advisor.report(shared.reads()),
            partitions,
            wal: log.map(wal_stats),
            snapshots: log.map(|_| shared.checkpointer.figures()),
            recovery: shared.recovery_report.lock().clone(),
            damaged: shared.counters.damage.counts(),
            scrub: shared.scrubber.stats(),
            rules: self.rules().hits(),
        }
    }

    /// Snapshots and log segments on disk; `None` for a store in memory. Reads files: not for an event loop.
    ///
    /// # Errors
    /// The snapshots' folder cannot be read.
    pub fn disk_listing(&self) -> Result<Option<DiskListing>, ChainError> {
        let shared = &*self.shared;
        let (Some(Persistence { disk, .. }), Some(log)) =
            (&shared.options.persistence, shared.wal.get())
        else {
            return Ok(None);
        };
        let snapshots = chain::list(&*disk.snapshots)?
            .into_iter()
            .map(listed)
            .collect();
        let segments = log.segments();
        let active = segments.last().map(|segment| segment.number);
        let segments = segments
            .into_iter()
            .map(|segment| SegmentListing {
                number: segment.number,
                first_sequence: segment.first_lsn.get(),
                last_sequence: segment.last_lsn.get(),
                bytes: segment.bytes,
                sealed: Some(segment.number) != active,
                compressed: segment.codec != 0,
                retired: Some(segment.number) != active && segment.last_lsn <= log.retired_to(),
                created_at_ms: segment.created_at_ms,
            })
            .collect();
        Ok(Some(DiskListing {
            snapshots,
            segments,
        }))
    }
}

fn memory_stats(shared: &Shared, held: u64, policies: u64) -> MemoryStats {
    let meter = &shared.meter;
    let settings = meter.settings();
    let budget = settings.bytes_max.map(|_| meter.budget());
    let transient = shared.transient_bytes();
    let evicted = |reason: Reason| EvictedStats {
        entries: meter.figures.victims[reason as usize].load(Ordering::Relaxed),
        bytes: meter.figures.victim_bytes[reason as usize].load(Ordering::Relaxed),
    };
    let (hits, misses) = shared.homes.iter().fold((0, 0), |(hits, misses), home| {
        let (found, missed) = home.reads();
        (hits + found, misses + missed)
    });
    MemoryStats {
        limit: settings.bytes_max,
        policy: settings.policy,
        used: held + transient,
        policies,
        transient,
        high: budget.map(Budget::high),
        low: budget.map(Budget::low),
        background: evicted(Reason::Background),
        inline: evicted(Reason::Inline),
        request: evicted(Reason::Request),
        refused: meter.figures.refused.load(Ordering::Relaxed),
        hits,
        misses,
    }
}

fn wal_stats(log: &Wal) -> WalStats {
    let status = log.status();
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    WalStats {
        segments: status.segments as u64,
        bytes: status.bytes,
        appends: status.appends,
        appended_bytes: status.appended_bytes,
        queue_bytes: status.queue_bytes,
        frames: status.frames,
        syncs: status.syncs,
        sync_us_sum: micros(status.sync_time.sum),
        sync_us_max: micros(status.sync_time.max),
        sync_buckets: status.sync_time.buckets,
        rotations: status.rotations,
        retired: status.retired,
        rewritten: status.rewritten,
        rewritten_saved: status.rewritten_saved,
    }
}

fn listed(listed: chain::Listed) -> SnapshotListing {
    match listed.manifest {
        Ok(manifest) => SnapshotListing {
            id: listed.id,
            full: manifest.kind() == Kind::Full,
            parent: manifest.parent.as_ref().map(|parent| parent.id),
            cut: manifest.cut,
            entries: manifest.totals.entries,
            tombstones: manifest.totals.tombstones,
            bytes: manifest.totals.bytes,
            created_at_ms: manifest.created_at_ms,
            damage: None,
        },
        Err(error) => SnapshotListing {
            id: listed.id,
            full: false,
            parent: None,
            cut: 0,
            entries: 0,
            tombstones: 0,
            bytes: 0,
            created_at_ms: 0,
            damage: Some(error.to_string()),
        },
    }
}
