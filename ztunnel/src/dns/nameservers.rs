//! Whom to ask what the mesh does not know: the name servers of ztunnel's own `/etc/resolv.conf`. Its search list is not
//! for pods.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// The file is looked at again this often: it changes where ztunnel uses the node's own.
const LOOK: Duration = Duration::from_secs(10);
/// As many as the C library takes (`MAXNS`).
const MAX: usize = 3;
const PORT: u16 = 53;
/// A longer file is none of ours.
const MAX_FILE: usize = 64 * 1024;

/// The name servers, and if there are none why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nameservers {
    /// In the order in which they are asked.
    pub(crate) servers: Arc<[SocketAddr]>,
    /// What in the file was of no use.
    pub(crate) ignored: Vec<String>,
}

/// Reads the file's text (resolv.conf(5)).
fn parse(text: &str) -> Nameservers {
    let mut servers: Vec<SocketAddr> = Vec::new();
    let mut ignored = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let word = words.next().unwrap_or_default();
        match word.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
            Err(_) => ignored.push(format!("{word:?} is no address")),
            // Asked from inside a pod, loopback would be the pod's.
            Ok(ip) if ip.is_loopback() => {
                ignored.push(format!("{ip} is on loopback, which is another one in each pod"));
            }
            Ok(_) if servers.len() == MAX => ignored.push(format!("{word} is one more than {MAX}")),
            Ok(ip) => servers.push(SocketAddr::new(ip, PORT)),
        }
    }
    Nameservers { servers: servers.into(), ignored }
}

fn read(path: &Path) -> Nameservers {
    let none = |why: String| Nameservers { servers: Arc::default(), ignored: vec![why] };
    match std::fs::read(path) {
        Ok(bytes) if bytes.len() > MAX_FILE => none(format!("the file is longer than {MAX_FILE} bytes")),
        Ok(bytes) => parse(&String::from_utf8_lossy(&bytes)),
        Err(error) => none(error.to_string()),
    }
}

/// The name servers, followed for as long as somebody looks at them.
pub(crate) fn follow(path: PathBuf) -> watch::Receiver<Nameservers> {
    let first = read(&path);
    tell(&path, &first);
    let (sender, receiver) = watch::channel(first);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = sender.closed() => return,
            }
            let now = read(&path);
            let changed = sender.send_if_modified(|before| {
                let changed = *before != now;
                before.clone_from(&now);
                changed
            });
            if changed {
                tell(&path, &now);
            }
        }
    });
    receiver
}

fn tell(path: &Path, now: &Nameservers) {
    let (servers, ignored) = (&now.servers, &now.ignored);
    if servers.is_empty() {
        tracing::warn!(
            file = %path.display(),
            ?ignored,
            "no name server that pods could reach: names outside of the mesh will not resolve in pods with DNS capture; \
             give ztunnel a dnsPolicy with a server that is not on loopback"
        );
    } else {
        tracing::info!(file = %path.display(), ?servers, ?ignored, "name servers for what the mesh does not know");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_as_operators_write_it() {
        for (text, servers, ignored) in [
            ("nameserver 10.96.0.10\nsearch a b\noptions ndots:5\n", &["10.96.0.10:53"][..], 0),
            ("# nameserver 1.1.1.1\n;nameserver 2.2.2.2\n  nameserver\tfd00::a # here\n", &["[fd00::a]:53"], 0),
            ("nameserver 127.0.0.53\nnameserver ::1\n", &[], 2),
            ("nameserver\nnameserver dns.example\n", &[], 2),
            (
                "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver ::ffff:10.0.0.3\nnameserver 10.0.0.4\n",
                &["10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"],
                1,
            ),
            ("", &[], 0),
        ] {
            let servers: Vec<SocketAddr> = servers.iter().map(|s| s.parse().unwrap()).collect();
            let read = parse(text);
            assert_eq!((read.servers.to_vec(), read.ignored.len()), (servers, ignored), "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_change_of_the_file_is_seen() {
        let path = std::env::temp_dir().join(format!("ambit-resolv-{}", std::process::id()));
        std::fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        tokio::time::pause();
        let mut followed = follow(path.clone());
        assert_eq!(followed.borrow_and_update().servers.len(), 1);
        std::fs::write(&path, "nameserver 10.0.0.1\nnameserver 10.0.0.2\n").unwrap();
        followed.changed().await.unwrap();
        assert_eq!(followed.borrow_and_update().servers.len(), 2);
        std::fs::remove_file(&path).unwrap();
        followed.changed().await.unwrap();
        assert!(followed.borrow().servers.is_empty() && followed.borrow().ignored.len() == 1);
    }
}
