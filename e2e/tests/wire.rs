//! Nobody on the wire between nodes can read what pods in the mesh say; a namespace joins and leaves by its label
//! while its pods keep running.
//!
//! Each trial looks at the same wire before joining, where the words must be seen: a capture that sees nothing cannot
//! pass.
use anyhow::{Result, ensure};
use e2e::harness::{Shared, Suite};
use e2e::yaml::{Pod, all, namespace, service};
use e2e::{Mesh, yaml};

const REQUEST: &str = "a-secret-question";
const ANSWER: &str = "a-secret-answer";

pub(crate) fn trials(suite: &mut Suite) {
    let mesh = Shared::new(|| {
        let mesh = Mesh::up(&all(&[
            Pod::new("plain", "client", "node1").yaml(),
            Pod::new("plain", "server", "node2").http(8080, ANSWER).peer().yaml(),
            service("plain", "server", "server", 80, 8080),
        ]))?;
        mesh.apply("plain.yaml", &namespace("plain", false))?;
        Ok(mesh)
    });
    suite.on(
        &mesh,
        "wire::a_namespace_joins_and_leaves_without_restarts_and_only_then_is_unreadable",
        joins_and_leaves,
    );
}

struct Seen {
    question: u64,
    answer: u64,
    hbone: u64,
}

/// Lets the client ask, and says what of it could be read between the nodes.
fn look(mesh: &Mesh) -> Result<Seen> {
    let capture = mesh.capture(&[REQUEST, ANSWER])?;
    let body = mesh.get("plain/client", &format!("http://server/{REQUEST}"))?;
    let seen = capture.finish()?;
    ensure!(body == ANSWER, "{body}");
    ensure!(seen.packets > 0 && seen.lost == 0, "the capture proves nothing: {seen:?}");
    Ok(Seen { question: seen.count(REQUEST), answer: seen.count(ANSWER), hbone: seen.hbone })
}

fn joins_and_leaves(mesh: &Mesh) -> Result<()> {
    let pods = ["plain/client", "plain/server"];
    for pod in pods {
        mesh.pod_ready(pod, false)?;
    }
    let born = |pod: &str| mesh.pod(pod).map(|p| (p.uid, p.restarts));
    let before = [born(pods[0])?, born(pods[1])?];

    let outside = look(mesh)?;
    ensure!(outside.question > 0 && outside.answer > 0, "plain traffic must be readable for this to prove anything");
    ensure!(outside.hbone == 0, "HBONE outside of the mesh");
    // Opened before joining, this connection keeps its path.
    let kept = mesh.traffic("plain/client", &format!("{}:9100", mesh.ip("plain/server", false)?), &["--kept"])?;

    mesh.apply("plain.yaml", &yaml::namespace("plain", true))?;
    for pod in pods {
        mesh.pod_ready(pod, true)?;
    }
    // From the moment ambit says so, not later: no waiting here.
    let inside = look(mesh)?;
    ensure!(
        inside.question == 0 && inside.answer == 0,
        "read on the wire in the mesh: {} {}",
        inside.question,
        inside.answer
    );
    ensure!(inside.hbone > 0, "no HBONE on the wire");
    kept.finish()?.flawless(10)?;

    mesh.apply("plain.yaml", &yaml::namespace("plain", false))?;
    for pod in pods {
        mesh.pod_ready(pod, false)?;
    }
    mesh.get_at_last("plain/client", "http://server/")?;
    let left = look(mesh)?;
    ensure!(left.question > 0 && left.answer > 0 && left.hbone == 0, "still in the mesh");
    ensure!([born(pods[0])?, born(pods[1])?] == before, "a pod was restarted");
    Ok(())
}
