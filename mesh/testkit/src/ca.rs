//! A certificate authority in this process.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_identity::certificate::SigningRequest;
use mesh_identity::store::{Authority, Signing};
use mesh_identity::tls::{Credentials, TlsOptions};
use mesh_model::identity::SpiffeId;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa, KeyPair};
use rcgen::{DistinguishedName, ExtendedKeyUsagePurpose, SanType};

/// Signs whatever it is asked for.
pub struct TestCa {
    root: CertifiedIssuer<'static, KeyPair>,
}

impl Default for TestCa {
    fn default() -> Self {
        Self::new()
    }
}

impl TestCa {
    /// With a root of its own.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "testkit");
        let key = KeyPair::generate().expect("a key");
        Self { root: CertifiedIssuer::self_signed(params, key).expect("a root") }
    }

    /// The root as PEM.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// Signs a CSR for `id`, valid from a minute ago for `lifetime` from now.
    pub fn sign(&self, id: &SpiffeId, csr_pem: &str, lifetime: Duration) -> Vec<String> {
        let mut csr = CertificateSigningRequestParams::from_pem(csr_pem).expect("a CSR");
        let now = SystemTime::now();
        csr.params.distinguished_name = DistinguishedName::new();
        csr.params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().expect("ASCII"))];
        csr.params.not_before = (now - Duration::from_secs(60)).into();
        csr.params.not_after = (now + lifetime).into();
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        vec![csr.signed_by(&self.root).expect("a certificate").pem(), self.root_pem()]
    }

    /// Credentials of `id`, good for an hour.
    pub fn credentials(&self, id: &SpiffeId) -> Arc<Credentials> {
        self.credentials_with(id, &TlsOptions::default())
    }

    /// Credentials of `id`, good for an hour, for TLS as an operator wants it.
    pub fn credentials_with(&self, id: &SpiffeId, options: &TlsOptions) -> Arc<Credentials> {
        let request = SigningRequest::new(id).expect("a key");
        let chain = self.sign(id, request.csr_pem(), Duration::from_secs(3600));
        let certificate = request.complete(&chain).expect("what was asked for");
        Arc::new(Credentials::new(certificate, options).expect("usable"))
    }
}

impl Authority for TestCa {
    fn sign<'a>(&'a self, id: &'a SpiffeId, csr_pem: &'a str, lifetime: Duration) -> Signing<'a> {
        Box::pin(std::future::ready(Ok(TestCa::sign(self, id, csr_pem, lifetime))))
    }
}
