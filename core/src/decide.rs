//! What comes of a command about one key: conditions, then the change.

use crate::command::{
    Compared, Conditions, EtagCondition, Patch, PatchExpiry, Prepared, PutExpiry, VersionCondition,
};
use crate::entry::{Draft, DraftValue, Entry, KEY_BYTES_MAX, Sameness};
use crate::merge::{self, PatchError, PatchKind};
use crate::mutation::{Cause, Change, Mutation};
use crate::numbers::{Sequence, Slot, VERSION_MAX};
use crate::outcome::{Current, Decision, FailedCondition, Outcome};
use crate::view::EntryView;
use bytes::Bytes;

/// The first condition that does not hold, in the order of RFC 9110, section 13.2.2.
pub(crate) fn failed_condition(
    conditions: &Conditions<'_>,
    entry: Option<EntryView<'_>>,
) -> Option<FailedCondition> {
    let matches = |condition: &EtagCondition<'_>| match (condition, entry) {
        (_, None) => false,
        (EtagCondition::Any, Some(_)) => true,
        (EtagCondition::OneOf(sequences), Some(entry)) => sequences.contains(&entry.sequence()),
    };
    if conditions
        .if_match
        .as_ref()
        .is_some_and(|condition| !matches(condition))
    {
        return Some(FailedCondition::Match);
    }
    let version_holds = match (conditions.version, entry) {
        (None, _) | (Some(VersionCondition::Absent), None) => true,
        (Some(VersionCondition::Is(version)), Some(entry)) => entry.version() == version,
        (Some(_), _) => false,
    };
    if !version_holds {
        return Some(FailedCondition::Version);
    }
    conditions
        .if_none_match
        .as_ref()
        .is_some_and(matches)
        .then_some(FailedCondition::NoneMatch)
}

/// One decision about one key.
#[derive(Clone, Copy)]
pub(crate) struct Decider<'a> {
    pub(crate) hash: u64,
    /// Where the key is, expired or not.
    pub(crate) slot: Option<Slot>,
    /// What is visible of it.
    pub(crate) entry: Option<EntryView<'a>>,
    /// What an answer shows that says that the key is not there.
    pub(crate) gone_since: Sequence,
}

