//! An entry as the table keeps it: a small one packed into a block of the heap, any other one whole.
//!
//! ```text
//! off size field
//!   0    1 flags      as in an entry; bit 7: `more` follows
//!   .    1 more       only when flagged; bits 0-2: bytes of the version, bit 3: the sequence is written out
//!   .    4 value crc
//!   .    5 sequence   its distance from the base of the heap; 7 bytes and no distance when it is written out
//!   .    v version    the bytes that `more` says; without any it is 0
//!   . 1..3 value length, as it is stored; seven bits a byte, the low ones first, bit 7: more follow
//!   . 1..3 key length, likewise
//!   .    8 expiry     only when flagged
//!   .  1+4 coding     only when flagged
//!   .  1+n media type only when flagged
//!   .    k key
//!   .    v value
//! ```
//!
//! So a value written once costs twelve bytes beside key and value. Everything else about the fields is said in `entry`.

use crate::entry::{
    self, CODEC_ELSEWHERE, Coding, Entry, HAS_EXPIRY, HAS_MEDIA_TYPE, IS_CODED, IS_INCOMPRESSIBLE,
    KEEPS_PIN, PINNED, PLACE_BYTES, Sameness,
};
use crate::keys;
use crate::numbers::{Sequence, Version};
use bytes::Bytes;

/// The largest entry that is packed, in bytes: reading one copies it, and moving one takes about as long.
pub(crate) const PACKED_MAX: usize = 1024;

const HAS_MORE: u8 = KEEPS_PIN;
const VERSION_BYTES: u8 = 0b111;
const SEQUENCE_IN_FULL: u8 = 0b1000;
const DISTANCE_LEN: usize = 5;
const SEQUENCE_LEN: usize = 7;
const CRC_LEN: usize = 4;
const EXPIRY_LEN: usize = 8;
const CODING_LEN: usize = 5;

/// An entry in its partition, to be looked at while nothing there changes.
#[derive(Clone, Copy, Debug)]
pub struct EntryView<'a>(Form<'a>);

#[derive(Clone, Copy, Debug)]
enum Form<'a> {
    Whole(&'a Entry),
    Packed(Packed<'a>),
}

/// A block with the places of its fields.
#[derive(Clone, Copy, Debug)]
struct Packed<'a> {
    /// From the start of the block; it may go on behind its end.
    bytes: &'a [u8],
    base: u64,
    /// Of the crc.
    fixed: u8,
    /// Of the fields that are there only when flagged.
    optional: u8,
    /// The `more` byte, or 0.
    more: u8,
    key: u16,
    key_len: u16,
    value_len: u16,
}

impl<'a> From<&'a Entry> for EntryView<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self(Form::Whole(entry))
    }
}

impl<'a> EntryView<'a> {
    /// The entry that was [packed](pack) at the start of `bytes`.
    #[inline]
    pub(crate) fn packed(bytes: &'a [u8], base: u64) -> Self {
        let flags = bytes[0];
        let (more, fixed) = if flags & HAS_MORE == 0 {
            (0, 1)
        } else {
            (bytes[1], 2)
        };
        let sequence_len = if more & SEQUENCE_IN_FULL == 0 {
            DISTANCE_LEN
        } else {
            SEQUENCE_LEN
        };
        let lengths = fixed + CRC_LEN + sequence_len + usize::from(more & VERSION_BYTES);
        let (value_len, at) = varint(bytes, lengths);
        let (key_len, optional) = varint(bytes, at);
        let mut key = optional;
        if flags & (HAS_EXPIRY | IS_CODED | HAS_MEDIA_TYPE) != 0 {
            key += if flags & HAS_EXPIRY == 0 {
                0
            } else {
                EXPIRY_LEN
            };
            key += if flags & IS_CODED == 0 { 0 } else { CODING_LEN };
            key += if flags & HAS_MEDIA_TYPE == 0 {
                0
            } else {
                1 + usize::from(bytes[key])
            };
        }
        // A packed entry has at most `PACKED_MAX` bytes.
        Self(Form::Packed(Packed {
            bytes,
            base,
            fixed: fixed as u8,
            optional: optional as u8,
            more,
            key: key as u16,
            key_len: key_len as u16,
            value_len: value_len as u16,
        }))
    }

