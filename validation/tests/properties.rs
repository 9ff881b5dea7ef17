//! Random texts against serde_json, and what must hold for any bytes at all.

use inflightkv_validation::{Limits, check, minified, minify};
use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

const LIMITS: Limits = Limits {
    depth_max: 100,
    bytes_max: 64 << 20,
};

/// Text of documents as strange as the grammar allows, white space and all.
fn document() -> impl Strategy<Value = String> {
    let blank = "[ \n\r\t]{0,10}";
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
        string(),
    ];
    let padded = (blank, scalar, blank).prop_map(|(a, scalar, b)| format!("{a}{scalar}{b}"));
    padded.prop_recursive(6, 60, 6, move |value| {
        let member = (blank, string(), blank, value.clone())
            .prop_map(|(a, name, b, value)| format!("{a}{name}{b}:{value}"));
        let items = prop::collection::vec(value, 1..6).prop_map(|items| items.join(","));
        let members = prop::collection::vec(member, 1..6).prop_map(|members| members.join(","));
        let array = prop_oneof![items, blank].prop_map(|inside| format!("[{inside}]"));
        let object = prop_oneof![members, blank].prop_map(|inside| format!("{{{inside}}}"));
        (blank, prop_oneof![array, object], blank)
            .prop_map(|(a, whole, b)| format!("{a}{whole}{b}"))
    })
}

fn string() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[a-z \\[\\]{}:,/']{0,12}",
        1 => "\\\\[\"\\\\/bfnrt]",
        1 => "\\\\u[0-9a-cA-C][0-9a-fA-F]{3}",
        1 => "\\\\u[dD][89abAB][0-9a-f]{2}\\\\u[dD][c-fC-F][0-9a-f]{2}",
        1 => "[^\"\\\\\\x00-\\x1f]{0,4}",
    ];
    prop::collection::vec(part, 0..5).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

/// Pieces that nearly make documents when thrown together.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        b"{".as_slice(),
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\"a\"",
        b"\"b\":",
        b"1",
        b"0",
        b"-",
        b".5",
        b"e1",
        b"true",
        b"null",
        b"fal",
        b" ",
        b"\n",
        b"\\",
        b"\\u00",
        b"\\ud800",
        b"\\udc00",
        b"\xc3\xa9",
        b"\xff",
        b"\0",
        b"[]",
        b"{}",
        b"\"\":[",
        b"\xef\xbb\xbf",
        b"        ",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

/// The same for the inside of a string.
fn string_soup() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        b"\\ud800".as_slice(),
        b"\\uDBFF",
        b"\\udc00",
        b"\\uDFFF",
        b"\\u0041",
        b"\\ud7ff",
        b"\\ue000",
        b"\\u00",
        b"\\n",
        b"\\\\",
        b"\\\"",
        b"\\",
        b"\"",
        b"a",
        b"abcdefgh",
        b"\x1f",
        b"\x7f",
        b"\xc3\xa9",
        b"\xc3",
        b"\xed\xa0\x80",
    ]);
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// Whether the strings of a text that is JSON otherwise have half a surrogate pair.
fn has_lone_surrogate(text: &str) -> bool {
    let bytes = text.as_bytes();
    let unit = |at: usize| {
        let escape = bytes
            .get(at..at + 6)
            .filter(|escape| escape.starts_with(b"\\u"))?;
        u16::from_str_radix(std::str::from_utf8(&escape[2..]).ok()?, 16).ok()
    };
    let mut units = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        units.push(unit(at).unwrap_or(0));
        at += match (bytes[at], bytes.get(at + 1)) {
            (b'\\', Some(b'u')) => 6,
            (b'\\', _) => 2,
            _ => 1,
        };
    }
    char::decode_utf16(units).any(|unit| unit.is_err())
}

/// What serde_json says, with the one difference that is documented: it skips over surrogates
/// when nobody asks for the string.
fn acceptable(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| {
        serde_json::from_str::<&RawValue>(text).is_ok() && !has_lone_surrogate(text)
    })
}

