//! What a subscriber of the control plane counts about its stream.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::Metrics;

/// Why a stream to the control plane ended (`istio_xds_connection_terminations_total`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdsEnd {
    /// It could not be opened.
    ConnectionError,
    /// It failed while open.
    Error,
    /// Normal turnover, for example a server that is shutting down.
    Reconnect,
    /// The server ended it in order.
    Complete,
}

impl XdsEnd {
    fn labels(self) -> Vec<(&'static str, &'static str)> {
        let reason = match self {
            Self::ConnectionError => "ConnectionError",
            Self::Error => "Error",
            Self::Reconnect => "Reconnect",
            Self::Complete => "Complete",
        };
        vec![("reason", reason)]
    }
}

/// `istio_xds_*`.
#[derive(Clone, Debug)]
pub struct XdsMetrics {
    ended: Family<Vec<(&'static str, &'static str)>, Counter>,
    messages: Family<Vec<(&'static str, String)>, Counter>,
    bytes: Family<Vec<(&'static str, String)>, Counter>,
    urls: Arc<Mutex<HashSet<String>>>,
}

/// The most type URLs told apart: the other end chooses them.
const URL_LIMIT: usize = 64;

impl XdsMetrics {
    /// Registers them.
    pub fn register(metrics: &mut Metrics) -> Self {
        let made = Self {
            ended: Family::default(),
            messages: Family::default(),
            bytes: Family::default(),
            urls: Arc::default(),
        };
        let registry = metrics.registry_mut();
        let help = "The total number of completed connections to xds server";
        registry.register("istio_xds_connection_terminations", help, made.ended.clone());
        registry.register("istio_xds_message", "Total number of messages received", made.messages.clone());
        registry.register("istio_xds_message_bytes", "Total number of bytes received", made.bytes.clone());
        for end in [XdsEnd::ConnectionError, XdsEnd::Error, XdsEnd::Reconnect, XdsEnd::Complete] {
            // To be seen as 0, by who writes alerts.
            drop(made.ended.get_or_create(&end.labels()));
        }
        made
    }

    /// A stream ended.
    pub fn ended(&self, end: XdsEnd) {
        self.ended.get_or_create(&end.labels()).inc();
    }

    /// A message of this type URL and length arrived.
    pub fn message(&self, type_url: &str, bytes: u64) {
        let labels = vec![("url", if self.is_told_apart(type_url) { type_url } else { "other" }.to_owned())];
        self.messages.get_or_create(&labels).inc();
        self.bytes.get_or_create(&labels).inc_by(bytes);
    }

    fn is_told_apart(&self, type_url: &str) -> bool {
        let mut urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
        urls.contains(type_url) || (urls.len() < URL_LIMIT && urls.insert(type_url.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::TextFormat;

    #[test]
    fn type_urls_are_bounded() {
        let mut metrics = Metrics::new("ztunnel", "test");
        let xds = XdsMetrics::register(&mut metrics);
        for i in 0..URL_LIMIT + 10 {
            xds.message(&format!("type.example/{i}"), 1);
            xds.message("type.example/0", 1);
        }
        let text = metrics.encode(TextFormat::Prometheus).unwrap();
        assert_eq!(text.matches("istio_xds_message_total{").count(), URL_LIMIT + 1);
        assert!(text.contains("istio_xds_message_total{url=\"other\"} 10\n"), "{text}");
        assert!(text.contains("istio_xds_message_total{url=\"type.example/0\"} 75\n"), "{text}");
    }
}
