//! Connections that one worker opens from inside a pod's namespace.
//!
//! Entering a namespace and leaving it again costs as much as making the socket for whose sake it is done: under load
//! one visit makes several. They wait here, neither bound nor connected, so none grows stale. And what only matters to a
//! connection that is idle for minutes is set on those that have lived for a second; most do not.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};

use socket2::Socket;
use tokio::net::TcpStream;

use crate::sockets::{self, Netns, SocketSettings};

/// Most sockets of a family that wait: descriptors that nobody may come to use.
const MOST: usize = 16;

/// Opens connections from inside a pod's namespace.
pub(crate) struct Dialler {
    netns: Netns,
    v4: Stock,
    v6: Stock,
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
        Self { netns, v4: Stock::default(), v6: Stock::default(), new: RefCell::default(), older: RefCell::default() }
    }

    /// Connects; from `source` if given, else from the address the pod's routes choose. The connection is not kept
    /// alive yet.
    ///
    /// # Errors
    /// Those of [`sockets::connect`]; when the namespace cannot be entered.
    pub(crate) async fn dial(
        &self,
        source: Option<IpAddr>,
        destination: SocketAddr,
        settings: &SocketSettings,
    ) -> io::Result<TcpStream> {
        let stock = if destination.is_ipv4() { &self.v4 } else { &self.v6 };
        let socket = stock.take(|more| {
            self.netns.run(|| {
                let first = sockets::stream(destination)?;
                // The first is what was asked for; a shortage of descriptors is the next one's trouble.
                Ok((first, (0..more).map_while(|_| sockets::stream(destination).ok()).collect()))
            })
        })?;
        sockets::connect(socket, source, destination, settings).await
    }

    /// Has a connection kept alive if it lives for more than a moment.
    pub(crate) fn look_after(&self, tcp: TcpStream) -> Rc<TcpStream> {
        let tcp = Rc::new(tcp);
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
    use std::time::Duration;

    use socket2::SockRef;

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
        let visits = Cell::new(0);
        let make = |more: usize| -> io::Result<(Socket, Vec<Socket>)> {
            visits.set(visits.get() + 1);
            let socket = || sockets::stream("127.0.0.1:1".parse().unwrap());
            Ok((socket()?, (0..more).map_while(|_| socket().ok()).collect()))
        };
        let take = |times| (0..times).for_each(|_| drop(stock.take(make).unwrap()));
        take(1);
        assert_eq!((visits.get(), stock.waiting.borrow().len()), (1, 0), "one is no burst");
        take(1_000);
        assert!(visits.get() < 1_000 / MOST + 10, "{} visits", visits.get());
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
        let dial = || TcpStream::connect(listener.local_addr().unwrap());
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
}
