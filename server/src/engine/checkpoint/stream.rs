//! A backup on its way to its reader: pieces of the stream, as many as fit, and its end.

use super::CheckpointError;
use crate::engine::{Engine, Readiness, Shared};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Bytes that may wait for the reader; one piece more than fits may, so that a large value passes.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Backups being made or waiting; each waiting one costs a connection and nothing else.
const BACKUPS_MAX: usize = 8;

/// What the checkpointer fills and the reader empties.
#[derive(Default)]
pub(super) struct Stream(Mutex<State>);

#[derive(Default)]
struct State {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    end: Option<Result<(), CheckpointError>>,
    /// The reader is gone.
    left: bool,
    waker: Option<Waker>,
}

impl Stream {
    pub(super) fn push(&self, piece: Vec<u8>) {
        let mut state = self.0.lock();
        state.bytes += piece.len();
        state.pieces.push_back(piece.into());
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.0.lock().bytes < WAITING_BYTES_MAX
    }

    pub(super) fn is_left(&self) -> bool {
        self.0.lock().left
    }

    /// The first end counts.
    pub(super) fn end(&self, end: Result<(), CheckpointError>) {
        let mut state = self.0.lock();
        state.end.get_or_insert(end);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A backup being read: the store at one sequence as one stream, made no faster than it is read. Dropping it gives the
/// backup up.
pub struct Backup {
    shared: Arc<Shared>,
    stream: Arc<Stream>,
    ended: bool,
}

impl fmt::Debug for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Begins a backup, which is made while it is read; see `inflightkv_snapshot::backup` for its bytes. Its cut is taken
    /// when its turn has come, as one walk of the store is made at a time. It works with persistence off as well, and
    /// while the log has failed, when it may be what saves the data.
    ///
    /// # Errors
    /// The store does not serve, or as many backups as may are on their way.
    pub fn begin_backup(&self) -> Result<Backup, CheckpointError> {
        let shared = &self.shared;
        match shared.readiness() {
            Readiness::Ready | Readiness::DiskFull | Readiness::ReadOnly { .. } => {}
            readiness => return Err(CheckpointError::NotReady { readiness }),
        }
        let checkpointer = &shared.checkpointer;
        let mut control = checkpointer.control.lock();
        control.backups.retain(|stream| !stream.is_left());
        let found = control.backups.len() + usize::from(control.streaming.is_some());
        if found >= BACKUPS_MAX {
            return Err(CheckpointError::TooManyBackups { found });
        }
        let stream = Arc::new(Stream::default());
        control.backups.push_back(Arc::clone(&stream));
        drop(control);
        checkpointer.poke();
        Ok(Backup {
            shared: Arc::clone(shared),
            stream,
            ended: false,
        })
    }
}

impl Backup {
    /// The next piece, never an empty one; `None` behind the trailer. After an error nothing follows, and what was read
    /// is visibly cut off.
    pub fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, CheckpointError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut state = self.stream.0.lock();
        if let Some(piece) = state.pieces.pop_front() {
            let had_room = state.bytes < WAITING_BYTES_MAX;
            state.bytes -= piece.len();
            let has_room = state.bytes < WAITING_BYTES_MAX;
            drop(state);
            if has_room && !had_room {
                self.shared.checkpointer.poke();
            }
            return Poll::Ready(Some(Ok(piece)));
        }
        match state.end.take() {
            Some(end) => {
                drop(state);
                self.ended = true;
                Poll::Ready(end.err().map(Err))
            }
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        let pieces = {
            let mut state = self.stream.0.lock();
            state.left = true;
            std::mem::take(&mut state.pieces)
        };
        drop(pieces);
        self.shared.checkpointer.poke();
    }
}
