//! One entry by itself: a header, the key and the value in one allocation, as a write brings it and as large ones stay. A small
//! one is packed tighter in its partition, see [`EntryView`](crate::EntryView).
//!
//! ```text
//! off size field
//!   0    1 flags      bit 0: an expiry is kept, bit 1: a media type is kept (else the value is JSON),
//!                     bit 2: pinned, bit 3: the value is coded, bit 4: another coding was found not to pay, bits 5-6: heat,
//!                     bit 7: a draft that keeps the pin that is there
//!   1    7 sequence
//!   8    6 version
//!  14    2 key length
//!  16    4 value crc  CRC-32 (IEEE) of the value before any coding, computed when its body arrived
//!  20    8 expiry     only when flagged; milliseconds since the Unix epoch, 0 for none
//!   .  1+4 coding     only when flagged: codec (low half) and dictionary (high half), length before coding
//!   .  1+n media type only when flagged: its length, then its text
//!   .    k key        its text, or a code for a prefix and the rest of it: see `keys`
//!   .    v value      as it is stored; only up to `INLINE_MAX` bytes; a larger one stands beside the head
//! ```
//!
//! A large value is kept by reference, so that a reader, the log and a snapshot share it instead of copying it while
//! the partition is locked; copying a small one costs less than counting references to it.
//!
//! What a coding means is the caller's: an entry keeps its numbers beside the bytes, and its own checksum and version
//! are of the value as the client sent it. Coding a value, or undoing it, is no change of the key.

use crate::numbers::{Sequence, VERSION_MAX, Version};
use bytes::Bytes;

/// The largest value kept in the entry itself, in bytes.
pub const INLINE_MAX: usize = 2048;
/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;
/// The longest media type, in bytes.
pub const MEDIA_TYPE_BYTES_MAX: usize = u8::MAX as usize;

const FLAGS: usize = 0;
const SEQUENCE: usize = FLAGS + 1;
const VERSION: usize = SEQUENCE + 7;
const KEY_LEN: usize = VERSION + 6;
const CRC: usize = KEY_LEN + size_of::<u16>();
const HEAD: usize = CRC + size_of::<u32>();
const EXPIRY_LEN: usize = size_of::<u64>();
const _: () = assert!(HEAD == 20);

const CODING_LEN: usize = 1 + size_of::<u32>();

pub(crate) const HAS_EXPIRY: u8 = 1;
pub(crate) const HAS_MEDIA_TYPE: u8 = 2;
pub(crate) const IS_CODED: u8 = 8;
pub(crate) const IS_INCOMPRESSIBLE: u8 = 16;
const HEAT_SHIFT: u32 = 5;
/// The largest [`EntryView::heat`](crate::EntryView::heat).
pub const HEAT_MAX: u8 = 3;
const HEAT: u8 = HEAT_MAX << HEAT_SHIFT;
/// Flags that say how the bytes are laid out; the others are about the key and outlive another layout.
const LAYOUT: u8 = HAS_EXPIRY | HAS_MEDIA_TYPE | IS_CODED;

/// How a stored value is coded. The numbers are the caller's: here they are kept and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Coding {
    /// Which codec, 0 to 15.
    pub codec: u8,
    /// Which dictionary of its partition, 1 to 15; 0 for none.
    pub dictionary: u8,
    /// The value's length before it was coded, in bytes.
    pub raw_len: u32,
}

impl Coding {
    pub(crate) fn to_bytes(self) -> [u8; CODING_LEN] {
        let mut bytes = [self.codec | self.dictionary << 4, 0, 0, 0, 0];
        bytes[1..].copy_from_slice(&self.raw_len.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self {
            codec: bytes[0] & 0x0f,
            dictionary: bytes[0] >> 4,
            raw_len: u32::from_le_bytes(bytes[1..CODING_LEN].try_into().expect("four bytes")),
        }
    }
}

/// The largest number of a codec or of a dictionary.
pub const CODING_NUMBER_MAX: u8 = 15;

/// The number of the codec of a value that lies elsewhere, together with others: what is stored is only its place. Who
/// keeps values so is told of every one that is no longer needed: [`Partition::take_left`](crate::Partition::take_left).
pub const CODEC_ELSEWHERE: u8 = CODING_NUMBER_MAX;
/// Bytes of such a place.
pub const PLACE_BYTES: usize = 6;

/// Whether two entries have the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sameness {
    /// Byte for byte.
    Same,
    /// Not.
    Different,
    /// Length and checksum are the same and one of them is coded: whoever can decode it has to compare.
    Unknown,
}
pub(crate) const PINNED: u8 = 4;
pub(crate) const KEEPS_PIN: u8 = 128;

