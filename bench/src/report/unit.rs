//! Units, and numbers as people read them.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    Microseconds,
    Seconds,
    PerSecond,
    Bytes,
    /// A multiple of something else.
    Ratio,
    Percent,
    Count,
    Cores,
}

impl Unit {
    /// With its unit, in three or four digits.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Microseconds => time(value / 1e6),
            Self::Seconds => time(value),
            Self::PerSecond => format!("{}/s", scaled(value)),
            Self::Bytes => bytes(value),
            Self::Ratio => format!("{value:.2}×"),
            Self::Percent => format!("{} %", short(value)),
            Self::Count => scaled(value),
            Self::Cores => format!("{value:.2} cores"),
        }
    }
}

fn time(seconds: f64) -> String {
    let (value, unit) = match seconds.abs() {
        size if size >= 1.0 || size == 0.0 => (seconds, "s"),
        size if size >= 1e-3 => (seconds * 1e3, "ms"),
        size if size >= 1e-6 => (seconds * 1e6, "µs"),
        _ => (seconds * 1e9, "ns"),
    };
    format!("{} {unit}", short(value))
}

fn bytes(value: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut at) = (value, 0);
    while value.abs() >= 1024.0 && at + 1 < UNITS.len() {
        value /= 1024.0;
        at += 1;
    }
    format!("{} {}", short(value), UNITS[at])
}

/// Thousands as k, millions as M.
fn scaled(value: f64) -> String {
    match value.abs() {
        size if size >= 999_950_000.0 => format!("{}G", short(value / 1e9)),
        size if size >= 999_950.0 => format!("{}M", short(value / 1e6)),
        size if size >= 9_999.5 => format!("{}k", short(value / 1e3)),
        _ => short(value),
    }
}

/// Three digits that count, and no zeros behind a point.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 99.95 || size == 0.0 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Unit;

    #[test]
    fn numbers_are_short_and_have_their_unit() {
        for (unit, value, shown) in [
            (Unit::Microseconds, 0.0, "0 s"),
            (Unit::Microseconds, 12.345, "12.3 µs"),
            (Unit::Microseconds, 2_500.0, "2.5 ms"),
            (Unit::Microseconds, 0.25, "250 ns"),
            (Unit::Seconds, 61.0, "61 s"),
            (Unit::PerSecond, 950.0, "950/s"),
            (Unit::PerSecond, 123_456.0, "123k/s"),
            (Unit::PerSecond, 1_300_000.0, "1.3M/s"),
            (Unit::Bytes, 140.0, "140 B"),
            (Unit::Bytes, 1_572_864.0, "1.5 MiB"),
            (Unit::Ratio, 1.049, "1.05×"),
            (Unit::Percent, 100.0, "100 %"),
            (Unit::Count, 4_000.0, "4000"),
            (Unit::Cores, 1.5, "1.50 cores"),
        ] {
            assert_eq!(unit.show(value), shown);
        }
    }
}
