//! Durations as clients write them: `90`, `1500ms`, `90s`, `15m`, `12h`, `7d`.

/// The longest time to live that is taken, a hundred years: what is meant to last longer needs no expiry.
pub(crate) const TTL_MS_MAX: u64 = 100 * 366 * 24 * 60 * 60 * 1000;

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Why a text is no time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TtlError {
    #[error("is not whole seconds or a number with one of the units ms, s, m, h, d")]
    Malformed,
    #[error("must be above zero")]
    NotPositive,
    #[error("is longer than 100 years")]
    TooLong,
}

/// What a `ttl` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ttl {
    /// `none`: no expiry.
    Clear,
    /// Milliseconds from now.
    For(u64),
}

/// Reads a `ttl` argument.
pub(crate) fn parse(text: &str) -> Result<Ttl, TtlError> {
    if text == "none" {
        return Ok(Ttl::Clear);
    }
    milliseconds(text).map(Ttl::For)
}

/// Whole seconds, as JSON numbers give them.
pub(crate) fn from_seconds(seconds: i64) -> Result<Ttl, TtlError> {
    let seconds = u64::try_from(seconds).map_err(|_| TtlError::NotPositive)?;
    checked(seconds, 1000).map(Ttl::For)
}

fn milliseconds(text: &str) -> Result<u64, TtlError> {
    let (negative, text) = text
        .strip_prefix('-')
        .map_or((false, text), |rest| (true, rest));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1000,
        unit => {
            UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or(TtlError::Malformed)?
                .1
        }
    };
    if number.is_empty() {
        return Err(TtlError::Malformed);
    }
    if negative {
        return Err(TtlError::NotPositive);
    }
    // Only digits are left: what does not fit is too large.
    checked(number.parse().map_err(|_| TtlError::TooLong)?, factor)
}

fn checked(number: u64, factor: u64) -> Result<u64, TtlError> {
    match number.checked_mul(factor) {
        Some(0) => Err(TtlError::NotPositive),
        Some(ms) if ms <= TTL_MS_MAX => Ok(ms),
        _ => Err(TtlError::TooLong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_and_every_mistake() {
        let cases = [
            ("90", Ok(Ttl::For(90_000))),
            ("1500ms", Ok(Ttl::For(1500))),
            ("90s", Ok(Ttl::For(90_000))),
            ("15m", Ok(Ttl::For(900_000))),
            ("12h", Ok(Ttl::For(43_200_000))),
            ("7d", Ok(Ttl::For(604_800_000))),
            ("none", Ok(Ttl::Clear)),
            ("0", Err(TtlError::NotPositive)),
            ("0ms", Err(TtlError::NotPositive)),
            ("-1", Err(TtlError::NotPositive)),
            ("-5m", Err(TtlError::NotPositive)),
            ("", Err(TtlError::Malformed)),
            ("s", Err(TtlError::Malformed)),
            ("-", Err(TtlError::Malformed)),
            ("1.5h", Err(TtlError::Malformed)),
            ("1 s", Err(TtlError::Malformed)),
            ("+1", Err(TtlError::Malformed)),
            ("5w", Err(TtlError::Malformed)),
            ("NONE", Err(TtlError::Malformed)),
            ("99999999999999999999999", Err(TtlError::TooLong)),
            ("36601d", Err(TtlError::TooLong)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(from_seconds(90), Ok(Ttl::For(90_000)));
        assert_eq!(from_seconds(0), Err(TtlError::NotPositive));
        assert_eq!(from_seconds(-1), Err(TtlError::NotPositive));
        assert_eq!(from_seconds(i64::MAX), Err(TtlError::TooLong));
    }
}
