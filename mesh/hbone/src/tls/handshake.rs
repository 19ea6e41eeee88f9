//! The handshake, by rustls, up to the moment when only records of data are left to do.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use mesh_model::share::Source;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedConnectionCommon, UnbufferedStatus};
use rustls::{ClientConfig, ConnectionTrafficSecrets, ExtractedSecrets, ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::queue;
use super::record::{Content, Opener, RecordError, Sealer, record_length};
use crate::unfinished::Unfinished;
use crate::{MAX_HANDSHAKE_BYTES, MAX_HELLO_BYTES};

/// First size of the buffer, and what is read at once: most flights fit.
const FLIGHT: usize = 4 << 10;
/// What HBONE is spoken in, by its name in ALPN.
const HTTP2: &[u8] = b"h2";
/// `no_application_protocol` (RFC 7301, section 3.2), and that it is fatal.
const NO_PROTOCOL: [u8; 2] = [2, 120];

/// Why a handshake is given up although TLS itself has nothing against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the peer's first TLS message has more than {MAX_HELLO_BYTES} bytes")]
    Hello,
    #[error("the peer's part of the TLS handshake has more than {MAX_HANDSHAKE_BYTES} bytes")]
    Handshake,
    #[error("the peer did not agree to HTTP/2: HBONE needs the protocol \"h2\" in ALPN")]
    Protocol,
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(io::ErrorKind::InvalidData, refused)
    }
}

/// A peer that has proven itself, and the keys.
pub(crate) struct Established {
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    pub(crate) keys: Keys,
    /// The peer's certificates, its own first.
    pub(crate) certificates: Option<Vec<CertificateDer<'static>>>,
    /// What the peer sent right after the handshake and rustls has opened.
    pub(crate) plaintext: Vec<u8>,
    /// What of the peer's records has been read and not been opened.
    pub(crate) unread: Vec<u8>,
}

/// Where new keys come from when a side changes its own (RFC 8446 4.6.3).
pub(crate) struct Keys {
    side: Side,
    version: ProtocolVersion,
}

enum Side {
    Client(Box<KernelConnection<ClientConnectionData>>),
    Server(Box<KernelConnection<ServerConnectionData>>),
}

impl Keys {
    /// The next key of what we send. The peer has to have been told, under the old key.
    pub(crate) fn next_sealer(&mut self) -> Result<Sealer, RecordError> {
        let secrets = match &mut self.side {
            Side::Client(connection) => connection.update_tx_secret(),
            Side::Server(connection) => connection.update_tx_secret(),
        };
        Sealer::new(usable(secrets)?, self.version)
    }

    /// The next key of what we receive, after the peer has said that it changes its own.
    pub(crate) fn next_opener(&mut self) -> Result<Opener, RecordError> {
        let secrets = match &mut self.side {
            Side::Client(connection) => connection.update_rx_secret(),
            Side::Server(connection) => connection.update_rx_secret(),
        };
        Opener::new(usable(secrets)?, self.version)
    }
}

type Secrets = (u64, ConnectionTrafficSecrets);

fn usable(secrets: Result<Secrets, rustls::Error>) -> Result<Secrets, RecordError> {
    // TLS 1.2 has no such change.
    secrets.map_err(|_| RecordError::Keys("this version of TLS cannot change them"))
}

/// Proves ourselves to a server and the server to us.
///
/// # Errors
/// When the transport fails, or the handshake does; the [`rustls::Error`] is inside then.
pub(crate) async fn client<T>(
    transport: &mut T,
    config: Arc<ClientConfig>,
    unfinished: Unfinished,
) -> io::Result<Established>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection =
        UnbufferedClientConnection::new(config, mesh_identity::tls::dial_name()).map_err(io::Error::other)?;
    let read = run(
        transport,
        &mut *connection,
        UnbufferedConnectionCommon::<ClientConnectionData>::process_tls_records,
        unfinished,
        None,
    )
    .await?;
    let facts = Facts::of(&connection);
    let (secrets, keys) = connection.dangerous_into_kernel_connection().map_err(io::Error::other)?;
    established(transport, secrets, Side::Client(Box::new(keys)), facts, read).await
}

/// Proves a client to us and ourselves to the client.
///
/// # Errors
/// As for [`client`].
pub(crate) async fn server<T>(
    transport: &mut T,
    config: Arc<ServerConfig>,
    unfinished: Unfinished,
) -> io::Result<Established>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
    let source = unfinished.source().clone();
    let read = run(
        transport,
        &mut *connection,
        UnbufferedConnectionCommon::<ServerConnectionData>::process_tls_records,
        unfinished,
        Some(&source),
    )
    .await?;
    let facts = Facts::of(&connection);
    let (secrets, keys) = connection.dangerous_into_kernel_connection().map_err(io::Error::other)?;
    established(transport, secrets, Side::Server(Box::new(keys)), facts, read).await
}

/// What the two sides have agreed on, and what the peer has shown.
struct Facts {
    version: Option<ProtocolVersion>,
    http2: bool,
    certificates: Option<Vec<CertificateDer<'static>>>,
}

impl Facts {
    fn of<D>(connection: &UnbufferedConnectionCommon<D>) -> Self {
        let certificates = connection.peer_certificates();
        Self {
            version: connection.protocol_version(),
            http2: connection.alpn_protocol() == Some(HTTP2),
            certificates: certificates.map(|c| c.iter().map(|c| c.clone().into_owned()).collect()),
        }
    }
}

