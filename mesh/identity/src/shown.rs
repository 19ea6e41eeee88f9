//! What a peer may show of certificates before any of them is looked at closely.
//!
//! Who shows certificates is a stranger until they have been found good, and finding that out is work: each certificate
//! that could have signed another is a way to try, and certificates that could all have signed each other are more ways
//! than a processor can try. So the ways are counted first, by names and keys alone, and who shows more than a chain has
//! is refused. The verifier then walks no more ways than were counted here.

use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use webpki::EndEntityCert;

/// Most certificates between a leaf and its root. Meshes have none or one, and two while an intermediate is replaced.
pub const MAX_INTERMEDIATES: usize = 8;
/// Most bytes of a leaf and its intermediates together: the verifier's time grows with them. Nine certificates with RSA
/// keys of 2048 bits have 11 KiB; two and a leaf with ML-DSA-65 have 15.
pub const MAX_BYTES: usize = 16 << 10;
/// Most steps from a certificate to one that could have signed it, over all the ways that there are: a chain of the
/// verifier's greatest depth has six. An intermediate that two roots have signed, shown with both roots, has four.
pub const MAX_STEPS: usize = 8;
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

/// Whether the peer's certificates are few, small, and of few ways from the leaf to a root. What is no certificate is
/// left to the verifier, which refuses it.
///
/// # Errors
/// When they are not.
pub fn check(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), TooMuch> {
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(TooMuch::Certificates(intermediates.len()));
    }
    let bytes = leaf.len() + intermediates.iter().map(|certificate| certificate.len()).sum::<usize>();
    if bytes > MAX_BYTES {
        return Err(TooMuch::Bytes(bytes));
    }
    let Some(leaf) = Named::of(leaf) else { return Ok(()) };
    let above: Vec<_> = intermediates.iter().filter_map(Named::of).collect();
    let mut left = MAX_STEPS;
    match walk(&mut vec![&leaf], &above, &mut left) {
        true => Ok(()),
        false => Err(TooMuch::Ways),
    }
}

/// What decides whether one certificate could have signed another.
struct Named<'a> {
    /// Read by the verifier's own parser, so that both see the same.
    certificate: EndEntityCert<'a>,
    key: SubjectPublicKeyInfoDer<'static>,
}

impl<'a> Named<'a> {
    fn of(der: &'a CertificateDer<'a>) -> Option<Self> {
        let certificate = EndEntityCert::try_from(der).ok()?;
        let key = certificate.subject_public_key_info();
        Some(Self { certificate, key })
    }

    fn subject(&self) -> &[u8] {
        self.certificate.subject()
    }
}

/// Goes where the verifier would go if no signature held; false when that is further than `left` steps.
fn walk<'a>(path: &mut Vec<&'a Named<'a>>, above: &'a [Named<'a>], left: &mut usize) -> bool {
    let Some(head) = path.last().copied() else { return true };
    for next in above.iter().filter(|next| next.subject() == head.certificate.issuer()) {
        if path.iter().any(|before| before.subject() == next.subject() && before.key == next.key) {
            continue;
        }
        let Some(fewer) = left.checked_sub(1) else { return false };
        *left = fewer;
        if path.len() > MAX_DEPTH {
            continue;
        }
        path.push(next);
        let within = walk(path, above, left);
        path.pop();
        if !within {
            return false;
        }
    }
    true
}

#[cfg(test)]
pub(crate) mod tests;
