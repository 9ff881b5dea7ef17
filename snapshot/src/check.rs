//! Offline tools, which only read: everything verified, and one file shown.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::chain::{self, Candidate, is_orphan};
use crate::codec::BlockCodec;
use crate::entry::EntryRef;
use crate::error::{ChainError, LoadError};
use crate::format::part::PartHeader;
use crate::manifest::Manifest;
use crate::names::{self, Name};
use crate::reader::{PartReport, load_part, read_manifest, read_part};
use crate::storage::Storage;

/// What was found in a folder.
#[derive(Debug)]
pub struct Report {
    /// Every visible snapshot, the oldest first.
    pub snapshots: Vec<Checked>,
    /// Files of unfinished snapshots: no damage, a sweep removes them.
    pub orphans: Vec<String>,
    /// Ids of the newest chain of which every byte holds, the full snapshot first.
    pub newest: Option<Vec<u64>>,
}

impl Report {
    /// Whether everything that is visible holds, and the newest snapshot with its chain can be used.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let tip = self.newest.as_ref().and_then(|ids| ids.last());
        self.snapshots
            .iter()
            .all(|snapshot| snapshot.problems.is_empty())
            && self.snapshots.last().map(|snapshot| &snapshot.id) == tip
    }
}

/// What was found of one snapshot.
#[derive(Debug)]
pub struct Checked {
    /// Its id, by the name of its manifest.
    pub id: u64,
    /// Its manifest, if that holds.
    pub manifest: Option<Manifest>,
    /// What does not hold in its files, or in what it builds on; empty if all does.
    pub problems: Vec<LoadError>,
}

/// Verifies every byte of every snapshot in the folder.
///
/// # Errors
/// When the folder cannot be read. Whatever is wrong with a snapshot is in the report.
pub fn check(storage: &dyn Storage, codecs: &[&dyn BlockCodec]) -> Result<Report, ChainError> {
    let ids = chain::ids(storage)?;
    let finished: BTreeSet<u64> = ids.iter().copied().collect();
    let orphans = chain::list_names(storage)?
        .into_iter()
        .filter(|(name, _)| is_orphan(*name, &finished))
        .map(|(_, file)| file)
        .collect();
    let mut snapshots: Vec<Checked> = ids
        .into_iter()
        .map(|id| check_one(storage, id, codecs))
        .collect();
    let newest = follow_parents(storage, &mut snapshots);
    Ok(Report {
        snapshots,
        orphans,
        newest,
    })
}

fn check_one(storage: &dyn Storage, id: u64, codecs: &[&dyn BlockCodec]) -> Checked {
    let manifest = match read_manifest(storage, id) {
        Ok(manifest) => manifest,
        Err(problem) => {
            return Checked {
                id,
                manifest: None,
                problems: vec![problem],
            };
        }
    };
    let see_all = |_: EntryRef<'_>| ControlFlow::Continue(());
    let problems = (0..manifest.parts.len())
        .filter_map(|part| load_part(storage, &manifest, part, codecs, see_all).err())
        .collect();
    Checked {
        id,
        manifest: Some(manifest),
        problems,
    }
}

/// The newest chain of sound snapshots. A parent that is missing or is not the one meant is a problem of
/// the snapshot that needs it. A foreign or newer manifest among them means that recovery would use none.
fn follow_parents(storage: &dyn Storage, snapshots: &mut [Checked]) -> Option<Vec<u64>> {
    let sound: BTreeSet<u64> = snapshots
        .iter()
        .filter(|snapshot| snapshot.problems.is_empty())
        .map(|snapshot| snapshot.id)
        .collect();
    let mut newest = None;
    for candidate in chain::candidates(storage, None).ok()? {
        match candidate {
            Ok(Candidate::Sound(chain)) => {
                let ids: Vec<u64> = chain.manifests.iter().map(|one| one.id).collect();
                if newest.is_none() && ids.iter().all(|id| sound.contains(id)) {
                    newest = Some(ids);
                }
            }
            Ok(Candidate::Damaged(skipped)) if sound.contains(&skipped.tip) => {
                let tip = snapshots
                    .iter_mut()
                    .find(|snapshot| snapshot.id == skipped.tip);
                if let Some(tip) = tip {
                    tip.problems.push(skipped.damage.into());
                }
            }
            Ok(Candidate::Damaged(_)) | Err(_) => {}
        }
    }
    newest
}

/// What one file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// A manifest.
    Manifest(Manifest),
    /// A part; its entries went to the visitor.
    Part {
        /// What it says about itself.
        header: PartHeader,
        /// What was in it.
        report: PartReport,
    },
}

/// Reads one file by its name, a manifest or a part. A part is verified as far as that is possible without
/// its manifest, and its entries are handed to `visit`.
///
/// # Errors
/// When the name is neither, and as [`load_part`].
pub fn read_file(
    storage: &dyn Storage,
    name: &str,
    codecs: &[&dyn BlockCodec],
    visit: impl FnMut(EntryRef<'_>) -> ControlFlow<()>,
) -> Result<Contents, LoadError> {
    match names::parse(name) {
        Some(Name::Manifest { id }) => read_manifest(storage, id).map(Contents::Manifest),
        Some(Name::Part { .. }) => {
            let (header, report) = read_part(storage, name, codecs, visit)?;
            Ok(Contents::Part { header, report })
        }
        Some(Name::Temporary { .. }) | None => Err(LoadError::NotOurs {
            file: name.to_owned(),
        }),
    }
}
