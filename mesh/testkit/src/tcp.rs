//! Two ends of one TCP connection over loopback.

use tokio::net::{TcpListener, TcpStream};

/// A connected pair.
pub async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("bound");
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialled.expect("connected"), accepted.expect("accepted").0)
}
