//! How fast documents are checked: `cargo run --release -p inflightkv-validation --example json_speed -- FILE.ndjson…`
//!
//! Every line of each file is checked, minified, and for comparison skipped over by serde_json, which builds nothing
//! either; the best of several passes counts.

use inflightkv_validation::{Limits, check, minified};
use serde::de::IgnoredAny;
use std::hint::black_box;
use std::time::{Duration, Instant};

const PASSES: usize = 25;

fn main() {
    let limits = Limits {
        depth_max: 128,
        bytes_max: usize::MAX,
    };
    println!(
        "{:<40} {:>9} {:>9} {:>11}",
        "GB/s", "check", "minified", "serde_json"
    );
    for path in std::env::args().skip(1) {
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) => {
                eprintln!("{path} cannot be read: {error}");
                continue;
            }
        };
        let lines: Vec<&[u8]> = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .collect();
        let bytes: usize = lines.iter().map(|line| line.len()).sum();
        let speed = |decide: &dyn Fn(&[u8]) -> bool| {
            // Small files are gone over again until a pass can be timed.
            let rounds = (4 << 20) / bytes.max(1) + 1;
            let best = (0..PASSES)
                .map(|_| {
                    let begun = Instant::now();
                    for _ in 0..rounds {
                        for line in &lines {
                            assert!(decide(black_box(line)), "a line of {path} is not JSON");
                        }
                    }
                    begun.elapsed()
                })
                .min()
                .unwrap_or(Duration::MAX);
            (bytes * rounds) as f64 / best.as_secs_f64() / 1e9
        };
        println!(
            "{:<40} {:>9.2} {:>9.2} {:>11.2}",
            path.rsplit('/').next().unwrap_or(&path),
            speed(&|line| check(line, &limits).is_ok()),
            speed(&|line| minified(line, &limits).is_ok()),
            speed(&|line| serde_json::from_slice::<IgnoredAny>(line).is_ok()),
        );
    }
}
