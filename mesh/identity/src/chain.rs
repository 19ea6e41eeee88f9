//! Whether a peer's certificate is genuine, in its time, for this use, and not revoked: what both verifiers share.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, OtherError};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{Cert, EndEntityCert, KeyUsage, VerifiedPath};

use crate::certificate::{Roots, WorkloadCertificate};
use crate::refused::PeerRefused;
use crate::revocation::list::{Issuer, Link};
use crate::revocation::{Revocations, list};
use crate::shown;

/// Checks chains against the roots that came with a certificate of ours.
#[derive(Debug)]
pub(crate) struct Chain {
    roots: Roots,
    /// The roots again, as issuers; empty where no lists are looked at.
    issuers: Vec<Arc<Issuer>>,
    pub(crate) provider: Arc<CryptoProvider>,
    revocations: Revocations,
    usage: KeyUsage,
}

impl Chain {
    pub(crate) fn new(
        own: &WorkloadCertificate,
        provider: &Arc<CryptoProvider>,
        revocations: &Revocations,
        usage: KeyUsage,
    ) -> Self {
        let roots = own.roots().clone();
        let issuers = match revocations.is_on() {
            true => roots.store().roots.iter().map(|anchor| Arc::new(root(anchor, roots.certificates()))).collect(),
            false => Vec::new(),
        };
        revocations.meet(&issuers);
        Self { roots, issuers, provider: provider.clone(), revocations: revocations.clone(), usage }
    }

    /// Who signed what, from the leaf up; empty where no lists are looked at.
    pub(crate) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Vec<Link>, rustls::Error> {
        let roots = &self.roots.store().roots;
        let intermediates = shown::check(leaf, intermediates, roots).map_err(PeerRefused::TooMuch)?;
        let lists = self.revocations.lists()?;
        let parsed = EndEntityCert::try_from(leaf).map_err(refused)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        // A way that goes over a revoked certificate is none, but there may be another.
        let found = RefCell::new(Vec::new());
        let unrevoked = |path: &VerifiedPath<'_>| {
            let Some(lists) = &lists else { return Ok(()) };
            let links = self.links(path);
            links.iter().try_for_each(|link| list::check(lists, link))?;
            *found.borrow_mut() = links;
            Ok(())
        };
        parsed
            .verify_for_usage(algorithms, roots, &intermediates, now, self.usage, None, Some(&unrevoked))
            .map_err(refused)?;
        Ok(found.into_inner())
    }

    fn links(&self, path: &VerifiedPath<'_>) -> Vec<Link> {
        let mut links = Vec::new();
        let mut below: &Cert<'_> = path.end_entity();
        for above in path.intermediate_certificates() {
            links.push(Link { serial: below.serial().to_vec(), issuer: Arc::new(intermediate(above)) });
            below = above;
        }
        let anchor = self.roots.store().roots.iter().position(|root| root == path.anchor());
        // The anchor is one of them.
        if let Some(issuer) = anchor.and_then(|at| self.issuers.get(at)) {
            links.push(Link { serial: below.serial().to_vec(), issuer: issuer.clone() });
        }
        links
    }
}

fn intermediate(certificate: &Cert<'_>) -> Issuer {
    let key = certificate.subject_public_key_info();
    Issuer::new(certificate.subject(), key, Some(&certificate.der()))
}

fn root(anchor: &TrustAnchor<'_>, certificates: &[CertificateDer<'_>]) -> Issuer {
    let parsed = certificates.iter().filter_map(|der| Some((der, EndEntityCert::try_from(der).ok()?)));
    let key = list::whole_key(&anchor.subject_public_key_info);
    let mut same = parsed.filter(|(_, c)| c.subject() == &*anchor.subject && c.subject_public_key_info() == key);
    let certificate = same.next().map(|(der, _)| der);
    Issuer::new(&anchor.subject, key.clone(), certificate)
}

/// What rustls calls it; the rest in webpki's own words.
fn refused(error: webpki::Error) -> rustls::Error {
    use webpki::Error as E;
    let error = match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::CertRevoked => CertificateError::Revoked,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    rustls::Error::InvalidCertificate(error)
}
