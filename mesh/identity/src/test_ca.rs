//! A CA for this crate's tests.

use std::time::{Duration, SystemTime};

use mesh_model::identity::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DistinguishedName,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};

use crate::certificate::{SigningRequest, WorkloadCertificate};
use crate::tls::{Credentials, TlsOptions};

/// Parses.
pub(crate) fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

/// Signs whatever it is told to.
pub(crate) struct TestCa {
    root: CertifiedIssuer<'static, KeyPair>,
    /// What certificates may be used for.
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "test");
        Self {
            root: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        }
    }

    pub(crate) fn root_pem(&self) -> String {
        self.root.pem()
    }

    pub(crate) fn hour_around_now() -> (SystemTime, SystemTime) {
        let from = SystemTime::now() - Duration::from_secs(60);
        (from, from + Duration::from_secs(3600))
    }

    /// Leaf and root, as a CA answers.
    pub(crate) fn sign(&self, csr: &str, uris: &[&str], from: SystemTime, until: SystemTime) -> Vec<String> {
        let mut csr = CertificateSigningRequestParams::from_pem(csr).unwrap();
        csr.params.distinguished_name = DistinguishedName::new();
        csr.params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        csr.params.not_before = from.into();
        csr.params.not_after = until.into();
        csr.params.extended_key_usages.clone_from(&self.usages);
        vec![csr.signed_by(&self.root).unwrap().pem(), self.root_pem()]
    }

    /// For the hour around now.
    pub(crate) fn certificate(&self, name: &str) -> WorkloadCertificate {
        let (from, until) = Self::hour_around_now();
        self.certificate_for(name, from, until)
    }

    pub(crate) fn certificate_for(&self, name: &str, from: SystemTime, until: SystemTime) -> WorkloadCertificate {
        let request = SigningRequest::new(&id(name)).unwrap();
        let answer = self.sign(request.csr_pem(), &[name], from, until);
        request.complete(&answer).unwrap()
    }

    pub(crate) fn credentials(&self, name: &str) -> Credentials {
        Credentials::new(self.certificate(name), &TlsOptions::default()).unwrap()
    }
}
