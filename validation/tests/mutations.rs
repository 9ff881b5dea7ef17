//! Bounded mutation of real inputs, with a fixed seed: verdicts agree with another reader's, and nothing panics.

use inflightkv_validation::{Limits, check, minified};

/// Documents that use every part of the grammar.
const SEEDS: [&str; 6] = [
    r#"{"a":[1,-2.5e+10,0,true,false,null,{"b":"\u00e9\ud834\udd1e\n"}],"":{}}"#,
    " [ [ ] , { } , \"\\\"\\\\\\/\\b\\f\\n\\r\\t\" ] \r\n\t",
    r#""plain text that is longer than a word of eight bytes, and then some""#,
    r#"{"deep":{"deep":{"deep":{"deep":[[[[[[["x"]]]]]]]}}}}"#,
    "-0.1E-7",
    "[\"é€𝄞\",\"\u{2028}\"]",
];

/// One change of the kinds that fuzzers make: a byte, a piece out, a piece twice, a piece of another input.
fn mutate(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    const TOKENS: [&[u8]; 12] = [
        b"\"",
        b"\\",
        b"\\u",
        b"\\ud800",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\xEF\xBB\xBF",
        b"\xff",
    ];
    let at = random.usize(..=bytes.len());
    let len = random.usize(..8).min(bytes.len() - at);
    match random.u8(..5) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
        1 => {
            bytes.drain(at..at + len);
        }
        2 => {
            let piece = bytes[at..at + len].to_vec();
            bytes.splice(at..at, piece);
        }
        3 => {
            let other = SEEDS[random.usize(..SEEDS.len())].as_bytes();
            let from = random.usize(..other.len());
            let to = (from + random.usize(..12)).min(other.len());
            bytes.splice(at..at, other[from..to].iter().copied());
        }
        _ => {
            let token = TOKENS[random.usize(..TOKENS.len())];
            bytes.splice(at..at, token.iter().copied());
        }
    }
}

/// Whatever we accept serde_json accepts, and what it refuses we refuse; the two known differences are ours on purpose:
/// it takes lone surrogates where it skips strings, and it does not take numbers beyond a double.
#[test]
fn mutated_documents_are_judged_as_another_reader_judges_them() {
    let seed = 0x1F_1164;
    let mut random = fastrand::Rng::with_seed(seed);
    let limits = Limits {
        depth_max: 100,
        ..Limits::default()
    };
    let mut accepted = 0;
    for case in 0..120_000 {
        let mut bytes = SEEDS[random.usize(..SEEDS.len())].as_bytes().to_vec();
        for _ in 0..random.usize(1..5) {
            mutate(&mut random, &mut bytes);
        }
        let ours = check(&bytes, &limits);
        let theirs = serde_json::from_slice::<serde_json::Value>(&bytes);
        let shown = || {
            format!(
                "seed {seed:#x}, case {case}: {:?}",
                String::from_utf8_lossy(&bytes)
            )
        };
        match (&ours, &theirs) {
            (Ok(_), Err(error)) => {
                assert!(
                    error.to_string().contains("number out of range"),
                    "{}",
                    shown()
                );
            }
            (Err(error), Ok(_)) => panic!("{error}: {}", shown()),
            (Ok(_), Ok(value)) => {
                accepted += 1;
                let (kept, _) = minified(&bytes, &limits).expect("it was accepted");
                let again = serde_json::from_slice::<serde_json::Value>(&kept);
                assert_eq!(again.as_ref().ok(), Some(value), "{}", shown());
            }
            (Err(_), Err(_)) => assert!(minified(&bytes, &limits).is_err(), "{}", shown()),
        }
    }
    assert!(
        accepted > 5_000,
        "the mutations leave something to accept: {accepted}"
    );
}
