//! What the tables say to a question. Pure.
//!
//! ztunnel does not know a pod's search list. It guesses it from the pod's namespace, as Kubernetes writes it, and
//! answers at once the names that a resolver makes with it.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_model::service::{NamedPort, Service};
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;

use super::message::{self, Question, Target, kind};

/// What is set about names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameSettings {
    /// `CLUSTER_DOMAIN`: services have their names below `svc.` of it.
    pub domain: String,
    /// `PREFERED_SERVICE_NAMESPACE`: of several services with one name, one of this namespace comes before the rest.
    pub preferred_namespace: Option<String>,
    /// `IPV6_ENABLED`: without it names of the mesh have no IPv6 addresses.
    pub ipv6: bool,
}

/// What to do about a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The name is a service's, or an endpoint's of one: these are its addresses of the family asked for. None of that
    /// family is an answer, too: asking others would only tell them, and slow down clients that ask for both (Trap 56).
    Addresses {
        /// The service.
        service: Arc<Service>,
        /// The name that the one asked for is an alias of.
        alias: Option<String>,
        /// In the tables' order.
        addresses: Vec<IpAddr>,
    },
    /// The name is a service's port: this is where it is served.
    Targets {
        /// The service.
        service: Arc<Service>,
        /// The name that the one asked for is an alias of.
        alias: Option<String>,
        /// In the tables' order.
        targets: Vec<Target>,
    },
    /// The name is nothing but another name.
    Alias {
        /// The service that says so.
        service: Arc<Service>,
        /// The name that the one asked for is an alias of.
        alias: Option<String>,
        /// The other name, in full.
        target: Arc<str>,
    },
    /// Others know.
    Forward(Why),
}

/// Why a question is not answered from the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Why {
    /// Its type, or its class.
    #[error("only addresses and services of the Internet class are answered from the mesh's tables")]
    Type,
    /// Its name.
    #[error("nothing that the client sees has this name")]
    Name,
    /// A ServiceEntry that has a name and no address.
    #[error("the service of this name has no address in the mesh")]
    NoAddress,
}

/// What the tables say to a question of `client`'s.
pub(crate) fn answer(tables: &Tables, client: &Workload, names: &NameSettings, question: &Question) -> Answer {
    Asked { tables, client, names, whole: false }.answer(question)
}

/// The same for a name that is whole, whatever a resolver would make of it.
pub(crate) fn answer_whole(tables: &Tables, client: &Workload, names: &NameSettings, question: &Question) -> Answer {
    Asked { tables, client, names, whole: true }.answer(question)
}

fn is_address(kind: u16) -> bool {
    matches!(kind, kind::A | kind::AAAA)
}

