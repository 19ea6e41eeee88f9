//! What the kernel says about this process, read at each scrape.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

#[derive(Debug)]
pub(super) struct ProcessMetrics;

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        // The directory being read is one of the open files.
        let open =
            fs::read_dir("/proc/self/fd").ok().and_then(|entries| u64::try_from(entries.count()).ok()?.checked_sub(1));
        let gauges = [
            ("process_open_fds", "Number of open file descriptors", open),
            ("process_max_fds", "Maximum number of open file descriptors", max_fds(&limits)),
            ("process_resident_memory_bytes", "Resident memory size in bytes", resident_bytes(&status)),
        ];
        for (name, help, value) in gauges {
            // What cannot be read is left out: zero would be a lie.
            if let Some(value) = value {
                encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

/// The soft limit in the text of `/proc/self/limits`; unlimited is the largest number.
fn max_fds(limits: &str) -> Option<u64> {
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

/// The resident set in the text of `/proc/self/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?;
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_texts() {
        assert_eq!(max_fds("Max open files            1024                 524288               files\n"), Some(1024));
        assert_eq!(
            max_fds("Max open files            unlimited            unlimited            files\n"),
            Some(u64::MAX)
        );
        assert_eq!(max_fds("Max cpu time              unlimited\n"), None);
        assert_eq!(resident_bytes("VmPeak:\t 100 kB\nVmRSS:\t  2048 kB\n"), Some(2048 * 1024));
        assert_eq!(resident_bytes(""), None);
    }
}
