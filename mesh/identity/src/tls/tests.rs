//! Handshakes in memory: who gets in, who does not, and what is said about it.

use std::time::{Duration, SystemTime};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConnection, RootCertStore, ServerConnection};
use rustls_pki_types::pem::PemObject;

use super::*;
use crate::certificate::NoIdentity;
use crate::crypto::PROVIDER;
use crate::test_ca::{TestCa, id};

const CART: &str = "spiffe://td/ns/shop/sa/cart";
const PAY: &str = "spiffe://td/ns/shop/sa/pay";

pub(crate) struct Done {
    client: ClientConnection,
    server: ServerConnection,
}

/// Runs a handshake to its end, or to the first error of either side.
pub(crate) fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Done, rustls::Error> {
    let mut client = ClientConnection::new(client, dial_name()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        // Some kilobytes at a time.
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
    Ok(Done { client, server })
}

pub(crate) fn between(client: &Credentials, expected: &[&str], server: &Credentials) -> Result<Done, rustls::Error> {
    let expected: Vec<_> = expected.iter().map(|e| id(e)).collect();
    handshake(client.client_config(&expected), server.server_config())
}

/// Trap 25: without SNI.
#[test]
fn both_prove_themselves() {
    let ca = TestCa::new();
    let done = between(&ca.credentials(CART), &[PAY], &ca.credentials(PAY)).unwrap();
    assert_eq!(peer_identity(done.server.peer_certificates().unwrap()), Some(id(CART)));
    assert_eq!(peer_identity(done.client.peer_certificates().unwrap()), Some(id(PAY)));
    assert_eq!(done.server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(done.server.alpn_protocol(), Some(ALPN));
    assert_eq!(done.client.alpn_protocol(), Some(ALPN));
    assert_eq!(done.server.server_name(), None, "no SNI");
    let suite = done.server.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_256_GCM_SHA384);
}

#[test]
fn one_of_several_expected_is_enough() {
    let ca = TestCa::new();
    between(&ca.credentials(CART), &["spiffe://td/ns/a/sa/b", PAY], &ca.credentials(PAY)).unwrap();
}

#[test]
fn a_server_that_is_somebody_else_is_refused() {
    let ca = TestCa::new();
    let error = between(&ca.credentials(CART), &[PAY], &ca.credentials(CART)).err().unwrap();
    assert_eq!(
        PeerRefused::find(&error).unwrap().to_string(),
        "expected spiffe://td/ns/shop/sa/pay, but the peer is spiffe://td/ns/shop/sa/cart"
    );
    assert!(error.to_string().contains("expected spiffe://td/ns/shop/sa/pay"), "{error}");

    let error = between(&ca.credentials(CART), &[], &ca.credentials(PAY)).err().unwrap();
    assert!(PeerRefused::find(&error).unwrap().to_string().starts_with("expected nobody"), "{error}");
}

/// Trap 22: no aliases.
#[test]
fn a_client_of_another_trust_domain_is_refused() {
    let ca = TestCa::new();
    let stranger = ca.credentials("spiffe://other/ns/shop/sa/cart");
    let error = between(&stranger, &[PAY], &ca.credentials(PAY)).err().unwrap();
    assert_eq!(
        PeerRefused::find(&error).unwrap(),
        &PeerRefused::TrustDomain { presented: id("spiffe://other/ns/shop/sa/cart"), ours: "td".into() }
    );
}

/// SPIFFE X.509-SVID, section 2: exactly one URI name, and a SPIFFE id. Both verifiers, with genuine certificates.
#[test]
fn a_peer_has_exactly_one_uri_name() {
    let ca = TestCa::new();
    let (cart, pay) = (ca.credentials(CART), ca.credentials(PAY));
    let provider = provider(false);
    let shows = |names: &[&str]| {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let (from, until) = TestCa::hour_around_now();
        let leaf = CertificateDer::from_pem_slice(ca.sign(&csr, names, from, until)[0].as_bytes()).unwrap();
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let key = rustls::sign::CertifiedKey::from_der(vec![leaf], key.into(), &provider).unwrap();
        Arc::new(SingleCertAndKey::from(key))
    };
    let other = |uri: &str| NoIdentity::Other(uri.into());
    let beyond = "spiffe://td/ns/shop/sa/cart/and/more";
    for (names, expected) in [
        (&[CART, PAY][..], NoIdentity::Several(2)),
        (&[PAY, CART], NoIdentity::Several(2)),
        (&["https://example.org/", PAY], NoIdentity::Several(2)),
        (&["https://example.org/", CART], NoIdentity::Several(2)),
        (&[PAY, PAY, PAY], NoIdentity::Several(3)),
        (&["https://example.org/"], other("https://example.org/")),
        (&[beyond], other(beyond)),
        (&[], NoIdentity::None),
    ] {
        let mut client = (*cart.client_config(&[id(PAY)])).clone();
        client.client_auth_cert_resolver = shows(names);
        let mut server = (*pay.server_config()).clone();
        server.cert_resolver = shows(names);
        for (whose, error) in [
            ("client", handshake(Arc::new(client), pay.server_config()).err().unwrap()),
            ("server", handshake(cart.client_config(&[id(PAY)]), Arc::new(server)).err().unwrap()),
        ] {
            assert_eq!(PeerRefused::find(&error), Some(&PeerRefused::Nobody(expected.clone())), "{whose}: {names:?}");
        }
    }
}

#[test]
fn certificates_of_another_root_are_refused_by_both() {
    let (ours, theirs) = (TestCa::new(), TestCa::new());
    // The two CAs have one name and different keys.
    let forged = rustls::Error::InvalidCertificate(CertificateError::BadSignature);
    let error = between(&ours.credentials(CART), &[PAY], &theirs.credentials(PAY)).err().unwrap();
    assert_eq!(error, forged);

    // A client that would take any server, so the server's own check is what is seen.
    let (cart, pay) = (theirs.credentials(CART), ours.credentials(PAY));
    let mut config = cart.client.clone();
    let trusting = ServerVerifier { chain: pay.servers.clone(), expected: vec![id(PAY)], seen: None };
    config.dangerous().set_certificate_verifier(Arc::new(trusting));
    assert_eq!(handshake(Arc::new(config), pay.server_config()).err().unwrap(), forged);
}

#[test]
fn expired_certificates_are_refused_by_both() {
    let ca = TestCa::new();
    let end = SystemTime::now() - Duration::from_secs(10);
    let expired = |name| {
        let certificate = ca.certificate_for(name, end - Duration::from_secs(60), end);
        Credentials::new(certificate, &TlsOptions::default()).unwrap()
    };
    let is_expired = |error: &rustls::Error| {
        matches!(
            error,
            rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })
        )
    };
    let error = between(&ca.credentials(CART), &[PAY], &expired(PAY)).err().unwrap();
    assert!(is_expired(&error), "{error}");
    let error = between(&expired(CART), &[PAY], &ca.credentials(PAY)).err().unwrap();
    assert!(is_expired(&error), "{error}");
}

