//! A restart, in order: load the newest sound snapshot, replay the log above it, verify, open the log for more.

use super::adapters::{loaded, lsn, sequence, snapshot_codecs, wal_codec, wal_codecs};
use super::partitions::Partitions;
use super::sequencer::first_of_run;
use super::{Engine, Persistence, Shared, restore, switch};
use inflightkv_core::{LoadedEntry, Sequence};
use inflightkv_snapshot::{self as snapshot, LoadError, Manifest, StoreId, chain};
use inflightkv_wal::{self as wal, Lsn, Op, Record, RecoveryMode};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

/// Bytes of log handed to a replaying thread at once.
const BATCH_BYTES: usize = 256 << 10;
/// Batches waiting for a replaying thread.
const BATCHES_WAITING: usize = 4;

/// How far a recovery has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, in a word or two.
    pub phase: &'static str,
    /// Bytes of snapshot and log read so far.
    pub done_bytes: u64,
    /// Bytes to read in all; 0 while that is not known.
    pub total_bytes: u64,
    /// Entries and records applied so far.
    pub entries: u64,
    /// Estimate of the time left, in milliseconds.
    pub remaining_ms: Option<u64>,
}

/// Why what is on disk was not loaded. The disk is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The snapshots' folder cannot be read, or holds what this store must not touch.
    #[error("the snapshots cannot be used: {0}")]
    Snapshots(#[from] snapshot::ChainError),
    /// There are snapshots, none can be loaded, and the log does not reach back far enough to do without.
    #[error("no snapshot can be loaded and the log begins only after {log_from}: {damage}")]
    AllDamaged {
        /// The first damage, of the newest snapshot.
        damage: String,
        /// What the log follows.
        log_from: u64,
    },
    /// A snapshot of the sound chain could not be read.
    #[error("the snapshot cannot be loaded: {0}")]
    Load(#[from] LoadError),
    /// There is a snapshot but no log at all.
    #[error("snapshot {id} is there but its log is gone: changes after sequence {cut} may be lost")]
    LogMissing {
        /// The snapshot.
        id: u64,
        /// What it holds.
        cut: u64,
    },
    /// The log says that a backup was restored, and the backup is not there as it was staged.
    #[error("the log goes on from a restored backup that cannot be loaded: {0}")]
    Restored(LoadError),
    /// The folder of the snapshots cannot be listed.
    #[error("the snapshots' folder cannot be listed: {0}")]
    Staged(io::Error),
    /// The log is damaged, has a gap, or is not this store's.
    #[error("the log cannot be replayed: {0}")]
    Log(#[from] wal::RecoveryError),
    /// The log could not be opened for new changes.
    #[error("the log cannot be opened for writing: {0}")]
    OpenLog(#[from] wal::OpenError),
    /// A thread of the store could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(io::Error),
    /// A store that is to follow another one has data of its own.
    #[error(
        "the data directory holds a store already, and a server that follows another one begins with an empty one"
    )]
    NotEmpty,
    /// Asked to end while loading.
    #[error("stopped while recovering")]
    Stopped,
}

/// Counters that the threads of a recovery share with whoever shows its progress.
#[derive(Debug)]
pub(crate) struct Recovery {
    started: Instant,
    replaying: AtomicBool,
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
    entries: AtomicU64,
    stop: AtomicBool,
}

impl Recovery {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            replaying: AtomicBool::new(false),
            done_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn flow(&self) -> ControlFlow<()> {
        if self.stop.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        let total_bytes = self.total_bytes.load(Ordering::Relaxed);
        let done_bytes = self.done_bytes.load(Ordering::Relaxed).min(total_bytes);
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let remaining_ms = (done_bytes > 0 && total_bytes > 0).then(|| {
            (u128::from(elapsed) * u128::from(total_bytes - done_bytes) / u128::from(done_bytes))
                as u64
        });
        Progress {
            phase: if self.replaying.load(Ordering::Relaxed) {
                "replaying the log"
            } else {
                "loading the snapshot"
            },
            done_bytes,
            total_bytes,
            entries: self.entries.load(Ordering::Relaxed),
            remaining_ms,
        }
    }
}

/// What a recovery found, for a log line.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// The snapshot that was loaded.
    pub snapshot: Option<u64>,
    /// Entries taken from it.
    pub entries: u64,
    /// Records of the log replayed above it.
    pub records: u64,
    /// The last change that is there.
    pub last_sequence: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

impl Engine {
    /// Loads what is on disk and opens the store; returns at once for a store in memory.
    ///
    /// Blocks for as long as loading takes: call it on a thread of its own and show [`Engine::readiness`].
    ///
    /// # Errors
    /// See [`RecoverError`]. The store then stays closed and the disk as it was.
    pub fn recover(&self) -> Result<(), RecoverError> {
        self.recover_with(self.shared.options.lanes)
    }

    /// Recovers with so many threads beside this one; with none, everything happens in the same order every time.
    pub(super) fn recover_with(&self, helpers: usize) -> Result<(), RecoverError> {
        let shared = &*self.shared;
        let now = shared.options.clock.now();
        if shared.role.follows() {
            // What there is to load comes from the store that is followed.
            return match &shared.options.persistence {
                Some(persistence) => super::follow::check_empty(persistence)
                    .inspect_err(|error| shared.fail(error.to_string())),
                None => Ok(()),
            };
        }
        let persistence = shared.options.persistence.as_ref();
        let Some(persistence) = persistence.filter(|persistence| !persistence.start_off) else {
            shared.begin_run(first_of_run(Sequence::ZERO, now));
            shared
                .checkpointer
                .begin_with(new_store_id(), 1, Sequence::ZERO, 0, 0);
            shared.serve();
            return Ok(());
        };
        let recovered = recover(shared, persistence, now, helpers);
        if let Err(error) = &recovered {
            shared.fail(error.to_string());
        }
        let report = recovered?;
        tracing::info!(
            snapshot = report.snapshot,
            entries = report.entries,
            records = report.records,
            last_sequence = report.last_sequence,
            duration_ms = report.duration_ms,
            "recovered"
        );
        *shared.recovery_report.lock() = Some(report);
        shared.serve();
        Ok(())
    }

    /// Asks a running recovery to give up soon; it then ends with [`RecoverError::Stopped`].
    pub fn stop_recovery(&self) {
        self.shared.recovery.stop();
    }
}

fn recover(
    shared: &Shared,
    persistence: &Persistence,
    now: u64,
    helpers: usize,
) -> Result<RecoveryReport, RecoverError> {
    switch::settle(persistence)?;
    let storage = &*persistence.disk.snapshots;
    let swept = chain::sweep(storage)?;
    if !swept.is_empty() {
        tracing::info!(
            files = swept.len(),
            "removed the files of unfinished snapshots"
        );
    }
    let known = match chain::newest(storage, None)? {
        chain::Found::Chain(chain) => Some(chain.tip().store_id),
        chain::Found::None | chain::Found::AllDamaged(_) => None,
    };
    let codecs = wal_codecs();
    let scan = wal::scan(&persistence.disk.wal, &codecs, persistence.recovery, known)?;
    let store_id = known.or(scan.store_id());
    let loaded = load_snapshot(shared, persistence, store_id, &scan, helpers)?;
    let cut = loaded
        .as_ref()
        .map_or(0, |manifests| manifests.last().map_or(0, |tip| tip.cut));

    shared.recovery.replaying.store(true, Ordering::Relaxed);
    let (outcome, restored) = replay_all(shared, persistence, &scan, Lsn::new(cut), helpers)?;
    // Those of restores that did not come to be, or that the snapshot holds. All that the log names stay as long as it does.
    restore::remove_staged(storage, |name| {
        restored.iter().all(|(file, _)| file != name)
    });
    if let Some(torn) = &outcome.cut {
        tracing::info!(file = %torn.file, offset = torn.offset, bytes = torn.bytes, "cut a torn tail off the log: it was never acknowledged as durable");
    }
    if let Some(damage) = &outcome.damage {
        tracing::warn!(%damage, set_aside = ?outcome.set_aside, "the log is damaged: serving the state before the damage, as asked");
    }

    let last = Sequence::from_raw(outcome.last_lsn.get().max(cut));
    let seen = Sequence::from_raw(outcome.seen_lsn.get().max(last.get()));
    let first = first_of_run(seen, now);
    shared.begin_run(first);
    let store_id = store_id.unwrap_or_else(new_store_id);
    let start = outcome.start(store_id, lsn(first), now);
    // One lane more than there are loops, for threads that are none.
    let log = wal::Wal::open(
        persistence.disk.wal.clone(),
        persistence.wal.clone(),
        start,
        shared.options.lanes + 1,
    )?
    .with_codecs(codecs, persistence.wal_compress.map(wal_codec));
    if loaded.is_some()
        && let Err(error) = log.retire_below(Lsn::new(cut))
    {
        tracing::warn!(%error, "log segments that the snapshot covers could not be removed");
    }
    let staged_id = restore::next_staged_id(storage).map_err(RecoverError::Staged)?;
    let next_id = chain::next_id(storage)?.max(staged_id);
    let last_cut = Sequence::from_raw(cut);
    shared.checkpointer.begin_with(
        store_id,
        next_id,
        last_cut,
        outcome.bytes,
        persistence.snapshot_full_every,
    );
    for (file, sequence) in restored {
        shared.checkpointer.restored(file, sequence);
    }
    let report = RecoveryReport {
        snapshot: loaded
            .as_ref()
            .and_then(|manifests| manifests.last())
            .map(|tip| tip.id),
        entries: shared
            .recovery
            .entries
            .load(Ordering::Relaxed)
            .saturating_sub(outcome.records),
        records: outcome.records,
        last_sequence: last.get(),
        duration_ms: u64::try_from(shared.recovery.started.elapsed().as_millis())
            .unwrap_or(u64::MAX),
    };
    let number = shared.wal.keep(log).expect("a store recovers once");
    shared.wal.activate(number);
    shared.own_directory.store(true, Ordering::Release);
    Ok(report)
}

/// A number that no other store has: process-random keys over the time and the process.
pub(crate) fn new_store_id() -> StoreId {
    let half = || RandomState::new().hash_one((std::time::SystemTime::now(), std::process::id()));
    ((u128::from(half()) << 64) | u128::from(half())).to_le_bytes()
}

/// Loads the newest chain that proves sound and that the log can continue; `None` when there is no snapshot, or when
/// all are damaged and the log alone holds everything.
fn load_snapshot(
    shared: &Shared,
    persistence: &Persistence,
    store_id: Option<StoreId>,
    scan: &wal::Scan,
    helpers: usize,
) -> Result<Option<Vec<Manifest>>, RecoverError> {
    let storage = &*persistence.disk.snapshots;
    let reaches_back_to = scan.reaches_back_to();
    let mut first_damage: Option<String> = None;
    for candidate in chain::candidates(storage, store_id)? {
        let chain = match candidate? {
            chain::Candidate::Sound(chain) => chain,
            chain::Candidate::Damaged(skipped) => {
                tracing::warn!(snapshot = skipped.tip, damage = %skipped.damage, "passed over a damaged snapshot");
                first_damage.get_or_insert_with(|| skipped.damage.to_string());
                continue;
            }
        };
        let cut = Lsn::new(chain.cut());
        if reaches_back_to.is_some_and(|from| from > cut) {
            // The log was retired under a newer snapshot: this one cannot be continued.
            continue;
        }
        if scan.is_empty() && persistence.recovery == RecoveryMode::Strict {
            return Err(RecoverError::LogMissing {
                id: chain.tip().id,
                cut: chain.cut(),
            });
        }
        let bytes: u64 = chain
            .manifests
            .iter()
            .map(|manifest| manifest.totals.bytes)
            .sum();
        shared
            .recovery
            .total_bytes
            .store(bytes + scan.bytes_above(cut), Ordering::Relaxed);
        match load_chain(shared, storage, &chain.manifests, helpers) {
            Ok(()) => return Ok(Some(chain.manifests)),
            Err(LoadError::Stopped) => return Err(RecoverError::Stopped),
            Err(LoadError::Damaged(damage)) => {
                tracing::warn!(snapshot = chain.tip().id, %damage, "passed over a damaged snapshot");
                first_damage.get_or_insert_with(|| damage.to_string());
                shared.partitions.clear();
                shared.recovery.done_bytes.store(0, Ordering::Relaxed);
                shared.recovery.entries.store(0, Ordering::Relaxed);
            }
            Err(error) => return Err(error.into()),
        }
    }
    shared
        .recovery
        .total_bytes
        .store(scan.bytes_above(Lsn::ZERO), Ordering::Relaxed);
    match (first_damage, reaches_back_to) {
        (None, _) => Ok(None),
        (Some(damage), Some(Lsn::ZERO)) => {
            tracing::warn!(%damage, "no snapshot can be loaded; the log holds everything since the store was made");
            Ok(None)
        }
        (Some(damage), from) => Err(RecoverError::AllDamaged {
            damage,
            log_from: from.unwrap_or_default().get(),
        }),
    }
}

/// Loads a full snapshot and its increments in order, the parts of each side by side.
fn load_chain(
    shared: &Shared,
    storage: &dyn snapshot::Storage,
    manifests: &[Manifest],
    helpers: usize,
) -> Result<(), LoadError> {
    for manifest in manifests {
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), LoadError> {
            let codecs = snapshot_codecs();
            loop {
                let part = next.fetch_add(1, Ordering::Relaxed);
                if part >= manifest.parts.len() {
                    return Ok(());
                }
                let mut loader = Loader::new(shared);
                let report = snapshot::load_part(storage, manifest, part, &codecs, |entry| {
                    if entry.tombstone {
                        loader.remove(entry.key, Sequence::from_raw(entry.sequence));
                    } else {
                        loader.insert(loaded(&entry));
                    }
                    shared.recovery.flow()
                })?;
                shared
                    .recovery
                    .done_bytes
                    .fetch_add(report.bytes, Ordering::Relaxed);
            }
        };
        let results: Vec<_> = thread::scope(|scope| {
            let helpers: Vec<_> = (1..helpers.min(manifest.parts.len()))
                .map(|_| scope.spawn(work))
                .collect();
            let mut results = vec![work()];
            results.extend(
                helpers
                    .into_iter()
                    .map(|helper| helper.join().unwrap_or(Err(LoadError::Stopped))),
            );
            results
        });
        results.into_iter().collect::<Result<(), _>>()?;
    }
    Ok(())
}

