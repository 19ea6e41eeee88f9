//! How many threads move bytes.

use mesh_runtime::config::{ConfigError, Env, Share};

/// The most threads, whatever is set.
const MOST: usize = 256;

/// `ZTUNNEL_WORKER_THREADS`, or from the cores and the CPU that the pod may have.
pub(super) fn workers(env: &Env, cores: usize) -> Result<usize, ConfigError> {
    let cores = cpus(env, "ZTUNNEL_CPU_LIMIT")?.unwrap_or(cores);
    let threads = match env.share("ZTUNNEL_WORKER_THREADS")? {
        Some(Share::Count(0)) => cores,
        Some(share) => share.of(cores),
        None => {
            let request = cpus(env, "ZTUNNEL_RESOURCE_CPU_REQUEST")?.unwrap_or(0);
            let limit = cpus(env, "ZTUNNEL_RESOURCE_CPU_LIMIT")?;
            // For a container without limit the downward API tells the node's cores.
            match limit.filter(|limit| *limit < cores) {
                Some(limit) => limit.max(request),
                None => (cores / 4).max(2).max(request),
            }
        }
    };
    Ok(threads.clamp(1, MOST))
}

/// So many CPUs, as Kubernetes writes them (`2`, `0.5`, `1500m`), rounded up; `None` if unset or 0.
fn cpus(env: &Env, name: &str) -> Result<Option<usize>, ConfigError> {
    let cpus = env.read(name, "a number of CPUs such as 2, 0.5 or 1500m", |text| {
        let number: f64 = match text.strip_suffix('m') {
            Some(milli) => f64::from(milli.parse::<u32>().ok()?) / 1000.0,
            None => text.parse().ok()?,
        };
        (0.0..=100_000.0).contains(&number).then(|| number.ceil() as usize)
    })?;
    Ok(cpus.filter(|cpus| *cpus > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contract 12.1, `ZTUNNEL_WORKER_THREADS`.
    #[test]
    fn worker_threads() {
        let (threads, limit) = ("ZTUNNEL_WORKER_THREADS", "ZTUNNEL_RESOURCE_CPU_LIMIT");
        let request = "ZTUNNEL_RESOURCE_CPU_REQUEST";
        type Case<'a> = (&'a [(&'a str, &'a str)], usize, usize);
        let cases: [Case<'_>; 14] = [
            (&[], 1, 2),
            (&[], 32, 8),
            (&[(threads, "0")], 32, 32),
            (&[(threads, "5")], 32, 5),
            (&[(threads, "50%")], 32, 16),
            (&[(threads, "1%")], 32, 1),
            (&[(threads, "1000")], 32, 256),
            (&[(request, "12")], 32, 12),
            (&[(request, "500m")], 32, 8),
            (&[(limit, "4")], 32, 4),
            (&[(limit, "1")], 32, 1),
            (&[(limit, "4"), (request, "6")], 32, 6),
            // No limit, as the downward API tells it.
            (&[(limit, "32")], 32, 8),
            (&[("ZTUNNEL_CPU_LIMIT", "1.5"), (threads, "100%")], 32, 2),
        ];
        for (vars, cores, expected) in cases {
            assert_eq!(workers(&vars.iter().copied().collect(), cores).unwrap(), expected, "{vars:?} of {cores}");
        }
        for wrong in ["many", "-1", "1x", "1e9"] {
            let error = workers(&[(limit, wrong)].into_iter().collect(), 4).unwrap_err().to_string();
            assert!(error.contains(limit) && error.contains(wrong), "{error}");
        }
    }
}
