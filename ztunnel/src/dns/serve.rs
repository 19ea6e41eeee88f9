//! A pod's DNS sockets: what arrives on them, and what is sent back.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::pod::PodInfo;
use mesh_model::reason::ReasonCode;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{AtOnce, Counted, Dns, PodDns, ProxyAddress, message};
use crate::sockets::{self, Netns, SocketSettings};

/// Most connections of one pod to its DNS proxy.
const MAX_CONNECTIONS: usize = 64;
/// A connection on which nobody asks is closed (RFC 7766 6.2.3).
const IDLE: Duration = Duration::from_secs(10);

/// A pod's sockets.
pub(crate) struct Listeners {
    pub(crate) udp: Vec<std::net::UdpSocket>,
    pub(crate) tcp: Vec<std::net::TcpListener>,
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
pub(crate) async fn udp(dns: Arc<Dns>, pod: Rc<PodDns>, socket: std::net::UdpSocket) {
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => Rc::new(socket),
        Err(error) => return tracing::error!(pod = %pod.info, %error, "cannot serve DNS"),
    };
    dns.serve_udp(pod, socket).await;
}

/// Answers what comes over one TCP connection. What nobody asks anything on is closed when ztunnel is `draining`.
pub(crate) async fn tcp(dns: &Dns, pod: &PodDns, tcp: TcpStream, draining: impl Future<Output = ()>) {
    let open = &pod.connections;
    if open.get() >= MAX_CONNECTIONS {
        let why = format!("the pod has {MAX_CONNECTIONS} connections to its DNS proxy open");
        return dns.failed(pod, "", "", ReasonCode::DnsOverloaded, &why);
    }
    let _open = Counted::new(open);
    if let Err(error) = dns.serve_tcp(pod, tcp, draining).await {
        tracing::debug!(pod = %pod.info, %error, "DNS over TCP ended");
    }
}

impl Dns {
    /// Until it is dropped; whatever waits then is dropped with it.
    pub(super) async fn serve_udp(self: Arc<Self>, pod: Rc<PodDns>, socket: Rc<UdpSocket>) {
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

    pub(super) async fn serve_tcp(
        &self,
        pod: &PodDns,
        mut tcp: TcpStream,
        draining: impl Future<Output = ()>,
    ) -> io::Result<()> {
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
}

/// If it cannot be sent, the client asks again.
async fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr, pod: &PodInfo) {
    if let Err(error) = socket.send_to(answer, to).await {
        tracing::debug!(%pod, %to, %error, "an answer to a DNS query was not sent");
    }
}
