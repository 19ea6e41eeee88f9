//! A mistake in the YAML is told with file, line and field; it costs nothing but itself.
//!
//! Seen red when the last good version was forgotten, when the field was not told, and when every policy allowed.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::command::{self, LIMIT, ambit};
use e2e::harness::Suite;
use e2e::until::until;
use e2e::yaml::{Pod, all, namespace, service};
use rustix::process::Signal;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("bad_yaml::a_mistake_is_told_and_everything_good_keeps_serving", mistakes);
    suite.trial("bad_yaml::what_was_last_good_outlives_the_control_plane", restarts);
    suite.trial("bad_yaml::a_fresh_mesh_with_a_refused_policy_does_not_look_well", fresh);
    suite.trial("bad_yaml::a_policy_of_another_revision_is_left_to_it", revisions);
    suite.trial("bad_yaml::a_waypoint_that_is_not_there_is_not_gone_around", waypoint);
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
    let told = rejected
        .iter()
        .find(|r| r.position.to_string().starts_with("policy.yaml:5"))
        .with_context(|| format!("{rejected:?}"))?;
    for word in ["no-thief", "spec.action", "DENNY"] {
        ensure!(told.reason.contains(word), "it does not say {word}: {told:?}");
    }
    ensure!(rejected.iter().any(|r| r.position.to_string().starts_with("garbage.yaml")), "{rejected:?}");
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

const STRICT: &str = "\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec:
  mtls: {mode: STRICT}
";

/// What it is for: nothing was kept on disk, and the thief was let in right after the restart.
fn restarts() -> Result<()> {
    let mesh = Mesh::up(&all(&[
        namespace("shop", true),
        namespace("street", false),
        Pod::new("shop", "client", "node1").yaml(),
        Pod::new("shop", "thief", "node1").yaml(),
        Pod::new("street", "outsider", "node1").yaml(),
        Pod::new("shop", "server", "node2").http(8080, "here").yaml(),
    ]))?;
    outlives(&mesh).map_err(|e| e.context(mesh.report()))
}

fn outlives(mesh: &Mesh) -> Result<()> {
    let server = format!("http://{}:8080/", mesh.ip("shop/server", false)?);
    mesh.get_at_last("shop/thief", &server)?;
    mesh.get_at_last("street/outsider", &server)?;
    mesh.apply("policy.yaml", GOOD)?;
    mesh.apply("strict.yaml", STRICT)?;
    mesh.refused_at_last("shop/thief", &server)?;
    mesh.refused_at_last("street/outsider", &server)?;
    // It is published before it is kept.
    until("what is in force is kept on disk", || {
        let mut kept = String::new();
        for entry in std::fs::read_dir(mesh.istiod_state()?.join("last-good"))? {
            kept += &std::fs::read_to_string(entry?.path())?;
        }
        ensure!(kept.contains("no-thief") && kept.contains("strict"), "{kept}");
        Ok(())
    })?;

    // One file of which not even the kind can be read, one field that nobody knows.
    mesh.apply("policy.yaml", &GOOD.replace("rules: [{", "rules: [[{"))?;
    mesh.apply("strict.yaml", &STRICT.replace("  mtls", "mtls"))?;
    for (round, killed) in [true, false, true].into_iter().enumerate() {
        if killed {
            mesh.restart("istiod-lite", Signal::KILL)?;
        } else {
            mesh.replace("istiod-lite")?;
        }
        // What is new reaches both ztunnels: they have heard the new process.
        let name = format!("late-{round}");
        mesh.apply(&format!("{name}.yaml"), &Pod::new("shop", &name, "node1").http(8080, &name).yaml())?;
        mesh.pod_known(&format!("shop/{name}"), true)?;
        ensure!(mesh.get("shop/thief", &server).is_err(), "round {round}: the restart opened the door to the thief");
        ensure!(mesh.get("street/outsider", &server).is_err(), "round {round}: the restart let plaintext in");
        mesh.get("shop/client", &server)?;
        until("status says that what was last good of both is kept", || {
            let rejected = mesh.status()?.rejected;
            ensure!(rejected.len() == 2 && rejected.iter().all(|r| r.last_good_kept), "{rejected:?}");
            Ok(())
        })?;
    }

    // Where nobody knows what was in force, everything it may be about is refused.
    mesh.apply("policy.yaml", &GOOD.replace("action", "aktion"))?;
    // Stopped, so that it does not write it again before it is killed.
    mesh.signal("istiod-lite", Signal::STOP)?;
    std::fs::remove_dir_all(mesh.istiod_state()?.join("last-good")).context("cannot lose what was kept")?;
    mesh.restart("istiod-lite", Signal::KILL)?;
    mesh.refused_at_last("shop/client", &server)?;
    ensure!(mesh.get("shop/thief", &server).is_err(), "the restart opened the door to the thief");
    until("status says that it is closed", || {
        let rejected = mesh.status()?.rejected;
        let told =
            rejected.iter().find(|r| r.position.to_string().starts_with("policy.yaml")).context("nothing rejected")?;
        ensure!(told.reason.contains("refused until it is mended") && !told.last_good_kept, "{told:?}");
        Ok(())
    })?;

    mesh.apply("policy.yaml", &GOOD.replace("DENY", "ALLOW"))?;
    mesh.apply("strict.yaml", STRICT)?;
    mesh.get_at_last("shop/thief", &server)?;
    mesh.refused_at_last("shop/client", &server)
}

