//! What a SOCKS client says, version 5 (RFC 1928): CONNECT without authentication. Pure; `outbound::socks` holds the
//! conversation.
//!
//! A client may go on with what is for the other end without waiting for an answer, so nothing may be read past a
//! message: each function says how many bytes there are at least, until it has them all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest message: a request for a name of 255 bytes.
pub const LONGEST: usize = 4 + 1 + 255 + 2;
/// No method that the client offers is one that we have.
pub const NO_METHOD: [u8; 2] = [5, 0xff];
/// No authentication, as the client offered.
pub const NO_AUTHENTICATION: [u8; 2] = [5, 0];

/// What came of the bytes so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read<T> {
    /// There are so many more, at least.
    More(usize),
    /// They are a whole message.
    Whole(T),
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Address(SocketAddr),
    /// A name, lower case, to be resolved here; and a port.
    Name(String, u16),
}

/// Why a client is not understood, or not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is something else.
    #[error("this is not SOCKS version 5: the first byte is {0}")]
    Version(u8),
    /// It wants to prove who it is.
    #[error("the client offers no way without authentication; who may speak here is known already")]
    Method,
    /// BIND, UDP ASSOCIATE or something unknown.
    #[error("command {0} is not CONNECT (1)")]
    Command(u8),
    /// Not IPv4 (1), a name (3) or IPv6 (4).
    #[error("address type {0} is unknown")]
    AddressType(u8),
    /// A name that is none.
    #[error("the name asked for is no host name")]
    Name,
}

/// What is answered to a request (RFC 1928, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply {
    /// The connection is open.
    Succeeded = 0,
    /// It is not, and the log says why.
    Failed = 1,
    /// The name does not resolve.
    HostUnreachable = 4,
    /// Something else than CONNECT.
    CommandNotSupported = 7,
    /// An address of a type that is unknown.
    AddressTypeNotSupported = 8,
}

impl Reply {
    /// On the wire. The address bound is not told: it is nothing that an application could use.
    pub fn bytes(self) -> [u8; 10] {
        [5, self as u8, 0, 1, 0, 0, 0, 0, 0, 0]
    }
}

impl Refused {
    /// What is answered, if there is a word for it.
    pub fn reply(self) -> Option<Reply> {
        match self {
            Self::Version(_) | Self::Method => None,
            Self::Command(_) => Some(Reply::CommandNotSupported),
            Self::AddressType(_) => Some(Reply::AddressTypeNotSupported),
            Self::Name => Some(Reply::HostUnreachable),
        }
    }
}

/// The first message: which ways to authenticate the client has. `Whole` if one of them is none.
///
/// # Errors
/// When it is another protocol, or the client insists on authentication.
pub fn greeting(bytes: &[u8]) -> Result<Read<()>, Refused> {
    version(bytes)?;
    let [_, count, methods @ ..] = bytes else { return Ok(Read::More(2 - bytes.len())) };
    match usize::from(*count).checked_sub(methods.len()) {
        Some(more @ 1..) => Ok(Read::More(more)),
        _ if methods.contains(&0) => Ok(Read::Whole(())),
        _ => Err(Refused::Method),
    }
}

/// The second message: where to.
///
/// # Errors
/// When it is something else than a CONNECT to an address or a name.
pub fn request(bytes: &[u8]) -> Result<Read<Target>, Refused> {
    version(bytes)?;
    let [_, command, _reserved, kind, rest @ ..] = bytes else { return Ok(Read::More(4 - bytes.len())) };
    if *command != 1 {
        return Err(Refused::Command(*command));
    }
    let length = match (kind, rest.first()) {
        (1, _) => 4,
        (4, _) => 16,
        (3, Some(length)) => 1 + usize::from(*length),
        (3, None) => return Ok(Read::More(1)),
        (other, _) => return Err(Refused::AddressType(*other)),
    };
    let Some((host, [high, low, ..])) = rest.split_at_checked(length) else {
        return Ok(Read::More(length + 2 - rest.len()));
    };
    let port = u16::from_be_bytes([*high, *low]);
    let target = match *host {
        [a, b, c, d] if *kind == 1 => Target::Address((Ipv4Addr::new(a, b, c, d), port).into()),
        [_, ref text @ ..] if *kind == 3 => name(text, port)?,
        _ => {
            let octets: [u8; 16] = host.try_into().map_err(|_| Refused::AddressType(*kind))?;
            Target::Address((Ipv6Addr::from(octets), port).into())
        }
    };
    Ok(Read::Whole(match target {
        Target::Address(address) => Target::Address(mesh_model::address::canonical(address)),
        name => name,
    }))
}

