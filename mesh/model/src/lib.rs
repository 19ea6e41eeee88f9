//! What the mesh is, and what follows from it. No clock, no sockets, no async, no logging: everything here is a
//! value or a pure function, so it is tested by tables and fuzzed.
//!
//! | module | holds |
//! |---|---|
//! | [`shared`] | one copy of what many resources say alike |
//! | [`persistent`] | a sorted map whose clones share what they have in common |
//! | [`identity`] | SPIFFE ids |
//! | [`address`] | addresses in normal form, hostnames, gateways |
//! | [`pod`] | which workload a pod is |
//! | [`reason`] | codes for why a connection did not end well |
//! | [`share`] | fair shares of what is bounded: which source may hold how much |
//! | [`labels`] | the labels and annotations by which users speak to the mesh |
//! | [`traffic`] | how a waypoint treats endpoints: limits, outliers, balancing |
//! | [`http`] | the one form in which a request is routed, judged and passed on |
//! | [`token`] | JSON Web Tokens of requests |
//! | [`trace`] | traces of requests, and spans |
//! | [`access_log`] | which requests have a line in the access log |
//! | [`workload`], [`service`], [`authorizer`], [`policy`], [`rate_limit`], [`route`] | the types, each with its wire form; `policy::decide` |
//! | [`resource`] | one thing the control plane can say |
//! | [`tables`] | what a proxy knows |
//! | [`balance`] | which endpoint |
//! | [`destination`] | where a connection should go, or why nowhere |
//!
//! Each line of this table uses only the lines above it. Begin with [`destination`] to see what it is all for.

pub mod access_log;
pub mod address;
pub mod authorizer;
pub mod balance;
pub mod destination;
pub mod http;
pub mod identity;
pub mod labels;
pub mod persistent;
pub mod pod;
pub mod policy;
pub mod rate_limit;
pub mod reason;
pub mod resource;
pub mod route;
pub mod service;
pub mod share;
pub mod shared;
pub mod tables;
pub mod token;
pub mod trace;
pub mod traffic;
pub mod workload;
