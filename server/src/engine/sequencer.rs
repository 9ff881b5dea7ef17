//! One number for every change of the store, and the instant at which a snapshot cuts through it.
//!
//! The counter and the snapshot epoch share one atomic word. A writer takes its number and learns in the same
//! instruction whether a cut was made before it, so a snapshot needs no barrier over all partitions: whoever
//! first touches a partition under a new epoch, a writer or the walker, freezes it (see `checkpoint`).

use inflightkv_core::Sequence;
use std::sync::atomic::{AtomicU64, Ordering};

const EPOCH_SHIFT: u32 = 56;
const SEQUENCE_MASK: u64 = (1 << EPOCH_SHIFT) - 1;
const _: () = assert!(Sequence::MAX.get() == SEQUENCE_MASK);

/// How many snapshots were begun, modulo 256. Only equality with a partition's own epoch matters, and every
/// snapshot visits every partition before the next one begins.
pub(crate) type Epoch = u8;

/// A number for one change, and the epoch in which it was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) epoch: Epoch,
    pub(crate) sequence: Sequence,
}

#[derive(Debug, Default)]
pub(crate) struct Sequencer(AtomicU64);

fn split(word: u64) -> Ticket {
    Ticket {
        epoch: (word >> EPOCH_SHIFT) as Epoch,
        sequence: Sequence::from_raw(word & SEQUENCE_MASK),
    }
}

impl Sequencer {
    /// Goes on above `last`. Only for a store that nobody writes to yet.
    pub(crate) fn start_after(&self, last: Sequence) {
        self.0.store(last.get(), Ordering::SeqCst);
    }

    /// The number of the next change. Called under the lock of the partition that is changed.
    pub(crate) fn next(&self) -> Ticket {
        // AcqRel: what a cut published before it drew its epoch is visible to whoever sees that epoch.
        split(self.0.fetch_add(1, Ordering::AcqRel) + 1)
    }

    /// Takes over a number that another store gave, and says in which epoch that is. Called under the lock of the partition that is
    /// changed, by the only thread that takes numbers.
    pub(crate) fn advance_to(&self, sequence: Sequence) -> Epoch {
        let behind = sequence.get().saturating_sub(self.last().get());
        split(self.0.fetch_add(behind, Ordering::AcqRel)).epoch
    }

    /// Makes `first` the number of the next change, if all so far are below it. Under every partition's lock.
    pub(crate) fn leap(&self, first: Sequence) -> bool {
        let target = first.get() - 1;
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                let at = word & SEQUENCE_MASK;
                (at < target).then(|| word + (target - at))
            })
            .is_ok()
    }

    /// The number of the last change.
    pub(crate) fn last(&self) -> Sequence {
        split(self.0.load(Ordering::Acquire)).sequence
    }

    /// Begins a new epoch. Every change up to the returned sequence belongs to the old one, every later to the new.
    pub(crate) fn cut(&self) -> Ticket {
        let before = split(self.0.fetch_add(1 << EPOCH_SHIFT, Ordering::AcqRel));
        Ticket {
            epoch: before.epoch.wrapping_add(1),
            sequence: before.sequence,
        }
    }
}

/// The first sequence of a run of the store: above everything seen, and above everything that an earlier run can
/// have given to a client and then lost with an unsynced log, so that an entity tag is never used twice.
///
/// Time is the one counter that survives the loss of a disk's last second: a run that starts at millisecond `now`
/// begins at `now * 1024`, which earlier runs have not reached unless they made over a million changes a second on
/// average for all their life.
pub(crate) fn first_of_run(last_seen: Sequence, now: u64) -> Sequence {
    let by_time = now.saturating_mul(1024).min(SEQUENCE_MASK / 2);
    Sequence::from_raw(by_time.max(last_seen.get() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_parts_the_changes_before_it_from_those_after() {
        let sequencer = Sequencer::default();
        sequencer.start_after(Sequence::from_raw(10));
        assert_eq!(
            sequencer.next(),
            Ticket {
                epoch: 0,
                sequence: Sequence::from_raw(11)
            }
        );
        assert_eq!(
            sequencer.cut(),
            Ticket {
                epoch: 1,
                sequence: Sequence::from_raw(11)
            }
        );
        assert_eq!(
            sequencer.next(),
            Ticket {
                epoch: 1,
                sequence: Sequence::from_raw(12)
            }
        );
        assert_eq!(sequencer.last(), Sequence::from_raw(12));
    }

    #[test]
    fn epochs_wrap_without_touching_the_sequence() {
        let sequencer = Sequencer::default();
        sequencer.start_after(Sequence::from_raw(7));
        for round in 1..=600_u32 {
            assert_eq!(
                sequencer.cut(),
                Ticket {
                    epoch: (round % 256) as u8,
                    sequence: Sequence::from_raw(7)
                }
            );
        }
        assert_eq!(sequencer.next().sequence, Sequence::from_raw(8));
    }

    #[test]
    fn a_run_begins_above_everything_seen_and_above_what_time_allows_to_be_lost() {
        let seen = Sequence::from_raw(5);
        assert_eq!(first_of_run(seen, 0), Sequence::from_raw(6));
        assert_eq!(first_of_run(seen, 1_000), Sequence::from_raw(1_024_000));
        let ahead = Sequence::from_raw(9_000_000);
        assert_eq!(first_of_run(ahead, 1_000), Sequence::from_raw(9_000_001));
    }
}
