//! Faults on purpose: the request waits, and is refused.

use mesh_model::reason::ReasonCode;
use mesh_model::route::fault::Injected;
use tokio::time::sleep;

use super::answer::Refused;
use super::report::Report;

/// Envoy's words.
const WORDS: &str = "fault filter abort";

/// Does to a request what its rule wants. A delay is no part of the time that the rule gives the application, as with Envoy.
///
/// # Errors
/// With the answer, where the request is not to be sent on.
pub(super) async fn inject(injected: Injected, report: &mut Report) -> Result<(), Refused> {
    if let Some((length, why)) = injected.delay {
        // Seldom, and so not a part of what each request holds.
        Box::pin(sleep(length)).await;
        report.delayed(length, why);
    }
    match injected.abort {
        Some((status, why)) => Err(Refused::new(status, ReasonCode::FaultAborted, why).saying(WORDS)),
        None => Ok(()),
    }
}
