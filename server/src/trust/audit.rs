//! The audit log: JSON lines on a thread of their own, lossless, chained.
//!
//! Whoever is about to do something that is audited reserves a [`Place`] first. While the queue is full there is none,
//! and what would have been audited is not done: the log holds everything that happened, however slow its disk is. A
//! place that was reserved is always written, also when whoever had it was dropped.
//!
//! The file may be moved away while the log is written: [`Audit::reopen`] goes on in a new one, and its first line says
//! after which number. The chain goes on too, over files and over restarts.

use super::chain::{self, Link};
use super::time;
use parking_lot::{Condvar, Mutex};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Events that may wait to be written; about half a megabyte.
const QUEUE_MAX: usize = 1024;
/// Events beyond that which could not be refused; what comes after them is told of by its number only.
const INSISTED_MAX: usize = 1024;
/// After a write that failed, before it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How far from its end a log is looked at for its last line.
const TAIL_BYTES: u64 = 4 << 20;

/// Something that is written down.
#[derive(Debug, Clone, Default)]
pub struct Event {
    /// What was done, such as `admin` or `authentication`.
    pub action: &'static str,
    /// Whether it succeeded.
    pub success: bool,
    /// Who did it, by the name of a token or certificate.
    pub who: Option<String>,
    /// From where.
    pub from: Option<SocketAddr>,
    /// What is known beyond that: name and value. Never a value, a token or a query string.
    pub details: Vec<(&'static str, String)>,
}

/// An audit log that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The file cannot be opened, read or written.
    #[error("audit log {path} cannot be opened: {source}")]
    Open {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Its last line does not prove itself, so nothing can be chained to it.
    #[error(
        "audit log {path} does not end with a line that it was given; expected an untouched log, or no file: move it aside"
    )]
    Foreign {
        /// The file.
        path: String,
    },
}

/// A handle to an audit log. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Audit {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    state: Mutex<State>,
    /// Told when there is something to write, and when the end was asked for.
    work: Condvar,
    /// Told when something was written.
    room: Condvar,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<(SystemTime, Event)>,
    /// Places given out and events not yet on disk.
    taken: usize,
    /// Events that could not be refused and found no room: told of by their number.
    untold: u64,
    /// Whether to look if the file was moved away.
    reopen: bool,
    ending: bool,
    failing: bool,
    /// Events handed over, in all.
    events: u64,
}

/// What an audit log counts and shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditFigures {
    /// Events recorded since the start.
    pub events: u64,
    /// Events not yet on disk, and places kept for some.
    pub waiting: usize,
    /// Whether the disk takes nothing at the moment.
    pub failing: bool,
}

/// A place in the log. It is written when it is filled, or, if it never is, with what it was reserved for.
#[derive(Debug)]
pub struct Place {
    shared: Arc<Shared>,
    event: Option<Event>,
}

