//! A CA that is plugged in, and replaced while we run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_runtime::watch::Watch;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::material::Material;
use super::metrics::CaMetrics;

/// Takes up what is plugged into `directory`, whenever it is another and can be used; until then what was good signs. The
/// roots go to `roots`, too, where something on this machine reads them. Never returns.
pub async fn follow(
    directory: PathBuf,
    roots: Option<PathBuf>,
    current: watch::Sender<Arc<Material>>,
    metrics: CaMetrics,
) {
    // What a kubelet does, and people with several commands: when it is quiet again, it is whole.
    let mut changes = Watch::edits([directory.as_path()]);
    let mut trouble = None;
    loop {
        let (from, before) = (directory.clone(), current.borrow().clone());
        let read = spawn_blocking(move || Material::plugged_in(&from).map(|now| (now.differs(&before), now))).await;
        // A panic in there is a file that cannot be used.
        let problem = match read.map_err(|e| e.to_string()).map(|read| read.map_err(|e| e.to_string())) {
            Ok(Ok((true, now))) => {
                take_up(now, roots.as_deref(), &current);
                None
            }
            Ok(Ok((false, _))) => None,
            Ok(Err(problem)) | Err(problem) => Some(problem),
        };
        metrics.plugged_in_refused.set(problem.is_some().into());
        if problem != trouble
            && let Some(problem) = &problem
        {
            tracing::error!(
                directory = %directory.display(),
                "what is plugged in now cannot be used, and what was before goes on signing: {problem}"
            );
        }
        trouble = problem;
        changes.changed().await;
    }
}

fn take_up(now: Material, roots: Option<&Path>, current: &watch::Sender<Arc<Material>>) {
    // Who checks us reads them: they are there before we show what they vouch for.
    if let Some(directory) = roots
        && let Err(error) = now.publish_roots(directory)
    {
        tracing::error!(%error, "the roots are not published on this machine");
    }
    let known = current.borrow().vouches_for(&now);
    tracing::info!(now = %now.described(), before = %current.borrow().described(), "signing with another certificate");
    if !known {
        tracing::warn!(
            "it leads to a root that was not in the bundle before: a proxy refuses its certificates until it has renewed its \
             own. Add a new root to the bundle first, and sign below it when every certificate has been renewed"
        );
    }
    current.send_replace(Arc::new(now));
}