/// Puts what was read from disk into the partitions.
pub(super) struct Loader<'a> {
    partitions: &'a Partitions,
    recovery: &'a Recovery,
    now: u64,
    applied: u64,
}

impl<'a> Loader<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            partitions: &shared.partitions,
            recovery: &shared.recovery,
            now: shared.options.clock.now(),
            applied: 0,
        }
    }

    pub(super) fn insert(&mut self, loaded: LoadedEntry<'_>) {
        let place = self.partitions.place(loaded.key);
        let now = self.now;
        let replaced = self.partitions.with(place.partition, |table| {
            let applied = table.partition.load(place.hash, &loaded)?;
            table.schedule(applied.slot, applied.expires_at, now);
            self.partitions.publish_due(place.partition, table);
            Some(applied)
        });
        drop(replaced);
        self.count();
    }

    fn remove(&mut self, key: &str, sequence: Sequence) {
        let place = self.partitions.place(key);
        let removed = self.partitions.with(place.partition, |table| {
            let applied = table.partition.unload(place.hash, key, sequence)?;
            table.schedule(applied.slot, None, 0);
            Some(applied)
        });
        drop(removed);
        self.count();
    }

    fn count(&mut self) {
        self.applied += 1;
        // Not one shared counter an entry: the loading threads would pass its cache line to and fro.
        if self.applied.is_multiple_of(1024) {
            self.recovery.entries.fetch_add(1024, Ordering::Relaxed);
        }
    }
}

