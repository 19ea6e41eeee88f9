//! What the tables say to a question for an address. Pure.
//!
//! ztunnel does not know a pod's search list. It guesses it from the pod's namespace, as Kubernetes writes it, and
//! answers at once the names that a resolver makes with it.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_model::service::Service;
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;

use super::message::{self, Question, kind};

/// What is set about names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// `CLUSTER_DOMAIN`: services have their names below `svc.` of it.
    pub domain: String,
    /// `PREFERED_SERVICE_NAMESPACE`: of several services with one name, one of this namespace comes before the rest.
    pub preferred_namespace: Option<String>,
}

/// What to do about a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The name is a service's: these are its addresses of the family asked for. None of that family is an answer, too:
    /// asking others would only tell them, and slow down clients that ask for both (Trap 56).
    Addresses {
        /// The service.
        service: Arc<Service>,
        /// The name that the one asked for is an alias of.
        alias: Option<String>,
        /// In the tables' order.
        addresses: Vec<IpAddr>,
    },
    /// Others know.
    Forward(Why),
}

/// Why a question is not answered from the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Why {
    /// Its type, or its class.
    #[error("only addresses of the Internet class are answered from the mesh's tables")]
    Type,
    /// Its name.
    #[error("no service that the client sees has this name")]
    Name,
    /// A ServiceEntry that has a name and no address.
    #[error("the service of this name has no address in the mesh")]
    NoAddress,
}

/// What the tables say to a question of `client`'s.
pub(crate) fn answer(tables: &Tables, client: &Workload, names: &Names, question: &Question) -> Answer {
    let ipv4 = match question.kind {
        kind::A => true,
        kind::AAAA => false,
        _ => return Answer::Forward(Why::Type),
    };
    if question.class != message::CLASS_IN {
        return Answer::Forward(Why::Type);
    }
    let Some((service, alias)) = find(tables, client, names, &question.name) else {
        return Answer::Forward(Why::Name);
    };
    let family = |ip: &IpAddr| ip.is_ipv4() == ipv4;
    // A block is no address that could be called.
    let single = |ip: IpAddr, prefix: Option<u8>| prefix.is_none_or(|p| p == if ip.is_ipv4() { 32 } else { 128 });
    let mut vips = service.vips.iter().filter(|vip| single(vip.address.ip, vip.prefix)).peekable();
    let addresses = if vips.peek().is_some() {
        vips.filter(|vip| vip.address.network == client.network).map(|vip| vip.address.ip).filter(family).collect()
    } else if is_below(&service.hostname, &format!("svc.{}", names.domain)) {
        let endpoints = tables.endpoints(&service.key()).iter();
        let ready = endpoints.filter(|endpoint| endpoint.healthy || service.load_balancing.allow_unhealthy);
        ready.filter_map(|endpoint| endpoint.addresses.iter().copied().find(family)).collect()
    } else {
        return Answer::Forward(Why::NoAddress);
    };
    Answer::Addresses { service: service.clone(), alias, addresses }
}

/// A name under which a service may be known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    name: String,
    /// What is left of the name asked for when a search domain was taken off.
    stripped: Option<String>,
}

/// The service that a name means, and what the name is then an alias of.
fn find<'a>(
    tables: &'a Tables,
    client: &Workload,
    names: &Names,
    name: &str,
) -> Option<(&'a Arc<Service>, Option<String>)> {
    for candidate in candidates(name, &client.namespace, &names.domain) {
        if let Some(service) = best(tables, client, names, &candidate.name) {
            return Some((service, candidate.stripped));
        }
        let mut rest = candidate.name.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            // The wildcard covers the name as it was asked for: it is no alias.
            if let Some(service) = best(tables, client, names, &format!("*.{parent}")) {
                return Some((service, None));
            }
            rest = parent;
        }
    }
    None
}

/// Of several services with a hostname: the client's namespace, the canonical one, the preferred namespace, the first.
fn best<'a>(tables: &'a Tables, client: &Workload, names: &Names, hostname: &str) -> Option<&'a Arc<Service>> {
    let preferred = names.preferred_namespace.as_deref();
    tables.services_named(hostname, &client.namespace).min_by_key(|service| {
        (service.namespace != client.namespace, !service.canonical, preferred != Some(&*service.namespace))
    })
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

fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|left| left.ends_with('.'))
}

#[cfg(test)]
mod tests;