/// What a name stands for.
enum Found<'a> {
    Service(&'a Arc<Service>),
    /// One endpoint of a service, or those that share the name; and their addresses.
    Endpoint(&'a Arc<Service>, Vec<IpAddr>),
    /// A service that is nothing but another name.
    Alias(&'a Arc<Service>),
}

/// What an answer is made from.
#[derive(Clone, Copy)]
struct Asked<'a> {
    tables: &'a Tables,
    client: &'a Workload,
    names: &'a NameSettings,
    /// Names are whole: no search list was, or will be, tried.
    whole: bool,
}

impl<'a> Asked<'a> {
    fn answer(self, question: &Question) -> Answer {
        if question.class != message::CLASS_IN {
            return Answer::Forward(Why::Type);
        }
        if question.kind == kind::SRV {
            return self.port(&question.name);
        }
        let Some((found, alias)) = self.find(&question.name) else {
            return Answer::Forward(if is_address(question.kind) { Why::Name } else { Why::Type });
        };
        if let Found::Alias(service) = found
            && let Some(target) = service.external_name()
        {
            return Answer::Alias { service: service.clone(), alias, target: target.clone() };
        }
        if !is_address(question.kind) {
            return Answer::Forward(Why::Type);
        }
        let family = |ip: &IpAddr| ip.is_ipv4() == (question.kind == kind::A);
        match found {
            Found::Service(service) => match self.addresses(service) {
                Some(addresses) => {
                    let addresses = addresses.into_iter().filter(family).collect();
                    Answer::Addresses { service: service.clone(), alias, addresses }
                }
                None => Answer::Forward(Why::NoAddress),
            },
            Found::Endpoint(service, addresses) => {
                let addresses = addresses.into_iter().filter(family).collect();
                Answer::Addresses { service: service.clone(), alias, addresses }
            }
            Found::Alias(_) => Answer::Forward(Why::Name),
        }
    }

    /// A service's addresses; none for one outside of the cluster that has none.
    fn addresses(self, service: &Service) -> Option<Vec<IpAddr>> {
        // A block is no address that could be called.
        let single = |ip: IpAddr, prefix: Option<u8>| prefix.is_none_or(|p| p == if ip.is_ipv4() { 32 } else { 128 });
        let mut vips = service.vips.iter().filter(|vip| single(vip.address.ip, vip.prefix)).peekable();
        if vips.peek().is_some() {
            let own = vips.filter(|vip| vip.address.network == self.client.network).map(|vip| vip.address.ip);
            return Some(own.filter(|ip| self.is_served(*ip)).collect());
        }
        if !self.is_in_cluster(&service.hostname) {
            return None;
        }
        let first = |endpoint: &Workload, ipv4| self.shown(service, endpoint).find(|ip: &IpAddr| ip.is_ipv4() == ipv4);
        let endpoints = self.endpoints(service);
        Some(endpoints.flat_map(|e| [true, false].into_iter().filter_map(move |ipv4| first(e, ipv4))).collect())
    }

    /// The endpoints that names show.
    fn endpoints(self, service: &Service) -> impl Iterator<Item = &'a Workload> {
        let all = service.load_balancing.allow_unhealthy;
        self.tables.endpoints(&service.key()).iter().filter(move |e| e.healthy || all).map(|e| &**e)
    }

    /// The addresses of an endpoint that a service shows: those of its families. None of another network, as with virtual
    /// addresses: here such an address is nobody's, or another pod's.
    fn shown(self, service: &Service, endpoint: &'a Workload) -> impl Iterator<Item = IpAddr> + use<'a> {
        let families = service.ip_families;
        let reachable = endpoint.network == self.client.network;
        let shown = move |ip: &IpAddr| reachable && families.allow(*ip) && self.is_served(*ip);
        endpoint.addresses.iter().copied().filter(shown)
    }

    /// Whether ztunnel serves the family at all.
    fn is_served(self, ip: IpAddr) -> bool {
        self.names.ipv6 || ip.is_ipv4()
    }

    fn is_in_cluster(self, name: &str) -> bool {
        let below = name.strip_suffix(self.names.domain.as_str()).and_then(|rest| rest.strip_suffix(".svc."));
        below.is_some_and(|rest| !rest.is_empty())
    }

    /// What a name means, and what the name is then an alias of.
    fn find(self, name: &str) -> Option<(Found<'a>, Option<String>)> {
        let candidates = match self.whole {
            true => vec![Candidate { name: name.to_owned(), stripped: None }],
            false => candidates(name, &self.client.namespace, &self.names.domain),
        };
        for candidate in candidates {
            if let Some(found) = self.exactly(&candidate.name) {
                return Some((found, candidate.stripped));
            }
            let mut rest = candidate.name.as_str();
            while let Some((_, parent)) = rest.split_once('.') {
                // The wildcard covers the name as it was asked for: it is no alias.
                if let Some(service) = self.best(&format!("*.{parent}")) {
                    return Some((Found::Service(service), None));
                }
                rest = parent;
            }
        }
        None
    }

    /// What has this name, and no other.
    fn exactly(self, name: &str) -> Option<Found<'a>> {
        if let Some(service) = self.best(name) {
            return Some(Found::Service(service));
        }
        if !self.is_in_cluster(name) {
            return None;
        }
        // The last dot sets such services apart (`mesh_model::service::ServiceExtension`).
        if let Some(service) = self.best(&format!("{name}.")) {
            return Some(Found::Alias(service));
        }
        let (label, rest) = name.split_once('.')?;
        let service = self.best(rest).filter(|_| self.is_in_cluster(rest))?;
        let ip = dashed(label);
        let same = |e: &&Workload| *e.hostname == *name || ip.is_some_and(|ip| e.addresses.contains(&ip));
        let mut endpoints = self.endpoints(service).filter(same).peekable();
        endpoints.peek()?;
        let chosen = |address: &IpAddr| ip.is_none_or(|ip| ip == *address);
        Some(Found::Endpoint(service, endpoints.flat_map(|e| self.shown(service, e)).filter(chosen).collect()))
    }

    /// Of several services with a hostname: the client's namespace, the canonical one, the preferred namespace, the first.
    fn best(self, hostname: &str) -> Option<&'a Arc<Service>> {
        let preferred = self.names.preferred_namespace.as_deref();
        let own = &self.client.namespace;
        self.tables.services_named(hostname, own).min_by_key(|service| {
            (service.namespace != *own, !service.canonical, preferred != Some(&*service.namespace))
        })
    }

    /// Where a port is, by its name: `_http._tcp.web`.
    fn port(self, name: &str) -> Answer {
        let parts = || {
            let (port, rest) = name.strip_prefix('_')?.split_once("._")?;
            let (protocol, service) = rest.split_once('.')?;
            Some((port, protocol, service))
        };
        let Some((port, protocol, of)) = parts() else { return Answer::Forward(Why::Type) };
        let Some((Found::Service(service), alias)) = self.find(of) else { return Answer::Forward(Why::Name) };
        let mut named = service.extension.iter().flat_map(|e| &e.named_ports);
        let Some(found) = named.find(|p| *p.name == *port && *p.protocol == *protocol) else {
            // Only Ambit's control plane tells names of ports.
            return Answer::Forward(Why::Name);
        };
        let targets = match service.vips.is_empty() {
            true => self.endpoints(service).flat_map(|e| self.targets(service, e, found)).collect(),
            false => vec![Target {
                name: service.hostname.to_string(),
                port: found.service_port,
                addresses: self.addresses(service).unwrap_or_default(),
            }],
        };
        let alias = alias.map(|alias| format!("_{port}._{protocol}.{alias}"));
        Answer::Targets { service: service.clone(), alias, targets }
    }

    /// Where an endpoint of a headless service has a port: by its hostname, else by each of its addresses.
    fn targets(self, service: &Service, endpoint: &'a Workload, port: &NamedPort) -> Vec<Target> {
        let own = endpoint.services.get(&service.key()).unwrap_or_default();
        let own = own.iter().find(|p| p.service_port == port.service_port && *port.protocol == *"tcp");
        let number = own.map_or(port.target_port, |p| p.target_port);
        let number = if number == 0 { port.service_port } else { number };
        let target = |name, addresses| Target { name, port: number, addresses };
        let addresses: Vec<IpAddr> = self.shown(service, endpoint).collect();
        if endpoint.hostname.split_once('.').is_some_and(|(_, rest)| *rest == *service.hostname)
            && !addresses.is_empty()
        {
            return vec![target(endpoint.hostname.to_string(), addresses)];
        }
        let named = |ip: IpAddr| target(format!("{}.{}", with_dashes(ip), service.hostname), vec![ip]);
        addresses.into_iter().map(named).collect()
    }
}

