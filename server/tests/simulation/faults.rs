//! What can go wrong with a disk, as data: which call fails, how, and what a power cut leaves.

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::io;

/// Which folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Area {
    Wal,
    Snapshots,
}

/// Which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Call {
    Create,
    Write,
    Sync,
    SetLen,
    Allocate,
    Remove,
    Rename,
    SyncDir,
    /// Reading, listing, opening, asking for a length.
    Read,
}

impl Call {
    pub(crate) const ALL: [Call; 9] = [
        Call::Create,
        Call::Write,
        Call::Sync,
        Call::SetLen,
        Call::Allocate,
        Call::Remove,
        Call::Rename,
        Call::SyncDir,
        Call::Read,
    ];

    pub(crate) fn changes(self) -> bool {
        self != Call::Read
    }
}

/// A call that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// In which folder; in either without one.
    pub(crate) area: Option<Area>,
    /// Which call; any that changes something without one.
    pub(crate) call: Option<Call>,
    /// How many such calls go well before.
    pub(crate) after: u8,
    /// How many fail then.
    pub(crate) times: u32,
    /// For lack of room, or because the disk is broken.
    pub(crate) no_room: bool,
}

impl Fault {
    /// The error, if this call is the one.
    pub(crate) fn strikes(&mut self, area: Area, call: Call) -> Option<io::Error> {
        let meant = self.area.is_none_or(|meant| meant == area)
            && self.call.map_or(call.changes(), |meant| meant == call);
        if !meant {
            return None;
        }
        if self.after > 0 {
            self.after -= 1;
            return None;
        }
        self.times = if self.times == u32::MAX {
            u32::MAX
        } else {
            self.times - 1
        };
        Some(if self.no_room {
            io::ErrorKind::StorageFull.into()
        } else {
            io::Error::other("input/output error")
        })
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.times == 0
    }

    pub(crate) fn is_lack_of_room(&self) -> bool {
        self.no_room
    }
}

/// What becomes of a call.
pub(crate) enum Fate {
    Goes,
    /// It fails, and may have done any part of its work.
    Partly(io::Error),
    /// It fails and does nothing.
    Fails(io::Error),
}

impl Fate {
    /// Whether a step that is done whole or not at all is done.
    pub(crate) fn happens(&self, rng: &mut Rng) -> bool {
        match self {
            Fate::Goes => true,
            Fate::Partly(_) => rng.bool(),
            Fate::Fails(_) => false,
        }
    }

    pub(crate) fn or_fail(self) -> io::Result<()> {
        match self {
            Fate::Goes => Ok(()),
            Fate::Partly(error) | Fate::Fails(error) => Err(error),
        }
    }
}

/// What a power cut leaves of what was not synced; chances in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Survival {
    pub(crate) seed: u32,
    /// Of a sector to be there.
    pub(crate) sectors: u8,
    /// Of such a sector to be there in part.
    pub(crate) torn: u8,
    /// Of a lost sector that was never synced to hold what the disk had there before.
    pub(crate) garbage: u8,
    /// Of a name's making, renaming or removal to be there.
    pub(crate) names: u8,
}
