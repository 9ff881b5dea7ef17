//! What a snapshot is made of: id, parent, cut, parts and their digests.

/// Names a store. The files of two stores never mix.
pub type StoreId = [u8; 16];

/// The most parts that a snapshot can have.
pub const PARTS_MAX: usize = 4096;

/// Whether a snapshot stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Everything that was there at the cut.
    Full,
    /// What changed since the parent's cut, deletes included.
    Incremental,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
        })
    }
}

/// The snapshot that an increment builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parent {
    /// Its id.
    pub id: u64,
    /// Its cut: the increment holds only what came after.
    pub cut: u64,
}

/// A snapshot's table of contents. Whoever has one knows that the snapshot was written to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The store that wrote it.
    pub store_id: StoreId,
    /// Larger than that of every earlier snapshot in the folder.
    pub id: u64,
    /// None for a full snapshot.
    pub parent: Option<Parent>,
    /// The snapshot holds every change up to this sequence, and none above.
    pub cut: u64,
    /// When it was begun, in milliseconds since the epoch.
    pub created_at_ms: u64,
    /// How many partitions the store had; for people, loading does not depend on it.
    pub partitions: u32,
    /// Its files.
    pub parts: Vec<Part>,
    /// Sums over the parts.
    pub totals: Totals,
}

impl Manifest {
    /// Full or incremental.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.parent {
            None => Kind::Full,
            Some(_) => Kind::Incremental,
        }
    }

    /// The parent's cut; 0 in a full snapshot.
    #[must_use]
    pub fn parent_cut(&self) -> u64 {
        self.parent.map_or(0, |parent| parent.cut)
    }
}

impl From<&Manifest> for Parent {
    /// What an increment on this snapshot names as its parent.
    fn from(manifest: &Manifest) -> Self {
        Self {
            id: manifest.id,
            cut: manifest.cut,
        }
    }
}

/// One file of a snapshot, and what must be in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The file's name.
    pub name: String,
    /// The file's length.
    pub bytes: u64,
    /// Its blocks' length before compression.
    pub raw_bytes: u64,
    /// How many blocks it has.
    pub blocks: u32,
    /// The largest of them before compression: the memory that reading it takes.
    pub block_raw_max: u32,
    /// Live entries.
    pub entries: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Checksum of the whole file.
    pub crc: u32,
    /// Sum of the digests of its entries, see [`EntryRef::digest`](crate::EntryRef::digest).
    pub digest: u64,
}

/// Sums over the parts of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// On disk, without the manifest.
    pub bytes: u64,
    /// Live entries.
    pub entries: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Of every entry and tombstone, in any order.
    pub digest: u64,
}

impl Totals {
    /// The sums over `parts`. Wrapping: a manifest is hostile input until it has been checked.
    pub(crate) fn of(parts: &[Part]) -> Self {
        parts.iter().fold(Self::default(), |sum, part| Self {
            bytes: sum.bytes.wrapping_add(part.bytes),
            entries: sum.entries.wrapping_add(part.entries),
            tombstones: sum.tombstones.wrapping_add(part.tombstones),
            digest: sum.digest.wrapping_add(part.digest),
        })
    }
}
