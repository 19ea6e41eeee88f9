//! One revocation list: whose it is, and whom it takes back.
//!
//! Names do not say whose a list is: self-signed roots of one mesh have one name, and after a rotation there are two of
//! them with a list each. The signature does, under the key of the issuer itself. A signature is checked once for each
//! key and remembered, because a list may be megabytes long and handshakes are many.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use webpki::{BorrowedCertRevocationList, RawPublicKeyEntity};
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::extensions::{ParsedExtension, X509Extension};

/// Most keys that a list remembers: a mesh has a handful of issuers. With more, those that come late are checked anew.
const MAX_KEYS: usize = 64;

/// Whoever signs certificates and lists.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Issuer {
    /// The name, DER without its outermost tag.
    name: Vec<u8>,
    key: SubjectPublicKeyInfoDer<'static>,
    /// What its certificate calls its key, if it does.
    key_id: Option<Vec<u8>>,
}

impl Issuer {
    pub(crate) fn new(
        name: &[u8],
        key: SubjectPublicKeyInfoDer<'static>,
        certificate: Option<&CertificateDer<'_>>,
    ) -> Self {
        let parsed = certificate.and_then(|der| crate::certificate::parse(der).ok());
        let key_id = parsed.and_then(|parsed| {
            parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            })
        });
        Self { name: name.to_vec(), key, key_id }
    }
}

/// A certificate, by its number, and who signed it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) serial: Vec<u8>,
    pub(crate) issuer: Arc<Issuer>,
}

/// A list.
pub(crate) struct List {
    /// As [`Issuer::name`].
    issuer: Vec<u8>,
    /// What the issuer calls the key that signed, if it does.
    key_id: Option<Vec<u8>>,
    revoked: HashSet<Box<[u8]>>,
    der: Vec<u8>,
    /// Keys that were asked about, and whether they signed it.
    keys: RwLock<Vec<(SubjectPublicKeyInfoDer<'static>, bool)>>,
}

impl List {
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, webpki::Error> {
        let parsed = BorrowedCertRevocationList::from_der(der)?;
        let revoked = (&parsed).into_iter().map(|revoked| Ok(revoked?.serial_number.into()));
        let revoked = revoked.collect::<Result<_, webpki::Error>>()?;
        let list = webpki::CertRevocationList::from(parsed);
        let issuer = list.issuer().to_vec();
        Ok(Self { issuer, key_id: authority_key_id(der), revoked, der: der.to_vec(), keys: RwLock::default() })
    }

    /// Looks at the keys that lists before this one were asked about, so that connections need not wait for it.
    pub(crate) fn meet_keys_of(&self, before: &Self) {
        if before.issuer == self.issuer {
            let keys = before.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
            for (key, _) in &keys {
                self.is_signed_by(key);
            }
        }
    }

    /// The same for an issuer.
    pub(crate) fn meet(&self, issuer: &Issuer) {
        if issuer.name == self.issuer {
            self.is_signed_by(&issuer.key);
        }
    }

    fn is_signed_by(&self, key: &SubjectPublicKeyInfoDer<'static>) -> bool {
        let known = |keys: &[(SubjectPublicKeyInfoDer<'static>, bool)]| {
            keys.iter().find(|(known, _)| known == key).map(|(_, signed)| *signed)
        };
        if let Some(signed) = known(&self.keys.read().unwrap_or_else(PoisonError::into_inner)) {
            return signed;
        }
        let signed = verify(&self.der, key, &crate::crypto::signature_algorithms()).is_some();
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if known(&keys).is_none() && keys.len() < MAX_KEYS {
            keys.push((key.clone(), signed));
        }
        signed
    }
}

/// Whether a certificate is on no list of its issuer. Without a list it is on none.
///
/// # Errors
/// When it is on one; and when there is a list that says it is the issuer's and the signature is not: then it cannot be
/// told who is revoked.
pub(crate) fn check(lists: &[List], link: &Link) -> Result<(), webpki::Error> {
    let issuer = &*link.issuer;
    let (mut signed, mut doubtful) = (false, false);
    for list in lists.iter().filter(|list| list.issuer == issuer.name) {
        if list.is_signed_by(&issuer.key) {
            if list.revoked.contains(&*link.serial) {
                return Err(webpki::Error::CertRevoked);
            }
            signed = true;
            continue;
        }
        match (&list.key_id, &issuer.key_id) {
            (Some(of_list), Some(of_issuer)) if of_list == of_issuer => {
                return Err(webpki::Error::InvalidCrlSignatureForPublicKey);
            }
            // Another issuer's, of the same name.
            (Some(_), Some(_)) => {}
            _ => doubtful = true,
        }
    }
    match doubtful && !signed {
        true => Err(webpki::Error::InvalidCrlSignatureForPublicKey),
        false => Ok(()),
    }
}

/// A key as certificates have it, from what a trust anchor keeps of it: with its outermost tag.
pub(crate) fn whole_key(inner: &[u8]) -> SubjectPublicKeyInfoDer<'static> {
    let mut der = vec![0x30];
    match inner.len() {
        short @ ..128 => der.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let bytes = &bytes[bytes.iter().position(|b| *b != 0).unwrap_or(0)..];
            der.push(0x80 | bytes.len() as u8);
            der.extend_from_slice(bytes);
        }
    }
    der.extend_from_slice(inner);
    der.into()
}

/// The signature of a list (RFC 5280, section 5.1.1); `None` if it is not this key's.
fn verify(der: &[u8], key: &SubjectPublicKeyInfoDer<'_>, algorithms: &WebPkiSupportedAlgorithms) -> Option<()> {
    let content = Any::from_der(der).ok()?.1.data;
    let (after, _) = Any::from_der(content).ok()?;
    let signed = &content[..content.len() - after.len()];
    let (after, algorithm) = Any::from_der(after).ok()?;
    let (_, signature) = Any::from_der(after).ok()?;
    // The first byte of a bit string says how many bits of the last are unused.
    let signature = signature.data.strip_prefix(&[0])?;
    let key = RawPublicKeyEntity::try_from(key).ok()?;
    let mut fitting = algorithms.all.iter().filter(|a| a.signature_alg_id().as_ref() == algorithm.data);
    fitting.find_map(|algorithm| key.verify_signature(*algorithm, signed, signature).ok())
}

/// The extension that names the key of a list's issuer (RFC 5280, section 5.2.1). Walked to by hand: a parser of whole
/// lists would keep each entry in memory.
fn authority_key_id(der: &[u8]) -> Option<Vec<u8>> {
    let content = Any::from_der(der).ok()?.1.data;
    let mut rest = Any::from_der(content).ok()?.1.data;
    while !rest.is_empty() {
        let (after, field) = Any::from_der(rest).ok()?;
        rest = after;
        if field.header.is_contextspecific() && field.header.tag().0 == 0 {
            let mut extensions = Any::from_der(field.data).ok()?.1.data;
            while !extensions.is_empty() {
                let (after, extension) = X509Extension::from_der(extensions).ok()?;
                extensions = after;
                if let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() {
                    return Some(id.key_identifier.as_ref()?.0.to_vec());
                }
            }
        }
    }
    None
}