/// What is known of an entry before its partition is locked.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    /// The key.
    pub key: &'a str,
    /// The value: minified JSON, or opaque bytes with a media type.
    pub value: DraftValue<'a>,
    /// `None` for JSON.
    pub media_type: Option<&'a str>,
    /// CRC-32 (IEEE) of the value.
    pub crc: u32,
    /// When the entry expires, in milliseconds since the Unix epoch.
    pub expires_at: Option<u64>,
    /// Keep room for an expiry that is known only later (a write that keeps the one there is).
    pub reserve_expiry: bool,
}

/// Where a draft takes its value from. A small value is copied into the entry either way.
#[derive(Clone, Copy, Debug)]
pub enum DraftValue<'a> {
    /// Borrowed bytes: a large value is copied.
    Copied(&'a [u8]),
    /// Counted bytes: a large value is shared.
    Shared(&'a Bytes),
}

impl DraftValue<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    fn shared(self) -> Bytes {
        match self {
            Self::Copied(bytes) => Bytes::copy_from_slice(bytes),
            Self::Shared(bytes) => bytes.clone(),
        }
    }
}

/// Why a draft cannot become an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DraftError {
    /// The key is longer than [`KEY_BYTES_MAX`].
    #[error("the key has {len} bytes, at most {KEY_BYTES_MAX} are possible")]
    KeyTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The media type is longer than [`MEDIA_TYPE_BYTES_MAX`].
    #[error("the media type has {len} bytes, at most {MEDIA_TYPE_BYTES_MAX} are possible")]
    MediaTypeTooLong {
        /// Its length in bytes.
        len: usize,
    },
}

/// A key with its value, version and sequence.
#[derive(Debug)]
pub struct Entry(Repr);

#[derive(Debug)]
enum Repr {
    Packed(Box<[u8]>),
    Split(Box<Split>),
}

#[derive(Debug)]
struct Split {
    head: Box<[u8]>,
    value: Bytes,
}

// It travels through every write.
const _: () = assert!(size_of::<Entry>() == 16);

impl Entry {
    /// Lays out everything that is known before the partition is locked. Sequence and version are 0 until decided.
    ///
    /// # Errors
    /// The key or the media type is longer than an entry can hold.
    pub fn draft(draft: &Draft<'_>) -> Result<Self, DraftError> {
        let Draft {
            key,
            value,
            media_type,
            crc,
            expires_at,
            reserve_expiry,
        } = *draft;
        let key_len =
            u16::try_from(key.len()).map_err(|_| DraftError::KeyTooLong { len: key.len() })?;
        let media_len = match media_type {
            Some(media_type) => {
                let too_long = |_| DraftError::MediaTypeTooLong {
                    len: media_type.len(),
                };
                Some(u8::try_from(media_type.len()).map_err(too_long)?)
            }
            None => None,
        };
        let keeps_expiry = expires_at.is_some() || reserve_expiry;
        let inline = value.bytes().len() <= INLINE_MAX;
        let size = HEAD
            + if keeps_expiry { EXPIRY_LEN } else { 0 }
            + media_type.map_or(0, |media_type| 1 + media_type.len())
            + key.len()
            + if inline { value.bytes().len() } else { 0 };
        let mut bytes = Vec::with_capacity(size);
        let flags = if keeps_expiry { HAS_EXPIRY } else { 0 }
            | if media_type.is_some() {
                HAS_MEDIA_TYPE
            } else {
                0
            };
        bytes.push(flags | KEEPS_PIN);
        bytes.extend_from_slice(&[0; KEY_LEN - SEQUENCE]);
        bytes.extend_from_slice(&key_len.to_le_bytes());
        bytes.extend_from_slice(&crc.to_le_bytes());
        if keeps_expiry {
            bytes.extend_from_slice(&expires_at.unwrap_or(0).to_le_bytes());
        }
        if let (Some(len), Some(media_type)) = (media_len, media_type) {
            bytes.push(len);
            bytes.extend_from_slice(media_type.as_bytes());
        }
        bytes.extend_from_slice(key.as_bytes());
        Ok(Self::laid_out(bytes, inline, value))
    }

    /// What stands in the place of an entry that was taken out. Holds no memory; nothing may be asked of it.
    pub(crate) fn vacant() -> Self {
        Self(Repr::Packed(Box::default()))
    }

