//! `inflightkv restore --data-dir DIR FILE`: a backup into an empty directory, as it is or carried on by segments of the log.
//!
//! The directory becomes that of a new store with the backup's entries under their own numbers. It is marked while it is
//! made, so that a restore that was interrupted is never served as if it were whole.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ArgMatches;
use inflightkv_snapshot::{
    self as snapshot, BackupHeader, BlockBuilder, EntryRef, LoadError, PartWriter, Plan,
    SnapshotWriter, Wanted, read_backup,
};
use inflightkv_wal::tools::{self, Item};
use inflightkv_wal::{self as wal, Lsn, Op};

use super::inspect::{hex, in_folder};
use super::{Failure, print};
use crate::engine::{
    Disk, MARKER_KEY, Rules, Unfit, judge as judge_by, new_store_id, snapshot_codec,
    snapshot_codecs, wal_codecs,
};

/// Files of the snapshot that is made, loaded side by side.
const PARTS: usize = 8;

/// Up to where the log is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Sequence(u64),
    /// Milliseconds since the Unix epoch.
    Time(u64),
    /// Its end.
    End,
}

/// A key's last change in the log above the backup.
struct Change {
    sequence: u64,
    version: u64,
    expires_at: Option<u64>,
    crc: u32,
    pinned: bool,
    media_type: Option<String>,
    /// `None` for a removal.
    value: Option<Vec<u8>>,
}

/// What the log adds to the backup.
struct Continued {
    changes: HashMap<String, Change>,
    /// The last change that is in.
    last: u64,
    note: Option<String>,
}

/// Restores what the arguments name.
pub(crate) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let path = |name| matches.get_one::<PathBuf>(name);
    let directory = path("data-dir").expect("the argument is required");
    let file = path("file").expect("the argument is required");
    let prefix = matches.get_one::<String>("prefix").map(String::as_str);
    let until = match matches.get_one::<String>("until") {
        Some(text) => parse_until(text).ok_or_else(|| {
            Failure::Usage(format!(
                "flag --until: found {text:?}; expected a sequence, or a time such as 2026-01-31T12:00:00Z"
            ))
        })?,
        None => Until::End,
    };
    // All of it is proven before anything is made.
    let (header, _) = read(file, prefix, |_| ControlFlow::Continue(()))?;
    let continued = match path("wal") {
        Some(folder) => Some(follow(folder, &header, prefix, until)?),
        None => None,
    };
    let unfit = match path("validation") {
        Some(rules) => {
            let rules = super::rules::read(rules).map_err(Failure::Usage)?;
            let refuses = matches
                .get_one::<String>("rules-on-load")
                .is_some_and(|what| what == "refuse");
            judged(file, prefix, continued.as_ref(), &rules, refuses)?
        }
        None => String::new(),
    };
    must_be_empty(directory)?;
    let staging = Staging::begin(directory)?;
    let (entries, cut) = write(directory, file, &header, prefix, continued.as_ref())
        .map_err(|failure| staging.left_behind(failure))?;
    staging.end()?;
    let note = continued.and_then(|continued| continued.note);
    let note = note
        .map(|note| format!("note: {note}\n"))
        .unwrap_or_default();
    print(
        format!(
            "{unfit}{note}restored: {entries} entries up to sequence {cut} into {}\n",
            directory.display()
        )
        .as_bytes(),
    )
}

fn parse_until(text: &str) -> Option<Until> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Until::Sequence);
    }
    let time: toml::value::Datetime = text.parse().ok()?;
    let (date, clock, offset) = (time.date?, time.time?, time.offset?);
    let minutes = match offset {
        toml::value::Offset::Z => 0,
        toml::value::Offset::Custom { minutes } => i64::from(minutes),
    };
    let days = days_since_epoch(
        i64::from(date.year),
        i64::from(date.month),
        i64::from(date.day),
    );
    let seconds = days * 86_400
        + i64::from(clock.hour) * 3600
        + (i64::from(clock.minute) - minutes) * 60
        + i64::from(clock.second.unwrap_or(0));
    let millis = seconds * 1000 + i64::from(clock.nanosecond.unwrap_or(0)) / 1_000_000;
    u64::try_from(millis).ok().map(Until::Time)
}

