//! What is known about a connection when it asks to enter.

use std::net::{IpAddr, SocketAddr};

use crate::identity::SpiffeId;

/// The facts that policies are decided on. Addresses are in normal form ([`crate::address::canonical`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Address of the TCP peer.
    pub source_ip: IpAddr,
    /// The identity that the peer proved; `None` on plaintext.
    pub source: Option<SpiffeId>,
    /// Where the application is dialled: pod address and container port.
    pub destination: SocketAddr,
}
