//! Sockets to serve on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// One or two bound sockets, served as one. They are bound before any task runs, so that a port in use is an error at start.
#[derive(Debug)]
pub struct Listeners(Vec<TcpListener>);

/// Waiting connections the kernel keeps.
const BACKLOG: i32 = 128;

impl Listeners {
    /// 127.0.0.1 and, where the machine has it, ::1. Port 0 takes a free one.
    ///
    /// # Errors
    /// If the port cannot be bound.
    pub fn loopback(port: u16) -> io::Result<Self> {
        let v4 = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), true)?;
        let chosen = v4.local_addr()?.port();
        match bind(SocketAddr::from((Ipv6Addr::LOCALHOST, chosen)), true) {
            Ok(v6) => Ok(Self(vec![v4, v6])),
            // A port picked for IPv4 may be taken on IPv6; who asked for any port can do without.
            Err(error) if no_ipv6(&error) || port == 0 => Ok(Self(vec![v4])),
            Err(error) => Err(error),
        }
    }

    /// Every address of this network namespace, IPv4 and IPv6; IPv4 alone where there is no IPv6. Port 0 takes a free one.
    ///
    /// # Errors
    /// If the port cannot be bound.
    pub fn wildcard(port: u16) -> io::Result<Self> {
        match bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), false) {
            Err(error) if no_ipv6(&error) => Self::at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
            bound => Ok(Self(vec![bound?])),
        }
    }

    /// This address only.
    ///
    /// # Errors
    /// If it cannot be bound.
    pub fn at(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self(vec![bind(addr, true)?]))
    }

    /// Where they listen.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Whether only this machine can reach them. A socket that cannot tell counts as reachable.
    pub fn are_loopback(&self) -> bool {
        let loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
        self.0.iter().all(|listener| listener.local_addr().is_ok_and(|addr| loopback(addr.ip())))
    }

    pub(super) fn into_inner(self) -> Vec<TcpListener> {
        self.0
    }
}

impl From<TcpListener> for Listeners {
    fn from(listener: TcpListener) -> Self {
        Self(vec![listener])
    }
}

fn bind(addr: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // So that a restart need not wait for old connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The kernel was built or booted without IPv6, or the address is not there (`disable_ipv6`).
fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// From errno.h; the standard library has no kind for it.
const EAFNOSUPPORT: i32 = 97;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_where_asked() {
        let loopback = Listeners::loopback(0).unwrap();
        assert!(loopback.are_loopback());
        let port = loopback.addrs()[0].port();
        assert!(loopback.addrs().iter().all(|addr| addr.port() == port && port != 0));
        assert_eq!(Listeners::loopback(port).unwrap_err().kind(), io::ErrorKind::AddrInUse);

        let wildcard = Listeners::wildcard(0).unwrap();
        assert!(!wildcard.are_loopback());
        let port = wildcard.addrs()[0].port();
        // Dual stack: an IPv4 client reaches it too.
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
}