impl Audit {
    /// Opens a log and goes on with its chain, or begins one. A last line that was cut by a crash is dropped; that is
    /// the first thing the log then says.
    ///
    /// # Errors
    /// The file cannot be used, or somebody else wrote its end.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let failed = |source| AuditError::Open {
            path: path.display().to_string(),
            source,
        };
        let mut file = open_file(path).map_err(failed)?;
        let head = chain::read_head(path).map_err(failed)?;
        let (found, torn) = last_line(&mut file).map_err(failed)?;
        let link = match found {
            Found::Line(link) => link,
            // A new file: the chain goes on where the one before it ended.
            Found::Nothing => head.unwrap_or(Link::START),
            Found::Foreign => {
                return Err(AuditError::Foreign {
                    path: path.display().to_string(),
                });
            }
        };
        sync_folder(path);
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            state: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            writer: Mutex::default(),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            file,
            link,
        };
        let thread = thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run())
            .map_err(failed)?;
        *shared.writer.lock() = Some(thread);
        let audit = Self { shared };
        if torn > 0 {
            let words = format!("{torn} bytes of a line that was cut were dropped");
            audit.record(of_the_log(false, words));
        }
        match (found, head) {
            (Found::Nothing, Some(head)) if head.sequence > 0 => {
                audit.record(of_the_log(true, goes_on(head)));
            }
            // The end is noted only once it is written: lines that were there are gone.
            (Found::Line(link), Some(head)) if head.sequence > link.sequence => {
                let (from, to) = (link.sequence + 1, head.sequence);
                let words = format!("the lines numbered {from} to {to} that were here are missing");
                audit.record(of_the_log(false, words));
            }
            _ => {}
        }
        Ok(audit)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// A place for what is about to happen, which `event` describes as if it had failed; `None` while the queue is full:
    /// then do it later.
    pub fn reserve(&self, event: Event) -> Option<Place> {
        let mut state = self.shared.state.lock();
        if state.taken >= QUEUE_MAX {
            return None;
        }
        state.taken += 1;
        Some(Place {
            shared: Arc::clone(&self.shared),
            event: Some(event),
        })
    }

    /// Writes down what has happened; waits for room. Not for event loops.
    pub fn record(&self, event: Event) {
        let mut state = self.shared.state.lock();
        while state.taken >= QUEUE_MAX && !state.ending {
            self.shared.room.wait(&mut state);
        }
        self.shared.push(&mut state, event);
    }

    /// Writes down what cannot be undone or refused, beyond the queue's bound if need be: for what is rare. While even
    /// that is full, only how many there were is kept, and written down.
    pub fn insist(&self, event: Event) {
        let mut state = self.shared.state.lock();
        if state.taken >= QUEUE_MAX + INSISTED_MAX {
            state.untold += 1;
            return;
        }
        self.shared.push(&mut state, event);
    }

    /// Tells that the value of `key` does not have the checksum that it was stored with, and who met it.
    pub fn damaged(&self, key: &str, found_by: &str) {
        self.insist(Event {
            action: "integrity",
            details: vec![
                ("message", "a value does not have its checksum".to_owned()),
                ("found_by", found_by.to_owned()),
                ("key", key.to_owned()),
            ],
            ..Event::default()
        });
    }

    /// What was recorded, and what waits for the disk.
    #[must_use]
    pub fn figures(&self) -> AuditFigures {
        let state = self.shared.state.lock();
        AuditFigures {
            events: state.events,
            waiting: state.taken,
            failing: state.failing,
        }
    }

    /// Tells that a file does not hold what was written to it: `place` names it, and where in it.
    pub fn damaged_file(&self, place: &str, found_by: &str) {
        self.insist(Event {
            action: "integrity",
            details: vec![
                (
                    "message",
                    "a file does not hold what was written to it".to_owned(),
                ),
                ("found_by", found_by.to_owned()),
                ("place", place.to_owned()),
            ],
            ..Event::default()
        });
    }

    /// Goes on in a new file if the one that is written to was moved away. What is recorded later is in the new one.
    pub fn reopen(&self) {
        self.shared.state.lock().reopen = true;
        self.shared.work.notify_one();
    }

    /// Writes what waits, and ends. What comes later is not written.
    pub fn close(&self) {
        self.shared.state.lock().ending = true;
        self.shared.work.notify_all();
        self.shared.room.notify_all();
        if let Some(writer) = self.shared.writer.lock().take() {
            // A thread that panicked has said so.
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn push(&self, state: &mut State, event: Event) {
        state.taken += 1;
        state.events += 1;
        state.queue.push((SystemTime::now(), event));
        self.work.notify_one();
    }
}

impl Place {
    /// Says how it went: whether it succeeded, and more about it.
    pub fn fill(
        mut self,
        success: bool,
        details: impl IntoIterator<Item = (&'static str, String)>,
    ) {
        if let Some(event) = &mut self.event {
            event.success = success;
            event.details.extend(details);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(event) = self.event.take() else {
            return;
        };
        let mut state = self.shared.state.lock();
        // It was counted when it was reserved.
        state.taken -= 1;
        self.shared.push(&mut state, event);
    }
}

struct Writer {
    shared: Arc<Shared>,
    file: File,
    link: Link,
}

impl Writer {
    fn run(mut self) {
        loop {
            let (mut batch, untold, reopen) = {
                let mut state = self.shared.state.lock();
                while state.queue.is_empty() && !state.ending && !state.reopen {
                    self.shared.work.wait(&mut state);
                }
                if state.queue.is_empty() && !state.reopen {
                    return;
                }
                let (untold, reopen) = (state.untold, state.reopen);
                (state.untold, state.reopen) = (0, false);
                (std::mem::take(&mut state.queue), untold, reopen)
            };
            let taken = batch.len();
            if untold > 0 {
                let words = format!("{untold} more events found no room to be told of one by one");
                batch.push((SystemTime::now(), of_the_log(false, words)));
            }
            if reopen && let Some(event) = self.reopen() {
                batch.insert(0, (SystemTime::now(), event));
            }
            if batch.is_empty() {
                continue;
            }
            let mut link = self.link;
            let mut text = String::new();
            for (at, event) in &batch {
                let mut line = line(*at, event);
                link.extend(&mut line);
                text.push_str(&line);
            }
            if !self.write(&text) {
                // The process ends, and the disk takes nothing.
                return;
            }
            self.link = link;
            // Where the log ends is only ever behind it: a crash in between hides nothing.
            if let Err(error) = std::fs::write(chain::head_of(&self.shared.path), link.text()) {
                tracing::warn!(%error, "the end of the audit log could not be noted beside it");
            }
            let mut state = self.shared.state.lock();
            state.taken -= taken;
            self.shared.room.notify_all();
        }
    }

    /// Opens the file anew if it was moved away, and says so; on any failure the old one is written to as before.
    fn reopen(&mut self) -> Option<Event> {
        match self.moved() {
            Ok(None) => None,
            Ok(Some(file)) => {
                self.file = file;
                sync_folder(&self.shared.path);
                Some(of_the_log(true, goes_on(self.link)))
            }
            Err(error) => {
                tracing::error!(%error, "the audit log cannot be opened anew: it is written where it was");
                Some(of_the_log(
                    false,
                    format!("the file could not be opened anew: {error}"),
                ))
            }
        }
    }

    /// The new file, if the one that is written to is no longer the one of that name.
    fn moved(&self) -> io::Result<Option<File>> {
        let path = &self.shared.path;
        let ours = self.file.metadata()?;
        match fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(None),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = open_file(path)?;
        if file.metadata()?.len() > 0 {
            return Err(io::Error::other(
                "found a file that is not empty, expected none or an empty one",
            ));
        }
        Ok(Some(file))
    }

    /// Writes and syncs, again until it succeeds; false when the process ends first.
    fn write(&mut self, text: &str) -> bool {
        loop {
            let start = self.file.seek(SeekFrom::End(0)).ok();
            let written = self
                .file
                .write_all(text.as_bytes())
                .and_then(|()| self.file.sync_data());
            let Err(error) = written else {
                let mut state = self.shared.state.lock();
                if std::mem::replace(&mut state.failing, false) {
                    tracing::warn!("the audit log is written again");
                }
                return true;
            };
            // What was written of it must not be there twice.
            if let Some(start) = start {
                let _ = self.file.set_len(start);
            }
            let mut state = self.shared.state.lock();
            if !std::mem::replace(&mut state.failing, true) {
                tracing::error!(%error, "the audit log cannot be written: what would be audited is refused");
            }
            if state.ending {
                return false;
            }
            self.shared.work.wait_for(&mut state, RETRY_AFTER);
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .open(path)
}

/// A file that was just made is there after a power cut only once its folder is on disk.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
    if let Err(error) = synced {
        tracing::warn!(%error, "the folder of the audit log could not be synced");
    }
}

/// What the log says about itself.
fn of_the_log(success: bool, message: String) -> Event {
    Event {
        action: "audit-log",
        success,
        details: vec![("message", message)],
        ..Event::default()
    }
}

fn goes_on(link: Link) -> String {
    format!(
        "the log goes on here after number {}, which is in another file",
        link.sequence
    )
}

/// One event, up to where the chain's members go.
fn line(at: SystemTime, event: &Event) -> String {
    let milliseconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    });
    let mut members = serde_json::Map::new();
    let mut put = |name: &str, value: serde_json::Value| members.insert(name.to_owned(), value);
    put("event.action", event.action.into());
    let outcome = if event.success { "success" } else { "failure" };
    put("event.outcome", outcome.into());
    if let Some(who) = &event.who {
        put("user.name", who.as_str().into());
    }
    if let Some(from) = event.from {
        put("source.ip", from.ip().to_string().into());
        put("source.port", from.port().into());
    }
    for (name, value) in &event.details {
        put(name, value.as_str().into());
    }
    let mut line = format!("{{\"@timestamp\":\"{}\",", time::rfc3339(milliseconds));
    let text = serde_json::Value::Object(members).to_string();
    line.push_str(&text[1..text.len() - 1]);
    line
}

/// What a log ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The file is empty.
    Nothing,
    /// A line that proves itself.
    Line(Link),
    /// Something else: somebody else's file, or a line that was changed.
    Foreign,
}

/// What a log ends with, after cutting off what is no line. The second is how many bytes were cut.
fn last_line(file: &mut File) -> io::Result<(Found, u64)> {
    let len = file.seek(SeekFrom::End(0))?;
    let from = len.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    let whole = tail
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let torn = (tail.len() - whole) as u64;
    if whole == 0 {
        // What never had a line of ours is not cut.
        let found = if len == 0 {
            Found::Nothing
        } else {
            Found::Foreign
        };
        return Ok((found, 0));
    }
    tail.truncate(whole);
    let begin = tail[..whole - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let line = std::str::from_utf8(&tail[begin..whole - 1]).unwrap_or_default();
    let Some((link, _)) = chain::read_line(line) else {
        return Ok((Found::Foreign, 0));
    };
    if torn > 0 {
        file.set_len(len - torn)?;
        file.sync_data()?;
    }
    Ok((Found::Line(link), torn))
}

#[cfg(test)]
mod tests {
    use super::super::chain::{ChainFault, verify};
    use super::*;
    use std::fs;

    fn event(message: &str) -> Event {
        Event {
            action: "test",
            details: vec![("message", message.to_owned())],
            ..Event::default()
        }
    }

    fn log(folder: &Path, events: usize) -> PathBuf {
        let path = folder.join("audit.log");
        let audit = Audit::open(&path).expect("a log");
        for number in 0..events {
            audit.record(event(&format!("number {number} \"quoted\"")));
        }
        audit.close();
        path
    }

    #[test]
    fn a_log_goes_on_where_it_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = log(folder.path(), 3);
        log(folder.path(), 2);
        assert_eq!(verify(&[&path]).expect("it holds").lines, 5);
        let text = fs::read_to_string(&path).expect("a file");
        let sequences: Vec<u64> = text
            .lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
                assert_eq!(value["event.action"], "test");
                value["event.sequence"].as_u64().expect("a number")
            })
            .collect();
        assert_eq!(sequences, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn any_edit_and_any_cut_shows() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = log(folder.path(), 4);
        let sound = fs::read(&path).expect("a file");
        // Every byte changed, one at a time.
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            fs::write(&path, bytes).expect("a file");
            assert!(verify(&[&path]).is_err(), "byte {at}");
        }
        let lines: Vec<&[u8]> = sound.split_inclusive(|byte| *byte == b'\n').collect();
        for missing in 0..4 {
            let mut left = lines.clone();
            left.remove(missing);
            fs::write(&path, left.concat()).expect("a file");
            let found = verify(&[&path]);
            match missing {
                // A log may begin with a later number when it was rotated, so the first line is missed by nobody.
                0 => assert!(found.is_ok(), "{found:?}"),
                3 => assert!(matches!(
                    found,
                    Err((
                        _,
                        ChainFault::Cut {
                            found: 3,
                            written: 4
                        }
                    ))
                )),
                _ => assert!(
                    matches!(found, Err((_, ChainFault::Gap { .. }))),
                    "{found:?}"
                ),
            }
        }
        fs::write(&path, &sound[..sound.len() - 5]).expect("a file");
        assert!(matches!(
            verify(&[&path]),
            Err((_, ChainFault::Torn { line: 4 }))
        ));
        fs::write(&path, &sound).expect("a file");
        assert_eq!(verify(&[&path]).expect("it holds").lines, 4);
    }

    #[test]
    fn a_torn_line_is_dropped_and_told_of() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = log(folder.path(), 2);
        let mut bytes = fs::read(&path).expect("a file");
        bytes.extend_from_slice(b"{\"@timestamp\":\"20");
        fs::write(&path, bytes).expect("a file");
        log(folder.path(), 1);
        assert_eq!(verify(&[&path]).expect("it holds").lines, 4);
        let text = fs::read_to_string(&path).expect("a file");
        assert!(text.lines().nth(2).expect("a line").contains("17 bytes"));
    }

    #[test]
    fn a_file_of_somebody_else_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notes.txt");
        for text in ["milk, bread\n", "milk"] {
            fs::write(&path, text).expect("a file");
            assert!(matches!(
                Audit::open(&path),
                Err(AuditError::Foreign { .. })
            ));
            assert_eq!(fs::read_to_string(&path).expect("a file"), text);
        }
    }

    /// A full queue gives no more places; what has one is written, even when it is dropped.
    #[test]
    fn a_place_is_written_and_a_full_queue_gives_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let audit = Audit::open(&path).expect("a log");
        let mut places: Vec<Place> = (0..QUEUE_MAX)
            .map(|_| audit.reserve(event("dropped")).expect("there is room"))
            .collect();
        assert!(audit.reserve(event("one too many")).is_none());
        let filled = places.pop().expect("a place");
        filled.fill(true, [("more", "words".to_owned())]);
        drop(places);
        audit.record(event("last"));
        audit.close();
        assert_eq!(
            verify(&[&path]).expect("it holds").lines,
            QUEUE_MAX as u64 + 1
        );
        let text = fs::read_to_string(&path).expect("a file");
        assert_eq!(text.matches("\"event.outcome\":\"success\"").count(), 1);
    }

    /// A file that was moved away, whether the log was being written or not: the chain goes on in the new one.
    #[test]
    fn a_log_goes_on_over_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        let audit = Audit::open(&path).expect("a log");
        audit.record(event("one"));
        audit.reopen();
        audit.record(event("two"));
        // Not moved: nothing to do. Written by now, so that what follows is in the next file.
        drop(audit.reserve(event("three")).expect("a place"));
        audit.close();
        fs::rename(&path, &first).expect("moved");
        let audit = Audit::open(&path).expect("a log");
        audit.record(event("four"));
        while !fs::read_to_string(&path).is_ok_and(|text| text.contains("four")) {
            std::thread::yield_now();
        }
        fs::rename(&path, &second).expect("moved");
        audit.reopen();
        audit.record(event("five"));
        audit.close();
        let lines = |file: &Path| -> Vec<String> {
            let text = fs::read_to_string(file).expect("a file");
            let message = |line: &str| -> String {
                let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
                value["message"].as_str().expect("words").to_owned()
            };
            text.lines().map(message).collect()
        };
        assert_eq!(lines(&first), ["one", "two", "three"]);
        let after = |number: u64| {
            format!("the log goes on here after number {number}, which is in another file")
        };
        assert_eq!(lines(&second), [after(3), "four".to_owned()]);
        assert_eq!(lines(&path), [after(5), "five".to_owned()]);
        let whole = verify(&[&first, &second, &path]).expect("it holds");
        assert_eq!((whole.lines, whole.first, whole.last), (7, 1, 7));
        let end = verify(&[&path]).expect("it holds");
        assert_eq!((end.lines, end.first, end.last), (2, 6, 7));
        let without = verify(&[&first, &path]);
        assert!(
            matches!(&without, Err((file, ChainFault::Gap { before: 0 })) if *file == path),
            "{without:?}"
        );
    }

    /// Whoever cuts the end off while the log is not written is told of in the log.
    #[test]
    fn a_cut_end_is_told_of_by_the_next_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = log(folder.path(), 4);
        let text = fs::read_to_string(&path).expect("a file");
        let kept: Vec<&str> = text.split_inclusive('\n').take(2).collect();
        fs::write(&path, kept.concat()).expect("a file");
        log(folder.path(), 1);
        let text = fs::read_to_string(&path).expect("a file");
        assert!(
            text.contains("the lines numbered 3 to 4 that were here are missing"),
            "{text}"
        );
    }

    /// What cannot be refused is bounded as well, and what found no room is counted.
    #[test]
    fn what_is_insisted_on_is_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let audit = Audit::open(&path).expect("a log");
        let places: Vec<Place> = (0..QUEUE_MAX)
            .map(|_| audit.reserve(event("reserved")).expect("there is room"))
            .collect();
        {
            // As if the disk took nothing: the writer waits for the state to look at its queue.
            let mut state = audit.shared.state.lock();
            for number in 0..INSISTED_MAX {
                audit.shared.push(&mut state, event(&number.to_string()));
            }
            state.untold += 5;
        }
        drop(places);
        audit.close();
        let text = fs::read_to_string(&path).expect("a file");
        assert!(text.contains("5 more events found no room"), "{text}");
        let lines = (QUEUE_MAX + INSISTED_MAX + 1) as u64;
        assert_eq!(verify(&[&path]).expect("it holds").lines, lines);
    }
}
