//! Names that are nothing but other names (Services of type ExternalName): each is an alias (CNAME) of the next, and the
//! last one's records come along, because programs do not ask again. Within the mesh the tables say where a name leads;
//! outside of it the name servers do.

use std::net::IpAddr;
use std::time::Duration;

use mesh_model::tables::Tables;
use mesh_model::workload::Workload;

use super::answer::{self, Answer, NameSettings};
use super::message::{self, Query, Question, kind};

/// How long an answer from the tables may be remembered.
pub(super) const TTL: Duration = Duration::from_secs(30);
/// Most names that lead from one to the next.
const MOST_ALIASES: usize = 8;

/// What the tables say to a query.
#[derive(Debug)]
pub(super) enum Known {
    /// The answer.
    Said(Vec<u8>),
    /// The name is another name, which leads out of the mesh.
    Outside(Aliases),
    /// Nothing: others know.
    No,
}

/// Where a name leads.
#[derive(Debug)]
pub(super) struct Aliases {
    /// Each an alias of the next.
    names: Vec<String>,
    /// What the last one is in the mesh.
    end: End,
}

#[derive(Debug)]
enum End {
    /// Nothing more is asked for than that it is an alias.
    Alias,
    /// A service with these addresses of the family asked for.
    Addresses(Vec<IpAddr>),
    /// Nothing: others know.
    Outside,
}

/// Follows `names` from one to the next, as far as the tables know.
pub(super) fn follow(
    tables: &Tables,
    client: &Workload,
    names: &NameSettings,
    question: &Question,
    aliases: impl Iterator<Item = String>,
) -> Aliases {
    let mut found = Aliases { names: aliases.collect(), end: End::Outside };
    if !matches!(question.kind, kind::A | kind::AAAA) {
        found.end = End::Alias;
        return found;
    }
    while let Some(last) = found.names.last().filter(|_| found.names.len() <= MOST_ALIASES) {
        match answer::answer_whole(tables, client, names, &question.of(last)) {
            Answer::Alias { target, .. } => found.names.push(target.to_string()),
            Answer::Addresses { addresses, .. } => {
                found.end = End::Addresses(addresses);
                return found;
            }
            Answer::Targets { .. } | Answer::Forward(_) => return found,
        }
    }
    // They lead in a circle, or might as well: no address.
    found.names.truncate(MOST_ALIASES);
    found.end = End::Addresses(Vec::new());
    found
}

impl Aliases {
    /// The answer, if the mesh has it.
    pub(super) fn known(self, packet: &[u8], query: &Query, limit: usize) -> Known {
        match &self.end {
            End::Alias => Known::Said(message::answer(packet, query, &self.names(), &[], TTL, limit)),
            End::Addresses(addresses) => {
                Known::Said(message::answer(packet, query, &self.names(), addresses, TTL, limit))
            }
            End::Outside => Known::Outside(self),
        }
    }

    fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// The question for the last name; none for what is no name.
    pub(super) fn query(&self, kind: u16) -> Option<Vec<u8>> {
        message::query(self.names.last()?, kind, rand::random())
    }

    /// The answer to `packet`, given what a name server says of the last name.
    pub(super) fn answer(&self, packet: &[u8], query: &Query, outside: &[u8], limit: usize) -> Vec<u8> {
        let kind = query.question.as_ref().map(|q| q.kind).unwrap_or_default();
        let addresses = message::addresses(outside, kind);
        let lasts = message::lifetime(outside).map_or(Duration::ZERO, |lifetime| lifetime.lasts);
        let answer = message::answer(packet, query, &self.names(), &addresses, lasts.min(TTL), limit);
        message::with_rcode_of(answer, outside)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_model::address::{NamespacedName, NetworkAddress};
    use mesh_model::resource::Resource;
    use mesh_model::service::{Service, ServiceExtension, Vip};

    use super::super::message::tests::query;
    use super::*;

    fn alias(name: &str, target: &str) -> Service {
        let extension = ServiceExtension { external_name: target.into(), ..ServiceExtension::default() };
        let hostname = format!("{name}.shop.svc.cluster.local.");
        Service { extension: Some(Arc::new(extension)), ..Service::empty("shop", hostname) }
    }

    fn tables() -> Tables {
        let key = NamespacedName::new("shop", "real.shop.svc.cluster.local");
        let address = NetworkAddress { network: "".into(), ip: "10.96.0.1".parse().unwrap() };
        let real = Service { vips: vec![Vip { address, prefix: None }], ..Service::empty(key.namespace, key.name) };
        let mut tables = Tables::default();
        for service in [
            real,
            alias("near", "real.shop.svc.cluster.local"),
            alias("twice", "near.shop.svc.cluster.local"),
            alias("far", "www.example.org"),
            alias("outside", "real.shop"),
            alias("nobody", "none.shop.svc.cluster.local"),
            alias("round", "about.shop.svc.cluster.local"),
            alias("about", "round.shop.svc.cluster.local"),
        ] {
            tables.apply(Resource::Service(service.into()));
        }
        tables
    }

    #[test]
    fn where_names_lead() {
        let (tables, client) = (tables(), Workload { namespace: "shop".into(), ..Workload::empty("client") });
        let names = NameSettings { domain: "cluster.local".into(), preferred_namespace: None, ipv6: true };
        let led = |name: &str, kind: u16| {
            let question = message::read(&query(7, name, kind)).unwrap().question.unwrap();
            match answer::answer(&tables, &client, &names, &question) {
                Answer::Alias { alias, target, .. } => {
                    let aliases = alias.into_iter().chain([target.to_string()]);
                    let found = follow(&tables, &client, &names, &question, aliases);
                    format!("{} {:?}", found.names.join(" "), found.end)
                }
                other => format!("{other:?}"),
            }
        };
        let real = "real.shop.svc.cluster.local";
        for (name, kind, expected) in [
            ("near", kind::A, format!("{real} Addresses([10.96.0.1])")),
            ("near.shop.svc.cluster.local", kind::A, format!("{real} Addresses([10.96.0.1])")),
            ("near.shop.svc.cluster.local", kind::AAAA, format!("{real} Addresses([])")),
            ("near.shop", kind::CNAME, format!("{real} Alias")),
            ("near.shop", 16, format!("{real} Alias")),
            ("twice", kind::A, format!("near.shop.svc.cluster.local {real} Addresses([10.96.0.1])")),
            ("far", kind::A, "www.example.org Outside".to_owned()),
            ("far.shop.shop.svc.cluster.local", kind::A, "far.shop www.example.org Outside".to_owned()),
            ("outside", kind::A, "real.shop Outside".to_owned()),
            ("nobody", kind::A, "none.shop.svc.cluster.local Outside".to_owned()),
            ("real", kind::CNAME, "Forward(Type)".to_owned()),
        ] {
            assert_eq!(led(name, kind), expected, "{name}");
        }
        assert!(led("round", kind::A).ends_with(" Addresses([])"), "a circle has no address");
    }
}
