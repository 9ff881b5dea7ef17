//! Every kind of damage to a data directory, met as an operator meets it: `check` names it in one line, a start says so or goes on,
//! `repair` keeps what can be proven and throws nothing away, and afterwards the server starts.
#![cfg(feature = "cli")]

mod support;

use inflightkv_server::engine::drive::Driver;
use inflightkv_server::engine::{
    Change, Conditions, Disk, Durability, Engine, ManualClock, Options, Persistence, PutTtl,
    RestoreMode, SnapshotKind, SwitchStep, Value, Write,
};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use support::Server;
use tempfile::TempDir;

/// Keys in the full snapshot, and in the incremental one after it; the rest is in the log alone.
const FULL: usize = 40;
const INCREMENTAL: usize = 60;
const KEYS: usize = 160;

struct Store {
    engine: Engine,
    driver: Driver,
    clock: Arc<ManualClock>,
}

fn open(folder: &Path) -> Store {
    let mut persistence = Persistence::on(Disk::open(folder).expect("a directory"));
    persistence.wal.segment_bytes = 8 << 10;
    persistence.wal.keep = Duration::from_secs(86_400 * 300);
    persistence.wal_compress = None;
    persistence.snapshot_after = 1 << 30;
    persistence.snapshot_parts = 2;
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let engine = Engine::open(Options {
        partitions: 4,
        persistence: Some(persistence),
        clock: clock.clone(),
        ..Options::default()
    })
    .expect("a store");
    engine.recover().expect("it recovers");
    let driver = Driver::new(&engine).expect("nobody drives it");
    Store {
        engine,
        driver,
        clock,
    }
}

fn value(id: usize) -> String {
    format!("{{\"value\":\"{id:0>200}\"}}")
}

impl Store {
    fn put(&mut self, ids: Range<usize>) {
        for id in ids {
            let write = Write {
                key: &format!("key/{id}"),
                conditions: Conditions::default(),
                change: Change::Put {
                    value: Value {
                        bytes: value(id).into_bytes().into(),
                        media_type: None,
                    },
                    ttl: PutTtl::Clear,
                },
                durability: Durability::Async,
                returning: false,
                pin: None,
            };
            self.engine.lane(0).write(write).expect("it is taken");
            self.write_log();
        }
    }

    fn write_log(&mut self) {
        self.clock.advance(1_000);
        while self.driver.write_log() {}
    }

    /// Everything but the checkpointer.
    fn turn(&mut self) {
        self.clock.advance(1);
        self.driver.write_log();
        self.driver.turn_homes();
    }

    fn snapshot(&mut self, kind: SnapshotKind) {
        let id = self.engine.request_snapshot(kind).expect("asked for");
        for _ in 0..100_000 {
            self.turn();
            self.driver.checkpoint();
            if let Some(outcome) = self.engine.snapshot_outcome(id) {
                outcome.expect("it stands");
                return;
            }
        }
        panic!("the snapshot does not end");
    }

    fn backup(&mut self) -> Vec<u8> {
        let mut backup = self.engine.begin_backup().expect("asked for");
        let mut bytes = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        loop {
            self.turn();
            self.driver.checkpoint();
            match backup.poll_piece(&mut context) {
                Poll::Ready(Some(piece)) => bytes.extend_from_slice(&piece.expect("a piece")),
                Poll::Ready(None) => return bytes,
                Poll::Pending => {}
            }
        }
    }

    fn close(self) {
        self.driver.close().expect("it ends");
    }
}

/// A store with a full snapshot, an increment, and a log that has everything.
fn written(folder: &Path) -> Store {
    let mut store = open(folder);
    store.put(0..FULL);
    store.snapshot(SnapshotKind::Full);
    store.put(FULL..INCREMENTAL);
    store.snapshot(SnapshotKind::Incremental);
    store.put(INCREMENTAL..KEYS);
    store
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).expect("a copy");
        }
    }
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    files(&folder.join("wal"), "log")
}

fn name(path: &Path) -> String {
    path.file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned()
}

