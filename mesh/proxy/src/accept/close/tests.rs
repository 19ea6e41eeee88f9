use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use socket2::{Domain, Protocol, Socket, Type};

use super::*;

/// One more listener of a group on loopback.
fn listener(at: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP)).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&at.into()).unwrap();
    socket.listen(BACKLOG).unwrap();
    TcpListener::from_std(socket.into()).unwrap()
}

/// Where the kernel gives nobody to another listener, nobody is turned away either: listeners close one after another
/// under a stream of connections, each of which must be answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_kernels_help_nobody_is_turned_away() {
    const CLIENTS: usize = 4;
    let first = listener(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let at = first.local_addr().unwrap();
    let answer = |tcp: TcpStream, _: SocketAddr| {
        tokio::spawn(async move { tcp.writable().await.and_then(|()| tcp.try_write(b"!").map(drop)) });
    };
    let successor = listener(at);
    tokio::spawn(async move {
        loop {
            let (tcp, peer) = successor.accept().await.unwrap();
            answer(tcp, peer);
        }
    });
    let (ended, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (ended, answered) = (ended.clone(), answered.clone());
            std::thread::spawn(move || {
                while !ended.load(Ordering::SeqCst) {
                    let mut tcp = std::net::TcpStream::connect(at)?;
                    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
                    tcp.write_all(b"?")?;
                    tcp.read_exact(&mut [0])?;
                    answered.fetch_add(1, Ordering::SeqCst);
                }
                Ok::<(), io::Error>(())
            })
        })
        .collect();
    let mut next = Some(first);
    for _ in 0..5 {
        let old = next.take().unwrap();
        // It serves before it closes, as the others do.
        let before = answered.load(Ordering::SeqCst);
        while answered.load(Ordering::SeqCst) < before + 20 {
            if let Ok(Ok((tcp, peer))) = tokio::time::timeout(Duration::from_millis(20), old.accept()).await {
                answer(tcp, peer);
            }
        }
        close(old, false, answer).await;
        next = Some(listener(at));
    }
    ended.store(true, Ordering::SeqCst);
    // The last one serves whoever it was given.
    close(next.take().unwrap(), false, answer).await;
    for client in clients {
        tokio::task::spawn_blocking(|| client.join().unwrap()).await.unwrap().expect("every connection is answered");
    }
    assert!(answered.load(Ordering::SeqCst) > 100);
}
