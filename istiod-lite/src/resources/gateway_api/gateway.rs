//! GatewayClass and Gateway.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::check::{self, Checked};
use crate::resources::authorization_policy::null_as_default;
use crate::resources::field::FieldPath;

/// Which controller has the Gateways of a class.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct GatewayClass {
    #[serde(rename = "apiVersion", default, skip_serializing)]
    _api_version: IgnoredAny,
    #[serde(rename = "kind", default, skip_serializing)]
    _kind: IgnoredAny,
    /// Name and labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is asked.
    pub spec: GatewayClassSpec,
    #[serde(rename = "status", default, skip_serializing)]
    _status: IgnoredAny,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassSpec {
    /// For example `istio.io/mesh-controller`.
    pub controller_name: String,
    /// For people.
    pub description: Option<String>,
    /// Settings of the controller: there are none.
    pub parameters_ref: Option<Value>,
}

/// A waypoint, if its class is one of waypoints; the gateway of another network, if it is [`REMOTE_CLASS`].
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Gateway {
    #[serde(rename = "apiVersion", default, skip_serializing)]
    _api_version: IgnoredAny,
    #[serde(rename = "kind", default, skip_serializing)]
    _kind: IgnoredAny,
    /// Name, namespace, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is asked.
    pub spec: GatewaySpec,
    /// What became of it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub status: GatewayStatus,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// Its class.
    pub gateway_class_name: String,
    /// Ports.
    #[serde(default, deserialize_with = "null_as_default")]
    pub listeners: Vec<Listener>,
    /// Where it is, if somebody else runs it, as the gateway of another network always is.
    #[serde(default, deserialize_with = "null_as_default")]
    pub addresses: Vec<Address>,
    /// Labels and annotations of what is made for it.
    pub infrastructure: Option<Infrastructure>,
    /// Which ListenerSets add listeners: none do.
    pub allowed_listeners: Option<Value>,
    /// Certificates of clients and backends: a waypoint has its own.
    pub tls: Option<Value>,
    /// Experimental.
    pub default_scope: Option<Value>,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Unique in its Gateway.
    pub name: String,
    /// The host that it is for.
    pub hostname: Option<String>,
    /// Its number.
    pub port: i64,
    /// `HBONE` at a waypoint.
    pub protocol: String,
    /// Not at a waypoint.
    pub tls: Option<Value>,
    /// Who may be behind it.
    pub allowed_routes: Option<AllowedRoutes>,
}

/// Who may be behind a listener.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowedRoutes {
    /// Of which namespaces.
    pub namespaces: Option<RouteNamespaces>,
    /// Of which kinds.
    #[serde(default, deserialize_with = "null_as_default")]
    pub kinds: Vec<RouteGroupKind>,
}

/// Namespaces.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteNamespaces {
    /// `Same` when left out.
    pub from: Option<From>,
    /// Of [`From::Selector`].
    pub selector: Option<LabelSelector>,
}

/// The API's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum From {
    /// Every namespace.
    All,
    /// Namespaces by labels.
    Selector,
    /// The Gateway's own.
    Same,
    /// None.
    None,
}

/// A kind of routes.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct RouteGroupKind {
    /// The API's own when left out.
    pub group: Option<String>,
    /// Kind.
    pub kind: String,
}

/// Where a Gateway is.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct Address {
    /// `IPAddress` when left out, or `Hostname`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The address.
    #[serde(default)]
    pub value: String,
}

/// What is made for a Gateway.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Infrastructure {
    /// On all of it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// On all of it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
    /// How it runs.
    pub parameters_ref: Option<ParametersRef>,
}

/// An object of the Gateway's namespace.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct ParametersRef {
    /// Empty: the core group.
    pub group: String,
    /// `ConfigMap`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// What became of a Gateway; only where it is.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// None: nobody has programmed it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub addresses: Vec<Address>,
    #[serde(rename = "conditions", default, skip_serializing)]
    _conditions: IgnoredAny,
    #[serde(rename = "listeners", default, skip_serializing)]
    _listeners: IgnoredAny,
    #[serde(rename = "attachedListenerSets", default, skip_serializing)]
    _attached_listener_sets: IgnoredAny,
}

/// The classes whose Gateways are waypoints of this control plane.
pub const WAYPOINT_CLASSES: [&str; 2] = ["ambit-waypoint", "istio-waypoint"];
/// The class whose Gateways say where the gateways of other networks are. Nothing is run for them.
pub const REMOTE_CLASS: &str = "istio-remote";
/// The class of gateways by which other networks come in here. None are run.
pub const EAST_WEST_CLASS: &str = "istio-east-west";
/// Annotation on a Gateway: its pods run as another account than the one of its name.
pub const SERVICE_ACCOUNT: &str = "gateway.istio.io/service-account";
/// What a waypoint's listener speaks.
pub const HBONE: &str = "HBONE";
/// Where.
pub const HBONE_PORT: u16 = 15008;

impl Gateway {
    /// Whether this control plane runs it.
    pub fn is_waypoint(&self) -> bool {
        WAYPOINT_CLASSES.contains(&&*self.spec.gateway_class_name)
    }

    /// Whether it says where the gateway of another network is.
    pub fn is_remote(&self) -> bool {
        self.spec.gateway_class_name == REMOTE_CLASS
    }

