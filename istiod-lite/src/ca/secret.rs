//! The root of a cluster that nobody plugged one into: made once, and kept in a Secret. Beside upstream's istiod, which has the root of
//! the mesh, it is one that signs nothing but our own certificate.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use mesh_kube::write::{self, WriteError};
use mesh_kube::{Client, Resource};
use mesh_runtime::backoff::Backoff;
use serde_json::json;

use super::material::{CA_CERT, CA_KEY, Material, MaterialError, Part, ROOT_CERT};

const SECRETS: Resource = Resource::core("secrets");
/// Istio's name for the root of the mesh.
pub const MESH_ROOT: &str = "istio-ca-secret";
/// The root of nothing but our own certificate.
pub const SERVING_ROOT: &str = "istiod-lite-serving-root";
/// Longest wait before the API server is asked again.
const LONGEST: Duration = Duration::from_secs(5);

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server does not let us.
    #[error("secret {name} in namespace {namespace}: {source}; the Role must allow to get and create secrets there")]
    Write {
        /// The Secret's.
        name: String,
        /// Ours.
        namespace: String,
        /// What it says.
        source: WriteError,
    },
    /// What is in it cannot be used.
    #[error(transparent)]
    Material(#[from] MaterialError),
}

/// The root in the Secret of this namespace and name, which is made if it is not there. Whoever of several replicas makes it first makes it for all. True
/// if it was us, just now.
///
/// # Errors
/// When it can be neither read nor made, or cannot be used. While nobody answers, that is waited for.
pub async fn kept_in_secret(
    client: &Client,
    (namespace, name): (&str, &str),
    trust_domain: &str,
) -> Result<(Material, bool), SecretError> {
    let mut backoff = Backoff::default();
    loop {
        let error = match write::get(client, SECRETS, namespace, name).await {
            Ok(secret) => return Ok((material((namespace, name), secret)?, false)),
            Err(error) if error.is_not_found() => match make(client, (namespace, name), trust_domain).await? {
                Ok(secret) => {
                    tracing::info!(namespace, secret = name, "made a new root certificate, good for ten years");
                    return Ok((material((namespace, name), secret)?, true));
                }
                // Also if another replica was faster: then it is there now.
                Err(error) => error,
            },
            Err(error) => error,
        };
        if !error.is_passing() {
            return Err(SecretError::Write { name: name.to_owned(), namespace: namespace.to_owned(), source: error });
        }
        let wait = backoff.next_wait().min(LONGEST);
        tracing::warn!(%error, ?wait, "the root's secret is asked for again");
        tokio::time::sleep(wait).await;
    }
}

/// Makes it, if it is not there.
async fn make(
    client: &Client,
    (namespace, name): (&str, &str),
    trust_domain: &str,
) -> Result<Result<Secret, WriteError>, MaterialError> {
    let (certificate, key) = super::material::make_root(trust_domain)?;
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "istio.io/ca-root",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {CA_CERT: certificate, CA_KEY: key, ROOT_CERT: certificate},
    });
    Ok(write::create(client, SECRETS, namespace, &secret).await)
}

fn material((namespace, name): (&str, &str), secret: Secret) -> Result<Material, MaterialError> {
    let data = secret.data.unwrap_or_default();
    let path = |key: &str| PathBuf::from(format!("secret {namespace}/{name}, {key}"));
    let part = |key: &str| -> Result<Part, MaterialError> {
        let problem = |problem: &str| MaterialError::Content { path: path(key), problem: problem.to_owned() };
        let bytes = data.get(key).filter(|bytes| !bytes.0.is_empty()).ok_or_else(|| problem("is not there"))?;
        let text = String::from_utf8(bytes.0.clone()).map_err(|_| problem("is no text"))?;
        Ok(Part { path: path(key), text })
    };
    let (certificate, key) = (part(CA_CERT)?, part(CA_KEY)?);
    let roots = part(ROOT_CERT).or_else(|_| part(CA_CERT))?;
    Material::read(&certificate, &key, None, &roots)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, RsaKeySize};

    use super::*;

    /// Bytes of a PKCS#8 before the PKCS#1 in it, of an RSA key of 2048 bits (RFC 5958, RFC 8017).
    const BEFORE_PKCS1: usize = 26;

    /// Istio's own root is of RSA, its key in PKCS#1, and some keys of its Secret hold nothing.
    #[test]
    fn a_root_that_istio_has_made_goes_on() {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "cluster.local");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap().pem();
        let pkcs1 = pem::encode(&pem::Pem::new("RSA PRIVATE KEY", &key.serialize_der()[BEFORE_PKCS1..]));
        let data = [
            (CA_CERT, certificate.as_str()),
            (CA_KEY, pkcs1.as_str()),
            (ROOT_CERT, ""),
            ("cert-chain.pem", ""),
            ("key.pem", ""),
        ];
        let data = data.map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec())));
        let read = material(("istio-system", MESH_ROOT), Secret { data: Some(data.into()), ..Secret::default() });
        let roots = read.map(|material| material.roots).unwrap();
        assert_eq!(pem::parse(roots).unwrap().contents(), pem::parse(certificate).unwrap().contents());
    }
}
