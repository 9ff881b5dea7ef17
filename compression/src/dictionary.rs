//! Trained dictionaries for small values: sampled, trained, judged, kept and retired.
//!
//! A small document has little to refer back to; a dictionary gives all of them a common past. The steps, each the
//! caller's to time: a [`Sampler`] keeps a fair sample of what passes by; [`train`] makes a dictionary of most of it (some
//! hundred milliseconds: best on a thread of its own), measures it on the rest and says whether it is worth adopting; a
//! [`DictionarySet`] gives it a number and keeps those that stored values still need; a [`Drift`] tells when values have
//! changed so much that another one should be trained.
//!
//! Dictionaries are those of Zstandard (RFC 8878, section 5), trained by the reference library's COVER (Liao, Petri,
//! Moffat, Wirth, "Effective construction of relative Lempel-Ziv dictionaries", WWW 2016). What is stored is a frame
//! without its magic number and without a dictionary id: both would be the same in each of a million small values, and
//! which dictionary it was is kept by whoever keeps the value.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use zstd::zstd_safe::{CDict, DDict};

use crate::codec::{Codec, CodecId};
use crate::error::{DecodeError, DictionaryError, TrainError};
use crate::zstd::{MAGIC, ZSTD_LEVEL, Zstd, compress_using, decompress_using};

/// Bytes of a dictionary, at most; larger ones were measured to gain nothing.
pub const DICTIONARY_BYTES_MAX: usize = 16 << 10;
/// Dictionaries in one set, at most.
pub const DICTIONARIES_MAX: u8 = 4;
/// A new dictionary is adopted if what is stored with it is smaller by this, in percent.
pub const GAIN_MIN_PERCENT: f64 = 10.0;
/// Of so many samples one is held back from training, to measure the result with.
const HELD_BACK_EVERY: usize = 4;
/// Fewer samples say too little.
pub const SAMPLES_MIN: usize = 100;

/// The first bytes of a trained dictionary, and where its id is.
const TRAINED_MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];
const TRAINED_ID: std::ops::Range<usize> = 4..8;
/// Tables that the library builds over a dictionary of this size to compress (level 3) and to decompress with it,
/// beside its two copies of it: an estimate from its parameters.
const TABLE_BYTES: usize = 200 << 10;

