//! What a pod's process may do to the kernel: the set container runtimes give by default, and no more. Without
//! NET_ADMIN and SYS_ADMIN a pod cannot undo the redirection of its own traffic.
use rustix::thread::CapabilitySet;

/// The default set of container runtimes.
const POD: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Highest capability number to try; the kernel refuses those it does not know, which ends the loop.
const LAST: u32 = 63;

/// Takes everything but the pods' set from the calling process, for good: from its bounding set, so that no exec
/// brings it back, and from what it inherits. Allocates nothing, so it may run between fork and exec.
pub(crate) fn keep_pod_set() -> rustix::io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    for number in 0..=LAST {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if POD.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel has no capability of this number, nor of any higher one.
            Err(rustix::io::Errno::INVAL) => break,
            Err(e) => return Err(e),
        }
    }
    let now = rustix::thread::capabilities(None)?;
    let permitted = now.permitted & POD;
    rustix::thread::set_capabilities(
        None,
        rustix::thread::CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() },
    )
}

/// Whether this process may already make namespaces, as root usually may.
pub(crate) fn has_sys_admin() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|c| c.effective.contains(CapabilitySet::SYS_ADMIN))
}
