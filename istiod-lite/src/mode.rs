//! What this control plane is for: a whole mesh, or nothing but waypoints in a mesh that upstream's istiod runs. Pure.
//!
//! Beside istiod each object has one writer. What istiod says to ztunnels, signs, publishes and writes is left to it; what is
//! ours is the waypoints of our classes, and what is told on their Gateways and routes.

use mesh_model::labels::parse_bool;

use crate::resources::{GatewayClass, Kind};

/// The controller that GatewayClasses of ours name.
pub const WAYPOINT_CONTROLLER: &str = "ambit.dev/waypoint-controller";

/// What this control plane is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// All of a mesh.
    #[default]
    Mesh,
    /// `WAYPOINTS_ONLY`: waypoints of these classes, beside upstream's istiod.
    WaypointsOnly {
        /// `WAYPOINT_CLASSES`.
        classes: Vec<String>,
    },
}

/// Something that a control plane of a whole mesh does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Signs certificates for those who prove who they are.
    Certificates,
    /// Publishes the roots of the mesh in each namespace.
    Roots,
    /// Allocates addresses to hosts of ServiceEntries, and writes them there.
    Addresses,
    /// Makes what runs waypoints.
    Waypoints,
    /// Writes on Gateways of other networks what became of them.
    Networks,
    /// Writes on objects of a kind what became of them.
    Status(Kind),
}

impl Mode {
    /// Whether we do it; what we do not do is istiod's.
    pub fn does(&self, part: Part) -> bool {
        match (self, part) {
            (Self::Mesh, _) | (Self::WaypointsOnly { .. }, Part::Waypoints) => true,
            // The list of conditions of Istio's kinds is one value to an API server: with two writers one of them is lost, and
            // `istio.io/` on Services is istiod's. Lists of the Gateway API, and of our own kind, name who wrote what.
            (Self::WaypointsOnly { .. }, Part::Status(kind)) => matches!(
                kind,
                Kind::Gateway
                    | Kind::HttpRoute
                    | Kind::GrpcRoute
                    | Kind::TcpRoute
                    | Kind::TlsRoute
                    | Kind::TrafficPolicy
            ),
            (Self::WaypointsOnly { .. }, Part::Certificates | Part::Roots | Part::Addresses | Part::Networks) => false,
        }
    }

    /// Whether Gateways of a class are ours to run and to write on. `object` is the GatewayClass, if there is one.
    pub fn is_ours(&self, class: &str, object: Option<&GatewayClass>) -> bool {
        match self {
            // Who runs the mesh has its waypoints, too; which classes it runs is what it deploys.
            Self::Mesh => true,
            // istiod makes what runs the Gateways of its own classes, in objects of the same names.
            Self::WaypointsOnly { classes } => {
                classes.iter().any(|ours| ours == class)
                    && object.is_some_and(|object| object.spec.controller_name == WAYPOINT_CONTROLLER)
            }
        }
    }

    /// What we are called: a Service of that name is in front of us.
    pub fn service(&self) -> &'static str {
        match self {
            Self::Mesh => "istiod",
            Self::WaypointsOnly { .. } => "istiod-lite",
        }
    }
}

/// Settings that contradict `WAYPOINTS_ONLY`, each with the reason.
const NOT_WITH_WAYPOINTS: [(&str, &str); 8] = [
    ("FOLDER", "istiod is beside us on a cluster only"),
    ("PLUGGED_CA", "certificates are signed by istiod"),
    ("CA_TRUSTED_NODE_ACCOUNTS", "ztunnels are served by istiod"),
    ("PILOT_ENABLE_IP_AUTOALLOCATE", "addresses are allocated by istiod"),
    ("PILOT_ENABLE_NODE_UNTAINT_CONTROLLERS", "nodes are untainted by istiod"),
    ("VALIDATION_WEBHOOK_CONFIG_NAME", "Istio's kinds are validated by istiod"),
    ("ACKNOWLEDGED_FILE", "ztunnels are served by istiod"),
    ("OVERLAY", "istiod is beside us on a cluster only"),
];