async fn established(
    transport: &mut (impl AsyncWrite + Unpin),
    secrets: ExtractedSecrets,
    side: Side,
    facts: Facts,
    read: Read,
) -> io::Result<Established> {
    let version = facts.version.ok_or_else(|| io::Error::other("the handshake settled on no version"))?;
    let mut sealer = Sealer::new(secrets.tx, version).map_err(io::Error::other)?;
    // rustls refuses a peer that offers other protocols. One that offers none is let through to here.
    if !facts.http2 {
        let mut alert = vec![0; sealer.before() + NO_PROTOCOL.len() + sealer.after()];
        alert[sealer.before()..][..NO_PROTOCOL.len()].copy_from_slice(&NO_PROTOCOL);
        if sealer.seal(&mut alert, Content::Alert).is_ok() {
            // The peer is told why, if it listens.
            let _ = transport.write_all(&alert).await;
        }
        return Err(Refused::Protocol.into());
    }
    Ok(Established {
        sealer,
        opener: Opener::new(secrets.rx, version).map_err(io::Error::other)?,
        keys: Keys { side, version },
        certificates: facts.certificates,
        plaintext: read.plaintext,
        unread: read.unread,
    })
}

/// What was read with the handshake.
struct Read {
    plaintext: Vec<u8>,
    unread: Vec<u8>,
}

/// What has to happen before rustls is asked again.
enum Next {
    Again,
    Send,
    Receive,
    Done,
}

type Process<D> = for<'c, 'i> fn(&'c mut UnbufferedConnectionCommon<D>, &'i mut [u8]) -> UnbufferedStatus<'c, 'i, D>;

async fn run<T, D>(
    transport: &mut T,
    connection: &mut UnbufferedConnectionCommon<D>,
    process: Process<D>,
    mut unfinished: Unfinished,
    caller: Option<&Source>,
) -> io::Result<Read>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (mut received, mut outgoing, mut plaintext) = (Vec::<u8>::with_capacity(FLIGHT), Vec::new(), Vec::new());
    // Until we have said something, the peer can have said no more than hello.
    let (mut taken, mut most, mut too_much) = (0, MAX_HELLO_BYTES, Refused::Hello);
    loop {
        let status = process(connection, &mut received);
        let mut used = status.discard;
        let next = match status.state {
            Ok(ConnectionState::EncodeTlsData(mut flight)) => {
                encode(|room| flight.encode(room), &mut outgoing)?;
                Next::Again
            }
            Ok(ConnectionState::TransmitTlsData(flight)) => {
                flight.done();
                Next::Send
            }
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(invalid)?;
                    plaintext.extend_from_slice(record.payload);
                    used += record.discard;
                }
                Next::Again
            }
            Ok(ConnectionState::WriteTraffic(_)) => Next::Done,
            Ok(ConnectionState::BlockedHandshake) => Next::Receive,
            Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => {
                // The peer is told why, if it listens. rustls is asked once more and not again: after the alert it would
                // go on with what the peer has said, which it does not expect to do.
                received.drain(..used);
                if let Ok(ConnectionState::EncodeTlsData(mut alert)) = process(connection, &mut received).state {
                    encode(|room| alert.encode(room), &mut outgoing)?;
                }
                let _ = transport.write_all(&outgoing).await;
                return Err(invalid(error));
            }
        };
        received.drain(..used);
        let receive = match next {
            Next::Again => false,
            Next::Send => {
                transport.write_all(&outgoing).await?;
                outgoing.clear();
                (most, too_much) = (MAX_HANDSHAKE_BYTES, Refused::Handshake);
                false
            }
            Next::Done if !connection.is_handshaking() => return Ok(Read { plaintext, unread: received }),
            Next::Done | Next::Receive => true,
        };
        if receive {
            let room = FLIGHT.min(most.saturating_sub(taken));
            if room == 0 {
                return Err(too_much.into());
            }
            // No more than is needed: a stranger decides how much that is.
            received.reserve_exact(room);
            let waiting = received.capacity();
            let mut portion = (&mut *transport).take(room as u64);
            let mut reading = pin!(portion.read_buf(&mut received));
            let read = poll_fn(|cx| match unfinished.keep(waiting, cx) {
                Ok(()) => reading.as_mut().poll(cx),
                Err(shed) => Poll::Ready(Err(io::Error::other(shed))),
            });
            let read = read.await?;
            if read == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer hung up during the TLS handshake"));
            }
            // Callers come as they like. How many servers we call is our own choice. What is no whole record costs next to nothing.
            if let Some(caller) = caller.filter(|_| taken == 0 || is_whole(&received)) {
                queue::turn(caller).await;
            }
            taken += read;
        }
    }
}

/// Whether a record is there that something follows from: its end, or that it is none.
fn is_whole(received: &[u8]) -> bool {
    record_length(received).map_or(true, |length| length.is_some_and(|length| received.len() >= length))
}

fn encode(mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>, outgoing: &mut Vec<u8>) -> io::Result<()> {
    let begin = outgoing.len();
    let mut room = FLIGHT;
    loop {
        outgoing.resize(begin + room, 0);
        match encode(&mut outgoing[begin..]) {
            Ok(written) => {
                outgoing.truncate(begin + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
            Err(error @ EncodeError::AlreadyEncoded) => return Err(io::Error::other(error)),
        }
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