    /// Bytes of the block that it is packed into; `None` when it is not.
    pub(crate) fn packed_len(self) -> Option<usize> {
        match self.0 {
            Form::Whole(_) => None,
            Form::Packed(packed) => Some(packed.value_end()),
        }
    }

    pub(crate) fn flags(self) -> u8 {
        match self.0 {
            Form::Whole(entry) => entry.flags(),
            Form::Packed(packed) => packed.bytes[0] & !HAS_MORE,
        }
    }

    /// The number of the entry's last change.
    pub fn sequence(self) -> Sequence {
        match self.0 {
            Form::Whole(entry) => entry.sequence(),
            Form::Packed(packed) => {
                let at = usize::from(packed.fixed) + CRC_LEN;
                Sequence::from_raw(if packed.more & SEQUENCE_IN_FULL == 0 {
                    packed.base + packed.little_endian(at, DISTANCE_LEN)
                } else {
                    packed.little_endian(at, SEQUENCE_LEN)
                })
            }
        }
    }

    /// How often the key was changed since it was created.
    pub fn version(self) -> Version {
        match self.0 {
            Form::Whole(entry) => entry.version(),
            Form::Packed(packed) => {
                let len = usize::from(packed.more & VERSION_BYTES);
                if len == 0 {
                    return 0;
                }
                let sequence = if packed.more & SEQUENCE_IN_FULL == 0 {
                    DISTANCE_LEN
                } else {
                    SEQUENCE_LEN
                };
                packed.little_endian(usize::from(packed.fixed) + CRC_LEN + sequence, len)
            }
        }
    }

    /// CRC-32 (IEEE) of the value before any coding.
    pub fn crc(self) -> u32 {
        match self.0 {
            Form::Whole(entry) => entry.crc(),
            Form::Packed(packed) => packed.little_endian(usize::from(packed.fixed), CRC_LEN) as u32,
        }
    }

    /// When the entry expires, in milliseconds since the Unix epoch.
    pub fn expires_at(self) -> Option<u64> {
        match self.0 {
            Form::Whole(entry) => entry.expires_at(),
            Form::Packed(packed) if packed.bytes[0] & HAS_EXPIRY != 0 => {
                Some(packed.little_endian(usize::from(packed.optional), EXPIRY_LEN))
            }
            Form::Packed(_) => None,
        }
    }

    /// Whether the entry is invisible at `now`.
    pub fn is_expired(self, now: u64) -> bool {
        self.expires_at().is_some_and(|expiry| expiry <= now)
    }

    /// Whether the entry is exempt from eviction.
    pub fn is_pinned(self) -> bool {
        self.flags() & PINNED != 0
    }

    /// How the stored value is coded; `None` when it is stored as it is.
    pub fn coding(self) -> Option<Coding> {
        match self.0 {
            Form::Whole(entry) => entry.coding(),
            Form::Packed(packed) if packed.bytes[0] & IS_CODED != 0 => {
                let at = usize::from(packed.optional)
                    + if packed.bytes[0] & HAS_EXPIRY == 0 {
                        0
                    } else {
                        EXPIRY_LEN
                    };
                Some(Coding::from_bytes(&packed.bytes[at..at + CODING_LEN]))
            }
            Form::Packed(_) => None,
        }
    }

