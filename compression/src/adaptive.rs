//! Which codec pays for this value, if any.
//!
//! [`Chooser::choose`] looks at what is cheap to know (length, media type, how often the value is read, a sample of its
//! bytes) and names an [`Attempt`] or a reason to [leave](Choice::Leave) the value as it is; [`pays`] says of the result
//! whether it is worth keeping; [`Chooser::learn`] remembers by kinds of values what came of it, so that a kind that
//! never gets smaller is tried only now and then. That a single value failed is the caller's to remember beside it.

use crate::codec::CodecId;

/// The least that a value has to become smaller, in percent, to be kept compressed.
pub const SAVING_MIN_PERCENT: usize = 12;
/// Below this many bytes nothing pays, whatever is asked for.
pub const RAW_BYTES_MIN: usize = 64;
/// Without a dictionary a value of fewer bytes rarely repeats itself.
const ALONE_BYTES_MIN: usize = 512;
/// Values up to this many bytes are compressed with a dictionary; above, they bring their own context.
pub const DICTIONARY_RAW_MAX: usize = 16 << 10;
/// Above this many bytes the time to read a value counts for more than its last few percent.
const QUICK_BYTES_MIN: usize = 128 << 10;
/// Bytes looked at by [`estimate`].
const SAMPLE_BYTES: usize = 1024;
/// An estimate above this is not worth trying.
const ESTIMATE_MAX: f32 = 0.94;
/// From this heat on (see [`Facts::heat`]) a value stays as it is.
pub const HOT: u8 = 2;
/// So many failures in a row make a kind suspect; then one in so many is tried.
const FAILURES_MAX: u16 = 16;

/// What values are compressed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: values are kept as they are.
    #[default]
    Off,
    /// This codec, wherever it pays.
    Fixed(CodecId),
    /// The codec that suits the value.
    Adaptive,
}

/// What a chooser is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// With what.
    pub mode: Mode,
    /// Values of fewer bytes are left; at least [`RAW_BYTES_MIN`] in effect.
    pub raw_bytes_min: usize,
    /// Whether small values may use a dictionary. Only Zstandard does.
    pub dictionaries: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Off,
            raw_bytes_min: RAW_BYTES_MIN,
            dictionaries: true,
        }
    }
}

/// What is known of a value.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its bytes.
    pub raw: &'a [u8],
    /// `None` for JSON.
    pub media_type: Option<&'a str>,
    /// How often it was read lately: 0 not at all, 1 once, [`HOT`] and above often.
    pub heat: u8,
    /// Whether there is a dictionary.
    pub dictionary: bool,
}

/// How to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The codec.
    pub codec: CodecId,
    /// Whether with the dictionary.
    pub dictionary: bool,
}

/// Why a value is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Nothing is compressed.
    Off,
    /// It is smaller than what is compressed.
    Small,
    /// It is read too often; it may cool.
    Hot,
    /// It is too small to be compressed alone, and there is no dictionary yet.
    NoDictionary,
    /// Its media type is compressed already, or a sample of it looks like noise.
    Incompressible,
    /// Others of its kind did not get smaller.
    Hopeless,
}

impl Reason {
    /// Whether the same value may be worth a look later on. Otherwise it is best remembered as a failure.
    #[must_use]
    pub const fn may_change(self) -> bool {
        matches!(
            self,
            Self::Off | Self::Hot | Self::NoDictionary | Self::Hopeless
        )
    }
}

/// What to do with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Compress it so, and see whether it [pays].
    Try(Attempt),
    /// Keep it as it is.
    Leave(Reason),
}

/// Whether `stored` bytes in the place of `raw` are worth it: at least [`SAVING_MIN_PERCENT`] saved. `stored` includes
/// what has to be kept beside the compressed bytes.
#[must_use]
pub const fn pays(raw: usize, stored: usize) -> bool {
    stored < raw && (raw - stored) * 100 >= raw * SAVING_MIN_PERCENT
}

/// Chooses, and remembers what came of it.
#[derive(Clone, Debug, Default)]
pub struct Chooser {
    settings: Settings,
    kinds: [[Kind; SIZE_CLASSES]; 2],
}

/// Values of like size and nature.
#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    failures: u16,
    /// Values left since the last try.
    passed: u16,
}

/// Powers of two from 64 bytes to 64 MiB and beyond.
const SIZE_CLASSES: usize = 21;

