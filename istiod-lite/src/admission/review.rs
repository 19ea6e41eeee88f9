//! Whether the object of an AdmissionReview is wrong, whatever else there is; by the reader that the watches use. Pure.

use mesh_kube::{Meta, Raw};
use mesh_model::labels;
use serde::Deserialize;
use serde_json::{Value, json};

use super::is_validated;
use crate::resources::unread::Unread;
use crate::resources::{Kind, Recognized};
use crate::source::Rejected;
use crate::source::kubernetes::kinds;

/// The version of reviews that is spoken; every API server since 1.16 speaks it.
const API_VERSION: &str = "admission.k8s.io/v1";

/// What is no review.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAReview {
    /// Not of the form.
    #[error("not an AdmissionReview of {API_VERSION}: {0}")]
    Form(String),
    /// An answer, or nothing.
    #[error("the AdmissionReview has no request")]
    NoRequest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Option<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    kind: GroupVersionKind,
    #[serde(default)]
    sub_resource: String,
    operation: String,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
struct GroupVersionKind {
    group: String,
    version: String,
    kind: String,
}

/// What becomes of what somebody wants to write.
#[derive(Debug)]
pub enum Verdict {
    /// It can be read.
    Good(Kind),
    /// It cannot, and is refused.
    Wrong(Kind, Box<Rejected>),
    /// It cannot, for the reason for which what is there cannot either. Whoever takes a finalizer off it, or puts a label on it, is let.
    WrongAlready(Box<Rejected>),
    /// Its kind says something that is not done here.
    NotEnforced(String),
    /// It is left to others: another revision, another kind, a deletion.
    NotOurs,
}

/// A review that was decided.
#[derive(Debug)]
pub struct Decided {
    uid: String,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Nothing would come of it anyway.
    pub dry_run: bool,
}

/// Decides a review. `is_ours` says whether an object with this label `istio.io/rev` is for this control plane; one without is.
///
/// # Errors
/// When it is none.
pub fn decide(body: &[u8], is_ours: impl Fn(&str) -> bool) -> Result<Decided, NotAReview> {
    let review: Review = serde_json::from_slice(body).map_err(|e| NotAReview::Form(e.to_string()))?;
    if (review.api_version.as_str(), review.kind.as_str()) != (API_VERSION, "AdmissionReview") {
        return Err(NotAReview::Form(format!("it is {} {}", review.api_version, review.kind)));
    }
    let request = review.request.ok_or(NotAReview::NoRequest)?;
    Ok(Decided { verdict: verdict(&request, is_ours), uid: request.uid, dry_run: request.dry_run })
}

fn verdict(request: &Request, is_ours: impl Fn(&str) -> bool) -> Verdict {
    let is_ours = |object: &Value| {
        let revision = object["metadata"]["labels"][labels::REVISION].as_str();
        revision.is_none_or(&is_ours)
    };
    let writes = matches!(request.operation.as_str(), "CREATE" | "UPDATE") && request.sub_resource.is_empty();
    if !writes || !is_validated(&request.kind.group) || !is_ours(&request.object) {
        return Verdict::NotOurs;
    }
    let GroupVersionKind { group, version, kind } = &request.kind;
    let kind = match Kind::recognize(&format!("{group}/{version}"), kind) {
        Recognized::Read(kind) => kind,
        Recognized::Unread(what @ Unread::NotEnforced) => return Verdict::NotEnforced(what.meaning(kind)),
        // The API server knows the kind, and in which versions it has it.
        Recognized::Unread(_) | Recognized::WrongVersion | Recognized::Misspelt(_) => return Verdict::NotOurs,
    };
    let Err(now) = read(kind, &request.object) else { return Verdict::Good(kind) };
    match Some(&request.old_object).filter(|old| old.is_object() && is_ours(old)).map(|old| read(kind, old)) {
        Some(Err(before)) if before.sentence() == now.sentence() => Verdict::WrongAlready(now),
        _ => Verdict::Wrong(kind, now),
    }
}

fn read(kind: Kind, object: &Value) -> Result<(), Box<Rejected>> {
    // Who it is counts for nothing here; what it must say of itself, the reader asks.
    let meta = Meta::deserialize(&object["metadata"]).unwrap_or_default();
    kinds::read(kind, &Raw { meta, text: &object.to_string() }).map(drop)
}

impl Decided {
    /// What the API server is told, in JSON.
    pub fn answer(&self) -> String {
        let mut response = json!({"uid": self.uid, "allowed": true});
        match &self.verdict {
            Verdict::Good(_) | Verdict::NotOurs => {}
            Verdict::Wrong(_, rejected) => {
                response["allowed"] = false.into();
                response["status"] = json!({
                    "status": "Failure", "code": 400, "reason": "BadRequest", "message": rejected.sentence(),
                });
            }
            Verdict::WrongAlready(rejected) => {
                response["warnings"] =
                    json!([format!("it was rejected before, and still is: {}", rejected.sentence())]);
            }
            Verdict::NotEnforced(meaning) => response["warnings"] = json!([meaning]),
        }
        json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}).to_string()
    }
}

#[cfg(test)]
mod tests;
