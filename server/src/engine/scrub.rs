//! Everything read back in the background, now and then and slowly: damage is found before somebody needs what is damaged.
//!
//! A thread of the store's own sleeps until a pass is due, so long after the last one ended. A start reads everything as
//! well, so the first pass is due that long after it. What a pass reads, it pays for in sleep by the bytes that are really
//! read (`verify` does the reading): a store that is as large again takes twice as long and costs no more.

use super::damage::FoundBy;
use super::verify::{Pace, read_back};
use super::{Engine, RecoverError, Shared};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What is read may be ahead of its time by so much: shorter sleeps would be mostly waking.
const AHEAD: Duration = Duration::from_millis(20);

/// How everything is read back in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrub {
    /// How long after a pass ended the next begins; `None` for never. Default 24 hours.
    pub every: Option<Duration>,
    /// Bytes read in a second, of memory and of files; at least 1, default 16 MiB.
    pub bytes_per_second: u64,
}

impl Default for Scrub {
    fn default() -> Self {
        Self {
            every: Some(Duration::from_secs(24 * 3_600)),
            bytes_per_second: 16 << 20,
        }
    }
}

/// What was read back in the background in this run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubStats {
    /// Whether a pass is under way.
    pub running: bool,
    /// Passes that came to their end.
    pub passes: u64,
    /// When the last of them did, in milliseconds since the Unix epoch.
    pub finished_at_ms: Option<u64>,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<u64>,
    /// Bytes read.
    pub bytes: u64,
    /// Values in memory that were found damaged, over all passes.
    pub damaged_values: u64,
    /// Places in files that were found damaged, over all passes.
    pub damaged_files: u64,
    /// The first hundred places that the last finished pass found damaged: what it is, where, and what was expected.
    pub damage: Vec<String>,
}

/// The scrubber's side that everybody may touch.
pub(crate) struct Scrubber {
    settings: Mutex<Scrub>,
    stopping: AtomicBool,
    sleeper: Mutex<()>,
    wake: Condvar,
    /// There is a thread.
    started: AtomicBool,
    bytes: AtomicU64,
    damaged_values: AtomicU64,
    damaged_files: AtomicU64,
    /// What is not counted above.
    told: Mutex<ScrubStats>,
}

impl Scrubber {
    pub(super) fn new(settings: Scrub) -> Self {
        Self {
            settings: Mutex::new(settings),
            stopping: AtomicBool::new(false),
            sleeper: Mutex::new(()),
            wake: Condvar::new(),
            started: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            damaged_values: AtomicU64::new(0),
            damaged_files: AtomicU64::new(0),
            told: Mutex::default(),
        }
    }

    pub(super) fn stats(&self) -> ScrubStats {
        ScrubStats {
            bytes: self.bytes.load(Ordering::Relaxed),
            damaged_values: self.damaged_values.load(Ordering::Relaxed),
            damaged_files: self.damaged_files.load(Ordering::Relaxed),
            ..self.told.lock().clone()
        }
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.rouse();
    }

    fn rouse(&self) {
        let _sleeper = self.sleeper.lock();
        self.wake.notify_all();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn is_off(&self) -> bool {
        self.is_stopping() || self.settings.lock().every.is_none()
    }

    /// Sleeps for `pause`, or until the store stops or the scrub is switched off.
    fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut sleeper = self.sleeper.lock();
        while !self.is_off() && !self.wake.wait_until(&mut sleeper, until).timed_out() {}
    }

    /// Sleeps until a pass is due, the last having ended at `since`. `false`: the store stops.
    fn wait_until_due(&self, since: u64, now: impl Fn() -> u64) -> bool {
        let mut sleeper = self.sleeper.lock();
        while !self.is_stopping() {
            let every = self.settings.lock().every;
            let Some(every) = every else {
                self.wake.wait(&mut sleeper);
                continue;
            };
            let passed = Duration::from_millis(now().saturating_sub(since));
            match every.saturating_sub(passed) {
                Duration::ZERO => return true,
                left => {
                    self.wake.wait_for(&mut sleeper, left);
                }
            }
        }
        false
    }
}

impl Engine {
    /// How everything is read back in the background.
    pub fn scrub_settings(&self) -> Scrub {
        *self.shared.scrubber.settings.lock()
    }