    /// The value's media type; `None` for JSON.
    pub fn media_type(self) -> Option<&'a str> {
        match self.0 {
            Form::Whole(entry) => entry.media_type(),
            Form::Packed(packed) => {
                let flags = packed.bytes[0];
                if flags & HAS_MEDIA_TYPE == 0 {
                    return None;
                }
                let at = usize::from(packed.optional)
                    + if flags & HAS_EXPIRY == 0 {
                        0
                    } else {
                        EXPIRY_LEN
                    }
                    + if flags & IS_CODED == 0 { 0 } else { CODING_LEN };
                Some(entry::text(&packed.bytes[at + 1..usize::from(packed.key)]))
            }
        }
    }

    /// The key's bytes as they are stored: its text, or a code and the rest of it ([`KeyCode`](crate::KeyCode)).
    pub fn key_bytes(self) -> &'a [u8] {
        match self.0 {
            Form::Whole(entry) => entry.key_bytes(),
            Form::Packed(packed) => {
                let at = usize::from(packed.key);
                &packed.bytes[at..at + usize::from(packed.key_len)]
            }
        }
    }

    /// The key, if it is not stored coded; otherwise [`Partition::key_of`](crate::Partition::key_of) knows it.
    pub fn whole_key(self) -> Option<&'a str> {
        let stored = self.key_bytes();
        keys::code_of(stored).is_none().then(|| entry::text(stored))
    }

    /// The value's bytes as they are stored: the value itself, unless there is a [`coding`](Self::coding).
    pub fn stored(self) -> &'a [u8] {
        match self.0 {
            Form::Whole(entry) => entry.stored(),
            Form::Packed(packed) => {
                let end = packed.value_end();
                &packed.bytes[end - usize::from(packed.value_len)..end]
            }
        }
    }

    /// What is [`stored`](Self::stored), by reference, when it is kept beside the head: cheap to clone, and outlives
    /// the entry.
    pub fn shared(self) -> Option<&'a Bytes> {
        match self.0 {
            Form::Whole(entry) => entry.shared(),
            Form::Packed(_) => None,
        }
    }

    /// Where the value lies, when that is [elsewhere](crate::CODEC_ELSEWHERE).
    pub fn place(self) -> Option<[u8; PLACE_BYTES]> {
        self.coding()
            .filter(|coding| coding.codec == CODEC_ELSEWHERE)?;
        let place = self.stored().try_into();
        Some(place.expect("what is stored of a value that lies elsewhere is its place"))
    }

    /// The value's length before any coding, in bytes.
    pub fn raw_len(self) -> usize {
        self.coding()
            .map_or(self.stored().len(), |coding| coding.raw_len as usize)
    }

    /// Whether coding the value any other way than it is was found not to pay.
    pub fn is_incompressible(self) -> bool {
        self.flags() & IS_INCOMPRESSIBLE != 0
    }

    /// How much the entry was read lately, 0 to [`HEAT_MAX`](crate::HEAT_MAX): each [warming](crate::Partition::warm) adds
    /// one, each [survey](crate::Partition::survey) takes one away.
    pub fn heat(self) -> u8 {
        entry::heat(self.flags())
    }

    /// Bytes that the entry takes: what its removal gives back.
    pub fn footprint(self) -> usize {
        match self.0 {
            Form::Whole(entry) => entry.footprint(),
            Form::Packed(packed) => crate::heap::block_len(packed.value_end()),
        }
    }

    /// Whether `other` has the same value in the same media type.
    pub fn same_value(self, other: &Entry) -> Sameness {
        if self.crc() != other.crc()
            || self.raw_len() != other.raw_len()
            || self.media_type() != other.media_type()
        {
            return Sameness::Different;
        }
        if self.coding().is_some() || other.coding().is_some() {
            return Sameness::Unknown;
        }
        if self.stored() == other.stored() {
            Sameness::Same
        } else {
            Sameness::Different
        }
    }

    /// Appends everything up to the value, to lay the same entry out anew with [`Entry::recoded`].
    pub fn append_head(self, out: &mut Vec<u8>) {
        match self.0 {
            Form::Whole(entry) => out.extend_from_slice(entry.head_bytes()),
            Form::Packed(packed) => {
                entry::head_fields(
                    out,
                    self.flags(),
                    self.sequence(),
                    self.version(),
                    packed.key_len,
                    self.crc(),
                );
                let key_end = usize::from(packed.key) + usize::from(packed.key_len);
                out.extend_from_slice(&packed.bytes[usize::from(packed.optional)..key_end]);
            }
        }
    }

    /// The head alone, in a buffer of its own.
    pub fn head(self) -> Vec<u8> {
        let mut head = Vec::new();
        self.append_head(&mut head);
        head
    }

    /// The entry by itself, to outlive its place.
    pub(crate) fn to_entry(self) -> Entry {
        let coding = self.coding();
        match self.shared() {
            Some(value) => Entry::recoded(&self.head(), coding, entry::DraftValue::Shared(value)),
            None => Entry::recoded(
                &self.head(),
                coding,
                entry::DraftValue::Copied(self.stored()),
            ),
        }
    }
}

