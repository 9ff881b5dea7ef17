//! The audit log: JSON lines on a thread of their own, lossless, chained.
//!
//! Whoever is about to do something that is audited reserves a [`Place`] first. While the queue is full there is none,
//! and what would have been audited is not done: the log holds everything that happened, however slow its disk is. A
//! place that was reserved is always written, also when whoever had it was dropped.

use super::chain::{self, Link};
use super::time;
use parking_lot::{Condvar, Mutex};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Events that may wait to be written; about half a megabyte.
const QUEUE_MAX: usize = 1024;
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
    ending: bool,
    failing: bool,
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
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)
            .map_err(failed)?;
        let (link, torn) = last_line(&mut file).map_err(failed)?;
        let Some(link) = link else {
            return Err(AuditError::Foreign {
                path: path.display().to_string(),
            });
        };
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
            audit.record(Event {
                action: "audit-log",
                success: false,
                details: vec![(
                    "message",
                    format!("{torn} bytes of a line that was cut were dropped"),
                )],
                ..Event::default()
            });
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

    /// Writes down what cannot be undone or refused, beyond the queue's bound if need be: for what is rare.
    pub fn insist(&self, event: Event) {
        let mut state = self.shared.state.lock();
        self.shared.push(&mut state, event);
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
            let batch = {
                let mut state = self.shared.state.lock();
                while state.queue.is_empty() && !state.ending {
                    self.shared.work.wait(&mut state);
                }
                if state.queue.is_empty() {
                    return;
                }
                std::mem::take(&mut state.queue)
            };
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
            state.taken -= batch.len();
            self.shared.room.notify_all();
        }
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

/// The place in the chain of a log's last line, after cutting off what is no line; `None` when it does not prove
/// itself. The second is how many bytes were cut.
fn last_line(file: &mut File) -> io::Result<(Option<Link>, u64)> {
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
    if whole == 0 && from > 0 {
        return Ok((None, 0));
    }
    tail.truncate(whole);
    if tail.is_empty() {
        // Only a file that we began: what never had a line of ours is not cut.
        let ours = torn == 0;
        return Ok((ours.then_some(Link::START), 0));
    }
    let begin = tail[..whole - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let line = std::str::from_utf8(&tail[begin..whole - 1]).unwrap_or_default();
    let link = chain::read_line(line).map(|(link, _)| link);
    if link.is_some() && torn > 0 {
        file.set_len(len - torn)?;
        file.sync_data()?;
    }
    Ok((link, torn))
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
        assert_eq!(verify(&path).expect("it holds").lines, 5);
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
            assert!(verify(&path).is_err(), "byte {at}");
        }
        let lines: Vec<&[u8]> = sound.split_inclusive(|byte| *byte == b'\n').collect();
        for missing in 0..4 {
            let mut left = lines.clone();
            left.remove(missing);
            fs::write(&path, left.concat()).expect("a file");
            let found = verify(&path);
            match missing {
                // A log may begin with a later number when it was rotated, so the first line is missed by nobody.
                0 => assert!(found.is_ok(), "{found:?}"),
                3 => assert!(matches!(
                    found,
                    Err(ChainFault::Cut {
                        found: 3,
                        written: 4
                    })
                )),
                _ => assert!(matches!(found, Err(ChainFault::Gap { .. })), "{found:?}"),
            }
        }
        fs::write(&path, &sound[..sound.len() - 5]).expect("a file");
        assert!(matches!(verify(&path), Err(ChainFault::Torn { line: 4 })));
        fs::write(&path, &sound).expect("a file");
        assert_eq!(verify(&path).expect("it holds").lines, 4);
    }

    #[test]
    fn a_torn_line_is_dropped_and_told_of() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = log(folder.path(), 2);
        let mut bytes = fs::read(&path).expect("a file");
        bytes.extend_from_slice(b"{\"@timestamp\":\"20");
        fs::write(&path, bytes).expect("a file");
        log(folder.path(), 1);
        assert_eq!(verify(&path).expect("it holds").lines, 4);
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
        assert_eq!(verify(&path).expect("it holds").lines, QUEUE_MAX as u64 + 1);
        let text = fs::read_to_string(&path).expect("a file");
        assert_eq!(text.matches("\"event.outcome\":\"success\"").count(), 1);
    }
}
