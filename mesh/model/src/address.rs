//! Where things are: addresses on a network, hostnames, and the gateways and services that have them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex};

use crate::shared::{self, Shared};

/// An IP address on a named network; the empty name is the default network.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkAddress {
    /// Network name, `istio.workload.NetworkAddress.network`.
    pub network: Arc<str>,
    /// In normal form: see [`canonical_ip`].
    pub ip: IpAddr,
}

impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.ip)
    }
}

/// The normal form of an address, used before every look-up and every policy decision:
/// an IPv4-mapped IPv6 address becomes the IPv4 address it maps.
pub fn canonical_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// [`canonical_ip`] of a socket address.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// An object's namespace and name, written `namespace/name`. Services use their hostname as the name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedName {
    /// Kubernetes namespace.
    pub namespace: Arc<str>,
    /// Object name, or a service's hostname.
    pub name: Arc<str>,
}

impl NamespacedName {
    /// From its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// From `namespace/name`: exactly one slash, neither side empty.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        (is_key_part(namespace) && is_key_part(name)).then(|| Self::new(namespace, name))
    }

    /// [`NamespacedName::parse`] of a name that others are likely to hold too: they share it.
    pub fn parse_shared(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        (is_key_part(namespace) && is_key_part(name)).then(|| Self::new(shared::text(namespace), shared::text(name)))
    }

    /// [`NamespacedName::parse_shared`] of a service's key; hostnames are case-insensitive (RFC 1035) and kept in lower case.
    pub fn parse_service(text: &str) -> Option<Self> {
        Self::parse_shared(text).map(|key| match key.name.bytes().any(|b| b.is_ascii_uppercase()) {
            true => Self::new(key.namespace, shared::text(&key.name.to_ascii_lowercase())),
            false => key,
        })
    }
}

/// Whether a text can be one side of `namespace/name`, so that what is printed can be parsed again.
pub(crate) fn is_key_part(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a tunnel's CONNECT asks for (`:authority`, ambient contract 4.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Authority {
    /// An address, in normal form.
    Address(SocketAddr),
    /// A service's hostname, in lower case, and its service port: used across networks.
    Hostname(Arc<str>, u16),
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Hostname(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// A waypoint or network gateway: where it is and the port it speaks HBONE on (`istio.workload.GatewayAddress`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayAddress {
    /// The service's hostname, or an address.
    pub destination: GatewayDestination,
    /// Usually 15008.
    pub hbone_mtls_port: u16,
}

/// How a gateway is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayDestination {
    /// A service by namespace and hostname.
    Hostname(NamespacedName),
    /// An address on a network.
    Address(NetworkAddress),
}

static GATEWAYS: Shared<GatewayAddress> = LazyLock::new(Mutex::default);

impl GatewayAddress {
    /// The one copy that all who name this gateway share. Not for the data path: it takes a lock.
    pub fn shared(self) -> Arc<Self> {
        shared::one(&GATEWAYS, &self, |gateway| Arc::new(gateway.clone()))
    }
}

impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.destination {
            GatewayDestination::Hostname(name) => write!(f, "{name}:{}", self.hbone_mtls_port),
            GatewayDestination::Address(address) => write!(f, "{address}:{}", self.hbone_mtls_port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_become_ipv4() {
        assert_eq!(canonical_ip("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(canonical("[fd00::1]:80".parse().unwrap()), "[fd00::1]:80".parse().unwrap());
    }

    #[test]
    fn namespaced_names() {
        assert_eq!(NamespacedName::parse("a/b"), Some(NamespacedName::new("a", "b")));
        assert_eq!(NamespacedName::parse_service("A/B.Svc"), Some(NamespacedName::new("A", "b.svc")));
        for bad in ["", "a", "a/", "/b", "a/b/c"] {
            assert_eq!(NamespacedName::parse(bad), None, "{bad}");
        }
    }
}
