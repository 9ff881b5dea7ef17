//! The table is consistent, and each kind takes what it should and nothing else.

use super::*;

fn word(text: &str) -> Written {
    Written::Word(text.to_owned())
}

#[test]
fn every_default_is_a_value_of_its_kind() {
    for setting in SETTINGS {
        match setting.default {
            Fallback::Value(text) => {
                assert!(setting.kind.read(&word(text)).is_some(), "{}", setting.name);
            }
            Fallback::Nothing(words) => assert!(!words.is_empty(), "{}", setting.name),
        }
    }
}

#[test]
fn names_are_unique_lower_case_and_dashed() {
    for (index, setting) in SETTINGS.iter().enumerate() {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
        assert!(setting.name.bytes().all(plain), "{}", setting.name);
        assert!(!setting.summary.ends_with('.'), "{}", setting.name);
        assert!(setting.details.ends_with('.'), "{}", setting.name);
        let later = &SETTINGS[index + 1..];
        assert!(
            later.iter().all(|other| other.name != setting.name),
            "{}",
            setting.name
        );
    }
}

#[test]
fn an_address_may_leave_out_its_host() {
    for (text, address) in [
        (":0", "127.0.0.1:0"),
        (":8080", "127.0.0.1:8080"),
        ("localhost:80", "127.0.0.1:80"),
        ("0.0.0.0:1", "0.0.0.0:1"),
        ("[::1]:9", "[::1]:9"),
    ] {
        let expected = Value::Address(address.parse().expect("an address"));
        assert_eq!(Kind::Address.read(&word(text)), Some(expected), "{text}");
    }
    for text in [
        "",
        "8080",
        "127.0.0.1",
        "example.org:80",
        "::1:80:",
        ":65536",
        ":",
        ":+1",
        "[::1]",
    ] {
        assert_eq!(Kind::Address.read(&word(text)), None, "{text:?}");
    }
}

#[test]
fn memory_is_a_size_or_a_share() {
    let memory = Kind::Memory {
        min: 1 << 16,
        max: 1 << 40,
    };
    for (text, value) in [
        ("64MiB", Value::Size(64 << 20)),
        ("65536", Value::Size(1 << 16)),
        ("1%", Value::Share(1)),
        ("100%", Value::Share(100)),
    ] {
        assert_eq!(memory.read(&word(text)).as_ref(), Some(&value), "{text}");
        assert_eq!(value.to_string().trim_matches('"').to_owned(), {
            let printed = value.to_json();
            printed.as_str().expect("text").to_owned()
        });
    }
    for text in ["0%", "101%", "1.5%", "-1%", "%", "50 %", "65535", "2TiB"] {
        assert_eq!(memory.read(&word(text)), None, "{text}");
    }
    assert_eq!(
        memory.read(&Written::Integer(1 << 20)),
        Some(Value::Size(1 << 20))
    );
}

#[test]
fn types_of_the_file_are_not_bent() {
    let count = Kind::Count { min: 1, max: 8 };
    assert_eq!(count.read(&Written::Integer(8)), Some(Value::Count(8)));
    for written in [
        Written::Integer(9),
        Written::Integer(0),
        Written::Integer(-1),
        Written::String("8".to_owned()),
        Written::Boolean(true),
        Written::Other("a table"),
        word("+8"),
        word(""),
        word("8 "),
    ] {
        assert_eq!(count.read(&written), None, "{written}");
    }
    assert_eq!(Kind::Switch.read(&Written::Integer(1)), None);
    assert_eq!(Kind::Switch.read(&Written::String("true".to_owned())), None);
    assert_eq!(Kind::Path.read(&Written::Boolean(true)), None);
}

#[test]
fn a_misspelt_name_finds_its_neighbour_and_nonsense_finds_none() {
    assert_eq!(nearest("wal_sync"), Some("wal-sync"));
    assert_eq!(nearest("wal.sync"), Some("wal-sync"));
    assert_eq!(nearest("WAL-SYNK"), Some("wal-sync"));
    assert_eq!(nearest("datadir"), Some("data-dir"));
    assert_eq!(nearest("evicton"), Some("eviction"));
    assert_eq!(nearest("frobnicate"), None);
}

#[test]
fn a_long_value_is_cut_in_messages() {
    let shown = word(&"ä".repeat(500)).to_string();
    assert_eq!(shown.chars().count(), 80 + 3);
}
