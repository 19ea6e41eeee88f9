//! ServiceEntry: names and addresses that are no Kubernetes Service's (`networking.istio.io`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::address::canonical_ip;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use super::authorization_policy::null_as_default;
use super::field::{FieldError, FieldPath};
use super::host;
use super::labels::Labelled;
use super::workload_entry::{EndpointAddress, WorkloadEntrySpec};

/// The protocols of ports, as Istio knows them.
const PROTOCOLS: [&str; 12] =
    ["TCP", "UDP", "HTTP", "HTTP2", "HTTPS", "GRPC", "GRPC-Web", "TLS", "HTTP_PROXY", "Mongo", "MySQL", "Redis"];

/// The object.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceEntry {
    #[serde(rename = "apiVersion", default, skip_serializing)]
    _api_version: IgnoredAny,
    #[serde(rename = "kind", default, skip_serializing)]
    _kind: IgnoredAny,
    /// Name, namespace, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is there, and where.
    #[serde(default, deserialize_with = "null_as_default")]
    pub spec: ServiceEntrySpec,
    /// What a control plane has said.
    #[serde(default, deserialize_with = "said")]
    pub status: ServiceEntryStatus,
}

impl ServiceEntry {
    /// Its ports but for those of UDP: only TCP goes through the mesh.
    pub fn tcp_ports(&self) -> impl Iterator<Item = &Port> {
        self.spec.ports.iter().filter(|port| !port.protocol.eq_ignore_ascii_case("UDP"))
    }

    /// Whether it has a TCP port of a number.
    pub fn has_port(&self, port: u16) -> bool {
        self.tcp_ports().any(|own| own.number == u32::from(port))
    }
}

/// What is there, and where.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceEntrySpec {
    /// Its names; each is a service of its own.
    #[serde(default, deserialize_with = "null_as_default")]
    pub hosts: Vec<String>,
    /// Its virtual addresses, or blocks of them.
    #[serde(default, deserialize_with = "null_as_default")]
    pub addresses: Vec<String>,
    /// Its ports.
    #[serde(default, deserialize_with = "null_as_default")]
    pub ports: Vec<Port>,
    /// Whether it counts as a part of the mesh.
    #[serde(default)]
    pub location: Location,
    /// How its endpoints are found.
    #[serde(default)]
    pub resolution: Resolution,
    /// Where it is served.
    #[serde(default, deserialize_with = "null_as_default")]
    pub endpoints: Vec<WorkloadEntrySpec>,
    /// The Pods and WorkloadEntries that serve it, instead of `endpoints`.
    pub workload_selector: Option<WorkloadSelector>,
    /// The namespaces that see it: `*` is all, `.` its own, `~` none.
    #[serde(default, deserialize_with = "null_as_default")]
    pub export_to: Vec<String>,
    /// The identities that its endpoints may prove besides their own.
    #[serde(default, deserialize_with = "null_as_default")]
    pub subject_alt_names: Vec<String>,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// At the virtual address.
    pub number: u32,
    /// Endpoints say their own number by it.
    pub name: String,
    /// What is spoken; not said when empty.
    #[serde(default)]
    pub protocol: String,
    /// At the endpoints, if it is another.
    pub target_port: Option<u32>,
}

/// Pods and WorkloadEntries by labels.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSelector {
    /// All of them; none selects nothing.
    #[serde(default, deserialize_with = "null_as_default")]
    pub labels: std::collections::BTreeMap<String, String>,
}

/// Whether it counts as a part of the mesh. Says nothing to ambient: which endpoints take HBONE, each of them says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    /// It does not.
    #[default]
    MeshExternal,
    /// It does.
    MeshInternal,
}

/// How endpoints are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// The address that was dialled is the endpoint.
    #[default]
    None,
    /// They are listed or selected.
    Static,
    /// Their names, or the host itself, are resolved.
    Dns,
    /// The same, with one name.
    DnsRoundRobin,
    /// The name that was asked for is resolved: only a waypoint knows it.
    DynamicDns,
}

