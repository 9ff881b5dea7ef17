//! Rule files, keys and values in tables: what is refused, by which rule and setting, and where.

use inflightkv_validation::{
    Breach, Candidate, Mode, Rule, RuleFileError, Rules, ValidationRule, Violation,
};
use std::io;

fn no_files(_: &str) -> io::Result<String> {
    Err(io::Error::from(io::ErrorKind::NotFound))
}

#[track_caller]
fn rules(text: &str) -> Rules {
    Rules::parse(text, &no_files).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn mistake(text: &str) -> RuleFileError {
    Rules::parse(text, &no_files).expect_err(text)
}

/// `rule setting pointer`, or `ok`.
fn verdict(result: Result<(), Violation>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(violation) => format!(
            "{} {}{}",
            violation.rule.name(),
            violation.rule.setting().expect("a named rule"),
            violation
                .pointer
                .map(|pointer| format!(" `{pointer}`"))
                .unwrap_or_default()
        ),
    }
}

fn of_value(rules: &Rules, key: &str, value: &str) -> String {
    verdict(rules.check_value(key, &Candidate::json(value.as_bytes())))
}

const USERS: &str = r##"
[[rule]]
name = "users"
prefix = "user/"
mode = "enforce"
key-max-length = 32
key-charset = "printable-ascii"
key-pattern = "^user/([0-9]+|root|_x)$"
reserved = ["user/root", "user/_*"]
value-max-size = "1KiB"
value-types = ["application/json"]
value-json-type = "object"
value-max-depth = 3
value-max-members = 6
value-duplicate-members = "deny"
value-numbers = "i-json"
value-forbidden-members = ["ssn"]
value-schema = """{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {"age": {"$ref": "#/$defs/age"}},
  "$defs": {"age": {"type": "integer", "minimum": 0}}
}"""
value-deny = [{ pointer = "/password" }, { regex = "(?i)begin private key" }]
value-require = [{ pointer = "/id" }, { pointer = "/kind", equals = "person" }]
"##;

#[test]
fn keys_are_held_against_every_setting() {
    let rules = rules(USERS);
    let cases = [
        ("user/42", "ok"),
        ("other", "ok"),
        ("user/", "users key-pattern"),
        ("user/x", "users key-pattern"),
        ("user/é", "users key-charset"),
        ("user/root", "users reserved"),
        ("user/_x", "users reserved"),
        (
            "user/000000000000000000000000000000001",
            "users key-max-length",
        ),
    ];
    for (key, wanted) in cases {
        assert_eq!(verdict(rules.check_key(key)), wanted, "{key}");
    }
}

