//! Certificates that were taken back before their time: the lists of a file (`CRL_PATH`), read again when it changes
//! (Istio ambient contract, section 4.1).
//!
//! A certificate that a list names is refused, and so is what an intermediate named there has signed. A list is its
//! issuer's by name and by key: two issuers of one name have a list each, in any order. A certificate whose issuer has no
//! list is allowed, and an old list is still used: a CA that is late must not stop the mesh. A file
//! that cannot be used changes nothing if there was a good one; if there never was, nobody is let in.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::watch;

use crate::revocation::list::{Issuer, Link, List};

pub(crate) mod list;

/// The most that is read of the file: some 400,000 revoked certificates.
const MAX_BYTES: u64 = 16 << 20;
/// The most lists in it: one for each CA of the mesh.
const MAX_LISTS: usize = 256;
/// How often the file is looked at. Kubernetes changes mounted files by swapping a link, so the path is what is asked.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Why a file of revocation lists cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// Not readable.
    #[error("the revocation lists of {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else than lists.
    #[error("the revocation lists of {} cannot be used: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The lists in force. Clones share them; the default has none and revokes nobody.
#[derive(Clone, Default)]
pub struct Revocations(Option<Arc<Inner>>);

struct Inner {
    path: PathBuf,
    lists: RwLock<Lists>,
    changed: watch::Sender<u64>,
}

/// What is held of the file.
struct Lists {
    /// `None` until the file was good once.
    good: Option<Arc<Vec<List>>>,
    /// Of the last read, good or not: to see whether there is something new.
    content: Option<Vec<u8>>,
}

/// What a peer has proven itself with: kept with a connection, to be judged again when lists change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proof(Arc<OnceLock<Vec<Link>>>);

impl Proof {
    /// Who signed the peer's certificate, and who signed that one's, and so on.
    pub(crate) fn set(&self, links: Vec<Link>) {
        // A connection has one handshake.
        let _ = self.0.set(links);
    }

    /// Whether it would be refused now because it is revoked; false before the handshake.
    pub(crate) fn is_revoked(&self, by: &Revocations) -> bool {
        let (Some(links), Ok(Some(lists))) = (self.0.get(), by.lists()) else { return false };
        links.iter().any(|link| matches!(list::check(&lists, link), Err(webpki::Error::CertRevoked)))
    }
}

impl Revocations {
    /// The lists of a file. It is not read yet, and until [`Self::reload`] has succeeded everybody is refused.
    pub fn of_file(path: &Path) -> Self {
        let lists = RwLock::new(Lists { good: None, content: None });
        Self(Some(Arc::new(Inner { path: path.to_owned(), lists, changed: watch::Sender::new(0) })))
    }

    /// Whether certificates are checked at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the file was good once; true if there is none to be.
    pub fn is_usable(&self) -> bool {
        self.0.as_ref().is_none_or(|inner| inner.current().is_some())
    }

    /// Changes its number whenever other lists are in force.
    pub fn changed(&self) -> watch::Receiver<u64> {
        match &self.0 {
            Some(inner) => inner.changed.subscribe(),
            None => watch::Sender::new(0).subscribe(),
        }
    }

    /// Reads the file if it is not what it was at the last call; true if other lists are in force now. Blocks on the
    /// file system.
    ///
    /// # Errors
    /// When the file cannot be used; what was in force stays in force. The same bad content is told once.
    pub fn reload(&self) -> Result<bool, RevocationError> {
        let Some(inner) = &self.0 else { return Ok(false) };
        let content = match read(&inner.path) {
            Ok(content) => content,
            Err(source) => {
                // So that the same content, back again, is read again.
                inner.lists.write().unwrap_or_else(PoisonError::into_inner).content = None;
                return Err(RevocationError::Unreadable { path: inner.path.clone(), source });
            }
        };
        let before = {
            let lists = inner.lists.read().unwrap_or_else(PoisonError::into_inner);
            if lists.content.as_ref() == Some(&content) {
                return Ok(false);
            }
            lists.good.clone()
        };
        // Connections look at the lists: none waits while new ones are read.
        let fresh = parse(&content);
        for old in before.iter().flat_map(|before| before.iter()) {
            fresh.iter().flatten().for_each(|list| list.meet_keys_of(old));
        }
        let mut lists = inner.lists.write().unwrap_or_else(PoisonError::into_inner);
        lists.content = Some(content);
        lists.good = match fresh {
            Ok(fresh) => Some(Arc::new(fresh)),
            Err(reason) => return Err(RevocationError::Unusable { path: inner.path.clone(), reason }),
        };
        drop(lists);
        inner.changed.send_modify(|n| *n = n.wrapping_add(1));
        Ok(true)
    }

    /// Reads the file again whenever it changes, and says so. For a task of its own; `told` hears of each attempt that
    /// changed something or failed.
    pub async fn follow(self, told: impl Fn(Result<(), RevocationError>)) {
        if !self.is_on() {
            return;
        }
        let mut failing = None;
        loop {
            let this = self.clone();
            match tokio::task::spawn_blocking(move || this.reload()).await {
                Ok(Ok(true)) => {
                    failing = None;
                    told(Ok(()));
                }
                Ok(Err(error)) if failing.as_ref() != Some(&error.to_string()) => {
                    failing = Some(error.to_string());
                    told(Err(error));
                }
                // Nothing new. (A panic there is logged by its hook, and tried again.)
                _ => {}
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Looks at issuers' lists before anybody is in a hurry.
    pub(crate) fn meet(&self, issuers: &[Arc<Issuer>]) {
        if let Some(lists) = self.0.as_ref().and_then(|inner| inner.current()) {
            lists.iter().for_each(|list| issuers.iter().for_each(|issuer| list.meet(issuer)));
        }
    }

    /// The lists in force; `None` if nothing is to be checked.
    pub(crate) fn lists(&self) -> Result<Option<Arc<Vec<List>>>, rustls::Error> {
        let Some(inner) = &self.0 else { return Ok(None) };
        inner.current().map(Some).ok_or_else(|| {
            rustls::Error::General(format!(
                "nobody is let in: there are no usable revocation lists in {} (CRL_PATH)",
                inner.path.display()
            ))
        })
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("Off"),
            Some(inner) => f.debug_tuple("File").field(&inner.path).finish(),
        }
    }
}

impl Inner {
    fn current(&self) -> Option<Arc<Vec<List>>> {
        self.lists.read().unwrap_or_else(PoisonError::into_inner).good.clone()
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it is larger than {MAX_BYTES} bytes")));
    }
    Ok(content)
}

/// PEM with one or more lists, or one list in DER.
fn parse(content: &[u8]) -> Result<Vec<List>, String> {
    let is_pem = content.windows(10).any(|w| w == b"-----BEGIN");
    let ders: Vec<CertificateRevocationListDer<'_>> = match is_pem {
        true => CertificateRevocationListDer::pem_slice_iter(content)
            .take(MAX_LISTS + 1)
            .collect::<Result<_, _>>()
            .map_err(|e| format!("no PEM: {e}"))?,
        false => vec![content.into()],
    };
    match ders.len() {
        0 => return Err("there is no revocation list in it".into()),
        1..=MAX_LISTS => {}
        _ => return Err(format!("there are more than {MAX_LISTS} revocation lists in it")),
    }
    ders.iter()
        .map(|der| List::from_der(der))
        .collect::<Result<_, _>>()
        .map_err(|e| format!("no X.509 revocation list: {e}"))
}

#[cfg(test)]
mod tests;