    /// Changes how everything is read back in the background. A pass that is under way goes on at the new rate, or ends if
    /// it is switched off.
    ///
    /// # Errors
    /// It was off, and the system has no more threads; nothing is read back then.
    pub fn set_scrub(&self, scrub: Scrub) -> Result<(), RecoverError> {
        *self.shared.scrubber.settings.lock() = scrub;
        self.shared.scrubber.rouse();
        if self.shared.threads_started.load(Ordering::Acquire) {
            self.start_scrubber()?;
        }
        Ok(())
    }

    pub(super) fn start_scrubber(&self) -> Result<(), RecoverError> {
        let scrubber = &self.shared.scrubber;
        if scrubber.is_off() || scrubber.started.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name("scrub".to_owned())
            .spawn(move || run(&shared))
            .map_err(|error| {
                // The next one to ask tries again.
                self.shared.scrubber.started.store(false, Ordering::Release);
                RecoverError::Thread(error)
            })?;
        self.shared.threads.lock().push(thread);
        Ok(())
    }
}

/// The thread's life.
fn run(shared: &Arc<Shared>) {
    let now = || shared.options.clock.now();
    let mut since = now();
    while shared.scrubber.wait_until_due(since, now) {
        let sleeper = Arc::clone(shared);
        pass(shared, move |pause| sleeper.scrubber.pause(pause));
        since = now();
    }
}

/// Reads everything back once, and lets time pass by `wait`. `false`: the scrub is off, or was stopped.
pub(super) fn pass(shared: &Arc<Shared>, wait: impl Fn(Duration) + Send + Sync + 'static) -> bool {
    let scrubber = &shared.scrubber;
    if scrubber.is_off() {
        return false;
    }
    scrubber.told.lock().running = true;
    let pace = Slow {
        shared: Arc::clone(shared),
        account: Mutex::default(),
        wait,
    };
    let report = read_back(shared, Arc::new(pace));
    let ended = !scrubber.is_off();
    let mut told = scrubber.told.lock();
    told.running = false;
    if ended {
        told.passes += 1;
        told.finished_at_ms = Some(shared.options.clock.now());
        told.duration_ms = Some(report.duration_ms);
        told.damage = report.damage;
        tracing::info!(
            duration_ms = report.duration_ms,
            damaged = report.damaged,
            "everything was read back"
        );
    }
    ended
}

/// What is read pays for itself in sleep.
struct Slow<W> {
    shared: Arc<Shared>,
    account: Mutex<Account>,
    wait: W,
}

impl<W: Fn(Duration) + Send + Sync> Pace for Slow<W> {
    fn spend(&self, bytes: u64) {
        let scrubber = &self.shared.scrubber;
        scrubber.bytes.fetch_add(bytes, Ordering::Relaxed);
        let rate = scrubber.settings.lock().bytes_per_second;
        let now = self.shared.options.clock.now();
        let pause = self.account.lock().spend(bytes, rate, now);
        if let Some(pause) = pause.filter(|_| !self.is_over()) {
            (self.wait)(pause);
        }
    }

    fn is_over(&self) -> bool {
        self.shared.scrubber.is_off()
    }

    fn damaged_value(&self, key: &str) {
        let count = &self.shared.scrubber.damaged_values;
        count.fetch_add(1, Ordering::Relaxed);
        self.shared.note_damage(key, FoundBy::Scrub);
    }

    fn damaged_file(&self, place: &str) {
        let count = &self.shared.scrubber.damaged_files;
        count.fetch_add(1, Ordering::Relaxed);
        self.shared.note_damaged_file(place, FoundBy::Scrub);
    }
}

/// Until when what was read is paid for. Time that passed unused is not saved up.
#[derive(Debug, Default)]
struct Account {
    paid_until: Duration,
}

impl Account {
    /// So many bytes are read at `now`, in milliseconds since the Unix epoch; how long to wait, if it is time to.
    fn spend(&mut self, bytes: u64, rate: u64, now: u64) -> Option<Duration> {
        let now = Duration::from_millis(now);
        let cost = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        self.paid_until = self.paid_until.max(now).saturating_add(cost);
        Some(self.paid_until.saturating_sub(now)).filter(|ahead| *ahead >= AHEAD)
    }
}

#[cfg(test)]
mod tests;