/// What it is for: the field at the wrong place was skipped; exit code 0, and plaintext was let in.
fn fresh() -> Result<()> {
    let mesh = Mesh::up(&all(&[
        namespace("shop", true),
        Pod::new("shop", "server", "node2").http(8080, "here").yaml(),
        format!("---\n{}", STRICT.replace("  mtls", "mtls")),
    ]))?;
    unwell(&mesh).map_err(|e| e.context(mesh.report()))
}

fn unwell(mesh: &Mesh) -> Result<()> {
    let status = || command::run(ambit().args(["status", "--name", mesh.name()]), LIMIT);
    let said = status()?;
    ensure!(said.code == 3, "exit code {}: {}", said.code, said.stdout);
    let alarm = said.stdout.lines().nth(1).unwrap_or_default();
    ensure!(alarm.starts_with("REFUSED: base.yaml:"), "{}", said.stdout);
    for word in ["PeerAuthentication strict: mtls: unknown field `mtls`", "`spec.mtls`"] {
        ensure!(said.stdout.contains(word), "it does not say {word}: {}", said.stdout);
    }
    // `up --detach` of the same folder says the same.
    let other = format!("{}-detached", mesh.name());
    let up = command::run(
        ambit().args(["up", "--detach", "--name", &other, "-f"]).arg(mesh.folder.path()),
        std::time::Duration::from_secs(90),
    )?;
    command::run(ambit().args(["down", "--name", &other]), LIMIT)?.good()?;
    ensure!(up.code == 3 && up.stdout.contains("\nREFUSED: base.yaml:"), "exit code {}: {}", up.code, up.stdout);

    mesh.edit("base.yaml", "\nmtls:", "\n  mtls:")?;
    until("all is well", || {
        let said = status()?;
        ensure!(said.code == 0 && !said.stdout.contains("REFUSED"), "exit code {}: {}", said.code, said.stdout);
        Ok(())
    })
}

/// What it is for: the label was not looked at, and the policy was in force.
fn revisions() -> Result<()> {
    let mesh = Mesh::up(&all(&[
        namespace("shop", true),
        Pod::new("shop", "thief", "node1").yaml(),
        Pod::new("shop", "server", "node2").http(8080, "here").yaml(),
    ]))?;
    left(&mesh).map_err(|e| e.context(mesh.report()))
}

fn left(mesh: &Mesh) -> Result<()> {
    let server = format!("http://{}:8080/", mesh.ip("shop/server", false)?);
    mesh.get_at_last("shop/thief", &server)?;
    let labelled = |revision: &str| {
        GOOD.replace("namespace: shop", &format!("namespace: shop, labels: {{istio.io/rev: {revision}}}"))
    };
    mesh.apply("policy.yaml", &labelled("canary"))?;
    until("the control plane has read it", || {
        let told = mesh.status()?.policies.pop().context("no policy")?;
        ensure!(!told.accepted && told.reason == "OtherRevision" && told.message.contains("canary"), "{told:?}");
        Ok(())
    })?;
    // Another policy that is told later has reached the ztunnels, and this one has not.
    let other = GOOD.replace("no-thief", "no-other").replace("sa/thief", "sa/other");
    mesh.apply("other.yaml", &other)?;
    until("the other policy has come", || {
        let policies = mesh.config_dump("node2")?["policies"].to_string();
        ensure!(policies.contains("no-other") && !policies.contains("no-thief"), "{policies}");
        Ok(())
    })?;
    mesh.get("shop/thief", &server)?;
    mesh.apply("policy.yaml", &labelled("default"))?;
    mesh.refused_at_last("shop/thief", &server)
}

/// What it is for: the label was not looked at, and the connection went straight.
fn waypoint() -> Result<()> {
    let mesh = Mesh::up(&all(&[
        namespace("shop", true),
        Pod::new("shop", "client", "node1").yaml(),
        Pod::new("shop", "server", "node2").http(8080, "here").yaml(),
        service("shop", "server", "server", 80, 8080),
    ]))?;
    not_gone_around(&mesh).map_err(|e| e.context(mesh.report()))
}

/// It is the waypoint's to decide.
const AT_THE_WAYPOINT: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-deletes, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: server}]
  action: DENY
  rules: [{to: [{operation: {methods: [DELETE]}}]}]
";

fn not_gone_around(mesh: &Mesh) -> Result<()> {
    mesh.get_at_last("shop/client", "http://server/")?;
    let joined = r#""istio.io/dataplane-mode":"ambient""#;
    mesh.edit("base.yaml", joined, &format!(r#"{joined},"istio.io/use-waypoint":"nowhere""#))?;
    // As in Istio, while there is nothing that would be gone around.
    mesh.get_at_last("shop/client", "http://server/")?;
    mesh.apply("policy.yaml", AT_THE_WAYPOINT)?;
    // The server's node may hear of it first, and refuse what does not come from the waypoint.
    mesh.refused_because("shop/client", "http://server/", "ztunnel-node1", &["UNKNOWN_WAYPOINT", "nowhere"])?;
    until("status says so", || {
        let told =
            mesh.status()?.policies.into_iter().find(|p| p.reason == "WaypointIsNotReady").context("not said")?;
        ensure!(told.kind == "Namespace" && told.name == "shop" && told.message.contains("shop/nowhere"), "{told:?}");
        Ok(())
    })?;
    mesh.edit("base.yaml", r#""nowhere""#, r#""none""#)?;
    mesh.get_at_last("shop/client", "http://server/").map(drop)
}
