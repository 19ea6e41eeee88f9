//! How long a connection waits for a control plane that says nothing.

use mesh_proxy::local_workload;
use mesh_xds::demand::{Unanswered, demand};
use tokio::time::{Instant, sleep};

use super::*;

/// All that a connection waits for it waits for together: not as long again for each thing that it lacks.
#[tokio::test(start_paused = true)]
async fn a_connection_waits_once() {
    let limit = Duration::from_secs(5);
    // What is asked is heard, and never answered.
    let (demand, _silent) = demand(Duration::MAX);
    let ca = Arc::new(TestCa::new());
    let Parts { context, mut tables, .. } = parts(&[], StoreOptions::default(), &ca, Some(demand));
    let info = PodInfo { name: "client".into(), namespace: "shop".into(), service_account: "client".into() };

    let (began, deadline) = (Instant::now(), local_workload::deadline());
    context.proxy.local_workload(&info, deadline).await.expect_err("nobody has told of it");
    assert_eq!(began.elapsed().as_secs(), limit.as_secs());

    // Its pod was told of at the last moment; what it dials is not.
    let (began, deadline) = (Instant::now(), local_workload::deadline());
    sleep(Duration::from_secs(4)).await;
    tables.apply_local(vec![Resource::Workload(Arc::new(pod("client")))]);
    let client = context.proxy.local_workload(&info, deadline).await.unwrap();
    let unanswered = context.proxy.complete(&client, "192.0.2.1".parse().unwrap(), deadline).await.err();
    assert_eq!(unanswered, Some(Unanswered::Silent("here/192.0.2.1".into(), limit)));
    assert_eq!(began.elapsed().as_secs(), limit.as_secs());
}
