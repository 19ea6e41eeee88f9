//! Certificates that could all have signed each other: what a stranger shows to keep a verifier busy. None is genuine.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A leaf for `uri` that nobody vouches for, first, and `count` certificates above it of one name, each with a key of its
/// own and signed by the one before; and the leaf's key.
///
/// # Panics
/// When a key or a certificate cannot be made.
pub fn maze(uri: &str, name: &str, count: usize) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, name);
    let key = || KeyPair::generate().expect("a key");
    let mut last = CertifiedIssuer::self_signed(params.clone(), key()).expect("a certificate");
    let mut above = Vec::new();
    for _ in 0..count {
        last = CertifiedIssuer::signed_by(params.clone(), key(), &last).expect("a certificate");
        above.push(last.der().clone());
    }
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name = DistinguishedName::new();
    leaf.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().expect("ASCII"))];
    let key = KeyPair::generate().expect("a key");
    let leaf = leaf.signed_by(&key, &last).expect("a certificate").der().clone();
    let certificates = std::iter::once(leaf).chain(above).collect();
    (certificates, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}
