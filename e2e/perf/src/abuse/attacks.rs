//! The attacks there are.
use std::fmt;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attack {
    /// On the command line.
    pub(crate) name: &'static str,
    /// In the table.
    pub(crate) what: &'static str,
    pub(crate) by: By,
    pub(crate) at: At,
}

/// Who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// A pod outside the mesh, with or without a certificate of the mesh.
    Stranger,
    /// The good callers' own pod: no attack, but a slow consumer that they share the pod with.
    Client,
    /// A pod of the mesh in another namespace, that calls the attacked service as anybody may.
    Tenant,
}

/// What it is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// The victim's port 15008.
    Pod,
    /// Port 15012.
    ControlPlane,
    /// A waypoint: its port 15008, or what is behind it.
    Waypoint,
}

impl Attack {
    /// Whether it is one of those asked for; all are when nobody asks.
    pub(crate) fn is_chosen(&self, only: &[String]) -> bool {
        only.is_empty() || only.iter().any(|part| self.name.contains(part.as_str()))
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

const fn stranger(name: &'static str, at: At, what: &'static str) -> Attack {
    Attack { name, what, by: By::Stranger, at }
}

const fn tenant(name: &'static str, what: &'static str) -> Attack {
    Attack { name, what, by: By::Tenant, at: At::Waypoint }
}

/// All of them.
pub(crate) const ALL: &[Attack] = &[
    stranger("certificates", At::Pod, "60 cross-signed certificates in each handshake, three at a time"),
    Attack {
        name: "slow-application",
        what: "ten connections of the callers' pod to a server that does not read",
        by: By::Client,
        at: At::Pod,
    },
    stranger("reset-tunnels", At::Pod, "tunnels opened and reset at once"),
    stranger("single-bytes", At::Pod, "DATA frames of one byte to a server that does not read"),
    stranger("left-behind", At::Pod, "4 MB for a server that does not read, then gone, again and again"),
    stranger("header-blocks", At::Pod, "3,000 header blocks of 60 KB, unfinished"),
    stranger("hellos", At::Pod, "5,400 hellos of 62 KB, unfinished, without a certificate"),
    stranger("idle-peers", At::Pod, "3,300 idle connections with mutual TLS"),
    stranger("half-open", At::Pod, "4,000 connections that say nothing"),
    stranger("control-half-open", At::ControlPlane, "4,000 connections that say nothing"),
    stranger("control-idle", At::ControlPlane, "4,000 TLS connections that ask nothing, without credentials"),
    stranger("control-requests", At::ControlPlane, "unfinished certificate requests of 64 KB, without credentials"),
    stranger("control-names", At::ControlPlane, "100,000 unknown names in one request, eight streams, with a token"),
    stranger("control-metadata", At::ControlPlane, "6 MB of node metadata, ten streams, with a token"),
    stranger("waypoint-certificates", At::Waypoint, "60 cross-signed certificates in each handshake, three at a time"),
    stranger("waypoint-hellos", At::Waypoint, "5,400 hellos of 62 KB, unfinished, without a certificate"),
    tenant("waypoint-resets", "requests of HTTP/2 that are taken back at once, four connections"),
    tenant("waypoint-header-blocks", "3,000 header blocks of 56 KB in HTTP/2, unfinished"),
    tenant("waypoint-slow-heads", "3,000 heads of 56 KB in HTTP/1, then a byte a second"),
    tenant("waypoint-slow-bodies", "2,000 requests with a byte of their body each second"),
    tenant("waypoint-slow-readers", "400 answers of 16 MB that nobody reads"),
    tenant("waypoint-idle", "4,000 connections that say nothing"),
    tenant("waypoint-retries", "64 callers of what fails and is tried again"),
    tenant("waypoint-kept-bodies", "1,000 bodies of 65 KB kept for another try, never answered"),
    tenant("waypoint-names", "another host, path, method and user agent in each request, eight connections"),
    tenant("waypoint-long-paths", "paths of 12 KB of escapes, 1,000 parameters, 150 headers, eight connections"),
    tenant("waypoint-tokens", "tokens of 30 KB of unknown keys and with wrong signatures, eight connections"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_chosen_by_a_part() {
        let names: std::collections::BTreeSet<&str> = ALL.iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), ALL.len());
        let chosen = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|part| (*part).to_owned()).collect();
            ALL.iter().filter(|attack| attack.is_chosen(&only)).count()
        };
        assert_eq!((chosen(&[]), chosen(&["hellos"]), chosen(&["control", "hellos"])), (ALL.len(), 2, 7));
        assert_eq!(chosen(&["waypoint"]), ALL.iter().filter(|attack| attack.at == At::Waypoint).count());
    }
}
