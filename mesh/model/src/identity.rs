//! Who a workload is: SPIFFE ids of the form `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest SPIFFE id accepted, in bytes (SPIFFE-ID section 2.3).
const MAX_LEN: usize = 2048;

/// The trust domain that an empty one on the wire stands for.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// The service account that an empty one on the wire stands for.
pub const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// A SPIFFE id as Istio shapes it: exactly these three parts, nothing more.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: Arc<str>,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

/// Why a text is no SPIFFE id of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpiffeId {
    /// Does not begin with `spiffe://`.
    #[error("a SPIFFE id begins with spiffe://")]
    Scheme,
    /// Not the five segments `<trust domain>/ns/<namespace>/sa/<service account>`.
    #[error("expected spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    Shape,
    /// A segment is empty or holds a character that SPIFFE does not allow.
    #[error("a segment is empty or holds a character outside [a-zA-Z0-9._-]")]
    Character,
    /// Longer than 2048 bytes.
    #[error("longer than 2048 bytes")]
    Length,
}

impl SpiffeId {
    /// From parts that are known to be well formed. An invalid part is refused as [`FromStr`] would refuse it.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, InvalidSpiffeId> {
        check([trust_domain, namespace, service_account])?;
        Ok(Self {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        })
    }

    /// The same, from parts that somebody holds already: nothing is copied.
    pub fn of(
        trust_domain: &Arc<str>,
        namespace: &Arc<str>,
        service_account: &Arc<str>,
    ) -> Result<Self, InvalidSpiffeId> {
        check([trust_domain, namespace, service_account])?;
        Ok(Self {
            trust_domain: trust_domain.clone(),
            namespace: namespace.clone(),
            service_account: service_account.clone(),
        })
    }

    /// The trust domain, for example `cluster.local`.
    pub fn trust_domain(&self) -> &Arc<str> {
        &self.trust_domain
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &Arc<str> {
        &self.service_account
    }

    /// The id without `spiffe://`: the form that principals in policies are compared with.
    pub fn principal(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

fn check(parts: [&str; 3]) -> Result<(), InvalidSpiffeId> {
    if parts.iter().any(|p| p.is_empty() || !p.bytes().all(allowed)) {
        return Err(InvalidSpiffeId::Character);
    }
    // "spiffe://" "/ns/" "/sa/"
    if parts.iter().map(|p| p.len()).sum::<usize>() + 17 > MAX_LEN {
        return Err(InvalidSpiffeId::Length);
    }
    Ok(())
}

/// SPIFFE-ID section 2: path segments are letters, digits, dot, dash and underscore. Trust domains are
/// lower case by the standard; Istio accepts what users configured, so case is kept and compared exactly.
fn allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        if text.len() > MAX_LEN {
            return Err(InvalidSpiffeId::Length);
        }
        let rest = text.strip_prefix("spiffe://").ok_or(InvalidSpiffeId::Scheme)?;
        let mut parts = rest.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) => {
                Self::new(domain, namespace, account)
            }
            _ => Err(InvalidSpiffeId::Shape),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints_the_one_shape() {
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        assert_eq!(id.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
        assert_eq!(id.principal(), "cluster.local/ns/shop/sa/cart");
        assert_eq!(
            (&**id.trust_domain(), &**id.namespace(), &**id.service_account()),
            ("cluster.local", "shop", "cart")
        );
    }

    #[test]
    fn refuses_everything_else() {
        use InvalidSpiffeId::*;
        let long = format!("spiffe://td/ns/{}/sa/b", "a".repeat(2048));
        for (text, why) in [
            ("", Scheme),
            ("http://td/ns/a/sa/b", Scheme),
            ("SPIFFE://td/ns/a/sa/b", Scheme),
            ("spiffe://td", Shape),
            ("spiffe://td/ns/a", Shape),
            ("spiffe://td/ns/a/sa/b/c", Shape),
            ("spiffe://td/ns/a/sa/b/", Shape),
            ("spiffe://td/xx/a/sa/b", Shape),
            ("spiffe://td/ns/a/xx/b", Shape),
            ("spiffe:///ns/a/sa/b", Character),
            ("spiffe://td/ns//sa/b", Character),
            ("spiffe://td/ns/a/sa/", Character),
            ("spiffe://td/ns/a%2f/sa/b", Character),
            ("spiffe://td:80/ns/a/sa/b", Character),
            ("spiffe://td/ns/a/sa/b?x", Character),
            ("spiffe://td/ns/ä/sa/b", Character),
            (&long, Length),
        ] {
            assert_eq!(text.parse::<SpiffeId>(), Err(why), "{text}");
        }
    }

    /// SPIFFE-ID section 2.3.
    #[test]
    fn it_has_2048_bytes_at_most() {
        for (length, fits) in [(2048, true), (2049, false)] {
            let account = "a".repeat(length - "spiffe://td/ns/shop/sa/".len());
            let made = SpiffeId::new("td", "shop", &account);
            assert_eq!(made.is_ok(), fits, "{length}");
            let text = format!("spiffe://td/ns/shop/sa/{account}");
            assert_eq!((text.len(), text.parse::<SpiffeId>().is_ok()), (length, fits));
            assert_eq!(text.parse().ok(), made.ok());
        }
    }
}
