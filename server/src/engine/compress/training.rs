//! When a dictionary is trained, of what, and which one is in force.

use super::{CompressionCounters, LiveDictionary};
use inflightkv_compression::Dictionary;
use inflightkv_compression::dictionary::{
    DICTIONARY_BYTES_MAX, Drift, SAMPLES_MIN, Sampler, train,
};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// Samples for one training: a hundred times the dictionary is what its authors advise.
const SAMPLES_MAX: usize = 4000;
const SAMPLE_BYTES_MAX: usize = 100 * DICTIONARY_BYTES_MAX;
/// After a training that led to nothing, so many times as many values have to pass as the time before.
const PATIENCE: u64 = 4;

/// What the compressor knows of dictionaries.
#[derive(Debug)]
pub(super) struct Training {
    sampler: Sampler,
    /// The one in force: partitions adopt it when they are swept.
    pub(super) current: Option<Arc<Dictionary>>,
    drift: Option<Drift>,
    /// Every one that may still be needed.
    adopted: Vec<Weak<Dictionary>>,
    version: u32,
    /// Values shown since the last training, and how many there have to be before the next.
    seen: u64,
    seen_min: u64,
}

impl Training {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            sampler: Sampler::new(seed, SAMPLES_MAX, SAMPLE_BYTES_MAX),
            current: None,
            drift: None,
            adopted: Vec::new(),
            version: 0,
            seen: 0,
            seen_min: SAMPLES_MIN as u64,
        }
    }

    /// Whether samples are wanted: there is no dictionary, or it does not fit any more.
    pub(super) fn is_curious(&self) -> bool {
        self.drift.is_none_or(|drift| drift.is_stale())
    }

    /// Shows a value that might be compressed.
    pub(super) fn offer(&mut self, raw: &[u8]) {
        self.seen += 1;
        self.sampler.offer(raw);
    }

    /// A value became `stored` bytes with the dictionary in force.
    pub(super) fn observe(&mut self, raw: usize, stored: usize) {
        if let Some(drift) = &mut self.drift {
            drift.observe(raw, stored);
        }
    }

    /// Whether there is enough to learn from.
    pub(super) fn is_due(&self) -> bool {
        self.is_curious()
            && self.seen >= self.seen_min
            && self.sampler.samples().len() >= SAMPLES_MIN
    }

    /// Trains, and says whether there is a new dictionary in force.
    pub(super) fn train(&mut self, counters: &CompressionCounters) -> bool {
        counters.trainings.fetch_add(1, Ordering::Relaxed);
        let samples = self.sampler.take();
        let trained = train(self.version + 1, &samples, self.current.as_deref());
        self.seen = 0;
        match trained {
            Ok(trained) => {
                if let Some(dictionary) = trained.adopted {
                    counters
                        .dictionaries_adopted
                        .fetch_add(1, Ordering::Relaxed);
                    self.version = dictionary.version();
                    let dictionary = Arc::new(dictionary);
                    self.adopted.retain(|older| older.strong_count() > 0);
                    self.adopted.push(Arc::downgrade(&dictionary));
                    self.current = Some(dictionary);
                    self.drift = Some(Drift::new(trained.ratio_after));
                    self.seen_min = SAMPLES_MIN as u64;
                    return true;
                }
                // As good as it gets: from here on this is what is expected.
                if self.current.is_some() {
                    self.drift = Some(Drift::new(trained.ratio_before));
                }
            }
            Err(_) => {
                // Values that have nothing in common; others may.
            }
        }
        self.seen_min = (samples.len() as u64).max(self.seen_min) * PATIENCE;
        false
    }

    /// The dictionaries that values are coded with or will be.
    pub(super) fn live(&self) -> Vec<LiveDictionary> {
        let live = self.adopted.iter().filter_map(Weak::upgrade);
        live.map(|dictionary| LiveDictionary {
            version: dictionary.version(),
            bytes: dictionary.footprint(),
        })
        .collect()
    }

    /// Heap bytes of the samples.
    pub(super) fn footprint(&self) -> usize {
        self.sampler.footprint()
    }
}
