//! Entries in; complete or invisible out: the parts first, the manifest last.

use std::io;
use std::sync::Arc;

use crate::codec::BlockCodec;
use crate::entry::BlockBuilder;
use crate::error::WriteError;
use crate::format::manifest as format;
use crate::format::part::PartHeader;
use crate::manifest::{Kind, Manifest, PARTS_MAX, Parent, StoreId, Totals};
use crate::names::{self, Name};
use crate::options::Options;
use crate::part_writer::PartWriter;
use crate::storage::Storage;

/// What is going to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The store that writes.
    pub store_id: StoreId,
    /// Above every id in the folder: [`chain::next_id`](crate::chain::next_id) says which.
    pub id: u64,
    /// What the increment builds on; none for a full snapshot.
    pub parent: Option<Parent>,
    /// The snapshot holds every change up to this sequence, and none above.
    pub cut: u64,
    /// Now, in milliseconds since the epoch.
    pub created_at_ms: u64,
    /// How many partitions the store has, for the record.
    pub partitions: u32,
    /// How many files to divide it among, from 1 to 4,096.
    pub parts: usize,
}

impl Plan {
    /// Full or incremental.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.parent {
            None => Kind::Full,
            Some(_) => Kind::Incremental,
        }
    }

    fn check(&self) -> Result<(), WriteError> {
        if !(1..=PARTS_MAX).contains(&self.parts) {
            return Err(WriteError::Setting {
                name: "parts",
                found: self.parts.to_string(),
                expected: format!("from 1 to {PARTS_MAX}"),
            });
        }
        if let Some(parent) = self.parent
            && (parent.id >= self.id || parent.cut > self.cut)
        {
            return Err(WriteError::Setting {
                name: "parent",
                found: format!("snapshot {} and its cut {}", parent.id, parent.cut),
                expected: format!("one below snapshot {} and its cut {}", self.id, self.cut),
            });
        }
        Ok(())
    }
}

/// A snapshot being written. Until [`finish`](SnapshotWriter::finish) nobody can see it; dropped before,
/// it leaves files for [`chain::sweep`](crate::chain::sweep).
pub struct SnapshotWriter {
    storage: Arc<dyn Storage>,
    codec: Arc<dyn BlockCodec>,
    plan: Plan,
    options: Options,
    taken: Vec<bool>,
}

impl SnapshotWriter {
    /// Checks the plan against the folder. Nothing is written yet.
    ///
    /// # Errors
    /// When the plan or an option is out of bounds, the id is not above every other, or the parent is
    /// not there.
    pub fn begin(
        storage: Arc<dyn Storage>,
        plan: Plan,
        codec: Arc<dyn BlockCodec>,
        options: Options,
    ) -> Result<Self, WriteError> {
        plan.check()?;
        options.check()?;
        let names = list(&*storage)?;
        let newest = names
            .iter()
            .filter_map(|name| names::parse(name))
            .map(Name::id)
            .max();
        if let Some(newest) = newest.filter(|&newest| newest >= plan.id) {
            return Err(WriteError::Setting {
                name: "id",
                found: plan.id.to_string(),
                expected: format!("an id above {newest}, the newest in the folder"),
            });
        }
        let writer = Self {
            storage,
            codec,
            plan,
            options,
            taken: vec![false; plan.parts],
        };
        writer.parent_among(&names)?;
        Ok(writer)
    }

    /// What is being written.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A builder that cuts blocks as this snapshot's options say.
    #[must_use]
    pub fn block_builder(&self) -> BlockBuilder {
        BlockBuilder::new(self.options)
    }

    /// Creates the file of part `number`. Every part of the plan must be taken once, even if it stays
    /// without entries; each can be written on a thread of its own.
    ///
    /// # Errors
    /// When there is no such part, it was taken before, or the disk fails.
    pub fn part(&mut self, number: usize) -> Result<PartWriter, WriteError> {
        match self.taken.get_mut(number) {
            Some(taken) if !*taken => *taken = true,
            _ => {
                return Err(WriteError::PartTaken {
                    part: number,
                    parts: self.plan.parts,
                });
            }
        }
        // No part number is above PARTS_MAX, so the cast loses nothing.
        let number = number as u32;
        let header = PartHeader {
            store_id: self.plan.store_id,
            snapshot: self.plan.id,
            number,
            kind: self.plan.kind(),
            cut: self.plan.cut,
            parent_cut: self.plan.parent.map_or(0, |parent| parent.cut),
        };
        let name = names::part(self.plan.id, number);
        PartWriter::create(&*self.storage, name, header, Arc::clone(&self.codec))
    }

