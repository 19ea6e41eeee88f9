//! What may be sent before it is known who sends it, over real sockets, in both directions.

mod theirs;

use std::error::Error;
use std::io;
use std::sync::Arc;

use mesh_hbone::client::{Client, OpenError};
use mesh_hbone::server::{AcceptError, Connection};
use mesh_hbone::{MAX_HANDSHAKE_BYTES, MAX_HELLO_BYTES, Settings};
use mesh_identity::shown::{self, TooMuch};
use mesh_identity::tls::{Credentials, PeerRefused, dial_name};
use mesh_testkit::ca::TestCa;
use mesh_testkit::hbone::{id, on_one_thread};
use mesh_testkit::maze::maze;
use mesh_testkit::tcp;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, ClientConfig, ServerConfig};
use theirs::{TLS12, TLS13, Versions, their_client, their_client_offering, their_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What our server says of a caller that does `this`.
async fn our_server_says<T: 'static>(
    ours: &Credentials,
    this: impl AsyncFnOnce(tokio::net::TcpStream) -> T + 'static,
) -> (AcceptError, T) {
    let (dialled, accepted) = tcp::pair().await;
    let caller = spawn_local(async move { this(dialled).await });
    let said = Connection::accept(accepted, ours.server_config(), &Settings::default()).await;
    let Some(error) = said.err() else { panic!("let in") };
    (error, caller.await.unwrap())
}

/// What our client says of a server that does `this`.
async fn our_client_says<T: 'static>(
    ours: &Credentials,
    this: impl AsyncFnOnce(tokio::net::TcpStream) -> T + 'static,
) -> (io::Error, T) {
    let (dialled, accepted) = tcp::pair().await;
    let server = spawn_local(async move { this(accepted).await });
    let expected = [id("server")];
    let opened = Client::handshake(dialled, ours.client_config(&expected), &expected, &Settings::default()).await;
    match opened.err() {
        Some(OpenError::Tls { error, .. }) => (Arc::into_inner(error).unwrap(), server.await.unwrap()),
        other => panic!("{other:?}"),
    }
}

fn tls(error: AcceptError) -> io::Error {
    match error {
        AcceptError::Tls(error) => error,
        other => panic!("{other}"),
    }
}

fn refused(error: &io::Error) -> Option<&PeerRefused> {
    PeerRefused::find(error.get_ref()?.downcast_ref()?)
}

/// What a caller with this configuration is told in the end.
async fn dial_as(tcp: tokio::net::TcpStream, config: Arc<ClientConfig>) -> Result<AlertDescription, String> {
    match TlsConnector::from(config).connect(dial_name(), tcp).await {
        Ok(mut tls) => alert(tls.read_u8().await.map(drop)),
        Err(error) => alert(Err(error)),
    }
}

/// What a server with this configuration is told in the end.
async fn answer_as(tcp: tokio::net::TcpStream, config: Arc<ServerConfig>) -> Result<AlertDescription, String> {
    match TlsAcceptor::from(config).accept(tcp).await {
        Ok(mut tls) => alert(tls.read_u8().await.map(drop)),
        Err(error) => alert(Err(error)),
    }
}

fn alert(heard: io::Result<()>) -> Result<AlertDescription, String> {
    let Err(error) = heard else { return Err("not an end".into()) };
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => Ok(*alert),
        _ => Err(format!("{error:?}")),
    }
}

/// Shows `certificates` in place of its own.
fn showing(
    certificates: Vec<CertificateDer<'static>>,
    key: rustls::pki_types::PrivateKeyDer<'static>,
) -> Arc<SingleCertAndKey> {
    let provider = aws_lc_rs::default_provider();
    Arc::new(SingleCertAndKey::from(CertifiedKey::from_der(certificates, key, &provider).unwrap()))
}

/// One such handshake held a thread for 2.7 s: 60 certificates that could all have signed each other.
#[tokio::test]
async fn certificates_that_could_all_have_signed_each_other_are_not_looked_at() {
    on_one_thread(async {
        let ca = TestCa::new();
        let (client, server) = (ca.credentials(&id("client")), ca.credentials(&id("server")));
        for (count, expected) in [(60, TooMuch::Certificates(60)), (8, TooMuch::Ways)] {
            for versions in [TLS13, TLS12] {
                let ours = both_versions(&ca, "server");
                let (shown, key) = maze(&id("client").to_string(), "testkit", count);
                let mut config = (*their_client(&client, &versions)).clone();
                config.client_auth_cert_resolver = showing(shown, key);
                let (error, _) = our_server_says(&ours, async move |tcp| dial_as(tcp, Arc::new(config)).await).await;
                let error = tls(error);
                assert_eq!(refused(&error), Some(&PeerRefused::TooMuch(expected)), "{error}");

                let ours = both_versions(&ca, "client");
                let (shown, key) = maze(&id("server").to_string(), "testkit", count);
                let mut config = (*their_server(&server, &versions)).clone();
                config.cert_resolver = showing(shown, key);
                let (error, _) = our_client_says(&ours, async move |tcp| answer_as(tcp, Arc::new(config)).await).await;
                assert_eq!(refused(&error), Some(&PeerRefused::TooMuch(expected)), "{error}");
            }
        }
        // Few, and large: a genuine leaf with ballast.
        let own = client.certificate();
        let ballast = CertificateDer::from(vec![0; shown::MAX_BYTES]);
        let heavy = CertifiedKey::new(vec![own.chain()[0].clone(), ballast], own.certified_key().key.clone());
        let mut config = (*their_client(&client, &TLS13)).clone();
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(heavy));
        let (error, _) = our_server_says(&server, async move |tcp| dial_as(tcp, Arc::new(config)).await).await;
        let error = tls(error);
        assert!(matches!(refused(&error), Some(PeerRefused::TooMuch(TooMuch::Bytes(_)))), "{error}");
    })
    .await;
}

