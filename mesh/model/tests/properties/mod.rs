//! What must hold for any bytes and any text, called by the seeded test beside this and by the targets in `fuzz/`.
#![allow(unreachable_pub, reason = "also a module of the crate in `fuzz/`")]

pub mod routes;
pub mod traces;

use http::header::{AUTHORIZATION, COOKIE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Version};
use mesh_model::address::{NamespacedName, NetworkAddress, canonical_ip};
use mesh_model::destination;
use mesh_model::http::{Received, Rules, Target, canonical};
use mesh_model::identity::SpiffeId;
use mesh_model::policy::{Facts, HttpFacts, PolicySet, decide, decide_request};
use mesh_model::resource::{Kind, Resource};
use mesh_model::service::Vip;
use mesh_model::tables::Tables;
use mesh_model::token::rule::TokenHeader;
use mesh_model::token::{self, JwtRule};
use mesh_model::workload::Workload;
use prost::bytes::Bytes;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes as a resource of each kind: what decodes is stable under encoding, can be applied, asked about and
/// removed, and leaves nothing behind. Returns how many kinds took the bytes.
pub fn resource(bytes: &[u8]) -> usize {
    Kind::ALL
        .into_iter()
        .filter_map(|kind| Resource::decode(kind, Bytes::copy_from_slice(bytes)).ok())
        .map(known)
        .count()
}

fn known(resource: Resource) {
    let encoded = resource.encode();
    let again = Resource::decode(resource.kind(), encoded.clone()).expect("what we said, we understand");
    assert_eq!(again, resource, "encoding loses nothing");
    assert_eq!(again.encode(), encoded, "and says it the same way each time");

    let client = Workload { namespace: "shop".into(), ..Workload::empty("client") };
    let mut tables = Tables::default();
    tables.apply(resource.clone());
    tables.apply(resource.clone());
    let (network, addresses) = addresses_of(&resource);
    for ip in addresses.into_iter().chain([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]) {
        for port in ports_of(&resource).chain([15001]) {
            for random in [0, u64::MAX] {
                destination::decide(&tables, &client, &network, SocketAddr::new(ip, port), random.into());
            }
        }
    }
    match &resource {
        Resource::Workload(workload) => drop(tables.policies_covering(workload)),
        Resource::Routes(routes) => {
            assert_eq!(tables.routes(&routes.service), Some(routes));
            tables.policies_of_routes(routes);
        }
        Resource::Service(_) | Resource::Policy(_) => {}
    }
    resource.aliases();
    tables.remove(resource.kind(), &resource.name());
    assert_eq!(format!("{tables:?}"), format!("{:?}", Tables::default()), "removed by its name");
}

fn addresses_of(resource: &Resource) -> (String, Vec<IpAddr>) {
    match resource {
        Resource::Workload(w) => (w.network.to_string(), w.addresses.clone()),
        Resource::Service(s) => {
            let network = s.vips.first().map_or("".into(), |vip| vip.address.network.to_string());
            (network, s.vips.iter().map(|Vip { address: NetworkAddress { ip, .. }, .. }| *ip).collect())
        }
        Resource::Policy(_) | Resource::Routes(_) => Default::default(),
    }
}

fn ports_of(resource: &Resource) -> impl Iterator<Item = u16> {
    match resource {
        Resource::Service(s) => s.ports.iter().take(4).map(|p| p.service_port).collect(),
        _ => vec![80],
    }
    .into_iter()
}

/// Bytes as a policy and a caller: the first 8 are the caller, the rest the message. A policy is never weaker than
/// written: an allow policy never lets in whom the same rules as a deny policy would not keep out.
pub fn policy(bytes: &[u8]) {
    let Some(([identity, a, b, c, d, e, port @ ..], message)) = bytes.split_first_chunk::<8>() else { return };
    let Ok(Resource::Policy(policy)) = Resource::decode(Kind::Authorization, Bytes::copy_from_slice(message)) else {
        return;
    };
    let source_ip = match identity & 2 {
        0 => IpAddr::from([*a, *b, *c, *d]),
        _ => IpAddr::from([0xfd, *a, *b, *c, *d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, *e]),
    };
    let facts = Facts {
        source_ip: canonical_ip(source_ip),
        source: (identity & 1 == 1).then(|| SpiffeId::new("cluster.local", "shop", "cart").expect("well formed")),
        destination: SocketAddr::new(IpAddr::from([10, 0, 0, *e]), u16::from_be_bytes(*port)),
    };
    let as_action = |action| {
        let policy = mesh_model::policy::Policy { action, dry_run: false, ..(*policy).clone() };
        decide([&policy.into()], &facts).allowed
    };
    let allowed = as_action(mesh_model::policy::Action::Allow);
    let denied = !as_action(mesh_model::policy::Action::Deny);
    assert!(denied || !allowed, "what an allow policy matches, a deny policy matches");
    let set = PolicySet::new(vec![policy.clone(), policy.clone()]);
    assert_eq!(set.decide(&facts), decide([&policy, &policy], &facts), "a set says what its policies say");

    // Nor for a request, whatever its headers; and where no request is seen, nobody gets in who would not get in with one.
    let path = ["/a/b/c", "/a;x/b", "/%61", "/"][usize::from(*a) % 4];
    let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("a"))]);
    for value in ["a", "b", "c"].iter().take(usize::from(*b) % 4) {
        headers.append("x-a", HeaderValue::from_static(value));
    }
    let received = Received::of_target(Version::HTTP_11, &Method::GET, path.as_bytes(), &headers);
    let request = canonical(&received, Rules::default()).expect("nothing to refuse");
    let http = HttpFacts::new(&request, &headers);
    let with_request = |action| {
        let policy = mesh_model::policy::Policy { action, dry_run: false, ..(*policy).clone() };
        decide_request([&policy.into()], &facts, http).allowed
    };
    let allowed_with = with_request(mesh_model::policy::Action::Allow);
    let denied_with = !with_request(mesh_model::policy::Action::Deny);
    assert_eq!(set.decide_request(&facts, http), decide_request([&policy, &policy], &facts, http));
    assert!(denied_with || !allowed_with, "what an allow policy matches, a deny policy matches");
    assert!(!allowed || allowed_with, "an allow policy lets in no more where no request is seen");
    assert!(!denied_with || denied, "a deny policy keeps out no less where no request is seen");
}

