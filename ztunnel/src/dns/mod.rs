//! The DNS proxy (port 15053 on each pod's loopback): what the tables know is answered from them, all else is asked of
//! the name servers of ztunnel's own `/etc/resolv.conf` and passed on byte for byte.
//!
//! | file | holds |
//! |---|---|
//! | [`message`] | messages on the wire (pure) |
//! | [`answer`] | what the tables say (pure) |
//! | `cache` | what others said, for as long as they said |
//! | `forward` | asking others from inside the pod |
//! | `nameservers` | whom to ask |
//! | `resolve` | names that ztunnel itself needs for a pod |
//! | `metrics` | what is counted |
//!
//! One worker serves a pod's DNS. This file is its sockets, and the order of things: `Dns::at_once` says all that needs
//! no waiting, `Dns::later` waits.

pub mod answer;
mod cache;
mod forward;
pub mod message;
pub(crate) mod metrics;
mod nameservers;
mod resolve;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_handoff::PodInfo;
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;
use mesh_runtime::metrics::Metrics;
use mesh_xds::follow::Reader;
use rand::seq::SliceRandom;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::shared;
use crate::sockets::{self, Netns, SocketSettings};
use crate::worker::{Pod, Worker};
use answer::{Answer, Names};
use cache::Cache;
use message::{Query, Rcode, Unreadable};
use metrics::{DnsMetrics, Labels};
use nameservers::Nameservers;

/// How long an answer from the tables may be remembered.
const TTL: Duration = Duration::from_secs(30);
/// Most queries of one pod that wait for others at a time: each has a socket.
const MAX_WAITING: usize = 200;
/// Most queries of all pods that wait for others at a time.
const MAX_WAITING_IN_ALL: usize = 4096;
/// Most connections of one pod to its DNS proxy.
const MAX_CONNECTIONS: usize = 64;
/// A connection on which nobody asks is closed (RFC 7766 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// Failures of one pod that are logged: one in this time, and how many were not.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// Over TCP any message fits.
const TCP_LIMIT: usize = u16::MAX as usize;

/// What is set about DNS.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// `ISTIO_META_DNS_PROXY_ADDR`: where pods' queries arrive.
    pub address: ProxyAddress,
    /// How names are understood.
    pub names: Names,
}

/// `ISTIO_META_DNS_PROXY_ADDR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyAddress {
    /// Loopback of both families.
    Localhost(u16),
    /// One address.
    Address(SocketAddr),
}

impl std::str::FromStr for ProxyAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_prefix("localhost:") {
            Some(port) => port.parse().map(Self::Localhost).map_err(|_| ()),
            None => text.parse().map(Self::Address).map_err(|_| ()),
        }
    }
}

/// The DNS proxy, as all workers share it.
pub(crate) struct Dns {
    names: Names,
    tables: Reader,
    sockets: SocketSettings,
    nameservers: watch::Receiver<Nameservers>,
    waiting: Semaphore,
    metrics: DnsMetrics,
}

/// One pod's DNS, on the worker that serves it.
pub(crate) struct PodDns {
    info: Arc<PodInfo>,
    netns: Netns,
    cache: RefCell<Cache>,
    waiting: Cell<usize>,
    connections: Cell<usize>,
    logged: Cell<Option<Instant>>,
    unlogged: Cell<u64>,
}

/// A pod's sockets.
pub(crate) struct Listeners {
    pub(crate) udp: Vec<std::net::UdpSocket>,
    pub(crate) tcp: Vec<std::net::TcpListener>,
}

/// What can be said without waiting.
#[derive(Debug)]
enum AtOnce {
    Say(Vec<u8>),
    /// Nothing is said.
    Silence,
    Wait(Query),
}

