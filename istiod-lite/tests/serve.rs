//! The whole control plane in one process, asked by the clients that proxies use.

#[path = "serve/rotation.rs"]
mod rotation;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use istiod_lite::app::{Running, start};
use istiod_lite::config::Config;
use mesh_control::ca_client::CaClient;
use mesh_control::channel::{ChannelConfig, ControlChannel, ServerRoots, Token, connect};
use mesh_identity::certificate::SigningRequest;
use mesh_identity::store::Authority;
use mesh_model::identity::SpiffeId;
use mesh_runtime::config::Env;
use mesh_runtime::shutdown::Shutdown;
use mesh_testkit::control_plane::{TokenIssuer, settings};
use mesh_xds::follow::{Reader, tables};
use mesh_xds::node::NodeInfo;
use mesh_xds::observe::{End, Observer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, uid: web-uid, labels: {app: web}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n1, serviceAccountName: web, containers: [{name: main, image: x}]}
status: {phase: Running, podIPs: [{ip: 10.244.1.2}], conditions: [{type: Ready, status: \"True\"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: ztunnel-n1, namespace: istio-system, uid: zt-uid, labels: {app: ztunnel}}
spec: {nodeName: n1, serviceAccountName: ztunnel, containers: [{name: main, image: x}]}
";
const DENY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec: {action: DENY, rules: [{from: [{source: {namespaces: [bank]}}]}]}
";

struct World {
    directory: tempfile::TempDir,
    issuer: TokenIssuer,
    running: Running,
}

impl World {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With more settings.
    async fn with(more: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("mesh")).unwrap();
        fs::write(at("mesh/pods.yaml"), POD).unwrap();
        let issuer = TokenIssuer::new();
        fs::write(at("issuer.pem"), issuer.public_key_pem()).unwrap();
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let status = ("STATUS_FILE".to_owned(), at("status.json").to_str().unwrap().to_owned());
        let env: Env =
            settings(&at("mesh"), &at("state"), &at("issuer.pem")).into_iter().chain([status]).chain(more).collect();
        let config = Config::from_env(&env, Vec::new()).unwrap();
        let running = start(config, None, Shutdown::new()).await.unwrap();
        running.readiness.ready().await;
        Self { directory, issuer, running }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn token(&self) -> Token {
        token_of(&self.issuer)
    }

    /// For a service account of the namespace `shop` and a pod (name and uid).
    fn token_in_shop(&self, account: &str, pod: (&str, &str)) -> Token {
        Token::Literal(self.issuer.token(("shop", account), pod, 60))
    }

    fn channel(&self, token: Token) -> ControlChannel {
        connect(&ChannelConfig {
            address: format!("https://{}", self.running.address).parse().unwrap(),
            roots: ServerRoots::File(self.at("state/root-cert.pem")),
            server_name: Some("istiod.istio-system.svc".to_owned()),
            token,
            cluster_id: "Kubernetes".to_owned(),
            headers: Vec::new(),
        })
        .unwrap()
    }

    fn trusted(&self) -> ControlChannel {
        self.channel(self.token())
    }

    /// Replaces a file as editors do.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.at("next"), text).unwrap();
        fs::rename(self.at("next"), self.at(name)).unwrap();
    }
}

/// The ztunnel's.
fn token_of(issuer: &TokenIssuer) -> Token {
    Token::Literal(issuer.token(("istio-system", "ztunnel"), ("ztunnel-n1", "zt-uid"), 600))
}

async fn sign(channel: ControlChannel, id: &str) -> Result<u64, String> {
    sign_by(CaClient::new(channel, None), id, Duration::from_secs(5)).await
}

/// The seconds that the certificate is good for.
async fn sign_by(client: CaClient, id: &str, lifetime: Duration) -> Result<u64, String> {
    let id: SpiffeId = id.parse().unwrap();
    let asked = SigningRequest::new(&id).unwrap();
    let chain = client.sign(&id, asked.csr_pem(), lifetime).await.map_err(|e| e.to_string())?;
    let certificate = asked.complete(&chain).map_err(|e| e.to_string())?;
    Ok(certificate.not_after().duration_since(SystemTime::now()).unwrap_or_default().as_secs())
}

fn subscribe(world: &World, token: Token, namespace: &str) -> Reader {
    subscribe_observed(world, token, namespace, Arc::new(()))
}

fn subscribe_observed(world: &World, token: Token, namespace: &str, observer: Arc<dyn Observer>) -> Reader {
    let node = NodeInfo {
        kind: mesh_xds::node::ProxyType::Ztunnel,
        labels: Vec::new(),
        instance_ip: None,
        pod_name: "ztunnel-n1".to_owned(),
        pod_namespace: namespace.to_owned(),
        node_name: "n1".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        extra: Vec::new(),
    };
    let (writer, reader) = tables();
    let kinds = &mesh_model::resource::Kind::ALL;
    tokio::spawn(mesh_xds::client::run(world.channel(token), node.to_node(), kinds, writer, None, observer));
    reader
}

/// Waits for the tables to say so. Bounded, for the test that fails.
async fn until(reader: &Reader, holds: impl Fn(&mesh_model::tables::Tables) -> bool) {
    let mut changed = reader.changed();
    let wait = async {
        while !reader.read(&holds) {
            changed.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the tables never said so");
}

#[tokio::test]
async fn certificates_for_what_runs_on_the_callers_node_and_for_nobody_else() {
    let world = World::new().await;
    let seconds = sign(world.trusted(), "spiffe://cluster.local/ns/shop/sa/web").await.unwrap();
    assert!((2..=5).contains(&seconds), "lifetimes go down to seconds: {seconds}");
    let elsewhere = sign(world.trusted(), "spiffe://cluster.local/ns/bank/sa/vault").await.unwrap_err();
    assert!(elsewhere.contains("request authenticate failure"), "opaque: {elsewhere}");
    let stranger = TokenIssuer::new();
    for token in [Token::None, token_of(&stranger)] {
        let refused = sign(world.channel(token), "spiffe://cluster.local/ns/shop/sa/web").await.unwrap_err();
        assert!(refused.contains("Unauthenticated"), "{refused}");
    }
    world.running.stop().await;
}

#[tokio::test]
async fn subscribers_follow_the_folder_and_bad_yaml_changes_nothing() {
    let world = World::new().await;
    let reader = subscribe(&world, world.token(), "istio-system");
    until(&reader, |t| t.workload("Kubernetes//Pod/shop/web").is_some_and(|w| w.healthy)).await;
    assert!(reader.read(|t| t.policies().next().is_none()));

    world.write("mesh/policy.yaml", DENY);
    until(&reader, |t| t.policies().next().is_some_and(|p| p.rules[0].clauses.len() == 1)).await;
    // Broken: it stays. That it was read is seen by the pod that comes with it.
    let other =
        POD.split("---").next().unwrap().replace("name: web,", "name: other,").replace("10.244.1.2", "10.244.1.3");
    world.write("mesh/policy.yaml", &format!("{}---\n{other}", DENY.replace("namespaces", "namespace")));
    until(&reader, |t| t.workload("Kubernetes//Pod/shop/other").is_some()).await;
    assert!(reader.read(|t| t.policies().next().is_some_and(|p| p.rules[0].clauses.len() == 1)));
    // Mended by removal: it goes.
    world.write("mesh/policy.yaml", "# nothing\n");
    until(&reader, |t| t.policies().next().is_none() && t.workload("Kubernetes//Pod/shop/other").is_none()).await;
    assert!(world.at("status.json").exists());
    world.running.stop().await;
}

#[tokio::test]
async fn a_stranger_hears_nothing() {
    let world = World::new().await;
    let stranger = subscribe(&world, token_of(&TokenIssuer::new()), "istio-system");
    let impostor = subscribe(&world, world.token(), "shop");
    let good = subscribe(&world, world.token(), "istio-system");
    until(&good, |t| t.workloads().next().is_some()).await;
    for reader in [stranger, impostor] {
        assert!(reader.read(|t| t.workloads().next().is_none()));
    }
    world.running.stop().await;
}

/// A token outlives its pod; who holds it then is nobody any more, for certificates and for tables.
#[tokio::test]
async fn a_token_is_worth_nothing_without_its_pod() {
    let world = World::new().await;
    const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
    let month = Duration::from_secs(30 * 24 * 3600);
    let token = |account: &str, pod| world.token_in_shop(account, pod);
    let ask =
        |token: Token, id: &'static str| sign_by(CaClient::new(world.channel(token), None).for_itself(), id, month);
    let own = || token("web", ("web", "web-uid"));
    let seconds = ask(own(), WEB).await.unwrap();
    assert!((50..=60).contains(&seconds), "no longer than the token proves: {seconds}");
    let ghost = "spiffe://cluster.local/ns/shop/sa/ghost";
    for (what, token, id) in [
        ("of another uid", token("web", ("web", "older-uid")), WEB),
        ("of no pod", token("web", ("gone", "web-uid")), WEB),
        ("of no account", token("ghost", ("web", "web-uid")), ghost),
    ] {
        let refused = ask(token.clone(), id).await.unwrap_err();
        assert!(refused.contains("request authenticate failure"), "{what}: {refused}");
        let reader = subscribe(&world, token, "shop");
        let good = subscribe(&world, own(), "shop");
        until(&good, |t| t.workloads().next().is_some()).await;
        assert!(reader.read(|t| t.workloads().next().is_none()), "{what}");
    }
    let before = subscribe(&world, own(), "shop");
    until(&before, |t| t.workload("Kubernetes//Pod/shop/web").is_some()).await;
    world.write("mesh/pods.yaml", POD.split_once("---").unwrap().1);
    until(&before, |t| t.workload("Kubernetes//Pod/shop/web").is_none()).await;
    let refused = ask(own(), WEB).await.unwrap_err();
    assert!(refused.contains("request authenticate failure"), "deleted: {refused}");
    world.running.stop().await;
}

/// Says how each stream of a subscriber ended.
struct Ends(mpsc::UnboundedSender<End>);

impl Observer for Ends {
    fn message(&self, _: &str, _: u64) {}

    fn ended(&self, end: End) {
        // The test may be over.
        let _ = self.0.send(end);
    }
}

/// A stream that has begun is not asked again who it is; the next one is.
#[tokio::test]
async fn a_stream_does_not_outlive_its_pod_for_long() {
    let world = World::with(&[("KEEPALIVE_MAX_SERVER_CONNECTION_AGE", "1s")]).await;
    let (sender, mut ends) = mpsc::unbounded_channel();
    let web = world.token_in_shop("web", ("web", "web-uid"));
    let leaver = subscribe_observed(&world, web, "shop", Arc::new(Ends(sender)));
    let stays = subscribe(&world, world.token(), "istio-system");
    until(&leaver, |t| t.workload("Kubernetes//Pod/shop/web").is_some()).await;
    // While its pod is there, it comes back.
    let soon = Duration::from_secs(20);
    let ended = tokio::time::timeout(soon, ends.recv()).await.expect("its age").unwrap();
    assert_eq!(ended, End::Complete);
    world.write("mesh/pods.yaml", POD.split_once("---").unwrap().1);
    let refused = async { while ends.recv().await != Some(End::ConnectionError) {} };
    tokio::time::timeout(soon, refused).await.expect("it is refused without its pod");
    world.write("mesh/policy.yaml", DENY);
    until(&stays, |t| t.policies().next().is_some()).await;
    assert!(leaver.read(|t| t.policies().next().is_none()), "it hears nothing any more");
    world.running.stop().await;
}

/// Asks for `/metrics`.
async fn scrape(world: &World) -> String {
    let mut address = world.running.metrics[0];
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn what_happens_is_measured() {
    let world = World::new().await;
    let web = "spiffe://cluster.local/ns/shop/sa/web";
    sign(world.trusted(), web).await.unwrap();
    sign(world.trusted(), "spiffe://cluster.local/ns/bank/sa/vault").await.unwrap_err();
    sign(world.channel(token_of(&TokenIssuer::new())), web).await.unwrap_err();
    let reader = subscribe(&world, world.token(), "istio-system");
    until(&reader, |t| t.workload("Kubernetes//Pod/shop/web").is_some()).await;
    fs::write(world.at("mesh/policies.yaml"), DENY.replace("[bank]", "[bank], ipBlocks: [10.0.0.0/99]")).unwrap();
    let wanted = [
        "istio_build{component=\"pilot\",tag=\"0.1.0\"} 1",
        "pilot_info{version=\"0.1.0\"} 1",
        "citadel_server_csr_count 3",
        "citadel_server_success_cert_issuance_count 1",
        "citadel_server_authentication_failure_count 2",
        "pilot_xds{type=\"ztunnel\"} 1",
        "ambit_objects{kind=\"Pod\",state=\"serving\"} 2",
        "ambit_objects{kind=\"AuthorizationPolicy\",state=\"rejected\"} 1",
    ];
    let measured = async {
        loop {
            let text = scrape(&world).await;
            if wanted.iter().all(|line| text.lines().any(|have| have == *line)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(10), measured).await.is_err() {
        panic!("{wanted:#?} are not all in\n{}", scrape(&world).await);
    }
    world.running.stop().await;
}

const CREATE_CERTIFICATE: &str = "https://istiod/istio.v1.auth.IstioCertificateService/CreateCertificate";
const DISCOVER: &str = "https://istiod/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// A connection on which anything can be said, and the task that drives it.
async fn raw(world: &World) -> (h2::client::SendRequest<bytes::Bytes>, tokio::task::JoinHandle<()>) {
    let roots = fs::read(world.at("state/root-cert.pem")).unwrap();
    let mut store = rustls::RootCertStore::empty();
    store.add_parsable_certificates(rustls::pki_types::pem::PemObject::pem_slice_iter(&roots).map(Result::unwrap));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut tls = builder.with_root_certificates(store).with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = tokio::net::TcpStream::connect(world.running.address).await.unwrap();
    let name = "istiod.istio-system.svc".try_into().unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap();
    let (client, connection) = h2::client::handshake(tls).await.unwrap();
    (client.ready().await.unwrap(), tokio::spawn(async move { drop(connection.await) }))
}

/// The headers of a call, with this token.
fn call(to: &str, token: Option<&str>) -> http::Request<()> {
    let mut request = http::Request::post(to).header("content-type", "application/grpc");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(()).unwrap()
}

/// Strangers' requests that are never finished: each is refused by its headers, and nothing waits for the rest.
#[tokio::test]
async fn who_shows_no_token_is_refused_before_anything_is_read() {
    let world = World::new().await;
    let (mut client, connection) = raw(&world).await;
    let mut unfinished = Vec::new();
    for _ in 0..200 {
        client = tokio::time::timeout(Duration::from_secs(10), client.ready()).await.expect("places again").unwrap();
        let (answer, mut body) = client.send_request(call(CREATE_CERTIFICATE, None), false).unwrap();
        // It says that there will be 60,000 bytes, and sends some.
        let begun = [&[0][..], &60_000_u32.to_be_bytes(), &[b'x'; 10_000]].concat();
        body.send_data(begun.into(), false).unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(10), answer).await.expect("an answer").unwrap();
        assert_eq!(answer.headers()["grpc-status"], "16", "unauthenticated");
        unfinished.push(body);
    }
    assert_eq!(client.current_max_send_streams(), 64, "calls on one connection");
    drop(unfinished);
    connection.abort();
    world.running.stop().await;
}

/// Headers, bytes that nobody reads, and requests that are never finished, of one who has a good token.
#[tokio::test]
async fn what_one_caller_may_have_under_way() {
    let world = World::new().await;
    let token = world.issuer.token(("istio-system", "ztunnel"), ("ztunnel-n1", "zt-uid"), 600);
    let soon = Duration::from_secs(10);
    let headers = async |bytes: usize| {
        let (mut client, _connection) = raw(&world).await;
        let mut request = call(DISCOVER, None);
        request.headers_mut().insert("x-large", "x".repeat(bytes).parse().unwrap());
        let answer = client.send_request(request, true).unwrap().0;
        let answer = tokio::time::timeout(soon, answer).await.expect("an answer");
        answer.ok().filter(|answer| answer.status() == 200).map(|answer| answer.headers()["grpc-status"].clone())
    };
    assert_eq!(headers(20 << 10).await.unwrap(), "16", "they are read, and show no token");
    assert_eq!(headers(25 << 10).await, None, "too many");

    let (mut client, connection) = raw(&world).await;
    let mut sent_ahead = Vec::new();
    for number in 0..5 {
        let (_, mut body) = client.send_request(call(DISCOVER, Some(&token)), false).unwrap();
        body.reserve_capacity(1 << 20);
        let all = async { while number < 4 && body.capacity() < 64 << 10 && poll_capacity(&mut body).await {} };
        tokio::time::timeout(soon, all).await.expect("64 KiB of a call");
        sent_ahead.push(body);
    }
    let capacities: Vec<_> = sent_ahead.iter().map(h2::SendStream::capacity).collect();
    assert_eq!(capacities, [64 << 10, 64 << 10, 64 << 10, 64 << 10, 0], "256 KiB of a connection");
    drop((sent_ahead, client));
    connection.abort();

    let (mut client, connection) = raw(&world).await;
    let (mut answers, mut unfinished) = (tokio::task::JoinSet::new(), Vec::new());
    for _ in 0..17 {
        let (answer, body) = client.send_request(call(CREATE_CERTIFICATE, Some(&token)), false).unwrap();
        answers.spawn(answer);
        unfinished.push(body);
    }
    let refused = tokio::time::timeout(soon, answers.join_next()).await.expect("the 17th").unwrap().unwrap().unwrap();
    assert_eq!(refused.headers()["grpc-status"], "8", "resource exhausted");
    assert!(answers.try_join_next().is_none(), "the others wait for the rest");
    drop(unfinished);
    connection.abort();
    world.running.stop().await;
}

/// True while there may be more.
async fn poll_capacity(body: &mut h2::SendStream<bytes::Bytes>) -> bool {
    std::future::poll_fn(|cx| body.poll_capacity(cx)).await.is_some_and(|capacity| capacity.is_ok())
}

/// On a runtime of one thread, as everything here: what is told about a table goes to a file that nobody reads, so that
/// it never ends. Certificates do not wait for it.
#[tokio::test]
async fn a_certificate_waits_for_no_table() {
    let world = World::new().await;
    let stalled = Command::new("mkfifo").arg(world.at(".status.json.new")).status().unwrap();
    assert!(stalled.success());
    let other = POD.split("---").next().unwrap();
    let other =
        other.replace("name: web,", "name: other,").replace("serviceAccountName: web", "serviceAccountName: other");
    // Something is told of it, too: a document that is none.
    world.write("mesh/other.yaml", &format!("{}---\nkind: Pod\n", other.replace("10.244.1.2", "10.244.1.3")));
    // As soon as it is known, its table is under way.
    let known = async {
        while sign(world.trusted(), "spiffe://cluster.local/ns/shop/sa/other").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), known).await.expect("the new pod's certificate");
    for _ in 0..10 {
        let signed = sign(world.trusted(), "spiffe://cluster.local/ns/shop/sa/web");
        tokio::time::timeout(Duration::from_secs(20), signed).await.expect("an answer").unwrap();
    }
    // Lets it end.
    fs::read(world.at(".status.json.new")).unwrap();
    world.running.stop().await;
}
