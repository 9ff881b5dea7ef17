//! What is to be done with an entry that a sweep meets.

use super::{CODING_BYTES, Compression, CompressionMode};
use crate::engine::coded::Codings;
use inflightkv_compression::adaptive::{DICTIONARY_RAW_MAX, HOT, RAW_BYTES_MIN};
use inflightkv_compression::batch::Place;
use inflightkv_core::{CODEC_ELSEWHERE, EntryView, HEAT_MAX, Sequence};

/// What is to be done with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// To be compressed, with the dictionary in force if there is one.
    Compress,
    /// To be stored as it is.
    Whole,
    /// To be packed together with others; it takes so many bytes now, and may have to leave the block that it lies in.
    Pack { stored: usize, homeless: bool },
    /// Only its key is to be stored another way.
    Rekey,
    /// Nothing now, but it is worth another look when time has passed.
    Wait,
    /// Nothing.
    Leave,
}

/// Says what is to be done with the entries of one partition.
pub(super) struct Judge<'a> {
    pub(super) settings: &'a Compression,
    /// What was written up to this change is cold, unless it was read.
    pub(super) cold: Sequence,
    /// Old failures are tried again.
    pub(super) afresh: bool,
    /// The dictionary in force in this partition.
    pub(super) number: u8,
    /// There are so many dictionaries that numbers have to become free.
    pub(super) crowded: bool,
}

impl Judge<'_> {
    /// What is to be done with an entry whose key is to be stored another way, or is not, and whether it is worth another
    /// look without anybody writing it.
    pub(super) fn aim_with_key(
        &self,
        entry: EntryView<'_>,
        codings: &Codings,
        rekeys: bool,
    ) -> (Aim, bool) {
        let aim = self.aim(entry, codings);
        let again = self.is_worth_another_look(entry, aim);
        match aim {
            Aim::Wait | Aim::Leave if rekeys => (Aim::Rekey, again),
            // It may wait for a block for long; its key does not.
            Aim::Pack {
                homeless: false, ..
            } if rekeys => (Aim::Rekey, true),
            aim => (aim, again),
        }
    }

    fn aim(&self, entry: EntryView<'_>, codings: &Codings) -> Aim {
        let off = self.settings.mode == CompressionMode::Off;
        match entry.coding() {
            Some(coding) if coding.codec == CODEC_ELSEWHERE => {
                let block = entry.place().map(|place| Place::from_bytes(place).block);
                if off || entry.heat() >= HOT {
                    Aim::Whole
                } else if !self.settings.packs() {
                    Aim::Compress
                } else if block.is_some_and(|block| codings.blocks.is_sparse(block)) {
                    Aim::Pack {
                        stored: coding.raw_len as usize,
                        homeless: true,
                    }
                } else {
                    Aim::Leave
                }
            }
            Some(_) if off || entry.heat() == HEAT_MAX => Aim::Whole,
            Some(coding) => {
                let another = coding.dictionary != self.number
                    && coding.raw_len as usize <= DICTIONARY_RAW_MAX
                    && (coding.dictionary == 0 && self.afresh
                        || coding.dictionary != 0 && self.crowded);
                if another {
                    Aim::Compress
                } else {
                    self.pack(entry, entry.stored().len() + CODING_BYTES)
                }
            }
            None if off || entry.is_incompressible() => Aim::Leave,
            None => {
                let len = entry.stored().len();
                let alone = len >= self.settings.value_bytes_min.max(RAW_BYTES_MIN);
                match self.pack(entry, len) {
                    Aim::Leave if !alone => Aim::Leave,
                    Aim::Leave | Aim::Wait if alone && entry.heat() < HOT => Aim::Compress,
                    Aim::Leave => Aim::Wait,
                    aim => aim,
                }
            }
        }
    }

    /// What packing makes of an entry that takes `stored` bytes now.
    fn pack(&self, entry: EntryView<'_>, stored: usize) -> Aim {
        if !self.settings.may_pack(entry.raw_len()) || entry.is_incompressible() {
            Aim::Leave
        } else if entry.heat() == 0 && entry.sequence() <= self.cold {
            Aim::Pack {
                stored,
                homeless: false,
            }
        } else {
            Aim::Wait
        }
    }

    /// Whether time alone changes what is to be done with an entry.
    fn is_worth_another_look(&self, entry: EntryView<'_>, aim: Aim) -> bool {
        match aim {
            Aim::Wait => true,
            // It cools, or what comes of it may be packed.
            Aim::Whole => self.settings.mode != CompressionMode::Off,
            Aim::Compress => self.settings.may_pack(entry.raw_len()),
            Aim::Pack { .. } | Aim::Rekey | Aim::Leave => false,
        }
    }
}