/// Makes a pod's sockets.
///
/// # Errors
/// When a port is taken, or rights are missing. That the pod's loopback has no IPv6 is none.
pub(crate) fn listen(netns: &Netns, address: ProxyAddress, settings: &SocketSettings) -> io::Result<Listeners> {
    let addresses: Vec<SocketAddr> = match address {
        ProxyAddress::Address(address) => vec![address],
        ProxyAddress::Localhost(port) => [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]
            .into_iter()
            .filter(|ip| ip.is_ipv4() || settings.ipv6)
            .map(|ip| SocketAddr::new(ip, port))
            .collect(),
    };
    let mut listeners = Listeners { udp: Vec::new(), tcp: Vec::new() };
    for address in addresses {
        let made = netns.run(|| {
            let tcp = bind(address, Type::STREAM, Protocol::TCP, settings)?;
            tcp.listen(128)?;
            Ok((tcp, bind(address, Type::DGRAM, Protocol::UDP, settings)?))
        });
        match made {
            Ok((tcp, udp)) => {
                listeners.tcp.push(tcp.into());
                listeners.udp.push(udp.into());
            }
            Err(error)
                if address.is_ipv6()
                    && matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)) => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("DNS proxy on {address}: {error}"))),
        }
    }
    Ok(listeners)
}

fn bind(address: SocketAddr, kind: Type, protocol: Protocol, settings: &SocketSettings) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(protocol))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(settings.reuse_port)?;
    sockets::mark(&socket, settings)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Answers what comes over UDP. It goes on while ztunnel drains: a query that the kernel has given
/// to this socket would be lost with it, and no other ztunnel would see it.
pub(crate) async fn udp(worker: Rc<Worker>, pod: Rc<Pod>, socket: std::net::UdpSocket) {
    let Some(dns) = worker.shared.dns.clone() else { return };
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => Rc::new(socket),
        Err(error) => return tracing::error!(pod = %pod.info, %error, "cannot serve DNS"),
    };
    dns.serve_udp(pod.dns.clone(), socket).await;
}

/// Answers what comes over one TCP connection.
pub(crate) async fn tcp(worker: Rc<Worker>, pod: Rc<Pod>, tcp: TcpStream, _from: SocketAddr) {
    let Some(dns) = worker.shared.dns.clone() else { return };
    let open = &pod.dns.connections;
    if open.get() >= MAX_CONNECTIONS {
        let why = format!("the pod has {MAX_CONNECTIONS} connections to its DNS proxy open");
        return dns.failed(&pod.dns, "", "", "DNS_OVERLOADED", &why);
    }
    let _open = Counted::new(open);
    if let Err(error) = dns.serve_tcp(&pod.dns, tcp, worker.shared.drain.started()).await {
        tracing::debug!(pod = %pod.info, %error, "DNS over TCP ended");
    }
}

