//! Compression of values in memory: in the background, within a share of the processor, noticed by nobody.
//!
//! A write stores its value as it is. A thread of the store's own sweeps the partitions that were written to, a batch
//! at a time: it takes candidates along under the lock, compresses them outside, and puts them in their place if
//! nobody wrote meanwhile. That is no change of the key: no sequence, no version, no record. The log and every file hold
//! values as the client sent them, so nothing on disk depends on a dictionary or on how the store is set.
//!
//! A value that is read again and again is stored as it is again, and one that nobody reads is compressed a sweep later
//! ([`Entry::heat`](inflightkv_core::Entry::heat)). With nothing written and nothing hot the thread sleeps.
//!
//! With `keys`, the same pass stores keys with a code for what they share with others: see `keys`.
//! With `batches`, what was neither read nor written for a while is packed together with others: see `packing`.
//!
//! `budget` keeps to the share, `sweep` goes through a partition, `judge` says what is to be done with an entry, `place`
//! puts in place what was made, `training` makes dictionaries.

mod budget;
mod judge;
mod keys;
mod packing;
mod place;
mod sweep;
mod training;

use super::Shared;
use inflightkv_compression::CodecId;
use inflightkv_compression::adaptive::{self, Mode, RAW_BYTES_MIN};
pub use keys::KeyTotals;
pub(crate) use packing::BESIDE as PACKED_BESIDE;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
pub(crate) use sweep::Sweeper;

/// What was just written is left for so long: it may be written again, and changes that come together are swept
/// together.
const SETTLE: Duration = Duration::from_millis(500);
/// The pause between sweeps when only entries that are still warm are left, doubled as long as none has cooled.
const COOL_MIN: Duration = Duration::from_secs(1);
const COOL_MAX: Duration = Duration::from_secs(64);
/// What is kept beside a compressed value: its coding in the entry's head.
const CODING_BYTES: usize = 5;

/// How values in memory are compressed; may change while the store runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// With what; off by default. Switched off, what is compressed is stored as it is again, in the background.
    pub mode: CompressionMode,
    /// Values of fewer bytes are left as they are; default and minimum in effect 64.
    pub value_bytes_min: usize,
    /// Whether small values share trained dictionaries (with Zstandard and the adaptive mode); default on.
    pub dictionaries: bool,
    /// Whether small values that are neither read nor written are packed together into blocks; default off. Effective
    /// unless the mode is off.
    pub batches: bool,
    /// How long such a value was neither read nor written, in milliseconds; default 30,000.
    pub cold_after_ms: u64,
    /// Whether keys that share prefixes are stored with a code in their stead; default off.
    pub keys: bool,
    /// The share of each lane's processor that it may take, in percent, 1 to 100; default 10. More compresses sooner.
    pub cpu_percent: u8,
}

/// What values in memory are compressed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompressionMode {
    /// Nothing.
    #[default]
    Off,
    /// LZ4.
    Lz4,
    /// Snappy.
    Snappy,
    /// Zstandard.
    Zstd,
    /// What suits the value: Zstandard, with a dictionary if it is small; LZ4 if it is very large; nothing if it is
    /// hot.
    Adaptive,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            mode: CompressionMode::Off,
            value_bytes_min: RAW_BYTES_MIN,
            dictionaries: true,
            batches: false,
            cold_after_ms: 30_000,
            keys: false,
            cpu_percent: 10,
        }
    }
}

impl Compression {
    fn settings(&self) -> adaptive::Settings {
        adaptive::Settings {
            mode: match self.mode {
                CompressionMode::Off => Mode::Off,
                CompressionMode::Lz4 => Mode::Fixed(CodecId::Lz4),
                CompressionMode::Snappy => Mode::Fixed(CodecId::Snappy),
                CompressionMode::Zstd => Mode::Fixed(CodecId::Zstd),
                CompressionMode::Adaptive => Mode::Adaptive,
            },
            raw_bytes_min: self.value_bytes_min,
            dictionaries: self.dictionaries,
        }
    }

    /// Whether there is anything to do in the background.
    fn is_on(&self) -> bool {
        self.mode != CompressionMode::Off || self.keys
    }

    fn packs(&self) -> bool {
        self.batches && self.mode != CompressionMode::Off
    }

    /// Whether a value of so many bytes may be packed together with others.
    fn may_pack(&self, raw_len: usize) -> bool {
        let least = self.value_bytes_min.max(packing::PACKED_RAW_MIN);
        self.packs() && (least..=packing::PACKED_RAW_MAX).contains(&raw_len)
    }

    /// What blocks are compressed with.
    fn block_codec(&self) -> CodecId {
        match self.mode {
            CompressionMode::Lz4 => CodecId::Lz4,
            CompressionMode::Snappy => CodecId::Snappy,
            CompressionMode::Off | CompressionMode::Zstd | CompressionMode::Adaptive => {
                CodecId::Zstd
            }
        }
    }

    fn trains(&self) -> bool {
        self.dictionaries && matches!(self.mode, CompressionMode::Zstd | CompressionMode::Adaptive)
    }
}

/// The compressor's side that everybody may touch; what it remembers from sweep to sweep is the [`Sweeper`]'s.
pub(crate) struct Compressor {
    settings: Mutex<Compression>,
    /// Told apart from the settings a sweeper knows.
    generation: AtomicU64,
    /// Something is compressed: writes and hot reads announce themselves.
    active: AtomicBool,
    /// A partition is uneven.
    pending: AtomicBool,
    stopping: AtomicBool,
    sleeper: Mutex<()>,
    wake: Condvar,
    started: AtomicBool,
    pub(crate) counters: CompressionCounters,
    pub(crate) held: Mutex<Held>,
    /// Of the dictionaries in `held`.
    pub(crate) dictionary_bytes: AtomicU64,
    /// Held by the thread, or by whoever drives the store by hand.
    pub(crate) sweeper: Mutex<Sweeper>,
}

