//! What compression of values and keys saves on documents of your own, by the store's own count:
//! `cargo run --release -p inflightkv-server --example savings -- FILE…`
//!
//! Each file has lines `{"key":…,"value":…}`. Its documents are written over and over, with other digits and letters in
//! them, until there are enough; then the store is set to one kind of compression after another, and is asked what it
//! holds once everything is cold, what that took of the processor, and how long a read takes that meets each key once.

use inflightkv_server::engine::drive::Driver;
use inflightkv_server::engine::{
    Change, Compression, CompressionMode, Conditions, Durability, Engine, Lane, Options, PutTtl,
    Value, Write,
};
use std::time::Instant;

const ENTRIES: usize = 60_000;
const BYTES_MAX: usize = 64 << 20;

fn main() {
    let settings = |mode, dictionaries, batches, keys| Compression {
        mode,
        dictionaries,
        batches,
        keys,
        cold_after_ms: 0,
        value_bytes_min: 32,
        cpu_percent: 100,
    };
    let (off, on) = (CompressionMode::Off, CompressionMode::Adaptive);
    let kinds = [
        ("off", settings(off, false, false, false)),
        ("keys", settings(off, false, false, true)),
        ("alone", settings(on, false, false, false)),
        ("blocks", settings(on, false, true, false)),
        ("dictionary", settings(on, true, false, false)),
        ("dictionary, blocks", settings(on, true, true, false)),
        ("dictionary, blocks, keys", settings(on, true, true, true)),
    ];
    for path in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&path).expect("a file that can be read");
        let documents: Vec<(&str, &str)> = text.lines().filter_map(parts).collect();
        println!("{path}");
        println!(
            "  {:<26} {:>9} {:>6} {:>7} {:>8} {:>9}",
            "set to", "B/entry", "%", "CPU s", "blocks", "µs/GET"
        );
        let mut whole = None;
        for (name, compression) in kinds {
            let (engine, lane) = loaded(&documents, compression);
            let driver = Driver::new(&engine).expect("nobody else drives it");
            while driver.compress() {}
            let stats = engine.stats();
            let each = stats.memory.used as f64 / stats.total.entries as f64;
            let whole = *whole.get_or_insert(each);
            println!(
                "  {name:<26} {each:>9.1} {:>6.1} {:>7.2} {:>8} {:>9.2}",
                each * 100.0 / whole,
                stats.compression.cpu_us as f64 / 1e6,
                stats.compression.blocks.blocks,
                read(&documents, &lane)
            );
        }
    }
}

/// Key and value of a line.
fn parts(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line
        .strip_prefix("{\"key\":\"")?
        .split_once("\",\"value\":")?;
    Some((key, value.strip_suffix('}')?))
}

fn rounds(documents: &[(&str, &str)]) -> usize {
    let bytes: usize = documents.iter().map(|(_, value)| value.len()).sum();
    (ENTRIES / documents.len()).min(BYTES_MAX / bytes).max(1)
}

fn loaded(documents: &[(&str, &str)], compression: Compression) -> (Engine, Lane) {
    let engine = Engine::open(Options {
        compression,
        ..Options::default()
    })
    .expect("sound options");
    engine.recover().expect("there is nothing to load");
    let lane = engine.lane(0);
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..rounds(documents) {
        for (key, value) in documents {
            let value = Value {
                bytes: changed(value, &mut random).into(),
                media_type: None,
            };
            let write = Write {
                key: &format!("{key}/{round}"),
                conditions: Conditions::default(),
                change: Change::Put {
                    value,
                    ttl: PutTtl::Clear,
                },
                durability: Durability::Default,
                returning: false,
                pin: None,
            };
            lane.write(write).expect("the store takes it");
        }
    }
    (engine, lane)
}

/// The same document with other digits and, here and there, other letters.
fn changed(value: &str, random: &mut fastrand::Rng) -> Vec<u8> {
    let other = |byte: u8| match byte {
        b'0'..=b'9' => random.digit(10) as u8,
        b'a'..=b'z' if random.u8(..16) == 0 => random.lowercase() as u8,
        byte => byte,
    };
    value.bytes().map(other).collect()
}

/// Microseconds for reading each key once, in the order of a stride.
fn read(documents: &[(&str, &str)], lane: &Lane) -> f64 {
    let count = documents.len() * rounds(documents);
    let begun = Instant::now();
    let mut at = 0;
    for _ in 0..count {
        at = (at + 7919) % count;
        let key = format!(
            "{}/{}",
            documents[at % documents.len()].0,
            at / documents.len()
        );
        let found = lane.get(&key).expect("the store serves").value;
        assert!(found.is_some(), "{key} is there");
    }
    begun.elapsed().as_secs_f64() * 1e6 / count as f64
}
