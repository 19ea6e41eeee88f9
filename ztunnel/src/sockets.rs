//! Sockets in a pod's network namespace: listeners, original destinations, and dialling as somebody else.
//!
//! ztunnel never lives in a pod's namespace: a thread enters it, makes the socket, and returns. What that socket then
//! sends starts inside the pod's namespace, with the pod's own routes.

pub(crate) mod ports;

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mesh_model::address::canonical;
use mesh_proxy::accept::BACKLOG;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

/// Mark of every packet that ztunnel sends from a pod's namespace; redirection leaves it alone (`PACKET_MARK`).
pub const PACKET_MARK: u32 = 0x539;
/// How long the kernel may take to connect.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What sockets are made like.
#[derive(Clone, Debug)]
pub struct SocketSettings {
    /// `IPV6_ENABLED`: listeners take both families.
    pub ipv6: bool,
    /// `PACKET_MARK`: `None` where no redirection asks for one.
    pub mark: Option<u32>,
    /// `INPOD_PORT_REUSE`: several workers, and an old and a new ztunnel, listen on one port.
    pub reuse_port: bool,
    /// `KEEPALIVE_*`: idle time, interval, probes; `None` is off.
    pub keepalive: Option<(Duration, Duration, u32)>,
    /// `USER_TIMEOUT_ENABLED`: data that is not acknowledged for as long as keepalive would take breaks the connection.
    pub user_timeout: bool,
    /// `ENABLE_ORIG_SRC`: what to do about dialling with the caller's address.
    pub original_source: OriginalSource,
}

/// `ENABLE_ORIG_SRC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginalSource {
    /// Unset: where the kernel lets us.
    BestEffort,
    /// True: or not at all.
    Required,
    /// False: never.
    Off,
}

/// A pod's network namespace.
#[derive(Clone, Debug)]
pub struct Netns {
    /// `None` is the one that we live in: nothing to enter, and no right needed.
    pod: Option<Arc<OwnedFd>>,
    own: Arc<File>,
    /// Device and inode: what tells one namespace from another.
    pub id: (u64, u64),
}

impl Netns {
    /// The namespace behind a descriptor, and the process's own to return to.
    ///
    /// # Errors
    /// When the descriptor is no namespace or ours cannot be opened.
    pub fn new(pod: OwnedFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&pod)?;
        // The thread's, not the process's: this may run on a thread of a test that moved elsewhere.
        let own = File::open("/proc/thread-self/ns/net")?;
        Ok(Self { pod: Some(Arc::new(pod)), own: Arc::new(own), id: (stat.st_dev, stat.st_ino) })
    }

    /// The namespace that this thread is in.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn own() -> io::Result<Self> {
        let own = File::open("/proc/thread-self/ns/net")?;
        let stat = rustix::fs::fstat(&own)?;
        Ok(Self { pod: None, own: Arc::new(own), id: (stat.st_dev, stat.st_ino) })
    }

    /// Whether it is the one that we live in.
    pub(crate) fn is_own(&self) -> bool {
        self.pod.is_none()
    }

    /// Runs `f` with this thread inside the namespace. `f` must not wait: other work of the thread would be inside too.
    ///
    /// # Errors
    /// When the namespace cannot be entered; whatever `f` returns.
    ///
    /// Ends the process when the way back fails: going on would make every later socket in the wrong pod.
    pub fn run<T>(&self, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some(pod) = &self.pod else { return f() };
        move_into_link_name_space(pod.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|error| match error {
            // setns(2): the descriptor is of something else.
            rustix::io::Errno::INVAL => {
                io::Error::new(io::ErrorKind::InvalidInput, "what the node agent handed over is no network namespace")
            }
            error => error.into(),
        })?;
        let result = f();
        if let Err(error) = move_into_link_name_space(self.own.as_fd(), Some(LinkNameSpaceType::Network)) {
            tracing::error!(%error, "this thread could not leave a pod's network namespace");
            std::process::abort();
        }
        result
    }
}

impl SocketSettings {
    /// All addresses of a pod.
    pub(crate) fn wildcard(&self) -> IpAddr {
        if self.ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
    }
}

/// A listener on an address of the pod.
///
/// # Errors
/// When the port is taken by somebody who does not share it, or rights are missing.
pub fn listen(netns: &Netns, at: SocketAddr, settings: &SocketSettings) -> io::Result<std::net::TcpListener> {
    netns.run(|| {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if at.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(settings.reuse_port)?;
        mark(&socket, settings)?;
        if settings.original_source != OriginalSource::Off {
            let transparent = socket.set_ip_transparent_v4(true);
            if settings.original_source == OriginalSource::Required {
                transparent?;
            }
        }
        tune(&socket, settings);
        socket.bind(&at.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    })
}

/// Marks what a socket sends, where a mark is set.
pub(crate) fn mark(socket: &Socket, settings: &SocketSettings) -> io::Result<()> {
    settings.mark.map_or(Ok(()), |mark| socket.set_mark(mark))
}

/// Options of every connection, accepted or dialled. What the kernel refuses here is not worth a connection. Set on a
/// listener, they are those of every connection it accepts.
fn tune(socket: &Socket, settings: &SocketSettings) {
    let _ = socket.set_tcp_nodelay(true);
    keep_alive(socket, settings);
}

/// Has the kernel look after an idle connection. What it refuses here is not worth a connection, either.
pub(crate) fn keep_alive<'s>(socket: impl Into<SockRef<'s>>, settings: &SocketSettings) {
    let socket = socket.into();
    if let Some((idle, interval, probes)) = settings.keepalive {
        let _ =
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes));
        if settings.user_timeout {
            let _ = socket.set_tcp_user_timeout(Some(idle + interval * probes));
        }
    }
}