impl Chooser {
    /// A chooser that knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            kinds: Default::default(),
        }
    }

    /// What it is set to.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Forgets what was learned: there is a new dictionary, so old failures say little.
    pub fn forget(&mut self) {
        self.kinds = Default::default();
    }

    /// What to do with a value.
    pub fn choose(&mut self, facts: &Facts<'_>) -> Choice {
        let len = facts.raw.len();
        let Settings {
            mode,
            raw_bytes_min,
            dictionaries,
        } = self.settings;
        if mode == Mode::Off || mode == Mode::Fixed(CodecId::Plain) {
            return Choice::Leave(Reason::Off);
        }
        if len < raw_bytes_min.max(RAW_BYTES_MIN) {
            return Choice::Leave(Reason::Small);
        }
        if facts.heat >= HOT {
            return Choice::Leave(Reason::Hot);
        }
        if facts.media_type.is_some_and(is_compressed) {
            return Choice::Leave(Reason::Incompressible);
        }
        let dictionary = dictionaries && facts.dictionary && len <= DICTIONARY_RAW_MAX;
        let attempt = match mode {
            Mode::Fixed(codec) => Attempt {
                codec,
                dictionary: dictionary && codec == CodecId::Zstd,
            },
            _ if dictionary => Attempt {
                codec: CodecId::Zstd,
                dictionary,
            },
            _ if len < ALONE_BYTES_MIN => return Choice::Leave(Reason::NoDictionary),
            _ => Attempt {
                codec: if len < QUICK_BYTES_MIN {
                    CodecId::Zstd
                } else {
                    CodecId::Lz4
                },
                dictionary: false,
            },
        };
        let kind = self.kind(facts.media_type, len);
        if kind.failures >= FAILURES_MAX {
            kind.passed += 1;
            if kind.passed < FAILURES_MAX {
                return Choice::Leave(Reason::Hopeless);
            }
            kind.passed = 0;
        }
        // With a dictionary a value shares more than its own bytes tell.
        if !attempt.dictionary && estimate(facts.raw) > ESTIMATE_MAX {
            return Choice::Leave(Reason::Incompressible);
        }
        Choice::Try(attempt)
    }

    /// Says what came of an attempt at a value of `raw` bytes: whether it paid.
    pub fn learn(&mut self, media_type: Option<&str>, raw: usize, paid: bool) {
        let kind = self.kind(media_type, raw);
        kind.failures = if paid {
            0
        } else {
            kind.failures.saturating_add(1)
        };
    }

    fn kind(&mut self, media_type: Option<&str>, len: usize) -> &mut Kind {
        let class = (len / RAW_BYTES_MIN).checked_ilog2().unwrap_or(0) as usize;
        &mut self.kinds[usize::from(media_type.is_some())][class.min(SIZE_CLASSES - 1)]
    }
}

