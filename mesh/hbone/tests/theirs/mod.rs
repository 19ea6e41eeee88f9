//! TLS as peers that are not ours have it: rustls, of one version.
#![allow(dead_code, unreachable_pub, reason = "shared by test binaries that each use a part")]

use std::sync::Arc;

use mesh_identity::tls::Credentials;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme, SupportedProtocolVersion};

/// Takes whoever answers: only the protocol is under test here.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

pub type Versions = [&'static SupportedProtocolVersion; 1];
pub const TLS13: Versions = [&rustls::version::TLS13];
pub const TLS12: Versions = [&rustls::version::TLS12];

/// The same, that offers these protocols.
pub fn their_client_offering(who: &Credentials, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = (*their_client(who, &TLS13)).clone();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    Arc::new(config)
}

pub fn their_client(who: &Credentials, versions: &Versions) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(who.certificate().certified_key().clone())));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

pub fn their_server(who: &Credentials, versions: &Versions) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(who.certificate().certified_key().clone())));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}
