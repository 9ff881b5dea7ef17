//! From what the lanes gave, in any order, to frames in the order of their numbers.

use std::io::{self, IoSlice};

use crate::format::{FRAME_HEADER_LEN, FRAME_MAGIC, Lsn, padded};
use crate::lanes::Batch;
use crate::segment::Active;

/// How far ahead of the next number a record may be. Numbers are given under a lock and appended under the same
/// one, so the true distance is bounded by the queue; this only keeps a wrong number from asking for absurd memory.
const AHEAD_MAX: u64 = 1 << 24;
/// A list of places longer than this is given back after use.
const PLACES_KEPT: usize = 1 << 20;
/// Pieces handed to the system at once.
const PIECES_MAX: usize = 32;
/// A scratch buffer larger than this is given back after use.
const SCRATCH_BYTES_KEPT: usize = 4 << 20;

/// Where a record is: which batch, and its index there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    batch: u32,
    index: u32,
}

const NOWHERE: Place = Place {
    batch: u32::MAX,
    index: u32::MAX,
};

/// Records by number. Numbers are dense, so each has its place and nothing needs sorting.
#[derive(Default)]
pub(crate) struct Order {
    places: Vec<Place>,
    /// Records from the first one on without a gap.
    ready: usize,
    /// How many of those are written.
    written: usize,
}

impl Order {
    /// Arranges the records of `batches` from `next` on. A number that was used before, or makes no sense, is the caller's mistake
    /// and ends the log, because nothing after it could be put in order.
    pub(crate) fn arrange(&mut self, batches: &[Batch], next: Lsn) -> Result<(), String> {
        self.places.clear();
        self.ready = 0;
        self.written = 0;
        for (batch, records) in (0u32..).zip(batches) {
            for index in 0..records.len() {
                let lsn = records.lsn(index);
                let ahead = lsn.get().checked_sub(next.get());
                let Some(ahead) = ahead.filter(|ahead| *ahead < AHEAD_MAX) else {
                    return Err(format!(
                        "record {lsn} was appended while {next} was the next"
                    ));
                };
                let ahead = ahead as usize;
                if ahead >= self.places.len() {
                    self.places.resize(ahead + 1, NOWHERE);
                }
                if self.places[ahead] != NOWHERE {
                    return Err(format!("record {lsn} was appended twice"));
                }
                self.places[ahead] = Place {
                    batch,
                    index: index as u32,
                };
            }
        }
        self.ready = self
            .places
            .iter()
            .position(|place| *place == NOWHERE)
            .unwrap_or(self.places.len());
        Ok(())
    }

    /// Whether there are records to write.
    pub(crate) fn has_ready(&self) -> bool {
        self.written < self.ready
    }

    /// Records of the current batches that are written.
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    /// Their places.
    pub(crate) fn rest(&self) -> &[Place] {
        &self.places[self.written..self.ready]
    }

    pub(crate) fn advance(&mut self, count: usize) {
        self.written += count;
    }

    /// Everything that could be written is. Empties `batches` but for what waits for a missing number, which goes into the last one.
    pub(crate) fn keep_rest(&mut self, batches: &mut [Batch]) {
        let mut carried = Batch::default();
        for place in &self.places[self.ready..] {
            if *place != NOWHERE {
                carried.carry(&batches[place.batch as usize], place.index as usize);
            }
        }
        for batch in batches.iter_mut() {
            batch.clear();
        }
        if carried.len() > 0
            && let Some(last) = batches.last_mut()
        {
            *last = carried;
        }
        if self.places.capacity() > PLACES_KEPT {
            self.places = Vec::new();
        }
        self.places.clear();
        self.ready = 0;
        self.written = 0;
    }
}

/// One frame being put together: small things copied side by side, large values by reference between them.
#[derive(Default)]
pub(crate) struct Assembly {
    scratch: Vec<u8>,
    pieces: Vec<Piece>,
    payload_len: usize,
}

#[derive(Clone, Copy)]
enum Piece {
    /// Bytes of the scratch buffer.
    Copied { start: usize, end: usize },
    /// The shared value of the record at this place.
    Shared(Place),
}

impl Assembly {
    /// Begins a frame with the first of the records at `places`, and as many more as make at most `bytes_max`. Says how many it took.
    pub(crate) fn gather(
        &mut self,
        batches: &[Batch],
        places: &[Place],
        bytes_max: usize,
    ) -> usize {
        self.scratch.clear();
        self.pieces.clear();
        self.payload_len = 0;
        self.scratch.resize(FRAME_HEADER_LEN, 0);
        let mut start = 0;
        let mut count = 0;
        for place in places {
            let batch = &batches[place.batch as usize];
            let len = batch.record_len(place.index as usize);
            if count > 0 && self.payload_len + len > bytes_max {
                break;
            }
            let (bytes, shared) = batch.record(place.index as usize);
            self.scratch.extend_from_slice(bytes);
            if shared.is_some() {
                let end = self.scratch.len();
                self.pieces.push(Piece::Copied { start, end });
                self.pieces.push(Piece::Shared(*place));
                start = end;
            }
            self.payload_len += len;
            count += 1;
        }
        let padding = self.stride() as usize - FRAME_HEADER_LEN - self.payload_len;
        let end = self.scratch.len() + padding;
        self.scratch.resize(end, 0);
        if end > start {
            self.pieces.push(Piece::Copied { start, end });
        }
        count
    }

    pub(crate) fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// Bytes from this frame to the next.
    pub(crate) fn stride(&self) -> u64 {
        padded((FRAME_HEADER_LEN + self.payload_len) as u64)
    }

    pub(crate) fn set_header(&mut self, header: &[u8; FRAME_HEADER_LEN]) {
        debug_assert_eq!(header[..4], FRAME_MAGIC.to_le_bytes());
        self.scratch[..FRAME_HEADER_LEN].copy_from_slice(header);
    }

    /// Writes the frame to where `active` ends.
    pub(crate) fn write(&self, batches: &[Batch], active: &mut Active) -> io::Result<()> {
        let mut at = 0;
        for pieces in self.pieces.chunks(PIECES_MAX) {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let mut len = 0;
            for (slice, piece) in slices.iter_mut().zip(pieces) {
                let bytes = match *piece {
                    Piece::Copied { start, end } => &self.scratch[start..end],
                    Piece::Shared(place) => batches[place.batch as usize]
                        .record(place.index as usize)
                        .1
                        .map_or(&[][..], |value| value),
                };
                len += bytes.len() as u64;
                *slice = IoSlice::new(bytes);
            }
            active.write(at, &slices[..pieces.len()])?;
            at += len;
        }
        Ok(())
    }

    /// Gives back memory that a large frame took.
    pub(crate) fn trim(&mut self) {
        if self.scratch.capacity() > SCRATCH_BYTES_KEPT {
            self.scratch = Vec::new();
        }
    }
}
