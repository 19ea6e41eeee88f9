//! What is known about a connection when it asks to enter, and about a request in it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;

use crate::http::Request;
use crate::identity::SpiffeId;
use crate::token::Token;

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

/// What is known besides about a request, where requests are looked into.
#[derive(Clone, Copy, Debug)]
pub struct HttpFacts<'a> {
    /// The request in canonical form: that which is passed on.
    pub request: &'a Request,
    /// Its headers, as they came, but for what was verified and taken away.
    pub headers: &'a HeaderMap,
    /// Its tokens, all of them valid.
    pub tokens: &'a [Arc<Token>],
    /// The authorizers that have let it pass, by name.
    pub granted: &'a [Arc<str>],
}

impl<'a> HttpFacts<'a> {
    /// Of a request without token, about which nobody was asked.
    pub fn new(request: &'a Request, headers: &'a HeaderMap) -> Self {
        Self { request, headers, tokens: &[], granted: &[] }
    }
}
