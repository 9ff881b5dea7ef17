//! `inflightkv inspect FILE`: the records of one file as NDJSON, one a line, for people and for tools like jq.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ArgMatches;
use inflightkv_snapshot::{Contents, EntryRef, Kind, Manifest, Wanted};
use inflightkv_wal::tools::{self, Item};
use inflightkv_wal::{Cause, Op, Record};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Failure, unless_broken};
use crate::engine::{snapshot_codecs, wal_codecs};

/// A record of the log or an entry of a snapshot.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    sequence: u64,
    op: &'static str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// Milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    /// Milliseconds since the epoch, of a record of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    written_at_ms: Option<u64>,
    /// Exempt from eviction.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pinned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestLine<'a> {
    id: u64,
    kind: &'static str,
    parent: Option<u64>,
    parent_cut: Option<u64>,
    cut: u64,
    created_at_ms: u64,
    store_id: String,
    partitions: u32,
    entries: u64,
    tombstones: u64,
    bytes: u64,
    parts: Vec<PartLine<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PartLine<'a> {
    name: &'a str,
    bytes: u64,
    blocks: u32,
    entries: u64,
    tombstones: u64,
    crc32: String,
}

/// Prints the file that the arguments name.
pub(crate) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let path = matches
        .get_one::<PathBuf>("file")
        .expect("the argument is required");
    let wanted = match (
        matches.get_one::<String>("key"),
        matches.get_one::<String>("prefix"),
    ) {
        (Some(key), _) => Some(Wanted::Key(key)),
        (None, Some(prefix)) => Some(Wanted::Prefix(prefix)),
        (None, None) => None,
    };
    let mut output = Output {
        to: BufWriter::new(io::stdout().lock()),
        failed: None,
    };
    let result = match kind_of(path)? {
        FileKind::Segment => segment(path, wanted, &mut output),
        FileKind::Snapshot | FileKind::Backup if wanted.is_some() => {
            search(path, wanted, &mut output)
        }
        FileKind::Snapshot => snapshot(path, &mut output),
        FileKind::Backup => backup(path, &mut output),
    };
    let flushed = output.to.flush();
    // A reader that has seen enough is the reason why there is no more to say.
    if let Some(error) = output.failed {
        return unless_broken(Err(error));
    }
    unless_broken(flushed)?;
    result
}

enum FileKind {
    Segment,
    Snapshot,
    Backup,
}

/// By the name, where it has one of ours, so that also a file whose first bytes are damaged is told for what it was.
fn kind_of(path: &Path) -> Result<FileKind, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::Failed(format!("{} cannot be read: {error}", path.display()))
    };
    let file = File::open(path).map_err(|error| failed(&error))?;
    if !file.metadata().map_err(|error| failed(&error))?.is_file() {
        return Err(failed(&"it is not a file"));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(".manifest") || name.ends_with(".part") {
        Ok(FileKind::Snapshot)
    } else if super::backup::is_backup(path) {
        Ok(FileKind::Backup)
    } else {
        Ok(FileKind::Segment)
    }
}

fn segment(
    path: &Path,
    wanted: Option<Wanted<'_>>,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let mut bad: Option<String> = None;
    let read = tools::read_file(path, &wal_codecs(), |item| match item {
        Item::Record { record, .. } if wanted.is_none_or(|wanted| wanted.wants(record.key)) => {
            output.line(&of_record(&record))
        }
        Item::Bad { offset, fault } => {
            bad.get_or_insert_with(|| format!("{} offset {offset}: {fault}", path.display()));
            ControlFlow::Continue(())
        }
        _ => ControlFlow::Continue(()),
    });
    read.map_err(|error| Failure::from_error(&error))?;
    match bad {
        None => Ok(()),
        Some(problem) => Err(Failure::Failed(problem)),
    }
}

fn backup(path: &Path, output: &mut Output<'_>) -> Result<(), Failure> {
    let name = path.display().to_string();
    let file = File::open(path)
        .map_err(|error| Failure::Failed(format!("{name} cannot be read: {error}")))?;
    let read = inflightkv_snapshot::read_backup(&name, file, &snapshot_codecs(), |entry| {
        output.line(&of_entry(&entry))
    });
    match read {
        Ok(_) | Err(inflightkv_snapshot::LoadError::Stopped) => Ok(()),
        Err(error) => Err(Failure::from_error(&error)),
    }
}

/// Only what is wanted, reading little else.
fn search(path: &Path, wanted: Option<Wanted<'_>>, output: &mut Output<'_>) -> Result<(), Failure> {
    let (storage, name) = in_folder(path)?;
    let wanted = wanted.unwrap_or(Wanted::Prefix(""));
    let found = inflightkv_snapshot::find(&storage, &name, &snapshot_codecs(), wanted, |entry| {
        output.line(&of_entry(&entry))
    });
    match found {
        Ok(_) | Err(inflightkv_snapshot::LoadError::Stopped) => Ok(()),
        Err(error) => Err(Failure::from_error(&error)),
    }
}