impl Drop for Loader<'_> {
    fn drop(&mut self) {
        self.recovery
            .entries
            .fetch_add(self.applied % 1024, Ordering::Relaxed);
    }
}

/// Replays the log above `above`, starting over from every backup that was restored meanwhile. Says which those were.
fn replay_all(
    shared: &Shared,
    persistence: &Persistence,
    scan: &wal::Scan,
    mut above: Lsn,
    helpers: usize,
) -> Result<(wal::Outcome, Vec<(String, Sequence)>), RecoverError> {
    let mut restored = Vec::new();
    loop {
        match replay(shared, scan, above, helpers)? {
            Replayed::ToTheEnd(outcome) => return Ok((outcome, restored)),
            Replayed::UpTo(marker, at) => {
                shared.partitions.clear();
                shared.recovery.entries.store(0, Ordering::Relaxed);
                let entries = restore::load_staged(shared, persistence, &marker).map_err(
                    |error| match error {
                        LoadError::Stopped => RecoverError::Stopped,
                        other => RecoverError::Restored(other),
                    },
                )?;
                shared.recovery.entries.store(entries, Ordering::Relaxed);
                restored.push((marker.file().to_owned(), sequence(at)));
                above = at;
            }
        }
    }
}

enum Replayed {
    ToTheEnd(wal::Outcome),
    /// A backup was restored under this number.
    UpTo(restore::Marker, Lsn),
}

