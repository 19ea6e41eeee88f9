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
    /// Signs in the root's place.
    intermediate: Option<CertifiedIssuer<'static, KeyPair>>,
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
            intermediate: None,
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        }
    }

    /// With an intermediate that signs.
    pub(crate) fn with_intermediate() -> Self {
        let mut ca = Self::new();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "intermediate");
        let key = KeyPair::generate().unwrap();
        ca.intermediate = Some(CertifiedIssuer::signed_by(params, key, &ca.root).unwrap());
        ca
    }

    /// The intermediate's certificate.
    pub(crate) fn intermediate(&self) -> &rustls_pki_types::CertificateDer<'static> {
        self.intermediate.as_ref().unwrap().der()
    }

    /// A list, PEM, that takes these certificates back. The root's; from long ago, and long over.
    pub(crate) fn revoke(&self, certificates: &[&rustls_pki_types::CertificateDer<'_>]) -> String {
        self.revoke_by(&self.root, certificates)
    }

    /// The same by the intermediate.
    pub(crate) fn revoke_by_intermediate(&self, certificates: &[&rustls_pki_types::CertificateDer<'_>]) -> String {
        self.revoke_by(self.intermediate.as_ref().unwrap(), certificates)
    }

    fn revoke_by(
        &self,
        issuer: &CertifiedIssuer<'static, KeyPair>,
        certificates: &[&rustls_pki_types::CertificateDer<'_>],
    ) -> String {
        let serial = |certificate: &rustls_pki_types::CertificateDer<'_>| {
            let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
            rcgen::SerialNumber::from_slice(parsed.tbs_certificate.raw_serial())
        };
        let revoked = |certificate: &&rustls_pki_types::CertificateDer<'_>| rcgen::RevokedCertParams {
            serial_number: serial(certificate),
            revocation_time: rcgen::date_time_ymd(2024, 6, 17),
            reason_code: Some(rcgen::RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2024, 6, 17),
            next_update: rcgen::date_time_ymd(2024, 6, 18),
            crl_number: rcgen::SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: certificates.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(issuer).unwrap().pem().unwrap()
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
        match &self.intermediate {
            None => vec![csr.signed_by(&self.root).unwrap().pem(), self.root_pem()],
            Some(signer) => vec![csr.signed_by(signer).unwrap().pem(), signer.pem(), self.root_pem()],
        }
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
        self.credentials_with(name, &TlsOptions::default())
    }

    pub(crate) fn credentials_with(&self, name: &str, options: &TlsOptions) -> Credentials {
        Credentials::new(self.certificate(name), options).unwrap()
    }
}
