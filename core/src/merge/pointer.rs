//! JSON Pointers, RFC 6901.

use std::borrow::Cow;

use super::string::plain;
use super::text::Broken;

/// Bytes of a pointer that an error repeats.
const SHOWN_MAX: usize = 256;

/// A checked pointer: empty for the whole document, else its tokens each after a slash, with `~0` and `~1` in place. A
/// location has one spelling, so pointers compare as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer<'p> {
    text: Cow<'p, [u8]>,
}

impl<'p> Pointer<'p> {
    /// The pointer in a JSON string.
    pub(super) fn read(quoted: &'p [u8]) -> Result<Self, Broken> {
        let [b'"', .., b'"'] = quoted else {
            return Err(Broken);
        };
        let text = plain(quoted);
        let sound = text.is_empty() || text[0] == b'/';
        let mut after_tildes = text.split(|byte| *byte == b'~').skip(1);
        if sound && after_tildes.all(|after| matches!(after.first(), Some(b'0' | b'1'))) {
            Ok(Self { text })
        } else {
            Err(Broken)
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.text.is_empty()
    }

    /// Names and indices from the outside in, none for the whole document.
    pub(super) fn tokens(&self) -> impl Iterator<Item = Cow<'_, [u8]>> {
        self.text.split(|byte| *byte == b'/').skip(1).map(token)
    }

    /// The pointer to what contains the location, and the last token; nothing contains the whole document.
    pub(super) fn split(&self) -> Option<(Pointer<'_>, Cow<'_, [u8]>)> {
        let slash = self.text.iter().rposition(|byte| *byte == b'/')?;
        let parent = Pointer {
            text: Cow::Borrowed(&self.text[..slash]),
        };
        Some((parent, token(&self.text[slash + 1..])))
    }

    pub(super) fn depth(&self) -> usize {
        self.text.iter().filter(|byte| **byte == b'/').count()
    }

    /// Whether this location lies around the other one.
    pub(super) fn contains(&self, other: &Pointer<'_>) -> bool {
        other
            .text
            .strip_prefix(&*self.text)
            .is_some_and(|rest| rest.first() == Some(&b'/'))
    }

    /// For an error: cut where it is long.
    pub(super) fn shown(&self) -> String {
        match self.text.get(..SHOWN_MAX) {
            Some(cut) if cut.len() < self.text.len() => {
                format!(
                    "{}\u{2026}",
                    String::from_utf8_lossy(cut).trim_end_matches('\u{fffd}')
                )
            }
            _ => String::from_utf8_lossy(&self.text).into_owned(),
        }
    }
}

fn token(escaped: &[u8]) -> Cow<'_, [u8]> {
    if !escaped.contains(&b'~') {
        return Cow::Borrowed(escaped);
    }
    let mut token = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(&byte) = bytes.next() {
        token.push(match byte {
            b'~' if bytes.next() == Some(&b'1') => b'/',
            byte => byte,
        });
    }
    Cow::Owned(token)
}

/// The array index that a token is, `None` for anything else: digits without a leading zero.
pub(super) fn index(token: &[u8]) -> Option<usize> {
    match token {
        [b'0'] => Some(0),
        [b'1'..=b'9', ..] if token.iter().all(u8::is_ascii_digit) => {
            str::from_utf8(token).ok()?.parse().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(quoted: &str) -> Option<Vec<String>> {
        let pointer = Pointer::read(quoted.as_bytes()).ok()?;
        Some(
            pointer
                .tokens()
                .map(|token| String::from_utf8_lossy(&token).into_owned())
                .collect(),
        )
    }

    #[test]
    fn the_examples_of_rfc_6901() {
        for (pointer, expected) in [
            (r#""""#, vec![]),
            (r#""/foo""#, vec!["foo"]),
            (r#""/foo/0""#, vec!["foo", "0"]),
            (r#""/""#, vec![""]),
            (r#""/a~1b""#, vec!["a/b"]),
            (r#""/c%d""#, vec!["c%d"]),
            (r#""/i\\j""#, vec!["i\\j"]),
            (r#""/k\"l""#, vec!["k\"l"]),
            (r#""/ ""#, vec![" "]),
            (r#""/m~0n""#, vec!["m~n"]),
            (r#""/~01""#, vec!["~1"]),
            (r#""\u002fa//b""#, vec!["a", "", "b"]),
        ] {
            let expected: Vec<String> = expected.into_iter().map(Into::into).collect();
            assert_eq!(tokens(pointer), Some(expected), "{pointer}");
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for text in [
            r#""a""#,
            r#""a/b""#,
            r#""/~""#,
            r#""/~2""#,
            r#""/a~/b""#,
            r#""~0""#,
            "1",
            "null",
            "\"",
            "",
        ] {
            assert_eq!(tokens(text), None, "{text}");
        }
    }

    #[test]
    fn an_index_has_one_spelling() {
        for (token, expected) in [
            ("0", Some(0)),
            ("10", Some(10)),
            ("18446744073709551615", Some(usize::MAX)),
        ] {
            assert_eq!(index(token.as_bytes()), expected, "{token}");
        }
        for token in [
            "",
            "-",
            "-1",
            "+1",
            "00",
            "01",
            "1e0",
            "1.0",
            " 1",
            "1 ",
            "99999999999999999999",
        ] {
            assert_eq!(index(token.as_bytes()), None, "{token}");
        }
    }

    #[test]
    fn containing_is_by_tokens() {
        let contains = |a: &str, b: &str| {
            let read = |text: &str| Pointer {
                text: Cow::Owned(text.into()),
            };
            read(a).contains(&read(b))
        };
        assert!(contains("", "/a") && contains("/a", "/a/b"));
        assert!(
            !contains("/a", "/a")
                && !contains("/a", "/ab")
                && !contains("/a/b", "/a")
                && !contains("", "")
        );
    }

    #[test]
    fn a_long_pointer_is_cut_in_errors() {
        let quoted = format!("\"/{}\"", "\u{e9}".repeat(1000));
        let shown = Pointer::read(quoted.as_bytes()).expect("a pointer").shown();
        assert!(
            shown.len() < 300 && shown.ends_with("\u{e9}\u{2026}"),
            "{shown}"
        );
    }
}
