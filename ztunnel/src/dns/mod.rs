//! The DNS proxy (port 15053 on each pod's loopback): what the tables know is answered from them, all else is asked of
//! the name servers of ztunnel's own `/etc/resolv.conf` and passed on byte for byte.
//!
//! | file | holds |
//! |---|---|
//! | [`message`] | messages on the wire (pure) |
//! | [`answer`] | what the tables say (pure) |
//! | `cache` | what others said, for as long as they said |
//! | `forward` | asking others from inside the pod |
//! | `nameservers` | whom to ask |
//! | `follow` | names that are nothing but other names |
//! | `resolve` | names that ztunnel itself needs for a pod |
//! | `metrics`, `gone` | what is counted; of clients that are gone no more |
//! | `serve` | a pod's sockets |
//!
//! One worker serves a pod's DNS. This file is the order of things: `Dns::at_once` says all that needs no waiting,
//! `Dns::later` waits.

pub mod answer;
mod cache;
mod follow;
mod forward;
pub(crate) mod gone;
pub mod message;
pub(crate) mod metrics;
mod nameservers;
mod resolve;
pub(crate) mod serve;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::pod::PodInfo;
use mesh_model::reason::ReasonCode;
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;
use mesh_proxy::local_workload::{deadline, local_workload};
use mesh_runtime::metrics::Metrics;
use mesh_xds::follow::Reader;
use rand::seq::SliceRandom;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::sockets::{Netns, SocketSettings};
use answer::{Answer, NameSettings};
use cache::Cache;
use follow::{Known, TTL};
use message::{Query, Rcode, Unreadable};
use metrics::{DnsMetrics, Labels};
use nameservers::Nameservers;

/// Most queries of one pod that wait for others at a time: each has a socket.
const MAX_WAITING: usize = 200;
/// Most queries of all pods that wait for others at a time.
const MAX_WAITING_IN_ALL: usize = 4096;
/// Failures of one pod that are logged: one in this time, and how many were not.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// Over TCP any message fits.
const TCP_LIMIT: usize = u16::MAX as usize;

/// What is set about DNS.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// `ISTIO_META_DNS_PROXY_ADDR`: where pods' queries arrive.
    pub address: ProxyAddress,
    /// How names are understood.
    pub names: NameSettings,
}

/// `ISTIO_META_DNS_PROXY_ADDR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyAddress {
    /// Loopback of both families.
    Localhost(u16),
    /// One address.
    Address(SocketAddr),
}

impl std::str::FromStr for ProxyAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_prefix("localhost:") {
            Some(port) => port.parse().map(Self::Localhost).map_err(|_| ()),
            None => text.parse().map(Self::Address).map_err(|_| ()),
        }
    }
}

/// The DNS proxy, as all workers share it.
pub(crate) struct Dns {
    names: NameSettings,
    tables: Reader,
    sockets: SocketSettings,
    nameservers: watch::Receiver<Nameservers>,
    waiting: Semaphore,
    metrics: DnsMetrics,
}

/// One pod's DNS, on the worker that serves it.
pub(crate) struct PodDns {
    info: Arc<PodInfo>,
    netns: Netns,
    cache: RefCell<Cache>,
    waiting: Cell<usize>,
    connections: Cell<usize>,
    logged: Cell<Option<Instant>>,
    unlogged: Cell<u64>,
}

/// What can be said without waiting.
#[derive(Debug)]
enum AtOnce {
    Say(Vec<u8>),
    /// Nothing is said.
    Silence,
    Wait(Query),
}

impl Dns {
    /// What is counted.
    pub(crate) fn metrics(&self) -> &DnsMetrics {
        &self.metrics
    }

