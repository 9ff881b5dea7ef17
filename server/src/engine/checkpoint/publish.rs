//! Files of a snapshot: opened, made to count, and what they make superfluous removed.

use super::CheckpointError;
use crate::engine::Persistence;
use crate::engine::adapters::{snapshot_codec, snapshot_codecs};
use inflightkv_snapshot::{self as snapshot, Manifest, PartWriter, Plan, SnapshotWriter, chain};
use std::ops::ControlFlow;
use std::sync::Arc;

pub(super) fn open_files(
    persistence: &Persistence,
    plan: Plan,
) -> Result<(SnapshotWriter, Vec<PartWriter>), snapshot::WriteError> {
    let parts = plan.parts;
    let storage = Arc::clone(&persistence.disk.snapshots);
    let mut writer = SnapshotWriter::begin(
        storage,
        plan,
        snapshot_codec(),
        snapshot::Options::default(),
    )?;
    let parts = (0..parts)
        .map(|part| writer.part(part))
        .collect::<Result<_, _>>()?;
    Ok((writer, parts))
}

/// Writes the manifest, then reads every block back: nothing older is given up for a snapshot that cannot be loaded.
pub(super) fn publish(
    persistence: &Persistence,
    writer: SnapshotWriter,
    parts: Vec<PartWriter>,
    stopping: impl Fn() -> bool,
) -> Result<Manifest, CheckpointError> {
    let failed = |reason: String| CheckpointError::Failed { reason };
    let manifest = writer
        .finish(parts)
        .map_err(|error| failed(error.to_string()))?;
    let codecs = snapshot_codecs();
    for part in 0..manifest.parts.len() {
        snapshot::load_part(
            &*persistence.disk.snapshots,
            &manifest,
            part,
            &codecs,
            |_| {
                if stopping() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            },
        )
        .map_err(|error| failed(format!("it does not read back: {error}")))?;
    }
    Ok(manifest)
}

/// Removes older chains and the log below the snapshot; what cannot be removed now is removed after the next one.
pub(super) fn retire(
    persistence: &Persistence,
    log: &inflightkv_wal::Wal,
    manifest: &Manifest,
) -> u64 {
    if let Err(error) = chain::retain(&*persistence.disk.snapshots, 1) {
        tracing::warn!(%error, "older snapshots could not be removed");
        return 0;
    }
    match log.retire_below(inflightkv_wal::Lsn::new(manifest.cut)) {
        Ok(retired) => retired.segments,
        Err(error) => {
            tracing::warn!(%error, "log segments that the snapshot covers could not be removed");
            0
        }
    }
}
