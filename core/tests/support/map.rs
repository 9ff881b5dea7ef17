//! The plain map that a partition is compared with, the log of a history, and what a walk over it must meet.

use super::json::Json;
use super::steps::KEYS;
use super::{Table, hash, key_of, raw, sequence};
use inflightkv_core::{Cause, EntryView, FrozenItem, LoadedEntry, Version};
use std::collections::BTreeMap;

/// What the map holds of a key: expired entries too, until they are reclaimed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Held {
    pub(crate) value: Vec<u8>,
    /// `None` for an opaque value.
    pub(crate) json: Option<Json>,
    pub(crate) version: Version,
    pub(crate) sequence: u64,
    pub(crate) expires_at: Option<u64>,
}

impl Held {
    pub(crate) fn is_visible(&self, now: u64) -> bool {
        self.expires_at.is_none_or(|instant| now < instant)
    }

    pub(crate) fn media_type(&self) -> Option<&'static str> {
        if self.json.is_none() {
            Some("text/plain")
        } else {
            None
        }
    }

    pub(crate) fn check(&self, entry: EntryView<'_>) {
        assert_eq!(raw(entry), self.value);
        assert_eq!(entry.raw_len(), self.value.len());
        assert_eq!(entry.shared().is_some(), entry.stored().len() > 2048);
        assert_eq!(entry.media_type(), self.media_type());
        assert_eq!(entry.crc(), crc32fast::hash(&self.value));
        assert_eq!(entry.version(), self.version);
        assert_eq!(entry.sequence().get(), self.sequence);
        assert_eq!(entry.expires_at(), self.expires_at);
    }
}

pub(crate) type Map = BTreeMap<String, Held>;

/// A mutation as a log would keep it.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) key: String,
    pub(crate) removed: Option<Cause>,
    pub(crate) value: Vec<u8>,
    pub(crate) media_type: Option<String>,
    pub(crate) crc: u32,
    pub(crate) version: Version,
    pub(crate) expires_at: Option<u64>,
    pub(crate) sequence: u64,
}

pub(crate) fn replay<'a>(table: &mut Table, records: impl IntoIterator<Item = &'a Record>) {
    for record in records {
        let Record {
            key,
            removed,
            value,
            media_type,
            crc,
            version,
            expires_at,
            sequence: number,
        } = record;
        if removed.is_some() {
            table.unload(hash(key), key, sequence(*number));
        } else {
            let media_type = media_type.as_deref();
            let (crc, version, sequence, expires_at) =
                (*crc, *version, sequence(*number), *expires_at);
            let loaded = LoadedEntry {
                key,
                value,
                media_type,
                crc,
                version,
                sequence,
                expires_at,
                pinned: false,
            };
            table.load(hash(key), &loaded);
        }
    }
}

pub(crate) fn check_visible(table: &Table, map: &Map, now: u64, what: &str) {
    for key in KEYS {
        let held = map.get(key).filter(|held| held.is_visible(now));
        let entry = table.get(key, hash(key), now);
        assert_eq!(entry.is_some(), held.is_some(), "{what}: {key:?} at {now}");
        if let (Some(entry), Some(held)) = (entry, held) {
            held.check(entry);
        }
    }
}

/// A freeze in force: what it must meet, and what it has met.
pub(crate) struct Freeze {
    pub(crate) cut: u64,
    pub(crate) since: Option<u64>,
    pub(crate) now: u64,
    /// All of it, for the restored copy.
    pub(crate) map: Map,
    pub(crate) entries: Map,
    pub(crate) removals: Vec<(String, u64)>,
    pub(crate) met: Vec<String>,
    pub(crate) met_removals: Vec<(String, u64)>,
    /// What was met, as a snapshot would keep it.
    pub(crate) records: Vec<Record>,
    /// Removals were kept from the cut on, so an increment may follow.
    pub(crate) is_base: bool,
}

impl Freeze {
    pub(crate) fn meet(&mut self, item: FrozenItem<'_>) {
        match item {
            FrozenItem::Entry(entry) => {
                let key = &key_of(entry);
                assert!(
                    !self.met.iter().any(|met| met == key),
                    "{key:?} is met twice"
                );
                let Some(held) = self.entries.get(key) else {
                    panic!("{key:?} is not of this cut")
                };
                held.check(entry);
                self.met.push(key.to_owned());
                self.records.push(Record {
                    key: key.to_owned(),
                    removed: None,
                    value: raw(entry),
                    media_type: entry.media_type().map(str::to_owned),
                    crc: entry.crc(),
                    version: entry.version(),
                    expires_at: entry.expires_at(),
                    sequence: entry.sequence().get(),
                });
            }
            FrozenItem::Tombstone { key, sequence } => {
                let since = self.since.expect("a full snapshot has no removals");
                assert!(
                    (since + 1..=self.cut).contains(&sequence.get()),
                    "{key:?} was not removed in between"
                );
                self.met_removals.push((key.to_owned(), sequence.get()));
                self.records.push(Record {
                    key: key.to_owned(),
                    removed: Some(Cause::Client),
                    value: Vec::new(),
                    media_type: None,
                    crc: 0,
                    version: 0,
                    expires_at: None,
                    sequence: sequence.get(),
                });
            }
        }
    }
}
