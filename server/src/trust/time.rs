//! Instants as people write them (RFC 3339), in UTC. The calendar arithmetic is Howard Hinnant's "chrono-Compatible
//! Low-Level Date Algorithms".

const DAY_SECONDS: i64 = 86_400;

/// Seconds since the Unix epoch of a date and time in UTC.
pub(super) fn seconds(year: i64, month: i64, day: i64, second_of_day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era - 719_468) * DAY_SECONDS + second_of_day
}

/// `2026-11-25T15:04:05.678Z`
pub(super) fn rfc3339(milliseconds: u64) -> String {
    let seconds = i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX);
    let days = seconds.div_euclid(DAY_SECONDS) + 719_468;
    let rest = seconds.rem_euclid(DAY_SECONDS);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        milliseconds % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (date, text) in [
            ((1970, 1, 1), "1970-01-01"),
            ((2000, 2, 29), "2000-02-29"),
            ((2027, 1, 1), "2027-01-01"),
            ((2100, 3, 1), "2100-03-01"),
            ((9999, 12, 31), "9999-12-31"),
        ] {
            let (year, month, day) = date;
            let at = seconds(year, month, day, 3_723);
            let milliseconds = u64::try_from(at).expect("after 1970") * 1000 + 7;
            assert_eq!(rfc3339(milliseconds), format!("{text}T01:02:03.007Z"));
        }
        assert_eq!(seconds(2026, 11, 25, 0), 1_795_564_800);
    }
}
