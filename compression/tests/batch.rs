//! Blocks of small values: what comes back, what holes do, and what hostile bytes cannot.

use std::collections::BTreeMap;

use inflightkv_compression::batch::{
    BLOCK_RAW_MAX, BLOCK_RAW_MIN, Block, BlockStore, Packer, Place, unpack, unpack_one,
};
use inflightkv_compression::{BlockError, Codec, CodecId, codec};
use proptest::prelude::*;

fn packed(values: &[Vec<u8>], codec: &dyn Codec) -> Block {
    let mut packer = Packer::new();
    for (number, value) in values.iter().enumerate() {
        assert_eq!(packer.push(value).map(usize::from), Some(number));
    }
    packer.pack(codec).expect("there are values")
}

fn small(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| format!(r#"{{"id":{number},"kind":"job","state":"done"}}"#).into_bytes())
        .collect()
}

#[test]
fn values_packed_together_share_what_they_have_in_common() {
    let values = small(100);
    for codec in CodecId::ALL.into_iter().map(codec) {
        let block = packed(&values, codec);
        assert_eq!(
            (block.len(), block.live(), block.is_empty()),
            (100, 100, false)
        );
        let raw: usize = values.iter().map(Vec::len).sum();
        if codec.id() != CodecId::Plain {
            assert!(
                block.stored().len() * 3 < raw,
                "{}: {} of {raw}",
                codec.id(),
                block.stored().len()
            );
        }
        for (number, value) in (0..).zip(&values) {
            let mut out = b"kept".to_vec();
            block.get(number, codec, &mut out).expect("it is there");
            assert_eq!(out[4..], value[..]);
        }
        assert_eq!(
            unpack(block.stored(), block.raw_len(), codec).as_ref(),
            Ok(&values)
        );
        let missing = Err(BlockError::NoSuchValue {
            index: 100,
            count: 100,
        });
        assert_eq!(block.get(100, codec, &mut Vec::new()), missing);
    }
}

#[test]
fn a_block_is_between_its_bounds() {
    let mut packer = Packer::new();
    assert!(packer.is_empty() && packer.pack(codec(CodecId::Lz4)).is_none());
    let value = vec![b'x'; 1000];
    let mut pushed = 0;
    while packer.push(&value).is_some() {
        pushed += 1;
        assert_eq!(packer.is_full(), pushed * 1000 >= BLOCK_RAW_MIN);
    }
    assert_eq!(pushed, BLOCK_RAW_MAX / 1000);
    assert_eq!(
        packer.pack(codec(CodecId::Lz4)).map(|block| block.len()),
        Some(pushed)
    );
    assert!(packer.is_empty());
    assert_eq!(packer.push(&vec![0; BLOCK_RAW_MAX + 1]), None);
    assert_eq!(packer.push(&vec![0; BLOCK_RAW_MAX]), Some(0));
}

/// A block read by another codec, cut, or with another length beside it is an error.
#[test]
fn what_is_no_block_is_an_error() {
    let zstd = codec(CodecId::Zstd);
    let block = packed(&small(30), zstd);
    let mut out = Vec::new();
    assert!(block.get(0, codec(CodecId::Lz4), &mut out).is_err());
    assert!(unpack_one(&block.stored()[1..], block.raw_len(), 0, zstd, &mut out).is_err());
    assert!(unpack_one(block.stored(), block.raw_len() - 1, 0, zstd, &mut out).is_err());
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
        b"\x01\0\x05\0\0\0abc",
        b"\x02\0\x01\0\0\0a",
        b"\x01\0\0\0\0\0a",
    ] {
        assert_eq!(
            unpack(raw, raw.len(), plain),
            Err(BlockError::Index),
            "{raw:?}"
        );
    }
    assert_eq!(
        unpack(b"\x01\0\x01\0\0\0a", 7, plain),
        Ok(vec![b"a".to_vec()])
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Random packing, reading, taking out and packing anew, against a plain map.
    #[test]
    fn every_history_is_that_of_a_plain_map(seed in any::<u64>()) {
        let mut random = fastrand::Rng::with_seed(seed);
        let zstd = codec(CodecId::Zstd);
        let (mut store, mut packer) = (BlockStore::new(), Packer::new());
        let mut map: BTreeMap<Place, Vec<u8>> = BTreeMap::new();
        for step in 0..120_u32 {
            match random.u8(..10) {
                0..=2 => {
                    let values: Vec<Vec<u8>> = (0..random.usize(1..40)).map(|_| vec![random.u8(..); random.usize(..200)]).collect();
                    values.iter().for_each(|value| { packer.push(value).expect("it fits"); });
                    let block = store.insert(packer.pack(zstd).expect("values"));
                    for (index, value) in (0..).zip(values) {
                        prop_assert!(map.insert(Place { block, index }, value).is_none(), "a number in use was given again");
                    }
                }
                3..=7 => {
                    if let Some(place) = random.choice(map.keys().copied().collect::<Vec<_>>()) {
                        let gone = store.take_out(place).expect("it is there");
                        map.remove(&place);
                        prop_assert_eq!(gone.is_some(), !map.keys().any(|other| other.block == place.block));
                        prop_assert!(store.take_out(place).is_err(), "once is enough");
                    }
                }
                _ => {
                    // Compaction: what is left of sparse blocks moves together.
                    let sparse: Vec<u32> = store.sparse().collect();
                    for number in sparse {
                        let values = store.get(number).expect("it is there").values(zstd).expect("sound");
                        prop_assert!(!values.is_empty());
                        for (index, value) in values {
                            let place = Place { block: number, index };
                            let held = map.remove(&place);
                            prop_assert_eq!(held.as_ref(), Some(&value));
                            store.take_out(place).expect("it is there");
                            let index = packer.push(&value).expect("a sparse block is less than half a block");
                            let block = store.insert(packer.pack(zstd).expect("one value"));
                            map.insert(Place { block, index }, value);
                        }
                        prop_assert!(store.get(number).is_none_or(|block| !block.is_sparse()));
                    }
                }
            }
            if step % 20 == 0 {
                for (place, value) in &map {
                    let mut out = Vec::new();
                    store.get(place.block).expect("it is there").get(place.index, zstd, &mut out).expect("it is there");
                    prop_assert_eq!(&out, value);
                }
                let blocks: std::collections::BTreeSet<u32> = map.keys().map(|place| place.block).collect();
                prop_assert_eq!(store.len(), blocks.len());
                prop_assert_eq!(store.is_empty(), blocks.is_empty());
                let bytes: usize = blocks.iter().filter_map(|number| store.get(*number)).map(Block::footprint).sum();
                prop_assert!(store.footprint() >= bytes);
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
