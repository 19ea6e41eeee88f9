//! Carry bytes between two streams, count them, pass half-closes on.
//!
//! A connection that moves nothing holds no buffer. Between an application and a tunnel bytes go from the socket
//! straight into the record in which they leave, and from the record in which they came straight into the socket.
//! Between two sockets they pass through a buffer of the thread, and when there are many, through a pipe, without
//! being looked at.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Sleep;

pub use crate::count::Count;

use crate::http2::frame;
use crate::http2::stream::{Incoming, Left, Sink};
use crate::pipe::Pipe;
use crate::stream::{Receiver, Sender, Tunnel, TunnelError};
use crate::tls::record::MAX_PLAINTEXT;
use crate::turn::Turn;

/// First read of a connection, in bytes: what leaves in one record.
const MIN_READ: usize = MAX_PLAINTEXT - frame::HEADER;
/// Largest read, in bytes: no more than what is sent at once.
const MAX_READ: usize = 240 << 10;

thread_local! {
    /// What is on its way between two sockets while this thread moves it.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
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
    /// An application left the last bytes of a peer that had ended well where they were.
    #[error("the application took none of what its caller had left for it within {} s", .0.as_secs_f32())]
    Untaken(Duration),
}

/// Carries bytes between a local connection and a tunnel until both directions have ended.
///
/// # Errors
/// When one side breaks; the other is then broken off too, so that neither application takes a cut for an end.
///
/// Dropping the future breaks both off, too.
pub async fn tcp_and_tunnel(
    tcp: impl Into<Rc<TcpStream>>,
    mut tunnel: Tunnel,
    count: Rc<dyn Count>,
) -> Result<(), CarryError> {
    let tcp = tcp.into();
    let unless_ended = BreakOff(&tcp);
    tunnel.receiver.pour_into(Sink { tcp: tcp.clone(), count: count.clone() });
    let said_all = Cell::new(false);
    let forth = async {
        match to_tunnel(&tcp, &mut tunnel.sender, &*count).await {
            // The peer takes no more, but may have answered in full before it said so: the way back tells, by its
            // end or by the same reset. A peer that is cut off may still be owed the rest.
            Err(CarryError::Tunnel(error)) if error != TunnelError::Revoked => Ok(()),
            other => {
                said_all.set(true);
                other
            }
        }
    };
    let back = from_tunnel(&mut tunnel.receiver, &tcp, &*count, &said_all);
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
pub async fn tcp_and_tcp(
    local: TcpStream,
    remote: impl Into<Rc<TcpStream>>,
    count: Rc<dyn Count>,
) -> Result<(), CarryError> {
    let remote = remote.into();
    let unless_ended = (BreakOff(&local), BreakOff(&remote));
    let forth = pump(&local, &remote, CarryError::Local, CarryError::Remote, |n| count.forth(n));
    let back = pump(&remote, &local, CarryError::Remote, CarryError::Local, |n| count.back(n));
    tokio::try_join!(forth, back)?;
    unless_ended.0.ended();
    unless_ended.1.ended();
    Ok(())
}

async fn to_tunnel(tcp: &TcpStream, sender: &mut Sender, count: &dyn Count) -> Result<(), CarryError> {
    let (mut size, mut turn) = (MIN_READ, Turn::default());
    loop {
        readable(tcp).await.map_err(CarryError::Local)?;
        let most = room(sender, tcp).await?.min(size);
        // There may be less room in the buffer than in the window.
        let mut asked = 0;
        let read = sender.send_from(most, |slices| {
            asked = slices.iter().map(|slice| slice.len()).sum();
            match slices {
                [piece] => tcp.try_read(piece),
                _ => tcp.try_read_vectored(slices),
            }
        });
        match read {
            Ok(0) => return Ok(sender.finish()?),
            Ok(read) => {
                count.forth(read);
                after_read(tcp, read, asked, &mut size);
                turn.moved(read).await;
            }
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(CarryError::Local(error)),
        }
    }
}

/// Waits until the peer takes bytes; returns how many. An application that breaks its connection off meanwhile is not
/// waited for.
async fn room(sender: &Sender, tcp: &TcpStream) -> Result<usize, CarryError> {
    if let Some(room) = now(|cx| sender.poll_room(cx)).await {
        return Ok(room.map_err(TunnelError::from)?);
    }
    // Boxed: it is needed seldom, and a task is as large as the largest thing it ever awaits in place.
    Box::pin(async {
        tokio::select! {
            biased;
            room = sender.room() => Ok(room?),
            error = broken_off(tcp) => Err(CarryError::Local(error)),
        }
    })
    .await
}

/// Resolves when the far end of a connection has broken it off, or the network has. An orderly end does not count.
async fn broken_off(tcp: &TcpStream) -> io::Error {
    match tcp.ready(Interest::ERROR).await {
        Ok(_) => tcp.take_error().ok().flatten().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
        Err(error) => error,
    }
}

/// What `poll` gives at once, if anything.
async fn now<T>(mut poll: impl FnMut(&Context<'_>) -> Poll<T>) -> Option<T> {
    poll_fn(|cx| {
        Poll::Ready(match poll(cx) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}

/// What the socket does not take at once comes through here, and the end. When the application has said all (`said_all`)
/// the socket is about to be closed, which ends this direction as well.
async fn from_tunnel(
    receiver: &mut Receiver,
    tcp: &TcpStream,
    count: &dyn Count,
    said_all: &Cell<bool>,
) -> Result<(), CarryError> {
    let mut turn = Turn::default();
    loop {
        match poll_fn(|cx| receiver.poll_incoming(cx)).await {
            Incoming::Bytes(bytes) => {
                hand_over(tcp, &bytes, receiver).await?;
                receiver.taken(bytes.len());
                count.back(bytes.len());
                turn.moved(bytes.len()).await;
            }
            Incoming::End if said_all.get() => return Ok(()),
            Incoming::End => return shut_down_write(tcp).map_err(CarryError::Local),
            Incoming::Broken(broken) => return Err(TunnelError::from(broken).into()),
            Incoming::SinkFailed(error) => return Err(CarryError::Local(error)),
        }
    }
}

/// Writes what an application did not take at once, while there is somebody to whom that matters: a peer that was cut
/// off has lost the rest anyway, so its application is told by a reset; one that has said all and gone leaves bytes that
/// wait for as long as the application takes some now and then.
async fn hand_over(tcp: &TcpStream, mut data: &[u8], receiver: &Receiver) -> Result<(), CarryError> {
    let mut patience: Option<Pin<Box<Sleep>>> = None;
    while !data.is_empty() {
        match tcp.try_write(data) {
            Ok(n) => {
                data = &data[n..];
                patience = None;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CarryError::Local(error)),
        }
        poll_fn(|cx| {
            if let Poll::Ready(writable) = tcp.poll_write_ready(cx) {
                return Poll::Ready(writable.map_err(CarryError::Local));
            }
            match receiver.poll_left(cx) {
                None => Poll::Pending,
                Some(Left::Cut(broken)) => Poll::Ready(Err(TunnelError::from(broken).into())),
                Some(Left::Finished) => {
                    let limit = receiver.left_timeout();
                    let timer = patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                    ready!(timer.as_mut().poll(cx));
                    Poll::Ready(Err(CarryError::Untaken(limit)))
                }
            }
        })
        .await?;
    }
    Ok(())
}

/// One direction between two TCP connections.
async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    read_failed: fn(io::Error) -> CarryError,
    write_failed: fn(io::Error) -> CarryError,
    count: impl Fn(usize),
) -> Result<(), CarryError> {
    let (mut size, mut turn) = (MIN_READ, Turn::default());
    loop {
        readable(from).await.map_err(read_failed)?;
        if size == MAX_READ
            && let Some(pipe) = Pipe::take()
        {
            match splice(pipe, from, to, &read_failed, &write_failed, &count).await? {
                Spliced::End => return shut_down_write(to).map_err(write_failed),
                Spliced::Dry => size = MIN_READ,
            }
            continue;
        }
        let passed = BUFFER.with_borrow_mut(|buffer| {
            if buffer.is_empty() {
                buffer.resize(MAX_READ, 0);
            }
            let read = match from.try_read(&mut buffer[..size]) {
                Ok(0) => return Ok(Some((0, Vec::new()))),
                Ok(read) => read,
                Err(error) if is_transient(&error) => return Ok(None),
                Err(error) => return Err(read_failed(error)),
            };
            let written = match to.try_write(&buffer[..read]) {
                Ok(written) => written,
                Err(error) if is_transient(&error) => 0,
                Err(error) => return Err(write_failed(error)),
            };
            Ok(Some((read, buffer[written..read].to_vec())))
        })?;
        let Some((read, rest)) = passed else { continue };
        if read == 0 {
            return shut_down_write(to).map_err(write_failed);
        }
        let asked = size;
        after_read(from, read, asked, &mut size);
        let mut rest = &rest[..];
        while !rest.is_empty() {
            match to.try_write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    writable(to, from, &read_failed, &write_failed).await?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(write_failed(error)),
            }
        }
        count(read);
        turn.moved(read).await;
    }
}

/// Why splicing stopped.
enum Spliced {
    /// The sender has finished.
    End,
    /// Nothing more for now: the pipe is better used by others.
    Dry,
}

/// Moves bytes from socket to socket through a pipe, in the kernel, while there are any.
async fn splice(
    pipe: Pipe,
    from: &TcpStream,
    to: &TcpStream,
    read_failed: &fn(io::Error) -> CarryError,
    write_failed: &fn(io::Error) -> CarryError,
    count: &impl Fn(usize),
) -> Result<Spliced, CarryError> {
    let mut turn = Turn::default();
    loop {
        let inside = match from.try_io(Interest::READABLE, || pipe.fill(from)) {
            Ok(0) => {
                pipe.give_back();
                return Ok(Spliced::End);
            }
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                pipe.give_back();
                return Ok(Spliced::Dry);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_failed(error)),
        };
        let mut left = inside;
        while left > 0 {
            match to.try_io(Interest::WRITABLE, || pipe.empty(to, left)) {
                Ok(bytes) => {
                    left -= bytes;
                    count(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    writable(to, from, read_failed, write_failed).await?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(write_failed(error)),
            }
        }
        turn.moved(inside).await;
    }
}

async fn readable(tcp: &TcpStream) -> io::Result<()> {
    poll_fn(|cx| tcp.poll_read_ready(cx)).await
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// A full read grows the next. After a short one the socket is known to be empty, which saves asking it.
fn after_read(tcp: &TcpStream, read: usize, asked: usize, size: &mut usize) {
    if read == asked {
        if asked >= *size {
            *size = (*size * 4).min(MAX_READ);
        }
    } else {
        let _ = tcp.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
}

/// Waits until `to` takes bytes again. If `from`, which sent them, breaks off meanwhile, the rest is lost with it.
async fn writable(
    to: &TcpStream,
    from: &TcpStream,
    read_failed: &fn(io::Error) -> CarryError,
    write_failed: &fn(io::Error) -> CarryError,
) -> Result<(), CarryError> {
    // Boxed: needed by few.
    Box::pin(async {
        tokio::select! {
            biased;
            writable = poll_fn(|cx| to.poll_write_ready(cx)) => writable.map_err(write_failed),
            error = broken_off(from) => Err(read_failed(error)),
        }
    })
    .await
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
