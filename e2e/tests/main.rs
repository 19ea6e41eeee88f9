//! One file per promise to users. Run them with `cargo test -p e2e`, one with `cargo test -p e2e -- wire::`.
//!
//! How each was seen failing, with the feature broken on purpose, is written at the head of its file.
mod address_reuse;
mod authorization;
mod bad_yaml;
mod certificates;
mod charts;
mod cluster;
mod conformance;
mod control_plane;
mod dashboards;
mod entries;
mod examples;
mod external_authorization;
mod grpc;
mod install;
mod kubernetes;
mod life;
mod names;
mod networks;
mod on_demand;
mod partners;
mod pod_waypoint;
mod programs;
mod rate_limits;
mod reach;
mod reasons;
mod revocation;
mod route_churn;
mod routing;
mod services;
mod settings;
mod soak;
mod spread;
mod streams;
mod tokens;
mod town;
mod traces;
mod upstream;
mod virtual_services;
mod walls;
mod waypoint;
mod waypoint_rollout;
mod wire;
mod ztunnel_restart;

use e2e::Mesh;
use std::process::ExitCode;

fn main() -> ExitCode {
    e2e::harness::main(|suite| {
        let town = town::shared(Mesh::up);
        wire::trials(suite);
        names::trials(suite, Mesh::up_with);
        services::trials(suite, Mesh::up_with);
        entries::trials(suite, Mesh::up_with);
        reach::trials(suite, &town);
        authorization::trials(suite, &town);
        streams::trials(suite, &town);
        drop(town);
        certificates::trials(suite);
        revocation::trials(suite);
        control_plane::trials(suite);
        on_demand::trials(suite);
        ztunnel_restart::trials(suite);
        soak::trials(suite);
        life::trials(suite);
        address_reuse::trials(suite);
        bad_yaml::trials(suite);
        walls::trials(suite);
        waypoint::trials(suite);
        pod_waypoint::trials(suite);
        spread::trials(suite);
        virtual_services::trials(suite);
        route_churn::trials(suite);
        waypoint_rollout::trials(suite);
        routing::trials(suite);
        grpc::trials(suite);
        tokens::trials(suite);
        partners::trials(suite);
        external_authorization::trials(suite);
        traces::trials(suite);
        rate_limits::trials(suite);
        programs::trials(suite);
        settings::trials(suite);
        networks::trials(suite);
        charts::trials(suite);
        dashboards::trials(suite);
        install::trials(suite);
        kubernetes::trials(suite);
        reasons::trials(suite);
        examples::trials(suite);
        upstream::trials(suite);
        cluster::trials(suite);
        conformance::trials(suite);
    })
}