    /// With nothing counted yet.
    pub(crate) fn new(
        config: &DnsConfig,
        tables: Reader,
        sockets: SocketSettings,
        resolv_conf: &Path,
        metrics: &mut Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            names: config.names.clone(),
            tables,
            sockets,
            nameservers: nameservers::follow(resolv_conf.into()),
            waiting: Semaphore::new(MAX_WAITING_IN_ALL),
            metrics: DnsMetrics::register(metrics),
        })
    }

    /// What can be said without waiting: no to what cannot be read, what the tables know, what others said before.
    fn at_once(&self, pod: &PodDns, packet: &[u8], tcp: bool) -> AtOnce {
        let info = &pod.info;
        let query = match message::read(packet) {
            Ok(query) => query,
            Err(Unreadable::Ignore(why)) => {
                tracing::debug!(pod = %info, why, "no DNS query: dropped");
                return AtOnce::Silence;
            }
            Err(Unreadable::Malformed(why)) => {
                self.metrics.request(&Labels::new(None, tcp, None));
                tracing::debug!(pod = %info, why, "malformed DNS query");
                return AtOnce::Say(message::refuse(packet, None, Rcode::FormErr));
            }
        };
        // Counted with its client's names where they are known at once.
        let known = self.tables.read(|tables| {
            let client = tables.workload_of_pod(&info.namespace, &info.name, &info.service_account)?;
            Some((self.labels(&query, tcp, Some(client)), self.known(tables, client, info, packet, &query, tcp)))
        });
        let Some((labels, answer)) = known else {
            self.metrics.request(&self.labels(&query, tcp, None));
            return AtOnce::Wait(query);
        };
        self.metrics.request(&labels);
        if let Known::Said(answer) = answer {
            return AtOnce::Say(answer);
        }
        match pod.cache.borrow_mut().get(packet, &query, tcp, std::time::Instant::now()) {
            Some(answer) => {
                tracing::debug!(pod = %info, name = name(&query), r#type = labels.query_type(), "DNS: as asked before");
                AtOnce::Say(answer)
            }
            None => AtOnce::Wait(query),
        }
    }

    /// What must be waited for: a client that the control plane has not told of yet, and other servers.
    async fn later(&self, pod: &PodDns, packet: &[u8], query: &Query, tcp: bool) -> Vec<u8> {
        let info = &pod.info;
        let refuse = |rcode| message::refuse(packet, Some(query), rcode);
        let (name, kind) = (name(query), self.labels(query, tcp, None).query_type());
        let permit = self.waiting.try_acquire();
        if permit.is_err() || pod.waiting.get() >= MAX_WAITING {
            let why = match permit {
                Err(_) => format!("{MAX_WAITING_IN_ALL} queries of this node's pods wait for name servers"),
                Ok(_) => format!("{MAX_WAITING} queries of the pod wait for name servers"),
            };
            self.failed(pod, name, kind, ReasonCode::DnsOverloaded, &why);
            return refuse(Rcode::ServFail);
        }
        let _waiting = Counted::new(&pod.waiting);
        let client = match local_workload(&self.tables, info, deadline()).await {
            Ok(client) => client,
            Err(error) => {
                self.failed(pod, name, kind, ReasonCode::UnknownWorkload, &error);
                return refuse(Rcode::ServFail);
            }
        };
        let aliases = match self.tables.read(|t| self.known(t, &client, info, packet, query, tcp)) {
            Known::Said(answer) => return answer,
            Known::Outside(aliases) => Some(aliases),
            Known::No => None,
        };
        let wants = query.question.as_ref().map(|q| q.kind);
        if matches!(wants, Some(message::kind::AXFR | message::kind::IXFR)) {
            self.failed(
                pod,
                name,
                kind,
                ReasonCode::DnsNotForwarded,
                &"zone transfers are many messages: only one is passed on",
            );
            return refuse(Rcode::NotImp);
        }
        let servers = self.nameservers.borrow().servers.clone();
        let started = Instant::now();
        // Of a name that leads out of the mesh the last one is asked for, whole.
        let asked = match aliases.as_ref().and_then(|aliases| aliases.query(wants.unwrap_or_default())) {
            Some(outside) => forward::ask_for_all(&pod.netns, &self.sockets, &servers, &outside).await,
            None => forward::ask(&pod.netns, &self.sockets, &servers, packet, tcp).await,
        };
        let asked = asked.map(|answer| match &aliases {
            Some(aliases) => aliases.answer(packet, query, &answer, self.limit(query, tcp)),
            None => answer,
        });
        self.metrics.forwarded(&self.labels(query, tcp, Some(&client)), asked.is_ok(), started.elapsed());
        match asked {
            Ok(answer) => {
                pod.cache.borrow_mut().put(packet, query, tcp, &answer, std::time::Instant::now());
                answer
            }
            Err(failure) => {
                self.failed(pod, name, kind, failure.code(), &failure);
                refuse(Rcode::ServFail)
            }
        }
    }

    /// The answer that the tables give, if they do.
    fn known(
        &self,
        tables: &Tables,
        client: &Workload,
        info: &PodInfo,
        packet: &[u8],
        query: &Query,
        tcp: bool,
    ) -> Known {
        let Some(question) = query.question.as_ref() else { return Known::No };
        // Whoever speaks a newer EDNS is told so by a server that has one.
        if query.edns.is_some_and(|edns| edns.version > 0) {
            return Known::No;
        }
        let (name, kind, limit) = (question.name.as_str(), question.kind, self.limit(query, tcp));
        match answer::answer(tables, client, &self.names, question) {
            Answer::Forward(why) => {
                tracing::debug!(pod = %info, name, kind, %why, "DNS: asking others");
                Known::No
            }
            Answer::Addresses { service, alias, mut addresses } => {
                tracing::debug!(pod = %info, name, kind, service = %service.key(), alias, ?addresses, "DNS: answered");
                addresses.shuffle(&mut rand::rng());
                Known::Said(message::answer(packet, query, alias.as_deref().as_slice(), &addresses, TTL, limit))
            }
            Answer::Targets { service, alias, mut targets } => {
                tracing::debug!(pod = %info, name, kind, service = %service.key(), alias, ?targets, "DNS: answered");
                targets.shuffle(&mut rand::rng());
                Known::Said(message::services(packet, query, alias.as_deref(), &targets, TTL, limit))
            }
            Answer::Alias { service, alias, target } => {
                tracing::debug!(pod = %info, name, kind, service = %service.key(), alias, %target, "DNS: another name");
                follow::follow(tables, client, &self.names, question, alias.into_iter().chain([target.to_string()]))
                    .known(packet, query, limit)
            }
        }
    }

    /// How long an answer may be.
    fn limit(&self, query: &Query, tcp: bool) -> usize {
        if tcp { TCP_LIMIT } else { query.udp_limit() }
    }

    fn labels(&self, query: &Query, tcp: bool, client: Option<&Workload>) -> Labels {
        Labels::new(query.question.as_ref().map(|q| q.kind), tcp, client)
    }

    /// Says why a name does not resolve; not more often than somebody can read.
    fn failed(&self, pod: &PodDns, name: &str, kind: &str, reason: ReasonCode, error: &dyn std::fmt::Display) {
        self.metrics.not_served(reason);
        let now = Instant::now();
        if pod.logged.get().is_some_and(|last| now.duration_since(last) < LOG_EVERY) {
            pod.unlogged.set(pod.unlogged.get() + 1);
            return;
        }
        pod.logged.set(Some(now));
        let unlogged = pod.unlogged.take();
        tracing::warn!(pod = %pod.info, name, r#type = kind, reason = reason.as_str(), %error, unlogged, "a DNS query failed");
    }
}

impl PodDns {
    /// With nothing remembered yet.
    pub(crate) fn new(info: Arc<PodInfo>, netns: Netns) -> Self {
        Self {
            info,
            netns,
            cache: RefCell::default(),
            waiting: Cell::new(0),
            connections: Cell::new(0),
            logged: Cell::new(None),
            unlogged: Cell::new(0),
        }
    }
}

/// Counts for as long as it lives.
struct Counted<'a>(&'a Cell<usize>);

impl<'a> Counted<'a> {
    fn new(cell: &'a Cell<usize>) -> Self {
        cell.set(cell.get() + 1);
        Self(cell)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn name(query: &Query) -> &str {
    query.question.as_ref().map_or("", |question| &question.name)
}

#[cfg(test)]
mod tests;
