//! Dictionaries: what they save, that they bring everything back, and when they come and go.

use std::sync::Arc;

use inflightkv_compression::dictionary::{
    DICTIONARIES_MAX, DICTIONARY_BYTES_MAX, Drift, SAMPLES_MIN, Sampler, train,
};
use inflightkv_compression::{Codec, Dictionary, DictionaryError, DictionarySet, TrainError, Zstd};
use proptest::prelude::*;

fn user(random: &mut fastrand::Rng, number: usize) -> Vec<u8> {
    let city = ["Lisbon", "Nairobi", "Quito", "Oslo"][random.usize(..4)];
    let (age, score) = (random.u8(18..90), random.u32(..));
    format!(
        r#"{{"id":{number},"name":"user {number}","address":{{"city":"{city}","zip":"{score}"}},"age":{age},"isActive":{}}}"#,
        random.bool()
    )
    .into_bytes()
}

fn users(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count).map(|number| user(&mut random, number)).collect()
}

fn event(random: &mut fastrand::Rng, number: usize) -> Vec<u8> {
    let kind = ["opened", "closed", "merged"][random.usize(..3)];
    format!(
        r#"[{number},"{kind}","repository/{}",null,{{"by":{}}}]"#,
        random.u16(..),
        random.u32(..)
    )
    .into_bytes()
}

fn trained(samples: &[Vec<u8>]) -> Dictionary {
    train(1, samples, None)
        .expect("enough samples")
        .adopted
        .expect("far better than none")
}

fn stored_len(codec: &dyn Codec, values: &[Vec<u8>]) -> usize {
    let mut out = Vec::new();
    values
        .iter()
        .for_each(|value| codec.compress(value, &mut out));
    out.len()
}

#[test]
fn small_documents_get_much_smaller_and_come_back() {
    let dictionary = trained(&users(1, 1000));
    let values = users(2, 300);
    let raw: usize = values.iter().map(Vec::len).sum();
    let with = stored_len(&dictionary, &values);
    let without = stored_len(&Zstd::DEFAULT, &values);
    assert!(
        with * 10 < raw * 4 && with * 2 < without,
        "{with} of {raw}, {without} without"
    );
    for value in &values {
        let mut stored = b"before".to_vec();
        dictionary.compress(value, &mut stored);
        let mut back = b"kept".to_vec();
        dictionary
            .decompress(&stored[6..], value.len(), &mut back)
            .expect("its own bytes");
        assert_eq!(back[..4], *b"kept");
        assert_eq!(back[4..], value[..]);
    }
}

/// The bytes of a dictionary are all there is to it: made again from them it reads what it wrote.
#[test]
fn a_dictionary_is_its_bytes() {
    let dictionary = trained(&users(1, 1000));
    let again = Dictionary::new(7, dictionary.bytes()).expect("its own bytes");
    assert_eq!((again.version(), again.bytes()), (7, dictionary.bytes()));
    for value in users(3, 50) {
        let (mut stored, mut back) = (Vec::new(), Vec::new());
        dictionary.compress(&value, &mut stored);
        again
            .decompress(&stored, value.len(), &mut back)
            .expect("the same dictionary");
        assert_eq!(back, value);
    }
}

#[test]
fn what_is_no_dictionary_is_refused() {
    let bytes = trained(&users(1, 1000)).bytes().to_vec();
    for len in [0, 7, DICTIONARY_BYTES_MAX + 1] {
        assert_eq!(
            Dictionary::new(1, &vec![b'x'; len]).map(|_| ()),
            Err(DictionaryError::Length { len })
        );
    }
    assert!(
        Dictionary::new(1, &[b'x'; 8]).is_ok(),
        "any bytes can be what values share"
    );
    assert_eq!(
        Dictionary::new(1, &bytes[..40]).map(|_| ()),
        Err(DictionaryError::Damaged { len: 40 })
    );
}

#[test]
fn a_dictionary_is_adopted_only_for_a_real_gain() {
    let first = train(1, &users(1, 1000), None).expect("enough samples");
    assert!(first.ratio_after < first.ratio_before * 0.9);
    let first = first.adopted.expect("far better than none");
    // Another sample of the same kind of values makes nothing better.
    let second = train(2, &users(2, 1000), Some(&first)).expect("enough samples");
    assert!(
        second.adopted.is_none(),
        "{} to {}",
        second.ratio_before,
        second.ratio_after
    );
    // Values of another kind do.
    let mut random = fastrand::Rng::with_seed(5);
    let events: Vec<Vec<u8>> = (0..1000).map(|number| event(&mut random, number)).collect();
    let third = train(3, &events, Some(&first)).expect("enough samples");
    assert_eq!(third.adopted.map(|adopted| adopted.version()), Some(3));
}

#[test]
fn too_little_to_learn_from_is_an_error() {
    let few = users(1, SAMPLES_MIN - 1);
    assert_eq!(
        train(1, &few, None)
            .map(|_| ())
            .map_err(|error| error.to_string()),
        Err(TrainError::TooFewSamples {
            found: SAMPLES_MIN - 1
        }
        .to_string())
    );
    // Nothing in common, nothing at all, all the same: an answer or an error, never more.
    let empty = vec![Vec::new(); SAMPLES_MIN];
    assert!(train(1, &empty, None).is_err());
    let same = vec![b"the same again and again".to_vec(); SAMPLES_MIN];
    let _ = train(1, &same, None);
    let mut random = fastrand::Rng::with_seed(9);
    let noise: Vec<Vec<u8>> = (0..SAMPLES_MIN)
        .map(|_| (0..200).map(|_| random.u8(..)).collect())
        .collect();
    if let Ok(training) = train(1, &noise, None) {
        assert!(training.adopted.is_none(), "noise has nothing in common");
    }
}

