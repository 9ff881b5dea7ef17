//! The log, snapshots, and the store that is followed.

use super::{Out, buckets};
use crate::engine::{Following, SnapshotFigures, WalStats};
use inflightkv_wal::SYNC_TIME_BOUNDS_US;
use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt;

pub(super) fn encode_wal(out: &mut Out<'_>, wal: &WalStats) -> fmt::Result {
    out.gauge("wal_segments", "Log segments on disk.", None, wal.segments)?;
    out.gauge(
        "wal_size",
        "Bytes of the log segments on disk.",
        Some(&Unit::Bytes),
        wal.bytes,
    )?;
    out.gauge(
        "wal_queue",
        "Bytes of changes that wait to be written to the log.",
        Some(&Unit::Bytes),
        wal.queue_bytes,
    )?;
    let counters = [
        (
            "wal_appends",
            "Changes handed to the log.",
            None,
            wal.appends,
        ),
        (
            "wal_appended",
            "Bytes of those changes.",
            Some(&Unit::Bytes),
            wal.appended_bytes,
        ),
        (
            "wal_frames",
            "Frames written; changes by frame is the batch size of group commit.",
            None,
            wal.frames,
        ),
        ("wal_rotations", "Log segments sealed.", None, wal.rotations),
        (
            "wal_rewritten_segments",
            "Sealed log segments that were compressed.",
            None,
            wal.rewritten,
        ),
        (
            "wal_rewritten_saved",
            "Bytes that compressing them gave back.",
            Some(&Unit::Bytes),
            wal.rewritten_saved,
        ),
        (
            "wal_retired_segments",
            "Log segments removed because a snapshot covers them.",
            None,
            wal.retired,
        ),
    ];
    for (name, help, unit, value) in counters {
        out.counter(name, help, unit, value)?;
    }
    out.family(
        "wal_sync_duration",
        "How long the disk took to make the log durable.",
        Some(&Unit::Seconds),
        MetricType::Histogram,
    )?
    .encode_histogram::<NoLabelSet>(
        wal.sync_us_sum as f64 / 1e6,
        wal.sync_buckets.iter().sum(),
        &buckets(&SYNC_TIME_BOUNDS_US, &wal.sync_buckets),
        None,
    )
}

pub(super) fn encode_snapshots(out: &mut Out<'_>, snapshots: &SnapshotFigures) -> fmt::Result {
    let mut family = out.family(
        "snapshots",
        "Snapshots of this run, by what became of them.",
        None,
        MetricType::Counter,
    )?;
    for (outcome, count) in [("taken", snapshots.taken), ("failed", snapshots.failed)] {
        family
            .encode_family(&[("outcome", outcome)])?
            .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    out.gauge(
        "snapshot_running",
        "Whether a snapshot or a backup is being made (1) or not (0).",
        None,
        u64::from(snapshots.running),
    )?;
    let Some((last, at_ms)) = &snapshots.last else {
        return Ok(());
    };
    out.gauge(
        "snapshot_last_timestamp",
        "When the last snapshot of this run was cut, since the Unix epoch.",
        Some(&Unit::Seconds),
        *at_ms as f64 / 1e3,
    )?;
    out.gauge(
        "snapshot_last_duration",
        "How long the last snapshot took.",
        Some(&Unit::Seconds),
        last.duration_ms as f64 / 1e3,
    )?;
    out.gauge(
        "snapshot_last_size",
        "Bytes of the files of the last snapshot.",
        Some(&Unit::Bytes),
        last.bytes,
    )?;
    out.gauge(
        "snapshot_last_entries",
        "Entries in the last snapshot.",
        None,
        last.entries,
    )?;
    out.gauge(
        "snapshot_last_sequence",
        "The last change that the last snapshot holds.",
        None,
        last.cut,
    )
}

pub(super) fn encode_following(out: &mut Out<'_>, following: &Following) -> fmt::Result {
    out.gauge(
        "follow_connected",
        "Whether there is a connection to the server that is followed (1) or not (0).",
        None,
        u64::from(following.connected),
    )?;
    out.gauge(
        "follow_behind",
        "By how many sequence numbers this server is behind the one it follows.",
        None,
        following.behind,
    )?;
    out.gauge(
        "follow_lag",
        "How old the news of the server that is followed is.",
        Some(&Unit::Seconds),
        following.behind_ms as f64 / 1e3,
    )
}
