//! The channel against a real signing service behind real TLS.

use std::sync::Mutex;

use mesh_identity::authority::Authority as _;
use mesh_identity::certificate::SigningRequest;
use mesh_model::identity::SpiffeId;
use mesh_proto::certificate::{IstioCertificateRequest, IstioCertificateResponse};
use mesh_testkit::ca::TestCa;
use mesh_testkit::maze::maze;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt;
use tonic::Response;

use super::*;
use crate::ca_client::CaClient;
use crate::ca_client::service::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};

const CART: &str = "spiffe://td/ns/shop/sa/cart";
const NAME: &str = "istiod.istio-system.svc";

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

/// Signs for whoever has the right token, and remembers what it was told.
struct Signer {
    ca: TestCa,
    seen: Arc<Mutex<Vec<MetadataMap>>>,
}

#[tonic::async_trait]
impl IstioCertificateService for Signer {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.seen.lock().unwrap().push(request.metadata().clone());
        if request.metadata().get("authorization").is_none_or(|token| token != "Bearer good") {
            return Err(Status::unauthenticated("request authenticate failure"));
        }
        let request = request.into_inner();
        let fields = request.metadata.unwrap_or_default().fields;
        let Some(prost_types::value::Kind::StringValue(identity)) =
            fields.get("ImpersonatedIdentity").and_then(|value| value.kind.clone())
        else {
            return Err(Status::invalid_argument("no identity"));
        };
        let lifetime = Duration::from_secs(request.validity_duration.unsigned_abs());
        Ok(Response::new(IstioCertificateResponse {
            cert_chain: TestCa::sign(&self.ca, &id(&identity), &request.csr, lifetime),
        }))
    }
}

struct Server {
    port: u16,
    root: String,
    seen: Arc<Mutex<Vec<MetadataMap>>>,
}

/// Serves on loopback with a certificate for [`NAME`]; without TLS when not `tls`.
async fn serve(tls: bool) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::default());
    let signer = Signer { ca: TestCa::new(), seen: seen.clone() };
    let service = IstioCertificateServiceServer::new(signer);
    let server = tonic::transport::Server::builder();

    let certified = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let root = certified.cert.pem();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    if tls {
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certified.cert.der().clone()], key.into())
                .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let incoming = incoming.then(move |stream| {
            let acceptor = acceptor.clone();
            async move { acceptor.accept(stream?).await }
        });
        // A client that gives up in the handshake ends only its own connection.
        tokio::spawn(server.serve_with_incoming(service, incoming.filter(|stream| stream.is_ok())));
    } else {
        tokio::spawn(server.serve_with_incoming(service, incoming));
    }
    Server { port, root, seen }
}

impl Server {
    fn config(&self, scheme: &str) -> ChannelConfig {
        ChannelConfig {
            address: format!("{scheme}://127.0.0.1:{}", self.port).parse().unwrap(),
            roots: ServerRoots::Pem(self.root.clone()),
            server_name: Some(NAME.into()),
            token: Token::Literal("good".into()),
            cluster_id: "Kubernetes".into(),
            headers: vec![("X-Mesh".into(), "blue".into())],
        }
    }
}

async fn ask(config: &ChannelConfig) -> Result<Vec<String>, String> {
    let client = CaClient::new(connect(config).unwrap(), None);
    let request = SigningRequest::new(&id(CART)).unwrap();
    let answer = client.sign(&id(CART), request.csr_pem(), Duration::from_secs(60)).await.map_err(|e| e.to_string())?;
    request.complete(&answer).map_err(|e| e.to_string())?;
    Ok(answer)
}

#[tokio::test]
async fn certificates_come_over_tls_and_over_plaintext() {
    for scheme in ["https", "http"] {
        let server = serve(scheme == "https").await;
        ask(&server.config(scheme)).await.unwrap();
        let seen = server.seen.lock().unwrap();
        assert_eq!(seen[0].get("authorization").unwrap(), "Bearer good");
        assert_eq!(seen[0].get("clusterid").unwrap(), "Kubernetes");
        assert_eq!(seen[0].get("x-mesh").unwrap(), "blue");
    }
}

