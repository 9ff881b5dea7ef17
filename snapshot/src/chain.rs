//! The newest sound full snapshot and its increments: none, found, or all damaged. And what keeps the
//! folder in order: listing, retiring, sweeping.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::error::{ChainError, Damage, LoadError};
use crate::manifest::{Manifest, Parent, StoreId};
use crate::names::{self, Name};
use crate::reader::read_manifest;
use crate::storage::Storage;

/// A full snapshot and the increments to lay over it, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The full one first, the tip last. Never empty.
    pub manifests: Vec<Manifest>,
    /// Newer ones that were passed over. If there are any, the caller may use this chain only if its
    /// log reaches back to the chain's cut.
    pub skipped: Vec<Skipped>,
}

impl Chain {
    /// The newest snapshot of the chain.
    #[must_use]
    pub fn tip(&self) -> &Manifest {
        &self.manifests[self.manifests.len() - 1]
    }

    /// The full snapshot that it stands on.
    #[must_use]
    pub fn base(&self) -> &Manifest {
        &self.manifests[0]
    }

    /// The state that loading the chain gives: every change up to this sequence.
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.tip().cut
    }

    /// How many entries and tombstones there are to load, for progress.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.manifests
            .iter()
            .map(|manifest| manifest.totals.entries + manifest.totals.tombstones)
            .sum()
    }
}

/// A snapshot that cannot be used, and the first reason met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The snapshot that was to be the tip of a chain.
    pub tip: u64,
    /// What is wrong, in it or in what it builds on.
    pub damage: Damage,
}

/// What there is to start from: three answers, never to be folded into two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is no snapshot, and there is no sign of one.
    None,
    /// Here it is, as far as manifests and lengths can tell; loading verifies the rest.
    Chain(Chain),
    /// There are some, and none can be used. Starting empty would hide that.
    AllDamaged(Vec<Skipped>),
}

/// The newest chain whose manifests hold and whose files are there in full length.
///
/// # Errors
/// When a manifest is of a newer format or of another store than `store_id` (or, without one, than the
/// newest manifest's), and when the disk fails in a way that says nothing about the bytes.
pub fn newest(storage: &dyn Storage, store_id: Option<StoreId>) -> Result<Found, ChainError> {
    let mut skipped = Vec::new();
    for candidate in candidates(storage, store_id)? {
        match candidate? {
            Candidate::Sound(mut chain) => {
                chain.skipped = skipped;
                return Ok(Found::Chain(chain));
            }
            Candidate::Damaged(damaged) => skipped.push(damaged),
        }
    }
    if skipped.is_empty() {
        return Ok(Found::None);
    }
    Ok(Found::AllDamaged(skipped))
}

/// Every snapshot as the tip of a chain, the newest first: when loading one shows damage, the next may do.
///
/// # Errors
/// As [`newest`].
pub fn candidates(
    storage: &dyn Storage,
    store_id: Option<StoreId>,
) -> Result<Candidates<'_>, ChainError> {
    let mut expected = store_id;
    let mut manifests = BTreeMap::new();
    for id in ids(storage)?.into_iter().rev() {
        let manifest = match read_manifest(storage, id) {
            Ok(manifest) => {
                let expected = *expected.get_or_insert(manifest.store_id);
                if manifest.store_id != expected {
                    return Err(ChainError::ForeignStore {
                        file: names::manifest(id),
                        expected,
                        found: manifest.store_id,
                    });
                }
                Ok(manifest)
            }
            Err(error) => Err(damage_or_stop(error)?),
        };
        manifests.insert(id, manifest);
    }
    Ok(Candidates {
        storage,
        tips: manifests.keys().copied().collect(),
        manifests,
        files: BTreeMap::new(),
    })
}

/// One answer of [`Candidates`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// A chain to try.
    Sound(Chain),
    /// A snapshot that cannot be the tip of a chain.
    Damaged(Skipped),
}

/// Goes through the chains of a folder, newest tip first. Files are looked at only when their turn comes.
pub struct Candidates<'a> {
    storage: &'a dyn Storage,
    /// What is still to be tried, in growing order.
    tips: Vec<u64>,
    manifests: BTreeMap<u64, Result<Manifest, Damage>>,
    /// Whether the parts of a snapshot are there in full length, once that was asked.
    files: BTreeMap<u64, Result<(), Damage>>,
}

