//! A no of the policies, as it is answered and reported.

use http::StatusCode;
use mesh_proxy::judge::Judgement;

use super::answer::Refused;
use super::report::Report;

/// The answer to a request that is not let in; the report says by which policy.
pub(super) fn denied(judgement: &Judgement, report: &mut Report) -> Refused {
    let why = match judgement {
        Judgement::Decided(decision) => {
            report.decided(decision);
            decision.reason.to_string()
        }
        Judgement::MissingPolicy(policy) => {
            format!("{policy} covers this service and has not come from the control plane")
        }
    };
    Refused::new(StatusCode::FORBIDDEN, judgement.code(), why)
}
