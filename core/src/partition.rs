//! A share of the keys: decides commands, applies what was decided, and hides what has expired.

use crate::command::{Command, Operation};
use crate::decide::{Decider, failed_condition};
use crate::dirty::Dirty;
use crate::entry::{self, Draft, DraftValue, Entry, HEAT_MAX, PLACE_BYTES};
use crate::frozen::{Frozen, FrozenItem, Tombstone, WalkState};
use crate::keys::{KEY_CODES, KeyCode};
use crate::memtable::{Coded, Memtable, Spent};
use crate::mutation::{Applied, Cause, Change, LoadedEntry, Logged, Mutation, Reclaimed};
use crate::numbers::{Sequence, Slot};
use crate::outcome::Decision;
use crate::view::EntryView;
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A table of entries, and what belongs to it. Plain data: whoever has `&mut` may change it, nobody else sees it.
pub struct Partition<S> {
    table: Memtable<S>,
    /// Entries that have an expiry, expired ones included.
    expiring: usize,
    /// The last change, or 0.
    last_change: Sequence,
    /// The last change whose key is gone, by removal or by expiry, or 0.
    last_removed: Sequence,
    frozen: Option<Box<Frozen>>,
    /// In the order of their sequences.
    tombstones: VecDeque<Tombstone>,
    tombstone_bytes: usize,
    keeps_tombstones: bool,
    /// Slots changed since the last snapshot that stands.
    dirty: Option<Dirty>,
    /// A snapshot that stands has every change up to this one.
    forgotten: Sequence,
    /// Values that lie elsewhere and that nothing here needs any more.
    left: Vec<Left>,
}

/// A value that lay elsewhere ([`CODEC_ELSEWHERE`](crate::CODEC_ELSEWHERE)), and that no entry needs any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Where it lies.
    pub place: [u8; PLACE_BYTES],
    /// Its length in bytes.
    pub raw_len: usize,
}

/// Removals that are no longer needed; of use only to be dropped.
#[derive(Debug)]
pub struct Tombstones(
    #[expect(dead_code, reason = "held to be released later")] VecDeque<Tombstone>,
);

/// What a partition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionStats {
    /// Entries, those not included that have expired and were reclaimed.
    pub entries: usize,
    /// Entries with an expiry.
    pub expiring: usize,
    /// Heap bytes of the entries: headers, keys and values.
    pub entry_bytes: usize,
    /// Heap bytes of the index, the slots, the free lists and the notes of what was changed.
    pub table_bytes: usize,
    /// Heap bytes that are kept for entries and hold none: at most about a sixteenth of what small entries take.
    pub slack_bytes: usize,
    /// Heap bytes that a snapshot in progress keeps alive.
    pub frozen_bytes: usize,
    /// Bytes of tombstones.
    pub tombstone_bytes: usize,
}

impl PartitionStats {
    /// All bytes but the slack and those that a snapshot in progress keeps alive: what removing entries makes less.
    pub fn bytes(&self) -> usize {
        self.entry_bytes + self.table_bytes + self.tombstone_bytes
    }
}

impl<S: BuildHasher> Partition<S> {
    /// An empty partition. `hasher` is what callers of [`hash_key`](crate::hash_key) use for it.
    pub fn new(hasher: S) -> Self {
        Self {
            table: Memtable::new(hasher),
            expiring: 0,
            last_change: Sequence::ZERO,
            last_removed: Sequence::ZERO,
            frozen: None,
            tombstones: VecDeque::new(),
            tombstone_bytes: 0,
            keeps_tombstones: false,
            dirty: None,
            forgotten: Sequence::ZERO,
            left: Vec::new(),
        }
    }