/// Replays the log above `above`: one thread reads and verifies, one a lane applies, each a range of partitions, so
/// that the records of a key stay in order.
fn replay(
    shared: &Shared,
    scan: &wal::Scan,
    above: Lsn,
    helpers: usize,
) -> Result<Replayed, RecoverError> {
    let mut met = None;
    let result = if helpers == 0 {
        replay_alone(shared, scan, above, &mut met)
    } else {
        replay_together(shared, scan, above, &mut met)
    };
    match (result, met) {
        (Err(wal::RecoveryError::Stopped { .. }), Some((marker, at))) => {
            Ok(Replayed::UpTo(marker, at))
        }
        (Err(wal::RecoveryError::Stopped { .. }), None) => Err(RecoverError::Stopped),
        (other, _) => Ok(Replayed::ToTheEnd(other?)),
    }
}

/// A record that belongs to a restore and not to a key: what it does to the replay, and in `met` which it was.
fn of_a_restore(
    record: &Record<'_>,
    met: &mut Option<(restore::Marker, Lsn)>,
) -> Option<ControlFlow<()>> {
    if record.key != restore::MARKER_KEY {
        return None;
    }
    match restore::meet(record.value) {
        restore::Met::Nothing => Some(ControlFlow::Continue(())),
        restore::Met::Restore(marker) => {
            *met = Some((marker, record.lsn));
            Some(ControlFlow::Break(()))
        }
        restore::Met::Unknown => None,
    }
}

