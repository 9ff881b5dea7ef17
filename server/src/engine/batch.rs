//! Many operations of one request, each on its own, in the order sent.

use super::damage::FoundBy;
use super::read::Document;
use super::write::{Change, Durability, Judged, Outcome, PatchTtl, PutTtl, Value, WriteError};
use super::{Lane, Reply};
use bytes::Bytes;
use inflightkv_core::{Conditions, EtagCondition, PatchKind, Sequence, VersionCondition};

/// One operation of a batch. It owns what it needs: a batch is parsed whole before any of it is done.
#[derive(Clone, Debug)]
pub struct BatchOperation {
    /// The key.
    pub key: String,
    /// What is to be done with it.
    pub kind: BatchKind,
    /// What must hold for it.
    pub conditions: OwnedConditions,
    /// Whether a key that is written is exempt from eviction from now on; `None` leaves that as it is.
    pub pin: Option<bool>,
}

/// What one operation of a batch does.
#[derive(Clone, Debug)]
pub enum BatchKind {
    /// Read the document.
    Get,
    /// Set the value.
    Put {
        /// The value.
        value: Value,
        /// What becomes of the expiry.
        ttl: PutTtl,
    },
    /// Change a part of it.
    Patch {
        /// How the patch is meant.
        kind: PatchKind,
        /// Minified, valid JSON.
        patch: Bytes,
        /// What becomes of the expiry.
        ttl: PatchTtl,
    },
    /// Remove the key.
    Delete,
}

/// [`Conditions`] that own what they compare with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedConditions {
    /// `ifMatch`.
    pub if_match: Option<OwnedEtagCondition>,
    /// `ifVersion`.
    pub version: Option<VersionCondition>,
    /// `ifNoneMatch`.
    pub if_none_match: Option<OwnedEtagCondition>,
}

/// [`EtagCondition`] that owns its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedEtagCondition {
    /// `*`: the key exists.
    Any,
    /// One of these.
    OneOf(Vec<Sequence>),
}

impl BatchOperation {
    /// About how many bytes it may add.
    pub fn len(&self) -> usize {
        match &self.kind {
            BatchKind::Put { value, .. } => value.bytes.len(),
            BatchKind::Patch { patch, .. } => patch.len(),
            BatchKind::Get | BatchKind::Delete => 0,
        }
    }

    /// Whether it adds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl OwnedConditions {
    /// The conditions, borrowed.
    pub fn borrowed(&self) -> Conditions<'_> {
        fn etag(condition: &OwnedEtagCondition) -> EtagCondition<'_> {
            match condition {
                OwnedEtagCondition::Any => EtagCondition::Any,
                OwnedEtagCondition::OneOf(sequences) => EtagCondition::OneOf(sequences),
            }
        }
        Conditions {
            if_match: self.if_match.as_ref().map(etag),
            version: self.version,
            if_none_match: self.if_none_match.as_ref().map(etag),
        }
    }
}

/// What came of one operation.
#[derive(Clone, Debug)]
pub enum BatchResult {
    /// The document, if the key is there.
    Got(Option<Document>),
    /// What came of a write.
    Wrote(Outcome),
    /// The write alone could not be tried; the others were.
    Failed(WriteError),
}

impl Lane {
    /// Does every operation in the order sent and returns the results in that order. Each stands alone: a failed
    /// condition fails its own operation.
    ///
    /// The order is what others see and what the log has: no later operation is there without an earlier one, not for a
    /// reader and not after a crash. Going through them partition by partition would save nothing, as each takes its
    /// lock for itself.
    ///
    /// # Errors
    /// The store takes no writes, and nothing was done.
    pub fn batch(
        &self,
        operations: Vec<BatchOperation>,
        durability: Durability,
    ) -> Result<Reply<Vec<BatchResult>>, WriteError> {
        let shared = &*self.shared;
        let mut writing = None;
        if operations
            .iter()
            .any(|operation| !matches!(operation.kind, BatchKind::Get))
        {
            writing = Some(shared.role.begin_write(self.index)?);
            shared.admit()?;
            shared.check_durability(durability)?;
            if let Some(rules) = shared.rules.current() {
                shared.check_batch(&rules, &operations, self.now())?;
            }
        } else {
            shared
                .check_serving()
                .map_err(|error| super::Refusal::NotServing(error.readiness))?;
        }
        let mut results = Vec::with_capacity(operations.len());
        let mut last = Sequence::ZERO;
        for operation in operations {
            let (result, shown) = self.batch_one(operation);
            last = last.max(shown);
            results.push(result);
        }
        drop(writing);
        Ok(Reply {
            value: results,
            wait_for: shared.wait_for(last, durability),
        })
    }

    fn batch_one(&self, operation: BatchOperation) -> (BatchResult, Sequence) {
        let BatchOperation {
            key,
            kind,
            conditions,
            pin,
        } = operation;
        let change = match kind {
            BatchKind::Get => {
                // Not `get`: what the answer waits for is the batch's to say, not the store's.
                let shared = &*self.shared;
                let place = shared.partitions.place(&key);
                let (document, shown) = shared.read_shown(&key, place, self.now());
                let result = match shared.verified(&key, document, FoundBy::Batch) {
                    Ok(document) => BatchResult::Got(document),
                    Err(_) => BatchResult::Failed(WriteError::Damaged),
                };
                return (result, shown);
            }
            BatchKind::Put { value, ttl } => Change::Put { value, ttl },
            BatchKind::Patch { kind, patch, ttl } => Change::Patch { kind, patch, ttl },
            BatchKind::Delete => Change::Delete,
        };
        match self.write_admitted(&key, conditions.borrowed(), change, false, pin, Judged::Now) {
            Ok((outcome, shown)) => (BatchResult::Wrote(outcome), shown),
            Err(error) => (BatchResult::Failed(error), Sequence::ZERO),
        }
    }
}
