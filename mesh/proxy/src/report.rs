//! The report of each connection: its metrics while it is open, a line of the access log when it opens and when it ends.

mod counters;
pub mod gone;
mod party;

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mesh_hbone::carry::{CarryError, Count};
use mesh_hbone::stream::TunnelError;
use mesh_model::access_log::{AccessLogging, Seen};
use mesh_model::address::{Authority, NamespacedName};
use mesh_model::policy::{Decision, Reason};
use mesh_model::reason::ReasonCode;
use mesh_runtime::access_log::{AccessLog, Direction, Entry, Event, Peer};
use mesh_runtime::metrics::{ConnectionMetrics, OpenSocket, ResponseFlags, TrafficMetrics};
use tracing::field::display;

pub use self::party::{Party, Traffic};
use crate::judge::Judgement;
use crate::metrics::{ReasonMetrics, RevocationMetrics};

/// Where connections are reported. Data threads share it.
pub struct Telemetry {
    /// Istio's TCP metrics.
    pub traffic: TrafficMetrics,
    /// Connections that did not end well, by reason code.
    pub reasons: ReasonMetrics,
    /// What revocation lists did.
    pub revocation: RevocationMetrics,
    /// One line for the beginning and the end of each connection.
    pub access_log: AccessLog,
    /// `AUTHZ_POLICY_INFO_LOGGING`: what the policies decide is logged at INFO, not DEBUG.
    pub policy_info_logging: bool,
}

/// The report of an open connection. One that is dropped without having ended reports that its pod is gone.
pub struct Report {
    telemetry: Arc<Telemetry>,
    traffic: Traffic,
    moved: Rc<Moved>,
    _socket: OpenSocket,
    started: Instant,
    policy: Option<NamespacedName>,
    /// The audit policies that match.
    audited: Option<Box<str>>,
    /// Where not all connections of its service are logged.
    logging: Option<Arc<AccessLogging>>,
}

/// The bytes that a connection has moved. Shared with what moves them.
struct Moved {
    /// Bytes from the client.
    received: Cell<u64>,
    /// Bytes to the client.
    sent: Cell<u64>,
    /// What moves them counts bytes of the server as going forth, not those of the client.
    from_server: Cell<bool>,
    /// None once the end has been reported.
    metrics: RefCell<Option<ConnectionMetrics>>,
}

/// A connection attempt of which only the addresses are known yet. It reports nothing unless it fails.
pub struct Attempt {
    telemetry: Arc<Telemetry>,
    direction: Direction,
    from: SocketAddr,
    to: SocketAddr,
}

impl Attempt {
    /// Reports that it failed.
    pub fn failed(&self, code: ReasonCode, error: &dyn Display) {
        self.telemetry.reasons.count(self.direction, code);
        self.telemetry.access_log.record(&Entry {
            event: Event::Failed,
            src: Peer { addr: Some(self.from), ..Peer::default() },
            dst: Peer { addr: Some(self.to), ..Peer::default() },
            direction: Some(self.direction),
            error: Some(error),
            reason: Some(code.as_str()),
            ..Entry::default()
        });
    }
}

impl Report {
    /// The attempt of `from` to connect to `to`.
    pub fn attempt(telemetry: &Arc<Telemetry>, direction: Direction, from: SocketAddr, to: SocketAddr) -> Attempt {
        Attempt { telemetry: telemetry.clone(), direction, from, to }
    }

    /// The report of the connection that `traffic` describes; counts it as opened.
    pub fn open(telemetry: &Arc<Telemetry>, traffic: Traffic) -> Self {
        Self {
            moved: Rc::new(Moved {
                received: Cell::new(0),
                sent: Cell::new(0),
                from_server: Cell::new(false),
                metrics: RefCell::new(Some(counters::open(&telemetry.traffic, &traffic))),
            }),
            _socket: telemetry.traffic.socket(traffic.reporter),
            telemetry: telemetry.clone(),
            traffic,
            started: Instant::now(),
            policy: None,
            audited: None,
            logging: None,
        }
    }

