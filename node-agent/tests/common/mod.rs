//! Network namespaces for tests: real ones, without root where the machine allows user namespaces.
#![allow(dead_code, unreachable_pub, reason = "shared by test binaries that each use a part")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use mesh_netlink::routing::{Route, Routing};
use node_agent::netns;
use rustix::thread::UnshareFlags;

/// Long enough for a loaded machine, short enough to see a test hang.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the tests in namespaces of their own, or says loudly that this machine has none.
#[allow(clippy::print_stderr, reason = "skipped tests must be seen")]
pub fn main(tests: Vec<(&'static str, fn())>) {
    let arguments = Arguments::from_args();
    if !arguments.list
        && let Err(why) = enter_namespaces()
    {
        eprintln!("SKIPPED: {} tests need user and network namespaces: {why}", tests.len());
        return;
    }
    if std::env::var_os("RUST_LOG").is_some() {
        let config = mesh_runtime::log::LogConfig::from_env(&mesh_runtime::config::Env::process()).unwrap();
        mesh_runtime::log::init(&config).unwrap();
    }
    let trials = tests
        .into_iter()
        .map(|(name, test)| {
            Trial::test(name, move || {
                test();
                Ok(())
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

#[allow(unsafe_code, reason = "unshare may leave the threads of a process with different views; here there is one")]
fn enter_namespaces() -> Result<(), String> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if !uid.is_root() {
        // SAFETY: called from main before any other thread exists.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }.map_err(|e| format!("user namespace: {e}"))?;
        std::fs::write("/proc/self/setgroups", "deny").map_err(|e| e.to_string())?;
        std::fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw())).map_err(|e| e.to_string())?;
        std::fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw())).map_err(|e| e.to_string())?;
    }
    // SAFETY: as above.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|e| format!("network namespace: {e}"))
}

/// A fresh network namespace with its loopback up.
pub struct Netns(OwnedFd);

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Netns {
    #[allow(unsafe_code, reason = "see enter_namespaces")]
    pub fn new() -> Self {
        let thread = std::thread::spawn(|| {
            // SAFETY: only this thread's network namespace changes; no file descriptor table is involved.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            OwnedFd::from(File::open("/proc/thread-self/ns/net").unwrap())
        });
        let netns = Self(thread.join().unwrap());
        netns.routing().set_loopback_up().unwrap();
        netns
    }

    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        netns::run(self.as_fd(), inside).unwrap()
    }

    pub fn routing(&self) -> Routing {
        Routing::open_in(self.as_fd()).unwrap()
    }

    /// Brings an interface up, with an address of each family.
    pub fn settle(&self, interface: &str, v4: Ipv4Addr, v6: Ipv6Addr) {
        let routing = self.routing();
        let interface = routing.interface(interface).unwrap();
        routing.set_up(interface).unwrap();
        routing.add_address(interface, v4.into(), 24).unwrap();
        routing.add_address(interface, v6.into(), 64).unwrap();
    }

    /// Another address for its `eth0`.
    pub fn add_address(&self, address: Ipv4Addr) {
        let routing = self.routing();
        routing.add_address(routing.interface("eth0").unwrap(), address.into(), 32).unwrap();
    }

    /// Sends everything to these machines.
    pub fn route_by(&self, v4: Ipv4Addr, v6: Ipv6Addr) {
        for (everywhere, gateway) in
            [(Ipv4Addr::UNSPECIFIED.into(), v4.into()), (Ipv6Addr::UNSPECIFIED.into(), v6.into())]
        {
            self.routing().add_route(&Route::to(everywhere, 0).via(Some(gateway))).unwrap();
        }
    }

    pub fn listen(&self, address: &str) -> TcpListener {
        let address = address.to_owned();
        self.run(move || TcpListener::bind(&address).unwrap_or_else(|e| panic!("{address}: {e}")))
    }

    /// What ztunnel makes: marked and transparent, wildcard, both families.
    pub fn listen_as_ztunnel(&self, port: u16) -> TcpListener {
        self.run(move || {
            let socket = ztunnel_socket(true);
            socket.set_only_v6(false).unwrap();
            socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port).into()).unwrap();
            socket.listen(16).unwrap();
            socket.into()
        })
    }

    pub fn dial(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        self.run(move || TcpStream::connect_timeout(&address, PATIENCE))
    }

    /// Dials as ztunnel does: marked, and from `source` if there is one, which need not be an address of this namespace.
    pub fn dial_as_ztunnel(&self, source: Option<IpAddr>, to: SocketAddr) -> std::io::Result<TcpStream> {
        self.run(move || {
            let socket = ztunnel_socket(to.is_ipv6());
            if let Some(source) = source {
                socket.bind(&SocketAddr::new(source, 0).into())?;
            }
            socket.connect_timeout(&to.into(), PATIENCE)?;
            Ok(socket.into())
        })
    }
}

