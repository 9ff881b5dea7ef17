//! Values that do not have the checksum they were stored with: counted by who met them, told of, passed on by nobody. And
//! files that the scrub finds damaged.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Who met a damaged value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// A read of one key.
    Read,
    /// A read within a batch.
    Batch,
    /// A listing that shows values.
    Listing,
    /// A patch, which would have given the value a new checksum.
    Patch,
    /// A delete that shows what it removes.
    Delete,
    /// A snapshot.
    Snapshot,
    /// A backup.
    Backup,
    /// Reading everything back.
    Verify,
    /// The scrub, which reads everything back in the background.
    Scrub,
}

impl FoundBy {
    /// All of them, in the order of [`Stats::damaged`](super::Stats::damaged).
    pub const ALL: [Self; 9] = [
        Self::Read,
        Self::Batch,
        Self::Listing,
        Self::Patch,
        Self::Delete,
        Self::Snapshot,
        Self::Backup,
        Self::Verify,
        Self::Scrub,
    ];

    /// Its name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Batch => "batch",
            Self::Listing => "listing",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::Snapshot => "snapshot",
            Self::Backup => "backup",
            Self::Verify => "verify",
            Self::Scrub => "scrub",
        }
    }
}

/// What is not as it was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damaged<'a> {
    /// The value of this key, in memory.
    Value(&'a str),
    /// A file: which, where in it, and what was expected.
    File(&'a str),
}

/// Told of everything damaged that is met, and who met it. Called from any thread, event loops included,
/// while no lock is held; it must not wait.
#[derive(Clone)]
pub struct OnDamage(Arc<Tell>);

type Tell = dyn Fn(Damaged<'_>, FoundBy) + Send + Sync;

impl OnDamage {
    /// Calls `tell`.
    pub fn new(tell: impl Fn(Damaged<'_>, FoundBy) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl fmt::Debug for OnDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDamage").finish_non_exhaustive()
    }
}

/// What was met so far.
#[derive(Debug, Default)]
pub(super) struct Damage {
    met: [AtomicU64; FoundBy::ALL.len()],
}

impl Damage {
    /// How often damaged values were met by whom.
    pub(super) fn counts(&self) -> [(FoundBy, u64); FoundBy::ALL.len()] {
        FoundBy::ALL.map(|by| (by, self.met[by as usize].load(Ordering::Relaxed)))
    }
}

impl super::Shared {
    /// The value of `key` is damaged. Not under a partition's lock.
    pub(super) fn note_damage(&self, key: &str, by: FoundBy) {
        self.counters.damage.met[by as usize].fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            found_by = by.name(),
            "a value in memory does not have the checksum that it was stored with; it is not passed on"
        );
        if let Some(OnDamage(tell)) = &self.options.on_damage {
            tell(Damaged::Value(key), by);
        }
    }

    /// A file is damaged: `place` says which, where, and what was expected.
    pub(super) fn note_damaged_file(&self, place: &str, by: FoundBy) {
        tracing::error!(
            found_by = by.name(),
            damage = place,
            "a file does not hold what was written to it"
        );
        if let Some(OnDamage(tell)) = &self.options.on_damage {
            tell(Damaged::File(place), by);
        }
    }
}

impl super::Lane {
    /// A listing met a row that [is not sound](super::Row::is_sound): it is counted and told of.
    pub fn note_damaged_row(&self, key: &str) {
        self.shared.note_damage(key, FoundBy::Listing);
    }
}

#[cfg(test)]
impl super::Engine {
    /// Writes a value and changes its checksum behind the store's back, as if it had changed itself.
    pub(crate) fn plant_damage(&self, key: &str, value: &[u8]) {
        use super::write::{Change, PutTtl, Value, Write};
        let put = Change::Put {
            value: Value {
                bytes: bytes::Bytes::copy_from_slice(value),
                media_type: None,
            },
            ttl: PutTtl::Clear,
        };
        let write = Write {
            key,
            conditions: super::Conditions::default(),
            change: put,
            durability: super::Durability::Default,
            returning: false,
            pin: None,
        };
        self.lane(0).write(write).expect("it is taken");
        let shared = &self.shared;
        let place = shared.partitions.place(key);
        shared.partitions.with(place.partition, |table| {
            let entry = table.partition.get(key, place.hash, 0);
            let sequence = entry.expect("it was written").sequence();
            let after = super::Sequence::from_raw(sequence.get() + 1);
            let removed = table.partition.unload(place.hash, key, after);
            removed.expect("it is older");
            let loaded = super::LoadedEntry {
                key,
                value,
                media_type: None,
                crc: crc32fast::hash(value) ^ 1,
                version: 0,
                sequence,
                expires_at: None,
                pinned: false,
            };
            let planted = table.partition.load(place.hash, &loaded);
            planted.expect("there is nothing");
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::write::{Change, Write, WriteError};
    use super::super::*;
    use super::*;
    use bytes::Bytes;
    use std::ops::ControlFlow;

    type Met = Arc<Mutex<Vec<(String, FoundBy)>>>;

    fn store() -> (Engine, Met) {
        let met = Met::default();
        let told = Arc::clone(&met);
        let engine = Engine::open(Options {
            on_damage: Some(OnDamage::new(move |damaged, by| match damaged {
                Damaged::Value(key) => told.lock().push((key.to_owned(), by)),
                Damaged::File(place) => panic!("there are no files: {place}"),
            })),
            ..Options::default()
        })
        .expect("a store");
        engine.recover().expect("there is nothing to load");
        (engine, met)
    }

    fn write(change: Change) -> Write<'static> {
        Write {
            key: "bad",
            conditions: Conditions::default(),
            change,
            durability: Durability::Default,
            returning: true,
            pin: None,
        }
    }

    fn patch() -> Change {
        Change::Patch {
            kind: PatchKind::Merge,
            patch: Bytes::from_static(b"{\"b\":2}"),
            ttl: PatchTtl::Keep,
        }
    }

    fn operation(kind: BatchKind) -> BatchOperation {
        BatchOperation {
            key: "bad".to_owned(),
            kind,
            conditions: OwnedConditions::default(),
            pin: None,
        }
    }

    /// Small enough to be looked at under the lock, and too large for that.
    fn values() -> [Vec<u8>; 2] {
        [
            b"{\"a\":1}".to_vec(),
            [b"\"", &[b'x'; 10_000][..], b"\""].concat(),
        ]
    }

    #[test]
    fn a_damaged_value_is_passed_on_by_nobody() {
        for value in values() {
            let (engine, met) = store();
            engine.plant_damage("bad", &value);
            let lane = engine.lane(0);
            assert_eq!(lane.get("bad").map(|_| ()), Err(ReadError::Damaged));
            let kind = BatchKind::Patch {
                kind: PatchKind::Merge,
                patch: Bytes::from_static(b"{}"),
                ttl: PatchTtl::Keep,
            };
            let operations = vec![operation(BatchKind::Get), operation(kind)];
            let results = lane.batch(operations, Durability::Default);
            for result in results.expect("a batch of its own").value {
                assert!(
                    matches!(result, BatchResult::Failed(WriteError::Damaged)),
                    "{result:?}"
                );
            }
            for change in [patch(), Change::Delete] {
                let refused = lane.write(write(change)).map(|_| ());
                assert_eq!(refused, Err(WriteError::Damaged));
            }
            let scan = Scan {
                prefix: "",
                from: None,
                examine_max: usize::MAX,
                values: true,
            };
            let mut rows = Vec::new();
            let mut visit = |row: Row<'_>| {
                rows.push(row.is_sound());
                ControlFlow::Continue(())
            };
            lane.scan(&scan, &mut visit).expect("a scan");
            assert_eq!(rows, [false]);
            lane.note_damaged_row("bad");
            let by = [
                FoundBy::Read,
                FoundBy::Batch,
                FoundBy::Patch,
                FoundBy::Patch,
                FoundBy::Delete,
                FoundBy::Listing,
            ];
            let wanted = by.map(|by| ("bad".to_owned(), by));
            assert_eq!(*met.lock(), wanted);
            for (by, count) in engine.stats().damaged {
                let wanted = wanted.iter().filter(|(_, met)| *met == by).count();
                assert_eq!(count, wanted as u64, "{by:?}");
            }
        }
    }

    /// Not verifying reads lets values be seen as they are; what a patch makes of one would be taken for good.
    #[test]
    fn a_patch_verifies_whatever_is_set() {
        for value in values() {
            let (engine, met) = store();
            engine.plant_damage("bad", &value);
            engine.set_verify_reads(false);
            let lane = engine.lane(0);
            assert!(lane.get("bad").is_ok());
            let refused = lane.write(write(patch())).map(|_| ());
            assert_eq!(refused, Err(WriteError::Damaged));
            assert_eq!(*met.lock(), [("bad".to_owned(), FoundBy::Patch)]);
            let removed = lane.write(write(Change::Delete)).map(|reply| reply.value);
            assert!(matches!(removed, Ok(Outcome::Deleted(_))), "{removed:?}");
        }
    }

    /// The way out: a put and a delete that show nothing ask nothing of what is there.
    #[test]
    fn a_damaged_value_can_be_replaced_and_removed() {
        let (engine, met) = store();
        let lane = engine.lane(0);
        engine.plant_damage("bad", b"{}");
        let put = Change::Put {
            value: Value {
                bytes: Bytes::from_static(b"{}"),
                media_type: None,
            },
            ttl: PutTtl::Clear,
        };
        let changed = lane.write(write(put)).expect("a write").value;
        assert!(matches!(changed, Outcome::Changed(_)), "{changed:?}");
        assert!(lane.get("bad").is_ok());
        engine.plant_damage("bad", b"{}");
        let delete = Write {
            returning: false,
            ..write(Change::Delete)
        };
        let removed = lane.write(delete).expect("a write").value;
        assert!(matches!(removed, Outcome::Deleted(_)), "{removed:?}");
        assert!(met.lock().is_empty());
    }
}
