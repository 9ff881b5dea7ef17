//! Reads: one document, or a scan of many keys in bounded slices. What is stored coded is decoded outside the lock.

use super::coded::Seen;
use super::damage::FoundBy;
use super::partitions::{Place, Table};
use super::{Durability, Lane, NotServing, Reply, Shared};
use bytes::Bytes;
use inflightkv_core::{Cursor, EntryView, Sequence, Slot, Version};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

/// About what an entry takes beside its key and value.
const ENTRY_BYTES: usize = 20;

/// A document as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Minified JSON, or opaque bytes. Empty when [`get_zstd`](Lane::get_zstd) left it to `zstd`.
    pub value: Bytes,
    /// The value as one frame of Zstandard: only from [`get_zstd`](Lane::get_zstd), when it is stored so.
    pub zstd: Option<Bytes>,
    /// What is stored does not decode: memory is damaged.
    pub(super) undecodable: bool,
    /// `None` for JSON.
    pub media_type: Option<String>,
    /// How often the key was changed since it was created.
    pub version: Version,
    /// The number of its last change.
    pub sequence: Sequence,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_at: Option<u64>,
    /// CRC-32 (IEEE) of the value.
    pub crc: u32,
}

impl Document {
    /// Milliseconds that the document has left at `now`.
    pub fn ttl_ms(&self, now: u64) -> Option<u64> {
        self.expires_at
            .map(|expires_at| expires_at.saturating_sub(now))
    }

    /// Whether the value is the one that was stored.
    pub(super) fn is_sound(&self) -> bool {
        !self.undecodable && crc32fast::hash(&self.value) == self.crc
    }
}

/// Why a document is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store does not serve.
    #[error(transparent)]
    NotServing(#[from] NotServing),
    /// The value in memory does not have the checksum that it was stored with.
    #[error("the value does not have the checksum that it was stored with")]
    Damaged,
}

/// A slice of a scan.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// Only keys that begin so.
    pub prefix: &'a str,
    /// Where the slice before ended; `None` to begin.
    pub from: Option<Cursor>,
    /// Places of the table to look at, at most; bounds the time the slice takes.
    pub examine_max: usize,
    /// Whether the rows show their values. Those that are stored compressed are decompressed for it.
    pub values: bool,
}

/// A key that a scan meets. It may be borrowed from a locked partition: copy what is needed and be quick.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The key.
    pub key: &'a str,
    /// Its version.
    pub version: Version,
    /// The number of its last change.
    pub sequence: Sequence,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_at: Option<u64>,
    /// `None` for JSON.
    pub media_type: Option<&'a str>,
    /// The value; empty when the scan shows none.
    pub value: &'a [u8],
    /// Its length in bytes, also when it is not shown.
    pub value_len: usize,
    /// CRC-32 (IEEE) that the value was stored with.
    pub crc: u32,
}

impl Row<'_> {
    /// Whether the value is the one that was stored.
    pub fn is_sound(&self) -> bool {
        crc32fast::hash(self.value) == self.crc
    }
}

/// Why a scan cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The store does not serve.
    #[error(transparent)]
    NotServing(#[from] NotServing),
    /// The cursor is not of this run of the store.
    #[error("the cursor is from another run of the store: begin the listing again")]
    ForeignCursor,
}

impl Lane {
    /// The document of `key`, if it is there.
    ///
    /// # Errors
    /// The store does not serve, or the value is damaged.
    pub fn get(&self, key: &str) -> Result<Reply<Option<Document>>, ReadError> {
        self.get_as(key, Seen::decode)
    }

    /// Like [`get`](Self::get); a value that is stored as one frame of Zstandard, which anybody can read, comes as that.
    ///
    /// # Errors
    /// The store does not serve, or the value is damaged.
    pub fn get_zstd(&self, key: &str) -> Result<Reply<Option<Document>>, ReadError> {
        let mut reply = self.get_as(key, Seen::decode_with_frame)?;
        if let Some(document) = &mut reply.value
            && document.zstd.is_some()
        {
            document.value = Bytes::new();
        }
        Ok(reply)
    }

    fn get_as(
        &self,
        key: &str,
        decode: impl FnOnce(Seen) -> Document,
    ) -> Result<Reply<Option<Document>>, ReadError> {
        let shared = &*self.shared;
        shared.check_serving()?;
        let place = shared.partitions.place(key);
        let (seen, shown) = shared.look(key, place, self.now());
        let value = seen.map(decode);
        self.note_read(place, key, value.as_ref());
        let value = shared.verified(key, value, FoundBy::Read)?;
        Ok(Reply {
            value,
            // What is not durable must not be shown: a crash could take back what somebody has seen.
            wait_for: if shared.syncs_always() {
                shared.wait_for(shown, Durability::Default)
            } else {
                None
            },
        })
    }

    /// Counts a read, for the hit ratio there is and those there could be.
    fn note_read(&self, place: Place, key: &str, value: Option<&Document>) {
        self.shared.homes[self.index].count_read(value.is_some());
        let bytes = value.map(|document| ENTRY_BYTES + key.len() + document.value.len());
        self.shared
            .advisor
            .read(place.hash, bytes, || self.shared.reads());
    }

