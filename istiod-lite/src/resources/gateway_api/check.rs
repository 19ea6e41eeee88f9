//! Checks of single values, as the API's own definitions have them.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::resources::field::{FieldError, FieldPath};

/// What a check comes to.
pub(super) type Checked = Result<(), FieldError>;

pub(super) fn at_most<T>(list: &[T], most: usize, path: &FieldPath) -> Checked {
    if list.len() <= most {
        return Ok(());
    }
    Err(path.error(format!("{} of them, and {most} is the most (Gateway API): make it several objects", list.len())))
}

pub(super) fn length(text: &str, least: usize, most: usize, path: &FieldPath) -> Checked {
    if (least..=most).contains(&text.len()) {
        return Ok(());
    }
    Err(path.error(format!("{} characters: {least} to {most} are allowed", text.len())))
}

/// A field of the API that is not followed here.
pub(super) fn unsupported(is_set: bool, path: &FieldPath, fix: &str) -> Checked {
    if is_set { Err(path.error(format!("not supported here: {fix}"))) } else { Ok(()) }
}

pub(super) fn port(number: i64, path: &FieldPath) -> Checked {
    if (1..=65535).contains(&number) {
        return Ok(());
    }
    Err(path.error(format!("{number} is not a port: write 1 to 65535")))
}

/// RFC 1123 subdomain.
pub(super) fn section_name(name: &str, path: &FieldPath) -> Checked {
    if is_subdomain(name) {
        return Ok(());
    }
    Err(path.error(format!(
        "{name:?} is not a name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit"
    )))
}

/// The name of a host: no address, no star.
pub(super) fn hostname(name: &str, path: &FieldPath) -> Checked {
    if is_subdomain(name) && name.parse::<IpAddr>().is_err() {
        return Ok(());
    }
    Err(path.error(format!("{name:?} is not the name of a host: write for example shop.example.com")))
}

/// The same, with a star as its first label.
pub(super) fn host_pattern(name: &str, path: &FieldPath) -> Checked {
    hostname(name.strip_prefix("*.").unwrap_or(name), path)
}

pub(super) fn ip(text: &str, path: &FieldPath) -> Checked {
    text.parse::<IpAddr>().map(drop).map_err(|_| path.error(format!("{text:?} is not an IP address")))
}

fn is_subdomain(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.iter().all(|b| inner(*b)) && end(bytes.first()) && end(bytes.last())
    };
    (1..=253).contains(&name.len()) && name.split('.').all(label)
}

/// The name of a header or query parameter (RFC 9110, token).
pub(super) fn header_name(name: &str, path: &FieldPath) -> Checked {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if (1..=256).contains(&name.len()) && name.bytes().all(token) {
        return Ok(());
    }
    Err(path.error(format!("{name:?} is not the name of a header: letters, digits and !#$%&'*+-.^_`|~, at most 256")))
}

/// `^([0-9]{1,5}(h|m|s|ms)){1,4}$` (GEP-2257).
pub(super) fn duration(text: &str, path: &FieldPath) -> Checked {
    match parse_duration(text) {
        Some(_) => Ok(()),
        None => Err(path.error(format!("{text:?} is not a duration: write for example 10s, 250ms or 1m30s"))),
    }
}

/// A duration in the API's form.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total, mut parts) = (text, Duration::ZERO, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits)?.parse().ok().filter(|_| digits <= 5)?;
        rest = &rest[digits..];
        let (unit, after) = ["ms", "h", "m", "s"].iter().find_map(|unit| Some((*unit, rest.strip_prefix(unit)?)))?;
        rest = after;
        parts += 1;
        total += match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number * 60),
            _ => Duration::from_secs(number * 3600),
        };
    }
    (1..=4).contains(&parts).then_some(total)
}

pub(super) fn selector(selector: &LabelSelector, path: &FieldPath) -> Checked {
    let path = path.field("matchExpressions");
    for (i, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let at = path.index(i);
        let values = expression.values.as_deref().unwrap_or_default();
        match expression.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                return Err(at.field("values").error("missing: In and NotIn compare with some values"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                return Err(at.field("values").error("Exists and DoesNotExist have no values: remove them"));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let message = format!("{other:?} is not known: write In, NotIn, Exists or DoesNotExist");
                return Err(at.field("operator").error(message));
            }
        }
    }
    Ok(())
}

/// An absolute path, in the characters that the API takes.
pub(super) fn path_value(value: &str, path: &FieldPath) -> Checked {
    length(value, 1, 1024, path)?;
    if !value.starts_with('/') {
        return Err(path.error(format!("{value:?} does not begin with '/'")));
    }
    for wrong in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        if value.contains(wrong) {
            return Err(path.error(format!("{value:?} holds {wrong:?}, which no path has in its canonical form")));
        }
    }
    if value.ends_with("/.") || value.ends_with("/..") {
        return Err(path.error(format!("{value:?} ends with dots, which no path does in its canonical form")));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@%".contains(&b);
    let escapes = value.split('%').skip(1).all(|rest| {
        let hex = rest.as_bytes().get(..2);
        hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    });
    if value.bytes().all(plain) && escapes {
        return Ok(());
    }
    Err(path.error(format!("{value:?} holds characters that a path does not have: write them as %XX")))
}
