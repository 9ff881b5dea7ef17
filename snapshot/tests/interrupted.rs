//! A crash or an error at every step leaves the older snapshot, or the new one whole.

mod support;

use std::sync::Arc;

use inflightkv_snapshot::{Found, Manifest, SnapshotWriter, WriteError, chain, check};
use support::{CODECS, Disk, Entry, RunLength, STORE, plan, save, small_blocks, state_of};

fn first() -> Vec<Entry> {
    (1..=200)
        .map(|i| Entry::new(i, &format!("key-{i}"), &"old".repeat(20)))
        .collect()
}

fn second() -> Vec<Entry> {
    let changed = (201..=300).map(|i| Entry::new(i, &format!("key-{i}"), &"new".repeat(20)));
    let deleted = (301..=320).map(|i| Entry::deleted(i, &format!("key-{}", i - 300)));
    changed.chain(deleted).collect()
}

/// A disk with a full snapshot on it.
fn before() -> (Disk, Manifest) {
    let disk = Disk::default();
    let full = save(&disk, plan(1, None, 200, 2), Arc::new(RunLength), &first()).expect("written");
    (disk, full)
}

fn save_second(disk: &Disk, full: &Manifest) -> Result<Manifest, WriteError> {
    save(
        disk,
        plan(2, Some(full), 320, 2),
        Arc::new(RunLength),
        &second(),
    )
}

/// The newest sound chain must load to its last entry, be one of those allowed, with nothing
/// newer passed over; a sweep leaves exactly its files.
fn check_state(disk: &Disk, allowed: &[&[u64]], story: &str) {
    let found = chain::newest(disk, Some(STORE)).unwrap_or_else(|e| panic!("{story}: {e}"));
    let Found::Chain(found) = found else {
        panic!("{story}: {found:?}");
    };
    let ids: Vec<u64> = found.manifests.iter().map(|manifest| manifest.id).collect();
    assert!(allowed.contains(&ids.as_slice()), "{story}: found {ids:?}");
    assert_eq!(found.skipped, [], "{story}");
    let state = state_of(disk, &found.manifests).unwrap_or_else(|e| panic!("{story}: {e}"));
    let expected = if ids.len() == 1 { 200 } else { 280 };
    assert_eq!(state.len(), expected, "{story}");

    chain::sweep(disk).unwrap_or_else(|e| panic!("{story}: {e}"));
    assert_eq!(
        disk.files().len(),
        3 * ids.len(),
        "{story}: {:?}",
        disk.files()
    );
    let report = check(disk, CODECS).unwrap_or_else(|e| panic!("{story}: {e}"));
    assert!(
        report.is_sound() && report.orphans.is_empty(),
        "{story}: {report:?}"
    );
}

fn calls_of_a_save() -> u64 {
    let (disk, full) = before();
    let start = disk.calls();
    save_second(&disk, &full).expect("it is written");
    disk.calls() - start
}

#[test]
fn an_error_at_any_step_leaves_the_older_or_the_whole_new_snapshot() {
    let calls = calls_of_a_save();
    assert!(calls > 12, "only {calls} calls: the test is not looking");
    for once in [true, false] {
        for step in 0..calls {
            let (disk, full) = before();
            disk.fail_at(step, once);
            let error = save_second(&disk, &full).expect_err("the disk failed");
            assert!(matches!(error, WriteError::Io { .. }), "{error:?}");
            let allowed: &[&[u64]] = if step == calls - 1 {
                // Only the last sync of the folder failed: everything was there before.
                &[&[1, 2]]
            } else {
                &[&[1]]
            };
            check_state(
                &disk.copy(),
                allowed,
                &format!("failing at {step}, once: {once}"),
            );
        }
    }
}

#[test]
fn a_power_cut_at_any_step_leaves_the_older_or_the_whole_new_snapshot() {
    let calls = calls_of_a_save();
    let mut seen_new = 0;
    for step in 0..=calls {
        for seed in 0..40 {
            let (disk, full) = before();
            disk.fail_at(step, false);
            let finished = save_second(&disk, &full).is_ok();
            let mut random = fastrand::Rng::with_seed(seed);
            let left = disk.after_power_cut(&mut random);
            let story = format!("power cut at {step}, seed {seed}");
            // What was finished must be there; what was not may be, if it is whole.
            let allowed: &[&[u64]] = if finished {
                &[&[1, 2]]
            } else {
                &[&[1], &[1, 2]]
            };
            seen_new += u32::from(
                left.files()
                    .contains(&"00000000000000000002.manifest".to_owned()),
            );
            check_state(&left, allowed, &story);
        }
    }
    assert!(
        seen_new > 40,
        "the renamed manifest was never seen before the last sync"
    );
}

/// A killed process leaves a snapshot whose name is in memory only. A restart builds on it, so a sweep makes it last.
#[test]
fn what_is_there_after_a_sweep_is_there_after_a_power_cut() {
    let calls = calls_of_a_save();
    for step in 0..calls {
        let (disk, full) = before();
        disk.fail_at(step, false);
        save_second(&disk, &full).expect_err("the process was killed");
        disk.fail_at(1 << 40, true);
        chain::sweep(&disk).expect("it sweeps");
        let files = disk.files();
        for seed in 0..20 {
            let left = disk.after_power_cut(&mut fastrand::Rng::with_seed(seed));
            assert_eq!(left.files(), files, "killed at {step}, seed {seed}");
        }
    }
}

