//! TLS as attackers speak it: whatever the server's certificate, and with whatever certificates of their own.
use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest wait for one handshake.
const PATIENCE: Duration = Duration::from_secs(10);

/// The certificate that the run has signed for the attackers.
pub(super) fn peer(files: &Path) -> Result<Arc<ClientConfig>> {
    let chain = CertificateDer::pem_file_iter(files.join(super::world::CHAIN))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(files.join(super::world::KEY))?;
    with_certificates(chain, key)
}

/// A chain of so many certificates that leads nowhere: all certificate authorities have one name, and each has signed
/// others, so that there are more paths through them than anybody can walk.
pub(super) fn cross_signed(certificates: usize) -> Result<Arc<ClientConfig>> {
    let keys = (0..8).map(|_| KeyPair::generate()).collect::<Result<Vec<_>, _>>()?;
    let params = || {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "nobody");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let pairs = (0..keys.len()).flat_map(|of| (0..keys.len()).map(move |by| (of, by))).filter(|(of, by)| of != by);
    let mut chain = Vec::new();
    for (of, by) in pairs.take(certificates) {
        let ca = params();
        let issuer = Issuer::from_params(&ca, &keys[by]);
        chain.push(params().signed_by(&keys[of], &issuer)?.der().clone());
    }
    let key = KeyPair::generate()?;
    let ca = params();
    let leaf = CertificateParams::default().signed_by(&key, &Issuer::from_params(&ca, &keys[0]))?;
    chain.insert(0, leaf.der().clone());
    with_certificates(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

/// Without a certificate.
pub(super) fn nobody() -> Result<Arc<ClientConfig>> {
    Ok(Arc::new(ambit::tls_to_anyone()?.with_no_client_auth()))
}

fn with_certificates(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Arc<ClientConfig>> {
    Ok(Arc::new(ambit::tls_to_anyone()?.with_client_auth_cert(chain, key)?))
}

/// A connection to `to` that speaks HTTP/2 in TLS.
pub(super) async fn dial(to: SocketAddr, config: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let handshake = async {
        let tcp = TcpStream::connect(to).await?;
        let name = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
        anyhow::Ok(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?)
    };
    tokio::time::timeout(PATIENCE, handshake).await.context("a handshake took too long")?
}
