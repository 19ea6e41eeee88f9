//! Names that others than the object's own kind know: Kubernetes' names, and hosts and ports as Istio's networking kinds write them.

use super::field::{FieldError, FieldPath};

/// Longest name of DNS (RFC 1035).
const LONGEST: usize = 253;

/// Lower case, without a last dot.
pub fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Whether a host stands for all names below a domain.
pub fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// Checks a name, or `*.` and a name.
pub(super) fn name_or_wildcard(host: &str, path: &FieldPath) -> Result<(), FieldError> {
    if host == "*" {
        return Err(path.error("\"*\" would stand for every name there is: write the domain, as in \"*.example.com\""));
    }
    let name = host.strip_prefix("*.").unwrap_or(host);
    if name.contains('*') {
        return Err(path.error(format!(
            "{host:?}: only a whole first label may be a wildcard: write \"*.\" and the rest, as in \"*.example.com\""
        )));
    }
    full_name(name, path)
}

/// Checks a name of DNS.
pub(super) fn full_name(host: &str, path: &FieldPath) -> Result<(), FieldError> {
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() <= LONGEST && !name.is_empty() && name.split('.').all(is_label) {
        return Ok(());
    }
    Err(path.error(format!(
        "{host:?} is not a host name: labels of letters, digits and '-', at most 63 each and {LONGEST} in all, with dots \
         between them"
    )))
}

/// RFC 1123 subdomain, as the API server requires of names; a name is part of identities and xDS keys.
pub(super) fn dns_name(name: &str, path: &FieldPath) -> Result<(), FieldError> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    if bytes.len() <= 253 && bytes.iter().all(|b| inner(*b)) && end(bytes.first()) && end(bytes.last()) {
        return Ok(());
    }
    Err(path.error(format!(
        "{name:?} is not a Kubernetes name: lower-case letters, digits, '-' and '.', at most 253, beginning and \
         ending with a letter or digit"
    )))
}

fn is_label(label: &str) -> bool {
    let end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = label.as_bytes();
    bytes.len() <= 63
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && end(bytes.first())
        && end(bytes.last())
}

/// Checks a port's number.
pub(super) fn port(port: u32, path: &FieldPath) -> Result<(), FieldError> {
    match port {
        1..=65535 => Ok(()),
        _ => Err(path.error(format!("{port} is not a port: write 1 to 65535"))),
    }
}

/// Checks a port's name.
pub(super) fn port_name(name: &str, path: &FieldPath) -> Result<(), FieldError> {
    if is_label(name) {
        return Ok(());
    }
    Err(path.error(format!("{name:?} is not the name of a port: letters, digits and '-', at most 63, as in \"https\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let long = "a.".repeat(127);
        for (host, is_name, is_either) in [
            ("example.com", true, true),
            ("Example.COM.", true, true),
            ("db", true, true),
            ("1.2.3.4", true, true),
            ("*.example.com", false, true),
            ("*", false, false),
            ("*example.com", false, false),
            ("a.*.com", false, false),
            ("*.", false, false),
            ("", false, false),
            (".", false, false),
            ("a..b", false, false),
            ("-a.b", false, false),
            ("a_b.c", false, false),
            ("a/b", false, false),
            (&long, true, true),
            (&format!("{long}ab"), false, false),
        ] {
            let path = FieldPath::default();
            let found = (full_name(host, &path).is_ok(), name_or_wildcard(host, &path).is_ok());
            assert_eq!(found, (is_name, is_either), "{host:?}");
        }
        assert_eq!(normal("Example.COM."), "example.com");
    }
}
