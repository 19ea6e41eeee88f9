//! The beginning of a waypoint's end: whoever has not heard of it yet still comes, and is served.
//!
//! Its pod is told to end when everybody else is told that it does. A caller's ztunnel that has not heard yet would find its port closed, and
//! its application a connection that failed.

use std::time::Duration;

use mesh_model::pod::PodInfo;
use mesh_model::tables::Tables;
use mesh_xds::follow::Reader;
use tokio::time::{sleep, timeout};

/// How long the control plane may take to say that the pod serves no more. One that does not say so has lost touch with it, or
/// only its program was told to end.
const HEARS: Duration = Duration::from_secs(2);
/// How much later others may hear of it than we do.
const OTHERS: Duration = Duration::from_millis(500);

/// Waits until others have heard that this pod ends, within a part of the time there is to `drain`.
pub(crate) async fn heard(tables: &Reader, own: &PodInfo, drain: Duration) {
    let serves = |tables: &Tables| {
        let own = tables.workload_of_pod(&own.namespace, &own.name, &own.service_account);
        own.is_some_and(|own| own.healthy)
    };
    let told = async {
        let mut changed = tables.changed();
        // An error means that nobody tells anything any more.
        while tables.read(serves) && changed.changed().await.is_ok() {}
    };
    // Who is not told goes on all the same.
    let _ = timeout(HEARS.min(drain / 4), told).await;
    sleep(OTHERS.min(drain / 4)).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_model::resource::Resource;
    use mesh_model::workload::Workload;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_until_the_control_plane_has_told_of_its_end_or_has_not() {
        let own = PodInfo { name: "way-1".into(), namespace: "shop".into(), service_account: "way".into() };
        let pod = |healthy| {
            let account = "way".into();
            let pod =
                Workload { namespace: "shop".into(), service_account: account, healthy, ..Workload::empty("way-1") };
            vec![Resource::Workload(Arc::new(Workload { name: "way-1".into(), ..pod }))]
        };
        for (what, told_after, drain, expected) in [
            ("it is told", Some(300), 25_000, 800),
            ("nobody says anything", None, 25_000, 2_500),
            ("little time to drain", None, 1_000, 500),
        ] {
            let (mut writer, tables) = mesh_xds::follow::tables();
            writer.apply_local(pod(true));
            let begin = Instant::now();
            let tell = async {
                if let Some(after) = told_after {
                    sleep(Duration::from_millis(after)).await;
                    writer.apply_local(pod(false));
                }
            };
            tokio::join!(heard(&tables, &own, Duration::from_millis(drain)), tell);
            assert_eq!(begin.elapsed().as_millis(), expected, "{what}");
        }
    }
}
