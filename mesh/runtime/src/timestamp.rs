//! Times as log lines print them: RFC 3339, UTC, microseconds (pure but for `Timestamp::now`).

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A moment between 1970 and 9999, to the microsecond.
#[derive(Clone, Copy, Debug)]
pub struct Timestamp {
    micros: u64,
}

impl Timestamp {
    pub(crate) fn now() -> Self {
        SystemTime::now().into()
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { micros: u64::try_from(since.as_micros()).unwrap_or(u64::MAX) }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.micros / 1_000_000, self.micros % 1_000_000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        // Every line has one, so it is worth more than the formatting macros' machinery.
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        for (end, digits, number) in [
            (4, 4, year),
            (7, 2, month),
            (10, 2, day),
            (13, 2, hour),
            (16, 2, minute),
            (19, 2, second),
            (26, 6, micros),
        ] {
            let mut rest = number;
            for at in (end - digits..end).rev() {
                text[at] = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// Days since 1970-01-01 as (year, month, day). Years are counted from March, so that the leap day is a year's last; an era is the 400
/// years after which the calendar repeats.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468; // from 0000-03-01
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399_999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_709_164_800_000_001, "2024-02-29T00:00:00.000001Z"),
            (1_735_689_599_000_000, "2024-12-31T23:59:59.000000Z"),
            (1_795_249_540_123_456, "2026-11-21T08:25:40.123456Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ];
        for (micros, expected) in cases {
            assert_eq!(Timestamp { micros }.to_string(), expected);
        }
    }
}
