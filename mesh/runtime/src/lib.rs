//! What every process here needs to start, be observed and stop.
//!
//! It knows nothing of the mesh: no workloads, no policies, no certificates. What belongs to one program stays in that
//! program; what two of them would otherwise copy is here.
//!
//! | To | Read | It gives |
//! |---|---|---|
//! | start | [`config`] | what was set in the environment, as typed values; errors name the setting, the value and the form expected |
//! | | [`usage`], [`nearest`] | what `--help` says of settings; the name that was probably meant |
//! | | [`open_files`] | how many files and connections it may have open |
//! | be observed | [`log`] | structured logs on stdout, their level changed while running |
//! | | [`access_log`] | one line per finished connection or request, written by a thread of its own |
//! | | [`metrics`] | the registry, Istio's traffic metrics and the label words all programs share |
//! | | [`trace`] | the `traceparent` of a connection: made, read |
//! | | [`readiness`] | ready when every named part has said so |
//! | | [`admin`] | what is served on localhost: dump of state, log level, quit |
//! | | [`http_server`] | the small bounded HTTP/1 server under admin, metrics and readiness |
//! | | [`own_port`] | a port of the process's own, taken over from a predecessor |
//! | reconnect | [`backoff`] | how long to wait before connecting again |
//! | share files | [`files`] | a file that others read, replaced in one step |
//! | | [`watch`] | when to look at a file, or at a folder, again |
//! | be small | [`memory`] | what is not used any more is the machine's again |
//! | stop | [`shutdown`] | SIGTERM, SIGINT or `/quitquitquit`: when the process should end |
//! | | [`drain`] | stop accepting, finish what is open, then force |
//!
//! Begin with [`drain`] and [`readiness`]: they are the shape of a program's life. Nothing here is tied to one tokio runtime; every
//! handle can be used from several current-thread runtimes on different threads.

pub mod access_log;
pub mod admin;
pub mod backoff;
pub mod config;
pub mod drain;
pub mod files;
pub mod http_server;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod nearest;
pub mod open_files;
pub mod own_port;
pub mod readiness;
pub mod shutdown;
pub mod trace;
pub mod usage;
pub mod watch;

mod text;
pub mod timestamp;
