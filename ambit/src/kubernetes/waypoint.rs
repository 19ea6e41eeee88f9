//! Which objects make a waypoint. Pure.
use istiod_lite::resources::gateway_api::gateway::WAYPOINT_CLASSES;
use mesh_model::labels::{REVISION, USE_WAYPOINT, WAYPOINT_FOR};
use serde_json::{Value, json};

/// Who owns what this command applies.
pub(crate) const MANAGER: &str = "ambit";
/// The class whose Gateways our control plane runs waypoints for.
const CLASS: &str = "ambit-waypoint";

/// The Gateway of a waypoint. What is not said is left out: what another manager says of it stays, what this one said goes.
pub(crate) fn gateway(
    (namespace, name): (&str, &str),
    class: &str,
    what_for: Option<&str>,
    revision: Option<&str>,
) -> Value {
    let mut labels = serde_json::Map::new();
    for (label, value) in [(WAYPOINT_FOR, what_for), (REVISION, revision)] {
        labels.extend(value.map(|value| (label.to_owned(), value.into())));
    }
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "gatewayClassName": class,
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    })
}

/// The class of the Gateway that is to be applied, where there is this one, or none, of its name.
///
/// # Errors
/// When that is somebody else's.
pub(crate) fn class_beside(there: Option<&Value>) -> Result<&str, String> {
    match there.map(|there| there["spec"]["gatewayClassName"].as_str().unwrap_or_default()) {
        None => Ok(CLASS),
        Some(class) if WAYPOINT_CLASSES.contains(&class) => Ok(class),
        Some(class) => Err(format!("there is a Gateway of this name already, of the class {class}: it is no waypoint")),
    }
}

/// What makes a namespace use it.
pub(crate) fn enrolment(name: &str) -> Value {
    json!({"metadata": {"labels": {USE_WAYPOINT: name}}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use istiod_lite::resources::{Kind, Object};

    /// Our own control plane takes it, whatever is said of it.
    #[test]
    fn the_gateway_is_one_that_is_taken() {
        for (what_for, revision) in [(None, None), (Some("all"), Some("blue"))] {
            let value = gateway(("shop", "way"), CLASS, what_for, revision);
            let Ok(Object::Gateway(read)) = Object::from_value(Kind::Gateway, &value) else { panic!("{value}") };
            assert!(read.is_waypoint());
            let labels = read.metadata.labels.clone().unwrap_or_default();
            assert_eq!(labels.get(WAYPOINT_FOR).map(String::as_str), what_for);
            assert_eq!(labels.get(REVISION).map(String::as_str), revision);
        }
    }

    #[test]
    fn what_is_no_waypoint_is_left_alone() {
        let of = |class: &str| json!({"spec": {"gatewayClassName": class}});
        assert_eq!(class_beside(None), Ok(CLASS));
        // Whoever runs those may be another control plane.
        assert_eq!(class_beside(Some(&of("istio-waypoint"))), Ok("istio-waypoint"));
        assert!(class_beside(Some(&of("nginx"))).unwrap_err().contains("of the class nginx"));
    }
}
