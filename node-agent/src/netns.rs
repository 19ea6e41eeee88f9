//! Find and enter a network namespace.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What tells one namespace from another while it exists. The inode alone may be used again after it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetnsId {
    /// The device of the namespace file system.
    pub dev: u64,
    /// The inode on it.
    pub ino: u64,
}

/// Why a namespace could not be found or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The file is not there or may not be opened.
    #[error("cannot open the network namespace {path}: {source}")]
    Open {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The file is something else. An unmounted namespace leaves such a file behind.
    #[error("{path} is not a namespace; has the pod's sandbox been torn down?")]
    NotANamespace {
        /// The path.
        path: PathBuf,
    },
    /// The namespace may not be entered.
    #[error("cannot enter the network namespace (CAP_SYS_ADMIN is needed): {0}")]
    Enter(#[source] std::io::Error),
    /// No thread to enter it with.
    #[error("cannot start a thread for the network namespace: {0}")]
    Thread(#[source] std::io::Error),
}

/// An open network namespace. Holding it keeps the namespace alive, even after its pod is gone.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    id: NetnsId,
}

impl Netns {
    /// Opens the namespace at a path such as `/proc/1/ns/net` or `/var/run/netns/NAME`.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let failed = |source: std::io::Error| NetnsError::Open { path: path.to_owned(), source };
        // Neither a pipe nor a terminal that stands there instead can hold us up.
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK;
        let fd = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(|error| failed(error.into()))?;
        let file_system = rustix::fs::fstatfs(&fd).map_err(|error| failed(error.into()))?;
        if file_system.f_type != libc::NSFS_MAGIC {
            return Err(NetnsError::NotANamespace { path: path.to_owned() });
        }
        let id = identify(fd.as_fd()).map_err(failed)?;
        Ok(Self { fd, id })
    }

    /// The namespace this process is in.
    pub fn own() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/self/ns/net"))
    }

    /// What tells it from others.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Another descriptor of the same namespace, to give away.
    pub fn try_clone_fd(&self) -> std::io::Result<OwnedFd> {
        self.fd.try_clone()
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Where a pod's network namespace is.
#[derive(Debug, Clone)]
pub enum Place {
    /// It can be opened here, for as long as it is mounted here.
    Path(PathBuf),
    /// Open already: it was found by a process in it, and neither a process nor its number lasts.
    Open(Arc<Netns>),
}

impl Place {
    /// The namespace that is there now.
    pub fn open(&self) -> Result<Arc<Netns>, NetnsError> {
        match self {
            Self::Path(path) => Netns::open(path).map(Arc::new),
            Self::Open(netns) => Ok(netns.clone()),
        }
    }
}

/// Two paths are two places, whatever is there.
impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Path(one), Self::Path(other)) => one == other,
            (Self::Open(one), Self::Open(other)) => one.id() == other.id(),
            _ => false,
        }
    }
}

/// The identity of the namespace behind a descriptor.
fn identify(fd: BorrowedFd<'_>) -> std::io::Result<NetnsId> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(NetnsId { dev: stat.st_dev, ino: stat.st_ino })
}

/// Runs a short closure inside a namespace and waits for it.
///
/// A namespace belongs to a thread. A thread that enters one cannot always return, so it gets a thread of its own that
/// ends with the closure. Sockets made inside stay inside, wherever they are used afterwards.
pub fn run<T: Send>(netns: BorrowedFd<'_>, inside: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, move || {
                move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
                    .map_err(|error| NetnsError::Enter(error.into()))?;
                Ok(inside())
            })
            .map_err(NetnsError::Thread)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Reads a file as seen from a network namespace: `/proc/sys/net` shows that of the reading thread.
pub fn read_to_string(netns: BorrowedFd<'_>, path: &Path) -> Result<std::io::Result<String>, NetnsError> {
    run(netns, || {
        use std::io::Read as _;
        let mut text = String::new();
        File::open(path)?.take(4096).read_to_string(&mut text)?;
        Ok(text)
    })
}
