//! Documents like those that are given: the same members, texts and numbers that differ.
//!
//! Every digit of a value is drawn anew and the words of every longer text change places, so that two copies have little in
//! common but their shape and their vocabulary. Names of members stay.

/// A string of at least so many bytes is a text.
const TEXT_BYTES: usize = 24;

/// A copy of a JSON document with other values of the same lengths.
pub(super) fn changed(document: &str, random: &mut fastrand::Rng) -> String {
    let mut out = String::with_capacity(document.len());
    let mut rest = document;
    while let Some(at) = rest.find('"') {
        digits(&rest[..at], random, &mut out);
        let end = at + 1 + string_len(&rest[at + 1..]);
        let text = &rest[at + 1..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        out.push('"');
        if rest.starts_with(':') {
            out.push_str(text);
        } else if text.len() >= TEXT_BYTES {
            shuffled(text, random, &mut out);
        } else {
            digits(text, random, &mut out);
        }
        out.push('"');
    }
    digits(rest, random, &mut out);
    out
}

/// Bytes up to the quote that ends a string.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at,
            _ => {}
        }
    }
    text.len()
}

/// Digits that are no part of an escape; one that a number begins with stays, so that none begins with 0.
fn digits(text: &str, random: &mut fastrand::Rng, out: &mut String) {
    let (mut escape, mut inside) = (0, false);
    for char in text.chars() {
        let mut char_out = char;
        if escape > 0 {
            escape -= 1;
            if char == 'u' && escape == 0 {
                escape = 4;
            }
        } else if char == '\\' {
            escape = 1;
        } else if char.is_ascii_digit() && inside {
            char_out = char::from(b'0' + random.u8(..10));
        }
        inside = char.is_ascii_digit();
        out.push(char_out);
    }
}

/// Words in another order. An escape has no space in it.
fn shuffled(text: &str, random: &mut fastrand::Rng, out: &mut String) {
    let mut words: Vec<&str> = text.split(' ').collect();
    random.shuffle(&mut words);
    for (number, word) in words.into_iter().enumerate() {
        if number > 0 {
            out.push(' ');
        }
        digits(word, random, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_copy_is_json_of_the_same_shape_and_length_with_other_values() {
        let document = r#"{"id":1234567,"n1":-0.5e10,"name":"a\"b\\","u":"\u00e9\u1234 12","text":"one two 345 three\n four five six seven","list":[10,20,[],{"x":null}]}"#;
        let mut random = fastrand::Rng::with_seed(7);
        let copy = changed(document, &mut random);
        assert_eq!(copy.len(), document.len());
        assert_ne!(copy, document);
        let value: Value = serde_json::from_str(&copy).expect("it is JSON");
        assert_eq!(value["name"], "a\"b\\");
        assert!(
            value["u"]
                .as_str()
                .expect("a string")
                .starts_with("\u{e9}\u{1234} 1")
        );
        assert_eq!(value["list"][3]["x"], Value::Null);
        let mut words: Vec<&str> = value["text"]
            .as_str()
            .expect("a string")
            .split(' ')
            .collect();
        words.sort_unstable();
        assert!(words.contains(&"seven") && words.len() == 8, "{words:?}");
        assert_ne!(changed(document, &mut random), copy);
    }
}
