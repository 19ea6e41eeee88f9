//! Asking others. The query leaves from the pod's own network, as if the pod had asked, but with ztunnel's mark: so it
//! is neither captured again nor taken for the flow that was (Trap 9). It goes byte for byte but for its id; its port and
//! id are new each time, so that nobody can guess them and answer first (RFC 5452).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use mesh_model::reason::ReasonCode;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout, timeout_at};

use super::message;
use crate::sockets::{self, Netns, SocketSettings};

/// How long a query may take in all: resolvers ask again after 5 s, and are better told that it failed.
const PATIENCE: Duration = Duration::from_millis(4500);
/// Most questions sent over UDP for one query.
const UDP_TRIES: usize = 3;
/// How long one of them is waited for before the next is sent.
const UDP_WAIT: Duration = Duration::from_millis(1500);

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody to ask.
    NoServers,
    /// Each that was asked, and what became of it.
    Unanswered(Vec<(SocketAddr, io::Error)>),
}

impl Failure {
    /// Its stable code; documented in `docs/reasons.md`.
    pub(crate) fn code(&self) -> ReasonCode {
        match self {
            Self::NoServers => ReasonCode::DnsNoNameserver,
            Self::Unanswered(_) => ReasonCode::DnsUpstreamFailed,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServers => f.write_str(
                "ztunnel's /etc/resolv.conf names no server that can be asked from inside a pod: give ztunnel a \
                 dnsPolicy with one that is not on loopback",
            ),
            Self::Unanswered(tries) => {
                f.write_str(
                    "no name server of ztunnel's /etc/resolv.conf answered from inside the pod's network (does a \
                     NetworkPolicy keep the pod from port 53?)",
                )?;
                tries.iter().try_for_each(|(server, error)| write!(f, "; {server}: {error}"))
            }
        }
    }
}

/// Asks the servers in turn until one answers. What a server answers is an answer, an error included; only where one
/// says that it failed, the next is asked, too. Who was asked is listened to until the end: a slow server's answer to
/// the first question is as good as to the last.
pub(crate) async fn ask(
    netns: &Netns,
    settings: &SocketSettings,
    servers: &[SocketAddr],
    query: &[u8],
    tcp: bool,
) -> Result<Vec<u8>, Failure> {
    if servers.is_empty() {
        return Err(Failure::NoServers);
    }
    let deadline = Instant::now() + PATIENCE;
    // A client that came over TCP is served by a server that has only UDP, too.
    let mut attempts: VecDeque<(SocketAddr, bool)> = match tcp {
        true => [true, false].iter().flat_map(|tcp| servers.iter().map(|server| (*server, *tcp))).collect(),
        false => servers.iter().cycle().take(UDP_TRIES).map(|server| (*server, false)).collect(),
    };
    let mut asked: Vec<Attempt<'_>> = Vec::with_capacity(attempts.len());
    let mut tries = Vec::new();
    let mut failed: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut patience = left;
        if let Some((server, tcp)) = attempts.pop_front().filter(|_| !left.is_zero()) {
            // Until the next is asked; the last one has all that is left.
            patience = match tcp {
                _ if attempts.is_empty() => left,
                true => left / u32::try_from(attempts.len() + 1).unwrap_or(1),
                false => left.min(UDP_WAIT),
            };
            let answer: Pin<Box<dyn Future<Output = _>>> = match tcp {
                true => Box::pin(over_tcp(netns, settings, server, query)),
                false => Box::pin(over_udp(netns, settings, server, query)),
            };
            asked.push(Attempt { server, answer });
        }
        if asked.is_empty() {
            break;
        }
        match timeout(patience, first(&mut asked)).await {
            Ok((server, Ok(answer))) if message::failed(&answer) => {
                failed.push((server, answer));
                asked.retain(|attempt| attempt.server != server);
                attempts.retain(|(other, _)| *other != server);
            }
            Ok((_, Ok(answer))) => return Ok(answer),
            Ok((server, Err(error))) => tries.push((server, error)),
            Err(_) if attempts.is_empty() => break,
            Err(_) => {}
        }
    }
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    tries.extend(asked.iter().map(|attempt| (attempt.server, late())));
    failed.pop().map(|(_, answer)| answer).ok_or(Failure::Unanswered(tries))
}

