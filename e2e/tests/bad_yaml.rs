//! A mistake in the YAML is told with file, line and field; it costs nothing but itself.
//!
//! Seen red when the last good version was forgotten, when the field was not told, and when every policy allowed.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::Suite;
use e2e::until::until;
use e2e::yaml::{Pod, all, namespace};

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("bad_yaml::a_mistake_is_told_and_everything_good_keeps_serving", mistakes);
}

/// Line 1 of the file is its first; `action` is on line 5.
const GOOD: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-thief, namespace: shop}
spec:
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/thief]}}]}]
";

fn mistakes() -> Result<()> {
    let mesh = Mesh::up(&all(&[
        namespace("shop", true),
        Pod::new("shop", "client", "node1").yaml(),
        Pod::new("shop", "thief", "node1").yaml(),
        Pod::new("shop", "server", "node2").http(8080, "here").yaml(),
    ]))?;
    told(&mesh).map_err(|e| e.context(mesh.report()))
}

fn told(mesh: &Mesh) -> Result<()> {
    let server = format!("http://{}:8080/", mesh.ip("shop/server", false)?);
    mesh.get_at_last("shop/thief", &server)?;
    mesh.apply("policy.yaml", GOOD)?;
    mesh.refused_at_last("shop/thief", &server)?;
    ensure!(mesh.status()?.rejected.is_empty(), "{:?}", mesh.status()?.rejected);

    // One object of the file breaks, a good one is new in it; and another file is no YAML at all.
    let broken = GOOD.replace("action: DENY", "action: DENNY");
    let newcomer = Pod::new("shop", "newcomer", "node1").yaml();
    mesh.apply("policy.yaml", &(broken + &newcomer))?;
    mesh.apply("garbage.yaml", "kind: [Pod\n")?;
    let rejected = until("both mistakes are told", || {
        let rejected = mesh.status()?.rejected;
        ensure!(rejected.len() == 2, "{rejected:?}");
        Ok(rejected)
    })?;
    let told =
        rejected.iter().find(|r| r.file.starts_with("policy.yaml:5")).with_context(|| format!("{rejected:?}"))?;
    for word in ["no-thief", "spec.action", "DENNY"] {
        ensure!(told.reason.contains(word), "it does not say {word}: {told:?}");
    }
    ensure!(rejected.iter().any(|r| r.file.starts_with("garbage.yaml")), "{rejected:?}");
    // The control plane tells it, too.
    mesh.log_line("istiod-lite", &["policy.yaml", "spec.action"])?;

    // What was last good of the broken object still serves, what is good and new is there, edits elsewhere work.
    mesh.pod_ready("shop/newcomer", true)?;
    mesh.get_at_last("shop/newcomer", &server)?;
    ensure!(mesh.get("shop/thief", &server).is_err(), "the mistake opened the door");
    mesh.get("shop/client", &server)?;
    let other = GOOD.replace("no-thief", "no-client").replace("sa/thief", "sa/client");
    mesh.apply("other.yaml", &other)?;
    mesh.refused_at_last("shop/client", &server)?;
    ensure!(mesh.get("shop/thief", &server).is_err(), "the mistake opened the door");

    // Mended, it counts again.
    mesh.apply("policy.yaml", &(GOOD.replace("DENY", "ALLOW") + &newcomer))?;
    mesh.remove("garbage.yaml")?;
    mesh.remove("other.yaml")?;
    until("nothing is rejected", || {
        let rejected = mesh.status()?.rejected;
        ensure!(rejected.is_empty(), "{rejected:?}");
        Ok(())
    })?;
    mesh.get_at_last("shop/thief", &server)?;
    mesh.refused_at_last("shop/client", &server)
}
