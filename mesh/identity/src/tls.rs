//! Client and server TLS in which both sides prove a SPIFFE id (Istio ambient contract, section 4.1).
//!
//! A server takes any client of its own trust domain, and policies decide the rest. A client takes only a server
//! that is one of the identities it expects: names in the network are not trusted to say who answers.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};

use mesh_model::identity::SpiffeId;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certificate::{WorkloadCertificate, spiffe_ids_of};

/// HBONE is HTTP/2 and nothing else.
const ALPN: &[u8] = b"h2";

/// What an operator may change about TLS between workloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Also speak TLS 1.2 (`TLS12_ENABLED`), for peers that have nothing better.
    pub tls12: bool,
    /// Exchange keys only by X25519MLKEM768 (`COMPLIANCE_POLICY=pqc`).
    pub post_quantum: bool,
}

/// Why a peer was refused although its certificate is genuine.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    /// No SPIFFE id in it.
    #[error("the peer's certificate has no URI of the form spiffe://<trust domain>/ns/<namespace>/sa/<account>")]
    Nobody,
    /// A client of another trust domain.
    #[error("the peer is {presented}, which is not of our trust domain {ours}")]
    TrustDomain {
        /// Who it says it is.
        presented: SpiffeId,
        /// The trust domain of our own certificate.
        ours: Arc<str>,
    },
    /// A server that is none of those expected.
    #[error("expected {}, but the peer is {}", list(expected), list(presented))]
    Identity {
        /// Who may answer.
        expected: Vec<SpiffeId>,
        /// Who answered.
        presented: Vec<SpiffeId>,
    },
}

fn list(ids: &[SpiffeId]) -> String {
    match ids {
        [] => "nobody".into(),
        ids => ids.iter().map(SpiffeId::to_string).collect::<Vec<_>>().join(" or "),
    }
}

/// As it is displayed: rustls prints the reasons of refused certificates by their `Debug`.
impl fmt::Debug for PeerRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<PeerRefused> for rustls::Error {
    fn from(refused: PeerRefused) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
    }
}

impl PeerRefused {
    /// Finds it in the error of a handshake, if that is why the handshake failed.
    pub fn find(error: &rustls::Error) -> Option<&Self> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
            _ => None,
        }
    }
}

/// Who a peer is, from the certificates of a finished handshake: the first SPIFFE id of the leaf.
pub fn peer_identity(certificates: &[CertificateDer<'_>]) -> Option<SpiffeId> {
    spiffe_ids_of(certificates.first()?).ok()?.into_iter().next()
}

/// The name to hand to rustls when dialling: an address, so no SNI is sent. What is checked is the SPIFFE id.
pub fn dial_name() -> ServerName<'static> {
    ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into())
}

/// One identity, ready for handshakes as client and as server.
pub struct Credentials {
    certificate: WorkloadCertificate,
    provider: Arc<CryptoProvider>,
    server: Arc<ServerConfig>,
    client: ClientConfig,
}

impl Credentials {
    /// Prepares both sides.
    ///
    /// # Errors
    /// When rustls cannot use the roots or the versions asked for.
    pub fn new(certificate: WorkloadCertificate, options: &TlsOptions) -> Result<Self, rustls::Error> {
        let provider = provider(options);
        let key = certificate.certified_key().clone();
        let roots = certificate.roots().store().clone();

        let trust_domain = certificate.id().trust_domain().clone();
        let verifier = ClientVerifier::new(roots, trust_domain, &provider)?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions(options))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
        server.alpn_protocols = vec![ALPN.to_vec()];
        // Clients of the mesh do not resume, and a resumed session would outlive the check of its certificate.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        // HBONE seals and opens its records in place, with the keys of the handshake.
        server.enable_secret_extraction = true;

        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions(options))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ServerVerifier::new(&certificate, &[], &provider)))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.enable_sni = false;
        client.resumption = Resumption::disabled();
        client.enable_secret_extraction = true;

        Ok(Self { certificate, provider, server: Arc::new(server), client })
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

    /// For dialling with [`dial_name`]: only a server that proves to be one of `expected`; with none expected, no
    /// server at all. Cheap, made for every connection.
    pub fn client_config(&self, expected: &[SpiffeId]) -> Arc<ClientConfig> {
        let mut config = self.client.clone();
        let verifier = ServerVerifier::new(&self.certificate, expected, &self.provider);
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        Arc::new(config)
    }
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

/// AES-GCM only; every machine of a mesh has it in hardware.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    use aws_lc_rs::cipher_suite as suite;
    let cipher_suites = vec![
        suite::TLS13_AES_256_GCM_SHA384,
        suite::TLS13_AES_128_GCM_SHA256,
        suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ];
    Arc::new(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() })
});

static POST_QUANTUM: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    Arc::new(CryptoProvider { kx_groups, ..(**PROVIDER).clone() })
});

/// The cryptography of the mesh. Shared: a provider is large.
pub(crate) fn provider(options: &TlsOptions) -> Arc<CryptoProvider> {
    if options.post_quantum { POST_QUANTUM.clone() } else { PROVIDER.clone() }
}

/// Checks clients: chain, client usage, validity, and a SPIFFE id of the trust domain.
#[derive(Debug)]
struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: Arc<str>,
}

impl ClientVerifier {
    fn new(
        roots: Arc<RootCertStore>,
        trust_domain: Arc<str>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, rustls::Error> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            // Clients hold one certificate; hints would only make the handshake longer.
            .clear_root_hint_subjects()
            .build()
            .map_err(|e| rustls::Error::General(format!("roots cannot verify clients: {e}")))?;
        Ok(Self { chain, trust_domain })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        // The very id that policies will see, `peer_identity`, has to be of our trust domain: not any one of several.
        match peer_identity(std::slice::from_ref(leaf)) {
            None => Err(PeerRefused::Nobody.into()),
            Some(id) if *id.trust_domain() == self.trust_domain => Ok(verified),
            Some(presented) => Err(PeerRefused::TrustDomain { presented, ours: self.trust_domain.clone() }.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Checks servers: chain, server usage, validity, and one of the identities expected.
#[derive(Debug)]
struct ServerVerifier {
    roots: Arc<RootCertStore>,
    expected: Vec<SpiffeId>,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    fn new(own: &WorkloadCertificate, expected: &[SpiffeId], provider: &Arc<CryptoProvider>) -> Self {
        Self { roots: own.roots().store().clone(), expected: expected.to_vec(), provider: provider.clone() }
    }
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
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        let presented = spiffe_ids_of(leaf).map_err(|_| CertificateError::BadEncoding)?;
        match presented.iter().any(|id| self.expected.contains(id)) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(PeerRefused::Identity { expected: self.expected.clone(), presented }.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
