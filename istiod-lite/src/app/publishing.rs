//! From what a source says to what subscribers hear, and users.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_runtime::readiness::Part;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::publish::Publication;
use crate::source::{Batch, Findings, Source};
use crate::status::Status;
use crate::translate::condition::PolicyStatus;

/// Publishes what a source says now, and whatever it says later.
pub(super) async fn follow(
    mut source: impl Source,
    mut publication: Publication,
    status: watch::Sender<Arc<Status>>,
    status_file: Option<PathBuf>,
    ready: Part,
) {
    let mut first = true;
    while let Some(Batch { changes, mut findings }) = source.next().await {
        let mut policies = None;
        if first || !changes.is_empty() {
            // Large tables take as long as they take: those who ask for certificates meanwhile do not wait for it.
            let step = spawn_blocking(move || {
                let (difference, statuses) = publication.apply(changes);
                tracing::info!(changed = difference.changed, removed = difference.removed, "published");
                (publication, statuses)
            });
            // A panic in there leaves nothing to go on with; what was published keeps serving.
            let Ok(stepped) = step.await else { return };
            (publication, policies) = stepped;
        }
        findings = source.published().await.or(findings);
        let (sender, file) = (status.clone(), status_file.clone());
        let told = spawn_blocking(move || tell(findings, policies, &sender, file.as_deref()));
        if told.await.is_err() {
            return;
        }
        ready.ready();
        first = false;
    }
}

/// Tells the user what is new.
fn tell(
    findings: Option<Findings>,
    policies: Option<Vec<PolicyStatus>>,
    status: &watch::Sender<Arc<Status>>,
    file: Option<&Path>,
) {
    let before = status.borrow().clone();
    let mut now = before.clone();
    if findings.is_some() || policies.is_some() {
        let Status { rejected, policies: known, skipped } = (*before).clone();
        let Findings { rejected, skipped } = findings.unwrap_or(Findings { rejected, skipped });
        now = Arc::new(Status { rejected, policies: policies.unwrap_or(known), skipped });
        now.log_news(&before);
    }
    let news = !Arc::ptr_eq(&now, &before) && now != before;
    if let Some(file) = file.filter(|file| news || !file.exists())
        && let Err(error) = now.write(file)
    {
        tracing::warn!(file = %file.display(), %error, "STATUS_FILE cannot be written");
    }
    status.send_replace(now);
}
