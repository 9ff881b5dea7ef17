//! What a run of histories comes to: what does not hold, or how much was tried.

use std::fmt::Debug;

/// What does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) what: String,
    pub(crate) expected: String,
    pub(crate) found: String,
}

pub(crate) fn wrong(what: impl Into<String>, expected: impl Debug, found: impl Debug) -> Wrong {
    Wrong {
        what: what.into(),
        expected: format!("{expected:?}"),
        found: format!("{found:?}"),
    }
}

/// What a history came to, for whoever wants to know that something was tried at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) kills: u64,
    pub(crate) power_cuts: u64,
    /// Of both, those in the middle of a recovery.
    pub(crate) in_recovery: u64,
    pub(crate) closed: u64,
    pub(crate) changes: u64,
    /// Changes that were said to be durable and of which it was seen after a crash that they are.
    pub(crate) kept: u64,
    /// Changes that a crash took, as it may.
    pub(crate) taken: u64,
    pub(crate) full_snapshots: u64,
    pub(crate) increments: u64,
    pub(crate) snapshots_failed: u64,
    pub(crate) segments_retired: u64,
    pub(crate) segments_rewritten: u64,
    pub(crate) backups: u64,
    /// Restores that replaced everything, keys that were merged, backups that were refused.
    pub(crate) replaced: u64,
    pub(crate) merged: u64,
    pub(crate) restores_refused: u64,
    /// Passes of the compressor that changed how something is stored.
    pub(crate) recoded: u64,
    pub(crate) switched_off: u64,
    pub(crate) switched_on: u64,
    /// Records that the store that follows took, and how often it had to begin anew.
    pub(crate) followed: u64,
    pub(crate) followers_lost: u64,
    pub(crate) errors: u64,
    pub(crate) refused_read_only: u64,
    pub(crate) refused_disk_full: u64,
    pub(crate) refused_backlog: u64,
    pub(crate) refused_not_durable: u64,
    pub(crate) held: u64,
    pub(crate) expired_hidden: u64,
}

impl Tally {
    pub(crate) fn crashes(&self) -> u64 {
        self.kills + self.power_cuts
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        let sums = [
            (&mut self.kills, other.kills),
            (&mut self.power_cuts, other.power_cuts),
            (&mut self.in_recovery, other.in_recovery),
            (&mut self.closed, other.closed),
            (&mut self.changes, other.changes),
            (&mut self.kept, other.kept),
            (&mut self.taken, other.taken),
            (&mut self.full_snapshots, other.full_snapshots),
            (&mut self.increments, other.increments),
            (&mut self.snapshots_failed, other.snapshots_failed),
            (&mut self.segments_retired, other.segments_retired),
            (&mut self.segments_rewritten, other.segments_rewritten),
            (&mut self.backups, other.backups),
            (&mut self.replaced, other.replaced),
            (&mut self.merged, other.merged),
            (&mut self.restores_refused, other.restores_refused),
            (&mut self.recoded, other.recoded),
            (&mut self.switched_off, other.switched_off),
            (&mut self.switched_on, other.switched_on),
            (&mut self.followed, other.followed),
            (&mut self.followers_lost, other.followers_lost),
            (&mut self.errors, other.errors),
            (&mut self.refused_read_only, other.refused_read_only),
            (&mut self.refused_disk_full, other.refused_disk_full),
            (&mut self.refused_backlog, other.refused_backlog),
            (&mut self.refused_not_durable, other.refused_not_durable),
            (&mut self.held, other.held),
            (&mut self.expired_hidden, other.expired_hidden),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
    }
}
