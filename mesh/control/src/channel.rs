//! The authenticated gRPC channel to the control plane, used for certificates here and for xDS in `mesh-xds`
//! (Istio ambient contract, section 7.6).
//!
//! The server proves itself with its certificate; we prove ourselves with a token, read for every call because it is
//! renewed in place. Roots are read again for every connection, so a new root needs no restart.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use mesh_identity::shown;
use mesh_identity::tls::PeerRefused;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const TCP_KEEPALIVE: socket2::TcpKeepalive = socket2::TcpKeepalive::new()
    .with_time(Duration::from_secs(300))
    .with_interval(Duration::from_secs(75))
    .with_retries(9);
/// Tokens are a few kilobytes; whatever is longer is some other file.
const MAX_TOKEN: usize = 64 * 1024;

/// Where distributions keep the roots that the whole system trusts.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The channel: calls made on it carry the token and the headers.
pub type ControlChannel = InterceptedService<Channel, CallHeaders>;

/// Whose certificates the control plane may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerRoots {
    /// A PEM file, read for every connection.
    File(PathBuf),
    /// PEM text.
    Pem(String),
    /// The roots that the machine trusts, from where distributions keep them.
    System,
}

impl ServerRoots {
    /// What an operator wrote (`XDS_ROOT_CA`, `CA_ROOT_CA`): `SYSTEM`, PEM text, or else the name of a file.
    pub fn parse(text: &str) -> Self {
        match text {
            "SYSTEM" => Self::System,
            pem if pem.contains("-----BEGIN CERTIFICATE-----") => Self::Pem(pem.to_owned()),
            path => Self::File(path.into()),
        }
    }
}

/// What we prove ourselves with.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// A file, read for every call.
    File(PathBuf),
    /// The token itself.
    Literal(String),
    /// No proof.
    None,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Literal(_) => f.write_str("Literal(..)"),
            Self::None => f.write_str("None"),
        }
    }
}

/// Where the control plane is and how both sides prove themselves.
#[derive(Debug, Clone)]
pub struct ChannelConfig {
    /// `https://host:port`, or `http://host:port` for plaintext. Ports default to 443 and 80.
    pub address: Uri,
    /// Not used with plaintext.
    pub roots: ServerRoots,
    /// The name that the server's certificate must have, when it is not the host of the address
    /// (`ALT_XDS_HOSTNAME`, `ALT_CA_HOSTNAME`).
    pub server_name: Option<String>,
    /// Our proof.
    pub token: Token,
    /// Header `clusterid`.
    pub cluster_id: String,
    /// More headers for every call (`XDS_HEADER_*`, `CA_HEADER_*`): names and values.
    pub headers: Vec<(String, String)>,
}

/// What is wrong with a [`ChannelConfig`].
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Not `http` or `https` with a host.
    #[error("the control plane's address {0} must be http://host:port or https://host:port")]
    Address(Uri),
    /// Neither a host name nor an address.
    #[error("{0:?} is no server name")]
    ServerName(String),
    /// Not allowed in HTTP.
    #[error("header {0:?} is no valid gRPC header: names are lower case ASCII, values printable ASCII")]
    Header(String),
}

/// Makes the channel. It connects when first used, and again whenever the connection is lost. To be called within a
/// tokio runtime; the channel is then driven by that runtime.
///
/// # Errors
/// When the configuration cannot be used. An unreachable server is not an error here but of each call.
pub fn connect(config: &ChannelConfig) -> Result<ControlChannel, ChannelError> {
    let bad_address = || ChannelError::Address(config.address.clone());
    let tls = match config.address.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(bad_address()),
    };
    let host = config.address.host().ok_or_else(bad_address)?;
    // IPv6 addresses are in brackets in a URI and nowhere else.
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = config.address.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let name = config.server_name.as_deref().unwrap_or(&host);
    let name = ServerName::try_from(name.to_owned()).map_err(|_| ChannelError::ServerName(name.to_owned()))?;

    let dial = Dial { host, port, tls: tls.then(|| (config.roots.clone(), name)) };
    // The transport would insist on TLS of its own for https: it sees http, the server sees the true origin.
    let authority = config.address.authority().ok_or_else(bad_address)?;
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|_| bad_address())?
        .origin(config.address.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true);
    let channel = endpoint.connect_with_connector_lazy(Connector(Arc::new(dial)));
    Ok(InterceptedService::new(channel, CallHeaders::new(config)?))
}

/// Adds the token and the headers to each call.
#[derive(Clone)]
pub struct CallHeaders {
    token: Token,
    fixed: Arc<MetadataMap>,
}

impl CallHeaders {
    fn new(config: &ChannelConfig) -> Result<Self, ChannelError> {
        let mut fixed = MetadataMap::new();
        let cluster = [("clusterid".to_owned(), config.cluster_id.clone())];
        for (name, value) in cluster.iter().chain(&config.headers) {
            let bad = || ChannelError::Header(name.clone());
            let key: AsciiMetadataKey = name.to_ascii_lowercase().parse().map_err(|_| bad())?;
            let value: AsciiMetadataValue = value.parse().map_err(|_| bad())?;
            fixed.insert(key, value);
        }
        Ok(Self { token: config.token.clone(), fixed: Arc::new(fixed) })
    }
}

