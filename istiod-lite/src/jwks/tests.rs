use std::sync::{Mutex, PoisonError};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::resources::{Key, Kind, Object};

/// Longest that a test waits.
const PATIENCE: Duration = Duration::from_secs(20);
const ONE: &str = r#"{"keys":[{"kid":"1","kty":"RSA"}]}"#;
const TWO: &str = r#"{"keys":[{"kid":"2","kty":"RSA"}]}"#;

/// What is answered next, and what was asked.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<(String, Vec<String>)>>);

impl Answers {
    fn set(&self, answer: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = answer.into();
    }

    fn take(&self, asked: String) -> String {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.push(asked);
        state.0.clone()
    }

    fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A server on loopback, and where it is. It keeps connections open: whoever asks has to know where an answer ends.
async fn server() -> (String, Answers) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, answers) = (listener.local_addr().unwrap(), Answers::default());
    let answering = answers.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answers = answering.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|n| n > 0) {}
                let answer = answers.take(String::from_utf8_lossy(&head).into_owned());
                // The other end may have gone already.
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.read(&mut [0]).await;
            });
        }
    });
    (format!("http://{at}"), answers)
}

fn loopback() -> Allowed {
    Allowed { excepted: vec!["127.0.0.0/8".parse().unwrap()], ..Allowed::default() }
}

fn uri(text: &str) -> KeySource {
    KeySource::Uri(text.into())
}

