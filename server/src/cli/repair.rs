//! `inflightkv repair DIR`: a damaged data directory cut back to what can be proven sound. Nothing is deleted: what is no
//! longer used keeps its bytes under another name, beside where it was.
//!
//! In order: what other stores wrote goes aside, and a log that does not count yet; segments that a sound snapshot makes
//! superfluous go aside if they are damaged; snapshots go aside that cannot be loaded whole; then the log is cut at its first damage, or goes aside where it does not continue what is left; and before
//! a restored backup that cannot be loaded, since what comes after that stands on it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ArgMatches;
use inflightkv_wal::{self as wal, Lsn};

use super::data_dir::{DataDir, Lock, Survey};
use super::{Failure, print};
use crate::engine::wal_codecs;

/// Repairs the directory that the arguments name.
pub(crate) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let directory = DataDir::of(matches)?;
    let _lock = directory.lock(Lock::Exclusive)?;
    let (report, after) = repair(&directory)?;
    print(report.as_bytes())?;
    if after.findings().is_empty() {
        Ok(())
    } else {
        Err(Failure::Damaged)
    }
}

/// What was done, for a person, and what there is afterwards.
fn repair(directory: &DataDir) -> Result<(String, Survey), Failure> {
    let before = Survey::take(directory)?;
    if before.findings().is_empty() {
        return Ok((
            "nothing to repair: the data directory is sound\n".to_owned(),
            before,
        ));
    }
    refuse_if_nothing_is_proven(&before)?;
    let mut done = Vec::new();
    let before = set_strangers_aside(directory, before, &mut done)?;
    set_snapshots_aside(directory, &before, &mut done)?;
    repair_log(directory, &before, &mut done)?;
    let between = Survey::take(directory)?;
    if let Some(lost) = between.lost_backups.first() {
        cut_before(&directory.wal(), &between, lost.sequence, &mut done)?;
    }
    let after = Survey::take(directory)?;
    let report = format!("{}\n{}", done.join("\n"), after.print(directory));
    Ok((report, after))
}

/// All that could be proven would be an empty store; nobody must take a start with that for a success.
fn refuse_if_nothing_is_proven(survey: &Survey) -> Result<(), Failure> {
    if !survey.nothing_is_proven() {
        return Ok(());
    }
    Err(Failure::Failed(
        "nothing can be proven sound: no snapshot can be loaded whole, and the log cannot be read from the beginning; nothing \
         was changed, expected a backup to restore"
            .to_owned(),
    ))
}

/// Files of other stores, and segments of a switch that did not come to its end. A start would do away with those, but what is
/// repaired around them has to be what it finds.
fn set_strangers_aside(
    directory: &DataDir,
    survey: Survey,
    done: &mut Vec<String>,
) -> Result<Survey, Failure> {
    let (wal, snapshots) = (directory.wal(), directory.snapshots());
    for foreign in &survey.foreign_segments {
        set_aside(&wal, &foreign.file, done)?;
    }
    for id in survey
        .foreign_snapshots
        .iter()
        .filter_map(|one| one.snapshot)
    {
        for name in files_of(&snapshots, id)? {
            set_aside(&snapshots, &name, done)?;
        }
    }
    if let Some(pending) = &survey.pending {
        // The last first, the mark at the end: what is left after a crash in between means the same.
        for name in pending.void.iter().rev() {
            set_aside(&wal, name, done)?;
        }
        set_aside(&snapshots, "PENDING", done)?;
    }
    Survey::take(directory)
}