impl Iterator for Candidates<'_> {
    type Item = Result<Candidate, ChainError>;

    fn next(&mut self) -> Option<Self::Item> {
        let tip = self.tips.pop()?;
        Some(match self.chain(tip) {
            Ok(Ok(manifests)) => Ok(Candidate::Sound(Chain {
                manifests,
                skipped: Vec::new(),
            })),
            Ok(Err(damage)) => Ok(Candidate::Damaged(Skipped { tip, damage })),
            Err(error) => Err(error),
        })
    }
}

impl Candidates<'_> {
    /// From `tip` down to a full snapshot. Ends, because a parent's id is smaller (the manifest's decoder
    /// insists).
    fn chain(&mut self, tip: u64) -> Result<Result<Vec<Manifest>, Damage>, ChainError> {
        let mut chain = Vec::new();
        let mut wanted: Option<(u64, Option<(u64, Parent)>)> = Some((tip, None));
        while let Some((id, child)) = wanted {
            let manifest = match self.manifests.get(&id) {
                Some(Ok(manifest)) => manifest.clone(),
                Some(Err(damage)) => return Ok(Err(damage.clone())),
                None => {
                    return Ok(Err(not_there(id, child)));
                }
            };
            if let Some((child, parent)) = child
                && parent.cut != manifest.cut
            {
                return Ok(Err(Damage {
                    file: names::manifest(child),
                    offset: 0,
                    expected: format!("the parent's cut {}", manifest.cut),
                    found: parent.cut.to_string(),
                }));
            }
            if let Err(damage) = self.files_of(&manifest)? {
                return Ok(Err(damage));
            }
            wanted = manifest
                .parent
                .map(|parent| (parent.id, Some((id, parent))));
            chain.push(manifest);
        }
        chain.reverse();
        Ok(Ok(chain))
    }

    fn files_of(&mut self, manifest: &Manifest) -> Result<Result<(), Damage>, ChainError> {
        if let Some(known) = self.files.get(&manifest.id) {
            return Ok(known.clone());
        }
        let mut answer = Ok(());
        for part in &manifest.parts {
            let found = match self.storage.open(&part.name).and_then(|file| file.len()) {
                Ok(len) if len == part.bytes => continue,
                Ok(len) => format!("{len} bytes"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => "no file".to_owned(),
                Err(source) => {
                    return Err(ChainError::Io {
                        file: part.name.clone(),
                        source,
                    });
                }
            };
            answer = Err(Damage {
                file: part.name.clone(),
                offset: 0,
                expected: format!("a file of {} bytes", part.bytes),
                found,
            });
            break;
        }
        self.files.insert(manifest.id, answer.clone());
        Ok(answer)
    }
}

fn not_there(id: u64, child: Option<(u64, Parent)>) -> Damage {
    Damage {
        file: names::manifest(id),
        offset: 0,
        expected: child.map_or_else(
            || "a manifest".to_owned(),
            |(child, _)| format!("the parent of snapshot {child}"),
        ),
        found: "no file".to_owned(),
    }
}

/// An id above every one that was ever used for a file still in the folder, finished or not.
///
/// # Errors
/// When the folder cannot be read.
pub fn next_id(storage: &dyn Storage) -> Result<u64, ChainError> {
    let names = list_names(storage)?;
    let newest = names.iter().map(|(name, _)| name.id()).max();
    // At the last id of all, a writer refuses to begin, and says why.
    Ok(newest.map_or(1, |id| id.saturating_add(1)))
}

/// One snapshot of a folder.
#[derive(Debug)]
pub struct Listed {
    /// Its id, by the name of its manifest.
    pub id: u64,
    /// Its manifest, or why there is none.
    pub manifest: Result<Manifest, LoadError>,
}

/// Every visible snapshot, the oldest first, the damaged included. Parts are not looked at.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(storage: &dyn Storage) -> Result<Vec<Listed>, ChainError> {
    let listed = ids(storage)?.into_iter().map(|id| Listed {
        id,
        manifest: read_manifest(storage, id),
    });
    Ok(listed.collect())
}

