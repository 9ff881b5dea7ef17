//! The logs of one process, one after the other: persistence can be turned off and on while it runs.
//!
//! Whoever has looked up a log may go on using it, so a log that is no longer in use stays until the process ends; it has
//! been shut down and costs its empty buffers. That bounds how often persistence can be turned on in one process.

use inflightkv_wal::Wal;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How often a log can be begun in one process.
pub(crate) const LOGS_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Logs {
    slots: Box<[OnceLock<Wal>]>,
    /// Which is in use, counted from 1; 0 for none.
    active: AtomicUsize,
}

impl Logs {
    pub(crate) fn new() -> Self {
        Self {
            slots: (0..LOGS_MAX).map(|_| OnceLock::new()).collect(),
            active: AtomicUsize::new(0),
        }
    }

    /// The log in use.
    #[inline]
    pub(crate) fn get(&self) -> Option<&Wal> {
        match self.active.load(Ordering::Acquire) {
            0 => None,
            number => self.slots[number - 1].get(),
        }
    }

    /// Which log is in use, for whoever has its writer; 0 for none.
    pub(crate) fn number(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// Keeps a log, not yet in use, and says under which number; `None` when there were too many.
    pub(crate) fn keep(&self, mut log: Wal) -> Option<usize> {
        for (slot, number) in self.slots.iter().zip(1..) {
            match slot.set(log) {
                Ok(()) => return Some(number),
                Err(taken) => log = taken,
            }
        }
        None
    }

    pub(crate) fn numbered(&self, number: usize) -> Option<&Wal> {
        self.slots.get(number.checked_sub(1)?)?.get()
    }

    /// The log begun last.
    pub(crate) fn last(&self) -> Option<&Wal> {
        self.slots.iter().rev().find_map(OnceLock::get)
    }

    /// Whether another log can be begun.
    pub(crate) fn has_room(&self) -> bool {
        self.slots.iter().any(|slot| slot.get().is_none())
    }

    /// Uses the log `number`, or none. Under every partition's lock, once the store serves.
    pub(crate) fn activate(&self, number: usize) {
        self.active.store(number, Ordering::Release);
    }
}