/// A file as its folder and its name there.
pub(crate) fn in_folder(path: &Path) -> Result<(inflightkv_snapshot::Directory, String), Failure> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let storage = inflightkv_snapshot::Directory::open(folder).map_err(|error| {
        Failure::Failed(format!("{} cannot be read: {error}", folder.display()))
    })?;
    Ok((storage, name.into_owned()))
}

fn snapshot(path: &Path, output: &mut Output<'_>) -> Result<(), Failure> {
    let (storage, name) = in_folder(path)?;
    let read = inflightkv_snapshot::read_file(&storage, &name, &snapshot_codecs(), |entry| {
        output.line(&of_entry(&entry))
    });
    match read {
        Ok(Contents::Manifest(manifest)) => {
            // Its end does not depend on whether anybody reads it.
            let _ = output.line(&of_manifest(&manifest));
            Ok(())
        }
        Ok(_) | Err(inflightkv_snapshot::LoadError::Stopped) => Ok(()),
        Err(error) => Err(Failure::from_error(&error)),
    }
}

struct Output<'a> {
    to: BufWriter<io::StdoutLock<'a>>,
    failed: Option<io::Error>,
}

impl Output<'_> {
    fn line(&mut self, line: &impl Serialize) -> ControlFlow<()> {
        let written = serde_json::to_writer(&mut self.to, line)
            .map_err(io::Error::from)
            .and_then(|()| self.to.write_all(b"\n"));
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }
}

fn of_record<'a>(record: &Record<'a>) -> Line<'a> {
    let put = record.op == Op::Put;
    let (value, value_base64) = if put {
        value_of(record.media_type, record.value)
    } else {
        (None, None)
    };
    Line {
        sequence: record.lsn.get(),
        op: if put { "put" } else { "delete" },
        key: record.key,
        version: Some(record.version),
        expires_at: record.expires_at,
        written_at_ms: Some(record.written_at_ms),
        pinned: record.pinned,
        cause: (record.cause == Cause::Evicted).then_some("evicted"),
        media_type: record.media_type,
        value,
        value_base64,
    }
}

fn of_entry<'a>(entry: &EntryRef<'a>) -> Line<'a> {
    let (value, value_base64) = if entry.tombstone {
        (None, None)
    } else {
        value_of(entry.media_type, entry.value)
    };
    Line {
        sequence: entry.sequence,
        op: if entry.tombstone { "delete" } else { "put" },
        key: entry.key,
        version: (!entry.tombstone).then_some(entry.version),
        expires_at: entry.expires_at,
        written_at_ms: None,
        pinned: entry.pinned,
        cause: None,
        media_type: entry.media_type,
        value,
        value_base64,
    }
}

/// A JSON value inline; anything else, and JSON that would not stay on its line, as base64.
fn value_of<'a>(
    media_type: Option<&str>,
    bytes: &'a [u8],
) -> (Option<&'a RawValue>, Option<String>) {
    let inline = (media_type.is_none() && !bytes.contains(&b'\n'))
        .then(|| serde_json::from_slice::<&RawValue>(bytes).ok())
        .flatten();
    match inline {
        Some(value) => (Some(value), None),
        None => (None, Some(STANDARD.encode(bytes))),
    }
}

fn of_manifest(manifest: &Manifest) -> ManifestLine<'_> {
    ManifestLine {
        id: manifest.id,
        kind: match manifest.kind() {
            Kind::Full => "full",
            Kind::Incremental => "incremental",
        },
        parent: manifest.parent.map(|parent| parent.id),
        parent_cut: manifest.parent.map(|parent| parent.cut),
        cut: manifest.cut,
        created_at_ms: manifest.created_at_ms,
        store_id: hex(&manifest.store_id),
        partitions: manifest.partitions,
        entries: manifest.totals.entries,
        tombstones: manifest.totals.tombstones,
        bytes: manifest.totals.bytes,
        parts: manifest
            .parts
            .iter()
            .map(|part| PartLine {
                name: &part.name,
                bytes: part.bytes,
                blocks: part.blocks,
                entries: part.entries,
                tombstones: part.tombstones,
                crc32: format!("{:08x}", part.crc),
            })
            .collect(),
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_printed_inline_and_other_bytes_as_base64() {
        for (media_type, bytes, inline, base64) in [
            (None, &br#"{"a":1.0}"#[..], Some(r#"{"a":1.0}"#), None),
            (None, b"[1,\n2]", None, Some("WzEsCjJd")),
            (None, b"{not json", None, Some("e25vdCBqc29u")),
            (None, b"\"\xff\"", None, Some("Iv8i")),
            (Some("text/plain"), b"1", None, Some("MQ==")),
        ] {
            let (value, value_base64) = value_of(media_type, bytes);
            assert_eq!(value.map(RawValue::get), inline);
            assert_eq!(value_base64.as_deref(), base64);
        }
    }
}
