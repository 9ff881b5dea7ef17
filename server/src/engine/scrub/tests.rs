//! Passes with a clock of the test's own, and a thread that is asked to stop in the middle of one.

use super::super::drive::Driver;
use super::super::testing::put;
use super::super::*;
use super::*;
use std::fs;
use std::path::{Path, PathBuf};

const KEYS: usize = 400;
const RATE: u64 = 256 << 10;

type Met = Arc<Mutex<Vec<(String, FoundBy)>>>;

struct Store {
    engine: Engine,
    clock: Arc<ManualClock>,
    met: Met,
    folder: tempfile::TempDir,
}

/// A store with values, a snapshot, and sealed segments of the log above it.
fn store(scrub: Scrub) -> (Store, Driver) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut persistence = Persistence::on(Disk::open(folder.path()).expect("a directory"));
    persistence.wal.segment_bytes = 32 << 10;
    persistence.wal_compress = None;
    persistence.snapshot_after = 1 << 30;
    persistence.snapshot_parts = 2;
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let met = Met::default();
    let told = Arc::clone(&met);
    let engine = Engine::open(Options {
        partitions: 4,
        persistence: Some(persistence),
        clock: clock.clone(),
        scrub,
        on_damage: Some(OnDamage::new(move |damaged, by| {
            let what = match damaged {
                Damaged::Value(key) => format!("key {key}"),
                Damaged::File(place) => place.to_owned(),
            };
            told.lock().push((what, by));
        })),
        ..Options::default()
    })
    .expect("a store");
    engine.recover().expect("there is nothing to load");
    let mut driver = Driver::new(&engine).expect("nobody drives it");
    for id in 0..KEYS {
        put(
            &engine,
            &format!("key/{id}"),
            format!("\"{id:0>300}\"").into(),
        );
    }
    put(&engine, "large", format!("\"{:0>9000}\"", 1).into());
    let id = engine.request_snapshot(SnapshotKind::Full);
    let id = id.expect("asked for");
    while engine.snapshot_outcome(id).is_none() {
        turn(&mut driver, &clock);
    }
    for id in 0..KEYS {
        put(
            &engine,
            &format!("key/{id}"),
            format!("\"{id:1>300}\"").into(),
        );
        // Nobody looks whether a snapshot is due.
        driver.write_log();
    }
    while driver.write_log() {}
    let store = Store {
        engine,
        clock,
        met,
        folder,
    };
    (store, driver)
}

fn turn(driver: &mut Driver, clock: &ManualClock) -> bool {
    clock.advance(1);
    driver.write_log() | driver.turn_homes() | driver.checkpoint()
}

impl Store {
    fn files(&self, folder: &str, extension: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path().join(folder)).expect("a folder");
        let mut files: Vec<PathBuf> = entries
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .collect();
        files.sort();
        files
    }

    /// A pass by the clock of the test.
    fn scrub(&self, driver: &Driver) -> ScrubStats {
        let clock = Arc::clone(&self.clock);
        let ended = driver.scrub(move |pause| {
            let ms = u64::try_from(pause.as_millis()).expect("not so long");
            clock.advance(ms + 1);
        });
        assert!(ended, "it goes to its end");
        self.engine.stats().scrub
    }
}

/// Changes one byte of the last place where `text` stands, and says where.
fn flip(path: &Path, text: &str) -> usize {
    let mut bytes = fs::read(path).expect("a file");
    let at = bytes
        .windows(text.len())
        .rposition(|window| window == text.as_bytes())
        .expect("it is in there");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("a file");
    at
}

fn name(path: &Path) -> String {
    let name = path.file_name().expect("a name");
    name.to_str().expect("text").to_owned()
}

#[test]
fn an_account_keeps_the_rate_and_saves_nothing_up() {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut account = Account::default();
    let begin = 5_000;
    let (mut now, mut bytes) = (begin, 0);
    while bytes < 100 << 20 {
        let some = rng.u64(..200_000);
        bytes += some;
        if let Some(pause) = account.spend(some, 1 << 20, now) {
            assert!(pause >= AHEAD, "{pause:?}");
            now += u64::try_from(pause.as_millis()).expect("short");
        }
        now += rng.u64(..2);
    }
    let seconds = (now - begin) as f64 / 1e3;
    assert!((99.0..102.0).contains(&seconds), "{seconds} s for 100 MiB");
    // An hour in which nothing was read buys nothing.
    now += 3_600_000;
    let pause = account.spend(1 << 20, 1 << 20, now);
    assert_eq!(pause, Some(Duration::from_secs(1)));
}

#[test]
fn a_pass_reads_everything_at_its_rate() {
    let (store, driver) = store(Scrub {
        bytes_per_second: RATE,
        ..Scrub::default()
    });
    let sealed = store.files("wal", "log").len() - 1;
    assert!(sealed > 1, "there are sealed segments: {sealed}");
    let before = store.clock.now();
    let stats = store.scrub(&driver);
    let took = store.clock.now() - before;
    let parts = store.files("snapshots", "part");
    let size = |path: &PathBuf| fs::metadata(path).expect("a file").len();
    let least: u64 =
        parts.iter().map(size).sum::<u64>() + (KEYS * 300) as u64 + sealed as u64 * (30 << 10);
    assert!(stats.bytes >= least, "{} of {least}", stats.bytes);
    let fair = stats.bytes * 1000 / RATE;
    assert!(
        (fair * 95 / 100..fair * 110 / 100).contains(&took),
        "{took} ms for {} bytes",
        stats.bytes
    );
    assert!(!stats.running);
    assert_eq!(stats.passes, 1);
    assert_eq!(stats.finished_at_ms, Some(store.clock.now()));
    assert_eq!(stats.duration_ms, Some(took));
    assert_eq!((stats.damaged_values, stats.damaged_files), (0, 0));
    assert_eq!(stats.damage, [""; 0]);
    assert_eq!(*store.met.lock(), []);
    driver.close().expect("it ends");
}

