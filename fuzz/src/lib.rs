//! What must hold for anything a stranger sends, one function for each door. The targets only call these; those of
//! the model are shared with its seeded test, which runs them on every build.

use http::{HeaderMap, HeaderValue};
use mesh_hbone::connect::{Baggage, forwarded_for, forwarded_host, parse_authority};
use prost::Message;
use rustls_pki_types::CertificateDer;

#[path = "../../mesh/model/tests/properties/mod.rs"]
pub mod model;
#[path = "../../ztunnel/tests/properties/mod.rs"]
pub mod ztunnel_properties;
#[path = "../../istiod-lite/tests/properties/mod.rs"]
pub mod istiod_lite_properties;

/// A packet on the socket between node agent and ztunnel: what is read is written back and read the same.
pub fn handoff(packet: &[u8]) {
    use mesh_handoff::message::{decode, decode_ack, decode_hello, encode, encode_ack};
    let _ = decode_hello(packet);
    if let Ok(message) = decode(packet)
        && let Ok(again) = encode(&message)
    {
        assert_eq!(decode(&again).expect("what we said, we understand"), message);
    }
    if let Ok(outcome) = decode_ack(packet) {
        let again = encode_ack(outcome.as_ref().copied().map_err(String::as_str));
        let again = decode_ack(&again).expect("what we said, we understand");
        assert_eq!(again.is_ok(), outcome.is_ok(), "a refusal stays a refusal");
    }
}

/// What a peer shows in a TLS handshake, its certificates cut off `bytes` by the length that two bytes of each say: what
/// the verifier is given to look at is few, small, and said the same again; a name is nobody's or one's.
pub fn certificates(mut bytes: &[u8]) {
    let mut shown = Vec::new();
    while let [high, low, rest @ ..] = bytes {
        let (certificate, rest) = rest.split_at(rest.len().min(usize::from(u16::from_be_bytes([*high, *low]))));
        shown.push(CertificateDer::from(certificate));
        bytes = rest;
    }
    let Some((leaf, above)) = shown.split_first() else { return };
    if mesh_identity::shown::check(leaf, above, &[]).is_ok() {
        assert!(above.len() <= mesh_identity::shown::MAX_INTERMEDIATES);
        assert!(shown.iter().map(|c| c.len()).sum::<usize>() <= mesh_identity::shown::MAX_BYTES);
    }
    if let Ok(id) = mesh_identity::certificate::spiffe_id_of(leaf) {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}

/// What a tunnel's CONNECT carries: the text as authority and as each of the headers.
pub fn connect(text: &str) {
    if let Ok(target) = parse_authority(text) {
        assert_eq!(parse_authority(&target.to_string()), Ok(target), "printed and read again");
    }
    let Ok(value) = HeaderValue::from_str(text) else { return };
    let headers = HeaderMap::from_iter([(http::header::FORWARDED, value.clone()), (BAGGAGE, value)]);
    let told = Baggage::parse(&headers);
    assert!(told.cluster.len() <= text.len());
    forwarded_host(&headers);
    forwarded_for(&headers);
}

/// A request of a subscriber of the control plane: what is counted before it is decoded is what it turns out to be, and
/// what it makes a subscriber hold is no more than that.
pub fn request(bytes: &[u8]) {
    use mesh_proto::discovery::DeltaDiscoveryRequest;
    use mesh_xds::delta::{Subscriber, measure::measure};
    let Ok(measured) = measure(bytes) else { return };
    let Ok(request) = DeltaDiscoveryRequest::decode(bytes) else { return };
    let listed = request.resource_names_subscribe.len() + request.resource_names_unsubscribe.len();
    // Of what is declared twice the last counts.
    assert!(listed + request.initial_resource_versions.len() <= measured.names);
    let mut subscriber = Subscriber::default();
    let _ = subscriber.request(request);
    assert!(subscriber.cost() <= bytes.len() + 128 * measured.names);
}

const BAGGAGE: http::HeaderName = http::HeaderName::from_static("baggage");

/// A response of the control plane: each resource is refused or understood on its own.
pub fn response(bytes: &[u8]) {
    let Ok(response) = mesh_proto::discovery::DeltaDiscoveryResponse::decode(bytes) else { return };
    for resource in response.resources.into_iter().filter_map(|r| r.resource) {
        model::resource(&resource.value);
    }
}
