//! A certificate authority in this process.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use mesh_identity::certificate::SigningRequest;
use mesh_identity::store::{Authority, AuthorityError, Signing};
use mesh_identity::tls::{Credentials, TlsOptions};
use mesh_model::identity::SpiffeId;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa, KeyPair};
use rcgen::{DistinguishedName, ExtendedKeyUsagePurpose, SanType};

/// Signs whatever it is asked for, but for those it is told to refuse.
pub struct TestCa {
    root: CertifiedIssuer<'static, KeyPair>,
    /// How many certificates it has signed: each has its number.
    signed: AtomicU64,
    refused: Mutex<HashSet<SpiffeId>>,
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
        let root = CertifiedIssuer::self_signed(params, key).expect("a root");
        Self { root, signed: AtomicU64::new(0), refused: Mutex::default() }
    }

    /// Signs nothing for `id` from now on.
    pub fn refuse(&self, id: SpiffeId) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
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
        csr.params.serial_number = Some((self.signed.fetch_add(1, Ordering::Relaxed) + 1).into());
        csr.params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().expect("ASCII"))];
        csr.params.not_before = (now - Duration::from_secs(60)).into();
        csr.params.not_after = (now + lifetime).into();
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        vec![csr.signed_by(&self.root).expect("a certificate").pem(), self.root_pem()]
    }

    /// A revocation list, PEM, that takes certificates back; named by their serial numbers, as text.
    pub fn revoke(&self, serials: &[&str]) -> String {
        let (this_update, next_update) = (rcgen::date_time_ymd(2024, 6, 17), rcgen::date_time_ymd(2024, 6, 18));
        let revoked = |serial: &&str| rcgen::RevokedCertParams {
            serial_number: serial.parse::<u64>().expect("a number that this CA gave").into(),
            revocation_time: this_update,
            reason_code: Some(rcgen::RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.root).and_then(|list| list.pem()).expect("a list")
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
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).contains(id);
        Box::pin(std::future::ready(match refused {
            true => Err(AuthorityError("not for this one".to_owned())),
            false => Ok(TestCa::sign(self, id, csr_pem, lifetime)),
        }))
    }
}