/// White space, depth and colons by the simplest means: one byte at a time, in or out of a string.
fn plainly(text: &[u8]) -> (Vec<u8>, usize, usize) {
    let (mut kept, mut depth, mut deepest, mut members) = (Vec::new(), 0, 0, 0);
    let (mut inside, mut escaped) = (false, false);
    for &byte in text {
        if inside {
            kept.push(byte);
            inside = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if !byte.is_ascii_whitespace() {
            kept.push(byte);
            inside = byte == b'"';
            match byte {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                b':' => members += 1,
                _ => (),
            }
            deepest = deepest.max(depth);
        }
    }
    (kept, deepest, members)
}

/// Everything that must hold for any text.
fn holds(text: &[u8]) -> Result<(), TestCaseError> {
    let verdict = check(text, &LIMITS);
    let shown = String::from_utf8_lossy(text);
    prop_assert_eq!(
        verdict.is_ok(),
        acceptable(text),
        "{:?}: {:?}",
        shown,
        verdict
    );
    let mut out = Vec::new();
    prop_assert_eq!(&minify(text, &LIMITS, &mut out), &verdict);
    match verdict {
        Ok(summary) => {
            let (kept, deepest, members) = plainly(text);
            prop_assert_eq!(&out, &kept);
            prop_assert_eq!(
                (summary.depth as usize, summary.members),
                (deepest, members)
            );
            prop_assert_eq!(summary.minified_len, kept.len());
            prop_assert_eq!(summary.already_minified, kept == text);
            prop_assert_eq!(&*minified(text, &LIMITS).unwrap().0, &*kept);
            let again = check(&kept, &LIMITS).unwrap();
            prop_assert!(again.already_minified, "{:?}", shown);
            prop_assert_eq!(
                (again.kind, again.depth, again.members),
                (summary.kind, summary.depth, summary.members)
            );
            if let Ok(value) = serde_json::from_slice::<Value>(text) {
                prop_assert_eq!(serde_json::from_slice::<Value>(&kept).unwrap(), value);
            }
        }
        Err(error) => {
            prop_assert!(out.is_empty());
            prop_assert!(error.offset() <= text.len(), "{:?}", error);
            prop_assert!(error.to_string().len() < 200);
            let (line, column) = error.line_and_column(text);
            prop_assert!(line >= 1 && column >= 1);
            prop_assert_eq!(&minified(text, &LIMITS).unwrap_err(), &error);
            // The fault is the first one: what is before it can be the start of a document.
            let start = check(&text[..error.offset()], &LIMITS);
            if let Err(earlier) = start {
                prop_assert!(
                    earlier.offset() >= error.offset() || is_part_of(&earlier, &error),
                    "{:?}: {} although {}",
                    shown,
                    error,
                    earlier
                );
            }
        }
    }
    Ok(())
}

/// Cut inside an escape or before the colon of nothing, the start has a fault of its own only if
/// it is one of incompleteness.
fn is_part_of(
    earlier: &inflightkv_validation::JsonError,
    error: &inflightkv_validation::JsonError,
) -> bool {
    use inflightkv_validation::JsonErrorKind::{Empty, LoneSurrogate, NotUtf8};
    matches!(earlier.kind(), Empty | LoneSurrogate { .. })
        || matches!(earlier.kind(), NotUtf8) && error.offset() - earlier.offset() < 4
}

proptest! {
    #[test]
    fn a_document_is_accepted_and_minified_to_the_same_value(text in document()) {
        prop_assert!(acceptable(text.as_bytes()));
        holds(text.as_bytes())?;
    }

    #[test]
    fn a_damaged_document_is_judged_as_serde_json_judges_it(
        text in document(),
        at: prop::sample::Index,
        damage in prop_oneof![soup(), prop::collection::vec(any::<u8>(), 0..3)],
        removed in 0_usize..4,
    ) {
        let mut text = text.into_bytes();
        let at = at.index(text.len() + 1);
        let end = text.len().min(at + removed);
        text.splice(at..end, damage);
        holds(&text)?;
    }

    #[test]
    fn every_prefix_is_judged_as_serde_json_judges_it(text in document()) {
        for end in 0..text.len().min(300) {
            holds(&text.as_bytes()[..end])?;
        }
    }

    #[test]
    fn a_soup_of_pieces_is_judged_as_serde_json_judges_it(text in soup()) {
        holds(&text)?;
    }

    #[test]
    fn a_string_of_pieces_is_judged_as_serde_json_judges_it(text in string_soup()) {
        holds(&[b"\"", &*text, b"\""].concat())?;
    }

    #[test]
    fn any_bytes_are_judged_as_serde_json_judges_them(text in prop::collection::vec(any::<u8>(), 0..40)) {
        holds(&text)?;
        holds(&[b"\"", &*text, b"\""].concat())?;
    }
}

/// Real documents: each is accepted, survives minifying by value, and is refused when it is cut.
#[test]
fn real_documents_keep_their_value() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/documents");
    let Ok(files) = std::fs::read_dir(folder) else {
        println!("skipped: no documents in {folder}");
        return;
    };
    let mut documents = 0;
    for file in files {
        let text = std::fs::read(file.unwrap().path()).unwrap();
        for line in text
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let value: Value = serde_json::from_slice(line).unwrap();
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            let (kept, summary) = minified(&pretty, &LIMITS).unwrap();
            assert_eq!(*kept, *plainly(&pretty).0);
            assert_eq!(serde_json::from_slice::<Value>(&kept).unwrap(), value);
            assert!(!summary.already_minified || kept.len() < 3);
            assert_eq!(*minified(line, &LIMITS).unwrap().0, *plainly(line).0);
            for tenth in 0..10 {
                assert!(check(&line[..line.len() * tenth / 10], &LIMITS).is_err());
            }
            documents += 1;
        }
    }
    assert!(documents > 0, "{folder} has no document");
}
