//! Every case of the community's JSON parsing suite is decided rightly, and those left to the reader as documented.

use inflightkv_validation::{JsonErrorKind, Limits, check, minified};

const CASES: &str = include_str!("parsing_suite.txt");

/// `\xx` in hex is that byte, anything else itself.
fn bytes(written: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = written.bytes();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'\\' => {
                let digits = [rest.next(), rest.next()].map(|digit| digit.expect("two digits"));
                let digits = std::str::from_utf8(&digits).expect("ASCII");
                u8::from_str_radix(digits, 16).expect("hexadecimal digits")
            }
            other => other,
        });
    }
    out
}

#[test]
fn every_case_is_decided_rightly() {
    let mut decided = [0, 0];
    for line in CASES.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.splitn(3, ' ');
        let verdict = words.next().expect("a verdict");
        let name = words.next().expect("a name");
        let text = bytes(words.next().unwrap_or_default());
        let accept = match verdict {
            "accept" => true,
            "refuse" => false,
            other => panic!("{name}: {other}"),
        };
        // The names say what the grammar demands; only where it demands nothing is there a choice.
        match name.as_bytes()[0] {
            b'y' => assert!(accept, "{name}"),
            b'n' => assert!(!accept, "{name}"),
            kind => assert_eq!(kind, b'i', "{name}"),
        }
        let found = check(&text, &Limits::default());
        assert_eq!(found.is_ok(), accept, "{name}: {found:?}");
        assert_eq!(
            minified(&text, &Limits::default()).is_ok(),
            accept,
            "{name}"
        );
        decided[usize::from(accept)] += 1;
    }
    // With the three below these are the 318 cases.
    assert_eq!(decided, [210, 105]);
}

#[test]
fn very_many_brackets_are_refused_at_the_limit_of_depth() {
    let limits = Limits::default();
    let arrays = "[".repeat(100_000);
    let objects = r#"[{"":"#.repeat(50_000) + "\n";
    let nested = "[".repeat(500) + &"]".repeat(500);
    for text in [&arrays, &objects, &nested] {
        let error = check(text.as_bytes(), &limits).expect_err("too deep");
        assert_eq!(error.kind(), &JsonErrorKind::TooDeep { max: 128 });
    }
    // The depth is a choice, not a weakness.
    let deep = Limits {
        depth_max: 500,
        ..limits
    };
    assert_eq!(
        check(nested.as_bytes(), &deep).map(|seen| seen.depth),
        Ok(500)
    );
}