/// The segment and the place in it where the value `id` is.
fn holding(folder: &Path, id: usize) -> (PathBuf, usize) {
    let wanted = value(id);
    segments(folder)
        .into_iter()
        .find_map(|path| {
            let bytes = fs::read(&path).expect("a file");
            let at = bytes
                .windows(wanted.len())
                .position(|window| window == wanted.as_bytes())?;
            Some((path, at))
        })
        .expect("it is in the log")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("a file");
}

/// What is wrong with a directory, and what is to come of it.
struct Case {
    name: &'static str,
    /// Does the damage; says what `check` has to name.
    damage: fn(&Path) -> Vec<String>,
    /// Whether it is damage at all: what a crash leaves is none.
    damaged: bool,
    /// Whether a server starts on it as it is.
    starts: bool,
    /// Keys that are there after a repair, from the first on.
    keys: usize,
}

const CASES: &[Case] = &[
    Case {
        name: "a torn tail",
        damage: |folder| {
            let (path, at) = holding(folder, KEYS - 1);
            flip(&path, at + 20);
            vec![name(&path), "middle of a write".to_owned()]
        },
        damaged: false,
        starts: true,
        keys: KEYS - 1,
    },
    Case {
        name: "a byte in the middle of a sealed segment",
        damage: |folder| {
            let (path, at) = holding(folder, 100);
            flip(&path, at + 20);
            vec![name(&path), "offset".to_owned(), "lost".to_owned()]
        },
        damaged: true,
        starts: false,
        keys: 100,
    },
    Case {
        name: "a segment that is missing",
        damage: |folder| {
            let (path, _) = holding(folder, 100);
            fs::remove_file(&path).expect("removed");
            vec![name(&path), "missing".to_owned(), "are lost".to_owned()]
        },
        damaged: true,
        starts: false,
        // Those of the segment before are there, so at least what the snapshots have.
        keys: INCREMENTAL,
    },
    Case {
        name: "a part that is missing",
        damage: |folder| {
            let parts = files(&folder.join("snapshots"), "part");
            let part = parts.last().expect("a part");
            fs::remove_file(part).expect("removed");
            vec![name(part), "nothing is lost".to_owned()]
        },
        damaged: true,
        starts: true,
        keys: KEYS,
    },
    Case {
        name: "a damaged part",
        damage: |folder| {
            let parts = files(&folder.join("snapshots"), "part");
            flip(&parts[0], 200);
            vec![
                name(&parts[0]),
                "offset".to_owned(),
                "nothing is lost".to_owned(),
            ]
        },
        damaged: true,
        starts: true,
        keys: KEYS,
    },
    Case {
        name: "a damaged manifest",
        damage: |folder| {
            let manifests = files(&folder.join("snapshots"), "manifest");
            let manifest = manifests.last().expect("a manifest");
            flip(manifest, 40);
            vec![
                name(manifest),
                "offset".to_owned(),
                "nothing is lost".to_owned(),
            ]
        },
        damaged: true,
        starts: true,
        keys: KEYS,
    },
    Case {
        name: "a segment of another store",
        damage: |folder| {
            let other = TempDir::new().expect("a folder");
            let mut store = open(other.path());
            store.put(0..KEYS * 2);
            store.close();
            let (path, _) = holding(folder, 100);
            let theirs = segments(other.path());
            let same = theirs.iter().find(|theirs| name(theirs) == name(&path));
            fs::copy(same.expect("as many segments"), &path).expect("a copy");
            vec![
                name(&path),
                "belongs to store".to_owned(),
                "lost".to_owned(),
            ]
        },
        damaged: true,
        starts: false,
        keys: INCREMENTAL,
    },
    Case {
        name: "a snapshot of another store",
        damage: |folder| {
            let other = TempDir::new().expect("a folder");
            let mut store = written(other.path());
            store.snapshot(SnapshotKind::Full);
            store.close();
            let theirs = files(&other.path().join("snapshots"), "manifest");
            let newest = name(theirs.last().expect("a manifest"));
            let id = newest.split('.').next().expect("a number").to_owned();
            for entry in fs::read_dir(other.path().join("snapshots")).expect("a folder") {
                let path = entry.expect("an entry").path();
                if name(&path).starts_with(&id) {
                    fs::copy(&path, folder.join("snapshots").join(name(&path))).expect("a copy");
                }
            }
            vec![newest, "belongs to store".to_owned()]
        },
        damaged: true,
        starts: false,
        keys: KEYS,
    },
    Case {
        name: "a restored backup that is missing",
        damage: |folder| {
            let staged = restored(folder);
            fs::remove_file(&staged).expect("removed");
            vec![name(&staged), "restored".to_owned(), "lost".to_owned()]
        },
        damaged: true,
        starts: false,
        keys: KEYS,
    },
    Case {
        name: "a restored backup that is damaged",
        damage: |folder| {
            let staged = restored(folder);
            let half = fs::metadata(&staged).expect("a file").len() / 2;
            flip(&staged, usize::try_from(half).expect("small"));
            vec![name(&staged), "offset".to_owned(), "lost".to_owned()]
        },
        damaged: true,
        starts: false,
        keys: KEYS,
    },
    Case {
        name: "a switch that did not come to its end",
        damage: |folder| {
            switched(folder);
            vec![
                "persistence was being turned on".to_owned(),
                "wal-".to_owned(),
            ]
        },
        damaged: false,
        starts: true,
        keys: KEYS,
    },
];

