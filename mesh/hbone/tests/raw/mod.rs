//! Peers that write frames by hand.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_identity::tls::{Credentials, dial_name};
use mesh_model::identity::SpiffeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub use mesh_testkit::frames::*;

/// `:method: CONNECT`, `:authority: 10.0.0.1:80`.
pub const CONNECT: &[u8] = b"\x02\x07CONNECT\x01\x0b10.0.0.1:80";
/// `:status: 200`
pub const OK: &[u8] = b"\x88";

/// Dials `address` as `who`.
pub async fn dial(
    address: SocketAddr,
    who: &Credentials,
    expected: &SpiffeId,
) -> std::io::Result<client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let config = who.client_config(std::slice::from_ref(expected));
    TlsConnector::from(config).connect(dial_name(), tcp).await
}

/// Answers one caller as `who`.
pub async fn answer(tcp: TcpStream, who: &Credentials) -> std::io::Result<server::TlsStream<TcpStream>> {
    TlsAcceptor::from(Arc::clone(&who.server_config())).accept(tcp).await
}

/// Reads until the peer ends the connection, however it does.
pub async fn drain(stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut buffer = vec![0; 64 << 10];
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

/// Reads frames until one of this kind has these flags.
pub async fn until_frame(stream: &mut (impl AsyncReadExt + Unpin), kind: u8, flags: u8) {
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).await.unwrap();
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
        if header[3] == kind && header[4] & flags == flags {
            return;
        }
    }
}

/// Says `bytes`; false when the peer does not listen any more.
pub async fn say(stream: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) -> bool {
    stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok()
}
