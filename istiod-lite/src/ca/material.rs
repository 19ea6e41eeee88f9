//! The CA's own key and certificates: made at first start and kept, or plugged in.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mesh_runtime::files::Replace;
use mesh_runtime::timestamp::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The CA's certificate.
pub const CA_CERT: &str = "ca-cert.pem";
/// Its key.
pub const CA_KEY: &str = "ca-key.pem";
/// Certificates between it and the root.
pub const CERT_CHAIN: &str = "cert-chain.pem";
/// What proxies trust; may hold several roots.
pub const ROOT_CERT: &str = "root-cert.pem";

/// How keys are written: a root is made once, and trusted for years.
const KEY_FILE: Replace = Replace::new().mode(0o600).to_disk();
/// How certificates are written.
const CERT_FILE: Replace = Replace::new().mode(0o644).to_disk();

/// How long a root made here is good for.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What certificates are signed with now, and later.
pub type Current = tokio::sync::watch::Receiver<std::sync::Arc<Material>>;

/// What certificates are signed with.
pub struct Material {
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// DER of the signing certificate.
    signer: CertificateDer<'static>,
    /// End of the signing certificate.
    pub(super) not_after: SystemTime,
    /// End of the first of it and those above it, but for the root.
    chain_ends: SystemTime,
    /// End of the root that they lead to.
    root_ends: SystemTime,
    /// PEM of each certificate between a leaf and the root.
    pub(super) intermediates: Vec<String>,
    /// PEM of all roots.
    pub(super) roots: String,
}

/// PEM, and where it is from.
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl Part {
    fn file(path: PathBuf) -> Result<Self, MaterialError> {
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(source) => Err(MaterialError::File { path, source }),
        }
    }
}

/// Why there is nothing to sign with.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The root could not be made.
    #[error("cannot make a root certificate: {0}")]
    Make(#[from] rcgen::Error),
}

impl Material {
    /// Whether [`Self::kept_in`] would find a root rather than make one.
    pub fn is_kept_in(directory: &Path) -> bool {
        directory.join(CA_CERT).exists()
    }