fn ztunnel_socket(v6: bool) -> socket2::Socket {
    let domain = if v6 { socket2::Domain::IPV6 } else { socket2::Domain::IPV4 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
    socket.set_mark(node_agent::redirect::rules::ZTUNNEL_MARK).unwrap();
    if v6 {
        rustix::net::sockopt::set_ipv6_freebind(&socket, true).unwrap();
        set_ipv6_transparent(&socket);
    }
    socket.set_ip_transparent_v4(true).unwrap();
    socket
}

#[allow(unsafe_code, reason = "no safe wrapper has IPV6_TRANSPARENT")]
fn set_ipv6_transparent(socket: &socket2::Socket) {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    // SAFETY: an int of the size given, read during the call only.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IPV6,
            libc::IPV6_TRANSPARENT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Two namespaces joined by a cable; each reaches the whole world through the other.
pub struct Pair {
    pub client: Netns,
    pub pod: Netns,
}

pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub const POD_V4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
pub const POD_V6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);
pub const FAMILIES: [(IpAddr, IpAddr); 2] =
    [(IpAddr::V4(CLIENT_V4), IpAddr::V4(POD_V4)), (IpAddr::V6(CLIENT_V6), IpAddr::V6(POD_V6))];

impl Pair {
    pub fn new() -> Self {
        let pair = Self { client: Netns::new(), pod: Netns::new() };
        pair.client.routing().add_veth("eth0", "eth0", pair.pod.as_fd(), None).unwrap();
        for (netns, v4, v6, peer_v4, peer_v6) in
            [(&pair.client, CLIENT_V4, CLIENT_V6, POD_V4, POD_V6), (&pair.pod, POD_V4, POD_V6, CLIENT_V4, CLIENT_V6)]
        {
            netns.settle("eth0", v4, v6);
            netns.route_by(peer_v4, peer_v6);
        }
        pair
    }
}

/// The network namespace that the tests' own process is in.
pub fn own() -> Netns {
    Netns(File::open("/proc/self/ns/net").unwrap().into())
}

/// Runs a future to its end on a runtime and a thread of its own, so that async tests can make namespaces too.
pub fn wait<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope
            .spawn(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future));
        thread.join().unwrap()
    })
}

/// Accepts one connection, with patience.
pub fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    socket2::SockRef::from(listener).set_read_timeout(Some(PATIENCE)).unwrap();
    let accepted = listener.accept();
    let (stream, peer) =
        accepted.unwrap_or_else(|error| panic!("nobody connected to {:?}: {error}", listener.local_addr()));
    (stream, canonical(peer))
}

/// Whether someone waits to be accepted right now.
pub fn is_dialled(listener: &TcpListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    let dialled = listener.accept().is_ok();
    listener.set_nonblocking(false).unwrap();
    dialled
}

/// Where the client of an accepted connection wanted to go.
pub fn original_destination(stream: &TcpStream) -> SocketAddr {
    let v4 = rustix::net::sockopt::ip_original_dst(stream).map(SocketAddr::from);
    let v6 = || rustix::net::sockopt::ipv6_original_dst(stream).map(SocketAddr::from);
    v4.or_else(|_| v6()).expect("the connection was not redirected")
}

/// IPv4 as IPv4, also where a dual-stack socket shows it as IPv6.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Sends a line each way.
pub fn talk(a: &mut TcpStream, b: &mut TcpStream) {
    say_hello(a, b);
    say_hello(b, a);
}

fn say_hello(from: &mut TcpStream, to: &mut TcpStream) {
    from.set_write_timeout(Some(PATIENCE)).unwrap();
    from.write_all(b"hello\n").unwrap();
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = [0; 6];
    to.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"hello\n");
}

/// Closes one way and sees it close.
pub fn hang_up(a: &mut TcpStream, b: &mut TcpStream) {
    a.shutdown(Shutdown::Write).unwrap();
    assert_eq!(b.read(&mut [0; 1]).unwrap(), 0);
}
