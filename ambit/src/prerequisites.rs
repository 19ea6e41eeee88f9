//! What a machine must allow before a mesh can run on it, and what to do where it does not.
use crate::sys::caps;
use std::fmt::Write as _;
use std::io;

/// What was found out about this machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// We may make namespaces without a user namespace first.
    pub(crate) root: bool,
    /// `user.max_user_namespaces`, if the kernel has user namespaces.
    pub(crate) max_user_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone`, where the distribution has this switch.
    pub(crate) unprivileged_userns_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, where the distribution has this switch.
    pub(crate) apparmor_restricts: Option<u64>,
    /// We seem to be in a container.
    pub(crate) container: bool,
}

impl Facts {
    /// Reads them.
    pub(crate) fn of_this_machine() -> Self {
        Facts {
            root: caps::has_sys_admin(),
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            unprivileged_userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            container: std::path::Path::new("/.dockerenv").exists()
                || std::path::Path::new("/run/.containerenv").exists(),
        }
    }

    /// What is known to be in the way before trying, if anything.
    pub(crate) fn obstacle(&self) -> Option<String> {
        if self.root {
            return None;
        }
        match (self.max_user_namespaces, self.unprivileged_userns_clone, self.apparmor_restricts) {
            (None, ..) => Some("this kernel has no user namespaces; run `ambit` as root".into()),
            (Some(0), ..) => Some(setting("user.max_user_namespaces", 0, 15000)),
            (_, Some(0), _) => Some(setting("kernel.unprivileged_userns_clone", 0, 1)),
            _ => None,
        }
    }
}

fn setting(name: &str, now: u64, wanted: u64) -> String {
    format!(
        "user namespaces are switched off here (sysctl {name} is {now}). \
         Either run `ambit` as root, or once: sudo sysctl -w {name}={wanted}"
    )
}

fn number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Says why making `what` failed, and what to do about it.
pub(crate) fn explain(what: &str, error: &io::Error, facts: &Facts) -> String {
    let mut text = format!("cannot make {what}: {error}. ");
    if let Some(obstacle) = facts.obstacle() {
        text.push_str(&obstacle);
    } else if facts.apparmor_restricts == Some(1) {
        text.push_str(&setting("kernel.apparmor_restrict_unprivileged_userns", 1, 0));
    } else if error.raw_os_error() == Some(libc::ENOSPC) {
        text.push_str("A limit on namespaces is reached: see sysctl user.max_user_namespaces and its neighbours");
    } else if facts.container {
        text.push_str(
            "This looks like a container that may not make namespaces; start it with more rights \
             (docker run --privileged, or --security-opt seccomp=unconfined --cap-add SYS_ADMIN)",
        );
    } else {
        let who = if facts.root { "even though we are root" } else { "as an ordinary user" };
        // Writing to a String cannot fail.
        let _ = write!(text, "The kernel refused {who}; a security module or a seccomp filter may be the reason");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanations_name_the_switch() {
        let user = Facts { max_user_namespaces: Some(100), ..Facts::default() };
        let cases = [
            (Facts { root: true, ..Facts::default() }, "even though we are root"),
            (Facts::default(), "no user namespaces"),
            (Facts { max_user_namespaces: Some(0), ..Facts::default() }, "sysctl -w user.max_user_namespaces=15000"),
            (Facts { unprivileged_userns_clone: Some(0), ..user.clone() }, "kernel.unprivileged_userns_clone=1"),
            (
                Facts { apparmor_restricts: Some(1), ..user.clone() },
                "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (Facts { container: true, ..user.clone() }, "--privileged"),
            (user, "as an ordinary user"),
        ];
        for (facts, expected) in cases {
            let text = explain("a thing", &io::Error::from_raw_os_error(libc::EPERM), &facts);
            assert!(text.contains(expected), "{facts:?}: {text}");
        }
    }
}
