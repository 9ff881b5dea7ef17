//! Puts in place what the sweeper made of entries, wherever nobody wrote meanwhile.

use super::packing::Packing;
use super::sweep::{Sweeper, Swept};
use crate::engine::Shared;
use inflightkv_compression::batch::{Block, Place};
use inflightkv_core::{Entry, Sequence, Slot};
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
    failed: u64,
    overtaken: u64,
}

impl Counts {
    /// An entry took the place of the same in another layout.
    fn count(&mut self, is_coded: bool, is_packed: bool, was_packed: bool) {
        self.packed += u64::from(is_packed && !was_packed);
        self.unpacked += u64::from(was_packed && !is_packed);
        self.compressed += u64::from(is_coded && !is_packed);
        self.decompressed += u64::from(!is_coded);
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
        let number = shared.partitions.with(partition, |table| {
            table.codings.blocks.insert(Arc::clone(block))
        });
        let counters = &shared.compressor.counters;
        counters.blocks_made.fetch_add(1, Ordering::Relaxed);
        self.made.extend(packing.entries(number));
        self.place(shared, partition, Some((number, block)), swept);
        // It may be that every one of its values was overtaken.
        let empty = shared.partitions.with(partition, |table| {
            let blocks = &mut table.codings.blocks;
            let there = blocks.get(number);
            let is_same = there.is_some_and(|there| Arc::ptr_eq(there, block));
            is_same.then(|| blocks.give_up(number)).flatten()
        });
        drop(empty);
    }

    /// Puts in place what was made, wherever nobody wrote meanwhile.
    pub(super) fn place(
        &mut self,
        shared: &Shared,
        partition: usize,
        block: Option<(u32, &Arc<Block>)>,
        swept: &mut Swept,
    ) {
        let mut made = std::mem::take(&mut self.made);
        let mut rest = made.drain(..);
        loop {
            self.spent.reserve(PLACE_MAX);
            let spent = &mut self.spent;
            let mut counts = Counts::default();
            let over = shared.partitions.with(partition, |table| {
                // Another block of the number: the partition was emptied and loaded anew.
                let is_there = block.is_some_and(|(number, block)| {
                    let there = table.codings.blocks.get(number);
                    there.is_some_and(|there| Arc::ptr_eq(there, block))
                });
                let mut over = false;
                for _ in 0..PLACE_MAX {
                    let (slot, entry) = match rest.next() {
                        Some(Made::Entry(slot, entry)) => (slot, entry),
                        Some(Made::Packed(slot, entry)) if is_there => (slot, entry),
                        Some(Made::Packed(_, late)) => {
                            counts.overtaken += 1;
                            spent.push(late);
                            continue;
                        }
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
                    let is_coded = entry.coding().is_some();
                    match table.partition.recode(slot, entry) {
                        Ok(old) => {
                            if let Some(place) = place {
                                table.codings.blocks.keep(Place::from_bytes(place), raw_len);
                            }
                            counts.count(is_coded, place.is_some(), old.was_elsewhere);
                            spent.extend(old.spent.into_iter().flatten());
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
            swept.changed |= counts.compressed + counts.decompressed + counts.packed > 0;
            let counters = &shared.compressor.counters;
            for (counter, count) in [
                (&counters.compressed, counts.compressed),
                (&counters.decompressed, counts.decompressed),
                (&counters.packed, counts.packed),
                (&counters.unpacked, counts.unpacked),
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
