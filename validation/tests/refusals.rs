//! Texts that are refused: where, and in which words.

use inflightkv_validation::{JsonError, JsonErrorKind, Limits, check, minified, minify};

const LIMITS: Limits = Limits {
    depth_max: 128,
    bytes_max: 4 << 20,
};

/// All three functions refuse `text` in the same words, and nothing is appended.
#[track_caller]
fn refused(text: &[u8], limits: &Limits) -> JsonError {
    let shown = String::from_utf8_lossy(text);
    let error = check(text, limits).expect_err(&shown);
    let mut out = b"before".to_vec();
    assert_eq!(
        minify(text, limits, &mut out),
        Err(error.clone()),
        "{shown:?}"
    );
    assert_eq!(out, b"before", "{shown:?}");
    assert_eq!(minified(text, limits).expect_err(&shown), error);
    error
}

/// Each refusal with its place and its words.
#[test]
fn a_refusal_says_where_what_was_found_and_what_was_expected() {
    let cases: &[(&[u8], &str)] = &[
        // Nothing.
        (b"", "expected a JSON document, found nothing"),
        (b" \n\t\r", "expected a JSON document, found nothing"),
        // Encoding.
        (
            b"\xef\xbb\xbf1",
            "expected a JSON document, found a byte order mark at byte 0",
        ),
        (
            b"\xef\xbb\xbf",
            "expected a JSON document, found a byte order mark at byte 0",
        ),
        (b"\xef\xbb", "expected UTF-8, found other bytes at byte 0"),
        (
            b"\xff\xfe1\0",
            "expected UTF-8, found other bytes at byte 0",
        ),
        (b"\0[\0]", "expected a value, found U+0000 at byte 0"),
        (b"[\xe9]", "expected UTF-8, found other bytes at byte 1"),
        (b"\"\xe9\"", "expected UTF-8, found other bytes at byte 1"),
        (b"\"ab\xff\"", "expected UTF-8, found other bytes at byte 3"),
        (
            b"\"\xc0\xaf\"",
            "expected UTF-8, found other bytes at byte 1",
        ),
        (
            b"\"\xe0\x80\xaf\"",
            "expected UTF-8, found other bytes at byte 1",
        ),
        (
            b"\"\xed\xa0\x80\"",
            "expected UTF-8, found other bytes at byte 1",
        ),
        (
            b"\"\xf4\x90\x80\x80\"",
            "expected UTF-8, found other bytes at byte 1",
        ),
        (
            b"\"\xf8\x88\x80\x80\x80\"",
            "expected UTF-8, found other bytes at byte 1",
        ),
        (b"\"\x80\"", "expected UTF-8, found other bytes at byte 1"),
        (
            b"\"aaaaaaaaaaaaaa\xe2\x82",
            "expected UTF-8, found other bytes at byte 15",
        ),
        (
            b"{\"a\xffaaaaaaa\":0}",
            "expected UTF-8, found other bytes at byte 3",
        ),
        // The first fault wins, whichever kind it is.
        (
            b"\"\xff\\x\"",
            "expected UTF-8, found other bytes at byte 1",
        ),
        (b"\"\xff\n\"", "expected UTF-8, found other bytes at byte 1"),
        (
            b"\"\n\xff\"",
            "expected an escape for a control character, found U+000A at byte 1",
        ),
        (b"[1 \"\xff\"]", "expected `,` or `]`, found `\"` at byte 3"),
        // White space that is not JSON's.
        (b"\x0c1", "expected a value, found U+000C at byte 0"),
        (b"[\x0b]", "expected a value, found U+000B at byte 1"),
        (
            "\u{a0}1".as_bytes(),
            "expected a value, found U+00A0 at byte 0",
        ),
        (
            "[1\u{2060}]".as_bytes(),
            "expected `,` or `]`, found U+2060 at byte 2",
        ),
        (
            "[\u{feff}]".as_bytes(),
            "expected a value, found U+FEFF at byte 1",
        ),
        // Literals.
        (
            b"nul",
            "expected `null`, found the end of the text at byte 3",
        ),
        (b"[nul]", "expected `null`, found `]` at byte 4"),
        (b"True", "expected a value, found `T` at byte 0"),
        (b"tRue", "expected `true`, found `R` at byte 1"),
        (b"fals\xc3\xa9", "expected `false`, found `é` at byte 4"),
        (
            b"truex",
            "expected the end of the document, found `x` at byte 4",
        ),
        (b"nan", "expected `null`, found `a` at byte 1"),
        (b"NaN", "expected a value, found `N` at byte 0"),
        (b"Infinity", "expected a value, found `I` at byte 0"),
        (b"undefined", "expected a value, found `u` at byte 0"),
        // Numbers.
        (
            b"-",
            "expected a digit, found the end of the text at byte 1",
        ),
        (b"[-]", "expected a digit, found `]` at byte 2"),
        (b"-a", "expected a digit, found `a` at byte 1"),
        (b"--1", "expected a digit, found `-` at byte 1"),
        (b"- 1", "expected a digit, found U+0020 at byte 1"),
        (b"+1", "expected a value, found `+` at byte 0"),
        (
            b"01",
            "expected the end of the document, found `1` at byte 1",
        ),
        (
            b"-012",
            "expected the end of the document, found `1` at byte 2",
        ),
        (b"[00]", "expected `,` or `]`, found `0` at byte 2"),
        (b".5", "expected a value, found `.` at byte 0"),
        (b"-.5", "expected a digit, found `.` at byte 1"),
        (
            b"1.",
            "expected a digit, found the end of the text at byte 2",
        ),
        (b"[1.]", "expected a digit, found `]` at byte 3"),
        (b"1.e5", "expected a digit, found `e` at byte 2"),
        (
            b"1.2.3",
            "expected the end of the document, found `.` at byte 3",
        ),
        (
            b"1e",
            "expected a digit, found the end of the text at byte 2",
        ),
        (
            b"1e+",
            "expected a digit, found the end of the text at byte 3",
        ),
        (b"1e+-2", "expected a digit, found `-` at byte 3"),
        (
            b"1e2.5",
            "expected the end of the document, found `.` at byte 3",
        ),
        (
            b"0x1F",
            "expected the end of the document, found `x` at byte 1",
        ),
        (
            b"1_000",
            "expected the end of the document, found `_` at byte 1",
        ),
        (
            b"1 000",
            "expected the end of the document, found `0` at byte 2",
        ),
        (b"-Infinity", "expected a digit, found `I` at byte 1"),
        (
            "\u{ff11}".as_bytes(),
            "expected a value, found `\u{ff11}` at byte 0",
        ),
        // Strings.
        (b"\"", "expected `\"`, found the end of the text at byte 1"),
        (
            b"\"abcdefghijkl",
            "expected `\"`, found the end of the text at byte 13",
        ),
        (b"'a'", "expected a value, found `'` at byte 0"),
        (b"a", "expected a value, found `a` at byte 0"),
        (
            b"\"a\0\"",
            "expected an escape for a control character, found U+0000 at byte 2",
        ),
        (
            b"\"\x1f\"",
            "expected an escape for a control character, found U+001F at byte 1",
        ),
        (
            b"\"\t\"",
            "expected an escape for a control character, found U+0009 at byte 1",
        ),
        (
            b"\"a\"b",
            "expected the end of the document, found `b` at byte 3",
        ),
        (
            b"\"\\",
            "expected an escape (one of `\"\\/bfnrtu`), found the end of the text at byte 2",
        ),
        (
            b"\"\\\"",
            "expected `\"`, found the end of the text at byte 3",
        ),
        (
            b"\"\\x00\"",
            "expected an escape (one of `\"\\/bfnrtu`), found `x` at byte 2",
        ),
        (
            b"\"\\a\"",
            "expected an escape (one of `\"\\/bfnrtu`), found `a` at byte 2",
        ),
        (
            b"\"\\'\"",
            "expected an escape (one of `\"\\/bfnrtu`), found `'` at byte 2",
        ),
        (
            b"\"\\\xc3\xa9\"",
            "expected an escape (one of `\"\\/bfnrtu`), found `é` at byte 2",
        ),
        (b"\"\\\xff\"", "expected UTF-8, found other bytes at byte 2"),
        (
            b"\"\\\n\"",
            "expected an escape (one of `\"\\/bfnrtu`), found U+000A at byte 2",
        ),
        (
            b"\"\\U0041\"",
            "expected an escape (one of `\"\\/bfnrtu`), found `U` at byte 2",
        ),
        (
            b"\"\\u",
            "expected a hexadecimal digit, found the end of the text at byte 3",
        ),
        (
            b"\"\\u00A\"",
            "expected a hexadecimal digit, found `\"` at byte 6",
        ),
        (
            b"\"\\u00g0\"",
            "expected a hexadecimal digit, found `g` at byte 5",
        ),
        (
            b"\"\\u+041\"",
            "expected a hexadecimal digit, found `+` at byte 3",
        ),
        // Surrogates.
        (
            b"\"\\ud800\"",
            "expected a pair of surrogate escapes, found only \\ud800 at byte 1",
        ),
        (
            b"\"\\uDFFF\"",
            "expected a pair of surrogate escapes, found only \\udfff at byte 1",
        ),
        (
            b"\"a\\uDC00\\uD800\"",
            "expected a pair of surrogate escapes, found only \\udc00 at byte 2",
        ),
        (
            b"\"\\uDC00\\uDC00\"",
            "expected a pair of surrogate escapes, found only \\udc00 at byte 1",
        ),
        (
            b"\"\\uD800\\uD800\"",
            "expected a pair of surrogate escapes, found only \\ud800 at byte 1",
        ),
        (
            b"\"\\uD800\\u0041\"",
            "expected a pair of surrogate escapes, found only \\ud800 at byte 1",
        ),
        (
            b"\"\\uD800\\n\"",
            "expected a pair of surrogate escapes, found only \\ud800 at byte 1",
        ),
        (
            b"\"\\uD800abcdef\"",
            "expected a pair of surrogate escapes, found only \\ud800 at byte 1",
        ),
        (
            b"\"\\uD834\\udd\"",
            "expected a hexadecimal digit, found `\"` at byte 11",
        ),
        (
            b"\"\\uD800\\uDC00\\uDC00\"",
            "expected a pair of surrogate escapes, found only \\udc00 at byte 13",
        ),
        // Arrays.
        (
            b"[",
            "expected a value or `]`, found the end of the text at byte 1",
        ),
        (
            b"[1",
            "expected `,` or `]`, found the end of the text at byte 2",
        ),
        (
            b"[1,",
            "expected a value, found the end of the text at byte 3",
        ),
        (b"[1,]", "expected a value, found `]` at byte 3"),
        (b"[,1]", "expected a value, found `,` at byte 1"),
        (b"[1,,2]", "expected a value, found `,` at byte 3"),
        (b"[1 2]", "expected `,` or `]`, found `2` at byte 3"),
        (b"[1:2]", "expected `,` or `]`, found `:` at byte 2"),
        (b"[1}", "expected `,` or `]`, found `}` at byte 2"),
        (b"[\"a\":1]", "expected `,` or `]`, found `:` at byte 4"),
        (b"]", "expected a value, found `]` at byte 0"),
        (
            b"[]]",
            "expected the end of the document, found `]` at byte 2",
        ),
        (
            b"[][]",
            "expected the end of the document, found `[` at byte 2",
        ),
        (
            b"[]\0",
            "expected the end of the document, found U+0000 at byte 2",
        ),
        // Objects.
        (
            b"{",
            "expected a member name or `}`, found the end of the text at byte 1",
        ),
        (
            b"{1:1}",
            "expected a member name or `}`, found `1` at byte 1",
        ),
        (
            b"{a:1}",
            "expected a member name or `}`, found `a` at byte 1",
        ),
        (
            b"{'a':1}",
            "expected a member name or `}`, found `'` at byte 1",
        ),
        (b"{,}", "expected a member name or `}`, found `,` at byte 1"),
        (b"{]", "expected a member name or `}`, found `]` at byte 1"),
        (
            b"{\"a\"",
            "expected `:`, found the end of the text at byte 4",
        ),
        (b"{\"a\"}", "expected `:`, found `}` at byte 4"),
        (b"{\"a\",\"b\"}", "expected `:`, found `,` at byte 4"),
        (
            b"{\"a\":",
            "expected a value, found the end of the text at byte 5",
        ),
        (b"{\"a\":}", "expected a value, found `}` at byte 5"),
        (b"{\"a\"::1}", "expected a value, found `:` at byte 5"),
        (
            b"{\"a\":1",
            "expected `,` or `}`, found the end of the text at byte 6",
        ),
        (b"{\"a\":1]", "expected `,` or `}`, found `]` at byte 6"),
        (
            b"{\"a\":1,",
            "expected a member name, found the end of the text at byte 7",
        ),
        (b"{\"a\":1,}", "expected a member name, found `}` at byte 7"),
        (
            b"{\"a\":1,,\"b\":2}",
            "expected a member name, found `,` at byte 7",
        ),
        (
            b"{\"a\":1 \"b\":2}",
            "expected `,` or `}`, found `\"` at byte 7",
        ),
        (
            b"{\"a\":1,2}",
            "expected a member name, found `2` at byte 7",
        ),
        (
            b"{}}",
            "expected the end of the document, found `}` at byte 2",
        ),
        (b"{\"a\":[}", "expected a value, found `}` at byte 6"),
        // What other notations allow.
        (
            b"[1] // one",
            "expected the end of the document, found `/` at byte 4",
        ),
        (b"/* one */ 1", "expected a value, found `/` at byte 0"),
        (b"# one\n1", "expected a value, found `#` at byte 0"),
        (
            b"1;",
            "expected the end of the document, found `;` at byte 1",
        ),
        (
            b"1,2",
            "expected the end of the document, found `,` at byte 1",
        ),
        (
            b"{}{}",
            "expected the end of the document, found `{` at byte 2",
        ),
        (b"<a/>", "expected a value, found `<` at byte 0"),
    ];
    for (text, wanted) in cases {
        let wanted = wanted.to_owned();
        assert_eq!(refused(text, &LIMITS).to_string(), wanted, "{text:?}");
    }
}

