//! Every changed, missing or exchanged byte is noticed, and no bytes make a reader panic or spend memory
//! that the file does not account for.

mod support;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use inflightkv_snapshot::{
    BlockCodec, ChainError, CodecError, Found, LoadError, Manifest, Plain, chain, load_part,
    read_file,
};
use proptest::prelude::*;
use support::{CODECS, Disk, Entry, RunLength, STORE, entries_of, plan, save};

const MANIFEST: &str = "00000000000000000001.manifest";
const PART_0: &str = "00000000000000000001-0000.part";
const PART_1: &str = "00000000000000000001-0001.part";

fn entries(count: u64) -> Vec<Entry> {
    (1..=count)
        .map(|i| {
            let mut entry = Entry::new(i, &format!("key-{i}"), &"value".repeat(3));
            entry.media_type = i.is_multiple_of(2).then(|| "text/plain".to_owned());
            entry.expires_at = i.is_multiple_of(3).then_some(1_000 + i);
            entry
        })
        .collect()
}

fn saved(codec: Arc<dyn BlockCodec>, count: u64) -> (Disk, Manifest) {
    let disk = Disk::default();
    let manifest = save(&disk, plan(1, None, count, 2), codec, &entries(count)).expect("written");
    (disk, manifest)
}

/// What a recovery would do: look for the newest chain, load all of it.
fn load(disk: &Disk) -> Result<Vec<Entry>, String> {
    match chain::newest(disk, Some(STORE)).map_err(|error| error.to_string())? {
        Found::Chain(found) => entries_of(disk, found.tip()).map_err(|error| error.to_string()),
        other => Err(format!("{other:?}")),
    }
}

/// The change must be noticed, and the message must name the file.
fn check_noticed(disk: &Disk, name: &str, bytes: Vec<u8>, story: &str) {
    let damaged = disk.copy();
    damaged.put(name, bytes);
    let Err(error) = load(&damaged) else {
        panic!("{story} in {name} was not noticed");
    };
    assert!(error.contains(name), "{story} in {name}: {error}");
}

#[test]
fn every_changed_byte_is_noticed() {
    let codecs: [Arc<dyn BlockCodec>; 2] = [Arc::new(Plain), Arc::new(RunLength)];
    for codec in codecs {
        let (disk, _) = saved(codec, 10);
        assert_eq!(load(&disk).map(|entries| entries.len()), Ok(10));
        for name in disk.files() {
            let sound = disk.get(&name);
            for at in 0..sound.len() {
                for mask in [0x01, 0x80, 0xff] {
                    let mut bytes = sound.clone();
                    bytes[at] ^= mask;
                    check_noticed(&disk, &name, bytes, &format!("byte {at} xor {mask:#x}"));
                }
            }
        }
    }
}

#[test]
fn every_cut_and_every_addition_is_noticed() {
    let (disk, _) = saved(Arc::new(RunLength), 10);
    for name in disk.files() {
        let sound = disk.get(&name);
        for len in 0..sound.len() {
            check_noticed(
                &disk,
                &name,
                sound[..len].to_vec(),
                &format!("a cut to {len}"),
            );
            // A file system may leave the length and lose the bytes.
            let mut zeros = sound[..len].to_vec();
            zeros.resize(sound.len(), 0);
            if zeros != sound {
                check_noticed(&disk, &name, zeros, &format!("zeros from {len}"));
            }
        }
        for more in [1, 100] {
            let longer = [sound.clone(), vec![0; more]].concat();
            check_noticed(&disk, &name, longer, &format!("{more} bytes more"));
        }
    }
}

#[test]
fn a_missing_part_is_noticed() {
    let (disk, _) = saved(Arc::new(Plain), 10);
    disk.delete(PART_1);
    let error = load(&disk).expect_err("it is noticed");
    assert!(
        error.contains(PART_1) && error.contains("no file"),
        "{error}"
    );
}