#[test]
fn certificates_for_another_use_are_refused() {
    let mut ca = TestCa::new();
    let pay = ca.credentials(PAY);
    ca.usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    assert!(between(&ca.credentials(CART), &[PAY], &pay).is_err(), "a server's certificate makes no client");
    let cart = ca.credentials(CART);
    ca.usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    assert!(between(&cart, &[PAY], &ca.credentials(PAY)).is_err(), "a client's certificate makes no server");
}

#[test]
fn a_client_without_certificate_is_refused() {
    let ca = TestCa::new();
    let cart = ca.credentials(CART);
    let nobody = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(versions(&TlsOptions::default()))
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier {
            chain: cart.servers.clone(),
            expected: vec![id(PAY)],
            seen: None,
        }))
        .with_no_client_auth();
    let error = handshake(Arc::new(nobody), ca.credentials(PAY).server_config()).err().unwrap();
    assert_eq!(error, rustls::Error::NoCertificatesPresented);
}

#[test]
fn older_tls_and_other_suites_only_when_asked() {
    let ca = TestCa::new();
    let with = |options: TlsOptions, name| Credentials::new(ca.certificate(name), &options).unwrap();
    let old = TlsOptions { tls12: true, ..Default::default() };
    let only12 = {
        let cart = with(old.clone(), CART);
        let mut c = ClientConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ServerVerifier {
                chain: cart.servers.clone(),
                expected: vec![id(PAY)],
                seen: None,
            }))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(cart.certificate().certified_key().clone())));
        c.alpn_protocols = vec![ALPN.to_vec()];
        Arc::new(c)
    };
    assert!(handshake(only12.clone(), with(TlsOptions::default(), PAY).server_config()).is_err());
    let done = handshake(only12, with(old, PAY).server_config()).unwrap();
    assert_eq!(done.server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));

    let chacha = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256],
        ..aws_lc_rs::default_provider()
    };
    let other = ClientConfig::builder_with_provider(Arc::new(chacha))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let error = handshake(Arc::new(other), with(TlsOptions::default(), PAY).server_config()).err().unwrap();
    assert!(matches!(error, rustls::Error::PeerIncompatible(_)), "{error}");

    let pqc = TlsOptions { post_quantum: true, ..Default::default() };
    let done = between(&with(pqc.clone(), CART), &[PAY], &with(pqc.clone(), PAY)).unwrap();
    let group = done.server.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    // One that does not speak it is refused, not humoured.
    let classic = CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..(**PROVIDER).clone() };
    let mut config = with(TlsOptions::default(), CART).client.clone();
    config = ClientConfig::builder_with_provider(Arc::new(classic))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_client_cert_resolver(config.client_auth_cert_resolver.clone());
    assert!(handshake(Arc::new(config), with(pqc, PAY).server_config()).is_err());
}
