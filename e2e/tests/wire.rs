//! Nobody on the wire between nodes can read what pods in the mesh say; a namespace joins and leaves by its label
//! while its pods keep running.
//!
//! Each trial looks at the same wire before joining, where the words must be seen: a capture that sees nothing cannot
//! pass.
//!
//! Seen red when the node agent wrote no redirect rules; the second trial when rules caught open connections, too.
use anyhow::{Result, ensure};
use e2e::Mesh;
use e2e::harness::{SharedMesh, Suite};
use e2e::yaml::{Pod, all, namespace, service};

const REQUEST: &str = "a-secret-question";
const ANSWER: &str = "a-secret-answer";
const PODS: [&str; 2] = ["plain/client", "plain/server"];

pub(crate) fn trials(suite: &mut Suite) {
    let mesh = SharedMesh::new(|| {
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
    suite.on(&mesh, "wire::a_connection_opened_before_joining_survives_it", survives);
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

/// Edits the namespace's label and waits until everybody knows.
fn move_namespace(mesh: &Mesh, ambient: bool) -> Result<()> {
    mesh.apply("plain.yaml", &namespace("plain", ambient))?;
    for pod in PODS {
        mesh.pod_ready(pod, ambient)?;
        mesh.pod_known(pod, ambient)?;
    }
    Ok(())
}

fn joins_and_leaves(mesh: &Mesh) -> Result<()> {
    move_namespace(mesh, false)?;
    let born = |pod: &str| mesh.pod(pod).map(|p| (p.uid, p.restarts));
    let before = [born(PODS[0])?, born(PODS[1])?];

    let outside = look(mesh)?;
    ensure!(outside.question > 0 && outside.answer > 0, "plain traffic must be readable for this to prove anything");
    ensure!(outside.hbone == 0, "HBONE outside of the mesh");

    move_namespace(mesh, true)?;
    let inside = look(mesh)?;
    ensure!(
        inside.question == 0 && inside.answer == 0,
        "read on the wire in the mesh: {} {}",
        inside.question,
        inside.answer
    );
    ensure!(inside.hbone > 0, "no HBONE on the wire");

    move_namespace(mesh, false)?;
    let left = look(mesh)?;
    ensure!(left.question > 0 && left.answer > 0 && left.hbone == 0, "still in the mesh");
    ensure!([born(PODS[0])?, born(PODS[1])?] == before, "a pod was restarted");
    Ok(())
}

fn survives(mesh: &Mesh) -> Result<()> {
    move_namespace(mesh, false)?;
    let server = format!("{}:9100", mesh.ip("plain/server", false)?);
    let kept = mesh.traffic("plain/client", &server, &["--kept", "--at-least", "10"])?;
    move_namespace(mesh, true)?;
    // New connections are in the mesh by now, the old one goes its old way.
    let inside = look(mesh)?;
    ensure!(inside.answer == 0 && inside.hbone > 0, "not in the mesh");
    kept.finish()?.flawless(10)?;
    move_namespace(mesh, false)
}