/// One dictionary, ready to compress and to decompress with from any thread.
pub struct Dictionary {
    version: u32,
    bytes: Box<[u8]>,
    compression: CDict<'static>,
    decompression: DDict<'static>,
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dictionary")
            .field("version", &self.version)
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl Dictionary {
    /// Takes `bytes`, which [`train`] made or anything else that values have in common.
    ///
    /// # Errors
    /// There are more bytes than [`DICTIONARY_BYTES_MAX`] or fewer than 8, or they begin like a trained dictionary and are none.
    pub fn new(version: u32, bytes: &[u8]) -> Result<Self, DictionaryError> {
        let len = bytes.len();
        if !(8..=DICTIONARY_BYTES_MAX).contains(&len) {
            return Err(DictionaryError::Length { len });
        }
        let mut bytes: Box<[u8]> = bytes.into();
        if bytes.starts_with(&TRAINED_MAGIC) {
            // Without an id none is written into each frame.
            bytes[TRAINED_ID].fill(0);
        }
        let compression =
            CDict::try_create(&bytes, ZSTD_LEVEL).ok_or(DictionaryError::Damaged { len })?;
        let decompression = DDict::try_create(&bytes).ok_or(DictionaryError::Damaged { len })?;
        Ok(Self {
            version,
            bytes,
            compression,
            decompression,
        })
    }

    /// The number it was given, by which people tell dictionaries apart.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Its bytes, from which [`Dictionary::new`] makes it again.
    #[must_use]
    pub const fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Heap bytes it takes, tables included; those are estimated.
    #[must_use]
    pub const fn footprint(&self) -> usize {
        3 * self.bytes.len() + TABLE_BYTES
    }

    /// Appends `raw`, compressed, to `out`.
    pub fn compress(&self, raw: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        compress_using(&self.compression, raw, out);
        out.drain(start..start + MAGIC.len());
    }

    /// Appends exactly `raw_len` bytes to `out`, or leaves it as it was and fails.
    ///
    /// # Errors
    /// `stored` is not what [`compress`](Self::compress) of this dictionary makes of `raw_len` bytes, as far as can be told: see
    /// the crate's words on damaged bytes.
    pub fn decompress(
        &self,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        thread_local!(static FRAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
        /// More is not kept from one call to the next.
        const FRAME_KEPT_MAX: usize = 64 << 10;
        FRAME.with_borrow_mut(|frame| {
            frame.clear();
            frame.extend_from_slice(&MAGIC);
            frame.extend_from_slice(stored);
            let result = decompress_using(&self.decompression, frame, raw_len, out);
            if frame.capacity() > FRAME_KEPT_MAX {
                *frame = Vec::new();
            }
            result
        })
    }
}

/// The dictionaries that stored values need, by the small numbers that are kept beside them. Numbers go from 1 to
/// [`DICTIONARIES_MAX`]; one is given again only after it was retired.
#[derive(Clone, Debug, Default)]
pub struct DictionarySet {
    slots: [Option<Arc<Dictionary>>; DICTIONARIES_MAX as usize],
    /// The one to compress with; 0 for none.
    current: u8,
}

impl DictionarySet {
    /// The dictionary of a number.
    #[must_use]
    pub fn get(&self, number: u8) -> Option<&Arc<Dictionary>> {
        self.slots
            .get(usize::from(number.checked_sub(1)?))?
            .as_ref()
    }

    /// The one to compress with, and its number.
    #[must_use]
    pub fn current(&self) -> Option<(u8, &Arc<Dictionary>)> {
        self.get(self.current)
            .map(|current| (self.current, current))
    }

    /// Every dictionary with its number.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Arc<Dictionary>)> {
        (1..)
            .zip(&self.slots)
            .filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }

    /// Compresses with `dictionary` from now on and gives it its number; the same again if it is here already. `None` when
    /// every number is taken: one has to be retired first.
    pub fn adopt(&mut self, dictionary: &Arc<Dictionary>) -> Option<u8> {
        let known = self
            .iter()
            .find(|(_, known)| Arc::ptr_eq(known, dictionary))
            .map(|(number, _)| number);
        let number = match known {
            Some(number) => number,
            None => {
                let free = self.slots.iter().position(Option::is_none)?;
                self.slots[free] = Some(Arc::clone(dictionary));
                // There are at most `DICTIONARIES_MAX` places.
                free as u8 + 1
            }
        };
        self.current = number;
        Some(number)
    }

    /// Compresses without a dictionary from now on; those there are stay for what was compressed with them.
    pub fn put_away(&mut self) {
        self.current = 0;
    }

    /// Gives up those that are not current and that no stored value needs, as `uses` says of a number, and hands them
    /// out, for the caller to release where that may take its time.
    pub fn retire(&mut self, uses: impl Fn(u8) -> usize) -> Vec<Arc<Dictionary>> {
        let current = self.current;
        (1..)
            .zip(&mut self.slots)
            .filter(|(number, _)| *number != current && uses(*number) == 0)
            .filter_map(|(_, slot)| slot.take())
            .collect()
    }
}

/// A fair sample of what passes by: each value is as likely to be in it as any other (Vitter's algorithm R, "Random sampling with a
/// reservoir", 1985), and the bytes are bounded.
#[derive(Clone, Debug)]
pub struct Sampler {
    random: u64,
    seen: u64,
    samples: Vec<Box<[u8]>>,
    bytes: usize,
    samples_max: usize,
    bytes_max: usize,
}

impl Sampler {
    /// Keeps up to `samples_max` values and about `bytes_max` bytes. The same `seed` draws the same sample.
    #[must_use]
    pub const fn new(seed: u64, samples_max: usize, bytes_max: usize) -> Self {
        Self {
            random: seed,
            seen: 0,
            samples: Vec::new(),
            bytes: 0,
            samples_max,
            bytes_max,
        }
    }

    /// Shows a value.
    pub fn offer(&mut self, raw: &[u8]) {
        if raw.is_empty() || raw.len() > DICTIONARY_BYTES_MAX {
            return;
        }
        self.seen += 1;
        if self.samples.len() < self.samples_max && self.bytes + raw.len() <= self.bytes_max {
            self.bytes += raw.len();
            self.samples.push(raw.into());
            return;
        }
        let at = self.draw() % self.seen;
        if let Some(sample) = usize::try_from(at)
            .ok()
            .and_then(|at| self.samples.get_mut(at))
        {
            self.bytes = self.bytes - sample.len() + raw.len();
            *sample = raw.into();
            while self.bytes > self.bytes_max
                && let Some(dropped) = self.samples.pop()
            {
                self.bytes -= dropped.len();
            }
        }
    }

    /// The samples there are.
    #[must_use]
    pub fn samples(&self) -> &[Box<[u8]>] {
        &self.samples
    }

    /// Heap bytes it holds.
    #[must_use]
    pub fn footprint(&self) -> usize {
        self.bytes + self.samples.capacity() * size_of::<Box<[u8]>>()
    }

