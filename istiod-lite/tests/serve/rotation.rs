//! The CA that is plugged in is replaced, up to its root, while the mesh goes on.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesh_control::ca_client::CaClient;
use mesh_identity::certificate::{SigningRequest, WorkloadCertificate};
use mesh_identity::store::Authority as _;
use mesh_identity::tls::{Credentials, TlsOptions, dial_name};
use mesh_model::identity::SpiffeId;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{ClientConnection, ServerConnection};

use super::{DENY, World, scrape, subscribe, until};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

type Root = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn root(name: &str) -> Root {
    CertifiedIssuer::self_signed(authority(name), KeyPair::generate().unwrap()).unwrap()
}

/// What a Secret `cacerts` says: an intermediate of its own below `root`, and the roots to be trusted.
fn cacerts(root: &Root, trusted: &[&Root]) -> [(&'static str, String); 4] {
    let key = KeyPair::generate().unwrap();
    let certificate = authority("intermediate").signed_by(&key, root).unwrap().pem();
    let bundle: String = trusted.iter().map(|root| root.pem()).collect();
    [
        ("ca-cert.pem", certificate.clone()),
        ("ca-key.pem", key.serialize_pem()),
        ("cert-chain.pem", certificate + &root.pem()),
        ("root-cert.pem", bundle),
    ]
}

/// Mounts it as a kubelet does: all files change at once, by a link.
fn mount(directory: &Path, version: &str, files: &[(&str, String)]) {
    let at = |name: &str| directory.join(name);
    fs::create_dir_all(at(version)).unwrap();
    for (name, text) in files {
        fs::write(at(version).join(name), text).unwrap();
        if fs::symlink_metadata(at(name)).is_err() {
            symlink(Path::new("..data").join(name), at(name)).unwrap();
        }
    }
    symlink(version, at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
}

async fn certificate(world: &World) -> WorkloadCertificate {
    let id: SpiffeId = WEB.parse().unwrap();
    let asked = SigningRequest::new(&id).unwrap();
    let client = CaClient::new(world.trusted(), None);
    let chain = client.sign(&id, asked.csr_pem(), Duration::from_secs(3600)).await.unwrap();
    asked.complete(&chain).unwrap()
}

/// A certificate that what is plugged in now has signed.
async fn certificate_of(world: &World, files: &[(&str, String)]) -> WorkloadCertificate {
    let signer = pem::parse(&files[0].1).unwrap().into_contents();
    let taken_up = async {
        loop {
            let certificate = certificate(world).await;
            if certificate.chain()[1].as_ref() == signer {
                return certificate;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), taken_up).await.expect("what is plugged in is taken up")
}

fn handshake(client: &Credentials, server: &Credentials) -> Result<(), rustls::Error> {
    let expected: SpiffeId = WEB.parse().unwrap();
    let mut client = ClientConnection::new(client.client_config(&[expected]), dial_name()).unwrap();
    let mut server = ServerConnection::new(server.server_config()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(())
}

fn credentials(certificate: WorkloadCertificate) -> Arc<Credentials> {
    Arc::new(Credentials::new(certificate, &TlsOptions::default()).unwrap())
}

/// Step by step, as operations.md says it: who has a certificate of the step before talks with who has one of this step, either
/// way around, and those who listen to the control plane go on listening.
#[tokio::test]
async fn a_root_is_replaced_without_a_restart_and_without_a_failed_handshake() {
    let (old, new) = (root("old"), root("new"));
    let directory = tempfile::tempdir().unwrap();
    let first = cacerts(&old, &[&old]);
    mount(directory.path(), "..1", &first);
    let world = World::with(&[("PLUGGED_CA", directory.path().to_str().unwrap())]).await;
    let listens = subscribe(&world, world.token(), "istio-system");
    until(&listens, |t| t.workloads().next().is_some()).await;

    let mut before = credentials(certificate_of(&world, &first).await);
    let begins = before.clone();
    let steps = [("..2", &old, vec![&old, &new]), ("..3", &new, vec![&old, &new]), ("..4", &new, vec![&new])];
    for (version, signs, trusted) in steps {
        let files = cacerts(signs, &trusted);
        mount(directory.path(), version, &files);
        let now = credentials(certificate_of(&world, &files).await);
        assert_eq!(now.certificate().roots().certificates().len(), trusted.len(), "{version}");
        for (client, server) in [(&before, &now), (&now, &before), (&now, &now)] {
            handshake(client, server).unwrap_or_else(|e| panic!("{version}: {e}"));
        }
        before = now;
    }
    // Whoever left out the steps between would not.
    handshake(&begins, &before).unwrap_err();

    // What does not belong together is not taken up, and is seen; what was before goes on.
    let mut broken = cacerts(&new, &[&new]);
    broken[1].1 = KeyPair::generate().unwrap().serialize_pem();
    mount(directory.path(), "..5", &broken);
    let refused = async {
        while !scrape(&world).await.contains("\nambit_ca_plugged_in_refused 1\n") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused).await.expect("it is seen");
    handshake(&before, &credentials(certificate(&world).await)).unwrap();

    world.write("mesh/policy.yaml", DENY);
    until(&listens, |t| t.policies().next().is_some()).await;
    world.running.stop().await;
}