#[test]
fn a_fault_has_a_line_and_a_column() {
    for (text, wanted) in [
        ("", (1, 1)),
        ("x", (1, 1)),
        ("[1,\n\n  x]", (3, 3)),
        ("{\"é€𝄞\" x", (1, 8)),
        ("[\"é\",\r\n\"日本\"\n", (3, 1)),
        ("[1\n", (2, 1)),
    ] {
        let error = refused(text.as_bytes(), &LIMITS);
        assert_eq!(error.line_and_column(text.as_bytes()), wanted, "{text:?}");
        // With another text it is useless, and harmless.
        let _ = error.line_and_column(b"");
    }
}

#[test]
fn a_text_longer_than_the_limit_is_refused_unread() {
    let limits = Limits {
        bytes_max: 4,
        ..LIMITS
    };
    assert!(check(b"1234", &limits).is_ok());
    for text in [b"12345".as_slice(), b"    1", b"\xff\xff\xff\xff\xff"] {
        let error = refused(text, &limits);
        assert_eq!(error.kind(), &JsonErrorKind::TooLarge { len: 5, max: 4 });
        assert_eq!(
            error.to_string(),
            "the document has 5 bytes, at most 4 are allowed"
        );
    }
    let none = Limits {
        bytes_max: 0,
        ..LIMITS
    };
    assert_eq!(refused(b"", &none).kind(), &JsonErrorKind::Empty);
}
