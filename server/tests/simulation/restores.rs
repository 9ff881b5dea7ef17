//! Backups laid back over the store they may or may not be of, whole, damaged or cut off, while its machine goes on failing.

use super::backups::Saved;
use super::history::{KEYS, Restore, RestoreHow, key_name};
use super::model::Entry;
use super::tally::{Wrong, wrong};
use super::world::{ROUNDS_MAX, World};
use inflightkv_server::engine::{
    Readiness, Refusal, RestoreError, RestoreMode, RestoreReport, RestoreStep, Restoring,
};
use std::collections::BTreeMap;

impl World {
    /// One restore from its begin to its end, with everything in the background going on.
    pub(crate) fn restore(&mut self, asked: &Restore) -> Result<(), Wrong> {
        let count = self.backups.len();
        if count == 0 {
            return Ok(());
        }
        let saved = self.backups[usize::from(asked.backup) % count].clone();
        let prefix = asked.prefix.map_or_else(String::new, key_name);
        let mode = match asked.merge {
            true => RestoreMode::Merge {
                prefix: prefix.clone(),
            },
            false => RestoreMode::Replace,
        };
        let begun = self.run().engine.begin_restore(mode);
        let mut restore = match begun {
            Ok(restore) => restore,
            Err(error) => return self.restore_refused(&error),
        };
        let mut bytes = saved.bytes.clone();
        let whole = match asked.how {
            RestoreHow::Whole => true,
            RestoreHow::CutOff(at) => {
                bytes.truncate(usize::from(at) % bytes.len());
                false
            }
            RestoreHow::Damaged(at, mask) => {
                let at = usize::from(at) % bytes.len();
                bytes[at] ^= mask.max(1);
                false
            }
        };
        for piece in bytes.chunks(asked.piece.max(1).into()) {
            if let Err(error) = restore.feed(piece) {
                drop(restore);
                return self.restore_failed(whole, &error);
            }
        }
        let restoring = match restore.finish() {
            Ok(restoring) => restoring,
            Err(error) => return self.restore_failed(whole, &error),
        };
        if !whole {
            return Err(wrong(
                "what comes of a damaged or cut off backup",
                "refused",
                restoring,
            ));
        }
        match asked.merge {
            true => self.merge(&saved, &prefix, restoring),
            false => self.replace(&saved, restoring),
        }
    }

    fn restore_refused(&mut self, error: &RestoreError) -> Result<(), Wrong> {
        let readiness = self.run().engine.readiness();
        let expected = match error {
            RestoreError::Running => self.run().switching.is_some(),
            RestoreError::Refused(Refusal::Backlog) => readiness == Readiness::Ready,
            RestoreError::Refused(Refusal::DiskFull) => readiness == Readiness::DiskFull,
            RestoreError::Refused(Refusal::ReadOnly { .. }) => {
                matches!(readiness, Readiness::ReadOnly { .. })
            }
            RestoreError::Staging(_) => self.disk.delivered().any() || self.disk.is_dead(),
            _ => false,
        };
        match expected {
            true => Ok(()),
            false => Err(wrong(
                "why a restore is not begun",
                format!("what the readiness says: {readiness:?}"),
                error,
            )),
        }
    }

    /// A backup that was refused has changed nothing.
    fn restore_failed(&mut self, whole: bool, error: &RestoreError) -> Result<(), Wrong> {
        let excused = self.disk.delivered().any() || self.disk.is_dead();
        let expected = match error {
            RestoreError::Backup(_) | RestoreError::Entry { .. } => !whole,
            RestoreError::Staging(_) => excused,
            _ => false,
        };
        if !expected {
            return Err(wrong("what a backup is refused for", whole, error));
        }
        self.tally.restores_refused += 1;
        let found = self.list(0, 1_000)?;
        self.same_as_model("what is there after a backup was refused", &found)
    }

    fn replace(&mut self, saved: &Saved, mut restoring: Restoring) -> Result<(), Wrong> {
        let mut swapped = false;
        for _ in 0..ROUNDS_MAX {
            let stepped = restoring.step();
            if !swapped && let Some(number) = restoring.swapped() {
                swapped = true;
                self.swapped(saved, number.get())?;
            }
            match stepped {
                Ok(RestoreStep::Done(report)) => return self.replaced(saved, &report),
                Ok(RestoreStep::More | RestoreStep::Wait) => {}
                Err(error) => {
                    self.look()?;
                    let readiness = self.run().engine.readiness();
                    let excused = self.disk.delivered().any() || self.disk.is_dead();
                    return match (&error, swapped, excused) {
                        (RestoreError::NotDurable { .. }, true, true)
                        | (RestoreError::NotSwapped(_) | RestoreError::Refused(_), false, true) => {
                            let found = self.list(0, 1_000)?;
                            self.same_as_model("what is there after a failed restore", &found)
                        }
                        _ => Err(wrong(
                            "the end of a restore",
                            format!("restored, since the store says {readiness:?}"),
                            error,
                        )),
                    };
                }
            }
            self.write_log();
            let run = self.run();
            run.driver.turn_homes();
            run.driver.checkpoint();
            self.read_backup()?;
            if self.disk.is_dead() {
                // Swapped in or not, as the log has it or not.
                if !swapped && let Some(number) = restoring.swapped() {
                    self.swapped(saved, number.get())?;
                }
                return Ok(());
            }
        }
        match self.run().engine.readiness() {
            Readiness::DiskFull => Ok(()),
            readiness => Err(wrong(
                format!("the end of a restore, after {ROUNDS_MAX} rounds of everything"),
                "an outcome",
                readiness,
            )),
        }
    }

