//! Connections that have proved to work and then stay idle.
use super::PATIENCE;
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How many are opened at a time.
const AT_ONCE: usize = 32;

/// Opens them all, each with one byte there and back.
pub(super) async fn open(address: SocketAddr, connections: u32) -> Result<Vec<TcpStream>> {
    let mut held = Vec::new();
    let mut opening = JoinSet::new();
    for _ in 0..connections {
        if opening.len() >= AT_ONCE
            && let Some(opened) = opening.join_next().await
        {
            held.push(opened??);
        }
        opening.spawn(async move { timeout(PATIENCE, open_one(address)).await.context("a connection took too long")? });
    }
    while let Some(opened) = opening.join_next().await {
        held.push(opened??);
    }
    Ok(held)
}

async fn open_one(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("cannot reach {address}"))?;
    stream.write_all(b"x").await?;
    ensure!(stream.read_u8().await? == b'x', "the echo changed a byte");
    Ok(stream)
}
