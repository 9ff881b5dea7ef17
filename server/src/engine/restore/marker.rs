//! The log record that is a restore, and the staged backup that it names.

use super::{RestoreError, stage};
use crate::engine::adapters::snapshot_codecs;
use crate::engine::{Persistence, Shared};
use inflightkv_core::Sequence;
use inflightkv_snapshot::{self as snapshot, LoadError};
use std::io;
use std::sync::Arc;

/// The key of the log records that speak of restores; clients cannot use it, nor anything else that begins like it.
pub(crate) const MARKER_KEY: &str = "__inflightkv/restore";

/// What staged backups in a snapshots' folder are called, behind twenty digits.
const SUFFIX: &str = ".restore";

/// The value of the log record that is a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Marker {
    /// The staged backup, a name in the snapshots' folder.
    pub(super) file: String,
    /// What its entries carry.
    pub(super) sequence: u64,
}

impl Marker {
    pub(super) fn encode(&self) -> String {
        format!(
            "{{\"file\":\"{}\",\"sequence\":{}}}",
            self.file, self.sequence
        )
    }

    /// Reads back what [`encode`](Self::encode) wrote; `None` for anything else.
    fn decode(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (file, rest) = text.strip_prefix("{\"file\":\"")?.split_once('"')?;
        let sequence = rest.strip_prefix(",\"sequence\":")?.strip_suffix('}')?;
        is_staged(file).then_some(())?;
        Some(Self {
            file: file.to_owned(),
            sequence: sequence.parse().ok()?,
        })
    }
}

impl Marker {
    pub(in crate::engine) fn file(&self) -> &str {
        &self.file
    }
}

/// Whether a file of a snapshots' folder is a staged backup.
pub(crate) fn is_staged(name: &str) -> bool {
    name.strip_suffix(SUFFIX)
        .is_some_and(|id| id.len() == 20 && id.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What a recovery does about a record under the reserved key.
pub(in crate::engine) enum Met {
    /// A number that belongs to no key.
    Nothing,
    /// Everything before is void: go on from this backup.
    Restore(Marker),
    /// None of ours.
    Unknown,
}

/// Looks at a record of the log under the reserved key.
pub(in crate::engine) fn meet(value: &[u8]) -> Met {
    if value == b"null" {
        return Met::Nothing;
    }
    Marker::decode(value).map_or(Met::Unknown, Met::Restore)
}

/// Loads the staged backup that a record of the log names into empty partitions.
///
/// # Errors
/// It is not there, or damaged: what the log says after it has nothing to stand on.
pub(in crate::engine) fn load_staged(
    shared: &Shared,
    persistence: &Persistence,
    marker: &Marker,
) -> Result<u64, LoadError> {
    let now = shared.options.clock.now();
    let sequence = Sequence::from_raw(marker.sequence);
    let source = Staged::open(&*persistence.disk.snapshots, &marker.file)?;
    let mut entries = 0;
    snapshot::read_backup(&marker.file, source, &snapshot_codecs(), |entry| {
        if entry.expires_at.is_none_or(|at| at > now) {
            entries += u64::from(stage(&shared.partitions, &entry, sequence, now).is_some());
        }
        shared.recovery.flow()
    })?;
    Ok(entries)
}

pub(super) struct StagedFile {
    pub(super) disk: Arc<dyn snapshot::Storage>,
    pub(super) name: String,
    pub(super) file: Box<dyn snapshot::File>,
    pub(super) len: u64,
    /// It is the log's: a record names it.
    pub(super) kept: bool,
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.kept {
            // The next start removes what cannot be removed now.
            let _ = self.disk.remove(&self.name);
        }
    }
}

impl StagedFile {
    pub(super) fn create(shared: &Shared, persistence: &Persistence) -> Result<Self, RestoreError> {
        let disk = Arc::clone(&persistence.disk.snapshots);
        let name = format!("{:020}{SUFFIX}", shared.checkpointer.next_id());
        let file = disk.create(&name).map_err(RestoreError::Staging)?;
        Ok(Self {
            disk,
            name,
            file,
            len: 0,
            kept: false,
        })
    }
}

/// A file of the snapshots' folder, read in order.
struct Staged {
    file: Box<dyn snapshot::File>,
    offset: u64,
    len: u64,
}

impl Staged {
    fn open(disk: &dyn snapshot::Storage, name: &str) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Io {
            file: name.to_owned(),
            offset: 0,
            source,
        };
        let file = disk.open(name).map_err(failed)?;
        let len = file.len().map_err(failed)?;
        Ok(Self {
            file,
            offset: 0,
            len,
        })
    }
}

impl io::Read for Staged {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len - self.offset).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        self.file.read_at(self.offset, &mut buffer[..len])?;
        self.offset += len as u64;
        Ok(len)
    }
}

/// Removes the staged backups of which `doomed` says that no record of the log needs them any more.
pub(in crate::engine) fn remove_staged(
    disk: &dyn snapshot::Storage,
    doomed: impl Fn(&str) -> bool,
) {
    let removed = disk.list().and_then(|names| {
        let mut any = false;
        for name in names {
            if is_staged(&name) && doomed(&name) {
                disk.remove(&name)?;
                any = true;
            }
        }
        if any { disk.sync_dir() } else { Ok(()) }
    });
    if let Err(error) = removed {
        tracing::warn!(%error, "a staged backup that is no longer needed could not be removed");
    }
}

/// An id above those of all staged backups in the folder.
pub(in crate::engine) fn next_staged_id(disk: &dyn snapshot::Storage) -> io::Result<u64> {
    let ids = disk.list()?.into_iter().filter_map(|name| {
        let id = is_staged(&name).then(|| name.strip_suffix(SUFFIX))??;
        id.parse::<u64>().ok()
    });
    Ok(ids.max().map_or(0, |id| id.saturating_add(1)))
}
