//! Sets of characters that a key may be made of: `printable-ascii`, or spelt out as `a-z0-9:_-`.

/// Most ranges of one set.
const RANGES_MAX: usize = 256;

/// A set of characters.
#[derive(Debug, Clone)]
pub(crate) struct Charset {
    /// How it was written.
    written: String,
    /// One bit an ASCII character: most keys are looked up here alone.
    ascii: u128,
    /// The other ranges, both ends included.
    wide: Vec<(char, char)>,
}

impl Charset {
    /// Reads a name or a list of characters and ranges.
    pub(crate) fn parse(written: &str) -> Result<Self, String> {
        let ranges = match written {
            "printable-ascii" => vec![(' ', '~')],
            "alphanumeric" => vec![('a', 'z'), ('A', 'Z'), ('0', '9')],
            // RFC 3986, section 2.3: what needs no percent-encoding anywhere.
            "url-safe" => vec![
                ('a', 'z'),
                ('A', 'Z'),
                ('0', '9'),
                ('-', '-'),
                ('.', '.'),
                ('_', '_'),
                ('~', '~'),
            ],
            explicit => ranges(explicit)?,
        };
        let mut set = Self {
            written: written.to_owned(),
            ascii: 0,
            wide: Vec::new(),
        };
        for (first, last) in ranges {
            for code in u32::from(first)..=u32::from(last).min(127) {
                set.ascii |= 1 << code;
            }
            if !last.is_ascii() {
                set.wide.push((first, last));
            }
        }
        Ok(set)
    }

    pub(crate) fn contains(&self, character: char) -> bool {
        if character.is_ascii() {
            return self.ascii >> u32::from(character) & 1 == 1;
        }
        self.wide
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&character))
    }

    /// The first character of `text` that is not in the set.
    pub(crate) fn stranger(&self, text: &str) -> Option<char> {
        text.chars().find(|character| !self.contains(*character))
    }

    pub(crate) fn written(&self) -> &str {
        &self.written
    }
}

/// `a-z0-9:_-`: a minus sign stands for itself first and last; `\` takes the next character as it is.
fn ranges(written: &str) -> Result<Vec<(char, char)>, String> {
    let mut ranges: Vec<(char, char)> = Vec::new();
    let mut characters = written.chars().peekable();
    let mut open = false;
    while let Some(character) = characters.next() {
        let (character, escaped) = match character {
            '\\' => match characters.next() {
                Some(next) => (next, true),
                None => return Err("a backslash with nothing after it".to_owned()),
            },
            other => (other, false),
        };
        if open {
            open = false;
            let (first, last) = ranges.last_mut().expect("a range was begun");
            if character < *first {
                return Err(format!(
                    "the range `{first}-{character}`, which runs backwards"
                ));
            }
            *last = character;
            continue;
        }
        if character == '-' && !escaped && !ranges.is_empty() && characters.peek().is_some() {
            let (first, last) = ranges.last().expect("it is not empty");
            if first != last {
                return Err(format!(
                    "`{first}-{last}-`, where a minus sign has two meanings"
                ));
            }
            open = true;
            continue;
        }
        ranges.push((character, character));
    }
    if ranges.is_empty() {
        return Err("an empty set".to_owned());
    }
    if ranges.len() > RANGES_MAX {
        return Err(format!("{} ranges", ranges.len()));
    }
    Ok(ranges)
}

/// What a set may be, to stand after "expected".
pub(crate) const EXPECTED: &str =
    "printable-ascii, alphanumeric, url-safe, or characters and ranges such as \"a-z0-9:_-\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_contain_what_they_say() {
        let cases = [
            ("alphanumeric", "azAZ09", "-_ é/"),
            ("printable-ascii", " ~a/", "\n\u{7f}é"),
            ("url-safe", "a9-._~", "/: %"),
            ("a-z0-9:_-", "az09:_-", "A./"),
            ("-a", "-a", "b"),
            ("a\\-z", "a-z", "b"),
            ("\\\\", "\\", "/"),
            ("а-я", "ая", "aё"),
            ("!-é", "!~é", " ê"),
        ];
        for (written, inside, outside) in cases {
            let set = Charset::parse(written).expect(written);
            assert_eq!(set.stranger(inside), None, "{written}");
            for character in outside.chars() {
                assert!(!set.contains(character), "{written} {character:?}");
            }
        }
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        for written in ["", "z-a", "a-c-e", "\\"] {
            assert!(Charset::parse(written).is_err(), "{written:?}");
        }
    }
}
