//! Structured logs on stdout, their level changed while running.
//!
//! Plain lines are tab separated: time (RFC 3339, UTC), level, scope, message and fields. JSON lines are objects with `time`, `level`,
//! `scope`, `message` and the fields; a field of one of these names is written behind `field.`. Levels are set as in `RUST_LOG`: `info`, `debug,mesh_hbone=trace`; `mod:level` is understood too,
//! because that is how `/logging` of ztunnel and `istioctl` write it.

mod filter;
mod format;

use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

pub use filter::InvalidFilter;
pub(crate) use format::level_name;

use crate::config::{ConfigError, Env};

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Tab separated text.
    #[default]
    Plain,
    /// One JSON object per line.
    Json,
}

/// What was set about logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The filter to start with, and to return to on reset.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
}

impl LogConfig {
    /// Reads `RUST_LOG` (default `info`) and `LOG_FORMAT` (`plain` or `json`, default plain).
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if either has another form.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let form = "a level such as info, or a list such as info,mesh_hbone=debug";
        let filter = env.read("RUST_LOG", form, |text| filter::normalise(text).ok())?;
        let format = env.choice("LOG_FORMAT", &[("plain", LogFormat::Plain), ("json", LogFormat::Json)])?;
        Ok(Self { filter: filter.unwrap_or_else(|| "info".into()), format: format.unwrap_or_default() })
    }
}

/// Reads and changes the filter while the program runs. Clones share it.
#[derive(Clone, Debug)]
pub struct LogControl {
    at_start: Arc<str>,
    current: Arc<Mutex<String>>,
    handle: reload::Handle<EnvFilter, Registry>,
}

/// Logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The start-up filter has the wrong form.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
    /// Something else in this process receives logs already.
    #[error("logs are already set up in this process: call log::init only once")]
    AlreadySet,
}

/// Sends this process's logs to stdout. Once per process, before anything logs.
///
/// # Errors
/// [`LogError`] if the filter has the wrong form or logs are set up already.
pub fn init(config: &LogConfig) -> Result<LogControl, LogError> {
    let (filter, control) = controlled(&config.filter)?;
    let registry = tracing_subscriber::registry().with(filter);
    let done = match config.format {
        LogFormat::Plain => registry.with(format::layer(format::Plain, std::io::stdout)).try_init(),
        LogFormat::Json => registry.with(format::layer(format::Json, std::io::stdout)).try_init(),
    };
    done.map_err(|_| LogError::AlreadySet)?;
    Ok(control)
}

impl LogControl {
    /// The filter in force.
    pub fn current(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds to the filter in force: `debug`, or `mesh_hbone:trace,access=off`. What names the same scope again replaces it.
    ///
    /// # Errors
    /// [`InvalidFilter`]; the filter in force stays as it was.
    pub fn add(&self, directives: &str) -> Result<(), InvalidFilter> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let next = filter::merge(&current, directives)?;
        self.apply(&mut current, next)
    }

    /// Returns to the filter the program started with.
    pub fn reset(&self) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // It was accepted at start-up.
        let _ = self.apply(&mut current, self.at_start.to_string());
    }

    fn apply(&self, current: &mut String, next: String) -> Result<(), InvalidFilter> {
        let filter = filter::compile(&next)?;
        self.handle.reload(filter).map_err(|error| InvalidFilter::new(&next, &error.to_string()))?;
        *current = next;
        Ok(())
    }
}

type ControlledFilter = reload::Layer<EnvFilter, Registry>;

fn controlled(at_start: &str) -> Result<(ControlledFilter, LogControl), InvalidFilter> {
    let at_start = filter::normalise(at_start)?;
    let (layer, handle) = reload::Layer::new(filter::compile(&at_start)?);
    let current = Arc::new(Mutex::new(at_start.clone()));
    Ok((layer, LogControl { at_start: at_start.into(), current, handle }))
}

/// A control whose filter governs nothing, for tests of what is built on it. The layer must be kept: the control reaches into it.
#[cfg(test)]
pub(crate) fn detached(at_start: &str) -> (impl Send + 'static, LogControl) {
    controlled(at_start).expect("a filter of the right form")
}

#[cfg(test)]
mod tests;
