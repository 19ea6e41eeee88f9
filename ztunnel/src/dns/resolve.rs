//! Names that ztunnel itself has to know for a pod: asked of the pod's own DNS proxy, so that they mean what they mean to
//! the pod.

use std::net::IpAddr;

use super::message::{self, kind};
use super::{AtOnce, Dns, PodDns};

impl Dns {
    /// An address of `name`, IPv4 before IPv6.
    ///
    /// # Errors
    /// Says in a word why there is none; the log of the DNS proxy says more.
    pub(crate) async fn resolve(&self, pod: &PodDns, name: &str) -> Result<IpAddr, String> {
        let mut known = false;
        for kind in [kind::A, kind::AAAA] {
            let query = message::query(name, kind, rand::random()).ok_or("it is no host name")?;
            // As over TCP: whole.
            let answer = match self.at_once(pod, &query, true) {
                AtOnce::Say(answer) => answer,
                AtOnce::Wait(read) => self.later(pod, &query, &read, true).await,
                AtOnce::Silence => return Err("it cannot be asked for".to_owned()),
            };
            if let Some(address) = message::addresses(&answer, kind).into_iter().next() {
                return Ok(address);
            }
            known |= !message::failed(&answer);
        }
        Err(if known { "it has no address" } else { "no name server could say" }.to_owned())
    }
}