/// Where a redirected connection was going, in normal form.
///
/// # Errors
/// When the socket is gone.
pub fn original_destination(tcp: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(tcp);
    let redirected = socket.original_dst_v4().or_else(|_| socket.original_dst_v6());
    match redirected.ok().and_then(|address| address.as_socket()) {
        Some(address) => Ok(canonical(address)),
        // Not redirected, or no connection tracking: it was going to where it arrived.
        None => Ok(canonical(tcp.local_addr()?)),
    }
}

/// A socket for a connection to `destination`, in the namespace this thread is in.
pub(crate) fn stream(destination: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(destination), Type::STREAM.nonblocking(), Some(Protocol::TCP))
}

/// Connects from inside the pod's namespace; from `source` if given, else from the address the pod's routes choose.
///
/// # Errors
/// When the namespace cannot be entered; when the connection fails or takes longer than [`CONNECT_TIMEOUT`]; when the
/// source cannot be taken and [`OriginalSource::Required`] says it must.
pub async fn dial(
    netns: &Netns,
    source: Option<IpAddr>,
    destination: SocketAddr,
    settings: &SocketSettings,
) -> io::Result<TcpStream> {
    let (socket, range) = netns.run(|| Ok((stream(destination)?, ports::range())))?;
    let from = Source { address: source, port: None, range: &range };
    let tcp = connect(socket, from, destination, settings).await?;
    keep_alive(&tcp, settings);
    Ok(tcp)
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// The address; if none is given, the one that the routes choose.
    pub(crate) address: Option<IpAddr>,
    /// The port, if it is free and in the range.
    pub(crate) port: Option<u16>,
    /// The ports that connections of the namespace may come from.
    pub(crate) range: &'a RangeInclusive<u16>,
}

/// Connects a [`stream`] from its namespace. It is not kept alive yet ([`keep_alive`]).
///
/// # Errors
/// When the connection fails or takes longer than [`CONNECT_TIMEOUT`]; when no port is free ([`ports::NoPort`]); when the
/// source cannot be taken and [`OriginalSource::Required`] says it must.
pub(crate) async fn connect(
    socket: Socket,
    from: Source<'_>,
    destination: SocketAddr,
    settings: &SocketSettings,
) -> io::Result<TcpStream> {
    mark(&socket, settings)?;
    if let Some(source) = from.address.filter(|_| settings.original_source != OriginalSource::Off)
        && let Err(error) = take_source(&socket, source)
    {
        if settings.original_source == OriginalSource::Required {
            return Err(error);
        }
        tracing::warn!(%source, %error, "cannot dial with the caller's address; the application sees the pod's");
    }
    let _ = socket.set_tcp_nodelay(true);
    let connected = begin_from(&socket, from, destination).await?;
    let tcp = TcpStream::from_std(socket.into())?;
    if !connected {
        tokio::time::timeout(CONNECT_TIMEOUT, tcp.writable()).await??;
        if let Some(error) = tcp.take_error()? {
            return Err(error);
        }
    }
    Ok(tcp)
}

/// [`begin`], from a port that is found a few at a time.
async fn begin_from(socket: &Socket, from: Source<'_>, destination: SocketAddr) -> io::Result<bool> {
    let mut tries = ports::tries(from.range, from.port, rand::random());
    loop {
        let Some(some) = tries.next() else {
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, ports::NoPort(destination)));
        };
        let bounded = ports::choose_from(socket, &some).is_ok();
        match begin(socket, destination) {
            Err(error) if bounded && error.kind() == io::ErrorKind::AddrNotAvailable => {}
            begun => return begun,
        }
        if some.len() > 1 {
            tokio::task::yield_now().await;
        }
    }
}

/// Begins to connect. True when it is connected already: an application in the pod has answered before the kernel
/// returns, and asking the kernel at once costs less than being told later.
fn begin(socket: &Socket, destination: SocketAddr) -> io::Result<bool> {
    let destination = destination.into();
    let mut connected = socket.connect(&destination);
    if is(&connected, libc::EINPROGRESS) {
        connected = socket.connect(&destination);
    }
    match connected {
        Err(_) if is(&connected, libc::EALREADY) || is(&connected, libc::EINPROGRESS) => Ok(false),
        connected => connected.map(|()| true),
    }
}

fn is(result: &io::Result<()>, error: i32) -> bool {
    result.as_ref().is_err_and(|e| e.raw_os_error() == Some(error))
}

/// Binds to an address that is not ours; the port is chosen when connecting, so that one address serves many
/// destinations. A transparent socket may have any address; it needs no freebind besides.
fn take_source(socket: &Socket, source: IpAddr) -> io::Result<()> {
    match source {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
        IpAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
    }
    bind_without_port(socket)?;
    socket.bind(&SocketAddr::new(source, 0).into())
}

/// `IP_BIND_ADDRESS_NO_PORT`: no port is taken at bind.
#[allow(unsafe_code, reason = "no crate in use offers this socket option; it takes an int that lives on this stack")]
fn bind_without_port(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the kernel reads `size_of(on)` bytes.
    let result = unsafe {
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(socket),
            libc::SOL_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_answers_at_once_is_connected_at_once() {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let here = listener.local_addr().unwrap().as_socket().unwrap();
        let ask = || {
            let socket = stream(here).unwrap();
            begin(&socket, here).map(|connected| (socket, connected))
        };
        assert_eq!(ask().unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "nobody listens yet");
        listener.listen(0).unwrap();
        let (first, connected) = ask().unwrap();
        assert!(connected && first.peer_addr().unwrap().as_socket() == Some(here));
        // The queue holds one: nobody answers the next.
        let (_waits, connected) = ask().unwrap();
        assert!(!connected);
    }
}
