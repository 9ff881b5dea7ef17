//! What the tests of a partition share: a hasher that collides, and entries written in one line.
#![allow(dead_code, reason = "each test file uses its own part of it")]

pub(crate) mod json;
pub(crate) mod map;
pub(crate) mod steps;

use inflightkv_core::{
    Command, Conditions, Decision, Draft, DraftValue, Entry, EntryView, KEY_CODE_FIRST, KeyCode,
    Operation, PLACE_BYTES, Partition, Patch, PatchExpiry, PatchKind, PatchLimits, PutExpiry,
    Sequence, Slot, hash_key,
};
use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasher, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;

pub(crate) type Table = Partition<Coarse>;

/// Knows four hashes only, so that different keys meet in the index all the time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Coarse;

#[derive(Debug, Default)]
pub(crate) struct CoarseHasher(DefaultHasher);

impl Hasher for CoarseHasher {
    fn finish(&self) -> u64 {
        (self.0.finish() & 3).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }
}

impl BuildHasher for Coarse {
    type Hasher = CoarseHasher;

    fn build_hasher(&self) -> CoarseHasher {
        CoarseHasher::default()
    }
}

/// No value of these tests comes near the limits.
pub(crate) const WIDE: PatchLimits = PatchLimits {
    value_bytes_max: 1 << 20,
    depth_max: 128,
    inline_max: 1 << 20,
};

pub(crate) fn table() -> Table {
    let mut table = Partition::new(Coarse);
    assert!(table.set_key_code(Some(Arc::new(Prefixes))).is_none());
    table
}

/// What keys may be coded by in these tests; one prefix has several codes, and some are the beginning of others.
#[derive(Debug)]
pub(crate) struct Prefixes;

pub(crate) const PREFIXES: [&str; 6] = ["a", "user/", "a key that", "u", "ключ", "a"];

impl KeyCode for Prefixes {
    fn prefix(&self, code: u8) -> &str {
        PREFIXES.get(usize::from(code)).copied().unwrap_or_default()
    }
}

/// The key of an entry, however it is stored.
pub(crate) fn key_of(entry: EntryView<'_>) -> String {
    if let Some(key) = entry.whole_key() {
        return key.to_owned();
    }
    let [code, rest @ ..] = entry.key_bytes() else {
        unreachable!("a coded key begins with its code");
    };
    let rest = std::str::from_utf8(rest).expect("the rest is text");
    format!("{}{rest}", PREFIXES[usize::from(code - KEY_CODE_FIRST)])
}

/// Another way to store `key`, if it begins with the prefix of `code`.
pub(crate) fn coded_key(key: &str, code: u8) -> Option<Vec<u8>> {
    let rest = key.strip_prefix(PREFIXES[usize::from(code)])?;
    Some([&[KEY_CODE_FIRST + code], rest.as_bytes()].concat())
}

pub(crate) fn hash(key: &str) -> u64 {
    hash_key(&Coarse, key)
}

pub(crate) fn sequence(number: u64) -> Sequence {
    Sequence::new(number).expect("tests count from 1")
}

pub(crate) fn draft(key: &str, value: &[u8], expires_at: Option<u64>) -> Entry {
    draft_as(key, value, None, expires_at, false)
}

pub(crate) fn draft_as(
    key: &str,
    value: &[u8],
    media_type: Option<&str>,
    expires_at: Option<u64>,
    reserve_expiry: bool,
) -> Entry {
    let crc = crc32fast::hash(value);
    let value = DraftValue::Copied(value);
    Entry::draft(&Draft {
        key,
        value,
        media_type,
        crc,
        expires_at,
        reserve_expiry,
    })
    .expect("keys of tests are short")
}

pub(crate) fn put(draft: Entry) -> Operation<'static> {
    Operation::Put {
        draft,
        expiry: PutExpiry::Set,
        compared: None,
    }
}

pub(crate) fn patch(kind: PatchKind, document: &[u8]) -> Operation<'_> {
    let expiry = PatchExpiry::Keep;
    Operation::Patch(Patch {
        kind,
        document,
        expiry,
        pin: None,
        limits: WIDE,
        prepared: None,
    })
}

pub(crate) fn decide(
    table: &Table,
    key: &str,
    conditions: Conditions<'_>,
    operation: Operation<'_>,
    now: u64,
) -> Decision {
    table.decide(
        Command {
            key,
            hash: hash(key),
            conditions,
            operation,
        },
        now,
    )
}

/// Puts without a condition; says whether what was there was released. The value must differ from the one there, or nothing would be applied.
pub(crate) fn write(
    table: &mut Table,
    number: u64,
    key: &str,
    value: &[u8],
    expires_at: Option<u64>,
    now: u64,
) -> bool {
    let operation = put(draft(key, value, expires_at));
    let decision = decide(table, key, Conditions::default(), operation, now);
    let mutation = decision
        .mutation
        .expect("a put of another value changes the key");
    table.apply(mutation, sequence(number)).released
}

pub(crate) fn delete(table: &mut Table, number: u64, key: &str, now: u64) -> bool {
    let decision = decide(table, key, Conditions::default(), Operation::Delete, now);
    let mutation = decision.mutation.expect("the key to delete is there");
    table.apply(mutation, sequence(number)).released
}

/// Where `key` is, expired or not.
pub(crate) fn slot_of(table: &Table, key: &str) -> Option<Slot> {
    (0..table.slot_end().get())
        .map(Slot::new)
        .find(|slot| key_at(table, *slot).as_deref() == Some(key))
}

/// The key in `slot`, expired or not.
pub(crate) fn key_at(table: &Table, slot: Slot) -> Option<String> {
    let mut key = None;
    table.scan(slot, 1, "", 0, |entry| {
        key = Some(key_of(entry));
        ControlFlow::Break(())
    });
    key
}

/// Every entry there is, expired or not.
pub(crate) fn for_each_entry(table: &Table, mut visit: impl FnMut(EntryView<'_>)) {
    let end = table.scan(Slot::new(0), usize::MAX, "", 0, |entry| {
        visit(entry);
        ControlFlow::Continue(())
    });
    assert_eq!(end, None, "a scan without a bound ends");
}

/// What stands for a codec in these tests: the bytes the other way round.
pub(crate) fn reversed(value: &[u8]) -> Vec<u8> {
    value.iter().rev().copied().collect()
}

thread_local!(static SHELF: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) });

/// Keeps `value` elsewhere, for as long as the thread lives; where.
pub(crate) fn shelve(value: &[u8]) -> [u8; PLACE_BYTES] {
    SHELF.with_borrow_mut(|shelf| {
        shelf.push(value.to_owned());
        let mut place = [0; PLACE_BYTES];
        place[..4].copy_from_slice(&(shelf.len() as u32 - 1).to_le_bytes());
        place
    })
}

fn shelved(place: [u8; PLACE_BYTES]) -> Vec<u8> {
    let number = u32::from_le_bytes(place[..4].try_into().expect("four bytes"));
    SHELF.with_borrow(|shelf| shelf[number as usize].clone())
}

/// The value of an entry, [reversed], [shelved](shelve) or as it is.
pub(crate) fn raw(entry: EntryView<'_>) -> Vec<u8> {
    if let Some(place) = entry.place() {
        return shelved(place);
    }
    match entry.coding() {
        Some(_) => reversed(entry.stored()),
        None => entry.stored().to_owned(),
    }
}
