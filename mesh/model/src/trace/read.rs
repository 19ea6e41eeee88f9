//! What headers hold: one value, and ids in it, of hexadecimal digits in lower case, as many as there have to be.

use http::{HeaderMap, HeaderName};

/// A number of exactly `digits` digits that is not zero: zero means "none".
pub(super) fn id(text: &[u8], digits: usize) -> Option<u128> {
    number(text, digits).filter(|id| *id != 0)
}

/// A number of exactly `digits` digits.
pub(super) fn number(text: &[u8], digits: usize) -> Option<u128> {
    if text.len() != digits {
        return None;
    }
    text.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

/// The id of a span: 16 digits.
pub(super) fn span(text: &[u8]) -> Option<u64> {
    id(text, 16).and_then(|id| u64::try_from(id).ok())
}

/// The value of a header that is there once. Two of them are none: nobody knows which is meant.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    all.next().is_none().then(|| first.as_bytes())
}
