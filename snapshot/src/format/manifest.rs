//! A manifest: a prefix that never changes, and a body in bincode's legacy layout (`FORMAT.md`,
//! "Manifest"). No other file of this crate knows bincode.

use serde::{Deserialize, Serialize};

use super::{Mismatch, VersionedError, head, put, same, u32_at, zero};
use crate::manifest::{Manifest, PARTS_MAX, Parent, Part, StoreId, Totals};
use crate::names;

const ZERO: usize = head::BYTES;
const LEN: usize = ZERO + size_of::<u16>();
/// Bytes before the body.
pub(crate) const PREFIX: usize = LEN + size_of::<u32>();
const _: () = assert!(PREFIX == 20);
const MANIFEST_MAGIC: &[u8; 8] = b"IFKVMANI";

/// The largest body. A part takes 90 bytes, all else less than a kilobyte, so any snapshot fits.
pub(crate) const BODY_MAX: usize = 1 << 20;
const _: () = assert!(PARTS_MAX * 90 + 1024 < BODY_MAX);

type Config = bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<BODY_MAX>,
>;

/// Without a limit a damaged length would be believed.
fn config() -> Config {
    bincode::config::legacy().with_limit::<BODY_MAX>()
}

// The fields in the order of the file. They are apart from the public types, so that changing those
// cannot change a file.

#[derive(Serialize, Deserialize)]
struct Body {
    store_id: StoreId,
    id: u64,
    parent: Option<(u64, u64)>,
    cut: u64,
    created_at_ms: u64,
    partitions: u32,
    parts: Vec<PartBody>,
    totals: (u64, u64, u64, u64),
}

#[derive(Serialize, Deserialize)]
struct PartBody {
    name: String,
    bytes: u64,
    raw_bytes: u64,
    blocks: u32,
    block_raw_max: u32,
    entries: u64,
    tombstones: u64,
    crc: u32,
    digest: u64,
}

pub(crate) fn encode(manifest: &Manifest) -> Vec<u8> {
    let body = Body {
        store_id: manifest.store_id,
        id: manifest.id,
        parent: manifest.parent.map(|parent| (parent.id, parent.cut)),
        cut: manifest.cut,
        created_at_ms: manifest.created_at_ms,
        partitions: manifest.partitions,
        parts: manifest.parts.iter().map(PartBody::from).collect(),
        totals: (
            manifest.totals.bytes,
            manifest.totals.entries,
            manifest.totals.tombstones,
            manifest.totals.digest,
        ),
    };
    let body = bincode::serde::encode_to_vec(&body, config())
        .expect("a body of numbers and short names, of at most PARTS_MAX parts, always encodes");
    let mut bytes = vec![0; PREFIX];
    put(&mut bytes, LEN, &(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    head::put_head(&mut bytes, MANIFEST_MAGIC);
    bytes
}

/// The manifest in a whole file of these bytes, which was named for snapshot `id`.
pub(crate) fn decode(bytes: &[u8], id: u64) -> Result<Manifest, VersionedError> {
    if bytes.len() < PREFIX {
        return Err(Mismatch::new(
            0,
            format_args!("at least {PREFIX} bytes"),
            format_args!("{} bytes", bytes.len()),
        )
        .into());
    }
    head::check_head(bytes, MANIFEST_MAGIC)?;
    zero(ZERO, &bytes[ZERO..LEN])?;
    let body = &bytes[PREFIX..];
    same(
        LEN,
        "a body as long as the file leaves room for,",
        body.len(),
        u32_at(bytes, LEN) as usize,
    )?;
    let (body, read) = bincode::serde::decode_from_slice::<Body, _>(body, config())
        .map_err(|error| Mismatch::new(PREFIX, "a manifest's fields", error))?;
    same(PREFIX, "a body of that length,", bytes.len() - PREFIX, read)?;
    let manifest = Manifest::from(body);
    check(&manifest, id)?;
    Ok(manifest)
}

/// What must hold between the fields, so that nobody else has to doubt them.
fn check(manifest: &Manifest, id: u64) -> Result<(), Mismatch> {
    same(PREFIX, "the manifest of snapshot", id, manifest.id)?;
    if let Some(parent) = manifest.parent
        && (parent.id >= manifest.id || parent.cut > manifest.cut)
    {
        return Err(Mismatch::new(
            PREFIX,
            format_args!(
                "a parent below snapshot {} and its cut {}",
                manifest.id, manifest.cut
            ),
            format_args!("snapshot {} and its cut {}", parent.id, parent.cut),
        ));
    }
    let parts = manifest.parts.len();
    if !(1..=PARTS_MAX).contains(&parts) {
        return Err(Mismatch::new(
            PREFIX,
            format_args!("from 1 to {PARTS_MAX} parts"),
            parts,
        ));
    }
    for (number, part) in (0_u32..).zip(&manifest.parts) {
        // Also keeps a name from leading out of the folder.
        same(
            PREFIX,
            "a part named",
            names::part(id, number).as_str(),
            part.name.as_str(),
        )?;
    }
    let totals = Totals::of(&manifest.parts);
    if totals != manifest.totals {
        return Err(Mismatch::new(
            PREFIX,
            format_args!("totals {totals:?}"),
            format_args!("{:?}", manifest.totals),
        ));
    }
    Ok(())
}

impl From<&Part> for PartBody {
    fn from(part: &Part) -> Self {
        Self {
            name: part.name.clone(),
            bytes: part.bytes,
            raw_bytes: part.raw_bytes,
            blocks: part.blocks,
            block_raw_max: part.block_raw_max,
            entries: part.entries,
            tombstones: part.tombstones,
            crc: part.crc,
            digest: part.digest,
        }
    }
}

impl From<PartBody> for Part {
    fn from(body: PartBody) -> Self {
        Self {
            name: body.name,
            bytes: body.bytes,
            raw_bytes: body.raw_bytes,
            blocks: body.blocks,
            block_raw_max: body.block_raw_max,
            entries: body.entries,
            tombstones: body.tombstones,
            crc: body.crc,
            digest: body.digest,
        }
    }
}

impl From<Body> for Manifest {
    fn from(body: Body) -> Self {
        let (bytes, entries, tombstones, digest) = body.totals;
        Self {
            store_id: body.store_id,
            id: body.id,
            parent: body.parent.map(|(id, cut)| Parent { id, cut }),
            cut: body.cut,
            created_at_ms: body.created_at_ms,
            partitions: body.partitions,
            parts: body.parts.into_iter().map(Part::from).collect(),
            totals: Totals {
                bytes,
                entries,
                tombstones,
                digest,
            },
        }
    }
}
