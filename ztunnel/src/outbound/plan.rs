//! The plan for one outbound connection: what to open, as whom, and what to say. Nothing has been opened yet.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_hbone::pool::Key;
use mesh_model::balance::Choice;
use mesh_model::destination::{self, AcrossTo, ByName, Destination, PlainTo, Refusal, SOCKS_PORT, TunnelTo};
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;
use mesh_proxy::dial;

/// What to do about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Open a tunnel on a connection of this key.
    Tunnel {
        /// What may be reused.
        key: Box<Key>,
        /// Where it goes.
        to: TunnelTo,
    },
    /// Open a tunnel on a connection of this key, and another one in it.
    Across {
        /// What may be reused of the outer one.
        key: Box<Key>,
        /// Where they go.
        to: AcrossTo,
    },
    /// Connect.
    Plain(PlainTo),
    /// Resolve a name, then ask [`of`] again.
    Resolve(ByName),
    /// Close it.
    Refuse(Refusal),
}

/// Plans a connection that `client`, seen at address `from`, opens to `dialled`; both in normal form. `socks` says whether
/// port 15080 is ours, too.
pub(crate) fn plan(
    tables: &Tables,
    client: &Workload,
    network: &str,
    socks: bool,
    (from, dialled): (SocketAddr, SocketAddr),
    by: Choice<'_>,
) -> Plan {
    if socks && dialled.ip().is_loopback() && dialled.port() == SOCKS_PORT {
        return Plan::Refuse(Refusal::Recursive); // O1
    }
    of(destination::decide(tables, client, network, dialled, by), client, from)
}

/// What to do about a connection of `client`, seen at address `from`, that should go to `destination`.
pub(crate) fn of(destination: Destination, client: &Workload, from: SocketAddr) -> Plan {
    let key = |to: &TunnelTo| match client.identity() {
        Ok(source) => Ok(Box::new(dial::key(source, from.ip(), to))),
        Err(invalid) => Err(Refusal::Identity(client.uid.to_string(), invalid)),
    };
    match destination {
        Destination::Plain(to) => Plan::Plain(to),
        Destination::Refuse(refusal) => Plan::Refuse(refusal),
        Destination::Resolve(name) => Plan::Resolve(name),
        Destination::Tunnel(to) => key(&to).map_or_else(Plan::Refuse, |key| Plan::Tunnel { key, to }),
        Destination::Across(to) => key(&to.outer).map_or_else(Plan::Refuse, |key| Plan::Across { key, to }),
    }
}

/// A plain connection is open and has carried nothing yet: what to do instead, if the tables say `now` that it must not be
/// plain. `resolved` is the name whose address was dialled, and that address: asked for again it might have another.
pub(crate) fn instead(
    now: Plan,
    resolved: Option<&(Arc<str>, IpAddr)>,
    client: &Workload,
    from: SocketAddr,
) -> Option<Plan> {
    let now = match (now, resolved) {
        (Plan::Resolve(name), Some((hostname, ip))) if name.hostname() == hostname => of(name.at(*ip), client, from),
        (now, _) => now,
    };
    (!matches!(now, Plan::Plain(_))).then_some(now)
}

#[cfg(test)]
mod tests {
    use mesh_model::address::{NamespacedName, NetworkAddress};
    use mesh_model::resource::Resource;
    use mesh_model::service::{Service, Vip};
    use mesh_model::workload::{AppProtocol, PortMapping, Tunnel};

    use super::*;

    fn pod(name: &str, ip: &str) -> Workload {
        Workload {
            namespace: "shop".into(),
            service_account: "same".into(),
            addresses: vec![ip.parse().unwrap()],
            tunnel: Tunnel::Hbone,
            ..Workload::empty(name)
        }
    }

