//! What Ambit says of a service beyond `istio.workload.Service`: an extension there, which others skip.

use std::sync::Arc;

use mesh_proto::workload::Extension;
use mesh_proto::{Any, ambit as pb};
use prost::Message;

use crate::shared::text;

/// Its name among a service's extensions.
const NAME: &str = "ambit.dev/service";
/// What it holds.
const TYPE_URL: &str = "type.googleapis.com/ambit.v1.ServiceExtension";

/// What only Ambit's control plane says of a service (`ambit.v1.ServiceExtension`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ServiceExtension {
    /// A client keeps its endpoint for as long as that takes traffic.
    pub client_ip_affinity: bool,
    /// The ports that have a name, of any protocol.
    pub named_ports: Vec<NamedPort>,
    /// The service is nothing but another name for this one; else empty. Lower case, without a last dot. The hostname of
    /// such a service ends in a dot, so that DNS proxies that do not know the extension never find it: they ask the
    /// cluster's DNS, as they do where istiod leaves such services out.
    pub external_name: Arc<str>,
}

/// A port of a service, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// Lower case.
    pub name: Arc<str>,
    /// Lower case: `tcp`, `udp` or `sctp`.
    pub protocol: Arc<str>,
    /// At the service's own address.
    pub service_port: u16,
    /// At its endpoints; 0 asks each endpoint.
    pub target_port: u16,
}

/// Why an extension of ours was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidExtension {
    /// No message of its type.
    #[error("its extension {NAME} is not {TYPE_URL}")]
    Message,
    /// A port that is none.
    #[error("its extension {NAME} has port {0}, which is none")]
    Port(u32),
}

impl ServiceExtension {
    /// The one of ours among a service's extensions, if it says anything.
    pub(super) fn find(extensions: &[Extension]) -> Result<Option<Arc<Self>>, InvalidExtension> {
        let Some(ours) = extensions.iter().find(|e| e.name == NAME) else { return Ok(None) };
        let config = ours.config.as_ref().filter(|c| c.type_url == TYPE_URL).ok_or(InvalidExtension::Message)?;
        let wire = pb::ServiceExtension::decode(&*config.value).map_err(|_| InvalidExtension::Message)?;
        let number = |port: u32| u16::try_from(port).map_err(|_| InvalidExtension::Port(port));
        let port = |port: &pb::NamedPort| {
            Ok(NamedPort {
                name: text(&port.name.to_ascii_lowercase()),
                protocol: text(&port.protocol.to_ascii_lowercase()),
                service_port: number(port.service_port)?,
                target_port: number(port.target_port)?,
            })
        };
        let found = Self {
            client_ip_affinity: wire.client_ip_affinity,
            named_ports: wire.ports.iter().map(port).collect::<Result<_, _>>()?,
            external_name: text(&wire.external_name.to_ascii_lowercase()),
        };
        Ok((found != Self::default()).then(|| found.into()))
    }

    /// As it travels.
    pub(super) fn to_wire(&self) -> Extension {
        let port = |port: &NamedPort| pb::NamedPort {
            name: port.name.to_string(),
            protocol: port.protocol.to_string(),
            service_port: port.service_port.into(),
            target_port: port.target_port.into(),
        };
        let wire = pb::ServiceExtension {
            client_ip_affinity: self.client_ip_affinity,
            ports: self.named_ports.iter().map(port).collect(),
            external_name: self.external_name.to_string(),
        };
        Extension {
            name: NAME.to_owned(),
            config: Some(Any { type_url: TYPE_URL.to_owned(), value: wire.encode_to_vec() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let port = |name: &str, target_port| NamedPort {
            name: name.into(),
            protocol: "tcp".into(),
            service_port: 80,
            target_port,
        };
        for extension in [
            ServiceExtension { client_ip_affinity: true, ..ServiceExtension::default() },
            ServiceExtension { named_ports: vec![port("http", 8080), port("x", 0)], ..ServiceExtension::default() },
            ServiceExtension { external_name: "db.example.com".into(), ..ServiceExtension::default() },
        ] {
            let foreign = Extension { name: "example.com/other".to_owned(), config: None };
            let found = ServiceExtension::find(&[foreign, extension.to_wire()]);
            assert_eq!(found, Ok(Some(extension.into())));
        }
        assert_eq!(ServiceExtension::find(&[ServiceExtension::default().to_wire()]), Ok(None), "it says nothing");
        assert_eq!(ServiceExtension::find(&[]), Ok(None));
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let with = |type_url: &str, value: Vec<u8>| Extension {
            name: NAME.to_owned(),
            config: Some(Any { type_url: type_url.to_owned(), value }),
        };
        let far = pb::NamedPort { service_port: 65_536, ..pb::NamedPort::default() };
        let far = pb::ServiceExtension { ports: vec![far], ..pb::ServiceExtension::default() }.encode_to_vec();
        for (extension, error) in [
            (Extension { name: NAME.to_owned(), config: None }, InvalidExtension::Message),
            (with("type.googleapis.com/other", Vec::new()), InvalidExtension::Message),
            (with(TYPE_URL, vec![0xff]), InvalidExtension::Message),
            (with(TYPE_URL, far), InvalidExtension::Port(65_536)),
        ] {
            assert_eq!(ServiceExtension::find(&[extension]), Err(error));
        }
    }
}
