//! Blocks of small values: what comes back, what holes do, and what hostile bytes cannot.

use std::collections::BTreeMap;

use std::sync::Arc;

use inflightkv_compression::batch::{
    BLOCK_RAW_FULL, BLOCK_RAW_MAX, BLOCK_VALUES_MAX, Block, BlockStore, BlockTotals, Packer, Place,
    unpack, unpack_one,
};
use inflightkv_compression::dictionary::{Sampler, train};
use inflightkv_compression::{BlockError, CodecId, codec};
use proptest::prelude::*;

fn packed(values: &[Vec<u8>], codec: CodecId) -> Block {
    let mut packer = Packer::new();
    for (number, value) in values.iter().enumerate() {
        assert_eq!(packer.push(value).map(usize::from), Some(number));
    }
    packer.pack(codec, None).expect("there are values")
}

fn small(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| format!(r#"{{"id":{number},"kind":"job","state":"done"}}"#).into_bytes())
        .collect()
}

#[test]
fn values_packed_together_share_what_they_have_in_common() {
    let values = small(100);
    for id in CodecId::ALL {
        let block = packed(&values, id);
        let raw: usize = values.iter().map(Vec::len).sum();
        assert_eq!(
            (block.len(), block.value_bytes(), block.is_empty()),
            (100, raw, false)
        );
        if id != CodecId::Plain {
            assert!(
                block.stored().len() * 3 < raw,
                "{id}: {} of {raw}",
                block.stored().len()
            );
        }
        for (number, value) in (0..).zip(&values) {
            let mut out = b"kept".to_vec();
            block.get(number, &mut out).expect("it is there");
            assert_eq!(out[4..], value[..]);
        }
        assert_eq!(
            unpack(block.stored(), block.raw_len(), codec(id)).as_ref(),
            Ok(&values)
        );
        let missing = Err(BlockError::NoSuchValue {
            index: 100,
            count: 100,
        });
        assert_eq!(block.get(100, &mut Vec::new()), missing);
    }
}

/// A block made with a dictionary holds it; what a thread keeps of the last block is never taken for another's.
#[test]
fn blocks_with_dictionaries_and_without_are_read_in_turns() {
    let values = small(150);
    let mut sampler = Sampler::new(1, 1000, 1 << 20);
    small(2000).iter().for_each(|value| sampler.offer(value));
    let training = train(1, &sampler.take(), None).expect("there are samples");
    let dictionary = Arc::new(training.adopted.expect("far better than none"));
    let alone = packed(&values, CodecId::Zstd);
    let mut packer = Packer::new();
    values.iter().rev().for_each(|value| _ = packer.push(value));
    let with = packer.pack(CodecId::Zstd, Some(&dictionary));
    let with = with.expect("there are values");
    assert_eq!(Arc::strong_count(&dictionary), 2);
    for (number, value) in (0..).zip(&values) {
        for (block, index) in [
            (&alone, number),
            (&with, 149 - number),
            (&with, 149 - number),
        ] {
            let mut out = Vec::new();
            block.get(index, &mut out).expect("it is there");
            assert_eq!(&out, value);
        }
    }
    drop(with);
    assert_eq!(Arc::strong_count(&dictionary), 1);
}

#[test]
fn a_place_is_six_bytes() {
    for place in [
        Place { block: 0, index: 0 },
        Place {
            block: 0x0102_0304,
            index: 0x0506,
        },
        Place {
            block: u32::MAX,
            index: u16::MAX,
        },
    ] {
        assert_eq!(Place::from_bytes(place.to_bytes()), place);
    }
    let place = Place {
        block: 0x0102_0304,
        index: 0x0506,
    };
    assert_eq!(place.to_bytes(), [4, 3, 2, 1, 6, 5]);
}

#[test]
fn a_block_is_between_its_bounds() {
    let mut packer = Packer::new();
    assert!(packer.is_empty() && packer.pack(CodecId::Lz4, None).is_none());
    let value = vec![b'x'; 1000];
    let mut pushed = 0;
    while packer.push(&value).is_some() {
        pushed += 1;
        assert_eq!(packer.is_full(), pushed * 1000 >= BLOCK_RAW_FULL);
    }
    assert_eq!(pushed, BLOCK_RAW_MAX / 1000);
    assert_eq!(
        packer.pack(CodecId::Lz4, None).map(|block| block.len()),
        Some(pushed)
    );
    assert!(packer.is_empty());
    assert_eq!(packer.push(&vec![0; BLOCK_RAW_MAX + 1]), None);
    assert_eq!(packer.push(&vec![0; BLOCK_RAW_MAX]), Some(0));
    packer.clear();
    assert!(packer.is_empty() && packer.bytes() == 0);
    for _ in 0..BLOCK_VALUES_MAX {
        assert!(!packer.is_full() && packer.push(b"").is_some());
    }
    assert!(packer.is_full() && packer.push(b"").is_none());
}

/// A block read by another codec, cut, or with another length beside it is an error.
#[test]
fn what_is_no_block_is_an_error() {
    let zstd = codec(CodecId::Zstd);
    let block = packed(&small(30), CodecId::Zstd);
    let mut out = Vec::new();
    let (stored, raw_len) = (block.stored(), block.raw_len());
    assert!(unpack_one(stored, raw_len, 0, codec(CodecId::Lz4), &mut out).is_err());
    assert!(unpack_one(&stored[1..], raw_len, 0, zstd, &mut out).is_err());
    assert!(unpack_one(stored, raw_len - 1, 0, zstd, &mut out).is_err());
    let absurd = Err(BlockError::TooLong {
        raw_len: usize::MAX,
    });
    assert_eq!(
        unpack_one(block.stored(), usize::MAX, 0, zstd, &mut out),
        absurd
    );
    assert!(out.is_empty());
    let plain = codec(CodecId::Plain);
    for raw in [
        b"".as_slice(),
        b"\x01",
        b"\0\0",
        b"\x01\0\x05\0abc",
        b"\x02\0\x01\0a",
        b"\x01\0\0\0a",
    ] {
        assert_eq!(
            unpack(raw, raw.len(), plain),
            Err(BlockError::Index),
            "{raw:?}"
        );
    }
    assert_eq!(unpack(b"\x01\0\x01\0a", 5, plain), Ok(vec![b"a".to_vec()]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Random packing, reading, taking out and packing anew, against a plain map.
    #[test]
    fn every_history_is_that_of_a_plain_map(seed in any::<u64>()) {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut store, mut packer) = (BlockStore::new(), Packer::new());
        // What is needed, and how many values and bytes each block was made of.
        let mut map: BTreeMap<Place, Vec<u8>> = BTreeMap::new();
        let mut made: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
        for step in 0..120_u32 {
            match random.u8(..10) {
                0..=2 => {
                    let values: Vec<Vec<u8>> = (0..random.usize(1..40)).map(|_| vec![random.u8(..); random.usize(..200)]).collect();
                    values.iter().for_each(|value| { packer.push(value).expect("it fits"); });
                    let block = store.insert(Arc::new(packer.pack(CodecId::Zstd, None).expect("values")));
                    made.insert(block, (values.len(), values.iter().map(Vec::len).sum()));
                    let mut kept = 0;
                    for (index, value) in (0..).zip(values) {
                        // Some are overtaken before they are in place.
                        if random.u8(..10) > 0 {
                            store.keep(Place { block, index }, value.len());
                            prop_assert!(map.insert(Place { block, index }, value).is_none(), "a number in use was given again");
                            kept += 1;
                        }
                    }
                    prop_assert_eq!(store.give_up(block).is_some(), kept == 0);
                }
                3..=7 => {
                    if let Some(place) = random.choice(map.keys().copied().collect::<Vec<_>>()) {
                        let value = map.remove(&place).expect("it is there");
                        let gone = store.take_out(place, value.len());
                        prop_assert_eq!(gone.is_some(), !map.keys().any(|other| other.block == place.block));
                        prop_assert!(store.give_up(place.block).is_none());
                    }
                }
                _ => {
                    // Compaction: what is left of sparse blocks moves into new ones.
                    let numbers: Vec<u32> = made.keys().copied().filter(|number| store.is_sparse(*number)).collect();
                    for number in numbers {
                        let left: Vec<Place> = map.keys().copied().filter(|place| place.block == number).collect();
                        for place in left {
                            let value = map.remove(&place).expect("it is there");
                            packer.push(&value).expect("a sparse block is less than half a block");
                            let block = store.insert(Arc::new(packer.pack(CodecId::Lz4, None).expect("one value")));
                            made.insert(block, (1, value.len()));
                            store.keep(Place { block, index: 0 }, value.len());
                            store.take_out(place, value.len());
                            map.insert(Place { block, index: 0 }, value);
                        }
                        prop_assert!(!store.is_sparse(number));
                    }
                }
            }
            made.retain(|number, _| map.keys().any(|place| place.block == *number));
            let mut wanted = BlockTotals { blocks: made.len(), values: map.len(), ..BlockTotals::default() };
            wanted.value_bytes = map.values().map(Vec::len).sum();
            wanted.holes = made.values().map(|(count, _)| count).sum::<usize>() - map.len();
            wanted.hole_bytes = made.values().map(|(_, bytes)| bytes).sum::<usize>() - wanted.value_bytes;
            wanted.block_bytes = made.keys().map(|number| store.get(*number).expect("it is there").footprint()).sum();
            wanted.sparse = made.keys().filter(|number| store.is_sparse(**number)).count();
            prop_assert_eq!(*store.totals(), wanted);
            prop_assert!(store.footprint() >= wanted.block_bytes);
            if made.is_empty() {
                prop_assert_eq!(store.footprint(), 0);
            }
            if step % 20 == 0 {
                for (place, value) in &map {
                    let mut out = Vec::new();
                    store.get(place.block).expect("it is there").get(place.index, &mut out).expect("it is there");
                    prop_assert_eq!(&out, value);
                }
            }
        }
    }

    #[test]
    fn hostile_blocks_never_panic(raw in prop::collection::vec(any::<u8>(), 0..200), index in any::<u16>()) {
        let plain = codec(CodecId::Plain);
        let whole = unpack(&raw, raw.len(), plain);
        let one = unpack_one(&raw, raw.len(), index, plain, &mut Vec::new());
        prop_assert_eq!(one.is_ok(), whole.is_ok_and(|values| usize::from(index) < values.len()));
    }
}
