//! Durations and sizes as people write them, both ways, without ever losing a digit.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Binary units first, so that a size is printed in them.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// `90` (seconds), `1500ms`, `90s`, `15m`, `12h` or `7d`; `None` for anything else.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let milliseconds = if unit.is_empty() {
        1_000
    } else {
        factor(&DURATION_UNITS, unit)?
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// The shortest exact spelling, in the largest unit that divides the duration.
pub(crate) fn print_duration(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    let (unit, factor) = DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, factor)| milliseconds.is_multiple_of(*factor))
        .expect("one millisecond divides every number of milliseconds");
    format!("{}{unit}", milliseconds / factor)
}

/// Bytes as `1048576`, `64B`, `1024KiB`, `1MiB`, or in powers of ten as `1MB`; `None` for anything else.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    if unit.is_empty() {
        return Some(number);
    }
    number.checked_mul(factor(&SIZE_UNITS, unit)?)
}

/// The shortest exact spelling: `64MiB`, or `65535` where no binary unit divides the size.
pub(crate) fn print_size(bytes: u64) -> String {
    let binary = SIZE_UNITS[..4]
        .iter()
        .rev()
        .find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor));
    match binary {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// Leading decimal digits and the rest. No sign and no white space: `-1s` and `1 s` are refused.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

fn factor(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_every_unit() {
        for (text, milliseconds) in [
            ("0", 0),
            ("90", 90_000),
            ("1500ms", 1_500),
            ("90s", 90_000),
            ("15m", 900_000),
            ("12h", 43_200_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "s",
            "-1s",
            "+1s",
            "1.5s",
            "1 s",
            " 1s",
            "1S",
            "1w",
            "1us",
            "99999999999999999999",
            "18446744073709551615d",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read_in_every_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65_536),
            ("2KiB", 2_048),
            ("64MiB", 64 << 20),
            ("3GiB", 3 << 30),
            ("1TiB", 1 << 40),
            ("2KB", 2_000),
            ("2MB", 2_000_000),
            ("2GB", 2_000_000_000),
            ("2TB", 2_000_000_000_000),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "KiB",
            "-1",
            "1.5MiB",
            "1 MiB",
            "1kib",
            "1M",
            "1b",
            "17000000TiB",
            "0x10",
        ] {
            assert_eq!(parse_size(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_printed_reads_back_as_it_was() {
        for milliseconds in [
            0, 1, 999, 1_000, 60_000, 90_000, 3_600_000, 86_400_000, 86_400_001,
        ] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(&print_duration(duration)), Some(duration));
        }
        for bytes in [
            0,
            1,
            1_023,
            1_024,
            65_535,
            1 << 20,
            (1 << 20) + 1,
            1 << 40,
            u64::MAX,
        ] {
            assert_eq!(parse_size(&print_size(bytes)), Some(bytes));
        }
        assert_eq!(print_duration(Duration::from_secs(90)), "90s");
        assert_eq!(print_duration(Duration::from_secs(86_400)), "1d");
        assert_eq!(print_size(64 << 20), "64MiB");
    }
}