/// Cuts the log before the frame that holds the change `sequence`. The segment is kept whole under another name, and those
/// after it go aside.
fn cut_before(
    folder: &Path,
    survey: &Survey,
    sequence: u64,
    done: &mut Vec<String>,
) -> Result<(), Failure> {
    let Some(log) = &survey.log else {
        return Ok(());
    };
    let holds = |first: Option<Lsn>, last: Option<Lsn>| {
        first.is_some_and(|first| first.get() <= sequence)
            && last.is_some_and(|last| last.get() >= sequence)
    };
    let Some(at) = log
        .segments
        .iter()
        .position(|segment| holds(segment.first_lsn, segment.last_lsn))
    else {
        return Ok(());
    };
    let first = log.first_lsn.map_or(0, Lsn::get);
    if survey.newest().is_none() && first >= sequence {
        return Err(Failure::Failed(
            "nothing can be proven sound but an empty store: everything else stands on the restored backup; expected that backup, \
             to restore it anew"
                .to_owned(),
        ));
    }
    for later in log.segments[at + 1..].iter().rev() {
        set_aside(folder, &later.file, done)?;
    }
    let name = &log.segments[at].file;
    let path = folder.join(name);
    let mut offset = None;
    wal::tools::read_file(&path, &wal_codecs(), |item| match item {
        wal::tools::Item::Frame { offset: at, header }
            if header.first_lsn.get() <= sequence
                && sequence < header.first_lsn.get() + u64::from(header.count) =>
        {
            offset = Some(at);
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    })
    .map_err(|error| Failure::from_error(&error))?;
    let Some(offset) = offset else {
        return Ok(());
    };
    let failed =
        |error: io::Error| Failure::Failed(format!("{} cannot be cut: {error}", path.display()));
    let kept = free_name(folder, name).map_err(failed)?;
    fs::copy(&path, &kept)
        .and_then(|_| File::open(&kept)?.sync_all())
        .and_then(|()| File::open(folder)?.sync_all())
        .and_then(|()| {
            let file = File::options().write(true).open(&path)?;
            file.set_len(offset)?;
            file.sync_all()
        })
        .map_err(failed)?;
    done.push(format!(
        "cut {} at offset {offset}, before change {sequence}, and kept it whole as {}",
        path.display(),
        kept.display()
    ));
    Ok(())
}

/// Snapshots that are damaged, or that stand on one that is, go aside with all of their parts.
fn set_snapshots_aside(
    directory: &DataDir,
    survey: &Survey,
    done: &mut Vec<String>,
) -> Result<(), Failure> {
    let Some(report) = &survey.snapshots else {
        return Ok(());
    };
    let mut usable = BTreeSet::new();
    let mut broken = Vec::new();
    for checked in &report.snapshots {
        let parent = checked
            .manifest
            .as_ref()
            .and_then(|manifest| manifest.parent);
        let stands = parent.is_none_or(|parent| usable.contains(&parent.id));
        if checked.problems.is_empty() && checked.manifest.is_some() && stands {
            usable.insert(checked.id);
        } else {
            broken.push(checked.id);
        }
    }
    let folder = directory.snapshots();
    for id in broken {
        for name in files_of(&folder, id)? {
            set_aside(&folder, &name, done)?;
        }
    }
    Ok(())
}

/// The files of a snapshot, its manifest first: once that is gone, the snapshot is not there. The parts have to follow, since
/// parts without a manifest are what a start sweeps away.
fn files_of(folder: &Path, id: u64) -> Result<Vec<String>, Failure> {
    // Every file of a snapshot begins with its id; `snapshot/FORMAT.md` has the names.
    let prefix = format!("{id:020}");
    let names = fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(|error| Failure::Failed(format!("{}: {error}", folder.display())))?;
    let mut files: Vec<String> = names
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .filter(|name| {
            name.starts_with(&prefix) && (name.ends_with(".manifest") || name.ends_with(".part"))
        })
        .collect();
    files.sort_by_key(|name| !name.ends_with(".manifest"));
    Ok(files)
}

fn repair_log(directory: &DataDir, survey: &Survey, done: &mut Vec<String>) -> Result<(), Failure> {
    let folder = directory.wal();
    let Some(log) = survey.log.as_ref().filter(|_| !survey.log_is_gone()) else {
        return begin_log(&folder, survey, done);
    };
    if survey.gap().is_some() {
        for name in files_up_to(log, None) {
            set_aside(&folder, name, done)?;
        }
        return begin_log(&folder, survey, done);
    }
    set_superfluous_aside(&folder, log, Lsn::new(survey.cut()), done)?;
    let storage: Arc<dyn wal::Storage> = Arc::new(open_log(&folder)?);
    let repaired =
        wal::tools::repair(&storage, &wal_codecs()).map_err(|error| Failure::from_error(&error))?;
    drop(storage);
    for name in &repaired.set_aside {
        done.push(format!("set aside {}", folder.join(name).display()));
    }
    // Where nothing of the log was left, the snapshot still needs one to go on with.
    if Survey::take(directory)?.log_is_gone() {
        begin_log(&folder, survey, done)?;
    }
    Ok(())
}

/// Damage in a segment that lies wholly below the cut of a sound snapshot costs nothing: the segment and all before it go
/// aside, and the log above stays whole. Left to the log alone, everything after the damage would be cut off.
fn set_superfluous_aside(
    folder: &Path,
    log: &wal::tools::Report,
    cut: Lsn,
    done: &mut Vec<String>,
) -> Result<(), Failure> {
    let is_below = |damage: &&wal::Damage| damage.lost.last.is_some_and(|last| last <= cut);
    let mut damaged: Vec<&str> = log
        .damage
        .iter()
        .filter(is_below)
        .map(|damage| damage.file.as_str())
        .collect();
    damaged.sort_unstable();
    for name in damaged.into_iter().rev() {
        // Only the segment after it says where one ends.
        let next = log
            .segments
            .iter()
            .find(|segment| segment.file.as_str() > name);
        let follows = next
            .map(|next| follows_of(&folder.join(&next.file)))
            .transpose()?
            .flatten();
        if follows.is_some_and(|follows| follows <= cut) {
            for name in files_up_to(log, Some(name)) {
                set_aside(folder, name, done)?;
            }
            return Ok(());
        }
    }
    Ok(())
}

/// Names of segments grow with their numbers. Damaged ones are only in the list of damage.
fn files_up_to<'r>(log: &'r wal::tools::Report, last: Option<&str>) -> BTreeSet<&'r str> {
    let sound = log.segments.iter().map(|segment| segment.file.as_str());
    let damaged = log.damage.iter().map(|damage| damage.file.as_str());
    sound
        .chain(damaged)
        .filter(|name| last.is_none_or(|last| *name <= last))
        .collect()
}