#[tokio::test]
async fn the_token_is_read_for_every_call() {
    let server = serve(true).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "bad\n").unwrap();
    let config = ChannelConfig { token: Token::File(file.path().into()), ..server.config("https") };
    let channel = connect(&config).unwrap();
    let request = SigningRequest::new(&id(CART)).unwrap();
    let client = CaClient::new(channel, None);
    let ask = || client.sign(&CART_ID, request.csr_pem(), Duration::from_secs(60));
    static CART_ID: std::sync::LazyLock<SpiffeId> = std::sync::LazyLock::new(|| id(CART));
    assert!(ask().await.unwrap_err().to_string().contains("token is not accepted"));
    std::fs::write(file.path(), "good\n").unwrap();
    ask().await.unwrap();
    std::fs::remove_file(file.path()).unwrap();
    let error = ask().await.unwrap_err().to_string();
    assert!(error.contains("our own token cannot be used"), "{error}");
}

#[tokio::test]
async fn roots_are_read_for_every_connection() {
    let server = serve(true).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), serve(true).await.root).unwrap();
    let config = ChannelConfig { roots: ServerRoots::File(file.path().into()), ..server.config("https") };
    let client = CaClient::new(connect(&config).unwrap(), None);
    let request = SigningRequest::new(&id(CART)).unwrap();
    let cart = id(CART);
    let ask = || client.sign(&cart, request.csr_pem(), Duration::from_secs(60));
    let error = ask().await.unwrap_err().to_string();
    assert!(error.contains("cannot be reached") && error.contains("invalid peer certificate"), "{error}");
    std::fs::write(file.path(), &server.root).unwrap();
    ask().await.unwrap();
}

#[tokio::test]
async fn the_server_must_have_the_name() {
    let server = serve(true).await;
    let config = ChannelConfig { server_name: Some("evil.example".into()), ..server.config("https") };
    let error = ask(&config).await.unwrap_err();
    assert!(error.contains("evil.example"), "{error}");
    // Without another name it is the host of the address.
    let config = ChannelConfig { server_name: None, ..server.config("https") };
    let error = ask(&config).await.unwrap_err();
    assert!(error.contains("as 127.0.0.1"), "{error}");
}

#[tokio::test]
async fn bad_settings_are_refused() {
    let good = Server { port: 1, root: String::new(), seen: Arc::default() }.config("https");
    let refused = |change: &dyn Fn(&mut ChannelConfig)| {
        let mut config = good.clone();
        change(&mut config);
        connect(&config).err().unwrap().to_string()
    };
    assert!(refused(&|c| c.address = "/path".parse().unwrap()).contains("must be"));
    assert!(refused(&|c| c.address = "ftp://host:1".parse().unwrap()).contains("must be"));
    assert!(refused(&|c| c.server_name = Some("a b".into())).contains("server name"));
    assert!(refused(&|c| c.headers = vec![("a b".into(), "v".into())]).contains("header"));
    assert!(refused(&|c| c.headers = vec![("a".into(), "v\n".into())]).contains("header"));
    assert!(!format!("{good:?}").contains("good"), "tokens are not printed");
}

#[test]
fn roots_as_operators_write_them() {
    assert_eq!(ServerRoots::parse("SYSTEM"), ServerRoots::System);
    assert_eq!(ServerRoots::parse("./a.pem"), ServerRoots::File("./a.pem".into()));
    let pem = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----";
    assert_eq!(ServerRoots::parse(pem), ServerRoots::Pem(pem.into()));
}

/// Whoever answers at the control plane's address may show what he likes.
#[test]
fn an_impostor_is_not_given_much_to_show() {
    let (shown, _) = maze("spiffe://td/ns/istio-system/sa/istiod", "name", 60);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(TestCa::new().root_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = Arc::new(roots);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider).build().unwrap();
    let verifier = Bounded { roots, verifier };
    let name = ServerName::try_from(NAME).unwrap();
    let error = verifier.verify_server_cert(&shown[0], &shown[1..], &name, &[], UnixTime::now()).unwrap_err();
    assert!(matches!(PeerRefused::find(&error), Some(PeerRefused::TooMuch(_))), "{error}");
}
