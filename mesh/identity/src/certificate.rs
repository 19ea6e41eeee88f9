//! A key, the request to sign it, and the certificate that came back.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_model::identity::SpiffeId;
use rcgen::string::Ia5String;
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::time::ASN1Time;

/// Most certificates taken from one answer of the CA, intermediates and roots together.
const MAX_CERTIFICATES: usize = 64;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCertificate {
    /// Fewer than the leaf and the root bundle.
    #[error("the CA's answer needs a leaf and, as its last element, the roots; it has {0} elements")]
    Incomplete(usize),
    /// Bounded, so that an answer cannot eat the memory.
    #[error("the CA's answer has more than {MAX_CERTIFICATES} certificates")]
    TooMany,
    /// An element is no PEM, or holds no certificate.
    #[error("element {element} of the CA's answer is no PEM certificate: {reason}")]
    Pem {
        /// Counted from 0, the leaf.
        element: usize,
        /// What the parser said.
        reason: String,
    },
    /// Not an X.509 certificate.
    #[error("not an X.509 certificate: {0}")]
    X509(String),
    /// The leaf is for somebody else.
    #[error("asked for {asked}, but the certificate is for {presented}")]
    Identity {
        /// Who was asked for.
        asked: SpiffeId,
        /// Who it is for.
        presented: SpiffeId,
    },
    /// The leaf says of nobody who it is.
    #[error("asked for {asked}, but the certificate {reason}")]
    Nobody {
        /// Who was asked for.
        asked: SpiffeId,
        /// What it says instead.
        reason: NoIdentity,
    },
    /// The leaf does not belong to our key.
    #[error("the certificate does not belong to the key: {0}")]
    Key(rustls::Error),
    /// A certificate of the root bundle cannot be trusted to sign.
    #[error("a root of the CA's answer is unusable: {0}")]
    Root(rustls::Error),
    /// The time of validity does not fit into a clock.
    #[error("the time of validity is out of range")]
    Time,
}

/// Why no request could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a key and a certificate request for {id}: {reason}")]
pub struct RequestFailed {
    id: SpiffeId,
    reason: rcgen::Error,
}

/// A fresh ECDSA P-256 key and the PKCS#10 request to sign it: empty subject, one critical URI SAN.
pub struct SigningRequest {
    id: SpiffeId,
    csr_pem: String,
    key: PrivatePkcs8KeyDer<'static>,
}

impl SigningRequest {
    /// A new key for `id`.
    ///
    /// # Errors
    /// When the machine has no randomness to give.
    pub fn new(id: &SpiffeId) -> Result<Self, RequestFailed> {
        let failed = |reason| RequestFailed { id: id.clone(), reason };
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let uri = Ia5String::try_from(id.to_string()).map_err(failed)?;
        params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
        let csr_pem = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(failed)?;
        Ok(Self { id: id.clone(), csr_pem, key: key.serialize_der().into() })
    }

    /// PKCS#10 in PEM, to send to the CA.
    pub fn csr_pem(&self) -> &str {
        &self.csr_pem
    }

    /// Joins the key with the CA's answer. See [`WorkloadCertificate::new`].
    ///
    /// # Errors
    /// When the answer is not a certificate of this key for this identity.
    pub fn complete(self, cert_chain: &[String]) -> Result<WorkloadCertificate, InvalidCertificate> {
        WorkloadCertificate::new(self.id, self.key.into(), cert_chain)
    }
}

/// The CAs that peers' certificates are checked against.
#[derive(Clone, Debug)]
pub struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    store: Arc<RootCertStore>,
}

impl Roots {
    /// From a PEM bundle of one or more certificates.
    ///
    /// # Errors
    /// When there is none, too many, or one is no usable CA certificate.
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidCertificate> {
        Self::new(certificates_of(pem, 0)?)
    }

    fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, InvalidCertificate> {
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            store.add(certificate.clone()).map_err(InvalidCertificate::Root)?;
        }
        Ok(Self { certificates, store: Arc::new(store) })
    }

    /// As they came.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// Ready for rustls.
    pub fn store(&self) -> &Arc<RootCertStore> {
        &self.store
    }
}

