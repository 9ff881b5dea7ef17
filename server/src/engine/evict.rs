//! Over budget: victims, each a logged delete.
//!
//! A partition's policy lies beside its table under the same lock. It is told of every write and read; with no policy set
//! nothing is kept. Whoever evicts looks at a few partitions and takes the victim that wants to go most: with exact
//! policies that is close to the order of the whole store, and no two partitions are locked at a time.

use super::memory::Reason;
use super::partitions::Table;
use super::write::WriteError;
use super::{Lane, Shared};
use inflightkv_core::{Applied, Entry, EntryView, Slot};
use inflightkv_eviction::{Facts, Policy, PolicyKind};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Partitions looked at for one victim.
const SAMPLES: usize = 5;
/// The part of the limit that may stand above it for a moment.
const OVERSHOOT: u64 = 32;
/// Bytes of a key and of an entry's header, more than nearly all of them take.
const BESIDE_VALUE: u64 = 256;
/// Victims that a write may evict itself.
const INLINE_VICTIMS_MAX: usize = 8;
/// Victims taken from one partition before others are looked at again, when it is large.
const VICTIMS_AT_ONCE: usize = 4;
/// Entries that a new policy is told of under one hold of the lock.
const ADOPT_BATCH: u32 = 64;
/// What an entry costs beside its own bytes: its slot and its share of the index, of which a seventh stands empty.
pub(super) const SLOT_BYTES: usize = 9;

/// What a partition knows of the order in which its entries go.
#[derive(Default)]
pub(crate) struct Ranking {
    policy: Option<Box<dyn Policy>>,
    /// The policy before, of whose slots the new one has yet to be told.
    retiring: Option<Box<dyn Policy>>,
    /// The next slot to tell the new policy of; nothing is left at the end of the table.
    next: u32,
}

impl Ranking {
    pub(crate) fn bytes(&self) -> usize {
        [&self.policy, &self.retiring]
            .into_iter()
            .flatten()
            .map(|policy| policy.bytes())
            .sum()
    }

    fn kind(&self) -> Option<PolicyKind> {
        self.policy.as_ref().map(|policy| policy.kind())
    }

    /// The entry in `slot` was read.
    #[inline]
    pub(crate) fn read(&mut self, slot: Slot, now: u64) {
        if let Some(policy) = &mut self.policy {
            policy.access(slot.get(), now);
        }
    }

    /// The entry in `slot` has left the table.
    pub(crate) fn left(&mut self, slot: Slot) {
        for policy in [&mut self.policy, &mut self.retiring].into_iter().flatten() {
            policy.remove(slot.get());
        }
    }

    fn written(&mut self, slot: Slot, facts: Option<Facts>, now: u64) {
        let Some(policy) = &mut self.policy else {
            return;
        };
        let slot = slot.get();
        if let Some(retiring) = &mut self.retiring {
            retiring.remove(slot);
        }
        match facts {
            // Pinned: no policy knows of it.
            None => _ = policy.remove(slot),
            Some(facts) if policy.contains(slot) => policy.update(slot, facts, now),
            Some(facts) => policy.insert(slot, facts, now),
        }
    }

    fn victim(&mut self) -> Option<Slot> {
        let retired = self.retiring.as_mut().and_then(|policy| policy.evict());
        let victim = retired.or_else(|| self.policy.as_mut()?.evict());
        victim.map(Slot::new)
    }

    fn held(&self) -> usize {
        [&self.policy, &self.retiring]
            .into_iter()
            .flatten()
            .map(|policy| policy.len())
            .sum()
    }

    /// How much its next victim wants to go, between partitions of one store.
    fn urgency(&self, now: u64, bytes: usize) -> u64 {
        let policy = self.policy.as_ref();
        policy
            .and_then(|policy| policy.urgency(now))
            .unwrap_or(bytes as u64)
    }
}

fn facts(entry: EntryView<'_>, hash: u64) -> Option<Facts> {
    (!entry.is_pinned()).then(|| Facts {
        hash,
        weight: u32::try_from(entry.footprint() + SLOT_BYTES).unwrap_or(u32::MAX),
        expires_at: entry.expires_at(),
    })
}

impl Table {
    /// Bytes of everything kept here that evicting can make less.
    pub(crate) fn bytes(&self) -> usize {
        self.partition.stats().bytes()
            + self.wheel.bytes()
            + self.ranking.bytes()
            + self.codings.footprint()
    }