#[tokio::test]
async fn what_is_answered_is_a_key_set_or_why_it_is_none() {
    let (at, answers) = server().await;
    let fetcher = Fetcher::new(loopback(), None);
    let long = format!(r#"{{"keys": [], "more": "{}"}}"#, "x".repeat(70_000));
    let chunked =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    let many = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    for (what, answer, expected) in [
        ("keys", ok(ONE), Ok(ONE)),
        (
            "keys in chunks",
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{ONE}\r\n0\r\n\r\n", ONE.len()),
            Ok(ONE),
        ),
        ("another status", "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into(), Err("404")),
        (
            "elsewhere",
            "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n".into(),
            Err("redirects are not followed"),
        ),
        ("too much, said", ok(&long), Err("more than 65536 bytes")),
        ("too much, unsaid", chunked, Err("more than 65536 bytes")),
        ("a head without end", many, Err("no answer in HTTP")),
        ("no keys", ok("<html>"), Err("no key set: it is no JSON")),
        ("cut", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".into(), Err("not there within")),
        ("nothing", String::new(), Err("not there within")),
        ("no HTTP", "hello\r\n\r\n".into(), Err("no answer in HTTP")),
    ] {
        answers.set(answer);
        let timeout = if expected == Err("not there within") { Duration::from_millis(100) } else { PATIENCE };
        let fetched = fetcher.fetch(&uri(&format!("{at}/keys?a=b")), timeout).await.map_err(|error| error.to_string());
        match (&fetched, expected) {
            (Ok(keys), Ok(expected)) => assert_eq!(keys, expected, "{what}"),
            (Err(why), Err(expected)) => assert!(why.contains(expected), "{what}: {why}"),
            _ => panic!("{what}: {fetched:?}"),
        }
    }
    let host = at.trim_start_matches("http://");
    let asked = answers.asked();
    assert!(asked[0].starts_with("GET /keys?a=b HTTP/1.1\r\n"), "{asked:?}");
    assert!(asked[0].contains(&format!("host: {host}\r\n")), "{asked:?}");
}

#[tokio::test]
async fn an_issuer_is_asked_where_its_keys_are() {
    let (keys, answers) = server().await;
    answers.set(ok(ONE));
    let (issuer, configuration) = server().await;
    let of = |issuer: &str, keys: &str| ok(&json!({"issuer": issuer, "jwks_uri": keys}).to_string());
    let fetcher = Fetcher::new(loopback(), None);
    let fetch = async || {
        let source = KeySource::Issuer(issuer.as_str().into());
        fetcher.fetch(&source, PATIENCE).await.map_err(|error| error.to_string())
    };
    configuration.set(of(&issuer, &keys));
    assert_eq!(fetch().await.as_deref(), Ok(ONE));
    assert!(configuration.asked()[0].starts_with("GET /.well-known/openid-configuration "));
    // What it says is judged like what a user says.
    configuration.set(of(&issuer, "http://169.254.169.254/latest"));
    assert!(fetch().await.unwrap_err().contains("link-local"));
    configuration.set(of("http://other", &keys));
    assert!(fetch().await.unwrap_err().contains("not of this issuer"));
}

#[tokio::test]
async fn what_is_not_to_be_asked_is_not_dialled() {
    let (at, answers) = server().await;
    answers.set(ok(ONE));
    let port = at.rsplit(':').next().unwrap();
    let fetcher = Fetcher::new(Allowed::default(), None);
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let why = fetcher.fetch(&uri(&format!("http://{host}:{port}/")), PATIENCE).await.unwrap_err().to_string();
        assert!(why.contains("loopback"), "{host}: {why}");
    }
    assert!(answers.asked().is_empty());
}

#[tokio::test]
async fn whoever_is_asked_by_https_proves_to_be_it() {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![key.cert.der().clone()], private).unwrap();
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = tls.accept(tcp).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|n| n > 0) {}
            let _ = stream.write_all(ok(ONE).as_bytes()).await;
            let _ = stream.read(&mut [0]).await;
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root.pem");
    std::fs::write(&root, key.cert.pem()).unwrap();
    let trusting = Fetcher::new(loopback(), Some(root));
    let source = uri(&format!("https://localhost:{port}/keys"));
    assert_eq!(trusting.fetch(&source, PATIENCE).await.unwrap(), ONE);
    let by_address = trusting.fetch(&uri(&format!("https://127.0.0.1:{port}/keys")), PATIENCE).await.unwrap_err();
    assert!(matches!(by_address, FetchError::Tls(..)), "{by_address}");
    // With the roots of this machine, if it has any.
    let stranger = Fetcher::new(loopback(), None).fetch(&source, PATIENCE).await.unwrap_err();
    assert!(matches!(stranger, FetchError::Tls(..) | FetchError::Roots(..)), "{stranger}");
    let missing =
        Fetcher::new(loopback(), Some("/nowhere/root.pem".into())).fetch(&source, PATIENCE).await.unwrap_err();
    assert!(missing.to_string().contains("/nowhere/root.pem"), "{missing}");
}

/// A source that says what it is told to.
struct Told(mpsc::UnboundedReceiver<Batch>, Arc<Mutex<usize>>);

impl Source for Told {
    async fn next(&mut self) -> Option<Batch> {
        let batch = self.0.recv().await;
        // A source that cannot be dropped while it looks.
        tokio::task::yield_now().await;
        batch
    }

    async fn published(&mut self) -> Option<Findings> {
        *self.1.lock().unwrap() += 1;
        None
    }
}

fn object(name: &str, rule: serde_json::Value) -> Change {
    let target = json!([{"kind": "Service", "group": "", "name": "web"}]);
    let spec = json!({"targetRefs": target, "jwtRules": [rule]});
    let value = json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec});
    Change::apply(Object::from_value(Kind::RequestAuthentication, &value).unwrap())
}

fn told(changes: Vec<Change>) -> Batch {
    Batch { changes, findings: None }
}

async fn next(source: &mut WithKeys<Told>) -> Vec<Change> {
    let batch = timeout(PATIENCE, source.next()).await.expect("something to say");
    source.published().await;
    batch.expect("it goes on").changes
}

fn keys(source: &KeySource, keys: &str) -> Change {
    Change::Keys(source.clone(), Some(Arc::new(Fetched { keys: Some(keys.into()), trouble: None })))
}