    /// Begins anew, handing out what was sampled.
    pub fn take(&mut self) -> Vec<Box<[u8]>> {
        self.seen = 0;
        self.bytes = 0;
        std::mem::take(&mut self.samples)
    }

    /// `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014).
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }
}

/// What came of training.
#[derive(Debug)]
pub struct Training {
    /// The new dictionary if it is worth adopting.
    pub adopted: Option<Dictionary>,
    /// What the values held back keep of their length without it: with the current dictionary, or with none.
    pub ratio_before: f64,
    /// What they keep with it.
    pub ratio_after: f64,
}

/// Trains a dictionary of `samples` and measures it, on those that are held back from training, against `current`, or against
/// Zstandard without any. Takes some hundred milliseconds and megabytes.
///
/// # Errors
/// There are fewer than [`SAMPLES_MIN`] samples, or the library makes nothing of them (they have nothing in common).
pub fn train<S: AsRef<[u8]>>(
    version: u32,
    samples: &[S],
    current: Option<&Dictionary>,
) -> Result<Training, TrainError> {
    if samples.len() < SAMPLES_MIN {
        return Err(TrainError::TooFewSamples {
            found: samples.len(),
        });
    }
    let (mut data, mut lens, mut held_back) = (Vec::new(), Vec::new(), Vec::new());
    for (number, sample) in samples.iter().enumerate() {
        let sample = sample.as_ref();
        if number % HELD_BACK_EVERY == HELD_BACK_EVERY - 1 {
            held_back.push(sample);
        } else {
            data.extend_from_slice(sample);
            lens.push(sample.len());
        }
    }
    let bytes =
        zstd::dict::from_continuous(&data, &lens, DICTIONARY_BYTES_MAX).map_err(|error| {
            TrainError::Library {
                reason: error.to_string(),
            }
        })?;
    let trained = Dictionary::new(version, &bytes)?;
    let ratio_before = ratio(current, &held_back);
    let ratio_after = ratio(Some(&trained), &held_back);
    let gain = (ratio_before - ratio_after) * 100.0;
    Ok(Training {
        adopted: (gain >= ratio_before * GAIN_MIN_PERCENT).then_some(trained),
        ratio_before,
        ratio_after,
    })
}

/// What `values` keep of their length; one that does not get smaller counts as it is.
fn ratio(dictionary: Option<&Dictionary>, values: &[&[u8]]) -> f64 {
    let (mut raw, mut stored, mut out) = (0, 0, Vec::new());
    for value in values {
        out.clear();
        match dictionary {
            Some(dictionary) => dictionary.compress(value, &mut out),
            None => Zstd::DEFAULT.compress(value, &mut out),
        }
        raw += value.len();
        stored += out.len().min(value.len());
    }
    if raw == 0 {
        1.0
    } else {
        stored as f64 / raw as f64
    }
}

/// Whether a dictionary still fits what is compressed with it: the ratio it was adopted for, against a moving one.
#[derive(Clone, Copy, Debug)]
pub struct Drift {
    baseline: f64,
    moving: f64,
    seen: u64,
}

impl Drift {
    /// Values looked at before anything is said.
    const SEEN_MIN: u64 = 500;
    /// Worse than the baseline by so much is too bad.
    const WORSE_MAX: f64 = 1.15;
    /// The weight of a new value in the moving ratio.
    const WEIGHT: f64 = 1.0 / 256.0;

    /// Begins with the ratio that the dictionary was adopted for.
    #[must_use]
    pub const fn new(baseline: f64) -> Self {
        Self {
            baseline,
            moving: baseline,
            seen: 0,
        }
    }

    /// A value of `raw` bytes became `stored` bytes.
    pub fn observe(&mut self, raw: usize, stored: usize) {
        if raw > 0 {
            let ratio = (stored as f64 / raw as f64).min(1.0);
            self.moving += (ratio - self.moving) * Self::WEIGHT;
            self.seen += 1;
        }
    }

    /// The moving ratio.
    #[must_use]
    pub const fn ratio(&self) -> f64 {
        self.moving
    }

    /// Whether another dictionary should be trained.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.seen >= Self::SEEN_MIN && self.moving > self.baseline * Self::WORSE_MAX
    }
}

impl Codec for Dictionary {
    fn id(&self) -> CodecId {
        CodecId::Zstd
    }

    fn compress(&self, raw: &[u8], out: &mut Vec<u8>) {
        Self::compress(self, raw, out);
    }

    fn decompress(
        &self,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        Self::decompress(self, stored, raw_len, out)
    }
}
