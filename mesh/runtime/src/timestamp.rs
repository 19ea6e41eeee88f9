//! Times as RFC 3339, in UTC (pure but for `Timestamp::now`): to the microsecond, as log lines print them, or with
//! `{:.0}` to the second, as Kubernetes objects have them.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

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
        let nanos = i128::from(self.micros) * 1000;
        let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| fmt::Error)?;
        let (year, month, day) = time.to_calendar_date();
        let (hour, minute, second, micros) = time.to_hms_micro();
        // Every line has one, so it is worth more than the formatting macros' machinery.
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        for (end, digits, number) in [
            (4, 4, year.unsigned_abs()),
            (7, 2, u8::from(month).into()),
            (10, 2, day.into()),
            (13, 2, hour.into()),
            (16, 2, minute.into()),
            (19, 2, second.into()),
            (26, 6, micros),
        ] {
            let mut rest = number;
            for at in (end - digits..end).rev() {
                text[at] = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        if f.precision() == Some(0) {
            text[19] = b'Z';
            return f.write_str(std::str::from_utf8(&text[..20]).unwrap_or_default());
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
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

    #[test]
    fn to_the_second() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_249_273, "2026-11-21T08:21:13Z"),
        ] {
            let time = UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            assert_eq!(format!("{:.0}", Timestamp::from(time)), expected);
        }
    }
}
