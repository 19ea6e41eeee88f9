//! Settings of Istio's ztunnel that this one does not have: said at start, never passed over.

use mesh_runtime::config::{ConfigError, Env};

/// Settings without which ztunnel would be another program than was asked for: it does not start.
///
/// # Errors
/// Names the first that is set to something else than the default.
pub(super) fn refuse(env: &Env) -> Result<(), ConfigError> {
    let no = |name: &str, expected: &str| {
        let value = env.non_empty(name).unwrap_or_default().to_owned();
        Err(ConfigError::Invalid { name: name.into(), value, expected: expected.into() })
    };
    if env.bool("FAKE_CA")? == Some(true) {
        // A key that everybody knows, or roots that no two ztunnels share: neither is a way to try a mesh out.
        return no("FAKE_CA", "false: certificates come from CA_ADDRESS only; istiod-lite is a CA for tests");
    }
    Ok(())
}

/// Settings that are set and change nothing, with what to know about it: for warnings at start.
pub fn ignored(env: &Env) -> Vec<String> {
    let mut ignored = Vec::new();
    if env.non_empty("PROXY_WORKLOAD_INFO").is_some() && env.non_empty("PROXY_MODE") != Some("dedicated") {
        ignored.push("PROXY_WORKLOAD_INFO: it is for PROXY_MODE=dedicated".to_owned());
    }
    ignored
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contract 12.1: what is not supported is said.
    #[test]
    fn said_at_start() {
        for (name, value, refused) in [("FAKE_CA", "true", true), ("FAKE_CA", "false", false)] {
            let outcome = refuse(&[(name, value)].into_iter().collect());
            assert_eq!(outcome.is_err(), refused, "{name}={value}");
            if let Err(error) = outcome {
                assert!(error.to_string().contains(name), "{error}");
            }
        }
        assert_eq!(ignored(&[("PROXY_WORKLOAD_INFO", "shop/a/b")].into_iter().collect()).len(), 1);
        assert!(ignored(&Env::default()).is_empty());
    }
}
