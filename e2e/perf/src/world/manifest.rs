//! The pods, as Kubernetes YAML.
use std::path::Path;

/// The pods' namespace.
pub(super) const NAMESPACE: &str = "perf";
/// Where the load runs, on the first node.
pub(super) const CLIENT: &str = "client";
/// A server on the first node.
pub(super) const NEAR: &str = "near";
/// A server on the second node.
pub(super) const FAR: &str = "far";

/// The pods, in the mesh or not. Each runs the servers of `program`; that the client's are idle is cheaper than being
/// another kind of pod.
pub(super) fn yaml(program: &Path, meshed: bool) -> String {
    let label = if meshed { "{istio.io/dataplane-mode: ambient}" } else { "{}" };
    let mut yaml = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}, labels: {label}}}\n");
    for (name, node) in [(CLIENT, "node1"), (NEAR, "node1"), (FAR, "node2")] {
        yaml += &format!(
            "---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: {NAMESPACE}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {NAMESPACE}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  serviceAccountName: {name}
  containers:
    - name: {name}
      command: [{program}, serve, {name}]
      readinessProbe: {{tcpSocket: {{port: {port}}}, periodSeconds: 1}}
",
            // A JSON string is a YAML string, whatever is in it.
            program = serde_json::Value::from(program.to_string_lossy()),
            port = crate::wire::HTTP_PORT,
        );
    }
    yaml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_meshed_are_labelled() {
        let program = Path::new("/a b/\"perf\"");
        let meshed = yaml(program, true);
        assert!(meshed.contains("labels: {istio.io/dataplane-mode: ambient}"));
        assert!(meshed.contains(r#"command: ["/a b/\"perf\"", serve, far]"#), "{meshed}");
        assert_eq!(meshed.matches("kind: Pod").count(), 3);
        assert!(!yaml(program, false).contains("ambient"));
    }
}
