//! One thing the control plane can say: its kind, its name, encode and decode.

use std::sync::Arc;

use mesh_proto::workload::address;
use prost::Message;
use prost::bytes::Bytes;

use crate::policy::{InvalidPolicy, Policy};
use crate::route::{InvalidRoutes, ServiceRoutes};
use crate::service::{InvalidService, Service};
use crate::workload::{InvalidWorkload, Workload};

/// The kinds of resources, one for each xDS type URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Workloads and services.
    Address,
    /// Authorization policies.
    Authorization,
    /// What waypoints do with requests. Of Ambit's own: other control planes have none.
    Routes,
}

impl Kind {
    /// Every kind, in the order in which a client should hear of them: policies no later than workloads, routes no later
    /// than the services they are for.
    pub const ALL: [Self; 3] = [Self::Authorization, Self::Routes, Self::Address];

    /// The kinds that every control plane has, in that order: what a ztunnel asks for.
    pub const ISTIO: [Self; 2] = [Self::Authorization, Self::Address];

    /// The xDS type URL.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Address => "type.googleapis.com/istio.workload.Address",
            Self::Authorization => "type.googleapis.com/istio.security.Authorization",
            Self::Routes => "type.googleapis.com/ambit.v1.ServiceRoutes",
        }
    }

    /// The kind with this type URL.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }
}

/// One thing the control plane can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A workload.
    Workload(Arc<Workload>),
    /// A service.
    Service(Arc<Service>),
    /// An authorization policy.
    Policy(Arc<Policy>),
    /// What waypoints do with a service's requests.
    Routes(Arc<ServiceRoutes>),
}

/// Why a resource was refused. It alone is refused; the rest of its response is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidResource {
    /// The bytes are no protobuf message of the kind.
    #[error("not a message of its type: {0}")]
    Encoding(String),
    /// Neither workload nor service.
    #[error("an Address holds a workload or a service; this one holds neither")]
    Empty,
    /// A workload that breaks a rule.
    #[error("workload: {0}")]
    Workload(#[from] InvalidWorkload),
    /// A service that breaks a rule.
    #[error("service: {0}")]
    Service(#[from] InvalidService),
    /// A policy that breaks a rule.
    #[error("policy: {0}")]
    Policy(#[from] InvalidPolicy),
    /// Routes that break a rule.
    #[error("routes: {0}")]
    Routes(#[from] InvalidRoutes),
}

impl Resource {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Workload(_) | Self::Service(_) => Kind::Address,
            Self::Policy(_) => Kind::Authorization,
            Self::Routes(_) => Kind::Routes,
        }
    }

    /// Its xDS name: a workload's uid, `namespace/hostname` of a service and of its routes, `namespace/name` of a policy.
    pub fn name(&self) -> String {
        match self {
            Self::Workload(w) => w.uid.to_string(),
            Self::Service(s) => s.key().to_string(),
            Self::Policy(p) => p.key().to_string(),
            Self::Routes(r) => r.service.to_string(),
        }
    }

    /// Other names by which an on-demand client may ask for it: `network/ip` of each address.
    pub fn aliases(&self) -> Vec<String> {
        match self {
            Self::Workload(w) if w.host_network => Vec::new(),
            Self::Workload(w) => w.addresses.iter().map(|ip| format!("{}/{ip}", w.network)).collect(),
            Self::Service(s) => s
                .vips
                .iter()
                .map(|vip| match vip.prefix {
                    Some(length) => format!("{}/{length}", vip.address),
                    None => vip.address.to_string(),
                })
                .collect(),
            Self::Policy(_) | Self::Routes(_) => Vec::new(),
        }
    }

    /// The protobuf message, as carried in the `Any` of an xDS resource.
    pub fn encode(&self) -> Bytes {
        let address = |r#type| mesh_proto::workload::Address { r#type: Some(r#type) }.encode_to_vec();
        match self {
            Self::Workload(w) => address(address::Type::Workload((&**w).into())),
            Self::Service(s) => address(address::Type::Service((&**s).into())),
            Self::Policy(p) => mesh_proto::policy::Authorization::from(&**p).encode_to_vec(),
            Self::Routes(r) => mesh_proto::ambit::ServiceRoutes::from(&**r).encode_to_vec(),
        }
        .into()
    }

    /// Decodes one resource of a kind.
    ///
    /// # Errors
    /// Says what is wrong with this resource; others are not affected.
    pub fn decode(kind: Kind, bytes: Bytes) -> Result<Self, InvalidResource> {
        let encoding = |e: prost::DecodeError| InvalidResource::Encoding(e.to_string());
        match kind {
            Kind::Address => match mesh_proto::workload::Address::decode(bytes).map_err(encoding)?.r#type {
                Some(address::Type::Workload(w)) => Ok(Self::Workload(Arc::new(w.try_into()?))),
                Some(address::Type::Service(s)) => Ok(Self::Service(Arc::new(s.try_into()?))),
                None => Err(InvalidResource::Empty),
            },
            Kind::Authorization => {
                let policy = mesh_proto::policy::Authorization::decode(bytes).map_err(encoding)?;
                Ok(Self::Policy(Arc::new(policy.try_into()?)))
            }
            Kind::Routes => {
                let routes = mesh_proto::ambit::ServiceRoutes::decode(bytes).map_err(encoding)?;
                Ok(Self::Routes(Arc::new(routes.try_into()?)))
            }
        }
    }
}
