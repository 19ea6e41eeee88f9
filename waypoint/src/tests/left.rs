//! What holds for a service that has left the waypoint, as long as callers come who have not heard of it.

use mesh_model::policy::{Action, Policy, Scope};
use mesh_model::resource::Kind;
use mesh_model::tables::Tables;
use mesh_proxy::local_pod::LocalPod;

use super::*;
use crate::serving::Worker;

fn policy(action: Action) -> Resource {
    Resource::Policy(Arc::new(Policy {
        name: "who".into(),
        namespace: "shop".into(),
        scope: Scope::WorkloadSelector,
        action,
        rules: Vec::new(),
        dry_run: false,
    }))
}

/// Policies are looked at when the tables change, and when somebody asks: whichever was last counts.
#[tokio::test]
async fn a_service_that_left_is_judged_by_the_newest_policies_that_it_had() {
    let world = World::start(AppProtocol::Http11, &[]);
    let info =
        Arc::new(PodInfo { name: "waypoint".into(), namespace: "shop".into(), service_account: "waypoint".into() });
    for asked_last in [false, true] {
        let pool = mesh_hbone::pool::Pool::new(world.context.proxy.hbone.clone());
        let quota = world.context.proxy.quota.pod(&"(another)".into());
        let worker = Worker::new(world.context.clone(), LocalPod::new(info.clone(), pool, quota));
        let mut tables = Tables::default();
        let of = Arc::new(ServiceRoutes {
            policies: [NamespacedName::new("shop", "who")].into(),
            ..ServiceRoutes::nothing(key("cart"))
        });
        let judges = |tables: &Tables| worker.covered(tables, &of).policies.policies()[0].action.clone();
        tables.apply(Resource::Routes(of.clone()));
        tables.apply(policy(Action::Allow));
        worker.follow(&tables);
        assert_eq!(judges(&tables), Action::Allow);
        tables.apply(policy(Action::Deny));
        match asked_last {
            true => assert_eq!(judges(&tables), Action::Deny),
            false => worker.follow(&tables),
        }
        tables.remove(Kind::Authorization, "shop/who");
        tables.remove(Kind::Routes, &of.service.to_string());
        worker.follow(&tables);
        assert_eq!(judges(&tables), Action::Deny, "asked last: {asked_last}");
    }
    world.end().await;
}
