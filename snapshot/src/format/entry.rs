//! One entry inside a block, and a walk over all entries of a block (`FORMAT.md`, "Entry").

use std::ops::ControlFlow;

use super::part::PartHeader;
use super::{Mismatch, put, same, u16_at, u32_at, u64_at, zero};
use crate::entry::EntryRef;
use crate::manifest::Kind;

const LEN: usize = 0;
const SEQUENCE: usize = LEN + size_of::<u32>();
const VERSION: usize = SEQUENCE + size_of::<u64>();
const EXPIRES_AT: usize = VERSION + size_of::<u64>();
const VALUE_CRC: usize = EXPIRES_AT + size_of::<u64>();
const KIND: usize = VALUE_CRC + size_of::<u32>();
const FLAGS: usize = KIND + 1;
const MEDIA_LEN: usize = FLAGS + 1;
const ZERO_A: usize = MEDIA_LEN + 1;
const KEY_LEN: usize = ZERO_A + 1;
const ZERO_B: usize = KEY_LEN + size_of::<u16>();
/// Bytes of an entry before its media type, key and value.
pub(crate) const HEAD: usize = ZERO_B + size_of::<u16>();
const _: () = assert!(HEAD == 40);

pub(crate) const KEY_BYTES_MAX: usize = u16::MAX as usize;
pub(crate) const MEDIA_BYTES_MAX: usize = u8::MAX as usize;
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 30;

const LIVE: u8 = 1;
const TOMBSTONE: u8 = 2;
const PINNED: u8 = 1;

/// The head of an entry whose lengths are within the limits.
pub(crate) fn head(entry: &EntryRef<'_>) -> [u8; HEAD] {
    let media_len = entry.media_type.map_or(0, str::len);
    let len = HEAD + media_len + entry.key.len() + entry.value.len();
    let mut head = [0; HEAD];
    // The casts lose nothing: the limits above are below each field's.
    put(&mut head, LEN, &(len as u32).to_le_bytes());
    put(&mut head, SEQUENCE, &entry.sequence.to_le_bytes());
    put(&mut head, VERSION, &entry.version.to_le_bytes());
    let expires_at = entry.expires_at.unwrap_or(0);
    put(&mut head, EXPIRES_AT, &expires_at.to_le_bytes());
    put(&mut head, VALUE_CRC, &entry.value_crc.to_le_bytes());
    head[KIND] = if entry.tombstone { TOMBSTONE } else { LIVE };
    head[FLAGS] = u8::from(entry.pinned);
    head[MEDIA_LEN] = media_len as u8;
    put(&mut head, KEY_LEN, &(entry.key.len() as u16).to_le_bytes());
    head
}

/// Appends an entry whose lengths are within the limits.
pub(crate) fn encode(entry: &EntryRef<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&head(entry));
    out.extend_from_slice(entry.media_type.unwrap_or("").as_bytes());
    out.extend_from_slice(entry.key.as_bytes());
    out.extend_from_slice(entry.value);
}

/// The first entry in `bytes`, whose value has its checksum, and its length there.
pub(crate) fn decode(bytes: &[u8]) -> Result<(EntryRef<'_>, usize), Mismatch> {
    let (entry, len) = parse(bytes)?;
    super::same_crc(VALUE_CRC, entry.value_crc, entry.value)?;
    Ok((entry, len))
}