/// The label of an endpoint that has no hostname: its address, with dashes for dots and colons.
fn with_dashes(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

/// The address in such a label. In full only: another spelling of it is another name.
fn dashed(label: &str) -> Option<IpAddr> {
    let four = || label.replace('-', ".").parse().ok().map(IpAddr::V4);
    let ip = four().or_else(|| label.replace('-', ":").parse().ok().map(IpAddr::V6))?;
    (with_dashes(ip) == label).then_some(ip)
}

/// A name under which a service may be known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    name: String,
    /// What is left of the name asked for when a search domain was taken off.
    stripped: Option<String>,
}

/// The names under which the tables may know what a client in `namespace` calls `name`, best first.
fn candidates(name: &str, namespace: &str, domain: &str) -> Vec<Candidate> {
    let mut list: Vec<Candidate> = Vec::new();
    let mut add = |name: String, stripped: Option<&str>| {
        if !list.iter().any(|known| known.name == name) {
            list.push(Candidate { name, stripped: stripped.map(Into::into) });
        }
    };
    let search = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    let stripped = search.iter().filter_map(|domain| {
        let left = name.strip_suffix(domain.as_str())?.strip_suffix('.')?;
        (!left.is_empty()).then_some(Some(left))
    });
    for stripped in std::iter::once(None).chain(stripped) {
        let name = stripped.unwrap_or(name);
        if name.is_empty() {
            continue;
        }
        add(name.to_owned(), stripped);
        for expanded in expansions(name, namespace, domain) {
            add(expanded, stripped);
        }
    }
    list
}

/// What Kubernetes would make of a short name.
fn expansions(name: &str, namespace: &str, domain: &str) -> Vec<String> {
    let ends_in_svc = name.ends_with(".svc");
    match name.split('.').count() {
        1 => vec![format!("{name}.{namespace}.svc.{domain}")],
        2 => vec![format!("{name}.{namespace}.svc.{domain}"), format!("{name}.svc.{domain}")],
        3 if ends_in_svc => vec![format!("{name}.{domain}"), format!("{name}.svc.{domain}")],
        3 => vec![format!("{name}.svc.{domain}")],
        4 if ends_in_svc => vec![format!("{name}.{domain}")],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
