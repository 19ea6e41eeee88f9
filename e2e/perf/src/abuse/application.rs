//! The application behind the attacked service: it says hello, fails, never answers, or answers with much, as its path asks for.
use crate::wire;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Answered by 503.
pub(super) const FAILS: &str = "/fail";
/// Read, and never answered.
pub(super) const HANGS: &str = "/hang";
/// Answered by [`MUCH`] bytes.
pub(super) const LARGE: &str = "/large";

/// Longest head of a request: a little more than a waypoint passes on.
const LONGEST_HEAD: usize = 64 << 10;
/// Bytes of a large answer.
const MUCH: usize = 16 << 20;
const FAILURE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// Serves one connection until its client has enough.
pub(crate) async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    const END: &[u8] = b"\r\n\r\n";
    stream.set_nodelay(true)?;
    let mut read = Vec::with_capacity(1024);
    loop {
        let head = loop {
            match read.windows(END.len()).position(|window| window == END) {
                Some(end) => break end + END.len(),
                None if read.len() > LONGEST_HEAD || stream.read_buf(&mut read).await? == 0 => return Ok(()),
                None => {}
            }
        };
        let text = String::from_utf8_lossy(&read[..head]);
        let (path, body) = (path(&text).to_owned(), wire::content_length(&text).unwrap_or(0));
        // Its body is read away.
        let here = body.min(read.len() - head);
        read.drain(..head + here);
        tokio::io::copy(&mut (&mut stream).take((body - here) as u64), &mut tokio::io::sink()).await?;
        if path.starts_with(FAILS) {
            stream.write_all(FAILURE).await?;
        } else if path.starts_with(HANGS) {
            // Until its client breaks off.
            while stream.read(&mut [0; 1024]).await? > 0 {}
            return Ok(());
        } else if path.starts_with(LARGE) {
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n").as_bytes()).await?;
            tokio::io::copy(&mut tokio::io::repeat(b'x').take(MUCH as u64), &mut stream).await?;
        } else {
            stream.write_all(wire::RESPONSE).await?;
        }
    }
}

/// The path of a request by its head.
fn path(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found() {
        assert_eq!((path("GET /fail?x HTTP/1.1\r\nHost: a\r\n\r\n"), path("nonsense")), ("/fail?x", ""));
    }
}
