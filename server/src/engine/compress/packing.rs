//! Cold small values of one partition on their way into blocks.
//!
//! A value is cold when it was neither read nor written for a while: it is taken along whole, with others of its
//! partition, until they make a block. The block is put among those of the partition first, then entry by entry is laid
//! out anew, with its place in the stead of its value, wherever nobody wrote meanwhile; what was overtaken is a hole from
//! the beginning. A block of which most is holes is packed anew with whatever else is cold.

use super::place::Made;
use super::sweep::kept;
use inflightkv_compression::adaptive::pays;
use inflightkv_compression::batch::{Block, Packer, Place};
use inflightkv_compression::{CodecId, Dictionary};
use inflightkv_core::{CODEC_ELSEWHERE, Coding, DraftValue, Entry, PLACE_BYTES, Sequence, Slot};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Values of more bytes bring enough context of their own.
pub(super) const PACKED_RAW_MAX: usize = 2048;
/// Values of fewer bytes are no longer than what would be kept in their stead.
pub(super) const PACKED_RAW_MIN: usize = 24;
/// What is kept in the entry of a packed value: its coding, and its place.
pub(crate) const BESIDE: usize = super::CODING_BYTES + PLACE_BYTES;
/// Marks of the past that are kept.
const MARKS_MAX: u64 = 16;

/// Values gathered for a block.
#[derive(Default)]
pub(super) struct Packing {
    packer: Packer,
    members: Vec<Member>,
    /// Heads of all, and values of those that have to be stored whole if there is no block.
    arena: Vec<u8>,
}

/// An entry whose value is in the packer.
struct Member {
    slot: Slot,
    sequence: Sequence,
    head: Range<usize>,
    /// Bytes that its value takes now.
    stored: usize,
    raw_len: u32,
    /// Its value, if it lies in a block that is mostly holes, and has to leave it.
    homeless: Option<Range<usize>>,
}

/// What came of the values gathered.
pub(super) enum Packed {
    /// A block, worth its while.
    Block(Arc<Block>),
    /// They take less as they are.
    NotWorthIt,
}

impl Packing {
    /// Adds a value that takes `stored` bytes now; false when it has no room in this block any more.
    pub(super) fn push(
        &mut self,
        (slot, sequence): (Slot, Sequence),
        head: &[u8],
        raw: &[u8],
        stored: usize,
        homeless: bool,
    ) -> bool {
        if self.packer.push(raw).is_none() {
            return false;
        }
        let head = kept(&mut self.arena, head);
        let homeless = homeless.then(|| kept(&mut self.arena, raw));
        self.members.push(Member {
            slot,
            sequence,
            head,
            stored,
            // At most `PACKED_RAW_MAX`.
            raw_len: raw.len() as u32,
            homeless,
        });
        true
    }

    pub(super) const fn is_full(&self) -> bool {
        self.packer.is_full()
    }

    /// Bytes of the values gathered.
    pub(super) const fn bytes(&self) -> usize {
        self.packer.bytes()
    }

    pub(super) fn clear(&mut self) {
        self.packer.clear();
        self.members.clear();
        self.arena.clear();
    }

    /// Heap bytes of the buffers; the packer holds at most one block.
    pub(super) fn footprint(&self) -> usize {
        self.members.capacity() * size_of::<Member>() + self.arena.capacity() + self.packer.bytes()
    }

    /// Makes a block of what was gathered, if that takes less than it does now.
    pub(super) fn pack(&mut self, codec: CodecId, dictionary: Option<&Arc<Dictionary>>) -> Packed {
        let stored: usize = self.members.iter().map(|member| member.stored).sum();
        match self.packer.pack(codec, dictionary) {
            Some(block) if pays(stored, block.footprint() + self.members.len() * BESIDE) => {
                Packed::Block(Arc::new(block))
            }
            _ => Packed::NotWorthIt,
        }
    }

    /// What is to be done with the entries gathered if there is no block of them: who has to leave another block is stored
    /// whole, to be compressed alone in another pass; of the others it is remembered if packing them was `in_vain`.
    pub(super) fn disband(&self, in_vain: bool) -> impl Iterator<Item = Made> {
        self.members.iter().filter_map(move |member| {
            let head = &self.arena[member.head.clone()];
            match &member.homeless {
                Some(value) => {
                    let raw = DraftValue::Copied(&self.arena[value.clone()]);
                    let whole = Entry::recoded(head, None, raw);
                    Some(Made::Entry(member.slot, whole))
                }
                None => in_vain.then_some(Made::Failure(member.slot, member.sequence)),
            }
        })
    }

    /// Whether some have to be stored whole if there is no block of them.
    pub(super) fn has_homeless(&self) -> bool {
        self.members.iter().any(|member| member.homeless.is_some())
    }

    /// The entries anew, whose values are in the block `number`, in their order.
    pub(super) fn entries(&self, number: u32) -> impl Iterator<Item = Made> {
        (0..).zip(&self.members).map(move |(index, member)| {
            let place = Place {
                block: number,
                index,
            };
            let coding = Coding {
                codec: CODEC_ELSEWHERE,
                dictionary: 0,
                raw_len: member.raw_len,
            };
            let head = &self.arena[member.head.clone()];
            let place = place.to_bytes();
            let entry = Entry::recoded(head, Some(coding), DraftValue::Copied(&place));
            Made::Packed(member.slot, entry)
        })
    }
}

/// Which change was the last at several moments: tells what was not written since.
#[derive(Debug, Default)]
pub(super) struct Ages {
    marks: VecDeque<(u64, Sequence)>,
}

impl Ages {
    /// At `now`, in milliseconds, `last` was the last change; what was written up to the change that is returned was
    /// written at least `age_ms` ago. Nothing was when that was not watched for so long.
    pub(super) fn mark(&mut self, now: u64, last: Sequence, age_ms: u64) -> Sequence {
        let grain = age_ms / MARKS_MAX;
        // What was said of a later moment is of another clock.
        while self.marks.back().is_some_and(|(at, _)| *at > now) {
            self.marks.pop_back();
        }
        if self.marks.back().is_none_or(|(at, _)| now - at >= grain) {
            self.marks.push_back((now, last));
        }
        let is_old = |(at, _): &(u64, Sequence)| now - at >= age_ms;
        while self.marks.get(1).is_some_and(is_old) {
            self.marks.pop_front();
        }
        let oldest = self.marks.front().copied().filter(is_old);
        oldest.map_or(Sequence::ZERO, |(_, sequence)| sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_as_old_as_was_watched() {
        let at = Sequence::from_raw;
        let mut ages = Ages::default();
        assert_eq!(ages.mark(1000, at(10), 500), Sequence::ZERO);
        assert_eq!(ages.mark(1499, at(20), 500), Sequence::ZERO);
        assert_eq!(ages.mark(1500, at(30), 500), at(10));
        assert_eq!(ages.mark(1999, at(40), 500), at(20));
        assert_eq!(ages.mark(9000, at(40), 500), at(40));
        // Never too young, and hardly older than asked for.
        let mut ages = Ages::default();
        for now in 0..10_000 {
            let line = ages.mark(now, at(now + 1), 1000).get();
            assert!(line <= (now + 1).saturating_sub(1000), "{now}: {line}");
            assert!(now < 1100 || line + 1100 > now, "{now}: {line}");
        }
        assert!(ages.marks.len() <= MARKS_MAX as usize + 2);
        // Whatever is old enough at once is old now.
        assert_eq!(ages.mark(10_000, at(7), 0), at(7));
        // A clock that went back.
        assert_eq!(ages.mark(5, at(8), 1000), Sequence::ZERO);
    }
}