/// Each of these parts is whole and sound, and of the right length. It just does not belong there.
#[test]
fn a_part_from_elsewhere_is_noticed() {
    let same_lengths: Vec<Entry> = (0..10)
        .map(|i| Entry::new(10 + i, &format!("{i}"), "v"))
        .collect();
    let write = |id, store_id, cut| {
        let disk = Disk::default();
        let plan = inflightkv_snapshot::Plan {
            store_id,
            ..plan(id, None, cut, 2)
        };
        save(&disk, plan, Arc::new(Plain), &same_lengths).expect("written");
        disk
    };
    let disk = write(1, STORE, 30);
    let part = |disk: &Disk, id: u64, number: u32| disk.get(&format!("{id:020}-{number:04}.part"));
    let cases = [
        (part(&disk, 1, 1), "part number"),
        (part(&write(2, STORE, 30), 2, 0), "a part of snapshot 1"),
        (
            part(&write(1, [7; 16], 30), 1, 0),
            "belongs to store 07070707",
        ),
        (part(&write(1, STORE, 31), 1, 0), "the cut 30"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(bytes.len(), disk.get(PART_0).len(), "{expected}");
        let damaged = disk.copy();
        damaged.put(PART_0, bytes);
        let error = load(&damaged).expect_err(expected);
        assert!(
            error.contains(expected) && error.contains(PART_0),
            "{expected}: {error}"
        );
    }
}

/// The same snapshot written once more with one other value of the same length: every file is sound by
/// itself, only the manifest's digest knows.
#[test]
fn a_part_of_the_same_snapshot_with_other_entries_is_noticed() {
    let write = |value| {
        let disk = Disk::default();
        let entries = [Entry::new(1, "a", value), Entry::new(2, "b", "2")];
        save(&disk, plan(1, None, 2, 2), Arc::new(Plain), &entries).expect("written");
        disk
    };
    let (disk, other) = (write("1"), write("9"));
    check_noticed(&disk, PART_0, other.get(PART_0), "another value");
    check_noticed(
        &disk,
        MANIFEST,
        other.get(MANIFEST)[..20].to_vec(),
        "half a manifest",
    );
}

// ---- versions and stores ----

fn seal_manifest(bytes: &mut [u8]) {
    let crc = crc32fast::hash(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
}

fn seal_part_header(bytes: &mut [u8]) {
    let crc = crc32fast::hash(&bytes[12..64]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// A newer manifest stops everything: starting on an older one would lose what the newer holds.
#[test]
fn a_newer_format_is_an_answer_of_its_own() {
    let (disk, manifest) = saved(Arc::new(Plain), 10);
    let newer = disk.copy();
    let mut bytes = newer.get(MANIFEST);
    bytes[12] = 2;
    seal_manifest(&mut bytes);
    newer.put(&MANIFEST.replace("01.", "02."), bytes);
    let error = chain::newest(&newer, None).expect_err("newer");
    assert!(
        matches!(
            error,
            ChainError::NewerFormat {
                found: 2,
                supported: 1,
                ..
            }
        ),
        "{error}"
    );
    let listed = chain::list(&newer).expect("it can still be listed");
    assert!(matches!(
        listed[1].manifest,
        Err(LoadError::NewerFormat { .. })
    ));

    let mut bytes = disk.get(PART_0);
    bytes[12] = 2;
    seal_part_header(&mut bytes);
    disk.put(PART_0, bytes);
    let error = entries_of(&disk, &manifest).expect_err("newer");
    assert!(
        matches!(error, LoadError::NewerFormat { found: 2, .. }),
        "{error}"
    );
}

/// A version that is only damaged must not pass for a newer one.
#[test]
fn a_damaged_version_is_damage() {
    let (disk, _) = saved(Arc::new(Plain), 10);
    let mut bytes = disk.get(MANIFEST);
    bytes[12] = 2;
    disk.put(MANIFEST, bytes);
    assert!(matches!(chain::newest(&disk, None), Ok(Found::AllDamaged(all)) if all.len() == 1));
}

#[test]
fn another_store_is_an_answer_of_its_own() {
    let (disk, manifest) = saved(Arc::new(Plain), 10);
    let error = chain::newest(&disk, Some([9; 16])).expect_err("foreign");
    let ChainError::ForeignStore {
        expected, found, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((expected, found), ([9; 16], STORE));

    // Without an id asked for, the newest manifest's counts, and the others must agree.
    let plan = inflightkv_snapshot::Plan {
        store_id: [9; 16],
        ..plan(2, None, 10, 1)
    };
    save(&disk, plan, Arc::new(Plain), &[]).expect("written");
    assert!(matches!(
        chain::newest(&disk, None),
        Err(ChainError::ForeignStore { .. })
    ));
    let foreign = Manifest {
        store_id: [9; 16],
        ..manifest
    };
    assert!(matches!(
        entries_of(&disk, &foreign),
        Err(LoadError::ForeignStore { .. })
    ));
}

#[test]
fn an_unknown_codec_is_an_answer_of_its_own() {
    let disk = Disk::default();
    let value = [Entry::new(1, "k", &"x".repeat(1000))];
    let manifest = save(&disk, plan(1, None, 1, 1), Arc::new(RunLength), &value).expect("written");
    let result = load_part(
        &disk,
        &manifest,
        0,
        &[&Plain],
        |_| ControlFlow::Continue(()),
    );
    assert!(
        matches!(
            result,
            Err(LoadError::UnknownCodec {
                id: RunLength::ID,
                offset: 64,
                ..
            })
        ),
        "{result:?}"
    );
    let result = load_part(&disk, &manifest, 1, CODECS, |_| ControlFlow::Continue(()));
    assert!(matches!(
        result,
        Err(LoadError::NoSuchPart { part: 1, parts: 1 })
    ));
}

// ---- hostile files: every checksum holds, the fields lie ----

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

/// Makes every checksum that can be found in a part hold again.
fn seal_part(bytes: &mut [u8]) {
    seal_part_header(bytes);
    let tail = bytes.len() - 28;
    let table = tail - 24;
    let (index, index_len) = (u32_at(bytes, table + 8), u32_at(bytes, table + 16));
    if index + index_len <= table {
        for slot in (index..index + index_len).step_by(28) {
            let block = u32_at(bytes, slot);
            if block + 44 >= index {
                continue;
            }
            let filter = block + 44..block + 44 + u32_at(bytes, block + 36);
            let stored = filter.end..filter.end + u32_at(bytes, block + 20);
            for (piece, at) in [(filter, block + 40), (stored, block + 32)] {
                if let Some(piece) = bytes.get(piece) {
                    let crc = crc32fast::hash(piece);
                    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
                }
            }
            let crc = crc32fast::hash(&bytes[block + 8..block + 44]);
            bytes[block + 4..block + 8].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[index..index + index_len]);
        bytes[table + 4..table + 8].copy_from_slice(&crc.to_le_bytes());
    }
    let crc = crc32fast::hash(&bytes[table..tail + 16]);
    bytes[tail + 16..tail + 20].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn sealing_a_sound_part_changes_nothing() {
    let (disk, _) = saved(Arc::new(RunLength), 500);
    let mut bytes = disk.get(PART_0);
    seal_part(&mut bytes);
    assert_eq!(bytes, disk.get(PART_0));
}

/// A block that claims to become a gigabyte, in header and index alike, with every checksum right: it is
/// refused before the codec, or any memory, is asked.
#[test]
fn an_absurd_raw_length_is_refused_before_memory_is_spent() {
    struct Recorder(AtomicUsize);
    impl BlockCodec for Recorder {
        fn id(&self) -> u8 {
            RunLength::ID
        }
        fn compress(&self, _: &[u8], _: &mut Vec<u8>) {}
        fn decompress(&self, _: &[u8], raw_len: usize, _: &mut Vec<u8>) -> Result<(), CodecError> {
            self.0.fetch_max(raw_len, Ordering::Relaxed);
            Err(CodecError::new("only recording"))
        }
    }
    let disk = Disk::default();
    let value = [Entry::new(1, "k", &"x".repeat(1000))];
    let manifest = save(&disk, plan(1, None, 1, 1), Arc::new(RunLength), &value).expect("written");
    let sound = disk.get(PART_0);
    let index = sound.len() - 28 - 24 - 28;
    for (claimed, without_manifest) in [(1 << 30, 1 << 30), (u32::MAX, 0)] {
        let mut bytes = sound.clone();
        bytes[64 + 16..64 + 20].copy_from_slice(&claimed.to_le_bytes());
        bytes[index + 8..index + 12].copy_from_slice(&claimed.to_le_bytes());
        seal_part(&mut bytes);
        disk.put(PART_0, bytes);

        let recorder = Recorder(AtomicUsize::new(0));
        let result = load_part(&disk, &manifest, 0, &[&recorder], |_| {
            ControlFlow::Continue(())
        });
        assert!(matches!(result, Err(LoadError::Damaged(_))), "{result:?}");
        assert_eq!(recorder.0.into_inner(), 0, "the manifest knows better");

        let recorder = Recorder(AtomicUsize::new(0));
        let result = read_file(&disk, PART_0, &[&recorder], |_| ControlFlow::Continue(()));
        assert!(matches!(result, Err(LoadError::Damaged(_))), "{result:?}");
        assert_eq!(
            recorder.0.into_inner(),
            without_manifest,
            "the format has a limit"
        );
    }
}

/// Sound checksums over a manifest whose lengths lie: an error, not an allocation.
#[test]
fn absurd_lengths_in_a_manifest_are_refused() {
    let (disk, _) = saved(Arc::new(Plain), 10);
    let sound = disk.get(MANIFEST);
    // store id 16, id 8, no parent 1, cut 8, created at 8, partitions 4; then parts, then a name.
    let parts = 20 + 45;
    assert_eq!(sound[parts..parts + 8], 2_u64.to_le_bytes());
    for at in [parts, parts + 8] {
        for absurd in [3, 1 << 20, 1 << 40, u64::MAX] {
            let mut bytes = sound.clone();
            bytes[at..at + 8].copy_from_slice(&u64::to_le_bytes(absurd));
            seal_manifest(&mut bytes);
            let damaged = disk.copy();
            damaged.put(MANIFEST, bytes);
            let found = chain::newest(&damaged, None);
            assert!(
                matches!(found, Ok(Found::AllDamaged(_))),
                "{absurd} at {at}"
            );
        }
    }
}

#[test]
fn a_part_name_that_leads_elsewhere_is_refused() {
    let (disk, _) = saved(Arc::new(Plain), 10);
    let mut bytes = disk.get(MANIFEST);
    let name = 20 + 45 + 16;
    assert_eq!(&bytes[name..name + 20], b"00000000000000000001");
    bytes[name..name + 20].copy_from_slice(b"../../../etc/passwd/");
    seal_manifest(&mut bytes);
    disk.put(MANIFEST, bytes);
    let found = chain::newest(&disk, None).expect("an answer");
    let Found::AllDamaged(all) = found else {
        panic!("{found:?}");
    };
    assert_eq!(all[0].damage.expected, format!("a part named {PART_0}"));
}

/// The answer does not matter, that there is one does.
fn read_all(disk: &Disk, manifest: &Manifest) {
    for name in disk.files() {
        let _ = read_file(disk, &name, CODECS, |_| ControlFlow::Continue(()));
    }
    let _ = entries_of(disk, manifest);
    let _ = chain::newest(disk, None);
    let _ = inflightkv_snapshot::check(disk, CODECS);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), magic in any::<bool>(), part in any::<bool>()) {
        let (disk, manifest) = saved(Arc::new(RunLength), 5);
        let name = if part { PART_0 } else { MANIFEST };
        let mut bytes = bytes;
        if magic {
            let sound = disk.get(name);
            let kept = sound.len().min(20).min(bytes.len());
            bytes[..kept].copy_from_slice(&sound[..kept]);
            if !part && bytes.len() >= 20 {
                let len = (bytes.len() - 20) as u32;
                bytes[16..20].copy_from_slice(&len.to_le_bytes());
                seal_manifest(&mut bytes);
            }
        }
        disk.put(name, bytes);
        read_all(&disk, &manifest);
    }

    /// Fields lie under checksums that hold: deeper than random bytes ever get. With the manifest, every
    /// one of them is noticed all the same.
    #[test]
    fn lying_fields_are_noticed_and_never_panic(
        at in any::<prop::sample::Index>(),
        lie in prop::collection::vec(any::<u8>(), 1..9),
        compressed in any::<bool>(),
    ) {
        let codec: Arc<dyn BlockCodec> = if compressed { Arc::new(RunLength) } else { Arc::new(Plain) };
        let (disk, manifest) = saved(codec, 12);
        let mut bytes = disk.get(PART_0);
        let at = at.index(bytes.len() - lie.len());
        bytes[at..at + lie.len()].copy_from_slice(&lie);
        seal_part(&mut bytes);
        let changed = bytes != disk.get(PART_0);
        disk.put(PART_0, bytes);
        prop_assert_eq!(entries_of(&disk, &manifest).is_err(), changed);
        read_all(&disk, &manifest);
    }
}