    /// Seals the parts that are not sealed yet, and then makes the snapshot visible and durable.
    ///
    /// After an error the snapshot is either not visible, and its files wait for
    /// [`chain::sweep`](crate::chain::sweep), or whole: the very last sync may fail when nothing is
    /// missing any more. The caller goes on from the snapshot before, with a new id.
    ///
    /// # Errors
    /// When a part is missing, a file or the parent was removed meanwhile, or the disk fails.
    pub fn finish(self, mut parts: Vec<PartWriter>) -> Result<Manifest, WriteError> {
        parts.sort_by_key(PartWriter::number);
        for number in 0..self.plan.parts.max(parts.len()) {
            let ours = parts.get(number).is_some_and(|part| {
                part.number() == number
                    && part.belongs_to(&self.plan.store_id, self.plan.id)
                    && number < self.plan.parts
            });
            if !ours {
                return Err(WriteError::PartMissing { part: number });
            }
        }
        let parts = parts
            .into_iter()
            .map(PartWriter::into_sealed)
            .collect::<Result<Vec<_>, _>>()?;
        let manifest = Manifest {
            store_id: self.plan.store_id,
            id: self.plan.id,
            parent: self.plan.parent,
            cut: self.plan.cut,
            created_at_ms: self.plan.created_at_ms,
            partitions: self.plan.partitions,
            totals: Totals::of(&parts),
            parts,
        };
        // A sweep that ran in spite of its contract must not end in a manifest without files.
        let names = list(&*self.storage)?;
        self.parent_among(&names)?;
        if let Some(gone) = manifest
            .parts
            .iter()
            .find(|part| !names.contains(&part.name))
        {
            return Err(WriteError::FileGone {
                file: gone.name.clone(),
            });
        }
        self.publish(&manifest)?;
        Ok(manifest)
    }

    /// The order of these steps is what `FORMAT.md`, "Writing", promises.
    fn publish(&self, manifest: &Manifest) -> Result<(), WriteError> {
        let temporary = names::temporary(self.plan.id);
        let named = |source| WriteError::Io {
            file: temporary.clone(),
            source,
        };
        let mut file = self.storage.create(&temporary).map_err(named)?;
        file.write_at(0, &format::encode(manifest)).map_err(named)?;
        file.sync().map_err(named)?;
        drop(file);
        self.storage.sync_dir().map_err(folder)?;
        let visible = names::manifest(self.plan.id);
        self.storage.rename(&temporary, &visible).map_err(named)?;
        self.storage.sync_dir().map_err(folder)
    }

    /// Removes what was written. The parts that were handed out are of no use any more.
    ///
    /// # Errors
    /// When the disk fails; a sweep removes what is left.
    pub fn abort(self) -> Result<(), WriteError> {
        for (number, _) in (0..).zip(&self.taken).filter(|(_, taken)| **taken) {
            let name = names::part(self.plan.id, number);
            match self.storage.remove(&name) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(WriteError::Io { file: name, source });
                }
                _ => {}
            }
        }
        self.storage.sync_dir().map_err(folder)
    }

    fn parent_among(&self, names: &[String]) -> Result<(), WriteError> {
        match self.plan.parent {
            Some(parent) if !names.contains(&names::manifest(parent.id)) => {
                Err(WriteError::ParentGone { parent: parent.id })
            }
            _ => Ok(()),
        }
    }
}

fn list(storage: &dyn Storage) -> Result<Vec<String>, WriteError> {
    storage.list().map_err(folder)
}

fn folder(source: io::Error) -> WriteError {
    WriteError::Io {
        file: "the folder".to_owned(),
        source,
    }
}
