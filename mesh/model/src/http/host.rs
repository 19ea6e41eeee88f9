//! `Host` and `:authority`.

use std::net::Ipv6Addr;

/// Longest host, in bytes: a DNS name has at most 253.
const MAX_HOST: usize = 255;

/// What is wrong with the host of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostFault {
    /// None, or an empty one.
    #[error("there is none")]
    Missing,
    /// More than one `Host`.
    #[error("there are several Host headers")]
    Several,
    /// `Host` is not what the request's target says.
    #[error("the Host header is another than the target's")]
    Different,
    /// Neither `http` nor `https`.
    #[error("the scheme is neither http nor https")]
    Scheme,
    /// A user's name or password.
    #[error("it has user information")]
    UserInfo,
    /// A character that no host name has.
    #[error("it has a character that is none of a host name")]
    Character,
    /// Two dots side by side, or one at the beginning.
    #[error("a part between its dots is empty")]
    EmptyLabel,
    /// Brackets that hold no IPv6 address.
    #[error("it is no IPv6 address in brackets")]
    Ipv6,
    /// Longer than 255 bytes.
    #[error("it is longer than 255 bytes")]
    Long,
    /// A port that is none.
    #[error("its port is not 1 to 65535")]
    Port,
}

/// A host, in canonical form, and the port beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) host: Box<str>,
    pub(super) port: Option<u16>,
}

/// In lower case, without a last dot; an IPv6 address in its normal form. An empty port is none.
pub(super) fn read(text: &[u8]) -> Result<Authority, HostFault> {
    if text.contains(&b'@') {
        return Err(HostFault::UserInfo);
    }
    if text.first() == Some(&b'[') {
        let end = text.iter().position(|byte| *byte == b']').ok_or(HostFault::Ipv6)?;
        let (address, rest) = (text.get(1..end).unwrap_or_default(), text.get(end + 1..).unwrap_or_default());
        let address = std::str::from_utf8(address).map_err(|_| HostFault::Ipv6)?;
        let address: Ipv6Addr = address.parse().map_err(|_| HostFault::Ipv6)?;
        let port = match rest {
            [] => None,
            [b':', digits @ ..] => port(digits)?,
            _ => return Err(HostFault::Ipv6),
        };
        return Ok(Authority { host: format!("[{address}]").into(), port });
    }
    let colon = text.iter().position(|byte| *byte == b':');
    let (host, rest) = text.split_at(colon.unwrap_or(text.len()));
    let port = match rest {
        [] => None,
        [_, digits @ ..] => port(digits)?,
    };
    Ok(Authority { host: name(host)?, port })
}

fn port(digits: &[u8]) -> Result<Option<u16>, HostFault> {
    if digits.is_empty() {
        return Ok(None);
    }
    if digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(HostFault::Port);
    }
    let number = digits.iter().fold(0_u32, |number, digit| 10 * number + u32::from(digit - b'0'));
    match u16::try_from(number) {
        Ok(0) | Err(_) => Err(HostFault::Port),
        Ok(port) => Ok(Some(port)),
    }
}

fn name(host: &[u8]) -> Result<Box<str>, HostFault> {
    if host.len() > MAX_HOST {
        return Err(HostFault::Long);
    }
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    if !host.iter().all(letter) {
        return Err(HostFault::Character);
    }
    let host = host.strip_suffix(b".").unwrap_or(host);
    if host.split(|byte| *byte == b'.').any(<[u8]>::is_empty) && !host.is_empty() {
        return Err(HostFault::EmptyLabel);
    }
    // All of it is ASCII.
    Ok(host.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect::<String>().into())
}
