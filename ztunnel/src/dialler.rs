//! Connections that one worker opens from inside a pod's namespace.
//!
//! Entering a namespace and leaving it again costs as much as making the socket for whose sake it is done: under load
//! one entry makes several. They wait here, neither bound nor connected, so none grows stale. And what only matters to a
//! connection that is idle for minutes is set on those that have lived for a second; most do not.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::rc::{Rc, Weak};
use std::time::Duration;

use socket2::{SockRef, Socket};
use tokio::net::TcpStream;

use crate::sockets::{self, Netns, SocketSettings, Source, ports};

/// Most sockets of a family that wait: descriptors that nobody may come to use.
const MOST: usize = 16;

/// Opens connections from inside a pod's namespace.
pub(crate) struct Dialler {
    netns: Netns,
    v4: Stock,
    v6: Stock,
    /// What connections of the namespace may come from; none until somebody dials.
    ports: RefCell<Option<RangeInclusive<u16>>>,
    /// Dialled since the last look, and not kept alive yet.
    new: RefCell<Vec<Weak<TcpStream>>>,
    /// Dialled before that.
    older: RefCell<Vec<Weak<TcpStream>>>,
}

/// Sockets made ahead. Empty while nobody dials.
#[derive(Default)]
struct Stock {
    waiting: RefCell<Vec<Socket>>,
    /// Asked for since the last look.
    asked: Cell<usize>,
}

impl Dialler {
    pub(crate) fn new(netns: Netns) -> Self {
        Self {
            netns,
            v4: Stock::default(),
            v6: Stock::default(),
            ports: RefCell::default(),
            new: RefCell::default(),
            older: RefCell::default(),
        }
    }

    /// Connects; from the address of `source` if given, else from the one the pod's routes choose; from its port, unless
    /// that is 0, taken, or none that connections come from. The connection is not kept alive yet.
    ///
    /// # Errors
    /// Those of [`sockets::connect`]; when the namespace cannot be entered.
    pub(crate) async fn dial(
        &self,
        source: Option<SocketAddr>,
        destination: SocketAddr,
        settings: &SocketSettings,
    ) -> io::Result<Dialled> {
        let stock = if destination.is_ipv4() { &self.v4 } else { &self.v6 };
        let socket = stock.take(|more| {
            self.netns.run(|| {
                let first = sockets::stream(destination)?;
                // The first is what was asked for; a shortage of descriptors is the next one's trouble.
                Ok((first, (0..more).map_while(|_| sockets::stream(destination).ok()).collect()))
            })
        })?;
        let range = self.range()?;
        let port = source.map(|source| source.port());
        let from = Source { address: source.map(|source| source.ip()), port, range: &range };
        let tcp = sockets::connect(socket, from, destination, settings).await?;
        Ok(Dialled(Some(tcp)))
    }

    fn range(&self) -> io::Result<RangeInclusive<u16>> {
        if let Some(range) = &*self.ports.borrow() {
            return Ok(range.clone());
        }
        let range = self.netns.run(|| Ok(ports::range()))?;
        Ok(self.ports.borrow_mut().insert(range).clone())
    }

    /// Has a connection kept alive if it lives for more than a moment. From now on it is the caller's to close.
    pub(crate) fn look_after(&self, dialled: Dialled) -> Rc<TcpStream> {
        let tcp = Rc::new(dialled.opened());
        self.new.borrow_mut().push(Rc::downgrade(&tcp));
        tcp
    }

    /// Looks after what was dialled. Call it every second.
    pub(crate) fn sweep(&self, settings: &SocketSettings) {
        let older = self.older.replace(self.new.take());
        for tcp in older.iter().filter_map(Weak::upgrade) {
            sockets::keep_alive(&*tcp, settings);
        }
        self.v4.sweep();
        self.v6.sweep();
    }
}

/// A connection that nobody uses yet. Dropped like that it ends with a reset: whoever it was dialled for is gone, which
/// its application must not take for an end, and its port does not wait.
pub(crate) struct Dialled(Option<TcpStream>);

impl Dialled {
    /// It is used from now on.
    pub(crate) fn opened(mut self) -> TcpStream {
        self.0.take().expect("taken only here, with self")
    }

