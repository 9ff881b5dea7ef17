//! What packing small values together saves, on files of one value a line (or `{"key":…,"value":…}` lines):
//! `cargo run --release -p inflightkv-compression --example packing -- FILE…`
//!
//! Each value alone, each alone with a trained dictionary, and packed into blocks of several sizes, with and without
//! the dictionary; in percent of the values' own bytes, with what has to be kept beside them in an entry.

use inflightkv_compression::dictionary::{Sampler, train};
use inflightkv_compression::{CodecId, Dictionary, codec};
use std::time::Instant;

/// What an entry keeps beside a coded value, and beside a place in a block.
const CODING: usize = 5;
const PLACE: usize = 6;

fn main() {
    println!(
        "{:<20} {:>7} {:>6} {:>7} {:>7}  blocks of 4, 8, 16 KiB: zstd, +dict, µs to unpack",
        "file", "values", "bytes", "zstd", "+dict"
    );
    for path in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let values: Vec<&[u8]> = text
            .lines()
            .map(|line| match line.split_once(",\"value\":") {
                Some((_, value)) => &value.as_bytes()[..value.len() - 1],
                None => line.as_bytes(),
            })
            .collect();
        let raw: usize = values.iter().map(|value| value.len()).sum();
        let percent = |bytes: usize| format!("{:.1}", bytes as f64 * 100.0 / raw as f64);
        let mut sampler = Sampler::new(1, 4000, 1 << 20);
        values.iter().for_each(|value| sampler.offer(value));
        let dictionary: Option<Dictionary> = train(1, &sampler.take(), None)
            .ok()
            .and_then(|training| training.adopted);
        let zstd = codec(CodecId::Zstd);
        let (mut alone, mut with) = (0, 0);
        let mut out = Vec::new();
        for value in &values {
            out.clear();
            zstd.compress(value, &mut out);
            alone += (out.len() + CODING).min(value.len());
            if let Some(dictionary) = &dictionary {
                out.clear();
                dictionary.compress(value, &mut out);
                with += (out.len() + CODING).min(value.len());
            }
        }
        let name = path.rsplit('/').next().unwrap_or(&path);
        print!(
            "{name:<20} {:>7} {:>6} {:>7} {:>7} ",
            values.len(),
            raw / values.len().max(1),
            percent(alone),
            percent(with)
        );
        for size in [4 << 10, 8 << 10, 16 << 10] {
            let mut blocks: Vec<Vec<u8>> = vec![Vec::new()];
            for value in &values {
                if blocks
                    .last()
                    .is_some_and(|block| block.len() + value.len() > size && !block.is_empty())
                {
                    blocks.push(Vec::new());
                }
                let block = blocks.last_mut().expect("one at least");
                block.extend_from_slice(&(value.len() as u16).to_le_bytes());
                block.extend_from_slice(value);
            }
            let beside = values.len() * (CODING + PLACE) + blocks.len() * 64;
            let stored: Vec<Vec<u8>> = blocks
                .iter()
                .map(|block| {
                    let mut out = Vec::new();
                    zstd.compress(block, &mut out);
                    out
                })
                .collect();
            let sum: usize = stored.iter().map(Vec::len).sum();
            let dict: usize = match &dictionary {
                Some(dictionary) => blocks
                    .iter()
                    .map(|block| {
                        let mut out = Vec::new();
                        dictionary.compress(block, &mut out);
                        out.len()
                    })
                    .sum(),
                None => sum,
            };
            let begun = Instant::now();
            for (block, stored) in blocks.iter().zip(&stored) {
                let mut out = Vec::new();
                zstd.decompress(stored, block.len(), &mut out)
                    .expect("sound");
            }
            let us = begun.elapsed().as_secs_f64() * 1e6 / blocks.len() as f64;
            print!(
                " | {:>5} {:>5} {us:>4.0}",
                percent(sum + beside),
                percent(dict + beside)
            );
        }
        println!();
    }
}
