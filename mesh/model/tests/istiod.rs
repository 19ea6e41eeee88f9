//! What upstream's istiod sends is understood, all of it: each resource of `tests/istiod/` was taken from the wire, by
//! `upstream dump` on the objects of `e2e/upstream/cases.yaml`, and comes back out as it went in.

use std::fs;
use std::path::{Path, PathBuf};

use mesh_model::resource::{Kind, Resource};
use mesh_proto::policy::Authorization;
use mesh_proto::workload::{Address, Port, Service, address};
use prost::Message;
use prost::bytes::Bytes;

fn taken(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/istiod").join(folder);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let all: Vec<_> = files.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    assert!(!all.is_empty(), "nothing in {}", folder.display());
    all
}

fn understood(kind: Kind, path: &Path, bytes: &[u8]) -> Resource {
    Resource::decode(kind, Bytes::copy_from_slice(bytes)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn addresses() {
    for (path, bytes) in taken("address") {
        let resource = understood(Kind::Address, &path, &bytes);
        let mut sent = Address::decode(&*bytes).unwrap();
        if let Some(address::Type::Workload(workload)) = &mut sent.r#type {
            // Trap 30: the default, which we leave out.
            assert_eq!(std::mem::take(&mut workload.cluster_id), "Kubernetes", "{}", path.display());
        }
        assert_eq!(Address::decode(resource.encode()).unwrap(), sent, "{}", path.display());
    }
}

#[test]
fn policies() {
    for (path, bytes) in taken("authorization") {
        let resource = understood(Kind::Authorization, &path, &bytes);
        let sent = Authorization::decode(&*bytes).unwrap();
        assert_eq!(Authorization::decode(resource.encode()).unwrap(), sent, "{}", path.display());
    }
}

fn ports_of(resource: &Resource) -> Vec<(u16, u16)> {
    let ports = match resource {
        Resource::Service(service) => service.ports.clone(),
        Resource::Workload(workload) => workload.services.iter().next().unwrap().1.to_vec(),
        Resource::Policy(_) | Resource::Routes(_) => panic!("{resource:?}"),
    };
    ports.iter().map(|p| (p.service_port, p.target_port)).collect()
}

/// istiod sends ports of UDP as well. A number that both protocols have is one port for us: the last that was said.
#[test]
fn of_a_number_said_twice_the_last_counts() {
    for (path, bytes) in taken("twice") {
        assert_eq!(ports_of(&understood(Kind::Address, &path, &bytes)), [(53, 5354)], "{}", path.display());
    }
    // More than are compared one by one.
    let port = |n: u32| Port { service_port: n % 20 + 1, target_port: n, app_protocol: 0 };
    let service = Service {
        namespace: "shop".into(),
        hostname: "many.shop.svc.cluster.local".into(),
        ports: (1..=40).map(port).collect(),
        ..Service::default()
    };
    let bytes = Address { r#type: Some(address::Type::Service(service)) }.encode_to_vec();
    let last: Vec<_> = (21..=40).map(|n| (n % 20 + 1, n)).collect();
    assert_eq!(ports_of(&understood(Kind::Address, Path::new("many"), &bytes)), last);
}