    /// Every entry is the backup's, under one number that was never given out, and the swap has one above it.
    fn swapped(&mut self, saved: &Saved, number: u64) -> Result<(), Wrong> {
        let now = self.now();
        let found = self.list(0, 1_000)?;
        let one = found.values().next().map(|entry| entry.sequence);
        let given_out = self.model.given_out;
        let below = one.unwrap_or(number.saturating_sub(1));
        if below <= given_out || number <= below {
            return Err(wrong(
                "the two numbers of a restore",
                format!("one above the other, and both above {given_out}"),
                (below, number),
            ));
        }
        let mut state = BTreeMap::new();
        for (key, entry) in &saved.entries {
            if entry.is_visible(now) {
                let entry = Entry {
                    sequence: below,
                    ..entry.clone()
                };
                state.insert(*key, entry);
            }
        }
        self.model.replace(number, state);
        self.same_as_model("what is there after a restore", &found)
    }

    fn replaced(&mut self, saved: &Saved, report: &RestoreReport) -> Result<(), Wrong> {
        self.tally.replaced += 1;
        let now = self.now();
        let restored = saved.entries.values().filter(|entry| entry.is_visible(now));
        let restored = restored.count() as u64;
        let there = (report.entries, report.restored, report.sequence);
        let expected = (saved.entries.len() as u64, restored, self.model.last());
        if there != expected {
            return Err(wrong(
                "entries of a backup, how many are there, and the number of the restore",
                expected,
                there,
            ));
        }
        if self.is_persistent() {
            self.model.acknowledge(report.sequence);
        }
        Ok(())
    }

    fn merge(
        &mut self,
        saved: &Saved,
        prefix: &str,
        mut restoring: Restoring,
    ) -> Result<(), Wrong> {
        let now = self.now();
        let mut outcome = None;
        for _ in 0..ROUNDS_MAX {
            match restoring.step() {
                Ok(RestoreStep::Done(report)) => {
                    outcome = Some(report);
                    break;
                }
                Ok(RestoreStep::More) => {}
                Ok(RestoreStep::Wait) => {
                    self.write_log();
                }
                Err(RestoreError::Refused(Refusal::ReadOnly { .. } | Refusal::DiskFull)) => break,
                Err(error) => return Err(wrong("a merge", "done, or stopped by the disk", error)),
            }
            if self.disk.is_dead() {
                break;
            }
        }
        if outcome.is_none()
            && !self.disk.is_dead()
            && self.run().engine.readiness() == Readiness::Ready
        {
            return Err(wrong("the end of a merge", "an outcome", "none"));
        }
        let found = self.list(0, 1_000)?;
        let given_out = self.model.given_out;
        let mut changes = Vec::new();
        for key in 0..KEYS {
            let there = self.model.visible(key, now);
            let after = found.get(&key_name(key));
            let offered = saved
                .entries
                .get(&key)
                .filter(|entry| entry.is_visible(now) && key_name(key).starts_with(prefix));
            let (must, may) = match (offered, there) {
                (None, _) => (false, false),
                (Some(_), None) => (outcome.is_some(), true),
                // Newer than what is there only where a crash took that.
                (Some(offered), Some(there)) => (false, offered.sequence > there.sequence),
            };
            if after == there && !must {
                continue;
            }
            let right = match (offered, after) {
                (Some(offered), Some(after)) => {
                    let version = there.map_or(0, |there| there.version + 1);
                    may && after.value == offered.value
                        && after.media_type == offered.media_type
                        && after.expires_at == offered.expires_at
                        && after.version == version
                        && after.sequence > given_out
                }
                _ => false,
            };
            if !right {
                return Err(wrong(
                    format!("{} after a merge of {offered:?}", key_name(key)),
                    there,
                    after,
                ));
            }
            changes.extend(after.map(|after| (key, after.clone())));
        }
        changes.sort_by_key(|(_, entry)| entry.sequence);
        if changes
            .windows(2)
            .any(|pair| pair[0].1.sequence == pair[1].1.sequence)
        {
            return Err(wrong("the numbers of a merge", "each once", changes));
        }
        self.tally.merged += changes.len() as u64;
        if let Some(report) = outcome
            && report.restored < changes.len() as u64
        {
            return Err(wrong(
                "how many entries a merge says it has restored",
                changes.len(),
                report,
            ));
        }
        for (key, entry) in changes {
            let sequence = entry.sequence;
            self.model
                .apply(key, sequence, super::model::Effect::Set(entry));
        }
        self.same_as_model("what is there after a merge", &found)
    }
}
