//! What a peer may show of certificates before any of them is looked at closely.
//!
//! Who shows certificates is a stranger until they have been found good, and finding that out is work: each certificate
//! that could have signed another is a way to try, and certificates that could all have signed each other are more ways
//! than a processor can try. So the ways are counted first, by names and keys alone, and who shows more than a chain has
//! is refused. The verifier then walks no more ways than were counted here.

use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor};
use webpki::EndEntityCert;

use crate::revocation::list::whole_key;

/// Most certificates between a leaf and its root. Meshes have none or one, and two while an intermediate is replaced.
pub const MAX_INTERMEDIATES: usize = 8;
/// Most bytes of a leaf and its intermediates together: the verifier's time grows with them. Nine certificates with RSA
/// keys of 2048 bits have 11 KiB; two and a leaf with ML-DSA-65 have 15.
pub const MAX_BYTES: usize = 16 << 10;
/// Most steps from a certificate to one that could have signed it, over all the ways that there are: a chain of the
/// verifier's greatest depth has six. An intermediate that two roots have signed, shown with both roots, has four.
pub const MAX_STEPS: usize = 8;
/// Most ends of ways, certificates that say a root has signed them: at each a signature is checked, for each root of that
/// name. An intermediate that two roots have signed has two, and a third if its name is a root's.
pub const MAX_ENDS: usize = 3;
/// How deep the verifier goes.
const MAX_DEPTH: usize = 6;

/// Why what a peer shows is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// Too many certificates.
    #[error("{0} intermediate certificates, and a chain here has at most {MAX_INTERMEDIATES}")]
    Certificates(usize),
    /// Too large.
    #[error("{0} bytes of certificates, and a chain here has at most {MAX_BYTES}")]
    Bytes(usize),
    /// Certificates that could have signed each other in too many ways.
    #[error("certificates that could have signed each other in too many ways: more than {MAX_STEPS} steps to try")]
    Ways,
}

/// What of the peer's intermediates the verifier needs, if they are few, small, and of few ways from the leaf to a root.
/// What is no certificate is left out, and so are the roots themselves, which it has.
///
/// # Errors
/// When they are not.
pub fn check<'a>(
    leaf: &CertificateDer<'_>,
    intermediates: &'a [CertificateDer<'_>],
    roots: &[TrustAnchor<'_>],
) -> Result<Vec<CertificateDer<'a>>, TooMuch> {
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(TooMuch::Certificates(intermediates.len()));
    }
    let bytes = leaf.len() + intermediates.iter().map(|certificate| certificate.len()).sum::<usize>();
    if bytes > MAX_BYTES {
        return Err(TooMuch::Bytes(bytes));
    }
    let roots: Vec<_> = roots.iter().map(|root| (&*root.subject, whole_key(&root.subject_public_key_info))).collect();
    let is_root = |named: &Named<'_>| roots.iter().any(|(name, key)| *name == named.subject() && *key == named.key);
    let above: Vec<_> = intermediates.iter().filter_map(Named::of).filter(|named| !is_root(named)).collect();
    // The verifier says of what is no certificate that it is none.
    if let Some(leaf) = Named::of(leaf) {
        let names = roots.iter().map(|(name, _)| *name).collect();
        let mut walk = Walk { above: &above, roots: names, steps: MAX_STEPS, ends: MAX_ENDS };
        walk.on(&mut vec![&leaf]).ok_or(TooMuch::Ways)?;
    }
    Ok(above.into_iter().map(|named| CertificateDer::from(named.der)).collect())
}

/// What decides whether one certificate could have signed another.
struct Named<'a> {
    der: &'a [u8],
    /// Read by the verifier's own parser, so that both see the same.
    certificate: EndEntityCert<'a>,
    key: SubjectPublicKeyInfoDer<'static>,
}

impl<'a> Named<'a> {
    fn of(der: &'a CertificateDer<'a>) -> Option<Self> {
        let certificate = EndEntityCert::try_from(der).ok()?;
        let key = certificate.subject_public_key_info();
        Some(Self { der, certificate, key })
    }

    fn subject(&self) -> &[u8] {
        self.certificate.subject()
    }
}

/// Goes where the verifier would go if no signature held.
struct Walk<'a> {
    above: &'a [Named<'a>],
    roots: Vec<&'a [u8]>,
    /// Left of each.
    steps: usize,
    ends: usize,
}

impl<'a> Walk<'a> {
    /// From the last of `path` on; `None` when that is further than may be.
    fn on(&mut self, path: &mut Vec<&'a Named<'a>>) -> Option<()> {
        let head = *path.last()?;
        if self.roots.contains(&head.certificate.issuer()) {
            self.ends = self.ends.checked_sub(1)?;
        }
        for next in self.above.iter().filter(|next| next.subject() == head.certificate.issuer()) {
            if path.iter().any(|before| before.subject() == next.subject() && before.key == next.key) {
                continue;
            }
            self.steps = self.steps.checked_sub(1)?;
            if path.len() > MAX_DEPTH {
                continue;
            }
            path.push(next);
            self.on(path)?;
            path.pop();
        }
        Some(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