#[test]
fn values_are_held_against_every_setting() {
    let rules = rules(USERS);
    let cases = [
        (r#"{"id":1,"kind":"person"}"#, "ok"),
        (r#"{"id":null,"kind":"p\u0065rson","age":3}"#, "ok"),
        (r#"[1]"#, "users value-json-type ``"),
        (r#"{"kind":"person"}"#, "users value-require `/id`"),
        (r#"{"id":1,"kind":"dog"}"#, "users value-require `/kind`"),
        (
            r#"{"id":1,"kind":["person"]}"#,
            "users value-require `/kind`",
        ),
        (
            r#"{"id":1,"kind":"person","password":null}"#,
            "users value-deny `/password`",
        ),
        (
            r#"{"id":1,"kind":"person","p\u0061ssword":null}"#,
            r"users value-deny `/password`",
        ),
        (
            r#"{"id":1,"kind":"person","a":["-- BEGIN pr\u0069vate key"]}"#,
            "users value-deny `/a/0`",
        ),
        (
            r#"{"id":1,"kind":"person","begin private key":1}"#,
            "users value-deny `/begin private key`",
        ),
        (
            r#"{"id":1,"kind":"person","a":{"b":{"c":{}}}}"#,
            "users value-max-depth `/a/b/c`",
        ),
        (
            r#"{"id":1,"kind":"person","a":1,"b":{"c":1,"d":1,"e":1}}"#,
            "users value-max-members `/b/e`",
        ),
        (
            r#"{"id":1,"kind":"person","b":{"c":1,"\u0063":1}}"#,
            "users value-duplicate-members `/b/c`",
        ),
        (r#"{"id":1,"kind":"person","b":[{"c":1},{"c":1}]}"#, "ok"),
        (
            r#"{"id":9007199254740992,"kind":"person"}"#,
            "users value-numbers `/id`",
        ),
        (
            r#"{"id":[-9007199254740991,0.1,1e300],"kind":"person"}"#,
            "ok",
        ),
        (
            r#"{"id":1e400,"kind":"person"}"#,
            "users value-numbers `/id`",
        ),
        (
            r#"{"id":1e-400,"kind":"person"}"#,
            "users value-numbers `/id`",
        ),
        (
            r#"{"id":0.1234567890123456789,"kind":"person"}"#,
            "users value-numbers `/id`",
        ),
        (
            r#"{"id":1,"kind":"person","a":[{"ssn":1}]}"#,
            "users value-forbidden-members `/a/0/ssn`",
        ),
        (
            r#"{"id":1,"kind":"person","age":-1}"#,
            "users value-schema `/age`",
        ),
        (
            r#"{"id":1,"kind":"person","age":"x"}"#,
            "users value-schema `/age`",
        ),
    ];
    for (value, wanted) in cases {
        assert_eq!(of_value(&rules, "user/1", value), wanted, "{value}");
        assert_eq!(of_value(&rules, "job/1", value), "ok", "{value}");
    }
    let large = format!(r#"{{"id":"{}","kind":"person"}}"#, "x".repeat(1024));
    assert_eq!(of_value(&rules, "user/1", &large), "users value-max-size");
    let opaque = Candidate {
        bytes: b"text",
        media_type: Some("text/plain"),
    };
    assert_eq!(
        verdict(rules.check_value("user/1", &opaque)),
        "users value-types"
    );
}

/// Nothing of the value is in the words of a refusal, which may be logged.
#[test]
fn a_refusal_never_quotes_the_value() {
    let rules = rules(USERS);
    let secret = "hunter2";
    for value in [
        format!(r#"{{"id":1,"kind":"{secret}"}}"#),
        format!(r#"{{"id":1,"kind":"person","age":"{secret}"}}"#),
        format!(r#"{{"id":1,"kind":"person","a":"begin private key {secret}"}}"#),
        format!(r#""{secret}""#),
    ] {
        let candidate = Candidate::json(value.as_bytes());
        let violation = rules.check_value("user/1", &candidate).unwrap_err();
        assert!(!violation.to_string().contains(secret), "{violation}");
    }
}

#[test]
fn the_most_specific_rule_decides_for_each_setting() {
    let rules = rules(
        r#"
        [[rule]]
        name = "wide"
        value-max-size = 10
        key-max-length = 20
        [[rule]]
        name = "narrow"
        prefix = "a/b/"
        value-max-size = 40
        [[rule]]
        name = "middle"
        prefix = "a/"
        value-max-size = 20
        value-json-type = ["string", "array"]
        [[rule]]
        name = "pattern"
        pattern = "^a/b/[0-9]+$"
        value-max-size = 5
        "#,
    );
    let string = |len: usize| format!("\"{}\"", "x".repeat(len - 2));
    let cases = [
        ("z", string(10), "ok"),
        ("z", string(11), "wide value-max-size"),
        ("a/z", string(20), "ok"),
        ("a/z", string(21), "middle value-max-size"),
        ("a/b/z", string(40), "ok"),
        ("a/b/z", string(41), "narrow value-max-size"),
        // A setting on which the narrower rules are silent.
        ("a/b/z", "{}".to_owned(), "middle value-json-type ``"),
        ("a/b/7", string(5), "ok"),
        ("a/b/7", string(6), "pattern value-max-size"),
    ];
    for (key, value, wanted) in cases {
        assert_eq!(of_value(&rules, key, &value), wanted, "{key} {value}");
    }
    assert_eq!(
        verdict(rules.check_key("a/b/0123456789abcdef0")),
        "wide key-max-length"
    );
}

/// What is tried out must not open what is closed.
#[test]
fn a_reported_rule_counts_and_switches_nothing_off() {
    let text = r#"
        [[rule]]
        name = "wide"
        value-max-size = 10
        [[rule]]
        name = "tried"
        prefix = "a/"
        mode = "report-only"
        value-max-size = 100
        value-json-type = "object"
        [[rule]]
        name = "shadowed"
        mode = "report-only"
        value-max-size = 1
        "#;
    let rules = rules(text);
    assert_eq!(
        of_value(&rules, "a/x", "1234567890123"),
        "wide value-max-size"
    );
    assert_eq!(of_value(&rules, "a/x", "{}"), "ok");
    assert_eq!(of_value(&rules, "a/x", "12"), "ok");
    let hits = |rules: &Rules| -> Vec<(String, Mode, u64)> {
        let mut hits: Vec<_> = rules
            .hits()
            .into_iter()
            .map(|hits| (hits.name, hits.mode, hits.hits))
            .collect();
        hits.sort_by(|a, b| a.0.cmp(&b.0));
        hits
    };
    let counted = [
        // Listed last, it is the wider of two equals once the later one decides; nothing is wide enough to be silent.
        ("shadowed".to_owned(), Mode::ReportOnly, 2),
        ("tried".to_owned(), Mode::ReportOnly, 2),
        ("wide".to_owned(), Mode::Enforce, 1),
    ];
    let seen = hits(&rules);
    assert_eq!(seen[1..], counted[1..]);
    let again = Rules::parse(text, &no_files).expect("the same text");
    again.carry_over(&rules);
    assert_eq!(hits(&again), seen);
}

#[test]
fn requirements_and_denials_by_pointer_expression_and_value() {
    let cases = [
        (
            r#"value-deny = [{ pointer = "/a", regex = "^x" }]"#,
            r#"{"a":"xy","b":"z"}"#,
            "r value-deny `/a`",
        ),
        (
            r#"value-deny = [{ pointer = "/a", regex = "^x" }]"#,
            r#"{"a":"yx","b":"x"}"#,
            "ok",
        ),
        (
            r#"value-deny = [{ pointer = "/a", regex = "^x" }]"#,
            r#"{"a":["y",{"x":1}]}"#,
            "r value-deny `/a/1/x`",
        ),
        (
            r#"value-deny = [{ pointer = "/a", equals = 1 }]"#,
            r#"{"a":1.0}"#,
            "r value-deny `/a`",
        ),
        (
            r#"value-deny = [{ pointer = "/a", equals = 1 }]"#,
            r#"{"a":"1"}"#,
            "ok",
        ),
        (
            r#"value-deny = [{ pointer = "/a", equals = true }]"#,
            r#"{"a":true}"#,
            "r value-deny `/a`",
        ),
        (
            r#"value-deny = [{ pointer = "/a" }]"#,
            r#"{"A":1,"b":{"a":1}}"#,
            "ok",
        ),
        (
            r#"value-deny = [{ pointer = "" , equals = 0.5 }]"#,
            r#"5e-1"#,
            "r value-deny ``",
        ),
        // Of two members with one name a reader may pick either.
        (
            r#"value-deny = [{ pointer = "/a", equals = 1 }]"#,
            r#"{"a":2,"a":1}"#,
            "r value-deny `/a`",
        ),
        (
            r#"value-require = [{ pointer = "/a", equals = 1 }]"#,
            r#"{"a":1,"a":2}"#,
            "r value-require `/a`",
        ),
        (
            r#"value-require = [{ pointer = "/a/0" }]"#,
            r#"{"a":[0]}"#,
            "ok",
        ),
        (
            r#"value-require = [{ pointer = "/a/0" }]"#,
            r#"{"a":{"0":0}}"#,
            "ok",
        ),
        (
            r#"value-require = [{ pointer = "/a/00" }]"#,
            r#"{"a":[0]}"#,
            "r value-require `/a/00`",
        ),
        (
            r#"value-require = [{ pointer = "/a", regex = "^[a-z]+$" }]"#,
            r#"{"a":"x1"}"#,
            "r value-require `/a`",
        ),
        (
            r#"value-require = [{ pointer = "/a", regex = "^[a-z]+$" }]"#,
            r#"{"b":"x"}"#,
            "r value-require `/a`",
        ),
        (
            r#"value-require = [{ pointer = "/a", regex = "^[0-9]+$" }]"#,
            r#"{"a":12}"#,
            "ok",
        ),
        (
            r#"value-require = [{ regex = "needle" }]"#,
            r#"["hay",{"x":"a needle"}]"#,
            "ok",
        ),
        (
            r#"value-require = [{ regex = "needle" }]"#,
            r#"["hay"]"#,
            "r value-require",
        ),
    ];
    for (setting, value, wanted) in cases {
        let rules = rules(&format!("[[rule]]\nname = \"r\"\n{setting}"));
        assert_eq!(of_value(&rules, "k", value), wanted, "{setting} {value}");
    }
    let rules = rules("[[rule]]\nname = \"r\"\nvalue-deny = [{ regex = \"secret\" }]");
    let opaque = |bytes| Candidate {
        bytes,
        media_type: Some("image/png"),
    };
    assert!(
        rules
            .check_value("k", &opaque(b"\xFF\xFEa secret\x00"))
            .is_err()
    );
    assert!(rules.check_value("k", &opaque(b"\xFF\xFEnothing")).is_ok());
}

#[test]
fn a_mistake_is_named_by_line_and_key() {
    let cases = [
        ("rule = 1", 1, "rule", "expected [[rule]] tables"),
        ("[[rules]]\nname = \"a\"", 1, "rules", "unknown key"),
        (
            "[[rule]]\nprefix = \"a\"",
            1,
            "name",
            "a rule without a name",
        ),
        (
            "[[rule]]\nname = \"a\"\n\n[[rule]]\nname = \"a\"",
            5,
            "name",
            "second rule",
        ),
        (
            "[[rule]]\nname = \"a\"\nkey-max-lenght = 3",
            3,
            "key-max-lenght",
            "key-max-length, perhaps",
        ),
        (
            "[[rule]]\nname = \"a\"\nkey-max-length = 0",
            3,
            "key-max-length",
            "found 0; expected a whole number from 1",
        ),
        (
            "[[rule]]\nname = \"a\"\nkey-max-length = \"x\"",
            3,
            "key-max-length",
            "found \"x\"",
        ),
        (
            "[[rule]]\nname = \"a\"\nmode = \"warn\"",
            3,
            "mode",
            "enforce, report-only",
        ),
        (
            "[[rule]]\nname = \"a\"\nprefix = \"a\"\npattern = \"b\"",
            4,
            "pattern",
            "one of the two",
        ),
        (
            "[[rule]]\nname = \"a\"\nkey-charset = \"z-a\"",
            3,
            "key-charset",
            "backwards",
        ),
        (
            "[[rule]]\nname = \"a\"\nkey-pattern = \"(\"",
            3,
            "key-pattern",
            "unclosed group",
        ),
        (
            "[[rule]]\nname = \"a\"\nkey-pattern = \"(?=a)\"",
            3,
            "key-pattern",
            "look-around",
        ),
        (
            "[[rule]]\nname = \"a\"\nkey-pattern = \"(a{1000}){1000}\"",
            3,
            "key-pattern",
            "size limit",
        ),
        (
            "[[rule]]\nname = \"a\"\nvalue-max-size = \"4 KiB\"",
            3,
            "value-max-size",
            "4KiB",
        ),
        (
            "[[rule]]\nname = \"a\"\nvalue-types = [\"json\"]",
            3,
            "value-types",
            "application/json",
        ),
        (
            "[[rule]]\nname = \"a\"\nvalue-json-type = \"int\"",
            3,
            "value-json-type",
            "object, array",
        ),
        (
            "[[rule]]\nname = \"a\"\nvalue-schema = \"{\"",
            3,
            "value-schema",
            "not JSON",
        ),
        (
            "[[rule]]\nname = \"a\"\nvalue-schema = '{\"type\":\"strin\"}'",
            3,
            "value-schema",
            "at `/type`",
        ),
        (
            "[[rule]]\nname = \"a\"\nvalue-schema = '{\"$ref\":\"http://localhost/x.json\"}'",
            3,
            "value-schema",
            "cannot be used",
        ),
        (
            "[[rule]]\nname = \"a\"\nvalue-schema = '{\"$ref\":\"file:///etc/passwd\"}'",
            3,
            "value-schema",
            "cannot be used",
        ),
        (
            "[[rule]]\nname = \"a\"\nvalue-schema-file = \"x\"",
            3,
            "value-schema-file",
            "cannot be read",
        ),
        (
            "[[rule]]\nname = \"a\"\nvalue-deny = [{}]",
            3,
            "value-deny",
            "names no place",
        ),
        (
            "[[rule]]\nname = \"a\"\nvalue-deny = [\n  { pointer = \"a\" },\n]",
            4,
            "value-deny.pointer",
            "RFC 6901",
        ),
        (
            "[[rule]]\nname = \"a\"\nvalue-deny = [{ jq = \".\" }]",
            3,
            "value-deny.jq",
            "unknown key",
        ),
        (
            "[[rule]]\nname = \"a\"\nprefix = \"user/\"\nkey-charset = \"alphanumeric\"",
            1,
            "key-charset",
            "whole key",
        ),
        ("[[rule]]\nname = ", 2, "", "not TOML"),
    ];
    for (text, line, key, words) in cases {
        let error = mistake(text);
        assert_eq!((error.line, error.key.as_str()), (line, key), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn a_schema_may_be_a_file_and_of_an_older_draft() {
    let read = |path: &str| {
        assert_eq!(path, "users.schema.json");
        // Draft 4 spells an exclusive minimum as a boolean.
        Ok(r#"{"$schema":"http://json-schema.org/draft-04/schema#","minimum":0,"exclusiveMinimum":true}"#.to_owned())
    };
    let text = "[[rule]]\nname = \"s\"\nvalue-schema-file = \"users.schema.json\"";
    let rules = Rules::parse(text, &read).expect("a schema of draft 4");
    assert_eq!(of_value(&rules, "k", "1"), "ok");
    assert_eq!(of_value(&rules, "k", "0"), "s value-schema ``");
    // What the schema's engine cannot hold is refused, not let through.
    assert_eq!(of_value(&rules, "k", "[1e999]"), "s value-schema `/0`");
    let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
    assert_eq!(of_value(&rules, "k", &deep), "s value-schema");
}

struct Even;

impl ValidationRule for Even {
    fn name(&self) -> &str {
        "even"
    }

    fn check_value(&self, _: &str, value: &Candidate<'_>) -> Result<(), Breach> {
        if value.bytes.len() % 2 == 1 {
            return Err(Breach::new("an odd length", "an even one").at(""));
        }
        Ok(())
    }
}

#[test]
fn a_rule_can_be_code() {
    let mut rules = Rules::default();
    assert!(rules.is_empty());
    rules.add(Mode::Enforce, Even);
    assert_eq!(of_value(&rules, "k", "12"), "ok");
    let violation = rules
        .check_value("k", &Candidate::json(b"123"))
        .expect_err("three bytes");
    assert!(matches!(&violation.rule, Rule::Named { name, .. } if &**name == "even"));
    assert_eq!(
        violation.to_string(),
        "expected an even one, found an odd length at ``"
    );
    assert_eq!(rules.hits()[0].hits, 1);
}

/// Rule files are written by people: whatever stands in one is an answer, not a panic.
#[test]
fn no_rule_file_panics() {
    let mut random = fastrand::Rng::with_seed(0x5EED);
    let sample = USERS.as_bytes();
    for _ in 0..3_000 {
        let mut bytes = sample.to_vec();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[at] = random.u8(..),
                1 => {
                    bytes.remove(at);
                }
                _ => {
                    let from = random.usize(..sample.len());
                    let len = random.usize(..20).min(sample.len() - from);
                    bytes.splice(at..at, sample[from..from + len].iter().copied());
                }
            }
        }
        if let Ok(text) = std::str::from_utf8(&bytes)
            && let Ok(rules) = Rules::parse(text, &no_files)
        {
            let _ = rules.check_key("user/1");
            let _ = rules.check_value("user/1", &Candidate::json(br#"{"id":1,"kind":"person"}"#));
        }
    }
}