/// What a control plane has said.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
pub struct ServiceEntryStatus {
    /// The addresses that were allocated, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<HostAddress>,
}

/// An address that was allocated to a host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct HostAddress {
    /// The address.
    pub value: IpAddr,
    /// The host, as `spec.hosts` has it.
    pub host: String,
}

/// Of a status, which anybody may have written, the addresses that are some.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ServiceEntryStatus, D::Error> {
    let status = Option::<serde_json::Value>::deserialize(deserializer)?.unwrap_or_default();
    let addresses = status.get("addresses").and_then(serde_json::Value::as_array);
    let read = |entry: &serde_json::Value| {
        let value: IpAddr = entry.get("value")?.as_str()?.parse().ok()?;
        Some(HostAddress { value: canonical_ip(value), host: entry.get("host")?.as_str()?.to_owned() })
    };
    Ok(ServiceEntryStatus { addresses: addresses.into_iter().flatten().filter_map(read).collect() })
}

impl WorkloadSelector {
    /// Whether something with these labels is meant.
    pub fn matches(&self, object: &dyn Labelled) -> bool {
        !self.labels.is_empty() && self.labels.iter().all(|(key, value)| object.label(key) == Some(value))
    }
}

impl Resolution {
    /// Endpoints may be names.
    pub fn is_dns(self) -> bool {
        matches!(self, Self::Dns | Self::DnsRoundRobin | Self::DynamicDns)
    }

    fn word(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Static => "STATIC",
            Self::Dns => "DNS",
            Self::DnsRoundRobin => "DNS_ROUND_ROBIN",
            Self::DynamicDns => "DYNAMIC_DNS",
        }
    }
}

/// One of `spec.addresses`: an address is a block of one. Canonical.
pub fn block(address: &str) -> Option<IpNet> {
    let ip = || address.parse::<IpAddr>().ok().map(|ip| IpNet::from(canonical_ip(ip)));
    ip().or_else(|| address.parse::<IpNet>().ok().map(|block| block.trunc()))
}

/// Checks what the types alone do not.
///
/// # Errors
/// Names the first field that is wrong.
pub fn validate(object: &ServiceEntry) -> Result<(), FieldError> {
    let (spec, path) = (&object.spec, FieldPath::of("spec"));
    hosts(spec, &path.field("hosts"))?;
    addresses(spec, &path.field("addresses"))?;
    ports(spec, &path.field("ports"))?;
    if let Some(selector) = &spec.workload_selector {
        let at = path.field("workloadSelector");
        if !spec.endpoints.is_empty() {
            return Err(at.error("workloadSelector and endpoints exclude each other: keep one"));
        }
        for (key, value) in &selector.labels {
            if key.is_empty() || key.contains('*') || value.contains('*') {
                return Err(at
                    .field("labels")
                    .field(key)
                    .error("a selector takes whole labels: no wildcard, no empty key"));
            }
        }
    }
    endpoints(spec, &path.field("endpoints"))?;
    export_to(spec, object.metadata.namespace.as_deref().unwrap_or("default"), &path.field("exportTo"))
}