/// Retiring removes in an order that never leaves a manifest without its files or its parent.
#[test]
fn a_power_cut_while_retiring_leaves_no_damage() {
    let prepared = || {
        let (disk, full) = before();
        let increment = save_second(&disk, &full).expect("written");
        let state = state_of(&disk, &[full, increment]).expect("it loads");
        let entries: Vec<Entry> = state.into_values().collect();
        save(&disk, plan(3, None, 320, 2), Arc::new(RunLength), &entries).expect("written");
        disk
    };
    let disk = prepared();
    let start = disk.calls();
    let removed = chain::retain(&disk, 1).expect("it retires");
    assert_eq!(removed.len(), 6, "{removed:?}");
    for step in 0..disk.calls() - start {
        for seed in 0..40 {
            let disk = prepared();
            disk.fail_at(step, false);
            chain::retain(&disk, 1).expect_err("the disk failed");
            let left = disk.after_power_cut(&mut fastrand::Rng::with_seed(seed));
            let report = check(&left, CODECS).expect("it can be checked");
            assert!(report.is_sound(), "step {step}, seed {seed}: {report:?}");
            assert_eq!(report.newest.as_deref(), Some([3].as_slice()));
            chain::retain(&left, 1).expect("it goes on");
            chain::sweep(&left).expect("it goes on");
            assert_eq!(left.files().len(), 3, "step {step}, seed {seed}");
        }
    }
}

#[test]
fn a_part_that_failed_takes_nothing_more() {
    let (disk, full) = before();
    let plan = plan(2, Some(&full), 320, 1);
    let mut writer =
        SnapshotWriter::begin(disk.shared(), plan, Arc::new(RunLength), small_blocks())
            .expect("it begins");
    let mut part = writer.part(0).expect("a part");
    let mut builder = writer.block_builder();
    let block = |builder: &mut inflightkv_snapshot::BlockBuilder| {
        let entry = Entry::new(201, "k", "v");
        builder.push(entry.as_ref()).expect("it fits");
        builder.take()
    };
    disk.fail_at(0, true);
    let error = part
        .write(block(&mut builder))
        .expect_err("the disk failed");
    assert!(matches!(error, WriteError::Io { .. }));
    // The disk works again, but what the failed write left is unknown.
    let error = part.write(block(&mut builder)).expect_err("closed");
    assert!(matches!(error, WriteError::Closed { .. }));
    assert!(matches!(part.seal(), Err(WriteError::Closed { .. })));
    assert!(matches!(
        writer.finish(vec![part]),
        Err(WriteError::Closed { .. })
    ));
}

#[test]
fn a_dropped_writer_is_invisible_and_swept_and_an_aborted_one_leaves_nothing() {
    for abort in [false, true] {
        let (disk, full) = before();
        let plan = plan(2, Some(&full), 320, 2);
        let mut writer =
            SnapshotWriter::begin(disk.shared(), plan, Arc::new(RunLength), small_blocks())
                .expect("it begins");
        let _parts = [
            writer.part(0).expect("a part"),
            writer.part(1).expect("a part"),
        ];
        assert_eq!(disk.files().len(), 5);
        if abort {
            writer.abort().expect("it is removed");
            assert_eq!(disk.files().len(), 3);
        } else {
            drop(writer);
            assert_eq!(
                chain::next_id(&disk).expect("listed"),
                3,
                "2 is not used again"
            );
        }
        check_state(&disk, &[&[1]], "dropped or aborted");
    }
}

/// A sweep at the wrong moment breaks its contract; it must cost the snapshot, not the store.
#[test]
fn a_sweep_under_a_writer_is_noticed() {
    let (disk, full) = before();
    let plan = plan(2, Some(&full), 320, 1);
    let mut writer =
        SnapshotWriter::begin(disk.shared(), plan, Arc::new(RunLength), small_blocks())
            .expect("it begins");
    let part = writer.part(0).expect("a part");
    chain::sweep(&disk).expect("it sweeps");
    let error = writer.finish(vec![part]).expect_err("its file is gone");
    assert!(matches!(error, WriteError::FileGone { .. }), "{error}");
    check_state(&disk, &[&[1]], "swept under a writer");
}

#[test]
fn a_parent_that_goes_while_its_increment_is_written_is_noticed() {
    let (disk, full) = before();
    let plan = plan(2, Some(&full), 320, 1);
    let mut writer =
        SnapshotWriter::begin(disk.shared(), plan, Arc::new(RunLength), small_blocks())
            .expect("it begins");
    let part = writer.part(0).expect("a part");
    disk.delete("00000000000000000001.manifest");
    let error = writer.finish(vec![part]).expect_err("its parent is gone");
    assert!(
        matches!(error, WriteError::ParentGone { parent: 1 }),
        "{error}"
    );
}
