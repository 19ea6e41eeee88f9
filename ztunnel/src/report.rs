//! What is told of each connection: its metrics while it lives, one access log line at its end.

use std::cell::Cell;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mesh_hbone::carry::{CarryError, Count};
use mesh_hbone::connect::Baggage;
use mesh_model::identity::SpiffeId;
use mesh_model::policy::{Decision, Reason};
use mesh_model::service::Service;
use mesh_model::workload::Workload;
use mesh_runtime::access_log::{Direction, Entry, Event, Peer};
use mesh_runtime::metrics::{
    ConnectionMetrics, ConnectionSecurity, OpenSocket, Reporter, ResponseFlags, ServiceLabels, TrafficLabels,
    WorkloadLabels,
};

use crate::shared::{Judgement, Shared};

/// One end of a connection, as told.
pub(crate) struct Party {
    labels: Arc<WorkloadLabels>,
    /// Pod name.
    pod: Arc<str>,
    identity: Option<SpiffeId>,
}

/// What a connection is.
pub(crate) struct Traffic {
    /// Opened by a pod of ours; else opened to one.
    pub(crate) outbound: bool,
    pub(crate) from: SocketAddr,
    /// The other end of the hop.
    pub(crate) to: SocketAddr,
    /// What the tunnel is for.
    pub(crate) hbone_to: Option<SocketAddr>,
    pub(crate) source: Party,
    pub(crate) destination: Party,
    pub(crate) service: Option<Arc<Service>>,
    /// Both identities are proven by mutual TLS.
    pub(crate) secured: bool,
}

/// Told while a connection lives. Dropped before its end was told, it tells that it was cut off.
pub(crate) struct Report {
    shared: Arc<Shared>,
    traffic: Traffic,
    metrics: Option<ConnectionMetrics>,
    _socket: OpenSocket,
    /// Bytes from the client.
    received: Cell<u64>,
    /// Bytes to the client.
    sent: Cell<u64>,
    started: Instant,
    policy: Option<String>,
}

/// A connection of which nothing is known yet but its addresses: it only ever tells of its failure.
pub(crate) struct Early {
    shared: Arc<Shared>,
    direction: Direction,
    from: SocketAddr,
    to: SocketAddr,
}

impl Early {
    /// It failed.
    pub(crate) fn failed(&self, code: &'static str, error: &dyn Display) {
        self.shared.access_log.record(&Entry {
            event: Event::Failed,
            src: Peer { addr: Some(self.from), ..Peer::default() },
            dst: Peer { addr: Some(self.to), ..Peer::default() },
            direction: Some(self.direction),
            error: Some(error),
            reason: Some(code),
            ..Entry::default()
        });
    }
}

impl Report {
    /// Before anything is known.
    pub(crate) fn early(shared: &Arc<Shared>, direction: Direction, from: SocketAddr, to: SocketAddr) -> Early {
        Early { shared: shared.clone(), direction, from, to }
    }

    /// Once it is known what the connection is; counts it as opened.
    pub(crate) fn open(shared: &Arc<Shared>, traffic: Traffic) -> Self {
        let reporter = if traffic.outbound { Reporter::Source } else { Reporter::Destination };
        let service = traffic.service.as_ref().map_or_else(ServiceLabels::default, |s| ServiceLabels {
            hostname: s.hostname.clone(),
            name: s.name.clone(),
            namespace: s.namespace.clone(),
        });
        let principal = |id: Option<&SpiffeId>| id.map_or_else(|| "".into(), |id| Arc::from(id.to_string()));
        let labels = TrafficLabels {
            reporter,
            source: traffic.source.labels.clone(),
            source_principal: principal(traffic.source.identity.as_ref().filter(|_| traffic.secured)),
            service: Arc::new(service),
            destination: traffic.destination.labels.clone(),
            destination_principal: principal(traffic.destination.identity.as_ref()),
            security: match traffic.secured {
                true => ConnectionSecurity::MutualTls,
                false => ConnectionSecurity::Unknown,
            },
        };
        Self {
            metrics: Some(shared.traffic.open(&labels)),
            _socket: shared.traffic.socket(reporter),
            shared: shared.clone(),
            traffic,
            received: Cell::new(0),
            sent: Cell::new(0),
            started: Instant::now(),
            policy: None,
        }
    }

    /// Bytes can flow.
    pub(crate) fn opened(&self) {
        self.line(Event::Opened, None, None);
    }

    /// The policies let it in.
    pub(crate) fn decided(&mut self, decision: &Decision) {
        self.policy = decision.reason.policy().map(ToString::to_string);
        for policy in &decision.dry_run {
            tracing::info!(%policy, from = %self.traffic.from, "dry-run policy would have matched");
        }
    }

    /// The policies did not let it in.
    pub(crate) fn denied(mut self, judgement: &Judgement) {
        match judgement {
            Judgement::Decided(decision) => {
                self.decided(decision);
                let error = format!("connection closed due to policy rejection: {}", decision.reason);
                self.end(ResponseFlags::Deny, Some(judgement.code()), Some(&error));
            }
            Judgement::MissingPolicy(policy) => {
                let error = format!(
                    "connection closed due to policy rejection: {policy} covers this workload and has not come from \
                     the control plane"
                );
                self.end(ResponseFlags::Deny, Some(judgement.code()), Some(&error));
            }
        }
    }

    /// It was open and the policies have changed.
    pub(crate) fn cut(mut self, reason: &Reason) {
        self.policy = reason.policy().map(ToString::to_string);
        let error = format!("connection closed due to policy change: {reason}");
        self.end(ResponseFlags::Deny, Some("POLICY_CHANGED"), Some(&error));
    }