    /// Pods of one service account, even of one name, have connections of their own; so has each peer workload.
    #[test]
    fn trap_19_what_a_connection_may_be_reused_for() {
        let key = |from: &str, peer: &str| {
            let mut tables = Tables::default();
            tables.apply(Resource::Workload(Arc::new(pod(peer, "10.0.0.1"))));
            let (from, to) = (SocketAddr::new(from.parse().unwrap(), 4000), "10.0.0.1:80".parse().unwrap());
            match plan(&tables, &pod("client", "10.0.0.9"), "", false, (from, to), 0.into()) {
                Plan::Tunnel { key, .. } => *key,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(key("10.0.0.9", "a"), key("10.0.0.9", "a"));
        assert_ne!(key("10.0.0.9", "a"), key("10.0.0.8", "a"), "trap 19: the source address");
        assert_ne!(key("10.0.0.9", "a"), key("10.0.0.9", "b"), "an address that another pod has now");
    }

    /// The tables may change while a plain connection is dialled, also those of an endpoint that has only a name.
    #[test]
    fn a_plain_connection_is_looked_at_again_before_it_carries() {
        let client = pod("client", "10.0.0.9");
        let (from, dialled) = ("10.0.0.9:4000".parse().unwrap(), "10.96.0.1:80".parse().unwrap());
        let named = |hostname: &str, tunnel| Workload {
            addresses: Vec::new(),
            hostname: hostname.into(),
            tunnel,
            ..pod("web", "10.0.0.1")
        };
        let at = Workload { tunnel: Tunnel::None, ..pod("web", "10.0.0.1") };
        let resolved: (Arc<str>, IpAddr) = (Arc::from("a.example"), "192.0.2.7".parse().unwrap());
        let now = |endpoint: Option<Workload>| {
            let ports = vec![PortMapping { service_port: 80, target_port: 8080, app_protocol: AppProtocol::Unknown }];
            let vip = NetworkAddress { network: "".into(), ip: "10.96.0.1".parse().unwrap() };
            let vips = vec![Vip { address: vip, prefix: None }];
            let service = Service { vips, ports: ports.clone(), ..Service::empty("shop", "web.example") };
            let mut tables = Tables::default();
            tables.apply(Resource::Service(Arc::new(service)));
            if let Some(endpoint) = endpoint {
                let services = [(NamespacedName::new("shop", "web.example"), ports)].into();
                tables.apply(Resource::Workload(Arc::new(Workload { services, healthy: true, ..endpoint })));
            }
            plan(&tables, &client, "", false, (from, dialled), 0.into())
        };
        for (what, endpoint, resolved, expected) in [
            ("the same address", Some(at.clone()), None, "goes on"),
            ("an address instead of a name", Some(at), Some(&resolved), "goes on"),
            ("the same name", Some(named("a.example", Tunnel::None)), Some(&resolved), "goes on"),
            ("the same name, in the mesh", Some(named("a.example", Tunnel::Hbone)), Some(&resolved), "192.0.2.7:15008"),
            ("another name", Some(named("b.example", Tunnel::None)), Some(&resolved), "b.example"),
            ("a name instead of an address", Some(named("a.example", Tunnel::Hbone)), None, "a.example"),
            ("nobody", None, Some(&resolved), "NO_HEALTHY_UPSTREAM"),
        ] {
            let instead = match instead(now(endpoint), resolved, &client, from) {
                None => "goes on".to_owned(),
                Some(Plan::Tunnel { to, .. }) => to.peer.to_string(),
                Some(Plan::Resolve(name)) => name.hostname().to_string(),
                Some(Plan::Refuse(refusal)) => refusal.code().to_string(),
                Some(other) => panic!("{what}: {other:?}"),
            };
            assert_eq!(instead, expected, "{what}");
        }
    }

    /// Contract 1.8: port 15080 is reserved while there is SOCKS.
    #[test]
    fn o1_the_socks_port_is_ours_where_there_is_socks() {
        let (tables, client) = (Tables::default(), pod("client", "10.0.0.9"));
        for (socks, dialled, ours) in [
            (true, "127.0.0.1:15080", true),
            (false, "127.0.0.1:15080", false),
            (true, "10.0.0.1:15080", false),
            (true, "127.0.0.1:15081", false),
            (false, "127.0.0.1:15001", true),
        ] {
            let way = ("10.0.0.9:4000".parse().unwrap(), dialled.parse().unwrap());
            let refused = matches!(plan(&tables, &client, "", socks, way, 0.into()), Plan::Refuse(Refusal::Recursive));
            assert_eq!(refused, ours, "{dialled}, SOCKS {socks}");
        }
    }
}
