//! Certificates, read back by another library than the one that made them, and by rustls's own verifier.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use mesh_identity::certificate::SigningRequest;
use x509_parser::prelude::{GeneralName, X509Certificate};

use super::*;
use crate::ca::material::{CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT};

const LIMITS: Lifetimes = Lifetimes { default: Duration::from_secs(3600), max: Duration::from_secs(7200) };

fn id() -> SpiffeId {
    "spiffe://td/ns/shop/sa/cart".parse().unwrap()
}

fn with_leaf<R>(chain: &[String], look: impl FnOnce(&X509Certificate<'_>) -> R) -> R {
    let pem = pem::parse(&chain[0]).unwrap();
    let (_, leaf) = X509Certificate::from_der(pem.contents()).unwrap();
    look(&leaf)
}

/// The lifetime from `now` on, in seconds.
fn lifetime(chain: &[String], now: SystemTime) -> i64 {
    let now = i64::try_from(now.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    with_leaf(chain, |leaf| leaf.validity().not_after.timestamp() - now)
}

#[test]
fn the_certificate_says_who_and_for_how_long() {
    let directory = tempfile::tempdir().unwrap();
    let material = Material::kept_in(directory.path(), "td").unwrap();
    let now = SystemTime::now();
    let asked = SigningRequest::new(&id()).unwrap();
    let signed = material.sign(asked.csr_pem(), &id(), 90, None, LIMITS, now).unwrap();
    let chain = signed.chain;
    with_leaf(&chain, |leaf| assert_eq!(leaf.raw_serial_as_string().replace(':', ""), signed.serial));
    assert_eq!(signed.not_after, now + Duration::from_secs(90));
    assert_eq!(chain.len(), 2, "leaf and roots");
    assert_eq!(chain[1], material.roots());
    assert_eq!(lifetime(&chain, now), 90);
    with_leaf(&chain, |leaf| {
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(names.critical, "there is no subject");
        assert_eq!(names.value.general_names, [GeneralName::URI("spiffe://td/ns/shop/sa/cart")]);
        let usage = leaf.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        let extended = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && extended.client_auth);
        assert!(!leaf.is_ca() && leaf.subject().iter().next().is_none());
        let before =
            now.duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed() - leaf.validity().not_before.timestamp();
        assert_eq!(before, 120);
    });
    asked.complete(&chain).expect("the client's own checks");
}

#[test]
fn names_in_the_request_do_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let material = Material::kept_in(directory.path(), "td").unwrap();
    let other: SpiffeId = "spiffe://td/ns/bank/sa/vault".parse().unwrap();
    let asked = SigningRequest::new(&other).unwrap();
    let chain = material.sign(asked.csr_pem(), &id(), 0, None, LIMITS, SystemTime::now()).unwrap().chain;
    with_leaf(&chain, |leaf| {
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names, [GeneralName::URI("spiffe://td/ns/shop/sa/cart")]);
    });
}

#[test]
fn lifetimes_have_a_default_a_limit_and_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let material = Material::kept_in(directory.path(), "td").unwrap();
    let asked = SigningRequest::new(&id()).unwrap();
    let now = SystemTime::now();
    let sign = |seconds, now| material.sign(asked.csr_pem(), &id(), seconds, None, LIMITS, now);
    for (requested, expected) in [(0, 3600), (-5, 3600), (i64::MIN, 3600), (1, 1), (7200, 7200)] {
        assert_eq!(lifetime(&sign(requested, now).unwrap().chain, now), expected, "{requested}");
    }
    assert!(matches!(sign(7201, now), Err(SignError::Lifetime { .. })));
    assert!(matches!(sign(i64::MAX, now), Err(SignError::Lifetime { .. })));
    // A token's owner is proven until the token ends.
    let for_itself = |seconds, until| material.sign(asked.csr_pem(), &id(), seconds, Some(until), LIMITS, now);
    for (requested, left, expected) in [(0, 60, 60), (7200, 60, 60), (30, 60, 30), (60, 7200, 60)] {
        let chain = for_itself(requested, now + Duration::from_secs(left)).unwrap().chain;
        assert_eq!(lifetime(&chain, now), expected, "{requested} asked, {left} proven");
    }
    assert!(matches!(for_itself(7201, now + Duration::from_secs(60)), Err(SignError::Lifetime { .. })));
    assert_eq!(for_itself(60, now - Duration::from_secs(1)), Err(SignError::Token));
    let near_the_end = material.not_after - Duration::from_secs(60);
    assert_eq!(lifetime(&sign(3600, near_the_end).unwrap().chain, near_the_end), 60);
    assert_eq!(sign(1, material.not_after), Err(SignError::Expired));
}