/// A certificate of one of our identities, with its key and the roots that came with it.
#[derive(Clone)]
pub struct WorkloadCertificate {
    id: SpiffeId,
    key: Arc<CertifiedKey>,
    roots: Roots,
    serial: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl WorkloadCertificate {
    /// Joins a key with the answer of a CA: `cert_chain` holds PEM, first the leaf, then each intermediate, and as
    /// the last element the root bundle, which may hold several certificates.
    ///
    /// # Errors
    /// When the leaf's URI name is not `id` or not the only one, the key is another one's, or anything does not parse.
    pub fn new(id: SpiffeId, key: PrivateKeyDer<'static>, cert_chain: &[String]) -> Result<Self, InvalidCertificate> {
        let (bundle, presented) = match cert_chain.split_last() {
            Some((bundle, presented)) if !presented.is_empty() => (bundle, presented),
            _ => return Err(InvalidCertificate::Incomplete(cert_chain.len())),
        };
        let mut chain = Vec::new();
        for (element, pem) in presented.iter().enumerate() {
            chain.extend(certificates_of(pem.as_bytes(), element)?);
            if chain.len() > MAX_CERTIFICATES {
                return Err(InvalidCertificate::TooMany);
            }
        }
        let roots = Roots::new(certificates_of(bundle.as_bytes(), presented.len())?)?;

        let leaf = parse(&chain[0])?;
        match spiffe_id(&leaf) {
            Ok(presented) if presented == id => {}
            Ok(presented) => return Err(InvalidCertificate::Identity { asked: id, presented }),
            Err(reason) => return Err(InvalidCertificate::Nobody { asked: id, reason }),
        }
        let serial = leaf.tbs_certificate.serial.to_string();
        let not_before = time(leaf.validity().not_before)?;
        let not_after = time(leaf.validity().not_after)?;
        let provider = crate::crypto::provider(false);
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(InvalidCertificate::Key)?;
        Ok(Self { id, key: Arc::new(key), roots, serial, not_before, not_after })
    }

    /// Whose it is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Leaf and intermediates, without roots.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    /// The chain with its key, for rustls.
    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// The CAs that came with it: peers are checked against these.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Serial number, decimal.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Beginning of validity, wall clock.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// End of validity, wall clock.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether its validity has ended at `now`.
    pub fn expired(&self, now: SystemTime) -> bool {
        now >= self.not_after
    }
}

/// Everything but the key.
impl fmt::Debug for WorkloadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadCertificate")
            .field("id", &self.id)
            .field("serial", &self.serial)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Why a certificate says of nobody who it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoIdentity {
    /// There is no URI.
    #[error("has no URI name; a workload's has one, spiffe://<trust domain>/ns/<namespace>/sa/<account>")]
    None,
    /// The one URI is no SPIFFE id of a workload.
    #[error("has the URI name {0:?}; a workload's is spiffe://<trust domain>/ns/<namespace>/sa/<account>")]
    Other(String),
    /// Whichever was meant, somebody would take another.
    #[error("has {0} URI names, and an X.509-SVID has exactly one")]
    Several(usize),
    /// Not a certificate, or its names are doubled or broken.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

/// Who a certificate is for: its one URI SAN (SPIFFE X.509-SVID, section 2). Names of other kinds are passed over.
///
/// # Errors
/// When it has none, several, or one that is no SPIFFE id of ours.
pub fn spiffe_id_of(certificate: &CertificateDer<'_>) -> Result<SpiffeId, NoIdentity> {
    spiffe_id(&parse(certificate).map_err(|error| NoIdentity::Unreadable(error.to_string()))?)
}

pub(crate) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, InvalidCertificate> {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok((_, parsed)) => Ok(parsed),
        Err(e) => Err(InvalidCertificate::X509(e.to_string())),
    }
}

/// Most of a name that is not an identity that is said of it.
const MAX_SAID: usize = 128;

fn spiffe_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, NoIdentity> {
    let names = certificate.subject_alternative_name().map_err(|error| NoIdentity::Unreadable(error.to_string()))?;
    let names = names.map(|san| &san.value.general_names[..]).unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.count()) {
        (None, _) => Err(NoIdentity::None),
        (Some(uri), 0) => uri.parse().map_err(|_| NoIdentity::Other(uri.chars().take(MAX_SAID).collect())),
        (Some(_), more) => Err(NoIdentity::Several(more + 1)),
    }
}

fn certificates_of(pem: &[u8], element: usize) -> Result<Vec<CertificateDer<'static>>, InvalidCertificate> {
    let bad = |reason: String| InvalidCertificate::Pem { element, reason };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .take(MAX_CERTIFICATES + 1)
        .collect::<Result<_, _>>()
        .map_err(|e| bad(e.to_string()))?;
    match certificates.len() {
        0 => Err(bad("no certificate in it".into())),
        1..=MAX_CERTIFICATES => Ok(certificates),
        _ => Err(InvalidCertificate::TooMany),
    }
}

