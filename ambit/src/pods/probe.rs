//! What a probe over the network answers, asked from the pod's node as a kubelet would.
pub(crate) mod unverified;

use super::plan::{Check, HttpGet};
use crate::sys::namespace;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A status line is not longer than this.
const LONGEST_STATUS_LINE: usize = 1024;

/// Asks once over the network. `Err` says what came instead of success. `exec` checks are not for here.
pub(crate) async fn over_network(check: Check, node: Arc<OwnedFd>, ip: IpAddr, limit: Duration) -> Result<(), String> {
    let asked = tokio::task::spawn_blocking(move || {
        namespace::in_netns(node.as_fd(), || ask(&check, ip, limit)).map_err(|e| e.to_string())
    });
    asked.await.map_err(|e| e.to_string())?
}

fn ask(check: &Check, ip: IpAddr, limit: Duration) -> io::Result<()> {
    match check {
        Check::Tcp { host, port } => {
            TcpStream::connect_timeout(&SocketAddr::new(host.unwrap_or(ip), *port), limit).map(drop)
        }
        Check::Http(get) => {
            let deadline = Instant::now() + limit;
            let to = SocketAddr::new(get.host.unwrap_or(ip), get.port);
            let stream = TcpStream::connect_timeout(&to, limit)?;
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            stream.set_read_timeout(Some(left))?;
            stream.set_write_timeout(Some(left))?;
            let request = request(get, to);
            if get.tls {
                exchange(unverified::connect(stream, to.ip())?, &request, deadline)
            } else {
                exchange(stream, &request, deadline)
            }
        }
        Check::Exec { .. } => Err(io::Error::other("a command cannot be asked over the network")),
    }
}

/// The request as a kubelet writes it: the probe's own headers replace those that every probe has.
fn request(get: &HttpGet, to: SocketAddr) -> String {
    let mut request = format!("GET {} HTTP/1.1\r\n", get.path);
    let written = |name: &str| get.headers.iter().any(|(written, _)| written.eq_ignore_ascii_case(name));
    let default = [("Host", to.to_string()), ("User-Agent", "kube-probe/ambit".into()), ("Accept", "*/*".into())];
    let own = get.headers.iter().map(|(name, value)| (name.as_str(), value.clone()));
    for (name, value) in default.into_iter().filter(|(name, _)| !written(name)).chain(own) {
        // Writing to a String cannot fail.
        let _ = write!(request, "{name}: {value}\r\n");
    }
    request.push_str("Connection: close\r\n\r\n");
    request
}

fn exchange(mut stream: impl Read + Write, request: &str, deadline: Instant) -> io::Result<()> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    let mut piece = [0; 256];
    while !answer.contains(&b'\n') && answer.len() < LONGEST_STATUS_LINE {
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match stream.read(&mut piece)? {
            0 => break,
            length => answer.extend_from_slice(&piece[..length]),
        }
    }
    judge(&answer)
}

/// Any status from 200 to 399 is a success.
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

    #[test]
    fn requests() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let to = "10.0.0.1:80".parse().unwrap();
        let get = HttpGet { path: "/up".into(), ..HttpGet::default() };
        assert_eq!(
            request(&get, to),
            "GET /up HTTP/1.1\r\nHost: 10.0.0.1:80\r\nUser-Agent: kube-probe/ambit\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        let get = HttpGet { headers: vec![header("host", "a.b"), header("X", "y"), header("X", "z")], ..get };
        assert_eq!(
            request(&get, to),
            "GET /up HTTP/1.1\r\nUser-Agent: kube-probe/ambit\r\nAccept: */*\r\nhost: a.b\r\nX: y\r\nX: z\r\nConnection: close\r\n\r\n"
        );
    }

    /// The server's certificate is its own, for another name, and the request arrives in TLS with its headers.
    #[test]
    fn https_is_asked_in_tls_and_verifies_nobody() {
        let (certificate, key) = unverified::tests::self_signed();
        let config = rustls::ServerConfig::builder_with_provider(unverified::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (tcp, _) = listener.accept().unwrap();
            let connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, tcp);
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            // In two pieces, as a slow server may.
            for piece in ["HTTP/1.", "1 204 No Content\r\n\r\n"] {
                stream.write_all(piece.as_bytes()).unwrap();
                stream.flush().unwrap();
            }
            String::from_utf8(request).unwrap()
        });
        let get = HttpGet {
            tls: true,
            port,
            path: "/".into(),
            headers: vec![("X-Probe".into(), "yes".into())],
            ..HttpGet::default()
        };
        ask(&Check::Http(get), "127.0.0.1".parse().unwrap(), Duration::from_secs(10)).unwrap();
        assert!(server.join().unwrap().contains("\r\nX-Probe: yes\r\n"));
    }
}
