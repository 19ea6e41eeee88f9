//! `ambit up --set` and the programs agree: what a node agent is told with `--set` is what `ambit` goes by as well.
//!
//! Seen red when `ambit` judged enrolment and DNS capture with the agent's defaults: the mesh never became ready, because
//! the pod of the excluded namespace was said to be on its way in.
use anyhow::{Result, ensure};
use e2e::Mesh;
use e2e::harness::Suite;
use e2e::yaml::{Pod, all, namespace};

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("settings::what_the_agent_is_told_ambit_goes_by", agent);
}

fn agent() -> Result<()> {
    let mesh = Mesh::up_with(
        &all(&[
            namespace("shop", true),
            namespace("legacy", true),
            Pod::new("shop", "web", "node1").yaml(),
            Pod::new("legacy", "web", "node2").yaml(),
        ]),
        &["--set", "node-agent:EXCLUDE_NAMESPACES=legacy", "--set", "node-agent-node1:AMBIENT_DNS_CAPTURE=false"],
    )?;
    agrees(&mesh).map_err(|e| e.context(mesh.report()))
}

fn agrees(mesh: &Mesh) -> Result<()> {
    mesh.pod_ready("shop/web", true)?;
    let out = mesh.pod_ready("legacy/web", false)?;
    ensure!(out.mesh.reason.contains("settings exclude"), "{:?}", out.mesh);
    // Nobody answers DNS there, so the pod is not told of a name server.
    let resolv_conf = mesh.exec("shop/web", &["cat", "/etc/resolv.conf"])?.good()?;
    ensure!(!resolv_conf.contains("nameserver"), "{resolv_conf}");
    Ok(())
}