/// As [`decode`], whatever the value is.
pub(crate) fn parse(bytes: &[u8]) -> Result<(EntryRef<'_>, usize), Mismatch> {
    if bytes.len() < HEAD {
        return Err(Mismatch::new(
            LEN,
            format_args!("an entry of at least {HEAD} bytes"),
            format_args!("{} bytes", bytes.len()),
        ));
    }
    let media_len = usize::from(bytes[MEDIA_LEN]);
    let key_len = usize::from(u16_at(bytes, KEY_LEN));
    let len = u32_at(bytes, LEN) as usize;
    let value_at = HEAD + media_len + key_len;
    if len < value_at || len > bytes.len() || len - value_at > VALUE_BYTES_MAX {
        return Err(Mismatch::new(
            LEN,
            format_args!(
                "an entry length from {value_at} to the {} bytes left",
                bytes.len()
            ),
            len,
        ));
    }
    let tombstone = match bytes[KIND] {
        LIVE => false,
        TOMBSTONE => true,
        other => return Err(Mismatch::new(KIND, "an entry's kind of 1 or 2", other)),
    };
    let pinned = match bytes[FLAGS] {
        0 => false,
        PINNED => true,
        other => return Err(Mismatch::new(FLAGS, "an entry's flags of 0 or 1", other)),
    };
    zero(ZERO_A, &bytes[ZERO_A..=ZERO_A])?;
    zero(ZERO_B, &bytes[ZERO_B..HEAD])?;
    let media_type = text(bytes, HEAD, media_len, "media type")?;
    let value = &bytes[value_at..len];
    let entry = EntryRef {
        sequence: u64_at(bytes, SEQUENCE),
        version: u64_at(bytes, VERSION),
        expires_at: Some(u64_at(bytes, EXPIRES_AT)).filter(|&at| at != 0),
        pinned,
        value_crc: u32_at(bytes, VALUE_CRC),
        tombstone,
        media_type: Some(media_type).filter(|media_type| !media_type.is_empty()),
        key: text(bytes, HEAD + media_len, key_len, "key")?,
        value,
    };
    if tombstone && !entry.is_bare() {
        return Err(Mismatch::new(
            KIND,
            "a tombstone without value, media type, expiry and flags",
            "one with",
        ));
    }
    Ok((entry, len))
}

fn text<'a>(bytes: &'a [u8], at: usize, len: usize, what: &str) -> Result<&'a str, Mismatch> {
    str::from_utf8(&bytes[at..at + len])
        .map_err(|error| Mismatch::new(at, format_args!("a {what} in UTF-8"), error))
}

/// An entry's contribution to the digests: `FORMAT.md` says what they prove and what not.
pub(crate) fn digest(entry: &EntryRef<'_>) -> u64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head(entry));
    crc.update(entry.media_type.unwrap_or("").as_bytes());
    crc.update(entry.key.as_bytes());
    digest_of(entry, crc.finalize())
}

fn digest_of(entry: &EntryRef<'_>, crc: u32) -> u64 {
    let content = u64::from(entry.value_crc) << 32 | u64::from(crc);
    mix(entry
        .sequence
        .wrapping_add(content.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), constants of Stafford's variant 13.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What was met on a walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) entries: u32,
    pub(crate) tombstones: u32,
    pub(crate) digest: u64,
}

/// Decodes every entry of a block and checks that it may be in this part. Writer and reader walk
/// alike, so nothing is written that would be refused when it is needed.
pub(crate) fn walk<B>(
    raw: &[u8],
    header: &PartHeader,
    mut visit: impl FnMut(EntryRef<'_>) -> ControlFlow<B>,
) -> Result<ControlFlow<B, Tally>, Mismatch> {
    let mut tally = Tally::default();
    let mut at = 0;
    while at < raw.len() {
        let bytes = &raw[at..];
        let in_block = |mismatch: Mismatch| Mismatch {
            offset: at + mismatch.offset,
            ..mismatch
        };
        let (entry, len) = decode(bytes).map_err(in_block)?;
        admit(&entry, header).map_err(in_block)?;
        if entry.tombstone {
            tally.tombstones += 1;
        } else {
            tally.entries += 1;
        }
        let crc = crc32fast::hash(&bytes[..len - entry.value.len()]);
        tally.digest = tally.digest.wrapping_add(digest_of(&entry, crc));
        if let ControlFlow::Break(reason) = visit(entry) {
            return Ok(ControlFlow::Break(reason));
        }
        at += len;
    }
    Ok(ControlFlow::Continue(tally))
}

fn admit(entry: &EntryRef<'_>, header: &PartHeader) -> Result<(), Mismatch> {
    if entry.sequence > header.cut {
        return Err(Mismatch::new(
            SEQUENCE,
            format_args!("a sequence up to the cut {}", header.cut),
            entry.sequence,
        ));
    }
    match header.kind {
        Kind::Full if entry.tombstone => same(KIND, "an entry of kind", LIVE, TOMBSTONE),
        Kind::Incremental if entry.sequence <= header.parent_cut => Err(Mismatch::new(
            SEQUENCE,
            format_args!("a sequence above the parent's cut {}", header.parent_cut),
            entry.sequence,
        )),
        Kind::Full | Kind::Incremental => Ok(()),
    }
}
