//! One suite for every codec: round trips, appending, hostile input, bounded memory.

use inflightkv_compression::{Codec, CodecId, DecodeError, Zstd, codec};
use proptest::prelude::*;

fn every_codec() -> impl Iterator<Item = &'static dyn Codec> {
    CodecId::ALL.into_iter().map(codec)
}

fn compressed(codec: &dyn Codec, raw: &[u8]) -> Vec<u8> {
    let mut stored = Vec::new();
    codec.compress(raw, &mut stored);
    stored
}

/// The one place that knows what a correct round trip is: byte for byte, appended after what the
/// buffers already held.
fn check(codec: &dyn Codec, raw: &[u8]) {
    let mut stored = b"before".to_vec();
    codec.compress(raw, &mut stored);
    assert!(stored.starts_with(b"before"), "{} overwrote", codec.id());
    let mut back = b"kept".to_vec();
    codec
        .decompress(&stored[6..], raw.len(), &mut back)
        .unwrap_or_else(|error| panic!("{} on {} bytes: {error}", codec.id(), raw.len()));
    assert!(back.starts_with(b"kept"), "{} overwrote", codec.id());
    assert_eq!(&back[4..], raw, "{}", codec.id());
}

fn json_like(records: usize) -> Vec<u8> {
    (0..records)
        .flat_map(|i| format!(r#"{{"id":{i},"name":"user {i}","active":true}}"#).into_bytes())
        .collect()
}

#[test]
fn every_length_around_the_edges_comes_back() {
    for codec in every_codec() {
        for len in (0..300).chain([4095, 4096, 65_535, 65_536, 65_537, 1 << 20]) {
            check(codec, &vec![0; len]);
            let ramp: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
            check(codec, &ramp);
        }
    }
}

#[test]
fn incompressible_bytes_come_back() {
    for seed in 0..8 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let raw: Vec<u8> = (0..100_000).map(|_| random.u8(..)).collect();
        every_codec().for_each(|codec| check(codec, &raw));
    }
}

#[test]
fn json_gets_smaller() {
    let raw = json_like(500);
    for codec in every_codec().filter(|codec| codec.id() != CodecId::Plain) {
        let stored = compressed(codec, &raw);
        assert!(
            stored.len() * 2 < raw.len(),
            "{}: {} of {}",
            codec.id(),
            stored.len(),
            raw.len()
        );
    }
}

/// Whatever the level, what it makes is read by the codec of the id.
#[test]
fn every_level_of_zstd_is_read_by_one() {
    let raw = json_like(200);
    for level in [i32::MIN, -5, 0, 1, 9, 19, 22, i32::MAX] {
        let zstd = Zstd::with_level(level);
        assert!((1..=19).contains(&zstd.level()), "{level}");
        let stored = compressed(&zstd, &raw);
        let mut back = Vec::new();
        codec(CodecId::Zstd)
            .decompress(&stored, raw.len(), &mut back)
            .expect("a sound frame");
        assert_eq!(back, raw);
    }
}

/// A length beside the stored bytes may be damaged. One byte more or less than the truth must fail
/// and leave the output as it was.
#[test]
fn another_length_is_refused() {
    let raw = json_like(40);
    for codec in every_codec() {
        let stored = compressed(codec, &raw);
        for wrong in [0, 1, raw.len() - 1, raw.len() + 1, raw.len() * 2] {
            let mut out = b"kept".to_vec();
            assert!(
                codec.decompress(&stored, wrong, &mut out).is_err(),
                "{} accepted {wrong} for {}",
                codec.id(),
                raw.len()
            );
            assert_eq!(out, b"kept", "{}", codec.id());
        }
    }
}

/// A few stored bytes with an absurd raw length must cost nothing.
#[test]
fn an_impossible_length_costs_no_memory() {
    for codec in every_codec() {
        for absurd in [1 << 30, usize::MAX / 2, usize::MAX] {
            let mut out = Vec::new();
            let error = codec.decompress(b"\x1fabc\x01\x00", absurd, &mut out);
            assert!(
                matches!(
                    error,
                    Err(DecodeError::LengthImpossible { .. } | DecodeError::LengthDiffers { .. })
                ),
                "{}: {error:?}",
                codec.id()
            );
            assert_eq!(out.capacity(), 0, "{} allocated", codec.id());
        }
    }
}

/// The bound that refuses absurd lengths must not refuse the most compressible input there is.
#[test]
fn the_most_compressible_input_is_within_the_bound() {
    for codec in every_codec() {
        check(codec, &vec![b'x'; 16 << 20]);
    }
}

#[test]
fn stored_bytes_cut_anywhere_are_refused() {
    let raw = json_like(20);
    for codec in every_codec() {
        let stored = compressed(codec, &raw);
        for cut in 0..stored.len() {
            let result = codec.decompress(&stored[..cut], raw.len(), &mut Vec::new());
            assert!(result.is_err(), "{} cut at {cut}", codec.id());
        }
    }
}

/// Bytes that every version must decode for ever, none of them made by our encoders: what we write may
/// get smaller. `abc.lz4` and `abc.snappy` are assembled from the formats' documents, `abc.zst` is what
/// `zstd -19` of the reference tools made.
#[test]
fn the_kept_bytes_still_decode() {
    let raw = b"abcabcabcabcabcabcabcabcabcabcabc, and then something else";
    let kept: [(CodecId, &[u8]); 3] = [
        (CodecId::Lz4, include_bytes!("fixtures/abc.lz4")),
        (CodecId::Snappy, include_bytes!("fixtures/abc.snappy")),
        (CodecId::Zstd, include_bytes!("fixtures/abc.zst")),
    ];
    for (id, stored) in kept {
        let mut out = Vec::new();
        codec(id)
            .decompress(stored, raw.len(), &mut out)
            .unwrap_or_else(|error| panic!("the fixture of {id}: {error}"));
        assert_eq!(out, raw, "{id}");
    }
}

/// The smallest LZ4 block by hand, from the format's own document: a token with one literal and a
/// match, an offset, a last sequence of literals only.
#[test]
fn a_block_made_by_hand_decodes() {
    let block = [
        0x14, b'a', 0x01, 0x00, // 1 literal, match of 4+4 at offset 1
        0x50, b'b', b'c', b'd', b'e', b'f', // 5 literals end the block
    ];
    let mut out = Vec::new();
    codec(CodecId::Lz4)
        .decompress(&block, 14, &mut out)
        .expect("a correct block");
    assert_eq!(out, b"aaaaaaaaabcdef");
}

proptest! {
    #[test]
    fn anything_comes_back(raw in prop::collection::vec(any::<u8>(), 0..5000), repeats in 1_usize..20) {
        let raw = raw.repeat(repeats);
        every_codec().for_each(|codec| check(codec, &raw));
    }

    /// Whatever the bytes: an answer of exactly the asked length or an error, never a panic.
    #[test]
    fn hostile_bytes_never_panic(stored in prop::collection::vec(any::<u8>(), 0..600), raw_len in 0_usize..200_000) {
        for codec in every_codec() {
            let mut out = Vec::new();
            match codec.decompress(&stored, raw_len, &mut out) {
                Ok(()) => prop_assert_eq!(out.len(), raw_len),
                Err(_) => prop_assert!(out.is_empty()),
            }
        }
    }

    /// Damage that keeps most of the structure reaches deeper than random bytes do.
    #[test]
    fn damaged_blocks_never_panic(at in any::<prop::sample::Index>(), value in any::<u8>(), records in 1_usize..60) {
        let raw = json_like(records);
        for codec in every_codec() {
            let mut stored = compressed(codec, &raw);
            let at = at.index(stored.len());
            stored[at] = value;
            let mut out = Vec::new();
            if codec.decompress(&stored, raw.len(), &mut out).is_ok() {
                prop_assert_eq!(out.len(), raw.len());
            }
        }
    }
}