impl Dns {
    /// With nothing counted yet.
    pub(crate) fn new(
        config: &DnsConfig,
        tables: Reader,
        sockets: SocketSettings,
        resolv_conf: &Path,
        metrics: &mut Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            names: config.names.clone(),
            tables,
            sockets,
            nameservers: nameservers::follow(resolv_conf.into()),
            waiting: Semaphore::new(MAX_WAITING_IN_ALL),
            metrics: DnsMetrics::register(metrics),
        })
    }

    /// Until it is dropped; whatever waits then is dropped with it.
    async fn serve_udp(self: Arc<Self>, pod: Rc<PodDns>, socket: Rc<UdpSocket>) {
        let mut waiting = JoinSet::new();
        // One more than fits, to see what does not.
        let mut buffer = [0; message::MAX_QUERY + 1];
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut buffer) => received,
                Some(_) = waiting.join_next() => continue,
            };
            let (length, from) = match received {
                Ok(received) => received,
                Err(error) => {
                    tracing::warn!(pod = %pod.info, %error, "cannot receive DNS queries");
                    // Whatever it is, it may last.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let packet = &buffer[..length];
            let query = match self.at_once(&pod, packet, false) {
                AtOnce::Silence => continue,
                AtOnce::Say(answer) => {
                    send(&socket, &answer, from, &pod.info).await;
                    continue;
                }
                AtOnce::Wait(query) => query,
            };
            let (dns, pod, socket, packet) = (self.clone(), pod.clone(), socket.clone(), packet.to_vec());
            waiting.spawn_local(async move {
                let answer = dns.later(&pod, &packet, &query, false).await;
                send(&socket, &answer, from, &pod.info).await;
            });
        }
    }

    async fn serve_tcp(&self, pod: &PodDns, mut tcp: TcpStream, draining: impl Future<Output = ()>) -> io::Result<()> {
        tokio::pin!(draining);
        loop {
            let length = tokio::select! {
                length = timeout(IDLE, tcp.read_u16()) => length,
                // What nobody asks anything on must not hold up the drain.
                () = &mut draining => return Ok(()),
            };
            let length = match length {
                Ok(Ok(length)) => usize::from(length),
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(()),
            };
            if length > message::MAX_QUERY {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a query of {length} bytes")));
            }
            let mut packet = vec![0; length];
            timeout(IDLE, tcp.read_exact(&mut packet)).await??;
            let answer = match self.at_once(pod, &packet, true) {
                AtOnce::Silence => return Ok(()),
                AtOnce::Say(answer) => answer,
                AtOnce::Wait(query) => self.later(pod, &packet, &query, true).await,
            };
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            timeout(IDLE, tcp.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat())).await??;
        }
    }

    /// What can be said without waiting: no to what cannot be read, what the tables know, what others said before.
    fn at_once(&self, pod: &PodDns, packet: &[u8], tcp: bool) -> AtOnce {
        let info = &pod.info;
        let query = match message::read(packet) {
            Ok(query) => query,
            Err(Unreadable::Ignore(why)) => {
                tracing::debug!(pod = %info, why, "no DNS query: dropped");
                return AtOnce::Silence;
            }
            Err(Unreadable::Malformed(why)) => {
                self.metrics.request(&Labels::new(None, tcp, None));
                tracing::debug!(pod = %info, why, "malformed DNS query");
                return AtOnce::Say(message::refuse(packet, None, Rcode::FormErr));
            }
        };
        // Counted with its client's names where they are known at once.
        let known = self.tables.read(|tables| {
            let client = tables.workload_of_pod(&info.namespace, &info.name, &info.service_account)?;
            Some((self.labels(&query, tcp, Some(client)), self.known(tables, client, info, packet, &query, tcp)))
        });
        let Some((labels, answer)) = known else {
            self.metrics.request(&self.labels(&query, tcp, None));
            return AtOnce::Wait(query);
        };
        self.metrics.request(&labels);
        if let Some(answer) = answer {
            return AtOnce::Say(answer);
        }
        match pod.cache.borrow_mut().get(packet, &query, tcp, std::time::Instant::now()) {
            Some(answer) => {
                tracing::debug!(pod = %info, name = name(&query), r#type = labels.query_type(), "DNS: as asked before");
                AtOnce::Say(answer)
            }
            None => AtOnce::Wait(query),
        }
    }

    /// What must be waited for: a client that the control plane has not told of yet, and other servers.
    async fn later(&self, pod: &PodDns, packet: &[u8], query: &Query, tcp: bool) -> Vec<u8> {
        let info = &pod.info;
        let refuse = |rcode| message::refuse(packet, Some(query), rcode);
        let (name, kind) = (name(query), self.labels(query, tcp, None).query_type());
        let permit = self.waiting.try_acquire();
        if permit.is_err() || pod.waiting.get() >= MAX_WAITING {
            let why = match permit {
                Err(_) => format!("{MAX_WAITING_IN_ALL} queries of this node's pods wait for name servers"),
                Ok(_) => format!("{MAX_WAITING} queries of the pod wait for name servers"),
            };
            self.failed(pod, name, kind, "DNS_OVERLOADED", &why);
            return refuse(Rcode::ServFail);
        }
        let _waiting = Counted::new(&pod.waiting);
        let client = match shared::local_workload(&self.tables, info).await {
            Ok(client) => client,
            Err(error) => {
                self.failed(pod, name, kind, "UNKNOWN_WORKLOAD", &error);
                return refuse(Rcode::ServFail);
            }
        };
        if let Some(answer) = self.tables.read(|t| self.known(t, &client, info, packet, query, tcp)) {
            return answer;
        }
        let wants = query.question.as_ref().map(|q| q.kind);
        if matches!(wants, Some(message::kind::AXFR | message::kind::IXFR)) {
            self.failed(
                pod,
                name,
                kind,
                "DNS_NOT_FORWARDED",
                &"zone transfers are many messages: only one is passed on",
            );
            return refuse(Rcode::NotImp);
        }
        let servers = self.nameservers.borrow().servers.clone();
        let started = Instant::now();
        let asked = forward::ask(&pod.netns, &self.sockets, &servers, packet, tcp).await;
        self.metrics.forwarded(&self.labels(query, tcp, Some(&client)), asked.is_ok(), started.elapsed());
        match asked {
            Ok(answer) => {
                pod.cache.borrow_mut().put(packet, query, tcp, &answer, std::time::Instant::now());
                answer
            }
            Err(failure) => {
                self.failed(pod, name, kind, failure.code(), &failure);
                refuse(Rcode::ServFail)
            }
        }
    }

    /// The answer that the tables give, if they do.
    fn known(
        &self,
        tables: &Tables,
        client: &Workload,
        info: &PodInfo,
        packet: &[u8],
        query: &Query,
        tcp: bool,
    ) -> Option<Vec<u8>> {
        let question = query.question.as_ref()?;
        // Whoever speaks a newer EDNS is told so by a server that has one.
        if query.edns.is_some_and(|edns| edns.version > 0) {
            return None;
        }
        let name = question.name.as_str();
        match answer::answer(tables, client, &self.names, question) {
            Answer::Forward(why) => {
                tracing::debug!(pod = %info, name, kind = question.kind, %why, "DNS: asking others");
                None
            }
            Answer::Addresses { service, alias, mut addresses } => {
                tracing::debug!(
                    pod = %info, name, kind = question.kind, service = %service.key(), alias, ?addresses, "DNS: answered"
                );
                addresses.shuffle(&mut rand::rng());
                let limit = if tcp { TCP_LIMIT } else { query.udp_limit() };
                Some(message::answer(packet, query, alias.as_deref(), &addresses, TTL, limit))
            }
        }
    }

    fn labels(&self, query: &Query, tcp: bool, client: Option<&Workload>) -> Labels {
        Labels::new(query.question.as_ref().map(|q| q.kind), tcp, client)
    }

    /// Says why a name does not resolve; not more often than somebody can read.
    fn failed(&self, pod: &PodDns, name: &str, kind: &str, reason: &'static str, error: &dyn std::fmt::Display) {
        self.metrics.not_served(reason);
        let now = Instant::now();
        if pod.logged.get().is_some_and(|last| now.duration_since(last) < LOG_EVERY) {
            pod.unlogged.set(pod.unlogged.get() + 1);
            return;
        }
        pod.logged.set(Some(now));
        let unlogged = pod.unlogged.take();
        tracing::warn!(pod = %pod.info, name, r#type = kind, reason, %error, unlogged, "a DNS query failed");
    }
}

impl PodDns {
    /// With nothing remembered yet.
    pub(crate) fn new(info: Arc<PodInfo>, netns: Netns) -> Self {
        Self {
            info,
            netns,
            cache: RefCell::default(),
            waiting: Cell::new(0),
            connections: Cell::new(0),
            logged: Cell::new(None),
            unlogged: Cell::new(0),
        }
    }
}

/// Counts for as long as it lives.
struct Counted<'a>(&'a Cell<usize>);

impl<'a> Counted<'a> {
    fn new(cell: &'a Cell<usize>) -> Self {
        cell.set(cell.get() + 1);
        Self(cell)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn name(query: &Query) -> &str {
    query.question.as_ref().map_or("", |question| &question.name)
}

/// If it cannot be sent, the client asks again.
async fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr, pod: &PodInfo) {
    if let Err(error) = socket.send_to(answer, to).await {
        tracing::debug!(%pod, %to, %error, "an answer to a DNS query was not sent");
    }
}

#[cfg(test)]
mod tests;