fn replay_alone(
    shared: &Shared,
    scan: &wal::Scan,
    above: Lsn,
    met: &mut Option<(restore::Marker, Lsn)>,
) -> Result<wal::Outcome, wal::RecoveryError> {
    let mut loader = Loader::new(shared);
    scan.replay(above, |record| {
        if let Some(flow) = of_a_restore(&record, met) {
            return flow;
        }
        match record.op {
            Op::Delete => loader.remove(record.key, sequence(record.lsn)),
            Op::Put => loader.insert(LoadedEntry {
                key: record.key,
                value: record.value,
                media_type: record.media_type,
                crc: record.value_crc,
                version: record.version,
                sequence: sequence(record.lsn),
                expires_at: record.expires_at,
                pinned: record.pinned,
            }),
        }
        shared.recovery.flow()
    })
}

fn replay_together(
    shared: &Shared,
    scan: &wal::Scan,
    above: Lsn,
    met: &mut Option<(restore::Marker, Lsn)>,
) -> Result<wal::Outcome, wal::RecoveryError> {
    let workers = shared.options.lanes;
    thread::scope(|scope| {
        let mut lanes: Vec<(SyncSender<Batch>, Batch)> = Vec::with_capacity(workers);
        for _ in 0..workers {
            let (sender, receiver) = sync_channel(BATCHES_WAITING);
            scope.spawn(move || apply_batches(shared, &receiver));
            lanes.push((sender, Batch::default()));
        }
        let result = scan.replay(above, |record| {
            if let Some(flow) = of_a_restore(&record, met) {
                return flow;
            }
            let partition = shared.partitions.place(record.key).partition;
            let (sender, batch) = &mut lanes[shared.partitions.home_of(partition)];
            batch.push(&record);
            if batch.text.len() >= BATCH_BYTES {
                shared
                    .recovery
                    .done_bytes
                    .fetch_add(batch.text.len() as u64, Ordering::Relaxed);
                if sender.send(std::mem::take(batch)).is_err() {
                    return ControlFlow::Break(());
                }
            }
            shared.recovery.flow()
        });
        for (sender, batch) in lanes {
            // A worker that died shows when the scope joins it.
            let _ = sender.send(batch);
        }
        result
    })
}

