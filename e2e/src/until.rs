//! Waiting for an effect instead of sleeping.
use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// How long an effect may take before a test gives up: far more than it should, so that a slow machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until `look` succeeds. `what` is what is waited for.
///
/// # Errors
/// The last error of `look`, once [`PATIENCE`] is over.
pub fn until<T>(what: &str, look: impl FnMut() -> Result<T>) -> Result<T> {
    until_within(PATIENCE, what, look)
}

/// [`until`], with another limit.
///
/// # Errors
/// The last error of `look`, once `limit` is over.
pub fn until_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(seen) => return Ok(seen),
            Err(e) if Instant::now() > deadline => {
                return Err(e).with_context(|| format!("waited {limit:?} in vain: {what}"));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