#[test]
fn a_sample_is_fair_and_bounded() {
    let mut hits = [0_u32; 10];
    for seed in 0..200 {
        let mut sampler = Sampler::new(seed, 50, 1 << 20);
        (0..1000_u32).for_each(|number| sampler.offer(&number.to_le_bytes()));
        assert_eq!(sampler.samples().len(), 50);
        for sample in sampler.take() {
            let number = u32::from_le_bytes(sample[..].try_into().expect("four bytes"));
            hits[number as usize / 100] += 1;
        }
        assert!(sampler.samples().is_empty());
    }
    // 10,000 draws in ten classes.
    assert!(
        hits.iter().all(|hits| (850..1150).contains(hits)),
        "{hits:?}"
    );

    let mut random = fastrand::Rng::with_seed(3);
    let mut sampler = Sampler::new(1, 1000, 10_000);
    for _ in 0..5000 {
        sampler.offer(&vec![1; random.usize(..2000)]);
        let bytes: usize = sampler.samples().iter().map(|sample| sample.len()).sum();
        assert!(bytes <= 10_000);
        assert!(sampler.footprint() >= bytes);
    }
    assert!(!sampler.samples().is_empty());
}

#[test]
fn numbers_are_given_again_only_when_nothing_needs_them() {
    let make = |version| {
        Arc::new(Dictionary::new(version, b"what they have in common").expect("long enough"))
    };
    let mut set = DictionarySet::default();
    assert!(set.current().is_none() && set.get(0).is_none() && set.get(200).is_none());
    let all: Vec<_> = (0..u32::from(DICTIONARIES_MAX)).map(make).collect();
    for (number, dictionary) in (1..).zip(&all) {
        assert_eq!(set.adopt(dictionary), Some(number));
        assert_eq!(set.current().map(|(number, _)| number), Some(number));
    }
    let more = make(9);
    assert_eq!(set.adopt(&more), None, "every number is taken");
    assert_eq!(
        set.current().map(|(number, _)| number),
        Some(DICTIONARIES_MAX)
    );
    assert_eq!(set.adopt(&all[0]), Some(1), "it is here already");
    // 1 is current, 2 is needed: the others go.
    assert_eq!(
        set.retire(|number| usize::from(number == 2)).len(),
        usize::from(DICTIONARIES_MAX) - 2
    );
    assert_eq!(
        set.iter().map(|(number, _)| number).collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(set.adopt(&more), Some(3));
    set.put_away();
    assert!(set.current().is_none());
    assert_eq!(set.retire(|_| 0).len(), 3);
    assert_eq!(set.iter().count(), 0);
}

#[test]
fn drift_is_noticed_when_values_change() {
    let mut drift = Drift::new(0.3);
    (0..10_000).for_each(|_| drift.observe(1000, 310));
    assert!(!drift.is_stale());
    (0..400).for_each(|_| drift.observe(1000, 600));
    assert!(drift.is_stale(), "{}", drift.ratio());
    let mut young = Drift::new(0.1);
    (0..100).for_each(|_| young.observe(1000, 900));
    assert!(!young.is_stale(), "a hundred values say little");
    young.observe(0, 0);
}

proptest! {
    #[test]
    fn anything_comes_back(raw in prop::collection::vec(any::<u8>(), 0..3000)) {
        let dictionary = Dictionary::new(1, &raw.repeat(2)[..(raw.len() * 2).min(DICTIONARY_BYTES_MAX)]);
        let dictionary = match dictionary {
            Ok(dictionary) => dictionary,
            Err(_) => Dictionary::new(1, b"something in common").expect("long enough"),
        };
        let (mut stored, mut back) = (Vec::new(), Vec::new());
        dictionary.compress(&raw, &mut stored);
        dictionary.decompress(&stored, raw.len(), &mut back).expect("its own bytes");
        prop_assert_eq!(back, raw);
    }

    /// Whatever the bytes: an answer of the asked length or an error, never a panic.
    #[test]
    fn damaged_bytes_never_panic(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>(), raw_len in 0_usize..4000) {
        let dictionary = Dictionary::new(1, &users(1, 100).concat()[..8000]).expect("long enough");
        let raw = users(4, 5).concat();
        let mut stored = Vec::new();
        dictionary.compress(&raw, &mut stored);
        let at = at.index(stored.len());
        stored[at] = value;
        stored.truncate(cut.index(stored.len()) + 1);
        for len in [raw.len(), raw_len] {
            let mut out = Vec::new();
            match dictionary.decompress(&stored, len, &mut out) {
                Ok(()) => prop_assert_eq!(out.len(), len),
                Err(_) => prop_assert!(out.is_empty()),
            }
        }
    }

    /// A damaged dictionary is refused or is another dictionary.
    #[test]
    fn damaged_dictionaries_never_panic(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = trained_once().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(dictionary) = Dictionary::new(1, &bytes) {
            let raw = users(4, 5).concat();
            let (mut stored, mut back) = (Vec::new(), Vec::new());
            dictionary.compress(&raw, &mut stored);
            dictionary.decompress(&stored, raw.len(), &mut back).expect("its own bytes");
            prop_assert_eq!(back, raw);
        }
    }
}

fn trained_once() -> &'static [u8] {
    use std::sync::OnceLock;
    static TRAINED: OnceLock<Vec<u8>> = OnceLock::new();
    TRAINED.get_or_init(|| trained(&users(1, 500)).bytes().to_vec())
}
