//! A waypoint for a bench that starts proxies by itself: it learns by `LAB_*` where to listen, where to send requests and how many
//! policies to judge them by, and gets its certificate from the bench's own root key. It is the program that users run; only tables
//! and certificates come from here.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use mesh_identity::store::{Authority, AuthorityError, Signing};
use mesh_model::address::{NamespacedName, NetworkAddress};
use mesh_model::identity::SpiffeId;
use mesh_model::policy::http::{HttpMatch, PathPattern};
use mesh_model::policy::{Action, Clause, Match, Policy, Rule, Scope, StringMatch};
use mesh_model::resource::Resource;
use mesh_model::route::ServiceRoutes;
use mesh_model::service::{Service, Vip};
use mesh_model::workload::{AppProtocol, Memberships, PortMapping, Workload};
use mesh_runtime::config::Env;
use rcgen::{CertificateSigningRequestParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use waypoint::app::{Origin, start};

fn main() -> Result<()> {
    let listen: SocketAddr = var("LAB_LISTEN")?.parse().context("LAB_LISTEN")?;
    let upstream: SocketAddr = var("LAB_UPSTREAM_H1")?.parse().context("LAB_UPSTREAM_H1")?;
    let http2: SocketAddr = var("LAB_UPSTREAM_H2C")?.parse().context("LAB_UPSTREAM_H2C")?;
    let rules: usize = var("LAB_RULES")?.parse().context("LAB_RULES")?;
    let root = PathBuf::from(var("LAB_ROOT")?);
    let key = std::fs::read_to_string(root.with_extension("key")).context("the key beside LAB_ROOT")?;
    let root = std::fs::read_to_string(&root).context("LAB_ROOT")?;
    let ports = [(upstream.port(), AppProtocol::Http11), (http2.port(), AppProtocol::Http2)];
    let env: Env = [
        ("POD_NAME", "waypoint".to_owned()),
        ("POD_NAMESPACE", "lab".to_owned()),
        ("SERVICE_ACCOUNT", "waypoint".to_owned()),
        ("GATEWAY_NAME", "waypoint".to_owned()),
        ("HBONE_PORT", listen.port().to_string()),
        ("WAYPOINT_WORKER_THREADS", var("LAB_THREADS")?),
    ]
    .into_iter()
    .collect();
    start(
        &env,
        Origin::Given { resources: resources(upstream.ip(), &ports, rules), authority: Arc::new(Root { root, key }) },
    )
}

fn var(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| name.to_owned())
}

/// One service at the address that callers dial, its one endpoint there too, outside the mesh.
fn resources(at: IpAddr, ports: &[(u16, AppProtocol)], rules: usize) -> Vec<Resource> {
    let ports: Vec<_> = ports
        .iter()
        .map(|(port, app_protocol)| PortMapping {
            service_port: *port,
            target_port: *port,
            app_protocol: *app_protocol,
        })
        .collect();
    let address = NetworkAddress { network: "".into(), ip: at };
    let service = Service {
        name: "app".into(),
        vips: vec![Vip { address, prefix: None }],
        ports: ports.clone(),
        ..Service::empty("lab", "app.lab.svc.cluster.local")
    };
    let endpoint = Workload {
        name: "app-1".into(),
        namespace: "lab".into(),
        addresses: vec![at],
        services: Memberships::from_iter([(service.key(), ports)]),
        ..Workload::empty("app-1")
    };
    let waypoint = Workload {
        name: "waypoint".into(),
        namespace: "lab".into(),
        service_account: "waypoint".into(),
        ..Workload::empty("waypoint")
    };
    let policy = allow(rules);
    let routes = ServiceRoutes {
        policies: vec![NamespacedName::new(policy.namespace.clone(), policy.name.clone())],
        ..ServiceRoutes::nothing(service.key())
    };
    vec![
        Resource::Workload(Arc::new(waypoint)),
        Resource::Workload(Arc::new(endpoint)),
        Resource::Policy(Arc::new(policy)),
        Resource::Routes(Arc::new(routes)),
        Resource::Service(Arc::new(service)),
    ]
}

/// As many rules as are asked for, of which none matches, and one that does: the last.
fn allow(rules: usize) -> Policy {
    let text = |text: String| vec![StringMatch::Exact(text.as_str().into())];
    let rule = |principal: Vec<StringMatch>, path: &str| {
        let paths = vec![PathPattern::Text(StringMatch::Prefix(path.into()))];
        let http = HttpMatch { paths, ..HttpMatch::default() };
        let who = Clause { matches: vec![Match { principals: principal, ..Match::default() }] };
        let what = Clause { matches: vec![Match { http: Some(Arc::new(http)), ..Match::default() }] };
        Rule { clauses: vec![who, what] }
    };
    let others = (0..rules).map(|n| rule(text(format!("cluster.local/ns/other/sa/caller-{n}")), &format!("/path-{n}")));
    Policy {
        name: "allow".into(),
        namespace: "lab".into(),
        scope: Scope::WorkloadSelector,
        action: Action::Allow,
        rules: others.chain([rule(vec![StringMatch::Presence], "/")]).collect(),
        dry_run: false,
    }
}

/// The bench's root.
struct Root {
    root: String,
    key: String,
}

impl Root {
    fn signed(&self, id: &SpiffeId, csr_pem: &str, lifetime: Duration) -> Result<Vec<String>> {
        let issuer = Issuer::from_ca_cert_pem(&self.root, KeyPair::from_pem(&self.key)?)?;
        let mut csr = CertificateSigningRequestParams::from_pem(csr_pem)?;
        let now = std::time::SystemTime::now();
        csr.params.distinguished_name = DistinguishedName::new();
        csr.params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
        csr.params.not_before = (now - Duration::from_secs(60)).into();
        csr.params.not_after = (now + lifetime).into();
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Ok(vec![csr.signed_by(&issuer)?.pem(), self.root.clone()])
    }
}

impl Authority for Root {
    fn sign<'a>(&'a self, id: &'a SpiffeId, csr_pem: &'a str, lifetime: Duration) -> Signing<'a> {
        let signed = self.signed(id, csr_pem, lifetime).map_err(|error| AuthorityError(error.to_string()));
        Box::pin(std::future::ready(signed))
    }
}
