//! What a certificate says of itself, for who looks.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use crate::certificate::{InvalidCertificate, parse, time};

/// A certificate, as operators are shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Serial number, decimal.
    pub serial: String,
    /// Beginning of validity, wall clock.
    pub not_before: SystemTime,
    /// End of validity, wall clock.
    pub not_after: SystemTime,
    /// The certificate itself, PEM.
    pub pem: String,
}

/// Describes a certificate.
///
/// # Errors
/// When it is no X.509 certificate.
pub fn describe(certificate: &CertificateDer<'_>) -> Result<Description, InvalidCertificate> {
    let parsed = parse(certificate)?;
    let validity = parsed.validity();
    Ok(Description {
        serial: parsed.tbs_certificate.serial.to_string(),
        not_before: time(validity.not_before)?,
        not_after: time(validity.not_after)?,
        pem: pem(certificate),
    })
}

/// Describes those that are certificates.
pub fn describe_all(certificates: &[CertificateDer<'_>]) -> Vec<Description> {
    certificates.iter().filter_map(|certificate| describe(certificate).ok()).collect()
}

/// RFC 7468: lines of 64 characters.
fn pem(der: &[u8]) -> String {
    let text = base64(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem + "-----END CERTIFICATE-----\n"
}

/// RFC 4648, section 4.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let three = [chunk[0], chunk.get(1).copied().unwrap_or(0), chunk.get(2).copied().unwrap_or(0)];
        let word = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4 {
            let six = (word >> (18 - 6 * place)) as usize & 63;
            text.push(if place > chunk.len() { '=' } else { char::from(ALPHABET[six]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::pem::PemObject;

    use super::*;
    use crate::test_ca::TestCa;

    /// The examples of RFC 4648, section 10.
    #[test]
    fn base64_is_the_rfcs() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"fooba", "Zm9vYmE="),
            (b"foobar", "Zm9vYmFy"),
            (b"\xff\xfe\xfd", "//79"),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }

    #[test]
    fn what_is_shown_is_the_certificate() {
        let ca = TestCa::with_intermediate();
        let shown = describe(ca.intermediate()).unwrap();
        assert_eq!(&CertificateDer::from_pem_slice(shown.pem.as_bytes()).unwrap(), ca.intermediate());
        assert!(shown.pem.lines().all(|line| line.len() <= 64) && shown.not_before < shown.not_after);
        assert!(shown.serial.bytes().all(|b| b.is_ascii_digit()), "{}", shown.serial);
        assert!(describe(&CertificateDer::from(vec![1, 2, 3])).is_err());
    }
}
