//! Texts that are accepted, and what is kept of them.

use inflightkv_validation::{JsonErrorKind, Kind, Limits, Summary, check, minified, minify};
use std::borrow::Cow;

const LIMITS: Limits = Limits {
    depth_max: 128,
    bytes_max: 4 << 20,
};

/// All three functions agree on `text`; what is kept is `wanted`.
#[track_caller]
fn accepted(text: &[u8], wanted: &[u8]) -> Summary {
    let shown = String::from_utf8_lossy(text);
    let summary = check(text, &LIMITS).unwrap_or_else(|error| panic!("{shown:?}: {error}"));
    let mut out = b"before".to_vec();
    assert_eq!(minify(text, &LIMITS, &mut out), Ok(summary), "{shown:?}");
    assert_eq!(out, [b"before", wanted].concat(), "{shown:?}");
    let (kept, same) = minified(text, &LIMITS).unwrap();
    assert_eq!((&*kept, same), (wanted, summary), "{shown:?}");
    assert_eq!(summary.minified_len, wanted.len(), "{shown:?}");
    assert_eq!(summary.already_minified, text == wanted, "{shown:?}");
    summary
}

#[test]
fn what_the_grammar_has_is_accepted_as_it_was_sent() {
    let texts: &[&[u8]] = &[
        b"null",
        b"true",
        b"false",
        b"0",
        b"-0",
        b"7",
        b"-1",
        b"1234567890",
        b"0.5",
        b"-0.0",
        b"1e5",
        b"1E5",
        b"1e+5",
        b"1e-5",
        b"0e0",
        b"0e+1",
        b"0.1e1",
        b"1.5E-07",
        b"123e00",
        // Beyond what a double holds: digits are kept, so there is nothing to overflow.
        b"1e400",
        b"-1e400",
        b"1e-400",
        b"123456789012345678901234567890",
        b"0.1234567890123456789012345678901234567890",
        b"1e99999999999999999999",
        b"\"\"",
        b"\"a\"",
        b"\"/\"",
        b"\"\\/\"",
        b"\"\\\"\\\\\\b\\f\\n\\r\\t\"",
        b"\" \\u0020 \"",
        b"\"\\u0000\"",
        b"\"\\u001f\"",
        b"\"\\u00e9\\u00E9\"",
        b"\"\\uFFFF\"",
        b"\"\\uD7FF\\uE000\"",
        b"\"\\uD834\\udd1e\"",
        b"\"\\ud800\\udc00\"",
        b"\"\\uDBFF\\uDFFF\"",
        b"\"\\\\u0000\"",
        b"\"\\\\uD800\"",
        b"\"\\\\\\\"\"",
        b"\"\x7f\"",
        b"\"  \"",
        "\"é\"".as_bytes(),
        "\"€\"".as_bytes(),
        "\"𝄞\"".as_bytes(),
        "\"\u{80}\"".as_bytes(),
        "\"\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}\"".as_bytes(),
        "\"\u{2028}\u{2029}\"".as_bytes(),
        "\"\u{feff}\"".as_bytes(),
        "\"\u{fdd0}\"".as_bytes(),
        "{\"é\":\"日本\"}".as_bytes(),
        b"\"// no comment\"",
        b"\"[{,:}]\"",
        b"\"\\\"[\"",
        b"[]",
        b"[[]]",
        b"[null]",
        b"[1,2]",
        b"[[],[]]",
        b"[{}]",
        b"[1,[2,[3]],4]",
        b"[\"a\",\"b\"]",
        b"{}",
        b"{\"\":0}",
        b"{\"a\":{}}",
        b"{\"a\":[],\"b\":{}}",
        b"{\"a\":1,\"a\":2}",
        b"{\"a\":1,\"a\":1}",
        b"{\"a\":{\"b\":{\"c\":null}},\"d\":1}",
        b"{\"\\u0061\":1}",
        b"{\"a\":[{\"b\":[{}]}]}",
    ];
    for text in texts {
        accepted(text, text);
    }
}