    /// It could not be opened.
    pub(crate) fn failed(mut self, flags: ResponseFlags, code: &str, error: &dyn Display) {
        self.end(flags, Some(code), Some(error));
    }

    /// It ended well.
    pub(crate) fn closed(mut self) {
        self.end(ResponseFlags::None, None, None);
    }

    /// It broke while bytes flowed. An application that resets its connection is no fault of the mesh's.
    pub(crate) fn broken(mut self, error: &CarryError) {
        let code = match error {
            CarryError::Local(_) | CarryError::Remote(_) => "CONNECTION_RESET",
            CarryError::Tunnel(_) => "TUNNEL_RESET",
        };
        self.end(ResponseFlags::None, Some(code), Some(error));
    }

    fn end(&mut self, flags: ResponseFlags, code: Option<&str>, error: Option<&dyn Display>) {
        if let Some(metrics) = self.metrics.take() {
            metrics.closed(flags);
            self.line(Event::Complete, code, error);
        }
    }

    fn line(&self, event: Event, reason: Option<&str>, error: Option<&dyn Display>) {
        let t = &self.traffic;
        // The log speaks from the client's side, the counters from the server's.
        let (bytes_sent, bytes_recv) = match t.outbound {
            true => (self.received.get(), self.sent.get()),
            false => (self.sent.get(), self.received.get()),
        };
        self.shared.access_log.record(&Entry {
            event,
            src: side(&t.source, t.from, t.secured),
            dst: side(&t.destination, t.to, t.secured),
            hbone_addr: t.hbone_to.as_ref().map(|a| a as &dyn Display),
            service: t.service.as_ref().map(|s| &*s.hostname),
            direction: Some(if t.outbound { Direction::Outbound } else { Direction::Inbound }),
            bytes_sent: (event == Event::Complete).then_some(bytes_sent),
            bytes_recv: (event == Event::Complete).then_some(bytes_recv),
            duration: (event == Event::Complete).then(|| self.started.elapsed()),
            error,
            policy: self.policy.as_ref().map(|p| p as &dyn Display),
            reason,
            trace: None,
        });
    }

    fn received(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.received.set(self.received.get() + bytes);
        if let Some(metrics) = &self.metrics {
            metrics.received(bytes);
        }
    }

    fn sent(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.sent.set(self.sent.get() + bytes);
        if let Some(metrics) = &self.metrics {
            metrics.sent(bytes);
        }
    }
}

/// One end of the connection, as the line shows it; identities only where they are proven.
fn side(party: &Party, addr: SocketAddr, secured: bool) -> Peer<'_> {
    Peer {
        addr: Some(addr),
        workload: Some(&party.pod),
        namespace: Some(&party.labels.namespace),
        identity: party.identity.as_ref().filter(|_| secured).map(|id| id as &dyn Display),
        cluster: Some(&party.labels.cluster),
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let why = "closed because its pod left, or ztunnel ended before the connection did";
        self.end(ResponseFlags::None, Some("POD_GONE"), Some(&why));
    }
}

/// Counts what is carried forth from the client and back to it.
pub(crate) struct FromClient<'a>(pub(crate) &'a Report);

impl Count for FromClient<'_> {
    fn forth(&self, bytes: usize) {
        self.0.received(bytes);
    }

    fn back(&self, bytes: usize) {
        self.0.sent(bytes);
    }
}

/// Counts what is carried forth from the server and back to it.
pub(crate) struct FromServer<'a>(pub(crate) &'a Report);

impl Count for FromServer<'_> {
    fn forth(&self, bytes: usize) {
        self.0.sent(bytes);
    }

    fn back(&self, bytes: usize) {
        self.0.received(bytes);
    }
}

impl Party {
    /// A workload of the tables.
    pub(crate) fn workload(workload: &Workload, identity: Option<&SpiffeId>) -> Self {
        Self {
            labels: Arc::new(WorkloadLabels {
                workload: workload.workload_name.clone(),
                canonical_service: workload.canonical_name.clone(),
                canonical_revision: workload.canonical_revision.clone(),
                namespace: workload.namespace.clone(),
                app: workload.canonical_name.clone(),
                version: workload.canonical_revision.clone(),
                cluster: workload.cluster.clone(),
                region: workload.locality.region.clone(),
                zone: workload.locality.zone.clone(),
            }),
            pod: workload.name.clone(),
            identity: identity.cloned(),
        }
    }

    /// A workload of the tables, if the address is one's; its identity is the table's word.
    pub(crate) fn known(workload: Option<&Arc<Workload>>) -> Self {
        match workload {
            Some(workload) => Self::workload(workload, workload.identity().ok().as_ref()),
            None => Self { labels: Arc::default(), pod: "".into(), identity: None },
        }
    }

    /// A proven caller whose address is nobody's: what it tells of itself.
    pub(crate) fn told(baggage: &Baggage, identity: &SpiffeId) -> Self {
        let text = |s: &str| Arc::<str>::from(s);
        Self {
            labels: Arc::new(WorkloadLabels {
                workload: text(&baggage.workload),
                canonical_service: text(&baggage.service_name),
                canonical_revision: text(&baggage.service_version),
                namespace: identity.namespace().clone(),
                app: text(&baggage.workload),
                version: text(&baggage.service_version),
                cluster: text(&baggage.cluster),
                region: text(&baggage.region),
                zone: text(&baggage.zone),
            }),
            pod: "".into(),
            identity: Some(identity.clone()),
        }
    }
}
