//! Puts in place what the sweeper made of entries, wherever nobody wrote meanwhile.

use super::packing::Packing;
use super::sweep::{Sweeper, Swept};
use crate::engine::Shared;
use inflightkv_compression::batch::{Block, Place};
use inflightkv_core::{CODEC_ELSEWHERE, Coding, Entry, EntryView, Sequence, Slot};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Entries put in place under one hold.
const PLACE_MAX: usize = 64;

/// What is to be put in place.
pub(super) enum Made {
    Entry(Slot, Entry),
    /// Its value lies in the block that is put in place with it.
    Packed(Slot, Entry),
    /// Nothing: it is remembered that there is nothing to be made of it.
    Failure(Slot, Sequence),
}

/// What happened to entries.
#[derive(Default)]
struct Counts {
    compressed: u64,
    decompressed: u64,
    packed: u64,
    unpacked: u64,
    rekeyed: u64,
    failed: u64,
    overtaken: u64,
}

impl Counts {
    /// An entry took the place of the same in another layout, whose value `was` coded so.
    fn count(&mut self, coding: Option<Coding>, moves: bool, was: Option<Coding>) {
        if coding == was && !moves {
            return;
        }
        let is_elsewhere =
            |coding: Option<Coding>| coding.is_some_and(|coding| coding.codec == CODEC_ELSEWHERE);
        let (is_packed, was_packed) = (is_elsewhere(coding), is_elsewhere(was));
        self.packed += u64::from(is_packed && !was_packed);
        self.unpacked += u64::from(was_packed && !is_packed);
        self.compressed += u64::from(coding.is_some() && !is_packed);
        self.decompressed += u64::from(coding.is_none());
    }
}

impl Sweeper {
    /// Puts a block among those of its partition, and then its places in the stead of the values that it holds.
    pub(super) fn place_block(
        &mut self,
        shared: &Shared,
        partition: usize,
        block: &Arc<Block>,
        packing: &Packing,
        swept: &mut Swept,
    ) {
        let this = self.table;
        let number = shared.partitions.with(partition, |table| {
            (table.codings.table == this).then(|| table.codings.blocks.insert(Arc::clone(block)))
        });
        let Some(number) = number else {
            return;
        };
        let counters = &shared.compressor.counters;
        counters.blocks_made.fetch_add(1, Ordering::Relaxed);
        self.made.extend(packing.entries(number));
        self.place(shared, partition, swept);
        // It may be that every one of its values was overtaken.
        let empty = shared.partitions.with(partition, |table| {
            let is_same = table.codings.table == this;
            is_same
                .then(|| table.codings.blocks.give_up(number))
                .flatten()
        });
        drop(empty);
    }

    /// Puts in place what was made, wherever nobody wrote meanwhile, if it is still the table that it was made for.
    pub(super) fn place(&mut self, shared: &Shared, partition: usize, swept: &mut Swept) {
        let this = self.table;
        let mut made = std::mem::take(&mut self.made);
        let mut rest = made.drain(..);
        loop {
            self.spent.reserve(PLACE_MAX);
            let spent = &mut self.spent;
            let mut counts = Counts::default();
            let over = shared.partitions.with(partition, |table| {
                let is_same = table.codings.table == this;
                let mut over = false;
                for _ in 0..PLACE_MAX {
                    let (slot, entry, is_new) = match rest.next() {
                        Some(Made::Entry(slot, entry)) => (slot, entry, false),
                        Some(Made::Packed(slot, entry)) => (slot, entry, true),
                        Some(Made::Failure(slot, sequence)) => {
                            counts.failed += 1;
                            table.partition.mark_incompressible(slot, sequence);
                            continue;
                        }
                        None => {
                            over = true;
                            break;
                        }
                    };
                    let (place, raw_len) = (entry.place(), entry.raw_len());
                    let there = table.partition.entry_at(slot);
                    let was = there.and_then(EntryView::coding);
                    let moves = place != there.and_then(EntryView::place);
                    if !is_same || moves && place.is_some() && !is_new {
                        counts.overtaken += 1;
                        spent.push(entry);
                        continue;
                    }
                    let rekeys = there.is_some_and(|there| there.key_bytes() != entry.key_bytes());
                    let coding = entry.coding();
                    match table.partition.recode(slot, entry) {
                        Ok(old) => {
                            if let Some(place) = place.filter(|_| moves) {
                                table.codings.blocks.keep(Place::from_bytes(place), raw_len);
                            }
                            counts.rekeyed += u64::from(rekeys);
                            counts.count(coding, moves, was);
                            spent.extend(old.into_iter().flatten());
                        }
                        Err(late) => {
                            counts.overtaken += 1;
                            spent.push(late);
                        }
                    }
                }
                shared.meter.account(table, false);
                over
            });
            spent.clear();
            swept.changed |=
                counts.compressed + counts.decompressed + counts.packed + counts.rekeyed > 0;
            let counters = &shared.compressor.counters;
            for (counter, count) in [
                (&counters.compressed, counts.compressed),
                (&counters.decompressed, counts.decompressed),
                (&counters.packed, counts.packed),
                (&counters.unpacked, counts.unpacked),
                (&counters.rekeyed, counts.rekeyed),
                (&counters.failed, counts.failed),
                (&counters.overtaken, counts.overtaken),
            ] {
                counter.fetch_add(count, Ordering::Relaxed);
            }
            if over {
                break;
            }
        }
        drop(rest);
        self.made = made;
    }
}