    /// The entry of `key`, unless it has expired.
    pub fn get(&self, key: &str, hash: u64, now: u64) -> Option<EntryView<'_>> {
        let slot = self.table.find(hash, key.as_bytes())?;
        self.table
            .entry(slot)
            .filter(|entry| !entry.is_expired(now))
    }

    /// Where `key` is, unless it has expired.
    pub fn find(&self, key: &str, hash: u64, now: u64) -> Option<(Slot, EntryView<'_>)> {
        let slot = self.table.find(hash, key.as_bytes())?;
        let entry = self.table.entry(slot)?;
        (!entry.is_expired(now)).then_some((slot, entry))
    }

    /// The entry in `slot`, expired or not.
    pub fn entry_at(&self, slot: Slot) -> Option<EntryView<'_>> {
        self.table.entry(slot)
    }

    /// The hash by which the entry in `slot` is found.
    pub fn hash_at(&self, slot: Slot) -> Option<u64> {
        self.table.hash_at(slot)
    }

    /// The last change whose key is gone: the last removal, or the change that gave a key its expiry if that was
    /// reclaimed later. 0 when there was none.
    pub fn last_removed(&self) -> Sequence {
        self.last_removed
    }

    /// The last change that an answer shows which says that `key` is not there: nothing that removed it, or that
    /// gave it an expiry which has passed, is above.
    pub fn absent_since(&self, key: &str, hash: u64) -> Sequence {
        let slot = self.table.find(hash, key.as_bytes());
        self.gone_since(slot)
    }

    fn gone_since(&self, slot: Option<Slot>) -> Sequence {
        let expired = slot.and_then(|slot| self.table.entry(slot));
        expired.map_or(self.last_removed, |entry| {
            self.last_removed.max(entry.sequence())
        })
    }

    /// Says what comes of `command` at `now`, changing nothing.
    pub fn decide(&self, command: Command<'_>, now: u64) -> Decision {
        let Command {
            key,
            hash,
            conditions,
            operation,
        } = command;
        let slot = self.table.find(hash, key.as_bytes());
        let entry = slot
            .and_then(|slot| self.table.entry(slot))
            .filter(|entry| !entry.is_expired(now));
        let decider = Decider {
            hash,
            slot,
            entry,
            gone_since: self.gone_since(slot),
        };
        match operation {
            Operation::Delete => decider.delete(&conditions),
            Operation::Put {
                draft,
                expiry,
                compared,
            } => match failed_condition(&conditions, entry) {
                Some(failed) => decider.conflict(failed, Some(draft)),
                None => decider.put(draft, expiry, compared),
            },
            Operation::Patch(patch) => match failed_condition(&conditions, entry) {
                Some(failed) => decider.conflict(
                    failed,
                    patch.prepared.and_then(|prepared| prepared.result.ok()),
                ),
                None => decider.patch(key, patch),
            },
        }
    }

    /// What the log keeps of `mutation`, which this partition decided and has not applied yet.
    /// The key of an entry that is removed is written into `buffer` if it is stored coded.
    pub fn logged<'a>(&'a self, mutation: &'a Mutation, buffer: &'a mut String) -> Logged<'a> {
        match &mutation.change {
            // A draft is never coded: what is stored is the value.
            Change::Put(entry) => Logged {
                key: entry.key(),
                removed: None,
                value: entry.stored(),
                shared_value: entry.shared(),
                media_type: entry.media_type(),
                crc: entry.crc(),
                version: entry.version(),
                expires_at: entry.expires_at(),
                pinned: entry.is_pinned(),
            },
            Change::Delete(cause) => {
                let entry = mutation
                    .slot
                    .and_then(|slot| self.table.entry(slot))
                    .expect("a removal is decided on an entry and applied before anything else");
                Logged {
                    key: self.table.keys().text(entry.key_bytes(), buffer),
                    removed: Some(*cause),
                    value: &[],
                    shared_value: None,
                    media_type: None,
                    crc: 0,
                    version: entry.version(),
                    expires_at: None,
                    pinned: false,
                }
            }
        }
    }

    /// Makes `mutation` true under `sequence`.
    ///
    /// # Panics
    /// The partition was changed since it decided `mutation`, in a way that moved or removed the key.
    pub fn apply(&mut self, mutation: Mutation, sequence: Sequence) -> Applied {
        self.last_change = self.last_change.max(sequence);
        match mutation.change {
            Change::Put(mut entry) => {
                entry.set_sequence(sequence);
                self.put(mutation.hash, mutation.slot, entry)
            }
            Change::Delete(_) => {
                let slot = mutation.slot.expect("a removal names its slot");
                self.last_removed = self.last_removed.max(sequence);
                if self.keeps_tombstones {
                    self.remember(slot, sequence);
                }
                let (released, spent) = self.take(slot);
                Applied {
                    slot,
                    released,
                    spent,
                    expires_at: None,
                }
            }
        }
    }

    /// Decides that the entry in `slot` goes for memory; `None` when there is none.
    pub fn evict(&self, slot: Slot) -> Option<Mutation> {
        self.table.entry(slot)?;
        Some(Mutation {
            hash: 0,
            slot: Some(slot),
            change: Change::Delete(Cause::Evicted),
        })
    }

    /// Reclaims the entry in `slot` if it has expired at `now`. Takes no sequence and is not logged: the entry carried
    /// its instant wherever it went.
    pub fn expire(&mut self, slot: Slot, now: u64) -> Option<Reclaimed> {
        let entry = self.table.entry(slot)?;
        let expired_at = entry.expires_at().filter(|_| entry.is_expired(now))?;
        self.last_removed = self.last_removed.max(entry.sequence());
        if self.keeps_tombstones && entry.sequence() > self.forgotten {
            // The last snapshot does not have this entry, but may have an older value that lasts: the next increment
            // must remove it. Nothing in the partition is newer than its last tombstone and has this key.
            let last = self
                .tombstones
                .back()
                .map_or(Sequence::ZERO, |tombstone| tombstone.sequence);
            self.remember(slot, last.max(entry.sequence()));
        }
        let (released, [spent, _]) = self.take(slot);
        Some(Reclaimed {
            expired_at,
            released,
            spent,
        })
    }

    /// Puts an entry that was read from disk in its place, unless a newer one is there. `None` if one is, or if the
    /// key or media type is longer than an entry can hold, which no reader delivers.
    pub fn load(&mut self, hash: u64, loaded: &LoadedEntry<'_>) -> Option<Applied> {
        let LoadedEntry {
            key,
            value,
            media_type,
            crc,
            version,
            sequence,
            expires_at,
            pinned,
        } = *loaded;
        let slot = self.table.find(hash, key.as_bytes());
        if slot
            .and_then(|slot| self.table.entry(slot))
            .is_some_and(|entry| entry.sequence() >= sequence)
        {
            return None;
        }
        let value = DraftValue::Copied(value);
        let draft = Draft {
            key,
            value,
            media_type,
            crc,
            expires_at,
            reserve_expiry: false,
        };
        let mut entry = Entry::draft(&draft).ok()?;
        self.last_change = self.last_change.max(sequence);
        entry.set_sequence(sequence);
        entry.set_version(version);
        entry.set_pinned(pinned);
        Some(self.put(hash, slot, entry))
    }

    /// Removes `key` if what is there is older than the removal that was read from disk.
    pub fn unload(&mut self, hash: u64, key: &str, sequence: Sequence) -> Option<Applied> {
        self.last_removed = self.last_removed.max(sequence);
        let slot = self.table.find(hash, key.as_bytes())?;
        if self.table.entry(slot)?.sequence() >= sequence {
            return None;
        }
        let (released, spent) = self.take(slot);
        Some(Applied {
            slot,
            released,
            spent,
            expires_at: None,
        })
    }

    /// Notes that the entry in `slot` was read, and says whether it is coded and has become as hot as can be told, or lies
    /// elsewhere and was read for the second time. See [`EntryView::heat`](crate::EntryView::heat).
    pub fn warm(&mut self, slot: Slot) -> bool {
        let Some(flags) = self.table.flags_mut(slot) else {
            return false;
        };
        let heat = entry::heat(*flags);
        if heat == HEAT_MAX {
            return false;
        }
        *flags = entry::with_heat(*flags, heat + 1);
        match heat + 1 {
            HEAT_MAX => *flags & entry::IS_CODED != 0,
            2 => self
                .table
                .entry(slot)
                .is_some_and(|entry| entry.place().is_some()),
            _ => false,
        }
    }

    /// Visits visible entries from slot `from` on, examining at most `examine_max` slots, and says where to go on; `None`
    /// at the end. Each is shown with the heat it has and then cools by one; when the survey looks `afresh`, it is
    /// forgotten that another coding did not pay. When `visit` breaks, the survey goes on behind the entry it was shown.
    pub fn survey(
        &mut self,
        from: Slot,
        examine_max: usize,
        now: u64,
        afresh: bool,
        mut visit: impl FnMut(Slot, EntryView<'_>) -> ControlFlow<()>,
    ) -> Option<Slot> {
        let end = self.table.slot_end();
        let stop = from
            .get()
            .saturating_add(u32::try_from(examine_max).unwrap_or(u32::MAX))
            .min(end);
        for number in from.get()..stop {
            let slot = Slot::new(number);
            if afresh && let Some(flags) = self.table.flags_mut(slot) {
                *flags &= !entry::IS_INCOMPRESSIBLE;
            }
            let Some(entry) = self
                .table
                .entry(slot)
                .filter(|entry| !entry.is_expired(now))
            else {
                continue;
            };
            let heat = entry.heat();
            let flow = visit(slot, entry);
            if heat > 0
                && let Some(flags) = self.table.flags_mut(slot)
            {
                *flags = entry::with_heat(*flags, heat - 1);
            }
            if flow.is_break() {
                return (number + 1 < end).then(|| Slot::new(number + 1));
            }
        }
        (stop < end).then(|| Slot::new(stop))
    }

    /// Puts `entry`, made by [`Entry::recoded`] of what is in `slot`, in its place. No
    /// change of the key: it takes no sequence and is not logged.
    ///
    /// # Errors
    /// The key was changed or removed meanwhile; `entry` is handed back.
    pub fn recode(&mut self, slot: Slot, mut entry: Entry) -> Result<[Option<Entry>; 2], Entry> {
        let Some(current) = self
            .table
            .entry(slot)
            .filter(|current| current.sequence() == entry.sequence())
        else {
            return Err(entry);
        };
        let mut marks = current.flags();
        if entry.coding() != current.coding() {
            // What did not pay for the layout before may pay for this one.
            marks &= !entry::IS_INCOMPRESSIBLE;
        }
        entry.take_marks(marks);
        // Not through `leave`: a walk in progress meets the same value in its new form.
        if entry.place() != current.place() {
            note_left(&mut self.left, current);
        }
        Ok(self.table.replace(slot, entry))
    }

    /// Whether there is anything to [take](Self::take_left).
    pub fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Hands out values that lie elsewhere and that no entry needs any more, those included that a snapshot in progress
    /// kept alive: each exactly once, after its entry was replaced, removed or walked.
    pub fn take_left(&mut self) -> impl Iterator<Item = Left> {
        self.left.drain(..)
    }

    /// Notes that another coding of the value in `slot` does not pay, if its last change is still `sequence`.
    pub fn mark_incompressible(&mut self, slot: Slot, sequence: Sequence) {
        let current = self.table.entry(slot).map(EntryView::sequence);
        if current == Some(sequence)
            && let Some(flags) = self.table.flags_mut(slot)
        {
            *flags |= entry::IS_INCOMPRESSIBLE;
        }
    }

    /// What is stored coded.
    pub fn coded(&self) -> &Coded {
        self.table.coded()
    }

    /// How many entries are coded with `dictionary`, those included that a snapshot in progress keeps alive. At 0 the
    /// number may be given to another dictionary.
    pub fn coded_with(&self, dictionary: u8) -> usize {
        let kept = self
            .frozen
            .as_ref()
            .map_or(0, |frozen| frozen.coded_with(dictionary));
        self.table.coded().by_dictionary[usize::from(dictionary)] + kept
    }

    /// The key of an entry that is here, written into `buffer` if it is stored coded.
    pub fn key_of<'a>(&'a self, entry: EntryView<'a>, buffer: &'a mut String) -> &'a str {
        self.table.keys().text(entry.key_bytes(), buffer)
    }

    /// Keys may be stored coded so from now on ([`Entry::head_with_key`], [`Partition::recode`]), or, with `None`, may not;
    /// what they were coded by before is handed out, to be released outside the lock. Codes that keys are
    /// [stored with](Self::coded_keys) keep their meaning.
    pub fn set_key_code(&mut self, code: Option<Arc<dyn KeyCode>>) -> Option<Arc<dyn KeyCode>> {
        debug_assert!(
            code.is_some() || !self.is_frozen() && self.coded_keys() == [0; KEY_CODES],
            "a code is not taken away while keys are coded by it"
        );
        self.table.set_key_code(code)
    }

    /// How many entries have a key that is stored with each code. A snapshot in progress may keep others alive: while
    /// [frozen](Self::is_frozen), no code is given up.
    pub fn coded_keys(&self) -> [u32; KEY_CODES] {
        self.table.keys().counts()
    }

    /// Visits visible entries with `prefix` from slot `from` on, examining at most `examine_max` slots, and says where
    /// to go on; `None` at the end. When `visit` breaks, the scan goes on behind the entry it was shown.
    ///
    /// A key keeps its slot for its life, so one that is there from the first call to the last is visited exactly once.
    pub fn scan(
        &self,
        from: Slot,
        examine_max: usize,
        prefix: &str,
        now: u64,
        mut visit: impl FnMut(EntryView<'_>) -> ControlFlow<()>,
    ) -> Option<Slot> {
        let end = self.table.slot_end();
        let stop = from
            .get()
            .saturating_add(u32::try_from(examine_max).unwrap_or(u32::MAX))
            .min(end);
        for number in from.get()..stop {
            let Some(entry) = self
                .table
                .entry(Slot::new(number))
                .filter(|entry| !entry.is_expired(now))
            else {
                continue;
            };
            let keys = self.table.keys();
            if keys.starts_with(entry.key_bytes(), prefix.as_bytes()) && visit(entry).is_break() {
                return (number + 1 < end).then(|| Slot::new(number + 1));
            }
        }
        (stop < end).then(|| Slot::new(stop))
    }

    /// One past the highest slot a scan can meet.
    pub fn slot_end(&self) -> Slot {
        Slot::new(self.table.slot_end())
    }

    /// Freezes the partition as it is, which holds every change up to `cut` and none above. With `since`, only what
    /// changed after it is walked, and what was removed after it.
    ///
    /// A partition that is frozen already starts over with the new cut: what the old walk had not met is let go.
    pub fn freeze(&mut self, cut: Sequence, since: Option<Sequence>) {
        self.thaw();
        let guide = self
            .dirty
            .as_mut()
            .and_then(|dirty| dirty.freeze(self.last_change, since));
        let end = self.table.slot_end();
        let frozen = Frozen::new(cut, since, guide, end, self.tombstones.len());
        self.frozen = Some(Box::new(frozen));
    }

    /// Whether a freeze is in force.
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Visits up to `budget` of what was there at the cut and was not visited yet; stops early when `visit` breaks, behind
    /// the item it was shown. Entries that only the freeze kept alive go to `spent`, for the caller to release outside
    /// the lock. A partition that is not frozen is done.
    pub fn walk(
        &mut self,
        budget: usize,
        spent: &mut Vec<Entry>,
        visit: impl FnMut(FrozenItem<'_>) -> ControlFlow<()>,
    ) -> WalkState {
        let Some(frozen) = &mut self.frozen else {
            return WalkState::Done;
        };
        let walked = spent.len();
        let state = frozen.walk(&self.table, &self.tombstones, budget, spent, visit);
        for entry in &spent[walked..] {
            note_left(&mut self.left, EntryView::from(entry));
        }
        state
    }

    /// Ends the freeze.
    pub fn thaw(&mut self) {
        if let Some(frozen) = self.frozen.take() {
            for entry in frozen.kept() {
                note_left(&mut self.left, EntryView::from(entry));
            }
        }
    }

    /// Whether removals are remembered from now on, for incremental snapshots, and which slots are changed. Turning it off, which is not done while frozen, forgets what there is.
    pub fn keep_tombstones(&mut self, keep: bool) {
        debug_assert!(
            keep || self.frozen.is_none(),
            "a walk counts on the tombstones"
        );
        self.keeps_tombstones = keep;
        if keep {
            let last = self.last_change;
            self.dirty.get_or_insert_with(|| Dirty::since(last));
        } else {
            self.dirty = None;
            self.tombstones = VecDeque::new();
            self.tombstone_bytes = 0;
        }
    }

    /// Stops remembering removals, and hands out those there are, to be released outside the lock. Not while frozen.
    pub fn take_tombstones(&mut self) -> Tombstones {
        debug_assert!(self.frozen.is_none(), "a walk counts on the tombstones");
        self.keeps_tombstones = false;
        self.tombstone_bytes = 0;
        Tombstones(std::mem::take(&mut self.tombstones))
    }

    /// Forgets the removals up to `sequence`: a snapshot that stands has them. Not while frozen.
    pub fn forget_tombstones(&mut self, sequence: Sequence) {
        debug_assert!(self.frozen.is_none(), "a walk counts on the tombstones");
        self.forgotten = self.forgotten.max(sequence);
        if let Some(dirty) = &mut self.dirty {
            dirty.forget(sequence);
        }
        while let Some(first) = self
            .tombstones
            .front()
            .filter(|first| first.sequence <= sequence)
        {
            self.tombstone_bytes -= first.footprint();
            self.tombstones.pop_front();
        }
        if self.tombstones.is_empty() {
            self.tombstones = VecDeque::new();
        }
    }

    /// What the partition holds.
    pub fn stats(&self) -> PartitionStats {
        PartitionStats {
            entries: self.table.len(),
            expiring: self.expiring,
            entry_bytes: self.table.bytes(),
            table_bytes: self.table.table_bytes() + self.dirty.as_ref().map_or(0, Dirty::bytes),
            slack_bytes: self.table.slack_bytes(),
            frozen_bytes: self.frozen.as_ref().map_or(0, |frozen| frozen.bytes()),
            tombstone_bytes: self.tombstone_bytes,
        }
    }

    /// How many entries the next incremental snapshot has to look at, at most; `None` when it has to look at all.
    pub fn changed(&self) -> Option<usize> {
        self.dirty.as_ref().map(Dirty::count)
    }

    fn put(&mut self, hash: u64, slot: Option<Slot>, entry: Entry) -> Applied {
        let expires_at = entry.expires_at();
        self.expiring += usize::from(expires_at.is_some());
        let (slot, released, spent) = match slot {
            Some(slot) => {
                let released = self.leave(slot);
                (slot, released, self.table.replace(slot, entry))
            }
            None => {
                let (slot, spent) = self.table.insert(hash, entry);
                (slot, false, spent)
            }
        };
        if let Some(dirty) = &mut self.dirty {
            dirty.insert(slot.get());
        }
        Applied {
            slot,
            released,
            spent,
            expires_at,
        }
    }

    fn take(&mut self, slot: Slot) -> (bool, Spent) {
        let released = self.leave(slot);
        (released, self.table.remove(slot))
    }

    fn remember(&mut self, slot: Slot, sequence: Sequence) {
        let entry = self.table.entry(slot);
        let key = entry.expect("the entry to remove is there").key_bytes();
        let mut buffer = String::new();
        let key = self.table.keys().text(key, &mut buffer);
        let tombstone = Tombstone {
            key: key.into(),
            sequence,
        };
        self.tombstone_bytes += tombstone.footprint();
        self.tombstones.push_back(tombstone);
    }

    /// Every way out of the table leads through here, so that a freeze misses nothing: it keeps a copy of a small entry, and
    /// a reference to a large value. True when it needs none.
    fn leave(&mut self, slot: Slot) -> bool {
        let Some(old) = self.table.entry(slot) else {
            return false;
        };
        self.expiring -= usize::from(old.expires_at().is_some());
        if let Some(frozen) = &mut self.frozen
            && frozen.keep(slot, old)
        {
            return false;
        }
        note_left(&mut self.left, old);
        true
    }
}

/// Every way out of sight of the last who needs an entry's value leads through here.
#[inline]
fn note_left(left: &mut Vec<Left>, old: EntryView<'_>) {
    if let Some(place) = old.place() {
        let raw_len = old.raw_len();
        left.push(Left { place, raw_len });
    }
}