    /// Tells the policy of a change that was applied.
    pub(crate) fn rank(&mut self, applied: &Applied, hash: u64, now: u64) {
        if self.ranking.policy.is_none() {
            return;
        }
        match self.partition.entry_at(applied.slot) {
            Some(entry) => {
                let facts = facts(entry, hash);
                self.ranking.written(applied.slot, facts, now);
            }
            None => self.ranking.left(applied.slot),
        }
    }

    /// Has the partition follow `kind`; what the policy before needs no more is handed out, to be released outside the lock.
    fn follow(&mut self, kind: Option<PolicyKind>, seed: u64) -> [Option<Box<dyn Policy>>; 2] {
        self.ranking.next = 0;
        if self.ranking.kind() == kind {
            return [None, None];
        }
        let dropped = self.ranking.retiring.take();
        let before = self.ranking.policy.take();
        match kind {
            None => [dropped, before],
            Some(kind) => {
                self.ranking.policy = Some(kind.build(seed));
                self.ranking.retiring = before;
                [dropped, None]
            }
        }
    }

    /// Tells a new policy of some more entries: first those the policy before knew, the first to go first, then all that are
    /// there. True when some are left.
    fn adopt(&mut self, now: u64) -> bool {
        let Some(policy) = &mut self.ranking.policy else {
            return false;
        };
        let partition = &self.partition;
        let mut tell = |slot: u32| {
            let entry = partition.entry_at(Slot::new(slot));
            let hash = partition.hash_at(Slot::new(slot));
            if let (Some(entry), Some(hash)) = (entry, hash)
                && !policy.contains(slot)
                && let Some(facts) = facts(entry, hash)
            {
                policy.insert(slot, facts, now);
            }
        };
        if let Some(retiring) = &mut self.ranking.retiring {
            for _ in 0..ADOPT_BATCH {
                match retiring.evict() {
                    Some(slot) => tell(slot),
                    None => {
                        self.ranking.retiring = None;
                        break;
                    }
                }
            }
            return true;
        }
        let end = partition.slot_end().get();
        let stop = end.min(self.ranking.next.saturating_add(ADOPT_BATCH));
        (self.ranking.next..stop).for_each(tell);
        self.ranking.next = stop;
        stop < end
    }
}

/// One lane's way through its partitions with a new policy.
#[derive(Default)]
pub(crate) struct Adoption {
    /// Which change of policy it is about.
    generation: u64,
    /// The next partition.
    next: usize,
    /// That partition was begun.
    begun: bool,
}

impl Shared {
    /// Has the home lanes tell the policy that is set now of everything there is.
    pub(super) fn adopt_policy(&self) {
        self.policy_generation.fetch_add(1, Ordering::SeqCst);
        for home in &self.homes {
            home.signal();
        }
    }