    /// The root in a directory; made at first start. The directory is for the owner alone, and so is the key.
    ///
    /// # Errors
    /// When files cannot be used, or a certificate is there without its key: a root that is trusted already must not
    /// be replaced by accident.
    pub fn kept_in(directory: &Path, trust_domain: &str) -> Result<Self, MaterialError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| MaterialError::File { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed(directory))?;
        let (cert, key) = (directory.join(CA_CERT), directory.join(CA_KEY));
        if !cert.exists() {
            // The key goes first: one without a certificate was never used, and is made anew.
            let (cert_pem, key_pem) = make_root(trust_domain)?;
            KEY_FILE.write(&key, &key_pem).map_err(failed(&key))?;
            CERT_FILE.write(&cert, &cert_pem).map_err(failed(&cert))?;
            tracing::info!(directory = %directory.display(), "made a new root certificate, good for ten years");
        }
        let mode = fs::metadata(&key).map_err(failed(&key))?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!(key = %key.display(), "the CA's key could be read by others; made it the owner's alone");
            fs::set_permissions(&key, Permissions::from_mode(0o600)).map_err(failed(&key))?;
        }
        let cert = Part::file(cert)?;
        let material = Self::read(&cert, &Part::file(key)?, None, &cert)?;
        material.publish_roots(directory)?;
        Ok(material)
    }

    /// An intermediate, or a root, of the user's own: `ca-cert.pem`, `ca-key.pem`, `root-cert.pem` and, where there is
    /// something between them, `cert-chain.pem`.
    ///
    /// # Errors
    /// When a file is missing, the key is not the certificate's, or the chain does not lead to the root.
    pub fn plugged_in(directory: &Path) -> Result<Self, MaterialError> {
        let at = |name| directory.join(name);
        let chain = at(CERT_CHAIN);
        let chain = chain.exists().then(|| Part::file(chain)).transpose()?;
        let file = |name| Part::file(at(name));
        Self::read(&file(CA_CERT)?, &file(CA_KEY)?, chain.as_ref(), &file(ROOT_CERT)?)
    }

    /// Something that callers are given is another.
    pub fn differs(&self, other: &Self) -> bool {
        (&self.signer, &self.intermediates, &self.roots) != (&other.signer, &other.intermediates, &other.roots)
    }

    /// Who has certificates of ours accepts those of the other: they lead to one of our roots.
    pub fn vouches_for(&self, other: &Self) -> bool {
        let ours: Vec<_> = CertificateDer::pem_slice_iter(self.roots.as_bytes()).filter_map(Result::ok).collect();
        let chain = other.intermediates.iter().filter_map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok());
        let chain: Vec<_> = chain.collect();
        if chain.is_empty() { ours.contains(&other.signer) } else { leads_to_root(&chain, &ours).is_ok() }
    }

    /// The signing certificate, for people.
    pub fn described(&self) -> String {
        let Ok((_, certificate)) = X509Certificate::from_der(&self.signer) else { return String::new() };
        let count = self.roots.matches("-----BEGIN").count();
        let (subject, serial) = (certificate.subject(), certificate.raw_serial_as_string());
        format!("{subject}, serial {serial}, until {:.0}, {count} roots", Timestamp::from(self.not_after))
    }

    /// PEM of the roots that proxies must trust.
    pub fn roots(&self) -> &str {
        &self.roots
    }

    /// When the root ends that what is signed leads to; of several, the last.
    pub fn root_ends(&self) -> SystemTime {
        self.root_ends
    }

    /// When the first of the CA's own certificates ends, the root aside if it is another.
    pub fn chain_ends(&self) -> SystemTime {
        self.chain_ends
    }

    /// Writes the roots where the machinery of one machine finds them: `root-cert.pem` in a directory.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn publish_roots(&self, directory: &Path) -> Result<(), MaterialError> {
        let path = directory.join(ROOT_CERT);
        let written = fs::create_dir_all(directory).and_then(|()| CERT_FILE.write(&path, &self.roots));
        written.map_err(|source| MaterialError::File { path, source })
    }

    /// From its parts. `chain` is what stands between the certificate and the roots.
    ///
    /// # Errors
    /// When the key is not the certificate's, or the chain does not lead to a root.
    pub(super) fn read(cert: &Part, key: &Part, chain: Option<&Part>, roots: &Part) -> Result<Self, MaterialError> {
        let content = |part: &Part, problem: String| MaterialError::Content { path: part.path.clone(), problem };
        let key_pair = KeyPair::from_pem(&key.text).map_err(|e| {
            content(key, format!("not a private key we can sign with ({e}): ECDSA or RSA as PKCS#8 PEM"))
        })?;
        let signer = certificates(cert)?.remove(0);
        let roots_der = certificates(roots)?;
        let (_, parsed) = X509Certificate::from_der(&signer).map_err(|e| content(cert, format!("no X.509: {e}")))?;
        if !parsed.is_ca() {
            return Err(content(cert, "not a CA certificate: its basic constraints must say CA:TRUE".to_owned()));
        }
        if parsed.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&key_pair) {
            return Err(content(key, format!("this is not the key of {}", cert.path.display())));
        }
        let not_after = end_of(&parsed);
        if not_after <= SystemTime::now() {
            return Err(content(cert, format!("expired at {}: renew it", parsed.validity().not_after)));
        }
        let mut intermediates = if roots_der.contains(&signer) { Vec::new() } else { vec![signer.clone()] };
        for link in chain.map(certificates).transpose()?.into_iter().flatten() {
            if !intermediates.contains(&link) && !roots_der.contains(&link) {
                intermediates.push(link);
            }
        }
        let above =
            leads_to_root(&intermediates, &roots_der).map_err(|problem| content(chain.unwrap_or(cert), problem))?;
        let links = intermediates.iter().filter_map(|der| X509Certificate::from_der(der).ok());
        let chain_ends = links.map(|(_, link)| end_of(&link)).fold(not_after, SystemTime::min);
        let issuer = Issuer::from_ca_cert_der(&signer, key_pair)
            .map_err(|e| content(cert, format!("cannot sign with this certificate: {e}")))?;
        let roots = roots_der.iter().map(|der| to_pem(der)).collect();
        let intermediates = intermediates.iter().map(|der| to_pem(der)).collect();
        Ok(Self { issuer, signer, not_after, chain_ends, root_ends: above.unwrap_or(not_after), intermediates, roots })
    }
}

/// Each certificate is signed by the next, and the last by a root: when that ends, if there is anything below it.
fn leads_to_root(chain: &[CertificateDer<'_>], roots: &[CertificateDer<'_>]) -> Result<Option<SystemTime>, String> {
    let mut ends = None;
    for (i, link) in chain.iter().enumerate() {
        let (_, link) = X509Certificate::from_der(link).map_err(|e| format!("no X.509: {e}"))?;
        let above = chain.get(i + 1).map_or(roots, std::slice::from_ref);
        let signers = above.iter().filter_map(|der| X509Certificate::from_der(der).ok()).filter(|(_, issuer)| {
            link.issuer() == issuer.subject() && link.verify_signature(Some(issuer.public_key())).is_ok()
        });
        ends = signers.map(|(_, issuer)| end_of(&issuer)).max();
        if ends.is_none() {
            return Err(format!(
                "{} is not signed by what comes after it: list the intermediates in order, the signing one first, and \
                 put their root into {ROOT_CERT}",
                link.subject()
            ));
        }
    }
    Ok(ends)
}

fn end_of(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = certificate.validity().not_after.timestamp();
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

pub(super) fn make_root(trust_domain: &str) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    params.distinguished_name.push(DnType::CommonName, "Ambit mesh root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    // Clocks of other machines may be behind.
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + ROOT_LIFETIME).into();
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// At least one.
fn certificates(part: &Part) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let content = |problem: String| MaterialError::Content { path: part.path.clone(), problem };
    match CertificateDer::pem_slice_iter(part.text.as_bytes()).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(content("holds no certificate in PEM".to_owned())),
        Err(e) => Err(content(format!("not PEM: {e}"))),
    }
}

fn to_pem(der: &[u8]) -> String {
    pem::encode_config(
        &pem::Pem::new("CERTIFICATE", der),
        pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
    )
}