#[tokio::test]
async fn keys_come_with_the_first_objects_and_are_followed() {
    let (at, answers) = server().await;
    let (say, heard) = mpsc::unbounded_channel();
    let published = Arc::new(Mutex::new(0));
    let settings = Settings { refresh: Duration::from_millis(10), allowed: loopback(), ..Settings::default() };
    let metrics = JwksMetrics::default();
    let mut source = WithKeys::new(Told(heard, published.clone()), &settings, metrics.clone());
    let from = uri(&format!("{at}/"));
    answers.set(ok(ONE));
    let first = object("a", json!({"issuer": "i", "jwksUri": format!("{at}/")}));
    say.send(told(vec![first.clone()])).unwrap();
    assert_eq!(next(&mut source).await, [first.clone(), keys(&from, ONE)], "whoever publishes the first has the keys");
    // Rotation. The same keys again are no news.
    answers.set(ok(TWO));
    assert_eq!(next(&mut source).await, [keys(&from, TWO)]);
    answers.set("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    let trouble =
        Fetched { keys: Some(TWO.into()), trouble: Some(format!("{at}/ answers 503 Service Unavailable").into()) };
    assert_eq!(
        next(&mut source).await,
        [Change::Keys(from.clone(), Some(Arc::new(trouble)))],
        "the last good ones stay"
    );
    answers.set(ok(TWO));
    assert_eq!(next(&mut source).await, [keys(&from, TWO)]);
    // Others are asked for by a second object, and then these no more.
    let (other, others) = server().await;
    others.set(ok(ONE));
    let second = object("b", json!({"issuer": "i", "jwksUri": format!("{other}/")}));
    say.send(told(vec![second.clone()])).unwrap();
    assert_eq!(next(&mut source).await, [second], "it waits for no fetch");
    assert_eq!(next(&mut source).await, [keys(&uri(&format!("{other}/")), ONE)]);
    let gone = Change::Delete(Key::new(Kind::RequestAuthentication, Some("n"), "a"));
    say.send(told(vec![gone.clone()])).unwrap();
    assert_eq!(next(&mut source).await, [gone, Change::Keys(from, None)]);
    assert_eq!(*published.lock().unwrap(), 3, "it hears of its own batches, and of no others");
    assert!(metrics.succeeded.get() >= 4 && metrics.failed.get() >= 1);
    drop(say);
    assert!(timeout(PATIENCE, source.next()).await.expect("an end").is_none());
}

/// On a clock of its own: nobody answers, and all waiting is for that clock.
#[tokio::test(start_paused = true)]
async fn the_first_objects_do_not_wait_for_ever() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("http://{}/", silent.local_addr().unwrap());
    let (say, heard) = mpsc::unbounded_channel();
    let settings = Settings { allowed: loopback(), ..Settings::default() };
    let mut source = WithKeys::new(Told(heard, Arc::default()), &settings, JwksMetrics::default());
    let slow = object("a", json!({"issuer": "i", "jwksUri": at, "timeout": "15s"}));
    let never = object("b", json!({"issuer": "someone@example.com"}));
    say.send(told(vec![slow.clone(), never.clone()])).unwrap();
    let begin = Instant::now();
    let changes = next(&mut source).await;
    assert_eq!((begin.elapsed().as_secs(), &changes[..2]), (FIRST.as_secs(), &[slow, never][..]));
    let [_, _, Change::Keys(_, Some(fetched))] = &changes[..] else { panic!("{changes:?}") };
    assert!(fetched.keys.is_none() && fetched.trouble.as_ref().is_some_and(|why| why.contains("write jwksUri")));
    let trouble = Fetched { keys: None, trouble: Some("not there within 15s".into()) };
    assert_eq!(next(&mut source).await, [Change::Keys(uri(&at), Some(Arc::new(trouble)))]);
    assert_eq!(begin.elapsed().as_secs(), 15);
}
