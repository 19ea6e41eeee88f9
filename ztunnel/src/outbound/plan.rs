//! The plan for one outbound connection: what to open, as whom, and what to say. Nothing has been opened yet.

use std::net::SocketAddr;

use mesh_hbone::pool::Key;
use mesh_model::destination::{self, Destination, PlainTo, Refusal, TunnelTo};
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;

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
    /// Connect.
    Plain(PlainTo),
    /// Close it.
    Refuse(Refusal),
}

/// Plans a connection that `client`, seen at address `from`, opens to `dialled`; both in normal form.
pub(crate) fn plan(
    tables: &Tables,
    client: &Workload,
    network: &str,
    from: SocketAddr,
    dialled: SocketAddr,
    random: u64,
) -> Plan {
    match destination::decide(tables, client, network, dialled, random) {
        Destination::Plain(to) => Plan::Plain(to),
        Destination::Refuse(refusal) => Plan::Refuse(refusal),
        Destination::Tunnel(to) => match client.identity() {
            Ok(source) => Plan::Tunnel {
                key: Box::new(Key {
                    source,
                    source_ip: from.ip(),
                    expected: to.expected.clone(),
                    peer: to.peer,
                    workload: to.workload.uid.clone(),
                }),
                to,
            },
            Err(invalid) => Plan::Refuse(Refusal::Identity(client.uid.to_string(), invalid)),
        },
    }
}