/// The same over UDP, as servers expect it; over TCP only for what does not fit. Where nobody answers over TCP, in the
/// time that is left, the part that fits is the answer.
pub(crate) async fn ask_for_all(
    netns: &Netns,
    settings: &SocketSettings,
    servers: &[SocketAddr],
    query: &[u8],
) -> Result<Vec<u8>, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let answer = ask(netns, settings, servers, query, false).await?;
    if !message::truncated(&answer) {
        return Ok(answer);
    }
    let whole = timeout_at(deadline, ask(netns, settings, servers, query, true)).await;
    Ok(whole.ok().and_then(Result::ok).filter(|whole| !message::failed(whole)).unwrap_or(answer))
}

/// A question that was asked and may still be answered.
struct Attempt<'a> {
    server: SocketAddr,
    answer: Pin<Box<dyn Future<Output = io::Result<Vec<u8>>> + 'a>>,
}

/// The first that comes to an end, taken out of the list.
async fn first(asked: &mut Vec<Attempt<'_>>) -> (SocketAddr, io::Result<Vec<u8>>) {
    poll_fn(|context| {
        for index in 0..asked.len() {
            if let Poll::Ready(answer) = asked[index].answer.as_mut().poll(context) {
                return Poll::Ready((asked.remove(index).server, answer));
            }
        }
        Poll::Pending
    })
    .await
}

async fn over_udp(netns: &Netns, settings: &SocketSettings, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let socket = netns.run(|| {
        let socket = Socket::new(Domain::for_address(server), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        sockets::mark(&socket, settings)?;
        // The kernel takes a random port, and from now on only what comes from the server.
        socket.connect(&server.into())?;
        Ok(socket)
    })?;
    let socket = UdpSocket::from_std(socket.into())?;
    let (asked, id) = with_new_id(query);
    socket.send(&asked).await?;
    loop {
        socket.readable().await?;
        let received: io::Result<_> = with_buffer(|buffer| {
            let length = socket.try_recv(buffer)?;
            let answer = &buffer[..length];
            // What does not fit the question is somebody's guess: the real answer may still come.
            Ok(message::answers(answer, query, id).then(|| answer.to_vec()))
        });
        match received {
            Ok(Some(answer)) => return Ok(with_id_of(answer, query)),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn over_tcp(netns: &Netns, settings: &SocketSettings, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut tcp = sockets::dial(netns, None, server, settings).await?;
    let (asked, id) = with_new_id(query);
    let length = u16::try_from(asked.len()).map_err(io::Error::other)?;
    tcp.write_all(&[&length.to_be_bytes(), asked.as_slice()].concat()).await?;
    let mut answer = vec![0; tcp.read_u16().await?.into()];
    tcp.read_exact(&mut answer).await?;
    if !message::answers(&answer, query, id) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer does not fit the question"));
    }
    Ok(with_id_of(answer, query))
}

fn with_new_id(query: &[u8]) -> (Vec<u8>, u16) {
    let id: u16 = rand::random();
    let mut asked = query.to_vec();
    message::set_id(&mut asked, id.to_be_bytes());
    (asked, id)
}

fn with_id_of(mut answer: Vec<u8>, query: &[u8]) -> Vec<u8> {
    message::set_id(&mut answer, message::id(query));
    answer
}

/// A buffer that any datagram fits in. One for each thread: nothing waits while it is used.
fn with_buffer<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; usize::from(u16::MAX)].into());
    }
    BUFFER.with_borrow_mut(|buffer| f(buffer))
}
