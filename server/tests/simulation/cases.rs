//! Many histories: drawn from seeds, run on all cores, and made small when one fails.

use super::history::{History, Step};
use super::strategy;
use super::tally::{Tally, Wrong};
use super::world::World;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::cell::{Cell, RefCell};
use std::env;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a failing history is run again to make it smaller, and for how long.
const SHRINKS_MAX: u32 = 20_000;
const SHRINK_FOR: Duration = Duration::from_secs(60);
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// A case that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// Counted from 1; 0 for the first start, one above the last for the end.
    pub(crate) step: usize,
    pub(crate) wrong: Wrong,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wrong {
            what,
            expected,
            found,
        } = &self.wrong;
        writeln!(f, "at step {}: {what}", self.step)?;
        writeln!(f, "    expected: {expected}")?;
        write!(f, "    found:    {found}")
    }
}

/// Runs one history. What panics has failed like anything else.
pub(crate) fn run(history: &History) -> Result<Tally, Failed> {
    quiet_panics();
    let step = Cell::new(0);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        IN_CASE.set(true);
        let mut world = World::new(history)?;
        for one in &history.steps {
            step.set(step.get() + 1);
            world.step(one)?;
        }
        step.set(step.get() + 1);
        world.end(&history.last)?;
        Ok(world.tally)
    }));
    IN_CASE.set(false);
    let outcome = outcome.unwrap_or_else(|_| {
        Err(Wrong {
            what: "the store panicked".to_owned(),
            expected: "no panic".to_owned(),
            found: PANICKED.take(),
        })
    });
    outcome.map_err(|wrong| Failed {
        step: step.get(),
        wrong,
    })
}

thread_local! {
    static IN_CASE: Cell<bool> = const { Cell::new(false) };
    static PANICKED: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A panic inside a case is a result; all others are shown as ever.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IN_CASE.get() {
                PANICKED.set(info.to_string());
            } else {
                usual(info);
            }
        }));
    });
}

fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 16];
    let mut expand = fastrand::Rng::with_seed(seed);
    bytes.fill_with(|| expand.u8(..));
    let rng = TestRng::from_seed(RngAlgorithm::XorShift, &bytes);
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, rng)
}

/// The history of a seed.
pub(crate) fn drawn(seed: u64) -> History {
    tree(&strategy::history(), seed).current()
}

fn tree<S: Strategy<Value = History>>(strategy: &S, seed: u64) -> S::Tree {
    strategy
        .new_tree(&mut runner(seed))
        .expect("no part of the strategy rejects anything")
}

/// The smallest history found on the way down from one that failed, and how it fails.
fn shrink(tree: &mut impl ValueTree<Value = History>, failed: Failed) -> (History, Failed) {
    let mut best = (tree.current(), failed);
    let until = Instant::now() + SHRINK_FOR;
    let mut tries = 0;
    let mut go_on = tree.simplify();
    while go_on && tries < SHRINKS_MAX && Instant::now() < until {
        tries += 1;
        let history = tree.current();
        go_on = match run(&history) {
            Err(failed) => {
                best = (history, failed);
                tree.simplify()
            }
            Ok(_) => tree.complicate(),
        };
    }
    // Simpler steps need fewer of the others, which proptest does not go back to.
    let mut at = best.0.steps.len();
    while at > 0 && Instant::now() < until {
        at = at.min(best.0.steps.len()) - 1;
        let mut history = best.0.clone();
        history.steps.remove(at);
        if let Err(failed) = run(&history) {
            best = (history, failed);
            at = best.0.steps.len();
        }
    }
    best
}

/// Where histories are kept that once failed.
pub(crate) fn regressions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulation/regressions")
}

/// Which cases, and how many.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    first: u64,
    until: Until,
    usual: bool,
    save: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
enum Until {
    Cases(u64),
    Crashes(u64),
    Time(Duration),
}

/// What the threads of a plan share.
#[derive(Default)]
struct Shared {
    next: AtomicU64,
    crashes: AtomicU64,
    stop: AtomicBool,
    sum: Mutex<(u64, Tally)>,
    failed: Mutex<Option<String>>,
}

impl Plan {
    /// What the environment asks for; `cases` from seed 1 if nothing.
    pub(crate) fn from_environment(cases: u64) -> Self {
        let number = |name: &str| {
            let text = env::var(name).ok()?;
            let number = text.parse::<u64>();
            Some(number.unwrap_or_else(|_| panic!("{name} is {text:?}, which is no number")))
        };
        let asked = [
            number("INFLIGHTKV_SIM_CASES").map(Until::Cases),
            number("INFLIGHTKV_SIM_CRASHES").map(Until::Crashes),
            number("INFLIGHTKV_SIM_SECONDS")
                .map(|seconds| Until::Time(Duration::from_secs(seconds))),
        ];
        let asked = asked.into_iter().flatten().next();
        let first = number("INFLIGHTKV_SIM_SEED");
        Self {
            usual: asked.is_none() && first.is_none(),
            first: first.unwrap_or(1),
            until: asked.unwrap_or(Until::Cases(cases)),
            save: env::var_os("INFLIGHTKV_SIM_SAVE").map(PathBuf::from),
        }
    }