/// A text as a SPIFFE id, and as a key: what parses is printed as it was.
pub fn names(text: &str) {
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.to_string(), text);
        assert_eq!(SpiffeId::new(id.trust_domain(), id.namespace(), id.service_account()), Ok(id));
    }
    if let Some(key) = NamespacedName::parse(text) {
        assert_eq!(key.to_string(), text);
    }
}

/// Bytes as the target of a request, and after a line end its host: what is accepted is its own canonical form, the same over HTTP/2,
/// and has nothing that servers read in several ways.
pub fn canonical_request(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let (target, host) = (lines.next().unwrap_or_default(), lines.next().unwrap_or(b"shop.example"));
    let Ok(host) = HeaderValue::from_bytes(host) else { return };
    let headers = HeaderMap::from_iter([(HOST, host)]);
    for (merge_slashes, keep_encoded_slashes) in [(true, false), (false, true), (false, false), (true, true)] {
        let rules = Rules { merge_slashes, keep_encoded_slashes };
        let received = Received::of_target(Version::HTTP_11, &Method::GET, target, &headers);
        let Ok(request) = canonical(&received, rules) else { continue };
        for segment in request.path().split('/').skip(1) {
            let name = segment.split(';').next().unwrap_or_default();
            assert!(name != "." && name != "..", "{request:?}");
        }
        let slashes = request.path().contains("%2F") || request.path().contains("%5C");
        assert!(!slashes || keep_encoded_slashes, "{request:?}");
        assert!(!merge_slashes || !request.path().contains("//"), "{request:?}");
        assert!(request.target.as_str().bytes().all(|byte| byte.is_ascii_graphic()), "{request:?}");

        let none = HeaderMap::new();
        let authority = request.authority();
        let again = Received {
            version: Version::HTTP_2,
            method: &request.method,
            scheme: Some(request.scheme.as_str()),
            authority: Some(authority.as_bytes()),
            target: Target::Shared(&request.target),
            extended_connect: false,
            headers: &none,
        };
        assert_eq!(canonical(&again, rules).as_ref(), Ok(&request), "its own canonical form");
    }
}

/// Bytes as a token, and as what stands around it in a request: what is read is what was signed, whole and as it came; what is taken
/// away is found no more.
pub fn token(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let rule = JwtRule {
        authentication: NamespacedName::new("shop", "tokens"),
        issuer: "a".into(),
        audiences: vec!["a".into()],
        keys: Err("not fetched".into()),
        headers: vec![TokenHeader { name: "authorization".into(), prefix: "Bearer ".into() }],
        params: vec!["a".into()],
        cookies: vec!["a".into()],
        forward: false,
        payload_header: Some("x-payload".into()),
        claim_headers: Vec::new(),
        space_delimited: Vec::new(),
    };
    if let Ok(said) = token::read(&text) {
        assert_eq!(format!("{}.{}", said.signed, said.signature), text, "nothing stands around it");
        assert!(said.signed.ends_with(said.payload));
        assert!(!said.algorithm.eq_ignore_ascii_case("none"));
        let ends = token::check::check(&said.claims, &rule, 1_000_000);
        assert!(ends.is_err() || ends.is_ok_and(|ends| ends.is_none_or(|ends| ends > 1_000_000)));
        let mut headers = HeaderMap::new();
        token::hand_on::tell(&rule, said.payload, &said.claims, &mut headers);
        assert!(headers.len() <= 1);
    }
    let mut headers = HeaderMap::new();
    for name in [AUTHORIZATION, COOKIE] {
        if let Ok(value) = HeaderValue::from_bytes(bytes) {
            headers.append(name, value);
        }
    }
    let Ok(mut target) = format!("/?{text}").parse::<PathAndQuery>() else { return };
    let rules = [rule];
    let Ok(found) = token::find::find(&rules, &headers, target.query()) else { return };
    for one in &found {
        target = token::hand_on::remove(&one.place, &mut headers, &target).unwrap_or(target);
    }
    assert_eq!(token::find::find(&rules, &headers, target.query()), Ok(Vec::new()), "{found:?} {headers:?} {target}");
}
