//! The store survives: generated histories of clients, background work, failing disks, kills and power cuts, run on one
//! thread against a disk in memory and compared step by step with a model.
//!
//! A case is its seed, nothing else. `INFLIGHTKV_SIM_SEED` is the first one, `INFLIGHTKV_SIM_CASES`,
//! `INFLIGHTKV_SIM_CRASHES` or `INFLIGHTKV_SIM_SECONDS` say when to stop; `cargo xtask fuzz` sets them. A case that fails
//! is made as small as it gets, printed, and, where `INFLIGHTKV_SIM_SAVE` names a folder, kept there as a file that every
//! later run of the tests repeats.
//!
//! # Reading order
//! `history` (what can happen), `strategy` (how often), `disk` and `faults` (the machine), `model` (what must come of it),
//! `world`, `clients`, `restart`, `backups`, `restores`, `switching`, `following` (one history, run), `cases` (many).
#![forbid(unsafe_code)]

mod backups;
mod cases;
mod clients;
mod disk;
mod faults;
mod following;
mod history;
mod model;
mod restart;
mod restores;
mod strategy;
mod switching;
mod tally;
mod world;

use cases::Plan;

/// So many cases take about a second where nothing is optimised.
const CASES: u64 = 150;

#[test]
fn no_crash_takes_what_was_said_to_be_durable_and_nothing_is_invented() {
    let plan = Plan::from_environment(CASES);
    let tally = plan.run().unwrap_or_else(|failed| panic!("{failed}"));
    println!("{}", cases::summary(&tally));
    if plan.is_the_usual() {
        // A simulation that tries nothing finds nothing.
        let tried = [
            ("kills", tally.kills),
            ("power cuts", tally.power_cuts),
            ("crashes in recovery", tally.in_recovery),
            ("ends in good order", tally.closed),
            ("changes kept", tally.kept),
            ("changes taken", tally.taken),
            ("full snapshots", tally.full_snapshots),
            ("incremental snapshots", tally.increments),
            ("snapshots given up", tally.snapshots_failed),
            ("segments retired", tally.segments_retired),
            ("segments rewritten", tally.segments_rewritten),
            ("backups", tally.backups),
            ("restores in place of everything", tally.replaced),
            ("keys merged from a backup", tally.merged),
            ("backups refused", tally.restores_refused),
            (
                "passes that stored something in another form",
                tally.recoded,
            ),
            ("switches off", tally.switched_off),
            ("switches on", tally.switched_on),
            ("records followed", tally.followed),
            ("followers that began anew", tally.followers_lost),
            ("errors of the disk", tally.errors),
            ("writes refused by a closed log", tally.refused_read_only),
            ("writes refused for lack of room", tally.refused_disk_full),
            ("writes refused for a backlog", tally.refused_backlog),
            (
                "writes refused because nothing is durable",
                tally.refused_not_durable,
            ),
            ("answers held", tally.held),
            ("expired keys asked for", tally.expired_hidden),
        ];
        for (what, count) in tried {
            assert!(count > 0, "no {what} in {CASES} cases");
        }
    }
}

#[test]
fn histories_that_once_failed_pass() {
    let folder = cases::regressions();
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no histories", folder.display());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a history can be read");
        let history = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{} is no history: {error}", file.display()));
        if let Err(failed) = cases::run(&history) {
            panic!("{}: {failed}", file.display());
        }
    }
}

#[test]
fn the_same_seed_is_the_same_case() {
    for seed in 1..10 {
        assert_eq!(cases::drawn(seed), cases::drawn(seed), "seed {seed}");
        let history = cases::drawn(seed);
        assert_eq!(cases::run(&history), cases::run(&history), "seed {seed}");
    }
}
