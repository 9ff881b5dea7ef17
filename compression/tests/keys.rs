//! Keys by their prefixes: what comes back, what is found, and what is learnt.

use inflightkv_compression::KeyError;
use inflightkv_compression::keys::{KeyDictionary, KeyLearner, PREFIX_BYTES_MAX, PREFIXES_MAX};
use proptest::prelude::*;

fn coded(dictionary: &KeyDictionary, key: &str) -> Vec<u8> {
    let mut out = Vec::new();
    dictionary.encode(key, &mut out);
    out
}

fn decoded(dictionary: &KeyDictionary, coded: &[u8]) -> Result<String, KeyError> {
    let mut out = "kept".to_owned();
    let result = dictionary.decode(coded, &mut out);
    assert!(out.starts_with("kept") && (result.is_ok() || out == "kept"));
    result.map(|()| out.split_off(4))
}

#[test]
fn a_key_is_coded_by_its_longest_prefix() {
    let dictionary =
        KeyDictionary::new(&["user:", "user:admin:", "gsoc/2018/project/"]).expect("sound");
    for (key, bytes) in [
        ("user:42", b"\x8042".as_slice()),
        ("user:admin:1", b"\x811"),
        ("user:adm", b"\x80adm"),
        ("gsoc/2018/project/7", b"\x827"),
        ("user:", b"\x80"),
        ("user", b"user"),
        ("", b""),
        ("ключ", "ключ".as_bytes()),
    ] {
        assert_eq!(coded(&dictionary, key), bytes, "{key:?}");
        assert_eq!(decoded(&dictionary, bytes).as_deref(), Ok(key));
        assert!(dictionary.matches(bytes, key));
        assert!(!dictionary.matches(bytes, &format!("{key}x")));
    }
    // Another code for the same key would be found as well, but is never made.
    assert!(dictionary.matches(b"\x80admin:1", "user:admin:1"));
}

/// A dictionary that grew reads what was coded before it did, and finds it.
#[test]
fn a_dictionary_grows_without_changing_what_codes_stand_for() {
    let first = KeyDictionary::new(&["user:", "x"]).expect("sound");
    let long = "y".repeat(PREFIX_BYTES_MAX + 1);
    let more = ["user:admin:", "user:", "", &long, "job/"];
    let grown = first.extended(more, |_| true);
    assert_eq!(
        grown.prefixes().collect::<Vec<_>>(),
        ["user:", "x", "user:admin:", "job/"]
    );
    assert_eq!((grown.prefix(3), grown.prefix(4)), ("job/", ""));
    let before = coded(&first, "user:admin:7");
    assert_eq!(decoded(&grown, &before).as_deref(), Ok("user:admin:7"));
    assert!(grown.matches(&before, "user:admin:7"));
    assert_eq!(coded(&grown, "user:admin:7"), b"\x827");
    assert!(grown.shortens("job/1") && !grown.shortens("xyz") && !grown.shortens("job"));
    // When it is full, only what is free goes.
    let many: Vec<String> = (0..PREFIXES_MAX)
        .map(|number| format!("{number}:"))
        .collect();
    let full = first.extended(many.iter().map(|prefix| &prefix[..]), |_| false);
    assert_eq!(full.prefixes().count(), PREFIXES_MAX);
    let another = full.extended(["late/", "later/", "latest/"], |code| {
        code == 1 || code == 5
    });
    assert_eq!((another.prefix(1), another.prefix(5)), ("late/", "later/"));
    let kept = |code: u8| code == 1 || code == 5 || another.prefix(code) == full.prefix(code);
    assert!((0..PREFIXES_MAX as u8).all(kept));
}

#[test]
fn what_is_no_code_is_an_error() {
    let dictionary = KeyDictionary::new(&["user:"]).expect("sound");
    assert_eq!(
        decoded(&dictionary, b"\x81x"),
        Err(KeyError::UnknownCode { code: 0x81 })
    );
    assert_eq!(decoded(&dictionary, b"\x80\xff"), Err(KeyError::NotText));
    assert_eq!(decoded(&dictionary, b"\xc3"), Err(KeyError::NotText));
    assert!(!dictionary.matches(b"\x81x", "x"));
}

