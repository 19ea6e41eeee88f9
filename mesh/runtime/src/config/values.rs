//! The forms single values take (pure).

use std::time::Duration;

/// A part of something counted elsewhere, such as this machine's cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// So many.
    Count(usize),
    /// So many in a hundred; 0 to 100.
    Percent(u8),
}

impl Share {
    /// What the share comes to out of `whole`, rounded up so that a small share of few is still one.
    pub fn of(self, whole: usize) -> usize {
        match self {
            Share::Count(count) => count,
            Share::Percent(percent) => (whole * usize::from(percent)).div_ceil(100),
        }
    }
}

/// A count (`4`) or a percentage (`25%`, at most `100%`).
pub fn parse_share(text: &str) -> Option<Share> {
    match text.strip_suffix('%') {
        Some(percent) => digits(percent)?.parse().ok().filter(|percent| *percent <= 100).map(Share::Percent),
        None => digits(text)?.parse().ok().map(Share::Count),
    }
}

/// A truth value in the spellings Go's `strconv.ParseBool` accepts, since people carry them over from Istio charts.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// A length of time as Go writes it: numbers with units, largest first or not (`1h30m`, `1.5s`, `250ms`), or a bare `0`. Never
/// negative. Too long for 64 bits of nanoseconds is refused.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let unit_nanos: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        if !whole.is_empty() {
            nanos = nanos.checked_add(whole.parse::<u64>().ok()?.checked_mul(unit_nanos)?)?;
        }
        // Digits worth less than a nanosecond are dropped, as Go does.
        let mut digit_nanos = unit_nanos;
        for digit in fraction.bytes() {
            digit_nanos /= 10;
            nanos = nanos.checked_add(u64::from(digit - b'0') * digit_nanos)?;
        }
        rest = next;
    }
    Some(Duration::from_nanos(nanos))
}

/// `text`, if it is digits only: `parse` alone would also take a sign.
fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let cases = [
            ("0", ms(0)),
            ("0s", ms(0)),
            ("10s", ms(10_000)),
            ("5m", ms(300_000)),
            ("250ms", ms(250)),
            ("24h", ms(86_400_000)),
            ("1h30m", ms(5_400_000)),
            ("1.5s", ms(1_500)),
            (".5s", ms(500)),
            ("1.s", ms(1_000)),
            ("+2s", ms(2_000)),
            ("1500us", Some(Duration::from_micros(1_500))),
            ("7µs", Some(Duration::from_micros(7))),
            ("9ns", Some(Duration::from_nanos(9))),
            ("0.0000000001s", ms(0)),
            ("", None),
            ("10", None),
            ("s", None),
            (".s", None),
            ("-5s", None),
            ("5 s", None),
            ("1.2.3s", None),
            ("5d", None),
            ("10sx", None),
            ("99999999999999999999s", None),
            ("9999999999h", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), expected, "{text:?}");
        }
    }

    #[test]
    fn truth() {
        for text in ["1", "t", "T", "true", "True", "TRUE"] {
            assert_eq!(parse_bool(text), Some(true), "{text}");
        }
        for text in ["0", "f", "F", "false", "False", "FALSE"] {
            assert_eq!(parse_bool(text), Some(false), "{text}");
        }
        for text in ["", "yes", "on", "tRUE", "2"] {
            assert_eq!(parse_bool(text), None, "{text}");
        }
    }

    #[test]
    fn shares() {
        let cases = [
            ("0", Some(Share::Count(0))),
            ("4", Some(Share::Count(4))),
            ("25%", Some(Share::Percent(25))),
            ("100%", Some(Share::Percent(100))),
            ("101%", None),
            ("%", None),
            ("-1", None),
            ("+1", None),
            ("2.5", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_share(text), expected, "{text:?}");
        }
        assert_eq!(Share::Percent(25).of(8), 2);
        assert_eq!(Share::Percent(25).of(2), 1);
        assert_eq!(Share::Count(3).of(64), 3);
    }
}