/// A backup is restored in place of everything, and the process ends before a snapshot makes the staged file superfluous; the
/// path of that.
fn restored(folder: &Path) -> PathBuf {
    let live = TempDir::new().expect("a folder");
    copy(folder, live.path());
    let mut store = open(live.path());
    let backup = store.backup();
    let mut restore = store
        .engine
        .begin_restore(RestoreMode::Replace)
        .expect("a restore");
    for piece in backup.chunks(4096) {
        restore.feed(piece).expect("it is sound");
    }
    let mut restoring = restore.finish().expect("it is whole");
    while restoring.swapped().is_none() {
        restoring.step().expect("it goes on");
        store.turn();
        store.driver.checkpoint();
    }
    store.write_log();
    store.put(KEYS..KEYS + 1);
    fs::remove_dir_all(folder).expect("removed");
    copy(live.path(), folder);
    drop(restoring);
    let staged = files(&folder.join("snapshots"), "restore");
    assert_eq!(staged.len(), 1, "{staged:?}");
    staged[0].clone()
}

/// Persistence is turned off, and on again, and the process ends before the snapshot that this takes stands.
fn switched(folder: &Path) {
    let live = TempDir::new().expect("a folder");
    copy(folder, live.path());
    let mut store = open(live.path());
    let mut off = store.engine.switch_persistence(false).expect("begun");
    while matches!(off.step().expect("it goes on"), SwitchStep::Wait) {
        store.turn();
        store.driver.checkpoint();
    }
    drop(off);
    store.put(KEYS..KEYS + 1);
    let mut on = store.engine.switch_persistence(true).expect("begun");
    while !live.path().join("snapshots/PENDING").exists() {
        assert_eq!(on.step().expect("it goes on"), SwitchStep::Wait);
        store.clock.advance(1_000);
    }
    on.step().expect("it goes on");
    store.put(KEYS + 1..KEYS + 2);
    fs::remove_dir_all(folder).expect("removed");
    copy(live.path(), folder);
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_inflightkv"))
        .args(arguments)
        .output()
        .expect("the program runs")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// How many of the keys are there, from the first on, each with its value.
fn keys_of(folder: &Path) -> usize {
    let server = Server::start(&[
        "--data-dir",
        folder.to_str().expect("text"),
        "--log-level",
        "off",
    ]);
    (0..KEYS)
        .take_while(|id| {
            let answer = server.ask(&format!("GET /v1/kv/key%2F{id}"), "");
            answer.status == 200 && answer.text() == value(*id)
        })
        .count()
}

/// Every value that is somewhere in the files of a directory, under whatever name.
fn kept(folder: &Path) -> usize {
    let mut all = Vec::new();
    for below in ["wal", "snapshots"] {
        for entry in fs::read_dir(folder.join(below)).expect("a folder") {
            all.extend(fs::read(entry.expect("an entry").path()).expect("a file"));
        }
    }
    let text: Vec<Vec<u8>> = (0..KEYS).map(|id| value(id).into_bytes()).collect();
    text.iter()
        .filter(|value| all.windows(value.len()).any(|window| window == &value[..]))
        .count()
}

#[test]
fn every_kind_of_damage_is_named_and_repaired() {
    let made = TempDir::new().expect("a folder");
    let mut store = written(made.path());
    store.write_log();
    // As a killed process leaves it.
    let image = TempDir::new().expect("a folder");
    copy(made.path(), image.path());
    store.close();
    assert!(segments(image.path()).len() > 4, "sealed segments");
    for case in CASES {
        let folder = TempDir::new().expect("a folder");
        copy(image.path(), folder.path());
        let path = folder.path().to_str().expect("text");
        let named = (case.damage)(folder.path());
        let why = case.name;

        let check = run(&["check", path]);
        let said = words(&check);
        assert_eq!(
            check.status.code(),
            Some(i32::from(case.damaged)),
            "{why}: {said}"
        );
        let mark = if case.damaged { "damaged: " } else { "note: " };
        let line = said
            .lines()
            .find(|line| line.starts_with(mark) && named.iter().all(|word| line.contains(word)));
        assert!(line.is_some(), "{why}: {named:?} in one line of\n{said}");

        if !case.starts {
            let tried = TempDir::new().expect("a folder");
            copy(folder.path(), tried.path());
            let tried = tried.path().to_str().expect("text");
            let serve = run(&[
                "serve",
                "--listen",
                ":0",
                "--log-level",
                "off",
                "--data-dir",
                tried,
            ]);
            let said = words(&serve);
            assert_eq!(serve.status.code(), Some(1), "{why}: {said}");
            assert_eq!(said.trim().lines().count(), 1, "{why}: one line: {said}");
        }

        let before = kept(folder.path());
        let repair = run(&["repair", path]);
        let said = words(&repair);
        assert_eq!(repair.status.code(), Some(0), "{why}: {said}");
        assert_eq!(
            kept(folder.path()),
            before,
            "{why}: nothing is thrown away: {said}"
        );
        let check = run(&["check", path]);
        assert_eq!(check.status.code(), Some(0), "{why}: {}", words(&check));
        let again = run(&["repair", path]);
        assert!(
            words(&again).contains("nothing to repair"),
            "{why}: {}",
            words(&again)
        );
        let found = keys_of(folder.path());
        assert!(
            found == case.keys || (case.keys == INCREMENTAL && (INCREMENTAL..100).contains(&found)),
            "{why}: {found} keys, {} expected\n{said}",
            case.keys
        );
    }
}

#[test]
fn a_backup_that_was_cut_off_or_changed_is_named_and_of_no_use() {
    let made = TempDir::new().expect("a folder");
    let mut store = written(made.path());
    let backup = store.backup();
    store.close();
    let file = made.path().join("of.backup");
    let check = |bytes: &[u8]| {
        fs::write(&file, bytes).expect("a file");
        run(&["check", file.to_str().expect("text")])
    };
    let sound = check(&backup);
    assert_eq!(sound.status.code(), Some(0), "{}", words(&sound));
    let mut changed = backup.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    for (why, bytes) in [
        ("cut off in the middle", &backup[..middle]),
        ("without its last byte", &backup[..backup.len() - 1]),
        ("changed", &changed[..]),
    ] {
        let found = check(bytes);
        let said = words(&found);
        assert_eq!(found.status.code(), Some(1), "{why}: {said}");
        let line = said.lines().find(|line| line.starts_with("damaged: "));
        let line = line.unwrap_or_else(|| panic!("{why}: {said}"));
        assert!(
            line.contains("of.backup") && line.contains("offset"),
            "{why}: {line}"
        );
        let into = made.path().join("new");
        let restore = run(&[
            "restore",
            "--data-dir",
            into.to_str().expect("text"),
            file.to_str().expect("text"),
        ]);
        assert_eq!(restore.status.code(), Some(1), "{why}: {}", words(&restore));
    }
}
