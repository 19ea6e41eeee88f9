//! Whether a program is ready, asked from its node as kubelet would.
use super::plan::Check;
use crate::sys::namespace;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Asks once over the network. `Err` says what came instead of readiness. `exec` checks are not for here.
pub(crate) async fn over_network(check: Check, node: Arc<OwnedFd>, ip: IpAddr, limit: Duration) -> Result<(), String> {
    let asked = tokio::task::spawn_blocking(move || {
        namespace::in_netns(node.as_fd(), || ask(&check, ip, limit)).map_err(|e| e.to_string())
    });
    asked.await.map_err(|e| e.to_string())?
}

fn ask(check: &Check, ip: IpAddr, limit: Duration) -> io::Result<()> {
    match check {
        Check::Tcp { port } => TcpStream::connect_timeout(&SocketAddr::new(ip, *port), limit).map(drop),
        Check::Http { port, path, host } => {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::new(ip, *port), limit)?;
            stream.set_read_timeout(Some(limit))?;
            stream.set_write_timeout(Some(limit))?;
            let host = host.clone().unwrap_or_else(|| SocketAddr::new(ip, *port).to_string());
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ambit\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            let mut answer = [0; 256];
            let length = stream.read(&mut answer)?;
            judge(&answer[..length])
        }
        Check::Exec { .. } => Err(io::Error::other("a command cannot be asked over the network")),
    }
}

/// Any status from 200 to 399 is ready, as for kubelet.
fn judge(answer: &[u8]) -> io::Result<()> {
    let line = String::from_utf8_lossy(answer);
    let line = line.lines().next().unwrap_or_default();
    match line.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()) {
        Some(200..=399) if line.starts_with("HTTP/") => Ok(()),
        _ => Err(io::Error::other(format!("answered `{line}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        for (answer, ready) in [
            ("HTTP/1.1 200 OK\r\n", true),
            ("HTTP/1.0 302 Found\r\n", true),
            ("HTTP/1.1 503 Service Unavailable\r\n", false),
            ("SSH-2.0-x 200\r\n", false),
            ("", false),
        ] {
            assert_eq!(judge(answer.as_bytes()).is_ok(), ready, "{answer}");
        }
    }
}
