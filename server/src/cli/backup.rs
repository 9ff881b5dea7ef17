//! `inflightkv backup --url URL --out FILE`: a backup of a running server, verified as it arrives and there whole or not at
//! all; and what `check` and `inspect` do with one.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use inflightkv_snapshot::{BackupDecoder, BackupHeader, BackupReport, LoadError, read_backup};
use std::ops::ControlFlow;

use super::client::{call, connect};
use super::connection::Request;
use super::inspect::hex;
use super::{Failure, print};
use crate::engine::snapshot_codecs;

/// How much is read at once.
const CHUNK: usize = 256 << 10;

/// Fetches a backup and puts it where the arguments say.
pub(crate) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let out = matches
        .get_one::<PathBuf>("out")
        .expect("the argument is required");
    if out.exists() {
        return Err(Failure::Failed(format!(
            "{} is there already; expected a name that is free",
            out.display()
        )));
    }
    let mut connection = connect(matches)?;
    let response = call(
        &mut connection,
        Request {
            method: "GET",
            target: "/v1/admin/backup",
            headers: &[],
            body: None,
        },
    )?;
    let mut partial = out.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let received = receive(response.into_reader(), &partial).and_then(|report| {
        put_in_place(&partial, out).map_err(|error| unwritten(out, &error))?;
        Ok(report)
    });
    match received {
        Ok(report) => print(format!("{}\n", describe(&report)).as_bytes()),
        Err(failure) => {
            // What is left of it is of no use to anybody.
            let _ = fs::remove_file(&partial);
            Err(failure)
        }
    }
}

fn receive(mut stream: impl Read, partial: &Path) -> Result<BackupReport, Failure> {
    let file = File::create(partial).map_err(|error| unwritten(partial, &error))?;
    let mut file = BufWriter::with_capacity(CHUNK, file);
    let mut decoder = BackupDecoder::new("the backup");
    let bar = bar();
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0_u64;
    let mut entries = 0_u64;
    let codecs = snapshot_codecs();
    loop {
        let len = match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(Failure::Failed(format!(
                    "the backup was cut off after {bytes} bytes: {error}"
                )));
            }
        };
        decoder
            .feed(&chunk[..len], &codecs, |_| {
                entries += 1;
                ControlFlow::Continue(())
            })
            .map_err(|error| Failure::from_error(&error))?;
        file.write_all(&chunk[..len])
            .map_err(|error| unwritten(partial, &error))?;
        bytes += len as u64;
        bar.set_position(bytes);
        bar.set_message(format!("{entries} entries"));
    }
    let report = decoder
        .finish()
        .map_err(|error| Failure::from_error(&error))?;
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)
        .and_then(|file| file.sync_all())
        .map_err(|error| unwritten(partial, &error))?;
    bar.finish_and_clear();
    Ok(report)
}

/// How long a backup gets is not known before its end.
fn bar() -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {bytes} {msg}, {bytes_per_sec}, {elapsed}")
    {
        bar.set_style(style);
    }
    bar
}

/// A link fails where a rename would replace: what came to be there meanwhile is not ours to remove.
fn put_in_place(partial: &Path, out: &Path) -> io::Result<()> {
    fs::hard_link(partial, out).or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Err(error),
        // A file system without links.
        _ => fs::rename(partial, out),
    })?;
    match fs::remove_file(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let folder = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("{} cannot be written: {error}", path.display()))
}

/// Whether `path` is a file that begins as a backup does, or is called one.
pub(crate) fn is_backup(path: &Path) -> bool {
    let mut head = [0; 8];
    let begins = File::open(path)
        .and_then(|mut file| file.read_exact(&mut head))
        .is_ok_and(|()| BackupHeader::begins(&head));
    begins
        || path
            .extension()
            .is_some_and(|extension| extension == "backup")
}

/// `inflightkv check FILE`: every checksum, count and digest of a backup.
pub(crate) fn check(path: &Path) -> Result<(), Failure> {
    let file = File::open(path)
        .map_err(|error| Failure::Failed(format!("{} cannot be read: {error}", path.display())))?;
    let name = path.display().to_string();
    match read_backup(&name, file, &snapshot_codecs(), |_| {
        ControlFlow::Continue(())
    }) {
        Ok(report) => print(format!("{}\n{name}: sound\n", describe(&report)).as_bytes()),
        Err(LoadError::Damaged(damage)) => {
            print(
                format!("damaged: {damage}\n{name}: damaged, of no use as a whole\n").as_bytes(),
            )?;
            Err(Failure::Damaged)
        }
        Err(error) => Err(Failure::from_error(&error)),
    }
}

fn describe(report: &BackupReport) -> String {
    format!(
        "backup: store {}, up to sequence {}, {} entries, {} bytes",
        hex(&report.header.store_id),
        report.header.cut,
        report.entries,
        report.bytes
    )
}
