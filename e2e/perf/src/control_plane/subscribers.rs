//! Many subscribers, each with a TLS connection and a stream of its own, that take in everything and keep nothing.
use super::feed::now;
use crate::cli::Subscribe;
use anyhow::{Context as _, Result, bail};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::SendStream;
use mesh_model::resource::Kind;
use mesh_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsConnector;

const METHOD: &str = "https://istiod/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// In every certificate of a control plane.
const NAME: &str = "istiod.istio-system.svc";
/// Subscribers that are told everything at one time: more would only wait for each other.
const AT_ONCE: usize = 8;
/// What comes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// The beginning of a response says what it is of.
const HEAD: usize = 1024;
/// What a resource begins with: field 2, a message.
const RESOURCE: u64 = 2 << 3 | 2;

/// What the subscribers heard since they had everything.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Heard {
    /// When the last of them had a generation of the addresses, or a later one: seconds since 1970.
    pub(crate) last: BTreeMap<u64, f64>,
    pub(crate) bytes: u64,
    pub(crate) responses: u64,
}

/// What one subscriber had, and when.
type Receipts = Vec<(u64, f64)>;

struct Shared {
    receipts: Vec<Mutex<Receipts>>,
    bytes: AtomicU64,
    responses: AtomicU64,
    ready: mpsc::UnboundedSender<()>,
    turns: Semaphore,
}

/// This process: says `ready` when all have everything, and what was heard when it is asked to end.
#[allow(clippy::print_stdout, reason = "whoever started this reads it")]
pub(crate) fn run(args: &Subscribe) -> Result<()> {
    mesh_runtime::open_files::raise();
    let tokens = std::fs::read_to_string(&args.tokens)?;
    let tokens: Vec<&str> = tokens.lines().collect();
    let tls = tls(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (ready, mut waits) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        receipts: tokens.iter().map(|_| Mutex::default()).collect(),
        bytes: AtomicU64::new(0),
        responses: AtomicU64::new(0),
        ready,
        turns: Semaphore::new(AT_ONCE),
    });
    let (failed, mut failures) = mpsc::unbounded_channel();
    for (number, token) in tokens.iter().enumerate() {
        let (token, to, tls, shared, failed) =
            ((*token).to_owned(), args.to, tls.clone(), shared.clone(), failed.clone());
        runtime.spawn(async move {
            let ended = subscriber(number, &token, to, tls, &shared).await;
            let _ = failed.send(ended.err().map_or_else(|| "a stream ended".to_owned(), |error| format!("{error:#}")));
        });
    }
    runtime.block_on(async {
        for _ in &tokens {
            tokio::select! {
                _ = waits.recv() => {}
                failure = failures.recv() => bail!("a subscriber failed: {}", failure.unwrap_or_default()),
            }
        }
        Ok(())
    })?;
    shared.bytes.store(0, Ordering::Relaxed);
    shared.responses.store(0, Ordering::Relaxed);
    println!("ready");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    if let Ok(failure) = failures.try_recv() {
        bail!("a subscriber failed: {failure}");
    }
    let receipts: Vec<Receipts> =
        shared.receipts.iter().map(|own| own.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect();
    let heard = Heard {
        last: last(&receipts),
        bytes: shared.bytes.load(Ordering::Relaxed),
        responses: shared.responses.load(Ordering::Relaxed),
    };
    println!("{}", serde_json::to_string(&heard)?);
    Ok(())
}

/// When the last of them had each generation, or a later one; none that somebody never had.
fn last(receipts: &[Receipts]) -> BTreeMap<u64, f64> {
    let mut last: BTreeMap<u64, f64> = receipts.iter().flatten().map(|(generation, _)| (*generation, 0.0)).collect();
    for own in receipts {
        let own: BTreeMap<u64, f64> = own.iter().copied().collect();
        last.retain(|generation, last| match own.range(*generation..).next() {
            Some((_, at)) => {
                *last = last.max(*at);
                true
            }
            None => false,
        });
    }
    last
}

