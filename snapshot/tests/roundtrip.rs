//! What goes in comes out: single snapshots, chains of increments, parts on threads, the real disk.

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use inflightkv_snapshot::{
    BlockBuilder, Directory, EntryError, EntryRef, Found, Kind, Manifest, Options, Plain,
    SnapshotWriter, WriteError, chain, load_part,
};
use proptest::prelude::*;
use support::{CODECS, Disk, Entry, RunLength, STORE, entries_of, plan, save, state_of};

fn arbitrary_entry() -> impl Strategy<Value = Entry> {
    let value = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (any::<u8>(), 0_usize..20_000).prop_map(|(byte, len)| vec![byte; len]),
    ];
    let media_type = prop::option::of("[a-z]{1,10}/[a-z]{1,10}");
    let expires_at = prop::option::of(1..u64::MAX);
    (".{0,40}", any::<u64>(), expires_at, media_type, value).prop_map(
        |(key, version, expires_at, media_type, value)| Entry {
            sequence: 0,
            version,
            expires_at,
            media_type,
            key,
            value: Some(value),
        },
    )
}

fn codec(plain: bool) -> Arc<dyn inflightkv_snapshot::BlockCodec> {
    if plain {
        Arc::new(Plain)
    } else {
        Arc::new(RunLength)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A store that lives through some generations, each saved: the first in full, the others as
    /// increments. The chain adds up to the state at the last cut, entry for entry.
    #[test]
    fn a_chain_adds_up_to_the_state_at_its_cut(
        generations in prop::collection::vec(prop::collection::vec((arbitrary_entry(), any::<bool>()), 0..40), 1..5),
        parts in 1_usize..4,
        plain in any::<bool>(),
    ) {
        let disk = Disk::default();
        let (mut model, mut sequence) = (BTreeMap::new(), 0);
        let mut saved: Vec<Manifest> = Vec::new();
        for (id, changes) in (1..).zip(generations) {
            let mut changed = BTreeMap::new();
            for (mut entry, deleted) in changes {
                sequence += 1;
                entry.sequence = sequence;
                // In the first generation there is nothing to delete, and a full snapshot says so.
                if deleted && id > 1 {
                    model.remove(&entry.key);
                    let tombstone = Entry::deleted(sequence, &entry.key);
                    changed.insert(entry.key, tombstone);
                } else {
                    model.insert(entry.key.clone(), entry.clone());
                    changed.insert(entry.key.clone(), entry);
                }
            }
            let changed: Vec<Entry> = changed.into_values().collect();
            let plan = plan(id, saved.last(), sequence, parts);
            let manifest = save(&disk, plan, codec(plain), &changed).expect("it is written");
            prop_assert_eq!(&entries_of(&disk, &manifest).expect("it loads"), &changed);
            let digest = changed.iter().fold(0_u64, |sum, one| sum.wrapping_add(one.as_ref().digest()));
            prop_assert_eq!(manifest.totals.digest, digest);
            saved.push(manifest);
        }
        let Ok(Found::Chain(found)) = chain::newest(&disk, Some(STORE)) else {
            panic!("no chain");
        };
        prop_assert_eq!(&found.manifests, &saved);
        prop_assert_eq!(found.cut(), sequence);
        prop_assert_eq!(state_of(&disk, &found.manifests).expect("it loads"), model);
    }
}

#[test]
fn an_empty_store_has_a_snapshot_too() {
    let disk = Disk::default();
    let manifest = save(&disk, plan(1, None, 0, 3), Arc::new(Plain), &[]).expect("it is written");
    assert_eq!(manifest.kind(), Kind::Full);
    assert_eq!(manifest.totals.entries, 0);
    assert_eq!(entries_of(&disk, &manifest).expect("it loads"), []);
    assert!(matches!(chain::newest(&disk, None), Ok(Found::Chain(_))));
}

/// An entry much larger than a block makes a block of its own size; the manifest says how large, and
/// small blocks follow it as before.
#[test]
fn a_large_entry_makes_a_large_block() {
    let disk = Disk::default();
    let entries = [
        Entry::new(1, "a", "small"),
        Entry::new(2, "b", &"large ".repeat(700_000)),
        Entry::new(3, "c", "small again"),
    ];
    let manifest =
        save(&disk, plan(1, None, 3, 1), Arc::new(RunLength), &entries).expect("it is written");
    let part = &manifest.parts[0];
    assert_eq!((part.blocks, part.entries), (2, 3));
    assert!(part.block_raw_max > 4_200_000);
    assert_eq!(entries_of(&disk, &manifest).expect("it loads"), entries);
}

#[test]
fn blocks_that_compress_are_smaller_and_others_stay_as_they_are() {
    let disk = Disk::default();
    let mut random = fastrand::Rng::with_seed(3);
    let noise: String = (0..20_000).map(|_| random.alphanumeric()).collect();
    for (id, value, smaller) in [(1, "x".repeat(20_000), true), (2, noise, false)] {
        let entries = [Entry::new(1, "k", &value)];
        let manifest =
            save(&disk, plan(id, None, 1, 1), Arc::new(RunLength), &entries).expect("written");
        let part = &manifest.parts[0];
        assert_eq!(part.bytes < part.raw_bytes, smaller, "snapshot {id}");
        assert_eq!(entries_of(&disk, &manifest).expect("it loads"), entries);
    }
}

/// Parts are filled, sealed and loaded on threads of their own, on the file system.
#[test]
fn parts_are_written_and_loaded_in_parallel_on_the_real_disk() {
    const PARTS: usize = 4;
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Directory::create(folder.path().join("snapshots")).expect("a folder in it");
    let entries: Vec<Entry> = (1..=5000)
        .map(|i| Entry::new(i, &format!("key-{i:05}"), &format!(r#"{{"n":{i}}}"#)))
        .collect();
    let plan = plan(1, None, 5000, PARTS);
    let storage = Arc::new(disk.clone());
    let mut writer =
        SnapshotWriter::begin(storage, plan, Arc::new(RunLength), support::small_blocks())
            .expect("it begins");
    let parts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..PARTS)
            .map(|number| {
                let (mut part, mut builder) =
                    (writer.part(number).expect("a part"), writer.block_builder());
                let entries = &entries;
                scope.spawn(move || {
                    for entry in entries.iter().skip(number).step_by(PARTS) {
                        if builder.push(entry.as_ref()).expect("it fits") {
                            part.write(builder.take()).expect("it is written");
                        }
                    }
                    part.write(builder.take()).expect("it is written");
                    part.seal().expect("it is synced");
                    part
                })
            })
            .collect();
        // Handed in in another order than numbered.
        let joined = threads.into_iter().rev().map(ScopedJoinHandle::join);
        joined.map(|part| part.expect("no panic")).collect()
    });
    let manifest = writer.finish(parts).expect("it is finished");
    assert_eq!(manifest.totals.entries, 5000);

    let loaded: Vec<Entry> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..PARTS)
            .map(|part| {
                let (disk, manifest) = (&disk, &manifest);
                scope.spawn(move || {
                    let mut loaded = Vec::new();
                    load_part(disk, manifest, part, CODECS, |entry| {
                        loaded.push(Entry::of(entry));
                        ControlFlow::Continue(())
                    })
                    .expect("it loads");
                    loaded
                })
            })
            .collect();
        let joined = threads.into_iter().map(ScopedJoinHandle::join);
        joined.flat_map(|part| part.expect("no panic")).collect()
    });
    let by_key = |entries: Vec<Entry>| -> BTreeMap<String, Entry> {
        let keyed = entries.into_iter().map(|entry| (entry.key.clone(), entry));
        keyed.collect()
    };
    assert_eq!(by_key(loaded), by_key(entries));
}