#[test]
fn what_makes_no_dictionary_is_an_error() {
    let many: Vec<String> = (0..=PREFIXES_MAX)
        .map(|number| format!("{number}:"))
        .collect();
    assert_eq!(
        KeyDictionary::new(&many),
        Err(KeyError::TooManyPrefixes {
            found: PREFIXES_MAX + 1
        })
    );
    let full = KeyDictionary::new(&many[1..]).expect("as many as there are codes");
    assert_eq!(coded(&full, "64:x"), b"\xbfx");
    assert_eq!(
        KeyDictionary::new(&[""]),
        Err(KeyError::PrefixLength { len: 0 })
    );
    let long = "x".repeat(PREFIX_BYTES_MAX + 1);
    assert_eq!(
        KeyDictionary::new(&[&long[..]]),
        Err(KeyError::PrefixLength { len: long.len() })
    );
    let twice = Err(KeyError::PrefixTwice {
        prefix: "a:".to_owned(),
    });
    assert_eq!(KeyDictionary::new(&["a:", "a:"]), twice);
}

#[test]
fn the_prefixes_that_save_most_are_learnt() {
    let mut learner = KeyLearner::new();
    for number in 0..3000 {
        learner.offer(&format!("gsoc/2018/project/{number}"));
        learner.offer(&format!("user:{number}"));
        if number % 10 == 0 {
            learner.offer(&format!("user:admin:{number}"));
            learner.offer(&format!("{number}/once"));
        }
    }
    assert_eq!(learner.seen(), 6600);
    let dictionary = learner.learn();
    let prefixes: Vec<&str> = dictionary.prefixes().collect();
    assert_eq!(prefixes, ["gsoc/2018/project/", "user:", "user:admin:"]);
    assert!(dictionary.footprint() > 30);
    // The same keys give the same dictionary.
    assert_eq!(learner.learn(), dictionary);
    assert_eq!(KeyLearner::new().learn().prefixes().count(), 0);
}

/// More prefixes than can be counted: the frequent ones are still found.
#[test]
fn the_learner_is_bounded() {
    let mut learner = KeyLearner::new();
    for number in 0..50_000 {
        learner.offer(&format!("{number}/rare"));
        if number % 5 == 0 {
            learner.offer(&format!("orders/open/{number}"));
        }
    }
    let dictionary = learner.learn();
    assert_eq!(dictionary.prefixes().next(), Some("orders/open/"));
}

proptest! {
    /// Every key comes back, is found by its code and by no other key's.
    #[test]
    fn codes_are_canonical(
        prefixes in prop::collection::hash_set("[a-c:/]{1,6}", 0..20),
        keys in prop::collection::hash_set("[a-c:/é]{0,10}", 1..30),
    ) {
        let prefixes: Vec<String> = prefixes.into_iter().collect();
        let dictionary = KeyDictionary::new(&prefixes).expect("different and short");
        let codes: Vec<(String, Vec<u8>)> = keys.into_iter().map(|key| { let code = coded(&dictionary, &key); (key, code) }).collect();
        for (key, code) in &codes {
            prop_assert!(code.len() <= key.len());
            let back = decoded(&dictionary, code);
            prop_assert_eq!(back.as_deref(), Ok(&key[..]));
            for (other, other_code) in &codes {
                prop_assert_eq!(code == other_code, key == other);
                prop_assert_eq!(dictionary.matches(code, other), key == other);
            }
        }
    }

    #[test]
    fn hostile_codes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let dictionary = KeyDictionary::new(&["user:", "a/"]).expect("sound");
        if let Ok(key) = decoded(&dictionary, &bytes) {
            prop_assert!(dictionary.matches(&bytes, &key));
        }
    }
}
