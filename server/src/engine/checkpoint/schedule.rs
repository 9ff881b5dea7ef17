//! When a snapshot is due, what it builds on, and how the last ones ended.

use super::stream::Stream;
use super::{CheckpointError, Checkpointer, SnapshotKind, SnapshotReport};
use crate::engine::restore::Swap;
use crate::engine::{Persistence, Shared};
use inflightkv_core::Sequence;
use inflightkv_snapshot::{Parent, StoreId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};

/// An automatic snapshot that failed is tried again after this long.
const RETRY_AFTER_MS: u64 = 10_000;
/// How often a store that changes looks whether a snapshot is due. One that does not change never looks.
const DUE_CHECK: Duration = Duration::from_secs(1);
/// And how often at most, when the log grows fast.
const DUE_CHECK_MIN: Duration = Duration::from_millis(20);
/// Outcomes remembered for those who ask by id.
const OUTCOMES_KEPT: usize = 16;

#[derive(Default)]
pub(super) struct Control {
    pub(super) poked: bool,
    pub(super) store_id: StoreId,
    pub(super) next_id: u64,
    pub(super) requested: Option<(u64, SnapshotKind)>,
    /// Backups that wait for their turn, and the one that is being made.
    pub(super) backups: VecDeque<Arc<Stream>>,
    pub(super) streaming: Option<Arc<Stream>>,
    /// Tables that wait to be exchanged for the store's, between two walks.
    pub(super) swaps: VecDeque<Arc<Swap>>,
    /// Staged backups that a snapshot up to their number makes superfluous.
    pub(super) staged: Vec<(String, Sequence)>,
    /// The last walk was a backup's: a snapshot that was asked for goes first now.
    backup_last: bool,
    /// The snapshots of this run that the next incremental one builds on: a full one first.
    pub(super) chain: Vec<Link>,
    pub(super) last_cut: Sequence,
    /// Log appended when the last snapshot was cut, and what was in the log before this run.
    pub(super) log_bytes_at_cut: u64,
    pub(super) log_bytes_carried: u64,
    pub(super) changed_since_ms: Option<u64>,
    /// How much log there was at the last look, and when that was.
    looked: Option<(u64, Instant)>,
    pub(super) retry_at_ms: u64,
    /// What became of them so far in this run.
    pub(super) figures: super::SnapshotFigures,
    pub(super) outcomes: VecDeque<(u64, Result<SnapshotReport, CheckpointError>)>,
    pub(super) waiting: Vec<(u64, Waker)>,
}

/// What a walk is begun for.
pub(super) enum Job {
    Snapshot(u64, SnapshotKind),
    Backup(Arc<Stream>),
    Swap(Arc<Swap>),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    id: u64,
    cut: u64,
    bytes: u64,
}

impl Checkpointer {
    /// Forgets all removals, because they take too much memory, and makes the next snapshot a full one, which needs none.
    /// Does nothing while a snapshot is taken: when it stands, its removals are forgotten anyway.
    pub(crate) fn forgo_increments(&self, shared: &Shared) {
        // Nobody begins a snapshot meanwhile.
        let Some(stage) = self.stage.try_lock() else {
            return;
        };
        if stage.is_some() {
            return;
        }
        self.control.lock().chain.clear();
        for partition in 0..shared.partitions.count() {
            let removed = shared.partitions.with(partition, |table| {
                if table.partition.is_frozen() {
                    None
                } else {
                    Some(table.partition.take_tombstones())
                }
            });
            drop(removed);
        }
    }