    /// Which connections of its service are logged; of all, without.
    #[must_use]
    pub fn logged_by(mut self, logging: Option<Arc<AccessLogging>>) -> Self {
        self.logging = logging;
        self
    }

    /// Logs that bytes can flow.
    pub fn opened(&self) {
        self.line(Event::Opened, None, None);
    }

    /// Logs that the policies let it in, and which policies that only dry-run would have matched. Of several services whose policies
    /// judge it, each is said; of policies that let it in the last one stays.
    pub fn decided(&mut self, decision: &Decision) {
        self.policy = decision.reason.policy().cloned();
        self.audited = match (self.audited.take(), audited(&decision.audited)) {
            (Some(before), Some(now)) => Some(format!("{before},{now}").into()),
            (before, now) => before.or(now),
        };
        self.log_decision(decision);
        let Traffic { from, source, destination, .. } = &self.traffic;
        for policy in &decision.dry_run {
            let (to, pod, identity) = (self.asked_for(), destination.pod(), source.identity.as_ref().map(display));
            tracing::info!(%policy, %from, identity, %to, pod, "dry-run policy would have matched");
        }
    }

    /// The address that policies judge: the application's.
    fn asked_for(&self) -> &dyn Display {
        self.traffic.hbone_to.as_ref().map_or(&self.traffic.to, |to| to)
    }

    /// One line for each decision, for those who follow policies (`AUTHZ_POLICY_INFO_LOGGING`).
    fn log_decision(&self, Decision { allowed, reason, .. }: &Decision) {
        let (from, to) = (&self.traffic.from, self.asked_for());
        match self.telemetry.policy_info_logging {
            true => tracing::info!(target: "policy", %from, %to, allowed, %reason, "policies decided"),
            false => tracing::debug!(target: "policy", %from, %to, allowed, %reason, "policies decided"),
        }
    }