/// Days of the Gregorian calendar, counted in years that begin in March and eras of 400 years.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Reads the backup, whole or only what begins with a prefix; how many entries were shown.
fn read(
    file: &Path,
    prefix: Option<&str>,
    mut visit: impl FnMut(EntryRef<'_>) -> ControlFlow<()>,
) -> Result<(BackupHeader, u64), Failure> {
    let refused = |error: &LoadError| {
        Failure::Failed(format!(
            "nothing was restored: {}",
            super::with_sources(error)
        ))
    };
    if let Some(prefix) = prefix {
        let (storage, name) = in_folder(file)?;
        let header =
            snapshot::find::backup_header(&storage, &name).map_err(|error| refused(&error))?;
        let wanted = Wanted::Prefix(prefix);
        let sought = snapshot::find(&storage, &name, &snapshot_codecs(), wanted, visit)
            .map_err(|error| refused(&error))?;
        return Ok((header, sought.entries));
    }
    let name = file.display().to_string();
    let source = File::open(file)
        .map_err(|error| Failure::Failed(format!("{name} cannot be read: {error}")))?;
    let report = read_backup(&name, source, &snapshot_codecs(), &mut visit)
        .map_err(|error| refused(&error))?;
    Ok((report.header, report.entries))
}

/// Holds what is to be restored against rules: what to say of what breaks them.
fn judged(
    file: &Path,
    prefix: Option<&str>,
    continued: Option<&Continued>,
    rules: &Rules,
    refuses: bool,
) -> Result<String, Failure> {
    let mut unfit = Unfit::default();
    let mut judge = |key: &str, value: &[u8], media_type: Option<&str>| {
        if let Err(violation) = judge_by(rules, key, value, media_type) {
            unfit.note(key, violation);
        }
    };
    read(file, prefix, |entry| {
        if !continued.is_some_and(|log| log.changes.contains_key(entry.key)) {
            judge(entry.key, entry.value, entry.media_type);
        }
        ControlFlow::Continue(())
    })?;
    for (key, change) in continued.into_iter().flat_map(|log| &log.changes) {
        if let Some(value) = &change.value {
            judge(key, value, change.media_type.as_deref());
        }
    }
    if unfit.count == 0 {
        return Ok(String::new());
    }
    let mut text = format!("{} entries break a rule", unfit.count);
    for (key, violation) in &unfit.first {
        let name = violation.rule.name();
        let _ = write!(text, "\n  {key:?}: {name}: {violation}");
    }
    if refuses {
        return Err(Failure::Failed(format!("nothing was restored: {text}")));
    }
    Ok(format!("note: {text}\n"))
}

/// Gathers what the segments in `folder` say about keys after the backup. They must be of its store, reach back to it
/// and have no gap up to where they are followed.
fn follow(
    folder: &Path,
    header: &BackupHeader,
    prefix: Option<&str>,
    until: Until,
) -> Result<Continued, Failure> {
    let refuse = |words: String| Failure::Failed(format!("nothing was restored: {words}"));
    match until {
        Until::Sequence(sequence) if sequence < header.cut => {
            return Err(refuse(format!(
                "the backup holds every change up to {}, so it cannot show the store as of {sequence}; expected an older backup",
                header.cut
            )));
        }
        Until::Time(time) if time < header.created_at_ms => {
            return Err(refuse(
                "the backup was made after that time; expected an older backup".to_owned(),
            ));
        }
        _ => {}
    }
    let mut names: Vec<PathBuf> = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(|error: io::Error| {
            Failure::Failed(format!("{} cannot be read: {error}", folder.display()))
        })?;
    names.retain(|name| {
        let name = name.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("wal-") && name.ends_with(".log")
    });
    names.sort();
    let mut reached: Option<u64> = None;
    let mut last = header.cut;
    let mut changes = HashMap::new();
    let mut note = None;
    let mut stopped = false;
    for name in names {
        let mut problem: Option<String> = None;
        let shown = name.display().to_string();
        tools::read_file(&name, &wal_codecs(), |item| {
            match item {
                Item::Segment(segment) => {
                    let follows = segment.follows.get();
                    if segment.store_id != header.store_id {
                        problem = Some(format!(
                            "{shown} belongs to store {}, the backup to store {}",
                            hex(&segment.store_id),
                            hex(&header.store_id)
                        ));
                    } else if reached.is_none() && follows.max(segment.floor.get()) > header.cut {
                        problem = Some(format!(
                            "{shown} begins after change {}, the backup ends with {}: what is between is missing",
                            follows.max(segment.floor.get()),
                            header.cut
                        ));
                    } else if let Some(reached) = reached
                        && follows != reached
                    {
                        problem = Some(format!(
                            "{shown} follows change {follows}, the segment before it ends with {reached}: what is between is missing"
                        ));
                    } else if segment.floor.get() > reached.unwrap_or(0).max(header.cut) {
                        problem = Some(format!(
                            "changes up to {} are in a snapshot and not in the log before {shown}",
                            segment.floor
                        ));
                    } else {
                        reached = Some(reached.unwrap_or(follows).max(follows));
                    }
                }
                Item::Frame { header: frame, .. } => {
                    // What a time names is what was handed to the disk by then.
                    if matches!(until, Until::Time(until) if frame.written_at_ms > until) {
                        stopped = true;
                        return ControlFlow::Break(());
                    }
                }
                Item::Record { record, .. } => {
                    let sequence = record.lsn.get();
                    if matches!(until, Until::Sequence(until) if sequence > until) {
                        stopped = true;
                        return ControlFlow::Break(());
                    }
                    reached = Some(sequence);
                    if sequence <= header.cut {
                        return ControlFlow::Continue(());
                    }
                    last = sequence;
                    if record.key == MARKER_KEY {
                        if record.value != b"null" {
                            problem = Some(format!(
                                "change {sequence} restored another backup in the running store: expected --until below it, or that backup"
                            ));
                        }
                    } else if prefix.is_none_or(|prefix| record.key.starts_with(prefix)) {
                        let put = record.op == Op::Put;
                        changes.insert(
                            record.key.to_owned(),
                            Change {
                                sequence,
                                version: record.version,
                                expires_at: record.expires_at,
                                crc: record.value_crc,
                                pinned: record.pinned,
                                media_type: record.media_type.map(str::to_owned),
                                value: put.then(|| record.value.to_vec()),
                            },
                        );
                    }
                }
                Item::Bad { offset, fault } => {
                    note = Some(format!("{shown} at offset {offset}: {fault}; the log was followed up to there"));
                    stopped = until == Until::End;
                    if !stopped {
                        problem = Some(format!(
                            "{shown} at offset {offset}: {fault}; the log can be followed up to change {}",
                            reached.unwrap_or(0)
                        ));
                    }
                    return ControlFlow::Break(());
                }
                _ => {}
            }
            if problem.is_some() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .map_err(|error| refuse(format!("{shown}: {}", super::with_sources(&error))))?;
        if let Some(problem) = problem {
            return Err(refuse(problem));
        }
        if stopped {
            break;
        }
    }
    if let (Until::Sequence(until), false) = (until, stopped)
        && reached.unwrap_or(0).max(header.cut) < until
    {
        return Err(refuse(format!(
            "the log ends with change {}; expected one that reaches {until}",
            reached.unwrap_or(0)
        )));
    }
    Ok(Continued {
        changes,
        last,
        note,
    })
}

fn must_be_empty(directory: &Path) -> Result<(), Failure> {
    match fs::read_dir(directory).and_then(|mut entries| entries.next().transpose()) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(Failure::Failed(format!(
            "{} is not empty; expected a directory that is empty, or not there yet",
            directory.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(directory, &error)),
    }
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::Failed(format!("{}: {error}", path.display()))
}

/// The mark of a directory that is being restored into.
struct Staging {
    directory: PathBuf,
    _lock: File,
}

impl Staging {
    fn begin(directory: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(directory).map_err(|error| failed(directory, &error))?;
        let mark = directory.join(Disk::RESTORING);
        File::create(&mark)
            .and_then(|file| file.sync_all())
            .and_then(|()| File::open(directory)?.sync_all())
            .map_err(|error| failed(&mark, &error))?;
        let path = directory.join(Disk::LOCK);
        let lock = File::create(&path).map_err(|error| failed(&path, &error))?;
        lock.try_lock().map_err(|error| failed(&path, &error))?;
        Ok(Self {
            directory: directory.to_owned(),
            _lock: lock,
        })
    }

    fn left_behind(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Failed(words) => Failure::Failed(format!(
                "{words}; what is in {} is unfinished and of no use",
                self.directory.display()
            )),
            other => other,
        }
    }

    fn end(self) -> Result<(), Failure> {
        let mark = self.directory.join(Disk::RESTORING);
        File::open(&self.directory)
            .and_then(|folder| folder.sync_all())
            .and_then(|()| fs::remove_file(&mark))
            .and_then(|()| File::open(&self.directory)?.sync_all())
            .map_err(|error| failed(&mark, &error))
    }
}

/// Parts that take entries in turn, block by block.
struct Parts {
    parts: Vec<PartWriter>,
    builder: BlockBuilder,
    next: usize,
    entries: u64,
}

impl Parts {
    fn push(&mut self, entry: EntryRef<'_>) -> Result<(), String> {
        self.entries += 1;
        match self.builder.push(entry) {
            Ok(false) => Ok(()),
            Ok(true) => self.flush(),
            Err(error) => Err(error.to_string()),
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        let block = self.builder.take();
        let part = self.next;
        self.next = (self.next + 1) % self.parts.len();
        self.parts[part]
            .write(block)
            .map_err(|error| super::with_sources(&error))
    }
}

/// Makes snapshot and log of a new store; how many entries it has, up to which change.
fn write(
    directory: &Path,
    file: &Path,
    header: &BackupHeader,
    prefix: Option<&str>,
    continued: Option<&Continued>,
) -> Result<(u64, u64), Failure> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
    let cut = continued.map_or(header.cut, |continued| continued.last);
    let store_id = new_store_id();
    let folder = directory.join(Disk::SNAPSHOTS);
    let storage = snapshot::Directory::create(&folder).map_err(|error| failed(&folder, &error))?;
    let plan = Plan {
        store_id,
        id: 1,
        parent: None,
        cut,
        created_at_ms: now,
        partitions: header.partitions,
        parts: PARTS,
    };
    let begun = SnapshotWriter::begin(
        Arc::new(storage),
        plan,
        snapshot_codec(),
        snapshot::Options::default(),
    );
    let mut writer = begun.map_err(|error| Failure::from_error(&error))?;
    let parts = (0..PARTS)
        .map(|part| writer.part(part))
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::from_error(&error))?;
    let mut parts = Parts {
        parts,
        builder: writer.block_builder(),
        next: 0,
        entries: 0,
    };
    let mut problem = None;
    let changed = |key: &str| continued.is_some_and(|log| log.changes.contains_key(key));
    let seen = read(file, prefix, |entry| {
        if changed(entry.key) {
            return ControlFlow::Continue(());
        }
        match parts.push(entry) {
            Ok(()) => ControlFlow::Continue(()),
            Err(words) => {
                problem = Some(words);
                ControlFlow::Break(())
            }
        }
    });
    if let Some(words) = problem {
        return Err(Failure::Failed(words));
    }
    seen?;
    for (key, change) in continued.into_iter().flat_map(|log| &log.changes) {
        let Some(value) = &change.value else {
            continue;
        };
        parts
            .push(EntryRef {
                sequence: change.sequence,
                version: change.version,
                expires_at: change.expires_at,
                value_crc: change.crc,
                tombstone: false,
                pinned: change.pinned,
                media_type: change.media_type.as_deref(),
                key,
                value,
            })
            .map_err(Failure::Failed)?;
    }
    parts.flush().map_err(Failure::Failed)?;
    let entries = parts.entries;
    writer
        .finish(parts.parts)
        .map_err(|error| Failure::from_error(&error))?;

    let folder = directory.join(Disk::WAL);
    let storage = wal::Directory::open(&folder).map_err(|error| failed(&folder, &error))?;
    let start = wal::Start {
        follows: Lsn::new(cut),
        floor: Lsn::new(cut),
        next_lsn: Lsn::new(cut).next(),
        ..wal::Start::fresh(store_id, now)
    };
    let log = wal::Wal::open(Arc::new(storage), wal::Options::default(), start, 1)
        .map_err(|error| Failure::from_error(&error))?;
    log.shutdown()
        .map_err(|error| Failure::from_error(&error))?;
    Ok((entries, cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_sequence_or_a_time_with_its_zone() {
        for (text, until) in [
            ("0", Some(Until::Sequence(0))),
            ("1850000000000", Some(Until::Sequence(1_850_000_000_000))),
            ("1970-01-01T00:00:00Z", Some(Until::Time(0))),
            ("2000-02-29T23:59:59.5Z", Some(Until::Time(951_868_799_500))),
            (
                "2026-11-25T16:50:00+01:00",
                Some(Until::Time(1_795_621_800_000)),
            ),
            ("2026-11-25T16:50:00", None),
            ("2026-11-25", None),
            ("yesterday", None),
            ("-1", None),
            ("1969-12-31T23:59:59Z", None),
        ] {
            assert_eq!(parse_until(text), until, "{text}");
        }
    }
}
