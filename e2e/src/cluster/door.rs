//! A door into a machine: a port of this machine's loopback that leads to an address in the other's network. With it any
//! client of this machine reaches the API server, and no interface has to be made here.
use anyhow::{Context, Result};
use rustix::thread::LinkNameSpaceType;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Closed when dropped; connections that are open stay so until one of their ends closes.
#[derive(Debug)]
pub(super) struct Door {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
    porter: Option<JoinHandle<()>>,
}

impl Door {
    /// Opens a door at a port that the kernel picks.
    pub(super) fn open(netns: File, to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on loopback")?;
        let address = listener.local_addr()?;
        let closed = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&closed);
        // One thread lives in the other network: sockets stay in the network that they are made in.
        let porter = std::thread::Builder::new().name("door".into()).spawn(move || {
            let entered = rustix::thread::move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network));
            while entered.is_ok() && !seen.load(Ordering::Acquire) {
                let Ok((outer, _)) = listener.accept() else { continue };
                // Nobody there: the client sees its connection end.
                if let Ok(inner) = TcpStream::connect(to) {
                    carry(outer, inner);
                }
            }
        })?;
        Ok(Door { address, closed, porter: Some(porter) })
    }

    /// Where it is.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Carries bytes both ways, on threads that end with the connection.
fn carry(outer: TcpStream, inner: TcpStream) {
    let (Ok(outer_too), Ok(inner_too)) = (outer.try_clone(), inner.try_clone()) else { return };
    for (mut from, mut to) in [(outer, inner), (inner_too, outer_too)] {
        std::thread::spawn(move || {
            // Either end may close at any time; the other is told.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
            let _ = from.shutdown(Shutdown::Read);
        });
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
        // Wakes the thread that waits for clients.
        drop(TcpStream::connect(self.address));
        if let Some(porter) = self.porter.take() {
            let _ = porter.join();
        }
    }
}
