//! `inflightkv check DIR|FILE`: every checksum of a data directory or of a backup, and whether its snapshots and its log fit together.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ArgMatches;
use inflightkv_snapshot::{self as snapshot, StoreId};
use inflightkv_wal::{self as wal, Lsn, RecoveryMode};

use super::{Failure, print, with_sources};
use crate::engine::{Disk, snapshot_codecs, wal_codecs};
use beside::{Foreign, LogWithout, LostBackup, Pending, SnapshotsWithout};

pub(crate) mod beside;

/// Checks the directory or the backup that the arguments name.
pub(crate) fn check(matches: &ArgMatches) -> Result<(), Failure> {
    let path = matches
        .get_one::<PathBuf>("directory")
        .expect("the argument is required");
    if path.is_file() {
        return super::backup::check(path);
    }
    let directory = DataDir::of(matches)?;
    let _lock = directory.lock(Lock::Shared)?;
    let survey = Survey::take(&directory)?;
    print(survey.print(&directory).as_bytes())?;
    if survey.findings().is_empty() {
        Ok(())
    } else {
        Err(Failure::Damaged)
    }
}

/// A directory that is, or could become, a server's.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
}

/// What a lock lets others do meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// For reading: other readers may.
    Shared,
    Exclusive,
}

impl DataDir {
    pub(crate) fn of(matches: &ArgMatches) -> Result<DataDir, Failure> {
        let path = matches
            .get_one::<PathBuf>("directory")
            .expect("the argument is required");
        DataDir::at(path)
    }

    pub(crate) fn at(path: &Path) -> Result<DataDir, Failure> {
        let failed = |problem: &dyn std::fmt::Display| {
            Failure::Failed(format!("data directory {}: {problem}", path.display()))
        };
        let names = fs::read_dir(path)
            .and_then(|entries| {
                entries
                    .map(|entry| entry.map(|entry| entry.file_name()))
                    .collect::<io::Result<Vec<_>>>()
            })
            .map_err(|error| failed(&error))?;
        // A mistyped path must not be told to be sound.
        let ours = [Disk::LOCK, Disk::WAL, Disk::SNAPSHOTS];
        if !names.is_empty()
            && !names
                .iter()
                .any(|name| ours.iter().any(|ours| name == ours))
        {
            return Err(failed(
                &"found neither wal nor snapshots in it; expected a directory that a server was given as data-dir",
            ));
        }
        Ok(DataDir {
            path: path.to_owned(),
        })
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.path.join(Disk::WAL)
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.path.join(Disk::SNAPSHOTS)
    }