    pub(crate) fn is_the_usual(&self) -> bool {
        self.usual
    }

    /// Runs all of it; the sum, or the first failure for a person to read.
    pub(crate) fn run(&self) -> Result<Tally, String> {
        let shared = Shared::default();
        let start = Instant::now();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| self.work(&shared, start)))
                .collect();
            let mut shown = Instant::now();
            while workers.iter().any(|worker| !worker.is_finished()) {
                thread::sleep(Duration::from_millis(20));
                if !self.usual && shown.elapsed() >= PROGRESS_EVERY {
                    shown = Instant::now();
                    println!("{}", self.progress(&shared, start.elapsed()));
                }
            }
        });
        if let Some(failed) = lock(&shared.failed).take() {
            return Err(failed);
        }
        if !self.usual {
            println!("{}", self.progress(&shared, start.elapsed()));
        }
        let tally = lock(&shared.sum).1;
        Ok(tally)
    }

    fn progress(&self, shared: &Shared, elapsed: Duration) -> String {
        let (cases, tally) = *lock(&shared.sum);
        let of = match self.until {
            Until::Cases(cases) => format!(" of {cases}"),
            _ => String::new(),
        };
        let crashes = match self.until {
            Until::Crashes(crashes) => format!("{} of {crashes}", tally.crashes()),
            _ => tally.crashes().to_string(),
        };
        format!(
            "{cases}{of} cases passed, {crashes} crashes, {} durable changes found again, {} s",
            tally.kept,
            elapsed.as_secs()
        )
    }

    fn is_over(&self, shared: &Shared, cases: u64, start: Instant) -> bool {
        shared.stop.load(Ordering::Relaxed)
            || match self.until {
                Until::Cases(max) => cases >= max,
                Until::Crashes(max) => shared.crashes.load(Ordering::Relaxed) >= max,
                Until::Time(time) => start.elapsed() >= time,
            }
    }

    fn work(&self, shared: &Shared, start: Instant) {
        let strategy = strategy::history();
        loop {
            let case = shared.next.fetch_add(1, Ordering::Relaxed);
            if self.is_over(shared, case, start) {
                return;
            }
            let seed = self.first.wrapping_add(case);
            let mut tree = tree(&strategy, seed);
            match run(&tree.current()) {
                Ok(tally) => {
                    shared.crashes.fetch_add(tally.crashes(), Ordering::Relaxed);
                    let mut sum = lock(&shared.sum);
                    sum.0 += 1;
                    sum.1.add(&tally);
                }
                Err(failed) => {
                    if shared.stop.swap(true, Ordering::Relaxed) {
                        return;
                    }
                    let elapsed = start.elapsed();
                    let (history, failed) = shrink(&mut tree, failed);
                    let report = self.report(seed, case, elapsed, &history, &failed);
                    *lock(&shared.failed) = Some(report);
                    return;
                }
            }
        }
    }

    fn report(
        &self,
        seed: u64,
        case: u64,
        elapsed: Duration,
        history: &History,
        failed: &Failed,
    ) -> String {
        let mut text = format!(
            "seed {seed} fails, case {} after {:.1} s; {failed}\n",
            case + 1,
            elapsed.as_secs_f64()
        );
        text += &format!(
            "the smallest history that does has {} steps:\n    disk {}, {:?}\n",
            history.steps.len(),
            history.disk,
            history.first
        );
        for (number, step) in (1..).zip(&history.steps) {
            text += &format!("    {number}. {}\n", line(step));
        }
        text += &format!("    {}. {:?}\n", history.steps.len() + 1, history.last);
        text += &format!("again: cargo xtask fuzz --seed {seed} --cases 1\n");
        if let Some(folder) = &self.save {
            let file = folder.join(format!("seed-{seed}.json"));
            let saved = serde_json::to_string_pretty(history)
                .map_err(|error| error.to_string())
                .and_then(|text| std::fs::write(&file, text + "\n").map_err(|e| e.to_string()));
            text += &match saved {
                Ok(()) => format!("saved as {}\n", file.display()),
                Err(error) => format!("not saved as {}: {error}\n", file.display()),
            };
        }
        text
    }
}

fn line(step: &Step) -> String {
    format!("{step:?}")
}

pub(crate) fn summary(tally: &Tally) -> String {
    format!(
        "{} simulated crashes ({} kills, {} power cuts; {} of them in a recovery), {} changes, {} of them said to be durable and found again, {} snapshots ({} incremental), {} backups, {} restores in place of everything, {} keys merged, {} switches of persistence, {} records followed, {} errors of the disk",
        tally.crashes(),
        tally.kills,
        tally.power_cuts,
        tally.in_recovery,
        tally.changes,
        tally.kept,
        tally.full_snapshots + tally.increments,
        tally.increments,
        tally.backups,
        tally.replaced,
        tally.merged,
        tally.switched_off + tally.switched_on,
        tally.followed,
        tally.errors,
    )
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