fn both_versions(ca: &TestCa, name: &str) -> Arc<Credentials> {
    let options = mesh_identity::tls::TlsOptions { tls12: true, ..Default::default() };
    ca.credentials_with(&id(name), &options)
}

/// The beginning of a hello that says it has `length` bytes, in records of `portion` bytes.
fn hello(length: u32, sent: usize, portion: usize) -> Vec<u8> {
    let mut message = vec![1];
    message.extend_from_slice(&length.to_be_bytes()[1..]);
    message.resize(sent, 0);
    let record = |part: &[u8]| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat();
    message.chunks(portion).flat_map(record).collect()
}

/// Sends `bytes` and waits for the end; how many the peer took is the kernel's business.
async fn say_and_wait(mut tcp: tokio::net::TcpStream, bytes: Vec<u8>) -> io::Result<usize> {
    tcp.write_all(&bytes).await?;
    tcp.read(&mut [0; 64]).await
}

/// 62 KB of a hello that does not end were kept for ten seconds each.
#[tokio::test]
async fn a_hello_has_a_size() {
    on_one_thread(async {
        let ca = TestCa::new();
        let ours = ca.credentials(&id("server"));
        for (what, bytes) in [
            ("62 KB", hello(65_000, 62_000, 16_000)),
            ("just too long", hello(65_000, MAX_HELLO_BYTES, 16_000)),
            ("one byte a record", hello(65_000, MAX_HELLO_BYTES / 6 + 1, 1)),
            ("records without bytes", [22, 3, 1, 0, 0].repeat(20_000)),
        ] {
            let (error, _) = our_server_says(&ours, async move |tcp| say_and_wait(tcp, bytes).await).await;
            let error = tls(error);
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}: {error}");
        }
        // One that is as long as it may be, and then ends, is heard out: it waits for more.
        let most = hello(65_000, MAX_HELLO_BYTES - 100, 16_000);
        let (error, _) = our_server_says(&ours, async move |mut tcp| {
            tcp.write_all(&most).await.unwrap();
            tcp.shutdown().await.unwrap();
        })
        .await;
        assert_eq!(tls(error).kind(), io::ErrorKind::UnexpectedEof);
    })
    .await;
}

/// And so has the whole of what a stranger may send, as caller and as server.
#[tokio::test]
async fn a_handshake_has_a_size() {
    on_one_thread(async {
        let ca = TestCa::new();
        let (client, server) = (ca.credentials(&id("client")), ca.credentials(&id("server")));
        let most = || {
            let own = client.certificate();
            let ballast = CertificateDer::from(vec![0; MAX_HANDSHAKE_BYTES]);
            let heavy = CertifiedKey::new(vec![own.chain()[0].clone(), ballast], own.certified_key().key.clone());
            Arc::new(SingleCertAndKey::from(heavy))
        };
        let too_long = |error: io::Error| {
            let source = error.source().map(ToString::to_string);
            assert!(error.to_string().contains("more than 49152 bytes"), "{error}, {source:?}");
        };
        let mut config = (*their_client(&client, &TLS13)).clone();
        config.client_auth_cert_resolver = most();
        too_long(tls(our_server_says(&server, async move |tcp| dial_as(tcp, Arc::new(config)).await).await.0));
        let mut config = (*their_server(&server, &TLS13)).clone();
        config.cert_resolver = most();
        too_long(our_client_says(&client, async move |tcp| answer_as(tcp, Arc::new(config)).await).await.0);
    })
    .await;
}

/// Contract 4.1: `h2` is offered and expected on both sides. Who offers nothing is told the same as who offers
/// something else (RFC 7301, section 3.2).
#[tokio::test]
async fn who_does_not_agree_to_http2_is_refused() {
    on_one_thread(async {
        let ca = TestCa::new();
        let (client, server) = (both_versions(&ca, "client"), both_versions(&ca, "server"));
        let none: &[&[u8]] = &[];
        for offered in [none, &[b"http/1.1"], &[b"h2c", b"istio"]] {
            let config = their_client_offering(&client, offered);
            let (error, _) = our_server_says(&server, async move |tcp| dial_as(tcp, config).await).await;
            let error = tls(error);
            assert!(error.kind() == io::ErrorKind::InvalidData, "{offered:?}: {error}");
        }
        let one_of_several = their_client_offering(&client, &[b"istio", b"h2"]);
        let (dialled, accepted) = tcp::pair().await;
        spawn_local(async move { dial_as(dialled, one_of_several).await });
        let said = Connection::accept(accepted, server.server_config(), &Settings::default()).await;
        assert!(!matches!(said, Err(AcceptError::Tls(_))), "TLS is done");

        let versions: [Versions; 2] = [TLS13, TLS12];
        for versions in versions {
            let mut config = (*their_client(&client, &versions)).clone();
            config.alpn_protocols.clear();
            let (error, alert) = our_server_says(&server, async move |tcp| dial_as(tcp, Arc::new(config)).await).await;
            let error = tls(error);
            assert!(error.to_string().contains("HTTP/2"), "{error}");
            assert_eq!(alert, Ok(AlertDescription::NoApplicationProtocol), "{versions:?}");

            let mut config = (*their_server(&server, &versions)).clone();
            config.alpn_protocols.clear();
            let (error, alert) =
                our_client_says(&client, async move |tcp| answer_as(tcp, Arc::new(config)).await).await;
            assert!(error.to_string().contains("HTTP/2"), "{error}");
            assert_eq!(alert, Ok(AlertDescription::NoApplicationProtocol), "{versions:?}");
        }
    })
    .await;
}
