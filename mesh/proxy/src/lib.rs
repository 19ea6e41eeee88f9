//! What any HBONE proxy is, whoever it serves: ztunnel serves the pods of its node, a waypoint the one that it is. What
//! it is not: it captures no traffic, knows no network namespaces, and parses no application protocol.
//!
//! | module | holds |
//! |---|---|
//! | [`context`] | what every data thread reads |
//! | [`data_thread`] | the threads that move bytes |
//! | [`accept`] | accepting connections; closing a listener without turning anybody away |
//! | [`local_workload`] | the workload of a pod that is served, awaited |
//! | [`local_pod`] | a pod that is served, as its connections see it |
//! | [`judge`] | what the policies say: when a connection comes, and when they change |
//! | [`covering`] | the policies that cover a workload, made ready once a thread |
//! | [`connections`] | what is open, judged again when policies change |
//! | [`quota`] | how much each pod may hold, and each source of it |
//! | [`overload`] | what becomes of a connection for which there is no room |
//! | `late_close` | connections that were turned away, closed three seconds later |
//! | [`report`] | metrics and access log of each connection |
//! | [`metrics`] | counters beside those |
//! | [`inbound`] | HBONE connections that come: each caller proves itself, within its share; GOAWAY when its pod ends |
//! | [`dial`] | opening a tunnel: what may be reused, what is asked, what a failure means; `across` to another network |
//! | [`hostnames`] | addresses of workloads that have only a hostname |
//! | [`control`] | the ends of the control plane: certificates, revocation lists, tables |
//! | [`warm`] | certificates ahead of need |
//! | [`dump`] | what is held, as `istioctl ztunnel-config` reads it |
//! | [`drain`] | the end of the process |

pub mod accept;
pub mod connections;
pub mod context;
pub mod control;
pub mod covering;
pub mod data_thread;
mod described;
pub mod dial;
pub mod drain;
pub mod dump;
pub mod hostnames;
pub mod inbound;
pub mod judge;
mod late_close;
pub mod local_pod;
pub mod local_workload;
pub mod metrics;
pub mod overload;
pub mod quota;
pub mod report;
pub mod warm;
