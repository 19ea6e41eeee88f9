//! Where a program says whether it is ready, and what it says while it is not.
use crate::sys::namespace;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Most that is read of it.
const MAX_ANSWER: u64 = 4096;
/// How long the program may take.
const LIMIT: Duration = Duration::from_secs(1);

/// An HTTP endpoint on the loopback of the program's network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Readiness {
    pub(crate) port: u16,
    pub(crate) path: &'static str,
}

/// The first line of the page that says whether it is ready, or why there is none.
pub(crate) async fn why_not(at: Readiness, netns: Arc<OwnedFd>) -> String {
    let asked = tokio::task::spawn_blocking(move || namespace::in_netns(netns.as_fd(), || get(at)));
    match asked.await {
        Ok(Ok(answer)) => first_line(&answer),
        Ok(Err(error)) => format!("its port {} does not answer: {error}", at.port),
        Err(error) => error.to_string(),
    }
}

fn get(at: Readiness) -> io::Result<Vec<u8>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, at.port));
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(stream, "GET {} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: ambit\r\nConnection: close\r\n\r\n", at.path)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Of the body; of the answer where there is no body.
fn first_line(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let line = [body, &*text].into_iter().find_map(|text| text.lines().find(|line| !line.trim().is_empty()));
    line.unwrap_or("it answers nothing").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said() {
        for (answer, said) in [
            (
                "HTTP/1.1 500 Internal Server Error\r\na: b\r\n\r\nnot ready, pending: tables\nmore\n",
                "not ready, pending: tables",
            ),
            ("HTTP/1.1 500 Internal Server Error\r\na: b\r\n\r\n", "HTTP/1.1 500 Internal Server Error"),
            ("SSH-2.0", "SSH-2.0"),
            ("", "it answers nothing"),
        ] {
            assert_eq!(first_line(answer.as_bytes()), said);
        }
    }
}
