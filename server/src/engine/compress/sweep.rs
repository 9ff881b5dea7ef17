//! One pass over what was written: take along, compress, put in place.

use super::budget::{Budget, thread_time};
use super::judge::{Aim, Judge};
use super::keys::is_misfit;
use super::packing::{Ages, Packed, Packing};
use super::place::Made;
use super::training::Training;
use super::{CODING_BYTES, Compression, Compressor, Held};
use crate::engine::Shared;
use crate::engine::adapters::Prefixes;
use crate::engine::coded::StoredValue;
use crate::engine::partitions::Table;
use bytes::Bytes;
use inflightkv_compression::adaptive::{
    Choice, Chooser, DICTIONARY_RAW_MAX, Facts, RAW_BYTES_MIN, pays,
};
use inflightkv_compression::batch::BLOCK_RAW_MIN;
use inflightkv_compression::{Dictionary, codec};
use inflightkv_core::{Coding, DraftValue, Entry, Sequence, Slot};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Slots looked at under one hold of a partition's lock.
const EXAMINE_MAX: usize = 256;
/// Bytes taken along under one hold: some microseconds of copying.
pub(super) const TAKE_BYTES_MAX: usize = 32 << 10;
/// With so many dictionaries in a partition, values of older ones are compressed anew, so that numbers become free.
const CROWDED: usize = 3;
/// Entries looked at for samples in all, and in each partition at least.
const SAMPLED_MAX: usize = 8192;
const SAMPLED_MIN: usize = 8;

/// What a pass found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Something is stored another way than before.
    pub(crate) changed: bool,
    /// Something is worth another look later, without anybody writing.
    pub(crate) warm: bool,
}

/// What the compressor remembers from pass to pass, and the buffers it works in.
pub(crate) struct Sweeper {
    chooser: Chooser,
    training: Training,
    budget: Budget,
    /// Processor time up to which work was paid for.
    paid_until: Duration,
    /// Of the settings it works by.
    generation: u64,
    /// Old failures are tried again in this pass: there is a new dictionary or a new setting.
    afresh: bool,
    afresh_next: bool,
    /// Dictionaries given up under a lock, to be released outside.
    retired: Vec<Arc<Dictionary>>,
    pub(super) arena: Vec<u8>,
    taken: Vec<Taken>,
    pub(super) made: Vec<Made>,
    pub(super) spent: Vec<Entry>,
    out: Vec<u8>,
    packing: Packing,
    /// The table being swept, and what its keys are coded by.
    pub(super) table: u64,
    pub(super) keys: Option<Arc<Prefixes>>,
    ages: Ages,
    /// What was written up to this change was not written for long enough to be packed.
    cold: Sequence,
}

/// An entry taken along: its head, and a small value, are in the arena.
struct Taken {
    slot: Slot,
    sequence: Sequence,
    head: Range<usize>,
    media_type: Option<String>,
    heat: u8,
    /// How what is taken along as it is stored is coded.
    coding: Option<Coding>,
    value: TakenValue,
    aim: Aim,
    /// Its key is to be stored another way as well.
    rekeys: bool,
}

enum TakenValue {
    /// As it is stored.
    Small(Range<usize>),
    /// As it is stored.
    Large(Bytes),
    /// To be decoded.
    Coded(StoredValue),
}