/// The last record before a segment that is in the log or in a snapshot alone, as its header has it.
fn follows_of(path: &Path) -> Result<Option<Lsn>, Failure> {
    let mut follows = None;
    wal::tools::read_file(path, &wal_codecs(), |item| {
        if let wal::tools::Item::Segment(header) = item {
            follows = Some(header.follows.max(header.floor));
        }
        ControlFlow::Break(())
    })
    .map_err(|error| Failure::from_error(&error))?;
    Ok(follows)
}

/// An empty log that goes on after the newest sound snapshot, so that a start finds what it expects.
fn begin_log(folder: &Path, survey: &Survey, done: &mut Vec<String>) -> Result<(), Failure> {
    let manifest = survey.newest().and_then(|(id, _)| {
        let report = survey.snapshots.as_ref()?;
        report
            .snapshots
            .iter()
            .find(|snapshot| snapshot.id == id)?
            .manifest
            .as_ref()
    });
    let Some(manifest) = manifest else {
        return Err(Failure::Failed(
            "no snapshot can be loaded whole; nothing more was changed".to_owned(),
        ));
    };
    let cut = Lsn::new(manifest.cut);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let start = wal::Start {
        store_id: manifest.store_id,
        segment: 1,
        follows: cut,
        floor: cut,
        next_lsn: cut.next(),
        segments: Vec::new(),
        now_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
    };
    let storage: Arc<dyn wal::Storage> = Arc::new(open_log(folder)?);
    let failed = |error: &dyn std::error::Error| Failure::from_error(error);
    let log = wal::Wal::open(storage, wal::Options::default(), start, 1)
        .map_err(|error| failed(&error))?;
    log.shutdown().map_err(|error| failed(&error))?;
    done.push(format!("began an empty log after sequence {cut}"));
    Ok(())
}

fn open_log(folder: &Path) -> Result<wal::Directory, Failure> {
    wal::Directory::open(folder)
        .map_err(|error| Failure::Failed(format!("{}: {error}", folder.display())))
}

/// A name for what is set aside. Evidence is never overwritten.
fn free_name(folder: &Path, name: &str) -> io::Result<PathBuf> {
    let mut free = folder.join(format!("{name}.damaged"));
    let mut copy = 1;
    while free.try_exists()? {
        copy += 1;
        free = folder.join(format!("{name}.damaged-{copy}"));
    }
    Ok(free)
}

/// Renames a file to a name that no part of the store reads, durably.
fn set_aside(folder: &Path, name: &str, done: &mut Vec<String>) -> Result<(), Failure> {
    let from = folder.join(name);
    let failed = |error: io::Error| {
        Failure::Failed(format!("{} cannot be set aside: {error}", from.display()))
    };
    // A segment that is missing is damage as well, and has no file.
    if !from.try_exists().map_err(failed)? {
        return Ok(());
    }
    let to = free_name(folder, name).map_err(failed)?;
    fs::rename(&from, &to).map_err(failed)?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)?;
    done.push(format!("set aside {}", to.display()));
    Ok(())
}

#[cfg(test)]
mod tests;
