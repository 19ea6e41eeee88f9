//! A netlink socket in a network namespace.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::message::{self, Message, Received};

/// Longest datagram of the kernel's: dumps come in pieces of at most 32 KiB.
const LONGEST: usize = 64 << 10;
/// How often a dump is begun again that the kernel says was changed in the middle.
const DUMPS: usize = 8;
/// What a socket may send at once without asking for more (`net.core.wmem_default` of most machines).
const SEND_BUFFER: usize = 200 << 10;

/// Why the kernel's networking could not be reached, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace cannot be entered.
    #[error("cannot enter the network namespace (CAP_SYS_ADMIN is needed): {0}")]
    Enter(#[source] std::io::Error),
    /// There is no such socket, or it failed.
    #[error("netlink: {0}")]
    Socket(#[source] std::io::Error),
    /// The kernel refuses the request.
    #[error("{0}")]
    Refused(#[source] std::io::Error),
    /// The kernel answers in a way that cannot be read.
    #[error("the kernel's answer cannot be read")]
    Unreadable,
    /// What is listed changes faster than it can be read.
    #[error("the kernel's list changes while it is read, {DUMPS} times over")]
    Changing,
}

impl Error {
    /// What is asked for is not there.
    pub fn is_not_found(&self) -> bool {
        self.errno()
            .is_some_and(|errno| [Errno::NOENT, Errno::SRCH, Errno::NODEV, Errno::ADDRNOTAVAIL].contains(&errno))
    }

    /// What is to be made is there already.
    pub fn is_already_exists(&self) -> bool {
        self.errno() == Some(Errno::EXIST)
    }

    fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused(source) => Errno::from_io_error(source),
            _ => None,
        }
    }
}

/// A socket of one protocol family, in one namespace.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: std::cell::Cell<u32>,
}

impl Socket {
    /// Opens one in a namespace. `protocol` is `NETLINK_ROUTE` or `NETLINK_NETFILTER`.
    pub(crate) fn open_in(netns: BorrowedFd<'_>, protocol: Option<rustix::net::Protocol>) -> Result<Self, Error> {
        // A namespace belongs to a thread, and a thread that enters one cannot always return: so it gets one of its own. A
        // socket stays where it was made.
        let fd = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, move || {
                move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
                    .map_err(|errno| Error::Enter(errno.into()))?;
                rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
                    .map_err(|errno| Error::Socket(errno.into()))
            });
            thread.map_err(Error::Enter)?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        Ok(Self { fd, sequence: std::cell::Cell::new(1) })
    }

    fn next_sequence(&self) -> u32 {
        let sequence = self.sequence.get();
        self.sequence.set(sequence.wrapping_add(1));
        sequence
    }

    /// Asks for one thing to be done.
    pub(crate) fn request(&self, message: Message) -> Result<(), Error> {
        self.transact(vec![message.flagged(libc::NLM_F_ACK)])
    }

    /// Sends messages at once, and returns when the kernel has acknowledged the last that asks for that, or refused one.
    pub(crate) fn transact(&self, messages: Vec<Message>) -> Result<(), Error> {
        let (mut bytes, mut last) = (Vec::new(), 0);
        let first = self.sequence.get();
        for message in messages {
            let sequence = self.next_sequence();
            let message = message.finish(sequence);
            if i32::from(u16::from_ne_bytes([message[6], message[7]])) & libc::NLM_F_ACK != 0 {
                last = sequence;
            }
            bytes.extend_from_slice(&message);
        }
        self.send(&bytes)?;
        let mut buffer = vec![0; LONGEST];
        loop {
            for message in self.receive(&mut buffer)? {
                // What an earlier request that failed left unread.
                if message.sequence.wrapping_sub(first) > last.wrapping_sub(first) {
                    continue;
                }
                if i32::from(message.kind) == libc::NLMSG_ERROR {
                    acknowledged(message.body)?;
                    if message.sequence == last {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Asks for one thing, and returns the answer's body as `read` understands it.
    pub(crate) fn get<T>(&self, message: Message, read: impl Fn(&[u8]) -> Option<T>) -> Result<T, Error> {
        let sequence = self.next_sequence();
        self.send(&message.finish(sequence))?;
        let mut buffer = vec![0; LONGEST];
        loop {
            let answer = self.receive(&mut buffer)?.find(|message| message.sequence == sequence);
            let Some(answer) = answer else { continue };
            if i32::from(answer.kind) == libc::NLMSG_ERROR {
                acknowledged(answer.body)?;
                return Err(Error::Unreadable);
            }
            return read(answer.body).ok_or(Error::Unreadable);
        }
    }

    /// Lists what there is: every answer's body, as `read` understands it; those that it does not are left out.
    pub(crate) fn dump<T>(&self, message: &Message, read: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>, Error> {
        for _ in 0..DUMPS {
            if let Some(all) = self.dump_once(message.clone().flagged(libc::NLM_F_DUMP), &read)? {
                return Ok(all);
            }
        }
        Err(Error::Changing)
    }

    /// `None` if what is listed changed in the middle.
    fn dump_once<T>(&self, message: Message, read: impl Fn(&[u8]) -> Option<T>) -> Result<Option<Vec<T>>, Error> {
        let sequence = self.next_sequence();
        self.send(&message.finish(sequence))?;
        let (mut all, mut whole) = (Vec::new(), true);
        let mut buffer = vec![0; LONGEST];
        loop {
            for message in self.receive(&mut buffer)?.filter(|message| message.sequence == sequence) {
                whole &= i32::from(message.flags) & libc::NLM_F_DUMP_INTR == 0;
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(whole.then_some(all)),
                    libc::NLMSG_ERROR => acknowledged(message.body)?,
                    _ => all.extend(read(message.body)),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() > SEND_BUFFER {
            // The kernel takes a transaction in one piece. Only the machine's root may ask for more than its limit.
            let room = bytes.len() * 2;
            rustix::net::sockopt::set_socket_send_buffer_size_force(&self.fd, room)
                .or_else(|_| rustix::net::sockopt::set_socket_send_buffer_size(&self.fd, room))
                .map_err(|errno| Error::Socket(errno.into()))?;
        }
        let kernel = SocketAddrNetlink::new(0, 0);
        let sent = rustix::io::retry_on_intr(|| rustix::net::sendto(&self.fd, bytes, SendFlags::empty(), &kernel));
        match sent {
            Ok(_) => Ok(()),
            Err(Errno::MSGSIZE) => Err(Error::Socket(std::io::Error::other(format!(
                "{} bytes of rules at once are more than this machine allows: raise net.core.wmem_max (as root: sysctl)",
                bytes.len()
            )))),
            Err(errno) => Err(Error::Socket(errno.into())),
        }
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<impl Iterator<Item = Received<'a>>, Error> {
        let (_, len) = rustix::io::retry_on_intr(|| rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::TRUNC))
            .map_err(|errno| Error::Socket(errno.into()))?;
        let bytes = buffer.get(..len).ok_or(Error::Unreadable)?;
        if message::messages(bytes).next().is_none() {
            return Err(Error::Unreadable);
        }
        Ok(message::messages(bytes))
    }
}

/// The body of `NLMSG_ERROR`: an error's number below zero, or zero.
fn acknowledged(body: &[u8]) -> Result<(), Error> {
    let code = body.get(..4).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes).ok_or(Error::Unreadable)?;
    if code == 0 { Ok(()) } else { Err(Error::Refused(std::io::Error::from_raw_os_error(code.saturating_neg()))) }
}