#[test]
fn bad_requests_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let material = Material::kept_in(directory.path(), "td").unwrap();
    let sign = |csr: &str| material.sign(csr, &id(), 60, None, LIMITS, SystemTime::now());
    let good = SigningRequest::new(&id()).unwrap();
    let mut forged = pem::parse(good.csr_pem()).unwrap().into_contents();
    *forged.last_mut().unwrap() ^= 1;
    let forged = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", forged));
    let certificate = material.roots().to_owned();
    assert!(matches!(sign(""), Err(SignError::Csr(_))));
    assert!(matches!(sign(&"x".repeat(1 << 20)), Err(SignError::Csr(_))));
    assert!(matches!(sign(&certificate), Err(SignError::Csr(_))));
    assert_eq!(sign(&forged), Err(SignError::Signature));
}

#[test]
fn the_root_outlives_the_process_and_is_the_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let first = Material::kept_in(&state, "td").unwrap().roots().to_owned();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&state.join(CA_KEY))), (0o700, 0o600));
    assert_eq!(fs::read_to_string(state.join(ROOT_CERT)).unwrap(), first);
    fs::set_permissions(state.join(CA_KEY), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(Material::kept_in(&state, "td").unwrap().roots(), first);
    assert_eq!(mode(&state.join(CA_KEY)), 0o600, "tightened");
    fs::remove_file(state.join(CA_KEY)).unwrap();
    assert!(Material::kept_in(&state, "td").is_err(), "a trusted root is not replaced by accident");
}

/// Writes an intermediate below a root made here.
fn plug_in(directory: &Path) -> Material {
    let root = Material::kept_in(&directory.join("offline"), "td").unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "intermediate");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_after = (SystemTime::now() + Duration::from_secs(86400)).into();
    let intermediate = params.signed_by(&key, &root.issuer).unwrap().pem();
    fs::write(directory.join(CA_CERT), &intermediate).unwrap();
    fs::write(directory.join(CA_KEY), key.serialize_pem()).unwrap();
    // As people make it: the root at its end.
    fs::write(directory.join(CERT_CHAIN), intermediate + root.roots()).unwrap();
    fs::write(directory.join(ROOT_CERT), root.roots()).unwrap();
    root
}

#[test]
fn a_plugged_in_intermediate_signs_and_stands_in_the_chain() {
    let directory = tempfile::tempdir().unwrap();
    let root = plug_in(directory.path());
    let material = Material::plugged_in(directory.path()).unwrap();
    let asked = SigningRequest::new(&id()).unwrap();
    let chain = material.sign(asked.csr_pem(), &id(), 60, None, LIMITS, SystemTime::now()).unwrap().chain;
    assert_eq!(chain.len(), 3, "leaf, intermediate, roots");
    assert_eq!(chain[2], root.roots());
    asked.complete(&chain).expect("the client's own checks");
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let broken = |what: &dyn Fn(&Path)| {
        let directory = tempfile::tempdir().unwrap();
        plug_in(directory.path());
        what(directory.path());
        Material::plugged_in(directory.path()).err().expect("refused").to_string()
    };
    let another_key = |at: &Path| fs::write(at.join(CA_KEY), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(broken(&another_key).contains("not the key of"));
    let another_root = |at: &Path| {
        let other = Material::kept_in(&at.join("other"), "td").unwrap();
        fs::write(at.join(ROOT_CERT), other.roots()).unwrap();
    };
    assert!(broken(&another_root).contains("not signed by"));
    assert!(broken(&|at| fs::write(at.join(CA_CERT), "").unwrap()).contains("no certificate"));
    let leaf = |at: &Path| {
        let root = Material::kept_in(&at.join("offline"), "td").unwrap();
        let asked = SigningRequest::new(&id()).unwrap();
        let chain = root.sign(asked.csr_pem(), &id(), 60, None, LIMITS, SystemTime::now()).unwrap().chain;
        fs::write(at.join(CA_CERT), &chain[0]).unwrap();
    };
    assert!(broken(&leaf).contains("not a CA certificate"));
}
