//! Client and server TLS in which both sides prove a SPIFFE id (Istio ambient contract, section 4.1).
//!
//! A server takes any client of its own trust domain, and policies decide the rest. A client takes only a server
//! that is one of the identities it expects: names in the network are not trusted to say who answers.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use mesh_model::identity::SpiffeId;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::KeyUsage;

use crate::certificate::{WorkloadCertificate, spiffe_id_of};
use crate::chain::Chain;
use crate::crypto::provider;
pub use crate::refused::PeerRefused;
use crate::revocation::{Proof, Revocations};

/// HBONE is HTTP/2 and nothing else.
const ALPN: &[u8] = b"h2";

/// What an operator may change about TLS between workloads.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Also speak TLS 1.2 (`TLS12_ENABLED`), for peers that have nothing better.
    pub tls12: bool,
    /// Exchange keys only by X25519MLKEM768 (`COMPLIANCE_POLICY=pqc`).
    pub post_quantum: bool,
    /// Whose certificates were taken back (`CRL_PATH`).
    pub revocations: Revocations,
}

/// Who a peer is, from the certificates of a finished handshake: the SPIFFE id of the leaf.
pub fn peer_identity(certificates: &[CertificateDer<'_>]) -> Option<SpiffeId> {
    spiffe_id_of(certificates.first()?).ok()
}

/// The name to hand to rustls when dialling: an address, so no SNI is sent. What is checked is the SPIFFE id.
pub fn dial_name() -> ServerName<'static> {
    ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into())
}

/// One identity, ready for handshakes as client and as server.
pub struct Credentials {
    certificate: WorkloadCertificate,
    server: Arc<ServerConfig>,
    client: ClientConfig,
    /// What clients are checked by.
    clients: Arc<Chain>,
    /// What servers are checked by.
    servers: Arc<Chain>,
    options: TlsOptions,
}

impl Credentials {
    /// Prepares both sides.
    ///
    /// # Errors
    /// When rustls cannot use the versions asked for.
    pub fn new(certificate: WorkloadCertificate, options: &TlsOptions) -> Result<Self, rustls::Error> {
        let provider = provider(options.post_quantum);
        let chain = |usage| Arc::new(Chain::new(&certificate, &provider, &options.revocations, usage));
        let (clients, servers) = (chain(KeyUsage::client_auth()), chain(KeyUsage::server_auth()));
        let server = Arc::new(server_config(&certificate, &clients, options, None)?);
        let nobody = ServerVerifier { chain: servers.clone(), expected: Vec::new(), seen: None };
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions(options))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(nobody))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.certified_key().clone())));
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.enable_sni = false;
        client.resumption = Resumption::disabled();
        client.enable_secret_extraction = true;
        Ok(Self { certificate, server, client, clients, servers, options: options.clone() })
    }

    /// Whose they are.
    pub fn id(&self) -> &SpiffeId {
        self.certificate.id()
    }

    /// The certificate behind them.
    pub fn certificate(&self) -> &WorkloadCertificate {
        &self.certificate
    }

    /// For accepting: any client of our trust domain that our roots vouch for.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// The same for one connection, whose client's certificates are kept in `seen`. Some microseconds dearer.
    pub(crate) fn server_config_seeing(&self, seen: &Proof) -> Arc<ServerConfig> {
        // What was built once builds again.
        server_config(&self.certificate, &self.clients, &self.options, Some(seen.clone()))
            .map_or_else(|_| self.server.clone(), Arc::new)
    }

    /// What its peers' certificates are checked for.
    pub fn revocations(&self) -> &Revocations {
        &self.options.revocations
    }

    /// For dialling with [`dial_name`]: only a server that proves to be one of `expected`; with none expected, no
    /// server at all. Cheap, made for every connection.
    pub fn client_config(&self, expected: &[SpiffeId]) -> Arc<ClientConfig> {
        self.client_config_of(expected, None)
    }

    /// The same, with the server's certificates kept in `seen`.
    pub(crate) fn client_config_seeing(&self, expected: &[SpiffeId], seen: &Proof) -> Arc<ClientConfig> {
        self.client_config_of(expected, Some(seen.clone()))
    }

    fn client_config_of(&self, expected: &[SpiffeId], seen: Option<Proof>) -> Arc<ClientConfig> {
        let mut config = self.client.clone();
        let verifier = ServerVerifier { chain: self.servers.clone(), expected: expected.to_vec(), seen };
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        Arc::new(config)
    }
}

