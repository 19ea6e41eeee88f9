//! Carry bytes between two streams, count them, pass half-closes on.
//!
//! A connection that moves nothing holds no buffer: one is made when bytes can be read and given up when they
//! cannot. It grows with what the reads bring, from [`MIN_BUFFER`] to [`MAX_BUFFER`].

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;

use crate::stream::{Receiver, Sender, Tunnel, TunnelError};

/// First read of a connection, in bytes.
pub const MIN_BUFFER: usize = 4 << 10;
/// Largest read, in bytes: the most that one direction of a connection holds.
pub const MAX_BUFFER: usize = 256 << 10;

/// Told of bytes as they pass.
pub trait Count {
    /// Bytes read from the first stream and handed to the second.
    fn forth(&self, bytes: usize);
    /// Bytes read from the second stream and handed to the first.
    fn back(&self, bytes: usize);
}

/// Why carrying ended before both directions did.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// The local connection.
    #[error("local connection: {0}")]
    Local(#[source] io::Error),
    /// The connection to a plain destination.
    #[error("remote connection: {0}")]
    Remote(#[source] io::Error),
    /// The tunnel.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
}

/// Carries bytes between a local connection and a tunnel until both directions have ended.
///
/// # Errors
/// When one side breaks; the other is then broken off too, so that neither application takes a cut for an end.
///
/// Dropping the future breaks both off, too.
pub async fn tcp_and_tunnel(tcp: TcpStream, mut tunnel: Tunnel, count: &impl Count) -> Result<(), CarryError> {
    let unless_ended = BreakOff(&tcp);
    let forth = async {
        match to_tunnel(&tcp, &mut tunnel.sender, count).await {
            // The peer takes no more, but may have answered in full before it said so: the way back tells, by its
            // end or by the same reset.
            Err(CarryError::Tunnel(_)) => Ok(()),
            other => other,
        }
    };
    let back = from_tunnel(&mut tunnel.receiver, &tcp, count);
    match tokio::try_join!(forth, back) {
        Ok(((), ())) => {
            unless_ended.ended();
            Ok(())
        }
        Err(error) => {
            tunnel.sender.reset();
            Err(error)
        }
    }
}

/// Carries bytes between two TCP connections until both directions have ended.
///
/// # Errors
/// When one side breaks; the other is then broken off too. Dropping the future breaks both off, too.
pub async fn tcp_and_tcp(local: TcpStream, remote: TcpStream, count: &impl Count) -> Result<(), CarryError> {
    let unless_ended = (BreakOff(&local), BreakOff(&remote));
    let forth = pump(&local, &remote, CarryError::Local, CarryError::Remote, |n| count.forth(n));
    let back = pump(&remote, &local, CarryError::Remote, CarryError::Local, |n| count.back(n));
    tokio::try_join!(forth, back)?;
    unless_ended.0.ended();
    unless_ended.1.ended();
    Ok(())
}

async fn to_tunnel(tcp: &TcpStream, sender: &mut Sender, count: &impl Count) -> Result<(), CarryError> {
    let mut size = MIN_BUFFER;
    loop {
        let Some(data) = read(tcp, &mut size).await.map_err(CarryError::Local)? else {
            sender.finish()?;
            return Ok(());
        };
        count.forth(data.len());
        sender.send(data).await?;
    }
}

async fn from_tunnel(receiver: &mut Receiver, tcp: &TcpStream, count: &impl Count) -> Result<(), CarryError> {
    while let Some(data) = receiver.receive().await? {
        write(tcp, &data).await.map_err(CarryError::Local)?;
        receiver.taken(data.len());
        count.back(data.len());
    }
    shut_down_write(tcp).map_err(CarryError::Local)
}

/// One direction between two TCP connections.
async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    read_failed: fn(io::Error) -> CarryError,
    write_failed: fn(io::Error) -> CarryError,
    count: impl Fn(usize),
) -> Result<(), CarryError> {
    let mut size = MIN_BUFFER;
    while let Some(data) = read(from, &mut size).await.map_err(read_failed)? {
        write(to, &data).await.map_err(write_failed)?;
        count(data.len());
    }
    shut_down_write(to).map_err(write_failed)
}

/// What can be read now, at most `size` bytes; waits without a buffer. `None` at the end. A full read grows `size`.
async fn read(tcp: &TcpStream, size: &mut usize) -> io::Result<Option<Bytes>> {
    loop {
        tcp.readable().await?;
        let mut buffer = BytesMut::with_capacity(*size);
        match tcp.try_read_buf(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(n) => {
                if n == *size {
                    *size = (*size * 4).min(MAX_BUFFER);
                }
                return Ok(Some(buffer.freeze()));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

async fn write(tcp: &TcpStream, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match tcp.try_write(data) {
            Ok(n) => data = &data[n..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => tcp.writable().await?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Passes a half-close on. A connection that the other side has closed already has nothing left to shut down.
fn shut_down_write(tcp: &TcpStream) -> io::Result<()> {
    match socket2::SockRef::from(tcp).shutdown(std::net::Shutdown::Write) {
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
        other => other,
    }
}

/// Makes the close of a connection a reset, unless both of its directions have ended: its application must not take
/// a cut for an end.
struct BreakOff<'a>(&'a TcpStream);

impl BreakOff<'_> {
    fn ended(self) {
        std::mem::forget(self);
    }
}

impl Drop for BreakOff<'_> {
    fn drop(&mut self) {
        // Fails only on a socket that is gone already.
        let _ = socket2::SockRef::from(self.0).set_linger(Some(std::time::Duration::ZERO));
    }
}
