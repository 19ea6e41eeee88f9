//! What is in the certificates we sign.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use mesh_model::identity::SpiffeId;
use rcgen::{
    Certificate, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::material::Material;

/// Largest request read, in bytes of PEM.
const MAX_CSR: usize = 16 << 10;
/// How far clocks of other machines may be behind.
const CLOCK_SKEW: Duration = Duration::from_secs(120);
/// Smallest RSA key signed, in bits.
const MIN_RSA_BITS: usize = 2048;

/// How long certificates are good for.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// When the caller does not say.
    pub default: Duration,
    /// More is refused.
    pub max: Duration,
}

/// What was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// PEM: leaf, intermediates, and last all roots as one element.
    pub chain: Vec<String>,
    /// The leaf's serial number, in hexadecimal digits as other tools print it.
    pub serial: String,
    /// When the leaf ends.
    pub not_after: SystemTime,
}

/// Why a request was not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Not a certificate request.
    #[error("the CSR is not a PKCS#10 request in PEM: {0}")]
    Csr(String),
    /// It is not signed with the key it holds.
    #[error("the CSR is not signed with its own key")]
    Signature,
    /// A key nobody should use.
    #[error("the key in the CSR is not accepted: {0}")]
    Key(String),
    /// More than is allowed.
    #[error("the lifetime asked for is {asked:?}, the limit is {max:?}: ask for less or raise MAX_WORKLOAD_CERT_TTL")]
    Lifetime {
        /// By the caller.
        asked: Duration,
        /// By the settings.
        max: Duration,
    },
    /// What proves the caller ends now.
    #[error("the token ends now, and a certificate for its own owner ends with it")]
    Token,
    /// The CA's own certificate has ended.
    #[error("the CA's own certificate has expired")]
    Expired,
    /// The signing itself failed.
    #[error("signing failed: {0}")]
    Failed(String),
}

impl Material {
    /// Signs a workload's certificate. Of the request only the key and the proof of its possession count.
    ///
    /// `requested` is in seconds; 0 or less asks for the default. Whatever it is, the certificate ends with `until`.
    ///
    /// # Errors
    /// Says what is wrong with the request.
    pub fn sign(
        &self,
        csr_pem: &str,
        id: &SpiffeId,
        requested: i64,
        until: Option<SystemTime>,
        lifetimes: Lifetimes,
        now: SystemTime,
    ) -> Result<Signed, SignError> {
        let key = key_of(csr_pem)?;
        let lifetime = match u64::try_from(requested).map(Duration::from_secs) {
            Err(_) | Ok(Duration::ZERO) => lifetimes.default,
            Ok(asked) if asked > lifetimes.max => return Err(SignError::Lifetime { asked, max: lifetimes.max }),
            Ok(asked) => asked,
        };
        let proven = until.map_or(Duration::MAX, |until| until.duration_since(now).unwrap_or_default());
        let lifetime = lifetime.min(proven);
        if lifetime.is_zero() {
            return Err(SignError::Token);
        }
        let name = id.to_string().try_into().map_err(|e: rcgen::Error| SignError::Failed(e.to_string()))?;
        let (serial, not_after) = (serial()?, (now + lifetime).min(self.not_after));
        let leaf = self.issue(&key, vec![SanType::URI(name)], &serial, not_after, now)?;
        let chain = std::iter::once(leaf.pem()).chain(self.intermediates.iter().cloned());
        let serial = serial.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Signed { chain: chain.chain([self.roots.clone()]).collect(), serial, not_after })
    }

    /// A certificate and key for our own server: PEM of the chain (leaf and intermediates), and of the key.
    ///
    /// # Errors
    /// When a name is neither DNS name nor address.
    pub fn server_certificate(
        &self,
        names: &[String],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<(String, String), SignError> {
        let failed = |e: rcgen::Error| SignError::Failed(e.to_string());
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let name = |name: &String| match name.parse::<IpAddr>() {
            Ok(ip) => Ok(SanType::IpAddress(ip)),
            Err(_) => name.clone().try_into().map(SanType::DnsName),
        };
        let names = names.iter().map(name).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let not_after = (now + lifetime).min(self.not_after);
        let chain = self.issue(&key, names, &serial()?, not_after, now)?.pem() + &self.intermediates.concat();
        Ok((chain, key.serialize_pem()))
    }

    fn issue(
        &self,
        key: &impl PublicKeyData,
        names: Vec<SanType>,
        serial: &SerialNumber,
        not_after: SystemTime,
        now: SystemTime,
    ) -> Result<Certificate, SignError> {
        if self.not_after <= now {
            return Err(SignError::Expired);
        }
        let mut params = CertificateParams::default();
        // Without a subject the names are critical (RFC 5280 section 4.1.2.6).
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial.clone());
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = not_after.into();
        params.signed_by(key, &self.issuer).map_err(|e| SignError::Failed(e.to_string()))
    }
}

/// The key of a request whose self-signature is good.
fn key_of(csr_pem: &str) -> Result<SubjectPublicKeyInfo, SignError> {
    if csr_pem.len() > MAX_CSR {
        return Err(SignError::Csr(format!("longer than {MAX_CSR} bytes")));
    }
    let pem = pem::parse(csr_pem).map_err(|e| SignError::Csr(e.to_string()))?;
    let (rest, csr) = X509CertificationRequest::from_der(pem.contents()).map_err(|e| SignError::Csr(e.to_string()))?;
    if !rest.is_empty() {
        return Err(SignError::Csr("something follows it".to_owned()));
    }
    csr.verify_signature().map_err(|_| SignError::Signature)?;
    let info = &csr.certification_request_info.subject_pki;
    if let Ok(PublicKey::RSA(rsa)) = info.parsed()
        && rsa.key_size() < MIN_RSA_BITS
    {
        return Err(SignError::Key(format!("RSA of {} bits; at least {MIN_RSA_BITS}", rsa.key_size())));
    }
    SubjectPublicKeyInfo::from_der(info.raw).map_err(|e| SignError::Key(e.to_string()))
}

/// 128 random bits, positive (RFC 5280 section 4.1.2.2).
fn serial() -> Result<SerialNumber, SignError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SignError::Failed("no random numbers".to_owned()))?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests;
