//! Making namespaces, entering them, and keeping them alive as bind mounts.
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Leaves the namespaces named by `flags` for new ones. Only the calling thread moves.
#[allow(unsafe_code, reason = "rustix marks unshare unsafe for CLONE_FILES alone, which is never asked for here")]
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    assert!(!flags.contains(UnshareFlags::FILES), "descriptor tables are not unshared");
    // SAFETY: without FILES the descriptor table stays shared, so no thread loses sight of a descriptor.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Moves the calling thread into one namespace.
pub(crate) fn enter(namespace: BorrowedFd<'_>, kind: LinkNameSpaceType) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(namespace, Some(kind)).map_err(io::Error::from)
}

/// Moves the calling thread into the namespace of a host name, if that is another one: a program of the mesh's own keeps the
/// machine's, over which an ordinary user has no rights.
pub(crate) fn enter_host_name(namespace: BorrowedFd<'_>) -> io::Result<()> {
    let (own, other) = (rustix::fs::stat("/proc/thread-self/ns/uts")?, rustix::fs::fstat(namespace)?);
    if (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino) {
        return Ok(());
    }
    enter(namespace, LinkNameSpaceType::HostNameAndNISDomainName)
}

/// Moves the calling thread into a mount namespace; its working directory becomes the root.
pub(crate) fn enter_mounts(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // The kernel refuses while the working directory is shared with other threads.
    unshare(UnshareFlags::FS)?;
    enter(namespace, LinkNameSpaceType::Mount)
}

/// Runs `work` on a thread of its own, so that what it does to its namespaces ends with it.
pub(crate) fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("namespace".into())
            .spawn_scoped(scope, work)?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread working inside a namespace panicked")))
    })
}

/// Runs `work` inside a network namespace. Sockets made there stay there.
pub(crate) fn in_netns<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_own_thread(move || {
        enter(netns, LinkNameSpaceType::Network)?;
        work()
    })
}

/// A new network namespace, alive as long as the descriptor or a [`pin`] of it.
pub(crate) fn new_netns() -> io::Result<OwnedFd> {
    on_own_thread(|| {
        unshare(UnshareFlags::NEWNET)?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    })
}

/// A new mount namespace, a copy of ours changed by `arrange`.
pub(crate) fn new_mounts(arrange: impl FnOnce() -> io::Result<()> + Send) -> io::Result<OwnedFd> {
    on_own_thread(|| {
        unshare(UnshareFlags::FS)?;
        unshare(UnshareFlags::NEWNS)?;
        arrange()?;
        Ok(File::open("/proc/thread-self/ns/mnt")?.into())
    })
}

/// Gives a namespace a name in the file system, which keeps it alive until [`unpin`].
pub(crate) fn pin(namespace: &OwnedFd, path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    File::create(path)?;
    bind(Path::new(&format!("/proc/self/fd/{}", namespace.as_fd().as_raw_fd())), path)
}

/// Undoes [`pin`].
pub(crate) fn unpin(path: &Path) -> io::Result<()> {
    rustix::mount::unmount(path, UnmountFlags::DETACH)?;
    std::fs::remove_file(path)
}

/// Makes `from` appear at `to`, which must exist.
pub(crate) fn bind(from: &Path, to: &Path) -> io::Result<()> {
    rustix::mount::mount_bind(from, to).map_err(io::Error::from)
}

/// Nothing mounted in this mount namespace shows up in another, and nothing mounted elsewhere shows up here.
pub(crate) fn make_mounts_private() -> io::Result<()> {
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(io::Error::from)
}

/// Mounts the `/proc` of the calling process's pid namespace. The kernel refuses (`EPERM`) inside containers whose
/// own `/proc` is partly hidden.
pub(crate) fn mount_proc() -> rustix::io::Result<()> {
    rustix::mount::mount(
        c"proc",
        c"/proc",
        c"proc",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None::<&std::ffi::CStr>,
    )
}

/// Makes `/proc/sys` read-only: the knobs of the network belong to the machine, not to the pods.
pub(crate) fn protect_proc_sys() -> rustix::io::Result<()> {
    rustix::mount::mount_bind(c"/proc/sys", c"/proc/sys")?;
    rustix::mount::mount_remount(
        c"/proc/sys",
        MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        c"",
    )
}

/// Hides a directory of this mount namespace, and every mount below it, behind an empty read-only one.
pub(crate) fn hide(directory: &Path) -> io::Result<()> {
    rustix::mount::mount(
        c"tmpfs",
        directory,
        c"tmpfs",
        MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        Some(c"size=4k,mode=700"),
    )
    .map_err(io::Error::from)
}
