//! The names by which expressions speak of a request, as Envoy has them
//! (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes>).

use std::borrow::Cow;
use std::net::SocketAddr;

use super::value::{Type, Value};
use super::{Seen, SeenRequest};

/// Something that is known of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attribute {
    Path,
    UrlPath,
    Host,
    Scheme,
    Method,
    Protocol,
    RequestSize,
    Duration,
    Code,
    GrpcStatus,
    Flags,
    ResponseSize,
    SourceAddress,
    SourcePort,
    DestinationAddress,
    DestinationPort,
    UpstreamAddress,
    UpstreamPort,
    Mtls,
    Peer,
}

/// All of them.
const ALL: [(&str, Attribute, Type); 20] = [
    ("request.path", Attribute::Path, Type::Text),
    ("request.url_path", Attribute::UrlPath, Type::Text),
    ("request.host", Attribute::Host, Type::Text),
    ("request.scheme", Attribute::Scheme, Type::Text),
    ("request.method", Attribute::Method, Type::Text),
    ("request.protocol", Attribute::Protocol, Type::Text),
    ("request.size", Attribute::RequestSize, Type::Int),
    ("request.duration", Attribute::Duration, Type::Duration),
    ("response.code", Attribute::Code, Type::Int),
    ("response.grpc_status", Attribute::GrpcStatus, Type::Int),
    ("response.flags", Attribute::Flags, Type::Int),
    ("response.size", Attribute::ResponseSize, Type::Int),
    ("source.address", Attribute::SourceAddress, Type::Text),
    ("source.port", Attribute::SourcePort, Type::Int),
    ("destination.address", Attribute::DestinationAddress, Type::Text),
    ("destination.port", Attribute::DestinationPort, Type::Int),
    ("upstream.address", Attribute::UpstreamAddress, Type::Text),
    ("upstream.port", Attribute::UpstreamPort, Type::Int),
    ("connection.mtls", Attribute::Mtls, Type::Bool),
    ("connection.uri_san_peer_certificate", Attribute::Peer, Type::Text),
];

/// Those that are headers of the request.
const HEADERS: [(&str, &str); 3] =
    [("request.id", "x-request-id"), ("request.useragent", "user-agent"), ("request.referer", "referer")];

/// The attribute of a name.
pub(super) fn named(name: &str) -> Option<(Attribute, Type)> {
    ALL.iter().find(|(known, ..)| *known == name).map(|(_, attribute, kind)| (*attribute, *kind))
}

/// The header that a name stands for.
pub(super) fn header(name: &str) -> Option<&'static str> {
    HEADERS.iter().find(|(known, _)| *known == name).map(|(_, header)| *header)
}

/// All names, for who has written another.
pub(super) fn names() -> String {
    let headers = HEADERS.iter().map(|(name, _)| *name);
    ALL.iter().map(|(name, ..)| *name).chain(headers).collect::<Vec<_>>().join(", ")
}

impl Attribute {
    /// Its value, if there is one.
    pub(super) fn of<'a>(self, seen: &Seen<'a>) -> Option<Value<'a>> {
        let address = |address: SocketAddr| Value::Text(address.to_string().into());
        let port = |address: SocketAddr| Value::Int(address.port().into());
        match self {
            Self::SourceAddress => Some(address(seen.source)),
            Self::SourcePort => Some(port(seen.source)),
            Self::DestinationAddress => Some(address(seen.destination)),
            Self::DestinationPort => Some(port(seen.destination)),
            Self::UpstreamAddress => seen.upstream.map(address),
            Self::UpstreamPort => seen.upstream.map(port),
            Self::Mtls => Some(Value::Bool(seen.peer.is_some())),
            Self::Peer => seen.peer.map(|peer| Value::Text(peer.to_string().into())),
            of_request => of_request.of_request(&seen.request?),
        }
    }

    fn of_request<'a>(self, request: &SeenRequest<'a>) -> Option<Value<'a>> {
        let text = |text: &'a str| Some(Value::Text(Cow::Borrowed(text)));
        let int = |number: u64| Some(Value::Int(i64::try_from(number).unwrap_or(i64::MAX)));
        match self {
            Self::Path => text(request.path),
            Self::UrlPath => text(request.path.split_once('?').map_or(request.path, |(path, _)| path)),
            Self::Host => text(request.host),
            Self::Scheme => text("http"),
            Self::Method => text(request.method),
            Self::Protocol => text(request.protocol),
            Self::RequestSize => int(request.received),
            Self::ResponseSize => int(request.sent),
            Self::Duration => Some(Value::Duration(request.duration)),
            Self::Code => int(request.code?.into()),
            Self::GrpcStatus => int(request.grpc_status?.into()),
            Self::Flags => int(request.flags.split(',').map(bit).fold(0, |all, bit| all | bit)),
            _ => None,
        }
    }
}

/// The bit of one of Envoy's flags.
fn bit(flag: &str) -> u64 {
    match flag {
        "UH" => 0x2,
        "UT" => 0x4,
        "UF" => 0x20,
        "UC" => 0x40,
        "UO" => 0x80,
        "NR" => 0x100,
        "DI" => 0x200,
        "FI" => 0x400,
        "RL" => 0x800,
        "UAEX" => 0x1000,
        "RLSE" => 0x2000,
        "DC" => 0x4000,
        "DPE" => 0x4_0000,
        _ => 0,
    }
}