    /// Ends it: the policies do not let it in.
    pub fn denied(mut self, judgement: &Judgement) {
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

    /// Ends it: the policies have changed and allow it no more.
    pub fn cut(mut self, reason: &Reason) {
        self.policy = reason.policy().cloned();
        let error = format!("connection closed due to policy change: {reason}");
        self.end(ResponseFlags::Deny, Some(ReasonCode::PolicyChanged), Some(&error));
    }

    /// Ends it: the certificate of its peer has been revoked.
    pub fn revoked(self) {
        let whose = match self.traffic.direction {
            Direction::Outbound => "server",
            Direction::Inbound => "caller",
        };
        let error = format!("connection closed because the {whose}'s certificate has been revoked");
        self.failed(ResponseFlags::CertRevoked, ReasonCode::CertRevoked, &error);
    }

    /// Ends it without a line: it turns out to be another kind of connection, which is reported anew.
    pub fn forget(self) {
        if let Some(metrics) = self.moved.metrics.borrow_mut().take() {
            metrics.closed(ResponseFlags::None);
        }
    }

    /// Ends it: it could not be opened.
    pub fn failed(mut self, flags: ResponseFlags, code: ReasonCode, error: &dyn Display) {
        if flags == ResponseFlags::CertRevoked {
            self.telemetry.revocation.rejected(self.traffic.reporter);
        }
        self.end(flags, Some(code), Some(error));
    }

    /// Ends it: both ends have finished.
    pub fn closed(mut self) {
        self.end(ResponseFlags::None, None, None);
    }

    /// Ends it with what carrying its bytes came to.
    pub fn ended(self, result: Result<(), CarryError>) {
        match result {
            Ok(()) => self.closed(),
            Err(CarryError::Tunnel(TunnelError::Revoked)) => self.revoked(),
            Err(error) => self.broken(&error),
        }
    }

    /// Ends it: it broke while bytes flowed. An application that resets its connection is no fault of the mesh's.
    pub fn broken(mut self, error: &CarryError) {
        let code = match error {
            CarryError::Local(_) | CarryError::Remote(_) => ReasonCode::ConnectionReset,
            CarryError::Tunnel(_) => ReasonCode::TunnelReset,
            CarryError::Untaken(_) => ReasonCode::ApplicationStalled,
        };
        self.end(ResponseFlags::None, Some(code), Some(error));
    }

    fn end(&mut self, flags: ResponseFlags, code: Option<ReasonCode>, error: Option<&dyn Display>) {
        let metrics = self.moved.metrics.borrow_mut().take();
        if let Some(metrics) = metrics {
            metrics.closed(flags);
            if let Some(code) = code {
                self.telemetry.reasons.count(self.traffic.direction, code);
            }
            self.line(Event::Complete, code, error);
        }
    }

    fn line(&self, event: Event, reason: Option<ReasonCode>, error: Option<&dyn Display>) {
        let t = &self.traffic;
        let seen = || Seen {
            source: t.from,
            destination: match t.hbone_to {
                Some(Authority::Address(address)) => address,
                _ => t.to,
            },
            upstream: Some(t.to),
            peer: t.source.identity.as_ref(),
            request: None,
        };
        if self.logging.as_ref().is_some_and(|logging| !logging.logs(&seen())) {
            return;
        }
        // The log speaks from the client's side, the counters from the server's.
        let (bytes_sent, bytes_recv) = match t.direction {
            Direction::Outbound => (self.moved.received.get(), self.moved.sent.get()),
            Direction::Inbound => (self.moved.sent.get(), self.moved.received.get()),
        };
        self.telemetry.access_log.record(&Entry {
            event,
            src: t.source.peer(t.from, t.secured),
            dst: t.destination.peer(t.to, t.secured),
            hbone_addr: t.hbone_to.as_ref().map(|a| a as &dyn Display),
            service: t.service.as_ref().map(|s| &*s.hostname),
            direction: Some(t.direction),
            bytes_sent: (event == Event::Complete).then_some(bytes_sent),
            bytes_recv: (event == Event::Complete).then_some(bytes_recv),
            duration: (event == Event::Complete).then(|| self.started.elapsed()),
            error,
            request: None,
            policy: self.policy.as_ref().map(|p| p as &dyn Display),
            audit: self.audited.as_ref().map(|policies| policies as &dyn Display),
            reason: reason.map(ReasonCode::as_str),
            trace: t.trace.as_ref().map(|trace| trace as &dyn Display),
            trace_id: None,
        });
    }

    /// Counts bytes for a carrier whose way forth is from the client.
    pub fn count_from_client(&self) -> Rc<dyn Count> {
        self.moved.clone()
    }

    /// Counts bytes for a carrier whose way forth is from the server.
    pub fn count_from_server(&self) -> Rc<dyn Count> {
        self.moved.from_server.set(true);
        self.moved.clone()
    }
}

impl Moved {
    fn received(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.received.set(self.received.get() + bytes);
        if let Some(metrics) = &*self.metrics.borrow() {
            metrics.received(bytes);
        }
    }

    fn sent(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.sent.set(self.sent.get() + bytes);
        if let Some(metrics) = &*self.metrics.borrow() {
            metrics.sent(bytes);
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let why = "closed because its pod left, or ztunnel ended before the connection did";
        self.end(ResponseFlags::None, Some(ReasonCode::PodGone), Some(&why));
    }
}

impl Count for Moved {
    fn forth(&self, bytes: usize) {
        if self.from_server.get() { self.sent(bytes) } else { self.received(bytes) }
    }

    fn back(&self, bytes: usize) {
        if self.from_server.get() { self.received(bytes) } else { self.sent(bytes) }
    }
}

#[cfg(test)]
mod tests;

/// The audit policies that matched, as the line names them.
pub fn audited(policies: &[NamespacedName]) -> Option<Box<str>> {
    let names = || policies.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    (!policies.is_empty()).then(|| names().into())
}
