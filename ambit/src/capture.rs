//! What is visible on the wires between nodes: counts packets in which a text can be read.
//!
//! [`Capture`] is the outside: it starts a child that enters the mesh's fabric and listens there. A capture that lost
//! packets proves nothing, so it counts those too.
use crate::cli::CaptureArgs;
use crate::control::{self, Answer, Ask};
use crate::exe;
use crate::run_dir::RunDir;
use crate::sys::{caps, namespace, packets};
use anyhow::{Context, Result, bail};
use rustix::thread::LinkNameSpaceType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Packets that passed; one between two nodes is seen on the way in and on the way out.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets to or from HBONE's port, 15008.
    pub hbone: u64,
    /// Packets that could not be looked at because there were too many.
    pub lost: u64,
    /// How many packets each text could be read in.
    pub matches: BTreeMap<String, u64>,
}

impl Seen {
    /// How many packets this text could be read in.
    pub fn count(&self, needle: &str) -> u64 {
        self.matches.get(needle).copied().unwrap_or_default()
    }

    fn look(&mut self, packet: &[u8]) {
        self.packets += 1;
        self.bytes += packet.len() as u64;
        if tcp_ports(packet).is_some_and(|ports| ports.contains(&15008)) {
            self.hbone += 1;
        }
        for (needle, count) in &mut self.matches {
            if packet.windows(needle.len()).any(|w| w == needle.as_bytes()) {
                *count += 1;
            }
        }
    }
}

/// Source and destination port of a TCP packet, seen from its Ethernet header.
fn tcp_ports(packet: &[u8]) -> Option<[u16; 2]> {
    const TCP: u8 = 6;
    let at = match packet.get(12..14)? {
        [0x08, 0x00] if *packet.get(23)? == TCP => 14 + usize::from(packet.get(14)? & 0x0f) * 4,
        [0x86, 0xdd] if *packet.get(20)? == TCP => 14 + 40,
        _ => return None,
    };
    let ports = packet.get(at..at + 4)?;
    Some([u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]])])
}

/// A running capture on the fabric of a mesh.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Capture {
    /// Starts capturing in the mesh called `mesh`. When this returns, every packet counts.
    pub fn start(mesh: &str, needles: &[&str]) -> Result<Self> {
        let mut command = Command::new(exe::own());
        command.args(["capture", "--name", mesh]);
        for needle in needles {
            command.arg("--needle").arg(needle);
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start a capture")?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else { bail!("no pipes") };
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        if line != READY {
            let _ = child.wait();
            bail!("the capture did not start");
        }
        Ok(Capture { child, input, output })
    }

    /// Stops, and says what was seen.
    pub fn finish(mut self) -> Result<Seen> {
        drop(self.input);
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        self.child.wait()?;
        serde_json::from_str(&text).context("the capture ended without a result")
    }
}

const READY: &str = "capturing\n";
/// How long packets that wait are still looked at after the end.
const LINGER: Duration = Duration::from_millis(500);

/// The child: captures until its input ends, then prints what it saw.
#[allow(clippy::print_stdout, reason = "its parent reads it")]
pub(crate) fn run(args: &CaptureArgs) -> Result<ExitCode> {
    let run = RunDir::of(&args.which.name)?;
    let (answer, fds) = control::ask(&run, &Ask::Network { node: None })?;
    let (Answer::Entered { .. }, [user, net]) = (answer, fds.as_slice()) else {
        bail!("the answer of the mesh does not say where its fabric is; is it of another version of ambit?");
    };
    if !caps::has_sys_admin() {
        namespace::enter(user.as_fd(), LinkNameSpaceType::User).context("cannot enter the mesh's user namespace")?;
    }
    namespace::enter(net.as_fd(), LinkNameSpaceType::Network).context("cannot enter the fabric")?;
    let socket = packets::socket().context("cannot capture packets")?;
    let mut seen = Seen { matches: args.needle.iter().map(|n| (n.clone(), 0)).collect(), ..Seen::default() };
    print!("{READY}");
    std::io::stdout().flush()?;

    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    std::thread::spawn(move || {
        // Ends with the parent, too.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        end.store(true, Ordering::SeqCst);
    });
    let mut packet = vec![0; 128 << 10];
    let mut source = &socket;
    let mut ends = None;
    loop {
        if ends.is_none() && ended.load(Ordering::SeqCst) {
            ends = Some(Instant::now() + LINGER);
        }
        match source.read(&mut packet) {
            Ok(length) => seen.look(&packet[..length]),
            // Nothing waits: what was sent before the end has been seen.
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock && ends.is_some() => break,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).context("the capture broke"),
        }
        // Traffic that never pauses must not hold up the end.
        if ends.is_some_and(|end| Instant::now() > end) {
            break;
        }
    }
    seen.lost = packets::lost(&socket)?;
    println!("{}", serde_json::to_string(&seen)?);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_ports_are_found() {
        let mut v4 = vec![0; 12];
        v4.extend([0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        v4.extend(40000u16.to_be_bytes());
        v4.extend(15008u16.to_be_bytes());
        v4.extend(b"..secret..");
        assert_eq!(tcp_ports(&v4), Some([40000, 15008]));
        assert_eq!(tcp_ports(&v4[..20]), None);
        let mut v6 = vec![0; 12];
        v6.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 6, 64]);
        v6.extend([0; 32]);
        v6.extend(80u16.to_be_bytes());
        v6.extend(40001u16.to_be_bytes());
        assert_eq!(tcp_ports(&v6), Some([80, 40001]));

        let mut seen = Seen { matches: BTreeMap::from([("secret".into(), 0), ("other".into(), 0)]), ..Seen::default() };
        seen.look(&v4);
        seen.look(&v6);
        assert_eq!((seen.packets, seen.hbone, seen.count("secret"), seen.count("other")), (2, 1, 1, 0));
    }
}
