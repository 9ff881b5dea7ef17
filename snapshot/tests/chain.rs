//! Which snapshots to start from, which to keep, and what is told of the others.

mod support;

use std::ops::ControlFlow;
use std::sync::Arc;

use inflightkv_snapshot::{
    Chain, Contents, Found, Kind, LoadError, Manifest, Plain, chain, check, read_file,
};
use support::{CODECS, Disk, Entry, STORE, plan, save};

/// Snapshots with these parents (0 is none), ids from 1 on, cuts 10 times the id, a part each.
fn disk_with(parents: &[u64]) -> Disk {
    let disk = Disk::default();
    let mut saved: Vec<Manifest> = Vec::new();
    for (id, &parent) in (1..).zip(parents) {
        let parent = saved.iter().find(|manifest| manifest.id == parent);
        let entry = Entry::new(id * 10, &format!("key-{id}"), "value");
        let manifest = save(
            &disk,
            plan(id, parent, id * 10, 1),
            Arc::new(Plain),
            &[entry],
        );
        saved.push(manifest.expect("it is written"));
    }
    disk
}

fn manifest(id: u64) -> String {
    format!("{id:020}.manifest")
}

fn part(id: u64) -> String {
    format!("{id:020}-0000.part")
}

fn found(disk: &Disk) -> Chain {
    match chain::newest(disk, Some(STORE)) {
        Ok(Found::Chain(chain)) => chain,
        other => panic!("{other:?}"),
    }
}

fn ids(chain: &Chain) -> Vec<u64> {
    chain.manifests.iter().map(|manifest| manifest.id).collect()
}

fn skipped(chain: &Chain) -> Vec<u64> {
    chain.skipped.iter().map(|skipped| skipped.tip).collect()
}

#[test]
fn none_found_and_all_damaged_are_three_answers() {
    let disk = Disk::default();
    assert!(matches!(chain::newest(&disk, None), Ok(Found::None)));
    // Files that are not ours, and an unfinished snapshot, are no sign of a snapshot.
    disk.put("LOCK", vec![]);
    disk.put(&part(1), vec![1, 2, 3]);
    disk.put("00000000000000000001.manifest.tmp", vec![]);
    assert!(matches!(chain::newest(&disk, None), Ok(Found::None)));

    let disk = disk_with(&[0, 1]);
    assert_eq!(ids(&found(&disk)), [1, 2]);
    assert_eq!((found(&disk).cut(), found(&disk).entries()), (20, 2));

    disk.delete(&part(1));
    let Ok(Found::AllDamaged(all)) = chain::newest(&disk, None) else {
        panic!("a store would start empty over snapshot 2");
    };
    let tips: Vec<u64> = all.iter().map(|skipped| skipped.tip).collect();
    assert_eq!(tips, [2, 1]);
    assert!(all.iter().all(|skipped| skipped.damage.file == part(1)));
}

/// What is lost, and which chain is then the newest, and what is said to have been passed over.
#[test]
fn the_newest_sound_chain_is_found_whatever_is_lost() {
    // Two chains: 1 <- 2 <- 3, and 4 <- 5.
    let parents = [0, 1, 2, 0, 4];
    let cases: [(&[String], &[u64], &[u64]); 7] = [
        (&[], &[4, 5], &[]),
        (&[part(5)], &[4], &[5]),
        (&[part(4)], &[1, 2, 3], &[5, 4]),
        // Without its manifest a snapshot is not there: only its child is missed.
        (&[manifest(4)], &[1, 2, 3], &[5]),
        (&[part(4), part(3)], &[1, 2], &[5, 4, 3]),
        (&[part(4), manifest(2)], &[1], &[5, 4, 3]),
        (&[part(1), part(2)], &[4, 5], &[]),
    ];
    for (lost, expected, passed_over) in cases {
        let disk = disk_with(&parents);
        lost.iter().for_each(|name| disk.delete(name));
        let found = found(&disk);
        assert_eq!(ids(&found), expected, "without {lost:?}");
        assert_eq!(skipped(&found), passed_over, "without {lost:?}");
    }
}

