//! Checking and minifying JSON, checking keys, timers, every codec.

use std::hint::black_box;

use inflightkv_compression::{CodecId, Dictionary, codec};
use inflightkv_eviction::TimerWheel;
use inflightkv_validation::{KeyLimits, Limits, check, check_key, minify};

use crate::scenarios::{DOCUMENT, NOW, Scenario, Work, key, value};

pub(super) const LIST: &[Scenario] = &[
    Scenario::new("validation/check", 2_000, check_document),
    Scenario::new("validation/minify", 2_000, minify_document),
    Scenario::new("validation/key", 4_000, check_name),
    Scenario::new("eviction/timer", 4_000, timer),
    Scenario::new("compression/plain", 2_000, || both_ways(CodecId::Plain)),
    Scenario::new("compression/lz4", 1_000, || both_ways(CodecId::Lz4)),
    Scenario::new("compression/snappy", 1_000, || both_ways(CodecId::Snappy)),
    Scenario::new("compression/zstd", 200, || both_ways(CodecId::Zstd)),
    Scenario::new("compression/dictionary", 200, with_dictionary),
];

fn check_document() -> Work {
    let limits = Limits::default();
    Box::new(move || {
        let summary = check(black_box(DOCUMENT.as_bytes()), &limits);
        black_box(summary.expect("it is JSON"));
    })
}

fn minify_document() -> Work {
    let limits = Limits::default();
    let mut out = Vec::with_capacity(DOCUMENT.len());
    Box::new(move || {
        out.clear();
        let summary = minify(black_box(DOCUMENT.as_bytes()), &limits, &mut out);
        black_box(summary.expect("it is JSON"));
    })
}

fn check_name() -> Work {
    let (limits, name) = (KeyLimits::default(), key(42));
    Box::new(move || check_key(black_box(&name), &limits).expect("it is a key"))
}

/// Sets one timer and lets one fire, among ten thousand.
fn timer() -> Work {
    const TIMERS: u32 = 10_000;
    let mut wheel = TimerWheel::new();
    let mut now = NOW;
    for slot in 0..TIMERS {
        wheel.set(slot, now + 1 + u64::from(slot), now);
    }
    Box::new(move || {
        now += 1;
        let mut fired = 0;
        wheel.expire(now, 64, |slot| fired = slot);
        wheel.set(fired, now + u64::from(TIMERS), now);
    })
}

/// Makes a document smaller, and whole again.
fn both_ways(id: CodecId) -> Work {
    let codec = codec(id);
    let (mut stored, mut raw) = (Vec::with_capacity(4_096), Vec::with_capacity(4_096));
    Box::new(move || {
        stored.clear();
        raw.clear();
        codec.compress(black_box(DOCUMENT.as_bytes()), &mut stored);
        codec
            .decompress(&stored, DOCUMENT.len(), &mut raw)
            .expect("it was just made");
        black_box(&raw);
    })
}

/// The same for a small value, with what many like it have in common.
fn with_dictionary() -> Work {
    // Training would take longer than everything else here, and any text will do.
    let bytes: String = (0..100).map(value).collect();
    let dictionary = Dictionary::new(1, bytes.as_bytes()).expect("less than it may have");
    let document = value(4_711);
    let (mut stored, mut raw) = (Vec::with_capacity(4_096), Vec::with_capacity(4_096));
    Box::new(move || {
        stored.clear();
        raw.clear();
        dictionary.compress(black_box(document.as_bytes()), &mut stored);
        dictionary
            .decompress(&stored, document.len(), &mut raw)
            .expect("it was just made");
        black_box(&raw);
    })
}
