//! TrafficPolicy → how a waypoint chooses among the endpoints of a service. Pure.
//!
//! What is said of the Service counts before what its DestinationRule says; what is said of the Gateway is for services of which nobody
//! says anything.

use mesh_model::address::NamespacedName;
use mesh_model::balance::ewma::{DECAY, DEFAULT_LATENCY, PeakEwma};
use mesh_model::traffic::Balancing;

use super::rate_limits::policy_of;
use super::world::World;
use crate::resources::gateway_api::parse_duration;
use crate::resources::{Key, Kind};

/// The TrafficPolicy that says of a Service how its endpoints are chosen.
pub(super) fn of_service<'a>(service: &NamespacedName, world: &World<'a>) -> Option<&'a NamespacedName> {
    let key = Key::new(Kind::Service, Some(&service.namespace), &service.name);
    policy_of(&key, None, world).filter(|(_, policy)| policy.spec.load_balancer.is_some()).map(|(policy, _)| policy)
}

/// What TrafficPolicies say.
pub(super) struct Attached {
    of_service: Option<Balancing>,
    of_waypoint: Option<Balancing>,
}

impl Attached {
    /// To a service behind a waypoint.
    pub(super) fn to(service: &NamespacedName, waypoint: &NamespacedName, world: &World<'_>) -> Self {
        let of = |kind, name: &NamespacedName| {
            let key = Key::new(kind, Some(&name.namespace), &name.name);
            let (policy, object) = policy_of(&key, None, world)?;
            let written = object.spec.load_balancer.as_ref()?.peak_ewma.clone().unwrap_or_default();
            // Checked when it was read.
            let time = |text: Option<String>, default| text.and_then(|text| parse_duration(&text)).unwrap_or(default);
            Some(Balancing::PeakEwma(PeakEwma {
                policy: policy.clone(),
                decay: time(written.decay, DECAY),
                default_latency: time(written.default_latency, DEFAULT_LATENCY),
            }))
        };
        Self { of_service: of(Kind::Service, service), of_waypoint: of(Kind::Gateway, waypoint) }
    }

    /// What holds where a DestinationRule says this.
    pub(super) fn or(&self, written: Option<Balancing>) -> Balancing {
        let own = self.of_service.clone().or(written);
        own.or_else(|| self.of_waypoint.clone()).unwrap_or_default()
    }

    /// Whether they say anything.
    pub(super) fn is_said(&self) -> bool {
        self.of_service.is_some() || self.of_waypoint.is_some()
    }
}
