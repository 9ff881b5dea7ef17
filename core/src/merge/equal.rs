//! Values compared as RFC 6902 section 4.6 asks: numbers by value, strings by character, objects without order.

use std::borrow::Cow;

use super::number;
use super::string::plain;
use super::text::{Broken, Items, is_array, is_object};
use super::work::{PART, Stop, Work};

/// A name and a value.
type Member<'a> = (Cow<'a, [u8]>, &'a [u8]);

/// Whether two texts stand for the same value. `levels` more levels may be entered.
pub(super) fn same(a: &[u8], b: &[u8], levels: u32, work: &mut Work) -> Result<bool, Stop> {
    work.spend(a.len().min(b.len()))?;
    if a == b {
        return Ok(true);
    }
    let inside = || levels.checked_sub(1).ok_or(Stop::Deep);
    match (a.first(), b.first()) {
        (Some(b'{'), Some(b'{')) => objects(a, b, inside()?, work),
        (Some(b'['), Some(b'[')) => arrays(a, b, inside()?, work),
        (Some(b'"'), Some(b'"')) => Ok(plain(a) == plain(b)),
        (Some(b'-' | b'0'..=b'9'), Some(b'-' | b'0'..=b'9')) => Ok(number::same(a, b)),
        _ => Ok(false),
    }
}

fn arrays(a: &[u8], b: &[u8], levels: u32, work: &mut Work) -> Result<bool, Stop> {
    debug_assert!(is_array(a) && is_array(b), "only called for arrays");
    let (mut a, mut b) = (items(a)?, items(b)?);
    loop {
        match (a.next().transpose()?, b.next().transpose()?) {
            (Some(a), Some(b)) => {
                // The scanner has been over both, and `same` goes over them again.
                work.spend(PART + a.value.len() + b.value.len())?;
                if !same(a.value, b.value, levels, work)? {
                    return Ok(false);
                }
            }
            (a, b) => return Ok(a.is_none() && b.is_none()),
        }
    }
}

fn objects(a: &[u8], b: &[u8], levels: u32, work: &mut Work) -> Result<bool, Stop> {
    debug_assert!(is_object(a) && is_object(b), "only called for objects");
    let (a, b) = (members(a, work)?, members(b, work)?);
    if a.len() != b.len() {
        return Ok(false);
    }
    for ((name_a, value_a), (name_b, value_b)) in a.iter().zip(&b) {
        if name_a != name_b || !same(value_a, value_b, levels, work)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The members sorted by name, of each name the last.
fn members<'a>(text: &'a [u8], work: &mut Work) -> Result<Vec<Member<'a>>, Stop> {
    work.spend(text.len())?;
    let mut members = Vec::new();
    for item in items(text)? {
        let item = item?;
        work.spend(PART)?;
        members.push((plain(item.name), item.value));
    }
    members.sort_by(|a, b| a.0.cmp(&b.0));
    members.dedup_by(|later, first| {
        let same = later.0 == first.0;
        if same {
            first.1 = later.1;
        }
        same
    });
    Ok(members)
}

fn items(text: &[u8]) -> Result<impl Iterator<Item = Result<super::text::Item<'_>, Stop>>, Stop> {
    let items = Items::of(text).map_err(|Broken| Stop::Broken)?;
    Ok(items.map(|item| item.map_err(|Broken| Stop::Broken)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(a: &str, b: &str, expected: bool) {
        for (a, b) in [(a, b), (b, a)] {
            let found =
                same(a.as_bytes(), b.as_bytes(), 128, &mut Work::new(0)).expect("small and valid");
            assert_eq!(found, expected, "{a} {b}");
        }
    }

    #[test]
    fn values_are_the_same_however_they_are_written() {
        check("1", "1.0", true);
        check(r#""\u0061""#, r#""a""#, true);
        check(
            r#"{"a":1,"b":[true,null]}"#,
            r#"{"b":[true,null],"\u0061":1e0}"#,
            true,
        );
        check(r#"{"a":1,"a":2}"#, r#"{"a":2}"#, true);
        check("[[],{}]", "[[],{}]", true);
    }

    #[test]
    fn different_values_are_told_apart() {
        for (a, b) in [
            ("1", "\"1\""),
            ("null", "false"),
            ("[]", "{}"),
            ("[1,2]", "[2,1]"),
            ("[1]", "[1,1]"),
            ("[]", "[null]"),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
            (r#"{"a":1}"#, r#"{"b":1}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":1}"#),
            (r#"{"a":{"b":[1]}}"#, r#"{"a":{"b":[2]}}"#),
            (r#""a""#, r#""b""#),
        ] {
            check(a, b, false);
        }
    }

    #[test]
    fn deep_values_stop_at_the_limit() {
        let deep = |inner: &str| "[".repeat(10_000) + inner + &"]".repeat(10_000);
        let (a, b) = (deep("1"), deep("2"));
        let found = same(a.as_bytes(), b.as_bytes(), 512, &mut Work::new(0));
        assert!(matches!(found, Err(Stop::Deep)), "{found:?}");
    }
}
