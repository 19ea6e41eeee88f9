//! What proxies connect to: discovery and certificates, over TLS with a certificate of our own CA.
//!
//! | file | question |
//! |---|---|
//! | `mod` | with which certificate, on which address? |
//! | [`connections`] | how many connections may there be, and how long without a good token? |
//! | [`gate`] | is it who it says, and is that one still there? |
//! | `seldom` | when is what strangers cause said in the log? |

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpSocket};

use crate::ca::material::{Current, Material};

pub mod connections;
pub mod gate;
mod seldom;

/// Lifetime of our own certificate; it is renewed at half of it.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Our own certificate cannot be made.
    #[error("cannot make our own certificate: {0}")]
    Certificate(String),
}

/// Our own certificate, made anew at half of its life and when another CA signs.
pub struct ServerCertificate {
    material: Current,
    names: Vec<String>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl ServerCertificate {
    /// Makes the first one. `names` are DNS names and addresses.
    ///
    /// # Errors
    /// When it cannot be made, for example because a name is none.
    pub fn new(material: Current, names: Vec<String>) -> Result<Arc<Self>, ServeError> {
        let now = material.borrow().clone();
        let current = RwLock::new(make(&now, &names)?);
        Ok(Arc::new(Self { material, names, current }))
    }

    /// Keeps it fresh, and signed by what signs; never returns.
    pub async fn keep_fresh(self: Arc<Self>) {
        let mut material = self.material.clone();
        loop {
            let half = tokio::time::sleep(LIFETIME / 2);
            // Nobody changes it any more: then only time counts.
            let changed = async {
                if material.changed().await.is_err() {
                    std::future::pending().await
                }
            };
            tokio::select! {
                () = half => {}
                () = changed => {}
            }
            let now = self.material.borrow().clone();
            match make(&now, &self.names) {
                Ok(fresh) => *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh,
                Err(error) => tracing::error!(%error, "our own certificate was not renewed"),
            }
        }
    }

    /// TLS with this certificate, under which `protocol` is spoken (ALPN); no client is asked for a certificate.
    ///
    /// # Errors
    /// When TLS itself cannot be set up.
    pub fn tls(self: &Arc<Self>, protocol: &[u8]) -> Result<Arc<ServerConfig>, ServeError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|e| ServeError::Certificate(e.to_string()))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(Resolver(self.clone())));
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Arc::new(config))
    }
}

/// Hands out the current one, whatever name the client asked for: there is one.
struct Resolver(Arc<ServerCertificate>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Resolver").field(&self.0.names).finish()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn make(material: &Material, names: &[String]) -> Result<Arc<CertifiedKey>, ServeError> {
    let failed = |e: &dyn std::fmt::Display| ServeError::Certificate(e.to_string());
    let (chain, key) = material.server_certificate(names, LIFETIME, SystemTime::now()).map_err(|e| failed(&e))?;
    let chain =
        CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(|e| failed(&e))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| failed(&e))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map(Arc::new).map_err(|e| failed(&e))
}

/// Listens; a port in use is an error here, not later.
///
/// # Errors
/// When the address cannot be listened on.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let failed = |source| ServeError::Listen { address, source };
    match bound(address) {
        // The default is every address of both families; a machine without IPv6 has only the other one.
        Err(e) if e.raw_os_error() == Some(AFNOSUPPORT) && address.ip().is_unspecified() => {
            let v4 = SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, address.port()));
            bound(v4).map_err(failed)
        }
        bound => bound.map_err(failed),
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    // So that a restart need not wait for old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Connections that wait to be accepted. Who finds no room tries again after a second: strangers come by the thousand, and
/// the handshakes of those that came first keep accepting waiting for tenths of one. The kernel holds it to `somaxconn`.
const BACKLOG: u32 = 4096;

/// `EAFNOSUPPORT` on Linux: no IPv6 in this kernel.
const AFNOSUPPORT: i32 = 97;
