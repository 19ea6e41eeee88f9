//! Where the keys of an issuer are, as a rule of a RequestAuthentication says it.

use std::fmt;
use std::sync::Arc;

use http::Uri;

/// Below an issuer: its OpenID configuration (OpenID Connect Discovery 1.0, 4).
const OPENID_CONFIGURATION: &str = "/.well-known/openid-configuration";

/// Where the keys of an issuer are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeySource {
    /// At this address: `jwksUri`.
    Uri(Arc<str>),
    /// Where the OpenID configuration of this issuer says: a rule has neither `jwks` nor `jwksUri`.
    Issuer(Arc<str>),
}

impl KeySource {
    /// The address that is asked first.
    ///
    /// # Errors
    /// When there is none; says what to write.
    pub fn address(&self) -> Result<Uri, String> {
        match self {
            Self::Uri(text) => address(text).ok_or_else(|| format!("{text:?} is no address of a key set")),
            Self::Issuer(issuer) => address(&format!("{}{OPENID_CONFIGURATION}", issuer.trim_end_matches('/')))
                .ok_or_else(|| {
                    format!("the issuer {issuer:?} is no address where its OpenID configuration could be: write jwksUri or jwks")
                }),
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(text) => f.write_str(text),
            Self::Issuer(issuer) => write!(f, "{}{OPENID_CONFIGURATION}", issuer.trim_end_matches('/')),
        }
    }
}

/// What is asked over HTTP, if a text is that: a scheme and a host, and nobody's password.
pub(crate) fn address(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    let named = uri.host().is_some_and(|host| !host.is_empty());
    (plain && named && matches!(uri.scheme_str(), Some("http" | "https"))).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_keys_are_asked_for() {
        let uri = |text: &str| KeySource::Uri(text.into());
        let issuer = |text: &str| KeySource::Issuer(text.into());
        for (source, expected) in [
            (uri("https://a.example/keys?x=1"), Some("https://a.example/keys?x=1")),
            (uri("http://[2001:db8::1]:80/"), Some("http://[2001:db8::1]:80/")),
            (uri("https://me:secret@a.example/keys"), None),
            (uri("ftp://a.example/keys"), None),
            (uri("/keys"), None),
            (issuer("https://a.example"), Some("https://a.example/.well-known/openid-configuration")),
            (issuer("https://a.example/realm/"), Some("https://a.example/realm/.well-known/openid-configuration")),
            (issuer("someone@a.example"), None),
        ] {
            assert_eq!(source.address().ok().map(|uri| uri.to_string()).as_deref(), expected, "{source}");
        }
    }
}