/// The first setting that cannot be set as it is, and why. `value` gives what is set and not empty.
pub fn contradiction<'a>(
    waypoints_only: bool,
    value: impl Fn(&str) -> Option<&'a str>,
) -> Option<(&'static str, String)> {
    if !waypoints_only {
        let stray = value("WAYPOINT_CA_ADDRESS").map(|_| "WAYPOINT_CA_ADDRESS");
        return stray
            .map(|name| (name, "nothing, unless WAYPOINTS_ONLY=true: we sign certificates ourselves".to_owned()));
    }
    let set = |name: &str| {
        value(name).is_some_and(|value| !name.starts_with("PILOT_ENABLE_") || parse_bool(value) == Some(true))
    };
    let stray = NOT_WITH_WAYPOINTS.into_iter().find(|(name, _)| set(name));
    stray.map(|(name, why)| (name, format!("nothing, with WAYPOINTS_ONLY=true: {why}"))).or_else(|| {
        let why = "the image of waypoints: with WAYPOINTS_ONLY=true there is nothing else to do";
        value("WAYPOINT_IMAGE").is_none().then(|| ("WAYPOINT_IMAGE", why.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::Object;

    fn only() -> Mode {
        Mode::WaypointsOnly { classes: vec!["ambit-waypoint".to_owned()] }
    }

    #[test]
    fn what_is_left_to_istiod() {
        for (part, ours) in [
            (Part::Certificates, false),
            (Part::Roots, false),
            (Part::Addresses, false),
            (Part::Networks, false),
            (Part::Waypoints, true),
            (Part::Status(Kind::Gateway), true),
            (Part::Status(Kind::HttpRoute), true),
            (Part::Status(Kind::TrafficPolicy), true),
            (Part::Status(Kind::Service), false),
            (Part::Status(Kind::AuthorizationPolicy), false),
            (Part::Status(Kind::RequestAuthentication), false),
            (Part::Status(Kind::PeerAuthentication), false),
            (Part::Status(Kind::DestinationRule), false),
            (Part::Status(Kind::VirtualService), false),
            (Part::Status(Kind::Telemetry), false),
            (Part::Status(Kind::ServiceEntry), false),
            (Part::Status(Kind::WorkloadEntry), false),
        ] {
            assert_eq!(only().does(part), ours, "{part:?}");
            assert!(Mode::Mesh.does(part), "{part:?}");
        }
    }

    #[test]
    fn whose_class_it_is() {
        let class = |controller: &str| {
            let value = json!({"metadata": {"name": "c"}, "spec": {"controllerName": controller}});
            let Object::GatewayClass(class) = Object::from_value(Kind::GatewayClass, &value).unwrap() else { panic!() };
            class
        };
        let told = Mode::WaypointsOnly { classes: vec!["ambit-waypoint".to_owned(), "istio-waypoint".to_owned()] };
        let (ours, istiods) = (class(WAYPOINT_CONTROLLER), class("istio.io/mesh-controller"));
        for (mode, name, object, expected) in [
            (only(), "ambit-waypoint", Some(&ours), true),
            // Nobody has said whose it is.
            (only(), "ambit-waypoint", None, false),
            (only(), "ambit-waypoint", Some(&istiods), false),
            (only(), "istio-waypoint", Some(&istiods), false),
            (only(), "istio-waypoint", Some(&ours), false),
            (told.clone(), "istio-waypoint", Some(&ours), true),
            // istiod has it still, and runs it.
            (told, "istio-waypoint", Some(&istiods), false),
            (Mode::Mesh, "istio-waypoint", Some(&istiods), true),
            (Mode::Mesh, "ambit-waypoint", None, true),
        ] {
            assert_eq!(mode.is_ours(name, object.map(|class| &**class)), expected, "{mode:?} {name}");
        }
    }

    #[test]
    fn what_contradicts_it_is_named() {
        let image = ("WAYPOINT_IMAGE", "ambit:1");
        for (only, set, wrong) in [
            (true, vec![image], None),
            (true, vec![image, ("WAYPOINT_CA_ADDRESS", "https://istiod:15012")], None),
            (true, vec![image, ("PILOT_ENABLE_IP_AUTOALLOCATE", "false")], None),
            (true, vec![], Some("WAYPOINT_IMAGE")),
            (true, vec![image, ("FOLDER", "/yaml")], Some("FOLDER")),
            (true, vec![image, ("PLUGGED_CA", "/ca")], Some("PLUGGED_CA")),
            (true, vec![image, ("CA_TRUSTED_NODE_ACCOUNTS", "a/b")], Some("CA_TRUSTED_NODE_ACCOUNTS")),
            (true, vec![image, ("PILOT_ENABLE_IP_AUTOALLOCATE", "true")], Some("PILOT_ENABLE_IP_AUTOALLOCATE")),
            (true, vec![image, ("VALIDATION_WEBHOOK_CONFIG_NAME", "v")], Some("VALIDATION_WEBHOOK_CONFIG_NAME")),
            (false, vec![], None),
            (false, vec![("FOLDER", "/yaml"), ("PLUGGED_CA", "/ca")], None),
            (false, vec![("WAYPOINT_CA_ADDRESS", "https://istiod:15012")], Some("WAYPOINT_CA_ADDRESS")),
        ] {
            let value = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            assert_eq!(contradiction(only, value).map(|(name, _)| name), wrong, "{only} {set:?}");
        }
    }
}
