//! TCP over loopback: two ends of one connection, and applications that listen.

use std::future::Future;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

/// A connected pair.
pub async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("bound");
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialled.expect("connected"), accepted.expect("accepted").0)
}

/// Serves every connection to a new port, each as a task of this thread's `LocalSet`. Where it listens.
pub async fn listen<F>(serve: impl Fn(TcpStream) -> F + 'static) -> SocketAddr
where
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("bound");
    spawn_local(async move {
        loop {
            spawn_local(serve(listener.accept().await.expect("accepted").0));
        }
    });
    address
}

/// An application that says again what it hears, as it hears it.
pub async fn echo() -> SocketAddr {
    listen(async |mut tcp| {
        let (mut read, mut write) = tcp.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

/// An application that answers the upper case of all it heard, once the caller has finished: a half-close that gets
/// lost shows.
pub async fn shouting() -> SocketAddr {
    listen(async |mut tcp| {
        let mut heard = Vec::new();
        if tcp.read_to_end(&mut heard).await.is_ok() {
            heard.make_ascii_uppercase();
            let _ = tcp.write_all(&heard).await;
        }
    })
    .await
}

/// An application that hears a byte, says `half of`, hears another byte and breaks off with a reset.
pub async fn breaking_off() -> SocketAddr {
    listen(async |mut tcp| {
        let said = async {
            tcp.read_u8().await?;
            tcp.write_all(b"half of").await?;
            tcp.read_u8().await
        };
        if said.await.is_ok() {
            tcp.set_zero_linger().expect("a socket");
        }
    })
    .await
}
