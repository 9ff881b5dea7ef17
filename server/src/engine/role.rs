//! Who takes writes: this store, or one that it follows, or one that it was handed over to.
//!
//! Handing over needs a moment at which no write is under way any more. A lane says so in a flag of its own before it
//! looks at the role, and whoever changes the role waits until it has seen every flag down: no lock, and nothing shared
//! that a writer would write to.

use super::Refusal;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;

const LEADS: u8 = 0;
const FOLLOWS: u8 = 1;
const HANDED_OVER: u8 = 2;

pub(crate) struct Role {
    state: AtomicU8,
    /// Why writes are refused, when they are.
    reason: Mutex<String>,
    writing: Box<[Writing]>,
}

/// Aligned so that two lanes never share a cache line.
#[repr(align(128))]
#[derive(Default)]
struct Writing(AtomicBool);

/// Held while a lane writes.
pub(crate) struct WriteGuard<'a>(&'a AtomicBool);

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Role {
    /// `lanes` are all that may write: those of loops, and two more for threads that are none.
    pub(crate) fn new(lanes: usize) -> Self {
        Self {
            state: AtomicU8::new(LEADS),
            reason: Mutex::default(),
            writing: (0..lanes).map(|_| Writing::default()).collect(),
        }
    }

    pub(crate) fn leads(&self) -> bool {
        self.state.load(Ordering::SeqCst) == LEADS
    }

    pub(crate) fn follows(&self) -> bool {
        self.state.load(Ordering::SeqCst) == FOLLOWS
    }

    /// Why writes are refused; `None` when they are taken.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        (!self.leads()).then(|| Refusal::ReadOnly {
            reason: self.reason.lock().clone(),
        })
    }

    /// A lane begins to write, if this store takes writes.
    #[inline]
    pub(crate) fn begin_write(&self, lane: usize) -> Result<WriteGuard<'_>, Refusal> {
        let writing = &self.writing[lane].0;
        // Flag first, role second; `change` does it the other way round, so one of the two sees the other.
        writing.store(true, Ordering::SeqCst);
        let guard = WriteGuard(writing);
        match self.refusal() {
            None => Ok(guard),
            Some(refusal) => Err(refusal),
        }
    }

    pub(crate) fn lead(&self) {
        self.state.store(LEADS, Ordering::SeqCst);
    }

    pub(crate) fn follow(&self, reason: String) {
        *self.reason.lock() = reason;
        self.state.store(FOLLOWS, Ordering::SeqCst);
    }

    /// No writes any more. When this returns, every write that was taken has been numbered and logged.
    pub(crate) fn hand_over(&self, reason: String) {
        *self.reason.lock() = reason;
        self.state.store(HANDED_OVER, Ordering::SeqCst);
        for writing in &self.writing {
            while writing.0.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// What is counted under a guard is complete when the role has changed.
    #[test]
    fn no_write_is_under_way_once_the_store_was_handed_over() {
        for _ in 0..50 {
            let role = Role::new(4);
            let written = AtomicU64::new(0);
            thread::scope(|scope| {
                for lane in 0..4 {
                    let (role, written) = (&role, &written);
                    scope.spawn(move || {
                        while let Ok(_guard) = role.begin_write(lane) {
                            written.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                while written.load(Ordering::Relaxed) < 100 {
                    thread::yield_now();
                }
                role.hand_over("moved".to_owned());
                let at_hand_over = written.load(Ordering::Relaxed);
                thread::yield_now();
                assert_eq!(written.load(Ordering::Relaxed), at_hand_over);
            });
            let refused = role.begin_write(0).err();
            assert!(matches!(refused, Some(Refusal::ReadOnly { reason }) if reason == "moved"));
            role.lead();
            assert!(role.begin_write(0).is_ok());
        }
    }
}