    /// A number nobody can guess, for choices that need not be good ones.
    fn draw(&self) -> u64 {
        static STATE: AtomicU64 = AtomicU64::new(0);
        // SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), begun at an address-random place.
        let mut z = STATE
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
            .wrapping_add(self.seed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The partition of `range` to take a victim from; `None` when none has one.
    fn pressed_partition(&self, range: &Range<usize>, now: u64) -> Option<usize> {
        let look = |partition: usize| {
            self.partitions.with(partition, |table| {
                if table.ranking.policy.is_some() {
                    let held = table.ranking.held();
                    (held > 0).then(|| table.ranking.urgency(now, table.bytes()))
                } else {
                    // No policy: any key will do.
                    any_slot(table, 0).map(|_| table.partition.stats().entry_bytes as u64)
                }
            })
        };
        let count = range.len() as u64;
        if count == 0 {
            return None;
        }
        let mut best: Option<(u64, usize)> = None;
        for _ in 0..SAMPLES.min(range.len()) {
            let partition = range.start + (self.draw() % count) as usize;
            if let Some(urgency) = look(partition)
                && best.is_none_or(|(most, _)| urgency > most)
            {
                best = Some((urgency, partition));
            }
        }
        // Few partitions have anything: look at all, from a random one on.
        best.map(|(_, partition)| partition).or_else(|| {
            let first = (self.draw() % count) as usize;
            (0..range.len())
                .map(|step| range.start + (first + step) % range.len())
                .find(|&partition| look(partition).is_some())
        })
    }

    /// Evicts a few entries of `range`; how many bytes that were, `None` when nothing could go.
    pub(super) fn evict_some(
        &self,
        lane: usize,
        range: &Range<usize>,
        now: u64,
        reason: Reason,
        victims_max: usize,
        spent: &mut Vec<Entry>,
    ) -> Option<u64> {
        // A follower makes no change of its own, and what is not logged must not go: a restart would bring it back.
        if !self.role.leads() {
            return None;
        }
        self.admit().ok()?;
        let partition = self.pressed_partition(range, now)?;
        let start = self.draw();
        let evicted = self.partitions.with(partition, |table| {
            let mut evicted = 0;
            let most = victims_max.min(1 + table.partition.stats().entries / 64);
            for _ in 0..most {
                let slot = match &table.ranking.policy {
                    Some(_) => table.ranking.victim(),
                    None => any_slot(table, start),
                };
                let Some(mutation) = slot.and_then(|slot| table.partition.evict(slot)) else {
                    break;
                };
                let bytes = slot
                    .and_then(|slot| table.partition.entry_at(slot))
                    .map_or(0, |entry| (entry.footprint() + SLOT_BYTES) as u64);
                let (applied, _) = self.commit(lane, partition, table, mutation, now);
                spent.extend(applied.spent.into_iter().flatten());
                self.meter.figures.count(reason, bytes);
                evicted += bytes;
            }
            self.meter.account(table, true);
            evicted
        });
        self.feed.settle();
        spent.clear();
        self.note_sparse();
        (evicted > 0).then_some(evicted)
    }

    /// Whether so many bytes more fit below the limit.
    fn fits(&self, needed: u64) -> bool {
        self.meter.budget().fits(self.used(), needed)
    }

    fn used(&self) -> u64 {
        self.meter
            .used_about()
            .saturating_add(self.transient_bytes())
    }

    /// Whether so many bytes more may stand above the limit for a moment: a write that has evicted its share is not
    /// refused because a partition said only now what it holds, or another write took the room.
    fn fits_for_a_moment(&self, needed: u64) -> bool {
        // Also when what is used is above the limit already.
        let used = self.used().saturating_sub(self.meter.limit() / OVERSHOOT);
        self.meter.budget().fits(used, needed)
    }

    /// Evicts a bounded number of victims, until `needed` bytes fit, or, `on_credit`, until so many went.
    fn evict_inline(&self, lane: usize, needed: u64, now: u64, on_credit: bool) -> Room {
        if self.meter.policy().is_none() {
            return Room::Never;
        }
        let everywhere = 0..self.partitions.count();
        let mut spent = Vec::new();
        let mut freed = 0;
        for _ in 0..INLINE_VICTIMS_MAX {
            match self.evict_some(lane, &everywhere, now, Reason::Inline, 1, &mut spent) {
                None => return Room::Never,
                Some(bytes) => freed += bytes,
            }
            // What is used may have become more on paper, because a partition reported what it had not yet.
            if (on_credit && freed >= needed) || self.fits(needed) {
                return Room::There;
            }
        }
        Room::Later
    }

    /// Makes sure that a write of `needed` bytes more fits below the limit, evicting a bounded number of victims itself.
    /// `replaces` says how many bytes it gives back, and is asked only when it is tight.
    pub(super) fn make_room(
        &self,
        lane: usize,
        needed: u64,
        now: u64,
        replaces: impl FnOnce() -> u64,
    ) -> Result<(), WriteError> {
        if !self.meter.is_limited() {
            return Ok(());
        }
        self.meter.note_write(needed);
        if self.fits(needed) {
            return Ok(());
        }
        self.meter.ask();
        let needed = needed.saturating_sub(replaces());
        if needed == 0 || self.fits(needed) {
            return Ok(());
        }
        match self.evict_inline(lane, needed, now, true) {
            Room::There => return Ok(()),
            Room::Later if self.fits_for_a_moment(needed) => return Ok(()),
            Room::Later | Room::Never => {}
        }
        self.meter.figures.refused.fetch_add(1, Ordering::Relaxed);
        Err(WriteError::MemoryFull {
            limit: self.meter.limit(),
        })
    }
}

/// An entry that may go, without a policy to say which: the next one behind a random place.
fn any_slot(table: &Table, random: u64) -> Option<Slot> {
    let end = table.partition.slot_end().get();
    let first = (random % u64::from(end.max(1))) as u32;
    (first..end).chain(0..first).map(Slot::new).find(|slot| {
        table
            .partition
            .entry_at(*slot)
            .is_some_and(|entry| !entry.is_pinned())
    })
}

/// Whether a write has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It has.
    There,
    /// Not yet, but something went, and more may.
    Later,
    /// Nothing can go for it: it is refused unless it replaces as much as it needs.
    Never,
}

impl Lane {
    /// Makes room for a write of about `bytes`, evicting a bounded number of victims. A caller that can wait asks again
    /// after [`Room::Later`], and lets others have their turn in between; the write itself tries once more.
    pub fn make_room(&self, bytes: u64) -> Room {
        let shared = &*self.shared;
        if bytes == 0 || !shared.meter.is_limited() {
            return Room::There;
        }
        // What the entry takes beside its value.
        let bytes = bytes + BESIDE_VALUE;
        if shared.fits(bytes) {
            return Room::There;
        }
        shared.meter.note_write(bytes);
        shared.meter.ask();
        if bytes > shared.meter.limit() {
            return Room::Never;
        }
        match shared.role.begin_write(self.index) {
            Ok(_writing) => shared.evict_inline(self.index, bytes, self.now(), false),
            Err(_) => Room::Never,
        }
    }

