//! The active file: how it comes to be, takes frames, and is sealed.

use std::io::{self, IoSlice};

use crate::format::{HEADER_LEN, Lsn, SegmentHeader};
use crate::names;
use crate::retention::SegmentInfo;
use crate::storage::{CheckedFile, Storage};

/// Room for a segment that has no header yet.
pub(crate) struct Prepared {
    file: CheckedFile,
}

impl Prepared {
    /// Reserves room for `bytes`. Nothing of it needs to be durable yet.
    pub(crate) fn new(storage: &dyn Storage, bytes: u64) -> io::Result<Prepared> {
        discard(storage)?;
        let mut file = CheckedFile::new(storage.create(names::NEXT)?);
        if let Err(error) = file.allocate(bytes) {
            // What was reserved of it goes back; the error that counts is the first one.
            drop(file);
            let _ = discard(storage);
            return Err(error);
        }
        Ok(Prepared { file })
    }
}

/// Gives back room that was reserved and not used.
pub(crate) fn discard(storage: &dyn Storage) -> io::Result<()> {
    match storage.remove(names::NEXT) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A segment could not be begun.
pub(crate) struct BeginError {
    /// Whether the file may have its final name, so that the attempt cannot just be repeated.
    pub(crate) is_named: bool,
    pub(crate) error: io::Error,
}

/// The segment that takes frames.
pub(crate) struct Active {
    file: CheckedFile,
    header: SegmentHeader,
    /// Where the next frame goes.
    offset: u64,
    last_lsn: Lsn,
}

impl Active {
    /// Makes `prepared` the segment of `header`. When this returns, header and name are durable.
    pub(crate) fn begin(
        storage: &dyn Storage,
        prepared: Prepared,
        header: SegmentHeader,
    ) -> Result<Active, BeginError> {
        let Prepared { mut file } = prepared;
        file.write_at(0, &[IoSlice::new(&header.encode())])
            .and_then(|()| file.sync())
            .map_err(|error| BeginError {
                is_named: false,
                error,
            })?;
        storage
            .rename(names::NEXT, &names::segment(header.number))
            .and_then(|()| storage.sync_dir())
            .map_err(|error| BeginError {
                is_named: true,
                error,
            })?;
        Ok(Active {
            file,
            header,
            offset: HEADER_LEN as u64,
            last_lsn: header.follows,
        })
    }

    pub(crate) fn number(&self) -> u64 {
        self.header.number
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn has_frames(&self) -> bool {
        self.offset > HEADER_LEN as u64
    }

    pub(crate) fn created_at_ms(&self) -> u64 {
        self.header.created_at_ms
    }

    /// Writes a piece of a frame, `at` bytes into it.
    pub(crate) fn write(&mut self, at: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.file.write_at(self.offset + at, parts)
    }

    /// All pieces of a frame of `stride` bytes are written; `last_lsn` is its last record.
    pub(crate) fn advance(&mut self, stride: u64, last_lsn: Lsn) {
        self.offset += stride;
        self.last_lsn = last_lsn;
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    /// Cuts the file to its whole frames and makes that durable, which makes every frame in it durable.
    pub(crate) fn seal(&mut self) -> io::Result<()> {
        self.file.seal(self.offset)
    }

    pub(crate) fn info(&self) -> SegmentInfo {
        SegmentInfo {
            number: self.header.number,
            first_lsn: self.header.first_lsn,
            last_lsn: self.last_lsn,
            follows: self.header.follows,
            bytes: self.offset,
            created_at_ms: self.header.created_at_ms,
            codec: self.header.codec,
        }
    }
}