#[test]
fn what_was_flipped_is_named_wherever_it_is() {
    let (store, driver) = store(Scrub::default());
    let segment = &store.files("wal", "log")[1];
    // The last byte of a sealed segment's last frame counts like any other.
    let at = flip(segment, "11111");
    let part = &store.files("snapshots", "part")[0];
    let mut bytes = fs::read(part).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(part, bytes).expect("a file");
    store.engine.plant_damage("bad", b"{\"a\":1}");
    let stats = store.scrub(&driver);
    assert_eq!((stats.damaged_values, stats.damaged_files), (1, 2));
    let [memory, snapshot, log] = &stats.damage[..] else {
        panic!("three places: {:?}", stats.damage);
    };
    assert!(memory.contains("\"bad\""), "{memory}");
    assert!(
        snapshot.contains(&name(part)) && snapshot.contains("offset"),
        "{snapshot}"
    );
    assert!(log.contains(&name(segment)), "{log}");
    let offset = log.split("offset ").nth(1).expect("an offset");
    let digits: String = offset.chars().take_while(char::is_ascii_digit).collect();
    let offset: usize = digits.parse().expect("a number");
    assert!(offset > 0 && offset <= at, "{offset} is the frame of {at}");
    let met = store.met.lock().clone();
    let wanted = ["key bad", snapshot, log].map(|what| (what.to_owned(), FoundBy::Scrub));
    assert_eq!(met, wanted);
    let counted = store.engine.stats().damaged;
    assert!(counted.contains(&(FoundBy::Scrub, 1)), "{counted:?}");
    // What was found is found again by the next pass, as long as it is there.
    assert_eq!(store.scrub(&driver).passes, 2);
    assert_eq!(store.engine.stats().scrub.damaged_files, 4);
    driver.close().expect("it ends");
}

/// What a snapshot retires while the pass waits is no damage.
#[test]
fn files_that_go_meanwhile_are_no_damage() {
    let (store, mut driver) = store(Scrub {
        bytes_per_second: 1 << 30,
        ..Scrub::default()
    });
    let before = store.files("wal", "log");
    let engine = store.engine.clone();
    let clock = Arc::clone(&store.clock);
    // The pass stands still at its first wait; then everything it was to read is replaced.
    let waits = Arc::new(std::sync::Barrier::new(2));
    let (hold, first) = (Arc::clone(&waits), AtomicBool::new(true));
    engine
        .set_scrub(Scrub {
            bytes_per_second: 1 << 20,
            ..Scrub::default()
        })
        .expect("settings");
    let pass = thread::spawn(move || {
        super::pass(&engine.shared, move |pause| {
            clock.advance(u64::try_from(pause.as_millis()).expect("short"));
            if first.swap(false, Ordering::Relaxed) {
                hold.wait();
                hold.wait();
            }
        })
    });
    waits.wait();
    let id = store.engine.request_snapshot(SnapshotKind::Full);
    let id = id.expect("asked for");
    while store.engine.snapshot_outcome(id).is_none() {
        turn(&mut driver, &store.clock);
    }
    while turn(&mut driver, &store.clock) {}
    let after = store.files("wal", "log");
    assert!(!after.contains(&before[0]), "segments were retired");
    waits.wait();
    assert!(pass.join().expect("it ends"));
    let stats = store.engine.stats().scrub;
    assert_eq!(stats.damage, [""; 0]);
    assert_eq!(*store.met.lock(), []);
    driver.close().expect("it ends");
}

#[test]
fn a_thread_does_it_when_it_is_due_and_stops_at_once() {
    let engine = Engine::open(Options {
        scrub: Scrub {
            every: None,
            ..Scrub::default()
        },
        ..Options::default()
    })
    .expect("a store");
    engine.recover().expect("there is nothing to load");
    engine.start_threads().expect("threads");
    for id in 0..50 {
        put(&engine, &format!("key/{id}"), vec![b'1'; 20_000]);
    }
    assert!(!engine.shared.scrubber.started.load(Ordering::Relaxed));
    let often = Scrub {
        every: Some(Duration::from_millis(1)),
        bytes_per_second: 1 << 30,
    };
    engine.set_scrub(often).expect("a thread");
    let wait_until = |what: &dyn Fn(&ScrubStats) -> bool| {
        let until = Instant::now() + Duration::from_secs(30);
        while !what(&engine.stats().scrub) {
            assert!(Instant::now() < until, "{:?}", engine.stats().scrub);
            thread::sleep(Duration::from_millis(1));
        }
    };
    wait_until(&|stats| stats.passes >= 2);
    let slow = Scrub {
        bytes_per_second: 1,
        ..often
    };
    engine.set_scrub(slow).expect("a thread");
    wait_until(&|stats| stats.running);
    // Switched off in the middle of a pass that would take days.
    engine
        .set_scrub(Scrub {
            every: None,
            ..slow
        })
        .expect("no thread is needed");
    wait_until(&|stats| !stats.running);
    engine.set_scrub(slow).expect("the thread is there");
    wait_until(&|stats| stats.running);
    engine.close().expect("it closes in the middle of a pass");
    assert!(!engine.stats().scrub.running);
}
