//! A control plane that is not ours: it says what the test has it say, and does not wait for answers.

use std::sync::Mutex;

use mesh_model::resource::Kind;
use mesh_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as Wire};
use prost_types::Any;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Streaming};

use super::*;
use crate::service::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};

type Said = Result<DeltaDiscoveryResponse, Status>;

struct Script {
    heard: mpsc::Sender<DeltaDiscoveryRequest>,
    says: Mutex<Option<mpsc::Receiver<Said>>>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Script {
    type DeltaAggregatedResourcesStream = ReceiverStream<Said>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let says = self.says.lock().unwrap().take().ok_or(Status::unavailable("one stream is enough"))?;
        let (heard, mut requests) = (self.heard.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let _ = heard.send(request).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(says)))
    }
}

/// The control plane's side of the one stream.
struct Scripted {
    config: ChannelConfig,
    says: mpsc::Sender<Said>,
    heard: mpsc::Receiver<DeltaDiscoveryRequest>,
}

impl Scripted {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let ((heard, requests), (says, said)) = (mpsc::channel(16), mpsc::channel(16));
        let service = AggregatedDiscoveryServiceServer::new(Script { heard, says: Mutex::new(Some(said)) });
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().serve_with_incoming(service, incoming));
        let config = ChannelConfig {
            address,
            roots: ServerRoots::System,
            server_name: None,
            token: Token::None,
            cluster_id: "Kubernetes".into(),
            headers: Vec::new(),
        };
        Self { config, says, heard: requests }
    }

    async fn say(&self, kind: Kind, nonce: &str, resources: Vec<Wire>) {
        let response = DeltaDiscoveryResponse {
            type_url: kind.type_url().into(),
            nonce: nonce.into(),
            resources,
            ..DeltaDiscoveryResponse::default()
        };
        self.says.send(Ok(response)).await.unwrap();
    }

    /// The next request for which `is` holds; those before it are lost.
    async fn heard(&mut self, is: impl Fn(&DeltaDiscoveryRequest) -> bool) -> DeltaDiscoveryRequest {
        let hears = async {
            loop {
                let request = self.heard.recv().await.unwrap();
                if is(&request) {
                    return request;
                }
            }
        };
        tokio::time::timeout(SOON, hears).await.expect("heard in time")
    }

    /// The answer to a response.
    async fn answer(&mut self, nonce: &str) -> DeltaDiscoveryRequest {
        self.heard(|request| request.response_nonce == nonce).await
    }
}

fn wire(name: &str, value: Vec<u8>, aliases: &[&str]) -> Wire {
    Wire {
        name: name.into(),
        version: "1".into(),
        aliases: aliases.iter().map(ToString::to_string).collect(),
        resource: Some(Any { type_url: Kind::Address.type_url().into(), value }),
    }
}

#[tokio::test]
async fn one_bad_resource_is_refused_and_the_rest_is_kept() {
    let mut plane = Scripted::start().await;
    let proxy = follow(&plane.config, node(), false);
    let good = wire("a", workload("a", "10.0.0.1").encode().to_vec(), &[]);
    plane.say(Kind::Address, "1", vec![wire("bad", vec![0xff], &[]), good]).await;
    proxy.until(|t| t.workload("a").is_some()).await;
    let message = plane.answer("1").await.error_detail.unwrap().message;
    assert!(message.starts_with("bad: not a message") && !message.contains("; "), "{message}");
    assert!(!*proxy.tables.synced().borrow());
}

/// Trap 59: an acceptable answer of each kind, and an empty one is acceptable.
#[tokio::test]
async fn the_tables_are_complete_with_an_acceptable_answer_of_each_kind() {
    let mut plane = Scripted::start().await;
    let proxy = follow(&plane.config, node(), false);
    let complete = |proxy: &Proxy| *proxy.tables.synced().borrow();
    plane.say(Kind::Authorization, "policies", vec![]).await;
    assert_eq!(plane.answer("policies").await.error_detail, None);
    assert!(!complete(&proxy), "workloads may well exist");
    plane.say(Kind::Address, "bad", vec![wire("bad", vec![0xff], &[])]).await;
    assert!(plane.answer("bad").await.error_detail.is_some());
    assert!(!complete(&proxy), "what was refused does not count");
    plane.say(Kind::Address, "none", vec![]).await;
    assert_eq!(plane.answer("none").await.error_detail, None);
    assert!(complete(&proxy));
}

/// Trap 60: a control plane that has sent more than one response takes an answer to the older for nothing, with all that
/// is in it. No wish of ours is in one.
#[tokio::test]
async fn no_wish_is_lost_with_an_answer_that_is_out_of_date() {
    let mut plane = Scripted::start().await;
    let proxy = follow(&plane.config, node(), true);
    let demand = proxy.demand.clone().unwrap();
    // Both are under way before anything is answered.
    plane.say(Kind::Address, "older", vec![]).await;
    plane.say(Kind::Address, "newer", vec![]).await;
    let (key, late) = ("/10.0.0.1", "/10.0.0.2");
    let [asks, asks_late] = [key, late].map(|key| {
        let demand = demand.clone();
        tokio::spawn(async move { demand.fetch(key, SOON).await })
    });
    let mut wished = std::collections::BTreeSet::new();
    while wished.len() < 2 {
        let counts = |r: &DeltaDiscoveryRequest| ["", "newer"].contains(&r.response_nonce.as_str());
        let request = plane.heard(|r| r.type_url == Kind::Address.type_url() && counts(r)).await;
        wished.extend(request.resource_names_subscribe.into_iter().filter(|key| key != "*"));
    }
    let found = wire("a", workload("a", "10.0.0.1").encode().to_vec(), &[key]);
    let found_late = wire("b", workload("b", "10.0.0.2").encode().to_vec(), &[late]);
    plane.say(Kind::Address, "found", vec![found, found_late]).await;
    for asks in [asks, asks_late] {
        assert!(asks.await.unwrap().is_ok());
    }
}