impl Interceptor for CallHeaders {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let unusable = |why: String| Status::unauthenticated(format!("our own token cannot be used: {why}"));
        // A small file, read a few times a minute: not worth a thread of its own.
        let token = match &self.token {
            Token::None => None,
            Token::Literal(token) => Some(token.clone()),
            Token::File(path) => match std::fs::read_to_string(path) {
                Ok(token) if token.len() <= MAX_TOKEN => Some(token),
                Ok(_) => return Err(unusable(format!("{} is too long to be a token", path.display()))),
                Err(e) => return Err(unusable(format!("{}: {e}", path.display()))),
            },
        };
        let metadata = request.metadata_mut();
        if let Some(token) = token {
            let mut value: AsciiMetadataValue = format!("Bearer {}", token.trim())
                .parse()
                .map_err(|_| unusable("it holds characters that HTTP does not allow".into()))?;
            value.set_sensitive(true);
            metadata.insert("authorization", value);
        }
        for entry in self.fixed.iter() {
            if let tonic::metadata::KeyAndValueRef::Ascii(key, value) = entry {
                metadata.insert(key, value.clone());
            }
        }
        Ok(request)
    }
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{host}:{port}: {reason}")]
    Tcp { host: String, port: u16, reason: io::Error },
    #[error("{host}:{port} has no address")]
    NoAddress { host: String, port: u16 },
    #[error("roots for the control plane from {place}: {reason}")]
    Roots { place: String, reason: String },
    #[error("TLS with {host}:{port} as {name}: {reason}")]
    Tls { host: String, port: u16, name: String, reason: io::Error },
}

struct Dial {
    host: String,
    port: u16,
    tls: Option<(ServerRoots, ServerName<'static>)>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Dial {
    async fn dial(&self) -> Result<Box<dyn Stream>, DialError> {
        let tcp = self.tcp().await?;
        let Some((roots, name)) = &self.tls else { return Ok(Box::new(tcp)) };
        let connector = TlsConnector::from(Arc::new(client_config(load(roots)?)));
        let stream = connector.connect(name.clone(), tcp).await.map_err(|reason| DialError::Tls {
            host: self.host.clone(),
            port: self.port,
            name: name.to_str().into_owned(),
            reason,
        })?;
        Ok(Box::new(stream))
    }

    async fn tcp(&self) -> Result<TcpStream, DialError> {
        let failed = |reason| DialError::Tcp { host: self.host.clone(), port: self.port, reason };
        let mut last = DialError::NoAddress { host: self.host.clone(), port: self.port };
        for address in tokio::net::lookup_host((self.host.as_str(), self.port)).await.map_err(failed)? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(failed)?;
                    socket2::SockRef::from(&stream).set_tcp_keepalive(&TCP_KEEPALIVE).map_err(failed)?;
                    return Ok(stream);
                }
                Err(e) => last = failed(e),
            }
        }
        Err(last)
    }
}

/// Reads the roots anew.
fn load(roots: &ServerRoots) -> Result<RootCertStore, DialError> {
    let (place, pem) = match roots {
        ServerRoots::Pem(pem) => ("the setting".to_owned(), Ok(pem.clone().into_bytes())),
        ServerRoots::File(path) => (path.display().to_string(), std::fs::read(path)),
        ServerRoots::System => match SYSTEM_BUNDLES.iter().find(|path| std::path::Path::new(path).exists()) {
            Some(path) => ((*path).to_owned(), std::fs::read(path)),
            None => ("the system".to_owned(), Err(io::ErrorKind::NotFound.into())),
        },
    };
    let bad = |reason: String| DialError::Roots { place: place.clone(), reason };
    let pem = pem.map_err(|e| bad(e.to_string()))?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| bad(e.to_string()))?;
    let mut store = RootCertStore::empty();
    // System bundles hold odd old ones; one that cannot be used is only one less to trust.
    let (usable, _) = store.add_parsable_certificates(certificates);
    if usable == 0 { Err(bad("no usable certificate in it".into())) } else { Ok(store) }
}

fn client_config(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = Arc::new(roots);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .expect("there is a root, and no list that could be wrong");
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the default provider speaks the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Bounded { roots, verifier }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// The verifier of rustls, which is not given more to look at than a chain has: whoever answers at the address is a
/// stranger.
#[derive(Debug)]
struct Bounded {
    roots: Arc<RootCertStore>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Bounded {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let intermediates = shown::check(leaf, intermediates, &self.roots.roots).map_err(PeerRefused::TooMuch)?;
        self.verifier.verify_server_cert(leaf, &intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// [`Dial`] in the shape the transport wants it.
#[derive(Clone)]
struct Connector(Arc<Dial>);

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dial = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(dial.dial().await?)) })
    }
}

#[cfg(test)]
mod tests;