    /// What to begin now, or how long to wait before looking again.
    pub(super) fn due(
        &self,
        shared: &Shared,
        durable: Option<(&Persistence, &inflightkv_wal::Wal)>,
        now: u64,
    ) -> Result<Job, Option<Duration>> {
        let mut control = self.control.lock();
        if let Some(swap) = control.swaps.pop_front() {
            return Ok(Job::Swap(swap));
        }
        control.backups.retain(|stream| !stream.is_left());
        let snapshot_waits = control.requested.is_some() && durable.is_some();
        if !(snapshot_waits && control.backup_last)
            && let Some(stream) = control.backups.pop_front()
        {
            control.backup_last = true;
            control.streaming = Some(Arc::clone(&stream));
            return Ok(Job::Backup(stream));
        }
        control.backup_last = false;
        let Some((persistence, log)) = durable else {
            return Err(None);
        };
        if let Some((id, kind)) = control.requested.take() {
            return Ok(Job::Snapshot(id, kind));
        }
        if shared.sequencer.last() <= control.last_cut {
            control.changed_since_ms = None;
            self.quiet.store(true, Ordering::SeqCst);
            // A change made before the flag stood is seen here, one made after it pokes.
            if shared.sequencer.last() <= control.last_cut {
                return Err(None);
            }
            self.quiet.store(false, Ordering::SeqCst);
        }
        let changed_since = *control.changed_since_ms.get_or_insert(now);
        let log_bytes =
            control.log_bytes_carried + log.status().appended_bytes - control.log_bytes_at_cut;
        let interval_ms =
            u64::try_from(persistence.snapshot_interval.as_millis()).unwrap_or(u64::MAX);
        let log_bytes_max = log_bytes_max(shared, persistence, &control, log_bytes);
        let is_due = log_bytes >= log_bytes_max || now.saturating_sub(changed_since) >= interval_ms;
        if !is_due || now < control.retry_at_ms || log.admit().is_err() {
            let left = log_bytes_max.saturating_sub(log_bytes);
            return Err(Some(control.look_again(log_bytes, left)));
        }
        let id = control.next_id;
        control.next_id += 1;
        Ok(Job::Snapshot(id, SnapshotKind::Auto))
    }

    pub(super) fn record(
        &self,
        outcome: Result<SnapshotReport, CheckpointError>,
        id: u64,
        log_bytes: u64,
        now: u64,
    ) {
        let mut control = self.control.lock();
        match &outcome {
            Ok(report) => {
                if report.full {
                    control.chain.clear();
                }
                control.chain.push(Link {
                    id,
                    cut: report.cut,
                    bytes: report.bytes,
                });
                control.last_cut = Sequence::from_raw(report.cut);
                control.log_bytes_at_cut = log_bytes;
                control.log_bytes_carried = 0;
                control.changed_since_ms = None;
            }
            Err(_) => control.retry_at_ms = now.saturating_add(RETRY_AFTER_MS),
        }
        control.figures.ended(&outcome, now);
        control.outcomes.push_back((id, outcome));
        if control.outcomes.len() > OUTCOMES_KEPT {
            control.outcomes.pop_front();
        }
        let (ended, waiting) = std::mem::take(&mut control.waiting)
            .into_iter()
            .partition(|(known, _)| *known <= id);
        control.waiting = waiting;
        drop(control);
        let ended: Vec<(u64, Waker)> = ended;
        for (_, waker) in ended {
            waker.wake();
        }
    }
}

/// With how much log a snapshot is due: what was asked for, or before that what there is room for, if that is more than
/// a segment. Otherwise a small store that is overwritten all the time would keep many times its size on disk.
fn log_bytes_max(
    shared: &Shared,
    persistence: &Persistence,
    control: &Control,
    log_bytes: u64,
) -> u64 {
    let segment = persistence.wal.segment_bytes;
    if log_bytes < segment {
        // The data need not be looked at yet.
        return segment.min(persistence.snapshot_after);
    }
    let room = Room::beside(&control.chain, shared.entry_bytes());
    room.log.max(segment).min(persistence.snapshot_after)
}

/// How much may be on disk beside a full snapshot.
///
/// When the next full one is written, the last is still there, its increments and the log as well: all of it together is to
/// stay within twice the data. Where snapshots are half as large as the data or smaller there is room for as much log as half of
/// the data and increments as half of the snapshot. Where they hardly are smaller the two of them take all of it; log and
/// increments are then kept to a quarter and an eighth, because each halving of that doubles how often everything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    log: u64,
    increments: u64,
}

impl Room {
    fn beside(chain: &[Link], data: u64) -> Self {
        let (full, increments) = match chain.split_first() {
            Some((base, increments)) => (
                base.bytes,
                increments.iter().map(|link| link.bytes).sum::<u64>(),
            ),
            None => (0, 0),
        };
        let beside = (2 * data).saturating_sub(2 * full);
        Self {
            log: beside.saturating_sub(increments).clamp(data / 4, data / 2),
            increments: beside.saturating_sub(data / 4).clamp(full / 8, full / 2),
        }
    }
}

/// What the next snapshot is about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Content {
    pub(super) data_bytes: u64,
    pub(super) entries: usize,
    /// Of them changed since the last snapshot, at most.
    pub(super) changed: usize,
}