fn version(bytes: &[u8]) -> Result<(), Refused> {
    match bytes.first() {
        None | Some(5) => Ok(()),
        Some(other) => Err(Refused::Version(*other)),
    }
}

/// A host name, or an address that somebody wrote where a name belongs.
fn name(text: &[u8], port: u16) -> Result<Target, Refused> {
    let text = std::str::from_utf8(text).map_err(|_| Refused::Name)?;
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Target::Address(SocketAddr::new(ip, port)));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    match name.len() <= 253 && name.split('.').all(is_label) {
        true => Ok(Target::Name(name.to_ascii_lowercase(), port)),
        false => Err(Refused::Name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &[u8]) -> Vec<u8> {
        [&[5, 1, 0, 3, text.len() as u8], text, &[0, 80]].concat()
    }

    #[test]
    fn greetings() {
        for (bytes, expected) in [
            (&[][..], Ok(Read::More(2))),
            (&[5], Ok(Read::More(1))),
            (&[5, 1, 0], Ok(Read::Whole(()))),
            (&[5, 3, 2], Ok(Read::More(2))),
            (&[5, 2, 2, 0], Ok(Read::Whole(()))),
            (&[5, 1, 2], Err(Refused::Method)),
            (&[5, 0], Err(Refused::Method)),
            (&[4, 1], Err(Refused::Version(4))),
            (b"GET ", Err(Refused::Version(b'G'))),
        ] {
            assert_eq!(greeting(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn requests() {
        let v6 = [&[5, 1, 0, 4][..], &[0; 15], &[1, 0, 80]].concat();
        let mapped = [&[5, 1, 0, 4][..], &[0; 10], &[0xff, 0xff, 10, 0, 0, 1, 0, 80]].concat();
        let long = [b'a'; 64];
        let address = |text: &str| Ok(Read::Whole(Target::Address(text.parse().unwrap())));
        let found = |name: &str| Ok(Read::Whole(Target::Name(name.into(), 80)));
        for (bytes, expected) in [
            (vec![5, 1], Ok(Read::More(2))),
            (vec![5, 1, 0, 1, 10, 0, 0, 1, 0x1f, 0x90], address("10.0.0.1:8080")),
            (vec![5, 1, 0, 1, 10], Ok(Read::More(5))),
            (v6, address("[::1]:80")),
            (mapped, address("10.0.0.1:80")),
            (vec![5, 1, 0, 3], Ok(Read::More(1))),
            (vec![5, 1, 0, 3, 4, b'c'], Ok(Read::More(5))),
            (named(b"Cart.Shop."), found("cart.shop")),
            (named(b"10.0.0.1"), address("10.0.0.1:80")),
            (named(b"::1"), address("[::1]:80")),
            (named(b""), Err(Refused::Name)),
            (named(b"a..b"), Err(Refused::Name)),
            (named(b"a b"), Err(Refused::Name)),
            (named(b"\xff"), Err(Refused::Name)),
            (named(&long), Err(Refused::Name)),
            (vec![5, 2, 0, 1], Err(Refused::Command(2))),
            (vec![5, 3, 0, 1], Err(Refused::Command(3))),
            (vec![5, 1, 0, 9], Err(Refused::AddressType(9))),
        ] {
            assert_eq!(request(&bytes), expected, "{bytes:?}");
        }
    }
}
