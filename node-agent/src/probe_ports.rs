//! Which ports of a pod its kubelet dials: those that probes and lifecycle hooks name. Pure.

use serde::Deserialize;

/// What of a pod's `spec` says which ports its kubelet dials.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Probed {
    containers: Option<Vec<Container>>,
    /// Sidecars are among them.
    init_containers: Option<Vec<Container>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    ports: Option<Vec<ContainerPort>>,
    startup_probe: Option<Handler>,
    liveness_probe: Option<Handler>,
    readiness_probe: Option<Handler>,
    lifecycle: Option<Lifecycle>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPort {
    name: Option<String>,
    container_port: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Lifecycle {
    post_start: Option<Handler>,
    pre_stop: Option<Handler>,
}

/// What a probe or a hook does, as far as it is a connection. In a hook, `tcpSocket` does nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Handler {
    http_get: Option<Target>,
    tcp_socket: Option<Target>,
    grpc: Option<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    host: Option<String>,
    port: Port,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Port {
    Number(i64),
    Name(String),
}

impl Probed {
    /// The ports, each once and in order. One that a name says and no port of its container has is none: the kubelet does not
    /// find it either.
    pub fn ports(&self) -> Vec<u16> {
        let containers = self.containers.iter().chain(&self.init_containers).flatten();
        let mut ports: Vec<u16> = containers.flat_map(Container::dialled).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

impl Container {
    fn dialled(&self) -> impl Iterator<Item = u16> {
        let probes = [&self.startup_probe, &self.liveness_probe, &self.readiness_probe];
        let probed = probes.into_iter().flatten().flat_map(|probe| [&probe.http_get, &probe.tcp_socket, &probe.grpc]);
        let hooks = self.lifecycle.iter().flat_map(|lifecycle| [&lifecycle.post_start, &lifecycle.pre_stop]).flatten();
        let targets = probed.chain(hooks.map(|hook| &hook.http_get)).flatten();
        targets.filter(|target| !target.is_on_the_node()).filter_map(|target| self.number(&target.port))
    }

    fn number(&self, port: &Port) -> Option<u16> {
        let number = match port {
            Port::Number(number) => *number,
            Port::Name(name) => {
                let named = self.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
                named.map(|port| port.container_port).or_else(|| name.parse().ok())?
            }
        };
        u16::try_from(number).ok().filter(|number| *number != 0)
    }
}

impl Target {
    /// Its `host` is the node itself: whatever answers there is not the pod.
    fn is_on_the_node(&self) -> bool {
        let host = self.host.as_deref().unwrap_or_default();
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn from_a_spec_to_its_ports() {
        let named = json!([{"name": "web", "containerPort": 8080}, {"containerPort": 9000}, {"name": "health", "containerPort": 8081}]);
        for (name, container, expected) in [
            ("none", json!({"ports": named}), &[][..]),
            ("httpGet", json!({"livenessProbe": {"httpGet": {"path": "/", "port": 8080}}}), &[8080]),
            ("tcpSocket", json!({"readinessProbe": {"tcpSocket": {"port": 5432}, "periodSeconds": 1}}), &[5432]),
            ("grpc", json!({"startupProbe": {"grpc": {"port": 50051, "service": "s"}}}), &[50051]),
            ("exec", json!({"livenessProbe": {"exec": {"command": ["true"]}}}), &[]),
            ("by name", json!({"ports": named, "readinessProbe": {"httpGet": {"port": "health"}}}), &[8081]),
            ("an unknown name", json!({"ports": named, "readinessProbe": {"httpGet": {"port": "admin"}}}), &[]),
            ("a number as text", json!({"readinessProbe": {"tcpSocket": {"port": "81"}}}), &[81]),
            ("no port", json!({"readinessProbe": {"tcpSocket": {"port": 0}}}), &[]),
            ("no port there is", json!({"readinessProbe": {"tcpSocket": {"port": 65536}}}), &[]),
            (
                "each once, in order",
                json!({"ports": named, "startupProbe": {"httpGet": {"port": "web"}},
                    "livenessProbe": {"httpGet": {"port": 8080}}, "readinessProbe": {"tcpSocket": {"port": 80}}}),
                &[80, 8080],
            ),
            (
                "hooks",
                json!({"ports": named, "lifecycle": {"postStart": {"httpGet": {"port": "web"}},
                    "preStop": {"httpGet": {"port": 7000}}}}),
                &[7000, 8080],
            ),
            (
                "hooks that dial nobody",
                json!({"lifecycle": {"postStart": {"tcpSocket": {"port": 80}}, "preStop": {"sleep": {"seconds": 1}}}}),
                &[],
            ),
            ("on the node", json!({"livenessProbe": {"httpGet": {"host": "127.0.0.1", "port": 10256}}}), &[]),
            ("on the node, by name", json!({"livenessProbe": {"tcpSocket": {"host": "localhost", "port": 1}}}), &[]),
            ("elsewhere", json!({"livenessProbe": {"tcpSocket": {"host": "10.0.0.9", "port": 1}}}), &[1]),
        ] {
            for list in ["containers", "initContainers"] {
                let spec: Probed = serde_json::from_value(json!({ list: [{"name": "other"}, container] })).unwrap();
                assert_eq!(spec.ports(), expected, "{name} in {list}");
            }
        }
        // A port has its name in its own container alone.
        let spec = json!({"containers": [{"ports": named}, {"livenessProbe": {"httpGet": {"port": "web"}}}],
            "initContainers": null, "ephemeralContainers": [{"livenessProbe": {"httpGet": {"port": 1}}}]});
        assert_eq!(serde_json::from_value::<Probed>(spec).unwrap().ports(), Vec::<u16>::new());
    }
}
