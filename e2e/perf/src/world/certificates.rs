//! A CA for the Envoys, with keys and signatures of the kind that Ambit's own CA makes: ECDSA on P-256.
use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

/// Signs.
pub(crate) struct Authority {
    root: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Leaf {
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
}

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let mut params = for_a_day();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::OrganizationName, "perf");
        Ok(Authority { root: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    pub(crate) fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// Its key, for a control plane that is to sign with it, too.
    pub(crate) fn key_pem(&self) -> String {
        self.root.key().serialize_pem()
    }

    /// A certificate for a SPIFFE id.
    pub(crate) fn leaf(&self, id: &str) -> Result<Leaf> {
        let key = KeyPair::generate()?;
        let mut params = for_a_day();
        params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.root)?;
        Ok(Leaf { chain_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

fn for_a_day() -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = now - Duration::minutes(5);
    params.not_after = now + Duration::days(1);
    params
}
