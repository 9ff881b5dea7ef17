//! What goes on beside everything else: the log's upkeep, and backups that are read as they come.

use super::history::{KEYS, key_name};
use super::model::Entry;
use super::tally::{Wrong, wrong};
use super::world::World;
use inflightkv_server::engine::snapshot_codecs;
use inflightkv_snapshot::read_backup;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::task::{Context, Poll, Waker};

/// Backups that are kept to be restored.
const SAVED_MAX: usize = 3;

/// A backup that was read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    pub(crate) bytes: Vec<u8>,
    pub(crate) entries: BTreeMap<u8, Entry>,
    /// What is in it was on stable storage.
    pub(crate) durable: bool,
}

impl World {
    /// One step of the log's upkeep; true when there is more at once.
    pub(crate) fn keep_log(&mut self) -> Result<bool, Wrong> {
        let before = self.rewritten();
        match self.run().driver.keep_log() {
            Ok(more) => {
                self.tally.segments_rewritten += self.rewritten() - before;
                Ok(more)
            }
            Err(_) if self.disk.delivered().any() || self.disk.is_dead() => Ok(false),
            Err(error) => Err(wrong("the log's upkeep on a sound disk", "done", error)),
        }
    }

    fn rewritten(&self) -> u64 {
        let stats = self.run().engine.stats().wal;
        stats.map_or(0, |stats| stats.rewritten)
    }

    pub(crate) fn begin_backup(&mut self) -> Result<(), Wrong> {
        if self.run().backup.is_some() {
            return Ok(());
        }
        let begun = self.run().engine.begin_backup();
        let backup = begun.map_err(|error| wrong("a backup", "begun", error))?;
        self.run_mut().backup = Some((backup, Vec::new()));
        Ok(())
    }

    /// Takes what there is of a backup; at its end it has to be the store at its cut.
    pub(crate) fn read_backup(&mut self) -> Result<(), Wrong> {
        let Some((backup, bytes)) = &mut self.run_mut().backup else {
            return Ok(());
        };
        let mut context = Context::from_waker(Waker::noop());
        let ended = loop {
            match backup.poll_piece(&mut context) {
                Poll::Ready(Some(Ok(piece))) => bytes.extend_from_slice(&piece),
                Poll::Ready(Some(Err(error))) => break Err(error),
                Poll::Ready(None) => break Ok(()),
                Poll::Pending => return Ok(()),
            }
        };
        let (_, bytes) = self.run_mut().backup.take().expect("it is being read");
        match ended {
            Ok(()) => self.backup_read(&bytes),
            Err(error) => Err(wrong("the end of a backup", "its trailer", error)),
        }
    }

    fn backup_read(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        let mut found = BTreeMap::new();
        let mut odd = None;
        let report = read_backup("the backup", bytes, &snapshot_codecs(), |entry| {
            let there = Entry {
                value: entry.value.to_vec().into(),
                media_type: entry.media_type.map(str::to_owned),
                version: entry.version,
                sequence: entry.sequence,
                expires_at: entry.expires_at,
            };
            if entry.tombstone || found.insert(entry.key.to_owned(), there).is_some() {
                odd = Some(entry.key.to_owned());
            }
            ControlFlow::Continue(())
        });
        let report = report.map_err(|error| wrong("a backup that was read", "sound", error))?;
        if let Some(key) = odd {
            return Err(wrong(
                format!("{key} in a backup"),
                "one entry",
                "something else",
            ));
        }
        self.tally.backups += 1;
        let mut entries = BTreeMap::new();
        for key in 0..KEYS {
            entries.extend(found.get(&key_name(key)).map(|entry| (key, entry.clone())));
        }
        if self.backups.len() == SAVED_MAX {
            self.backups.remove(0);
        }
        self.backups.push(Saved {
            bytes: bytes.to_vec(),
            entries,
            durable: self.is_persistent(),
        });
        let cut = report.header.cut;
        let at_cut = self.model.at(cut);
        let now = self.now();
        for key in 0..KEYS {
            let there = found.remove(&key_name(key));
            let expected = at_cut.there(key);
            // What expired may have been reclaimed before the cut.
            let is_gone = there.is_none() && expected.is_none_or(|entry| !entry.is_visible(now));
            if !is_gone && there.as_ref() != expected {
                return Err(wrong(
                    format!("{} in a backup of change {cut}", key_name(key)),
                    expected,
                    there,
                ));
            }
        }
        match found.keys().next() {
            Some(key) => Err(wrong("a key in a backup", "a key that was written", key)),
            None => Ok(()),
        }
    }
}