/// What is counted of the compressor's work.
#[derive(Debug, Default)]
pub(crate) struct CompressionCounters {
    pub(crate) compressed: AtomicU64,
    pub(crate) decompressed: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) overtaken: AtomicU64,
    pub(crate) packed: AtomicU64,
    pub(crate) unpacked: AtomicU64,
    pub(crate) blocks_made: AtomicU64,
    pub(crate) rekeyed: AtomicU64,
    pub(crate) cpu_us: AtomicU64,
    pub(crate) sweeps: AtomicU64,
    pub(crate) trainings: AtomicU64,
    pub(crate) dictionaries_adopted: AtomicU64,
}

/// What the compressor holds beside the entries, as of its last pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// Buffers and samples.
    pub(crate) bytes: usize,
    pub(crate) dictionaries: Vec<LiveDictionary>,
}

/// A dictionary that values are coded with or will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveDictionary {
    /// Its number, counted up from 1 in each run.
    pub version: u32,
    /// Heap bytes it takes, tables included.
    pub bytes: usize,
}

impl Compressor {
    pub(crate) fn new(settings: Compression, seed: u64) -> Self {
        Self {
            settings: Mutex::new(settings),
            generation: AtomicU64::new(1),
            active: AtomicBool::new(settings.is_on()),
            pending: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            sleeper: Mutex::new(()),
            wake: Condvar::new(),
            started: AtomicBool::new(false),
            counters: CompressionCounters::default(),
            held: Mutex::default(),
            dictionary_bytes: AtomicU64::new(0),
            sweeper: Mutex::new(Sweeper::new(seed)),
        }
    }

    /// Whether reads warm their entries and writes announce themselves.
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    pub(crate) fn settings(&self) -> Compression {
        *self.settings.lock()
    }

    /// A partition was marked uneven: the thread is woken if it sleeps. Not under a partition's lock.
    pub(crate) fn note(&self) {
        if !self.pending.load(Ordering::Relaxed) && !self.pending.swap(true, Ordering::AcqRel) {
            let _sleeper = self.sleeper.lock();
            self.wake.notify_one();
        }
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let _sleeper = self.sleeper.lock();
        self.wake.notify_one();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Sleeps for `pause`, or until the store stops or its settings change.
    fn pause(&self, pause: Duration) {
        let generation = self.generation.load(Ordering::Acquire);
        let until = Instant::now() + pause;
        let mut sleeper = self.sleeper.lock();
        while !self.is_stopping() && self.generation.load(Ordering::Acquire) == generation {
            if self.wake.wait_until(&mut sleeper, until).timed_out() {
                return;
            }
        }
    }

    /// Sleeps until there is work, at most for `limit`.
    fn wait_for_work(&self, limit: Option<Duration>) {
        let until = limit.map(|limit| Instant::now() + limit);
        let mut sleeper = self.sleeper.lock();
        while !self.is_stopping() && !self.pending.load(Ordering::Acquire) {
            match until {
                Some(until) if self.wake.wait_until(&mut sleeper, until).timed_out() => return,
                Some(_) => {}
                None => self.wake.wait(&mut sleeper),
            }
        }
    }
}

impl Shared {
    pub(super) fn set_compression(&self, settings: Compression) {
        let compressor = &self.compressor;
        *compressor.settings.lock() = settings;
        compressor.active.store(settings.is_on(), Ordering::Release);
        compressor.generation.fetch_add(1, Ordering::AcqRel);
        self.make_uneven();
        let _sleeper = compressor.sleeper.lock();
        compressor.wake.notify_one();
    }

    /// Everything is to be looked at once more.
    pub(super) fn make_uneven(&self) {
        for partition in 0..self.partitions.count() {
            self.partitions.with(partition, |table| table.uneven = true);
        }
        self.compressor.pending.store(true, Ordering::Release);
    }

    /// Wakes the compressor if entries that went left some block mostly empty. Not under a partition's lock.
    #[inline]
    pub(super) fn note_sparse(&self) {
        if self.partitions.take_sparse() {
            self.compressor.note();
        }
    }

    /// Whether a thread is to be started: the store is compressed, and none runs yet.
    pub(super) fn needs_compressor(&self) -> bool {
        self.compressor.is_active() && !self.compressor.started.swap(true, Ordering::AcqRel)
    }

    /// The thread could not be started: the next one to ask tries again.
    pub(super) fn compressor_failed(&self) {
        self.compressor.started.store(false, Ordering::Release);
    }
}

/// The thread's life.
pub(super) fn run(shared: &Arc<Shared>) {
    let compressor = &shared.compressor;
    // What is warm now may be cool later, and nobody will say so: then another pass is due by itself.
    let mut cool = None;
    loop {
        compressor.wait_for_work(cool);
        compressor.pause(SETTLE);
        if compressor.is_stopping() {
            return;
        }
        let swept = compressor.sweeper.lock().sweep(shared, |pause| {
            compressor.pause(pause);
            !compressor.is_stopping()
        });
        cool = match (swept.warm, swept.changed, cool) {
            (false, ..) => None,
            (true, true, _) | (true, false, None) => Some(COOL_MIN),
            (true, false, Some(pause)) => Some((pause * 2).min(COOL_MAX)),
        };
    }
}