fn server_config(
    certificate: &WorkloadCertificate,
    clients: &Arc<Chain>,
    options: &TlsOptions,
    seen: Option<Proof>,
) -> Result<ServerConfig, rustls::Error> {
    let trust_domain = certificate.id().trust_domain().clone();
    let verifier = ClientVerifier { chain: clients.clone(), trust_domain, seen };
    let mut server = ServerConfig::builder_with_provider(clients.provider.clone())
        .with_protocol_versions(versions(options))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.certified_key().clone())));
    server.alpn_protocols = vec![ALPN.to_vec()];
    // Clients of the mesh do not resume, and a resumed session would outlive the check of its certificate.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.max_early_data_size = 0;
    // HBONE seals and opens its records in place, with the keys of the handshake.
    server.enable_secret_extraction = true;
    Ok(server)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// The versions of TLS, best first.
fn versions(options: &TlsOptions) -> &'static [&'static SupportedProtocolVersion] {
    static WITH_TLS12: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    if options.tls12 { &WITH_TLS12 } else { &WITH_TLS12[..1] }
}

/// Whether a handshake failed because the peer's certificate, or one above it, is revoked: the error of rustls, or one
/// that was made of it.
pub fn is_revoked(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref() {
        return matches!(error, rustls::Error::InvalidCertificate(CertificateError::Revoked));
    }
    let inner: Option<&(dyn std::error::Error + 'static)> = match error.downcast_ref::<std::io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as _),
        None => error.source(),
    };
    inner.is_some_and(is_revoked)
}

/// The parts of a verifier that are the provider's, the same for clients and servers.
macro_rules! signatures_by_provider {
    () => {
        signatures_by_provider!(verify_tls12_signature);
        signatures_by_provider!(verify_tls13_signature);

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.chain.provider.signature_verification_algorithms.supported_schemes()
        }
    };
    // The method of this name calls the function of this name.
    ($verify:ident) => {
        fn $verify(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            $verify(message, certificate, signature, &self.chain.provider.signature_verification_algorithms)
        }
    };
}

/// Checks clients: the chain, and a SPIFFE id of the trust domain.
#[derive(Debug)]
struct ClientVerifier {
    chain: Arc<Chain>,
    trust_domain: Arc<str>,
    /// Where to keep what the client showed.
    seen: Option<Proof>,
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Clients hold one certificate; hints would only make the handshake longer.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let links = self.chain.verify(leaf, intermediates, now)?;
        let presented = spiffe_id_of(leaf).map_err(PeerRefused::Nobody)?;
        if *presented.trust_domain() != self.trust_domain {
            return Err(PeerRefused::TrustDomain { presented, ours: self.trust_domain.clone() }.into());
        }
        if let Some(seen) = &self.seen {
            seen.set(links);
        }
        Ok(ClientCertVerified::assertion())
    }

    signatures_by_provider!();
}

/// Checks servers: the chain, and one of the identities expected.
#[derive(Debug)]
struct ServerVerifier {
    chain: Arc<Chain>,
    expected: Vec<SpiffeId>,
    /// Where to keep what the server showed.
    seen: Option<Proof>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // The dummy of `dial_name`.
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let links = self.chain.verify(leaf, intermediates, now)?;
        let presented = spiffe_id_of(leaf).map_err(PeerRefused::Nobody)?;
        if !self.expected.contains(&presented) {
            return Err(PeerRefused::Identity { expected: self.expected.clone(), presented }.into());
        }
        if let Some(seen) = &self.seen {
            seen.set(links);
        }
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_provider!();
}

#[cfg(test)]
pub(crate) mod tests;