    /// Keeps servers away for as long as the answer lives. To read, a directory without the file needs none: it has no server.
    pub(crate) fn lock(&self, lock: Lock) -> Result<Option<File>, Failure> {
        let path = self.path.join(Disk::LOCK);
        let failed = |error: io::Error| Failure::Failed(format!("{}: {error}", path.display()));
        let opened = match lock {
            Lock::Shared => File::open(&path),
            // Made if need be: a server that starts meanwhile must find it taken.
            Lock::Exclusive => File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path),
        };
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let locked = match lock {
            Lock::Shared => file.try_lock_shared(),
            Lock::Exclusive => file.try_lock(),
        };
        match locked {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Err(Failure::Failed(format!(
                "data directory {} is in use by a running server; expected one that is not: stop the server first",
                self.path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// Everything that can be known about a data directory without changing it.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) snapshots: Option<snapshot::Report>,
    pub(crate) log: Option<wal::tools::Report>,
    /// A snapshot with a cut of this or more can be continued by the log; `None` when its beginning cannot be read.
    pub(crate) log_from: Option<Lsn>,
    has_log: bool,
    /// Files of other stores; nothing above is about them.
    pub(crate) foreign_segments: Vec<Foreign>,
    pub(crate) foreign_snapshots: Vec<Foreign>,
    /// What a switch left that did not come to its end; nothing above is about segments that count for nothing.
    pub(crate) pending: Option<Pending>,
    pub(crate) lost_backups: Vec<LostBackup>,
}

/// One thing that is wrong: where, and what is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding(String);

/// What is wrong with a file of a snapshot or a backup, its name first.
fn at(problem: &snapshot::LoadError) -> String {
    match problem {
        snapshot::LoadError::Io {
            file,
            offset,
            source,
        } => format!("{file} at offset {offset}: {source}"),
        other => with_sources(other),
    }
}

/// Why nothing can be said about a log.
#[derive(Debug, thiserror::Error)]
enum LogError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Log(#[from] wal::RecoveryError),
}

impl Survey {
    pub(crate) fn take(directory: &DataDir) -> Result<Survey, Failure> {
        let failed =
            |path: &Path, error: io::Error| Failure::Failed(format!("{}: {error}", path.display()));
        let folder = directory.snapshots();
        let mut foreign_snapshots = Vec::new();
        let mut storage = None;
        let snapshots = if folder.is_dir() {
            let opened =
                snapshot::Directory::open(&folder).map_err(|error| failed(&folder, error))?;
            foreign_snapshots =
                beside::foreign_snapshots(&opened).map_err(|error| failed(&folder, error))?;
            let own = SnapshotsWithout {
                folder: opened,
                hidden: foreign_snapshots
                    .iter()
                    .filter_map(|foreign| foreign.snapshot)
                    .collect(),
            };
            let report = snapshot::check(&own, &snapshot_codecs())
                .map_err(|error| Failure::from_error(&error))?;
            storage = Some(own);
            Some(report)
        } else {
            None
        };
        let mut survey = Survey {
            snapshots,
            log: None,
            log_from: None,
            has_log: false,
            foreign_segments: Vec::new(),
            foreign_snapshots,
            pending: None,
            lost_backups: Vec::new(),
        };
        let wal_folder = directory.wal();
        if let Some(storage) = &storage {
            survey.pending = beside::pending(storage, &wal_folder, survey.cut())
                .map_err(|error| failed(&folder, error))?;
        }
        if wal_folder.is_dir() {
            survey
                .look_at_log(&wal_folder, &folder)
                .map_err(|error| match error {
                    LogError::Io(error) => failed(&wal_folder, error),
                    LogError::Log(error) => Failure::from_error(&error),
                })?;
        }
        Ok(survey)
    }

    fn look_at_log(&mut self, folder: &Path, snapshots: &Path) -> Result<(), LogError> {
        self.foreign_segments = beside::foreign_segments(folder)?;
        let mut hidden: BTreeSet<String> = self
            .foreign_segments
            .iter()
            .map(|foreign| foreign.file.clone())
            .collect();
        hidden.extend(self.pending.iter().flat_map(|pending| pending.void.clone()));
        let storage: Arc<dyn wal::Storage> = Arc::new(LogWithout {
            folder: wal::Directory::open_read_only(folder)?,
            hidden,
        });
        let report = wal::tools::check(&storage, &wal_codecs())?;
        let scan = wal::scan(&storage, &wal_codecs(), RecoveryMode::PointInTime, None)?;
        self.log_from = scan.reaches_back_to();
        self.has_log = !scan.is_empty();
        self.lost_backups = beside::lost_backups(folder, snapshots, &report, self.cut());
        self.log = Some(report);
        Ok(())
    }

    /// The newest snapshot that can be loaded whole: its id, and the sequence up to which it holds everything.
    pub(crate) fn newest(&self) -> Option<(u64, u64)> {
        let report = self.snapshots.as_ref()?;
        let tip = *report.newest.as_ref()?.last()?;
        let cut = report
            .snapshots
            .iter()
            .find(|snapshot| snapshot.id == tip)?
            .manifest
            .as_ref()?
            .cut;
        Some((tip, cut))
    }

    /// Up to which sequence the snapshots hold everything.
    pub(crate) fn cut(&self) -> u64 {
        self.newest().map_or(0, |(_, cut)| cut)
    }

    fn has_snapshots(&self) -> bool {
        self.snapshots
            .as_ref()
            .is_some_and(|report| !report.snapshots.is_empty())
    }

    /// There are snapshots and no log at all: what came after the newest is gone.
    pub(crate) fn log_is_gone(&self) -> bool {
        self.has_snapshots() && !self.has_log
    }

    /// No snapshot can be loaded whole, and the log cannot be read from the beginning of the store on.
    pub(crate) fn nothing_is_proven(&self) -> bool {
        let log = self.has_log && self.log_from == Some(Lsn::ZERO);
        self.newest().is_none() && !log && (self.has_log || self.has_snapshots())
    }

    /// Sequences that neither a sound snapshot nor the log has: first and last.
    pub(crate) fn gap(&self) -> Option<(u64, u64)> {
        let from = self.log_from?.get();
        let cut = self.cut();
        (from > cut).then(|| (cut + 1, from))
    }

    /// Everything that is wrong; empty when the directory is sound.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = self.foreign();
        let whole = !self.log_is_gone() && self.gap().is_none();
        for checked in self.snapshots.iter().flat_map(|report| &report.snapshots) {
            for problem in &checked.problems {
                let lost = if whole {
                    "nothing is lost: an older snapshot and the log, or the log alone, hold its changes"
                } else {
                    "what is lost is named below"
                };
                findings.push(Finding(format!(
                    "{}/{} (snapshot {}); {lost}",
                    Disk::SNAPSHOTS,
                    at(problem),
                    checked.id
                )));
            }
        }
        for damage in self.log.iter().flat_map(|log| &log.damage) {
            let covered = damage
                .lost
                .last
                .is_some_and(|last| last.get() <= self.cut());
            let remark = match self.newest() {
                Some((id, _)) if covered => {
                    format!("; nothing is lost: snapshot {id} holds these changes")
                }
                _ => String::new(),
            };
            findings.push(Finding(format!("{}/{damage}{remark}", Disk::WAL)));
        }
        for lost in &self.lost_backups {
            findings.push(Finding(format!(
                "{}/{}; a backup was restored from it under change {}; lost: what it held and the changes since",
                Disk::SNAPSHOTS,
                at(&lost.problem),
                lost.sequence
            )));
        }
        if let Some((first, last)) = self.gap() {
            let why = match self.newest() {
                Some((id, _)) => {
                    format!("the newest sound snapshot is {id} and the log begins after it")
                }
                None => "no snapshot is sound and the log does not reach back to the beginning"
                    .to_owned(),
            };
            findings.push(Finding(format!("{why}; lost: changes {first} to {last}")));
        }
        if self.log_is_gone() {
            let lost = match self.newest() {
                Some((_, cut)) => format!("changes after {cut}, if there were any"),
                None => "everything".to_owned(),
            };
            findings.push(Finding(format!(
                "{}: there are snapshots and no log; lost: {lost}",
                Disk::WAL
            )));
        }
        if let (Some(log), Some(store)) = (
            self.log.as_ref().and_then(|log| log.store_id),
            self.snapshots_of(),
        ) && log != store
        {
            findings.push(Finding(format!(
                "the log belongs to store {} and the snapshots to store {}; expected one store",
                super::inspect::hex(&log),
                super::inspect::hex(&store)
            )));
        }
        // Whatever the crates call unsound is not to be passed over for want of a sentence here.
        let sound = self
            .snapshots
            .as_ref()
            .is_none_or(snapshot::Report::is_sound)
            && self.log.as_ref().is_none_or(wal::tools::Report::is_sound);
        if findings.is_empty() && !sound {
            findings.push(Finding("the newest snapshot cannot be used".to_owned()));
        }
        findings
    }

    fn foreign(&self) -> Vec<Finding> {
        let found = |folder: &str, foreign: &Foreign| {
            Finding(format!(
                "{folder}/{} at offset 0: belongs to store {}, expected {}; lost: what this store had in a file of that name, if it \
                 had one",
                foreign.file,
                super::inspect::hex(&foreign.found),
                super::inspect::hex(&foreign.expected)
            ))
        };
        let snapshots = self.foreign_snapshots.iter();
        let segments = self.foreign_segments.iter();
        snapshots
            .map(|foreign| found(Disk::SNAPSHOTS, foreign))
            .chain(segments.map(|foreign| found(Disk::WAL, foreign)))
            .collect()
    }

    fn snapshots_of(&self) -> Option<StoreId> {
        let report = self.snapshots.as_ref()?;
        report
            .snapshots
            .iter()
            .rev()
            .find_map(|snapshot| Some(snapshot.manifest.as_ref()?.store_id))
    }

    /// The report, for a person: what there is, then what is wrong with it.
    pub(crate) fn print(&self, directory: &DataDir) -> String {
        let mut lines = Vec::new();
        match &self.snapshots {
            Some(report) if self.has_snapshots() => {
                let newest = match self.newest() {
                    Some((id, cut)) => {
                        format!("the newest sound one is {id}, up to sequence {cut}")
                    }
                    None => "none is sound".to_owned(),
                };
                lines.push(format!("snapshots: {}, {newest}", report.snapshots.len()));
                if !report.orphans.is_empty() {
                    lines.push(format!(
                        "note: {} files of unfinished snapshots, which the next start removes",
                        report.orphans.len()
                    ));
                }
            }
            _ => lines.push("snapshots: none".to_owned()),
        }
        match &self.log {
            Some(log) if self.has_log => {
                let range = match (log.first_lsn, log.last_lsn) {
                    (Some(first), Some(last)) => format!(", sequences {first} to {last}"),
                    _ => String::new(),
                };
                lines.push(format!(
                    "log: {} segments, {} records{range}",
                    log.segments.len(),
                    log.records
                ));
                if let Some(torn) = &log.torn {
                    lines.push(format!(
                        "note: {}/{} ends at offset {} in the middle of a write that was never acknowledged as durable; the \
                         next start cuts it",
                        Disk::WAL,
                        torn.file,
                        torn.offset
                    ));
                }
                for file in &log.set_aside {
                    lines.push(format!("note: {}/{file} was set aside earlier", Disk::WAL));
                }
            }
            _ => lines.push("log: none".to_owned()),
        }
        match &self.pending {
            Some(pending) if !pending.void.is_empty() => lines.push(format!(
                "note: persistence was being turned on and was not yet: {} segments from {}/{} on count for nothing, and the next \
                 start removes them",
                pending.void.len(),
                Disk::WAL,
                pending.void[0]
            )),
            Some(_) => lines.push(format!(
                "note: {}/PENDING is left from turning persistence on; the next start removes it",
                Disk::SNAPSHOTS
            )),
            None => {}
        }
        let findings = self.findings();
        for Finding(finding) in &findings {
            lines.push(format!("damaged: {finding}"));
        }
        let verdict = match findings.len() {
            0 => "sound".to_owned(),
            1 => "damaged, in 1 place".to_owned(),
            places => format!("damaged, in {places} places"),
        };
        lines.push(format!("{}: {verdict}", directory.path.display()));
        let mut text = lines.join("\n");
        text.push('\n');
        text
    }
}