    /// To say something first.
    pub(crate) fn tcp(&mut self) -> &mut TcpStream {
        self.0.as_mut().expect("taken only with self")
    }
}

impl Drop for Dialled {
    fn drop(&mut self) {
        if let Some(tcp) = &self.0 {
            // Fails only on a socket that is gone already.
            let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Stock {
    /// A socket that waits; else `make` makes one, and as many more as it is told.
    fn take(&self, make: impl FnOnce(usize) -> io::Result<(Socket, Vec<Socket>)>) -> io::Result<Socket> {
        let asked = self.asked.get();
        self.asked.set(asked + 1);
        if let Some(socket) = self.waiting.borrow_mut().pop() {
            return Ok(socket);
        }
        // As many as were asked for of late may well be asked for again.
        let (socket, more) = make(asked.min(MOST))?;
        self.waiting.replace(more);
        Ok(socket)
    }

    /// Lets go of what is more than was asked for in the last second.
    fn sweep(&self) {
        let asked = self.asked.take();
        self.waiting.borrow_mut().truncate(asked);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::sockets::OriginalSource;

    fn settings() -> SocketSettings {
        SocketSettings {
            ipv6: false,
            mark: None,
            reuse_port: false,
            keepalive: Some((Duration::from_secs(180), Duration::from_secs(60), 9)),
            user_timeout: true,
            original_source: OriginalSource::Off,
        }
    }

    fn dialler() -> Dialler {
        Dialler::new(Netns::new(std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()).unwrap())
    }

    #[test]
    fn sockets_are_made_ahead_while_they_are_asked_for() {
        let stock = Stock::default();
        let entries = Cell::new(0);
        let make = |more: usize| -> io::Result<(Socket, Vec<Socket>)> {
            entries.set(entries.get() + 1);
            let socket = || sockets::stream("127.0.0.1:1".parse().unwrap());
            Ok((socket()?, (0..more).map_while(|_| socket().ok()).collect()))
        };
        let take = |times| (0..times).for_each(|_| drop(stock.take(make).unwrap()));
        take(1);
        assert_eq!((entries.get(), stock.waiting.borrow().len()), (1, 0), "one is no burst");
        take(1_000);
        assert!(entries.get() < 1_000 / MOST + 10, "{} entries", entries.get());
        assert!(stock.waiting.borrow().len() <= MOST);
        // It is kept while it is of use, and no longer.
        take(1);
        stock.sweep();
        take(2);
        stock.sweep();
        assert!(stock.waiting.borrow().len() <= 2);
        stock.sweep();
        assert_eq!(stock.waiting.borrow().len(), 0);
    }

    /// Privileges for the mark are not at hand everywhere: what is tested is what comes after.
    #[tokio::test]
    async fn what_lives_for_a_second_is_kept_alive() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (dialler, settings) = (dialler(), settings());
        let dial = async || {
            let tcp = TcpStream::connect(listener.local_addr().unwrap()).await?;
            io::Result::Ok(Dialled(Some(tcp)))
        };
        let (short, long) = (dial().await.unwrap(), dial().await.unwrap());
        drop(dialler.look_after(short));
        let long = dialler.look_after(long);
        let kept = || SockRef::from(&*long).keepalive().unwrap();
        dialler.sweep(&settings);
        assert!(!kept(), "it is a moment old");
        dialler.sweep(&settings);
        assert!(kept());
        let socket = SockRef::from(&*long);
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(180));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(60));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 9);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(180 + 9 * 60)));
        assert!(dialler.new.borrow().is_empty() && dialler.older.borrow().is_empty());
    }

    #[tokio::test]
    async fn what_nobody_uses_ends_with_a_reset() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dialler, at) = (Dialler::new(Netns::own().unwrap()), listener.local_addr().unwrap());
        let unused = dialler.dial(None, at, &settings()).await.unwrap();
        let (mut application, _) = listener.accept().await.unwrap();
        drop(unused);
        let error = application.read(&mut [0]).await.expect_err("its end is none that anybody meant");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let used = dialler.dial(None, at, &settings()).await.unwrap().opened();
        let (mut application, _) = listener.accept().await.unwrap();
        drop(used);
        assert_eq!(application.read(&mut [0]).await.unwrap(), 0);
    }
}
