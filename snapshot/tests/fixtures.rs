//! Files of every released version are read for ever, and today's writer still writes the newest of them.
//!
//! After a deliberate change of the format, raise its version, add a folder here, and write it with
//! `cargo test -p inflightkv-snapshot --test fixtures -- --ignored`.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use inflightkv_snapshot::{BlockCodec, Found, Kind, Manifest, Parent, Plain, chain, read_backup};
use support::{CODECS, Disk, Entry, RunLength, STORE, backup, entries_of, plan, save, state_of};

const CURRENT: &str = "v1";
const BACKUP: &str = "example.backup";

fn folder(version: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", version]
        .iter()
        .collect()
}

fn read(version: &str) -> Disk {
    let disk = Disk::default();
    for file in fs::read_dir(folder(version)).expect("the fixtures") {
        let file = file.expect("a fixture");
        let name = file.file_name().into_string().expect("a name in UTF-8");
        disk.put(&name, fs::read(file.path()).expect("its bytes"));
    }
    disk
}

/// One of everything that the format can say.
fn full_entries() -> Vec<Entry> {
    vec![
        Entry {
            version: 3,
            ..Entry::new(258, "a", "{}")
        },
        Entry {
            expires_at: Some(1_893_456_000_000),
            ..Entry::new(259, "expiring", r#"{"n":1}"#)
        },
        Entry {
            media_type: Some("image/png".to_owned()),
            value: Some(vec![0x89, b'P', b'N', b'G', 0, 0xff]),
            ..Entry::new(260, "opaque", "")
        },
        Entry::new(261, "schlüssel/鍵", r#""wert""#),
        Entry::new(262, "", "0"),
        Entry::new(263, "runs", &format!("\"{}\"", "x".repeat(5_000))),
    ]
}

fn increment_entries() -> Vec<Entry> {
    vec![
        Entry::new(300, "a", r#"{"changed":true}"#),
        Entry::deleted(301, "opaque"),
        Entry {
            version: u64::MAX,
            ..Entry::new(302, "new", "[]")
        },
    ]
}

fn write_all(disk: &Disk) -> [Manifest; 2] {
    let plain: Arc<dyn BlockCodec> = Arc::new(Plain);
    let full = save(disk, plan(1, None, 280, 2), plain, &full_entries()).expect("written");
    let codec: Arc<dyn BlockCodec> = Arc::new(RunLength);
    let mut entries = increment_entries();
    entries.push(Entry::new(
        303,
        "runs",
        &format!("\"{}\"", "y".repeat(5_000)),
    ));
    let plan = plan(2, Some(&full), 303, 1);
    let increment = save(disk, plan, codec, &entries).expect("written");
    disk.put(BACKUP, backup(280, Arc::new(RunLength), &full_entries()));
    [full, increment]
}

#[test]
#[ignore = "writes the fixtures of the current version, once"]
fn write_fixtures() {
    let disk = Disk::default();
    write_all(&disk);
    // What a release has written is never written again.
    fs::create_dir(folder(CURRENT)).expect("a folder that is not there yet");
    for name in disk.files() {
        fs::write(folder(CURRENT).join(&name), disk.get(&name)).expect("a fixture");
    }
}

#[test]
fn files_of_version_1_are_read() {
    let disk = read("v1");
    let found = match chain::newest(&disk, Some(STORE)) {
        Ok(Found::Chain(found)) => found,
        other => panic!("{other:?}"),
    };
    assert_eq!(found.skipped, []);
    let [full, increment] = &found.manifests[..] else {
        panic!("{:?}", found.manifests);
    };
    assert_eq!((full.id, full.cut, full.kind()), (1, 280, Kind::Full));
    assert_eq!(increment.parent, Some(Parent { id: 1, cut: 280 }));
    assert_eq!(
        (increment.cut, increment.created_at_ms),
        (303, 1_700_000_000_002)
    );
    assert_eq!((full.totals.entries, increment.totals.tombstones), (6, 1));

    let mut expected = full_entries();
    expected.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(entries_of(&disk, full).expect("it loads"), expected);

    let mut state: BTreeMap<String, Entry> = full_entries()
        .into_iter()
        .map(|entry| (entry.key.clone(), entry))
        .collect();
    for entry in increment_entries() {
        state.insert(entry.key.clone(), entry);
    }
    state.retain(|_, entry| entry.value.is_some());
    let loaded = state_of(&disk, &found.manifests).expect("it loads");
    assert_eq!(loaded.len(), 6);
    assert_eq!(loaded["runs"].sequence, 303);
    state.remove("runs");
    for (key, entry) in state {
        assert_eq!(loaded[&key], entry);
    }
}

#[test]
fn a_backup_of_version_1_is_read() {
    let bytes = read("v1").get(BACKUP);
    let mut entries = Vec::new();
    let report = read_backup(BACKUP, &bytes[..], CODECS, |entry| {
        entries.push(Entry::of(entry));
        ControlFlow::Continue(())
    })
    .expect("it holds");
    assert_eq!(entries, full_entries());
    assert_eq!(
        (report.header.store_id, report.header.cut, report.entries),
        (STORE, 280, 6)
    );
    assert_eq!(report.bytes, bytes.len() as u64);
}

#[test]
fn todays_writer_writes_the_same_bytes() {
    let (kept, written) = (read(CURRENT), Disk::default());
    write_all(&written);
    assert_eq!(written.files(), kept.files());
    for name in kept.files() {
        assert!(
            written.get(&name) == kept.get(&name),
            "{name} changed: if that is meant, raise the format's version"
        );
    }
}

/// The entry that `FORMAT.md` spells out is the one that is written.
#[test]
fn the_entry_in_the_document_is_what_is_written() {
    let document = include_str!("../FORMAT.md");
    let (_, hex) = document.split_once("```hex entry\n").expect("the example");
    let (hex, _) = hex.split_once("```").expect("its end");
    let bytes: Vec<u8> = hex
        .split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
        .collect();

    let disk = Disk::default();
    let entry = &full_entries()[..1];
    let manifest = save(&disk, plan(1, None, 258, 1), Arc::new(Plain), entry).expect("written");
    let part = disk.get(&manifest.parts[0].name);
    // Behind headers and the shortest filter.
    let at = 64 + 44 + 8;
    assert_eq!(&part[at..at + bytes.len()], bytes);
    assert_eq!(manifest.parts[0].raw_bytes, bytes.len() as u64);
}

/// The digest as `FORMAT.md` defines it, computed from the example's bytes by another hand.
#[test]
fn the_digest_is_the_documents() {
    let entry = &full_entries()[0];
    let mut head = Vec::new();
    head.extend_from_slice(&43_u32.to_le_bytes());
    for field in [258_u64, 3, 0] {
        head.extend_from_slice(&field.to_le_bytes());
    }
    head.extend_from_slice(&crc32fast::hash(b"{}").to_le_bytes());
    head.extend_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0, b'a']);
    let content = u64::from(crc32fast::hash(b"{}")) << 32 | u64::from(crc32fast::hash(&head));
    let mut z = content
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(258);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    assert_eq!(entry.as_ref().digest(), z ^ (z >> 31));
}

// ---- the manifest's body, by another implementation of the same layout ----

type Body = (
    [u8; 16],
    u64,
    Option<(u64, u64)>,
    u64,
    u64,
    u32,
    Vec<(String, u64, u64, u32, u32, u64, u64, u32, u64)>,
    (u64, u64, u64, u64),
);

fn body_of(manifest: &Manifest) -> Body {
    let parts = manifest.parts.iter().map(|part| {
        (
            part.name.clone(),
            part.bytes,
            part.raw_bytes,
            part.blocks,
            part.block_raw_max,
            part.entries,
            part.tombstones,
            part.crc,
            part.digest,
        )
    });
    let totals = &manifest.totals;
    (
        manifest.store_id,
        manifest.id,
        manifest.parent.map(|parent| (parent.id, parent.cut)),
        manifest.cut,
        manifest.created_at_ms,
        manifest.partitions,
        parts.collect(),
        (
            totals.bytes,
            totals.entries,
            totals.tombstones,
            totals.digest,
        ),
    )
}

/// Should the library behind the manifest ever go, another one reads and writes the same bytes.
#[test]
fn another_implementation_reads_and_writes_the_same_manifest() {
    let disk = read("v1");
    let Ok(Found::Chain(found)) = chain::newest(&disk, None) else {
        panic!("no chain");
    };
    for manifest in &found.manifests {
        let file = disk.get(&format!("{:020}.manifest", manifest.id));
        let body: Body = wincode::deserialize(&file[20..]).expect("the same layout");
        assert_eq!(body, body_of(manifest));
        assert_eq!(
            wincode::serialize(&body).expect("it is written"),
            file[20..]
        );
    }
}