impl Decider<'_> {
    fn answer(self, outcome: Outcome, spent: Option<Entry>) -> Decision {
        let observed = self.entry.map_or(self.gone_since, EntryView::sequence);
        Decision {
            outcome,
            mutation: None,
            observed,
            spent,
        }
    }

    fn change(self, outcome: Outcome, change: Change) -> Decision {
        let mutation = Mutation {
            hash: self.hash,
            slot: self.slot,
            change,
        };
        Decision {
            outcome,
            mutation: Some(mutation),
            observed: Sequence::ZERO,
            spent: None,
        }
    }

    pub(crate) fn conflict(self, failed: FailedCondition, spent: Option<Entry>) -> Decision {
        let current = self.entry.map(|entry| Current {
            version: entry.version(),
            sequence: entry.sequence(),
        });
        self.answer(Outcome::Conflict { failed, current }, spent)
    }

    /// A missing key is missing whatever version was expected of it; only `If-Match` is owed a 412.
    pub(crate) fn delete(self, conditions: &Conditions<'_>) -> Decision {
        match (self.entry, failed_condition(conditions, self.entry)) {
            (None, Some(FailedCondition::Match)) => self.conflict(FailedCondition::Match, None),
            (None, _) => self.answer(Outcome::Missing, None),
            (Some(_), Some(failed)) => self.conflict(failed, None),
            (Some(entry), None) => self.change(
                Outcome::Deleted {
                    version: entry.version(),
                },
                Change::Delete(Cause::Client),
            ),
        }
    }

    pub(crate) fn put(
        self,
        mut draft: Entry,
        expiry: PutExpiry,
        compared: Option<Compared>,
    ) -> Decision {
        draft.settle_pin(self.entry.is_some_and(EntryView::is_pinned));
        if expiry == PutExpiry::Keep {
            draft.set_expiry(self.entry.and_then(EntryView::expires_at));
        }
        let Some(entry) = self.entry else {
            draft.set_version(0);
            return self.change(Outcome::Created { version: 0 }, Change::Put(draft));
        };
        let same = match (entry.same_value(&draft), compared) {
            _ if entry.expires_at() != draft.expires_at()
                || entry.is_pinned() != draft.is_pinned() =>
            {
                false
            }
            (Sameness::Unknown, Some(compared)) if compared.base == entry.sequence() => {
                compared.same
            }
            (Sameness::Unknown, _) => return self.answer(Outcome::Retry, Some(draft)),
            (sameness, _) => sameness == Sameness::Same,
        };
        if same {
            let (version, sequence, expires_at) =
                (entry.version(), entry.sequence(), entry.expires_at());
            return self.answer(
                Outcome::Unchanged {
                    version,
                    sequence,
                    expires_at,
                },
                Some(draft),
            );
        }
        let version = (entry.version() + 1).min(VERSION_MAX);
        draft.set_version(version);
        self.change(Outcome::Changed { version }, Change::Put(draft))
    }

    pub(crate) fn patch(self, key: &str, patch: Patch<'_>) -> Decision {
        let Patch {
            kind,
            document,
            expiry,
            pin,
            limits,
            prepared,
        } = patch;
        let unused =
            |prepared: Option<Prepared>| prepared.and_then(|prepared| prepared.result.ok());
        if self.entry.is_none() && kind == PatchKind::Json {
            return self.answer(Outcome::Missing, unused(prepared));
        }
        if self.entry.is_some_and(|entry| entry.media_type().is_some()) {
            return self.answer(Outcome::PatchFailed(PatchError::NotJson), unused(prepared));
        }
        let stale = match prepared {
            // What was computed against this very entry, its failure included, is what would be computed here.
            Some(prepared) if prepared.base == self.entry.map(EntryView::sequence) => {
                let same = prepared.same;
                let compared = prepared.base.map(|base| Compared { base, same });
                return match prepared.result {
                    Ok(draft) => self.put(draft, PutExpiry::Set, compared),
                    Err(error) => self.answer(Outcome::PatchFailed(error), None),
                };
            }
            stale => unused(stale),
        };
        if self.entry.is_some_and(|entry| entry.coding().is_some()) {
            return self.answer(Outcome::Retry, stale);
        }
        let stored = self.entry.map(EntryView::stored);
        if stored.map_or(0, <[u8]>::len) + document.len() > limits.inline_max {
            return self.answer(Outcome::Retry, stale);
        }
        let expires_at = match expiry {
            PatchExpiry::Keep => self.entry.and_then(EntryView::expires_at),
            PatchExpiry::Clear => None,
            PatchExpiry::At(instant) => Some(instant),
        };
        if self
            .entry
            .is_some_and(|entry| crc32fast::hash(entry.stored()) != entry.crc())
        {
            // A result would have a new checksum, and nobody would ever know.
            return self.answer(Outcome::PatchFailed(PatchError::Damaged), stale);
        }
        let value = match merge::patched(kind, stored, document, &limits) {
            Ok(value) => Bytes::from(value.into_boxed_slice()),
            Err(error) => return self.answer(Outcome::PatchFailed(error), stale),
        };
        let crc = crc32fast::hash(&value);
        let value = DraftValue::Shared(&value);
        let draft = Draft {
            key,
            value,
            media_type: None,
            crc,
            expires_at,
            reserve_expiry: false,
        };
        match Entry::draft(&draft) {
            Ok(mut draft) => {
                if let Some(pinned) = pin {
                    draft.set_pinned(pinned);
                }
                let mut decision = self.put(draft, PutExpiry::Set, None);
                decision.spent = decision.spent.or(stale);
                decision
            }
            Err(_) => {
                let failed = PatchError::TooLarge {
                    len: key.len(),
                    max: KEY_BYTES_MAX,
                };
                self.answer(Outcome::PatchFailed(failed), stale)
            }
        }
    }
}