impl Packed<'_> {
    fn value_end(self) -> usize {
        usize::from(self.key) + usize::from(self.key_len) + usize::from(self.value_len)
    }

    fn little_endian(self, at: usize, len: usize) -> u64 {
        let mut wide = [0; 8];
        wide[..len].copy_from_slice(&self.bytes[at..at + len]);
        u64::from_le_bytes(wide)
    }
}

fn varint(bytes: &[u8], mut at: usize) -> (usize, usize) {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes[at];
        at += 1;
        number |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return (number, at);
        }
        shift += 7;
    }
}

const fn varint_len(number: usize) -> usize {
    match number {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        _ => 3,
    }
}

/// How an entry is to be packed: lengths known, nothing written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packing {
    flags: u8,
    more: u8,
    sequence: u64,
    pub(crate) len: usize,
}

impl Packing {
    /// How to pack `entry` into a heap with this base; `None` when it is to stay whole.
    pub(crate) fn of(entry: &Entry, base: u64) -> Option<Self> {
        if entry.shared().is_some() {
            return None;
        }
        let sequence = entry.sequence().get();
        let distance = sequence
            .checked_sub(base)
            .filter(|far| far >> (8 * DISTANCE_LEN) == 0);
        let version = entry.version();
        let version_len = (Version::BITS - version.leading_zeros()).div_ceil(8) as u8;
        let more = version_len
            | if distance.is_some() {
                0
            } else {
                SEQUENCE_IN_FULL
            };
        let mut flags = entry.flags() & !KEEPS_PIN;
        if entry.expires_at().is_none() {
            // Room that was kept for one is not needed any more.
            flags &= !HAS_EXPIRY;
        }
        let (key_len, value_len) = (entry.key_bytes().len(), entry.stored().len());
        let len = 1
            + usize::from(more != 0)
            + CRC_LEN
            + if distance.is_some() {
                DISTANCE_LEN
            } else {
                SEQUENCE_LEN
            }
            + usize::from(version_len)
            + varint_len(value_len)
            + varint_len(key_len)
            + if flags & HAS_EXPIRY == 0 {
                0
            } else {
                EXPIRY_LEN
            }
            + if flags & IS_CODED == 0 { 0 } else { CODING_LEN }
            + entry
                .media_type()
                .map_or(0, |media_type| 1 + media_type.len())
            + key_len
            + value_len;
        (len <= PACKED_MAX).then_some(Self {
            flags: flags | if more == 0 { 0 } else { HAS_MORE },
            more,
            sequence: distance.unwrap_or(sequence),
            len,
        })
    }

    /// Writes `entry` into `block`, which has the length that was said.
    pub(crate) fn write(self, entry: &Entry, block: &mut [u8]) {
        let mut out = Out { block, at: 0 };
        out.put(&[self.flags]);
        if self.more != 0 {
            out.put(&[self.more]);
        }
        out.put(&entry.crc().to_le_bytes());
        let sequence_len = if self.more & SEQUENCE_IN_FULL == 0 {
            DISTANCE_LEN
        } else {
            SEQUENCE_LEN
        };
        out.put(&self.sequence.to_le_bytes()[..sequence_len]);
        out.put(&entry.version().to_le_bytes()[..usize::from(self.more & VERSION_BYTES)]);
        out.varint(entry.stored().len());
        out.varint(entry.key_bytes().len());
        if let Some(expires_at) = entry.expires_at() {
            out.put(&expires_at.to_le_bytes());
        }
        if let Some(coding) = entry.coding() {
            out.put(&coding.to_bytes());
        }
        if let Some(media_type) = entry.media_type() {
            // `Entry::draft` refuses longer ones.
            out.put(&[media_type.len() as u8]);
            out.put(media_type.as_bytes());
        }
        out.put(entry.key_bytes());
        out.put(entry.stored());
    }
}

