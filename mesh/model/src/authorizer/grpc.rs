//! `envoy.service.auth.v3.Authorization/Check`: what is asked, and what the answer means. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, StatusCode, Version};
use mesh_proto::ext_authz as pb;
use pb::attribute_context::{HttpRequest, Peer, Request as AskedAbout};
use pb::check_response::HttpResponse;
use prost::Message;
use prost::bytes::Bytes;

use super::Authorizer;
use super::verdict::{Changes, Edit, Verdict, header_of, may_change};
use crate::http::Request;
use crate::policy::facts::Facts;

/// The method that is called.
pub const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// What is told of a request.
#[derive(Clone, Debug)]
pub struct About<'a> {
    /// Who asks, and where from; `destination` is the service.
    pub facts: &'a Facts,
    /// The port that the caller has.
    pub from: SocketAddr,
    /// The identity of the waypoint.
    pub us: &'a str,
    /// The request.
    pub request: &'a Request,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// How it came.
    pub version: Version,
    /// What is shown of its body.
    pub body: &'a Bytes,
    /// Bytes of its body, if it says so.
    pub length: Option<u64>,
    /// When it came, since 1970.
    pub at: Duration,
}

/// The message that is sent.
pub fn request(authorizer: &Authorizer, about: &About<'_>) -> Bytes {
    let peer = |address: SocketAddr, principal: String| Peer {
        address: Some(pb::Address {
            socket_address: Some(pb::SocketAddress {
                address: address.ip().to_string(),
                port_value: address.port().into(),
            }),
        }),
        principal,
    };
    let source = about.facts.source.as_ref().map(ToString::to_string).unwrap_or_default();
    let as_bytes = authorizer.body.is_some_and(|body| body.as_bytes);
    let text = || String::from_utf8_lossy(about.body).into_owned();
    let http = HttpRequest {
        id: String::new(),
        method: about.request.method.to_string(),
        headers: headers(about),
        path: about.request.target.to_string(),
        host: about.request.authority(),
        scheme: about.request.scheme.as_str().to_owned(),
        size: about.length.and_then(|length| i64::try_from(length).ok()).unwrap_or(-1),
        protocol: format!("{:?}", about.version),
        body: if as_bytes { String::new() } else { text() },
        raw_body: if as_bytes { about.body.clone() } else { Bytes::new() },
    };
    let time = mesh_proto::Timestamp {
        seconds: i64::try_from(about.at.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(about.at.subsec_nanos()).unwrap_or_default(),
    };
    let attributes = pb::AttributeContext {
        source: Some(peer(about.from, source)),
        destination: Some(peer(about.facts.destination, about.us.to_owned())),
        request: Some(AskedAbout { time: Some(time), http: Some(http) }),
    };
    pb::CheckRequest { attributes: Some(attributes) }.encode_to_vec().into()
}

fn headers(about: &About<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::<String, String>::new();
    for (name, value) in about.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        match all.get_mut(name.as_str()) {
            Some(before) => {
                before.push(',');
                before.push_str(&value);
            }
            None => drop(all.insert(name.to_string(), value.into_owned())),
        }
    }
    all.remove("host");
    for (name, value) in [
        (":authority", about.request.authority()),
        (":method", about.request.method.to_string()),
        (":path", about.request.target.to_string()),
        (":scheme", about.request.scheme.as_str().to_owned()),
    ] {
        all.insert(name.to_owned(), value);
    }
    all
}

/// What an answer means. None when it is none.
pub fn answer(bytes: Bytes) -> Option<Verdict> {
    let answer = pb::CheckResponse::decode(bytes).ok()?;
    let allowed = answer.status.is_none_or(|status| status.code == 0);
    Some(match (allowed, answer.http_response) {
        (true, Some(HttpResponse::OkResponse(ok))) => Verdict::Pass(changes(&ok)),
        (true, _) => Verdict::Pass(Changes::default()),
        (false, Some(HttpResponse::DeniedResponse(denied))) => refusal(denied),
        (false, _) => refusal(pb::DeniedHttpResponse::default()),
    })
}

fn changes(ok: &pb::OkHttpResponse) -> Changes {
    let away = ok.headers_to_remove.iter().filter_map(|name| name.parse().ok()).filter(may_change).map(Edit::Remove);
    Changes {
        request: away.chain(ok.headers.iter().filter_map(edit)).collect(),
        answer: ok.response_headers_to_add.iter().filter_map(edit).collect(),
    }
}

/// Without `append` it replaces, as Envoy's filter has it.
fn edit(option: &pb::HeaderValueOption) -> Option<Edit> {
    let header = option.header.as_ref()?;
    let raw = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
    let (name, value) = header_of(&header.key, raw)?;
    Some(match (option.append_action, option.append) {
        (1, _) => Edit::Default(name, value),
        (3, _) => Edit::Replace(name, value),
        (0, Some(true)) => Edit::Add(name, value),
        _ => Edit::Set(name, value),
    })
}

fn refusal(denied: pb::DeniedHttpResponse) -> Verdict {
    let code = denied.status.and_then(|status| u16::try_from(status.code).ok()).filter(|code| *code >= 200);
    let mut headers = HeaderMap::new();
    for edit in denied.headers.iter().filter_map(edit) {
        edit.apply(&mut headers);
    }
    Verdict::Refuse {
        status: code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::FORBIDDEN),
        headers,
        body: denied.body.into(),
    }
}