#[test]
fn a_directory_refuses_names_that_lead_elsewhere() {
    use inflightkv_snapshot::Storage;
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Directory::create(folder.path()).expect("it is there");
    for name in ["../x", "a/b", "/etc/passwd", "", ".", "..", "x/"] {
        assert!(disk.create(name).is_err(), "{name:?}");
        assert!(disk.open(name).is_err(), "{name:?}");
    }
    assert!(Directory::open(folder.path().join("not there")).is_err());
}

#[test]
fn the_visitor_can_stop() {
    let disk = Disk::default();
    let entries = [Entry::new(1, "a", "1"), Entry::new(2, "b", "2")];
    let manifest = save(&disk, plan(1, None, 2, 1), Arc::new(Plain), &entries).expect("written");
    let mut seen = 0;
    let result = load_part(&disk, &manifest, 0, &[], |_| {
        seen += 1;
        ControlFlow::Break(())
    });
    assert!(matches!(
        result,
        Err(inflightkv_snapshot::LoadError::Stopped)
    ));
    assert_eq!(seen, 1);
}

#[test]
fn entries_that_no_block_can_hold_are_refused() {
    let long_key = "k".repeat(65_536);
    let long_media = "m".repeat(256);
    let live = |key| EntryRef {
        tombstone: false,
        ..EntryRef::deleted(key, 1)
    };
    let options = Options {
        value_bytes_max: 10,
        ..Options::default()
    };
    type IsExpected = fn(&EntryError) -> bool;
    let cases: [(EntryRef<'_>, IsExpected); 6] = [
        (live(&long_key), |e| {
            matches!(
                e,
                EntryError::KeyTooLong {
                    found: 65_536,
                    max: 65_535
                }
            )
        }),
        (
            EntryRef {
                media_type: Some(&long_media),
                ..live("k")
            },
            |e| {
                matches!(
                    e,
                    EntryError::MediaTypeTooLong {
                        found: 256,
                        max: 255
                    }
                )
            },
        ),
        (
            EntryRef {
                value: b"12345678901",
                ..live("k")
            },
            |e| matches!(e, EntryError::ValueTooLong { found: 11, max: 10 }),
        ),
        (
            EntryRef {
                media_type: Some(""),
                ..live("k")
            },
            |e| *e == EntryError::MediaTypeEmpty,
        ),
        (
            EntryRef {
                expires_at: Some(0),
                ..live("k")
            },
            |e| *e == EntryError::ExpiryZero,
        ),
        (
            EntryRef {
                value: b"1",
                ..EntryRef::deleted("k", 1)
            },
            |e| *e == EntryError::TombstoneNotBare,
        ),
    ];
    for (entry, is_expected) in cases {
        let mut builder = BlockBuilder::new(options);
        let error = builder.push(entry).expect_err("it is refused");
        assert!(is_expected(&error), "{error:?}");
        assert!(builder.is_empty());
    }
    let mut builder = BlockBuilder::new(options);
    let longest = &long_key[1..];
    builder.push(live(longest)).expect("the longest key fits");
    assert_eq!(builder.take().entries(), 1);
}

/// An entry that a reader would refuse must not become part of a snapshot that then cannot be loaded.
#[test]
fn what_a_reader_would_refuse_is_not_written() {
    let value = b"value".as_slice();
    let good = EntryRef {
        sequence: 15,
        version: 0,
        expires_at: None,
        pinned: false,
        value_crc: crc32fast::hash(value),
        tombstone: false,
        media_type: None,
        key: "k",
        value,
    };
    let disk = Disk::default();
    let full = save(&disk, plan(1, None, 10, 1), Arc::new(Plain), &[]).expect("it is written");
    let cases = [
        (
            None,
            EntryRef {
                value_crc: good.value_crc ^ 1,
                ..good
            },
            "damaged in memory",
        ),
        (
            None,
            EntryRef {
                sequence: 21,
                ..good
            },
            "above the cut",
        ),
        (
            None,
            EntryRef::deleted("k", 15),
            "a tombstone in a full snapshot",
        ),
        (
            Some(&full),
            EntryRef {
                sequence: 10,
                ..good
            },
            "not above the parent's cut",
        ),
    ];
    for (parent, bad, why) in cases {
        let plan = plan(2, parent, 20, 1);
        let mut writer =
            SnapshotWriter::begin(disk.shared(), plan, Arc::new(Plain), Options::default())
                .expect("it begins");
        let mut part = writer.part(0).expect("a part");
        let mut builder = writer.block_builder();
        builder.push(good).expect("it fits");
        builder.push(bad).expect("it fits");
        let error = part.write(builder.take()).expect_err(why);
        let named = match &error {
            WriteError::Value { key, .. } => bad.value_crc != good.value_crc && key == bad.key,
            WriteError::Block { part: 0, .. } => bad.value_crc == good.value_crc || bad.tombstone,
            _ => false,
        };
        assert!(named, "{why}: {error}");
        writer.abort().expect("it is removed");
        assert_eq!(disk.files().len(), 2, "{why}: only snapshot 1 is left");
    }
}

#[test]
fn plans_that_cannot_be_are_refused() {
    let disk = Disk::default();
    let full = save(&disk, plan(5, None, 10, 1), Arc::new(Plain), &[]).expect("it is written");
    let begin =
        |plan, options| SnapshotWriter::begin(disk.shared(), plan, Arc::new(Plain), options).err();
    let gone = Manifest {
        id: 4,
        ..full.clone()
    };
    let tiny = Options {
        block_bytes: 1,
        ..Options::default()
    };
    let huge = Options {
        value_bytes_max: usize::MAX,
        ..Options::default()
    };
    let setting = |error: Option<WriteError>| match error {
        Some(WriteError::Setting { name, .. }) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        setting(begin(plan(6, None, 10, 0), Options::default())),
        "parts"
    );
    assert_eq!(
        setting(begin(plan(6, None, 10, 4097), Options::default())),
        "parts"
    );
    assert_eq!(
        setting(begin(plan(5, None, 10, 1), Options::default())),
        "id"
    );
    assert_eq!(
        setting(begin(plan(6, Some(&full), 9, 1), Options::default())),
        "parent"
    );
    assert_eq!(setting(begin(plan(6, None, 10, 1), tiny)), "block_bytes");
    assert_eq!(
        setting(begin(plan(6, None, 10, 1), huge)),
        "value_bytes_max"
    );
    let error = begin(plan(6, Some(&gone), 10, 1), Options::default());
    assert!(
        matches!(error, Some(WriteError::ParentGone { parent: 4 })),
        "{error:?}"
    );
}

#[test]
fn every_part_of_the_plan_is_needed_exactly_once() {
    let disk = Disk::default();
    let begin = |id| {
        let plan = plan(id, None, 10, 2);
        SnapshotWriter::begin(disk.shared(), plan, Arc::new(Plain), Options::default())
            .expect("it begins")
    };
    let mut one = begin(1);
    let first = one.part(0).expect("a part");
    assert!(matches!(
        one.part(0),
        Err(WriteError::PartTaken { part: 0, parts: 2 })
    ));
    assert!(matches!(
        one.part(2),
        Err(WriteError::PartTaken { part: 2, parts: 2 })
    ));
    let error = one.finish(vec![first]).expect_err("part 1 is missing");
    assert!(
        matches!(error, WriteError::PartMissing { part: 1 }),
        "{error}"
    );

    let (mut two, mut three) = (begin(2), begin(3));
    let mixed = vec![two.part(0).expect("a part"), three.part(1).expect("a part")];
    let error = two.finish(mixed).expect_err("part 1 is another snapshot's");
    assert!(
        matches!(error, WriteError::PartMissing { part: 1 }),
        "{error}"
    );
    assert!(matches!(chain::newest(&disk, None), Ok(Found::None)));
}

/// The manifest of the largest snapshot there can be is within its own limit.
#[test]
fn the_most_parts_fit_a_manifest() {
    let disk = Disk::default();
    let parts = inflightkv_snapshot::PARTS_MAX;
    let written = save(&disk, plan(1, None, 0, parts), Arc::new(Plain), &[]).expect("written");
    let Ok(Found::Chain(found)) = chain::newest(&disk, Some(STORE)) else {
        panic!("no chain");
    };
    assert_eq!(found.tip(), &written);
    assert_eq!(found.tip().parts.len(), parts);
}
