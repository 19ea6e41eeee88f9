//! Whom this ztunnel serves, and with what.

use mesh_model::pod::PodInfo;
use mesh_runtime::config::{ConfigError, Env};

/// `PROXY_MODE`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The pods that the node agent hands over.
    Shared,
    /// One workload, that lives in ztunnel's own network namespace: `PROXY_WORKLOAD_INFO`.
    Dedicated(PodInfo),
}

const FORM: &str = "NAMESPACE/NAME/SERVICE-ACCOUNT, the workload that PROXY_MODE=dedicated serves";

/// Reads `PROXY_MODE`, and what it needs.
pub(super) fn mode(env: &Env) -> Result<Mode, ConfigError> {
    if !env.choice("PROXY_MODE", &[("shared", false), ("dedicated", true)])?.unwrap_or(false) {
        return Ok(Mode::Shared);
    }
    env.required("PROXY_WORKLOAD_INFO", FORM)?;
    let info = env.read("PROXY_WORKLOAD_INFO", FORM, |text| {
        let mut parts = text.split('/').map(str::to_owned);
        let mut part = || parts.next().filter(|part| !part.is_empty());
        let info = PodInfo { namespace: part()?, name: part()?, service_account: part()? };
        parts.next().is_none().then_some(info)
    })?;
    Ok(info.map_or(Mode::Shared, Mode::Dedicated))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_it_serves() {
        let read = |vars: &[(&str, &str)]| mode(&vars.iter().copied().collect()).map_err(|error| error.to_string());
        let dedicated = ("PROXY_MODE", "dedicated");
        assert_eq!(read(&[]), Ok(Mode::Shared));
        assert_eq!(read(&[("PROXY_MODE", "shared"), ("PROXY_WORKLOAD_INFO", "?")]), Ok(Mode::Shared));
        let cart = PodInfo { namespace: "shop".into(), name: "cart-1".into(), service_account: "cart".into() };
        assert_eq!(read(&[dedicated, ("PROXY_WORKLOAD_INFO", "shop/cart-1/cart")]), Ok(Mode::Dedicated(cart)));
        assert!(read(&[("PROXY_MODE", "sidecar")]).unwrap_err().contains("dedicated"));
        for wrong in ["", "shop", "shop/cart-1", "shop//cart", "/cart-1/cart", "shop/cart-1/cart/x", "shop/cart-1/"] {
            let error = read(&[dedicated, ("PROXY_WORKLOAD_INFO", wrong)]).unwrap_err();
            assert!(error.contains("NAMESPACE/NAME/SERVICE-ACCOUNT"), "{wrong:?}: {error}");
        }
    }
}
