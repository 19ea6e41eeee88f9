//! The whole control plane in one process, asked by the clients that proxies use.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use istiod_lite::app::{Running, start};
use istiod_lite::config::Config;
use mesh_identity::ca_client::CaClient;
use mesh_identity::certificate::SigningRequest;
use mesh_identity::channel::{ChannelConfig, ControlChannel, ServerRoots, Token, connect};
use mesh_identity::store::Authority;
use mesh_model::identity::SpiffeId;
use mesh_runtime::config::Env;
use mesh_runtime::shutdown::Shutdown;
use mesh_xds::follow::{Reader, tables};
use mesh_xds::node::NodeInfo;
use rcgen::KeyPair;
use serde_json::json;

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
    issuer: KeyPair,
    running: Running,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("mesh")).unwrap();
        fs::write(at("mesh/pods.yaml"), POD).unwrap();
        let issuer = KeyPair::generate().unwrap();
        fs::write(at("issuer.pem"), issuer.public_key_pem()).unwrap();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let env: Env = [
            ("FOLDER", text(at("mesh"))),
            ("STATE_DIR", text(at("state"))),
            ("TOKEN_PUBLIC_KEY", text(at("issuer.pem"))),
            ("STATUS_FILE", text(at("status.json"))),
            ("LISTEN_ADDRESS", "127.0.0.1:0".to_owned()),
            ("HEALTH_PORT", "0".to_owned()),
            ("DEBUG_PORT", "0".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect();
        let config = Config::from_env(&env, Vec::new()).unwrap();
        let running = start(config, None, Shutdown::new()).await.unwrap();
        running.readiness.ready().await;
        Self { directory, issuer, running }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn token(&self, key: &KeyPair) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = json!({
            "iss": "ambit", "aud": ["istio-ca"], "sub": "system:serviceaccount:istio-system:ztunnel",
            "exp": now + 600, "iat": now,
            "kubernetes.io": {
                "namespace": "istio-system", "serviceaccount": {"name": "ztunnel", "uid": "s"},
                "pod": {"name": "ztunnel-n1", "uid": "zt-uid"},
            },
        });
        let encoding = jsonwebtoken::EncodingKey::from_ec_der(&key.serialize_der());
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        jsonwebtoken::encode(&header, &claims, &encoding).unwrap()
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
        self.channel(Token::Literal(self.token(&self.issuer)))
    }

    /// Replaces a file as editors do.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.at("next"), text).unwrap();
        fs::rename(self.at("next"), self.at(name)).unwrap();
    }
}

async fn sign(channel: ControlChannel, id: &str) -> Result<u64, String> {
    let id: SpiffeId = id.parse().unwrap();
    let asked = SigningRequest::new(&id).unwrap();
    let client = CaClient::new(channel, None);
    let chain = client.sign(&id, asked.csr_pem(), Duration::from_secs(5)).await.map_err(|e| e.to_string())?;
    let certificate = asked.complete(&chain).map_err(|e| e.to_string())?;
    Ok(certificate.not_after().duration_since(SystemTime::now()).unwrap_or_default().as_secs())
}

fn subscribe(world: &World, token: Token, namespace: &str) -> Reader {
    let node = NodeInfo {
        instance_ip: None,
        pod_name: "ztunnel-n1".to_owned(),
        pod_namespace: namespace.to_owned(),
        node_name: "n1".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        extra: Vec::new(),
    };
    let (writer, reader) = tables();
    tokio::spawn(mesh_xds::client::run(world.channel(token), node.to_node(), writer, None, Arc::new(())));
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
    let stranger = KeyPair::generate().unwrap();
    for token in [Token::None, Token::Literal(world.token(&stranger))] {
        let refused = sign(world.channel(token), "spiffe://cluster.local/ns/shop/sa/web").await.unwrap_err();
        assert!(refused.contains("Unauthenticated"), "{refused}");
    }
    world.running.stop().await;
}

#[tokio::test]
async fn subscribers_follow_the_folder_and_bad_yaml_changes_nothing() {
    let world = World::new().await;
    let reader = subscribe(&world, Token::Literal(world.token(&world.issuer)), "istio-system");
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
    let stranger = subscribe(&world, Token::Literal(world.token(&KeyPair::generate().unwrap())), "istio-system");
    let impostor = subscribe(&world, Token::Literal(world.token(&world.issuer)), "shop");
    let good = subscribe(&world, Token::Literal(world.token(&world.issuer)), "istio-system");
    until(&good, |t| t.workloads().next().is_some()).await;
    for reader in [stranger, impostor] {
        assert!(reader.read(|t| t.workloads().next().is_none()));
    }
    world.running.stop().await;
}