struct Out<'a> {
    block: &'a mut [u8],
    at: usize,
}

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.block[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn varint(&mut self, mut number: usize) {
        while number >= 0x80 {
            self.put(&[number as u8 | 0x80]);
            number >>= 7;
        }
        self.put(&[number as u8]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Draft, DraftValue, with_heat};
    use crate::numbers::VERSION_MAX;

    /// Packed, looked at, and taken out again, an entry is what it was in every field.
    #[test]
    fn every_field_comes_back_in_every_layout() {
        const BASE: u64 = 1 << 50;
        let long = "k".repeat(700);
        for value in [&b""[..], b"{}", &[7; 127], &[7; 128], &[7; 200]] {
            for media_type in [None, Some(""), Some("text/plain")] {
                for expires_at in [None, Some(5), Some(u64::MAX)] {
                    for key in ["k", "ключ", &long] {
                        for version in [0, 1, 255, 256, VERSION_MAX] {
                            for sequence in
                                [0, BASE - 1, BASE, BASE + (1 << 40) - 1, BASE + (1 << 40)]
                            {
                                let mut entry = Entry::draft(&Draft {
                                    key,
                                    value: DraftValue::Copied(value),
                                    media_type,
                                    crc: 0xdead_beef,
                                    expires_at,
                                    reserve_expiry: true,
                                })
                                .expect("it fits");
                                entry.set_sequence(Sequence::from_raw(sequence));
                                entry.set_version(version);
                                entry.set_pinned(version == 1);
                                *entry.flags_mut() =
                                    with_heat(entry.flags(), 3) | IS_INCOMPRESSIBLE;
                                let coding = (sequence == BASE).then_some(Coding {
                                    codec: 15,
                                    dictionary: 14,
                                    raw_len: u32::MAX,
                                });
                                let entry = Entry::recoded(
                                    entry.head_bytes(),
                                    coding,
                                    DraftValue::Copied(value),
                                );
                                let packing = Packing::of(&entry, BASE).expect("it is small");
                                let mut block = vec![0xff; packing.len + 9];
                                packing.write(&entry, &mut block[..packing.len]);
                                let view = EntryView::packed(&block, BASE);
                                assert_eq!(view.packed_len(), Some(packing.len));
                                let again = view.to_entry();
                                for view in [view, EntryView::from(&again)] {
                                    assert_eq!(view.whole_key(), Some(key));
                                    assert_eq!(view.stored(), value);
                                    assert_eq!(view.media_type(), media_type);
                                    assert_eq!(view.expires_at(), expires_at);
                                    assert_eq!(view.sequence().get(), sequence);
                                    assert_eq!(view.version(), version);
                                    assert_eq!(view.crc(), 0xdead_beef);
                                    assert_eq!(view.coding(), coding);
                                    assert_eq!(view.is_pinned(), version == 1);
                                    assert_eq!(view.heat(), 3);
                                    assert!(view.is_incompressible() && view.shared().is_none());
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_small_entry_costs_twelve_bytes_beyond_key_and_value() {
        let mut entry = Entry::draft(&Draft {
            key: "0123456789abcdef",
            value: DraftValue::Copied(&[1; 100]),
            media_type: None,
            crc: 1,
            expires_at: None,
            reserve_expiry: false,
        })
        .expect("it fits");
        entry.set_sequence(Sequence::from_raw(1 << 50));
        assert_eq!(
            Packing::of(&entry, 1 << 50).expect("it is small").len,
            12 + 116
        );
    }

    #[test]
    fn what_is_large_stays_whole() {
        for (value, packed) in [
            (PACKED_MAX - 14, true),
            (PACKED_MAX - 13, false),
            (3_000, false),
        ] {
            let entry = Entry::draft(&Draft {
                key: "k",
                value: DraftValue::Copied(&vec![1; value]),
                media_type: None,
                crc: 1,
                expires_at: None,
                reserve_expiry: false,
            })
            .expect("it fits");
            assert_eq!(Packing::of(&entry, 0).is_some(), packed, "{value}");
        }
    }
}
