//! The name that a TLS client asks for, without a word to it: its ClientHello is read and stays to be passed on.
//!
//! rustls reads it, as a server's acceptor would; nothing is decided with it and nothing answered.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::AsyncRead;
use tokio::time::timeout;

use crate::sniff::Peeked;

/// Bytes of a ClientHello with its records: Envoy takes no longer ones either. With keys after quantum computers it has some 2 KiB.
const MOST: usize = 16 << 10;
/// How long a client may take to say it: as long as a handshake may with us.
const LIMIT: Duration = Duration::from_secs(10);

/// Why there is no ClientHello.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoClientHello {
    #[error("what came is no ClientHello: {0}")]
    Other(rustls::Error),
    #[error("its ClientHello is longer than {} bytes", MOST)]
    TooLong,
    #[error("it ended before its ClientHello did")]
    Ended,
    #[error("there was no ClientHello within {} s", LIMIT.as_secs())]
    TooLate,
    #[error("it broke before its ClientHello had come: {0}")]
    Broken(io::Error),
}

/// A ClientHello as it comes, in whichever pieces.
#[derive(Default)]
pub(crate) struct Reader {
    acceptor: Acceptor,
    read: usize,
}

impl Reader {
    /// Takes what comes next. Once it is whole: the name that it asks for, or that it asks for none; None while it is not.
    ///
    /// # Errors
    /// When it is none, or longer than it may be.
    pub(crate) fn take(&mut self, mut next: &[u8]) -> Result<Option<Option<String>>, NoClientHello> {
        while !next.is_empty() {
            // Reading from memory fails only where there is no more room.
            let read = self.acceptor.read_tls(&mut next).map_err(NoClientHello::Broken)?;
            self.read += read;
            match self.acceptor.accept() {
                Ok(Some(accepted)) => return Ok(Some(accepted.client_hello().server_name().map(str::to_owned))),
                Ok(None) if self.read > MOST || read == 0 => return Err(NoClientHello::TooLong),
                Ok(None) => {}
                Err((error, _)) => return Err(NoClientHello::Other(error)),
            }
        }
        Ok(None)
    }
}

/// The name that the client of `stream` asks for, if any; waits for its ClientHello.
///
/// # Errors
/// When none comes.
pub(crate) async fn server_name<T: AsyncRead + Unpin>(stream: &mut Peeked<T>) -> Result<Option<String>, NoClientHello> {
    let reading = async {
        let (mut reader, mut taken) = (Reader::default(), 0);
        loop {
            if let Some(name) = reader.take(&stream.first()[taken..])? {
                return Ok(name);
            }
            taken = stream.first().len();
            if stream.read_more().await.map_err(NoClientHello::Broken)? == 0 {
                return Err(NoClientHello::Ended);
            }
        }
    };
    timeout(LIMIT, reading).await.unwrap_or(Err(NoClientHello::TooLate))
}

#[cfg(test)]
mod tests;
