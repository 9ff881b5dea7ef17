//! Numbers compared by value, digit for digit: never through a binary fraction, which takes different ones for equal.

/// Exponents of more digits are not computed with.
const EXPONENT_DIGITS_MAX: usize = 36;

/// Whether two number texts stand for the same number: `1`, `1.0`, `10e-1`; `0`, `-0`, `0e9`.
///
/// Exponents beyond 36 digits are equal only where everything is spelt alike.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    if a == b {
        return true;
    }
    match (Decimal::read(a), Decimal::read(b)) {
        (Some(a), Some(b)) => {
            a.negative == b.negative
                && a.point == b.point
                && a.significant == b.significant
                && a.digits().eq(b.digits())
        }
        _ => false,
    }
}

/// A number as `0.digits` times ten to the power of `point`, with neither leading nor trailing zeros. Zero has no digits, no
/// sign and its point at 0.
struct Decimal<'a> {
    negative: bool,
    point: i128,
    whole: &'a [u8],
    fraction: &'a [u8],
    /// Zeros to leave out in front.
    leading: usize,
    /// Digits that count from there on.
    significant: usize,
}

impl<'a> Decimal<'a> {
    fn read(text: &'a [u8]) -> Option<Self> {
        let (negative, text) = match text.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, &b"0"[..]),
        };
        let (whole, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
            Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
            None => (mantissa, &b""[..]),
        };
        let digits = || whole.iter().chain(fraction);
        if whole.is_empty() || !digits().all(u8::is_ascii_digit) {
            return None;
        }
        let Some(leading) = digits().position(|digit| *digit != b'0') else {
            return Some(Self {
                negative: false,
                point: 0,
                whole,
                fraction,
                leading: 0,
                significant: 0,
            });
        };
        let trailing = digits().rev().take_while(|digit| **digit == b'0').count();
        Some(Self {
            negative,
            point: power(exponent)? + whole.len() as i128 - leading as i128,
            whole,
            fraction,
            leading,
            significant: whole.len() + fraction.len() - leading - trailing,
        })
    }

    fn digits(&self) -> impl Iterator<Item = &u8> {
        self.whole
            .iter()
            .chain(self.fraction)
            .skip(self.leading)
            .take(self.significant)
    }
}

fn power(exponent: &[u8]) -> Option<i128> {
    let (negative, digits) = match exponent {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    if digits.is_empty() || digits.len() - zeros > EXPONENT_DIGITS_MAX {
        return None;
    }
    let mut power = 0;
    for digit in digits {
        power = power * 10 + i128::from(char::from(*digit).to_digit(10)?);
    }
    Some(if negative { -power } else { power })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_has_many_spellings() {
        let alike: [&[&str]; 6] = [
            &[
                "0",
                "-0",
                "0.0",
                "-0.00e7",
                "0e99999999999999999999999999999999999999999",
            ],
            &["1", "1.0", "1e0", "10e-1", "0.1E1", "0.01e+02", "100E-0002"],
            &["-12.5", "-125e-1", "-0.125e2", "-12.50"],
            &["100", "1e2", "0.1e3"],
            &[
                "9007199254740993",
                "9007199254740993.0",
                "9.007199254740993e15",
            ],
            &["1e400", "10e399", "0.001e403"],
        ];
        for (group, numbers) in alike.iter().enumerate() {
            for (other_group, other_numbers) in alike.iter().enumerate() {
                for a in *numbers {
                    for b in *other_numbers {
                        assert_eq!(
                            same(a.as_bytes(), b.as_bytes()),
                            group == other_group,
                            "{a} {b}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn near_numbers_differ() {
        for (a, b) in [
            ("9007199254740993", "9007199254740992"),
            ("0.1", "0.1000000000000000055511151231257827"),
            ("1", "-1"),
            ("10", "1"),
            ("101", "11"),
            ("1e400", "1e401"),
            (
                "1e99999999999999999999999999999999999999999",
                "1e99999999999999999999999999999999999999998",
            ),
        ] {
            assert!(!same(a.as_bytes(), b.as_bytes()), "{a} {b}");
        }
    }

    #[test]
    fn what_is_no_number_equals_only_itself() {
        for text in ["", "-", ".5", "1e", "1e+", "true", "1.2.3", "1e1e1"] {
            assert!(same(text.as_bytes(), text.as_bytes()), "{text}");
            assert!(!same(text.as_bytes(), b"5"), "{text}");
        }
    }
}