#[test]
fn white_space_outside_strings_goes_and_nothing_else() {
    let cases: &[(&[u8], &[u8])] = &[
        (b" 1", b"1"),
        (b"1\n", b"1"),
        (b"\t\r\n 1 \n\r\t", b"1"),
        (b" \"  a  \" ", b"\"  a  \""),
        (b"[ ]", b"[]"),
        (b"{\n}", b"{}"),
        (b"[1 , 2\t,\r3]", b"[1,2,3]"),
        (b"{ \"a\" : 1 , \"b b\" : [ ] }", b"{\"a\":1,\"b b\":[]}"),
        (b"[                  1,\n        2         \n]", b"[1,2]"),
        (b"{\"a\": \"x \\\" y\" }", b"{\"a\":\"x \\\" y\"}"),
        (
            b"[ -0 , 1.50 , 1E+2 , \"\\u0041\" ]",
            b"[-0,1.50,1E+2,\"\\u0041\"]",
        ),
        (b"{\"b\":1, \"a\":2, \"b\":3}", b"{\"b\":1,\"a\":2,\"b\":3}"),
    ];
    for (text, wanted) in cases {
        accepted(text, wanted);
    }
}

#[test]
fn nothing_is_copied_when_white_space_is_only_around_the_document() {
    for (text, borrowed) in [
        ("{\"a\":1}", true),
        ("{\"a\":1}\n", true),
        (" \t{\"a\":1}\r\n", true),
        ("{\"a\": 1}", false),
        ("[1,\n2]\n", false),
    ] {
        let (kept, _) = minified(text.as_bytes(), &LIMITS).unwrap();
        assert_eq!(matches!(kept, Cow::Borrowed(_)), borrowed, "{text:?}");
    }
}

#[test]
fn a_summary_tells_kind_depth_and_members() {
    let cases: &[(&str, Kind, u32, usize)] = &[
        ("{}", Kind::Object, 1, 0),
        ("[]", Kind::Array, 1, 0),
        ("\"{}\"", Kind::String, 0, 0),
        ("-1", Kind::Number, 0, 0),
        ("9", Kind::Number, 0, 0),
        ("true", Kind::Boolean, 0, 0),
        ("false", Kind::Boolean, 0, 0),
        ("null", Kind::Null, 0, 0),
        ("[[],[[]],[]]", Kind::Array, 3, 0),
        (
            " {\"a\":{\"b\":1,\"c\":[2]},\"a\":\":\"}",
            Kind::Object,
            3,
            4,
        ),
    ];
    for &(text, kind, depth, members) in cases {
        let found = check(text.as_bytes(), &LIMITS).unwrap();
        assert_eq!(
            (found.kind, found.depth, found.members),
            (kind, depth, members),
            "{text}"
        );
    }
}

/// The scan inside strings works on eight bytes at a time: each kind of stop at each place of a
/// word, in strings that end at each place of the text's last word.
#[test]
fn a_stop_is_seen_at_every_place_of_a_word() {
    for before in 0..24 {
        for after in 0..12 {
            let string = |middle: &[u8]| {
                [
                    b"\"",
                    &*b"x".repeat(before),
                    middle,
                    &*b"y".repeat(after),
                    b"\"",
                ]
                .concat()
            };
            for fine in [
                "",
                "\\n",
                "\\\"",
                "\\\\",
                "\\u00e9",
                "\\ud834\\udd1e",
                "é",
                "𝄞",
                "\x7f",
            ] {
                let text = string(fine.as_bytes());
                accepted(&text, &text);
            }
            for (fault, kind) in [
                (
                    b"\x1f".as_slice(),
                    JsonErrorKind::ControlCharacter { found: 0x1f },
                ),
                (b"\xff", JsonErrorKind::NotUtf8),
                (b"\xc3", JsonErrorKind::NotUtf8),
                (b"\\ud834", JsonErrorKind::LoneSurrogate { found: 0xd834 }),
            ] {
                let error = check(&string(fault), &LIMITS).unwrap_err();
                assert_eq!((error.kind(), error.offset()), (&kind, before + 1));
            }
        }
    }
}