    fn head(&self) -> &[u8] {
        match &self.0 {
            Repr::Packed(bytes) => bytes,
            Repr::Split(split) => &split.head,
        }
    }

    fn head_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Repr::Packed(bytes) => bytes,
            Repr::Split(split) => &mut split.head,
        }
    }

    pub(crate) fn flags(&self) -> u8 {
        self.head()[FLAGS]
    }

    pub(crate) fn flags_mut(&mut self) -> &mut u8 {
        &mut self.head_mut()[FLAGS]
    }

    fn flag(&self, flag: u8) -> bool {
        self.head()[FLAGS] & flag != 0
    }

    fn little_endian<const N: usize>(&self, offset: usize) -> u64 {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&self.head()[offset..offset + N]);
        u64::from_le_bytes(wide)
    }

    /// The number of the entry's last change.
    pub fn sequence(&self) -> Sequence {
        Sequence::from_raw(self.little_endian::<7>(SEQUENCE))
    }

    /// How often the key was changed since it was created.
    pub fn version(&self) -> Version {
        self.little_endian::<6>(VERSION)
    }

    /// CRC-32 (IEEE) of the value before any coding.
    pub fn crc(&self) -> u32 {
        self.little_endian::<4>(CRC) as u32
    }

    /// When the entry expires, in milliseconds since the Unix epoch.
    pub fn expires_at(&self) -> Option<u64> {
        if !self.flag(HAS_EXPIRY) {
            return None;
        }
        Some(self.little_endian::<8>(HEAD)).filter(|expiry| *expiry != 0)
    }

    /// Whether the entry is exempt from eviction.
    pub fn is_pinned(&self) -> bool {
        self.flag(PINNED)
    }

    /// Says of a draft whether it is exempt from eviction; without this it is if what it replaces is.
    pub fn set_pinned(&mut self, pinned: bool) {
        let flags = &mut self.head_mut()[FLAGS];
        *flags &= !(PINNED | KEEPS_PIN);
        *flags |= if pinned { PINNED } else { 0 };
    }

    /// Decides what a draft left open.
    pub(crate) fn settle_pin(&mut self, before: bool) {
        if self.flag(KEEPS_PIN) {
            self.set_pinned(before);
        }
    }

    /// Whether the entry is invisible at `now`.
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires_at().is_some_and(|expiry| expiry <= now)
    }

    fn coding_at(&self) -> usize {
        if self.flag(HAS_EXPIRY) {
            HEAD + EXPIRY_LEN
        } else {
            HEAD
        }
    }

    fn media_type_at(&self) -> usize {
        if self.flag(IS_CODED) {
            self.coding_at() + CODING_LEN
        } else {
            self.coding_at()
        }
    }

    /// The value's media type; `None` for JSON.
    pub fn media_type(&self) -> Option<&str> {
        if !self.flag(HAS_MEDIA_TYPE) {
            return None;
        }
        let at = self.media_type_at();
        let len = usize::from(self.head()[at]);
        Some(text(&self.head()[at + 1..at + 1 + len]))
    }

    fn key_at(&self) -> usize {
        let at = self.media_type_at();
        if self.flag(HAS_MEDIA_TYPE) {
            at + 1 + usize::from(self.head()[at])
        } else {
            at
        }
    }

    fn key_len(&self) -> usize {
        self.little_endian::<2>(KEY_LEN) as usize
    }

    /// The key's bytes as they are stored: its text, or a code and the rest of it ([`KeyCode`](crate::KeyCode)).
    pub fn key_bytes(&self) -> &[u8] {
        let at = self.key_at();
        &self.head()[at..at + self.key_len()]
    }

    /// The key.
    ///
    /// # Panics
    /// It is stored coded, as no draft is: then [`Partition::key_of`](crate::Partition::key_of) knows it.
    pub fn key(&self) -> &str {
        text(self.key_bytes())
    }

    /// The value's bytes as they are stored: the value itself, unless there is a [`coding`](Self::coding).
    pub fn stored(&self) -> &[u8] {
        match &self.0 {
            Repr::Packed(bytes) => &bytes[self.key_at() + self.key_len()..],
            Repr::Split(split) => &split.value,
        }
    }

    /// What is [`stored`](Self::stored), by reference, when it is kept beside the head: cheap to clone, and outlives
    /// the entry.
    pub fn shared(&self) -> Option<&Bytes> {
        match &self.0 {
            Repr::Packed(_) => None,
            Repr::Split(split) => Some(&split.value),
        }
    }

    /// Heap bytes of the entry: what its removal gives back.
    pub fn footprint(&self) -> usize {
        match &self.0 {
            Repr::Packed(bytes) => bytes.len(),
            Repr::Split(split) => size_of::<Split>() + split.head.len() + split.value.len(),
        }
    }

    /// Everything up to the value, to lay the same entry out anew with [`Entry::recoded`].
    pub fn head_bytes(&self) -> &[u8] {
        &self.head()[..self.key_at() + self.key_len()]
    }

    /// The key in `head`, the [head](Self::head_bytes) of an entry, as it is stored.
    ///
    /// # Panics
    /// `head` is not a head.
    pub fn key_in_head(head: &[u8]) -> &[u8] {
        let len = u16::from_le_bytes([head[KEY_LEN], head[KEY_LEN + 1]]);
        &head[head.len() - usize::from(len)..]
    }

    /// Appends `head`, the [head](Self::head_bytes) of an entry, to `out`, with its key stored as `key`.
    ///
    /// # Panics
    /// `head` is not a head, or `key` is longer than [`KEY_BYTES_MAX`].
    pub fn head_with_key(head: &[u8], key: &[u8], out: &mut Vec<u8>) {
        let before = head.len() - Self::key_in_head(head).len();
        let key_len = u16::try_from(key.len()).expect("a key is not longer than an entry can hold");
        out.extend_from_slice(&head[..KEY_LEN]);
        out.extend_from_slice(&key_len.to_le_bytes());
        out.extend_from_slice(&head[CRC..before]);
        out.extend_from_slice(key);
    }

    /// The entry that `head` is the [head](Self::head_bytes) of, with its value stored another way.
    ///
    /// # Panics
    /// `head` is not a head, or a number of `coding` is above [`CODING_NUMBER_MAX`].
    pub fn recoded(head: &[u8], coding: Option<Coding>, stored: DraftValue<'_>) -> Self {
        let was_coded = head[FLAGS] & IS_CODED != 0;
        let expiry_end = HEAD
            + if head[FLAGS] & HAS_EXPIRY != 0 {
                EXPIRY_LEN
            } else {
                0
            };
        let rest = &head[expiry_end + if was_coded { CODING_LEN } else { 0 }..];
        let inline = stored.bytes().len() <= INLINE_MAX;
        let size = expiry_end
            + if coding.is_some() { CODING_LEN } else { 0 }
            + rest.len()
            + if inline { stored.bytes().len() } else { 0 };
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(&head[..expiry_end]);
        bytes[FLAGS] &= !IS_CODED;
        if let Some(coding) = coding {
            assert!(
                coding.codec <= CODING_NUMBER_MAX && coding.dictionary <= CODING_NUMBER_MAX,
                "an entry has room for codec and dictionary numbers up to {CODING_NUMBER_MAX}, not for {coding:?}"
            );
            bytes[FLAGS] |= IS_CODED;
            bytes.extend_from_slice(&coding.to_bytes());
        }
        bytes.extend_from_slice(rest);
        Self::laid_out(bytes, inline, stored)
    }

    fn laid_out(mut head: Vec<u8>, inline: bool, value: DraftValue<'_>) -> Self {
        if inline {
            head.extend_from_slice(value.bytes());
            Self(Repr::Packed(head.into_boxed_slice()))
        } else {
            Self(Repr::Split(Box::new(Split {
                head: head.into_boxed_slice(),
                value: value.shared(),
            })))
        }
    }

    /// How the stored value is coded; `None` when it is stored as it is.
    pub fn coding(&self) -> Option<Coding> {
        if !self.flag(IS_CODED) {
            return None;
        }
        let at = self.coding_at();
        Some(Coding::from_bytes(&self.head()[at..at + CODING_LEN]))
    }

    /// Where the value lies, when that is [elsewhere](CODEC_ELSEWHERE).
    pub fn place(&self) -> Option<[u8; PLACE_BYTES]> {
        self.coding()
            .filter(|coding| coding.codec == CODEC_ELSEWHERE)?;
        let place = self.stored().try_into();
        Some(place.expect("what is stored of a value that lies elsewhere is its place"))
    }

    /// The value's length before any coding, in bytes.
    pub fn raw_len(&self) -> usize {
        self.coding()
            .map_or(self.stored().len(), |coding| coding.raw_len as usize)
    }

    /// Takes over from the flags of the same entry in another layout what is not about the layout.
    pub(crate) fn take_marks(&mut self, other: u8) {
        let marks = other & !LAYOUT;
        let flags = &mut self.head_mut()[FLAGS];
        *flags = *flags & LAYOUT | marks;
    }

    pub(crate) fn set_sequence(&mut self, sequence: Sequence) {
        self.head_mut()[SEQUENCE..VERSION]
            .copy_from_slice(&sequence.get().to_le_bytes()[..VERSION - SEQUENCE]);
    }

    pub(crate) fn set_version(&mut self, version: Version) {
        let version = version.min(VERSION_MAX).to_le_bytes();
        self.head_mut()[VERSION..KEY_LEN].copy_from_slice(&version[..KEY_LEN - VERSION]);
    }

    /// Sets the expiry of a draft that keeps room for one.
    pub(crate) fn set_expiry(&mut self, expires_at: Option<u64>) {
        debug_assert!(
            self.flag(HAS_EXPIRY),
            "the draft reserves room for an expiry"
        );
        if self.flag(HAS_EXPIRY) {
            self.head_mut()[HEAD..HEAD + EXPIRY_LEN]
                .copy_from_slice(&expires_at.unwrap_or(0).to_le_bytes());
        }
    }
}

