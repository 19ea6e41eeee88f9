//! The server of the load tools. The client's first line says what the connection is for:
//!
//! | line | what the server does |
//! |---|---|
//! | `echo` | sends back what comes, closes its half after the client did |
//! | `both N` | sends N bytes of the pattern while it checks what comes; after the client's end, says how that went |
//! | `give N` | sends N bytes, closes its half at once, and goes on checking what comes; its log says how that went |
use super::pattern::Pattern;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// A connection on which nothing moves for this long is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest first line.
const LONGEST_LINE: u64 = 64;
/// What the client sends.
pub(super) const FROM_CLIENT: u64 = 1;
/// What the server sends.
pub(super) const FROM_SERVER: u64 = 2;
/// Bytes written or read at a time.
pub(super) const CHUNK: usize = 128 << 10;

/// Serves one connection.
#[allow(clippy::print_stdout, reason = "the pod's log")]
pub(super) fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(CHUNK, stream.try_clone()?);
    let mut line = String::new();
    if reader.by_ref().take(LONGEST_LINE).read_line(&mut line)? == 0 {
        // A probe that only connects.
        return Ok(());
    }
    let mut words = line.split_whitespace();
    let (what, count) = (words.next().unwrap_or_default(), words.next().and_then(|n| n.parse().ok()));
    match (what, count) {
        ("echo", None) => {
            io::copy(&mut reader, &mut stream)?;
            stream.shutdown(Shutdown::Write)
        }
        ("both", Some(count)) => {
            let mut sender = stream.try_clone()?;
            let sending = std::thread::spawn(move || send(&mut sender, FROM_SERVER, count));
            let taken = check_to_end(&mut reader, FROM_CLIENT);
            sending.join().map_err(|_| io::Error::other("the sender panicked"))??;
            let verdict = match taken {
                Ok(taken) => format!("took {taken}"),
                Err(e) => e.to_string(),
            };
            writeln!(stream, "{verdict}")?;
            stream.shutdown(Shutdown::Write)
        }
        ("give", Some(count)) => {
            send(&mut stream, FROM_SERVER, count)?;
            stream.shutdown(Shutdown::Write)?;
            let taken = check_to_end(&mut reader, FROM_CLIENT)?;
            println!("took {taken} bytes after closing our half");
            Ok(())
        }
        _ => Err(io::Error::other(format!("it asked for {line:?}"))),
    }
}

/// Sends `count` bytes of a pattern.
pub(super) fn send(stream: &mut TcpStream, seed: u64, count: u64) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut chunk = vec![0; CHUNK];
    while pattern.at() < count {
        let length = usize::try_from(count - pattern.at()).unwrap_or(CHUNK).min(CHUNK);
        pattern.fill(&mut chunk[..length]);
        stream.write_all(&chunk[..length])?;
    }
    Ok(())
}

/// Reads to the end and compares with a pattern; says how much it was.
pub(super) fn check_to_end(reader: &mut impl io::Read, seed: u64) -> io::Result<u64> {
    check(reader, seed, u64::MAX)
}

/// Reads at most `count` bytes and compares them with a pattern; says how much it was.
pub(super) fn check(reader: &mut impl io::Read, seed: u64, count: u64) -> io::Result<u64> {
    let mut pattern = Pattern::new(seed);
    let mut chunk = vec![0; CHUNK];
    while pattern.at() < count {
        let most = usize::try_from(count - pattern.at()).unwrap_or(CHUNK).min(CHUNK);
        let length = reader.read(&mut chunk[..most])?;
        if length == 0 {
            break;
        }
        pattern
            .check(&chunk[..length])
            .map_err(|place| io::Error::new(io::ErrorKind::InvalidData, format!("byte {place} is wrong")))?;
    }
    Ok(pattern.at())
}