fn tls(args: &Subscribe) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(&args.root).context("the control plane's root")? {
        roots.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn subscriber(number: usize, token: &str, to: SocketAddr, tls: TlsConnector, shared: &Shared) -> Result<()> {
    let mut turn = Some(shared.turns.acquire().await?);
    let tcp = TcpStream::connect(to).await?;
    tcp.set_nodelay(true)?;
    let stream = tls.connect(ServerName::try_from(NAME)?, tcp).await?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
    let (client, connection) = builder.handshake(stream).await?;
    tokio::spawn(connection);
    let request = http::Request::post(METHOD)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(())?;
    let (answer, mut requests) = client.ready().await?.send_request(request, false)?;
    let id = format!("ztunnel~10.0.0.1~ztunnel-{number}.istio-system~istio-system.svc.cluster.local");
    let node = Node { id, ..Node::default() };
    // As a ztunnel does: policies, then addresses.
    for (node, kind) in [Some(node), None].into_iter().zip(Kind::ISTIO) {
        let first = DeltaDiscoveryRequest { node, type_url: kind.type_url().to_owned(), ..Default::default() };
        send(&mut requests, &first)?;
    }
    let mut body = answer.await?.into_body();
    let mut reader = Reader::default();
    while let Some(data) = body.data().await {
        let mut data = data?;
        shared.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        body.flow_control().release_capacity(data.len())?;
        while let Some(response) = reader.take(&mut data)? {
            shared.responses.fetch_add(1, Ordering::Relaxed);
            let answer = DeltaDiscoveryRequest {
                type_url: response.type_url.clone(),
                response_nonce: response.nonce,
                ..Default::default()
            };
            send(&mut requests, &answer)?;
            if response.type_url == Kind::Address.type_url() {
                let generation = response.system_version_info.parse().context("a generation")?;
                let own = shared.receipts.get(number).context("a place")?;
                own.lock().unwrap_or_else(PoisonError::into_inner).push((generation, now()));
                if turn.take().is_some() {
                    let _ = shared.ready.send(());
                }
            }
        }
    }
    let trailers = body.trailers().await?;
    bail!("the control plane ended the stream: {trailers:?}")
}

fn send(requests: &mut SendStream<Bytes>, request: &DeltaDiscoveryRequest) -> Result<()> {
    let mut message = BytesMut::with_capacity(PREFIX + request.encoded_len());
    message.put_u8(0);
    message.put_u32(u32::try_from(request.encoded_len())?);
    request.encode(&mut message)?;
    Ok(requests.send_data(message.freeze(), false)?)
}

/// Reads the beginnings of responses, and passes over their resources.
#[derive(Default)]
struct Reader {
    prefix: BytesMut,
    head: BytesMut,
    /// Bytes of the message that have not come yet.
    left: usize,
}

impl Reader {
    /// Takes what came; gives a response, without its resources, when that was its end.
    fn take(&mut self, data: &mut Bytes) -> Result<Option<DeltaDiscoveryResponse>> {
        while !data.is_empty() {
            if self.prefix.len() < PREFIX {
                let wanted = (PREFIX - self.prefix.len()).min(data.len());
                self.prefix.put(data.split_to(wanted));
                if let Some(mut length) = self.prefix.get(1..PREFIX) {
                    self.left = length.get_u32() as usize;
                }
                continue;
            }
            let part = data.split_to(self.left.min(data.len()));
            self.left -= part.len();
            let head = part.len().min(HEAD - self.head.len());
            self.head.extend_from_slice(part.get(..head).unwrap_or_default());
            if self.left == 0 {
                self.prefix.clear();
                let head = self.head.split();
                return beginning(&head).map(Some);
            }
        }
        Ok(None)
    }
}

/// What a response says before its resources.
fn beginning(head: &[u8]) -> Result<DeltaDiscoveryResponse> {
    let mut rest = head;
    while !rest.is_empty() {
        let here = rest;
        let tag = prost::encoding::decode_varint(&mut rest)?;
        let length = usize::try_from(prost::encoding::decode_varint(&mut rest)?)?;
        // Removed names, and what may follow, are of no interest; they may be cut off.
        if tag == RESOURCE || rest.len() < length {
            let known = head.len() - here.len();
            return Ok(DeltaDiscoveryResponse::decode(head.get(..known).unwrap_or_default())?);
        }
        rest.advance(length);
    }
    Ok(DeltaDiscoveryResponse::decode(head)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::discovery::Resource;

    #[test]
    fn responses_are_read_however_they_are_cut() {
        let response = |nonce: &str, resources: usize, removed: usize| DeltaDiscoveryResponse {
            system_version_info: "12".into(),
            type_url: Kind::Address.type_url().into(),
            nonce: nonce.into(),
            removed_resources: vec!["x".repeat(200); removed],
            resources: vec![Resource { name: "y".repeat(300), ..Resource::default() }; resources],
        };
        let mut bytes = BytesMut::new();
        for (nonce, resources, removed) in [("1", 0, 0), ("2", 10, 0), ("3", 0, 10), ("4", 2, 20)] {
            // As a control plane writes it: what is said of all comes first.
            let whole = response(nonce, resources, removed);
            let first = DeltaDiscoveryResponse { resources: Vec::new(), ..whole.clone() }.encode_to_vec();
            let then = DeltaDiscoveryResponse { resources: whole.resources, ..Default::default() }.encode_to_vec();
            bytes.put_u8(0);
            bytes.put_u32(u32::try_from(first.len() + then.len()).unwrap());
            bytes.extend_from_slice(&first);
            bytes.extend_from_slice(&then);
        }
        for size in [1, 3, 7, 100, 100_000] {
            let mut reader = Reader::default();
            let mut nonces = Vec::new();
            for piece in bytes.chunks(size) {
                let mut piece = Bytes::copy_from_slice(piece);
                while let Some(response) = reader.take(&mut piece).unwrap() {
                    assert_eq!(response.system_version_info, "12");
                    nonces.push(response.nonce);
                }
            }
            assert_eq!(nonces, ["1", "2", "3", "4"], "in pieces of {size}");
        }
    }

    #[test]
    fn the_last_to_hear_counts() {
        let receipts = [vec![(1, 1.0), (2, 2.0), (5, 3.0)], vec![(1, 1.5), (4, 2.5)]];
        assert_eq!(last(&receipts), BTreeMap::from([(1, 1.5), (2, 2.5), (4, 3.0)]));
    }
}
