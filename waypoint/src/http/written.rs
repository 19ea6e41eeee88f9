//! How a request is written to an endpoint: in which version, and where it says that it goes.

use http::header::{CONNECTION, HOST, UPGRADE};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, StatusCode, Uri, Version};
use mesh_model::reason::ReasonCode;
use mesh_model::workload::AppProtocol;

use super::answer::Refused;
use super::grpc::is_grpc;
use crate::body::Body;
use crate::upstream::HttpVersion;

/// What is spoken to the endpoint: what the service's port says; else what the caller speaks.
pub(super) fn spoken(declared: AppProtocol, request: &Request<Body>, upgrades: bool) -> HttpVersion {
    if upgrades {
        return HttpVersion::Http1;
    }
    match (declared, request.version()) {
        (AppProtocol::Http2 | AppProtocol::Grpc, _) => HttpVersion::Http2,
        // Without HTTP/2 a gRPC call loses its trailers, and so its status.
        (_, Version::HTTP_2) if is_grpc(request.headers()) => HttpVersion::Http2,
        (AppProtocol::Unknown, Version::HTTP_2) => HttpVersion::Http2,
        _ => HttpVersion::Http1,
    }
}

/// Writes where the request goes as its version wants it.
pub(super) fn address(
    request: &mut Request<Body>,
    version: HttpVersion,
    upgrade: Option<&HeaderValue>,
) -> Result<(), Refused> {
    let bad = |why: &str| Refused::new(StatusCode::BAD_REQUEST, ReasonCode::BadRequest, why);
    let uri = std::mem::take(request.uri_mut()).into_parts();
    let path = uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let host = match uri.authority {
        Some(authority) => HeaderValue::from_str(authority.as_str()).map_err(|_| bad("its authority is no host"))?,
        None => request.headers().get(HOST).cloned().unwrap_or_else(|| HeaderValue::from_static("")),
    };
    match version {
        HttpVersion::Http1 => {
            request.headers_mut().insert(HOST, host);
            *request.uri_mut() = path.into();
            *request.version_mut() = Version::HTTP_11;
            if let Some(protocol) = upgrade {
                request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
                request.headers_mut().insert(UPGRADE, protocol.clone());
            }
        }
        HttpVersion::Http2 => {
            request.headers_mut().remove(HOST);
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = Some(host.as_bytes().try_into().map_err(|_| bad("its host is none"))?);
            parts.path_and_query = Some(path);
            *request.uri_mut() = Uri::from_parts(parts).map_err(|_| bad("its path is none"))?;
            *request.version_mut() = Version::HTTP_2;
        }
    }
    Ok(())
}
