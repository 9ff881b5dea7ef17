//! Instants as RFC 3339 writes them.

use std::time::{SystemTime, UNIX_EPOCH};

const SECONDS_A_DAY: u64 = 86_400;

/// Appends `at` in UTC with microseconds, such as `2026-11-25T14:43:06.123456Z`. Times before 1970 read as 1970.
pub(crate) fn push_rfc3339(out: &mut Vec<u8>, at: SystemTime) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (
        since.as_secs() / SECONDS_A_DAY,
        since.as_secs() % SECONDS_A_DAY,
    );
    let (year, month, day) = civil(days);
    push_digits(out, year, 4);
    for (number, before) in [(month, b'-'), (day, b'-')] {
        out.push(before);
        push_digits(out, number, 2);
    }
    for (number, before) in [
        (second / 3600, b'T'),
        (second / 60 % 60, b':'),
        (second % 60, b':'),
    ] {
        out.push(before);
        push_digits(out, number, 2);
    }
    out.push(b'.');
    push_digits(out, u64::from(since.subsec_micros()), 6);
    out.push(b'Z');
}

/// Year, month and day of the day number `days` after 1970-01-01, by Howard Hinnant's `civil_from_days`
/// ("chrono-Compatible Low-Level Date Algorithms"): years begin in March, so that the odd day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_AN_ERA: u64 = 146_097;
    // Day 0 is 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days / DAYS_AN_ERA, days % DAYS_AN_ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

fn push_digits(out: &mut Vec<u8>, number: u64, width: u32) {
    for place in (0..width).rev() {
        // A digit fits a byte.
        out.push(b'0' + (number / 10u64.pow(place) % 10) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn check(seconds: u64, micros: u64, expected: &str) {
        let mut out = Vec::new();
        let since = Duration::from_secs(seconds) + Duration::from_micros(micros);
        push_rfc3339(&mut out, UNIX_EPOCH + since);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn instants_are_told_in_utc() {
        check(0, 0, "1970-01-01T00:00:00.000000Z");
        check(951_782_399, 999_999, "2000-02-28T23:59:59.999999Z");
        check(951_782_400, 1, "2000-02-29T00:00:00.000001Z");
        check(951_868_800, 0, "2000-03-01T00:00:00.000000Z");
        check(1_735_689_599, 0, "2024-12-31T23:59:59.000000Z");
        check(4_107_542_399, 0, "2100-02-28T23:59:59.000000Z");
        check(4_107_542_400, 0, "2100-03-01T00:00:00.000000Z");
    }
}