fn apply_batches(shared: &Shared, batches: &Receiver<Batch>) {
    let mut loader = Loader::new(shared);
    while let Ok(batch) = batches.recv() {
        for packed in &batch.records {
            let key = batch.text_at(packed.key.clone());
            match packed.op {
                Op::Delete => loader.remove(key, packed.sequence),
                Op::Put => loader.insert(LoadedEntry {
                    key,
                    value: &batch.text[packed.value.clone()],
                    media_type: packed.media_type.clone().map(|range| batch.text_at(range)),
                    crc: packed.crc,
                    version: packed.version,
                    sequence: packed.sequence,
                    expires_at: packed.expires_at,
                    pinned: packed.pinned,
                }),
            }
        }
    }
}

/// Records on their way from the reading thread to one that applies them.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    records: Vec<Packed>,
}

struct Packed {
    op: Op,
    sequence: Sequence,
    version: u64,
    expires_at: Option<u64>,
    pinned: bool,
    crc: u32,
    key: Range<usize>,
    media_type: Option<Range<usize>>,
    value: Range<usize>,
}

impl Batch {
    fn push(&mut self, record: &Record<'_>) {
        let mut put = |bytes: &[u8]| {
            let start = self.text.len();
            self.text.extend_from_slice(bytes);
            start..self.text.len()
        };
        let key = put(record.key.as_bytes());
        let media_type = record
            .media_type
            .map(|media_type| put(media_type.as_bytes()));
        let value = put(record.value);
        self.records.push(Packed {
            op: record.op,
            sequence: sequence(record.lsn),
            version: record.version,
            expires_at: record.expires_at,
            pinned: record.pinned,
            crc: record.value_crc,
            key,
            media_type,
            value,
        });
    }

    fn text_at(&self, range: Range<usize>) -> &str {
        std::str::from_utf8(&self.text[range])
            .expect("keys and media types are copied whole from text")
    }
}
