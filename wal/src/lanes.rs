//! Hand-over buffers: where records wait, already encoded, until the writer takes them.
//!
//! A lane has its own short lock, held for copying one record or for swapping the whole buffer. Two buffers per lane
//! go back and forth between appenders and writer, so that nothing is allocated once they have grown to their size.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::format::{Lsn, RECORD_HEAD_LEN, RecordHead, TooLarge, encode_head};

/// A value on its way into the log.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// Copied at once: right for small values.
    Inline(&'a [u8]),
    /// Kept by reference until it is written: right from about 2 KiB on.
    Shared(Bytes),
}

/// Below this a shared value is copied all the same: a piece of its own costs the write more than the copy.
const SHARED_MIN: usize = 512;
/// A buffer that once had to be larger than this is given back after use.
const BATCH_BYTES_KEPT: usize = 4 << 20;
const BATCH_RECORDS_KEPT: usize = 64 << 10;
/// How far a lane's share of the queue may be ahead of the common count.
const REPORT_BYTES: u64 = 64 << 10;

/// Records in the order of their arrival.
#[derive(Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    records: Vec<Queued>,
    shared: Vec<Bytes>,
    /// Bytes of all records, shared values included.
    weight: u64,
}

/// Where a record is in its batch.
#[derive(Clone, Copy)]
struct Queued {
    lsn: Lsn,
    start: usize,
    /// Bytes in `bytes`; the value follows there or in `shared`.
    len: u32,
    /// Index into `shared`, or `NOT_SHARED`.
    shared: u32,
}

const NOT_SHARED: u32 = u32::MAX;

impl Batch {
    #[inline]
    fn push(&mut self, head: &[u8; RECORD_HEAD_LEN], of: &RecordHead<'_>, value: Value<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(head);
        if let Some(media_type) = of.media_type {
            self.bytes.extend_from_slice(media_type.as_bytes());
        }
        self.bytes.extend_from_slice(of.key.as_bytes());
        let mut shared = NOT_SHARED;
        match value {
            Value::Inline(value) => self.bytes.extend_from_slice(value),
            Value::Shared(value) if value.len() < SHARED_MIN => {
                self.bytes.extend_from_slice(&value);
            }
            Value::Shared(value) => {
                self.weight += value.len() as u64;
                shared = self.shared.len() as u32;
                self.shared.push(value);
            }
        }
        let len = (self.bytes.len() - start) as u32;
        self.weight += u64::from(len);
        self.records.push(Queued {
            lsn: of.lsn,
            start,
            len,
            shared,
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn lsn(&self, index: usize) -> Lsn {
        self.records[index].lsn
    }

    /// The record's bytes up to where its shared value follows, and that value.
    pub(crate) fn record(&self, index: usize) -> (&[u8], Option<&Bytes>) {
        let queued = &self.records[index];
        let bytes = &self.bytes[queued.start..queued.start + queued.len as usize];
        (bytes, self.shared.get(queued.shared as usize))
    }

    /// Bytes the record takes in the log.
    pub(crate) fn record_len(&self, index: usize) -> usize {
        let (bytes, shared) = self.record(index);
        bytes.len() + shared.map_or(0, Bytes::len)
    }

    /// Copies a record of `other` over.
    pub(crate) fn carry(&mut self, other: &Batch, index: usize) {
        let (bytes, value) = other.record(index);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        let mut shared = NOT_SHARED;
        if let Some(value) = value {
            shared = self.shared.len() as u32;
            self.shared.push(value.clone());
        }
        self.records.push(Queued {
            lsn: other.lsn(index),
            start,
            len: bytes.len() as u32,
            shared,
        });
        self.weight += other.record_len(index) as u64;
    }

    pub(crate) fn clear(&mut self) {
        if self.bytes.capacity() > BATCH_BYTES_KEPT || self.records.capacity() > BATCH_RECORDS_KEPT
        {
            *self = Batch::default();
            return;
        }
        self.bytes.clear();
        self.records.clear();
        self.shared.clear();
        self.weight = 0;
    }
}

/// All lanes, and how much waits in them.
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    /// Bytes handed over and not yet written. A lane adds its share in steps, so that appenders rarely meet here.
    queued: AtomicU64,
    report_bytes: u64,
}

/// Aligned so that two lanes never share a cache line (or a pair of them, which is what is fetched).
#[repr(align(128))]
struct Lane {
    state: Mutex<LaneState>,
}

#[derive(Default)]
struct LaneState {
    batch: Batch,
    /// The part of `batch.weight` that `queued` has.
    reported: u64,
    appends: u64,
    appended_bytes: u64,
}

impl Lanes {
    pub(crate) fn new(count: usize, queue_bytes_max: u64) -> Lanes {
        let lanes = (0..count)
            .map(|_| Lane {
                state: Mutex::new(LaneState::default()),
            })
            .collect();
        Lanes {
            lanes,
            queued: AtomicU64::new(0),
            report_bytes: (queue_bytes_max / (8 * count.max(1) as u64)).clamp(1, REPORT_BYTES),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.lanes.len()
    }

    /// Encodes a record into a lane and says how many bytes the lane has now.
    #[inline]
    pub(crate) fn append(
        &self,
        lane: usize,
        head: &RecordHead<'_>,
        value: Value<'_>,
    ) -> Result<u64, TooLarge> {
        let value_len = match &value {
            Value::Inline(value) => value.len(),
            Value::Shared(value) => value.len(),
        };
        let encoded = encode_head(head, value_len)?;
        let mut state = self.lock(lane);
        let before = state.batch.weight;
        state.batch.push(&encoded, head, value);
        let weight = state.batch.weight;
        state.appends += 1;
        state.appended_bytes += weight - before;
        let unreported = weight - state.reported;
        if unreported >= self.report_bytes {
            self.queued.fetch_add(unreported, Ordering::Relaxed);
            state.reported = weight;
        }
        Ok(weight)
    }

    /// Swaps the lane's buffer against `empty`.
    pub(crate) fn take(&self, lane: usize, empty: &mut Batch) {
        let mut state = self.lock(lane);
        if state.batch.records.is_empty() {
            return;
        }
        std::mem::swap(&mut state.batch, empty);
        let unreported = empty.weight - state.reported;
        state.reported = 0;
        self.queued.fetch_add(unreported, Ordering::Relaxed);
    }

    /// Whether no lane has a record.
    pub(crate) fn are_empty(&self) -> bool {
        (0..self.count()).all(|lane| self.lock(lane).batch.records.is_empty())
    }

    /// Takes note that `bytes` of what was taken are written.
    pub(crate) fn written(&self, bytes: u64) {
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// About how many bytes wait, for the check before each write.
    #[inline]
    pub(crate) fn queued_about(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Bytes that wait, records appended so far, and their bytes.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        let mut totals = (self.queued_about(), 0, 0);
        for lane in 0..self.count() {
            let state = self.lock(lane);
            totals.0 += state.batch.weight - state.reported;
            totals.1 += state.appends;
            totals.2 += state.appended_bytes;
        }
        totals
    }

    fn lock(&self, lane: usize) -> MutexGuard<'_, LaneState> {
        // Nothing in here panics half-way except for want of memory, which ends the process.
        self.lanes[lane]
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