pub(crate) fn time(time: ASN1Time) -> Result<SystemTime, InvalidCertificate> {
    let seconds = u64::try_from(time.timestamp()).map_err(|_| InvalidCertificate::Time)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(InvalidCertificate::Time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_ca::{TestCa, id};

    #[test]
    fn the_request_has_an_empty_subject_and_one_critical_uri() {
        use x509_parser::prelude::*;
        let request = SigningRequest::new(&id("spiffe://td/ns/shop/sa/cart")).unwrap();
        let (_, pem) = parse_x509_pem(request.csr_pem().as_bytes()).unwrap();
        let (_, csr) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        csr.verify_signature().unwrap();
        assert_eq!(csr.certification_request_info.subject.iter().count(), 0);
        let requested: Vec<_> = csr
            .certification_request_info
            .iter_attributes()
            .filter_map(|a| match a.parsed_attribute() {
                ParsedCriAttribute::ExtensionRequest(request) => Some(&request.extensions),
                _ => None,
            })
            .flatten()
            .collect();
        assert_eq!(requested.len(), 1, "nothing but the SAN");
        assert!(requested[0].critical);
        let ParsedExtension::SubjectAlternativeName(san) = requested[0].parsed_extension() else {
            panic!("not a SAN: {requested:?}")
        };
        assert_eq!(san.general_names, [GeneralName::URI("spiffe://td/ns/shop/sa/cart")]);
    }

    #[test]
    fn an_answer_becomes_a_certificate() {
        let ca = TestCa::new();
        let asked = id("spiffe://td/ns/shop/sa/cart");
        let request = SigningRequest::new(&asked).unwrap();
        let (from, until) = TestCa::hour_around_now();
        let answer = ca.sign(request.csr_pem(), &[&asked.to_string()], from, until);
        let certificate = request.complete(&answer).unwrap();
        assert_eq!(certificate.id(), &asked);
        assert_eq!(certificate.chain().len(), 1);
        assert_eq!(certificate.roots().certificates().len(), 1);
        assert_eq!(certificate.not_after().duration_since(certificate.not_before()).unwrap().as_secs(), 3600);
        assert!(!certificate.serial().is_empty());
        assert!(!certificate.expired(SystemTime::now()));
        assert!(certificate.expired(certificate.not_after()));
        assert_eq!(spiffe_id_of(&certificate.chain()[0]).unwrap(), asked);
        assert!(!format!("{certificate:?}").to_lowercase().contains("key"));
    }

    /// Trap 49: the last element is roots, one or several.
    #[test]
    fn intermediates_and_several_roots() {
        let (ca, other) = (TestCa::new(), TestCa::new());
        let asked = id("spiffe://td/ns/shop/sa/cart");
        let request = SigningRequest::new(&asked).unwrap();
        let (from, until) = TestCa::hour_around_now();
        let mut answer = ca.sign(request.csr_pem(), &[&asked.to_string()], from, until);
        answer.insert(1, other.root_pem()); // stands for an intermediate
        answer[2].push_str(&other.root_pem());
        let certificate = request.complete(&answer).unwrap();
        assert_eq!((certificate.chain().len(), certificate.roots().certificates().len()), (2, 2));
    }

    /// Trap 51: what came is compared with what was asked for.
    #[test]
    fn wrong_answers_are_refused() {
        let ca = TestCa::new();
        let asked = id("spiffe://td/ns/shop/sa/cart");
        let (from, until) = TestCa::hour_around_now();
        let request = || SigningRequest::new(&asked).unwrap();
        let answer_to = |request: &SigningRequest, names: &[&str]| ca.sign(request.csr_pem(), names, from, until);

        let r = request();
        let answer = answer_to(&r, &["spiffe://td/ns/shop/sa/other"]);
        let error = r.complete(&answer).unwrap_err();
        assert_eq!(
            error.to_string(),
            "asked for spiffe://td/ns/shop/sa/cart, but the certificate is for spiffe://td/ns/shop/sa/other"
        );

        // Exactly one URI name, and that one.
        let asked_text = asked.to_string();
        for (names, expected) in [
            (&[][..], NoIdentity::None),
            (&["https://example.org/"], NoIdentity::Other("https://example.org/".into())),
            (&["spiffe://td/ns/shop/sa/other", &asked_text], NoIdentity::Several(2)),
            (&[&asked_text, "spiffe://td/ns/shop/sa/other"], NoIdentity::Several(2)),
            (&[&asked_text, &asked_text], NoIdentity::Several(2)),
            (&["https://example.org/", &asked_text], NoIdentity::Several(2)),
        ] {
            let r = request();
            let answer = answer_to(&r, names);
            match r.complete(&answer) {
                Err(InvalidCertificate::Nobody { reason, .. }) => assert_eq!(reason, expected, "{names:?}"),
                other => panic!("{names:?}: {other:?}"),
            }
        }

        let answer = answer_to(&request(), &[&asked.to_string()]);
        assert!(matches!(request().complete(&answer), Err(InvalidCertificate::Key(_))));

        let r = request();
        let answer = answer_to(&r, &[&asked.to_string()]);
        assert!(matches!(r.complete(&answer[..1]), Err(InvalidCertificate::Incomplete(1))));
        assert!(matches!(request().complete(&[]), Err(InvalidCertificate::Incomplete(0))));

        let garbage = |leaf: &str, root: &str| request().complete(&[leaf.into(), root.into()]).unwrap_err();
        assert!(matches!(garbage("", &answer[1]), InvalidCertificate::Pem { element: 0, .. }));
        assert!(matches!(garbage(&answer[0], "x"), InvalidCertificate::Pem { element: 1, .. }));
        assert!(matches!(garbage(&ca.root_pem().repeat(65), &answer[1]), InvalidCertificate::TooMany));
    }
}
