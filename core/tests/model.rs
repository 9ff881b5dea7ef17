//! Random histories against a plain map: after every step the partition says what the map says.

mod support;

use inflightkv_core::{
    Applied, CODEC_ELSEWHERE, Cause, Coded, Coding, Command, Compared, Conditions, Current,
    Decision, DraftValue, Entry, EtagCondition, FailedCondition, KEY_CODE_FIRST, KEY_CODES,
    Mutation, Operation, Outcome, PLACE_BYTES, Patch, PatchError, PatchExpiry, PatchLimits,
    Prepared, PutExpiry, Sequence, Slot, VersionCondition, WalkState, merge,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use support::json::{Document, Json};
use support::map::{Freeze, Held, Map, Record, check_visible, replay};
use support::steps::{Expected, Guard, KEYS, PatchTtl, PutTtl, Step, Tags, steps};
use support::{
    PREFIXES, Table, coded_key, draft, draft_as, for_each_entry, hash, key_at, key_of, raw,
    reversed, sequence, shelve, table,
};

/// Low, so that large values take the way through `Retry`.
const LIMITS: PatchLimits = PatchLimits {
    value_bytes_max: 1 << 20,
    depth_max: 128,
    inline_max: 64,
};

struct History {
    table: Table,
    map: Map,
    now: u64,
    last: u64,
    last_removed: u64,
    /// The last change whose key is gone, reclaimed ones included.
    last_gone: u64,
    /// The sequences each key had, the newest last.
    sequences: BTreeMap<&'static str, Vec<Sequence>>,
    log: Vec<Record>,
    freeze: Option<Freeze>,
    keeps: bool,
    /// Deletes and evictions that are not forgotten.
    removals: Vec<(String, u64)>,
    /// Where values lie elsewhere that an entry, or a walk in progress, needs, and their lengths.
    needed: BTreeMap<[u8; PLACE_BYTES], usize>,
    /// The last complete snapshot: restored, with its cut; whether an increment may follow.
    base: Option<(Table, u64, bool)>,
}

/// What the map would do.
enum Change {
    Put(Held),
    Remove,
}

impl History {
    fn new() -> Self {
        Self {
            table: table(),
            map: Map::new(),
            now: 1_000,
            last: 0,
            last_removed: 0,
            last_gone: 0,
            sequences: BTreeMap::new(),
            log: Vec::new(),
            freeze: None,
            keeps: false,
            removals: Vec::new(),
            needed: BTreeMap::new(),
            base: None,
        }
    }

    fn visible(&self, key: &str) -> Option<&Held> {
        self.map.get(key).filter(|held| held.is_visible(self.now))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put {
                key,
                value,
                opaque,
                expiry,
                guard,
            } => {
                self.put(KEYS[key], &value, opaque, expiry, &guard);
            }
            Step::Patch {
                key,
                document,
                expiry,
                guard,
                overtaken,
            } => {
                self.patch(KEYS[key], &document, expiry, &guard, overtaken);
            }
            Step::Delete { key, guard } => {
                let key = KEYS[key];
                let forecast = match self.visible(key) {
                    None => (Outcome::Missing, None),
                    Some(held) => (
                        Outcome::Deleted {
                            version: held.version,
                        },
                        Some(Change::Remove),
                    ),
                };
                self.submit(key, &guard, Operation::Delete, forecast);
            }
            Step::Evict { slot } => self.evict(Slot::new(slot as u32)),
            Step::Expire { slot } => self.expire(Slot::new(slot as u32)),
            Step::ExpireAll => {
                (0..self.table.slot_end().get()).for_each(|slot| self.expire(Slot::new(slot)));
            }
            Step::Pass { ms } => self.now += ms,
            Step::Freeze { incremental } => self.freeze(incremental),
            Step::Walk { budget, stop_after } => self.walk(budget, stop_after),
            Step::Thaw => self.thaw(),
            Step::Keep { keep } => {
                self.thaw();
                self.keeps = keep;
                self.table.keep_tombstones(keep);
                if !keep {
                    self.removals.clear();
                    self.base = None;
                }
            }
            Step::Recode { slot, coded } => self.recode(Slot::new(slot as u32), coded),
        }
        self.check();
    }

    fn put(
        &mut self,
        key: &'static str,
        value: &Json,
        opaque: bool,
        ttl: PutTtl,
        guard: &Guard,
    ) -> Outcome {
        let text = value.text().into_bytes();
        let media_type = opaque.then_some("text/plain");
        let (expiry, expires_at) = match ttl {
            PutTtl::None => (PutExpiry::Set, None),
            PutTtl::After(ms) => (PutExpiry::Set, Some(self.now + ms)),
            PutTtl::Keep => (
                PutExpiry::Keep,
                self.visible(key).and_then(|held| held.expires_at),
            ),
        };
        let drafted = if expiry == PutExpiry::Keep {
            None
        } else {
            expires_at
        };
        let draft = draft_as(key, &text, media_type, drafted, expiry == PutExpiry::Keep);
        let compared = self.visible(key).map(|held| Compared {
            base: sequence(held.sequence),
            same: held.value == text,
        });
        let forecast = self.written(key, text, (!opaque).then(|| value.clone()), expires_at);
        let operation = Operation::Put {
            draft,
            expiry,
            compared,
        };
        self.submit(key, guard, operation, forecast)
    }

    /// Stores the value another way, which nobody must notice.
    fn recode(&mut self, slot: Slot, coded: bool) {
        let mut made = None;
        let afresh = self.last.is_multiple_of(2);
        let needed = &mut self.needed;
        self.table.survey(slot, 1, self.now, afresh, |at, entry| {
            let value = raw(entry);
            let codec = (self.last % 16) as u8;
            let elsewhere = codec == CODEC_ELSEWHERE;
            let coding = coded.then_some(Coding {
                codec,
                dictionary: if elsewhere {
                    0
                } else {
                    (value.len() % 5) as u8
                },
                raw_len: value.len() as u32,
            });
            let stored = match coded {
                true if elsewhere => {
                    let place = shelve(&value);
                    assert!(needed.insert(place, value.len()).is_none());
                    place.to_vec()
                }
                true => reversed(&value),
                false => value,
            };
            // The key as well, by one of the codes there are or as it is.
            let key = key_of(entry);
            let code = (self.last / 2 % 8) as u8;
            let coded_key = (usize::from(code) < PREFIXES.len())
                .then(|| coded_key(&key, code))
                .flatten();
            let stored_key = coded_key.unwrap_or_else(|| key.into_bytes());
            let mut head = Vec::new();
            Entry::head_with_key(&entry.head(), &stored_key, &mut head);
            let entry = Entry::recoded(&head, coding, DraftValue::Copied(&stored));
            made = Some((at, entry));
            ControlFlow::Break(())
        });
        if let Some((slot, entry)) = made {
            self.table
                .recode(slot, entry)
                .expect("nothing changed in between");
        }
    }

    fn is_coded(&self, key: &str) -> bool {
        self.table
            .get(key, hash(key), self.now)
            .is_some_and(|entry| entry.coding().is_some())
    }

    /// What becomes of `key` when it is given this value and expiry.
    fn written(
        &self,
        key: &str,
        value: Vec<u8>,
        json: Option<Json>,
        expires_at: Option<u64>,
    ) -> (Outcome, Option<Change>) {
        let (version, outcome) = match self.visible(key) {
            None => (0, Outcome::Created { version: 0 }),
            Some(held) => {
                let Held {
                    version,
                    sequence: number,
                    ..
                } = *held;
                if held.value == value
                    && held.json.is_some() == json.is_some()
                    && held.expires_at == expires_at
                {
                    return (
                        Outcome::Unchanged {
                            version,
                            sequence: sequence(number),
                            expires_at,
                        },
                        None,
                    );
                }
                (
                    version + 1,
                    Outcome::Changed {
                        version: version + 1,
                    },
                )
            }
        };
        (
            outcome,
            Some(Change::Put(Held {
                value,
                json,
                version,
                sequence: 0,
                expires_at,
            })),
        )
    }

    fn patch(
        &mut self,
        key: &'static str,
        document: &Document,
        ttl: PatchTtl,
        guard: &Guard,
        overtaken: bool,
    ) {
        let text = document.text();
        let expiry = match ttl {
            PatchTtl::Keep => PatchExpiry::Keep,
            PatchTtl::Clear => PatchExpiry::Clear,
            PatchTtl::After(ms) => PatchExpiry::At(self.now + ms),
        };
        let patch = |prepared| {
            let (kind, document) = (document.kind(), text.as_bytes());
            Operation::Patch(Patch {
                kind,
                document,
                expiry,
                pin: None,
                limits: LIMITS,
                prepared,
            })
        };
        let forecast = self.patched(key, document, &text, expiry, false);
        if self.submit(key, guard, patch(None), forecast) != Outcome::Retry {
            return;
        }
        // Computed outside, as a server does; sometimes somebody else writes in between.
        for overtaken in [overtaken, false] {
            let Some(prepared) = self.prepare(key, document, &text, expiry) else {
                return;
            };
            if overtaken {
                let free = Guard {
                    if_match: None,
                    version: None,
                    if_none_match: None,
                };
                let value = Json::Text(2_100 + self.last as usize);
                self.put(key, &value, false, PutTtl::Keep, &free);
                self.check();
            }
            let forecast = self.patched(key, document, &text, expiry, !overtaken);
            if self.submit(key, guard, patch(Some(prepared)), forecast) != Outcome::Retry {
                return;
            }
        }
        panic!("what was prepared against the entry that is there is used");
    }

    /// `None` when the patch cannot be applied, as the map knows.
    fn prepare(
        &self,
        key: &str,
        document: &Document,
        text: &str,
        expiry: PatchExpiry,
    ) -> Option<Prepared> {
        let held = self.visible(key);
        let stored = held.map(|held| held.value.as_slice());
        let value = merge::patched(document.kind(), stored, text.as_bytes(), &LIMITS);
        let wanted = document.apply(held.and_then(|held| held.json.as_ref()));
        assert_eq!(
            value.as_deref().ok(),
            wanted.map(|json| json.text()).as_deref().map(str::as_bytes)
        );
        let expires_at = after_patch(held, expiry);
        let base = held.map(|held| sequence(held.sequence));
        let value = value.ok()?;
        Some(Prepared {
            base,
            same: stored == Some(&value[..]),
            result: Ok(draft(key, &value, expires_at)),
        })
    }

    fn patched(
        &self,
        key: &str,
        document: &Document,
        text: &str,
        expiry: PatchExpiry,
        is_prepared: bool,
    ) -> (Outcome, Option<Change>) {
        let held = self.visible(key);
        if held.is_none() && matches!(document, Document::Json(_)) {
            return (Outcome::Missing, None);
        }
        if held.is_some_and(|held| held.json.is_none()) {
            return (Outcome::PatchFailed(PatchError::NotJson), None);
        }
        let len = held.map_or(0, |held| held.value.len()) + text.len();
        if (len > LIMITS.inline_max || self.is_coded(key)) && !is_prepared {
            return (Outcome::Retry, None);
        }
        match document.apply(held.and_then(|held| held.json.as_ref())) {
            // Which error it is, is the business of the tests of `merge`.
            None => (
                Outcome::PatchFailed(PatchError::TooCostly { index: 0 }),
                None,
            ),
            Some(json) => self.written(
                key,
                json.text().into_bytes(),
                Some(json),
                after_patch(held, expiry),
            ),
        }
    }

    /// Decides, compares with the forecast of the unconditional command, and applies.
    fn submit(
        &mut self,
        key: &'static str,
        guard: &Guard,
        operation: Operation<'_>,
        forecast: (Outcome, Option<Change>),
    ) -> Outcome {
        let past = self.sequences.get(key).cloned().unwrap_or_default();
        let present = self.visible(key).map(|held| (held.version, held.sequence));
        let former: Vec<_> = past.iter().rev().skip(1).take(1).copied().collect();
        let newest: Vec<_> = past.iter().rev().take(1).copied().collect();
        let etags = |tags| match tags {
            Tags::Any => EtagCondition::Any,
            Tags::Nothing => EtagCondition::OneOf(&[]),
            Tags::Present => EtagCondition::OneOf(&newest),
            Tags::Former => EtagCondition::OneOf(&former),
            Tags::All => EtagCondition::OneOf(&past),
        };
        let version = guard.version.map(|expected| match expected {
            Expected::Absent => VersionCondition::Absent,
            Expected::Present => VersionCondition::Is(present.map_or(0, |(version, _)| version)),
            Expected::Is(version) => VersionCondition::Is(version),
        });
        let (if_match, if_none_match) = (guard.if_match.map(etags), guard.if_none_match.map(etags));

        // The newest sequence a key had is the one it has, if it is there.
        let holds = |tags: Tags| match tags {
            Tags::Any | Tags::Present | Tags::All => present.is_some(),
            Tags::Nothing | Tags::Former => false,
        };
        let version_differs = match (version, present) {
            (None, _) => false,
            (Some(VersionCondition::Absent), present) => present.is_some(),
            (Some(VersionCondition::Is(wanted)), present) => {
                present.map(|(version, _)| version) != Some(wanted)
            }
        };
        let mut failed = None;
        if guard.if_none_match.is_some_and(holds) {
            failed = Some(FailedCondition::NoneMatch);
        }
        if version_differs {
            failed = Some(FailedCondition::Version);
        }
        if guard.if_match.is_some_and(|tags| !holds(tags)) {
            failed = Some(FailedCondition::Match);
        }
        let is_missing_delete = matches!(operation, Operation::Delete) && present.is_none();
        let forecast = match failed {
            Some(failed) if !is_missing_delete || failed == FailedCondition::Match => {
                let current = present.map(|(version, number)| Current {
                    version,
                    sequence: sequence(number),
                });
                (Outcome::Conflict { failed, current }, None)
            }
            _ => forecast,
        };

        let conditions = Conditions {
            if_match,
            version,
            if_none_match,
        };
        let drafts = match &operation {
            Operation::Put { .. }
            | Operation::Patch(Patch {
                prepared: Some(_), ..
            }) => 1,
            _ => 0,
        };
        let decision = self.table.decide(
            Command {
                key,
                hash: hash(key),
                conditions,
                operation,
            },
            self.now,
        );
        let Decision {
            outcome,
            mutation,
            observed,
            spent,
        } = decision;
        match (&outcome, &forecast.0) {
            (Outcome::PatchFailed(_), Outcome::PatchFailed(_)) => {}
            (outcome, wanted) => assert_eq!(outcome, wanted, "{key:?}"),
        }
        assert_eq!(mutation.is_some(), forecast.1.is_some());
        match (mutation, forecast.1) {
            (Some(mutation), Some(change)) => self.apply(key, mutation, change, Cause::Client),
            _ => {
                let expired = self.map.get(key).map_or(0, |held| held.sequence);
                let absent = self.last_gone.max(expired);
                let wanted = present.map_or(absent, |(_, number)| number);
                assert_eq!(
                    observed.get(),
                    wanted,
                    "what the answer about {key:?} depends on"
                );
                assert!(spent.is_some() || drafts == 0, "an unused draft comes back");
            }
        }
        outcome
    }

    fn apply(&mut self, key: &'static str, mutation: Mutation, change: Change, cause: Cause) {
        self.last += 1 + self.last % 3;
        let number = self.last;
        let mut buffer = String::new();
        let logged = self.table.logged(&mutation, &mut buffer);
        assert_eq!(
            (logged.key, logged.removed.is_some()),
            (key, matches!(change, Change::Remove))
        );
        assert!(logged.removed.is_none_or(|logged| logged == cause));
        self.log.push(Record {
            key: logged.key.to_owned(),
            removed: logged.removed,
            value: logged.value.to_owned(),
            media_type: logged.media_type.map(str::to_owned),
            crc: logged.crc,
            version: logged.version,
            expires_at: logged.expires_at,
            sequence: number,
        });

        let had = self.map.contains_key(key);
        let is_kept = self.is_kept(key);
        let Applied {
            slot,
            released,
            expires_at,
            ..
        } = self.table.apply(mutation, sequence(number));
        assert_eq!(
            released,
            had && !is_kept,
            "{key:?}: the old entry is released or kept"
        );
        self.sequences
            .entry(key)
            .or_default()
            .push(sequence(number));
        match change {
            Change::Put(mut held) => {
                held.sequence = number;
                assert_eq!(expires_at, held.expires_at);
                assert_eq!(key_at(&self.table, slot).as_deref(), Some(key));
                self.map.insert(key.to_owned(), held);
            }
            Change::Remove => {
                assert_eq!((expires_at, key_at(&self.table, slot)), (None, None));
                self.map.remove(key);
                self.last_removed = number;
                self.last_gone = number;
                if self.keeps {
                    self.removals.push((key.to_owned(), number));
                }
            }
        }
    }

    /// Whether a walk has yet to meet the entry of `key`, so that it must not be released.
    fn is_kept(&self, key: &str) -> bool {
        let Some((freeze, held)) = self.freeze.as_ref().zip(self.map.get(key)) else {
            return false;
        };
        let is_of_the_cut = freeze
            .entries
            .get(key)
            .is_some_and(|entry| entry.sequence == held.sequence);
        is_of_the_cut && !freeze.met.iter().any(|met| met == key)
    }

    fn evict(&mut self, slot: Slot) {
        let key = key_at(&self.table, slot);
        let mutation = self.table.evict(slot);
        assert_eq!(
            mutation.is_some(),
            key.is_some(),
            "an entry can be evicted, expired or not"
        );
        if let Some((mutation, key)) = mutation.zip(key) {
            let key = *KEYS
                .iter()
                .find(|there| **there == key)
                .expect("it was put");
            self.apply(key, mutation, Change::Remove, Cause::Evicted);
        }
    }

    fn expire(&mut self, slot: Slot) {
        let key = key_at(&self.table, slot).filter(|key| !self.map[key].is_visible(self.now));
        let is_kept = key.as_deref().is_some_and(|key| self.is_kept(key));
        let reclaimed = self.table.expire(slot, self.now);
        assert_eq!(reclaimed.is_some(), key.is_some(), "it is reclaimed or not");
        if let Some((key, reclaimed)) = key.zip(reclaimed) {
            let held = self.map.remove(&key).expect("it was there");
            assert_eq!(Some(reclaimed.expired_at), held.expires_at);
            assert_eq!(reclaimed.released, !is_kept);
            self.last_gone = self.last_gone.max(held.sequence);
        }
    }

    fn freeze(&mut self, incremental: bool) {
        let since = self
            .base
            .as_ref()
            .filter(|(_, _, may_follow)| incremental && *may_follow);
        let since = since.map(|(_, cut, _)| *cut);
        let from = since.unwrap_or(0);
        // Anything from the last change on is the same moment.
        let cut = self.last + self.last % 2;
        self.last = cut;
        self.table
            .freeze(Sequence::from_raw(cut), since.map(Sequence::from_raw));
        let entries = self
            .map
            .clone()
            .into_iter()
            .filter(|(_, held)| held.sequence > from)
            .collect();
        let removals = self
            .removals
            .iter()
            .filter(|(_, number)| since.is_some() && *number > from);
        self.freeze = Some(Freeze {
            cut,
            since,
            now: self.now,
            map: self.map.clone(),
            entries,
            removals: removals.cloned().collect(),
            met: Vec::new(),
            met_removals: Vec::new(),
            records: Vec::new(),
            is_base: self.keeps,
        });
    }

    fn walk(&mut self, budget: usize, stop_after: usize) {
        let Some(freeze) = &mut self.freeze else {
            let state = self
                .table
                .walk(1, &mut Vec::new(), |_| unreachable!("nothing is frozen"));
            assert_eq!(state, WalkState::Done);
            return;
        };
        let (mut spent, mut items) = (Vec::new(), 0);
        let state = self.table.walk(budget, &mut spent, |item| {
            items += 1;
            freeze.meet(item);
            if items == stop_after {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert!(items <= budget.min(stop_after) && spent.len() <= items);
        if state == WalkState::Done {
            let freeze = self.freeze.take().expect("it is in force");
            self.table.thaw();
            self.complete(freeze);
        }
    }

    /// A walk is done: it met everything, and a store restored from it is the store at the cut.
    fn complete(&mut self, mut freeze: Freeze) {
        let mut met = std::mem::take(&mut freeze.met);
        met.sort();
        assert_eq!(
            met,
            freeze.entries.keys().cloned().collect::<Vec<_>>(),
            "every entry of the cut is met"
        );
        for removal in &freeze.removals {
            let times = freeze
                .met_removals
                .iter()
                .filter(|met| *met == removal)
                .count();
            assert_eq!(times, 1, "{removal:?} is met once");
        }
        let mut restored = match (freeze.since, self.base.take()) {
            (Some(_), Some((base, ..))) => base,
            _ => table(),
        };
        replay(&mut restored, &freeze.records);
        check_visible(
            &restored,
            &freeze.map,
            freeze.now,
            "restored from the snapshot",
        );
        // To forget late is allowed: increments tell by the sequence.
        if freeze.is_base && !freeze.cut.is_multiple_of(3) {
            self.table.forget_tombstones(Sequence::from_raw(freeze.cut));
            self.removals.retain(|(_, number)| *number > freeze.cut);
        }
        self.base = Some((restored, freeze.cut, freeze.is_base));
    }

    fn thaw(&mut self) {
        self.table.thaw();
        self.freeze = None;
    }

    fn check(&mut self) {
        for left in self.table.take_left() {
            let needed = self.needed.remove(&left.place);
            assert_eq!(needed, Some(left.raw_len), "said of each once");
        }
        check_visible(&self.table, &self.map, self.now, "the table");
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for_each_entry(&self.table, |entry| {
            bytes += entry.footprint();
            let key = key_of(entry);
            self.map[&key].check(entry);
            entries.push(key);
            let parts = entry.key_bytes().len()
                + entry.stored().len()
                + entry.coding().map_or(0, |_| 5)
                + entry.media_type().map_or(0, str::len);
            let overhead = entry.footprint() - parts;
            assert!(
                (12..=28 + 1 + 48).contains(&overhead),
                "{overhead} bytes beyond key and value"
            );
        });
        entries.sort();
        assert_eq!(entries, self.map.keys().cloned().collect::<Vec<_>>());
        let mut codes = [0; KEY_CODES];
        for_each_entry(&self.table, |entry| {
            if let [code @ 0x80..0xc0, ..] = entry.key_bytes() {
                codes[usize::from(code - KEY_CODE_FIRST)] += 1;
            }
        });
        assert_eq!(self.table.coded_keys(), codes);
        let mut places = Vec::new();
        for_each_entry(&self.table, |entry| places.extend(entry.place()));
        assert!(places.iter().all(|place| self.needed.contains_key(place)));
        if self.freeze.is_none() {
            assert_eq!(places.len(), self.needed.len());
        }
        let stats = self.table.stats();
        assert_eq!(stats.entries, self.map.len());
        assert_eq!(
            stats.expiring,
            self.map
                .values()
                .filter(|held| held.expires_at.is_some())
                .count()
        );
        assert_eq!(stats.entry_bytes, bytes);
        let mut coded = Coded::default();
        for_each_entry(&self.table, |entry| {
            if let Some(coding) = entry.coding() {
                let share = &mut coded.by_codec[usize::from(coding.codec)];
                share.entries += 1;
                share.raw_bytes += coding.raw_len as usize;
                share.stored_bytes += entry.stored().len();
                coded.by_dictionary[usize::from(coding.dictionary)] += 1;
            }
        });
        assert_eq!(self.table.coded(), &coded);
        assert!(
            self.table.slot_end().get() <= KEYS.len() as u32,
            "freed slots are used again"
        );
        assert!(
            stats.table_bytes < 512 + 160 * 4 + 288,
            "eight keys never need more than {} bytes",
            stats.table_bytes
        );
        assert_eq!(stats.frozen_bytes > 0, self.freeze.is_some());
        assert_eq!(self.table.is_frozen(), self.freeze.is_some());
        assert_eq!(self.table.last_removed().get(), self.last_gone);
        let removals: usize = self.removals.iter().map(|(key, _)| 24 + key.len()).sum();
        assert!(stats.tombstone_bytes >= removals);
        assert!(self.keeps || stats.tombstone_bytes == 0);
    }

    /// Whatever part of the log is replayed over whatever earlier state, in whatever doubling: the end is the same.
    fn check_replays(&self) {
        let mut copy = table();
        replay(&mut copy, &self.log);
        check_visible(&copy, &self.map, self.now, "replayed");
        assert_eq!(copy.last_removed().get(), self.last_removed);
        replay(&mut copy, &self.log);
        check_visible(&copy, &self.map, self.now, "replayed twice");
        replay(&mut copy, &self.log[self.log.len() / 2..]);
        check_visible(&copy, &self.map, self.now, "its end replayed again");
        assert_eq!(copy.last_removed().get(), self.last_removed);
        // What is there is never replaced or removed by anything older.
        for record in self
            .log
            .iter()
            .filter(|record| self.map.contains_key(&record.key))
        {
            replay(&mut copy, [record]);
            check_visible(&copy, &self.map, self.now, "one record replayed late");
        }

        let mut copy = table();
        replay(
            &mut copy,
            self.log.iter().flat_map(|record| [record, record]),
        );
        check_visible(&copy, &self.map, self.now, "replayed with duplicates");
        let mut bytes = 0;
        for_each_entry(&copy, |entry| bytes += entry.footprint());
        assert_eq!(copy.stats().entry_bytes, bytes);
    }

    /// A snapshot and the log behind its cut are the store.
    fn check_recovery(&mut self) {
        if let Some((mut copy, cut, _)) = self.base.take() {
            replay(
                &mut copy,
                self.log.iter().filter(|record| record.sequence > cut),
            );
            check_visible(&copy, &self.map, self.now, "recovered");
            replay(&mut copy, &self.log[self.log.len() / 3..]);
            check_visible(
                &copy,
                &self.map,
                self.now,
                "recovered with more of the log than needed",
            );
        }
    }

    /// Nothing is left behind when everything is gone.
    fn check_empty(mut self) {
        self.thaw();
        for slot in 0..self.table.slot_end().get() {
            self.evict(Slot::new(slot));
        }
        self.table.keep_tombstones(false);
        let stats = self.table.stats();
        let held = (
            stats.entries,
            stats.expiring,
            stats.entry_bytes,
            stats.frozen_bytes,
            stats.tombstone_bytes,
        );
        assert_eq!(held, (0, 0, 0, 0, 0));
    }
}

fn after_patch(held: Option<&Held>, expiry: PatchExpiry) -> Option<u64> {
    match expiry {
        PatchExpiry::Keep => held.and_then(|held| held.expires_at),
        PatchExpiry::Clear => None,
        PatchExpiry::At(instant) => Some(instant),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_is_that_of_a_plain_map(keeps in any::<bool>(), steps in steps()) {
        let mut history = History::new();
        history.step(Step::Keep { keep: keeps });
        for step in steps {
            history.step(step);
        }
        history.check_replays();
        history.check_recovery();
        history.check_empty();
    }
}
