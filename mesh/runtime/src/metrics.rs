//! The registry, and the metrics and label words all programs share. Names and labels are Istio's, so its dashboards read ours.
//!
//! A program makes one [`Metrics`], lets its parts register in it while it is being wired, and then shares it, read only, with the
//! server of `/metrics`. Metrics of one program only (`workload_manager_*`, `istio_dns_*`) are registered by that program:
//!
//! ```
//! use mesh_runtime::metrics::{Metrics, TextFormat};
//! use prometheus_client::metrics::counter::Counter;
//!
//! let mut metrics = Metrics::new("ztunnel", "0.1.0");
//! let started: Counter = Counter::default();
//! // Counters are registered without `_total`: the format adds it.
//! metrics.registry_mut().register("workload_manager_proxies_started", "Pods whose proxy was started", started.clone());
//! started.inc();
//! let text = metrics.encode(TextFormat::Prometheus)?;
//! assert!(text.contains("workload_manager_proxies_started_total 1\n"));
//! # Ok::<(), std::fmt::Error>(())
//! ```

mod bare_counter;
mod executor;
mod labels;
mod pods;
mod process;
mod requests;
mod sets;
mod text_format;
mod traffic;
mod xds;
mod xds_server;

use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode, header};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub use bare_counter::BareCounter;
pub use labels::{ConnectionSecurity, Reporter, ResponseFlags, ServiceLabels, TrafficLabels, WorkloadLabels};
pub use pods::PodsInTrouble;
pub use requests::{KnownRequests, Measured, RequestLabels, RequestMetrics};
use text_format::Prometheus;
pub use text_format::TextFormat;
pub use traffic::{ConnectionMetrics, KnownLabels, OpenSocket, TrafficMetrics};
pub use xds::{XdsEnd, XdsMetrics};
pub use xds_server::{XdsServerMetrics, XdsSubscriber};

use crate::http_server::{Body, Request, Router, Writer, gzip, response};

/// Everything this process measures.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// A registry holding `istio_build{component, tag}` and the process's own metrics.
    pub fn new(component: &str, tag: &str) -> Self {
        let mut registry = Registry::default();
        let build = Family::<Vec<(String, String)>, Gauge>::default();
        let labels = [("component", component), ("tag", tag)].map(|(key, value)| (key.to_owned(), value.to_owned()));
        build.get_or_create(&labels.to_vec()).set(1);
        registry.register("istio_build", "Istio component build info", build);
        registry.register_collector(Box::new(process::ProcessMetrics));
        Self { registry }
    }

    /// Adds gauges of a tokio runtime, `tokio_*`: the one that does control work.
    pub fn watch_runtime(&mut self, runtime: tokio::runtime::Handle) {
        self.registry.register_collector(Box::new(executor::RuntimeMetrics(runtime)));
    }

    /// For parts that register metrics of their own.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// All metrics as text, as they are now.
    ///
    /// # Errors
    /// Only if a registered collector fails.
    pub fn encode(&self, format: TextFormat) -> Result<String, fmt::Error> {
        let mut text = String::new();
        self.write(format, &mut text)?;
        Ok(text)
    }

    /// Writes all metrics as text, as they are now. Takes tens of milliseconds with many thousands of label sets: keep it off a runtime
    /// that carries traffic.
    ///
    /// # Errors
    /// If `to` fails, or a registered collector.
    pub fn write(&self, format: TextFormat, to: &mut impl fmt::Write) -> fmt::Result {
        match format {
            TextFormat::OpenMetrics => prometheus_client::encoding::text::encode(to, &self.registry),
            TextFormat::Prometheus => {
                prometheus_client::encoding::text::encode(&mut Prometheus::new(to), &self.registry)
            }
        }
    }

    /// The whole page; one that fails in between has no end.
    fn page(&self, format: TextFormat, compressed: bool, mut to: Writer) -> fmt::Result {
        if !compressed {
            self.write(format, &mut to)?;
            return to.finish();
        }
        let mut gzip = gzip::Compressed::new(to);
        self.write(format, &mut gzip)?;
        gzip.finish()?.finish()
    }

    /// `/metrics` and `/stats/prometheus`, in the format the `Accept` header asks for, compressed if `Accept-Encoding` does. A scrape of
    /// many label sets is many megabytes: it is sent as it is written, so it costs neither their memory nor what an allocator keeps of it.
    pub fn routes(self: Arc<Self>) -> Router {
        let scrape = move |request: Request| {
            let metrics = self.clone();
            let format = TextFormat::accepted(request.headers());
            let compressed = gzip::is_accepted(request.headers());
            let (writer, body) = Body::in_pieces();
            // A failure, mostly of a client that is gone, is seen by the client.
            tokio::task::spawn_blocking(move || metrics.page(format, compressed, writer));
            let mut page = response(StatusCode::OK, format.content_type(), body);
            page.headers_mut().insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
            if compressed {
                page.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            std::future::ready(page)
        };
        Router::new().route(Method::GET, "/metrics", "Metrics", scrape.clone()).route(
            Method::GET,
            "/stats/prometheus",
            "The same",
            scrape,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_out_as_istio_has_them() {
        let mut metrics = Metrics::new("ztunnel", "0.1.0");
        let xds = XdsMetrics::register(&mut metrics);
        xds.message("type.googleapis.com/istio.workload.Address", 10);
        xds.message("type.googleapis.com/istio.workload.Address", 5);
        xds.ended(XdsEnd::Reconnect);
        let text = metrics.encode(TextFormat::Prometheus).unwrap();
        for line in [
            "# TYPE istio_build gauge\n",
            "istio_build{component=\"ztunnel\",tag=\"0.1.0\"} 1\n",
            "# TYPE istio_xds_message_total counter\n",
            "istio_xds_message_total{url=\"type.googleapis.com/istio.workload.Address\"} 2\n",
            "istio_xds_message_bytes_total{url=\"type.googleapis.com/istio.workload.Address\"} 15\n",
            "istio_xds_connection_terminations_total{reason=\"Reconnect\"} 1\n",
            "process_open_fds ",
            "process_max_fds ",
            "process_resident_memory_bytes ",
        ] {
            assert!(text.contains(line), "{line:?} is missing in\n{text}");
        }
        assert!(metrics.encode(TextFormat::OpenMetrics).unwrap().ends_with("# EOF\n"));
    }
}