fn hosts(spec: &ServiceEntrySpec, path: &FieldPath) -> Result<(), FieldError> {
    if spec.hosts.is_empty() {
        return Err(path.error("missing: write at least one name"));
    }
    for (i, name) in spec.hosts.iter().enumerate() {
        let at = path.index(i);
        host::name_or_wildcard(name, &at)?;
        let is_wildcard = host::is_wildcard(name);
        match spec.resolution {
            Resolution::DynamicDns if !is_wildcard => {
                return Err(at.error(format!("{name:?} is no wildcard, as DYNAMIC_DNS wants it: use resolution DNS")));
            }
            Resolution::Dns | Resolution::DnsRoundRobin
                if is_wildcard && spec.endpoints.is_empty() && spec.workload_selector.is_none() =>
            {
                return Err(at.error(format!(
                    "{name:?} cannot be resolved: write endpoints, name the hosts one by one, or use resolution NONE, or \
                     DYNAMIC_DNS with a waypoint"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

fn addresses(spec: &ServiceEntrySpec, path: &FieldPath) -> Result<(), FieldError> {
    for (i, address) in spec.addresses.iter().enumerate() {
        let at = path.index(i);
        if block(address).is_none() {
            return Err(at.error(format!("{address:?} is neither an IP address nor a block such as 192.0.2.0/24")));
        }
        if address.contains('/') && spec.resolution.is_dns() {
            let word = spec.resolution.word();
            return Err(at.error(format!("{address:?}: blocks go with resolution NONE or STATIC, not with {word}")));
        }
        if spec.resolution == Resolution::DynamicDns {
            return Err(at.error("DYNAMIC_DNS has no addresses of its own: leave them out"));
        }
    }
    Ok(())
}

fn ports(spec: &ServiceEntrySpec, path: &FieldPath) -> Result<(), FieldError> {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (i, port) in spec.ports.iter().enumerate() {
        let at = path.index(i);
        host::port(port.number, &at.field("number"))?;
        host::port_name(&port.name, &at.field("name"))?;
        if let Some(target) = port.target_port {
            host::port(target, &at.field("targetPort"))?;
        }
        if !names.insert(&port.name) {
            return Err(at.field("name").error(format!("{:?} is the name of another port, too", port.name)));
        }
        if !numbers.insert(port.number) {
            return Err(at.field("number").error(format!("{} is the number of another port, too", port.number)));
        }
        let spoken = &port.protocol;
        if !spoken.is_empty() && !PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(spoken)) {
            let known = PROTOCOLS.join(", ");
            return Err(at.field("protocol").error(format!("{spoken:?} is not known: there are {known}")));
        }
    }
    Ok(())
}

fn endpoints(spec: &ServiceEntrySpec, path: &FieldPath) -> Result<(), FieldError> {
    let word = spec.resolution.word();
    if !spec.endpoints.is_empty() && matches!(spec.resolution, Resolution::None | Resolution::DynamicDns) {
        return Err(path.error(format!(
            "resolution {word} has no endpoints: connections go where they were dialled. Use STATIC, or DNS for names"
        )));
    }
    if spec.resolution == Resolution::DnsRoundRobin && spec.endpoints.len() > 1 {
        return Err(path.error("DNS_ROUND_ROBIN has at most one endpoint: use DNS"));
    }
    for (i, endpoint) in spec.endpoints.iter().enumerate() {
        let at = path.index(i);
        endpoint.validate(&at)?;
        let address = &endpoint.address;
        match endpoint.endpoint() {
            EndpointAddress::Host(_) if !spec.resolution.is_dns() => {
                return Err(at
                    .field("address")
                    .error(format!("{address:?} is a name: {word} wants addresses; use DNS")));
            }
            EndpointAddress::Unix if spec.resolution.is_dns() => {
                return Err(at.field("address").error("a Unix socket goes with resolution STATIC only"));
            }
            _ => {}
        }
        for name in endpoint.ports.keys() {
            if !spec.ports.iter().any(|port| port.name == *name) {
                return Err(at.field("ports").field(name).error("spec.ports has no port of this name"));
            }
        }
    }
    Ok(())
}

fn export_to(spec: &ServiceEntrySpec, own: &str, path: &FieldPath) -> Result<(), FieldError> {
    let mut seen = BTreeSet::new();
    for (i, namespace) in spec.export_to.iter().enumerate() {
        let at = path.index(i);
        let alone = matches!(namespace.as_str(), "*" | "~");
        if alone && spec.export_to.len() > 1 {
            return Err(at.error(format!("{namespace:?} says it all: leave the others out")));
        }
        if !alone && namespace != "." {
            host::dns_name(namespace, &at)?;
        }
        if !seen.insert(if namespace == "." { own } else { namespace }) {
            return Err(at.error(format!("{namespace:?} is said twice")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{Kind, Object};

    fn read(kind: Kind, spec: &str) -> Result<Object, String> {
        let value: serde_json::Value =
            serde_saphyr::from_str(&format!("{{metadata: {{name: e, namespace: shop}}, spec: {spec}}}")).unwrap();
        Object::from_value(kind, &value).map_err(|error| error.to_string())
    }

    /// What is refused, and the beginning of what is said about it; empty where it is right.
    #[test]
    fn service_entries() {
        for (spec, said) in [
            ("{hosts: [a.com]}", ""),
            (
                "{hosts: [a.com], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 443, name: https, protocol: TLS}]}",
                "",
            ),
            ("{hosts: ['*.a.com'], addresses: [10.0.0.0/8], resolution: NONE, exportTo: ['.']}", ""),
            ("{hosts: ['*.a.com'], resolution: DYNAMIC_DNS, ports: [{number: 80, name: http, protocol: HTTP}]}", ""),
            (
                "{hosts: [a], resolution: STATIC, ports: [{number: 80, name: http}], endpoints: [{address: '::1', ports: {http: 8080}, weight: 2}]}",
                "",
            ),
            ("{hosts: [a], resolution: STATIC, endpoints: [{network: far}, {address: 'unix:///x'}]}", ""),
            ("{hosts: [a], resolution: STATIC, workloadSelector: {labels: {app: db}}}", ""),
            ("{}", "spec.hosts: missing"),
            ("{host: [a.com]}", "spec.host: unknown field `host`: did you mean `hosts`?"),
            ("{hosts: ['*']}", "spec.hosts[0]: \"*\" would stand"),
            ("{hosts: [a.com, 'b_c']}", "spec.hosts[1]: \"b_c\" is not a host name"),
            ("{hosts: ['*.a.com'], resolution: DNS}", "spec.hosts[0]: \"*.a.com\" cannot be resolved"),
            ("{hosts: [a.com], resolution: DYNAMIC_DNS}", "spec.hosts[0]: \"a.com\" is no wildcard"),
            ("{hosts: [a.com], resolution: STATICC}", "spec.resolution: unknown variant `STATICC`"),
            ("{hosts: [a.com], addresses: [10.0.0.0/99]}", "spec.addresses[0]: \"10.0.0.0/99\" is neither"),
            (
                "{hosts: [a.com], resolution: DNS, addresses: [10.0.0.0/8]}",
                "spec.addresses[0]: \"10.0.0.0/8\": blocks go",
            ),
            ("{hosts: [a.com], ports: [{number: 0, name: x}]}", "spec.ports[0].number: 0 is not a port"),
            ("{hosts: [a.com], ports: [{number: 1}]}", "spec.ports[0]: missing field `name`"),
            ("{hosts: [a.com], ports: [{number: 1, name: x, targetPort: 65536}]}", "spec.ports[0].targetPort: 65536"),
            (
                "{hosts: [a.com], ports: [{number: 1, name: x}, {number: 2, name: x}]}",
                "spec.ports[1].name: \"x\" is the name",
            ),
            (
                "{hosts: [a.com], ports: [{number: 1, name: x}, {number: 1, name: z}]}",
                "spec.ports[1].number: 1 is the number",
            ),
            (
                "{hosts: [a.com], ports: [{number: 1, name: x, protocol: HTTP3}]}",
                "spec.ports[0].protocol: \"HTTP3\" is not",
            ),
            (
                "{hosts: [a.com], resolution: STATIC, endpoints: [{address: b.com}]}",
                "spec.endpoints[0].address: \"b.com\" is a name",
            ),
            (
                "{hosts: [a.com], resolution: DNS, endpoints: [{address: 'b c'}]}",
                "spec.endpoints[0].address: \"b c\" is not a host",
            ),
            ("{hosts: [a.com], resolution: STATIC, endpoints: [{}]}", "spec.endpoints[0].address: missing"),
            (
                "{hosts: [a.com], resolution: STATIC, endpoints: [{address: 1.1.1.1, ports: {x: 1}}]}",
                "spec.endpoints[0].ports.x: spec.ports has no",
            ),
            (
                "{hosts: [a.com], resolution: STATIC, endpoints: [{adress: 1.1.1.1}]}",
                "spec.endpoints[0].adress: unknown field",
            ),
            ("{hosts: [a.com], endpoints: [{address: 1.1.1.1}]}", "spec.endpoints: resolution NONE has no endpoints"),
            (
                "{hosts: [a.com], resolution: DNS_ROUND_ROBIN, endpoints: [{address: a}, {address: b}]}",
                "spec.endpoints: DNS_ROUND_ROBIN",
            ),
            (
                "{hosts: [a.com], resolution: STATIC, endpoints: [{address: 1.1.1.1}], workloadSelector: {labels: {a: b}}}",
                "spec.workloadSelector: workloadSelector and endpoints",
            ),
            (
                "{hosts: [a.com], workloadSelector: {labels: {a: '*'}}}",
                "spec.workloadSelector.labels.a: a selector takes",
            ),
            ("{hosts: [a.com], exportTo: ['*', b]}", "spec.exportTo[0]: \"*\" says it all"),
            ("{hosts: [a.com], exportTo: ['.', shop]}", "spec.exportTo[1]: \"shop\" is said twice"),
            ("{hosts: [a.com], exportTo: [B]}", "spec.exportTo[0]: \"B\" is not a Kubernetes name"),
        ] {
            let found = read(Kind::ServiceEntry, spec).err().unwrap_or_default();
            assert!(found.starts_with(said) && found.is_empty() == said.is_empty(), "{spec}: {found}");
        }
    }

    #[test]
    fn workload_entries() {
        for (spec, said) in [
            ("{address: 10.0.0.1, ports: {http: 8080}, labels: {app: x}, serviceAccount: vm, locality: a/b/c}", ""),
            ("{address: vm.example.com}", ""),
            ("{network: far}", ""),
            ("{}", "spec.address: missing"),
            ("{address: 10.0.0.1, ports: {http: 0}}", "spec.ports.http: 0 is not a port"),
            ("{address: 10.0.0.1, ports: {'': 1}}", "spec.ports: \"\" is not the name of a port"),
            ("{address: 'unix:///x', ports: {http: 1}}", "spec.ports: a Unix socket has no ports"),
            ("{address: 10.0.0.1, serviceAccount: 'a/b'}", "spec.serviceAccount: \"a/b\" is not"),
            ("{address: 10.0.0.1, weigth: 3}", "spec.weigth: unknown field `weigth`: did you mean `weight`?"),
        ] {
            let found = read(Kind::WorkloadEntry, spec).err().unwrap_or_default();
            assert!(found.starts_with(said) && found.is_empty() == said.is_empty(), "{spec}: {found}");
        }
    }

    /// A status is whoever's who wrote it: it never makes an object bad.
    #[test]
    fn a_status_is_read_as_far_as_it_says_something() {
        let value = serde_json::json!({
            "metadata": {"name": "e"}, "spec": {"hosts": ["a.com"]},
            "status": {"other": 1, "addresses": [
                {"value": "240.240.0.1", "host": "a.com"}, {"value": "x", "host": "a.com"}, {"value": "::1"}, 7,
            ]},
        });
        let object = Object::from_value(Kind::ServiceEntry, &value).unwrap();
        let Object::ServiceEntry(entry) = &object else { panic!() };
        let expected = HostAddress { value: "240.240.0.1".parse().unwrap(), host: "a.com".to_owned() };
        assert_eq!(entry.status.addresses, [expected]);
        assert_eq!(Object::from_value(Kind::ServiceEntry, &object.to_value().unwrap()).unwrap(), object);
    }
}
