//! What the store tells of itself, as JSON.

use super::fault::describe_readiness;
use crate::engine::{
    AdviceReport, CompressionMode, CompressionStats, DiskListing, EvictedStats, Following,
    LAG_BOUNDS_MS, Lags, MemoryStats, PartitionReport, Readiness, RecoveryReport, RuleHits,
    ScrubStats, SnapshotFigures, Stats, WalStats,
};
use inflightkv_core::PartitionStats;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The store in numbers.
pub(crate) fn document(stats: &Stats) -> Value {
    json!({
        "readiness": readiness(&stats.readiness),
        "sequence": stats.sequence.get(),
        "durableSequence": stats.durable_sequence.get(),
        "total": with(&stats.total, &[]),
        "timerBytes": stats.timer_bytes,
        "expired": stats.expired,
        "expiryLagMaxMs": stats.expiry_lag.max_ms,
        "expiryLag": lag(&stats.expiry_lag),
        "patchRetries": stats.patch_retries,
        "lockWaits": stats.lock_waits,
        "lockWaitNanos": stats.lock_wait_nanos,
        "memory": memory(&stats.memory),
        "advice": advice(&stats.advice),
        "wal": stats.wal.as_ref().map(wal),
        "snapshots": stats.snapshots.as_ref().map(snapshots),
        "compression": compression(&stats.compression),
        "recovery": stats.recovery.as_ref().map(recovery),
        "damagedValues": stats.damaged.iter().map(|(by, met)| (by.name(), *met)).collect::<BTreeMap<_, _>>(),
        "scrub": scrub(&stats.scrub),
        "rules": stats.rules.iter().map(rule).collect::<Vec<_>>(),
        "partitions": stats.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

fn scrub(stats: &ScrubStats) -> Value {
    json!({
        "running": stats.running,
        "passes": stats.passes,
        "lastFinishedAtMs": stats.finished_at_ms,
        "lastDurationMs": stats.duration_ms,
        "bytes": stats.bytes,
        "damagedValues": stats.damaged_values,
        "damagedFiles": stats.damaged_files,
        "damage": stats.damage,
    })
}

fn rule(rule: &RuleHits) -> Value {
    json!({ "name": rule.name, "mode": rule.mode.name(), "hits": rule.hits })
}

fn readiness(readiness: &Readiness) -> Value {
    let state = match readiness {
        Readiness::Recovering(_) => "recovering",
        Readiness::Ready => "ready",
        Readiness::ReadOnly { .. } => "readOnly",
        Readiness::DiskFull => "diskFull",
        Readiness::Stopping => "stopping",
        Readiness::Failed { .. } => "failed",
    };
    json!({ "state": state, "reason": describe_readiness(readiness) })
}

/// How a server that follows stands to the one it follows.
pub(crate) fn following(following: &Following) -> Value {
    json!({
        "source": following.source,
        "connected": following.connected,
        "appliedSequence": following.applied,
        "sourceSequence": following.source_sequence,
        "behind": following.behind,
        "behindMs": following.behind_ms,
        "unfit": following.unfit,
        "error": following.error,
    })
}

fn partition(report: &PartitionReport) -> Value {
    with(
        &report.stats,
        &[("index", report.index), ("home", report.home)],
    )
}

fn with(stats: &PartitionStats, more: &[(&str, usize)]) -> Value {
    let mut members: Map<String, Value> = more
        .iter()
        .map(|(name, number)| ((*name).to_owned(), (*number).into()))
        .collect();
    for (name, number) in [
        ("entries", stats.entries),
        ("expiring", stats.expiring),
        ("entryBytes", stats.entry_bytes),
        ("tableBytes", stats.table_bytes),
        ("slackBytes", stats.slack_bytes),
        ("frozenBytes", stats.frozen_bytes),
        ("tombstoneBytes", stats.tombstone_bytes),
    ] {
        members.insert(name.to_owned(), number.into());
    }
    members.into()
}

fn compression(stats: &CompressionStats) -> Value {
    let codecs: Map<String, Value> = stats
        .codecs
        .iter()
        .map(|(name, share)| {
            let share = json!({
                "entries": share.entries,
                "rawBytes": share.raw_bytes,
                "storedBytes": share.stored_bytes,
            });
            ((*name).to_owned(), share)
        })
        .collect();
    let dictionaries: Vec<Value> = stats
        .dictionaries
        .iter()
        .map(|live| json!({ "version": live.version, "bytes": live.bytes }))
        .collect();
    let blocks = &stats.blocks;
    json!({
        "mode": mode(stats.settings.mode),
        "codecs": codecs,
        "batches": {
            "on": stats.settings.batches,
            "coldAfterMs": stats.settings.cold_after_ms,
            "blocks": blocks.blocks,
            "sparseBlocks": blocks.sparse,
            "values": blocks.values,
            "rawBytes": blocks.value_bytes,
            "holes": blocks.holes,
            "holeBytes": blocks.hole_bytes,
            "storedBytes": blocks.block_bytes,
            "savedBytes": stats.batches_saved_bytes(),
            "packed": stats.packed,
            "unpacked": stats.unpacked,
            "blocksMade": stats.blocks_made,
        },
        "keys": {
            "on": stats.settings.keys,
            "partitions": stats.keys.partitions,
            "prefixes": stats.keys.prefixes,
            "coded": stats.keys.keys,
            "savedBytes": stats.keys.saved_bytes,
            "bytes": stats.keys.bytes,
            "rekeyed": stats.rekeyed,
        },
        "withDictionary": stats.with_dictionary,
        "dictionaries": dictionaries,
        "bytes": stats.bytes,
        "compressed": stats.compressed,
        "decompressed": stats.decompressed,
        "failed": stats.failed,
        "overtaken": stats.overtaken,
        "cpuMicros": stats.cpu_us,
        "sweeps": stats.sweeps,
        "trainings": stats.trainings,
        "dictionariesAdopted": stats.dictionaries_adopted,
    })
}

fn mode(mode: CompressionMode) -> &'static str {
    match mode {
        CompressionMode::Off => "off",
        CompressionMode::Lz4 => "lz4",
        CompressionMode::Snappy => "snappy",
        CompressionMode::Zstd => "zstd",
        CompressionMode::Adaptive => "adaptive",
    }
}

fn lag(lags: &Lags) -> Value {
    let up_to: Map<String, Value> = LAG_BOUNDS_MS
        .iter()
        .map(u64::to_string)
        .chain(["more".to_owned()])
        .zip(lags.counts)
        .map(|(bound, count)| (bound, count.into()))
        .collect();
    json!({
        "sumMs": lags.sum_ms,
        "maxMs": lags.max_ms,
        "p50Ms": lags.percentile(50.0),
        "p99Ms": lags.percentile(99.0),
        "upToMs": up_to,
    })
}

fn snapshots(figures: &SnapshotFigures) -> Value {
    let last = figures.last.as_ref().map(|(report, at_ms)| {
        json!({
            "id": report.id,
            "kind": if report.full { "full" } else { "incremental" },
            "cut": report.cut,
            "entries": report.entries,
            "bytes": report.bytes,
            "durationMs": report.duration_ms,
            "createdAtMs": at_ms,
        })
    });
    json!({
        "running": figures.running,
        "taken": figures.taken,
        "failed": figures.failed,
        "last": last,
        "error": figures.error,
    })
}

fn advice(report: &AdviceReport) -> Value {
    let policies: Map<String, Value> = report
        .policies
        .iter()
        .map(|advice| {
            let ratios = json!({
                "halfLimit": advice.half,
                "limit": advice.current,
                "doubleLimit": advice.double,
            });
            (advice.policy.name().to_owned(), ratios)
        })
        .collect();
    json!({
        "sampledOneOf": report.one_of,
        "reads": report.reads,
        "bytes": report.bytes,
        "hitRatios": policies,
    })
}

fn memory(stats: &MemoryStats) -> Value {
    let evicted = |stats: &EvictedStats| json!({ "entries": stats.entries, "bytes": stats.bytes });
    let reads = stats.hits + stats.misses;
    json!({
        "limitBytes": stats.limit,
        "policy": stats.policy.map_or("none", |policy| policy.name()),
        "usedBytes": stats.used,
        "policyBytes": stats.policies,
        "transientBytes": stats.transient,
        "highBytes": stats.high,
        "lowBytes": stats.low,
        "evicted": {
            "background": evicted(&stats.background),
            "inline": evicted(&stats.inline),
            "request": evicted(&stats.request),
        },
        "writesRefused": stats.refused,
        "hits": stats.hits,
        "misses": stats.misses,
        "hitRatio": (reads > 0).then(|| stats.hits as f64 / reads as f64),
    })
}

fn wal(stats: &WalStats) -> Value {
    json!({
        "segments": stats.segments,
        "bytes": stats.bytes,
        "appends": stats.appends,
        "appendedBytes": stats.appended_bytes,
        "queueBytes": stats.queue_bytes,
        "frames": stats.frames,
        "syncs": stats.syncs,
        "syncMicrosSum": stats.sync_us_sum,
        "syncMicrosMax": stats.sync_us_max,
        "rotations": stats.rotations,
        "retired": stats.retired,
        "rewritten": stats.rewritten,
        "rewrittenSavedBytes": stats.rewritten_saved,
    })
}

fn recovery(report: &RecoveryReport) -> Value {
    json!({
        "snapshot": report.snapshot,
        "entries": report.entries,
        "records": report.records,
        "lastSequence": report.last_sequence,
        "durationMs": report.duration_ms,
    })
}

/// Snapshots and segments on disk; none of either for a store in memory.
pub(crate) fn listing(listing: &DiskListing) -> Value {
    let snapshots: Vec<Value> = listing
        .snapshots
        .iter()
        .map(|snapshot| {
            let mut document = json!({
                "id": snapshot.id,
                "kind": if snapshot.full { "full" } else { "incremental" },
                "parent": snapshot.parent,
                "cut": snapshot.cut,
                "entries": snapshot.entries,
                "tombstones": snapshot.tombstones,
                "bytes": snapshot.bytes,
                "createdAtMs": snapshot.created_at_ms,
            });
            if let Some(damage) = &snapshot.damage {
                document = json!({ "id": snapshot.id, "damage": damage });
            }
            document
        })
        .collect();
    let segments: Vec<Value> = listing
        .segments
        .iter()
        .map(|segment| {
            json!({
                "number": segment.number,
                "firstSequence": segment.first_sequence,
                "lastSequence": segment.last_sequence,
                "bytes": segment.bytes,
                "sealed": segment.sealed,
                "compressed": segment.compressed,
                "retired": segment.retired,
                "createdAtMs": segment.created_at_ms,
            })
        })
        .collect();
    json!({ "snapshots": snapshots, "segments": segments })
}
