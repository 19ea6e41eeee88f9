//! A `SOCK_SEQPACKET` Unix socket on tokio: packets with their descriptors, nothing of what they mean.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use tokio::io::unix::AsyncFd;

use crate::message::MAX_PACKET;

/// Room for more descriptors than any message carries, so that too many are seen as such and closed.
const MAX_DESCRIPTORS: usize = 4;

/// One received packet.
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Why no packet was received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecvError {
    #[error("the peer closed the socket")]
    Closed,
    #[error("the packet or its descriptors were truncated: more than {MAX_PACKET} bytes, or too many descriptors")]
    Truncated,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One end of a connection.
pub(crate) struct PacketSocket(AsyncFd<OwnedFd>);

impl PacketSocket {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        register(fd).map(Self)
    }

    /// Connects to the socket at `path`. A full backlog is an error, not a wait: the caller dials again.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let fd = new_socket()?;
        rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
        Self::new(fd)
    }

    /// Sends one packet, with the descriptor if there is one. Dropped before it is done, nothing was sent.
    pub(crate) async fn send(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let sent = self
            .0
            .async_io(tokio::io::Interest::WRITABLE, |fd| {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let descriptors = descriptor.map(|fd| [fd]);
                if let Some(descriptors) = &descriptors {
                    control.push(SendAncillaryMessage::ScmRights(descriptors));
                }
                Ok(rustix::net::sendmsg(fd, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
            })
            .await?;
        if sent == bytes.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
    }

    /// Receives one packet. Cancel-safe: dropped before it is done, nothing was taken.
    pub(crate) async fn recv(&self) -> Result<Packet, RecvError> {
        let received = self.0.async_io(tokio::io::Interest::READABLE, |fd| {
            let mut bytes = vec![0; MAX_PACKET];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC;
            let got = rustix::net::recvmsg(fd, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
            let mut descriptors = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    descriptors.extend(rights);
                }
            }
            bytes.truncate(got.bytes);
            Ok((Packet { bytes, descriptors }, got.flags))
        });
        let (packet, flags) = match received.await {
            // A peer that dies with our last packet unread resets instead of closing.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(RecvError::Closed),
            received => received?,
        };
        if flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(RecvError::Truncated);
        }
        // No ZDS message is empty: nothing means the end.
        if packet.bytes.is_empty() {
            return Err(RecvError::Closed);
        }
        Ok(packet)
    }
}

/// A listening socket.
pub(crate) struct PacketListener(AsyncFd<OwnedFd>);

impl PacketListener {
    /// Listens at `path`, taking the place of a socket that a predecessor left there. Only the owner may connect:
    /// who connects is handed the network namespaces of the node's pods.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let fd = new_socket()?;
        // Before bind, so that the file never exists with wider rights.
        rustix::fs::fchmod(&fd, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
        rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&fd, 16)?;
        register(fd).map(Self)
    }

    pub(crate) async fn accept(&self) -> io::Result<PacketSocket> {
        let fd = self
            .0
            .async_io(tokio::io::Interest::READABLE, |fd| {
                Ok(rustix::net::accept_with(fd.as_fd(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
            })
            .await?;
        PacketSocket::new(fd)
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

#[allow(unsafe_code, reason = "tokio cannot know that what it polls stays open")]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the AsyncFd owns the descriptor; nothing here takes it out or closes it before the AsyncFd is dropped.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}
