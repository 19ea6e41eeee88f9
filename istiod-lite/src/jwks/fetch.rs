//! Fetches keys over HTTP/1.1: one GET, no redirects, nothing that is kept open.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::allowed::Allowed;
use super::key_set::{canonical, discovered};
use crate::resources::KeySource;
use crate::resources::key_source::address;
use crate::resources::request_authentication::MAX_JWKS;

/// Most bytes of the head of an answer.
const HEAD: usize = 16 << 10;
/// Addresses of a name that are tried.
const ADDRESSES: usize = 4;

/// Fetches keys. Clones share it.
#[derive(Clone)]
pub struct Fetcher(Arc<Shared>);

struct Shared {
    allowed: Allowed,
    /// `JWKS_EXTRA_ROOT_CA`.
    extra_root: Option<PathBuf>,
    /// Read when the first https address is asked.
    tls: OnceCell<Arc<ClientConfig>>,
}

/// Why keys could not be fetched. It is shown to whoever may read the object that names the address: what was answered is not in it.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nothing can be asked there.
    #[error("{0}")]
    Address(String),
    /// The name is nobody's.
    #[error("{0} cannot be resolved: {1}")]
    Resolve(String, io::Error),
    /// An address that is not to be asked.
    #[error("{0}")]
    Refused(String),
    /// Nobody takes the connection.
    #[error("{0} cannot be reached: {1}")]
    Connect(SocketAddr, io::Error),
    /// No roots.
    #[error("no certificates of roots to check {0} with: {1}")]
    Roots(String, String),
    /// It did not prove to be who it should be.
    #[error("TLS with {0}: {1}")]
    Tls(String, io::Error),
    /// HTTP broke.
    #[error("no answer in HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("not there within {0:?}")]
    Time(Duration),
    /// It says no.
    #[error("{0} answers {1}")]
    Status(Uri, StatusCode),
    /// It says: elsewhere.
    #[error("{0} answers {1}, and redirects are not followed: write the address itself")]
    Redirect(Uri, StatusCode),
    /// There is too much of it.
    #[error("{0} answers more than {MAX_JWKS} bytes")]
    Long(Uri),
    /// It is nothing that we read.
    #[error("{0} answers no key set: {1}")]
    NoKeys(Uri, String),
    /// It is nothing that we read.
    #[error("{0} answers no OpenID configuration: {1}")]
    NoConfiguration(Uri, String),
}

impl Fetcher {
    /// `extra_root`: a file of more roots than this machine's.
    pub fn new(allowed: Allowed, extra_root: Option<PathBuf>) -> Self {
        Self(Arc::new(Shared { allowed, extra_root, tls: OnceCell::new() }))
    }

    /// The keys of a source. Within `timeout`, whatever it takes.
    ///
    /// # Errors
    /// Says why there are none.
    pub async fn fetch(&self, source: &KeySource, timeout: Duration) -> Result<String, FetchError> {
        let all = async {
            let mut uri = source.address().map_err(FetchError::Address)?;
            if let KeySource::Issuer(issuer) = source {
                let text = self.get(&uri).await?;
                let no = |why| FetchError::NoConfiguration(uri.clone(), why);
                let there = discovered(&text, issuer).map_err(no)?;
                uri = address(&there).ok_or_else(|| no("its jwks_uri is no address".to_owned()))?;
            }
            let text = self.get(&uri).await?;
            canonical(&text).map_err(|why| FetchError::NoKeys(uri, why))
        };
        timeout_at(Instant::now() + timeout, all).await.unwrap_or(Err(FetchError::Time(timeout)))
    }

    async fn get(&self, uri: &Uri) -> Result<Bytes, FetchError> {
        let is_secure = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let tcp = self.connect(host, port).await?;
        let stream: Pin<Box<dyn Stream>> = if is_secure {
            let tls = self.0.tls.get_or_try_init(|| roots(host, self.0.extra_root.clone())).await?;
            let name = ServerName::try_from(host.to_owned()).map_err(|error| FetchError::Address(error.to_string()))?;
            let tls = TlsConnector::from(tls.clone()).connect(name, tcp).await;
            Box::pin(tls.map_err(|error| FetchError::Tls(host.to_owned(), error))?)
        } else {
            Box::pin(tcp)
        };
        let (mut sender, connection) = http1::Builder::new().max_buf_size(HEAD).handshake(TokioIo::new(stream)).await?;
        // It goes on for as long as the answer is read.
        let driver = async {
            drop(connection.await);
            std::future::pending().await
        };
        tokio::select! {
            answer = ask(&mut sender, uri) => answer,
            never = driver => never,
        }
    }

    /// A connection to the first address of a name that takes one. What is judged is what is dialled: no name is resolved twice.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, FetchError> {
        let resolved = tokio::net::lookup_host((host, port)).await;
        let resolved = resolved.map_err(|error| FetchError::Resolve(host.to_owned(), error))?;
        let mut last = FetchError::Address(format!("{host} has no address"));
        for address in resolved.take(ADDRESSES) {
            if let Some(why) = self.0.allowed.why_not(address.ip()) {
                last = FetchError::Refused(why);
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = FetchError::Connect(address, error),
            }
        }
        Err(last)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

async fn ask(sender: &mut http1::SendRequest<Empty<Bytes>>, uri: &Uri) -> Result<Bytes, FetchError> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(if path.is_empty() { "/" } else { path })
        .header(HOST, host)
        .header(ACCEPT, "application/json, application/jwk-set+json")
        .header(USER_AGENT, concat!("istiod-lite/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())
        .map_err(|error| FetchError::Address(error.to_string()))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    if status.is_redirection() {
        return Err(FetchError::Redirect(uri.clone(), status));
    }
    if status != StatusCode::OK {
        return Err(FetchError::Status(uri.clone(), status));
    }
    let body = Limited::new(answer.into_body(), MAX_JWKS).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => FetchError::Http(*error),
        Err(error) if error.is::<LengthLimitError>() => FetchError::Long(uri.clone()),
        Err(error) => FetchError::Address(error.to_string()),
    })
}

/// The roots of this machine (`SSL_CERT_FILE` and `SSL_CERT_DIR` say where else they are), and those of a file.
async fn roots(host: &str, extra: Option<PathBuf>) -> Result<Arc<ClientConfig>, FetchError> {
    let no = |why: String| FetchError::Roots(host.to_owned(), why);
    let read = tokio::task::spawn_blocking(move || {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if let Some(file) = extra {
            let named = |why: String| format!("JWKS_EXTRA_ROOT_CA={}: {why}", file.display());
            let text = std::fs::read(&file).map_err(|error| named(error.to_string()))?;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                let certificate = certificate.map_err(|error| named(error.to_string()))?;
                roots.add(certificate).map_err(|error| named(error.to_string()))?;
            }
        }
        if roots.is_empty() {
            let why = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
            return Err(format!("{why}. Name a file of them by SSL_CERT_FILE or JWKS_EXTRA_ROOT_CA"));
        }
        Ok(roots)
    });
    let roots = read.await.map_err(|error| no(error.to_string()))?.map_err(no)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| no(error.to_string()))?.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}