    /// Evicts what the monitor asked this lane for; true when the slice ended before the work did.
    pub(super) fn evict_owed(&self, now: u64, started: Instant, slice: Duration) -> bool {
        let shared = &*self.shared;
        let home = &shared.homes[self.index];
        let range = shared.partitions.homed_at(self.index);
        let mut spent = Vec::new();
        // Evicting is writing: a hand-over to another server waits for the end of this slice.
        let Ok(_writing) = shared.role.begin_write(self.index) else {
            home.cannot_pay();
            return false;
        };
        while home.owes() > 0 {
            let evicted = shared.evict_some(
                self.index,
                &range,
                now,
                Reason::Background,
                VICTIMS_AT_ONCE,
                &mut spent,
            );
            match evicted {
                Some(bytes) => home.pay(bytes),
                None => {
                    home.cannot_pay();
                    return false;
                }
            }
            if started.elapsed() >= slice {
                return true;
            }
        }
        false
    }

    /// Tells a new policy of what is there; true when the slice ended before the work did.
    pub(super) fn adopt(&self, adoption: &mut Adoption, now: u64, over: impl Fn() -> bool) -> bool {
        let shared = &*self.shared;
        if !shared.serves() {
            // What is being loaded is told of at once when it is there.
            return false;
        }
        let generation = shared.policy_generation.load(Ordering::SeqCst);
        let range = shared.partitions.homed_at(self.index);
        if adoption.generation != generation {
            *adoption = Adoption {
                generation,
                next: range.start,
                begun: false,
            };
        }
        while adoption.next < range.end {
            let kind = shared.meter.policy();
            let seed = shared.draw();
            let begin = !adoption.begun;
            let (dropped, more) = shared.partitions.with(adoption.next, |table| {
                let dropped = if begin {
                    table.follow(kind, seed)
                } else {
                    [None, None]
                };
                let more = table.adopt(now);
                shared.meter.account(table, false);
                (dropped, more)
            });
            drop(dropped);
            adoption.begun = more;
            if !more {
                adoption.next += 1;
            }
            if over() && adoption.next < range.end {
                return true;
            }
        }
        false
    }

    /// Evicts at least `bytes` now if there are so many that may go, a slice at a time: call again while it says
    /// [`EvictState::More`]. Without a policy any keys go.
    pub fn evict(&self, eviction: &mut Eviction) -> EvictState {
        let shared = &*self.shared;
        let started = Instant::now();
        let everywhere = 0..shared.partitions.count();
        let Ok(_writing) = shared.role.begin_write(self.index) else {
            return EvictState::Done;
        };
        let mut spent = Vec::new();
        loop {
            if eviction.bytes >= eviction.wanted {
                return EvictState::Done;
            }
            let now = self.now();
            match shared.evict_some(self.index, &everywhere, now, Reason::Request, 1, &mut spent) {
                None => return EvictState::Done,
                Some(bytes) => {
                    eviction.bytes += bytes;
                    eviction.entries += 1;
                }
            }
            if started.elapsed() >= super::home::SLICE {
                return EvictState::More;
            }
        }
    }
}

/// An eviction that a person asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Eviction {
    /// Bytes that are to go at least.
    pub wanted: u64,
    /// Bytes that went.
    pub bytes: u64,
    /// Entries that went.
    pub entries: u64,
}

/// Whether an eviction goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictState {
    /// Call again.
    More,
    /// Enough went, or nothing is left that may.
    Done,
}
