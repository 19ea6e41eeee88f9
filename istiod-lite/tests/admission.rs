//! The validating webhook over HTTPS: what is no review, too long, or slow, does no harm.
//!
//! Seen red: with reviews of 16 MiB and handshakes of ten minutes; with 200 for what is no review.

use std::sync::Arc;
use std::time::Duration;

use istiod_lite::admission::metrics::AdmissionMetrics;
use istiod_lite::admission::serve::{Reviews, serve};
use istiod_lite::ca::material::Material;
use istiod_lite::serve::ServerCertificate;
use istiod_lite::translate::Mesh;
use mesh_runtime::drain;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

const NAME: &str = "istiod.istio-system.svc";

struct Webhook {
    address: std::net::SocketAddr,
    client: Arc<ClientConfig>,
    drain: Option<drain::Trigger>,
}

impl Webhook {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let material = Arc::new(Material::kept_in(directory.path(), "cluster.local").unwrap());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(material.roots().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        // As an API server offers.
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];

        let signs = watch::Sender::new(material);
        let certificate = ServerCertificate::new(signs.subscribe(), vec![NAME.to_owned()]).unwrap();
        let reviews = Reviews::new(Mesh::default(), watch::Sender::new(None).subscribe(), AdmissionMetrics::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, drain) = drain::new();
        tokio::spawn(serve(listener, certificate.tls(b"http/1.1").unwrap(), reviews.routes(), drain));
        Self { address, client: Arc::new(client), drain: Some(trigger) }
    }

    /// Asks as an API server does. Gives the code and the body of the answer; the connection ends with it.
    async fn ask(&self, head: &str, body: &[u8]) -> (u16, String) {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let mut stream = TlsConnector::from(self.client.clone()).connect(name, tcp).await.unwrap();
        stream.write_all(format!("{head}\r\nHost: {NAME}\r\n\r\n").as_bytes()).await.unwrap();
        // It may have been answered before it is all there.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn post(&self, body: &[u8]) -> (u16, String) {
        self.ask(&format!("POST /validate?timeout=5s HTTP/1.1\r\nContent-Length: {}", body.len()), body).await
    }
}

fn review(kind: &str, spec: &Value) -> Vec<u8> {
    let object = json!({"metadata": {"name": "a", "namespace": "shop"}, "spec": spec});
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u1", "operation": "CREATE", "object": object, "oldObject": null,
            "kind": {"group": "security.istio.io", "version": "v1", "kind": kind},
        },
    })
    .to_string()
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_are_answered_and_nothing_else() {
    let webhook = Webhook::start().await;
    let response = |(code, body): (u16, String)| {
        assert_eq!(code, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["response"].clone()
    };
    let good = response(webhook.post(&review("PeerAuthentication", &json!({"mtls": {"mode": "STRICT"}}))).await);
    assert_eq!(good, json!({"uid": "u1", "allowed": true}));
    let wrong = response(webhook.post(&review("PeerAuthentication", &json!({"mtls": {"mode": "STRICTLY"}}))).await);
    assert_eq!(wrong["allowed"], false);
    let why = wrong["status"]["message"].as_str().unwrap();
    assert!(why.starts_with("spec.mtls.mode: ") && why.contains("STRICT"), "{why}");

    for (body, code) in [("", 400), ("{", 400), ("[]", 400), (r#"{"apiVersion": "v1", "kind": "Pod"}"#, 400)] {
        let (said, why) = webhook.post(body.as_bytes()).await;
        assert_eq!(said, code, "{body}: {why}");
        assert!(why.contains("AdmissionReview"), "{why}");
    }
    assert_eq!(webhook.ask("GET /validate HTTP/1.1", b"").await.0, 405);
    assert_eq!(webhook.ask("POST /inject HTTP/1.1\r\nContent-Length: 0", b"").await.0, 404);
    // As long as an object may be, and longer than that: the second is refused before anything of it is read.
    let long = review("PeerAuthentication", &json!({"selector": {"matchLabels": {"a": "x".repeat(3 << 20)}}}));
    assert_eq!(response(webhook.post(&long).await)["allowed"], true);
    assert_eq!(webhook.ask(&format!("POST /validate HTTP/1.1\r\nContent-Length: {}", 7 << 20), b"").await.0, 413);
}

/// Whoever holds connections without a word leaves room, and is let go.
#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_keeps_nobody_out() {
    let mut webhook = Webhook::start().await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(webhook.address).await.unwrap());
    }
    let body = review("PeerAuthentication", &json!({}));
    assert_eq!(webhook.post(&body).await.0, 200);
    for mut connection in silent {
        // Ends well before this does.
        let ended = tokio::time::timeout(Duration::from_secs(60), connection.read(&mut [0; 16])).await;
        assert!(!matches!(ended, Err(_) | Ok(Ok(1..))), "{ended:?}");
    }
    // In a drain it still answers, for those who have not heard of it.
    let draining = tokio::spawn(webhook.drain.take().unwrap().drain(Duration::from_secs(60)));
    assert_eq!(webhook.post(&body).await.0, 200);
    assert_eq!(draining.await.unwrap().left, 0);
    assert!(TcpStream::connect(webhook.address).await.is_err());
}
