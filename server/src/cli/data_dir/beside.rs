//! What lies in a data directory beside its own snapshots and log: files of other stores, a log that does not count yet, and the
//! backups that the log goes on from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use inflightkv_snapshot::{self as snapshot, LoadError, StoreId, chain, read_backup};
use inflightkv_wal::{self as wal, Op};
use serde_json::Value;

use crate::engine::{MARKER_KEY, is_staged, read_switch_mark, snapshot_codecs, wal_codecs};

/// A file that another store wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Foreign {
    pub(crate) file: String,
    /// Of a snapshot: its number.
    pub(crate) snapshot: Option<u64>,
    pub(crate) found: StoreId,
    pub(crate) expected: StoreId,
}

/// Segments that another store wrote than most of them.
pub(crate) fn foreign_segments(folder: &Path) -> io::Result<Vec<Foreign>> {
    let mut stores = Vec::new();
    for name in segments(folder)? {
        let mut store = None;
        // One that cannot be read is damaged, and whose it is nobody can tell.
        let _ = wal::tools::read_file(&folder.join(&name), &wal_codecs(), |item| {
            if let wal::tools::Item::Segment(header) = item {
                store = Some(header.store_id);
            }
            ControlFlow::Break(())
        });
        stores.extend(store.map(|store| (name, None, store)));
    }
    Ok(strangers(stores))
}

/// Snapshots that another store wrote than most of them.
pub(crate) fn foreign_snapshots(folder: &dyn snapshot::Storage) -> io::Result<Vec<Foreign>> {
    let listed = chain::list(folder).map_err(io::Error::other)?;
    let stores = listed.into_iter().filter_map(|listed| {
        let store = listed.manifest.ok()?.store_id;
        Some((
            format!("{:020}.manifest", listed.id),
            Some(listed.id),
            store,
        ))
    });
    Ok(strangers(stores.collect()))
}

/// Those that are not of the store that most are of; of as many, the newest tells.
fn strangers(stores: Vec<(String, Option<u64>, StoreId)>) -> Vec<Foreign> {
    let mut counts: BTreeMap<StoreId, (usize, usize)> = BTreeMap::new();
    for (at, (.., store)) in stores.iter().enumerate() {
        let (count, newest) = counts.entry(*store).or_default();
        *count += 1;
        *newest = at;
    }
    let Some((&own, _)) = counts.iter().max_by_key(|(_, seen)| **seen) else {
        return Vec::new();
    };
    stores
        .into_iter()
        .filter(|(.., store)| *store != own)
        .map(|(file, snapshot, found)| Foreign {
            file,
            snapshot,
            found,
            expected: own,
        })
        .collect()
}

/// Names of the segments in a folder, in their order.
pub(crate) fn segments(folder: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()?
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .filter(|name| number(name).is_some())
        .collect();
    names.sort();
    Ok(names)
}

/// The number in a segment's name.
fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("wal-")?.strip_suffix(".log")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// Persistence was being turned on when the server ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Segments that count for nothing, because no snapshot reaches them; the next start removes them.
    pub(crate) void: Vec<String>,
}

/// What the mark of a switch says about the log in `wal`, where snapshots hold everything up to `cut`.
pub(crate) fn pending(
    snapshots: &dyn snapshot::Storage,
    wal: &Path,
    cut: u64,
) -> io::Result<Option<Pending>> {
    let Some((segment, first)) = read_switch_mark(snapshots)? else {
        return Ok(None);
    };
    let mut void = Vec::new();
    if cut < first.saturating_sub(1) && wal.is_dir() {
        void = segments(wal)?;
        void.retain(|name| number(name).is_some_and(|number| number >= segment));
    }
    Ok(Some(Pending { void }))
}

/// A backup that was restored into the running store, from which the log goes on, and which is not there as it was.
#[derive(Debug)]
pub(crate) struct LostBackup {
    /// Under which number it was restored.
    pub(crate) sequence: u64,
    pub(crate) problem: LoadError,
}

/// The backups that records above `cut` of the segments in `log` name, and that cannot be loaded.
pub(crate) fn lost_backups(
    wal: &Path,
    snapshots: &Path,
    log: &wal::tools::Report,
    cut: u64,
) -> Vec<LostBackup> {
    let mut named = Vec::new();
    for segment in &log.segments {
        if segment.last_lsn.is_none_or(|last| last.get() <= cut) {
            continue;
        }
        // What of it cannot be read is named elsewhere.
        let _ = wal::tools::read_file(&wal.join(&segment.file), &wal_codecs(), |item| {
            if let wal::tools::Item::Record { record, .. } = item
                && record.key == MARKER_KEY
                && record.op == Op::Put
                && record.lsn.get() > cut
                && let Ok(marker) = serde_json::from_slice::<Value>(record.value)
                && let Some(file) = marker["file"].as_str().filter(|file| is_staged(file))
            {
                named.push((record.lsn.get(), file.to_owned()));
            }
            ControlFlow::Continue(())
        });
    }
    let lost = named.into_iter().filter_map(|(sequence, file)| {
        let failed = |source| LoadError::Io {
            file: file.clone(),
            offset: 0,
            source,
        };
        let read = File::open(snapshots.join(&file))
            .map_err(failed)
            .and_then(|opened| {
                read_backup(&file, opened, &snapshot_codecs(), |_| {
                    ControlFlow::Continue(())
                })
            });
        let problem = read.err()?;
        Some(LostBackup { sequence, problem })
    });
    lost.collect()
}

/// The folder of the log, for looking, without some of its files.
pub(crate) struct LogWithout {
    pub(crate) folder: wal::Directory,
    pub(crate) hidden: BTreeSet<String>,
}

impl wal::Storage for LogWithout {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = self.folder.list()?;
        names.retain(|name| !self.hidden.contains(name));
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn wal::SegmentFile>> {
        self.folder.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn wal::SegmentFile>> {
        self.folder.open(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.folder.rename(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.folder.sync_dir()
    }
}

/// The folder of the snapshots, for looking, without some of them.
pub(crate) struct SnapshotsWithout {
    pub(crate) folder: snapshot::Directory,
    pub(crate) hidden: BTreeSet<u64>,
}

impl snapshot::Storage for SnapshotsWithout {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = self.folder.list()?;
        names.retain(|name| {
            let number = name.get(..20).and_then(|digits| digits.parse().ok());
            number.is_none_or(|number| !self.hidden.contains(&number))
        });
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn snapshot::File>> {
        self.folder.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn snapshot::File>> {
        self.folder.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.folder.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.folder.sync_dir()
    }
}