    /// Visits a slice of the keys and says where to go on; `None` at the end. When `visit` breaks, the next slice begins
    /// behind the key it was shown. A key that is there from the first slice to the last is met exactly once.
    ///
    /// # Errors
    /// The store does not serve, or the cursor is not of this run.
    pub fn scan(
        &self,
        scan: &Scan<'_>,
        visit: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Cursor>, ScanError> {
        let shared = &*self.shared;
        shared.check_serving()?;
        let incarnation = shared.incarnation.load(Ordering::Relaxed);
        let (mut partition, mut slot) = match scan.from {
            None => (0, Slot::new(0)),
            Some(cursor)
                if cursor.incarnation == incarnation
                    && (cursor.partition as usize) < shared.partitions.count() =>
            {
                (cursor.partition as usize, Slot::new(cursor.slot))
            }
            Some(_) => return Err(ScanError::ForeignCursor),
        };
        let now = self.now();
        let mut left = scan.examine_max.max(1);
        let mut broke = false;
        while left > 0 && !broke && partition < shared.partitions.count() {
            // A coded value ends the hold of the lock: it is decoded and shown outside, then the scan goes on behind it.
            let mut coded = None;
            let (next, end) = shared.partitions.with(partition, |table| {
                let Table {
                    partition, codings, ..
                } = table;
                let mut buffer = String::new();
                let next = partition.scan(slot, left, scan.prefix, now, |entry| {
                    let key = codings.key_of(entry, &mut buffer);
                    if scan.values && entry.coding().is_some() {
                        coded = Some((key.to_owned(), Seen::of(entry, codings)));
                        return ControlFlow::Break(());
                    }
                    let flow = visit(Row {
                        value: if scan.values { entry.stored() } else { &[] },
                        ..Row::of(entry, key)
                    });
                    broke = flow.is_break();
                    flow
                });
                (next, partition.slot_end())
            });
            if let Some((key, seen)) = coded {
                let document = seen.decode();
                let flow = visit(Row {
                    key: &key,
                    version: document.version,
                    sequence: document.sequence,
                    expires_at: document.expires_at,
                    media_type: document.media_type.as_deref(),
                    value: &document.value,
                    value_len: document.value.len(),
                    // Nothing decoded: nothing that could be shown has this checksum.
                    crc: if document.undecodable {
                        !document.crc
                    } else {
                        document.crc
                    },
                });
                broke = flow.is_break();
            }
            // An empty partition costs a look as well: it counts as one.
            let stopped = next.unwrap_or(end).get();
            left = left.saturating_sub(stopped.saturating_sub(slot.get()).max(1) as usize);
            (partition, slot) = match next {
                Some(next) => (partition, next),
                None => (partition + 1, Slot::new(0)),
            };
        }
        let more = partition < shared.partitions.count();
        // The partition count is at most 65,536.
        Ok(more.then(|| Cursor {
            incarnation,
            partition: partition as u32,
            slot: slot.get(),
        }))
    }

    /// What a listing made so far has to wait for, so that it shows nothing that is not durable.
    pub fn settled(&self) -> Option<Sequence> {
        self.shared
            .wait_for(self.shared.sequencer.last(), Durability::Default)
    }
}

impl<'a> Row<'a> {
    /// Without its value.
    fn of(entry: EntryView<'a>, key: &'a str) -> Self {
        Self {
            key,
            version: entry.version(),
            sequence: entry.sequence(),
            expires_at: entry.expires_at(),
            media_type: entry.media_type(),
            value: &[],
            value_len: entry.raw_len(),
            crc: entry.crc(),
        }
    }
}

impl Shared {
    /// The document, if it is the one that was stored. Outside the lock: it takes a while for a large value.
    pub(super) fn verified(
        &self,
        key: &str,
        document: Option<Document>,
        by: FoundBy,
    ) -> Result<Option<Document>, ReadError> {
        // A patch gives what it makes a checksum of its own: it never trusts what it was made of.
        let verifies = by == FoundBy::Patch || self.verify_reads.load(Ordering::Relaxed);
        match &document {
            Some(document) if document.undecodable || verifies && !document.is_sound() => {
                self.note_damage(key, by);
                Err(ReadError::Damaged)
            }
            _ => Ok(document),
        }
    }

    pub(super) fn read(&self, key: &str, place: Place, now: u64) -> Option<Document> {
        self.look(key, place, now).0.map(Seen::decode)
    }

    /// What is there, and the change that an answer about it depends on.
    fn look(&self, key: &str, place: Place, now: u64) -> (Option<Seen>, Sequence) {
        let warms = self.compressor.is_active();
        let (seen, shown, hot) = self.partitions.with(place.partition, |table| {
            let Some((slot, entry)) = table.partition.find(key, place.hash, now) else {
                return (None, table.partition.absent_since(key, place.hash), false);
            };
            let seen = Seen::of(entry, &table.codings);
            let shown = entry.sequence();
            let hot = warms && table.partition.warm(slot);
            table.uneven |= hot;
            table.ranking.read(slot, now);
            (Some(seen), shown, hot)
        });
        if hot {
            self.compressor.note();
        }
        (seen, shown)
    }

    /// Bytes that writing `key` anew would give back.
    pub(super) fn footprint(&self, key: &str, place: Place, now: u64) -> u64 {
        self.partitions.with(place.partition, |table| {
            let found = table.partition.find(key, place.hash, now);
            found.map_or(0, |(_, entry)| entry.footprint() as u64)
        })
    }

    /// The document, and the last change that showing it, or saying that there is none, shows.
    pub(super) fn read_shown(
        &self,
        key: &str,
        place: Place,
        now: u64,
    ) -> (Option<Document>, Sequence) {
        let (seen, shown) = self.look(key, place, now);
        (seen.map(Seen::decode), shown)
    }
}