impl Content {
    pub(super) fn of(shared: &Shared) -> Self {
        let mut content = Self::default();
        for partition in 0..shared.partitions.count() {
            shared.partitions.with(partition, |table| {
                let stats = table.partition.stats();
                content.data_bytes += stats.entry_bytes as u64;
                content.entries += stats.entries;
                content.changed += table.partition.changed().unwrap_or(stats.entries);
            });
        }
        content
    }
}

impl Control {
    /// When to look again with `left` bytes of log until a snapshot is due, if the log goes on growing as it did.
    fn look_again(&mut self, log_bytes: u64, left: u64) -> Duration {
        let now = Instant::now();
        let Some((before, at)) = self.looked.replace((log_bytes, now)) else {
            return DUE_CHECK;
        };
        let grown = log_bytes.saturating_sub(before).max(1);
        let nanos = now.duration_since(at).as_nanos() * u128::from(left) / u128::from(grown);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            .clamp(DUE_CHECK_MIN, DUE_CHECK)
    }

    /// Asks for a full snapshot, in place of what else was asked for.
    pub(super) fn request_full(&mut self) {
        let id = match self.requested {
            Some((id, _)) => id,
            None => {
                self.next_id += 1;
                self.next_id - 1
            }
        };
        self.requested = Some((id, SnapshotKind::Full));
    }

    /// What a snapshot of `kind` builds on; `None` for a full one.
    pub(super) fn parent(
        &self,
        kind: SnapshotKind,
        full_every: u32,
        content: Content,
    ) -> Option<Parent> {
        let (base, increments) = self.chain.split_first()?;
        let tip = self.chain.last()?;
        let entries = content.entries.max(1) as u128;
        let next = u128::from(base.bytes) * content.changed.min(content.entries) as u128 / entries;
        let weight = increments.iter().map(|link| link.bytes).sum::<u64>()
            + u64::try_from(next).unwrap_or(u64::MAX);
        let heavy = weight > Room::beside(&self.chain, content.data_bytes).increments;
        let long = increments.len() >= full_every as usize;
        let incremental = match kind {
            SnapshotKind::Full => false,
            SnapshotKind::Incremental => full_every > 0,
            SnapshotKind::Auto => !heavy && !long,
        };
        incremental.then_some(Parent {
            id: tip.id,
            cut: tip.cut,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(bytes: &[u64]) -> Vec<Link> {
        let link = |(id, bytes): (u64, &u64)| Link {
            id,
            cut: id,
            bytes: *bytes,
        };
        (1..).zip(bytes).map(link).collect()
    }

    /// The most there is on disk when the next full one is written.
    fn most(full: u64, increments: u64, room: Room) -> u64 {
        2 * full + increments + room.log
    }

    #[test]
    fn a_full_snapshot_beside_the_last_fits_into_twice_the_data() {
        const DATA: u64 = 1_000_000;
        assert_eq!(Room::beside(&[], DATA).log, DATA / 2);
        for full in (50_000..1_000_000).step_by(50_000) {
            let room = Room::beside(&chain(&[full]), DATA);
            assert!((DATA / 4..=DATA / 2).contains(&room.log), "{room:?}");
            assert!((full / 8..=full / 2).contains(&room.increments), "{room:?}");
            // With as many increments as there may be.
            let heavy = Room::beside(&chain(&[full, room.increments]), DATA);
            let most = most(full, room.increments, heavy);
            let over = most.saturating_sub(2 * DATA);
            let wanted = if full <= 3 * DATA / 4 {
                0
            } else {
                3 * DATA / 8
            };
            assert!(over <= wanted, "{over} too much with {full}: {heavy:?}");
        }
    }

    #[test]
    fn an_increment_has_to_be_worth_it() {
        let mut control = Control {
            chain: chain(&[400_000]),
            ..Control::default()
        };
        let changed = |changed| Content {
            data_bytes: 1_000_000,
            entries: 10_000,
            changed,
        };
        let auto = |control: &Control, content| control.parent(SnapshotKind::Auto, 8, content);
        assert!(auto(&control, changed(100)).is_some());
        assert!(auto(&control, changed(5_000)).is_some());
        assert!(auto(&control, changed(5_100)).is_none());
        // What does not get smaller on disk leaves less room.
        control.chain = chain(&[980_000]);
        assert!(auto(&control, changed(1_200)).is_some());
        assert!(auto(&control, changed(1_300)).is_none());
        let asked = control.parent(SnapshotKind::Incremental, 8, changed(10_000));
        assert!(asked.is_some(), "who asks for one gets one");
        control.chain = chain(&[980_000; 9]);
        assert!(auto(&control, changed(0)).is_none());
    }
}
