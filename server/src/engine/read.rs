//! Reads: one document, or a scan of many keys in bounded slices.

use super::partitions::Place;
use super::{Durability, Lane, NotServing, Reply, Shared};
use bytes::Bytes;
use inflightkv_core::{Cursor, Entry, Sequence, Slot, Version};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

/// A document as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Minified JSON, or opaque bytes.
    pub value: Bytes,
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

    /// Under the partition's lock: a large value is shared, a small one copied.
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            value: match entry.shared_value() {
                Some(value) => value.clone(),
                None => Bytes::copy_from_slice(entry.value()),
            },
            media_type: entry.media_type().map(str::to_owned),
            version: entry.version(),
            sequence: entry.sequence(),
            expires_at: entry.expires_at(),
            crc: entry.crc(),
        }
    }
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
}

/// A key that a scan meets. It is borrowed from a locked partition: copy what is needed and be quick.
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
    /// The value.
    pub value: &'a [u8],
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
    /// The store does not serve.
    pub fn get(&self, key: &str) -> Result<Reply<Option<Document>>, NotServing> {
        let shared = &*self.shared;
        shared.check_serving()?;
        let place = shared.partitions.place(key);
        let now = self.now();
        if !shared.syncs_always() {
            return Ok(Reply {
                value: shared.read(key, place, now),
                wait_for: None,
            });
        }
        // What is not durable must not be shown: a crash could take back what somebody has seen.
        let (value, shown) = shared.read_shown(key, place, now);
        Ok(Reply {
            value,
            wait_for: shared.wait_for(shown, Durability::Default),
        })
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
            let (next, end) = shared.partitions.with(partition, |table| {
                let next = table.partition.scan(slot, left, scan.prefix, now, |entry| {
                    let flow = visit(Row {
                        key: entry.key(),
                        version: entry.version(),
                        sequence: entry.sequence(),
                        expires_at: entry.expires_at(),
                        media_type: entry.media_type(),
                        value: entry.value(),
                    });
                    broke = flow.is_break();
                    flow
                });
                (next, table.partition.slot_end())
            });
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

impl Shared {
    pub(super) fn read(&self, key: &str, place: Place, now: u64) -> Option<Document> {
        self.partitions.with(place.partition, |table| {
            table.partition.get(key, place.hash, now).map(Document::of)
        })
    }

    /// The document, and the last change that showing it, or saying that there is none, shows.
    pub(super) fn read_shown(
        &self,
        key: &str,
        place: Place,
        now: u64,
    ) -> (Option<Document>, Sequence) {
        self.partitions.with(place.partition, |table| {
            match table.partition.get(key, place.hash, now) {
                Some(entry) => (Some(Document::of(entry)), entry.sequence()),
                None => (None, table.partition.absent_since(key, place.hash)),
            }
        })
    }
}