    /// The account that its pods run as, if it is said.
    pub fn service_account(&self) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(SERVICE_ACCOUNT).map(String::as_str)
    }

    /// Somebody else runs it, there.
    pub fn is_run_elsewhere(&self) -> bool {
        !self.spec.addresses.is_empty()
    }

    /// The ConfigMap of its namespace that says how it is to run.
    pub fn parameters(&self) -> Option<&str> {
        let parameters = self.spec.infrastructure.as_ref()?.parameters_ref.as_ref()?;
        Some(&parameters.name)
    }

    /// The listener that a waypoint's callers come in by.
    pub fn hbone(&self) -> Option<&Listener> {
        self.spec.listeners.iter().find(|l| l.protocol == HBONE && l.port == i64::from(HBONE_PORT))
    }
}

pub(in crate::resources) fn validate_class(class: &GatewayClass) -> Checked {
    let path = FieldPath::of("spec.controllerName");
    let name = &class.spec.controller_name;
    match name.split_once('/') {
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() && name.len() <= 253 => Ok(()),
        _ => {
            Err(path
                .error(format!("{name:?} is not a controller's name: write DOMAIN/PATH, as istio.io/mesh-controller")))
        }
    }
}

pub(in crate::resources) fn validate(gateway: &Gateway) -> Checked {
    let (spec, path) = (&gateway.spec, FieldPath::of("spec"));
    check::length(&spec.gateway_class_name, 1, 253, &path.field("gatewayClassName"))?;
    let listeners = path.field("listeners");
    check::at_most(&spec.listeners, 64, &listeners)?;
    for (i, listener) in spec.listeners.iter().enumerate() {
        let at = listeners.index(i);
        check::section_name(&listener.name, &at.field("name"))?;
        if spec.listeners[..i].iter().any(|other| other.name == listener.name) {
            return Err(at
                .field("name")
                .error(format!("{:?} is there twice: each listener has a name of its own", listener.name)));
        }
        check::port(listener.port, &at.field("port"))?;
    }
    if gateway.is_remote() {
        return addresses(&spec.addresses, &path.field("addresses"));
    }
    // Of other classes, other controllers say what is right.
    if !gateway.is_waypoint() {
        return Ok(());
    }
    check::unsupported(
        spec.tls.is_some(),
        &path.field("tls"),
        "a waypoint has its certificate from the mesh: remove it",
    )?;
    if let Some(parameters) = spec.infrastructure.as_ref().and_then(|i| i.parameters_ref.as_ref()) {
        let at = path.field("infrastructure").field("parametersRef");
        if (&*parameters.group, &*parameters.kind) != ("", "ConfigMap") {
            return Err(at.error("not supported here: write group: \"\", kind: ConfigMap and the name of one"));
        }
        check::section_name(&parameters.name, &at.field("name"))?;
    }
    check::unsupported(spec.default_scope.is_some(), &path.field("defaultScope"), "it is experimental: remove it")?;
    let [listener] = &spec.listeners[..] else {
        return Err(listeners.error(format!(
            "a waypoint has one listener: {{name: mesh, port: {HBONE_PORT}, protocol: {HBONE}}}; there are {}",
            spec.listeners.len()
        )));
    };
    let at = listeners.index(0);
    if listener.protocol != HBONE {
        return Err(at.field("protocol").error(format!("a waypoint speaks {HBONE}, not {:?}", listener.protocol)));
    }
    if listener.port != i64::from(HBONE_PORT) {
        return Err(at.field("port").error(format!("a waypoint listens on {HBONE_PORT}, not on {}", listener.port)));
    }
    check::unsupported(listener.tls.is_some(), &at.field("tls"), "HBONE has its own: remove it")?;
    check::unsupported(
        listener.hostname.is_some(),
        &at.field("hostname"),
        "a waypoint serves the services that name it, whatever the host: remove it",
    )?;
    allowed_routes(listener.allowed_routes.as_ref(), &at.field("allowedRoutes"))?;
    addresses(&spec.addresses, &path.field("addresses"))
}

fn addresses(all: &[Address], path: &FieldPath) -> Checked {
    check::at_most(all, 16, path)?;
    for (i, address) in all.iter().enumerate() {
        address_of(address, &path.index(i))?;
    }
    Ok(())
}

fn allowed_routes(allowed: Option<&AllowedRoutes>, path: &FieldPath) -> Checked {
    let Some(allowed) = allowed else { return Ok(()) };
    check::at_most(&allowed.kinds, 8, &path.field("kinds"))?;
    let Some(namespaces) = &allowed.namespaces else { return Ok(()) };
    let path = path.field("namespaces");
    match (namespaces.from, &namespaces.selector) {
        (Some(From::Selector), None) => Err(path.field("selector").error("missing: `from: Selector` needs it")),
        (Some(From::Selector), Some(selector)) => check::selector(selector, &path.field("selector")),
        (_, Some(_)) => Err(path.field("from").error("a selector counts only with `from: Selector`")),
        _ => Ok(()),
    }
}

fn address_of(address: &Address, path: &FieldPath) -> Checked {
    match address.kind.as_deref() {
        None | Some("IPAddress") => check::ip(&address.value, &path.field("value")),
        Some("Hostname") => check::hostname(&address.value, &path.field("value")),
        Some(other) => Err(path.field("type").error(format!("{other:?} is not followed: write IPAddress or Hostname"))),
    }
}