/// Media types whose bytes are compressed already.
fn is_compressed(media_type: &str) -> bool {
    let essence = media_type
        .split_once(';')
        .map_or(media_type, |(essence, _)| essence)
        .trim();
    let starts = |prefix: &str| {
        essence
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    // Pictures that are text or plain rasters are the exception.
    if starts("image/") {
        return !["image/svg+xml", "image/bmp", "image/tiff"]
            .iter()
            .any(|plain| essence.eq_ignore_ascii_case(plain));
    }
    starts("video/")
        || (starts("audio/") && !essence.eq_ignore_ascii_case("audio/wav"))
        || starts("font/woff")
        || [
            "application/zip",
            "application/gzip",
            "application/zstd",
            "application/x-7z-compressed",
            "application/x-bzip2",
            "application/x-xz",
            "application/pdf",
        ]
        .iter()
        .any(|known| essence.eq_ignore_ascii_case(known))
}

/// Roughly what part of its length `raw` would keep, 0 to 1: the entropy (Shannon 1948) of single bytes over a few
/// samples of it, at most a KiB in all. It sees how uneven the bytes are and not whether longer pieces repeat, so it is
/// an upper bound for texts and right for noise, which is what it is asked about; below some 500 bytes noise shows less.
#[must_use]
pub fn estimate(raw: &[u8]) -> f32 {
    let mut counts = [0_u16; 256];
    let mut total = 0_u16;
    let mut count = |piece: &[u8]| {
        for byte in piece {
            counts[usize::from(*byte)] += 1;
        }
        total += piece.len() as u16;
    };
    if raw.len() <= SAMPLE_BYTES {
        count(raw);
    } else {
        let piece = SAMPLE_BYTES / 4;
        for part in 0..4 {
            let at = (raw.len() - piece) / 3 * part;
            count(&raw[at..at + piece]);
        }
    }
    if total == 0 {
        return 1.0;
    }
    let whole = f32::from(total);
    let bits: f32 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f32::from(*count) / whole;
            -share * share.log2()
        })
        .sum();
    // A sample of n bytes shows at most log2(n) bits of entropy: measured against that, short noise looks like noise.
    bits / 8_f32.min(whole.log2()).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chooser(mode: Mode) -> Chooser {
        Chooser::new(Settings {
            mode,
            ..Settings::default()
        })
    }

    fn json(len: usize) -> Vec<u8> {
        br#"{"id":17,"name":"somebody","active":true,"tags":["a","b"]},"#
            .iter()
            .copied()
            .cycle()
            .take(len)
            .collect()
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..len).map(|_| random.u8(..)).collect()
    }

    fn facts(raw: &[u8]) -> Facts<'_> {
        Facts {
            raw,
            media_type: None,
            heat: 0,
            dictionary: false,
        }
    }

    #[test]
    fn a_value_gets_the_codec_that_suits_it() {
        use Choice::{Leave, Try};
        let with = |codec, dictionary| Try(Attempt { codec, dictionary });
        for (len, dictionary, wanted) in [
            (63, true, Leave(Reason::Small)),
            (64, true, with(CodecId::Zstd, true)),
            (64, false, Leave(Reason::NoDictionary)),
            (511, false, Leave(Reason::NoDictionary)),
            (512, false, with(CodecId::Zstd, false)),
            (16 << 10, true, with(CodecId::Zstd, true)),
            ((16 << 10) + 1, true, with(CodecId::Zstd, false)),
            (128 << 10, true, with(CodecId::Lz4, false)),
        ] {
            let raw = json(len);
            let mut facts = facts(&raw);
            facts.dictionary = dictionary;
            assert_eq!(chooser(Mode::Adaptive).choose(&facts), wanted, "{len}");
        }
        let raw = json(100);
        for codec in [CodecId::Lz4, CodecId::Snappy, CodecId::Zstd] {
            assert_eq!(
                chooser(Mode::Fixed(codec)).choose(&facts(&raw)),
                with(codec, false)
            );
        }
        let mut known = facts(&raw);
        known.dictionary = true;
        assert_eq!(
            chooser(Mode::Fixed(CodecId::Lz4)).choose(&known),
            with(CodecId::Lz4, false)
        );
        assert_eq!(chooser(Mode::Off).choose(&known), Leave(Reason::Off));
        let plain = Mode::Fixed(CodecId::Plain);
        assert_eq!(chooser(plain).choose(&known), Leave(Reason::Off));
    }

    #[test]
    fn what_is_hot_or_compressed_already_is_left() {
        let raw = json(5000);
        let mut chooser = chooser(Mode::Adaptive);
        for heat in HOT..=3 {
            let facts = Facts {
                heat,
                ..facts(&raw)
            };
            assert_eq!(chooser.choose(&facts), Choice::Leave(Reason::Hot));
        }
        for (media_type, left) in [
            ("image/png", true),
            ("IMAGE/JPEG; q=1", true),
            ("image/svg+xml", false),
            ("video/mp4", true),
            ("application/gzip", true),
            ("text/plain", false),
            ("application/octet-stream", false),
            ("im", false),
            ("изображение", false),
        ] {
            let facts = Facts {
                media_type: Some(media_type),
                ..facts(&raw)
            };
            let choice = chooser.choose(&facts);
            assert_eq!(
                choice == Choice::Leave(Reason::Incompressible),
                left,
                "{media_type}"
            );
        }
        let noise = noise(5000);
        assert_eq!(
            chooser.choose(&facts(&noise)),
            Choice::Leave(Reason::Incompressible)
        );
    }

    #[test]
    fn a_kind_that_never_pays_is_tried_now_and_then() {
        let raw = json(3000);
        let mut chooser = chooser(Mode::Adaptive);
        let mut tries = 0;
        for _ in 0..1000 {
            if let Choice::Try(_) = chooser.choose(&facts(&raw)) {
                tries += 1;
                chooser.learn(None, raw.len(), false);
            }
        }
        assert!((60..90).contains(&tries), "{tries} of 1000");
        // Another size and another nature are other kinds.
        assert!(matches!(
            chooser.choose(&facts(&json(9000))),
            Choice::Try(_)
        ));
        chooser.learn(None, raw.len(), true);
        assert!(matches!(chooser.choose(&facts(&raw)), Choice::Try(_)));
    }

    #[test]
    fn the_estimate_tells_noise_from_text() {
        for len in [512, 1024, 5000, 1 << 20] {
            let (text, noise) = (estimate(&json(len)), estimate(&noise(len)));
            assert!(text < 0.85, "{len}: {text}");
            assert!(noise > ESTIMATE_MAX, "{len}: {noise}");
            assert!((0.0..=1.01).contains(&noise), "{len}: {noise}");
        }
        assert!(estimate(&[]) >= 1.0);
        assert!(estimate(&[7; 4000]) < 0.01);
    }

    #[test]
    fn it_pays_from_twelve_percent_on() {
        assert!(pays(100, 88) && !pays(100, 89));
        assert!(!pays(0, 0) && !pays(10, 11));
        assert!(pays(usize::MAX / 200, 0));
    }
}