/// Removes the chains (full snapshots with their increments) older than the newest `keep` that are
/// sound, at least one, and says which files went. While there are fewer sound ones than that, nothing is
/// removed. What is damaged is removed only when it is older than what is kept.
///
/// "Sound" is judged as [`newest`] does: who wants to be sure of the contents loads the newest first.
///
/// # Errors
/// As [`newest`], and when the disk fails while removing; what was removed stays removed.
pub fn retain(storage: &dyn Storage, keep: usize) -> Result<Vec<String>, ChainError> {
    let keep = keep.max(1);
    let mut bases = Vec::new();
    let mut base_of = BTreeMap::new();
    for candidate in candidates(storage, None)? {
        if let Candidate::Sound(chain) = candidate? {
            let base = chain.base().id;
            base_of.insert(chain.tip().id, base);
            if !bases.contains(&base) {
                bases.push(base);
            }
        }
    }
    if bases.len() < keep {
        return Ok(Vec::new());
    }
    bases.truncate(keep);
    let Some(&floor) = bases.iter().min() else {
        return Ok(Vec::new());
    };
    let retired = |id: u64| id < floor || base_of.get(&id).is_some_and(|&base| base < floor);
    remove(storage, |name| retired(name.id()))
}

/// Removes what unfinished snapshots left: manifests that were never renamed, parts without a manifest.
/// Says which files went. The names of all others are durable afterwards: a snapshot that a killed process
/// had just named may be in memory only, and what a restart builds on it must not lose it.
///
/// Not while a [`SnapshotWriter`](crate::SnapshotWriter) is at work in the same folder: its files look
/// just like that (it would notice, and fail).
///
/// # Errors
/// When the disk fails; what was removed stays removed.
pub fn sweep(storage: &dyn Storage) -> Result<Vec<String>, ChainError> {
    let finished: BTreeSet<u64> = ids(storage)?.into_iter().collect();
    let removed = remove(storage, |name| is_orphan(name, &finished))?;
    if removed.is_empty() {
        storage.sync_dir().map_err(folder)?;
    }
    Ok(removed)
}

pub(crate) fn is_orphan(name: Name, finished: &BTreeSet<u64>) -> bool {
    match name {
        Name::Manifest { .. } => false,
        Name::Temporary { .. } => true,
        Name::Part { id, .. } => !finished.contains(&id),
    }
}

/// Manifests first, newest first, each made durable before anything that it needs goes: a crash in
/// between leaves orphans, never a manifest without its parts or its parent.
fn remove(storage: &dyn Storage, doomed: impl Fn(Name) -> bool) -> Result<Vec<String>, ChainError> {
    let failed = |file: &str, source| ChainError::Io {
        file: file.to_owned(),
        source,
    };
    let sync = || storage.sync_dir().map_err(folder);
    let mut names = list_names(storage)?;
    names.retain(|(name, _)| doomed(*name));
    names.sort_by_key(|(name, _)| {
        (
            !matches!(name, Name::Manifest { .. }),
            std::cmp::Reverse(name.id()),
        )
    });
    let mut removed = Vec::with_capacity(names.len());
    for (name, file) in names {
        match storage.remove(&file) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(failed(&file, source)),
        }
        if matches!(name, Name::Manifest { .. }) {
            sync()?;
        }
        removed.push(file);
    }
    if !removed.is_empty() {
        sync()?;
    }
    Ok(removed)
}

fn folder(source: io::Error) -> ChainError {
    ChainError::Io {
        file: "the folder".to_owned(),
        source,
    }
}

/// The names that are ours, in their order.
pub(crate) fn list_names(storage: &dyn Storage) -> Result<Vec<(Name, String)>, ChainError> {
    let mut names = storage.list().map_err(folder)?;
    names.sort_unstable();
    let ours = names
        .into_iter()
        .filter_map(|file| Some((names::parse(&file)?, file)));
    Ok(ours.collect())
}

/// Of every visible snapshot, the oldest first.
pub(crate) fn ids(storage: &dyn Storage) -> Result<Vec<u64>, ChainError> {
    let manifests = list_names(storage)?
        .into_iter()
        .filter_map(|(name, _)| match name {
            Name::Manifest { id } => Some(id),
            Name::Temporary { .. } | Name::Part { .. } => None,
        });
    Ok(manifests.collect())
}

/// Damage to one manifest is an answer; anything else ends the search.
fn damage_or_stop(error: LoadError) -> Result<Damage, ChainError> {
    match error {
        LoadError::Damaged(damage) => Ok(damage),
        LoadError::NewerFormat {
            file,
            found,
            supported,
        } => Err(ChainError::NewerFormat {
            file,
            found,
            supported,
        }),
        LoadError::ForeignStore {
            file,
            expected,
            found,
        } => Err(ChainError::ForeignStore {
            file,
            expected,
            found,
        }),
        LoadError::Io { file, source, .. } => Err(ChainError::Io { file, source }),
        // Reading a manifest meets no codec, no part and no visitor.
        other => Err(ChainError::Io {
            file: "a manifest".to_owned(),
            source: io::Error::other(other),
        }),
    }
}