impl Sweeper {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            chooser: Chooser::default(),
            training: Training::new(seed),
            budget: Budget::default(),
            paid_until: Duration::ZERO,
            generation: 0,
            afresh: false,
            afresh_next: false,
            retired: Vec::new(),
            arena: Vec::new(),
            taken: Vec::new(),
            made: Vec::new(),
            spent: Vec::new(),
            out: Vec::new(),
            packing: Packing::default(),
            table: 0,
            keys: None,
            ages: Ages::default(),
            cold: Sequence::ZERO,
        }
    }

    /// Goes once through every partition that was written to. `rest` sleeps as long as it is told and says whether to go
    /// on.
    pub(crate) fn sweep(
        &mut self,
        shared: &Shared,
        mut rest: impl FnMut(Duration) -> bool,
    ) -> Swept {
        let compressor = &shared.compressor;
        let mut swept = Swept::default();
        self.paid_until = thread_time();
        // Cleared first: who writes from here on announces itself again.
        compressor.pending.store(false, Ordering::Release);
        let settings = self.take_settings(compressor);
        self.afresh = std::mem::take(&mut self.afresh_next);
        let (now, last) = (shared.options.clock.now(), shared.sequencer.last());
        self.cold = self.ages.mark(now, last, settings.cold_after_ms);
        if settings.trains() && self.training.current.is_none() {
            // Before anything is compressed without one.
            self.sample(shared, &settings);
            self.train_if_due(shared);
        }
        for partition in 0..shared.partitions.count() {
            let uneven = shared.partitions.with(partition, |table| {
                self.table = table.codings.table;
                let uneven = std::mem::take(&mut table.uneven);
                if uneven || self.afresh {
                    self.tend_dictionaries(&settings, table);
                }
                uneven
            });
            self.retired.clear();
            if !uneven {
                continue;
            }
            self.tend_keys(shared, partition, &settings);
            let mut next = Some(Slot::new(0));
            let mut warm = false;
            while let Some(slot) = next {
                next = self.batch(shared, partition, slot, &settings, &mut swept, &mut warm);
                if next.is_none() {
                    self.pack_rest(shared, partition, &settings, &mut swept, &mut warm);
                }
                let goes_on = self.pay(shared, &settings, &mut rest);
                if !goes_on || self.generation != compressor.generation.load(Ordering::Acquire) {
                    // By new settings everything is looked at anew, this partition included.
                    self.packing.clear();
                    shared
                        .partitions
                        .with(partition, |table| table.uneven = true);
                    self.publish(compressor);
                    return swept;
                }
            }
            self.end_keys(shared, partition, &settings);
            if warm {
                shared
                    .partitions
                    .with(partition, |table| table.uneven = true);
                swept.warm = true;
            }
            if settings.trains() {
                self.train_if_due(shared);
            }
        }
        self.afresh = false;
        compressor.counters.sweeps.fetch_add(1, Ordering::Relaxed);
        self.publish(compressor);
        swept
    }

    fn take_settings(&mut self, compressor: &Compressor) -> Compression {
        let generation = compressor.generation.load(Ordering::Acquire);
        let settings = compressor.settings();
        if generation != self.generation {
            self.generation = generation;
            self.chooser = Chooser::new(settings.settings());
            self.afresh_next = true;
        }
        settings
    }

    /// Gives the partition the dictionary in force, and takes those away that nothing needs. Under its lock; what is
    /// given up is released outside.
    fn tend_dictionaries(&mut self, settings: &Compression, table: &mut Table) {
        let Table {
            partition, codings, ..
        } = table;
        let dictionaries = &mut codings.dictionaries;
        match &self.training.current {
            Some(current) if settings.trains() => {
                if dictionaries.adopt(current).is_none() {
                    self.retired
                        .extend(dictionaries.retire(|number| partition.coded_with(number)));
                    // If all are still needed the one before stays in force here.
                    let _ = dictionaries.adopt(current);
                }
            }
            _ => dictionaries.put_away(),
        }
        self.retired
            .extend(dictionaries.retire(|number| partition.coded_with(number)));
    }

    /// Shows values of every uneven partition to the sampler.
    fn sample(&mut self, shared: &Shared, settings: &Compression) {
        let partitions = shared.partitions.count();
        let share = (SAMPLED_MAX / partitions).max(SAMPLED_MIN);
        let now = shared.options.clock.now();
        let mut taken: Vec<Range<usize>> = Vec::with_capacity(share);
        for partition in 0..partitions {
            self.arena.clear();
            taken.clear();
            self.arena.reserve(TAKE_BYTES_MAX);
            let arena = &mut self.arena;
            shared.partitions.with(partition, |table| {
                if !table.uneven {
                    return;
                }
                table.partition.scan(Slot::new(0), share, "", now, |entry| {
                    let value = entry.stored();
                    if entry.coding().is_none()
                        && value.len() >= settings.value_bytes_min.max(RAW_BYTES_MIN)
                        && value.len() <= DICTIONARY_RAW_MAX
                    {
                        taken.push(kept(arena, value));
                    }
                    if arena.len() >= TAKE_BYTES_MAX {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                });
            });
            for value in taken.drain(..) {
                self.training.offer(&self.arena[value]);
            }
        }
    }

    fn train_if_due(&mut self, shared: &Shared) {
        if self.training.is_due() && self.training.train(&shared.compressor.counters) {
            self.chooser.forget();
            self.afresh_next = true;
            shared.make_uneven();
        }
    }

    /// A batch of one partition, from `from` on; where the next begins.
    fn batch(
        &mut self,
        shared: &Shared,
        partition: usize,
        from: Slot,
        settings: &Compression,
        swept: &mut Swept,
        warm: &mut bool,
    ) -> Option<Slot> {
        let (next, dictionary) = self.take_along(shared, partition, from, settings, warm);
        let mut taken = std::mem::take(&mut self.taken);
        for entry in &mut taken {
            if entry.rekeys {
                entry.head = self.rehead(&entry.head);
            }
            let raw = match &entry.value {
                TakenValue::Small(value) => Value::InArena(value.clone()),
                TakenValue::Large(value) => Value::Shared(value.clone()),
                TakenValue::Coded(value) => match value.decode() {
                    Ok(raw) => Value::Shared(raw),
                    // What does not decode is left for the reader to notice.
                    Err(_) => continue,
                },
            };
            match entry.aim {
                Aim::Compress => {
                    let is_made = self.compress(entry, &raw, settings, dictionary.as_ref());
                    if !is_made && entry.rekeys {
                        self.rekey(entry, &raw);
                    }
                }
                Aim::Rekey => self.rekey(entry, &raw),
                Aim::Whole => {
                    let head = &self.arena[entry.head.clone()];
                    let raw = DraftValue::Copied(raw.bytes(&self.arena));
                    let whole = Entry::recoded(head, None, raw);
                    self.made.push(Made::Entry(entry.slot, whole));
                }
                Aim::Pack { stored, homeless } => {
                    let member = (entry.slot, entry.sequence);
                    let head = &self.arena[entry.head.clone()];
                    let bytes = raw.bytes(&self.arena);
                    if !self.packing.push(member, head, bytes, stored, homeless) {
                        self.pack(
                            shared,
                            partition,
                            settings,
                            dictionary.as_ref(),
                            swept,
                            warm,
                        );
                        let head = &self.arena[entry.head.clone()];
                        let bytes = raw.bytes(&self.arena);
                        self.packing.push(member, head, bytes, stored, homeless);
                    }
                    if self.packing.is_full() {
                        self.pack(
                            shared,
                            partition,
                            settings,
                            dictionary.as_ref(),
                            swept,
                            warm,
                        );
                    }
                }
                Aim::Wait | Aim::Leave => {}
            }
        }
        taken.clear();
        self.taken = taken;
        self.place(shared, partition, swept);
        next
    }

    /// The same entry, with its key stored another way.
    fn rekey(&mut self, entry: &Taken, stored: &Value) {
        let head = &self.arena[entry.head.clone()];
        let stored = match stored {
            Value::InArena(range) => DraftValue::Copied(&self.arena[range.clone()]),
            Value::Shared(bytes) => DraftValue::Shared(bytes),
        };
        let rekeyed = Entry::recoded(head, entry.coding, stored);
        self.made.push(Made::Entry(entry.slot, rekeyed));
    }

    /// Makes a block of the values gathered, if it pays, and puts it in place.
    fn pack(
        &mut self,
        shared: &Shared,
        partition: usize,
        settings: &Compression,
        dictionary: Option<&(u8, Arc<Dictionary>)>,
        swept: &mut Swept,
        warm: &mut bool,
    ) {
        let dictionary = dictionary
            .filter(|_| settings.trains())
            .map(|(_, dictionary)| dictionary);
        match self.packing.pack(settings.block_codec(), dictionary) {
            Packed::Block(block) => {
                let packing = std::mem::take(&mut self.packing);
                self.place_block(shared, partition, &block, &packing, swept);
                self.packing = packing;
                self.packing.clear();
            }
            Packed::NotWorthIt => self.disband(shared, partition, true, swept, warm),
        }
    }

    /// The end of a partition: what was gathered last becomes a block if it is enough for one.
    fn pack_rest(
        &mut self,
        shared: &Shared,
        partition: usize,
        settings: &Compression,
        swept: &mut Swept,
        warm: &mut bool,
    ) {
        if self.packing.bytes() >= BLOCK_RAW_MIN {
            let dictionary = shared.partitions.with(partition, |table| {
                let current = table.codings.dictionaries.current();
                current.map(|(number, dictionary)| (number, Arc::clone(dictionary)))
            });
            self.pack(
                shared,
                partition,
                settings,
                dictionary.as_ref(),
                swept,
                warm,
            );
        } else {
            self.disband(shared, partition, false, swept, warm);
        }
    }

    /// There is no block of what was gathered.
    fn disband(
        &mut self,
        shared: &Shared,
        partition: usize,
        in_vain: bool,
        swept: &mut Swept,
        warm: &mut bool,
    ) {
        *warm |= self.packing.has_homeless();
        self.made.extend(self.packing.disband(in_vain));
        self.packing.clear();
        self.place(shared, partition, swept);
    }

    /// Under the lock: copies small candidates into the arena, shares large ones.
    fn take_along(
        &mut self,
        shared: &Shared,
        partition: usize,
        from: Slot,
        settings: &Compression,
        warm: &mut bool,
    ) -> (Option<Slot>, Option<(u8, Arc<Dictionary>)>) {
        let now = shared.options.clock.now();
        self.arena.clear();
        self.arena.reserve(TAKE_BYTES_MAX + (8 << 10));
        self.taken.reserve(EXAMINE_MAX);
        let (afresh, cold) = (self.afresh, self.cold);
        let this = self.table;
        let (arena, taken, keys) = (&mut self.arena, &mut self.taken, &mut self.keys);
        shared.partitions.with(partition, |table| {
            let Table {
                partition, codings, ..
            } = table;
            if codings.table != this {
                // Another was put in its place: it is swept when its turn comes again.
                *warm = true;
                return (None, None);
            }
            keys.clone_from(&codings.keys);
            let current = codings.dictionaries.current();
            let judge = Judge {
                settings,
                cold,
                afresh,
                number: current.map_or(0, |(number, _)| number),
                crowded: codings.dictionaries.iter().count() >= CROWDED,
            };
            let next = partition.survey(from, EXAMINE_MAX, now, afresh, |slot, entry| {
                let rekeys = is_misfit(entry, settings, codings);
                let (aim, again) = judge.aim_with_key(entry, codings, rekeys);
                *warm |= again;
                if matches!(aim, Aim::Wait | Aim::Leave) {
                    return ControlFlow::Continue(());
                }
                let coding = entry.coding();
                let value = match entry.shared() {
                    _ if coding.is_some() && aim != Aim::Rekey => {
                        TakenValue::Coded(StoredValue::of(entry, codings))
                    }
                    Some(value) => TakenValue::Large(value.clone()),
                    None => TakenValue::Small(kept(arena, entry.stored())),
                };
                taken.push(Taken {
                    slot,
                    sequence: entry.sequence(),
                    head: {
                        let start = arena.len();
                        entry.append_head(arena);
                        start..arena.len()
                    },
                    media_type: entry.media_type().map(str::to_owned),
                    heat: entry.heat(),
                    coding,
                    value,
                    aim,
                    rekeys,
                });
                if arena.len() >= TAKE_BYTES_MAX {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            let current = current.map(|(number, dictionary)| (number, Arc::clone(dictionary)));
            (next, current)
        })
    }

    /// Compresses a value as the chooser says, and notes what is to be put in its place; whether there is anything.
    fn compress(
        &mut self,
        entry: &Taken,
        value: &Value,
        settings: &Compression,
        dictionary: Option<&(u8, Arc<Dictionary>)>,
    ) -> bool {
        let raw = value.bytes(&self.arena);
        let was_coded = matches!(entry.value, TakenValue::Coded(..));
        // What fails alone is not lost before it was tried together with others.
        let may_be_packed = settings.may_pack(raw.len());
        let media_type = entry.media_type.as_deref();
        let facts = Facts {
            raw,
            media_type,
            heat: entry.heat,
            dictionary: dictionary.is_some(),
        };
        if self.training.is_curious() && raw.len() <= DICTIONARY_RAW_MAX {
            self.training.offer(raw);
        }
        let head = &self.arena[entry.head.clone()];
        let whole = || Entry::recoded(head, None, DraftValue::Copied(raw));
        let made = match self.chooser.choose(&facts) {
            Choice::Try(attempt) => {
                self.out.clear();
                let number = match dictionary.filter(|_| attempt.dictionary) {
                    Some((number, dictionary)) => {
                        dictionary.compress(raw, &mut self.out);
                        self.training.observe(raw.len(), self.out.len());
                        *number
                    }
                    None => {
                        codec(attempt.codec).compress(raw, &mut self.out);
                        0
                    }
                };
                let paid = pays(raw.len(), self.out.len() + CODING_BYTES);
                self.chooser.learn(media_type, raw.len(), paid);
                if paid {
                    let coding = Coding {
                        codec: attempt.codec.number(),
                        dictionary: number,
                        // A value has at most 1 GiB.
                        raw_len: raw.len() as u32,
                    };
                    let stored = DraftValue::Copied(&self.out);
                    Made::Entry(entry.slot, Entry::recoded(head, Some(coding), stored))
                } else if was_coded {
                    Made::Entry(entry.slot, whole())
                } else if may_be_packed {
                    return false;
                } else {
                    Made::Failure(entry.slot, entry.sequence)
                }
            }
            Choice::Leave(_) if was_coded => Made::Entry(entry.slot, whole()),
            Choice::Leave(reason) if !reason.may_change() && !may_be_packed => {
                Made::Failure(entry.slot, entry.sequence)
            }
            Choice::Leave(_) => return false,
        };
        let is_entry = matches!(made, Made::Entry(..));
        self.made.push(made);
        is_entry
    }

    /// Accounts for the work since the last call, and sleeps for it when it is time; whether to go on.
    fn pay(
        &mut self,
        shared: &Shared,
        settings: &Compression,
        rest: &mut impl FnMut(Duration) -> bool,
    ) -> bool {
        let now = thread_time();
        let work = now.saturating_sub(self.paid_until);
        self.paid_until = now;
        let us = u64::try_from(work.as_micros()).unwrap_or(u64::MAX);
        let counters = &shared.compressor.counters;
        counters.cpu_us.fetch_add(us, Ordering::Relaxed);
        // There are at most 1024 lanes.
        let share = u32::from(settings.cpu_percent) * shared.options.lanes as u32;
        self.budget.spend(work, share).is_none_or(rest)
    }

    /// Makes known what is held beside the entries.
    fn publish(&self, compressor: &Compressor) {
        let dictionaries = self.training.live();
        let buffers = self.packing.footprint()
            + self.arena.capacity()
            + self.out.capacity()
            + self.taken.capacity() * size_of::<Taken>()
            + self.made.capacity() * size_of::<Made>()
            + self.spent.capacity() * size_of::<Entry>();
        let dictionary_bytes: usize = dictionaries.iter().map(|live| live.bytes).sum();
        compressor
            .dictionary_bytes
            .store(dictionary_bytes as u64, Ordering::Relaxed);
        *compressor.held.lock() = Held {
            bytes: buffers + self.training.footprint(),
            dictionaries,
        };
    }
}

/// A value on its way to be compressed.
enum Value {
    InArena(Range<usize>),
    Shared(Bytes),
}

impl Value {
    fn bytes<'a>(&'a self, arena: &'a [u8]) -> &'a [u8] {
        match self {
            Self::InArena(range) => &arena[range.clone()],
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Copies `bytes` to the end of `arena`; where they are.
pub(super) fn kept(arena: &mut Vec<u8>, bytes: &[u8]) -> Range<usize> {
    let start = arena.len();
    arena.extend_from_slice(bytes);
    start..arena.len()
}