/// The first fields of a head, as [`Entry::recoded`] takes it.
pub(crate) fn head_fields(
    out: &mut Vec<u8>,
    flags: u8,
    sequence: Sequence,
    version: Version,
    key_len: u16,
    crc: u32,
) {
    out.push(flags);
    out.extend_from_slice(&sequence.get().to_le_bytes()[..VERSION - SEQUENCE]);
    out.extend_from_slice(&version.to_le_bytes()[..KEY_LEN - VERSION]);
    out.extend_from_slice(&key_len.to_le_bytes());
    out.extend_from_slice(&crc.to_le_bytes());
}

/// What flags say of the heat.
pub(crate) const fn heat(flags: u8) -> u8 {
    (flags & HEAT) >> HEAT_SHIFT
}

/// Flags with another heat.
pub(crate) const fn with_heat(flags: u8, heat: u8) -> u8 {
    let heat = if heat > HEAT_MAX { HEAT_MAX } else { heat };
    flags & !HEAT | heat << HEAT_SHIFT
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("keys and media types are laid out from text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::EntryView;

    fn drafted(
        key: &str,
        value: &Bytes,
        media_type: Option<&str>,
        expires_at: Option<u64>,
        reserve: bool,
    ) -> Entry {
        let crc = crc32fast::hash(value);
        let value = DraftValue::Shared(value);
        Entry::draft(&Draft {
            key,
            value,
            media_type,
            crc,
            expires_at,
            reserve_expiry: reserve,
        })
        .expect("it fits")
    }

    #[test]
    fn every_field_comes_back_in_every_layout() {
        for value in [
            Bytes::new(),
            Bytes::from_static(b"{}"),
            Bytes::from(vec![7; INLINE_MAX]),
            Bytes::from(vec![7; INLINE_MAX + 1]),
        ] {
            for media_type in [None, Some(""), Some("text/plain")] {
                for (expires_at, reserve) in [
                    (None, false),
                    (None, true),
                    (Some(5), false),
                    (Some(u64::MAX), true),
                ] {
                    for key in ["k", "ключ", &"x".repeat(KEY_BYTES_MAX)] {
                        let mut entry = drafted(key, &value, media_type, expires_at, reserve);
                        entry.set_sequence(Sequence::MAX);
                        entry.set_version(VERSION_MAX);
                        entry.set_pinned(reserve);
                        assert_eq!(entry.is_pinned(), reserve);
                        assert_eq!(entry.key(), key);
                        assert_eq!(entry.stored(), value);
                        assert_eq!(entry.coding(), None);
                        assert_eq!(entry.raw_len(), value.len());
                        assert_eq!(entry.media_type(), media_type);
                        assert_eq!(entry.expires_at(), expires_at);
                        assert_eq!(entry.sequence(), Sequence::MAX);
                        assert_eq!(entry.version(), VERSION_MAX);
                        assert_eq!(entry.crc(), crc32fast::hash(&value));
                        assert_eq!(entry.shared().is_some(), value.len() > INLINE_MAX);
                    }
                }
            }
        }
    }

    #[test]
    fn a_small_entry_costs_twenty_bytes_beyond_key_and_value() {
        let entry = drafted(
            "0123456789abcdef",
            &Bytes::from(vec![1; 100]),
            None,
            None,
            false,
        );
        assert_eq!(entry.footprint(), 20 + 16 + 100);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let value = DraftValue::Copied(b"");
        let draft = |key, media_type| {
            Entry::draft(&Draft {
                key,
                value,
                media_type,
                crc: 0,
                expires_at: None,
                reserve_expiry: false,
            })
        };
        let long = "x".repeat(KEY_BYTES_MAX + 1);
        assert_eq!(
            draft(&long, None).map(|_| ()),
            Err(DraftError::KeyTooLong {
                len: KEY_BYTES_MAX + 1
            })
        );
        assert_eq!(
            draft("k", Some(&long[..256])).map(|_| ()),
            Err(DraftError::MediaTypeTooLong { len: 256 })
        );
    }

    #[test]
    fn an_entry_expires_at_its_instant_and_not_before() {
        let entry = drafted("k", &Bytes::from_static(b"1"), None, Some(10), false);
        assert!(!entry.is_expired(9));
        assert!(entry.is_expired(10));
    }

    /// Coded and decoded again, an entry is what it was: every field, and the marks that are not about its layout.
    #[test]
    fn another_layout_changes_nothing_else() {
        for value in [
            Bytes::from_static(b"{}"),
            Bytes::from(vec![7; INLINE_MAX + 1]),
        ] {
            for media_type in [None, Some("text/plain")] {
                for expires_at in [None, Some(5)] {
                    let mut entry = drafted("key", &value, media_type, expires_at, false);
                    entry.set_sequence(Sequence::MAX);
                    entry.set_version(7);
                    *entry.flags_mut() = with_heat(entry.flags(), 2) | IS_INCOMPRESSIBLE;
                    for stored in [Bytes::from_static(b"x"), Bytes::from(vec![1; 9000])] {
                        let coding = Coding {
                            codec: 15,
                            dictionary: 14,
                            raw_len: u32::MAX,
                        };
                        let coded = Entry::recoded(
                            entry.head_bytes(),
                            Some(coding),
                            DraftValue::Shared(&stored),
                        );
                        assert_eq!(coded.coding(), Some(coding));
                        assert_eq!(coded.stored(), stored);
                        assert_eq!(coded.raw_len(), u32::MAX as usize);
                        assert_eq!(coded.shared().is_some(), stored.len() > INLINE_MAX);
                        let again = Entry::recoded(
                            coded.head_bytes(),
                            Some(coding),
                            DraftValue::Shared(&stored),
                        );
                        assert_eq!(again.stored(), stored);
                        let back =
                            Entry::recoded(again.head_bytes(), None, DraftValue::Shared(&value));
                        for entry in [&coded, &back] {
                            assert_eq!(entry.key(), "key");
                            assert_eq!(entry.media_type(), media_type);
                            assert_eq!(entry.expires_at(), expires_at);
                            assert_eq!(entry.sequence(), Sequence::MAX);
                            assert_eq!(entry.version(), 7);
                            assert_eq!(entry.crc(), crc32fast::hash(&value));
                            assert_eq!(heat(entry.flags()), 2);
                            assert!(EntryView::from(entry).is_incompressible());
                        }
                        assert_eq!(back.coding(), None);
                        assert_eq!(back.stored(), value);
                        assert_eq!(back.footprint(), entry.footprint());
                        assert_eq!(EntryView::from(&back).same_value(&entry), Sameness::Same);
                    }
                }
            }
        }
    }

    #[test]
    fn a_coded_value_is_told_apart_by_length_and_checksum_only() {
        let value = Bytes::from_static(b"[1,2,3]");
        let entry = drafted("k", &value, None, None, false);
        let coding = Coding {
            codec: 1,
            dictionary: 0,
            raw_len: 7,
        };
        let coded = Entry::recoded(entry.head_bytes(), Some(coding), DraftValue::Copied(b"zz"));
        assert_eq!(
            EntryView::from(&coded).same_value(&entry),
            Sameness::Unknown
        );
        let other = drafted("k", &Bytes::from_static(b"[1,2,4]"), None, None, false);
        assert_eq!(
            EntryView::from(&coded).same_value(&other),
            Sameness::Different
        );
        let text = drafted("k", &value, Some("text/plain"), None, false);
        assert_eq!(
            EntryView::from(&coded).same_value(&text),
            Sameness::Different
        );
    }
}