/// A parent of the same id but another cut is not the parent: the increment would leave a hole.
#[test]
fn a_parent_with_another_cut_is_noticed() {
    let disk = disk_with(&[0, 1]);
    let other = Disk::default();
    save(&other, plan(1, None, 9, 1), Arc::new(Plain), &[]).expect("written");
    for name in [manifest(1), part(1)] {
        disk.put(&name, other.get(&name));
    }
    let found = found(&disk);
    assert_eq!((ids(&found), skipped(&found)), (vec![1], vec![2]));
    assert_eq!(found.skipped[0].damage.expected, "the parent's cut 9");
}

/// Damage that only loading shows: the caller goes on with the next candidate.
#[test]
fn candidates_come_newest_first() {
    let disk = disk_with(&[0, 1, 0]);
    let candidates = chain::candidates(&disk, None).expect("a folder");
    let tips: Vec<Vec<u64>> = candidates
        .map(|candidate| match candidate {
            Ok(chain::Candidate::Sound(chain)) => ids(&chain),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(tips, [vec![3], vec![1, 2], vec![1]]);
}

#[test]
fn a_manifest_under_another_name_is_damage() {
    let disk = disk_with(&[0]);
    disk.put(&manifest(7), disk.get(&manifest(1)));
    let found = found(&disk);
    assert_eq!((ids(&found), skipped(&found)), (vec![1], vec![7]));
}

#[test]
fn ids_grow_past_everything_that_was_ever_begun() {
    assert_eq!(chain::next_id(&Disk::default()).expect("listed"), 1);
    let disk = disk_with(&[0, 1]);
    assert_eq!(chain::next_id(&disk).expect("listed"), 3);
    disk.put(&part(8), vec![]);
    assert_eq!(chain::next_id(&disk).expect("listed"), 9);
    disk.put("00000000000000000009.manifest.tmp", vec![]);
    assert_eq!(chain::next_id(&disk).expect("listed"), 10);
}

#[test]
fn retaining_keeps_whole_chains_and_never_loses_the_newest_sound_one() {
    // Three chains: 1 <- 2, 3 <- 4, 5.
    let parents = [0, 1, 0, 3, 0];
    let cases: [(&[u64], usize, &[u64]); 8] = [
        // (damaged, keep, left)
        (&[], 1, &[5]),
        (&[], 2, &[3, 4, 5]),
        (&[], 3, &[1, 2, 3, 4, 5]),
        (&[], 9, &[1, 2, 3, 4, 5]),
        (&[], 0, &[5]),
        // The newest is damaged: it is evidence, and what it replaced is still needed.
        (&[5], 1, &[3, 4, 5]),
        (&[5, 3], 1, &[1, 2, 3, 4, 5]),
        // Damaged and older than what is kept.
        (&[1], 2, &[3, 4, 5]),
    ];
    for (damaged, keep, left) in cases {
        let disk = disk_with(&parents);
        disk.put("LOCK", vec![]);
        for &id in damaged {
            disk.put(&part(id), vec![0]);
        }
        let before = disk.files();
        let removed = chain::retain(&disk, keep).expect("it retires");
        let mut expected: Vec<String> = left
            .iter()
            .flat_map(|&id| [part(id), manifest(id)])
            .chain(["LOCK".to_owned()])
            .collect();
        expected.sort();
        assert_eq!(disk.files(), expected, "damaged {damaged:?}, keep {keep}");
        assert_eq!(removed.len(), before.len() - expected.len());
        assert!(matches!(chain::newest(&disk, None), Ok(Found::Chain(_))));
    }
}

#[test]
fn with_nothing_sound_nothing_is_removed() {
    let disk = disk_with(&[0, 0]);
    disk.put(&part(1), vec![]);
    disk.put(&part(2), vec![]);
    assert_eq!(chain::retain(&disk, 1).expect("an answer"), [""; 0]);
    assert_eq!(disk.files().len(), 4);
}

#[test]
fn a_sweep_removes_what_is_unfinished_and_nothing_else() {
    let disk = disk_with(&[0]);
    disk.put(&manifest(2), b"damaged, but visible".to_vec());
    disk.put(&part(2), vec![]);
    disk.put("notes.txt", vec![]);
    let kept = disk.files();
    disk.put(&part(3), vec![]);
    disk.put("00000000000000000003-0001.part", vec![]);
    disk.put("00000000000000000003.manifest.tmp", vec![]);
    disk.put("00000000000000000001.manifest.tmp", vec![]);
    let removed = chain::sweep(&disk).expect("it sweeps");
    assert_eq!(removed.len(), 4, "{removed:?}");
    assert_eq!(disk.files(), kept);
    assert_eq!(chain::sweep(&disk).expect("it sweeps"), [""; 0]);
}

#[test]
fn listing_shows_the_damaged_too() {
    let disk = disk_with(&[0, 1]);
    disk.put(&manifest(3), b"IFKV".to_vec());
    let listed = chain::list(&disk).expect("it is listed");
    let shown: Vec<_> = listed
        .iter()
        .map(|one| {
            (
                one.id,
                one.manifest.as_ref().ok().map(|m| (m.kind(), m.cut)),
            )
        })
        .collect();
    let expected = [
        (1, Some((Kind::Full, 10))),
        (2, Some((Kind::Incremental, 20))),
        (3, None),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn a_check_reads_every_byte() {
    let disk = disk_with(&[0, 1, 2]);
    assert!(check(&disk, CODECS).expect("it is checked").is_sound());

    // The length is right, so that only reading the part shows it.
    let mut bytes = disk.get(&part(2));
    bytes[110] ^= 1;
    disk.put(&part(2), bytes);
    disk.put(&part(4), vec![]);
    assert_eq!(ids(&found(&disk)), [1, 2, 3], "not seen without reading");
    let report = check(&disk, CODECS).expect("it is checked");
    assert!(!report.is_sound());
    assert_eq!(report.newest, Some(vec![1]));
    assert_eq!(report.orphans, [part(4)]);
    let problems: Vec<usize> = report
        .snapshots
        .iter()
        .map(|one| one.problems.len())
        .collect();
    assert_eq!(problems, [0, 1, 0]);
    assert!(
        matches!(&report.snapshots[1].problems[0], LoadError::Damaged(damage)
        if damage.file == part(2) && damage.offset >= 64)
    );

    // Without its parent the newest snapshot is of no use, though every byte of it holds.
    let disk = disk_with(&[0, 0, 2]);
    disk.delete(&manifest(2));
    let report = check(&disk, CODECS).expect("it is checked");
    assert!(!report.is_sound());
    assert_eq!(report.newest, Some(vec![1]));
    assert!(
        matches!(&report.snapshots[1].problems[..], [LoadError::Damaged(damage)]
        if damage.file == manifest(2) && damage.expected == "the parent of snapshot 3")
    );
}

#[test]
fn one_file_can_be_read_by_itself() {
    let disk = disk_with(&[0, 1]);
    let mut keys = Vec::new();
    let contents = read_file(&disk, &part(2), CODECS, |entry| {
        keys.push(entry.key.to_owned());
        ControlFlow::Continue(())
    });
    let Ok(Contents::Part { header, report }) = contents else {
        panic!("{contents:?}");
    };
    assert_eq!(
        (header.snapshot, header.kind, header.parent_cut),
        (2, Kind::Incremental, 10)
    );
    assert_eq!((report.entries, keys), (1, vec!["key-2".to_owned()]));
    let see = |_: inflightkv_snapshot::EntryRef<'_>| ControlFlow::Continue(());
    let contents = read_file(&disk, &manifest(2), CODECS, see);
    assert!(matches!(contents, Ok(Contents::Manifest(one)) if one.id == 2));
    for name in ["LOCK", "../x", "00000000000000000002.manifest.tmp"] {
        assert!(matches!(
            read_file(&disk, name, CODECS, see),
            Err(LoadError::NotOurs { .. })
        ));
    }
}

/// No file handles left, no permission: that may pass, and says nothing about the bytes. An older chain
/// must not be taken for it.
#[test]
fn a_disk_that_fails_for_now_is_no_damage() {
    use inflightkv_snapshot::{ChainError, File, Storage};
    use std::io;
    struct NoHandles(Disk);
    impl Storage for NoHandles {
        fn list(&self) -> io::Result<Vec<String>> {
            self.0.list()
        }
        fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
            self.0.create(name)
        }
        fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
            if name.contains("002") {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.0.open(name)
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }
        fn sync_dir(&self) -> io::Result<()> {
            self.0.sync_dir()
        }
    }
    let disk = NoHandles(disk_with(&[0, 0]));
    assert!(matches!(
        chain::newest(&disk, None),
        Err(ChainError::Io { .. })
    ));
}
