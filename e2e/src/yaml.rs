//! Pods, services and namespaces in few words. JSON is YAML.
use serde_json::{Value, json};

/// A namespace, in the mesh or not.
pub fn namespace(name: &str, ambient: bool) -> String {
    let labels = if ambient { json!({"istio.io/dataplane-mode": "ambient"}) } else { json!({}) };
    document(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}))
}

/// A Service on `port` for the pods with label `app`, at their port `target`.
pub fn service(namespace: &str, name: &str, app: &str, port: u16, target: u16) -> String {
    document(&service_of(namespace, name, app, port, target))
}

/// The same with an IPv6 address.
pub fn service_v6(namespace: &str, name: &str, app: &str, port: u16, target: u16) -> String {
    let mut service = service_of(namespace, name, app, port, target);
    service["spec"]["ipFamilies"] = json!(["IPv6"]);
    document(&service)
}

fn service_of(namespace: &str, name: &str, app: &str, port: u16, target: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": app}, "ports": [{"port": port, "targetPort": target}]},
    })
}

/// A Pod to be.
#[derive(Debug, Clone)]
pub struct Pod {
    value: Value,
}

impl Pod {
    /// A pod on a node; it has a label `app` and a service account of its own name. It waits until it is given
    /// something to do.
    pub fn new(namespace: &str, name: &str, node: &str) -> Self {
        let value = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}, "annotations": {}},
            "spec": {"nodeName": node, "serviceAccountName": name, "containers": []},
        });
        Pod { value }.runs("main", &["ambit", "tool", "wait"], None)
    }

    fn runs(mut self, container: &str, command: &[&str], port: Option<u16>) -> Self {
        let mut container = json!({"name": container, "command": command});
        if let Some(port) = port {
            container["readinessProbe"] = json!({"tcpSocket": {"port": port}});
        }
        let containers = &mut self.value["spec"]["containers"];
        let waits = containers[0]["command"] == json!(["ambit", "tool", "wait"]);
        match containers.as_array_mut() {
            Some(all) if !waits => all.push(container),
            _ => *containers = json!([container]),
        }
        self
    }

    /// Also runs this program, and is ready once `port` takes connections.
    pub fn serves(self, port: u16, command: &[&str]) -> Self {
        self.runs(&format!("port-{port}"), command, Some(port))
    }

    /// Also answers HTTP requests on `port` with `text`.
    pub fn http(self, port: u16, text: &str) -> Self {
        let number = port.to_string();
        self.serves(port, &["ambit", "tool", "http-server", "--port", &number, "--text", text])
    }

    /// Also is a `peer` of the load tools, on port 9100.
    pub fn peer(self) -> Self {
        self.serves(9100, &["ambit", "tool", "peer"])
    }

    /// Has this label, too.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.value["metadata"]["labels"][key] = value.into();
        self
    }

    /// Has this address.
    pub fn ip(mut self, ip: &str) -> Self {
        self.value["metadata"]["annotations"]["ambit.dev/pod-ip"] = ip.into();
        self
    }

    /// Has a name of its own below a headless service's.
    pub fn named(mut self, hostname: &str, subdomain: &str) -> Self {
        self.value["spec"]["hostname"] = hostname.into();
        self.value["spec"]["subdomain"] = subdomain.into();
        self
    }

    /// Lives in its node's network.
    pub fn on_host(mut self) -> Self {
        self.value["spec"]["hostNetwork"] = true.into();
        self
    }

    /// Is ended without ado.
    pub fn quick_end(self) -> Self {
        self.grace(0)
    }

    /// Has so many seconds to end by itself.
    pub fn grace(mut self, seconds: u32) -> Self {
        self.value["spec"]["terminationGracePeriodSeconds"] = seconds.into();
        self
    }

    /// As YAML.
    pub fn yaml(&self) -> String {
        document(&self.value)
    }
}

fn document(value: &Value) -> String {
    format!("---\n{value}\n")
}

/// All of them in one text.
pub fn all(documents: &[String]) -> String {
    documents.concat()
}
